// The weights of a decoder, loaded: packed out of a checkpoint, or mapped out of a file that holds them packed.
// Not here: which tensors there are (weight_table.hpp), that file (packed_file.hpp), arithmetic.
#pragma once

#include <finteam/expert/packed_file.hpp>
#include <finteam/layer/attention.hpp>
#include <finteam/layer/feed_forward.hpp>

#include <cmath>
#include <cstring>
#include <memory>
#include <memory_resource>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A norm's scale, and where experts on a shared base have their own, those of all. Empty: no norm.
template <Backend B>
struct NormWeights {
  Vector<B> scale{};                                                          ///< [d]
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) own{};  ///< [experts, d], or no rows

  /// For rows of those experts (-1: the base).
  [[nodiscard]] RowScales<typename B::Space> of(std::span<const std::int32_t> experts) const noexcept {
    return {scale.view(), own.view(), experts};
  }
};

/// The norms before a layer of a block and behind it; one of them may be empty.
template <Backend B>
struct LayerNorms {
  NormWeights<B> before{}, behind{};
};

/// One block of a decoder.
template <Backend B>
struct BlockWeights {
  LayerNorms<B> attention_norms{};
  AttentionWeights<B> attention{};
  LayerNorms<B> feed_forward_norms{};
  FeedForwardWeights<B> feed_forward{};
  index_t routers = 0;  ///< of a merged checkpoint
};

/// What an expert on a shared base has of its own besides what it adds: whole matrices in place of the base's.
template <Backend B>
struct OwnWeights {
  std::vector<typename B::Matrix> embed_tokens, lm_head;  ///< [v, d], none or one
};

/// One block for many small matrices: apart, none would have a huge page. Made for their sum, it takes no more.
class SharedBlock {
 public:
  SharedBlock() = default;
  SharedBlock(std::size_t bytes, std::pmr::memory_resource* memory)
      : block_(bytes, memory),
        rest_(std::make_unique<std::pmr::monotonic_buffer_resource>(block_.data(), bytes, memory)) {}
  SharedBlock(SharedBlock&&) noexcept = default;
  SharedBlock& operator=(SharedBlock&& other) noexcept {  // what lies in the old block may go after this
    std::swap(block_, other.block_);
    std::swap(rest_, other.rest_);
    return *this;
  }
  /// For what does not outlive this.
  [[nodiscard]] std::pmr::memory_resource* memory() const noexcept { return rest_.get(); }

 private:
  Buffer block_;
  std::unique_ptr<std::pmr::monotonic_buffer_resource> rest_;
};

/// A whole decoder. Tied embeddings: lm_head is absent, and embed_tokens serves as both.
template <Backend B>
struct DecoderWeights {
  SharedBlock expert_block{};       ///< what experts on this base add, which lies below; empty on a device
  typename B::Matrix embed_tokens;  ///< [v, d]
  std::vector<BlockWeights<B>> blocks;
  NormWeights<B> norm;
  std::vector<typename B::Matrix> own_lm_head;   ///< [v, d], none or one
  std::optional<Safetensors> packed;             ///< the file that the matrices lie in, if they do
  std::vector<LinearDelta<B>> lm_head_deltas{};  ///< by expert, or empty
  std::vector<OwnWeights<B>> own{};              ///< by expert

  [[nodiscard]] const typename B::Matrix& lm_head() const noexcept {
    return own_lm_head.empty() ? embed_tokens : own_lm_head.front();
  }
};

namespace detail {

/// Linear layers of block l out of the table's next weights.
template <Backend B, class Matrix>
[[nodiscard]] std::vector<RoutedLinear<B>> arrange_linears(const Config& config, index_t l,
                                                           std::span<const std::string_view> linears, Matrix&& matrix) {
  std::vector<RoutedLinear<B>> all;
  for (const std::string_view& linear : linears) {
    const bool routed = config.routers(l, {&linear, 1}) > 0;
    RoutedLinear<B> w{.experts = {}, .top_k = config.experts_per_token};
    if (routed) w.router.push_back(matrix());
    for (index_t i = 0; i < (routed ? config.experts : 1); ++i) w.experts.push_back(matrix());
    all.push_back(std::move(w));
  }
  return all;
}

/// The attention of block l, but its norms.
template <Backend B, class Matrix, class Vector>
[[nodiscard]] AttentionWeights<B> arrange_attention(const Config& config, index_t l, Matrix&& matrix, Vector&& vector) {
  AttentionWeights<B> w;
  if (config.routers(l, attention_linears) > 0) {
    w.linears = arrange_linears<B>(config, l, attention_linears, matrix);
  } else {
    w.qkv_proj = matrix();
    w.o_proj = matrix();
  }
  if (config.qkv_bias) w.qkv_bias = vector();
  if (config.o_bias) w.o_bias = vector();
  w.head_norm = config.head_norm;
  if (w.head_norm != HeadNorm::none) {
    w.q_norm = vector();
    w.k_norm = vector();
  }
  if (config.sinks) w.sinks = vector();
  const bool windowed = config.has_window(l);
  if (config.has_rope(l)) w.rope = windowed && config.window_rope ? 1 : 0;
  w.scale =
      config.score_scale > 0 ? static_cast<float>(config.score_scale) : 1.0F / std::sqrt(static_cast<float>(config.e));
  w.cap = static_cast<float>(config.score_cap);
  w.window = windowed ? config.window : 0;
  return w;
}

/// The feed-forward layer of block l, but its norms.
template <Backend B, class Matrix, class Vector>
[[nodiscard]] FeedForwardWeights<B> arrange_feed_forward(const Config& config, index_t l, Matrix&& matrix,
                                                         Vector&& vector) {
  FeedForwardWeights<B> w{.experts = {},
                          .activation = config.activation,
                          .rule = {.top_k = config.experts_per_token, .renormalise = config.experts_renormalise}};
  if (config.routers(l, feed_forward_linears) > 0) {
    w.linears = arrange_linears<B>(config, l, feed_forward_linears, matrix);
    return w;
  }
  if (config.routes_feed_forward()) w.router.push_back(matrix());
  if (config.router_bias) w.router_bias = vector();
  const index_t experts = config.routes_feed_forward() ? config.experts : 1;
  w.experts.reserve(static_cast<std::size_t>(experts));
  for (index_t i = 0; i < experts; ++i) {
    FeedForwardExpert<B>& expert =
        w.experts.emplace_back(FeedForwardExpert<B>{.gate_up_proj = matrix(), .down_proj = matrix()});
    if (!config.mlp_bias) continue;
    expert.gate_up_bias = vector();
    expert.down_bias = vector();
  }
  return w;
}

/// Block l.
template <Backend B, class Matrix, class Vector>
[[nodiscard]] BlockWeights<B> arrange_block(const Config& config, index_t l, Matrix&& matrix, Vector&& vector) {
  BlockWeights<B> block;
  const auto norm = [&](NormWeights<B>& to) { to.scale = vector(); };
  if (config.norms != NormPlace::behind) norm(block.attention_norms.before);
  block.attention = arrange_attention<B>(config, l, matrix, vector);
  if (config.norms != NormPlace::before) norm(block.attention_norms.behind);
  if (config.norms != NormPlace::behind) norm(block.feed_forward_norms.before);
  block.feed_forward = arrange_feed_forward<B>(config, l, matrix, vector);
  if (config.norms != NormPlace::before) norm(block.feed_forward_norms.behind);
  block.routers = config.routers(l);
  return block;
}

/// Puts each weight of the table in its place, in the table's order: matrix(w), vector(w).
template <Backend B, class Matrix, class Vector>
[[nodiscard]] DecoderWeights<B> arrange(const std::vector<SourceWeight>& weights, const Config& config,
                                        Matrix&& matrix_of, Vector&& vector_of) {
  std::size_t next = 0;
  const auto matrix = [&] { return matrix_of(weights[next++]); };
  const auto vector = [&] { return vector_of(weights[next++]); };
  DecoderWeights<B> w{
      .expert_block = {}, .embed_tokens = matrix(), .blocks = {}, .norm = {}, .own_lm_head = {}, .packed = {}};
  w.blocks.reserve(static_cast<std::size_t>(config.layers));
  for (index_t l = 0; l < config.layers; ++l) w.blocks.push_back(arrange_block<B>(config, l, matrix, vector));
  w.norm.scale = vector();
  if (!config.tie_word_embeddings) w.own_lm_head.push_back(matrix());
  return w;
}

/// Throws Error(mismatch) if a checkpoint of tied embeddings has a head besides, and it is another matrix.
inline void refuse_other_head(const Checkpoint& checkpoint, const Config& config) {
  if (!config.tie_word_embeddings || !checkpoint.contains(llama_names.lm_head)) return;
  const RawTensor head = checkpoint.tensor(llama_names.lm_head),
                  embedding = checkpoint.tensor(llama_names.embed_tokens);
  if (head.dtype != embedding.dtype ||
      std::memcmp(head.data, embedding.data, static_cast<std::size_t>(head.size()) * bytes_of(head.dtype)) != 0) {
    throw Error(Code::mismatch, checkpoint.where(llama_names.lm_head),
                "the bytes of " + std::string(llama_names.embed_tokens) + ", as tie_word_embeddings says", "others");
  }
  checkpoint.release(llama_names.lm_head);
}

}  // namespace detail

/// Takes every tensor that `config` asks for out of `checkpoint`, by way of backend.matrix and backend.vector, a tensor
/// at a time; or out of a file of packed weights (options.packed), which is written first if it is not there.
/// Throws what find_weights and PackedFile do, and Error(mismatch) for a second copy of tied embeddings that differs.
template <Backend B>
[[nodiscard]] DecoderWeights<B> load_weights(B& backend, const Checkpoint& checkpoint, const Config& config,
                                             const OpenOptions& options) {
  const std::vector<SourceWeight> weights = find_weights(checkpoint, config, options);
  detail::LoadProgress progress(options.progress, checkpoint.bytes());
  if constexpr (PacksPanels<B>) {
    if (!options.packed.empty()) {
      const detail::PackedFile file(backend, checkpoint, weights, options);
      Safetensors packed = file.open_or_write([&] { detail::refuse_other_head(checkpoint, config); }, progress);
      auto loaded = detail::arrange<B>(
          weights, config, [&](const SourceWeight& w) { return w.panels(file.panels(packed, w)); },
          [&](const SourceWeight& w) {
            const RawTensor raw = packed.tensor(w.name());
            return backend.vector({&raw, 1}, options.memory, w.entry.plus);
          });
      loaded.packed = std::move(packed);
      progress.finish();
      return loaded;
    }
  }
  detail::refuse_other_head(checkpoint, config);
  const auto done = [&](const SourceWeight& w, auto weight) {
    for (const std::string& name : w.files) checkpoint.release(name);
    progress.add(w.source_bytes);
    return weight;
  };
  auto loaded = detail::arrange<B>(
      weights, config,
      [&](const SourceWeight& w) {
        const detail::DecodedParts parts(backend, w, options.memory);
        return done(w, backend.matrix(parts.tensors(), w.entry.join, w.weights, options.memory));
      },
      [&](const SourceWeight& w) {
        const detail::DecodedParts parts(backend, w, options.memory);
        return done(w, backend.vector(parts.tensors(), options.memory, w.entry.plus));
      });
  checkpoint.release();
  progress.finish();  // what was passed over counts as done
  return loaded;
}

}  // namespace finteam::inline FINTEAM_ABI
