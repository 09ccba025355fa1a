// The minimum of a smooth convex function of many variables: L-BFGS with a line search that brackets and bisects. Fixed
// order of sums, no randomness: the same input gives the same bits with the same build. Not for a decoder's step: it
// allocates, and its vectors are Eigen's.
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/core/eigen.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <deque>
#include <limits>
#include <utility>

namespace finteam::inline FINTEAM_ABI::detail {

/// Where a line search ended.
struct Step {
  double length = 0;  ///< 0: nothing lower was found
  double value = 0;
};

/// A step that lowers f enough (Armijo, 1e-4) and flattens it enough (weak Wolfe, 0.9): brackets by doubling, then
/// bisects. at = from + length · direction, its gradient in `gradient`. f(x, gradient) returns the value. Source: Lewis
/// & Overton 2013, algorithm 2.6.
template <class F>
[[nodiscard]] Step line_search(F&& f, const Eigen::VectorXd& from, double value, double slope,
                               const Eigen::VectorXd& direction, Eigen::VectorXd& at, Eigen::VectorXd& gradient) {
  double low = 0, high = std::numeric_limits<double>::infinity(), length = 1;
  for (int attempt = 0; attempt < 50; ++attempt) {
    at = from + length * direction;
    const double found = f(at, gradient);
    if (!(found <= value + 1e-4 * length * slope)) {  // a NaN too
      high = length;
    } else if (gradient.dot(direction) < 0.9 * slope) {
      low = length;
    } else {
      return {length, found};
    }
    length = std::isinf(high) ? 2 * low : 0.5 * (low + high);
  }
  return {0, value};
}

/// -H · gradient, H the inverse Hessian that the remembered pairs (step, change of gradient) stand for. Source: Nocedal
/// & Wright 2006, algorithm 7.4.
struct InverseHessian {
  struct Pair {
    Eigen::VectorXd step, change;
    double curvature;
  };
  std::deque<Pair> pairs;

  /// Remembers a pair, of at most ten; one without positive curvature says nothing.
  void remember(Eigen::VectorXd step, Eigen::VectorXd change) {
    const double curvature = step.dot(change);
    if (!(curvature > 1e-300)) return;
    if (pairs.size() == 10) pairs.pop_front();
    pairs.push_back({std::move(step), std::move(change), curvature});
  }

  [[nodiscard]] Eigen::VectorXd descent(const Eigen::VectorXd& gradient) const {
    Eigen::VectorXd q = -gradient;
    std::deque<double> alpha;
    for (auto pair = pairs.rbegin(); pair != pairs.rend(); ++pair) {
      alpha.push_front(pair->step.dot(q) / pair->curvature);
      q -= alpha.front() * pair->change;
    }
    if (pairs.empty()) q /= std::max(1.0, gradient.lpNorm<1>());  // a first step that overshoots nothing
    if (!pairs.empty()) q *= pairs.back().curvature / pairs.back().change.squaredNorm();
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      q += (alpha[i] - pairs[i].change.dot(q) / pairs[i].curvature) * pairs[i].step;
    }
    return q;
  }
};

/// Lowers f from x, in place, until its gradient's largest entry is at most `tolerance`, nothing lower is found, or for
/// max_iterations; each(x, iteration) after every step says whether to go on. f(x, gradient) returns the value and
/// overwrites the gradient. Returns the number of steps taken. Source: Liu & Nocedal 1989.
template <class F, class Each>
index_t minimise(F&& f, Eigen::VectorXd& x, index_t max_iterations, double tolerance, Each&& each) {
  Eigen::VectorXd gradient(x.size()), next(x.size()), next_gradient(x.size());
  double value = f(x, gradient);
  InverseHessian hessian;
  for (index_t iteration = 0; iteration < max_iterations; ++iteration) {
    if (!(gradient.cwiseAbs().maxCoeff() > tolerance)) return iteration;
    const Eigen::VectorXd direction = hessian.descent(gradient);
    const Step step = line_search(f, x, value, gradient.dot(direction), direction, next, next_gradient);
    if (step.length == 0) return iteration;
    hessian.remember(next - x, next_gradient - gradient);
    x.swap(next);
    gradient.swap(next_gradient);
    value = step.value;
    if (!each(x, iteration + 1)) return iteration + 1;
  }
  return max_iterations;
}

}  // namespace finteam::inline FINTEAM_ABI::detail
