// The SwiGLU feed-forward layer.
// Not here yet: several experts in one layer (merged checkpoints); law 1 is where they will come in.
#pragma once

#include <finteam/layer/linear.hpp>

namespace finteam::inline FINTEAM_ABI {

/// gate_up_proj: gate_proj and up_proj [f, d], paired for one product; down_proj [d, f]. What experts add to them: by
/// expert, or empty; to gate and up as a stack [2f, d].
template <Backend B>
struct FeedForwardWeights {
  typename B::Matrix gate_up_proj, down_proj;
  std::vector<LinearDelta<B>> gate_up_deltas{}, down_deltas{};
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
                  DeltaScratch<B>& delta, const RowScales<typename B::Space>& norm, float eps,
                  MatrixView<float, typename B::Space> x) {
  const auto y = s.y.view().rows(0, x.extent(0));
  MatrixView<float, typename B::Space> plus;
  if (!w.gate_up_deltas.empty()) {
    plus = delta.plus.view().rows(0, x.extent(0));
    b.fill(0.0F, plus);
    add_deltas<B>(
        b, w.gate_up_deltas, delta,
        [&](const auto& a, auto& in, const Chosen& chosen) { b.prepare_normed(x, norm, eps, a, in, chosen); }, plus);
  }
  b.prepare_normed(x, norm, eps, w.gate_up_proj, input);
  b.matmul_swiglu(input, w.gate_up_proj, plus, y);
  b.prepare(y, w.down_proj, input);
  b.matmul(input, w.down_proj, Write::accumulate, x);
  add_deltas<B>(
      b, w.down_deltas, delta, [&](const auto& a, auto& in, const Chosen& chosen) { b.prepare(y, a, in, chosen); }, x);
}

}  // namespace finteam::inline FINTEAM_ABI
