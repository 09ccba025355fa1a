// Routers inside a decoder: a layer's own logits choose a few of its experts for every row, and weigh them (law 1).
// A linear layer may have one (mergoo); so may a whole feed-forward layer (feed_forward.hpp). The CPU chooses, or, for
// generated rows of a feed-forward layer, a device that can.
#pragma once

#include <finteam/backend/routes.hpp>
#include <finteam/file/config_type.hpp>
#include <finteam/layer/linear.hpp>
#include <finteam/mix/gate.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Who chooses the experts of a step's rows.
enum class Chooser : std::uint8_t { cpu, device };

/// Working memory of one step where a device chooses: nothing, unless the backend is one that can.
template <Backend B>
struct RouteScratch {};
template <RoutesOnDevice B>
struct RouteScratch<B> {
  /// Most rows whose experts are multiplied at once.
  static constexpr index_t most_rows = 64;

  template <std::size_t R>
  using Tensor = decltype(std::declval<B&>().template tensor<float, R>({}, nullptr));
  typename B::Routes routes{};
  Tensor<2> y{}, z{};                              ///< of every pair: [pairs, f], [pairs, d]
  typename B::Input input{};                       ///< of every pair, k up to f
  Tensor<3> all_weights{};                         ///< [t, layers, experts]
  MatrixView<float, typename B::Space> weights{};  ///< those of the layer at hand, overwritten
};

/// That for steps of up to t rows of a decoder that has routers of whole feed-forward layers.
template <Backend B>
[[nodiscard]] RouteScratch<B> route_scratch(B& b, const Config& c, index_t t, std::pmr::memory_resource* memory) {
  if constexpr (RoutesOnDevice<B>) {
    if (!c.routes_feed_forward()) return {};
    const index_t some = std::min(t, RouteScratch<B>::most_rows);
    auto routes = b.routes(some, c.experts, {c.experts_per_token, c.experts_renormalise});
    const index_t pairs = some * routes.top_k();
    return {.routes = std::move(routes),
            .y = b.template tensor<float, 2>({pairs, c.f}, memory),
            .z = b.template tensor<float, 2>({pairs, c.d}, memory),
            .input = b.input(pairs, c.f, memory),
            .all_weights = b.template tensor<float, 3>({t, c.layers, c.experts}, memory)};
  } else {
    return {};
  }
}

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
  Chooser chooser = Chooser::cpu;
  RouteScratch<B> route{};  ///< in the stead of chosen and weights, where a device chooses
};

/// A linear layer of several experts [n, k] behind a router [experts, k], or of one and no router.
template <Backend B>
struct RoutedLinear {
  std::vector<typename B::Matrix> experts;
  std::vector<typename B::Matrix> router{};  ///< none or one
  index_t top_k = 0;                         ///< experts that it chooses for a row
};

/// router · x[t,:] + bias. x [t, k], bias [experts], or empty. [t, experts]
template <Backend B>
[[nodiscard]] MatrixView<const float, typename B::Space> router_logits(B& b, const typename B::Matrix& router,
                                                                       VectorView<const float, typename B::Space> bias,
                                                                       MatrixView<const float, typename B::Space> x,
                                                                       RouterScratch<B>& s, typename B::Input& input) {
  const auto logits = s.logits.view().rows(0, x.extent(0));
  b.prepare(x, router, input);
  b.matmul(input, router, Write::overwrite, logits);
  if (bias.extent(0) != 0) b.add_bias(bias, logits, {});
  return logits;
}

/// Sorts rows by the experts that router · x[t,:] + bias chooses: softmax, the rule's top_k largest (ties: the lower
/// index), if it renormalises divided by their sum, which is then the softmax of the top_k largest. x [t, k], bias
/// [experts], or empty. Source: Jiang et al. 2024 (Mixtral), eq. 1; transformers, MixtralTopKRouter and
/// Qwen3MoeTopKRouter; mergoo, compose_layers.py, MoeLayer.
template <Backend B>
void choose_experts(B& b, const typename B::Matrix& router, VectorView<const float, typename B::Space> bias,
                    const GateRule& rule, MatrixView<const float, typename B::Space> x, RouterScratch<B>& s,
                    typename B::Input& input) {
  const MatrixView<const float> logits =
      on_host<B>(b, router_logits<B>(b, router, bias, x, s, input), s.read_logits.view());
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
