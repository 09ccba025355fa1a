// Weights by running performance: which role is best now, filtered from the losses that outcomes reveal. Not here: what
// a loss is (-log p of the label that came true, a trade's regret), or when an outcome is known: the host says both.
#pragma once

#include <finteam/core/checked.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// How fast RunningPerformance believes and doubts.
struct RunningPerformanceOptions {
  double switch_probability = 0.02;  ///< that another role is the best one at the next outcome
  double rate = 1;                   ///< of a loss: 1 is Bayes' rule if losses are -log p; 0 learns nothing

  /// Throws Error(invalid_argument) unless 0 ≤ switch_probability < 1 and 0 ≤ rate < ∞.
  void validate() const {
    if (!(switch_probability >= 0 && switch_probability < 1)) {
      throw Error(Code::invalid_argument, "running performance: switch_probability", "at least 0 and below 1",
                  std::to_string(switch_probability));
    }
    if (!(rate >= 0) || !std::isfinite(rate)) {
      throw Error(Code::invalid_argument, "running performance: rate", "a finite number of at least 0",
                  std::to_string(rate));
    }
  }
};

/// p(role j is best | losses so far), by a hidden Markov filter: the best role stays with probability 1 - ε and becomes
/// each other one with ε / (n - 1), then an outcome weighs role j by exp(-rate · loss[j]). Its state is log_weights(),
/// n doubles; restored, the same losses give the same bits. Logarithms, so nothing underflows. One thread at a time.
/// Source: Saqur et al. 2024 (MoE-F, arXiv 2406.02969), whose Wonham-Shiryaev filter this is in discrete time; Herbster
/// & Warmuth 1998 (fixed share), who bound its regret against the best sequence of roles.
class RunningPerformance {
 public:
  /// n roles of equal weight. Throws Error(invalid_argument) unless n ≥ 1, or for bad options.
  explicit RunningPerformance(index_t n, const RunningPerformanceOptions& options = {}) : options_(options) {
    options.validate();
    if (n < 1) throw Error(Code::invalid_argument, "running performance: roles", "at least 1", std::to_string(n));
    log_weights_.assign(static_cast<std::size_t>(n), -std::log(static_cast<double>(n)));
    next_.resize(log_weights_.size());
  }

  /// Predicts, then updates: w[j] ∝ ((1 - ε) · w[j] + ε / (n - 1) · (1 - w[j])) · exp(-rate · losses[j]). losses [n],
  /// one for every role (Wake::all wakes them). Allocates nothing. Throws Error(invalid_argument), and changes nothing,
  /// for a wrong width, or a loss that is not finite or so large that rate · loss is not.
  void observe(std::span<const double> losses) {
    require(losses, "running performance: losses");
    const double n = static_cast<double>(losses.size());
    double least = std::numeric_limits<double>::infinity();
    for (const double loss : losses) {
      least = std::min(least, options_.rate * loss);
      if (std::isfinite(options_.rate * loss)) continue;
      throw Error(Code::invalid_argument, "running performance: losses", "rate · loss to be finite",
                  std::to_string(loss));
    }
    for (std::size_t j = 0; j < losses.size(); ++j) {
      double predicted = log_weights_[j];
      if (options_.switch_probability > 0 && n > 1) {
        const double others = options_.switch_probability / (n - 1);
        predicted = std::log(std::fma(1 - options_.switch_probability - others, std::exp(predicted), others));
      }
      next_[j] = predicted - (options_.rate * losses[j] - least);
    }
    normalise(next_);
    std::swap(log_weights_, next_);
  }

  /// weights[j] = w[j], Σ = 1. weights [n], overwritten. Throws Error(invalid_argument) for another width.
  void weights(std::span<double> weights) const {
    if (weights.size() != log_weights_.size()) {
      throw Error(Code::invalid_argument, "running performance: weights",
                  std::to_string(log_weights_.size()) + " roles", std::to_string(weights.size()));
    }
    double sum = 0;
    for (std::size_t j = 0; j < weights.size(); ++j) sum += weights[j] = std::exp(log_weights_[j]);
    for (double& w : weights) w /= sum;
  }

  /// log w [n]: the whole state; also scores for gate_weights, and what to add to another gate's scores as log prior.
  [[nodiscard]] std::span<const double> log_weights() const noexcept { return log_weights_; }

  /// Continues from what log_weights() once was, taken as it is. Throws Error(invalid_argument), and changes nothing,
  /// for another width, an entry that is not finite, or weights whose sum is not 1 within 1e-6.
  void restore(std::span<const double> log_weights) {
    require(log_weights, "running performance: log_weights");
    double sum = 0;
    for (const double x : log_weights) sum += std::exp(x);
    if (!(std::abs(sum - 1) <= 1e-6)) {
      throw Error(Code::invalid_argument, "running performance: log_weights", "weights whose sum is 1",
                  std::to_string(sum));
    }
    std::copy(log_weights.begin(), log_weights.end(), log_weights_.begin());
  }

 private:
  void require(std::span<const double> x, const char* where) const {
    if (x.size() != log_weights_.size()) {
      throw Error(Code::invalid_argument, where, std::to_string(log_weights_.size()) + " roles",
                  std::to_string(x.size()));
    }
    for (const double v : x) {
      if (!std::isfinite(v)) throw Error(Code::invalid_argument, where, "finite numbers", std::to_string(v));
    }
  }

  /// Σ exp = 1, summed in increasing order.
  static void normalise(std::span<double> x) noexcept {
    const double most = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const double v : x) sum += std::exp(v - most);
    const double total = most + std::log(sum);
    for (double& v : x) v -= total;
  }

  RunningPerformanceOptions options_;
  std::vector<double> log_weights_, next_;
};

}  // namespace finteam::inline FINTEAM_ABI
