// The feed-forward layer: one gated unit, or several of which a router chooses a few for every row and sums them by
// weight (law 1 in a feed-forward layer), or one whose linear layers have routers. Not here: routers (router.hpp).
#pragma once

#include <finteam/layer/residual.hpp>
#include <finteam/layer/router.hpp>

#include <algorithm>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// gate_up_proj: gate_proj and up_proj [f, d], paired for one product; down_proj [d, f].
template <Backend B>
struct FeedForwardExpert {
  typename B::Matrix gate_up_proj, down_proj;
  Vector<B> gate_up_bias{}, down_bias{};  ///< [2f], [d], or empty
};

/// The same matrices of all experts, where a device chooses among them: nothing, unless the backend is one that can.
template <Backend B>
struct ExpertTables {};
template <RoutesOnDevice B>
struct ExpertTables<B> {
  typename B::Experts gate_up_proj{}, down_proj{};
};

/// One expert and no router, or as many experts as the router has outputs.
template <Backend B>
struct FeedForwardWeights {
  std::vector<FeedForwardExpert<B>> experts;
  Activation activation{};
  std::vector<typename B::Matrix> router{};  ///< [experts, d], none or one
  Vector<B> router_bias{};                   ///< [experts], or empty
  GateRule rule{};                           ///< how many experts the router chooses for a row, and their weights
  ExpertTables<B> tables{};                  ///< of experts behind a router, by find_tables
  /// What experts on a shared base add to the only expert here: by expert, or empty; to gate and up as a stack [2f, d].
  std::vector<LinearDelta<B>> gate_up_deltas{}, down_deltas{};
  /// In their stead, gate_proj, up_proj and down_proj, where one of them has a router; or none.
  std::vector<RoutedLinear<B>> linears{};
};

/// Working memory of one step, for up to t rows.
template <Backend B>
struct FeedForwardScratch {
  using Matrix = decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr));
  Matrix y;       ///< [t, f]
  Matrix up{};    ///< [t, f], where linear layers have routers
  Matrix plus{};  ///< [t, 2f], where something is added to gate and up
};

namespace detail {

/// What is added to gate and up of t rows: zero, or an expert's biases. [t, 2f]
template <Backend B>
[[nodiscard]] MatrixView<float, typename B::Space> begin_plus(B& b, const FeedForwardExpert<B>& expert,
                                                              FeedForwardScratch<B>& s, index_t t) {
  const auto plus = s.plus.view().rows(0, t);
  b.fill(0.0F, plus);
  if (expert.gate_up_bias.size() != 0) b.add_bias(expert.gate_up_bias.view(), plus, {});
  return plus;
}

/// sum[t,:] += Σ_k weight[t,k] · expert_k(n[t,:]) over the experts that the router chooses, in rising order for every
/// row, all of it on the device, so many rows at a time as there is room for their pairs. n [t, d], sum [t, d].
template <RoutesOnDevice B>
void feed_forward_on_device(B& b, const FeedForwardWeights<B>& w, RouterScratch<B>& router, typename B::Input& input,
                            MatrixView<const float, typename B::Space> n, MatrixView<float, typename B::Space> sum) {
  const auto logits = router_logits<B>(b, w.router.front(), w.router_bias.view(), n, router, input);
  RouteScratch<B>& s = router.route;
  for (index_t first = 0, t = 0; first < n.extent(0); first += t) {
    t = std::min(n.extent(0) - first, RouteScratch<B>::most_rows);
    const auto y = s.y.view().rows(0, t * s.routes.top_k()), z = s.z.view().rows(0, t * s.routes.top_k());
    b.route(logits.rows(first, t), s.routes, s.weights.rows(first, t));
    b.prepare(n.rows(first, t), w.experts.front().gate_up_proj, input);
    b.matmul_gated(input, w.tables.gate_up_proj, w.activation, s.routes, y);
    b.prepare(y, w.experts.front().down_proj, s.input);
    b.matmul(s.input, w.tables.down_proj, s.routes, z);
    b.add_routed(z, w.tables.down_proj, s.routes, sum.rows(first, t));
  }
}

/// sum[t,:] += Σ_k weight[t,k] · expert_k(n[t,:]), n = norm(x), over the experts that the router chooses, in rising
/// order for every row; the others' weights are not read.
template <Backend B>
void routed_feed_forward(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s, RouterScratch<B>& router,
                         typename B::Input& input, const Residual<B>& residual,
                         MatrixView<float, typename B::Space> sum) {
  const index_t t = sum.extent(0);
  const auto n = router.n.view().rows(0, t);
  residual.norm(b, n);
  if constexpr (RoutesOnDevice<B>) {
    if (router.chooser == Chooser::device) return feed_forward_on_device<B>(b, w, router, input, n, sum);
  }
  choose_experts<B>(b, w.router.front(), w.router_bias.view(), w.rule, n, router, input);
  for (std::size_t k = 0; k < w.experts.size(); ++k) {
    const FeedForwardExpert<B>& expert = w.experts[k];
    const Chosen chosen = router.chosen[k].chosen();
    if (chosen.rows.empty()) continue;
    const auto y = s.y.view().rows(0, chosen.count(t));
    MatrixView<float, typename B::Space> plus;
    if (expert.gate_up_bias.size() != 0) plus = begin_plus<B>(b, expert, s, chosen.count(t));
    b.prepare(n, expert.gate_up_proj, input, chosen);
    b.matmul_gated(input, expert.gate_up_proj, w.activation, plus, y);
    b.prepare(y, expert.down_proj, input);
    b.matmul(input, expert.down_proj, Write::accumulate, sum, chosen);
    if (expert.down_bias.size() != 0) b.add_bias(expert.down_bias.view(), sum, chosen);
  }
}

/// sum[t,:] += down(gated(gate(n[t,:]), up(n[t,:]))), n = norm(x), each of the three by its own router, if it has one.
template <Backend B>
void feed_forward_of_linears(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s, RouterScratch<B>& router,
                             typename B::Input& input, const Residual<B>& residual,
                             MatrixView<float, typename B::Space> sum) {
  const index_t t = sum.extent(0);
  const auto n = router.n.view().rows(0, t), gate = s.y.view().rows(0, t), up = s.up.view().rows(0, t);
  residual.norm(b, n);
  b.fill(0.0F, gate);
  routed_linear<B>(b, w.linears[0], n, router, input, gate);
  b.fill(0.0F, up);
  routed_linear<B>(b, w.linears[1], n, router, input, up);
  b.gated(gate, up, w.activation, gate);
  routed_linear<B>(b, w.linears[2], gate, router, input, sum);
}

/// sum[t,:] += down(gated(gate(n[t,:]), up(n[t,:]))), n = norm(x), and what experts on a shared base add to each.
template <Backend B>
void only_feed_forward(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s, DeltaScratch<B>& delta,
                       typename B::Input& input, const Residual<B>& residual,
                       MatrixView<float, typename B::Space> sum) {
  const FeedForwardExpert<B>& only = w.experts.front();
  const index_t t = sum.extent(0);
  const auto y = s.y.view().rows(0, t);
  MatrixView<float, typename B::Space> plus;
  if (!w.gate_up_deltas.empty() || only.gate_up_bias.size() != 0) {
    plus = begin_plus<B>(b, only, s, t);
    add_deltas<B>(
        b, w.gate_up_deltas, delta,
        [&](const auto& a, auto& in, const Chosen& chosen) { residual.prepare(b, a, in, chosen); }, plus);
  }
  residual.prepare(b, only.gate_up_proj, input);
  b.matmul_gated(input, only.gate_up_proj, w.activation, plus, y);
  linear<B>(
      b, only.down_proj, w.down_deltas, input, delta,
      [&](const auto& m, auto& in, const Chosen& chosen) { b.prepare(y, m, in, chosen); }, Write::accumulate, sum);
  if (only.down_bias.size() != 0) b.add_bias(only.down_bias.view(), sum, {});
}

}  // namespace detail

/// Lets a device choose among the experts of a loaded layer. Returns whether it can.
template <RoutesOnDevice B>
[[nodiscard]] bool find_tables(B& b, FeedForwardWeights<B>& w) {
  const auto table = [&](auto matrix, auto bias) {
    std::vector<ExpertMatrix<B>> parts;
    for (const FeedForwardExpert<B>& expert : w.experts) parts.push_back({&(expert.*matrix), (expert.*bias).view()});
    return b.experts(parts);
  };
  w.tables.gate_up_proj = table(&FeedForwardExpert<B>::gate_up_proj, &FeedForwardExpert<B>::gate_up_bias);
  w.tables.down_proj = table(&FeedForwardExpert<B>::down_proj, &FeedForwardExpert<B>::down_bias);
  return !w.tables.gate_up_proj.empty() && !w.tables.down_proj.empty();
}

/// x[t,:] += Σ_k weight[t,k] · down_proj_k · gated(gate_proj_k · n[t,:], up_proj_k · n[t,:]), n = norm(x), as residual
/// says it; one expert without a router weighs 1. Source: Shazeer 2020, eq. 6.
template <Backend B>
void feed_forward(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s, typename B::Input& input,
                  DeltaScratch<B>& delta, RouterScratch<B>& router, const Residual<B>& residual) {
  const auto sum = residual.begin(b);
  if (!w.router.empty()) {
    detail::routed_feed_forward<B>(b, w, s, router, input, residual, sum);
  } else if (!w.linears.empty()) {
    detail::feed_forward_of_linears<B>(b, w, s, router, input, residual, sum);
  } else {
    detail::only_feed_forward<B>(b, w, s, delta, input, residual, sum);
  }
  residual.finish(b);
}

}  // namespace finteam::inline FINTEAM_ABI
