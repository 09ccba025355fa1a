// From scores to weights: softmax at a temperature, floor, top-k, renormalisation. Scores come from a linear map of a
// feature, or from each role's likelihood of the prompt; which of them is the team's matter.
#pragma once

#include <finteam/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>

namespace finteam::inline FINTEAM_ABI {

/// scores[i] = Σ_j weight[i,j] · feature[j] + bias[i], summed in double in increasing j.
/// weight [n, d], bias [n], feature [d], scores [n], overwritten. With weight 2 c_i and bias -‖c_i‖² its softmax is
/// that of -‖feature - c_i‖²: roles by the nearness of their data's centres c (c-BTM, Gururangan et al. 2023).
inline void linear_scores(MatrixView<const float> weight, std::span<const float> bias, std::span<const double> feature,
                          std::span<double> scores) noexcept {
  for (index_t i = 0; i < weight.extent(0); ++i) {
    double sum = 0;
    for (index_t j = 0; j < weight.extent(1); ++j) {
      sum = std::fma(static_cast<double>(weight(i, j)), feature[static_cast<std::size_t>(j)], sum);
    }
    scores[static_cast<std::size_t>(i)] = sum + static_cast<double>(bias[static_cast<std::size_t>(i)]);
  }
}

/// x = softmax(x / temperature), in place. temperature > 0. An empty span is left alone.
inline void softmax(std::span<double> x, double temperature = 1.0) noexcept {
  double largest = -std::numeric_limits<double>::infinity();
  for (const double v : x) largest = std::max(largest, v);
  double sum = 0;
  for (double& v : x) sum += v = std::exp((v - largest) / temperature);
  for (double& v : x) v /= sum;
}

namespace detail {

/// Sets all but the k largest weights (ties: the lower index) to 0 and returns the sum of those that stay.
inline double zero_all_but(std::span<double> weights, index_t k) noexcept {
  const auto stands_before = [&](std::size_t j, std::size_t i) {
    const double a = std::abs(weights[j]), b = std::abs(weights[i]);
    return a > b || (a == b && j < i);
  };
  double kept = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    index_t rank = 0;
    for (std::size_t j = 0; j < weights.size(); ++j) rank += stands_before(j, i) ? 1 : 0;
    if (rank < k) {
      kept += weights[i];
    } else {
      weights[i] = -weights[i];  // dropped; its size still counts in the ranks of the others
    }
  }
  for (double& w : weights) w = w < 0 || w == 0 ? 0.0 : w;  // a NaN stays one
  return kept;
}

}  // namespace detail

/// Keeps the k largest weights (ties: the lower index), sets the others to 0, and divides by what is left: Σ = 1.
/// Weights [n], in place, Σ = 1 on entry. k ≥ n changes nothing.
inline void keep_top_k(std::span<double> weights, index_t k) noexcept {
  if (k >= static_cast<index_t>(weights.size())) return;
  const double kept = detail::zero_all_but(weights, k);
  if (kept == 0) return;
  for (double& w : weights) w /= kept;
}

/// How a gate's scores become weights.
struct GateRule {
  index_t top_k = 0;        ///< roles that keep their weight; 0: all
  double temperature = 1;   ///< of the softmax: small is sharp
  double floor = 0;         ///< the least weight of a role before top-k: min(w) ≥ floor, by shrinking towards 1/n
  bool renormalise = true;  ///< the kept weights sum to 1 again; false: they stay what they were, and Σ ≤ 1

  /// n: the roles. Throws Error(invalid_argument) unless n ≥ 1, top_k ≥ 0, 0 < temperature < ∞, 0 ≤ floor ≤ 1/n.
  void validate(index_t n) const {
    const auto refuse = [](const char* what, const std::string& expected, const std::string& found) {
      throw Error(Code::invalid_argument, std::string("gate: ") + what, expected, found);
    };
    if (n < 1) refuse("roles", "at least 1", std::to_string(n));
    if (top_k < 0) refuse("top_k", "at least 0", std::to_string(top_k));
    if (!(temperature > 0) || !std::isfinite(temperature)) {
      refuse("temperature", "a finite number above 0", std::to_string(temperature));
    }
    if (!(floor >= 0 && floor <= 1 / static_cast<double>(n))) {
      refuse("floor", "0 to 1/" + std::to_string(n), std::to_string(floor));
    }
  }
};

/// w = softmax(scores / temperature); w = floor + (1 - n · floor) · w; the top_k largest stay, the others become 0; the
/// kept ones are divided by their sum if renormalise. In place: scores [n] in, weights [n] out. Precondition:
/// rule.validate(n). A score of -∞ is a role with weight `floor`; a NaN, +∞ or n scores of -∞ give NaN weights.
///
/// Without renormalising, Σ w < 1 says how much of the gate's trust went to roles that sleep. What that means is the
/// mixture's matter: Σ w · y of feed-forward experts is smaller (Switch, Fedus et al. 2021, whose one expert would
/// otherwise always weigh 1; Qwen-MoE's norm_topk_prob = false), where Mixtral (Jiang et al. 2024, eq. 1) renormalises;
/// Σ w · logits is a distribution at a higher temperature; Σ w · p is no distribution, and once it is made one the
/// weights are the renormalised ones. So mix_probabilities wants them renormalised.
inline void gate_weights(const GateRule& rule, std::span<double> scores) noexcept {
  softmax(scores, rule.temperature);
  const double n = static_cast<double>(scores.size());
  if (rule.floor > 0) {
    const double rest = std::max(0.0, std::fma(-n, rule.floor, 1.0));
    for (double& w : scores) w = std::fma(rest, w, rule.floor);
  }
  if (rule.top_k == 0 || rule.top_k >= static_cast<index_t>(scores.size())) return;
  if (rule.renormalise) {
    keep_top_k(scores, rule.top_k);
  } else {
    detail::zero_all_but(scores, rule.top_k);
  }
}

}  // namespace finteam::inline FINTEAM_ABI
