// The weights of the table in a checkpoint: where each lies, and what the options make of it. One list for loading, for
// the cache of packed weights and for plans. Not here: arithmetic, memory.
#pragma once

#include <finteam/expert/open_options.hpp>
#include <finteam/expert/weight_table.hpp>
#include <finteam/file/checkpoint.hpp>
#include <finteam/file/stored_rows.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
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
  std::vector<RawTensor> tensors{};  ///< one for each part, of the right shape; without data where `rows` has it
  Weights weights = Weights::stored;
  std::vector<decltype(StoredRows::read)> rows{};                 ///< by part: what reads it, or nothing
  std::vector<std::string> files{};                               ///< the tensors that all of it lies in
  std::string stored_as{};                                        ///< what decides how they are read
  std::uint64_t source_bytes = 0;                                 ///< of it in the checkpoint
  std::shared_ptr<std::vector<std::array<index_t, 2>>> shapes{};  ///< by part: what `tensors` point to

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
    return is_vector() ? 4 * static_cast<std::uint64_t>(elements()) : panels().bytes();
  }
  /// Bytes that its parts take decoded, while it is made; none where they lie in the file as they are.
  [[nodiscard]] std::uint64_t decoded_bytes() const noexcept {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i]) sum += static_cast<std::uint64_t>(tensors[i].size()) * bytes_of(tensors[i].dtype);
    }
    return sum;
  }
  /// Of a vector.
  [[nodiscard]] index_t elements() const noexcept {
    index_t n = 0;
    for (const auto& part : entry.parts) n += part.n;
    return n;
  }
};

namespace detail {

/// Whether it is a bias of zeros beside four-bit integers, as some GPTQ files have for every layer.
[[nodiscard]] inline bool is_zero_bias(const Checkpoint& checkpoint, std::string_view name) {
  constexpr std::string_view end = "bias";
  if (!name.ends_with(".bias")) return false;
  const std::string stem(name.substr(0, name.size() - end.size()));
  if (!checkpoint.contains(stem + "qweight")) return false;
  const RawTensor bias = checkpoint.tensor(name);
  for (index_t i = 0; i < bias.size(); ++i) {
    if (bias[i] != 0) return false;
  }
  return true;
}

/// Whether it is a scale of activations or of the cache, which stay as they are.
[[nodiscard]] inline bool is_activation_scale(const Checkpoint& checkpoint, const Quantization& q,
                                              std::string_view name) {
  using Method = Quantization::Method;
  if (q.method != Method::fp8 && q.method != Method::compressed) return false;
  constexpr std::array<std::string_view, 6> ends{".input_scale", ".output_scale", ".q_scale",
                                                 ".k_scale",     ".v_scale",      ".kv_scale"};
  const auto stored = checkpoint.stored(name);
  const bool one = stored && std::all_of(stored->shape.begin(), stored->shape.end(), [](index_t n) { return n == 1; });
  return one && std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return name.ends_with(end); });
}

}  // namespace detail

/// Throws Error(unsupported) if the checkpoint holds a tensor that is not in `used`: it would change the mathematics.
/// Exceptions: Llama 1's stored `rotary_emb.inv_freq` buffers, which repeat the config, biases of zeros, and scales of
/// activations, which stay float.
inline void refuse_leftovers(const Checkpoint& checkpoint, const Quantization& quantization,
                             std::vector<std::string> used) {
  std::sort(used.begin(), used.end());
  for (const auto& name : checkpoint.names()) {
    if (std::binary_search(used.begin(), used.end(), name) || std::string_view(name).ends_with("rotary_emb.inv_freq") ||
        detail::is_zero_bias(checkpoint, name) || detail::is_activation_scale(checkpoint, quantization, name)) {
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
[[nodiscard]] inline ExpertLayout expert_layout(const Checkpoint& checkpoint, const Config& config) {
  if (config.model_type == "gpt_oss") return ExpertLayout::alternating;
  const bool mixtral = config.model_type == "mixtral";
  std::string_view separate, fused;
  for (const std::string_view name : checkpoint.names()) {
    const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
    if (has(".block_sparse_moe.")) separate = name;
    if (has(".mlp.experts."))
      (has(".mlp.experts.gate_up_proj") || has(".mlp.experts.down_proj") ? fused : separate) = name;
    if (mixtral && name.ends_with(".mlp.gate.weight")) fused = name;
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

/// Finds the parts of a weight, one after the other.
class PartFinder {
 public:
  PartFinder(const Checkpoint& checkpoint, const Quantization& quantization, SourceWeight& weight)
      : checkpoint_(checkpoint), quantization_(quantization), w_(weight) {
    w_.shapes = std::make_shared<std::vector<std::array<index_t, 2>>>();
    w_.shapes->reserve(w_.entry.parts.size());
  }

  /// Errors as Checkpoint::tensor and stored_rows.
  void find(const WeightEntry::Part& part) {
    const index_t k = w_.entry.k;
    w_.shapes->push_back({part.n, k});
    const std::span<const index_t> shape(w_.shapes->back().data(), k == 0 ? 1 : 2);
    if (part.slice) return find_slice(part, *part.slice, shape);
    if (k != 0) {
      if (auto stored = stored_rows(checkpoint_, quantization_, part.name, part.n, k)) {
        return keep(
            std::move(*stored), shape, [](index_t row) { return row; }, part.n);
      }
    }
    keep(checkpoint_.tensor(part.name, shape), part.name);
  }

 private:
  void find_slice(const WeightEntry::Part& part, const WeightEntry::Slice& s, std::span<const index_t> shape) {
    const index_t k = w_.entry.k, first = s.expert * s.rows + s.first;
    const auto row = [first, step = s.step](index_t i) { return first + i * step; };
    if (s.transposed) {
      return keep(stored_expert_rows(checkpoint_, quantization_, part.name, {s.experts, s.rows, k}), shape, row,
                  s.experts * s.rows);
    }
    if (s.experts == 0) {
      if (auto stored = stored_rows(checkpoint_, quantization_, part.name, s.rows, k)) {
        return keep(std::move(*stored), shape, row, s.rows);
      }
    }
    std::vector<index_t> all;
    if (s.experts != 0) all.push_back(s.experts);
    all.push_back(s.rows);
    if (k != 0) all.push_back(k);
    RawTensor raw = checkpoint_.tensor(part.name, std::span<const index_t>(all));
    if (s.step != 1) {  // of a vector
      const auto read = [raw](index_t i, index_t, index_t, float* to) { *to = raw[i]; };
      const DType dtype = raw.dtype == DType::bf16 ? DType::bf16 : DType::f32;
      return keep({.read = read, .dtype = dtype, .tensors = {part.name}}, shape, row, s.experts * s.rows);
    }
    raw.data += first * std::max<index_t>(k, 1) * static_cast<index_t>(bytes_of(raw.dtype));
    raw.shape = shape;
    keep(raw, part.name);
  }

  void keep(RawTensor raw, const std::string& name) {
    raw.shape = std::span<const index_t>(w_.shapes->back().data(), w_.entry.k == 0 ? 1 : 2);
    w_.source_bytes += static_cast<std::uint64_t>(raw.size()) * bytes_of(raw.dtype);
    w_.tensors.push_back(raw);
    w_.rows.emplace_back();
    w_.files.push_back(name);
  }
  /// Row i of the part is row_of(i) of so many.
  template <class RowOf>
  void keep(StoredRows stored, std::span<const index_t> shape, RowOf&& row_of, index_t rows) {
    w_.stored_as = quantization_.text();
    for (const std::string& name : stored.tensors) {
      const auto part = static_cast<std::uint64_t>(shape[0]);
      w_.source_bytes += checkpoint_.stored(name)->bytes.size() * part / static_cast<std::uint64_t>(rows);
    }
    w_.tensors.push_back({nullptr, stored.dtype, shape});
    w_.rows.emplace_back([read = std::move(stored.read), row_of](index_t i, index_t first, index_t count, float* to) {
      read(row_of(i), first, count, to);
    });
    std::ranges::move(stored.tensors, std::back_inserter(w_.files));
  }

  const Checkpoint& checkpoint_;
  const Quantization& quantization_;
  SourceWeight& w_;
};

}  // namespace detail

/// Every weight that `config` asks for, found in `checkpoint` and checked; of tensors' data, only GPTQ's order of
/// inputs is read. Throws Error(not_found) for a missing tensor, Error(mismatch) for a wrong shape, Error(unsupported)
/// for a tensor that the config has no place for (a bias, an extra layer), Error(invalid_argument) for choices that
/// part what one product reads or fit no matrix.
[[nodiscard]] inline std::vector<SourceWeight> find_weights(const Checkpoint& checkpoint, const Config& config,
                                                            const OpenOptions& options) {
  std::vector<SourceWeight> weights;
  std::vector<std::string> used;
  detail::require_linear_routers(checkpoint, config);
  const ExpertLayout layout =
      config.routes_feed_forward() ? detail::expert_layout(checkpoint, config) : ExpertLayout::separate;
  for (WeightEntry& entry : weight_table(config, layout)) {
    SourceWeight w{.entry = std::move(entry)};
    detail::PartFinder finder(checkpoint, config.quantization, w);
    for (const auto& part : w.entry.parts) finder.find(part);
    used.insert(used.end(), w.files.begin(), w.files.end());
    if (!w.is_vector() && !w.entry.is_router) w.weights = detail::choose(options, config, w.entry);
    weights.push_back(std::move(w));
  }
  if (config.tie_word_embeddings && checkpoint.contains(llama_names.lm_head)) {
    (void)checkpoint.tensor(llama_names.lm_head, {config.v, config.d});
    used.emplace_back(llama_names.lm_head);
  }
  refuse_leftovers(checkpoint, config.quantization, std::move(used));
  detail::refuse_idle_choices(options, config, weights);
  return weights;
}

}  // namespace finteam::inline FINTEAM_ABI
