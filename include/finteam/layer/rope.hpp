// Rotary position embedding: the frequencies that a config asks for, where a backend reads them.
// Not here: angles and the rotation itself, which are a backend's ops.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/fp_environment.hpp>
#include <finteam/file/rope_config.hpp>

#include <algorithm>
#include <cmath>
#include <memory_resource>
#include <numbers>
#include <span>
#include <utility>
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

namespace detail {

/// YaRN's ramp: 1 where frequencies stay, 0 where they are divided by `factor`. Source: Peng et al. 2023, eq. 17 to 23;
/// transformers, _compute_yarn_parameters.
class YarnRamp {
 public:
  YarnRamp(const RopeConfig& rope, index_t width) {
    const double n = static_cast<double>(width);
    const auto index_of = [&](double rotations) {
      const double context = static_cast<double>(rope.original_max_positions);
      return n * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
    };
    low_ = index_of(rope.beta_fast);
    high_ = index_of(rope.beta_slow);
    if (rope.truncate) {
      low_ = std::floor(low_);
      high_ = std::ceil(high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, n - 1);
    if (low_ == high_) high_ += 0.001;
  }
  [[nodiscard]] float operator()(std::size_t i) const noexcept {
    const float along = (static_cast<float>(i) - static_cast<float>(low_)) / static_cast<float>(high_ - low_);
    return 1.0F - std::clamp(along, 0.0F, 1.0F);
  }

 private:
  double low_ = 0, high_ = 0;
};

}  // namespace detail

/// The frequencies of a rope, [share · e/2] radians per position, and what cosines and sines are multiplied by.
struct Rope {
  std::vector<float> frequency;
  std::vector<float> long_frequency{};  ///< of sequences that may be long; or empty: the same
  float attention_factor = 1;
};

/// frequency[i] = theta^(-2i/(share · e)), then scaled as the config says. e: the width of a head.
/// Source: Su et al. 2021, eq. 15; in float, as transformers computes it.
[[nodiscard]] inline Rope make_rope(const RopeConfig& config, index_t e) {
  const FpEnvironment environment;
  const index_t width = config.width(e);
  Rope rope{.frequency = std::vector<float>(static_cast<std::size_t>(width / 2)),
            .attention_factor = static_cast<float>(config.attention_factor)};
  const float factor = static_cast<float>(config.factor);
  for (std::size_t i = 0; i < rope.frequency.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(width);
    const float wave = static_cast<float>(std::pow(config.theta, static_cast<double>(exponent)));
    float& f = rope.frequency[i];
    f = 1.0F / wave;
    switch (config.type) {
      case RopeType::none: break;
      case RopeType::linear: f /= factor; break;
      case RopeType::llama3: f = detail::llama3_frequency(f, config); break;
      case RopeType::yarn: {
        const float stays = detail::YarnRamp(config, width)(i);
        f = std::fma(1.0F / (factor * wave), 1.0F - stays, f * stays);
        break;
      }
      case RopeType::longrope:
        f = 1.0F / (static_cast<float>(config.short_factor[i]) * wave);
        rope.long_frequency.push_back(1.0F / (static_cast<float>(config.long_factor[i]) * wave));
        break;
    }
  }
  return rope;
}

/// A rope where a backend reads it.
template <Backend B>
struct RopeTensor {
  using Frequencies = VectorView<const float, typename B::Space>;
  /// [1, share · e/2], or [2, …], those of sequences that may be long last.
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) frequencies;
  float attention_factor = 1;

  [[nodiscard]] Frequencies frequency() const noexcept { return frequencies.view().row(0); }
  [[nodiscard]] Frequencies long_frequency() const noexcept {
    return frequencies.extent(0) == 1 ? Frequencies() : frequencies.view().row(1);
  }
};

/// The rope in the backend's space.
template <Backend B>
[[nodiscard]] RopeTensor<B> load_rope(B& b, const Rope& rope, std::pmr::memory_resource* memory) {
  const auto n = static_cast<index_t>(rope.frequency.size());
  const index_t kinds = rope.long_frequency.empty() ? 1 : 2;
  RopeTensor<B> loaded{b.template tensor<float, 2>({kinds, n}, memory), rope.attention_factor};
  for (index_t i = 0; i < kinds; ++i) {
    const auto& from = i == 0 ? rope.frequency : rope.long_frequency;
    b.from_host(MatrixView<const float>(from.data(), {1, n}), loaded.frequencies.view().rows(i, 1));
  }
  return loaded;
}

/// The angles of a step's rows, as Backend's `angles` says it. cosine, sine [t, share · e/2], overwritten.
template <Backend B>
void rope_angles(B& b, const RopeTensor<B>& rope, std::span<const Site> sites,
                 MatrixView<float, typename B::Space> cosine, MatrixView<float, typename B::Space> sine) {
  b.angles(rope.frequency(), rope.long_frequency(), rope.attention_factor, sites, cosine, sine);
}

}  // namespace finteam::inline FINTEAM_ABI
