// The feed-forward layer: one SwiGLU, or several of which a router chooses a few for every row and sums them by weight
// (law 1 in a feed-forward layer). Not here: what becomes of the routers' choices besides.
#pragma once

#include <finteam/layer/linear.hpp>
#include <finteam/mix/gate.hpp>

#include <type_traits>

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
};

/// Working memory of one step, for up to t rows. What only routed layers need is empty elsewhere.
template <Backend B>
struct FeedForwardScratch {
  using Matrix = decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr));
  Matrix y;                          ///< [t, f]
  Matrix n{};                        ///< rms_norm(x), [t, d]
  Matrix logits{};                   ///< the router's, [t, experts]
  std::vector<double> scores{};      ///< of one row, [experts]
  std::vector<ChosenRows> chosen{};  ///< by expert: the rows that chose it
  MatrixView<float> weights{};       ///< [t, experts], overwritten: what the layer at hand made of its rows
};

namespace detail {

/// Sorts rows by the experts that their logits choose: softmax, the top_k largest (ties: the lower index) divided by
/// their sum. logits [t, experts]. Source: Jiang et al. 2024 (Mixtral), eq. 1; transformers, MixtralTopKRouter.
template <Backend B>
void choose_experts(MatrixView<const float> logits, index_t top_k, FeedForwardScratch<B>& s) {
  for (ChosenRows& expert : s.chosen) expert.clear();
  for (index_t t = 0; t < logits.extent(0); ++t) {
    for (std::size_t k = 0; k < s.scores.size(); ++k) {
      s.scores[k] = static_cast<double>(logits(t, static_cast<index_t>(k)));
    }
    gate_weights({.top_k = top_k}, s.scores);
    for (std::size_t k = 0; k < s.scores.size(); ++k) {
      const auto weight = static_cast<float>(s.scores[k]);
      s.weights(t, static_cast<index_t>(k)) = weight;
      if (weight != 0) s.chosen[k].add(static_cast<std::int32_t>(t), weight);
    }
  }
}

/// x[t,:] += Σ_k weight[t,k] · expert_k(n[t,:]), n = rms_norm(x), over the experts that the router chooses, in rising
/// order for every row; the others' weights are not read.
template <Backend B>
void routed_feed_forward(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s, typename B::Input& input,
                         const RowScales<typename B::Space>& norm, float eps, MatrixView<float, typename B::Space> x) {
  static_assert(std::is_same_v<typename B::Space, Host>, "routers are read on the host");
  const index_t t = x.extent(0);
  const auto n = s.n.view().rows(0, t), logits = s.logits.view().rows(0, t);
  b.rms_norm(x, norm, eps, n);
  b.prepare(n, w.router.front(), input);
  b.matmul(input, w.router.front(), Write::overwrite, logits);
  choose_experts<B>(logits, w.top_k, s);
  for (std::size_t k = 0; k < w.experts.size(); ++k) {
    const Chosen chosen = s.chosen[k].chosen();
    if (chosen.rows.empty()) continue;
    const auto y = s.y.view().rows(0, chosen.count(t));
    b.prepare(n, w.experts[k].gate_up_proj, input, chosen);
    b.matmul_swiglu(input, w.experts[k].gate_up_proj, {}, y);
    b.prepare(y, w.experts[k].down_proj, input);
    b.matmul(input, w.experts[k].down_proj, Write::accumulate, x, chosen);
  }
}

}  // namespace detail

/// x[t,:] += Σ_k weight[t,k] · down_proj_k · (silu(gate_proj_k · n[t,:]) ⊙ (up_proj_k · n[t,:])), n = rms_norm(x); one
/// expert without a router weighs 1. x [t, d]. Source: Shazeer 2020, eq. 6.
template <Backend B>
void feed_forward(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s, typename B::Input& input,
                  DeltaScratch<B>& delta, const RowScales<typename B::Space>& norm, float eps,
                  MatrixView<float, typename B::Space> x) {
  if constexpr (std::is_same_v<typename B::Space, Host>) {
    if (!w.router.empty()) return detail::routed_feed_forward<B>(b, w, s, input, norm, eps, x);
  }
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
