// The dot products of short types that xsimd has no operation for: unsigned by signed bytes, four at a time, and pairs
// of bf16. Each is exact (bytes) or has the rounding of its instruction (bf16), on sixteen outputs at once. Not here:
// loops over k (tile.hpp).
#pragma once

#include <finteam/backend/cpu/simd.hpp>

#include <cstring>

namespace finteam::inline FINTEAM_ABI::detail::simd {

/// Whether sums of four byte products are one instruction: AVX-512 VNNI, or AVX-VNNI for eight lanes.
template <class Arch>
inline constexpr bool has_byte_dot =
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    xsimd::batch<float, Arch>::size >= 8;
#elif defined(__AVX512VNNI__)
    xsimd::batch<float, Arch>::size == 16;
#elif defined(__AVXVNNI__)
    xsimd::batch<float, Arch>::size == 8;
#else
    false;
#endif

/// Whether sums of two bf16 products are one instruction (vdpbf16ps).
template <class Arch>
inline constexpr bool has_bf16_dot =
#if defined(__AVX512BF16__)
    xsimd::batch<float, Arch>::size == 16;
#else
    false;
#endif

/// Whether sums of two byte products, saturating at 16 bits, are one instruction (maddubs).
template <class Arch>
inline constexpr bool has_byte_pairs =
#if defined(__AVX512BW__)
    true;
#elif defined(__AVX2__)
    xsimd::batch<float, Arch>::size <= 8;
#elif defined(__SSSE3__)
        xsimd::batch<float, Arch>::size <= 4;
#else
        false;
#endif

/// Bytes of four activations as dot products read them: four signed bytes, or two pairs of 16 bits (0 and 2, 1 and 3).
template <class Arch>
inline constexpr index_t quad_bytes = has_byte_dot<Arch> ? 4 : 8;

/// A 32-bit word at p, which need not be aligned.
FINTEAM_INLINE inline std::uint32_t word(const std::byte* p) noexcept {
  std::uint32_t w;
  std::memcpy(&w, p, 4);
  return w;
}

/// Sixteen 32-bit integers.
template <class Arch>
struct Ints {
  using Batch = xsimd::batch<std::uint32_t, Arch>;
  static constexpr std::size_t parts = Lanes<Arch>::parts;

  Batch part[parts];

  FINTEAM_INLINE static Ints broadcast(std::uint32_t x) noexcept {
    Ints made;
    const Batch b(x);
    unroll<parts>([&](std::size_t i) FINTEAM_INLINE { made.part[i] = b; });
    return made;
  }
  FINTEAM_INLINE static Ints load(const std::byte* p) noexcept {
    Ints made;
    const auto* words = reinterpret_cast<const std::uint32_t*>(p);
    unroll<parts>([&](std::size_t i)
                      FINTEAM_INLINE { made.part[i] = Batch::load_unaligned(words + i * Lanes<Arch>::width); });
    return made;
  }
  FINTEAM_INLINE void store(std::byte* p) const noexcept {
    auto* words = reinterpret_cast<std::uint32_t*>(p);
    unroll<parts>([&](std::size_t i) FINTEAM_INLINE { part[i].store_unaligned(words + i * Lanes<Arch>::width); });
  }
};

template <class Arch>
FINTEAM_INLINE inline Ints<Arch> operator+(Ints<Arch> a, const Ints<Arch>& b) noexcept {
  unroll<Ints<Arch>::parts>([&](std::size_t i) FINTEAM_INLINE { a.part[i] = a.part[i] + b.part[i]; });
  return a;
}

/// As float, exactly below 2^24; the integers are signed.
template <class Arch>
FINTEAM_INLINE inline xsimd::batch<float, Arch> to_float(const xsimd::batch<std::uint32_t, Arch>& x) noexcept {
  using Floats = xsimd::batch<float, Arch>;
#if defined(__AVX512F__)
  if constexpr (Floats::size == 16) return Floats(_mm512_maskz_cvtepi32_ps(0xFFFFU, x));
#endif
  return Floats(xsimd::to_float(bits_as<std::int32_t>(x)));
}
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> to_float(const Ints<Arch>& x) noexcept {
  return Lanes<Arch>::make([&](std::size_t i) FINTEAM_INLINE { return to_float<Arch>(x.part[i]); });
}

#if defined(__x86_64__)
/// x, as a value that a compiler cannot look into: GCC 12 reorders sums of integers until their products wait on the
/// stack.
template <class Register>
FINTEAM_INLINE inline Register opaque(Register x) noexcept {
  asm("" : "+v"(x));
  return x;
}
#endif

/// Σ of the two products of signed 16-bit numbers in every word: c + a0·b0 + a1·b1.
template <class Arch>
FINTEAM_INLINE inline xsimd::batch<std::uint32_t, Arch> dot16(const xsimd::batch<std::uint32_t, Arch>& a,
                                                              const xsimd::batch<std::uint32_t, Arch>& b,
                                                              const xsimd::batch<std::uint32_t, Arch>& c) noexcept {
  using Batch = xsimd::batch<std::uint32_t, Arch>;
#if defined(__AVX512BW__)
  if constexpr (Batch::size == 16) return Batch(opaque(_mm512_add_epi32(c, _mm512_madd_epi16(a, b))));
#endif
#if defined(__AVX2__)
  if constexpr (Batch::size == 8) return Batch(opaque(_mm256_add_epi32(c, _mm256_madd_epi16(a, b))));
#endif
#if defined(__SSE2__)
  if constexpr (Batch::size == 4) return Batch(opaque(_mm_add_epi32(c, _mm_madd_epi16(a, b))));
#else
  using Signed = xsimd::batch<std::int32_t, Arch>;
  const auto low = [](const Batch& x) { return bits_as<std::int32_t>(shift_left<16>(x)) >> 16; };
  const auto high = [](const Batch& x) { return bits_as<std::int32_t>(x) >> 16; };
  const Signed sum = low(a) * low(b) + high(a) * high(b);
  return bits_as<std::uint32_t>(sum) + c;
#endif
}

/// c + a0·b0 + a1·b1 in every 16 bits, a unsigned, b signed bytes. Exact while sums stay within 15 bits.
/// Only where has_byte_pairs.
template <class Arch>
FINTEAM_INLINE inline xsimd::batch<std::uint32_t, Arch> dot8(const xsimd::batch<std::uint32_t, Arch>& a,
                                                             const xsimd::batch<std::uint32_t, Arch>& b,
                                                             const xsimd::batch<std::uint32_t, Arch>& c) noexcept {
  using Batch [[maybe_unused]] = xsimd::batch<std::uint32_t, Arch>;
#if defined(__AVX512BW__)
  if constexpr (Batch::size == 16) return Batch(opaque(_mm512_add_epi16(c, _mm512_maddubs_epi16(a, b))));
#endif
#if defined(__AVX2__)
  if constexpr (Batch::size == 8) return Batch(opaque(_mm256_add_epi16(c, _mm256_maddubs_epi16(a, b))));
#endif
#if defined(__SSSE3__)
  if constexpr (Batch::size == 4) return Batch(opaque(_mm_add_epi16(c, _mm_maddubs_epi16(a, b))));
#endif
  (void)a, (void)b;
  return c;
}

/// c + the four products of unsigned bytes in a and signed ones in b, in every word. Only where has_byte_dot.
template <class Arch>
FINTEAM_INLINE inline xsimd::batch<std::uint32_t, Arch> add_dots(const xsimd::batch<std::uint32_t, Arch>& a,
                                                                 const xsimd::batch<std::uint32_t, Arch>& b,
                                                                 const xsimd::batch<std::uint32_t, Arch>& c) noexcept {
  using Batch [[maybe_unused]] = xsimd::batch<std::uint32_t, Arch>;
#if defined(__AVX512VNNI__)
  if constexpr (Batch::size == 16) {
    const __m512i sum = c, bytes = a, x = b;
    return Batch(_mm512_dpbusd_epi32(sum, bytes, x));
  }
#endif
#if (defined(__AVX512VNNI__) && defined(__AVX512VL__)) || defined(__AVXVNNI__)
  if constexpr (Batch::size == 8) {
    const __m256i sum = c, bytes = a, x = b;
#if defined(__AVX512VNNI__)
    return Batch(_mm256_dpbusd_epi32(sum, bytes, x));
#else
    return Batch(_mm256_dpbusd_avx_epi32(sum, bytes, x));
#endif
  }
#endif
  (void)a, (void)b;
  return c;
}

/// exact[r] += Σ_4 bytes · x[r], rows of Quad bytes at x: four signed bytes, or two pairs of 16 bits. With four bytes
/// and no dot product of them, in two sums of 16 bits.
template <class Arch, index_t Quad, std::size_t Rows>
FINTEAM_INLINE inline void add_bytes(const typename Lanes<Arch>::Bits& bytes, const std::byte* x,
                                     typename Lanes<Arch>::Bits (&exact)[Rows]) noexcept {
  using Word = typename Lanes<Arch>::Bits;
  const Word mask(0x00FF00FFU), even = bytes & mask, odd = shift_right<8>(bytes) & mask;
  unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
    const std::byte* at = x + static_cast<index_t>(r) * Quad;
    if constexpr (has_byte_dot<Arch>) {
      exact[r] = add_dots<Arch>(bytes, Word(word(at)), exact[r]);
    } else if constexpr (Quad == 4) {
      exact[r] = dot8<Arch>(bytes, Word(word(at)), exact[r]);
    } else {
      exact[r] = dot16<Arch>(even, Word(word(at)), exact[r]);
      exact[r] = dot16<Arch>(odd, Word(word(at + 4)), exact[r]);
    }
  });
}

/// A register's words at p, loaded once: GCC 12 would load them anew for every use, which costs more than keeping them.
template <class Arch>
FINTEAM_INLINE inline xsimd::batch<std::uint32_t, Arch> load_once(const std::byte* p) noexcept {
  using Batch = xsimd::batch<std::uint32_t, Arch>;
  const Batch words = Batch::load_unaligned(reinterpret_cast<const std::uint32_t*>(p));
#if defined(__AVX512F__)
  if constexpr (Batch::size == 16) {
    const __m512i all = words;
    return Batch(opaque(all));
  }
#endif
  return words;
}

/// Four signed bytes for each of sixteen outputs, ready for `dot_unsigned`.
template <class Arch, bool = has_byte_dot<Arch>>
struct SignedQuads {
  Ints<Arch> bytes;

  FINTEAM_INLINE static SignedQuads load(const std::byte* p) noexcept {
    if constexpr (Ints<Arch>::parts == 1) return {{{load_once<Arch>(p)}}};
    return {Ints<Arch>::load(p)};
  }
};

template <class Arch>
struct SignedQuads<Arch, false> {
  Ints<Arch> even, odd;

  FINTEAM_INLINE static SignedQuads load(const std::byte* p) noexcept {
    const Ints<Arch> bytes = Ints<Arch>::load(p);
    SignedQuads made;
    unroll<Ints<Arch>::parts>([&](std::size_t i) FINTEAM_INLINE {
      const auto words = bits_as<std::int16_t>(bytes.part[i]);
      made.even.part[i] = bits_as<std::uint32_t>((words << 8) >> 8);
      made.odd.part[i] = bits_as<std::uint32_t>(words >> 8);
    });
    return made;
  }
};

/// c[i] + Σ_j w[i,j] · x[j] over four bytes j: w signed, x unsigned, at `x` in the form of quad_bytes. Exact.
template <class Arch>
FINTEAM_INLINE inline Ints<Arch> dot_unsigned(const SignedQuads<Arch>& w, const std::byte* x, Ints<Arch> c) noexcept {
  using Batch = typename Ints<Arch>::Batch;
  if constexpr (!has_byte_dot<Arch>) {
    const Batch even(word(x)), odd(word(x + 4));
    unroll<Ints<Arch>::parts>([&](std::size_t i) FINTEAM_INLINE {
      c.part[i] = dot16<Arch>(w.odd.part[i], odd, dot16<Arch>(w.even.part[i], even, c.part[i]));
    });
  } else {
    const Batch quad(word(x));
    unroll<Ints<Arch>::parts>([&](std::size_t i)
                                  FINTEAM_INLINE { c.part[i] = add_dots<Arch>(quad, w.bytes.part[i], c.part[i]); });
  }
  return c;
}

/// c[i] + w[i,0] · x[0] + w[i,1] · x[1], as vdpbf16ps rounds it. w: sixteen pairs of bf16, x: one pair.
/// Only where has_bf16_dot.
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> dot_bf16(const Ints<Arch>& w, std::uint32_t x, Lanes<Arch> c) noexcept {
#if defined(__AVX512BF16__)
  const __m512i pair = _mm512_set1_epi32(static_cast<int>(x)), panel = w.part[0];
  c.part[0] = _mm512_dpbf16_ps(c.part[0], std::bit_cast<__m512bh>(panel), std::bit_cast<__m512bh>(pair));
#else
  (void)w, (void)x;
#endif
  return c;
}

/// The bf16 numbers nearest to a[0] … a[15], b[0] … b[15], in that order; subnormals become zero. Only where
/// has_bf16_dot.
template <class Arch>
FINTEAM_INLINE inline Ints<Arch> pack_bf16(const Lanes<Arch>& a, const Lanes<Arch>& b) noexcept {
  Ints<Arch> pairs = Ints<Arch>::broadcast(0);
#if defined(__AVX512BF16__)
  pairs.part[0] = std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(b.part[0], a.part[0]));
#else
  (void)a, (void)b;
#endif
  return pairs;
}

}  // namespace finteam::inline FINTEAM_ABI::detail::simd
