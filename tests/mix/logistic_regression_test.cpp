#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/logistic_regression.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace finteam;

namespace {

using Options = LogisticRegressionOptions;

struct Data {
  index_t n, d;
  std::vector<float> x;
  std::vector<std::int32_t> truth;
  [[nodiscard]] index_t samples() const { return static_cast<index_t>(truth.size()); }
  [[nodiscard]] MatrixView<const float> features() const { return {x.data(), {samples(), d}}; }
  [[nodiscard]] LogisticRegression fit(const Options& options) const {
    return logistic_regression(features(), truth, n, options);
  }
};

/// Features of order one, and classes drawn from the softmax of weight · x + bias, class c with more weight on feature
/// c.
Data draw(std::uint64_t seed, index_t samples, index_t n, index_t d, double strength) {
  test::Random random(seed);
  Data data{n, d, random.floats(static_cast<std::size_t>(samples * d)), {}};
  for (index_t s = 0; s < samples; ++s) {
    std::vector<double> p(static_cast<std::size_t>(n));
    for (index_t c = 0; c < n; ++c) {
      p[static_cast<std::size_t>(c)] = strength * static_cast<double>(data.x[static_cast<std::size_t>(s * d + c % d)]) +
                                       0.3 * static_cast<double>(c);
    }
    softmax(p);
    double u = random.uniform(0, 1);
    std::int32_t c = 0;
    while (c + 1 < n && u >= p[static_cast<std::size_t>(c)]) u -= p[static_cast<std::size_t>(c++)];
    data.truth.push_back(c);
  }
  for (std::int32_t c = 0; c < n; ++c) data.truth[static_cast<std::size_t>(c)] = c;
  return data;
}

/// The probabilities of one sample by linear_scores and softmax.
std::vector<double> answer(const LogisticRegression& fit, const Data& data, index_t s) {
  std::vector<double> feature, scores(static_cast<std::size_t>(data.n));
  for (index_t j = 0; j < data.d; ++j) {
    feature.push_back(static_cast<double>(data.x[static_cast<std::size_t>(s * data.d + j)]));
  }
  linear_scores({fit.weight.data(), {data.n, data.d}}, fit.bias, feature, scores);
  softmax(scores);
  return scores;
}

/// The greatest entry of the objective's gradient, by plain loops over all samples.
double gradient(const LogisticRegression& fit, const Data& data, double l2) {
  const auto samples = static_cast<double>(data.samples());
  std::vector<double> bias(static_cast<std::size_t>(data.n), 0.0);
  double greatest = 0;
  for (index_t j = 0; j < data.d; ++j) {
    double mean = 0, variance = 0;
    const auto x = [&](index_t s) { return static_cast<double>(data.x[static_cast<std::size_t>(s * data.d + j)]); };
    for (index_t s = 0; s < data.samples(); ++s) mean += x(s) / samples;
    for (index_t s = 0; s < data.samples(); ++s) variance += (x(s) - mean) * (x(s) - mean) / samples;
    const double deviation = std::sqrt(variance);
    for (index_t c = 0; c < data.n; ++c) {
      double g = l2 * static_cast<double>(fit.weight[static_cast<std::size_t>(c * data.d + j)]) * deviation;
      double b = 0;
      for (index_t s = 0; s < data.samples(); ++s) {
        const double residual = answer(fit, data, s)[static_cast<std::size_t>(c)] -
                                (data.truth[static_cast<std::size_t>(s)] == c ? 1.0 : 0.0);
        g += residual * (x(s) - mean) / deviation / samples;
        b += residual / samples;
      }
      greatest = std::max({greatest, std::abs(g), std::abs(b)});
    }
  }
  return greatest;
}

}  // namespace

TEST_CASE("with a constant feature the fit is the classes' frequencies", "[mix]") {
  const Data data{3, 1, std::vector<float>(8, 0.1F), {0, 1, 1, 2, 2, 2, 2, 1}};
  const auto fit = data.fit({.held_out = 0});
  CHECK(fit.weight == std::vector<float>(3, 0.0F));
  const auto p = answer(fit, data, 0);
  CHECK(p[0] == Approx(1.0 / 8).margin(1e-5));
  CHECK(p[1] == Approx(3.0 / 8).margin(1e-5));
  CHECK(p[2] == Approx(4.0 / 8).margin(1e-5));
  CHECK(fit.training.accuracy == Approx(0.5));
  CHECK(fit.training.negative_log_likelihood ==
        Approx(-(std::log(1.0 / 8) + 3 * std::log(3.0 / 8) + 4 * std::log(0.5)) / 8).epsilon(1e-6));
  CHECK(fit.training.calibration_error == Approx(0.0).margin(1e-5));
  CHECK(fit.held_out.samples == 0);
}

TEST_CASE("two points of each class on a line have a closed-form fit", "[mix]") {
  // x = ±1 with 3 of 4 on their own side: p(1 | x = 1) = 3/4 without l2, so the weights differ by log 3
  const Data data{2, 1, {1, 1, 1, 1, -1, -1, -1, -1}, {1, 1, 1, 0, 0, 0, 0, 1}};
  const auto fit = data.fit({.l2 = 0, .tolerance = 1e-9, .held_out = 0});
  CHECK(static_cast<double>(fit.weight[1] - fit.weight[0]) == Approx(std::log(3.0)).epsilon(1e-6));
  CHECK(static_cast<double>(fit.bias[1] - fit.bias[0]) == Approx(0.0).margin(1e-6));
  CHECK(fit.training.accuracy == Approx(0.75));
}

TEST_CASE("the fit is where the gradient of the objective vanishes, for random data", "[mix]") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const auto n = static_cast<index_t>(2 + seed % 3);
    const Data data = draw(seed, 120, n, 4, 1.5);
    const double l2 = seed % 2 == 0 ? 0.1 : 1e-3;
    CHECK(gradient(data.fit({.l2 = l2, .tolerance = 1e-8, .held_out = 0}), data, l2) < 1e-6);
  }
}

TEST_CASE("the fit finds the weights that drew the classes", "[mix]") {
  const Data data = draw(11, 6000, 3, 5, 2);
  const auto fit = data.fit({.l2 = 0});
  for (index_t c = 0; c < 3; ++c) {
    for (index_t j = 0; j < 5; ++j) {  // only differences between classes matter
      const float difference =
          fit.weight[static_cast<std::size_t>(c * 5 + j)] - fit.weight[static_cast<std::size_t>(j)];
      const double expected = c == 0 ? 0 : (j == c ? 2 : j == 0 ? -2 : 0);
      CHECK(static_cast<double>(difference) == Approx(expected).margin(0.25));
    }
  }
  CHECK(fit.training.samples == 4801);
  CHECK(fit.held_out.samples == 1199);
  CHECK(std::abs(fit.training.accuracy - fit.held_out.accuracy) < 0.05);
  CHECK(fit.held_out.calibration_error < 0.05);
}

TEST_CASE("another unit and origin of the features changes no answer", "[mix]") {
  const Data data = draw(12, 300, 3, 4, 2);
  Data other = data;
  for (std::size_t i = 0; i < other.x.size(); ++i) other.x[i] = other.x[i] * (i % 4 == 0 ? 1e4F : 1e-3F) + 64;
  const auto fit = data.fit({.tolerance = 1e-9}), moved = other.fit({.tolerance = 1e-9});
  for (index_t s = 0; s < 300; ++s) {
    const auto a = answer(fit, data, s), b = answer(moved, other, s);
    for (std::size_t c = 0; c < 3; ++c) CHECK(a[c] == Approx(b[c]).margin(5e-3));  // 64 + 0.001 · x has 8 bits of x
  }
}

TEST_CASE("what is reported is what the float weights do", "[mix]") {
  const Data data = draw(13, 200, 3, 4, 2);
  const auto fit = data.fit({.held_out = 0});
  double likelihood = 0, right = 0;
  std::vector<double> p;
  for (index_t s = 0; s < 200; ++s) {
    const auto a = answer(fit, data, s);
    p.insert(p.end(), a.begin(), a.end());
    const auto truth = static_cast<std::size_t>(data.truth[static_cast<std::size_t>(s)]);
    likelihood -= std::log(a[truth]) / 200;
    right += *std::max_element(a.begin(), a.end()) == a[truth] ? 1 : 0;
  }
  CHECK(fit.training.samples == 200);
  CHECK(fit.training.negative_log_likelihood == Approx(likelihood).epsilon(1e-12));
  CHECK(fit.training.accuracy == Approx(right / 200));
  CHECK(fit.training.calibration_error ==
        Approx(expected_calibration_error(MatrixView<const double>{p.data(), {200, 3}}, data.truth)));
}

TEST_CASE("held-out samples stop a fit that learns its noise", "[mix]") {
  const Data data = draw(14, 90, 2, 120, 1);  // more features than samples
  const auto stopped = data.fit({.l2 = 0}), on = data.fit({.l2 = 0, .max_iterations = 60, .patience = 1000});
  CHECK(stopped.iterations < 40);
  CHECK(on.held_out.negative_log_likelihood <= stopped.held_out.negative_log_likelihood);  // the best of more
  const auto all = data.fit({.l2 = 0, .held_out = 0});
  CHECK(all.training.accuracy == Approx(1.0));
  CHECK(stopped.held_out.negative_log_likelihood < 0.72);  // chance has log 2 = 0.693
}

TEST_CASE("a signal in two of many features is found although they outnumber the samples", "[mix]") {
  test::Random random(16);
  constexpr std::size_t samples = 500, d = 4000;
  Data data{2, d, random.floats(samples * d), {}};
  for (std::size_t s = 0; s < samples; ++s) data.truth.push_back(data.x[s * d] + data.x[s * d + 7] > 0 ? 1 : 0);
  const auto fit = data.fit({});
  CHECK(fit.held_out.negative_log_likelihood < 0.69);  // log 2 is 0.693; a first step as long as the gradient is worse
  CHECK(fit.held_out.accuracy > 0.55);
}

TEST_CASE("every class is held out alike, and never wholly", "[mix]") {
  Data data{2, 1, {}, {}};
  for (int i = 0; i < 40; ++i) {
    data.x.push_back(static_cast<float>(i % 7));
    data.truth.push_back(i < 30 ? 0 : 1);
  }
  data.x.push_back(3);
  data.truth.push_back(2);
  data.n = 3;
  const auto fit = data.fit({.held_out = 0.5});
  CHECK(fit.held_out.samples == 15 + 5);
  CHECK(fit.training.samples == 15 + 5 + 1);
  CHECK(data.fit({.held_out = 0.99}).training.samples == 3);
}

TEST_CASE("classes that a line parts do not make the fit run away", "[mix]") {
  Data data{2, 1, {}, {}};
  for (int i = 0; i < 20; ++i) {
    data.x.push_back(static_cast<float>(i));
    data.truth.push_back(i < 10 ? 0 : 1);
  }
  for (const double l2 : {0.0, 1e-2}) {
    const auto fit = data.fit({.l2 = l2, .held_out = 0});
    for (const float w : fit.weight) CHECK(std::isfinite(w));
    CHECK(fit.training.accuracy == Approx(1.0));
  }
}

TEST_CASE("the same samples give the same bits, wherever they lie in memory", "[mix]") {
  const Data data = draw(15, 250, 3, 7, 1);
  const auto fit = data.fit({});
  for (std::size_t shift = 0; shift < 4; ++shift) {
    std::vector<float> moved(data.x.size() + shift);
    std::copy(data.x.begin(), data.x.end(), moved.begin() + static_cast<std::ptrdiff_t>(shift));
    const auto again = logistic_regression({moved.data() + shift, {250, 7}}, data.truth, 3);
    CHECK(again.weight == fit.weight);
    CHECK(again.bias == fit.bias);
    CHECK(again.iterations == fit.iterations);
  }
}

TEST_CASE("samples that cannot be fitted are refused by name", "[mix][law5]") {
  const auto refused = [](const Data& data, const Options& options = {}) -> std::string {
    try {
      (void)data.fit(options);
    } catch (const Error& e) {
      CHECK(e.code() == Code::invalid_argument);
      return e.where();
    }
    return "";
  };
  const Data good{2, 1, {1, 2, 3, 4}, {0, 1, 0, 1}};
  const auto with = [&](auto&& change) {
    Data data = good;
    change(data);
    return data;
  };
  CHECK(refused(good) == "");
  CHECK(refused(with([](Data& x) { x.n = 1; })) == "logistic regression: n");
  CHECK(refused(with([](Data& x) { x.n = 3; })) == "logistic regression: truth");
  CHECK(refused(with([](Data& x) { x.truth[0] = 2; })) == "logistic regression: truth");
  CHECK(refused(with([](Data& x) { x.truth[0] = -1; })) == "logistic regression: truth");
  CHECK(refused(with([](Data& x) { x.x[2] = std::numeric_limits<float>::quiet_NaN(); })) ==
        "logistic regression: input");
  CHECK(refused(with([](Data& x) { x.x[2] = std::numeric_limits<float>::infinity(); })) ==
        "logistic regression: input");
  CHECK(refused(with([](Data& x) { x.d = 0; })) == "logistic regression: input");
  CHECK(refused(with([](Data& x) { x.truth.clear(); })) == "logistic regression: input");
  CHECK_THROWS_AS(logistic_regression(good.features(), std::vector<std::int32_t>{0, 1}, 2), Error);
  CHECK(refused(good, {.l2 = -1}) == "logistic regression: l2");
  CHECK(refused(good, {.l2 = std::nan("")}) == "logistic regression: l2");
  CHECK(refused(good, {.max_iterations = -1}) == "logistic regression: max_iterations");
  CHECK(refused(good, {.tolerance = std::nan("")}) == "logistic regression: tolerance");
  CHECK(refused(good, {.held_out = 1}) == "logistic regression: held_out");
  CHECK(refused(good, {.patience = 0}) == "logistic regression: patience");
}
