// y (+)= x wᵀ over the panels of core/packed.hpp, for one row or for many, and the look-up of rows.
// The order of every sum (law 3): one accumulator for each output, taken in increasing k; for the integer formats an
// exact integer sum within a group, then one multiply-add of float a group. Tiles, chunks and threads only choose which
// outputs go together.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cpu/input.hpp>

#include <utility>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// sums[p][r][0 … 16) = Σ_j x[r,j] · w[p·16 + i, j] for one tile: Rows rows of an input, Panels panels `stride` apart.
/// Panels may be interleaved, line by line or block by block.
template <class Arch, Format F, std::size_t Rows, std::size_t Panels, index_t Interleaved = 1>
class Tile {
 public:
  [[gnu::noinline]] static void run(const std::byte* x, const std::byte* w, index_t stride, index_t k,
                                    float* sums) noexcept {
    Tile tile;
    tile.each([&](std::size_t p, std::size_t r) FINTEAM_INLINE { tile.sums_[p][r] = V::zero(); });
    if constexpr (is_quantised(F)) {
      for (index_t j = 0; j < k; j += block_inputs, w += step, x += x_block) tile.add_block(x, w, stride);
    } else if constexpr (F == Format::f32) {
      for (index_t j = 0; j < k; ++j, w += step, x += 4 * rows) {
        tile.add(x, [&](std::size_t p) FINTEAM_INLINE {
          return V::load(reinterpret_cast<const float*>(w + static_cast<index_t>(p) * stride));
        });
      }
    } else {
      for (index_t j = 0; j < k; j += 2, w += step, x += (dot_pairs ? 4 : 8) * rows) tile.add_pairs(x, w, stride);
    }
    tile.each([&](std::size_t p, std::size_t r) FINTEAM_INLINE { tile.sums_[p][r].store(sums + (p * Rows + r) * 16); });
  }

 private:
  using V = simd::Lanes<Arch>;
  using Ints = simd::Ints<Arch>;
  static constexpr auto rows = static_cast<index_t>(Rows);
  static constexpr bool dot_pairs = F == Format::bf16 && simd::has_bf16_dot<Arch>;
  static constexpr index_t quad = simd::quad_bytes<Arch>;
  static constexpr index_t x_block = (16 * quad + 16) * rows;
  static constexpr index_t step = (is_quantised(F) ? block_bytes(F) : 64) * Interleaved;

  template <class G>
  FINTEAM_INLINE static void each(G&& g) noexcept {
    simd::unroll<Panels>([&](std::size_t p)
                             FINTEAM_INLINE { simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE { g(p, r); }); });
  }

  /// One element of every row: x[r] · weight(p).
  template <class Weight>
  FINTEAM_INLINE void add(const std::byte* x, Weight&& weight) noexcept {
    V w[Panels];
    simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE { w[p] = weight(p); });
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      const V element = V::broadcast(std::bit_cast<float>(simd::word(x + 4 * r)));
      simd::unroll<Panels>([&](std::size_t p)
                               FINTEAM_INLINE { sums_[p][r] = simd::fmadd(element, w[p], sums_[p][r]); });
    });
  }

  /// Two elements of every row.
  FINTEAM_INLINE void add_pairs(const std::byte* x, const std::byte* w, index_t stride) noexcept {
    Ints pairs[Panels];
    simd::unroll<Panels>([&](std::size_t p)
                             FINTEAM_INLINE { pairs[p] = Ints::load(w + static_cast<index_t>(p) * stride); });
    if constexpr (dot_pairs) {
      each([&](std::size_t p, std::size_t r)
               FINTEAM_INLINE { sums_[p][r] = simd::dot_bf16<Arch>(pairs[p], simd::word(x + 4 * r), sums_[p][r]); });
    } else {
      add(x, [&](std::size_t p) FINTEAM_INLINE { return simd::low_bf16<Arch>(pairs[p].part); });
      add(x + 4 * rows, [&](std::size_t p) FINTEAM_INLINE { return simd::high_bf16<Arch>(pairs[p].part); });
    }
  }

  /// Two groups of 32 elements of every row.
  FINTEAM_INLINE void add_block(const std::byte* x, const std::byte* w, index_t stride) noexcept {
    constexpr index_t group_bytes = F == Format::int8 ? 512 : 256;
    simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE {
      const std::byte* panel = w + static_cast<index_t>(p) * stride;
      simd::unroll<2>([&](std::size_t half) FINTEAM_INLINE {
        const auto g = static_cast<index_t>(half);
        add_group(p, x + g * 8 * quad * rows, x + (16 * quad + 4 * g) * rows, panel + g * group_bytes,
                  panel + 2 * group_bytes + 32 * g);
      });
    });
  }

  /// One group: quads and scales of the rows, quads and scales of the weights.
  FINTEAM_INLINE void add_group(std::size_t p, const std::byte* x, const std::byte* x_scales, const std::byte* w,
                                const std::byte* w_scales) noexcept {
    constexpr bool zero_points = F == Format::int4_zero;
    Ints exact[Rows];
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      exact[r] = Ints::broadcast(zero_points ? 0U : simd::word(x_scales + 8 * rows + 4 * r));
    });
    const auto add = [&](const simd::Quads<Arch>& weights, index_t i) FINTEAM_INLINE {
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        exact[r] = simd::dot<Arch>(weights, x + (i * rows + static_cast<index_t>(r)) * quad, exact[r]);
      });
    };
    if constexpr (F == Format::int8) {
      simd::unroll<8>([&](std::size_t i) FINTEAM_INLINE {
        add(simd::Quads<Arch>::load(w + static_cast<index_t>(i) * 64), static_cast<index_t>(i));
      });
    } else {
      simd::unroll<4>([&](std::size_t i) FINTEAM_INLINE {
        simd::Quads<Arch> low, high;
        simd::Quads<Arch>::load_halves(w + static_cast<index_t>(i) * 64, low, high);
        add(low, static_cast<index_t>(i));
        add(high, static_cast<index_t>(i) + 4);
      });
    }
    const V scales = simd::load_bf16<Arch>(w_scales);
    [[maybe_unused]] V zeros;
    if constexpr (zero_points) zeros = V::zero() - simd::load_bf16<Arch>(w_scales + 64);
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      const auto number = [&](index_t at)
                              FINTEAM_INLINE { return V::broadcast(std::bit_cast<float>(simd::word(x_scales + at))); };
      V sum = simd::to_float<Arch>(exact[r]);
      if constexpr (zero_points) sum = simd::fmadd(zeros, number(8 * rows + 4 * static_cast<index_t>(r)), sum);
      sums_[p][r] = simd::fmadd(sum, scales * number(4 * static_cast<index_t>(r)), sums_[p][r]);
    });
  }

  V sums_[Panels][Rows];
};

/// What becomes of a product's sums.
enum class Finish : std::uint8_t { overwrite, accumulate, swiglu };

/// One matrix product, as the tasks of an executor see it.
template <class Arch>
class MatmulJob {
 public:
  MatmulJob(const CpuInput<Arch>& x, const PackedMatrix& w, Finish finish, MatrixView<float> y) noexcept
      : x_(x), w_(w), finish_(finish), y_(y) {}

  void run(const ExecutorRef& executor) const {
    // Two panels go together: they are a pair, or two streams for one row.
    const index_t pairs = (w_.panels() + 1) / 2, bytes = std::max<index_t>(2 * w_.panel_bytes(), 1);
    index_t size = pairs;
    if (executor.concurrency() > 1 || x_.rows() > most) {
      const index_t most_bytes = x_.rows() > most ? cache_bytes : stream_bytes;
      const index_t least = worthwhile_work / std::max<index_t>(x_.rows() * w_.cols() * 2 * panel_outputs, 1) + 1;
      size = std::max(least, most_bytes / bytes);
    }
    for_chunks(executor, pairs, size,
               [this](index_t first, index_t last) { chunk(2 * first, std::min(2 * last, w_.panels())); });
  }

 private:
  static constexpr index_t most = TileRows<Arch>::most;
  /// A chunk's weights stay in the second cache while the rows go past; with few rows a chunk only balances threads.
  static constexpr index_t cache_bytes = 384 * 1024, stream_bytes = 96 * 1024;

  void chunk(index_t first, index_t last) const noexcept {
    switch (w_.format()) {
      case Format::f32: return all_rows<Format::f32>(first, last);
      case Format::bf16_wide: return all_rows<Format::bf16_wide>(first, last);
      case Format::bf16: return all_rows < simd::has_bf16_dot<Arch> ? Format::bf16 : Format::bf16_wide > (first, last);
      case Format::int8: return all_rows<Format::int8>(first, last);
      case Format::int4: return all_rows<Format::int4>(first, last);
      case Format::int4_zero: return all_rows<Format::int4_zero>(first, last);
    }
  }

  template <Format F>
  void all_rows(index_t first, index_t last) const noexcept {
    for (index_t t = 0; t < x_.rows();) {
      const index_t count = TileRows<Arch>::next(x_.rows() - t);
      [&]<std::size_t... I>(std::index_sequence<I...>) {
        constexpr auto sizes = TileRows<Arch>::sizes();
        ((count == sizes[I] ? rows<F, static_cast<std::size_t>(sizes[I])>(t, first, last) : void()), ...);
      }
      (std::make_index_sequence<TileRows<Arch>::sizes().size()>{});
      t += count;
    }
  }

  /// Rows t … t + Rows - 1 against the panels [first, last).
  template <Format F, std::size_t Rows>
  void rows(index_t t, index_t first, index_t last) const noexcept {
    alignas(64) std::array<float, 2 * Rows * 16> sums;
    const std::byte* x = x_.tile(t);
    const index_t stride = w_.panel_bytes(), k = w_.cols();
    for (index_t p = first; p < last; p += 2) {
      const index_t count = std::min<index_t>(2, last - p);
      if (Rows <= 2 && count == 2) {
        Tile<Arch, F, Rows, Rows <= 2 ? 2 : 1>::run(x, w_.panel(p), stride, k, sums.data());
      } else {
        for (index_t c = 0; c < count; ++c) {
          Tile<Arch, F, Rows, 1>::run(x, w_.panel(p + c), stride, k, sums.data() + c * index_t{Rows * 16});
        }
      }
      for (index_t r = 0; r < static_cast<index_t>(Rows); ++r) {
        if (finish_ == Finish::swiglu) {
          finish_pair(t + r, p, sums.data() + r * 16, sums.data() + index_t{Rows * 16} + r * 16);
        } else {
          for (index_t c = 0; c < count; ++c) finish(t + r, p + c, sums.data() + c * index_t{Rows * 16} + r * 16);
        }
      }
    }
  }

  using V = simd::Lanes<Arch>;

  void finish(index_t t, index_t p, const float* sums) const noexcept {
    float* at = &y_(t, p * panel_outputs);
    const index_t count = std::min(panel_outputs, w_.rows() - p * panel_outputs);
    V total = V::load(sums);
    if (finish_ == Finish::accumulate) total = (count == panel_outputs ? V::load(at) : V::load(at, count)) + total;
    put(total, at, count);
  }

  void finish_pair(index_t t, index_t p, const float* gate, const float* up) const noexcept {
    put(simd::silu(V::load(gate)) * V::load(up), &y_(t, p / 2 * panel_outputs),
        std::min(panel_outputs, w_.rows() - p / 2 * panel_outputs));
  }

  static void put(const V& v, float* at, index_t count) noexcept {
    if (count == panel_outputs) {
      v.store(at);
    } else {
      v.store(at, count);
    }
  }

  const CpuInput<Arch>& x_;
  const PackedMatrix& w_;
  Finish finish_;
  MatrixView<float> y_;
};

/// y[t,:] = w[tokens[t],:], out of the panels.
inline void unpack_rows(const ExecutorRef& executor, const PackedMatrix& w, std::span<const std::int32_t> tokens,
                        MatrixView<float> y) {
  const auto rows = static_cast<index_t>(tokens.size());
  for_chunks(executor, rows, chunk_size(executor, rows, 4 * w.cols()), [&](index_t first, index_t last) {
    for (index_t t = first; t < last; ++t) {
      const index_t i = tokens[static_cast<std::size_t>(t)];
      for (index_t j = 0; j < w.cols(); ++j) y(t, j) = w.element(i, j);
    }
  });
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
