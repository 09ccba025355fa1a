// Grouped-query self-attention over a paged cache, as a handful of calls on a backend.
// Not here: masks. A row sees its own sequence up to its own position, or the last of it; nothing else knows which
// request it came from.
#pragma once

#include <finteam/file/config_type.hpp>
#include <finteam/layer/kv_cache.hpp>
#include <finteam/layer/residual.hpp>
#include <finteam/layer/router.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Projections of one layer: qkv_proj [(h + 2g)·e, d], which is q_proj [h·e, d], k_proj and v_proj [g·e, d] for one
/// product, and o_proj [d, h·e]. What experts add to them: by expert, or empty.
template <Backend B>
struct AttentionWeights {
  typename B::Matrix qkv_proj, o_proj;
  Vector<B> qkv_bias{}, o_bias{};  ///< [(h + 2g)·e], [d], or empty
  Vector<B> q_norm{}, k_norm{};    ///< by head_norm: none, [e] and [e], or [h·e] and [g·e]
  Vector<B> sinks{};               ///< [h], or empty
  std::vector<LinearDelta<B>> qkv_deltas{}, o_deltas{};
  /// In their stead, q_proj, k_proj, v_proj and o_proj, where one of them has a router; or none.
  std::vector<RoutedLinear<B>> linears{};
  HeadNorm head_norm = HeadNorm::none;
  std::optional<std::size_t> rope{};  ///< which of the step's; none: positions do not count
  float scale = 1, cap = 0;           ///< of scores
  index_t window = 0;                 ///< positions that a row sees; 0: all
};

/// Working memory of one step, for up to t rows.
template <Backend B>
struct AttentionScratch {
  template <std::size_t R>
  using Tensor = decltype(std::declval<B&>().template tensor<float, R>({}, nullptr));
  Tensor<3> qkv, y;        ///< [t, h + 2g, e], [t, h, e]
  Tensor<3> cosine, sine;  ///< of each rope, [ropes, t, share · e/2]
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

/// The heads of a row as one vector: [t, heads, e] as [t, heads·e], the rows apart as they are.
template <class T, class Space>
[[nodiscard]] MatrixView<T, Space> side_by_side(TensorView<T, 3, Space> x) noexcept {
  return {x.data(), {x.extent(0), x.extent(1) * x.extent(2)}, {x.stride(0), 1}};
}

/// qkv = q_proj, k_proj and v_proj · norm(x), each by its own router, if it has one. qkv [t, (h + 2g)·e],
/// overwritten.
template <Backend B>
void routed_qkv(B& b, std::span<const RoutedLinear<B>> linears, RouterScratch<B>& s, typename B::Input& input,
                const Residual<B>& residual, MatrixView<float, typename B::Space> qkv) {
  const auto n = s.n.view().rows(0, residual.x.extent(0));
  residual.norm(b, n);
  b.fill(0.0F, qkv);
  index_t first = 0;
  for (const RoutedLinear<B>& w : linears.first(3)) {
    const index_t outputs = w.experts.front().rows();
    routed_linear<B>(b, w, n, s, input, {qkv.data() + first, {qkv.extent(0), outputs}, qkv.strides()});
    first += outputs;
  }
}

/// Queries and keys, normed and turned. qkv [t, h + 2g, e].
template <Backend B>
void norm_and_rotate(B& b, const AttentionWeights<B>& w, AttentionScratch<B>& s, index_t h, index_t g, float eps,
                     TensorView<float, 3, typename B::Space> qkv) {
  const auto q = heads(qkv, 0, h), k = heads(qkv, h, g);
  const index_t t = qkv.extent(0);
  switch (w.head_norm) {
    case HeadNorm::none: break;
    case HeadNorm::each:
      b.norm_heads(w.q_norm.view(), eps, q);
      b.norm_heads(w.k_norm.view(), eps, k);
      break;
    case HeadNorm::all:
      b.rms_norm(side_by_side(q), w.q_norm.view(), eps, side_by_side(q));
      b.rms_norm(side_by_side(k), w.k_norm.view(), eps, side_by_side(k));
      break;
  }
  if (!w.rope) return;
  const auto of = static_cast<index_t>(*w.rope);
  b.rope(s.cosine.view().row(of).rows(0, t), s.sine.view().row(of).rows(0, t), heads(qkv, 0, h + g));
}
}  // namespace detail

/// x[t,:] += o_proj · attention(rope(q_proj · n[t,:]), rope(k_proj · n), v_proj · n), n = norm(x), as residual says it,
/// writing keys and values at `sites`; biases and norms of heads where there are any. Source: Vaswani et al. 2017,
/// eq. 1; grouped queries: Ainslie et al. 2023; norms of heads: Dehghani et al. 2023, 2.1; sinks: Xiao et al. 2023.
template <Backend B>
void attention(B& b, const AttentionWeights<B>& w, std::span<const Site> sites, CacheLayer<typename B::Space> cache,
               AttentionScratch<B>& s, typename B::Input& input, DeltaScratch<B>& delta, RouterScratch<B>& router,
               const Residual<B>& residual) {
  const index_t t = residual.x.extent(0), h = s.y.extent(1), g = (s.qkv.extent(1) - h) / 2;
  const auto qkv = s.qkv.view().rows(0, t), y = s.y.view().rows(0, t);
  if (w.linears.empty()) {
    linear<B>(
        b, w.qkv_proj, w.qkv_deltas, input, delta,
        [&](const auto& m, auto& in, const Chosen& chosen) { residual.prepare(b, m, in, chosen); }, Write::overwrite,
        detail::flat(qkv));
  } else {
    detail::routed_qkv<B>(b, w.linears, router, input, residual, detail::flat(qkv));
  }
  if (w.qkv_bias.size() != 0) b.add_bias(w.qkv_bias.view(), detail::flat(qkv), {});
  detail::norm_and_rotate<B>(b, w, s, h, g, residual.eps, qkv);
  b.cache_write(sites, detail::heads(qkv, h, g), detail::heads(qkv, h + g, g), cache);
  const AttentionRule<typename B::Space> rule{w.scale, w.window, w.cap, w.sinks.view()};
  b.attention(sites, detail::heads(qkv, 0, h), cache, rule, y);
  const auto sum = residual.begin(b);
  if (w.linears.empty()) {
    linear<B>(
        b, w.o_proj, w.o_deltas, input, delta,
        [&](const auto& m, auto& in, const Chosen& chosen) { b.prepare(detail::flat(y), m, in, chosen); },
        Write::accumulate, sum);
  } else {
    routed_linear<B>(b, w.linears.back(), detail::flat(y), router, input, sum);
  }
  if (w.o_bias.size() != 0) b.add_bias(w.o_bias.view(), sum, {});
  residual.finish(b);
}

}  // namespace finteam::inline FINTEAM_ABI
