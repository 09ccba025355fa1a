#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/mixture.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

using namespace finteam;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr index_t v = 301;

std::vector<float> logits(std::uint64_t seed, index_t rows) {
  return test::Random(seed).floats(static_cast<std::size_t>(rows * v), -9, 9);
}

std::vector<float> next_token(MixIn where, const std::vector<double>& weight, std::vector<float> x) {
  std::vector<float> y(v);
  mix_next_token(where, weight, {x.data(), {static_cast<index_t>(weight.size()), v}}, y);
  return y;
}

}  // namespace

TEST_CASE("log_softmax is the logarithm of a distribution", "[mix]") {
  auto x = logits(1, 1);
  const auto before = x;
  log_softmax(x);
  double sum = 0;
  for (const float l : x) sum += std::exp(static_cast<double>(l));
  CHECK(sum == Approx(1.0).epsilon(1e-6));
  CHECK(static_cast<double>(x[3] - x[7]) == Approx(static_cast<double>(before[3] - before[7])).margin(1e-5));
}

TEST_CASE("a mixture in probabilities is the weighted sum of the experts' probabilities", "[mix][law1]") {
  const std::vector<double> weight{0.2, 0.7, 0.1};
  const auto x = logits(2, 3);
  const auto y = next_token(MixIn::probabilities, weight, x);
  std::array<double, 3> total{};
  for (std::size_t k = 0; k < 3; ++k) {
    for (std::size_t i = 0; i < v; ++i) total[k] += std::exp(static_cast<double>(x[k * v + i]));
  }
  for (std::size_t i = 0; i < v; ++i) {
    double p = 0;
    for (std::size_t k = 0; k < 3; ++k) p += weight[k] * std::exp(static_cast<double>(x[k * v + i])) / total[k];
    CHECK(static_cast<double>(y[i]) == Approx(std::log(p)).margin(2e-6));
  }
}

TEST_CASE("a mixture in logits is the normalised exponential of the weighted logits", "[mix][law1]") {
  const std::vector<double> weight{0.2, 0.7, 0.1};
  const auto x = logits(3, 3);
  const auto y = next_token(MixIn::logits, weight, x);
  std::vector<double> z(v);
  double total = 0;
  for (std::size_t i = 0; i < v; ++i) {
    for (std::size_t k = 0; k < 3; ++k) z[i] += weight[k] * static_cast<double>(x[k * v + i]);
    total += std::exp(z[i]);
  }
  for (std::size_t i = 0; i < v; ++i) CHECK(static_cast<double>(y[i]) == Approx(z[i] - std::log(total)).margin(5e-6));
}

TEST_CASE("one expert of weight one is the expert, bit for bit, in probabilities and in logits", "[mix][law1]") {
  const auto x = logits(4, 1);
  auto plain = x;
  log_softmax(plain);
  CHECK(next_token(MixIn::probabilities, {1.0}, x) == plain);
  CHECK(next_token(MixIn::logits, {1.0}, x) == plain);
}

TEST_CASE("three equal experts are one of them: same bits in probabilities, 4 ulp in logits", "[mix][law1]") {
  const auto one = logits(5, 1);
  std::vector<float> three;
  for (int k = 0; k < 3; ++k) three.insert(three.end(), one.begin(), one.end());
  auto plain = one;
  log_softmax(plain);
  const std::vector<double> weight{0.61, 0.27, 0.12};
  CHECK(next_token(MixIn::probabilities, weight, three) == plain);
  const auto y = next_token(MixIn::logits, weight, three);
  for (std::size_t i = 0; i < v; ++i) {
    CHECK(std::abs(std::bit_cast<std::int32_t>(y[i]) - std::bit_cast<std::int32_t>(plain[i])) <= 4);
  }
}

TEST_CASE("an expert of weight zero is not read", "[mix][law1]") {
  auto x = logits(6, 3);
  const auto without = next_token(MixIn::probabilities, {0.4, 0.0, 0.6}, x);
  for (std::size_t i = 0; i < v; ++i) x[v + i] = std::numeric_limits<float>::quiet_NaN();
  CHECK(next_token(MixIn::probabilities, {0.4, 0.0, 0.6}, x) == without);
  const auto y = next_token(MixIn::logits, {0.4, 0.0, 0.6}, x);
  for (const float l : y) CHECK(std::isfinite(l));
}

TEST_CASE("a token that no expert allows stays impossible", "[mix]") {
  std::vector<float> x{0, -infinity, 0, -infinity};
  std::vector<float> y(2);
  mix_probabilities(std::vector<double>{0.5, 0.5}, {x.data(), {2, 2}}, y);
  CHECK(y[0] == 0.0F);
  CHECK(y[1] == -infinity);
}

TEST_CASE("disagreement is one bit between two sure experts that differ, and zero between equals", "[mix]") {
  const std::vector<double> p{1, 0, 0, 1}, q{0.3, 0.7, 0.3, 0.7};
  CHECK(jensen_shannon_bits(std::vector<double>{0.5, 0.5}, {p.data(), {2, 2}}) == Approx(1.0));
  CHECK(jensen_shannon_bits(std::vector<double>{0.5, 0.5}, {q.data(), {2, 2}}) == Approx(0.0).margin(1e-15));
  CHECK(entropy_bits(std::vector<double>{0.25, 0.25, 0.25, 0.25}) == 2.0);
}

namespace {

/// log Σ w exp(x) in double, by whichever form loses nothing.
double mixed(const std::vector<double>& weight, const std::vector<double>& x) {
  const double m = *std::max_element(x.begin(), x.end());
  double sum = 0, minus_one = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    sum += weight[k] * std::exp(x[k] - m);
    minus_one += weight[k] * std::expm1(x[k] - m);
  }
  return m + (sum < 0.5 ? std::log(sum) : std::log1p(minus_one));
}
double ulp(float x) {
  return static_cast<double>(std::nextafter(std::abs(x), 1e30F)) - static_cast<double>(std::abs(x));
}
std::vector<double> random_weights(test::Random& random, double least) {
  std::vector<double> w{random.uniform(0.1, 1), least * random.uniform(1, 2), random.uniform(0.1, 1)};
  const double total = w[0] + w[1] + w[2];
  for (double& each : w) each /= total;
  return w;
}
constexpr float no_number = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE("a mixture in float is the one in double within 5e-7 and an ulp, and near 1 within 6 ulp", "[mix][law3]") {
  test::Random random(21);
  for (int trial = 0; trial < 300; ++trial) {
    const auto width = static_cast<std::size_t>(1 + random.below(70));
    const auto n = static_cast<index_t>(width);
    const double span = trial % 2 == 0 ? random.uniform(0.001, 0.4) : random.uniform(1, 30);
    const auto weight = random_weights(random, trial % 3 == 0 ? 1e-3 : 0.1);
    const auto x = random.floats(3 * width, -span, 0);
    std::vector<float> y(width);
    mix_probabilities(weight, MatrixView<const float>{x.data(), {3, n}}, y);
    for (std::size_t i = 0; i < width; ++i) {
      const double exact = mixed(weight, {x[i], x[width + i], x[2 * width + i]});
      const double error = std::abs(static_cast<double>(y[i]) - exact);
      CAPTURE(trial, i, exact, error);
      REQUIRE(error <= 5e-7 + ulp(y[i]));
      if (std::abs(exact) < 16) REQUIRE(error <= 1e-6);
      if (span < 0.5) REQUIRE(error <= 6 * ulp(y[i]));
    }
  }
}

TEST_CASE("a small weight of the only expert that allows a token is its probability, not a rounding", "[mix]") {
  const std::vector<double> weight{1e-9, 1 - 1e-9};
  const std::vector<float> x{-1, -2, -infinity, -80};
  std::vector<float> y(2);
  mix_probabilities(weight, MatrixView<const float>{x.data(), {2, 2}}, y);
  CHECK(static_cast<double>(y[0]) == Approx(std::log(1e-9) - 1).epsilon(1e-7));
  CHECK(static_cast<double>(y[1]) == Approx(std::log(1e-9) - 2).epsilon(1e-7));
}

TEST_CASE("a token's mixture depends neither on its place nor on the vocabulary's length", "[mix][law3]") {
  const auto x = logits(8, 3);
  const std::vector<double> weight{0.5, 0.2, 0.3};
  std::vector<float> whole(v);
  mix_probabilities(weight, MatrixView<const float>{x.data(), {3, v}}, whole);
  for (index_t first = 0; first < v; first += 7) {
    const index_t width = std::min<index_t>(5, v - first);
    std::vector<float> part(static_cast<std::size_t>(width));
    mix_probabilities(weight, MatrixView<const float>{x.data() + first, {3, width}, {v, 1}}, part);
    for (index_t i = 0; i < width; ++i)
      CHECK(part[static_cast<std::size_t>(i)] == whole[static_cast<std::size_t>(first + i)]);
  }
}

TEST_CASE("one expert of weight one keeps its bits, whatever they are", "[mix][law1]") {
  std::vector<float> x{0.0F, -0.0F, -1e-30F, -1e-42F, -infinity, -3e38F, -17.25F, 5.5F};
  const auto one = x;
  std::vector<float> y(x.size());
  mix_probabilities(std::vector<double>{1.0}, MatrixView<const float>{x.data(), {1, 8}}, y);
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(std::bit_cast<std::uint32_t>(y[i]) == std::bit_cast<std::uint32_t>(one[i]));
  }
}

TEST_CASE("a token that one expert forbids keeps the share of the others", "[mix]") {
  const std::vector<float> x{-infinity, -2, -3, -infinity};
  std::vector<float> y(2);
  mix_probabilities(std::vector<double>{0.25, 0.75}, MatrixView<const float>{x.data(), {2, 2}}, y);
  CHECK(static_cast<double>(y[0]) == Approx(std::log(0.75) - 3).epsilon(1e-7));
  CHECK(static_cast<double>(y[1]) == Approx(std::log(0.25) - 2).epsilon(1e-7));
}

TEST_CASE("a NaN in any expert that is read is a NaN in its token alone", "[mix]") {
  for (std::size_t k = 0; k < 3; ++k) {
    auto x = logits(9, 3);
    x[k * v + 20] = no_number;
    x[k * v + 300] = no_number;
    std::vector<float> y(v);
    mix_probabilities(std::vector<double>{0.3, 0.3, 0.4}, MatrixView<const float>{x.data(), {3, v}}, y);
    for (std::size_t i = 0; i < v; ++i) CHECK(std::isnan(y[i]) == (i == 20 || i == 300));
  }
}

TEST_CASE("the mixture may overwrite any of its experts", "[mix]") {
  const auto x = logits(10, 3);
  const std::vector<double> weight{0.5, 0.2, 0.3};
  std::vector<float> apart(v);
  mix_probabilities(weight, MatrixView<const float>{x.data(), {3, v}}, apart);
  for (std::size_t k = 0; k < 3; ++k) {
    auto inside = x;
    const std::span<float> row(inside.data() + k * v, v);
    mix_probabilities(weight, MatrixView<const float>{inside.data(), {3, v}}, row);
    CHECK(std::vector<float>(row.begin(), row.end()) == apart);
  }
}

TEST_CASE("log_sum_exp is the one in double within 7e-7, for any length and spread", "[mix][law3]") {
  test::Random random(22);
  CHECK(log_sum_exp(std::vector<float>{1.5F}) == 1.5);
  CHECK(log_sum_exp(std::vector<float>(16384, -2.0F)) == Approx(-2 + std::log(16384)).epsilon(1e-14));
  for (int trial = 0; trial < 1000; ++trial) {
    const auto width = static_cast<std::size_t>(1 + random.below(400));
    auto x = random.floats(width, random.uniform(-30, 0), random.uniform(0, 30));
    if (trial % 3 == 0) {  // one likely token of another magnitude among equals: every difference rounds alike
      const auto level = static_cast<float>(random.uniform(-16, 0));
      x.assign(width, level);
      x[width / 2] = level + static_cast<float>(random.uniform(0, 16));
    }
    const double m = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const float l : x) sum += std::exp(static_cast<double>(l) - m);
    REQUIRE(std::abs(log_sum_exp(x) - (m + std::log(sum))) < 7e-7);
  }
}

TEST_CASE("log_sum_exp passes over what is impossible and passes on what is no number", "[mix]") {
  std::vector<float> x(40, -infinity);
  x[3] = 1;
  x[39] = 1;
  CHECK(log_sum_exp(x) == Approx(1 + std::log(2)).epsilon(1e-15));
  x[17] = no_number;
  CHECK(std::isnan(log_sum_exp(x)));
  x[17] = infinity;
  CHECK(std::isnan(log_sum_exp(x)));
  CHECK(std::isnan(log_sum_exp(std::vector<float>(40, -infinity))));
  CHECK(log_sum_exp(std::vector<float>{}) == -std::numeric_limits<double>::infinity());
}

TEST_CASE("log_softmax rounds once, and what is impossible stays so", "[mix]") {
  auto x = logits(12, 1);
  x[5] = -infinity;
  x[300] = -infinity;
  const auto before = x;
  const double total = log_sum_exp(before);
  log_softmax(x);
  for (std::size_t i = 0; i < v; ++i) {
    const double exact = static_cast<double>(before[i]) - total;
    if (i == 5 || i == 300) {
      CHECK(x[i] == -infinity);
    } else {
      CHECK(std::abs(static_cast<double>(x[i]) - exact) <= 0.5001 * ulp(x[i]));
    }
  }
}
