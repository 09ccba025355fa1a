// Experts that a device chooses and multiplies by: routing against the CPU's, products against those by one expert
// after the other, merged checkpoints against their goldens, law 3, and that a step of them is one graph.
#include <finteam/backend/cuda.hpp>
#include <finteam/team/session.hpp>

#include "backend/inputs.hpp"
#include "catch.hpp"
#include "cuda/device_rows.hpp"
#include "expert/parity.hpp"
#include "team/merged_team.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <vector>

using namespace finteam;

namespace {

namespace layouts = finteam::cuda_v0_1;
using device_rows::Floats;
using device_rows::give;
using device_rows::read_rows;
using device_rows::same_bits;
using Ints = std::vector<std::int32_t>;
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN(),
                infinity = std::numeric_limits<float>::infinity();

template <class T>
std::vector<T> read(const Cuda& cuda, const T* from, index_t n) {
  std::vector<T> to(static_cast<std::size_t>(n));
  detail::check(layouts::copy_out(cuda.context()->get(), to.data(), from, to.size() * sizeof(T)), "a copy");
  detail::check(layouts::wait(cuda.context()->get()), "a copy");
  return to;
}
bool close(float a, float b) { return std::isnan(b) ? std::isnan(a) : tolerance::exponential.holds(a, b); }

/// What a router made of rows, where the CPU can read it.
struct Routed {
  Routed(Cuda& cuda, const Floats& logits, index_t rows, RouteRule rule)
      : t(rows), n(static_cast<index_t>(logits.size()) / rows), on_device(cuda.routes(rows + 3, n, rule)) {
    const auto x = give(cuda, logits, rows);
    auto y = cuda.tensor<float, 2>({rows, n}, nullptr);
    cuda.route(x.view(), on_device, y.view());
    weights = read_rows(cuda, y.view());
    const layouts::Routes r = on_device.get(rows);
    expert = read<std::int32_t>(cuda, r.expert, rows * r.top_k);
    slots = read<float>(cuda, r.weight, rows * r.top_k);
    groups = read<std::int32_t>(cuda, r.groups, 2 * r.group_count());
    pairs = read<std::int32_t>(cuda, r.pairs, rows * r.group_count());
  }
  index_t t, n;
  DeviceRoutes on_device;
  Floats weights, slots;
  Ints expert, groups, pairs;
};

/// weights[t,:] as the CPU has them, and slots and lists as those weights make them.
void check_routes(const Routed& r, const Floats& logits, RouteRule rule) {
  const auto k = static_cast<std::size_t>(r.on_device.top_k()), n = static_cast<std::size_t>(r.n);
  std::vector<Ints> of_expert(n);
  for (std::size_t t = 0; t < static_cast<std::size_t>(r.t); ++t) {
    std::vector<double> scores(logits.begin() + static_cast<std::ptrdiff_t>(t * n),
                               logits.begin() + static_cast<std::ptrdiff_t>((t + 1) * n));
    gate_weights({.top_k = rule.top_k, .renormalise = rule.renormalise}, scores);
    std::size_t slot = 0;
    for (std::size_t i = 0; i < n; ++i) {
      CAPTURE(t, i);
      const float weight = r.weights[t * n + i];
      CHECK(close(weight, static_cast<float>(scores[i])));
      if (weight == 0 || slot == k) continue;
      CHECK(r.expert[t * k + slot] == static_cast<std::int32_t>(i));
      CHECK(inputs::bits(r.slots[t * k + slot]) == inputs::bits(weight));
      of_expert[i].push_back(static_cast<std::int32_t>(t * k + slot++));
    }
    for (; slot < k; ++slot) CHECK(r.expert[t * k + slot] == -1);
  }
  std::size_t g = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (of_expert[i].empty()) continue;
    CHECK(r.groups[2 * g] == static_cast<std::int32_t>(i));
    CHECK(r.groups[2 * g + 1] == static_cast<std::int32_t>(of_expert[i].size()));
    const auto begin = r.pairs.begin() + static_cast<std::ptrdiff_t>(g++) * r.t;
    CHECK(Ints(begin, begin + static_cast<std::ptrdiff_t>(of_expert[i].size())) == of_expert[i]);
  }
  for (; 2 * g < r.groups.size(); ++g) CHECK(r.groups[2 * g + 1] == 0);
}

}  // namespace

TEST_CASE("a device chooses experts as the CPU does, by rising index, and lists each one's rows", "[cuda]") {
  Cuda cuda;
  const RouteRule rule =
      GENERATE(values<RouteRule>({{1, true}, {2, true}, {2, false}, {7, true}, {7, false}, {0, true}}));
  CAPTURE(rule.top_k, rule.renormalise);
  Floats seven = inputs::values(7 * 19, 5);
  check_routes(Routed(cuda, seven, 19, rule), seven, rule);
  const Floats odd{1,         1,
                   1,         1,
                   1,         1,
                   1,  // ties
                   0,         3,
                   3,         2,
                   3,         -1,
                   0,  // ties for the first
                   -infinity, 0,
                   -infinity, -infinity,
                   1,         -infinity,
                   -infinity,  // weights of 0
                   0,         not_a_number,
                   1,         2,
                   3,         4,
                   5,  // NaN is everybody's
                   infinity,  0,
                   0,         0,
                   0,         0,
                   0,  // so is what it makes of this
                   -infinity, -infinity,
                   -infinity, -infinity,
                   -infinity, -infinity,
                   -infinity, 1000,
                   0,         0,
                   0,         0,
                   0,         0,  // others vanish
                   1e-8F,     0,
                   1e-8F,     0,
                   0,         2e-8F,
                   0};
  check_routes(Routed(cuda, odd, 8, rule), odd, rule);
}

TEST_CASE("a device chooses among many experts, and among one", "[cuda]") {
  Cuda cuda;
  const Floats many = inputs::values(3 * 130, 9), one{0.5F, not_a_number};
  check_routes(Routed(cuda, many, 3, {.top_k = 8}), many, {.top_k = 8});
  check_routes(Routed(cuda, one, 2, {.top_k = 1}), one, {.top_k = 1});
}

namespace {

/// Experts [n, k], with biases or without, and rows that a router gave them.
struct Layer {
  static constexpr index_t experts = 4, top_k = 2, d = 70, f = 37;
  using Vector = DeviceTensor<float, 1>;

  Layer(Cuda& b, Weights weights, DType dtype, bool biased) : cuda(b) {
    for (index_t e = 0; e < experts; ++e) {
      const auto seed = static_cast<std::uint64_t>(10 * e);
      const inputs::File gate({f, d}, dtype, seed + 1, 0.2F), up({f, d}, dtype, seed + 2, 0.2F),
          down({d, f}, dtype, seed + 3, 0.2F), gate_up_bias({2 * f}, DType::f32, seed + 4),
          down_bias({d}, DType::f32, seed + 5);
      const std::array pair{gate.raw(), up.raw()};
      const std::array single{down.raw(), gate_up_bias.raw(), down_bias.raw()};
      gate_up.push_back(b.matrix(pair, Join::paired, weights, nullptr));
      this->down.push_back(b.matrix({&single[0], 1}, Join::stacked, weights, nullptr));
      plus.push_back(biased ? b.vector({&single[1], 1}, nullptr) : Vector());
      bias.push_back(biased ? b.vector({&single[2], 1}, nullptr) : Vector());
    }
  }
  [[nodiscard]] DeviceExperts table(const std::vector<DeviceMatrix>& w, const std::vector<Vector>& with) const {
    std::vector<ExpertMatrix<Cuda>> parts;
    for (std::size_t e = 0; e < w.size(); ++e) parts.push_back({&w[e], with[e].view()});
    return cuda.experts(parts);
  }

  /// What each pair's expert makes of gates and ups, then y += all of it. Rows of `y` are those of x.
  std::array<Floats, 3> on_device(const Floats& x, index_t t, DeviceRoutes& routes) {
    const auto to = give(cuda, x, t), own = give(cuda, inputs::values(t * d, 77), t);
    auto y = cuda.tensor<float, 2>({t * top_k, f}, nullptr), z = cuda.tensor<float, 2>({t * top_k, d}, nullptr);
    auto input = cuda.input(t * top_k, d, nullptr);
    const DeviceExperts first = table(gate_up, plus), second = table(down, bias);
    REQUIRE(!first.empty());
    REQUIRE(!second.empty());
    cuda.prepare(to.view(), gate_up[0], input);
    cuda.matmul_gated(input, first, {}, routes, y.view());
    cuda.prepare(y.view(), down[0], input);
    cuda.matmul(input, second, routes, z.view());
    auto sum = give(cuda, inputs::values(t * d, 78), t);
    cuda.add_routed(z.view(), second, routes, sum.view());
    return {read_rows(cuda, y.view()), read_rows(cuda, z.view()), read_rows(cuda, sum.view())};
  }
  /// The same of one pair, by itself.
  std::array<Floats, 2> by_expert(std::size_t e, const Floats& x) {
    const auto to = give(cuda, x, 1);
    auto y = cuda.tensor<float, 2>({1, f}, nullptr), z = cuda.tensor<float, 2>({1, d}, nullptr);
    auto input = cuda.input(1, d, nullptr);
    MatrixView<const float, Device> added;
    if (plus[e].size() != 0) added = {plus[e].data(), {1, 2 * f}};
    cuda.prepare(to.view(), gate_up[e], input);
    cuda.matmul_gated(input, gate_up[e], {}, added, y.view());
    cuda.prepare(y.view(), down[e], input);
    cuda.matmul(input, down[e], Write::overwrite, z.view());
    return {read_rows(cuda, y.view()), read_rows(cuda, z.view())};
  }

  Cuda& cuda;
  std::vector<DeviceMatrix> gate_up, down;
  std::vector<Vector> plus, bias;
};

Floats row_of(const Floats& x, std::size_t row, index_t n) {
  const auto at = x.begin() + static_cast<std::ptrdiff_t>(row) * n;
  return {at, at + n};
}

}  // namespace

TEST_CASE("products by chosen experts have the bits of those by one expert alone, and are added slot by slot",
          "[cuda][law3]") {
  const auto weights =
      GENERATE(values({Weights::stored, Weights::bf16, Weights::int8, Weights::int4, Weights::int4_zero}));
  const auto dtype = GENERATE(DType::f32, DType::bf16);
  const bool biased = dtype == DType::f32;
  if (dtype == DType::bf16 && weights != Weights::stored) return;
  CAPTURE(name(weights), name(dtype));
  Cuda cuda;
  Layer layer(cuda, weights, dtype, biased);
  constexpr index_t t = 11, d = Layer::d;
  Floats logits = inputs::values(t * Layer::experts, 3);
  for (std::size_t i = 0; i < 10; ++i) logits[4 * i + 2] = 9;  // more rows than a pass has
  logits[4] = logits[5] = logits[7] = -infinity;               // a slot that is nobody's
  Routed r(cuda, logits, t, {.top_k = Layer::top_k});
  const Floats x = inputs::values(t * d, 4), before = inputs::values(t * d, 78);
  const auto [y, z, sum] = layer.on_device(x, t, r.on_device);
  for (std::size_t row = 0; row < t; ++row) {
    Floats expected = row_of(before, row, d);
    for (std::size_t pair = row * 2; pair < row * 2 + 2 && r.expert[pair] >= 0; ++pair) {
      CAPTURE(row, pair);
      const auto e = static_cast<std::size_t>(r.expert[pair]);
      const auto [y_alone, z_alone] = layer.by_expert(e, row_of(x, row, d));
      CHECK(same_bits(row_of(y, pair, Layer::f), y_alone));
      CHECK(same_bits(row_of(z, pair, d), z_alone));
      const Floats bias = biased ? read<float>(cuda, layer.bias[e].data(), d) : Floats(d, 0.0F);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        expected[i] = std::fma(r.slots[pair], z_alone[i] + bias[i], expected[i]);
      }
    }
    CHECK(same_bits(row_of(sum, row, d), expected));
  }
}

TEST_CASE("experts that are not all alike are none for a device", "[cuda]") {
  Cuda cuda;
  const inputs::File file({16, 32}, DType::f32, 1), other({8, 32}, DType::f32, 1);
  const RawTensor raw = file.raw(), small = other.raw();
  const auto a = cuda.matrix({&raw, 1}, Join::stacked, Weights::stored, nullptr),
             b = cuda.matrix({&raw, 1}, Join::stacked, Weights::int8, nullptr),
             c = cuda.matrix({&small, 1}, Join::stacked, Weights::stored, nullptr);
  const auto empty = [&](const DeviceMatrix& x, const DeviceMatrix& y) {
    const std::array<ExpertMatrix<Cuda>, 2> parts{{{&x}, {&y}}};
    return cuda.experts(parts).empty();
  };
  CHECK(!empty(a, a));
  CHECK(empty(a, b));
  CHECK(empty(a, c));
  CHECK(cuda.experts({}).empty());
}

namespace {

/// A merged decoder on a device, and what its last step made.
struct Merged {
  explicit Merged(const std::string& name, const OpenOptions& options = {})
      : golden(name),
        decoder(Decoder<Cuda>::load(b, golden.checkpoint, golden.config, options)),
        cache(b,
              {.layers = c().layers, .kv_heads = c().g, .head_dim = c().e, .sequences = 80, .tokens = 96, .pages = 90}),
        scratch(b, c(), 96),
        hidden(b.tensor<float, 2>({96, c().d}, nullptr)),
        logits(b.tensor<float, 2>({96, c().v}, nullptr)) {}

  [[nodiscard]] const Config& c() const { return golden.config; }

  /// Logits [t, v] of rows that follow each other in a sequence.
  Floats read(const Ints& ids, std::int32_t sequence, RowKind kind) {
    std::vector<Row> rows;
    auto position = static_cast<std::int32_t>(cache.length(sequence));
    for (const std::int32_t id : ids) rows.push_back({id, position++, sequence});
    return step(rows, kind);
  }
  Floats step(const std::vector<Row>& rows, RowKind kind) {
    const auto t = static_cast<index_t>(rows.size());
    for (const Row& r : rows) cache.extend(r.sequence, std::max<index_t>(cache.length(r.sequence), r.position + 1));
    REQUIRE(!decoder.forward(b, cache, rows, scratch, hidden.view().rows(0, t), {}, {}, kind));
    decoder.logits(b, hidden.view().rows(0, t), scratch, logits.view().rows(0, t));
    return read_rows(b, std::as_const(logits).view().rows(0, t));
  }
  /// What the routers made of that, [t, layers, experts].
  Floats routing(std::size_t t) {
    const auto all = scratch.routing(b);
    return {all.data(), all.data() + static_cast<index_t>(t) * all.stride(0)};
  }

  Cuda b;
  test::Golden golden;
  Decoder<Cuda> decoder;
  KvCache<Cuda> cache;
  StepScratch<Cuda> scratch;
  DeviceTensor<float, 2> hidden, logits;
};

/// [layers, t, experts] as [t, layers, experts].
Floats by_row(const Floats& x, const Config& c) {
  const auto n = static_cast<std::size_t>(c.experts), layers = static_cast<std::size_t>(c.layers);
  const std::size_t t = x.size() / n / layers;
  Floats out;
  for (std::size_t i = 0; i < t; ++i) {
    for (std::size_t l = 0; l < layers; ++l) {
      out.insert(out.end(), x.begin() + static_cast<std::ptrdiff_t>((l * t + i) * n),
                 x.begin() + static_cast<std::ptrdiff_t>((l * t + i + 1) * n));
    }
  }
  return out;
}

}  // namespace

TEST_CASE("logits and routing of merged checkpoints on a device are the goldens', for rows of both kinds",
          "[cuda][parity]") {
  const auto name = GENERATE(as<std::string>{}, "merged3", "merged4", "qwen3_moe", "gpt_oss");
  const RowKind kind = GENERATE(RowKind::prompt, RowKind::generated);
  CAPTURE(name, static_cast<int>(kind));
  Merged run(name);
  const Ints prompt = run.golden.ids("prompt_1.ids");
  const Floats all = run.read(prompt, run.cache.open(), kind);
  Floats kept;
  for (const std::int32_t t : run.golden.ids("prompt_1.positions")) {
    const Floats row = row_of(all, static_cast<std::size_t>(t), run.c().v);
    kept.insert(kept.end(), row.begin(), row.end());
  }
  CHECK(parity::distance(kept, run.golden.floats("prompt_1.logits")) <= tolerance::parity);
  if (!name.starts_with("merged")) return;
  CHECK(parity::distance(run.routing(prompt.size()), by_row(run.golden.floats("prompt_1.routing"), run.c())) <=
        tolerance::parity);
}

TEST_CASE("experts that are kept in several formats are the CPU's to choose, as a device would", "[cuda]") {
  Merged like("merged3", {.weights = Weights::bf16});
  Merged run("merged3",
             {.weights = Weights::bf16, .choices = {{"layers.1.block_sparse_moe.experts.1.w2", Weights::stored}}});
  const auto own = run.cache.open(), others = like.cache.open();
  for (std::int32_t i = 0; i < 3; ++i) {
    const Floats found = run.read({5 + i}, own, RowKind::generated),
                 expected = like.read({5 + i}, others, RowKind::generated);
    CHECK(parity::distance(found, expected) < 0.1);  // a matrix is rounded, or not
    const Floats by_cpu = run.routing(1), on_device = like.routing(1);
    for (std::size_t k = 0; k < static_cast<std::size_t>(run.c().experts); ++k) CHECK(close(by_cpu[k], on_device[k]));
  }
}

TEST_CASE("a routed row on a device has the bits that it has alone, beside any others", "[cuda][law3]") {
  const auto name = GENERATE(as<std::string>{}, "merged3", "gpt_oss");
  const auto weights = GENERATE(Weights::stored, Weights::bf16, Weights::int8);
  CAPTURE(name, finteam::name(weights));
  Merged run(name, {.weights = weights});
  const std::size_t v = static_cast<std::size_t>(run.c().v);
  std::vector<Row> rows;
  std::vector<Floats> logits, routing;
  const auto begin = [&](std::int32_t id) {
    return Row{id % static_cast<std::int32_t>(run.c().v), 0, run.cache.open()};
  };
  for (std::int32_t i = 0; i < 67; ++i) rows.push_back(begin(7 * i));
  for (const std::size_t i : {0UL, 3UL, 66UL}) {
    logits.push_back(run.step({rows[i]}, RowKind::generated));
    routing.push_back(run.routing(1));
  }
  const auto check = [&](const std::vector<std::size_t>& places, const std::vector<Row>& batch) {
    const Floats together = run.step(batch, RowKind::generated), routes = run.routing(batch.size());
    for (std::size_t i = 0; i < places.size(); ++i) {
      CAPTURE(i, batch.size());
      CHECK(same_bits(row_of(together, places[i], static_cast<index_t>(v)), logits[i]));
      CHECK(same_bits(row_of(routes, places[i], run.c().layers * run.c().experts), routing[i]));
    }
  };
  check({0, 3}, {rows.begin(), rows.begin() + 7});
  check({0, 3, 66}, rows);  // more than are multiplied at once
}

TEST_CASE("a step behind routers becomes one graph", "[cuda]") {
  const auto name = GENERATE(as<std::string>{}, "merged3", "qwen3_moe", "gpt_oss");
  CAPTURE(name);
  Merged run(name), other(name);
  const auto own = run.cache.open(), others = other.cache.open();
  static_cast<void>(run.read({1, 2, 3}, own, RowKind::prompt));
  static_cast<void>(other.read({1, 2, 3}, others, RowKind::prompt));
  REQUIRE(run.b.graphs() == 0);
  for (std::int32_t i = 0; i < 6; ++i) {
    CAPTURE(i);
    const Floats logits = run.read({11 + 5 * i}, own, RowKind::generated);
    CHECK(run.b.graphs() == (i == 0 ? 0 : 1));
    if (i < 5) continue;
    Floats expected;  // without a graph: every row of that step in a batch of its own shape
    expected = other.read({11, 16, 21, 26, 31, 36}, others, RowKind::generated);
    CHECK(same_bits(logits, row_of(expected, 5, run.c().v)));
    CHECK(same_bits(run.routing(1), row_of(other.routing(6), 5, run.c().layers * run.c().experts)));
  }
}

TEST_CASE("a token that a reader reads behind routers is one graph, and its routing is recorded afterwards", "[cuda]") {
  const test::Golden golden("merged3");
  Cuda b;
  const auto decoder = Decoder<Cuda>::load(b, golden.checkpoint, golden.config);
  Reader<Cuda> reader(b, decoder, 1, {.tokens = 32, .rows = 8});
  const std::array<index_t, 1> lanes{0};
  Tensor<float, 2> logits({1, golden.config.v});
  Ints ids{5, 9, 14};
  reader.start(20, 3);
  for (std::int32_t i = 0; i < 6; ++i) {
    CAPTURE(i);
    const Reading text{0, ids};
    REQUIRE(!reader.read(b, {&text, 1}, {}));
    reader.logits(b, lanes, logits.view());
    CHECK(b.graphs() == (i < 2 ? 0 : 1));
    ids.push_back(20 + 3 * i);
  }
  ids.pop_back();
  Routing means;
  reader.routing(b).shape(means.prompt);
  reader.routing(b).shape(means.answer);
  reader.routing(b).means(3, means);
  Merged run("merged3");
  static_cast<void>(run.read(ids, run.cache.open(), RowKind::generated));
  const Floats expected = run.routing(ids.size());
  const std::size_t width = expected.size() / ids.size();
  for (std::size_t i = 0; i < width; ++i) {
    double prompt = 0, answer = 0;
    for (std::size_t t = 0; t < ids.size(); ++t)
      (t < 3 ? prompt : answer) += static_cast<double>(expected[t * width + i]);
    CHECK(std::abs(means.prompt.weights[i] - prompt / 3) <= tolerance::parity);
    CHECK(std::abs(means.answer.weights[i] - answer / 5) <= tolerance::parity);
  }
}

TEST_CASE("what a merged team's session says of its routing is the same on a device", "[cuda][team]") {
  const test::MergedTeam folder;
  const auto ask = [&](auto b) {
    using B = decltype(b);
    const auto team = open_team<B>(folder.path(), {}, std::move(b));
    Session<B> desk(team, {.tokens = 128, .rows = 24}, B());
    const Generation& g =
        desk.complete("Profit rose 12% in the third quarter", [](std::string_view) {}, {.max_tokens = 5});
    return std::pair(g.ids, g.routing);
  };
  const auto [ids, routing] = ask(Reference());
  const auto [ids_found, found] = ask(Cuda());
  CHECK(ids_found == ids);
  const auto same = [](const RoutingTable& a, const RoutingTable& b) {
    REQUIRE(!b.weights.empty());
    REQUIRE(a.weights.size() == b.weights.size());
    for (std::size_t i = 0; i < b.weights.size(); ++i)
      CHECK(std::abs(a.weights[i] - b.weights[i]) <= tolerance::parity);
  };
  same(found.prompt, routing.prompt);
  same(found.answer, routing.answer);
}
