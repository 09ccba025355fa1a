// What a sum of exponentials needs in sixteen float lanes: exact sums, e^x with e^x - 1, and the logarithm of both.
// Not here: e^x alone (simd.hpp). Nothing depends on the width of a register, so bits depend only on whether the build
// has fused multiply-add.
#pragma once

#include <finteam/backend/cpu/simd.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>

namespace finteam::inline FINTEAM_ABI {
namespace detail::simd {

/// a - b, and what that rounding lost (exact unless something overflows). Source: Knuth, TAOCP 2, 4.2.2, theorem B.
template <class Arch>
struct Difference {
  Lanes<Arch> value, lost;
  FINTEAM_INLINE Difference(const Lanes<Arch>& a, const Lanes<Arch>& b) noexcept : value(a - b) {
    const Lanes<Arch> minus_b = value - a;
    lost = (a - (value - minus_b)) - (b + minus_b);
  }
};

/// Sixteen sums, each with what its roundings lost: about 46 bits of each. Source: Knuth, as above.
template <class Arch>
struct ExactSums {
  Lanes<Arch> sum = Lanes<Arch>::zero(), lost = Lanes<Arch>::zero();
  FINTEAM_INLINE void add(const Lanes<Arch>& x) noexcept {
    const Lanes<Arch> next = sum + x;
    const Lanes<Arch> added = next - sum;
    lost = lost + ((sum - (next - added)) + (x - added));
    sum = next;
  }
  /// The sum of the sixteen in double, always by the tree of simd::fold.
  [[nodiscard]] double total() const noexcept {
    alignas(64) std::array<float, 16> high, low;
    sum.store(high.data());
    lost.store(low.data());
    std::array<double, 16> a;
    for (std::size_t j = 0; j < 16; ++j) a[j] = static_cast<double>(high[j]) + static_cast<double>(low[j]);
    for (std::size_t half = 8; half != 0; half /= 2) {
      for (std::size_t j = 0; j < half; ++j) a[j] += a[j + half];
    }
    return a[0];
  }
};

/// e^x and e^x - 1 for x ≤ 0, each at most 2 ulp off: (1, 0) for 0, NaN for NaN, and e^-87 for anything below -87. As
/// simd::exp up to 2^n · (1 + q); 2^n · q + (2^n - 1) then loses nothing near 0.
template <class Arch>
struct Exponential {
  Lanes<Arch> value, minus_one;
  FINTEAM_INLINE explicit Exponential(const Lanes<Arch>& x) noexcept {
    const auto c = [](float constant) FINTEAM_INLINE { return Lanes<Arch>::broadcast(constant); };
    const Lanes<Arch> magic = c(0x1.8p23F), in_range = max(c(-87.0F), x);
    const Lanes<Arch> t = fmadd(in_range, c(1.44269504F), magic);
    const Lanes<Arch> n = t - magic;
    const Lanes<Arch> r = fmadd(n, c(2.12194440e-4F), fmadd(n, c(-0.693359375F), in_range));
    Lanes<Arch> p = fmadd(c(1.9875691500e-4F), r, c(1.3981999507e-3F));
    p = fmadd(p, r, c(8.3334519073e-3F));
    p = fmadd(p, r, c(4.1665795894e-2F));
    p = fmadd(p, r, c(1.6666665459e-1F));
    p = fmadd(p, r, c(5.0000001201e-1F));
    const Lanes<Arch> q = fmadd(p, r * r, r), two_n = scale_exponent(c(1.0F), t);
    value = fmadd(two_n, q, two_n);
    minus_one = fmadd(two_n, q, two_n - c(1.0F));
  }
};

/// log s, for s = 1 + u in [2^-126, 1]: from u where that is at least sqrt(1/2) - 1, so that nothing is lost near s =
/// 1, else from s. At most 2 ulp off; 0 for u = 0, NaN for a NaN u. Source: the coefficients are those of Cephes' logf
/// (Moshier 1992).
template <class Arch>
FINTEAM_INLINE inline Lanes<Arch> log(const Lanes<Arch>& s, const Lanes<Arch>& u) noexcept {
  using L = Lanes<Arch>;
  using Bits = typename L::Bits;
  const auto c = [](float constant) FINTEAM_INLINE { return L::broadcast(constant); };
  const L from_s = c(-0.29289322F);
  L e = L::zero(), f = L::zero();  // s = 2^e · f, f in [sqrt(1/2), sqrt(2))
  unroll<L::parts>([&](std::size_t i) FINTEAM_INLINE {
    const Bits shifted = bits_as<std::uint32_t>(s.part[i]) + Bits(0x3F800000U - 0x3F3504F3U);
    e.part[i] = bits_as<float>(shift_right<23>(shifted) | Bits(0x4B000000U));  // 2^23 + 127 + e
    f.part[i] = bits_as<float>((shifted & Bits(0x007FFFFFU)) + Bits(0x3F3504F3U));
  });
  e = where_less(u, from_s, e - c(0x1p23F + 127.0F), L::zero());
  const L x = where_less(u, from_s, f - c(1.0F), u);
  const L z = x * x;
  L p = fmadd(c(7.0376836292e-2F), x, c(-1.1514610310e-1F));
  p = fmadd(p, x, c(1.1676998740e-1F));
  p = fmadd(p, x, c(-1.2420140846e-1F));
  p = fmadd(p, x, c(1.4249322787e-1F));
  p = fmadd(p, x, c(-1.6668057665e-1F));
  p = fmadd(p, x, c(2.0000714765e-1F));
  p = fmadd(p, x, c(-2.4999993993e-1F));
  p = fmadd(p, x, c(3.3333331174e-1F));
  const L y = fmadd(c(-0.5F), z, fmadd(e, c(-2.12194440e-4F), x * z * p));
  return fmadd(e, c(0.693359375F), x + y);
}

/// f(i, x) for every block of sixteen: i its first index, x its entries, `padding` behind the last.
template <class Arch, class F>
FINTEAM_INLINE inline void for_blocks(std::span<const float> x, float padding, F&& f) noexcept {
  const std::size_t whole = x.size() / 16 * 16;
  for (std::size_t i = 0; i < whole; i += 16) f(i, Lanes<Arch>::load(x.data() + i));
  if (whole == x.size()) return;
  alignas(64) std::array<float, 16> rest;
  rest.fill(padding);
  std::copy(x.begin() + static_cast<std::ptrdiff_t>(whole), x.end(), rest.begin());
  f(whole, Lanes<Arch>::load(rest.data()));
}

/// The greatest entry that is a number; -∞ where there is none.
template <class Arch>
[[nodiscard]] inline float greatest(std::span<const float> x) noexcept {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  Lanes<Arch> most = Lanes<Arch>::broadcast(lowest);
  for_blocks<Arch>(x, lowest, [&](std::size_t, const Lanes<Arch>& block) FINTEAM_INLINE { most = max(block, most); });
  return greatest(most);
}

}  // namespace detail::simd
}  // namespace finteam::inline FINTEAM_ABI
