#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/gate.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

using namespace finteam;

TEST_CASE("a gate's scores are its weights times the feature plus its bias", "[mix]") {
  const float weight[] = {1, 2, 3, -1, 0.5F, 4};
  const float bias[] = {0.25F, -1};
  const double feature[] = {2, -1, 0.5};
  double scores[2];
  linear_scores({weight, {2, 3}}, bias, feature, scores);
  CHECK(scores[0] == 1 * 2 + 2 * -1 + 3 * 0.5 + 0.25);
  CHECK(scores[1] == -1 * 2 + 0.5 * -1 + 4 * 0.5 - 1);
}

TEST_CASE("softmax at a temperature is the softmax of the scaled scores", "[mix]") {
  double x[] = {1, 3, 2};
  softmax(x, 2.0);
  const double e[] = {std::exp(0.5), std::exp(1.5), std::exp(1.0)};
  for (int i = 0; i < 3; ++i) CHECK(x[i] == Approx(e[i] / (e[0] + e[1] + e[2])).epsilon(1e-14));
}

TEST_CASE("softmax of huge scores neither overflows nor loses the largest", "[mix]") {
  double x[] = {1e308, -1e308, 1e308};
  softmax(x);
  CHECK(x[0] == 0.5);
  CHECK(x[1] == 0.0);
  CHECK(x[2] == 0.5);
}

TEST_CASE("top-k keeps the k largest weights and renormalises them", "[mix]") {
  double w[] = {0.2, 0.5, 0.3};
  keep_top_k(w, 2);
  CHECK(w[0] == 0.0);
  CHECK(w[1] == 0.5 / 0.8);
  CHECK(w[2] == 0.3 / 0.8);
}

TEST_CASE("top-k breaks ties towards the lower index", "[mix]") {
  double w[] = {0.25, 0.25, 0.25, 0.25};
  keep_top_k(w, 2);
  CHECK(w[0] == 0.5);
  CHECK(w[1] == 0.5);
  CHECK(w[2] == 0.0);
  CHECK(w[3] == 0.0);
}

TEST_CASE("top-k with k at least n changes no bit", "[mix][law1]") {
  test::Random random(3);
  std::vector<double> w(5);
  for (double& v : w) v = random.uniform(0.01, 1);
  const auto before = w;
  keep_top_k(w, 5);
  CHECK(w == before);
  keep_top_k(w, 9);
  CHECK(w == before);
}

TEST_CASE("top-k of random weights leaves k weights that sum to one, none smaller than a dropped one", "[mix]") {
  test::Random random(4);
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<double> w(6);
    for (double& v : w) v = random.uniform(0.01, 1);
    const auto before = w;
    keep_top_k(w, 3);
    double least_kept = 2, most_dropped = 0;
    int kept = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (w[i] > 0) {
        ++kept;
        least_kept = std::min(least_kept, before[i]);
      } else {
        most_dropped = std::max(most_dropped, before[i]);
      }
    }
    CHECK(kept == 3);
    CHECK(least_kept >= most_dropped);
    CHECK(std::accumulate(w.begin(), w.end(), 0.0) == Approx(1.0).epsilon(1e-14));
  }
}

namespace {

std::vector<double> weights(const GateRule& rule, std::vector<double> scores) {
  rule.validate(static_cast<index_t>(scores.size()));
  gate_weights(rule, scores);
  return scores;
}
double sum(const std::vector<double>& w) { return std::accumulate(w.begin(), w.end(), 0.0); }
constexpr double infinite = std::numeric_limits<double>::infinity();

/// The rule in other words: sort, keep the first k, and divide.
std::vector<double> plain_weights(const GateRule& rule, const std::vector<double>& scores) {
  const std::size_t n = scores.size();
  std::vector<double> w(n), kept(n, 0.0);
  double total = 0;
  for (std::size_t i = 0; i < n; ++i) total += w[i] = std::exp(scores[i] / rule.temperature);
  for (double& v : w) v = rule.floor + (1 - static_cast<double>(n) * rule.floor) * v / total;
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return w[a] > w[b]; });
  const std::size_t k = rule.top_k == 0 ? n : std::min(n, static_cast<std::size_t>(rule.top_k));
  double left = 0;
  for (std::size_t i = 0; i < k; ++i) left += w[order[i]];
  for (std::size_t i = 0; i < k; ++i) kept[order[i]] = w[order[i]] / (rule.renormalise ? left : 1.0);
  return kept;
}

}  // namespace

TEST_CASE("a gate's rule of defaults is the softmax, bit for bit", "[mix]") {
  const std::vector<double> scores{0.3, -1.7, 2.2, 0.1};
  auto plain = scores;
  softmax(plain);
  CHECK(weights({}, scores) == plain);
  CHECK(weights({.top_k = 4}, scores) == plain);
  CHECK(weights({.top_k = 99, .renormalise = false}, scores) == plain);
}

TEST_CASE("a floor shrinks the weights towards equal ones, and no weight is below it", "[mix]") {
  const std::vector<double> scores{std::log(0.9), std::log(0.1), -infinite};
  const auto w = weights({.floor = 0.1}, scores);
  CHECK(w[0] == Approx(0.1 + 0.7 * 0.9).epsilon(1e-14));
  CHECK(w[1] == Approx(0.1 + 0.7 * 0.1).epsilon(1e-14));
  CHECK(w[2] == 0.1);
  const auto equal = weights({.floor = 0.25}, {5, 1, -3, 40});
  CHECK(equal == std::vector<double>(4, 0.25));
  for (const double v : weights({.floor = 1.0 / 3}, scores)) CHECK(v == Approx(1.0 / 3).epsilon(1e-15));
}

TEST_CASE("top-k without renormalising keeps the softmax's own values", "[mix]") {
  const std::vector<double> scores{std::log(0.2), std::log(0.5), std::log(0.3)};
  const auto all = weights({}, scores);
  const auto w = weights({.top_k = 2, .renormalise = false}, scores);
  CHECK(w == std::vector<double>{0.0, all[1], all[2]});
  const auto one = weights({.top_k = 1, .renormalise = false}, scores);
  CHECK(one == std::vector<double>{0.0, all[1], 0.0});
  CHECK(weights({.top_k = 1}, scores) == std::vector<double>{0, 1, 0});
  CHECK_FALSE(std::signbit(w[0]));
}

TEST_CASE("a gate's rule is the plain sort, keep and divide for random scores", "[mix]") {
  test::Random random(11);
  for (int trial = 0; trial < 300; ++trial) {
    const auto n = static_cast<std::size_t>(1 + random.below(7));
    std::vector<double> scores(n);
    for (double& s : scores) s = trial % 3 == 0 ? static_cast<double>(random.below(3)) : random.uniform(-4, 4);
    const GateRule rule{.top_k = random.below(5),
                        .temperature = random.uniform(0.3, 3),
                        .floor = trial % 2 == 0 ? 0.0 : random.uniform(0, 1.0 / static_cast<double>(n)),
                        .renormalise = random.below(2) == 0};
    const auto w = weights(rule, scores), expected = plain_weights(rule, scores);
    for (std::size_t i = 0; i < n; ++i) {
      CAPTURE(trial, i);
      CHECK(w[i] == Approx(expected[i]).margin(1e-13));
      CHECK((w[i] == 0) == (expected[i] == 0));
    }
    if (rule.renormalise) CHECK(sum(w) == Approx(1.0).epsilon(1e-14));
  }
}

TEST_CASE("scores that are no numbers give weights that are no numbers, never a wrong choice", "[mix]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const bool renormalise : {false, true}) {
    const GateRule rule{.top_k = 2, .renormalise = renormalise};
    for (const double w : weights(rule, {1, nan, 2})) CHECK(std::isnan(w));
    for (const double w : weights(rule, {-infinite, -infinite, -infinite})) CHECK(std::isnan(w));
  }
}

TEST_CASE("a gate's rule outside its ranges is refused by name", "[mix][law5]") {
  const auto refused = [](const GateRule& rule, index_t n) -> std::string {
    try {
      rule.validate(n);
    } catch (const Error& e) {
      CHECK(e.code() == Code::invalid_argument);
      return e.where();
    }
    return "";
  };
  CHECK(refused({}, 1) == "");
  CHECK(refused({.floor = 1.0 / 3}, 3) == "");
  CHECK(refused({}, 0) == "gate: roles");
  CHECK(refused({.top_k = -1}, 3) == "gate: top_k");
  CHECK(refused({.temperature = 0}, 3) == "gate: temperature");
  CHECK(refused({.temperature = infinite}, 3) == "gate: temperature");
  CHECK(refused({.temperature = std::nan("")}, 3) == "gate: temperature");
  CHECK(refused({.floor = 0.34}, 3) == "gate: floor");
  CHECK(refused({.floor = -0.1}, 3) == "gate: floor");
  CHECK(refused({.floor = std::nan("")}, 3) == "gate: floor");
}

TEST_CASE("the likelihoods of long texts do not underflow, and a prior of zero is never chosen", "[mix]") {
  const auto w = weights({}, {-90000, -90000 - std::log(3), std::log(0.0) - 1});
  CHECK(w[0] == Approx(0.75));
  CHECK(w[1] == Approx(0.25));
  CHECK(w[2] == 0.0);
}

TEST_CASE("a linear gate can weigh by the nearness of centres", "[mix]") {
  const float centre[] = {0, 0, 3, 4, 1, 1}, twice[] = {0, 0, 6, 8, 2, 2}, bias[] = {0, -25, -2};
  const double feature[] = {1, 2};
  std::vector<double> scores(3), nearness(3, 0.0);
  linear_scores({twice, {3, 2}}, bias, feature, scores);
  for (std::size_t j = 0; j < 3; ++j) {
    for (std::size_t i = 0; i < 2; ++i) nearness[j] -= std::pow(feature[i] - static_cast<double>(centre[2 * j + i]), 2);
  }
  const auto w = weights({}, scores), expected = weights({}, nearness);
  for (std::size_t j = 0; j < 3; ++j) CHECK(w[j] == Approx(expected[j]));
}
