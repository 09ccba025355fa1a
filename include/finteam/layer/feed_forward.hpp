// The SwiGLU feed-forward layer.
// Not here yet: several experts in one layer (merged checkpoints); law 1 is where they will come in.
#pragma once

#include <finteam/backend/backend.hpp>

namespace finteam::inline FINTEAM_ABI {

/// gate_up_proj: gate_proj and up_proj [f, d], paired for one product; down_proj [d, f].
template <Backend B>
struct FeedForwardWeights {
  typename B::Matrix gate_up_proj, down_proj;
};

/// Working memory of one step, for up to t rows: [t, f].
template <Backend B>
struct FeedForwardScratch {
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) y;
};

/// x[t,:] += down_proj · (silu(gate_proj · n[t,:]) ⊙ (up_proj · n[t,:])), n = rms_norm(x). x [t, d].
/// Source: Shazeer 2020, eq. 6.
template <Backend B>
void feed_forward(B& b, const FeedForwardWeights<B>& w, FeedForwardScratch<B>& s, typename B::Input& input,
                  VectorView<const float, typename B::Space> norm, float eps, MatrixView<float, typename B::Space> x) {
  const auto y = s.y.view().rows(0, x.extent(0));
  b.prepare_normed(x, norm, eps, w.gate_up_proj, input);
  b.matmul_swiglu(input, w.gate_up_proj, y);
  b.prepare(y, w.down_proj, input);
  b.matmul(input, w.down_proj, Write::accumulate, x);
}

}  // namespace finteam::inline FINTEAM_ABI
