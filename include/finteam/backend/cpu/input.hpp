// The rows of a product, laid out for its kernel: tiles of a few rows whose elements alternate, so that a kernel reads
// them with one pointer. A row's numbers do not depend on its tile (law 3).
//
// float formats        [k][rows]
// bf16 with a dot      [k/2][rows][2]
// integer formats      blocks of 64: [16 quads][rows], scales [2][rows] float, offsets [2][rows] int32, sums [2][rows]
//                      float
//
// A quad is four activations (input_quad_bytes). Sums are those of a group's numbers; offsets, -128 or -8 times as
// much, correct for the unsigned weights of int8 or int4. All but int8 have the same input.
#pragma once

#include <finteam/backend/cpu/dot.hpp>
#include <finteam/backend/cpu/parallel.hpp>
#include <finteam/core/packed.hpp>

#include <limits>
#include <memory_resource>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// The greatest of `sizes`, which fall, that is not above `left`. Cuts made so depend on nothing else.
template <std::size_t N>
[[nodiscard]] constexpr index_t next_tile(const std::array<index_t, N>& sizes, index_t left) noexcept {
  for (const index_t size : sizes) {
    if (size <= left) return size;
  }
  return 0;
}

/// Rows and panels of a tile. t rows are cut greedily, so the cuts depend on t alone.
template <class Arch>
struct TileShape {
  static constexpr std::size_t parts = simd::Lanes<Arch>::parts;

  /// As many panels as the registers have sums for, but one where few rows of quantised weights pass: those are read
  /// from memory, best as one stream.
  [[nodiscard]] static constexpr std::size_t panels(Format format, std::size_t rows) noexcept {
    return parts == 1 && (rows > 4 || !is_quantised(format)) ? 2 : 1;
  }

  static constexpr auto sizes() noexcept {
    if constexpr (parts == 1) return std::array<index_t, 5>{6, 4, 3, 2, 1};
    if constexpr (parts == 2) return std::array<index_t, 4>{5, 3, 2, 1};
    if constexpr (parts == 4) return std::array<index_t, 2>{2, 1};
  }
  static constexpr index_t most = sizes()[0];

  [[nodiscard]] static constexpr index_t next(index_t left) noexcept { return next_tile(sizes(), left); }
};

/// The format whose kernel a format has: without a dot product for it, bf16 is widened, its activations rounded
/// already.
template <class Arch>
[[nodiscard]] constexpr Format kernel_format(Format format) noexcept {
  return format == Format::bf16 && !simd::has_bf16_dot<Arch> ? Format::bf16_wide : format;
}

/// Bytes of four activations against a matrix of this format. Products with four bits need no more than bytes where
/// their sums in 16 bits are exact: 8 · 2 · 15 · 127 < 2^15.
template <class Arch>
[[nodiscard]] constexpr index_t input_quad_bytes(Format format) noexcept {
  return format != Format::int8 && simd::has_byte_pairs<Arch> ? 4 : simd::quad_bytes<Arch>;
}

/// Bytes of one row's block of 64 inputs in an integer format.
template <class Arch>
[[nodiscard]] constexpr index_t input_block_bytes(Format format) noexcept {
  return 16 * input_quad_bytes<Arch>(format) + 24;
}

/// Bytes of one row of k elements in a tile.
template <class Arch>
[[nodiscard]] constexpr index_t input_row_bytes(Format format, index_t k) noexcept {
  if (is_quantised(format)) return (k + block_inputs - 1) / block_inputs * input_block_bytes<Arch>(format);
  return (k + 1) / 2 * (format == Format::bf16 && simd::has_bf16_dot<Arch> ? 4 : 8);
}

/// Sixteen floats rounded to bf16, to nearest, ties to even; NaN stays NaN.
template <class Arch>
FINTEAM_INLINE inline simd::Lanes<Arch> round_to_bf16(const simd::Lanes<Arch>& x) noexcept {
  using V = simd::Lanes<Arch>;
  using Bits = typename V::Bits;
  const V rounded = V::make([&](std::size_t i) FINTEAM_INLINE {
    const Bits bits = simd::bits_as<std::uint32_t>(x.part[i]);
    const Bits odd = simd::shift_right<16>(bits) & Bits(1U);
    return simd::bits_as<float>((bits + odd + Bits(0x7FFFU)) & Bits(0xFFFF0000U));
  });
  return simd::unless_nan(x, rounded);
}

/// Row r of a tile of `rows` rows of k elements.
template <class Arch>
class TileRow {
 public:
  using V = simd::Lanes<Arch>;
  static constexpr index_t piece = group_inputs;

  TileRow(std::byte* tile, index_t rows, index_t r) noexcept : tile_(tile), rows_(rows), r_(r) {}

  /// How many elements a row is written with: those beyond k are 0.
  [[nodiscard]] static constexpr index_t written(Format format, index_t k) noexcept {
    return is_quantised(format) ? (k + block_inputs - 1) / block_inputs * block_inputs : k;
  }

  /// The elements j … j + piece - 1; j is a multiple of piece.
  void write(Format format, index_t k, index_t j, const V& first, const V& second) const noexcept {
    if (is_quantised(format)) return write_group(format, j, first, second);
    const index_t count = std::min(piece, k + k % 2 - j);
    if (format != Format::bf16) {
      write_floats(first, second, j, count);
    } else if constexpr (simd::has_bf16_dot<Arch>) {
      write_pairs(first, second, j, count);
    } else {
      write_floats(round_to_bf16<Arch>(first), round_to_bf16<Arch>(second), j, count);
    }
  }

 private:
  void write_floats(const V& first, const V& second, index_t j, index_t count) const noexcept {
    alignas(64) std::array<float, 32> a;
    first.store(a.data());
    second.store(a.data() + 16);
    std::byte* to = tile_ + (j * rows_ + r_) * 4;
    for (index_t i = 0; i < count; ++i) std::memcpy(to + 4 * i * rows_, &a[static_cast<std::size_t>(i)], 4);
  }

  void write_pairs(const V& first, const V& second, index_t j, index_t count) const noexcept {
    alignas(64) std::array<std::byte, 64> pairs;
    simd::pack_bf16<Arch>(first, second).store(pairs.data());
    std::byte* to = tile_ + (j / 2 * rows_ + r_) * 4;
    if (rows_ == 1) {
      std::memcpy(to, pairs.data(), static_cast<std::size_t>(2 * count));
      return;
    }
    for (index_t i = 0; i < count / 2; ++i) std::memcpy(to + 4 * i * rows_, pairs.data() + 4 * i, 4);
  }

  /// As quantise_activations of core/format.hpp, with the same bits.
  void write_group(Format format, index_t j, const V& first, const V& second) const noexcept {
    const float most = greatest_magnitude(first, second);
    const bool none = most < least_magnitude;
    const V inverse = V::broadcast(none ? 0.0F : 127.0F / most), magic = V::broadcast(0x1.8p23F);
    const V low = clamped(first * inverse) + magic, high = clamped(second * inverse) + magic;  // integers, lowest bits
    const auto sum = static_cast<std::int32_t>(simd::sum((low - magic) + (high - magic)));

    const index_t half = j / group_inputs % 2, quad = input_quad_bytes<Arch>(format), quads = 16 * quad * rows_;
    std::byte* block = tile_ + j / block_inputs * input_block_bytes<Arch>(format) * rows_;
    write_quads(low, high, quad, block + 8 * half * quad * rows_);
    const float scale = none ? 0.0F : std::isfinite(most) ? most / 127.0F : std::numeric_limits<float>::quiet_NaN();
    const float exact = static_cast<float>(sum);
    const std::int32_t offset = sum * (format == Format::int8 ? -128 : -8);
    std::memcpy(block + quads + (half * rows_ + r_) * 4, &scale, 4);
    std::memcpy(block + quads + ((2 + half) * rows_ + r_) * 4, &offset, 4);
    std::memcpy(block + quads + ((4 + half) * rows_ + r_) * 4, &exact, 4);
  }

  void write_quads(const V& low, const V& high, index_t quad_bytes, std::byte* to) const noexcept {
    alignas(64) std::array<std::uint32_t, 32> q;
    low.store(reinterpret_cast<float*>(q.data()));
    high.store(reinterpret_cast<float*>(q.data() + 16));
    const std::size_t step = static_cast<std::size_t>(rows_ * quad_bytes);
    to += r_ * quad_bytes;
    if (quad_bytes == 4) {
      std::array<std::uint8_t, 32> bytes;
      for (std::size_t i = 0; i < 32; ++i) bytes[i] = static_cast<std::uint8_t>(q[i]);
      for (std::size_t i = 0; i < 8; ++i) std::memcpy(to + i * step, &bytes[4 * i], 4);
    } else {
      for (std::size_t i = 0; i < 32; i += 4, to += step) {
        const std::uint32_t even = (q[i] & 0xFFFFU) | q[i + 2] << 16, odd = (q[i + 1] & 0xFFFFU) | q[i + 3] << 16;
        std::memcpy(to, &even, 4);
        std::memcpy(to + 4, &odd, 4);
      }
    }
  }

  /// The greatest of 32 magnitudes, NaN if one is.
  static float greatest_magnitude(const V& a, const V& b) noexcept {
    const V first = magnitude(a), most = simd::unless_nan(first, simd::max(first, magnitude(b)));
    return simd::any_nan(most) ? std::numeric_limits<float>::quiet_NaN() : simd::greatest(most);
  }
  static V magnitude(const V& x) noexcept {
    return V::make([&](std::size_t i) FINTEAM_INLINE {
      return simd::bits_as<float>(simd::bits_as<std::uint32_t>(x.part[i]) & typename V::Bits(0x7FFFFFFFU));
    });
  }
  static V clamped(const V& x) noexcept { return simd::min(simd::max(x, V::broadcast(-127.0F)), V::broadcast(127.0F)); }

  std::byte* tile_;
  index_t rows_, r_;
};

}  // namespace detail

/// Room for the rows of one product on a CPU. Moves only.
template <class Arch>
class CpuInput {
 public:
  CpuInput(index_t rows, index_t k, std::pmr::memory_resource* memory) : buffer_(bytes(rows, k), memory) {}

  [[nodiscard]] index_t rows() const noexcept { return rows_; }
  /// The tile that begins with row t.
  [[nodiscard]] const std::byte* tile(index_t t) const noexcept { return buffer_.data() + t * row_bytes_; }

  /// Whether products with matrices of that format read what was written: those for which it was written do, and a
  /// difference reads what its base of 8 or 4 bits reads, 8 bits only where activations of both have as many bytes.
  [[nodiscard]] bool serves(Format format) const noexcept {
    const bool shared =
        is_quantised(format_) && (is_delta(format) || (format_ != Format::int8 && format != Format::int8));
    return format == format_ || (shared && is_quantised(format) &&
                                 detail::input_quad_bytes<Arch>(format) == detail::input_quad_bytes<Arch>(format_));
  }

  /// Bytes that rows of k elements may need, in any format.
  [[nodiscard]] static std::size_t bytes(index_t rows, index_t k) {
    // 4 bytes an element in the float formats, less in the others once k fills its last block
    return static_cast<std::size_t>(rows * 4 * ((k + block_inputs - 1) / block_inputs * block_inputs));
  }

  /// Takes t rows of k: value(row, scale(row), j) gives sixteen elements from j on, 0 beyond k.
  template <class Scale, class Value>
  void write(const ExecutorRef& executor, Format format, index_t t, index_t k, Scale&& scale, Value&& value) {
    using Rows = detail::TileShape<Arch>;
    using TileRow = detail::TileRow<Arch>;
    rows_ = t;
    format_ = format;
    row_bytes_ = detail::input_row_bytes<Arch>(format, k);
    const auto tile = [&](index_t first, index_t size) {
      std::array<float, Rows::most> scales;
      for (index_t r = 0; r < size; ++r) scales[static_cast<std::size_t>(r)] = scale(first + r);
      for (index_t j = 0; j < TileRow::written(format, k); j += TileRow::piece) {
        for (index_t r = 0; r < size; ++r) {
          const auto at = [&](index_t i) { return value(first + r, scales[static_cast<std::size_t>(r)], i); };
          TileRow(buffer_.data() + first * row_bytes_, size, r).write(format, k, j, at(j), at(j + 16));
        }
      }
    };
    const index_t tiles = (t + Rows::most - 1) / Rows::most;
    detail::for_chunks(executor, tiles, detail::chunk_size(executor, tiles, 4 * k * Rows::most),
                       [&](index_t first, index_t last) {
                         const index_t end = std::min(t, last * Rows::most);
                         for (index_t row = first * Rows::most; row < end;) {
                           const index_t size = Rows::next(end - row);
                           tile(row, size);
                           row += size;
                         }
                       });
  }

 private:
  index_t rows_ = 0, row_bytes_ = 0;
  Format format_ = Format::f32;
  Buffer buffer_;
};

}  // namespace finteam::inline FINTEAM_ABI
