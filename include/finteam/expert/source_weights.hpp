// The weights of the table in a checkpoint: where each lies, and what the options make of it. One list for loading, for
// the cache of packed weights and for plans. Not here: arithmetic, memory.
#pragma once

#include <finteam/expert/open_options.hpp>
#include <finteam/expert/weight_table.hpp>
#include <finteam/file/checkpoint.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

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

/// Throws Error(not_found) for experts of linear layers (mergoo) that no key of config.json speaks of, or whose routers
/// are yet to be trained. Source: mergoo, composers/composer_moe.py.
inline void require_linear_routers(const Checkpoint& checkpoint, const Config& config) {
  for (const std::string_view name : checkpoint.names()) {
    const std::size_t at = name.find("_proj.experts.");
    if (at == std::string_view::npos) continue;
    if (!config.routes_linears()) {
      throw Error(Code::not_found, config.where, "key \"router_layers\", which names the layers that have experts",
                  "none, but " + printable(name));
    }
    const std::string router = std::string(name.substr(0, at)) + "_proj.gate.weight";
    if (!checkpoint.contains(router)) {
      throw Error(Code::not_found, checkpoint.where(router), "the router that weighs " + printable(name),
                  "none: a fresh merge, not yet trained");
    }
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
  detail::require_linear_routers(checkpoint, config);
  const ExpertLayout layout = config.routes_feed_forward() ? detail::expert_layout(checkpoint) : ExpertLayout::separate;
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
