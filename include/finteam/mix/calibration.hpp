// Probabilities that mean what they say: expected calibration error, the temperature that a held-out set asks for,
// another prior, and label sets of stated coverage. For outcomes that a host has collected; nothing here runs in a
// step.
#pragma once

#include <finteam/core/view.hpp>
#include <finteam/mix/likeliest.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Throws Error(invalid_argument) unless x [samples, classes] has samples, all finite, and one class in range for each.
template <class T>
void require_outcomes(const char* where, MatrixView<const T> x, std::span<const std::int32_t> truth) {
  const auto refuse = [&](const char* what, const std::string& expected, const std::string& found) {
    throw Error(Code::invalid_argument, std::string(where) + ": " + what, expected, found);
  };
  const index_t samples = x.extent(0), classes = x.extent(1);
  if (samples < 1 || classes < 1) refuse("input", "at least one sample and one column", shape_string(x.extents()));
  if (static_cast<index_t>(truth.size()) != samples) {
    refuse("truth", std::to_string(samples) + " entries", std::to_string(truth.size()));
  }
  for (index_t s = 0; s < samples; ++s) {
    for (index_t i = 0; i < classes; ++i) {
      if (!std::isfinite(x(s, i))) refuse("input", "finite numbers", "sample " + std::to_string(s) + " has another");
    }
  }
}

/// Throws Error(invalid_argument) unless every class lies in [0, classes).
inline void require_classes(const char* where, std::span<const std::int32_t> truth, index_t classes) {
  for (const std::int32_t c : truth) {
    if (c >= 0 && c < classes) continue;
    throw Error(Code::invalid_argument, std::string(where) + ": truth", "classes 0 to " + std::to_string(classes - 1),
                std::to_string(c));
  }
}

}  // namespace detail

/// Σ_b |B_b| / samples · |accuracy(B_b) - confidence(B_b)|: how far stated confidence is from the share that is right.
/// A sample's confidence is its greatest probability, and lies in bin b of `bins` equal ones ((b - 1) / bins, b /
/// bins]. p [samples, classes], truth [samples]. In [0, 1]. Throws Error(invalid_argument) for sizes that differ, a
/// class out of range, a probability outside [0, 1], or bins < 1. Source: Guo et al. 2017, eq. 3; 15 bins there.
[[nodiscard]] inline double expected_calibration_error(MatrixView<const double> p, std::span<const std::int32_t> truth,
                                                       index_t bins = 15) {
  detail::require_outcomes("calibration error", p, truth);
  detail::require_classes("calibration error", truth, p.extent(1));
  if (bins < 1) throw Error(Code::invalid_argument, "calibration error: bins", "at least 1", std::to_string(bins));
  std::vector<double> gap(static_cast<std::size_t>(bins), 0.0);  // Σ right - confidence
  for (index_t s = 0; s < p.extent(0); ++s) {
    const auto row = p.row(s).span();
    const index_t best = likeliest(row);
    const double confidence = std::min(row[static_cast<std::size_t>(best)], 1.0);
    if (!(confidence >= 0) || row[static_cast<std::size_t>(best)] > 1 + 1e-9) {  // a sum of weights may round past 1
      throw Error(Code::invalid_argument, "calibration error: input", "probabilities", std::to_string(confidence));
    }
    const auto bin = static_cast<index_t>(std::ceil(confidence * static_cast<double>(bins))) - 1;
    gap[static_cast<std::size_t>(std::clamp<index_t>(bin, 0, bins - 1))] +=
        (best == truth[static_cast<std::size_t>(s)] ? 1.0 : 0.0) - confidence;
  }
  double sum = 0;
  for (const double g : gap) sum += std::abs(g);
  return sum / static_cast<double>(p.extent(0));
}

/// -1/samples Σ_s log softmax(scores[s,:] / temperature)[truth[s]], in nats. scores [samples, classes], truth
/// [samples].
[[nodiscard]] inline double negative_log_likelihood(MatrixView<const double> scores,
                                                    std::span<const std::int32_t> truth,
                                                    double temperature = 1) noexcept {
  double sum = 0;
  for (index_t s = 0; s < scores.extent(0); ++s) {
    const auto z = scores.row(s).span();
    const double most = *std::max_element(z.begin(), z.end());
    double total = 0;
    for (const double x : z) total += std::exp((x - most) / temperature);
    sum += std::log(total) + (most - z[static_cast<std::size_t>(truth[static_cast<std::size_t>(s)])]) / temperature;
  }
  return sum / static_cast<double>(scores.extent(0));
}

/// What fit_temperature found.
struct TemperatureFit {
  double temperature = 1;              ///< divide scores by it: above 1 the model was too sure
  double negative_log_likelihood = 0;  ///< at that temperature, nats per sample
  double before = 0;                   ///< at temperature 1
};

/// argmin_T -Σ_s log softmax(scores[s,:] / T)[truth[s]] over T in [2^-10, 2^10]. That is convex in 1/T, so its slope
/// there, Σ_s E_softmax[z] - z[truth], is bisected over log T: always the same 60 steps. A bound is returned where the
/// slope has no zero (all right: 2^-10; no better than chance: 2^10), and 1 where all scores are equal.
/// scores [samples, classes]: logits, or log-probabilities (a constant per sample changes nothing); truth [samples].
/// Throws Error(invalid_argument) for sizes that differ, a score that is not finite, or a class out of range.
/// Source: Guo et al. 2017, section 4.2 (temperature scaling).
[[nodiscard]] inline TemperatureFit fit_temperature(MatrixView<const double> scores,
                                                    std::span<const std::int32_t> truth) {
  detail::require_outcomes("temperature", scores, truth);
  detail::require_classes("temperature", truth, scores.extent(1));
  const auto slope = [&](double sharpness) {
    double sum = 0;
    for (index_t s = 0; s < scores.extent(0); ++s) {
      const auto z = scores.row(s).span();
      const double most = *std::max_element(z.begin(), z.end());
      double total = 0, mean = 0;
      for (const double x : z) {
        const double p = std::exp((x - most) * sharpness);
        total += p;
        mean += p * (x - most);
      }
      sum += mean / total - (z[static_cast<std::size_t>(truth[static_cast<std::size_t>(s)])] - most);
    }
    return sum;
  };
  double low = -10, high = 10;  // log2 of the temperature; the slope falls as it grows
  if (slope(0x1p10) == 0 && slope(0x1p-10) == 0) {
    low = high = 0;
  } else if (!(slope(0x1p10) > 0)) {
    high = low;
  } else if (!(slope(0x1p-10) < 0)) {
    low = high;
  }
  for (int step = 0; step < 60; ++step) {
    const double middle = 0.5 * (low + high);
    (slope(std::exp2(-middle)) > 0 ? low : high) = middle;
  }
  const double temperature = std::exp2(0.5 * (low + high));
  return {temperature, negative_log_likelihood(scores, truth, temperature), negative_log_likelihood(scores, truth)};
}

/// p[i] = p[i] · now[i] / then[i], divided by their sum: the answer where classes come with the frequencies `now`, from
/// a model that was made where they came with `then`. p [classes], in place; then > 0 wherever p > 0; now ≥ 0, neither
/// need sum to 1. All NaN if nothing is left. Source: Saerens et al. 2002.
inline void correct_prior(std::span<double> p, std::span<const double> then, std::span<const double> now) noexcept {
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] = p[i] > 0 ? p[i] * now[i] / then[i] : 0.0;
  for (double& x : p) x /= sum;
}

}  // namespace finteam::inline FINTEAM_ABI
