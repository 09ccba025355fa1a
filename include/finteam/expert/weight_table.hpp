// Which tensors a decoder is made of, in the order in which it is loaded. Not here: whether a checkpoint holds them,
// and what becomes of each (source_weights.hpp).
#pragma once

#include <finteam/core/packed.hpp>
#include <finteam/file/config.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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
  std::optional<index_t> expert{};  ///< of a feed-forward or linear layer that has several
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

/// Linear layer `linear` [n, k] of block l, whose tensor a plain model names `name`; or its router and its experts.
template <class At>
void add_linear(const Config& c, index_t l, std::string_view linear, std::string_view name,
                std::array<index_t, 2> shape, At&& at, std::vector<WeightEntry>& table) {
  const auto [n, k] = shape;
  if (c.routers(l, {&linear, 1}) == 0) {
    table.push_back({{{at(name), n}}, k});
    return;
  }
  const std::string stem(name.substr(0, name.rfind("weight")));
  table.push_back({.parts = {{at(stem + "gate.weight"), c.experts}}, .k = k, .is_router = true});
  for (index_t e = 0; e < c.experts; ++e) {
    table.push_back({.parts = {{at(stem + "experts." + std::to_string(e) + ".weight"), n}}, .k = k, .expert = e});
  }
}

/// The linear layers of block l's attention.
template <class At>
void add_attention(const Config& c, index_t l, At&& at, std::vector<WeightEntry>& table) {
  const TensorNames& names = llama_names;
  const index_t queries = c.h * c.e, keys = c.g * c.e;
  if (c.routers(l, attention_linears) == 0) {
    table.push_back({{{at(names.q_proj), queries}, {at(names.k_proj), keys}, {at(names.v_proj), keys}}, c.d});
    table.push_back({{{at(names.o_proj), c.d}}, queries});
    return;
  }
  add_linear(c, l, attention_linears[0], names.q_proj, {queries, c.d}, at, table);
  add_linear(c, l, attention_linears[1], names.k_proj, {keys, c.d}, at, table);
  add_linear(c, l, attention_linears[2], names.v_proj, {keys, c.d}, at, table);
  add_linear(c, l, attention_linears[3], names.o_proj, {c.d, queries}, at, table);
}

/// Those of its feed-forward layer.
template <class At>
void add_feed_forward(const Config& c, index_t l, At&& at, std::vector<WeightEntry>& table) {
  const TensorNames& names = llama_names;
  if (c.routers(l, feed_forward_linears) == 0) {
    table.push_back({{{at(names.gate_proj), c.f}, {at(names.up_proj), c.f}}, c.d, Join::paired});
    table.push_back({{{at(names.down_proj), c.d}}, c.f});
    return;
  }
  add_linear(c, l, feed_forward_linears[0], names.gate_proj, {c.f, c.d}, at, table);
  add_linear(c, l, feed_forward_linears[1], names.up_proj, {c.f, c.d}, at, table);
  add_linear(c, l, feed_forward_linears[2], names.down_proj, {c.d, c.f}, at, table);
}

}  // namespace detail

/// The weights of a decoder of that config, in the order of DecoderWeights. layout: of a merged checkpoint's files.
[[nodiscard]] inline std::vector<WeightEntry> weight_table(const Config& c,
                                                           ExpertLayout layout = ExpertLayout::separate) {
  const TensorNames& names = llama_names;
  std::vector<WeightEntry> table;
  table.push_back({{{std::string(names.embed_tokens), c.v}}, c.d});
  for (index_t l = 0; l < c.layers; ++l) {
    const auto at = [&](std::string_view part) {
      return std::string(names.layer) + std::to_string(l) + "." + std::string(part);
    };
    table.push_back({{{at(names.input_norm), c.d}}});
    detail::add_attention(c, l, at, table);
    table.push_back({{{at(names.post_attention_norm), c.d}}});
    if (c.routes_feed_forward()) {
      detail::add_experts(c, layout, at, table);
    } else {
      detail::add_feed_forward(c, l, at, table);
    }
  }
  table.push_back({{{std::string(names.norm), c.d}}});
  if (!c.tie_word_embeddings) table.push_back({{{std::string(names.lm_head), c.v}}, c.d});
  return table;
}

}  // namespace finteam::inline FINTEAM_ABI
