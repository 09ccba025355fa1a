// The feed-forward layer: one SwiGLU, or several of which a router chooses a few for every row and sums them by weight
// (law 1 in a feed-forward layer), or one whose linear layers have routers. Not here: routers (router.hpp).
#pragma once

#include <finteam/layer/router.hpp>

namespace finteam::inline FINTEAM_ABI {

/// gate_up_proj: gate_proj and up_proj [f, d], paired for one product; down_proj [d, f].
template <Backend B>
struct FeedForwardExpert {
  typename B::Matrix gate_up_proj, down_proj;
};

/// One expert and no router, or as many experts as the router has outputs.
template <Backend B>
struct FeedForwardWeights {
  std::vector<FeedForwardExpert<B>> experts;
  std::vector<typename B::Matrix> router{};  ///< [experts, d], none or one
  index_t top_k = 0;                         ///< experts that the router chooses for a row
  /// What experts on a shared base add to the only expert here: by expert, or empty; to gate and up as a stack [2f, d].
  std::vector<LinearDelta<B>> gate_up_deltas{}, down_deltas{};
  /// In their stead, gate_proj, up_proj and down_proj, where one of them has a router; or none.
  std::vector<RoutedLinear<B>> linears{};
};

/// Working memory of one step, for up to t rows.
template <Backend B>
struct FeedForwardScratch {
  using Matrix = decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr));
  Matrix y;     ///< [t, f]
  Matrix up{};  ///< [t, f], where linear layers have routers
};

namespace detail {

/// x[t,:] += Σ_k weight[t,k] · expert_k(n[t,:]), n = rms_norm(x), over the experts that the router chooses, in rising
/// order for every row; the others' weights are not read.
template <Backend B>
void routed_feed_forward(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s, RouterScratch<B>& router,
                         typename B::Input& input, const RowScales<typename B::Space>& norm, float eps,
                         MatrixView<float, typename B::Space> x) {
  const index_t t = x.extent(0);
  const auto n = router.n.view().rows(0, t);
  b.rms_norm(x, norm, eps, n);
  choose_experts<B>(b, w.router.front(), w.top_k, n, router, input);
  for (std::size_t k = 0; k < w.experts.size(); ++k) {
    const Chosen chosen = router.chosen[k].chosen();
    if (chosen.rows.empty()) continue;
    const auto y = s.y.view().rows(0, chosen.count(t));
    b.prepare(n, w.experts[k].gate_up_proj, input, chosen);
    b.matmul_swiglu(input, w.experts[k].gate_up_proj, {}, y);
    b.prepare(y, w.experts[k].down_proj, input);
    b.matmul(input, w.experts[k].down_proj, Write::accumulate, x, chosen);
  }
}

/// x[t,:] += down(silu(gate(n[t,:])) ⊙ up(n[t,:])), n = rms_norm(x), each of the three by its own router, if it has
/// one.
template <Backend B>
void feed_forward_of_linears(B& b, std::span<const RoutedLinear<B>> linears, FeedForwardScratch<B>& s,
                             RouterScratch<B>& router, typename B::Input& input,
                             const RowScales<typename B::Space>& norm, float eps,
                             MatrixView<float, typename B::Space> x) {
  const index_t t = x.extent(0);
  const auto n = router.n.view().rows(0, t), gate = s.y.view().rows(0, t), up = s.up.view().rows(0, t);
  b.rms_norm(x, norm, eps, n);
  b.fill(0.0F, gate);
  routed_linear<B>(b, linears[0], n, router, input, gate);
  b.fill(0.0F, up);
  routed_linear<B>(b, linears[1], n, router, input, up);
  b.swiglu(gate, up, gate);
  routed_linear<B>(b, linears[2], gate, router, input, x);
}

}  // namespace detail

/// x[t,:] += Σ_k weight[t,k] · down_proj_k · (silu(gate_proj_k · n[t,:]) ⊙ (up_proj_k · n[t,:])), n = rms_norm(x); one
/// expert without a router weighs 1. x [t, d]. Source: Shazeer 2020, eq. 6.
template <Backend B>
void feed_forward(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s, typename B::Input& input,
                  DeltaScratch<B>& delta, RouterScratch<B>& router, const RowScales<typename B::Space>& norm, float eps,
                  MatrixView<float, typename B::Space> x) {
  if (!w.router.empty()) return detail::routed_feed_forward<B>(b, w, s, router, input, norm, eps, x);
  if (!w.linears.empty()) return detail::feed_forward_of_linears<B>(b, w.linears, s, router, input, norm, eps, x);
  const FeedForwardExpert<B>& only = w.experts.front();
  const auto y = s.y.view().rows(0, x.extent(0));
  MatrixView<float, typename B::Space> plus;
  if (!w.gate_up_deltas.empty()) {
    plus = delta.plus.view().rows(0, x.extent(0));
    b.fill(0.0F, plus);
    add_deltas<B>(
        b, w.gate_up_deltas, delta,
        [&](const auto& a, auto& in, const Chosen& chosen) { b.prepare_normed(x, norm, eps, a, in, chosen); }, plus);
  }
  b.prepare_normed(x, norm, eps, only.gate_up_proj, input);
  b.matmul_swiglu(input, only.gate_up_proj, plus, y);
  linear<B>(
      b, only.down_proj, w.down_deltas, input, delta,
      [&](const auto& m, auto& in, const Chosen& chosen) { b.prepare(y, m, in, chosen); }, Write::accumulate, x);
}

}  // namespace finteam::inline FINTEAM_ABI
