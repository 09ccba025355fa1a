#include <finteam/text/philox.hpp>
#include <finteam/text/sampler.hpp>

#include "catch.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

using namespace finteam;

namespace {
constexpr float no_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinite = std::numeric_limits<float>::infinity();

std::int32_t sample(const std::vector<float>& log_p, std::int64_t position, const Sampling& s) {
  Sampler sampler(static_cast<index_t>(log_p.size()));
  return sampler.sample({log_p.data(), {static_cast<index_t>(log_p.size())}}, position, s);
}
/// Every token that comes up at positions 0 … n - 1.
std::set<std::int32_t> support(const std::vector<float>& log_p, const Sampling& s, int n = 3000) {
  Sampler sampler(static_cast<index_t>(log_p.size()));
  std::set<std::int32_t> seen;
  for (int i = 0; i < n; ++i) seen.insert(sampler.sample({log_p.data(), {static_cast<index_t>(log_p.size())}}, i, s));
  return seen;
}
std::vector<float> random_log_p(std::size_t v, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1.5F);
  std::vector<float> x(v);
  for (float& y : x) y = normal(random);
  return x;
}
using Set = std::set<std::int32_t>;
}  // namespace

TEST_CASE("Philox4x32-10 gives the published answers", "[text]") {
  // Source: Random123 1.14, tests/kat_vectors.
  using Counter = std::array<std::uint32_t, 4>;
  CHECK(philox4x32_10({0, 0, 0, 0}, {0, 0}) == Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32_10({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}) == Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("Uniform numbers lie strictly between 0 and 1 and fill every tenth alike", "[text]") {
  std::array<int, 10> tenths{};
  for (std::int64_t position = 0; position < 200; ++position) {
    for (std::int32_t token = 0; token < 500; ++token) {
      const double u = uniform(5, position, token);
      REQUIRE(u > 0);
      REQUIRE(u < 1);
      ++tenths[static_cast<std::size_t>(u * 10)];
    }
  }
  double chi2 = 0;
  for (const int n : tenths) chi2 += (n - 10000.0) * (n - 10000.0) / 10000.0;
  CHECK(chi2 < 27.9);  // 9 degrees of freedom, p = 0.001
  CHECK(uniform(1, 2, 3) != uniform(2, 2, 3));
  CHECK(uniform(1, 2, 3) != uniform(1, 3, 3));
  CHECK(uniform(1, 2, 3) != uniform(1, 2, 4));
  CHECK(uniform(std::uint64_t{1} << 40, 2, 3) != uniform(0, 2, 3));
  CHECK(uniform(1, std::int64_t{1} << 40, 3) != uniform(1, 0, 3));
  CHECK(std::isfinite(gumbel(0x1p-53)));
  CHECK(std::isfinite(gumbel(1 - 0x1p-53)));
}

TEST_CASE("Sixteen uniform numbers at once are those of one at a time", "[text]") {
  std::mt19937_64 random(6);
  for (int trial = 0; trial < 500; ++trial) {
    const auto seed = random();
    const auto position = static_cast<std::int64_t>(random() >> 1 >> (random() % 60));
    std::array<std::int32_t, 16> ids{};
    for (auto& id : ids) id = static_cast<std::int32_t>(random() & 0x7FFFFFFF);
    std::array<double, 16> u{};
    uniforms(seed, position, ids, u);
    for (std::size_t j = 0; j < 16; ++j) REQUIRE(u[j] == uniform(seed, position, ids[j]));
  }
}

TEST_CASE("Greedy takes the likeliest token, of equals the lowest id, and never a NaN", "[text]") {
  CHECK(sample({-3, -1, -1, -2}, 0, {}) == 1);
  CHECK(sample({no_number, -5, no_number, -4}, 0, {}) == 3);
  CHECK(sample({-infinite, -infinite, -9}, 0, {}) == 2);
  CHECK(sample({0, infinite, infinite}, 0, {}) == 1);
}

TEST_CASE("A vector in which nothing can be chosen is an error, greedy or not", "[text]") {
  for (const float temperature : {0.0F, 1.0F}) {
    CHECK_THROWS_AS(sample({no_number, -infinite, no_number}, 0, {.temperature = temperature}), Error);
  }
}

TEST_CASE("Neither NaN nor -inf is ever sampled", "[text]") {
  CHECK(support({no_number, -1, -infinite, -1, no_number}, {.temperature = 2, .seed = 1}) == Set{1, 3});
  CHECK(support({no_number, -1, -infinite, -1, no_number},
                {.temperature = 2, .top_k = 4, .top_p = 0.999F, .seed = 1}) == Set{1, 3});
}

TEST_CASE("Frequencies over many positions are those of the softmax", "[text]") {
  for (const float temperature : {0.7F, 1.0F, 1.6F}) {
    const std::vector<float> log_p = random_log_p(12, 4);
    constexpr int n = 40000;
    std::vector<double> p(log_p.size());
    double total = 0;
    for (std::size_t i = 0; i < p.size(); ++i) total += p[i] = std::exp(static_cast<double>(log_p[i]) / temperature);
    std::vector<int> counts(log_p.size());
    Sampler sampler(12);
    for (int i = 0; i < n; ++i) {
      ++counts[static_cast<std::size_t>(
          sampler.sample({log_p.data(), {12}}, i, {.temperature = temperature, .seed = 99}))];
    }
    double chi2 = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double expected = n * p[i] / total;
      REQUIRE(expected > 5);
      chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    CAPTURE(temperature);
    CHECK(chi2 < 31.3);  // 11 degrees of freedom, p = 0.001
  }
}

TEST_CASE("A seed replays, another seed or position does not", "[text]") {
  const std::vector<float> log_p = random_log_p(500, 8);
  const auto text = [&](std::uint64_t seed, std::int64_t first) {
    std::vector<std::int32_t> ids;
    for (std::int64_t i = first; i < first + 50; ++i) ids.push_back(sample(log_p, i, {.temperature = 1, .seed = seed}));
    return ids;
  };
  CHECK(text(1, 0) == text(1, 0));
  CHECK(text(1, 0) != text(2, 0));
  CHECK(text(1, 0) != text(1, 50));
}

TEST_CASE("A constant added to every entry changes no choice", "[text]") {
  std::vector<float> log_p(100), shifted(100);
  std::mt19937 random(5);
  for (std::size_t i = 0; i < 100; ++i) {
    log_p[i] = static_cast<float>(random() % 64) * -0.125F;  // exact sums
    shifted[i] = log_p[i] + 16;
  }
  for (int i = 0; i < 200; ++i) {
    const Sampling s{.temperature = 0.5F, .top_k = 30, .top_p = 0.9F, .seed = 3};
    CHECK(sample(log_p, i, s) == sample(shifted, i, s));
  }
}

TEST_CASE("Skipping tokens out of the race leaves the choice as the formula has it", "[text]") {
  for (const float temperature : {0.05F, 0.7F, 1.0F, 5.0F, 1e-12F}) {
    for (const float scale : {1.0F, 1e-3F, 1e6F}) {
      std::vector<float> log_p = random_log_p(700, 21);
      for (float& x : log_p) x *= scale;
      for (std::int64_t position = 0; position < 200; ++position) {
        std::int32_t best = 0;
        double highest = -infinite;
        for (std::int32_t i = 0; i < 700; ++i) {
          const double x =
              static_cast<double>(log_p[static_cast<std::size_t>(i)]) / temperature + gumbel(uniform(17, position, i));
          if (x > highest) {
            highest = x;
            best = i;
          }
        }
        CAPTURE(temperature, scale, position);
        REQUIRE(sample(log_p, position, {.temperature = temperature, .seed = 17}) == best);
      }
    }
  }
}

TEST_CASE("Top-k keeps the k likeliest, of equals the lower ids", "[text]") {
  const std::vector<float> log_p = {-1, -0.5F, -1, -1, -0.5F};
  CHECK(support(log_p, {.temperature = 3, .top_k = 1}) == Set{1});
  CHECK(support(log_p, {.temperature = 3, .top_k = 2}) == Set{1, 4});
  CHECK(support(log_p, {.temperature = 3, .top_k = 3}) == Set{0, 1, 4});
  CHECK(support(log_p, {.temperature = 3, .top_k = 4}) == Set{0, 1, 2, 4});
  CHECK(support(log_p, {.temperature = 3, .top_k = 99}) == Set{0, 1, 2, 3, 4});
}

TEST_CASE("Top-p keeps the smallest set that holds the mass, at least one", "[text]") {
  const std::vector<float> log_p = {std::log(0.125F), std::log(0.5F), std::log(0.25F), std::log(0.125F)};
  CHECK(support(log_p, {.temperature = 1, .top_p = 0.01F}) == Set{1});
  CHECK(support(log_p, {.temperature = 1, .top_p = 0.49F}) == Set{1});
  CHECK(support(log_p, {.temperature = 1, .top_p = 0.7F}) == Set{1, 2});
  CHECK(support(log_p, {.temperature = 1, .top_p = 0.8F}) == Set{0, 1, 2});
  CHECK(support(log_p, {.temperature = 1, .top_p = 0.9F}) == Set{0, 1, 2, 3});
  // At temperature 1/2 the masses are 2/11 · {1/8, 2, 1/2, 1/8}: the first holds 0.727 of it.
  CHECK(support(log_p, {.temperature = 0.5F, .top_p = 0.7F}) == Set{1});
  CHECK(support(log_p, {.temperature = 0.5F, .top_p = 0.8F}) == Set{1, 2});
  // After top-k the mass is that of the kept tokens: 2/3 and 1/3.
  CHECK(support(log_p, {.temperature = 1, .top_k = 2, .top_p = 0.6F}) == Set{1});
}

TEST_CASE("Min-p keeps what has a share of the likeliest token's mass, of this temperature", "[text]") {
  const std::vector<float> log_p = {std::log(0.125F), std::log(0.5F), std::log(0.25F), std::log(0.125F)};
  CHECK(support(log_p, {.temperature = 1, .min_p = 1}) == Set{1});
  CHECK(support(log_p, {.temperature = 1, .min_p = 0.51F}) == Set{1});
  CHECK(support(log_p, {.temperature = 1, .min_p = 0.49F}) == Set{1, 2});
  CHECK(support(log_p, {.temperature = 1, .min_p = 0.24F}) == Set{0, 1, 2, 3});
  CHECK(support(log_p, {.temperature = 0.5F, .min_p = 0.24F}) == Set{1, 2});  // masses 1/16, 1, 1/4, 1/16
  CHECK(support(log_p, {.temperature = 2, .min_p = 0.49F}) == Set{0, 1, 2, 3});
  CHECK(support({-3, -1, -1, no_number, -infinite}, {.temperature = 9, .min_p = 1}) == Set{1, 2});
}

TEST_CASE("Min-p after top-p keeps what both keep", "[text]") {
  const std::vector<float> log_p = {std::log(0.125F), std::log(0.5F), std::log(0.25F), std::log(0.125F)};
  CHECK(support(log_p, {.temperature = 1, .top_p = 0.6F, .min_p = 0.2F}) == Set{1, 2});
  CHECK(support(log_p, {.temperature = 1, .top_p = 0.99F, .min_p = 0.4F}) == Set{1, 2});
  CHECK(support(log_p, {.temperature = 1, .top_p = 0.6F, .min_p = 0.6F}) == Set{1});
  CHECK(support(log_p, {.temperature = 1, .top_k = 3, .min_p = 0.2F}) == Set{0, 1, 2});
  for (unsigned trial = 0; trial < 20; ++trial) {
    const std::vector<float> x = random_log_p(40, 100 + trial);
    const float min_p = 0.02F * static_cast<float>(trial + 1);
    const float most = *std::max_element(x.begin(), x.end());
    Set expected;
    for (std::int32_t i = 0; i < 40; ++i) {
      if (std::exp((static_cast<double>(x[static_cast<std::size_t>(i)]) - most) / 2) >= static_cast<double>(min_p)) {
        expected.insert(i);
      }
    }
    CHECK(support(x, {.temperature = 2, .min_p = min_p}, 20000) == expected);
  }
}

TEST_CASE("A repetition penalty multiplies the log-probability of every token seen, once", "[text]") {
  const std::vector<float> log_p = {-1, -1.5F, -2.5F, -4};
  Sampler sampler(4);
  const auto greedy = [&](float penalty, std::vector<std::int32_t> seen, int window = 0) {
    return sampler.sample({log_p.data(), {4}}, 0, {.repetition_penalty = penalty, .repetition_window = window}, seen);
  };
  CHECK(greedy(1.4F, {0}) == 0);        // -1.4 before -1.5
  CHECK(greedy(1.6F, {0}) == 1);        // -1.6
  CHECK(greedy(1.4F, {0, 0, 0}) == 0);  // not -2.7
  CHECK(greedy(2, {0, 1}) == 0);        // -2, -3, -2.5
  CHECK(greedy(2.6F, {1, 0, 1}) == 2);  // -2.6, -3.9, -2.5
  CHECK(greedy(0.2F, {3}) == 3);        // -0.8: below 1, repetition is sought
  CHECK(greedy(1, {0, 1, 2}) == 0);
  CHECK(greedy(9, {}) == 0);
  CHECK(greedy(9, {0, 1, 2}, 2) == 0);  // the first is out of the window
  CHECK(greedy(9, {0, 1, 2}, 3) == 3);
  CHECK(greedy(9, {0, 1, 2}, 99) == 3);
}

TEST_CASE("A repetition penalty is transformers' formula, on scores of either sign", "[text]") {
  // By hand: 2 / 1.25 and -1 · 1.25, the two signs of RepetitionPenaltyLogitsProcessor.
  // -4]
  const std::vector<float> scores = {2, -1, 0.5F, -4}, expected = {1.6F, -1.25F, 0.5F, -4};
  const std::vector<std::int32_t> seen = {0, 1};
  Sampler sampler(4);
  for (std::int64_t position = 0; position < 2000; ++position) {
    const Sampling s{.temperature = 1.5F, .seed = 5, .repetition_penalty = 1.25F};
    CHECK(sampler.sample({scores.data(), {4}}, position, s, seen) ==
          sampler.sample({expected.data(), {4}}, position, {.temperature = 1.5F, .seed = 5}));
  }
}

TEST_CASE("A penalty leaves what was given and the next call as they were", "[text]") {
  const std::vector<float> log_p = random_log_p(100, 3);
  const auto before = log_p;
  const std::vector<std::int32_t> seen = {5, 99, 0};
  Sampler sampler(100);
  const auto plain = sampler.sample({log_p.data(), {100}}, 1, {.temperature = 1, .seed = 4});
  const Sampling s{.temperature = 1, .seed = 4, .repetition_penalty = 1.3F};
  const auto penalised = sampler.sample({log_p.data(), {100}}, 1, s, seen);
  CHECK(sampler.sample({log_p.data(), {100}}, 1, s, seen) == penalised);
  CHECK(sampler.sample({log_p.data(), {100}}, 1, {.temperature = 1, .seed = 4}) == plain);
  CHECK(log_p == before);
}

TEST_CASE("An id that is no token is refused among those seen, unless it is out of the window", "[text][law5]") {
  const std::vector<float> log_p = {-1, -2, -3};
  Sampler sampler(3);
  const Sampling s{.repetition_penalty = 1.1F, .repetition_window = 2};
  for (const std::int32_t id : {3, -1}) {
    const std::vector<std::int32_t> bad = {0, id}, past = {id, 0, 1};
    CHECK_THROWS_AS(sampler.sample({log_p.data(), {3}}, 0, s, bad), Error);
    CHECK(sampler.sample({log_p.data(), {3}}, 0, s, past) == 0);
  }
}

TEST_CASE("The likeliest token is found wherever it is, in a vocabulary of any length", "[text]") {
  for (std::size_t v = 1; v < 70; ++v) {
    for (std::size_t at = 0; at < v; ++at) {
      std::vector<float> log_p(v, -7);
      log_p[v - 1] = -6;
      log_p[at] = -5;
      if (at > 0) log_p[at - 1] = no_number;
      REQUIRE(sample(log_p, 0, {}) == static_cast<std::int32_t>(at));
    }
  }
}

TEST_CASE("Parameters outside their ranges are refused by name", "[text][law5]") {
  const auto refused = [](const Sampling& s) -> std::string {
    try {
      s.validate();
    } catch (const Error& e) {
      CHECK(e.code() == Code::invalid_argument);
      return e.where();
    }
    return "";
  };
  CHECK(refused({}) == "");
  CHECK(refused({.temperature = -1}) == "sampling: temperature");
  CHECK(refused({.temperature = no_number}) == "sampling: temperature");
  CHECK(refused({.temperature = infinite}) == "sampling: temperature");
  CHECK(refused({.top_k = -1}) == "sampling: top_k");
  CHECK(refused({.top_p = 0}) == "sampling: top_p");
  CHECK(refused({.top_p = 1.5F}) == "sampling: top_p");
  CHECK(refused({.top_p = no_number}) == "sampling: top_p");
  CHECK(refused({.min_p = -0.1F}) == "sampling: min_p");
  CHECK(refused({.min_p = 1.1F}) == "sampling: min_p");
  CHECK(refused({.min_p = no_number}) == "sampling: min_p");
  CHECK(refused({.min_p = 1, .repetition_penalty = 0.5F}) == "");
  CHECK(refused({.repetition_penalty = 0}) == "sampling: repetition_penalty");
  CHECK(refused({.repetition_penalty = infinite}) == "sampling: repetition_penalty");
  CHECK(refused({.repetition_penalty = no_number}) == "sampling: repetition_penalty");
  CHECK(refused({.repetition_window = -1}) == "sampling: repetition_window");
  CHECK_THROWS_AS(Sampler(0), Error);
  Sampler sampler(3);
  const std::vector<float> log_p = {0, 1};
  CHECK_THROWS_AS(sampler.sample({log_p.data(), {2}}, 0, {}), Error);
}
