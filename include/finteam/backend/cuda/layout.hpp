// Where the numbers of a weight and of a cache page lie in device memory. Index maps only, shared by the host headers,
// which pack, and by the kernels, which read. Not here: what a number means (core/format.hpp, kernels/numbers.cuh).
#pragma once

#include <finteam/backend/cuda/commands.hpp>

#include <cstddef>
#include <cstdint>

namespace finteam::cuda_v0_1 {

[[nodiscard]] constexpr std::int64_t pad(std::int64_t n, std::int64_t to) noexcept { return (n + to - 1) / to * to; }

[[nodiscard]] constexpr bool is_integer(Format f) noexcept { return f >= Format::int8; }
[[nodiscard]] constexpr bool is_delta(Format f) noexcept { return f >= Format::int1; }
[[nodiscard]] constexpr int bits_of(Format f) noexcept {
  return f == Format::int8 ? 8 : f == Format::int2 ? 2 : f == Format::int1 ? 1 : 4;
}

/// Outputs of a tile, inputs that share a scale, inputs of a block of an integer format.
inline constexpr int tile_outputs = 16, group_inputs = 32, block_inputs = 128;

/// Where the integer of an output and an input lies: a byte, and how far up in it.
struct Place {
  std::int64_t byte;
  int shift;
};

/// A weight [n, k], or a pair of them.
///
/// Rows come in tiles of 16; of a pair, eight outputs of the first and the same eight of the second share a tile.
/// Floats are rows, [rows, k to the next 32]. Integers are tiles [blocks of 128 inputs]: of each lane of a warp, the
/// bytes that it gives to mma_int8, then for each of eight rows, the row or the one eight further, and group a scale
/// (bf16), then zeros likewise. Of a group's 32 inputs lane l has 8 (l % 4) and the seven that follow, of row l / 4 and
/// of l / 4 + 8. A difference has one scale (float) for each output, before its tile's blocks.
struct MatrixLayout {
  Format format;
  std::int64_t n, k;
  bool paired;

  constexpr explicit MatrixLayout(const Matrix& m) noexcept : format(m.format), n(m.n), k(m.k), paired(m.paired != 0) {}
  constexpr MatrixLayout(Format f, std::int64_t outputs, std::int64_t inputs, bool pair) noexcept
      : format(f), n(outputs), k(inputs), paired(pair) {}

  /// The row that output i is, of the first or the second of a pair.
  [[nodiscard]] constexpr std::int64_t row(std::int64_t i, int which = 0) const noexcept {
    return paired ? i / 8 * 16 + which * 8 + i % 8 : i;
  }
  [[nodiscard]] constexpr std::int64_t rows() const noexcept { return paired ? 2 * pad(n, 8) : pad(n, tile_outputs); }
  [[nodiscard]] constexpr std::int64_t tiles() const noexcept { return rows() / tile_outputs; }

  /// Floats: elements from one row to the next.
  [[nodiscard]] constexpr std::int64_t stride() const noexcept { return pad(k, group_inputs); }

  /// Integers: blocks of a tile; bytes of a block's integers, of a block, before the first block, of a tile.
  [[nodiscard]] constexpr std::int64_t blocks() const noexcept { return pad(k, block_inputs) / block_inputs; }
  [[nodiscard]] constexpr std::int64_t integer_bytes() const noexcept {
    return std::int64_t{tile_outputs} * block_inputs * bits_of(format) / 8;
  }
  [[nodiscard]] constexpr std::int64_t block_bytes() const noexcept {
    return integer_bytes() + (is_delta(format) ? 0 : format == Format::int4_zero ? 256 : 128);
  }
  [[nodiscard]] constexpr std::int64_t head_bytes() const noexcept { return is_delta(format) ? 64 : 0; }
  [[nodiscard]] constexpr std::int64_t tile_bytes() const noexcept { return head_bytes() + blocks() * block_bytes(); }

  [[nodiscard]] constexpr std::int64_t bytes() const noexcept {
    if (is_integer(format)) return tiles() * tile_bytes();
    return rows() * stride() * (format == Format::f32 ? 4 : 2);
  }

  /// Integers: where (row, j) is.
  [[nodiscard]] constexpr Place place(std::int64_t row, std::int64_t j) const noexcept {
    const std::int64_t group = j % block_inputs / group_inputs, inner = j % group_inputs;
    const std::int64_t lane = row % 8 * 4 + inner / 8, half = row % 16 / 8, fragment = inner % 8 / 4 * 2 + half;
    const std::int64_t at = block(row, j) + inner % 4;
    switch (format) {
      case Format::int8: return {at + group * 512 + lane * 16 + fragment * 4, 0};
      case Format::int2: return {at + lane * 16 + group * 4, static_cast<int>(2 * fragment)};
      case Format::int1: return {at + lane * 8 + group / 2 * 4, static_cast<int>(group % 2 * 4 + fragment)};
      default:
        return {at + group / 2 * 512 + lane * 16 + group % 2 * 8 + half * 4, static_cast<int>(inner % 8 / 4 * 4)};
    }
  }
  /// The scale of (row, j)'s group, two bytes; its zero is 128 bytes further. Of a difference: the row's, four bytes.
  [[nodiscard]] constexpr std::int64_t scale(std::int64_t row, std::int64_t j) const noexcept {
    if (is_delta(format)) return row / tile_outputs * tile_bytes() + row % tile_outputs * 4;
    const std::int64_t group = j % block_inputs / group_inputs;
    return block(row, j) + integer_bytes() + (row % 8 * 8 + row % 16 / 8 * 4 + group) * 2;
  }

 private:
  [[nodiscard]] constexpr std::int64_t block(std::int64_t row, std::int64_t j) const noexcept {
    return row / tile_outputs * tile_bytes() + head_bytes() + j / block_inputs * block_bytes();
  }
};

/// Rows of a product as Prepare writes them: elements from one to the next, and bytes of each.
[[nodiscard]] constexpr std::int64_t input_stride(Format f, std::int64_t k) noexcept {
  return pad(k, is_integer(f) ? block_inputs : group_inputs);
}
[[nodiscard]] constexpr std::int64_t input_bytes(Format f, std::int64_t k) noexcept {
  return input_stride(f, k) * (is_integer(f) ? 1 : f == Format::bf16 ? 2 : 4);
}
/// Floats in `groups` for each row of integers.
[[nodiscard]] constexpr std::int64_t input_groups(std::int64_t k) noexcept {
  return pad(k, block_inputs) / group_inputs * 2;
}
/// Bytes of such a row and of its groups.
[[nodiscard]] constexpr std::int64_t prepared_bytes(Format f, std::int64_t k) noexcept {
  return input_bytes(f, k) + (is_integer(f) ? 4 * input_groups(k) : 0);
}

inline constexpr int page_tokens = 32;

/// One page of one head: 32 keys, pieces of 16 bytes by slot, [pieces][32][16 bytes], then 32 values, [32][e to the
/// next 16]. int8: then a scale for every 32 elements of a key, [groups][32] floats, and for every value, [32] floats.
struct PageLayout {
  CacheFormat format;
  std::int32_t e;

  constexpr PageLayout(CacheFormat f, std::int64_t head_width) noexcept
      : format(f), e(static_cast<std::int32_t>(head_width)) {}

  [[nodiscard]] constexpr int element_bytes() const noexcept {
    return format == CacheFormat::f32 ? 4 : format == CacheFormat::bf16 ? 2 : 1;
  }
  /// Elements of a key that a piece holds.
  [[nodiscard]] constexpr int piece() const noexcept { return 16 / element_bytes(); }
  /// Elements of a value with what pads it.
  [[nodiscard]] constexpr int width() const noexcept { return (e + 15) / 16 * 16; }
  /// Groups of a key that have a scale each.
  [[nodiscard]] constexpr int groups() const noexcept { return (e + group_inputs - 1) / group_inputs; }

  /// Bytes from the page's first to element i of the key in a slot, and so on.
  [[nodiscard]] constexpr int key(std::int64_t slot, std::int64_t i) const noexcept {
    const int at = static_cast<int>(i), of = static_cast<int>(slot);
    return (at / piece() * page_tokens + of) * 16 + at % piece() * element_bytes();
  }
  [[nodiscard]] constexpr int value(std::int64_t slot, std::int64_t i) const noexcept {
    return values() + (static_cast<int>(slot) * width() + static_cast<int>(i)) * element_bytes();
  }
  [[nodiscard]] constexpr int key_scale(std::int64_t slot, std::int64_t i) const noexcept {
    return scales() + (static_cast<int>(i) / group_inputs * page_tokens + static_cast<int>(slot)) * 4;
  }
  [[nodiscard]] constexpr int value_scale(std::int64_t slot) const noexcept {
    return scales() + (groups() * page_tokens + static_cast<int>(slot)) * 4;
  }

  [[nodiscard]] constexpr int values() const noexcept { return page_tokens * width() * element_bytes(); }
  [[nodiscard]] constexpr int scales() const noexcept { return 2 * values(); }
  /// A multiple of 64.
  [[nodiscard]] constexpr int bytes() const noexcept {
    return scales() + (format == CacheFormat::int8 ? (groups() + 1) * page_tokens * 4 : 0);
  }
};

/// Positions whose scores one part of Attend sums up: a fixed number, so that a row's bits do not depend on its batch.
inline constexpr int split_tokens = 256;

/// Whether AttendRuns reads caches of this format, heads e wide. Attend serves all others.
[[nodiscard]] constexpr bool serves_runs(CacheFormat format, std::int64_t e) noexcept {
  return format != CacheFormat::f32 && e > 0 && e <= 256;
}

}  // namespace finteam::cuda_v0_1
