// Sixteen float lanes on any x86-64 or ARM vector unit, and the scalar functions with the same bits. The only header
// that includes xsimd (8.1 and later) or computes with intrinsics.
//
// Two kinds of arithmetic, and nothing between (law 3): a product that feeds a sum is an explicit fmadd, fused wherever
// the build has fused multiply-add (so not left to xsimd 8.1, whose AVX-512 fma rounds twice); everything else is one
// rounding per operator, in expressions that a compiler has no way to contract.
#pragma once

#include <finteam/core/activation.hpp>
#include <finteam/core/checked.hpp>

#include <xsimd/xsimd.hpp>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

// Kernels keep their sums in registers only if every lambda is inlined, which GCC 12 must be told. Not under the
// address sanitiser, whose bookkeeping for inlined temporaries makes a file compile for minutes.
#if defined(__SANITIZE_ADDRESS__)
#define FINTEAM_INLINE
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FINTEAM_INLINE
#endif
#endif
#ifndef FINTEAM_INLINE
#define FINTEAM_INLINE __attribute__((always_inline))
#endif

namespace finteam::inline FINTEAM_ABI {

/// The widest xsimd architecture that the compiler's flags allow.
using DefaultArch = xsimd::default_arch;

namespace detail::simd {

/// f(0), …, f(N - 1), unrolled, so that arrays indexed by the argument live in registers.
template <std::size_t N, class F>
FINTEAM_INLINE inline void unroll(F&& f) {
#if defined(__clang__)
#pragma unroll
#else
#pragma GCC unroll 16
#endif
  for (std::size_t i = 0; i < N; ++i) f(i);
}

/// a · b + c, rounded once where the instruction set has it (never contracted elsewhere: there is nothing to contract
/// to).
FINTEAM_INLINE inline float fmadd(float a, float b, float c) noexcept {
#if defined(__FMA__) || defined(__AVX512F__) || defined(FP_FAST_FMAF)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// a · b + c for one register.
template <class Arch>
FINTEAM_INLINE inline xsimd::batch<float, Arch> fmadd(const xsimd::batch<float, Arch>& a,
                                                      const xsimd::batch<float, Arch>& b,
                                                      const xsimd::batch<float, Arch>& c) noexcept {
  using Batch = xsimd::batch<float, Arch>;
#if defined(__AVX512F__)
  if constexpr (Batch::size == 16) return Batch(_mm512_fmadd_ps(a, b, c));
#endif
#if defined(__FMA__)
  if constexpr (Batch::size == 8) return Batch(_mm256_fmadd_ps(a, b, c));
  if constexpr (Batch::size == 4) return Batch(_mm_fmadd_ps(a, b, c));
#elif defined(__x86_64__)
  if constexpr (Batch::size < 16) return a * b + c;
#else
  return xsimd::fma(a, b, c);
#endif
}

/// The same bits as another type; xsimd 10 changed the function's template argument.
template <class To, class From, class Arch>
FINTEAM_INLINE inline xsimd::batch<To, Arch> bits_as(const xsimd::batch<From, Arch>& x) noexcept {
#if XSIMD_VERSION_MAJOR >= 10
  return xsimd::bitwise_cast<To>(x);
#else
  return xsimd::bitwise_cast<xsimd::batch<To, Arch>>(x);
#endif
}

/// Every element moved N bits up. (GCC 12 warns inside its own _mm512_slli_epi32, so the zero-masked form.)
template <int N, class Arch>
FINTEAM_INLINE inline xsimd::batch<std::uint32_t, Arch> shift_left(
    const xsimd::batch<std::uint32_t, Arch>& x) noexcept {
#if defined(__AVX512F__)
  if constexpr (xsimd::batch<float, Arch>::size == 16) {
    return xsimd::batch<std::uint32_t, Arch>(_mm512_maskz_slli_epi32(0xFFFFU, x, N));
  }
#endif
  return x << N;
}

/// Every element moved N bits down, zeros above. (As shift_left: GCC 12 warns inside its own _mm512_srli_epi32.)
template <int N, class Arch>
FINTEAM_INLINE inline xsimd::batch<std::uint32_t, Arch> shift_right(
    const xsimd::batch<std::uint32_t, Arch>& x) noexcept {
#if defined(__AVX512F__)
  if constexpr (xsimd::batch<float, Arch>::size == 16) {
    return xsimd::batch<std::uint32_t, Arch>(_mm512_maskz_srli_epi32(0xFFFFU, x, N));
  }
#endif
  return x >> N;
}

/// Sixteen floats in as many registers as the architecture needs.
template <class Arch>
struct Lanes {
  using Batch = xsimd::batch<float, Arch>;
  using Bits = xsimd::batch<std::uint32_t, Arch>;
  static constexpr std::size_t width = Batch::size;
  static constexpr std::size_t parts = 16 / width;
  static_assert(parts * width == 16, "a register of 4, 8 or 16 floats");

  Batch part[parts];

  /// {f(0), …, f(parts - 1)}
  template <class F>
  FINTEAM_INLINE static Lanes make(F&& f) noexcept {
    Lanes made;
    unroll<parts>([&](std::size_t i) FINTEAM_INLINE { made.part[i] = f(i); });
    return made;
  }
  FINTEAM_INLINE static Lanes broadcast(float x) noexcept {
    const Batch b(x);
    return make([&](std::size_t) FINTEAM_INLINE { return b; });
  }
  FINTEAM_INLINE static Lanes zero() noexcept { return broadcast(0.0F); }
  FINTEAM_INLINE static Lanes load(const float* p) noexcept {
    return make([&](std::size_t i) FINTEAM_INLINE { return Batch::load_unaligned(p + i * width); });
  }
  /// The first `count` floats at p, and zeros.
  static Lanes load(const float* p, index_t count) noexcept {
    alignas(64) std::array<float, 16> a{};
    for (index_t i = 0; i < count; ++i) a[static_cast<std::size_t>(i)] = p[i];
    return load(a.data());
  }
  FINTEAM_INLINE void store(float* p) const noexcept {
    unroll<parts>([&](std::size_t i) FINTEAM_INLINE { part[i].store_unaligned(p + i * width); });
  }
  /// Stores the first `count` lanes.
  void store(float* p, index_t count) const noexcept {
    alignas(64) std::array<float, 16> a;
    store(a.data());
    for (index_t i = 0; i < count; ++i) p[i] = a[static_cast<std::size_t>(i)];
  }

  FINTEAM_INLINE friend Lanes operator+(const Lanes& a, const Lanes& b) noexcept {
    return make([&](std::size_t i) FINTEAM_INLINE { return a.part[i] + b.part[i]; });
  }
  FINTEAM_INLINE friend Lanes operator-(const Lanes& a, const Lanes& b) noexcept {
    return make([&](std::size_t i) FINTEAM_INLINE { return a.part[i] - b.part[i]; });
  }
  FINTEAM_INLINE friend Lanes operator*(const Lanes& a, const Lanes& b) noexcept {
    return make([&](std::size_t i) FINTEAM_INLINE { return a.part[i] * b.part[i]; });
  }
  FINTEAM_INLINE friend Lanes operator/(const Lanes& a, const Lanes& b) noexcept {
    return make([&](std::size_t i) FINTEAM_INLINE { return a.part[i] / b.part[i]; });
  }
};

template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> fmadd(const Lanes<Arch>& a, const Lanes<Arch>& b, const Lanes<Arch>& c) noexcept {
  return Lanes<Arch>::make([&](std::size_t i) FINTEAM_INLINE { return fmadd(a.part[i], b.part[i], c.part[i]); });
}

/// a where x < y, else b.
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> where_less(const Lanes<Arch>& x, const Lanes<Arch>& y, const Lanes<Arch>& a,
                                             const Lanes<Arch>& b) noexcept {
  return Lanes<Arch>::make([&](std::size_t i)
                               FINTEAM_INLINE { return xsimd::select(x.part[i] < y.part[i], a.part[i], b.part[i]); });
}
inline float where_less(float x, float y, float a, float b) noexcept { return x < y ? a : b; }

/// a where x equals y, else b.
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> where_equal(const Lanes<Arch>& x, const Lanes<Arch>& y, const Lanes<Arch>& a,
                                              const Lanes<Arch>& b) noexcept {
  return Lanes<Arch>::make([&](std::size_t i)
                               FINTEAM_INLINE { return xsimd::select(x.part[i] == y.part[i], a.part[i], b.part[i]); });
}

/// The greater; b if either is NaN. (GCC 12 warns inside its own _mm512_max_ps, so the zero-masked form.)
template <class Arch>
FINTEAM_INLINE inline xsimd::batch<float, Arch> greater(const xsimd::batch<float, Arch>& a,
                                                        const xsimd::batch<float, Arch>& b) noexcept {
  using Batch = xsimd::batch<float, Arch>;
#if defined(__AVX512F__)
  if constexpr (Batch::size == 16) return Batch(_mm512_maskz_max_ps(0xFFFFU, a, b));
#endif
#if defined(__AVX__)
  if constexpr (Batch::size == 8) return Batch(_mm256_max_ps(a, b));
#endif
#if defined(__x86_64__)
  if constexpr (Batch::size == 4) return Batch(_mm_max_ps(a, b));
#else
  return xsimd::select(b < a, a, b);
#endif
}
/// The lesser; b if either is NaN.
template <class Arch>
FINTEAM_INLINE inline xsimd::batch<float, Arch> lesser(const xsimd::batch<float, Arch>& a,
                                                       const xsimd::batch<float, Arch>& b) noexcept {
  using Batch = xsimd::batch<float, Arch>;
#if defined(__AVX512F__)
  if constexpr (Batch::size == 16) return Batch(_mm512_maskz_min_ps(0xFFFFU, a, b));
#endif
#if defined(__AVX__)
  if constexpr (Batch::size == 8) return Batch(_mm256_min_ps(a, b));
#endif
#if defined(__x86_64__)
  if constexpr (Batch::size == 4) return Batch(_mm_min_ps(a, b));
#else
  return xsimd::select(a < b, a, b);
#endif
}

/// The greater and the lesser; b if either is NaN.
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> max(const Lanes<Arch>& a, const Lanes<Arch>& b) noexcept {
  return Lanes<Arch>::make([&](std::size_t i) FINTEAM_INLINE { return greater(a.part[i], b.part[i]); });
}
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> min(const Lanes<Arch>& a, const Lanes<Arch>& b) noexcept {
  return Lanes<Arch>::make([&](std::size_t i) FINTEAM_INLINE { return lesser(a.part[i], b.part[i]); });
}
inline float max(float a, float b) noexcept { return b < a ? a : b; }
inline float min(float a, float b) noexcept { return a < b ? a : b; }
inline float greater(float a, float b) noexcept { return max(a, b); }

/// x where x is a number, else NaN as it came; y where x is a number.
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> unless_nan(const Lanes<Arch>& x, const Lanes<Arch>& y) noexcept {
  return Lanes<Arch>::make([&](std::size_t i)
                               FINTEAM_INLINE { return xsimd::select(x.part[i] == x.part[i], y.part[i], x.part[i]); });
}
/// Whether any lane is NaN. Not by x != x: xsimd 8.1 and others compare so that NaN differs from nothing.
template <class Arch>
[[nodiscard]] FINTEAM_INLINE inline bool any_nan(const Lanes<Arch>& x) noexcept {
  bool numbers = true;
  unroll<Lanes<Arch>::parts>([&](std::size_t i) FINTEAM_INLINE { numbers &= xsimd::all(x.part[i] == x.part[i]); });
  return !numbers;
}
inline float unless_nan(float x, float y) noexcept { return x == x ? y : x; }

/// p · 2^n on the exponent's bits, n in the lowest mantissa bits of t. Nothing that could be contracted.
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> scale_exponent(const Lanes<Arch>& p, const Lanes<Arch>& t) noexcept {
  return Lanes<Arch>::make([&](std::size_t i) FINTEAM_INLINE {
    return bits_as<float>(bits_as<std::uint32_t>(p.part[i]) + shift_left<23>(bits_as<std::uint32_t>(t.part[i])));
  });
}
inline float scale_exponent(float p, float t) noexcept {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(t) << 23));
}

/// x in every lane of V (a float, or Lanes).
template <class V>
FINTEAM_INLINE inline V constant(float x) noexcept {
  if constexpr (std::is_same_v<V, float>) {
    return x;
  } else {
    return V::broadcast(x);
  }
}

/// e^x, at most 2 ulp off; exp(0) = 1, exp(-inf) = 0, NaN stays NaN; results below 2^-126 are 0. V is float or Lanes,
/// with the same bits. n = round(x · log2 e), r = x - n · ln 2 in two parts, then 1 + r + r² · P(r), P minimax of
/// degree 5. Source: the coefficients and the split of ln 2 are those of Cephes' expf (Moshier 1992).
template <class V>
FINTEAM_INLINE inline V exp(const V& x) noexcept {
  const auto c = [](float value) { return constant<V>(value); };
  const V magic = c(0x1.8p23F);  // adding it rounds to an integer, held in the lowest bits
  const V in_range = min(max(x, c(-88.0F)), c(89.0F));
  const V t = fmadd(in_range, c(1.44269504F), magic);
  const V n = t - magic;
  const V r = fmadd(n, c(2.12194440e-4F), fmadd(n, c(-0.693359375F), in_range));
  V p = fmadd(c(1.9875691500e-4F), r, c(1.3981999507e-3F));
  p = fmadd(p, r, c(8.3334519073e-3F));
  p = fmadd(p, r, c(4.1665795894e-2F));
  p = fmadd(p, r, c(1.6666665459e-1F));
  p = fmadd(p, r, c(5.0000001201e-1F));
  V y = fmadd(p, r * r, r) + c(1.0F);
  y = scale_exponent(y, t);
  y = where_less(c(88.72283F), x, c(std::numeric_limits<float>::infinity()), y);
  y = where_less(x, c(-87.33654F), c(0.0F), y);
  return unless_nan(x, y);
}

/// tanh(x), at most 3 ulp off; NaN stays NaN. V is float or Lanes, with the same bits. An odd polynomial near 0, else
/// 1 - 2 / (exp(2|x|) + 1). Source: the polynomial is that of Cephes' tanhf (Moshier 1992).
template <class V>
FINTEAM_INLINE inline V tanh(const V& x) noexcept {
  const auto c = [](float value) { return constant<V>(value); };
  const V negative = c(0.0F) - x, size = max(x, negative), square = x * x;
  V p = fmadd(c(-5.70498872745e-3F), square, c(2.06390887954e-2F));
  p = fmadd(p, square, c(-5.37397155531e-2F));
  p = fmadd(p, square, c(1.33314422036e-1F));
  p = fmadd(p, square, c(-3.33332819422e-1F));
  const V small = fmadd(p, square * x, x);
  const V large = c(1.0F) - c(2.0F) / (exp(size + size) + c(1.0F));
  return where_less(size, c(0.625F), small, where_less(x, c(0.0F), c(0.0F) - large, large));
}
/// cap · tanh(x / cap)
template <class V>
FINTEAM_INLINE inline V soft_cap(float cap, const V& x) noexcept {
  return constant<V>(cap) * tanh(x / constant<V>(cap));
}

/// z / (1 + exp(-z)). V is float or Lanes, with the same bits.
template <class V>
FINTEAM_INLINE inline V silu(const V& z) noexcept {
  return z / (constant<V>(1.0F) + exp(constant<V>(0.0F) - z));
}
/// z / 2 · (1 + tanh(√(2/π) · (z + 0.044715 z³)))
template <class V>
FINTEAM_INLINE inline V gelu_tanh(const V& z) noexcept {
  const auto c = [](float value) { return constant<V>(value); };
  const V inner = fmadd(z * z * z, c(0.044715F), z);
  return z * c(0.5F) * (c(1.0F) + tanh(inner * c(0.797884561F)));
}
/// What the activation makes of a gate and an up. V is float or Lanes, with the same bits.
template <class V>
FINTEAM_INLINE inline V gated(const V& gate, const V& up, const Activation& activation) noexcept {
  switch (activation.kind) {
    case Activation::Kind::silu: break;
    case Activation::Kind::gelu_tanh: return gelu_tanh(gate) * up;
    case Activation::Kind::clamped_silu: {
      const V limit = constant<V>(activation.limit), one = constant<V>(1.0F);
      const V z = min(limit, gate), u = max(constant<V>(-activation.limit), min(limit, up));  // NaN stays NaN
      return z / (one + exp(constant<V>(-activation.alpha) * z)) * (u + one);
    }
  }
  return silu(gate) * up;
}

/// x[0] … x[15] folded by f, always by the same tree: i with i + 8, then i + 4, i + 2, i + 1.
template <class Arch, class F>
[[nodiscard]] FINTEAM_INLINE inline float fold(const Lanes<Arch>& x, F&& f) noexcept {
#if defined(__x86_64__)
  Lanes<Arch> y = x;
  for (std::size_t n = Lanes<Arch>::parts / 2; n != 0; n /= 2) {
    for (std::size_t i = 0; i < n; ++i) y.part[i] = f(y.part[i], y.part[i + n]);
  }
  const auto four = [&](__m128 v) FINTEAM_INLINE {
    using Four = xsimd::batch<float, xsimd::sse2>;
    const __m128 two = f(Four(v), Four(_mm_movehl_ps(v, v)));
    return f(_mm_cvtss_f32(two), _mm_cvtss_f32(_mm_shuffle_ps(two, two, 1)));
  };
#if defined(__AVX__)
  const auto eight = [&](__m256 v) FINTEAM_INLINE {
    using Four = xsimd::batch<float, xsimd::sse2>;
    return four(f(Four(_mm256_castps256_ps128(v)), Four(_mm256_extractf128_ps(v, 1))));
  };
#endif
#if defined(__AVX512F__)
  if constexpr (Lanes<Arch>::width == 16) {
    // zero-masked: GCC 12 warns inside its own cast to __m256
    using Eight = xsimd::batch<float, xsimd::avx>;
    const __m512d v = _mm512_castps_pd(y.part[0]);
    return eight(f(Eight(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xFU, v, 0))),
                   Eight(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xFU, v, 1)))));
  }
#endif
#if defined(__AVX__)
  if constexpr (Lanes<Arch>::width == 8) return eight(y.part[0]);
#endif
  if constexpr (Lanes<Arch>::width == 4) return four(y.part[0]);
#else
  alignas(64) std::array<float, 16> a;
  x.store(a.data());
  for (std::size_t half = 8; half != 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) a[i] = f(a[i], a[i + half]);
  }
  return a[0];
#endif
}

/// The sum of sixteen floats, always by the same tree.
template <class Arch>
[[nodiscard]] FINTEAM_INLINE inline float sum(const Lanes<Arch>& x) noexcept {
  return fold(x, [](const auto& a, const auto& b) FINTEAM_INLINE { return a + b; });
}

/// The greatest of sixteen floats.
template <class Arch>
[[nodiscard]] FINTEAM_INLINE inline float greatest(const Lanes<Arch>& x) noexcept {
  return fold(x, [](const auto& a, const auto& b) FINTEAM_INLINE { return greater(a, b); });
}

/// The first of sixteen pairs of bf16, widened exactly. The pairs are the words of Lanes<Arch>::parts registers.
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> low_bf16(const xsimd::batch<std::uint32_t, Arch>* pairs) noexcept {
  return Lanes<Arch>::make([&](std::size_t i) FINTEAM_INLINE { return bits_as<float>(shift_left<16>(pairs[i])); });
}
/// The second.
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> high_bf16(const xsimd::batch<std::uint32_t, Arch>* pairs) noexcept {
  using Bits = typename Lanes<Arch>::Bits;
  return Lanes<Arch>::make([&](std::size_t i) FINTEAM_INLINE { return bits_as<float>(pairs[i] & Bits(0xFFFF0000U)); });
}

/// Sixteen bf16 at p, widened exactly.
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> load_bf16(const std::byte* p) noexcept {
#if defined(__AVX512F__)
  if constexpr (Lanes<Arch>::width == 16) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const xsimd::batch<std::uint32_t, Arch> words(_mm512_maskz_cvtepu16_epi32(0xFFFFU, halves));
    return low_bf16<Arch>(&words);
  }
#endif
#if defined(__AVX2__)
  if constexpr (Lanes<Arch>::width == 8) {
    return Lanes<Arch>::make([&](std::size_t i) FINTEAM_INLINE {
      const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i));
      return bits_as<float>(shift_left<16>(xsimd::batch<std::uint32_t, Arch>(_mm256_cvtepu16_epi32(halves))));
    });
  }
#endif
  alignas(64) std::array<float, 16> a;
  for (std::size_t i = 0; i < 16; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, p + 2 * i, 2);
    a[i] = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  return Lanes<Arch>::load(a.data());
}

}  // namespace detail::simd
}  // namespace finteam::inline FINTEAM_ABI
