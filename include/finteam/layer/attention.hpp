// Grouped-query self-attention over a paged cache, as a handful of calls on a backend.
// Not here: masks. A row sees its own sequence up to its own position, or the last of it; nothing else knows which
// request it came from.
#pragma once

#include <finteam/layer/kv_cache.hpp>
#include <finteam/layer/router.hpp>

#include <cmath>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// Projections of one layer: qkv_proj [(h + 2g)·e, d], which is q_proj [h·e, d], k_proj and v_proj [g·e, d] for one
/// product, and o_proj [d, h·e]. What experts add to them: by expert, or empty.
template <Backend B>
struct AttentionWeights {
  typename B::Matrix qkv_proj, o_proj;
  std::vector<LinearDelta<B>> qkv_deltas{}, o_deltas{};
  /// In their stead, q_proj, k_proj, v_proj and o_proj, where one of them has a router; or none.
  std::vector<RoutedLinear<B>> linears{};
  index_t window = 0;  ///< positions that a row sees; 0: all
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

/// qkv = q_proj, k_proj and v_proj · rms_norm(x), each by its own router, if it has one. qkv [t, (h + 2g)·e],
/// overwritten.
template <Backend B>
void routed_qkv(B& b, std::span<const RoutedLinear<B>> linears, RouterScratch<B>& s, typename B::Input& input,
                const RowScales<typename B::Space>& norm, float eps, MatrixView<const float, typename B::Space> x,
                MatrixView<float, typename B::Space> qkv) {
  const auto n = s.n.view().rows(0, x.extent(0));
  b.rms_norm(x, norm, eps, n);
  b.fill(0.0F, qkv);
  index_t first = 0;
  for (const RoutedLinear<B>& w : linears.first(3)) {
    const index_t outputs = w.experts.front().rows();
    routed_linear<B>(b, w, n, s, input, {qkv.data() + first, {qkv.extent(0), outputs}, qkv.strides()});
    first += outputs;
  }
}
}  // namespace detail

/// x[t,:] += o_proj · attention(rope(q_proj · n[t,:]), rope(k_proj · n), v_proj · n), n = rms_norm(x), writing keys and
/// values at `sites`. x [t, d]. Source: Vaswani et al. 2017, eq. 1; grouped queries: Ainslie et al. 2023.
template <Backend B>
void attention(B& b, const AttentionWeights<B>& w, std::span<const Site> sites, CacheLayer<typename B::Space> cache,
               AttentionScratch<B>& s, typename B::Input& input, DeltaScratch<B>& delta, RouterScratch<B>& router,
               const RowScales<typename B::Space>& norm, float eps, MatrixView<float, typename B::Space> x) {
  const index_t t = x.extent(0), h = s.y.extent(1), g = (s.qkv.extent(1) - h) / 2;
  const auto qkv = s.qkv.view().rows(0, t), y = s.y.view().rows(0, t);
  if (w.linears.empty()) {
    linear<B>(
        b, w.qkv_proj, w.qkv_deltas, input, delta,
        [&](const auto& m, auto& in, const Chosen& chosen) { b.prepare_normed(x, norm, eps, m, in, chosen); },
        Write::overwrite, detail::flat(qkv));
  } else {
    detail::routed_qkv<B>(b, w.linears, router, input, norm, eps, x, detail::flat(qkv));
  }
  b.rope(s.cosine.view().rows(0, t), s.sine.view().rows(0, t), detail::heads(qkv, 0, h + g));
  b.cache_write(sites, detail::heads(qkv, h, g), detail::heads(qkv, h + g, g), cache);
  const AttentionRule rule{.scale = 1.0F / std::sqrt(static_cast<float>(y.extent(2))), .window = w.window};
  b.attention(sites, detail::heads(qkv, 0, h), cache, rule, y);
  if (!w.linears.empty()) return routed_linear<B>(b, w.linears.back(), detail::flat(y), router, input, x);
  linear<B>(
      b, w.o_proj, w.o_deltas, input, delta,
      [&](const auto& m, auto& in, const Chosen& chosen) { b.prepare(detail::flat(y), m, in, chosen); },
      Write::accumulate, x);
}

}  // namespace finteam::inline FINTEAM_ABI
