// Grouped-query self-attention over a paged cache, as a handful of calls on a backend.
// Not here: masks. A row sees its own sequence up to its own position; nothing else knows which request it came from.
#pragma once

#include <finteam/layer/kv_cache.hpp>
#include <finteam/layer/linear.hpp>

#include <cmath>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// Projections of one layer: qkv_proj [(h + 2g)·e, d], which is q_proj [h·e, d], k_proj and v_proj [g·e, d] for one
/// product, and o_proj [d, h·e]. What experts add to them: by expert, or empty.
template <Backend B>
struct AttentionWeights {
  typename B::Matrix qkv_proj, o_proj;
  std::vector<LinearDelta<B>> qkv_deltas{}, o_deltas{};
};

/// Working memory of one step, for up to t rows.
template <Backend B>
struct AttentionScratch {
  template <std::size_t R>
  using Tensor = decltype(std::declval<B&>().template tensor<float, R>({}, nullptr));
  Tensor<3> qkv, y;        ///< [t, h + 2g, e], [t, h, e]
  Tensor<2> cosine, sine;  ///< [t, e/2]
};

namespace detail {
/// [t, heads, e] as [t, heads·e].
template <class T, class Space>
[[nodiscard]] MatrixView<T, Space> flat(TensorView<T, 3, Space> x) noexcept {
  return {x.data(), {x.extent(0), x.extent(1) * x.extent(2)}};
}
/// Heads [first, first + count) of every row.
template <class T, class Space>
[[nodiscard]] TensorView<T, 3, Space> heads(TensorView<T, 3, Space> x, index_t first, index_t count) noexcept {
  return {x.data() + first * x.stride(1), {x.extent(0), count, x.extent(2)}, x.strides()};
}
}  // namespace detail

/// x[t,:] += o_proj · attention(rope(q_proj · n[t,:]), rope(k_proj · n), v_proj · n), n = rms_norm(x), writing keys and
/// values at `sites`. x [t, d]. Source: Vaswani et al. 2017, eq. 1; grouped queries: Ainslie et al. 2023.
template <Backend B>
void attention(B& b, const AttentionWeights<B>& w, std::span<const Site> sites, CacheLayer<typename B::Space> cache,
               AttentionScratch<B>& s, typename B::Input& input, DeltaScratch<B>& delta,
               const RowScales<typename B::Space>& norm, float eps, MatrixView<float, typename B::Space> x) {
  const index_t t = x.extent(0), h = s.y.extent(1), g = (s.qkv.extent(1) - h) / 2;
  const auto qkv = s.qkv.view().rows(0, t), y = s.y.view().rows(0, t);
  linear<B>(
      b, w.qkv_proj, w.qkv_deltas, input, delta,
      [&](const auto& m, auto& in, const Chosen& chosen) { b.prepare_normed(x, norm, eps, m, in, chosen); },
      Write::overwrite, detail::flat(qkv));
  b.rope(s.cosine.view().rows(0, t), s.sine.view().rows(0, t), detail::heads(qkv, 0, h + g));
  b.cache_write(sites, detail::heads(qkv, h, g), detail::heads(qkv, h + g, g), cache);
  b.attention(sites, detail::heads(qkv, 0, h), cache, 1.0F / std::sqrt(static_cast<float>(y.extent(2))), y);
  linear<B>(
      b, w.o_proj, w.o_deltas, input, delta,
      [&](const auto& m, auto& in, const Chosen& chosen) { b.prepare(detail::flat(y), m, in, chosen); },
      Write::accumulate, x);
}

}  // namespace finteam::inline FINTEAM_ABI
