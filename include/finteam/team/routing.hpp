// How the routers of a merged checkpoint weighed its experts while it answered: what an answer says of it.
// Not here: how it is recorded (routing_record.hpp).
#pragma once

#include <finteam/core/view.hpp>

#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Mean weights of experts over tokens, by layer; empty where there are no routers.
struct RoutingTable {
  index_t layers = 0, experts = 0;
  std::vector<double> weights;  ///< [layers, experts]; a layer's Σ is 1, or 0 if no token was read

  [[nodiscard]] bool empty() const noexcept { return weights.empty(); }
  /// [layers, experts]
  [[nodiscard]] MatrixView<const double> view() const noexcept { return {weights.data(), {layers, experts}}; }
  [[nodiscard]] double operator()(index_t layer, index_t expert) const noexcept { return view()(layer, expert); }
  /// An expert's mean over the layers.
  [[nodiscard]] double mean(index_t expert) const noexcept {
    double sum = 0;
    for (index_t l = 0; l < layers; ++l) sum += (*this)(l, expert);
    return layers == 0 ? 0 : sum / static_cast<double>(layers);
  }
};

/// Over the prompt's tokens, and over those that came after: generated ones, or those of labels.
struct Routing {
  RoutingTable prompt, answer;

  [[nodiscard]] bool empty() const noexcept { return prompt.empty(); }
};

}  // namespace finteam::inline FINTEAM_ABI
