// Grouped-query self-attention over a paged cache, as eight calls on a backend.
// Not here: masks. A row sees its own sequence up to its own position; nothing else knows which request it came from.
#pragma once

#include <finteam/layer/kv_cache.hpp>

#include <cmath>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// Projections of one layer: q_proj [h·e, d], k_proj and v_proj [g·e, d], o_proj [d, h·e].
template <Backend B>
struct AttentionWeights {
  typename B::Matrix q_proj, k_proj, v_proj, o_proj;
};

/// Working memory of one step, for up to t rows.
template <Backend B>
struct AttentionScratch {
  template <std::size_t R>
  using Tensor = decltype(std::declval<B&>().template tensor<float, R>({}, nullptr));
  Tensor<3> q, k, v, y;    ///< [t, h, e], [t, g, e], [t, g, e], [t, h, e]
  Tensor<2> cosine, sine;  ///< [t, e/2]
};

namespace detail {
/// [t, heads, e] as [t, heads·e].
template <class T, class Space>
[[nodiscard]] MatrixView<T, Space> flat(TensorView<T, 3, Space> x) noexcept {
  return {x.data(), {x.extent(0), x.extent(1) * x.extent(2)}};
}
}  // namespace detail

/// x[t,:] += o_proj · attention(rope(q_proj · n[t,:]), rope(k_proj · n), v_proj · n), writing keys and values at
/// `sites`. n [t, d] (normed), x [t, d]. Source: Vaswani et al. 2017, eq. 1; grouped queries: Ainslie et al. 2023.
template <Backend B>
void attention(B& b, const AttentionWeights<B>& w, std::span<const Site> sites, CacheLayer<typename B::Space> cache,
               AttentionScratch<B>& s, MatrixView<const float, typename B::Space> n,
               MatrixView<float, typename B::Space> x) {
  const index_t t = n.extent(0);
  const auto q = s.q.view().rows(0, t), k = s.k.view().rows(0, t), v = s.v.view().rows(0, t), y = s.y.view().rows(0, t);
  const auto cosine = s.cosine.view().rows(0, t), sine = s.sine.view().rows(0, t);
  b.matmul(n, w.q_proj, Write::overwrite, detail::flat(q));
  b.matmul(n, w.k_proj, Write::overwrite, detail::flat(k));
  b.matmul(n, w.v_proj, Write::overwrite, detail::flat(v));
  b.rope(cosine, sine, q);
  b.rope(cosine, sine, k);
  b.cache_write(sites, k, v, cache);
  b.attention(sites, q, cache, 1.0F / std::sqrt(static_cast<float>(q.extent(2))), y);
  b.matmul(detail::flat(y), w.o_proj, Write::accumulate, x);
}

}  // namespace finteam::inline FINTEAM_ABI
