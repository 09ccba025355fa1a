#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/conformal.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

using namespace finteam;

namespace {

/// A model's three probabilities, and the label that came true, which the model knows only in part.
struct Sample {
  std::array<double, 3> p;
  std::size_t truth;
};
Sample draw(test::Random& random) {
  Sample s{};
  double total = 0;
  for (double& x : s.p) total += x = std::exp(random.uniform(-2, 2));
  for (double& x : s.p) x /= total;
  const double u = random.uniform(0, 1);
  s.truth = u < s.p[0] ? 0 : u < s.p[0] + s.p[1] ? 1 : 2;
  if (random.below(4) == 0) s.truth = static_cast<std::size_t>(random.below(3));  // and is wrong about how sure it is
  return s;
}

}  // namespace

TEST_CASE("the conformal threshold is the ceil((n + 1)(1 - a))-th smallest score", "[mix]") {
  std::vector<double> p;
  for (const int i : {3, 1, 4, 9, 5, 2, 6, 8, 7}) p.push_back(1 - i / 16.0);  // scores 1/16 … 9/16
  CHECK(conformal_threshold(p, 0.5) == 5 / 16.0);
  CHECK(conformal_threshold(p, 0.25) == 8 / 16.0);  // ceil(7.5)
  CHECK(conformal_threshold(p, 0.125) == 9 / 16.0);
  CHECK(conformal_threshold(p, 0.99) == 1 / 16.0);
  CHECK(conformal_threshold(p, 0.05) == std::numeric_limits<double>::infinity());  // nine samples cannot promise it
}

TEST_CASE("a label set holds the labels of enough probability", "[mix]") {
  const std::vector<double> p{0.5, 0.125, 0.25, 0.125};
  std::array<bool, 4> holds{};
  CHECK(label_set(p, 0.75, holds) == 2);
  CHECK(holds == std::array{true, false, true, false});
  CHECK(label_set(p, 0.25, holds) == 0);
  CHECK(label_set(p, std::numeric_limits<double>::infinity(), holds) == 4);
}

TEST_CASE("label sets hold the truth as often as was promised, and hardly more", "[mix]") {
  // The coverage of fresh samples averages to k / (n + 1) over calibrations; its spread over trials · fresh draws is at
  // most that of a binomial plus that of the thresholds, Beta(k, n + 1 - k) each. Bounds: five standard deviations.
  constexpr int trials = 200, n = 99, fresh = 200;
  for (const double miss_rate : {0.05, 0.1, 0.3}) {
    test::Random random(31);
    double held = 0;
    for (int trial = 0; trial < trials; ++trial) {
      std::vector<double> p_true;
      for (int i = 0; i < n; ++i) {
        const Sample s = draw(random);
        p_true.push_back(s.p[s.truth]);
      }
      const double threshold = conformal_threshold(p_true, miss_rate);
      for (int i = 0; i < fresh; ++i) {
        const Sample s = draw(random);
        std::array<bool, 3> holds{};
        label_set(s.p, threshold, holds);
        held += holds[s.truth] ? 1 : 0;
      }
    }
    const double coverage = held / (trials * fresh), variance = miss_rate * (1 - miss_rate);
    const double deviation = std::sqrt(variance / (trials * fresh) + variance / ((n + 2.0) * trials));
    CAPTURE(miss_rate, coverage, deviation);
    CHECK(coverage > 1 - miss_rate - 5 * deviation);
    CHECK(coverage < 1 - miss_rate + 1.0 / (n + 1) + 5 * deviation);
  }
}

TEST_CASE("a conformal promise outside its range is refused", "[mix][law5]") {
  const std::vector<double> p{0.5, 0.25};
  CHECK_THROWS_AS(conformal_threshold(p, 0), Error);
  CHECK_THROWS_AS(conformal_threshold(p, 1), Error);
  CHECK_THROWS_AS(conformal_threshold(p, std::nan("")), Error);
  CHECK_THROWS_AS(conformal_threshold({}, 0.1), Error);
  CHECK_THROWS_AS(conformal_threshold(std::vector<double>{0.5, std::nan("")}, 0.1), Error);
}
