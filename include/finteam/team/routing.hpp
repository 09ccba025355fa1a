// How the routers of a merged checkpoint weighed its experts while it answered: what an answer says of it.
// Not here: how it is recorded (routing_record.hpp).
#pragma once

#include <finteam/core/view.hpp>

#include <algorithm>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Mean weights of experts over tokens, by layer; empty where there are no routers. Where linear layers have routers of
/// their own (mergoo), those of a block count as one, by their mean.
struct RoutingTable {
  index_t layers = 0, experts = 0;
  std::vector<double> weights;  ///< [layers, experts]; a layer's Σ is 1, or 0 if it has no router or no token was read

  [[nodiscard]] bool empty() const noexcept { return weights.empty(); }
  /// [layers, experts]
  [[nodiscard]] MatrixView<const double> view() const noexcept { return {weights.data(), {layers, experts}}; }
  [[nodiscard]] double operator()(index_t layer, index_t expert) const noexcept { return view()(layer, expert); }
  /// An expert's mean over the layers that have routers.
  [[nodiscard]] double mean(index_t expert) const noexcept {
    double sum = 0;
    index_t routed = 0;
    for (index_t l = 0; l < layers; ++l) {
      const auto row = view().row(l).span();
      routed += std::any_of(row.begin(), row.end(), [](double w) { return w != 0; }) ? 1 : 0;
      sum += (*this)(l, expert);
    }
    return routed == 0 ? 0 : sum / static_cast<double>(routed);
  }
};

/// Over the prompt's tokens, and over those that came after: generated ones, or those of labels.
struct Routing {
  RoutingTable prompt, answer;

  [[nodiscard]] bool empty() const noexcept { return prompt.empty(); }
};

}  // namespace finteam::inline FINTEAM_ABI
