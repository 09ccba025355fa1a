// What a backend may do besides `Backend`: choose experts behind a router, and multiply by them, without the CPU. Where
// it does not, the CPU chooses (layer/router.hpp) and an expert after the other is multiplied by.
//
// Letters as in backend.hpp, n experts, k of them chosen for a row: pair t·k + j is slot j of row t, whose experts rise
// along its slots; a router may give fewer than k a weight, and the last slots are then nobody's.
#pragma once

#include <finteam/backend/backend.hpp>

#include <concepts>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// How the logits of a layer's router become weights: GateRule of mix/gate.hpp at temperature 1, without a floor.
struct RouteRule {
  index_t top_k = 0;        ///< experts that keep their weight; 0: all
  bool renormalise = true;  ///< the kept weights sum to 1 again
};

/// What a layer has of one expert: a matrix, and what is added to its outputs.
template <class B>
struct ExpertMatrix {
  const typename B::Matrix* w = nullptr;
  VectorView<const float, typename B::Space> bias{};  ///< [outputs of w, both of a pair's], or empty
};

/// `Experts` is one matrix of each expert of a layer; `Routes` what a router made of the rows of a step.
template <class B>
concept RoutesOnDevice = Backend<B> &&
    requires(B& b, std::span<const ExpertMatrix<B>> parts, MatrixView<const float, typename B::Space> x,
             MatrixView<float, typename B::Space> y, typename B::Routes& routes, const typename B::Experts& experts,
             const typename B::Input& input) {
  /// The matrices of a layer's experts, which outlive it. Empty where they cannot be multiplied at once: not all of one
  /// shape and format, or too many.
  { b.experts(parts) } -> std::same_as<typename B::Experts>;
  { experts.empty() } -> std::convertible_to<bool>;
  /// Room for what a router of n outputs makes of up to t rows, by a rule.
  { b.routes(index_t{1}, index_t{1}, RouteRule{}) } -> std::same_as<typename B::Routes>;
  /// k, at most n.
  { routes.top_k() } -> std::convertible_to<index_t>;

  /// y[t,:] = gate_weights(rule, x[t,:]), the rule that routes was made for; routes: which experts those are. x, y
  /// [t, n].
  b.route(x, routes, y);
  /// y[t·k + j,i] = gated(gate, up) as matmul_gated has it, of the expert of row t's slot j, its bias in the place of
  /// `plus`. input: t rows, y [t·k, f].
  b.matmul_gated(input, experts, Activation{}, routes, y);
  /// y[p,:] = expert of pair p · input[p,:]. input: t·k rows, y [t·k, n].
  b.matmul(input, experts, routes, y);
  /// y[t,:] += Σ_j weight[t,j] · (x[t·k + j,:] + bias of its expert), j rising. x [t·k, n], y [t, n].
  b.add_routed(x, experts, routes, y);
};

}  // namespace finteam::inline FINTEAM_ABI
