// One block of a decoder: attention and feed-forward, each behind a norm, each added to the residual stream.
#pragma once

#include <finteam/expert/weights.hpp>

#include <algorithm>

namespace finteam::inline FINTEAM_ABI {

/// Working memory of one block, for up to t rows.
template <Backend B>
struct BlockScratch {
  typename B::Input input;  ///< of every product in turn: up to t rows of the widest k
  AttentionScratch<B> attention;
  FeedForwardScratch<B> feed_forward;
  DeltaScratch<B> delta;
  RouterScratch<B> router;
};

/// x += attention(norm(x)); x += feed_forward(norm(x)). x [t, d].
template <Backend B>
void block(B& b, const BlockWeights<B>& w, float eps, std::span<const Site> sites, CacheLayer<typename B::Space> cache,
           BlockScratch<B>& s, MatrixView<float, typename B::Space> x) {
  s.router.share = 1.0F / static_cast<float>(std::max<index_t>(w.routers, 1));
  attention<B>(b, w.attention, sites, cache, s.attention, s.input, s.delta, s.router,
               w.input_norm.of(s.delta.row_experts), eps, x);
  feed_forward<B>(b, w.feed_forward, s.feed_forward, s.input, s.delta, s.router,
                  w.post_attention_norm.of(s.delta.row_experts), eps, x);
}

}  // namespace finteam::inline FINTEAM_ABI
