// The panel layout of law 3: a weight [n, k] in panels of 16 outputs, with k running inside a panel. One layout serves
// the matrix-vector kernel, the matrix-matrix kernel and the look-up of a row. Not here: arithmetic
// (backend/cpu/tile.hpp), what a quantised number means (format.hpp), whole matrices (packed.hpp).
//
// f32              [k][16]
// bf16, bf16_wide  [k/2][16][2]
// int8             blocks of 64 inputs: q + 128 as [2][8][16][4] bytes, then scales [2][16] bf16
// int4             the same with [2][4][16][4] bytes: the low half of byte j of quad i is input 4i + j of its group of
//                  32, the high half input 4(i + 4) + j; q + 8
// int4_zero        int4, with zero points [2][16] bf16 after the scales
// int1, int2       scales [16] float, then blocks of 64 inputs: b bits a number in [2][b][16][4] bytes; the lowest b
// bits
//                  of byte j of line i are input 4 · 8/b · i + j of their group of 32, the next ones 4 inputs further
// Whatever lies beyond n and k counts as zero. A panel starts at a multiple of 64 bytes.
#pragma once

#include <finteam/core/format.hpp>
#include <finteam/core/view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

namespace finteam::inline FINTEAM_ABI {

/// Raise it whenever the bytes that a weight is packed into change, here or in format.hpp: files hold them.
inline constexpr int packing_version = 1;

/// Outputs in one panel.
inline constexpr index_t panel_outputs = 16;

/// Inputs in one block of an integer format: two groups.
inline constexpr index_t block_inputs = 2 * group_inputs;

/// Bytes of the 64 inputs of 16 outputs in an integer format.
[[nodiscard]] constexpr index_t block_bytes(Format f) noexcept {
  return 2 * panel_outputs * 4 * bits_of(f) + (is_delta(f) ? 0 : f == Format::int4_zero ? 128 : 64);
}

/// Bytes before a panel's first block: the scales of its outputs, where they have one each.
[[nodiscard]] constexpr index_t panel_head_bytes(Format f) noexcept { return is_delta(f) ? panel_outputs * 4 : 0; }

/// Bytes of 16 outputs of k inputs; a multiple of 64.
[[nodiscard]] constexpr index_t panel_bytes(Format f, index_t k) noexcept {
  if (is_quantised(f)) return panel_head_bytes(f) + (k + block_inputs - 1) / block_inputs * block_bytes(f);
  return (f == Format::f32 ? k : (k + 1) / 2) * (panel_outputs * 4);
}

namespace detail {

/// Row `lane` of the bf16 panel at `to`, from the k bf16 at `from`, pair by pair. Here and below: where the panel has
/// more room than elements, its bytes were zero before.
inline void pack_pairs(std::byte* to, index_t lane, const std::byte* from, index_t k) noexcept {
  to += lane * 4;
  for (index_t j = 0; j < k / 2; ++j) std::memcpy(to + j * (panel_outputs * 4), from + 4 * j, 4);
  if (k % 2 != 0) std::memcpy(to + k / 2 * (panel_outputs * 4), from + 2 * (k - 1), 2);
}

/// The inputs j … j + 31 of row `lane` of an integer format's panel.
inline void pack_group(Format format, std::byte* to, index_t lane, index_t j, const WeightGroup& group) noexcept {
  const index_t half = j / group_inputs % 2, words = format == Format::int8 ? 8 : 4;
  std::array<std::uint8_t, group_inputs> q = group.q;
  if (format != Format::int8) {
    for (std::size_t i = 0; i < 16; ++i) q[i] = static_cast<std::uint8_t>(q[i] | q[i + 16] << 4);
  }
  std::byte* block = to + j / block_inputs * block_bytes(format);
  std::byte* quads = block + half * words * (panel_outputs * 4) + lane * 4;
  for (index_t i = 0; i < words; ++i) std::memcpy(quads + i * (panel_outputs * 4), q.data() + 4 * i, 4);
  const bf16 scale = to_bf16(group.scale), zero = to_bf16(group.zero);
  std::byte* scales = block + 2 * words * (panel_outputs * 4) + (half * panel_outputs + lane) * 2;
  std::memcpy(scales, &scale, 2);
  if (format == Format::int4_zero) std::memcpy(scales + 4 * panel_outputs, &zero, 2);
}

/// Row `lane` of a panel of any format, from k floats.
inline void pack_floats(Format format, std::byte* to, index_t lane, const float* row, index_t k) noexcept {
  if (format == Format::f32) {
    for (index_t j = 0; j < k; ++j) std::memcpy(to + (j * panel_outputs + lane) * 4, row + j, 4);
  } else if (is_quantised(format)) {
    for (index_t j = 0; j < k; j += group_inputs) {
      const auto count = static_cast<std::size_t>(std::min(group_inputs, k - j));
      pack_group(format, to, lane, j, quantise_weights(format, {row + j, count}));
    }
  } else {
    for (index_t j = 0; j < k; j += group_inputs) {
      std::array<bf16, group_inputs> pairs;
      const index_t count = std::min(group_inputs, k - j);
      for (index_t i = 0; i < count; ++i) pairs[static_cast<std::size_t>(i)] = to_bf16(row[j + i]);
      pack_pairs(to + j * (panel_outputs * 2), lane, reinterpret_cast<const std::byte*>(pairs.data()), count);
    }
  }
}

/// x with the bits of `mask`, places that have the bit `low` and not the bit `high`, in the place of those that lie
/// high - low further up, and those in theirs.
[[nodiscard]] constexpr std::uint64_t swap_bits(std::uint64_t x, int high, int low, std::uint64_t mask) noexcept {
  const std::uint64_t changed = (x ^ x >> (high - low)) & mask;
  return x ^ changed ^ changed << (high - low);
}

/// Both groups' words of one output in int1: from the bits of 64 inputs in their order. In the order of a word's
/// places, bits 4i + j become 8j + i.
[[nodiscard]] constexpr std::uint64_t word_of_bits(std::uint64_t x) noexcept {
  x = swap_bits(x, 16, 2, 0x0000CCCC0000CCCCU);
  x = swap_bits(x, 8, 1, 0x00AA00AA00AA00AAU);
  x = swap_bits(x, 4, 2, 0x0C0C0C0C0C0C0C0CU);
  return swap_bits(x, 2, 1, 0x2222222222222222U);
}
/// Two lines' words of one output in int2: from the pairs of bits of 32 inputs in their order. Pairs 4i + j of a word
/// become 4j + i.
[[nodiscard]] constexpr std::uint64_t word_of_pairs(std::uint64_t x) noexcept {
  x = swap_bits(x, 16, 4, 0x0000F0F00000F0F0U);
  return swap_bits(x, 8, 2, 0x00CC00CC00CC00CCU);
}

/// Row `lane` of the panel of an int1 or int2 matrix, from k numbers as RawDelta has them, and the row's scale.
inline void pack_delta_row(Format format, std::byte* to, index_t lane, const std::byte* from, index_t k,
                           float scale) noexcept {
  std::memcpy(to + lane * 4, &scale, 4);
  to += panel_head_bytes(format) + lane * 4;
  const index_t inputs = 64 / bits_of(format);  // of a word
  for (index_t j = 0; j < k; j += inputs, from += 8, to += 2 * panel_outputs * 4) {
    const index_t bits = std::min(inputs, k - j) * bits_of(format);
    std::uint64_t x = 0;
    std::memcpy(&x, from, static_cast<std::size_t>((bits + 7) / 8));
    if (bits < 64) x &= (std::uint64_t{1} << bits) - 1;
    x = format == Format::int1 ? word_of_bits(x) : word_of_pairs(x);
    const auto low = static_cast<std::uint32_t>(x), high = static_cast<std::uint32_t>(x >> 32);
    std::memcpy(to, &low, 4);
    std::memcpy(to + panel_outputs * 4, &high, 4);
  }
}

/// Element j of row `lane` of such a panel.
[[nodiscard]] inline float delta_element(Format format, const std::byte* panel, index_t lane, index_t j) noexcept {
  const index_t bits = bits_of(format), inputs = 32 / bits;  // of a line
  const std::byte* line = panel + panel_head_bytes(format) + j / inputs * (panel_outputs * 4);
  const auto byte = static_cast<unsigned>(line[lane * 4 + j % 4]);
  const unsigned q = byte >> (bits * (j % inputs / 4)) & ((1U << bits) - 1);
  return delta_level(format, q) * load_element(panel, DType::f32, lane);
}

/// Element j of row `lane` of a panel.
[[nodiscard]] inline float panel_element(Format format, const std::byte* panel, index_t lane, index_t j) noexcept {
  if (format == Format::f32) return load_element(panel, DType::f32, j * panel_outputs + lane);
  if (!is_quantised(format)) return load_element(panel, DType::bf16, (j / 2 * panel_outputs + lane) * 2 + j % 2);
  if (is_delta(format)) return delta_element(format, panel, lane, j);
  const bool four_bits = format != Format::int8;
  const index_t quad_bytes = panel_outputs * 4, group_bytes = quad_bytes * (four_bits ? 4 : 8);
  const std::byte* block = panel + j / block_inputs * block_bytes(format);
  const index_t half = j / group_inputs % 2, quad = j % group_inputs / 4;
  const auto byte =
      static_cast<unsigned>(block[half * group_bytes + (four_bits ? quad % 4 : quad) * quad_bytes + lane * 4 + j % 4]);
  const unsigned q = !four_bits ? byte : quad < 4 ? byte & 15U : byte >> 4U;
  const std::byte* scales = block + 2 * group_bytes;
  const index_t at = half * panel_outputs + lane;
  const float zero = format == Format::int8        ? 128.0F
                     : format == Format::int4_zero ? load_element(scales + 4 * panel_outputs, DType::bf16, at)
                                                   : 8.0F;
  return load_element(scales, DType::bf16, at) * (static_cast<float>(q) - zero);
}

}  // namespace detail

}  // namespace finteam::inline FINTEAM_ABI
