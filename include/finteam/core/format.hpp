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
  int1,  ///< a difference to another matrix: a bit a number, a scale for every output; activations as for int8
  int2,  ///< the same with two bits
};

/// The format's name, for files and messages.
[[nodiscard]] constexpr std::string_view name(Format f) noexcept {
  constexpr std::array<std::string_view, 8> names{"f32",  "bf16_wide", "bf16", "int8",
                                                  "int4", "int4_zero", "int1", "int2"};
  return names[static_cast<std::size_t>(f)];
}
/// As name(Format), and "stored".
[[nodiscard]] constexpr std::string_view name(Weights w) noexcept {
  constexpr std::array<std::string_view, 5> names{"stored", "bf16", "int8", "int4", "int4_zero"};
  return names[static_cast<std::size_t>(w)];
}

/// Integers, which meet activations in 8 bits.
[[nodiscard]] constexpr bool is_quantised(Format f) noexcept { return f >= Format::int8; }
/// Integers with a scale for every output, not for every group: what a difference (delta.hpp) is kept as.
[[nodiscard]] constexpr bool is_delta(Format f) noexcept { return f >= Format::int1; }
/// Bits of an integer.
[[nodiscard]] constexpr index_t bits_of(Format f) noexcept {
  return f == Format::int1 ? 1 : f == Format::int2 ? 2 : f == Format::int8 ? 8 : 4;
}

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

/// 32 numbers; those that a short group lacks are 0.
using GroupValues = std::array<float, group_inputs>;

/// The integer nearest to x · inverse, which is finite. The bound on its bits changes nothing; it keeps compilers from
/// fusing product and rounding, and unlike one on floats it does not keep them from vectorising.
[[nodiscard]] inline std::int32_t nearest_product(float x, float inverse) noexcept {
  const auto bits = std::bit_cast<std::int32_t>(x * inverse);
  return nearest(std::bit_cast<float>(std::min(bits, std::int32_t{0x7F7FFFFF})));
}

/// What a group's numbers are rounded to: scale · q, q = least … most.
struct Grid {
  float scale = 0, inverse = 0;
  std::int32_t least = 0, most = 0;
};

/// Σ (x/scale - q)² in units of 2^-16, where reach is halves/2 steps, 2^14 of x's units, and q the nearest integer that
/// four bits have. In integers, so that the order of the sum is a compiler's choice.
[[nodiscard]] inline std::int32_t squared_error(const std::array<std::int16_t, group_inputs>& x, std::int32_t halves,
                                                std::int32_t least) noexcept {
  const auto factor = static_cast<std::int16_t>(512 * halves), bottom = static_cast<std::int16_t>(256 * least),
             top = static_cast<std::int16_t>(256 * (least + 15));
  std::int32_t sum = 0;
  for (const std::int16_t value : x) {
    const auto at = static_cast<std::int16_t>((value * factor) >> 16);
    const auto q = std::min(std::max(static_cast<std::int16_t>((at + 128) & ~255), bottom), top);
    const auto error = static_cast<std::int16_t>(at - q);
    sum += error * error;
  }
  return sum;
}

/// How many half steps of 4 bits the numbers x shall span: the least squared error of four, the first of equals.
/// reach: the span from low, which is a whole number of them with a zero point, else -low.
[[nodiscard]] inline std::int32_t best_halves(bool from_zero, float low, float reach, const GroupValues& x) noexcept {
  std::array<std::int16_t, group_inputs> units;
  for (std::size_t j = 0; j < x.size(); ++j) {
    units[j] = static_cast<std::int16_t>(nearest_product(x[j], 16384 / reach));
  }
  const std::int32_t lowest = nearest_product(low, 16384 / reach);
  constexpr std::array<std::int32_t, 4> offsets{0, 1, -1, -2};
  std::int64_t best = std::numeric_limits<std::int64_t>::max();
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    const std::int32_t halves = (from_zero ? 31 : 16) + offsets[i];
    const std::int32_t least = from_zero ? std::max((lowest * halves + 16384) >> 15, -15) : -8;
    const std::int64_t weighted = std::int64_t{squared_error(units, halves, least)} * ((1 << 20) / (halves * halves));
    best = std::min(best, weighted * 4 + static_cast<std::int64_t>(i));
  }
  return (from_zero ? 31 : 16) + offsets[static_cast<std::size_t>(best % 4)];
}

/// The grid of an integer format over x, whose extrema are low ≤ 0 ≤ high.
[[nodiscard]] inline Grid grid_of(Format format, float low, float high, const GroupValues& x) noexcept {
  const bool from_zero = format == Format::int4_zero;
  Grid grid{.least = -127, .most = 127};
  if (format == Format::int8) {
    grid.scale = std::max(-low, high) / 127;
  } else {
    // The number of the greatest magnitude is turned to be negative.
    const float reach = from_zero ? high - low : -low > high ? -low : -high;
    grid.scale = reach / (0.5F * static_cast<float>(best_halves(from_zero, low, reach, x)));
  }
  grid.scale = to_float(to_bf16(grid.scale));
  grid.inverse = 1 / grid.scale;
  if (format != Format::int8) {
    grid.least = from_zero ? std::max(nearest_product(low, grid.inverse), -15) : -8;
    grid.most = grid.least + 15;
  }
  return grid;
}

/// What the number q of an int1 or int2 matrix stands for, in units of its scale: -1, 1; or -1.5, -0.5, 0.5, 1.5.
[[nodiscard]] constexpr float delta_level(Format format, unsigned q) noexcept {
  return format == Format::int1 ? 2 * static_cast<float>(q) - 1 : static_cast<float>(q) - 1.5F;
}

}  // namespace detail

/// The group that stands for `w` (at most 32 numbers; missing ones are 0) in an integer format. With m the number of
/// the greatest magnitude: int8 has the scale |m| / 127; int4 that of m / -8, m / -8.5, m / -7.5 and m / -7 which has
/// the least squared error, q - 8 clamped to [-8, 7]; int4_zero that of range / 15, / 15.5, / 16 and / 14.5, where 0
/// and its range are representable. The scale is rounded to bf16 before the numbers are, so its rounding costs nothing.
/// A number that is not finite makes the scale NaN.
/// Source: Q4_0 and make_qx_quants, which tries scales about m / -8, of llama.cpp (ggml-quants.c).
[[nodiscard]] inline WeightGroup quantise_weights(Format format, std::span<const float> w) noexcept {
  detail::GroupValues x{};
  std::copy_n(w.begin(), w.size(), x.begin());
  // Floats in their order as integers, whose extrema are the same in any order: a compiler may find them in parallel.
  std::int32_t low = 0, high = 0;
  for (const float value : x) {
    const auto bits = std::bit_cast<std::int32_t>(value);
    const std::int32_t key = bits ^ ((bits >> 31) & 0x7FFFFFFF);
    low = std::min(low, key);
    high = std::max(high, key);
  }
  const float lowest = std::bit_cast<float>(low < 0 ? low ^ 0x7FFFFFFF : low), highest = std::bit_cast<float>(high);
  const float none = format == Format::int8 ? 128.0F : 8.0F;
  WeightGroup group{.scale = 0, .zero = none};
  group.q.fill(static_cast<std::uint8_t>(none));
  constexpr std::int32_t infinity = 0x7F800000;
  if (low < -infinity || high >= infinity) {
    group.scale = std::numeric_limits<float>::quiet_NaN();
    return group;
  }
  if (std::max(-lowest, highest) < detail::least_magnitude) return group;

  const detail::Grid grid = detail::grid_of(format, lowest, highest, x);
  const std::int32_t zero = format == Format::int8 ? 128 : format == Format::int4 ? 8 : -grid.least;
  group.scale = grid.scale;
  group.zero = static_cast<float>(zero);
  for (std::size_t j = 0; j < x.size(); ++j) {
    const std::int32_t q = std::min(std::max(detail::nearest_product(x[j], grid.inverse), grid.least), grid.most);
    group.q[j] = static_cast<std::uint8_t>(q + zero);
  }
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
  group.scale = std::isfinite(most) ? most / 127.0F : std::numeric_limits<float>::quiet_NaN();
  return group;
}

}  // namespace finteam::inline FINTEAM_ABI
