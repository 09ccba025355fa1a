// The SwiGLU feed-forward layer.
// Not here yet: several experts in one layer (merged checkpoints); law 1 is where they will come in.
#pragma once

#include <finteam/backend/backend.hpp>

namespace finteam::inline FINTEAM_ABI {

/// gate_proj and up_proj [f, d], down_proj [d, f].
template <Backend B>
struct FeedForwardWeights {
  typename B::Matrix gate_proj, up_proj, down_proj;
};

/// Working memory of one step, for up to t rows: [t, f] each.
template <Backend B>
struct FeedForwardScratch {
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) gate, up;
};

/// x[t,:] += down_proj · (silu(gate_proj · n[t,:]) ⊙ (up_proj · n[t,:])). n [t, d] (normed), x [t, d].
/// Source: Shazeer 2020, eq. 6.
template <Backend B>
void feed_forward(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s,
                  MatrixView<const float, typename B::Space> n, MatrixView<float, typename B::Space> x) {
  const auto gate = s.gate.view().rows(0, n.extent(0)), up = s.up.view().rows(0, n.extent(0));
  b.matmul(n, w.gate_proj, Write::overwrite, gate);
  b.matmul(n, w.up_proj, Write::overwrite, up);
  b.swiglu(gate, up, gate);
  b.matmul(gate, w.down_proj, Write::accumulate, x);
}

}  // namespace finteam::inline FINTEAM_ABI
