// One block of a decoder: attention and feed-forward, each behind a norm, each added to the residual stream.
#pragma once

#include <finteam/expert/weights.hpp>

namespace finteam::inline FINTEAM_ABI {

/// Working memory of one block, for up to t rows.
template <Backend B>
struct BlockScratch {
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) normed;  ///< [t, d]
  AttentionScratch<B> attention;
  FeedForwardScratch<B> feed_forward;
};

/// x += attention(norm(x)); x += feed_forward(norm(x)). x [t, d].
template <Backend B>
void block(B& b, const BlockWeights<B>& w, float eps, std::span<const Site> sites, CacheLayer<typename B::Space> cache,
           BlockScratch<B>& s, MatrixView<float, typename B::Space> x) {
  const auto normed = s.normed.view().rows(0, x.extent(0));
  b.rms_norm(x, w.input_norm.view(), eps, normed);
  attention<B>(b, w.attention, sites, cache, s.attention, normed, x);
  b.rms_norm(x, w.post_attention_norm.view(), eps, normed);
  feed_forward<B>(b, w.feed_forward, s.feed_forward, normed, x);
}

}  // namespace finteam::inline FINTEAM_ABI
