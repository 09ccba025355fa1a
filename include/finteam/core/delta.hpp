// A low-bit difference of a fine-tuned matrix to the one that it came from: how a file holds it, and how it is rounded.
// Not here: panels (packed.hpp), files (file/delta.hpp), the product, which is that of any other matrix.
// Source: Liu et al. 2024 (BitDelta, arXiv 2402.10193), section 3.1: one bit, scale mean|d|. Two bits, and a scale for
// every row, are ours.
#pragma once

#include <finteam/core/format.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// Bytes of one row of k numbers, which a file begins at a byte of its own.
[[nodiscard]] constexpr index_t delta_row_bytes(Format format, index_t k) noexcept {
  return k / 8 * bits_of(format) + (k % 8 * bits_of(format) + 7) / 8;
}

/// A difference [n, k] as a file holds it: d[i,j] = scale(i) · level(q[i,j]), where q has the lowest bits first. In
/// int1 the levels are -1, 1; in int2 -1.5, -0.5, 0.5, 1.5. Not owning.
struct RawDelta {
  const std::byte* numbers = nullptr;  ///< q: n rows of delta_row_bytes
  const std::byte* scales = nullptr;   ///< float, perhaps not aligned
  index_t scale_count = 0;             ///< n, or 1 for all rows
  index_t n = 0;
  index_t k = 0;
  Format format = Format::int1;

  [[nodiscard]] const std::byte* row(index_t i) const noexcept { return numbers + i * delta_row_bytes(format, k); }
  [[nodiscard]] float scale(index_t i) const noexcept {
    return load_element(scales, DType::f32, scale_count == 1 ? 0 : i);
  }
  /// d[i,j]
  [[nodiscard]] float operator()(index_t i, index_t j) const noexcept {
    const index_t bits = bits_of(format);
    const auto byte = static_cast<unsigned>(row(i)[j * bits / 8]);
    return scale(i) * detail::delta_level(format, byte >> (j * bits % 8) & ((1U << bits) - 1));
  }
};

namespace detail {

/// How many of |d| are above `least`, and their sum: in eight lanes, so that compilers have an order to vectorise in.
/// At most 2^33 numbers.
struct Above {
  double sum = 0, count = 0;
};
[[nodiscard]] inline Above above(std::span<const float> d, float least) noexcept {
  std::array<double, 8> sums{};
  std::array<std::int32_t, 8> counts{};
  // Floats as integers, whose order is the same but below zero; a mask and no branch: which are above is any guess.
  const auto limit = std::bit_cast<std::int32_t>(least);
  const auto add = [&](std::size_t lane, float x) {
    const std::int32_t bits = std::bit_cast<std::int32_t>(x) & 0x7FFFFFFF, mask = bits > limit ? -1 : 0;
    sums[lane] += static_cast<double>(std::bit_cast<float>(bits & mask));
    counts[lane] -= mask;
  };
  const std::size_t whole = d.size() / 8 * 8;
  for (std::size_t j = 0; j < whole; j += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) add(lane, d[j + lane]);
  }
  for (std::size_t j = whole; j < d.size(); ++j) add(j % 8, d[j]);
  Above all;
  for (std::size_t lane = 0; lane < 8; ++lane) all.sum += sums[lane], all.count += counts[lane];
  return all;
}

}  // namespace detail

/// The scale with which d is rounded with the least squared error. int1: mean|d|. int2: the better of two fixed points
/// of Lloyd's iteration, s = Σ c·|d| / Σ c² with c = 1.5 where |d| > s, else 0.5, which begins at mean|d| and 2
/// mean|d|. Not finite if a number is not. The same bits whatever the compiler. Source: Lloyd 1982.
[[nodiscard]] inline float fit_delta_scale(Format format, std::span<const float> d) noexcept {
  if (d.empty()) return 0;
  const double total = detail::above(d, -1).sum, count = static_cast<double>(d.size());
  for (const float x : d) {
    if (!(std::abs(x) <= std::numeric_limits<float>::max())) return std::numeric_limits<float>::quiet_NaN();
  }
  const double mean = total / count;
  if (format == Format::int1) return static_cast<float>(mean);
  float best = 0;
  double most = 0;
  for (const double start : {mean, mean + mean}) {
    float scale = static_cast<float>(start), before = 0;
    double gain = 0;
    for (int i = 0; i < 16 && scale != before; ++i) {
      const auto [sum, outer] = detail::above(d, scale);
      before = scale;
      const double twice = total + sum + sum, squares = count + 8 * outer;  // 2 Σ c|d|, 4 Σ c²
      scale = static_cast<float>((twice + twice) / squares);
      gain = twice * twice / squares;
    }
    if (gain > most) {
      most = gain;
      best = scale;
    }
  }
  return best;
}

/// numbers = d to the nearest levels of `scale`; delta_row_bytes, overwritten. Zeros take turns above and below, so
/// that what did not change adds up to nothing.
inline void quantise_delta(Format format, std::span<const float> d, float scale, std::byte* numbers) noexcept {
  const std::size_t bits = static_cast<std::size_t>(bits_of(format)), each = 8 / bits;
  for (std::size_t first = 0; first < d.size(); first += each) {
    unsigned byte = 0;
    for (std::size_t j = first; j < std::min(first + each, d.size()); ++j) {
      // no branch: nothing here can be predicted
      const unsigned above = d[j] > 0, zero = d[j] == 0, outer = std::abs(d[j]) > scale;
      const unsigned positive = above | (zero & static_cast<unsigned>(j % 2));
      byte |= (format == Format::int1 ? positive : 2 * positive + (positive == outer)) << (bits * (j - first));
    }
    *numbers++ = static_cast<std::byte>(byte);
  }
}

/// Σ d², and Σ (d - d')² where d' is what quantise_delta makes of d.
struct DeltaError {
  double squares = 0;
  double errors = 0;
};
[[nodiscard]] inline DeltaError delta_error(Format format, std::span<const float> d, float scale) noexcept {
  std::array<double, 8> sums{};
  for (std::size_t j = 0; j < d.size(); ++j) {
    sums[j % 8] += static_cast<double>(d[j]) * static_cast<double>(d[j]);
  }
  DeltaError e;
  for (const double sum : sums) e.squares += sum;
  const double s = static_cast<double>(scale), n = static_cast<double>(d.size()), total = detail::above(d, -1).sum;
  if (format == Format::int1) {
    e.errors = e.squares + s * (n * s - 2 * total);
  } else {
    const auto [sum, outer] = detail::above(d, scale);
    e.errors = e.squares + s * (s * (n / 4 + 2 * outer) - total - 2 * sum);
  }
  e.errors = std::max(e.errors, 0.0);  // what cancels may leave less
  return e;
}

}  // namespace finteam::inline FINTEAM_ABI
