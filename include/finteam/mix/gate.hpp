// From scores to weights: softmax, top-k, renormalisation. Where the scores come from is the team's matter.
#pragma once

#include <finteam/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// scores[i] = Σ_j weight[i,j] · feature[j] + bias[i], summed in double in increasing j.
/// weight [n, d], bias [n], feature [d], scores [n], overwritten.
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

/// Keeps the k largest weights (ties: the lower index), sets the others to 0, and divides by what is left: Σ = 1.
/// Weights [n], in place, Σ = 1 on entry. k ≥ n changes nothing.
inline void keep_top_k(std::span<double> weights, index_t k) noexcept {
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
  if (k < static_cast<index_t>(weights.size())) {
    for (double& w : weights) w = w > 0 ? w / kept : 0.0;
  }
}

}  // namespace finteam::inline FINTEAM_ABI
