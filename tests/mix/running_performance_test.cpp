#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/gate.hpp>
#include <finteam/mix/running_performance.hpp>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

using namespace finteam;

namespace {

using Losses = std::vector<double>;

std::vector<double> weights(const RunningPerformance& filter) {
  std::vector<double> w(filter.log_weights().size());
  filter.weights(w);
  return w;
}
std::vector<double> state(const RunningPerformance& filter) {
  return {filter.log_weights().begin(), filter.log_weights().end()};
}

}  // namespace

TEST_CASE("before an outcome every role weighs the same", "[mix]") {
  for (const double w : weights(RunningPerformance(4))) CHECK(w == 0.25);
  RunningPerformance one(1);
  one.observe(Losses{7});
  CHECK(weights(one) == std::vector<double>{1.0});
}

TEST_CASE("an outcome moves the weights by the filter's two steps", "[mix]") {
  RunningPerformance filter(3, {.switch_probability = 0.1, .rate = 1});
  filter.observe(Losses{std::log(2.0), 0, std::log(4.0)});  // 1/2, 1, 1/4 of equal weights: 2/7, 4/7, 1/7
  auto w = weights(filter);
  CHECK(w[0] == Approx(2.0 / 7));
  CHECK(w[1] == Approx(4.0 / 7));
  CHECK(w[2] == Approx(1.0 / 7));
  filter.observe(Losses{0, 0, 0});  // only the prediction: 0.9 · w + 0.05 · (1 - w)
  w = weights(filter);
  CHECK(w[0] == Approx(0.9 * 2 / 7 + 0.05 * 5 / 7));
  CHECK(w[1] == Approx(0.9 * 4 / 7 + 0.05 * 3 / 7));
  CHECK(w[2] == Approx(0.9 * 1 / 7 + 0.05 * 6 / 7));
}

TEST_CASE("the filter is the plain one with a transition matrix, for random losses", "[mix]") {
  test::Random random(41);
  for (int trial = 0; trial < 20; ++trial) {
    const auto n = static_cast<std::size_t>(2 + random.below(4));
    const double stay = random.uniform(0.5, 1), rate = random.uniform(0, 2);
    RunningPerformance filter(static_cast<index_t>(n), {.switch_probability = 1 - stay, .rate = rate});
    std::vector<double> plain(n, 1.0 / static_cast<double>(n));
    for (int t = 0; t < 50; ++t) {
      Losses losses(n);
      for (double& loss : losses) loss = random.uniform(-1, 4);
      filter.observe(losses);
      std::vector<double> next(n, 0.0);
      double total = 0;
      for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t i = 0; i < n; ++i) {
          next[j] += plain[i] * (i == j ? stay : (1 - stay) / static_cast<double>(n - 1));
        }
        total += next[j] *= std::exp(-rate * losses[j]);
      }
      for (std::size_t j = 0; j < n; ++j) plain[j] = next[j] / total;
    }
    const auto w = weights(filter);
    for (std::size_t j = 0; j < n; ++j) CHECK(w[j] == Approx(plain[j]).epsilon(1e-10));
  }
}

TEST_CASE("without switching the weights are Bayes' posterior, however long the run", "[mix]") {
  RunningPerformance filter(2, {.switch_probability = 0});
  for (int t = 0; t < 5000; ++t) filter.observe(Losses{1, t < 4000 ? 2.0 : 0.0});
  // losses sum to 5000 and 8000: e^-3000 underflows, its logarithm does not
  CHECK(filter.log_weights()[1] == Approx(-3000));
  CHECK(weights(filter) == std::vector<double>{1, 0});
  for (int t = 0; t < 3000; ++t) filter.observe(Losses{1, 0});
  CHECK(filter.log_weights()[0] == Approx(-std::log(2)).margin(1e-8));
}

TEST_CASE("with switching a role that was bad for long comes back within a few outcomes", "[mix]") {
  RunningPerformance filter(3, {.switch_probability = 0.02});
  for (int t = 0; t < 1000; ++t) filter.observe(Losses{0.1, 3, 3});
  CHECK(weights(filter)[0] > 0.97);
  for (int t = 0; t < 4; ++t) filter.observe(Losses{3, 0.1, 3});
  CHECK(weights(filter)[1] > 0.9);
}

TEST_CASE("a loss without bound leaves finite weights that sum to one", "[mix]") {
  RunningPerformance filter(3);
  filter.observe(Losses{1e300, -1e300, 1e300});
  for (const double x : filter.log_weights()) CHECK(std::isfinite(x));
  filter.observe(Losses{-1e300, 1e300, 0});
  const auto w = weights(filter);
  CHECK(std::accumulate(w.begin(), w.end(), 0.0) == Approx(1.0));
  CHECK(w[0] == Approx(1.0));
}

TEST_CASE("a filter that is restored goes on with the same bits", "[mix][law3]") {
  test::Random random(42);
  const auto losses = [&] { return Losses{random.uniform(0, 3), random.uniform(0, 3), random.uniform(0, 3)}; };
  RunningPerformance filter(3);
  for (int t = 0; t < 100; ++t) filter.observe(losses());
  RunningPerformance later(3);
  later.restore(state(filter));
  CHECK(state(later) == state(filter));
  for (int t = 0; t < 100; ++t) {
    const auto next = losses();
    filter.observe(next);
    later.observe(next);
  }
  CHECK(state(later) == state(filter));
  CHECK(weights(later) == weights(filter));
}

TEST_CASE("the state of the filter is a gate's scores", "[mix]") {
  RunningPerformance filter(3);
  filter.observe(Losses{1, 2, 3});
  auto scores = state(filter);
  gate_weights({}, scores);
  for (std::size_t j = 0; j < 3; ++j) CHECK(scores[j] == Approx(weights(filter)[j]).epsilon(1e-14));
}

TEST_CASE("losses that are no numbers are refused, and change nothing", "[mix][law5]") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  RunningPerformance filter(2, {.rate = 1e10});
  filter.observe(Losses{1e-10, 0});
  const auto before = state(filter);
  for (const Losses& bad :
       {Losses{nan, 0}, Losses{0, inf}, Losses{-inf, 0}, Losses{0}, Losses{0, 0, 0}, Losses{0, 1e300}}) {
    try {
      filter.observe(bad);
      FAIL("not refused");
    } catch (const Error& e) {
      CHECK(e.code() == Code::invalid_argument);
      CHECK(e.where() == "running performance: losses");
    }
  }
  CHECK(state(filter) == before);
  for (const Losses& bad : {Losses{nan, 0}, Losses{0, -inf}, Losses{-1}, Losses{0, 0}}) {
    CHECK_THROWS_AS(filter.restore(bad), Error);
  }
  CHECK(state(filter) == before);
  CHECK_THROWS_AS(RunningPerformance(0), Error);
  CHECK_THROWS_AS(RunningPerformance(2, {.switch_probability = 1}), Error);
  CHECK_THROWS_AS(RunningPerformance(2, {.switch_probability = -0.1}), Error);
  CHECK_THROWS_AS(RunningPerformance(2, {.switch_probability = nan}), Error);
  CHECK_THROWS_AS(RunningPerformance(2, {.rate = -1}), Error);
  CHECK_THROWS_AS(RunningPerformance(2, {.rate = inf}), Error);
  std::vector<double> narrow(1);
  CHECK_THROWS_AS(filter.weights(narrow), Error);
}
