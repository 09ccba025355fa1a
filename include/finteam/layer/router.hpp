// Routers inside a decoder: a layer's own logits choose a few of its experts for every row, and weigh them (law 1).
// A linear layer may have one (mergoo); so may a whole feed-forward layer (feed_forward.hpp). The CPU chooses.
#pragma once

#include <finteam/layer/linear.hpp>
#include <finteam/mix/gate.hpp>

#include <cmath>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Working memory of one step, for up to t rows; empty where a decoder has no routers.
template <Backend B>
struct RouterScratch {
  using Matrix = decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr));
  Matrix n{};                        ///< rms_norm(x), [t, d]
  Matrix logits{};                   ///< of the router at hand, [t, experts]
  Tensor<float, 2> read_logits{};    ///< the same where the CPU can read them, unless it can anyway
  std::vector<double> scores{};      ///< of one row, [experts]
  std::vector<ChosenRows> chosen{};  ///< by expert: the rows that chose it
  MatrixView<float> weights{};  ///< [t, experts], added to: what the block's routers make of its rows, by their mean
  float share = 1;              ///< of each in that mean
};

/// A linear layer of several experts [n, k] behind a router [experts, k], or of one and no router.
template <Backend B>
struct RoutedLinear {
  std::vector<typename B::Matrix> experts;
  std::vector<typename B::Matrix> router{};  ///< none or one
  index_t top_k = 0;                         ///< experts that it chooses for a row
};

/// Sorts rows by the experts that router · x[t,:] + bias chooses: softmax, the rule's top_k largest (ties: the lower
/// index), if it renormalises divided by their sum, which is then the softmax of the top_k largest. x [t, k], bias
/// [experts], or empty. Source: Jiang et al. 2024 (Mixtral), eq. 1; transformers, MixtralTopKRouter and
/// Qwen3MoeTopKRouter; mergoo, compose_layers.py, MoeLayer.
template <Backend B>
void choose_experts(B& b, const typename B::Matrix& router, VectorView<const float, typename B::Space> bias,
                    const GateRule& rule, MatrixView<const float, typename B::Space> x, RouterScratch<B>& s,
                    typename B::Input& input) {
  const auto routed = s.logits.view().rows(0, x.extent(0));
  b.prepare(x, router, input);
  b.matmul(input, router, Write::overwrite, routed);
  if (bias.extent(0) != 0) b.add_bias(bias, routed, {});
  const MatrixView<const float> logits = on_host<B>(b, routed, s.read_logits.view());
  for (ChosenRows& expert : s.chosen) expert.clear();
  for (index_t t = 0; t < logits.extent(0); ++t) {
    for (std::size_t k = 0; k < s.scores.size(); ++k) {
      s.scores[k] = static_cast<double>(logits(t, static_cast<index_t>(k)));
    }
    gate_weights(rule, s.scores);
    for (std::size_t k = 0; k < s.scores.size(); ++k) {
      const auto weight = static_cast<float>(s.scores[k]);
      float& mean = s.weights(t, static_cast<index_t>(k));
      mean = std::fma(s.share, weight, mean);
      if (weight != 0) s.chosen[k].add(static_cast<std::int32_t>(t), weight);
    }
  }
}

/// y[t,:] += Σ_k weight[t,k] · expert_k · x[t,:] over the experts that the router chooses, in rising order for every
/// row; the others' weights are not read. One expert without a router weighs 1. x [t, k], y [t, n].
template <Backend B>
void routed_linear(B& b, const RoutedLinear<B>& w, MatrixView<const float, typename B::Space> x, RouterScratch<B>& s,
                   typename B::Input& input, MatrixView<float, typename B::Space> y) {
  const auto product = [&](const typename B::Matrix& expert, const Chosen& chosen) {
    b.prepare(x, expert, input, chosen);
    b.matmul(input, expert, Write::accumulate, y, chosen);
  };
  if (w.router.empty()) return product(w.experts.front(), {});
  choose_experts<B>(b, w.router.front(), {}, {.top_k = w.top_k}, x, s, input);
  for (std::size_t k = 0; k < w.experts.size(); ++k) {
    if (const Chosen chosen = s.chosen[k].chosen(); !chosen.rows.empty()) product(w.experts[k], chosen);
  }
}

}  // namespace finteam::inline FINTEAM_ABI
