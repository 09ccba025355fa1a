// Attention of one head of one row over its pages, with a running softmax: no memory beyond one page's scores.
// The bits depend on the row's query, its keys and values and its position: pages are taken whole, in order (law 3).
// Source of the running softmax: Milakov & Gimelshein 2018, algorithm 3; over blocks as in Dao et al. 2022.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cpu/simd.hpp>

#include <algorithm>
#include <array>
#include <limits>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// scores[p] = Σ_i (scale · q[i]) · k[i,p], i in order; k [e, page_tokens]. Returns the greatest of the first `count`;
/// the others become -inf.
template <class Arch>
float page_scores(const float* q, float scale, index_t e, const float* k, index_t stride, index_t count,
                  float* scores) noexcept {
  using V = simd::Lanes<Arch>;
  static_assert(page_tokens == 32);
  V low = V::zero(), high = V::zero();
  for (index_t i = 0; i < e; ++i) {
    const V element = V::broadcast(q[i] * scale);
    low = simd::fmadd(element, V::load(k + i * stride), low);
    high = simd::fmadd(element, V::load(k + i * stride + 16), high);
  }
  low.store(scores);
  high.store(scores + 16);
  if (count < page_tokens) {
    std::fill(scores + count, scores + page_tokens, -std::numeric_limits<float>::infinity());
    low = V::load(scores);
    high = V::load(scores + 16);
  }
  return simd::greatest(simd::max(low, high));
}

/// y = y · keep + Σ_p weights[p] · v[p,:] over the first `count` slots in order, for Blocks · 16 elements (or `rest` <
/// 16).
template <class Arch, std::size_t Blocks>
void add_values(const float* weights, index_t count, const float* v, index_t stride, float keep, float* y) noexcept {
  using V = simd::Lanes<Arch>;
  V sums[Blocks];
  const V kept = V::broadcast(keep);
  simd::unroll<Blocks>([&](std::size_t b) FINTEAM_INLINE { sums[b] = V::load(y + b * 16) * kept; });
  for (index_t p = 0; p < count; ++p) {
    const V weight = V::broadcast(weights[p]);
    const float* row = v + p * stride;
    simd::unroll<Blocks>([&](std::size_t b)
                             FINTEAM_INLINE { sums[b] = simd::fmadd(weight, V::load(row + b * 16), sums[b]); });
  }
  simd::unroll<Blocks>([&](std::size_t b) FINTEAM_INLINE { sums[b].store(y + b * 16); });
}

/// The same for the last e mod 16 elements.
inline void add_values_tail(const float* weights, index_t count, const float* v, index_t stride, float keep,
                            index_t elements, float* y) noexcept {
  for (index_t i = 0; i < elements; ++i) {
    float sum = y[i] * keep;
    for (index_t p = 0; p < count; ++p) sum = simd::fmadd(weights[p], v[p * stride + i], sum);
    y[i] = sum;
  }
}

/// y[:] = Σ_p softmax_p(scale · q·k[p,:]) v[p,:], p = 0 … position, for group g of the cache. q, y [e].
template <class Arch>
void attention_head(const Site& site, const float* q, index_t e, const CacheLayer<Host>& cache, index_t g, float scale,
                    float* y) noexcept {
  using V = simd::Lanes<Arch>;
  alignas(64) std::array<float, page_tokens> scores;
  constexpr std::size_t blocks = V::parts == 1 ? 8 : 4 / V::parts;
  float greatest = -std::numeric_limits<float>::infinity(), total = 0;
  std::fill(y, y + e, 0.0F);
  const index_t length = index_t{site.position} + 1;
  for (index_t start = 0; start < length; start += page_tokens) {
    const index_t page = site.pages[start / page_tokens], count = std::min(page_tokens, length - start);
    const float page_greatest =
        page_scores<Arch>(q, scale, e, &cache.k(page, g, 0, 0), cache.k.stride(2), count, scores.data());
    const float now = simd::max(page_greatest, greatest);
    const float keep = simd::exp(greatest - now);
    const V low = simd::exp(V::load(scores.data()) - V::broadcast(now));
    const V high = simd::exp(V::load(scores.data() + 16) - V::broadcast(now));
    low.store(scores.data());
    high.store(scores.data() + 16);
    total = simd::fmadd(total, keep, simd::sum(low + high));
    greatest = now;

    const float* v = &cache.v(page, g, 0, 0);
    const index_t stride = cache.v.stride(2);
    index_t i = 0;
    for (; i + index_t{16 * blocks} <= e; i += index_t{16 * blocks}) {
      add_values<Arch, blocks>(scores.data(), count, v + i, stride, keep, y + i);
    }
    for (; i + 16 <= e; i += 16) add_values<Arch, 1>(scores.data(), count, v + i, stride, keep, y + i);
    add_values_tail(scores.data(), count, v + i, stride, keep, e - i, y + i);
  }
  index_t i = 0;
  for (; i + 16 <= e; i += 16) (V::load(y + i) / V::broadcast(total)).store(y + i);
  for (; i < e; ++i) y[i] /= total;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
