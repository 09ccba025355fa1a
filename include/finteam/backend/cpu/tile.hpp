// The one kernel of every product: a few rows of an input against one or two panels, sums in registers.
// The order of every sum (law 3): one accumulator for each output, taken in increasing k; for the integer formats an
// exact integer sum within a group, then one multiply-add of float a group. Not here: which tiles there are
// (matmul.hpp, attention.hpp).
#pragma once

#include <finteam/backend/cpu/delta.hpp>

#include <atomic>
#include <utility>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Memory that will be read soon: while a kernel computes, a few of its lines at a time go to the second cache.
struct Ahead {
  const std::byte* at = nullptr;
  index_t lines = 0;

  /// Elements of every row between one time and the next.
  [[nodiscard]] static constexpr index_t elements(Format f) noexcept { return is_quantised(f) ? block_inputs : 16; }

  FINTEAM_INLINE void fetch() noexcept {
    for (index_t i = 0; i < lines; ++i, at += 64) __builtin_prefetch(at, 0, 2);
  }
};

/// sums[p][r][0 … 16) = Σ_j x[r,j] · w[p·16 + i, j] for one tile: Rows rows of an input, Panels panels `stride` apart.
/// Panels may be interleaved, line by line or block by block.
template <class Arch, Format F, std::size_t Rows, std::size_t Panels = TileShape<Arch>::panels(F, Rows),
          index_t Interleaved = 1>
class Tile {
 public:
  [[gnu::noinline]] static void run(const std::byte* x, const std::byte* w, index_t stride, index_t k, float* sums,
                                    Ahead& ahead) noexcept {
    Tile tile;
    each([&](std::size_t p, std::size_t r) FINTEAM_INLINE { tile.sums_[p][r] = V::zero(); });
    [[maybe_unused]] const std::byte* const scales = w;
    w += panel_head_bytes(F);
    for (index_t j = 0; j < k;) {
      const index_t end = std::min(k, j + Ahead::elements(F));
      ahead.fetch();
      if constexpr (is_quantised(F)) {
        for (; j < end; j += block_inputs, w += step, x += x_block) {
          if constexpr (Panels == 1 && Interleaved == 1) fetch_ahead(w);
          tile.template add_group<0>(x, w, stride);
          tile.template add_group<1>(x, w, stride);
        }
      } else if constexpr (F == Format::f32) {
        for (; j < end; ++j, w += step, x += 4 * rows) {
          tile.add(x, [&](std::size_t p) FINTEAM_INLINE {
            return V::load(reinterpret_cast<const float*>(w + static_cast<index_t>(p) * stride));
          });
        }
      } else {
        for (; j < end; j += 2, w += step, x += (dot_pairs ? 4 : 8) * rows) tile.add_pairs(x, w, stride);
      }
    }
    if constexpr (is_delta(F)) Delta::scale_rows(scales, stride, tile.sums_);
    each([&](std::size_t p, std::size_t r) FINTEAM_INLINE { tile.sums_[p][r].store(sums + (p * Rows + r) * 16); });
  }

 private:
  using V = simd::Lanes<Arch>;
  using Ints = simd::Ints<Arch>;
  using Word = typename Ints::Batch;
  static constexpr auto rows = static_cast<index_t>(Rows);
  static constexpr bool dot_pairs = F == Format::bf16 && simd::has_bf16_dot<Arch>;
  static constexpr index_t quad = input_quad_bytes<Arch>(F);
  using Delta = DeltaGroup<Arch, F, Rows, Panels>;
  static constexpr index_t x_block = input_block_bytes<Arch>(F) * rows;
  static constexpr index_t step = (is_quantised(F) ? block_bytes(F) : 64) * Interleaved;

  template <class G>
  FINTEAM_INLINE static void each(G&& g) noexcept {
    simd::unroll<Panels>([&](std::size_t p)
                             FINTEAM_INLINE { simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE { g(p, r); }); });
  }
  template <class G>
  FINTEAM_INLINE static void each_panel(G&& g) noexcept {
    simd::unroll<Panels>(std::forward<G>(g));
  }
  FINTEAM_INLINE static V number(const std::byte* p) noexcept {
    return V::broadcast(std::bit_cast<float>(simd::word(p)));
  }

  /// Asks the second cache for a later block. Where four bits take long to compute with, the hardware's stream falls
  /// behind and every line helps: from 0.57 to 0.93 of the read bandwidth at three rows, from 0.66 to 0.86 at one row
  /// of AVX2 (Zen 4, one thread). Where they do not, the kernel asks for the next lines itself before they are due, and
  /// all but a hint of the stream is in its way: one row of AVX-512 has 0.77 with every line, 0.84 with none, 0.88 with
  /// one a block.
  FINTEAM_INLINE static void fetch_ahead(const std::byte* w) noexcept {
    constexpr bool quick = Rows == 1 && V::parts == 1;
    constexpr index_t distance = 6144, lines = quick ? 1 : F == Format::int8 ? 0 : block_bytes(F) / 64;
    simd::unroll<static_cast<std::size_t>(lines)>(
        [&](std::size_t i) FINTEAM_INLINE { __builtin_prefetch(w + distance + 64 * i, 0, 2); });
  }

  /// One element of every row: x[r] · weight(p).
  template <class Weight>
  FINTEAM_INLINE void add(const std::byte* x, Weight&& weight) noexcept {
    V w[Panels];
    each_panel([&](std::size_t p) FINTEAM_INLINE { w[p] = weight(p); });
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      const V element = number(x + 4 * r);
      each_panel([&](std::size_t p) FINTEAM_INLINE { sums_[p][r] = simd::fmadd(element, w[p], sums_[p][r]); });
    });
  }

  /// Two elements of every row.
  FINTEAM_INLINE void add_pairs(const std::byte* x, const std::byte* w, index_t stride) noexcept {
    Ints pairs[Panels];
    each_panel([&](std::size_t p) FINTEAM_INLINE { pairs[p] = Ints::load(w + static_cast<index_t>(p) * stride); });
    if constexpr (dot_pairs) {
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        const std::uint32_t pair = simd::word(x + 4 * r);
        each_panel([&](std::size_t p)
                       FINTEAM_INLINE { sums_[p][r] = simd::dot_bf16<Arch>(pairs[p], pair, sums_[p][r]); });
      });
    } else {
      add(x, [&](std::size_t p) FINTEAM_INLINE { return simd::low_bf16<Arch>(pairs[p].part); });
      add(x + 4 * rows, [&](std::size_t p) FINTEAM_INLINE { return simd::high_bf16<Arch>(pairs[p].part); });
    }
  }

  static constexpr index_t group_bytes = F == Format::int8 ? 512 : 256;

  /// Group `Half` of a block: 32 elements of every row.
  template <index_t Half>
  FINTEAM_INLINE void add_group(const std::byte* x, const std::byte* w, index_t stride) noexcept {
    if constexpr (is_delta(F)) {
      Delta::template add<Half>(x, w, stride, sums_);
    } else if constexpr (simd::has_byte_dot<Arch> && simd::Lanes<Arch>::parts == 1) {
      add_dots<Half>(x, w, stride);
    } else {
      each_panel([&](std::size_t p) FINTEAM_INLINE {
        simd::unroll<Ints::parts>(
            [&](std::size_t i) FINTEAM_INLINE { add_column<Half>(x, w + static_cast<index_t>(p) * stride, p, i); });
      });
    }
  }

  /// All panels together, summed exactly by two chains where one would wait for itself.
  template <index_t Half>
  FINTEAM_INLINE void add_dots(const std::byte* x, const std::byte* w, index_t stride) noexcept {
    constexpr std::size_t chains = Rows <= 4 ? 2 : 1;
    const std::byte *quads = x + Half * 8 * quad * rows, *offsets = x + (16 * quad + 8 + 4 * Half) * rows;
    Ints exact[chains][Panels][Rows];
    each([&](std::size_t p, std::size_t r) FINTEAM_INLINE {
      exact[0][p][r] = Ints::broadcast(F == Format::int4_zero ? 0U : simd::word(offsets + 4 * r));
      if constexpr (chains == 2) exact[1][p][r] = Ints::broadcast(0U);
    });
    const auto add_quad = [&](const Word* weights, std::size_t i) FINTEAM_INLINE {
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        const Word row(simd::word(quads + static_cast<index_t>(i * Rows + r) * quad));
        each_panel([&](std::size_t p) FINTEAM_INLINE {
          Word& sum = exact[i % chains][p][r].part[0];
          sum = simd::add_dots<Arch>(weights[p], row, sum);
        });
      });
    };
    Word low[Panels], high[Panels];
    simd::unroll<static_cast<std::size_t>(group_bytes / 64)>([&](std::size_t i) FINTEAM_INLINE {
      each_panel([&](std::size_t p) FINTEAM_INLINE {
        const std::byte* line =
            w + Half * group_bytes + static_cast<index_t>(p) * stride + static_cast<index_t>(i) * 64;
        low[p] = Ints::load(line).part[0];
        if constexpr (F != Format::int8) {
          const Word mask(0x0F0F0F0FU);
          high[p] = simd::shift_right<4>(low[p]) & mask;
          low[p] = low[p] & mask;
        }
      });
      add_quad(low, i);
      if constexpr (F != Format::int8) add_quad(high, i + 4);
    });
    if constexpr (chains == 2) {
      each([&](std::size_t p, std::size_t r) FINTEAM_INLINE { exact[0][p][r] = exact[0][p][r] + exact[1][p][r]; });
    }
    scale_group<Half>(exact[0], x + 16 * quad * rows, w + 2 * group_bytes, stride);
  }

  /// sums += (exact - zero point · Σ x) · (scale of the weights · scale of the row)
  template <index_t Half>
  FINTEAM_INLINE void scale_group(const Ints (&exact)[Panels][Rows], const std::byte* x, const std::byte* w,
                                  index_t stride) noexcept {
    each_panel([&](std::size_t p) FINTEAM_INLINE {
      const std::byte* at = w + static_cast<index_t>(p) * stride + 32 * Half;
      const V scales = simd::load_bf16<Arch>(at);
      [[maybe_unused]] V zeros;
      if constexpr (F == Format::int4_zero) zeros = V::zero() - simd::load_bf16<Arch>(at + 64);
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        V sum = simd::to_float<Arch>(exact[p][r]);
        if constexpr (F == Format::int4_zero) sum = simd::fmadd(zeros, number(x + (16 + 4 * Half) * rows + 4 * r), sum);
        sums_[p][r] = simd::fmadd(sum, scales * number(x + 4 * Half * rows + 4 * r), sums_[p][r]);
      });
    });
  }

  /// One register of outputs at a time, where a dot product is several instructions: part i of panel p, at w.
  template <index_t Half>
  FINTEAM_INLINE void add_column(const std::byte* x, const std::byte* w, std::size_t p, std::size_t i) noexcept {
    const std::byte *quads = x + Half * 8 * quad * rows, *scales = x + (16 * quad + 4 * Half) * rows;
    const std::byte* column = w + Half * group_bytes + static_cast<index_t>(i * V::width) * 4;
    constexpr bool sums_in_16_bits = quad == 4 && !simd::has_byte_dot<Arch>;
    Word exact[Rows];
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      exact[r] = Word(sums_in_16_bits || F == Format::int4_zero ? 0U : simd::word(scales + 8 * rows + 4 * r));
    });
    simd::unroll<static_cast<std::size_t>(group_bytes / 64)>([&](std::size_t line) FINTEAM_INLINE {
      std::atomic_signal_fence(std::memory_order_seq_cst);  // or the next column's loads are shared, on the stack
      const Word bytes = Word::load_unaligned(reinterpret_cast<const std::uint32_t*>(column + 64 * line));
      if constexpr (F == Format::int8) {
        simd::add_bytes<Arch, quad>(bytes, quads + static_cast<index_t>(line * Rows) * quad, exact);
      } else {
        const Word mask(0x0F0F0F0FU);
        simd::add_bytes<Arch, quad>(bytes & mask, quads + static_cast<index_t>(line * Rows) * quad, exact);
        simd::add_bytes<Arch, quad>(simd::shift_right<4>(bytes) & mask,
                                    quads + static_cast<index_t>((line + 4) * Rows) * quad, exact);
      }
    });
    const auto of_weights = simd::load_bf16<Arch>(w + 2 * group_bytes + 32 * Half).part[i];
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      const auto number = [&](index_t at) FINTEAM_INLINE {
        return typename V::Batch(std::bit_cast<float>(simd::word(scales + at * rows + 4 * static_cast<index_t>(r))));
      };
      if constexpr (sums_in_16_bits) {
        const Word offset(F == Format::int4_zero ? 0U : simd::word(scales + 8 * rows + 4 * r));
        exact[r] = simd::dot16<Arch>(exact[r], Word(0x00010001U), offset);
      }
      auto sum = simd::to_float<Arch>(exact[r]);
      if constexpr (F == Format::int4_zero) {
        const auto zeros = V::zero().part[i] - simd::load_bf16<Arch>(w + 2 * group_bytes + 32 * Half + 64).part[i];
        sum = simd::fmadd(zeros, number(16), sum);
      }
      auto& total = sums_[p][r].part[i];
      total = simd::fmadd(sum, of_weights * number(0), total);
    });
  }

  V sums_[Panels][Rows];
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
