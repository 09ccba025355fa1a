// The weights of a decoder, and one table of tensor names per model family.
// Not here: arithmetic.
#pragma once

#include <finteam/core/interrupt.hpp>
#include <finteam/file/checkpoint.hpp>
#include <finteam/file/config.hpp>
#include <finteam/layer/attention.hpp>
#include <finteam/layer/feed_forward.hpp>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Tensor names of a family; those of a layer stand behind `layer` + its number + ".".
struct TensorNames {
  std::string_view embed_tokens, norm, lm_head, layer;
  std::string_view input_norm, q_proj, k_proj, v_proj, o_proj, post_attention_norm, gate_proj, up_proj, down_proj;
};

/// Llama 2, 3, 3.1, 3.2. Source: transformers, modeling_llama.py.
inline constexpr TensorNames llama_names{
    .embed_tokens = "model.embed_tokens.weight",
    .norm = "model.norm.weight",
    .lm_head = "lm_head.weight",
    .layer = "model.layers.",
    .input_norm = "input_layernorm.weight",
    .q_proj = "self_attn.q_proj.weight",
    .k_proj = "self_attn.k_proj.weight",
    .v_proj = "self_attn.v_proj.weight",
    .o_proj = "self_attn.o_proj.weight",
    .post_attention_norm = "post_attention_layernorm.weight",
    .gate_proj = "mlp.gate_proj.weight",
    .up_proj = "mlp.up_proj.weight",
    .down_proj = "mlp.down_proj.weight",
};

/// Called while weights are loaded: bytes read so far, of how many. Must not throw.
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Other weights for the tensors whose name holds `part`: {"lm_head", Weights::int8}. A tied head goes by both names.
struct WeightChoice {
  std::string part;
  Weights weights = Weights::stored;
};

/// How a checkpoint's or a team's weights are opened.
struct OpenOptions {
  /// What every matrix is kept as, unless a choice says otherwise.
  Weights weights = Weights::stored;
  /// The first that fits a tensor's name counts. One for q_proj, k_proj and v_proj of a layer, and one for gate_proj
  /// and up_proj: they are read by one product.
  std::vector<WeightChoice> choices{};
  /// Called on the opening thread while weights are read: bytes so far, of all bytes. Must not throw.
  Progress progress{};
  /// Where packed weights live; outlives what is opened.
  std::pmr::memory_resource* memory = std::pmr::get_default_resource();
};

/// A norm's scale as float, in the backend's space. [d]
template <Backend B>
using Scale = decltype(std::declval<B&>().vector(std::declval<const RawTensor&>(), nullptr));

/// One block of a decoder.
template <Backend B>
struct BlockWeights {
  Scale<B> input_norm;  ///< [d]
  AttentionWeights<B> attention;
  Scale<B> post_attention_norm;  ///< [d]
  FeedForwardWeights<B> feed_forward;
};

/// A whole decoder. Tied embeddings: lm_head is absent, and embed_tokens serves as both.
template <Backend B>
struct DecoderWeights {
  typename B::Matrix embed_tokens;  ///< [v, d]
  std::vector<BlockWeights<B>> blocks;
  Scale<B> norm;                                ///< [d]
  std::vector<typename B::Matrix> own_lm_head;  ///< [v, d], none or one

  [[nodiscard]] const typename B::Matrix& lm_head() const noexcept {
    return own_lm_head.empty() ? embed_tokens : own_lm_head.front();
  }
};

/// Throws Error(unsupported) if the checkpoint holds a tensor that is not in `used`: it would change the mathematics.
/// Llama 1's stored `rotary_emb.inv_freq` buffers are the exception: they repeat the config.
inline void refuse_leftovers(const Checkpoint& checkpoint, std::vector<std::string> used) {
  std::sort(used.begin(), used.end());
  for (const auto& name : checkpoint.names()) {
    if (std::binary_search(used.begin(), used.end(), name) || std::string_view(name).ends_with("rotary_emb.inv_freq")) {
      continue;
    }
    throw Error(Code::unsupported, checkpoint.where(name), "only tensors that config.json has a place for",
                "an extra tensor");
  }
}

namespace detail {

/// A tensor of a matrix, and its rows.
struct Part {
  std::string name;
  index_t n;
};

/// What the options make of a matrix. Throws Error(invalid_argument) if they part what one product reads.
[[nodiscard]] inline Weights choose(const OpenOptions& options, const Config& config, std::span<const Part> parts) {
  const auto weights_of = [&](std::string_view name) {
    const bool both = config.tie_word_embeddings && name == llama_names.embed_tokens;
    for (const WeightChoice& choice : options.choices) {
      const auto fits = [&](std::string_view n) { return n.find(choice.part) != std::string_view::npos; };
      if (fits(name) || (both && fits(llama_names.lm_head))) return choice.weights;
    }
    return options.weights;
  };
  const Weights weights = weights_of(parts.front().name);
  for (const Part& part : parts) {
    if (weights_of(part.name) == weights) continue;
    throw Error(Code::invalid_argument, "choices",
                "the same weights for " + parts.front().name + " and " + part.name + ", which one product reads",
                std::string(name(weights)) + " and " + std::string(name(weights_of(part.name))));
  }
  return weights;
}

}  // namespace detail

/// Takes every tensor that `config` asks for out of `checkpoint`, by way of backend.matrix and backend.vector.
/// Throws Error(not_found) for a missing tensor and Error(mismatch) for a wrong shape; a tensor that the config has no
/// place for (a bias, an extra layer) is refused too, and so is a second copy of tied embeddings that differs.
template <Backend B>
[[nodiscard]] DecoderWeights<B> load_weights(B& backend, const Checkpoint& checkpoint, const Config& config,
                                             const OpenOptions& options) {
  const TensorNames& names = llama_names;
  const index_t d = config.d, f = config.f, v = config.v, queries = config.h * config.e, keys = config.g * config.e;
  std::uint64_t done = 0;
  std::vector<std::string> used;
  const auto take = [&](std::string name, std::initializer_list<index_t> shape) {
    const RawTensor raw = checkpoint.tensor(name, shape);
    done += static_cast<std::uint64_t>(raw.size()) * bytes_of(raw.dtype);
    used.push_back(std::move(name));
    return raw;
  };
  const auto loaded = [&](auto weight) {
    if (options.progress) options.progress(done, checkpoint.bytes());
    return weight;
  };
  const auto matrix = [&](std::initializer_list<detail::Part> parts, index_t k, Join join = Join::stacked) {
    std::vector<RawTensor> tensors;
    for (const detail::Part& part : parts) tensors.push_back(take(part.name, {part.n, k}));
    return loaded(backend.matrix(tensors, join, detail::choose(options, config, parts), options.memory));
  };
  const auto vector = [&](std::string name, index_t n) {
    return loaded(backend.vector(take(std::move(name), {n}), options.memory));
  };

  DecoderWeights<B> w{
      .embed_tokens = matrix({{std::string(names.embed_tokens), v}}, d), .blocks = {}, .norm = {}, .own_lm_head = {}};
  w.blocks.reserve(static_cast<std::size_t>(config.layers));
  for (index_t l = 0; l < config.layers; ++l) {
    const auto at = [&](std::string_view part) {
      return std::string(names.layer) + std::to_string(l) + "." + std::string(part);
    };
    w.blocks.push_back(
        {.input_norm = vector(at(names.input_norm), d),
         .attention = {.qkv_proj =
                           matrix({{at(names.q_proj), queries}, {at(names.k_proj), keys}, {at(names.v_proj), keys}}, d),
                       .o_proj = matrix({{at(names.o_proj), d}}, queries)},
         .post_attention_norm = vector(at(names.post_attention_norm), d),
         .feed_forward = {.gate_up_proj = matrix({{at(names.gate_proj), f}, {at(names.up_proj), f}}, d, Join::paired),
                          .down_proj = matrix({{at(names.down_proj), d}}, f)}});
  }
  w.norm = vector(std::string(names.norm), d);
  if (!config.tie_word_embeddings) {
    w.own_lm_head.push_back(matrix({{std::string(names.lm_head), v}}, d));
  } else if (checkpoint.contains(names.lm_head)) {
    const RawTensor head = take(std::string(names.lm_head), {v, d}), embedding = checkpoint.tensor(names.embed_tokens);
    if (head.dtype != embedding.dtype ||
        std::memcmp(head.data, embedding.data, static_cast<std::size_t>(head.size()) * bytes_of(head.dtype)) != 0) {
      throw Error(Code::mismatch, checkpoint.where(names.lm_head),
                  "the bytes of " + std::string(names.embed_tokens) + ", as tie_word_embeddings says", "others");
    }
  }
  refuse_leftovers(checkpoint, std::move(used));
  if (options.progress)
    options.progress(checkpoint.bytes(), checkpoint.bytes());  // what was passed over counts as done
  return w;
}

}  // namespace finteam::inline FINTEAM_ABI
