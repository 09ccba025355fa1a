// The product of attention's weights with a page's values, for a tile of queries, and the form of the weights in it.
// The order of every sum (law 3): slot after slot, continuing the outputs; in int8 an exact integer sum of the page's
// slots, then one multiply-add of float. Not here: where weights come from (attention.hpp).
#pragma once

#include <finteam/backend/cpu/input.hpp>
#include <finteam/backend/kv_page.hpp>

#include <array>
#include <cstring>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// The weights of 32 slots for Rows queries, as products with a page's values read them: a row's after another's.
template <class Arch, CacheFormat F, std::size_t Rows>
struct PageWeights {
  static constexpr bool dot_pairs = F == CacheFormat::bf16 && simd::has_bf16_dot<Arch>;
  static constexpr bool bytes = F == CacheFormat::int8;
  static constexpr std::size_t row_bytes = bytes ? 8 * simd::quad_bytes<Arch> : dot_pairs ? 64 : 128;
  using V = simd::Lanes<Arch>;

  alignas(64) std::array<std::byte, Rows * row_bytes> numbers;
  alignas(64) std::array<float, bytes ? Rows : 0> scales;  ///< what a row's bytes are multiplied with

  [[nodiscard]] const std::byte* row(std::size_t r) const noexcept { return numbers.data() + r * row_bytes; }

  /// Takes row r's weights in a float format; returns sixteen sums of two of them, as they count.
  FINTEAM_INLINE V put(std::size_t r, V low, V high) noexcept {
    std::byte* to = numbers.data() + r * row_bytes;
    if constexpr (dot_pairs) {
      const auto pairs = simd::pack_bf16<Arch>(low, high);
      pairs.store(to);
      return simd::low_bf16<Arch>(pairs.part) + simd::high_bf16<Arch>(pairs.part);
    } else {
      if constexpr (F == CacheFormat::bf16) {
        low = round_to_bf16<Arch>(low);
        high = round_to_bf16<Arch>(high);
      }
      low.store(reinterpret_cast<float*>(to));
      high.store(reinterpret_cast<float*>(to) + 16);
    }
    return low + high;
  }

  /// Takes row r's weights times the scales of the values, none negative, as bytes: the greatest becomes 255, and quad
  /// i holds the slots 2i, 2i + 1, 2i + 16, 2i + 17. Weights that hold a NaN may become any: their row's total is NaN.
  FINTEAM_INLINE void put_bytes(std::size_t r, const V& low, const V& high) noexcept {
    std::byte* to = numbers.data() + r * row_bytes;
    const float greatest = simd::greatest(simd::max(low, high));
    const bool none = greatest < least_magnitude;
    scales[r] = none ? 0.0F : greatest * (1.0F / 255.0F);
    const V inverse = V::broadcast(none ? 0.0F : 255.0F / greatest), magic = V::broadcast(0x1.8p23F);
    const V first = simd::fmadd(low, inverse, magic), second = simd::fmadd(high, inverse, magic);
    simd::Ints<Arch> pairs;
    simd::unroll<V::parts>([&](std::size_t i) FINTEAM_INLINE {
      using Words = typename simd::Ints<Arch>::Batch;
      pairs.part[i] = (simd::bits_as<std::uint32_t>(first.part[i]) & Words(0xFFU)) +
                      simd::shift_left<16>(simd::bits_as<std::uint32_t>(second.part[i]));
    });
    if constexpr (simd::has_byte_dot<Arch>) {
      alignas(64) std::array<std::uint64_t, 8> twos;
      std::array<std::uint32_t, 8> quads;
      pairs.store(reinterpret_cast<std::byte*>(twos.data()));
      for (std::size_t i = 0; i < 8; ++i) quads[i] = static_cast<std::uint32_t>(twos[i] | twos[i] >> 24);
      std::memcpy(to, quads.data(), sizeof quads);
    } else {
      pairs.store(to);
    }
  }
};

/// y[r][16p … 16p + 16) = y[r][…] · keep[r] + Σ_s weights[r,s] · value of slot s, for `Panels` panels of a page's
/// values.
template <class Arch, CacheFormat F, std::size_t Rows, std::size_t Panels>
class ValueTile {
 public:
  using Weights = PageWeights<Arch, F, Rows>;

  /// y[r] + offset is where the panels' elements are; `count` of them, less than 16 · Panels only for one panel.
  [[gnu::noinline]] static void run(const Weights& weights, const std::byte* panels, const float* keep, float* const* y,
                                    index_t offset, index_t count) noexcept {
    ValueTile tile;
    const auto load = [&](std::size_t p, std::size_t r) FINTEAM_INLINE {
      const float* at = y[r] + offset + 16 * p;
      return (count >= 16 ? V::load(at) : V::load(at, count)) * V::broadcast(keep[r]);
    };
    if constexpr (F == CacheFormat::int8) {
      Ints exact[Panels][Rows];
      add_bytes(weights, panels, exact);
      each([&](std::size_t p, std::size_t r) FINTEAM_INLINE {
        tile.sums_[p][r] = simd::fmadd(simd::to_float<Arch>(exact[p][r]), V::broadcast(weights.scales[r]), load(p, r));
      });
    } else {
      each([&](std::size_t p, std::size_t r) FINTEAM_INLINE { tile.sums_[p][r] = load(p, r); });
      for (index_t s = 0; s < page_tokens; s += F == CacheFormat::f32 ? 1 : 2, panels += 128)
        tile.add(weights, panels, s);
    }
    each([&](std::size_t p, std::size_t r) FINTEAM_INLINE {
      float* at = y[r] + offset + 16 * p;
      if (count >= 16) {
        tile.sums_[p][r].store(at);
      } else {
        tile.sums_[p][r].store(at, count);
      }
    });
  }

 private:
  using V = simd::Lanes<Arch>;
  using Ints = simd::Ints<Arch>;
  template <class G>
  FINTEAM_INLINE static void each(G&& g) noexcept {
    simd::unroll<Panels>([&](std::size_t p)
                             FINTEAM_INLINE { simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE { g(p, r); }); });
  }

  /// Slot s, in bf16 slots s and s + 1.
  FINTEAM_INLINE void add(const Weights& weights, const std::byte* panels, index_t s) noexcept {
    if constexpr (F == CacheFormat::f32) {
      add_slot(weights, s,
               [&](std::size_t p) FINTEAM_INLINE { return V::load(reinterpret_cast<const float*>(panels + 64 * p)); });
    } else {
      Ints pairs[Panels];
      simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE { pairs[p] = Ints::load(panels + 64 * p); });
      if constexpr (Weights::dot_pairs) {
        each([&](std::size_t p, std::size_t r) FINTEAM_INLINE {
          sums_[p][r] = simd::dot_bf16<Arch>(pairs[p], simd::word(weights.row(r) + 2 * s), sums_[p][r]);
        });
      } else {
        add_slot(weights, s, [&](std::size_t p) FINTEAM_INLINE { return simd::low_bf16<Arch>(pairs[p].part); });
        add_slot(weights, s + 1, [&](std::size_t p) FINTEAM_INLINE { return simd::high_bf16<Arch>(pairs[p].part); });
      }
    }
  }
  template <class Value>
  FINTEAM_INLINE void add_slot(const Weights& weights, index_t s, Value&& value) noexcept {
    V values[Panels];
    simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE { values[p] = value(p); });
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      const V weight = V::broadcast(std::bit_cast<float>(simd::word(weights.row(r) + 4 * s)));
      simd::unroll<Panels>([&](std::size_t p)
                               FINTEAM_INLINE { sums_[p][r] = simd::fmadd(weight, values[p], sums_[p][r]); });
    });
  }

  /// exact[p][r] = Σ_s bytes of the weights · bytes of the values
  FINTEAM_INLINE static void add_bytes(const Weights& weights, const std::byte* panels,
                                       Ints (&exact)[Panels][Rows]) noexcept {
    each([&](std::size_t p, std::size_t r) FINTEAM_INLINE { exact[p][r] = Ints::broadcast(0); });
    simd::unroll<8>([&](std::size_t i) FINTEAM_INLINE {
      simd::SignedQuads<Arch> bytes[Panels];
      simd::unroll<Panels>([&](std::size_t p)
                               FINTEAM_INLINE { bytes[p] = simd::SignedQuads<Arch>::load(panels + 64 * (2 * i + p)); });
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        const std::byte* quad = weights.row(r) + static_cast<index_t>(i) * simd::quad_bytes<Arch>;
        simd::unroll<Panels>(
            [&](std::size_t p) FINTEAM_INLINE { exact[p][r] = simd::dot_unsigned<Arch>(bytes[p], quad, exact[p][r]); });
      });
    });
  }

  V sums_[Panels][Rows];
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
