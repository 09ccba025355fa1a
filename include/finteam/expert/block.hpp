// One block of a decoder: attention and feed-forward, each with its norms, each added to the residual stream.
#pragma once

#include <finteam/expert/weights.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

namespace finteam::inline FINTEAM_ABI {

/// Working memory of one block, for up to t rows.
template <Backend B>
struct BlockScratch {
  typename B::Input input;  ///< of every product in turn: up to t rows of the widest k
  AttentionScratch<B> attention;
  FeedForwardScratch<B> feed_forward;
  DeltaScratch<B> delta;
  RouterScratch<B> router;
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) own{};  ///< [t, d], where norms stand behind
};

/// x += attention(x); x += feed_forward(x), each with its norms. x [t, d].
template <Backend B>
void block(B& b, const BlockWeights<B>& w, float eps, std::span<const Site> sites, CacheLayer<typename B::Space> cache,
           BlockScratch<B>& s, MatrixView<float, typename B::Space> x) {
  s.router.share = 1.0F / static_cast<float>(std::max<index_t>(w.routers, 1));
  const auto residual = [&](const LayerNorms<B>& norms) {
    const auto experts = std::span<const std::int32_t>(s.delta.row_experts);
    return Residual<B>{norms.before.of(experts), norms.behind.of(experts), eps, x,
                       s.own.view().rows(0, norms.behind.scale.size() == 0 ? 0 : x.extent(0))};
  };
  attention<B>(b, w.attention, sites, cache, s.attention, s.input, s.delta, s.router, residual(w.attention_norms));
  feed_forward<B>(b, w.feed_forward, s.feed_forward, s.input, s.delta, s.router, residual(w.feed_forward_norms));
}

}  // namespace finteam::inline FINTEAM_ABI
