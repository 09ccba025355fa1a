// The ops that go over rows element by element: RMS norm, rotary positions, cache writes, SwiGLU.
// Vector lanes and scalar tails run the same operations, so an element's bits do not depend on where in a row it lies.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cpu/parallel.hpp>
#include <finteam/backend/cpu/simd.hpp>

#include <cmath>
#include <cstring>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// y[i] = x[i] · s[i] / sqrt(mean x² + eps) for one row of d. Squares go to sixteen sums by i mod 16, then one tree.
template <class Arch>
void rms_norm_row(const float* x, const float* s, float eps, index_t d, float* y) noexcept {
  using V = simd::Lanes<Arch>;
  V squares = V::zero();
  index_t i = 0;
  for (; i + 16 <= d; i += 16) {
    const V v = V::load(x + i);
    squares = simd::fmadd(v, v, squares);
  }
  if (i < d) {
    const V v = V::load(x + i, d - i);
    squares = simd::fmadd(v, v, squares);
  }
  const float scale = 1.0F / std::sqrt(simd::sum(squares) / static_cast<float>(d) + eps);
  const V scales = V::broadcast(scale);
  for (i = 0; i + 16 <= d; i += 16) (V::load(x + i) * scales * V::load(s + i)).store(y + i);
  for (; i < d; ++i) y[i] = x[i] * scale * s[i];
}

/// (a, b) = (a·c - b·s, b·c + a·s), the subtraction and the addition fused with the second product.
template <class V>
FINTEAM_INLINE inline void rotate(V& a, V& b, const V& c, const V& s) noexcept {
  const V first = a;
  a = simd::fmadd(simd::constant<V>(0.0F) - b, s, first * c);
  b = simd::fmadd(first, s, b * c);
}

/// One head of width 2 · half, in place.
template <class Arch>
void rope_head(const float* cosine, const float* sine, index_t half, float* x) noexcept {
  using V = simd::Lanes<Arch>;
  index_t i = 0;
  for (; i + 16 <= half; i += 16) {
    V a = V::load(x + i), b = V::load(x + half + i);
    rotate(a, b, V::load(cosine + i), V::load(sine + i));
    a.store(x + i);
    b.store(x + half + i);
  }
  for (; i < half; ++i) rotate(x[i], x[half + i], cosine[i], sine[i]);
}

/// y[i] = silu(gate[i]) · up[i] for one row of f.
template <class Arch>
void swiglu_row(const float* gate, const float* up, index_t f, float* y) noexcept {
  using V = simd::Lanes<Arch>;
  index_t i = 0;
  for (; i + 16 <= f; i += 16) (simd::silu(V::load(gate + i)) * V::load(up + i)).store(y + i);
  for (; i < f; ++i) y[i] = simd::silu(gate[i]) * up[i];
}

/// One row's keys and values, [g, e] each, at its site.
inline void cache_write_row(const Site& site, TensorView<const float, 2> k, TensorView<const float, 2> v,
                            CacheLayer<Host> cache) noexcept {
  const index_t page = site.pages[site.position / page_tokens], slot = site.position % page_tokens;
  for (index_t g = 0; g < k.extent(0); ++g) {
    float* keys = &cache.k(page, g, 0, slot);
    for (index_t i = 0; i < k.extent(1); ++i) keys[i * cache.k.stride(2)] = k(g, i);
    std::memcpy(&cache.v(page, g, slot, 0), &v(g, 0), sizeof(float) * static_cast<std::size_t>(v.extent(1)));
  }
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
