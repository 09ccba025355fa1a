// Experts on a shared base, loaded: what each adds to the base's matrices, and matrices of its own, put where the
// decoder looks for them. Not here: where they come from (lora.hpp), the base (weights.hpp).
#pragma once

#include <finteam/expert/expert_source.hpp>
#include <finteam/expert/weights.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What a decoder has of experts on its shared weights; its working memory depends on it.
struct DeltaShape {
  /// Of one expert, that run side by side: a pair for each part of an entry.
  static constexpr std::size_t most_products = 3;

  index_t experts = 0;
  index_t rank = 0;            ///< the most inner rows of a product: Σ r of the pairs that read the same x
  bool before_swiglu = false;  ///< one adds to gate_proj or up_proj
  bool own_norms = false;      ///< one has norms of its own

  [[nodiscard]] static DeltaShape of(std::span<const ExpertSource> experts, const Config& config) {
    DeltaShape shape{.experts = static_cast<index_t>(experts.size())};
    const std::vector<WeightEntry> table = delta_table(config);
    for (const ExpertSource& expert : experts) {
      shape.own_norms |= expert.has_norms();
      for (std::size_t i = 0; i < table.size(); ++i) {
        shape.rank = std::max(shape.rank, expert.deltas[i].rank());
        shape.before_swiglu |= table[i].join == Join::paired && !expert.deltas[i].empty();
      }
    }
    return shape;
  }
};

namespace detail {

/// What adapters are kept as: as their file has them where the base is, else in bf16.
[[nodiscard]] inline Weights adapter_weights(const OpenOptions& options) noexcept {
  return options.weights == Weights::stored ? Weights::stored : Weights::bf16;
}

/// What an expert's own embedding or head is kept as.
[[nodiscard]] inline Weights own_weights(const OpenOptions& options, const Config& config, std::string_view name) {
  return choose(options, config, {{{std::string(name), config.v}}, config.d});
}

template <Backend B>
[[nodiscard]] LinearDelta<B> load_delta(B& backend, const DeltaSource& source, const OpenOptions& options,
                                        std::pmr::memory_resource* memory) {
  LinearDelta<B> delta;
  if (!source.whole.empty()) delta.whole.push_back(backend.delta(source.whole, memory));
  if (source.pairs.empty()) return delta;
  if (!source.whole.empty()) throw Error(Code::unsupported, "delta", "pairs or whole differences", "both");
  std::vector<RawTensor> a;
  index_t inner = 0;
  const std::array<index_t, 2> zeros_shape{1, source.pairs.front().a.shape[1]};
  const bool odd = std::any_of(source.pairs.begin(), source.pairs.end(),
                               [](const LowRankPair& pair) { return pair.inner() > pair.a.shape[0]; });
  const std::vector<std::byte> zeros(odd ? static_cast<std::size_t>(zeros_shape[1]) * sizeof(float) : 0);
  for (const LowRankPair& pair : source.pairs) {
    a.push_back(pair.a);
    if (pair.inner() > pair.a.shape[0]) a.push_back({zeros.data(), pair.a.dtype, zeros_shape});
    delta.ups.push_back(
        {backend.matrix({&pair.b, 1}, Join::stacked, adapter_weights(options), memory), inner, pair.first, pair.scale});
    inner += pair.inner();
  }
  delta.a.push_back(backend.matrix(a, Join::stacked, adapter_weights(options), memory));
  return delta;
}

/// Where the decoder looks for deltas, in the order of delta_table.
template <Backend B>
[[nodiscard]] std::vector<std::vector<LinearDelta<B>>*> delta_places(DecoderWeights<B>& w) {
  std::vector<std::vector<LinearDelta<B>>*> places;
  for (BlockWeights<B>& block : w.blocks) {
    for (auto* place : {&block.attention.qkv_deltas, &block.attention.o_deltas, &block.feed_forward.gate_up_deltas,
                        &block.feed_forward.down_deltas}) {
      places.push_back(place);
    }
  }
  places.push_back(&w.lm_head_deltas);
  return places;
}

/// The norms of a decoder, in the order of norm_names.
template <Backend B>
[[nodiscard]] std::vector<NormWeights<B>*> norm_places(DecoderWeights<B>& w) {
  std::vector<NormWeights<B>*> places;
  for (BlockWeights<B>& block : w.blocks) {
    for (auto* norm : {&block.attention_norms.before, &block.attention_norms.behind, &block.feed_forward_norms.before,
                       &block.feed_forward_norms.behind}) {
      if (norm->scale.size() != 0) places.push_back(norm);
    }
  }
  places.push_back(&w.norm);
  return places;
}

[[nodiscard]] inline std::size_t packed_bytes(const RawTensor& raw, Weights weights) {
  return PackedMatrix(PackedMatrix::shape_of({&raw, 1}, Join::stacked), Join::stacked, format_of(weights, {&raw, 1}),
                      nullptr)
      .bytes();
}

/// Bytes in memory of what an expert adds.
[[nodiscard]] inline std::size_t delta_bytes(const ExpertSource& expert, const OpenOptions& options) {
  std::size_t sum = 0;
  for (const DeltaSource& delta : expert.deltas) {
    if (!delta.whole.empty()) {
      sum += PackedMatrix(PackedMatrix::shape_of(delta.whole), Join::stacked, delta.whole[0].format, nullptr).bytes();
    }
    if (delta.pairs.empty()) continue;
    std::vector<RawTensor> a;
    for (const LowRankPair& pair : delta.pairs) {
      a.push_back(pair.a);
      sum += packed_bytes(pair.b, adapter_weights(options));
    }
    const std::array<index_t, 2> shape{delta.rank(), a.front().shape[1]};
    sum += PackedMatrix(shape, Join::stacked, format_of(adapter_weights(options), a), nullptr).bytes();
  }
  return sum;
}

}  // namespace detail

/// Norms that one of the experts has of its own: all of them take a row of each.
[[nodiscard]] inline index_t own_norms(std::span<const ExpertSource> experts) {
  std::vector<bool> own;
  for (const ExpertSource& expert : experts) {
    own.resize(std::max(own.size(), expert.norms.size()));
    for (std::size_t i = 0; i < expert.norms.size(); ++i) own[i] = own[i] || expert.norms[i].has_value();
  }
  return std::count(own.begin(), own.end(), true);
}

/// Bytes in memory that an expert takes besides its base; norms: own_norms of all experts.
[[nodiscard]] inline std::uint64_t expert_bytes(const ExpertSource& expert, index_t norms, const Config& config,
                                                const OpenOptions& options) {
  std::uint64_t sum = detail::delta_bytes(expert, options);
  const auto own = [&](const std::optional<RawTensor>& raw, std::string_view name) {
    if (raw) sum += detail::packed_bytes(*raw, detail::own_weights(options, config, name));
  };
  own(expert.embed_tokens, llama_names.embed_tokens);
  own(expert.lm_head, llama_names.lm_head);
  return sum + static_cast<std::uint64_t>(4 * norms * config.d);
}

/// Adds experts to a base's weights.
template <Backend B>
void load_experts(B& backend, std::span<const ExpertSource> experts, const Config& config, const OpenOptions& options,
                  DecoderWeights<B>& w) {
  std::pmr::memory_resource* memory = options.memory;
  if constexpr (is_on_host<B>) {
    std::size_t bytes = 0;
    for (const ExpertSource& expert : experts) bytes += detail::delta_bytes(expert, options);
    w.expert_block = SharedBlock(bytes, options.memory);
    memory = w.expert_block.memory();
  }
  const auto places = detail::delta_places(w);
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto adds = [i](const ExpertSource& expert) { return !expert.deltas[i].empty(); };
    if (std::none_of(experts.begin(), experts.end(), adds)) continue;
    for (const ExpertSource& expert : experts) {
      places[i]->push_back(detail::load_delta(backend, expert.deltas[i], options, memory));
    }
  }
  for (const ExpertSource& expert : experts) {
    OwnWeights<B> own;
    const auto load = [&](const std::optional<RawTensor>& raw, std::string_view name, auto& to) {
      if (!raw) return;
      to.push_back(
          backend.matrix({&*raw, 1}, Join::stacked, detail::own_weights(options, config, name), options.memory));
    };
    load(expert.embed_tokens, llama_names.embed_tokens, own.embed_tokens);
    load(expert.lm_head, llama_names.lm_head, own.lm_head);
    w.own.push_back(std::move(own));
  }
  const auto norms = detail::norm_places(w);
  for (std::size_t i = 0; i < norms.size(); ++i) {
    const auto has = [i](const ExpertSource& expert) { return !expert.norms.empty() && expert.norms[i]; };
    if (std::none_of(experts.begin(), experts.end(), has)) continue;
    norms[i]->own = backend.template tensor<float, 2>({static_cast<index_t>(experts.size()), config.d}, options.memory);
    for (std::size_t k = 0; k < experts.size(); ++k) {
      const auto row = [&](VectorView<const float, typename B::Space> from) {
        backend.copy(MatrixView<const float, typename B::Space>(from.data(), {1, config.d}),
                     norms[i]->own.view().rows(static_cast<index_t>(k), 1));
      };
      if (has(experts[k])) {
        const auto own = backend.vector({&*experts[k].norms[i], 1}, options.memory, config.norms_add_one ? 1.0F : 0.0F);
        row(own.view());
      } else {
        row(std::as_const(norms[i]->scale).view());
      }
    }
  }
}

}  // namespace finteam::inline FINTEAM_ABI
