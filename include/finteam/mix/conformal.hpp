// Split conformal prediction: label sets that hold the truth as often as promised, whatever the model's probabilities
// are worth. The promise is for samples that are exchangeable with the calibrating ones: not for a market that has
// changed.
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

/// The k-th smallest of 1 - probability_of_truth[s], k = ceil((samples + 1) · (1 - miss_rate)); ∞ if k > samples. With
/// this threshold label_set holds the truth of a new sample with a probability of at least 1 - miss_rate (and, without
/// ties, at most 1 / (samples + 1) more), whatever the model, if the samples and it are exchangeable.
/// probability_of_truth [samples]: what the model gave the label that came true, on samples that fitted nothing. Throws
/// Error(invalid_argument) for no samples, a NaN, or a miss_rate outside (0, 1). Source: Vovk et al. 2005; Angelopoulos
/// & Bates 2021, section 1.1.
[[nodiscard]] inline double conformal_threshold(std::span<const double> probability_of_truth, double miss_rate) {
  const auto numbers = [](double x) { return !std::isnan(x); };
  if (probability_of_truth.empty() || !std::all_of(probability_of_truth.begin(), probability_of_truth.end(), numbers)) {
    throw Error(Code::invalid_argument, "conformal: probability_of_truth", "at least one number, and no NaN",
                std::to_string(probability_of_truth.size()) + " entries");
  }
  if (!(miss_rate > 0 && miss_rate < 1)) {
    throw Error(Code::invalid_argument, "conformal: miss_rate", "between 0 and 1", std::to_string(miss_rate));
  }
  std::vector<double> score(probability_of_truth.begin(), probability_of_truth.end());
  for (double& x : score) x = 1 - x;
  const double rank = std::ceil(static_cast<double>(score.size() + 1) * (1 - miss_rate));
  if (rank > static_cast<double>(score.size())) return std::numeric_limits<double>::infinity();
  const auto at = score.begin() + static_cast<std::ptrdiff_t>(rank) - 1;
  std::nth_element(score.begin(), at, score.end());
  return *at;
}

/// holds[i] = 1 - p[i] ≤ threshold, and how many do. p [labels], holds [labels], overwritten. None may: then the text
/// is unlike those that gave the threshold.
inline index_t label_set(std::span<const double> p, double threshold, std::span<bool> holds) noexcept {
  index_t count = 0;
  for (std::size_t i = 0; i < p.size(); ++i) count += holds[i] = 1 - p[i] <= threshold;
  return count;
}

}  // namespace finteam::inline FINTEAM_ABI
