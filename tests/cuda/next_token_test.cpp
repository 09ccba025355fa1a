// Tokens that the device chooses: what the host's mixture and sampler choose of the same logits.
#include <finteam/backend/cuda.hpp>
#include <finteam/mix/mixture.hpp>
#include <finteam/team/session.hpp>
#include <finteam/text/sampler.hpp>

#include "backend/inputs.hpp"
#include "catch.hpp"
#include "team/answers.hpp"
#include "team/shared_folder.hpp"
#include "tolerance.hpp"

#include <limits>
#include <numeric>

using namespace finteam;

namespace {

constexpr float forbidden = -std::numeric_limits<float>::infinity();

/// What a step's rows are chosen from: logits [t, n, v] on the host and on the device.
struct Choice {
  Choice(Cuda& cuda, index_t rows, std::vector<double> shares, index_t vocabulary, std::vector<float> values)
      : b(cuda),
        t(rows),
        n(static_cast<index_t>(shares.size())),
        v(vocabulary),
        weight(std::move(shares)),
        logits(std::move(values)),
        device(cuda.tensor<float, 2>({t * n, v}, nullptr)),
        before(60) {
    for (std::size_t i = 0; i < before.size(); ++i) {
      before[i] = static_cast<std::int32_t>(i * 7 % static_cast<std::size_t>(v));
    }
    put();
  }
  Choice(Cuda& cuda, index_t rows, std::vector<double> shares, index_t vocabulary, std::uint64_t seed)
      : Choice(cuda, rows, shares, vocabulary,
               inputs::values(rows * static_cast<index_t>(shares.size()) * vocabulary, seed)) {}

  void put() { b.from_host({logits.data(), {t * n, v}}, device.view()); }

  /// What the device chooses for the rows from `first` on, as if no other were there.
  std::vector<NextToken> on_device(const Sampling& sampling, index_t first, index_t count) {
    std::vector<VectorView<const float, Device>> rows;
    for (index_t i = first * n; i < (first + count) * n; ++i) rows.push_back(device.view().row(i));
    std::vector<NextToken> to(static_cast<std::size_t>(count));
    b.begin(RowKind::generated);
    b.next_tokens({.logits = rows,
                   .weight = weight,
                   .mixes_logits = mixes_logits,
                   .absent = absent,
                   .before = before_row(first + count - 1),
                   .sampling = sampling},
                  to);
    return to;
  }
  /// The same on the host, of one row.
  NextToken on_host(const Sampling& sampling, index_t row) {
    std::vector<float> x(logits.begin() + row * n * v, logits.begin() + (row + 1) * n * v),
        y(static_cast<std::size_t>(v));
    mix_next_token(mixes_logits ? MixIn::logits : MixIn::probabilities, weight, {x.data(), {n, v}}, y);
    for (const std::int32_t id : absent) y[static_cast<std::size_t>(id)] = forbidden;
    Sampler sampler(v);
    const auto seen = before_row(row);
    const std::int32_t id = sampler.sample({y.data(), {v}}, static_cast<std::int64_t>(seen.size()), sampling, seen);
    return {id, y[static_cast<std::size_t>(id)]};
  }
  [[nodiscard]] std::span<const std::int32_t> before_row(index_t row) const {
    return std::span(before).first(before.size() - static_cast<std::size_t>(t - 1 - row));
  }

  Cuda& b;
  index_t t, n, v;
  std::vector<double> weight;
  std::vector<float> logits;
  DeviceTensor<float, 2> device;
  std::vector<std::int32_t> before, absent;
  bool mixes_logits = false;
};

void check_choice(Choice& c, const Sampling& sampling) {
  const auto all = c.on_device(sampling, 0, c.t);
  for (index_t row = 0; row < c.t; ++row) {
    CAPTURE(row, c.v, c.n, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p,
            sampling.repetition_penalty, sampling.seed);
    const NextToken found = all[static_cast<std::size_t>(row)], expected = c.on_host(sampling, row);
    CHECK(found.id == expected.id);
    CHECK(tolerance::log_p.holds(found.log_p, expected.log_p));
    const NextToken alone = c.on_device(sampling, row, 1).front();
    CHECK(alone.id == found.id);
    CHECK(inputs::bits(alone.log_p) == inputs::bits(found.log_p));
  }
}

const std::vector<Sampling> samplings = {
    {},
    {.temperature = 1},
    {.temperature = 0.7F, .top_k = 3},
    {.temperature = 3, .top_k = 40},
    {.temperature = 1.5F, .top_p = 0.3F},
    {.temperature = 2, .top_p = 0.95F},
    {.temperature = 2, .top_k = 50, .top_p = 0.8F},
    {.temperature = 1.2F, .min_p = 0.05F},
    {.temperature = 2, .top_k = 100, .top_p = 0.9F, .min_p = 0.2F},
    {.repetition_penalty = 3},
    {.temperature = 1, .repetition_penalty = 1.5F, .repetition_window = 9},
    {.temperature = 2, .top_k = 30, .top_p = 0.9F, .repetition_penalty = 0.5F},
};

}  // namespace

TEST_CASE("a device chooses the token that the host would choose, whatever rows are beside it", "[cuda][law3]") {
  const index_t v = GENERATE(5, 300, 4500);
  const std::vector<double> weight = GENERATE(std::vector<double>{1}, std::vector<double>{0.5, 0.3, 0.2});
  const bool mixes_logits = GENERATE(false, true);
  Cuda b;
  Choice c(b, v > 1000 ? 2 : 3, weight, v, static_cast<std::uint64_t>(v));
  c.mixes_logits = mixes_logits;
  c.absent = {static_cast<std::int32_t>(v) - 1, 2};
  std::uint64_t seed = 3;
  for (Sampling sampling : samplings) {
    sampling.seed = seed++;
    check_choice(c, sampling);
  }
}

TEST_CASE("of tokens that are as likely as each other a device keeps those of the lowest ids", "[cuda]") {
  Cuda b;
  Choice c(b, 1, {1}, 3000, std::vector<float>(3000, 0.25F));
  check_choice(c, {});
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    check_choice(c, {.temperature = 1, .top_k = 7, .seed = seed});
    check_choice(c, {.temperature = 1, .top_p = 0.011F, .seed = seed});
    check_choice(c, {.temperature = 1, .top_k = 700, .top_p = 0.3F, .seed = seed});
    check_choice(c, {.temperature = 1, .min_p = 1, .seed = seed});
    CHECK(c.on_device({.temperature = 1, .top_k = 7, .seed = seed}, 0, 1).front().id < 7);
  }
}

TEST_CASE("a device keeps what is likeliest among logits that are far apart, close together, or forbidden", "[cuda]") {
  Cuda b;
  Choice c(b, 1, {1}, 2500, 77);
  for (std::size_t i = 0; i < c.logits.size(); ++i) {
    float& x = c.logits[i];
    x = i % 5 == 0 ? forbidden : i % 5 == 1 ? 1e30F * x : i % 5 == 2 ? 1 + x * 1e-6F : 30 * x;
  }
  for (int scale = 0; scale < 3; ++scale) {
    c.put();
    for (const int k : {1, 2, 10, 499, 1999, 2000, 2499}) {
      check_choice(c, {.temperature = 1e20F, .top_k = k, .seed = 5});
      check_choice(c, {.temperature = 20, .top_k = k, .seed = 6});
    }
    for (const float p : {1e-6F, 0.5F, 0.999F}) check_choice(c, {.temperature = 20, .top_p = p, .seed = 7});
    for (float& x : c.logits) x = x == forbidden ? x : std::fmod(x, 1.0F);
  }
}

TEST_CASE("where nothing can be chosen a device says so", "[cuda]") {
  const float bad =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), forbidden);
  Cuda b;
  Choice c(b, 2, {0.5, 0.5}, 400, 9);
  c.mixes_logits = GENERATE(false, true);
  for (index_t i = 0; i < 400; ++i) {
    if (bad == forbidden || i == 17) c.logits[static_cast<std::size_t>(i)] = bad;
  }
  c.put();
  for (const float temperature : {0.0F, 1.0F}) {
    const auto found = c.on_device({.temperature = temperature, .top_k = 5, .top_p = 0.9F}, 0, 2);
    CHECK(found[0].id == -1);
    CHECK(found[1].id >= 0);
  }
}

TEST_CASE("a device says how likely tokens are", "[cuda]") {
  const index_t v = GENERATE(7, 5000);
  Cuda b;
  Choice c(b, 3, {1}, v, 31);
  c.logits[static_cast<std::size_t>(v) + 1] = forbidden;
  c.logits[static_cast<std::size_t>(2 * v)] = std::numeric_limits<float>::quiet_NaN();
  c.put();
  const std::vector<Foretold> tokens{{0, 0}, {0, 5}, {1, static_cast<std::int32_t>(v) - 1}, {1, 1}, {2, 3}};
  std::vector<double> found(tokens.size());
  b.begin(RowKind::generated);
  b.log_p(c.device.view(), tokens, found);
  for (std::size_t i = 0; i < 3; ++i) {
    const float* const row = &c.logits[static_cast<std::size_t>(tokens[i].row * v)];
    const double total = log_sum_exp(std::span<const float>(row, static_cast<std::size_t>(v)));
    CHECK(tolerance::log_p.holds(found[i], static_cast<double>(row[tokens[i].id]) - total));
  }
  CHECK(found[3] == static_cast<double>(forbidden));
  CHECK(std::isnan(found[4]));
}

TEST_CASE("choosing tokens is part of the step's graph, however long what was seen becomes", "[cuda]") {
  Cuda b;
  Choice c(b, 1, {0.5, 0.5}, 300, 21);
  static_cast<void>(c.on_device({}, 0, 1));
  for (int i = 0; i < 5; ++i) {
    const Sampling sampling{.temperature = 1, .seed = static_cast<std::uint64_t>(i), .repetition_penalty = 1.2F};
    CHECK(c.on_device(sampling, 0, 1).front().id == c.on_host(sampling, 0).id);
    CHECK(b.graphs() == (i == 0 ? 0 : 1));
    c.before.push_back(i == 3 ? 250 : i);
  }
}

TEST_CASE("a team's text on a device is the CPU's, greedy or not, guessed ahead or not", "[cuda]") {
  const bool shared = GENERATE(false, true);
  const test::TeamFolder separate;
  const test::SharedFolder lora;
  const auto& folder = shared ? lora.path() : separate.path();
  const auto on_cpu = open_team(folder);
  const auto on_device = open_team(folder, Cuda());
  const SessionLimits limits{.tokens = 128, .rows = 32};
  Session cpu(on_cpu, limits);
  Session<Cuda> device(on_device, limits);
  const auto check = [&](const Sampling& sampling, std::initializer_list<Draft> drafts) {
    const std::string text = "Rates rose and rates rose and";
    const Generation expected = cpu.generate(text, test::quiet, {.max_tokens = 5, .sampling = sampling});
    for (const Draft draft : drafts) {
      const Generation& found =
          device.generate(text, test::quiet, {.max_tokens = 5, .sampling = sampling, .draft = draft});
      CHECK(found.ids == expected.ids);
      CHECK(tolerance::whole_model.holds(found.log_probability, expected.log_probability));
    }
  };
  check({.repetition_penalty = 1.3F}, {shared ? Draft::prompt : Draft::favourite});
  check({.temperature = 0.8F, .top_k = 40, .top_p = 0.95F, .seed = 4}, {Draft::none});
}
