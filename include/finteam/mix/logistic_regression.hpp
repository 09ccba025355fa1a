// Fits a gate: multinomial logistic regression of the class (the role that knew best, or a label) on a feature (a
// hidden state). What comes out is linear_scores' weight and bias. Deterministic; for a host's tool, not for a step.
#pragma once

#include <finteam/core/view.hpp>
#include <finteam/mix/calibration.hpp>
#include <finteam/mix/gate.hpp>
#include <finteam/mix/lbfgs.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// How logistic_regression fits.
struct LogisticRegressionOptions {
  double l2 = 1e-2;              ///< of the weights on standardised features; the bias is free
  index_t max_iterations = 200;  ///< of L-BFGS
  double tolerance = 1e-6;       ///< stops when no entry of the gradient is larger
  double held_out = 0.2;         ///< fraction of each class that is not fitted and says when to stop; 0: none
  index_t patience = 10;         ///< iterations without a better held-out likelihood before it stops

  /// Throws Error(invalid_argument) unless 0 ≤ l2 < ∞, max_iterations ≥ 0, tolerance ≥ 0, 0 ≤ held_out < 1, patience
  /// ≥ 1.
  void validate() const {
    const auto require = [](bool good, const char* what, const char* expected, double found) {
      if (good) return;
      throw Error(Code::invalid_argument, std::string("logistic regression: ") + what, expected, std::to_string(found));
    };
    require(l2 >= 0 && std::isfinite(l2), "l2", "a finite number of at least 0", l2);
    require(max_iterations >= 0, "max_iterations", "at least 0", static_cast<double>(max_iterations));
    require(tolerance >= 0, "tolerance", "at least 0", tolerance);
    require(held_out >= 0 && held_out < 1, "held_out", "at least 0 and below 1", held_out);
    require(patience >= 1, "patience", "at least 1", static_cast<double>(patience));
  }
};

/// How well a fit answers some samples; all 0 without samples.
struct FitQuality {
  index_t samples = 0;
  double accuracy = 0;                 ///< share of samples whose likeliest class is theirs
  double negative_log_likelihood = 0;  ///< nats per sample
  double calibration_error = 0;        ///< expected_calibration_error with 15 bins
};

/// What logistic_regression found; the qualities are those of the weight and bias as they are here, in float.
struct LogisticRegression {
  std::vector<float> weight;  ///< [n, d], row-major: linear_scores' weight, for features as they were given
  std::vector<float> bias;    ///< [n]
  index_t iterations = 0;     ///< that L-BFGS took
  FitQuality training, held_out;
};

namespace detail {

/// Where the fit is: x = weights [n, d] on standardised features, then biases [n].
class LogisticLoss {
 public:
  LogisticLoss(MatrixView<const float> features, std::span<const std::int32_t> truth, index_t n, double l2)
      : features_(features), truth_(truth), n_(n), d_(features.extent(1)), l2_(l2) {}

  std::vector<index_t> training, held_out;  ///< samples
  Eigen::VectorXd mean, scale;              ///< [d]: a feature is standardised as (x - mean) · scale

  /// The c-th sample of a class is held out if floor((c + 1) · fraction) > floor(c · fraction): spread evenly over each
  /// class, and never its first.
  void split(double fraction) {
    std::vector<index_t> count(static_cast<std::size_t>(n_), 0);
    for (index_t s = 0; s < features_.extent(0); ++s) {
      const auto c = static_cast<double>(count[static_cast<std::size_t>(truth_[static_cast<std::size_t>(s)])]++);
      (std::floor((c + 1) * fraction) > std::floor(c * fraction) ? held_out : training).push_back(s);
    }
  }

  /// Mean and 1 / deviation of every feature over the training samples; 0 for a feature that is constant.
  void standardise() {
    const auto all = as_eigen(features_);
    const double samples = static_cast<double>(training.size());
    mean = Eigen::VectorXd::Zero(d_);
    for (const index_t s : training) mean += all.row(s).transpose().template cast<double>();
    mean /= samples;
    Eigen::VectorXd variance = Eigen::VectorXd::Zero(d_);
    for (const index_t s : training) variance += (all.row(s).transpose().template cast<double>() - mean).cwiseAbs2();
    scale = Eigen::VectorXd::Zero(d_);
    for (index_t j = 0; j < d_; ++j) {
      const double deviation = std::sqrt(variance[j] / samples);
      if (deviation > 1e-12 * std::abs(mean[j])) scale[j] = 1 / deviation;
    }
  }

  /// -1/samples Σ_s log softmax(W z_s + b)[truth_s] + l2/2 · ‖W‖² over the training samples, and its gradient.
  double operator()(const Eigen::VectorXd& x, Eigen::VectorXd& gradient) const {
    gradient.setZero();
    const double sum = likelihood(x, training, &gradient) / static_cast<double>(training.size());
    gradient /= static_cast<double>(training.size());
    const auto weights = x.head(n_ * d_);
    gradient.head(n_ * d_) += l2_ * weights;
    return sum + 0.5 * l2_ * weights.squaredNorm();
  }

  /// -Σ_s log softmax(W z_s + b)[truth_s], and what that adds to the gradient.
  double likelihood(const Eigen::VectorXd& x, const std::vector<index_t>& samples, Eigen::VectorXd* gradient) const {
    const auto all = as_eigen(features_);
    Eigen::VectorXd z(d_);
    std::vector<double> p(static_cast<std::size_t>(n_));
    double sum = 0;
    for (const index_t s : samples) {
      z = (all.row(s).transpose().template cast<double>() - mean).cwiseProduct(scale);
      for (index_t i = 0; i < n_; ++i) p[static_cast<std::size_t>(i)] = x.segment(i * d_, d_).dot(z) + x[n_ * d_ + i];
      const index_t true_class = truth_[static_cast<std::size_t>(s)];
      sum += negative_log_likelihood({p.data(), {1, n_}}, truth_.subspan(static_cast<std::size_t>(s), 1));
      if (gradient == nullptr) continue;
      softmax(p);
      for (index_t i = 0; i < n_; ++i) {
        const double residual = p[static_cast<std::size_t>(i)] - (i == true_class ? 1.0 : 0.0);
        gradient->segment(i * d_, d_) += residual * z;
        (*gradient)[n_ * d_ + i] += residual;
      }
    }
    return sum;
  }

  /// The fit on features as they were given: weight · scale, and the bias that the float weights leave at their mean.
  void fold(const Eigen::VectorXd& x, LogisticRegression& fit) const {
    for (index_t i = 0; i < n_; ++i) {
      double bias = x[n_ * d_ + i];
      for (index_t j = 0; j < d_; ++j) {
        fit.weight.push_back(static_cast<float>(x[i * d_ + j] * scale[j]));
        bias -= static_cast<double>(fit.weight.back()) * mean[j];
      }
      fit.bias.push_back(static_cast<float>(bias));
    }
  }

  /// How the float weights do on some samples, by linear_scores.
  [[nodiscard]] FitQuality quality(const LogisticRegression& fit, const std::vector<index_t>& samples) const {
    FitQuality q;
    q.samples = static_cast<index_t>(samples.size());
    if (samples.empty()) return q;
    std::vector<double> scores(samples.size() * static_cast<std::size_t>(n_)), feature(static_cast<std::size_t>(d_));
    std::vector<std::int32_t> truth;
    const MatrixView<double> rows(scores.data(), {q.samples, n_});
    for (index_t r = 0; r < q.samples; ++r) {
      const index_t s = samples[static_cast<std::size_t>(r)];
      for (index_t j = 0; j < d_; ++j) feature[static_cast<std::size_t>(j)] = static_cast<double>(features_(s, j));
      linear_scores({fit.weight.data(), {n_, d_}}, fit.bias, feature, rows.row(r).span());
      truth.push_back(truth_[static_cast<std::size_t>(s)]);
      if (likeliest(rows.row(r).span()) == truth.back()) q.accuracy += 1 / static_cast<double>(q.samples);
    }
    q.negative_log_likelihood = negative_log_likelihood(rows, truth);
    for (index_t r = 0; r < q.samples; ++r) softmax(rows.row(r).span());
    q.calibration_error = expected_calibration_error(rows, truth);
    return q;
  }

 private:
  MatrixView<const float> features_;
  std::span<const std::int32_t> truth_;
  index_t n_, d_;
  double l2_;
};

}  // namespace detail

/// argmin over W, b of -1/samples Σ_s log softmax(W z_s + b)[truth_s] + l2/2 · ‖W‖², z the standardised features;
/// weight and bias are W and b for the features as they are. L-BFGS from zero; with held_out > 0 the iteration of the
/// greatest held-out likelihood is the result. Where features outnumber samples, compare the held-out figures of l2
/// from 0.01 to 10. features [samples, d], truth [samples]: a class in [0, n) each, n the number of classes. Costs
/// about 4 · samples · n · d flops an iteration; copies no features. Throws Error(invalid_argument) for bad options, n
/// < 2, d < 1, sizes that differ, a feature that is not finite, a class out of range, or one without a sample.
[[nodiscard]] inline LogisticRegression logistic_regression(MatrixView<const float> features,
                                                            std::span<const std::int32_t> truth, index_t n,
                                                            const LogisticRegressionOptions& options = {}) {
  options.validate();
  if (n < 2) throw Error(Code::invalid_argument, "logistic regression: n", "at least 2 classes", std::to_string(n));
  detail::require_outcomes("logistic regression", features, truth);
  detail::require_classes("logistic regression", truth, n);
  for (std::int32_t c = 0; c < n; ++c) {
    if (std::find(truth.begin(), truth.end(), c) != truth.end()) continue;
    throw Error(Code::invalid_argument, "logistic regression: truth", "a sample of every class",
                "none of class " + std::to_string(c));
  }
  detail::LogisticLoss loss(features, truth, n, options.l2);
  loss.split(options.held_out);
  loss.standardise();
  Eigen::VectorXd x = Eigen::VectorXd::Zero(n * features.extent(1) + n), best = x;
  double least = loss.held_out.empty() ? 0 : loss.likelihood(x, loss.held_out, nullptr);
  index_t best_iteration = 0;
  LogisticRegression fit;
  fit.iterations =
      detail::minimise(loss, x, options.max_iterations, options.tolerance, [&](const auto& at, index_t iteration) {
        const double found = loss.held_out.empty() ? 0 : loss.likelihood(at, loss.held_out, nullptr);
        if (loss.held_out.empty() || found < least) {
          best = at;
          least = found;
          best_iteration = iteration;
        }
        return iteration - best_iteration < options.patience;
      });
  loss.fold(best, fit);
  fit.training = loss.quality(fit, loss.training);
  fit.held_out = loss.quality(fit, loss.held_out);
  return fit;
}

}  // namespace finteam::inline FINTEAM_ABI
