#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/lbfgs.hpp>

#include <cmath>

using namespace finteam;

namespace {

/// Σ_i scale_i/2 · (x_i - i)²
struct Bowl {
  Eigen::VectorXd scale;
  double operator()(const Eigen::VectorXd& x, Eigen::VectorXd& gradient) const {
    double sum = 0;
    for (Eigen::Index i = 0; i < x.size(); ++i) {
      const double off = x[i] - static_cast<double>(i);
      gradient[i] = scale[i] * off;
      sum += 0.5 * scale[i] * off * off;
    }
    return sum;
  }
};
Bowl bowl(Eigen::Index n) {
  test::Random random(51);
  Bowl b{Eigen::VectorXd(n)};
  for (Eigen::Index i = 0; i < n; ++i) b.scale[i] = std::exp(random.uniform(-4, 4));
  return b;
}
const auto go_on = [](const Eigen::VectorXd&, index_t) { return true; };

}  // namespace

TEST_CASE("L-BFGS finds the bottom of a bowl whose axes differ three thousandfold", "[mix]") {
  Eigen::VectorXd x = Eigen::VectorXd::Zero(30);
  const index_t iterations = detail::minimise(bowl(30), x, 500, 1e-9, go_on);
  CHECK(iterations < 500);
  for (Eigen::Index i = 0; i < 30; ++i) CHECK(x[i] == Approx(static_cast<double>(i)).margin(1e-6));
}

TEST_CASE("L-BFGS never rises, and stops where it is told to", "[mix]") {
  const Bowl f = bowl(20);
  Eigen::VectorXd x = Eigen::VectorXd::Zero(20), gradient(20);
  double value = f(x, gradient);
  index_t calls = 0;
  const auto falls = [&](const Eigen::VectorXd& at, index_t iteration) {
    const double now = f(at, gradient);
    CHECK(now < value);
    CHECK(iteration == ++calls);
    value = now;
    return iteration < 7;
  };
  CHECK(detail::minimise(f, x, 500, 1e-9, falls) == 7);
  CHECK(f(x, gradient) == value);
  CHECK(detail::minimise(f, x, 3, 1e-9, go_on) == 3);
  CHECK(detail::minimise(f, x, 0, 1e-9, go_on) == 0);
  x = Eigen::VectorXd::LinSpaced(20, 0, 19);
  CHECK(detail::minimise(f, x, 500, 1e-9, go_on) == 0);
}

TEST_CASE("L-BFGS comes back with what it had from a function that has no bottom, or is no number", "[mix]") {
  Eigen::VectorXd x = Eigen::VectorXd::Ones(2);
  const auto nowhere = [](const Eigen::VectorXd& at, Eigen::VectorXd& gradient) {
    gradient = Eigen::VectorXd::Ones(2);
    return at[0] == 1 && at[1] == 1 ? 0.0 : std::nan("");
  };
  CHECK(detail::minimise(nowhere, x, 500, 1e-9, go_on) == 0);
  CHECK(x == Eigen::VectorXd::Ones(2));
  const auto slope = [](const Eigen::VectorXd& at, Eigen::VectorXd& gradient) {
    gradient = Eigen::VectorXd::Ones(2);
    return at.sum();
  };
  CHECK(detail::minimise(slope, x, 500, 1e-9, go_on) == 0);
  CHECK(x == Eigen::VectorXd::Ones(2));
}
