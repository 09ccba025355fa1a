// The ops that go over rows element by element: RMS norm, biases, gates and caps, rotary positions.
// Vector lanes and scalar tails run the same operations, so an element's bits do not depend on where in a row it lies.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cpu/parallel.hpp>
#include <finteam/backend/cpu/simd.hpp>

#include <cmath>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Elements j … j + 15 of a row of k, 0 beyond k.
template <class Arch>
FINTEAM_INLINE inline simd::Lanes<Arch> load_row(const float* row, index_t j, index_t k) noexcept {
  using V = simd::Lanes<Arch>;
  return j + 16 <= k ? V::load(row + j) : V::load(row + std::min(j, k), std::max<index_t>(k - j, 0));
}

/// 1 / sqrt(mean x² + eps) for one row of d. Squares go to sixteen sums by i mod 16, then one tree.
template <class Arch>
[[nodiscard]] float rms_norm_scale(const float* x, float eps, index_t d) noexcept {
  using V = simd::Lanes<Arch>;
  V squares = V::zero();
  for (index_t i = 0; i < d; i += 16) {
    const V v = load_row<Arch>(x, i, d);
    squares = simd::fmadd(v, v, squares);
  }
  return 1.0F / std::sqrt(simd::sum(squares) / static_cast<float>(d) + eps);
}

/// y[i] = x[i] · s[i] / sqrt(mean x² + eps) for one row of d.
template <class Arch>
void rms_norm_row(const float* x, const float* s, float eps, index_t d, float* y) noexcept {
  using V = simd::Lanes<Arch>;
  const float scale = rms_norm_scale<Arch>(x, eps, d);
  index_t i = 0;
  for (; i + 16 <= d; i += 16) (V::load(x + i) * V::broadcast(scale) * V::load(s + i)).store(y + i);
  for (; i < d; ++i) y[i] = x[i] * scale * s[i];
}

/// y[i] += x[i] · s[i] / sqrt(mean x² + eps) for one row of d.
template <class Arch>
void add_rms_norm_row(const float* x, const float* s, float eps, index_t d, float* y) noexcept {
  using V = simd::Lanes<Arch>;
  const float scale = rms_norm_scale<Arch>(x, eps, d);
  index_t i = 0;
  for (; i + 16 <= d; i += 16) {
    simd::fmadd(V::load(x + i) * V::broadcast(scale), V::load(s + i), V::load(y + i)).store(y + i);
  }
  for (; i < d; ++i) y[i] = simd::fmadd(x[i] * scale, s[i], y[i]);
}

/// y[i] += factor · bias[i] for one row of n.
template <class Arch>
void add_bias_row(const float* bias, float factor, index_t n, float* y) noexcept {
  using V = simd::Lanes<Arch>;
  index_t i = 0;
  for (; i + 16 <= n; i += 16) {
    simd::fmadd(V::broadcast(factor), V::load(bias + i), V::load(y + i)).store(y + i);
  }
  for (; i < n; ++i) y[i] = simd::fmadd(factor, bias[i], y[i]);
}

/// y[i] = cap · tanh(y[i] / cap) for one row of n.
template <class Arch>
void soft_cap_row(float cap, index_t n, float* y) noexcept {
  using V = simd::Lanes<Arch>;
  index_t i = 0;
  for (; i + 16 <= n; i += 16) simd::soft_cap(cap, V::load(y + i)).store(y + i);
  for (; i < n; ++i) y[i] = simd::soft_cap(cap, y[i]);
}

/// y[i] = gated(gate[i], up[i]) for one row of f, the bits those that a product's epilogue gives.
template <class Arch>
void gated_row(const float* gate, const float* up, const Activation& activation, index_t f, float* y) noexcept {
  using V = simd::Lanes<Arch>;
  index_t i = 0;
  for (; i + 16 <= f; i += 16) simd::gated(V::load(gate + i), V::load(up + i), activation).store(y + i);
  for (; i < f; ++i) y[i] = simd::gated(gate[i], up[i], activation);
}

/// (a, b) = (a·c - b·s, b·c + a·s), the subtraction and the addition fused with the second product.
template <class V>
FINTEAM_INLINE inline void rotate(V& a, V& b, const V& c, const V& s) noexcept {
  const V first = a;
  a = simd::fmadd(simd::constant<V>(0.0F) - b, s, first * c);
  b = simd::fmadd(first, s, b * c);
}

/// The first 2 · half elements of one head, in place.
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

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
