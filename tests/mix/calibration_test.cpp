#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/calibration.hpp>
#include <finteam/mix/gate.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

using namespace finteam;

namespace {

constexpr index_t draws = 4000, classes = 3;
using Classes = std::vector<std::int32_t>;

MatrixView<const double> matrix(const std::vector<double>& x, index_t width = classes) {
  return {x.data(), {static_cast<index_t>(x.size()) / width, width}};
}

/// Scores, and truths drawn from their softmax at `temperature`.
struct Drawn {
  std::vector<double> scores;
  Classes truth;
};
Drawn draw(std::uint64_t seed, double temperature) {
  test::Random random(seed);
  Drawn drawn;
  for (index_t s = 0; s < draws; ++s) {
    std::vector<double> p(classes);
    for (double& z : p) drawn.scores.push_back(z = random.uniform(-4, 4));
    softmax(p, temperature);
    const double u = random.uniform(0, 1);
    drawn.truth.push_back(u < p[0] ? 0 : u < p[0] + p[1] ? 1 : 2);
  }
  return drawn;
}

std::vector<double> probabilities(std::vector<double> scores, double temperature = 1) {
  for (std::size_t s = 0; s < scores.size(); s += classes) softmax(std::span(scores).subspan(s, classes), temperature);
  return scores;
}

}  // namespace

TEST_CASE("calibration error is the weighted gap between confidence and accuracy", "[mix]") {
  // confidences 0.9, 0.9, 0.6, 0.6: two bins of five hold them; right: 1 of 2, and 2 of 2
  const std::vector<double> p{0.9, 0.1, 0.1, 0.9, 0.6, 0.4, 0.4, 0.6};
  const Classes truth{0, 0, 0, 1};
  CHECK(expected_calibration_error(matrix(p, 2), truth, 5) == Approx(0.5 * 0.4 + 0.5 * 0.4));
  // one bin: 3 of 4 are right, confidence 0.75 in the mean
  CHECK(expected_calibration_error(matrix(p, 2), truth, 1) == Approx(0.0).margin(1e-15));
}

TEST_CASE("calibration error's bins are closed above, and take 0 and 1", "[mix]") {
  const std::vector<double> sure{1, 0, 1, 0};
  CHECK(expected_calibration_error(matrix(sure, 2), Classes{0, 0}) == 0.0);
  CHECK(expected_calibration_error(matrix(sure, 2), Classes{1, 1}) == 1.0);
  CHECK(expected_calibration_error(matrix({0, 0}, 2), Classes{0}) == 1.0);
  // 0.5 belongs to the lower of two bins, 0.75 to the upper: apart, the gaps do not cancel
  const std::vector<double> edge{0.5, 0.5, 0.75, 0.25};
  CHECK(expected_calibration_error(matrix(edge, 2), Classes{0, 1}, 2) == Approx(0.5 * 0.5 + 0.5 * 0.75));
}

TEST_CASE("probabilities that drew the truth are calibrated, sharpened ones are not", "[mix]") {
  const auto drawn = draw(1, 1);
  CHECK(expected_calibration_error(matrix(probabilities(drawn.scores)), drawn.truth) < 0.03);
  CHECK(expected_calibration_error(matrix(probabilities(drawn.scores, 0.4)), drawn.truth) > 0.05);
}

TEST_CASE("the fitted temperature is the one that drew the truth, and mends the calibration", "[mix]") {
  for (const double temperature : {0.5, 1.0, 2.5}) {
    const auto drawn = draw(2, temperature);
    const auto fit = fit_temperature(matrix(drawn.scores), drawn.truth);
    CHECK(fit.temperature == Approx(temperature).epsilon(0.06));
    CHECK(fit.negative_log_likelihood <= fit.before);
    CHECK(fit.before == Approx(negative_log_likelihood(matrix(drawn.scores), drawn.truth)));
    CHECK(expected_calibration_error(matrix(probabilities(drawn.scores, fit.temperature)), drawn.truth) < 0.03);
    // no temperature of a fine grid is better
    for (double t = 0.2; t < 5; t *= 1.02) {
      CHECK(negative_log_likelihood(matrix(drawn.scores), drawn.truth, t) >= fit.negative_log_likelihood - 1e-12);
    }
  }
}

TEST_CASE("the fitted temperature of two labels has a closed form", "[mix]") {
  // score gap 2 for the right label three times, for the wrong one once: sigma(2 / T) = 3/4, so T = 2 / log 3
  const std::vector<double> scores{2, 0, 2, 0, 0, 2, 0, 2};
  const auto fit = fit_temperature(matrix(scores, 2), Classes{0, 0, 1, 0});
  CHECK(fit.temperature == Approx(2 / std::log(3.0)).epsilon(1e-12));
}

TEST_CASE("a temperature without an optimum is a bound", "[mix]") {
  const std::vector<double> scores{2, 0, 0, 2};
  CHECK(fit_temperature(matrix(scores, 2), Classes{0, 1}).temperature == 0x1p-10);
  CHECK(fit_temperature(matrix(scores, 2), Classes{1, 0}).temperature == 0x1p10);
  CHECK(fit_temperature(matrix(scores, 2), Classes{0, 0}).temperature == 0x1p10);
  CHECK(fit_temperature(matrix({3, 3, -1, -1}, 2), Classes{0, 1}).temperature == 1);
  CHECK(std::isfinite(fit_temperature(matrix({1e300, -1e300}, 2), Classes{0}).negative_log_likelihood));
}

TEST_CASE("a corrected prior is Bayes' rule with other class frequencies", "[mix]") {
  std::vector<double> p{0.5, 0.3, 0.2};
  correct_prior(p, std::vector<double>{0.5, 0.25, 0.25}, std::vector<double>{0.25, 0.25, 0.5});
  // 0.25, 0.3, 0.4 of 0.95
  CHECK(p[0] == Approx(0.25 / 0.95));
  CHECK(p[1] == Approx(0.3 / 0.95));
  CHECK(p[2] == Approx(0.4 / 0.95));
  std::vector<double> same{0.1, 0.6, 0.3};
  correct_prior(same, std::vector<double>{2, 2, 2}, std::vector<double>{1, 1, 1});
  CHECK(same[1] == Approx(0.6));
  std::vector<double> never{0, 0.6, 0.4};
  correct_prior(never, std::vector<double>{0, 0.5, 0.5}, std::vector<double>{0.5, 0.25, 0.25});
  CHECK(never[0] == 0.0);
  CHECK(never[1] == Approx(0.6));
}

TEST_CASE("correcting by the classes' frequencies mends the answers", "[mix]") {
  // a feature x ~ N(class, 1) by twelve uniforms; the model knows the densities and believes in equal classes
  test::Random random(5);
  const std::vector<double> then{1.0 / 3, 1.0 / 3, 1.0 / 3}, now{0.7, 0.2, 0.1};
  std::vector<double> p;
  Classes truth;
  for (index_t s = 0; s < draws; ++s) {
    const double u = random.uniform(0, 1);
    truth.push_back(u < 0.7 ? 0 : u < 0.9 ? 1 : 2);
    double x = 1.5 * truth.back() - 6;
    for (int i = 0; i < 12; ++i) x += random.uniform(0, 1);
    for (int c = 0; c < 3; ++c) p.push_back(-0.5 * (x - 1.5 * c) * (x - 1.5 * c));
  }
  p = probabilities(p);
  const auto right = [&](const std::vector<double>& q) {
    int count = 0;
    for (index_t s = 0; s < draws; ++s) {
      count += likeliest(matrix(q).row(s).span()) == truth[static_cast<std::size_t>(s)] ? 1 : 0;
    }
    return count;
  };
  const double before = expected_calibration_error(matrix(p), truth);
  const int right_before = right(p);
  for (std::size_t s = 0; s < p.size(); s += classes) correct_prior(std::span(p).subspan(s, classes), then, now);
  CHECK(right(p) > right_before + draws / 50);
  CHECK(expected_calibration_error(matrix(p), truth) < before);
}

TEST_CASE("outcomes that do not fit together are refused", "[mix][law5]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> p{0.5, 0.5, 0.25, 0.75};
  const auto refused = [](auto&& f) {
    try {
      f();
    } catch (const Error& e) {
      return e.code() == Code::invalid_argument;
    }
    return false;
  };
  CHECK(refused([&] { (void)expected_calibration_error(matrix(p, 2), Classes{0}); }));
  CHECK(refused([&] { (void)expected_calibration_error(matrix(p, 2), Classes{0, 2}); }));
  CHECK(refused([&] { (void)expected_calibration_error(matrix(p, 2), Classes{0, -1}); }));
  CHECK(refused([&] { (void)expected_calibration_error(matrix(p, 2), Classes{0, 1}, 0); }));
  CHECK(refused([&] { (void)expected_calibration_error(matrix({}, 2), Classes{}); }));
  CHECK(refused([&] { (void)expected_calibration_error(matrix({nan, 1}, 2), Classes{0}); }));
  CHECK(refused([&] { (void)expected_calibration_error(matrix({3, -2}, 2), Classes{0}); }));
  CHECK(refused([&] { (void)fit_temperature(matrix({nan, 1}, 2), Classes{0}); }));
  CHECK(refused([&] { (void)fit_temperature(matrix(p, 2), Classes{0, 1, 1}); }));
}
