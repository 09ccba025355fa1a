// What the kernel of every product (tile.hpp) does with a group of 32 inputs of a low-bit difference: bits become
// bytes, bytes become exact sums. The numbers q are 0 … 2^b - 1; what they stand for follows from the sum of the
// activations, Σ (2q - 1)·x = 2 Σ q·x - Σ x for one bit, 4 Σ (q - 1.5)·x = 4 Σ q·x - 6 Σ x for two. Not here: loops
// over k.
#pragma once

#include <finteam/backend/cpu/input.hpp>

#include <atomic>
#include <utility>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// The groups of an int1 or int2 tile: Rows rows of an input, Panels panels.
template <class Arch, Format F, std::size_t Rows, std::size_t Panels>
class DeltaGroup {
 public:
  using V = simd::Lanes<Arch>;

  /// sums[p][r] += Σ x[r,j] · level(q[i,j]) in the units of the scale (two bits: of a fourth of it), j in group `Half`
  /// of the block at x and w.
  template <index_t Half>
  FINTEAM_INLINE static void add(const std::byte* x, const std::byte* w, index_t stride,
                                 V (&sums)[Panels][Rows]) noexcept {
    const std::byte *quads = x + Half * 8 * quad * rows, *scales = x + (16 * quad + 4 * Half) * rows;
    w += Half * line_bytes * bits;
    if constexpr (simd::has_byte_dot<Arch> && V::parts == 1) {
      add_panels(quads, scales, w, stride, sums);
    } else {
      simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE {
        simd::unroll<V::parts>([&](std::size_t i) FINTEAM_INLINE {
          const std::byte* column = w + static_cast<index_t>(p) * stride + static_cast<index_t>(i * V::width) * 4;
          add_column(quads, scales, column, i, sums[p]);
        });
      });
    }
  }

  /// sums[p][r] *= the scales of the outputs, at the beginning of each panel.
  FINTEAM_INLINE static void scale_rows(const std::byte* scales, index_t stride, V (&sums)[Panels][Rows]) noexcept {
    simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE {
      const V of_outputs = V::load(reinterpret_cast<const float*>(scales + static_cast<index_t>(p) * stride)) *
                           V::broadcast(F == Format::int1 ? 1.0F : 0.25F);
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE { sums[p][r] = sums[p][r] * of_outputs; });
    });
  }

 private:
  using Word = typename V::Bits;
  using Batch = typename V::Batch;
  static constexpr auto rows = static_cast<index_t>(Rows);
  static constexpr index_t quad = input_quad_bytes<Arch>(F), line_bytes = panel_outputs * 4;
  static constexpr int bits = static_cast<int>(bits_of(F));
  static constexpr std::size_t fields = 8 / bits;
  /// Every other field stays where it is, 2^bits times as great, and has a sum of its own: half the shifts, and no
  /// chain of sums waits for itself. Where there are registers for both.
  static constexpr std::size_t chains = Rows * V::parts <= 4 ? 2 : 1;
  static constexpr bool sums_in_16_bits = quad == 4 && !simd::has_byte_dot<Arch>;
  static_assert(8 * 2 * 3 * 127 * (1 << bits) < 1 << 15);

  /// f(field, chain, the bytes of N lines): all fields of the lines.
  template <std::size_t N, class G>
  FINTEAM_INLINE static void each_field(const Word (&lines)[N], G&& g) noexcept {
    [&]<std::size_t... I>(std::index_sequence<I...>) FINTEAM_INLINE { (field<I>(lines, g), ...); }
    (std::make_index_sequence<fields>{});
  }
  template <std::size_t I, std::size_t N, class G>
  FINTEAM_INLINE static void field(const Word (&lines)[N], G&& g) noexcept {
    constexpr std::size_t chain = I % chains;
    constexpr int shift = static_cast<int>(I - chain) * bits;
    const Word mask(0x01010101U * ((1U << bits) - 1) << static_cast<int>(chain) * bits);
    Word bytes[N];
    simd::unroll<N>([&](std::size_t n) FINTEAM_INLINE {
      if constexpr (shift == 0) {
        bytes[n] = lines[n] & mask;
      } else {
        bytes[n] = simd::shift_right<shift>(lines[n]) & mask;
      }
    });
    g(I, chain, bytes);
  }

  /// 2^bits Σ q·x out of the chains' sums.
  FINTEAM_INLINE static Word joined(const Word& even, [[maybe_unused]] const Word& odd) noexcept {
    if constexpr (chains == 2) return simd::shift_left<bits>(even) + odd;
    return simd::shift_left<bits>(even);
  }

  /// sum += (exact - 2^bits · mean level · Σ x) · the row's scale; both are exact in float. The row's scale lies at
  /// `scale`.
  FINTEAM_INLINE static Batch scaled(const Word& exact, const std::byte* scale, const Batch& sum) noexcept {
    const Batch of_group(std::bit_cast<float>(simd::word(scale))),
        of_row(std::bit_cast<float>(simd::word(scale + 16 * rows))), mean(F == Format::int1 ? -1.0F : -6.0F);
    return simd::fmadd(simd::fmadd(mean, of_row, simd::to_float<Arch>(exact)), of_group, sum);
  }

  /// All panels together.
  FINTEAM_INLINE static void add_panels(const std::byte* quads, const std::byte* scales, const std::byte* w,
                                        index_t stride, V (&sums)[Panels][Rows]) noexcept {
    Word exact[chains][Panels][Rows];
    simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE {
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        for (std::size_t c = 0; c < chains; ++c) exact[c][p][r] = Word(0U);
      });
    });
    simd::unroll<static_cast<std::size_t>(bits)>([&](std::size_t line) FINTEAM_INLINE {
      Word lines[Panels];
      simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE {
        const std::byte* at = w + static_cast<index_t>(p) * stride + static_cast<index_t>(line) * line_bytes;
        lines[p] = simd::load_once<Arch>(at);
      });
      each_field(lines, [&](std::size_t field, std::size_t chain, const Word(&bytes)[Panels]) FINTEAM_INLINE {
        simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
          const Word row(simd::word(quads + static_cast<index_t>((line * fields + field) * Rows + r) * quad));
          simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE {
            exact[chain][p][r] = simd::add_dots<Arch>(bytes[p], row, exact[chain][p][r]);
          });
        });
      });
    });
    simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE {
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        sums[p][r].part[0] =
            scaled(joined(exact[0][p][r], exact[chains - 1][p][r]), scales + 4 * r, sums[p][r].part[0]);
      });
    });
  }

  /// One register of outputs, where a dot product is several instructions: part i of a panel.
  FINTEAM_INLINE static void add_column(const std::byte* quads, const std::byte* scales, const std::byte* column,
                                        std::size_t i, V (&sums)[Rows]) noexcept {
    Word exact[chains][Rows];
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {  // a plain loop would be a call that sets memory
      for (std::size_t c = 0; c < chains; ++c) exact[c][r] = Word(0U);
    });
    simd::unroll<static_cast<std::size_t>(bits)>([&](std::size_t line) FINTEAM_INLINE {
      std::atomic_signal_fence(std::memory_order_seq_cst);  // or the next column's loads are shared, on the stack
      const auto* words = reinterpret_cast<const std::uint32_t*>(column + static_cast<index_t>(line) * line_bytes);
      const Word lines[1] = {Word::load_unaligned(words)};
      each_field(lines, [&](std::size_t field, std::size_t chain, const Word(&bytes)[1]) FINTEAM_INLINE {
        simd::add_bytes<Arch, quad>(bytes[0], quads + static_cast<index_t>((line * fields + field) * Rows) * quad,
                                    exact[chain]);
      });
    });
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      Word sum = exact[0][r], odd = exact[chains - 1][r];
      if constexpr (sums_in_16_bits) {
        const Word none(0U), ones(0x00010001U);
        sum = simd::dot16<Arch>(sum, ones, none);
        if constexpr (chains == 2) odd = simd::dot16<Arch>(odd, ones, none);
      }
      sums[r].part[i] = scaled(joined(sum, odd), scales + 4 * r, sums[r].part[i]);
    });
  }
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
