// Which tensors a decoder is made of, in the order in which it is loaded, and what becomes of each: one table for
// loading, for the cache of packed weights and for plans. Not here: arithmetic, memory.
#pragma once

#include <finteam/core/packed.hpp>
#include <finteam/expert/open_options.hpp>
#include <finteam/file/checkpoint.hpp>
#include <finteam/file/config.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Tensor names of a family; those of a layer stand behind `layer` + its number + ".".
struct TensorNames {
  std::string_view embed_tokens, norm, lm_head, layer;
  std::string_view input_norm, q_proj, k_proj, v_proj, o_proj, post_attention_norm, gate_proj, up_proj, down_proj;
};

/// How a merged checkpoint's files hold the router and the experts of a feed-forward layer.
enum class ExpertLayout : std::uint8_t {
  separate,  ///< tensors for each expert: transformers 4, mergekit, and what transformers 5 saves unless told otherwise
  fused,     ///< one for all: gate_up_proj [experts, 2f, d], gate_proj before up_proj, and down_proj [experts, d, f]
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

/// Names behind a layer's in a merged checkpoint: of the router, and what the experts' tensors begin with.
struct ExpertNames {
  std::string_view router, experts;
};
/// Mixtral's. Source: transformers 5.23, modeling_mixtral.py and conversion_mapping.py.
[[nodiscard]] constexpr ExpertNames mixtral_names(ExpertLayout layout) noexcept {
  return layout == ExpertLayout::separate ? ExpertNames{"block_sparse_moe.gate.weight", "block_sparse_moe.experts."}
                                          : ExpertNames{"mlp.gate.weight", "mlp.experts."};
}

/// One weight of a decoder: a vector [n], or a matrix of tensors [n_i, k] that one product reads together.
struct WeightEntry {
  /// Where a tensor [experts, rows, k] holds more than the part: n of the rows of one expert, from `first` on.
  struct Slice {
    index_t experts, rows, expert, first;
  };
  struct Part {
    std::string name;
    index_t n;
    std::optional<Slice> slice{};
  };
  std::vector<Part> parts;
  index_t k = 0;  ///< 0 for a vector
  Join join = Join::stacked;
  std::optional<index_t> expert{};  ///< of a feed-forward layer that has several
  bool is_router = false;           ///< kept as it is stored whatever the options say: its errors choose experts
};

namespace detail {

/// A layer's router and experts. at(part): the name of a tensor of the layer.
template <class At>
void add_experts(const Config& c, ExpertLayout layout, At&& at, std::vector<WeightEntry>& table) {
  const ExpertNames names = mixtral_names(layout);
  table.push_back({.parts = {{at(names.router), c.experts}}, .k = c.d, .is_router = true});
  for (index_t expert = 0; expert < c.experts; ++expert) {
    std::vector<WeightEntry::Part> gate_up, down;
    if (layout == ExpertLayout::separate) {
      const std::string prefix = std::string(names.experts) + std::to_string(expert);
      gate_up = {{at(prefix + ".w1.weight"), c.f}, {at(prefix + ".w3.weight"), c.f}};
      down = {{at(prefix + ".w2.weight"), c.d}};
    } else {
      const std::string both = at(std::string(names.experts) + "gate_up_proj");
      using Slice = WeightEntry::Slice;
      gate_up = {{both, c.f, Slice{c.experts, 2 * c.f, expert, 0}},
                 {both, c.f, Slice{c.experts, 2 * c.f, expert, c.f}}};
      down = {{at(std::string(names.experts) + "down_proj"), c.d, Slice{c.experts, c.d, expert, 0}}};
    }
    table.push_back({.parts = std::move(gate_up), .k = c.d, .join = Join::paired, .expert = expert});
    table.push_back({.parts = std::move(down), .k = c.f, .expert = expert});
  }
}

}  // namespace detail

/// The weights of a decoder of that config, in the order of DecoderWeights. layout: of a merged checkpoint's files.
[[nodiscard]] inline std::vector<WeightEntry> weight_table(const Config& c,
                                                           ExpertLayout layout = ExpertLayout::separate) {
  const TensorNames& names = llama_names;
  const index_t queries = c.h * c.e, keys = c.g * c.e;
  std::vector<WeightEntry> table;
  table.push_back({{{std::string(names.embed_tokens), c.v}}, c.d});
  for (index_t l = 0; l < c.layers; ++l) {
    const auto at = [&](std::string_view part) {
      return std::string(names.layer) + std::to_string(l) + "." + std::string(part);
    };
    table.push_back({{{at(names.input_norm), c.d}}});
    table.push_back({{{at(names.q_proj), queries}, {at(names.k_proj), keys}, {at(names.v_proj), keys}}, c.d});
    table.push_back({{{at(names.o_proj), c.d}}, queries});
    table.push_back({{{at(names.post_attention_norm), c.d}}});
    if (c.is_routed()) {
      detail::add_experts(c, layout, at, table);
      continue;
    }
    table.push_back({{{at(names.gate_proj), c.f}, {at(names.up_proj), c.f}}, c.d, Join::paired});
    table.push_back({{{at(names.down_proj), c.d}}, c.f});
  }
  table.push_back({{{std::string(names.norm), c.d}}});
  if (!c.tie_word_embeddings) table.push_back({{{std::string(names.lm_head), c.v}}, c.d});
  return table;
}

/// A weight of the table in a checkpoint, and what it is kept as.
struct SourceWeight {
  WeightEntry entry;
  std::vector<RawTensor> tensors{};  ///< one for each part, of the right shape
  Weights weights = Weights::stored;
  std::shared_ptr<const std::array<index_t, 2>> slice_shape{};  ///< what slices' tensors point to

  [[nodiscard]] bool is_vector() const noexcept { return entry.k == 0; }
  /// "model.norm.weight"; the names of several parts with + between them, of slices with [expert, first row].
  [[nodiscard]] std::string name() const {
    std::string all;
    for (const auto& part : entry.parts) {
      all += (all.empty() ? "" : "+") + part.name;
      if (part.slice) all += '[' + std::to_string(part.slice->expert) + ", " + std::to_string(part.slice->first) + ']';
    }
    return all;
  }
  /// The matrix in panels, which lie at `data`; without data it only tells sizes.
  /// Throws Error(limit_exceeded) if the size overflows.
  [[nodiscard]] PackedMatrix panels(const std::byte* data = nullptr) const {
    return {PackedMatrix::shape_of(tensors, entry.join), entry.join, format_of(weights, tensors), data};
  }
  /// Bytes in memory: of panels, or of floats.
  [[nodiscard]] std::uint64_t bytes() const {
    return is_vector() ? 4 * static_cast<std::uint64_t>(tensors.front().size()) : panels().bytes();
  }
  /// Bytes in the checkpoint.
  [[nodiscard]] std::uint64_t source_bytes() const noexcept {
    std::uint64_t sum = 0;
    for (const RawTensor& t : tensors) sum += static_cast<std::uint64_t>(t.size()) * bytes_of(t.dtype);
    return sum;
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

/// Which choice fits a tensor: its index, or their number if none does.
[[nodiscard]] inline std::size_t choice_of(const OpenOptions& options, const Config& config, std::string_view name) {
  const bool both = config.tie_word_embeddings && name == llama_names.embed_tokens;
  const auto fits = [&](const WeightChoice& choice) {
    return name.find(choice.part) != std::string_view::npos ||
           (both && llama_names.lm_head.find(choice.part) != std::string_view::npos);
  };
  return static_cast<std::size_t>(std::find_if(options.choices.begin(), options.choices.end(), fits) -
                                  options.choices.begin());
}

/// What the options make of a matrix. Throws Error(invalid_argument) if they part what one product reads.
[[nodiscard]] inline Weights choose(const OpenOptions& options, const Config& config, const WeightEntry& entry) {
  const auto weights_of = [&](const WeightEntry::Part& part) {
    const std::size_t i = choice_of(options, config, part.name);
    return i < options.choices.size() ? options.choices[i].weights : options.weights;
  };
  const Weights weights = weights_of(entry.parts.front());
  for (const auto& part : entry.parts) {
    if (weights_of(part) == weights) continue;
    throw Error(Code::invalid_argument, "choices",
                "the same weights for " + entry.parts.front().name + " and " + part.name + ", which one product reads",
                std::string(name(weights)) + " and " + std::string(name(weights_of(part))));
  }
  return weights;
}

/// Throws Error(invalid_argument) for a choice that changes nothing because no matrix has such a name.
inline void refuse_idle_choices(const OpenOptions& options, const Config& config,
                                const std::vector<SourceWeight>& weights) {
  for (const WeightChoice& choice : options.choices) {
    const OpenOptions alone{.choices = {choice}};
    const bool fits = std::any_of(weights.begin(), weights.end(), [&](const SourceWeight& w) {
      return !w.is_vector() && !w.entry.is_router &&
             std::any_of(w.entry.parts.begin(), w.entry.parts.end(),
                         [&](const auto& part) { return choice_of(alone, config, part.name) == 0; });
    });
    if (!fits) {
      throw Error(Code::invalid_argument, "choices", "a part of a matrix's name in " + config.where,
                  in_quotes(choice.part));
    }
  }
}

/// The layout of a merged checkpoint's files. Throws Error(mismatch) if they hold tensors of both.
[[nodiscard]] inline ExpertLayout expert_layout(const Checkpoint& checkpoint) {
  std::string_view separate, fused;
  for (const std::string_view name : checkpoint.names()) {
    if (name.find(".block_sparse_moe.") != std::string_view::npos) separate = name;
    if (name.find(".mlp.experts.") != std::string_view::npos || name.ends_with(".mlp.gate.weight")) fused = name;
  }
  if (!separate.empty() && !fused.empty()) {
    throw Error(Code::mismatch, checkpoint.where(fused), "one layout of experts, that of " + printable(separate),
                "both layouts");
  }
  return fused.empty() ? ExpertLayout::separate : ExpertLayout::fused;
}

/// Throws Error for a merge whose every linear layer has a router of its own (mergoo): unsupported, and not_found where
/// the routers are yet to be trained. Source: mergoo, models/modeling_llama.py.
inline void refuse_routed_linears(const Checkpoint& checkpoint) {
  for (const std::string_view name : checkpoint.names()) {
    const std::size_t at = name.find("_proj.experts.");
    if (at == std::string_view::npos) continue;
    const std::string router = std::string(name.substr(0, at)) + "_proj.gate.weight";
    if (!checkpoint.contains(router)) {
      throw Error(Code::not_found, checkpoint.where(router), "the router that weighs " + printable(name),
                  "none: a fresh merge, not yet trained");
    }
    throw Error(Code::unsupported, checkpoint.where(router), "one router for a feed-forward layer (Mixtral)",
                "one for a linear layer (mergoo)");
  }
}

/// The tensor of a part, or its slice of a tensor, whose shape is then slice_shape. Errors as Checkpoint::tensor.
[[nodiscard]] inline RawTensor find_part(const Checkpoint& checkpoint, const WeightEntry::Part& part, index_t k,
                                         std::span<const index_t> slice_shape) {
  if (k == 0) return checkpoint.tensor(part.name, {part.n});
  if (!part.slice) return checkpoint.tensor(part.name, {part.n, k});
  const WeightEntry::Slice& s = *part.slice;
  RawTensor raw = checkpoint.tensor(part.name, {s.experts, s.rows, k});
  raw.data += (s.expert * s.rows + s.first) * k * static_cast<index_t>(bytes_of(raw.dtype));
  raw.shape = slice_shape;
  return raw;
}

}  // namespace detail

/// Every weight that `config` asks for, found in `checkpoint` and checked; no tensor's data are read.
/// Throws Error(not_found) for a missing tensor, Error(mismatch) for a wrong shape, Error(unsupported) for a tensor
/// that the config has no place for (a bias, an extra layer), Error(invalid_argument) for choices that part what one
/// product reads or fit no matrix.
[[nodiscard]] inline std::vector<SourceWeight> find_weights(const Checkpoint& checkpoint, const Config& config,
                                                            const OpenOptions& options) {
  std::vector<SourceWeight> weights;
  std::vector<std::string> used;
  detail::refuse_routed_linears(checkpoint);
  const ExpertLayout layout = config.is_routed() ? detail::expert_layout(checkpoint) : ExpertLayout::separate;
  for (WeightEntry& entry : weight_table(config, layout)) {
    SourceWeight w{.entry = std::move(entry)};
    w.slice_shape = std::make_shared<const std::array<index_t, 2>>(std::array{w.entry.parts.front().n, w.entry.k});
    for (const auto& part : w.entry.parts) {
      w.tensors.push_back(detail::find_part(checkpoint, part, w.entry.k, *w.slice_shape));
      used.push_back(part.name);
    }
    if (!w.is_vector() && !w.entry.is_router) w.weights = detail::choose(options, config, w.entry);
    weights.push_back(std::move(w));
  }
  if (config.tie_word_embeddings && checkpoint.contains(llama_names.lm_head)) {
    (void)checkpoint.tensor(llama_names.lm_head, {config.v, config.d});
    used.emplace_back(llama_names.lm_head);
  }
  refuse_leftovers(checkpoint, std::move(used));
  detail::refuse_idle_choices(options, config, weights);
  return weights;
}

}  // namespace finteam::inline FINTEAM_ABI
