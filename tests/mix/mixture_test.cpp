#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/mixture.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <vector>

using namespace finteam;

namespace {

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
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x{0, -inf, 0, -inf};
  std::vector<float> y(2);
  mix_probabilities(std::vector<double>{0.5, 0.5}, {x.data(), {2, 2}}, y);
  CHECK(y[0] == 0.0F);
  CHECK(y[1] == -inf);
}

TEST_CASE("disagreement is one bit between two sure experts that differ, and zero between equals", "[mix]") {
  const std::vector<double> p{1, 0, 0, 1}, q{0.3, 0.7, 0.3, 0.7};
  CHECK(jensen_shannon_bits(std::vector<double>{0.5, 0.5}, {p.data(), {2, 2}}) == Approx(1.0));
  CHECK(jensen_shannon_bits(std::vector<double>{0.5, 0.5}, {q.data(), {2, 2}}) == Approx(0.0).margin(1e-15));
  CHECK(entropy_bits(std::vector<double>{0.25, 0.25, 0.25, 0.25}) == 2.0);
}
