// Rotary position embedding: the frequencies that a config asks for, and the angles of a step's rows.
// Not here: the rotation itself, which is a backend's op.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/fp_environment.hpp>
#include <finteam/file/config.hpp>

#include <cmath>
#include <numbers>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Llama 3.1's smoothing: long waves are slowed by `factor`, short ones kept, those between blended.
/// Source: transformers, modeling_rope_utils.py, _compute_llama3_parameters.
[[nodiscard]] inline float llama3_frequency(float frequency, const RopeConfig& rope) noexcept {
  const float context = static_cast<float>(rope.original_max_positions), factor = static_cast<float>(rope.factor),
              low = static_cast<float>(rope.low_freq_factor), high = static_cast<float>(rope.high_freq_factor);
  const float wave = 2.0F * std::numbers::pi_v<float> / frequency;
  if (wave > context / low) return frequency / factor;
  if (wave < context / high) return frequency;
  const float smooth = (context / wave - low) / (high - low);
  return std::fma(1.0F - smooth, frequency / factor, smooth * frequency);
}

}  // namespace detail

/// frequency[i] = theta^(-2i/e), then scaled as the config says. [e/2], radians per position.
/// Source: Su et al. 2021, eq. 15; in float, as transformers computes it.
[[nodiscard]] inline std::vector<float> rope_frequencies(const Config& config) {
  const FpEnvironment environment;
  std::vector<float> frequency(static_cast<std::size_t>(config.e / 2));
  for (std::size_t i = 0; i < frequency.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.e);
    float f = 1.0F / static_cast<float>(std::pow(config.rope.theta, static_cast<double>(exponent)));
    if (config.rope.type == RopeType::llama3) f = detail::llama3_frequency(f, config.rope);
    if (config.rope.type == RopeType::linear) f /= static_cast<float>(config.rope.factor);
    frequency[i] = f;
  }
  return frequency;
}

/// cosine[t,i] = cos(position[t] · frequency[i]), sine likewise. cosine, sine [t, e/2], overwritten.
/// The angle is rounded to float, as transformers does; its cosine is taken in double.
inline void rope_angles(std::span<const float> frequency, std::span<const Site> sites, MatrixView<float> cosine,
                        MatrixView<float> sine) noexcept {
  for (std::size_t t = 0; t < sites.size(); ++t) {
    for (std::size_t i = 0; i < frequency.size(); ++i) {
      const float angle = static_cast<float>(sites[t].position) * frequency[i];
      cosine(t, i) = static_cast<float>(std::cos(static_cast<double>(angle)));
      sine(t, i) = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

}  // namespace finteam::inline FINTEAM_ABI
