// Fine-tuned checkpoints as low-bit differences to a base: the decoder computes the base plus what the files say.

#include "catch.hpp"
#include "expert/golden.hpp"
#include "random.hpp"
#include "team/shared_folder.hpp"
#include "tolerance.hpp"

#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/backend/thread_pool.hpp>
#include <finteam/expert/decoder.hpp>
#include <finteam/expert/low_bit.hpp>
#include <finteam/file/delta_writer.hpp>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

using namespace finteam;

namespace {

/// A checkpoint in a folder of its own: the golden's, each tensor changed.
struct Changed {
  Changed(const test::Golden& golden, const std::function<void(const std::string&, std::vector<float>&)>& change) {
    test::Floats file;
    for (const auto name : golden.checkpoint.names()) {
      const RawTensor raw = golden.checkpoint.tensor(name);
      std::vector<float> values;
      for (index_t i = 0; i < raw.size(); ++i) values.push_back(raw[i]);
      change(std::string(name), values);
      file.add(std::string(name), {raw.shape.begin(), raw.shape.end()}, std::move(values));
    }
    file.write(folder.path() / "model.safetensors");
    std::filesystem::copy_file(golden.folder / "config.json", folder.path() / "config.json");
  }
  [[nodiscard]] Checkpoint open() const { return Checkpoint::open(folder.path()); }
  test::TemporaryFolder folder;
};

/// Noise in the matrices of blocks, and in what `also` names.
std::function<void(const std::string&, std::vector<float>&)> noise(std::uint64_t seed, float size,
                                                                   const std::string& also = "none") {
  return [=, random = test::Random(seed)](const std::string& name, std::vector<float>& values) mutable {
    const bool matrix = name.find("_proj") != std::string::npos;
    if (!matrix && name.find(also) == std::string::npos) return;
    for (float& v : values) v += size * static_cast<float>(random.uniform(-1, 1));
  };
}

const std::vector<std::int32_t> text_ids{3, 77, 141, 5, 66, 12, 190, 8, 33, 54, 120, 7, 19, 101, 2, 63, 44};

/// Logits of text_ids in sequences side by side, each under its route, in one step.
template <Backend B>
std::vector<std::vector<float>> logits(B& b, const Decoder<B>& decoder, const std::vector<std::vector<float>>& routes) {
  const Config& c = decoder.config();
  const auto n = static_cast<index_t>(text_ids.size()), t = n * static_cast<index_t>(routes.size());
  KvCache<B> cache(b, {.layers = c.layers, .kv_heads = c.g, .head_dim = c.e, .sequences = 8, .tokens = 32, .pages = 8});
  StepScratch<B> scratch(b, c, t, std::pmr::get_default_resource(), decoder.deltas());
  std::vector<Row> rows;
  std::vector<const float*> row_routes;
  for (const auto& route : routes) {
    const auto sequence = cache.open();
    cache.extend(sequence, n);
    for (index_t i = 0; i < n; ++i) {
      rows.push_back({text_ids[static_cast<std::size_t>(i)], static_cast<std::int32_t>(i), sequence,
                      route.empty() ? nullptr : route.data()});
      row_routes.push_back(rows.back().route);
    }
  }
  Tensor<float, 2> hidden({t, c.d}), out({t, c.v});
  REQUIRE(!decoder.forward(b, cache, rows, scratch, hidden.view()));
  decoder.logits(b, hidden.view(), scratch, out.view(), row_routes);
  std::vector<std::vector<float>> each;
  for (std::size_t r = 0; r < routes.size(); ++r) {
    const float* first = out.data() + static_cast<std::ptrdiff_t>(r) * n * c.v;
    each.emplace_back(first, first + n * c.v);
  }
  return each;
}

double greatest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(d <= worst)) worst = d;  // NaN stays
  }
  return worst;
}

/// The difference of `tuned` to the golden's checkpoint, written and opened.
struct Difference {
  Difference(const test::Golden& golden, const Checkpoint& tuned, Format format = Format::int1,
             DeltaScales scales = DeltaScales::row) {
    const auto part = [](std::string_view name) {
      return name.find("_proj") != std::string_view::npos ? DeltaPart::low_bit : DeltaPart::whole;
    };
    write_delta(golden.checkpoint, tuned, folder.path(), {.format = format, .scales = scales, .part = part});
  }
  [[nodiscard]] ExpertSource open(const test::Golden& golden) const {
    return open_low_bit(folder.path(), golden.checkpoint, golden.config);
  }
  test::TemporaryFolder folder;
};

}  // namespace

TEST_CASE("no difference is the base, bit for bit", "[law1]") {
  const test::Golden golden("llama31");
  const Weights weights = GENERATE(Weights::stored, Weights::bf16, Weights::int8, Weights::int4);
  const Difference none(golden, golden.checkpoint);
  std::vector<ExpertSource> experts;
  experts.push_back(none.open(golden));
  Cpu b;
  const OpenOptions options{.weights = weights};
  const auto base = Decoder<Cpu>::load(b, golden.checkpoint, golden.config, options);
  const auto same = Decoder<Cpu>::load(b, golden.checkpoint, golden.config, options, experts);
  CHECK(logits(b, same, {{1}}).front() == logits(b, base, {{}}).front());
}

TEMPLATE_TEST_CASE("the decoder computes the base plus the difference that the files hold", "[expert]", Reference,
                   Cpu) {
  const test::Golden golden(GENERATE("llama31", "llama32"));  // tied embeddings in the second
  const Format format = GENERATE(Format::int1, Format::int2);
  const DeltaScales scales = GENERATE(DeltaScales::row, DeltaScales::matrix);
  const Changed tuned(golden, noise(5, 0.05F, "norm"));
  const Difference difference(golden, tuned.open(), format, scales);
  std::vector<ExpertSource> experts;
  experts.push_back(difference.open(golden));
  CHECK(experts[0].has_norms());
  // the same, as an ordinary checkpoint
  const DeltaCheckpoint files = DeltaCheckpoint::open(difference.folder.path(), golden.checkpoint);
  const Checkpoint fine = tuned.open();
  const Changed rebuilt(golden, [&](const std::string& name, std::vector<float>& values) {
    if (const RawDelta* d = files.find(name)) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] += (*d)(static_cast<index_t>(i) / d->k, static_cast<index_t>(i) % d->k);
      }
    } else if (files.find_whole(name) != nullptr) {
      const RawTensor raw = fine.tensor(name);
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = raw[static_cast<index_t>(i)];
    }
  });
  TestType b;
  Config config = golden.config;
  const auto base = Decoder<TestType>::load(b, golden.checkpoint, config);
  const auto expert = Decoder<TestType>::load(b, golden.checkpoint, config, {}, experts);
  const auto whole = Decoder<TestType>::load(b, rebuilt.open(), config);
  const auto expected = logits(b, whole, {{}}).front(), found = logits(b, expert, {{1}}).front(),
             plain = logits(b, base, {{}}).front();
  const double effect = greatest_difference(expected, plain), miss = greatest_difference(found, expected);
  CAPTURE(effect, miss);
  CHECK(effect > 1);
  CHECK(miss < tolerance::low_bit_share * effect);  // the difference sees activations of 8 bits
}

TEST_CASE("experts with embeddings, heads and norms of their own keep them apart in one step", "[law3]") {
  const test::Golden golden("llama31");
  const Weights weights = GENERATE(Weights::stored, Weights::int4);
  const Changed one(golden, noise(1, 0.05F, "embed_tokens")), two(golden, noise(2, 0.05F, "lm_head")),
      three(golden, noise(3, 0.05F, "layernorm"));
  std::vector<ExpertSource> experts;
  std::vector<std::vector<float>> alone;
  ThreadPool pool(3);
  Cpu b, threads{ExecutorRef(pool)};
  const OpenOptions options{.weights = weights};
  for (const Changed* tuned : {&one, &two, &three}) {
    const Difference difference(golden, tuned->open());
    std::vector<ExpertSource> only;
    only.push_back(difference.open(golden));
    alone.push_back(logits(b, Decoder<Cpu>::load(b, golden.checkpoint, golden.config, options, only), {{1}}).front());
    experts.push_back(difference.open(golden));
  }
  CHECK(experts[0].embed_tokens);
  CHECK(experts[1].lm_head);
  CHECK(experts[2].has_norms());
  const auto base = Decoder<Cpu>::load(b, golden.checkpoint, golden.config, options);
  const auto all = Decoder<Cpu>::load(b, golden.checkpoint, golden.config, options, experts);
  const auto together = logits(threads, all, {{1, 0, 0}, {}, {0, 0, 1}, {0, 1, 0}});
  CHECK(together[0] == alone[0]);
  CHECK(together[1] == logits(b, base, {{}}).front());
  CHECK(together[2] == alone[2]);
  CHECK(together[3] == alone[1]);
}

TEST_CASE("a difference to another base is refused by name", "[refused]") {
  const test::Golden golden("llama31"), other("llama3");
  const Changed tuned(golden, noise(5, 0.05F));
  const Difference difference(golden, tuned.open());
  CHECK_THROWS_WITH(open_low_bit(difference.folder.path(), other.checkpoint, other.config),
                    Catch::Contains("base") && Catch::Contains("hash"));
  // same names and shapes, other numbers: seen when all bytes are asked for
  const Checkpoint same_shapes = tuned.open();
  CHECK_NOTHROW(open_low_bit(difference.folder.path(), same_shapes, golden.config));
  CHECK_THROWS_AS(open_low_bit(difference.folder.path(), same_shapes, golden.config, BaseCheck::contents), Error);
}
