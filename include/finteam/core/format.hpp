// The formats that a weight can have in memory, their sizes, and what a group of quantised numbers means.
// Not here: where a weight's bytes lie (packed.hpp), arithmetic (backend/cpu/).
#pragma once

#include <finteam/core/view.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {

/// What a checkpoint's matrices are kept as.
enum class Weights : std::uint8_t {
  stored,     ///< as the files have them (f16 as f32), with float activations: the accuracy that goldens are held to
  bf16,       ///< bf16, with activations rounded to bf16; 2 bytes a weight
  int8,       ///< 8 bits, a scale for every 32; 8.5 bits a weight; activations in 8 bits, a scale for every 32
  int4,       ///< 4 bits, a scale for every 32; 4.5 bits a weight; activations as for int8
  int4_zero,  ///< 4 bits, a scale and a zero point for every 32; 5 bits a weight; activations as for int8
};

/// How one matrix is stored, and how activations meet it.
enum class Format : std::uint8_t {
  f32,        ///< float, float activations
  bf16_wide,  ///< bf16, float activations
  bf16,       ///< bf16, activations rounded to bf16
  int8,
  int4,
  int4_zero,
};

/// The format's name, for files and messages.
[[nodiscard]] constexpr std::string_view name(Format f) noexcept {
  constexpr std::array<std::string_view, 6> names{"f32", "bf16_wide", "bf16", "int8", "int4", "int4_zero"};
  return names[static_cast<std::size_t>(f)];
}
/// As name(Format), and "stored".
[[nodiscard]] constexpr std::string_view name(Weights w) noexcept {
  constexpr std::array<std::string_view, 5> names{"stored", "bf16", "int8", "int4", "int4_zero"};
  return names[static_cast<std::size_t>(w)];
}

/// Integers with a scale for every group.
[[nodiscard]] constexpr bool is_quantised(Format f) noexcept { return f >= Format::int8; }

/// The format of a matrix that is made of `parts`: one, for one product reads them all.
[[nodiscard]] inline Format format_of(Weights weights, std::span<const RawTensor> parts) noexcept {
  if (weights != Weights::stored) return static_cast<Format>(static_cast<int>(weights) + 1);
  const bool all = std::all_of(parts.begin(), parts.end(), [](const RawTensor& p) { return p.dtype == DType::bf16; });
  return all ? Format::bf16_wide : Format::f32;
}

/// Inputs that share a scale, in weights and in activations.
inline constexpr index_t group_inputs = 32;

/// Up to 32 weights of one output: w[j] ≈ scale · (q[j] - zero). The scale is a bf16 number, the zero an integer.
struct WeightGroup {
  std::array<std::uint8_t, group_inputs> q{};
  float scale = 0;
  float zero = 0;

  [[nodiscard]] float operator[](index_t j) const noexcept {
    return scale * (static_cast<float>(q[static_cast<std::size_t>(j)]) - zero);
  }
};

/// Up to 32 activations of one row: x[j] ≈ scale · q[j], |q[j]| ≤ 127.
struct ActivationGroup {
  std::array<std::int8_t, group_inputs> q{};
  float scale = 0;
};

namespace detail {

/// The nearest integer, ties to even; |x| < 2^22. (No call: this is the inner loop of loading.)
[[nodiscard]] inline std::int32_t nearest(float x) noexcept {
  return static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(x + 0x1.8p23F) - 0x4B400000U);
}

/// Groups whose greatest magnitude is below this are zero: 127 divided by it must be finite.
inline constexpr float least_magnitude = 1e-30F;

/// NaN where a number of the group is not finite: its products must say so.
[[nodiscard]] inline bool all_finite(std::span<const float> w) noexcept {
  float zero = 0;
  for (const float x : w) zero += x * 0.0F;
  return zero == 0;
}

}  // namespace detail

/// The group that stands for `w` (at most 32 numbers; missing ones are 0) in an integer format.
/// int8: scale = max|w| / 127. int4: the number of the greatest magnitude becomes -8 or, with its sign, +8 clamped to
/// 7, as in Q4_0 of llama.cpp. int4_zero: 0 and both ends of the range are representable. The scale is rounded to bf16
/// before the numbers are, so its rounding costs nothing. A number that is not finite makes the scale NaN.
[[nodiscard]] inline WeightGroup quantise_weights(Format format, std::span<const float> w) noexcept {
  float low = 0, high = 0;
  for (const float x : w) {
    low = std::min(low, x);
    high = std::max(high, x);
  }
  const float most = std::max(-low, high);
  float scale = 0, zero = 8, top = 15;
  if (format == Format::int8) {
    scale = most / 127;
    zero = 128;
    top = 255;
  } else if (format == Format::int4) {
    scale = (-low > high ? low : high) / -8;
  } else {
    scale = (high - low) / 15;
  }
  scale = to_float(to_bf16(scale));
  const float inverse = most < detail::least_magnitude ? 0.0F : 1 / scale;
  if (format == Format::int4_zero) zero = static_cast<float>(detail::nearest(std::min(-low * inverse, 15.0F)));
  WeightGroup group{.scale = inverse == 0 ? 0.0F : scale, .zero = zero};
  group.q.fill(static_cast<std::uint8_t>(zero));
  const float bottom = format == Format::int8 ? 1.0F : 0.0F;
  for (std::size_t j = 0; j < w.size(); ++j) {
    const float q = std::min(std::max(w[j] * inverse, bottom - zero), top - zero);
    group.q[j] = static_cast<std::uint8_t>(detail::nearest(q) + static_cast<std::int32_t>(zero));
  }
  if (!detail::all_finite(w)) group.scale = std::numeric_limits<float>::quiet_NaN();
  return group;
}

/// The group that stands for `x` (at most 32 numbers) against an integer format: scale = max|x| / 127, q to nearest.
/// NaN makes the scale NaN.
[[nodiscard]] inline ActivationGroup quantise_activations(std::span<const float> x) noexcept {
  std::uint32_t bits = 0;
  for (const float v : x) bits = std::max(bits, std::bit_cast<std::uint32_t>(v) & 0x7FFFFFFFU);
  const float most = std::bit_cast<float>(bits);
  ActivationGroup group;
  if (most < detail::least_magnitude) return group;
  const float inverse = 127.0F / most;
  for (std::size_t j = 0; j < x.size(); ++j) {
    const float q = std::min(std::max(x[j] * inverse, -127.0F), 127.0F);  // so no compiler fuses this product
    group.q[j] = static_cast<std::int8_t>(detail::nearest(q));
  }
  group.scale = most / 127.0F;
  return group;
}

}  // namespace finteam::inline FINTEAM_ABI
