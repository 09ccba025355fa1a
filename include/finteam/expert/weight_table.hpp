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

/// Tensor names of all families; those of a layer stand behind `layer` + its number + ".". A bias is named as its
/// weight, with "bias" at the end.
struct TensorNames {
  std::string_view embed_tokens, norm, lm_head, layer;
  std::string_view input_norm, q_proj, k_proj, v_proj, o_proj, post_attention_norm, gate_proj, up_proj, down_proj;
  std::string_view q_norm, k_norm, sinks;                     ///< of attention's heads
  std::string_view before_feed_forward, behind_feed_forward;  ///< norms of blocks that have more than two, or others
  std::string_view qkv_proj, gate_up_proj;                    ///< where projections are fused
};

/// How a merged checkpoint's files hold the router and the experts of a feed-forward layer.
enum class ExpertLayout : std::uint8_t {
  separate,  ///< tensors for each expert: transformers 4, mergekit, and what transformers 5 saves unless told otherwise
  fused,     ///< one for all: gate_up_proj [experts, 2f, d], gate_proj before up_proj, and down_proj [experts, d, f]
  alternating,  ///< one for all, transposed or in MXFP4, gate and up rows in turn: gpt-oss
};

/// Source: transformers, modeling_llama.py; behind it, what other families have besides.
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
    .q_norm = "self_attn.q_norm.weight",
    .k_norm = "self_attn.k_norm.weight",
    .sinks = "self_attn.sinks",
    .before_feed_forward = "pre_feedforward_layernorm.weight",
    .behind_feed_forward = "post_feedforward_layernorm.weight",
    .qkv_proj = "self_attn.qkv_proj.weight",
    .gate_up_proj = "mlp.gate_up_proj.weight",
};

/// Names behind a layer's where feed-forward layers have experts: of the router, what the experts' tensors begin with,
/// and where each has its own, what they end with.
struct ExpertNames {
  std::string_view router, experts;
  std::string_view gate = ".gate_proj.weight", up = ".up_proj.weight", down = ".down_proj.weight";
};
/// Mixtral's, Qwen3-MoE's and gpt-oss's. Source: transformers 5.23, modeling_mixtral.py and conversion_mapping.py.
[[nodiscard]] inline ExpertNames expert_names(const Config& c, ExpertLayout layout) noexcept {
  if (c.model_type == "mixtral" && layout == ExpertLayout::separate) {
    return {"block_sparse_moe.gate.weight", "block_sparse_moe.experts.", ".w1.weight", ".w3.weight", ".w2.weight"};
  }
  return {layout == ExpertLayout::alternating ? "mlp.router.weight" : "mlp.gate.weight", "mlp.experts."};
}

/// One weight of a decoder: a vector [n], or a matrix of tensors [n_i, k] that one product reads together.
struct WeightEntry {
  /// Where a tensor [experts, rows, k], or without experts [rows, k], of a vector [experts, rows], holds more than the
  /// part: n of the rows of one expert, from `first` on.
  struct Slice {
    index_t experts, rows, expert, first;
    index_t step = 1;         ///< from one of these rows to the next
    bool transposed = false;  ///< or the tensor is [experts, k, rows], or in MXFP4
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
  bool is_norm = false;             ///< a vector [d] that experts on this base may have of their own
  float plus = 0;                   ///< added to every element of a vector
};

namespace detail {

/// The bias of a weight.
[[nodiscard]] inline std::string bias_of(std::string_view weight) {
  return std::string(weight.substr(0, weight.rfind("weight"))) + "bias";
}

/// The gate, up and down matrices of expert e of a layer, and their biases. at(part): the name of a tensor of the
/// layer.
template <class At>
void add_expert(const Config& c, const ExpertNames& names, ExpertLayout layout, index_t e, At&& at,
                std::vector<WeightEntry>& table) {
  using Slice = WeightEntry::Slice;
  std::vector<WeightEntry::Part> gate_up, down;
  const std::string stem = at(names.experts), both = stem + "gate_up_proj", single = stem + "down_proj";
  if (layout == ExpertLayout::separate) {
    const auto of = [&](std::string_view end) { return stem + std::to_string(e) + std::string(end); };
    gate_up = {{of(names.gate), c.f}, {of(names.up), c.f}};
    down = {{of(names.down), c.d}};
  } else if (layout == ExpertLayout::fused) {
    gate_up = {{both, c.f, Slice{c.experts, 2 * c.f, e, 0}}, {both, c.f, Slice{c.experts, 2 * c.f, e, c.f}}};
    down = {{single, c.d, Slice{c.experts, c.d, e, 0}}};
  } else {
    gate_up = {{both, c.f, Slice{c.experts, 2 * c.f, e, 0, 2, true}},
               {both, c.f, Slice{c.experts, 2 * c.f, e, 1, 2, true}}};
    down = {{single, c.d, Slice{c.experts, c.d, e, 0, 1, true}}};
  }
  table.push_back({.parts = std::move(gate_up), .k = c.d, .join = Join::paired, .expert = e});
  table.push_back({.parts = std::move(down), .k = c.f, .expert = e});
  if (!c.mlp_bias) return;
  table.push_back({.parts = {{both + "_bias", c.f, Slice{c.experts, 2 * c.f, e, 0, 2}},
                             {both + "_bias", c.f, Slice{c.experts, 2 * c.f, e, 1, 2}}}});
  table.push_back({.parts = {{single + "_bias", c.d, Slice{c.experts, c.d, e, 0}}}});
}

/// A layer's router and experts.
template <class At>
void add_experts(const Config& c, ExpertLayout layout, At&& at, std::vector<WeightEntry>& table) {
  const ExpertNames names = expert_names(c, layout);
  table.push_back({.parts = {{at(names.router), c.experts}}, .k = c.d, .is_router = true});
  if (c.router_bias) table.push_back({.parts = {{at(bias_of(names.router)), c.experts}}});
  for (index_t e = 0; e < c.experts; ++e) add_expert(c, names, layout, e, at, table);
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

/// The norm of a block, or of its heads. n: its width.
[[nodiscard]] inline WeightEntry norm_entry(const Config& c, std::string name, index_t n) {
  return {.parts = {{std::move(name), n}}, .is_norm = n == c.d, .plus = c.norms_add_one ? 1.0F : 0.0F};
}

/// What is left of block l's attention but its norms.
template <class At>
void add_attention(const Config& c, index_t l, At&& at, std::vector<WeightEntry>& table) {
  const TensorNames& names = llama_names;
  const index_t queries = c.h * c.e, keys = c.g * c.e;
  if (c.routers(l, attention_linears) != 0) {
    add_linear(c, l, attention_linears[0], names.q_proj, {queries, c.d}, at, table);
    add_linear(c, l, attention_linears[1], names.k_proj, {keys, c.d}, at, table);
    add_linear(c, l, attention_linears[2], names.v_proj, {keys, c.d}, at, table);
    add_linear(c, l, attention_linears[3], names.o_proj, {c.d, queries}, at, table);
  } else {
    if (c.fused_projections) {
      table.push_back({{{at(names.qkv_proj), queries + 2 * keys}}, c.d});
    } else {
      table.push_back({{{at(names.q_proj), queries}, {at(names.k_proj), keys}, {at(names.v_proj), keys}}, c.d});
    }
    table.push_back({{{at(names.o_proj), c.d}}, queries});
  }
  if (c.qkv_bias) {
    table.push_back(
        {{{at(bias_of(names.q_proj)), queries}, {at(bias_of(names.k_proj)), keys}, {at(bias_of(names.v_proj)), keys}}});
  }
  if (c.o_bias) table.push_back({{{at(bias_of(names.o_proj)), c.d}}});
  if (c.head_norm != HeadNorm::none) {
    const bool each = c.head_norm == HeadNorm::each;
    for (const auto& [name, n] : {std::pair{names.q_norm, queries}, std::pair{names.k_norm, keys}}) {
      table.push_back(norm_entry(c, at(name), each ? c.e : n));
      table.back().is_norm = false;
    }
  }
  if (c.sinks) table.push_back({{{at(names.sinks), c.h}}});
}

/// What is left of its feed-forward layer, without experts.
template <class At>
void add_feed_forward(const Config& c, index_t l, At&& at, std::vector<WeightEntry>& table) {
  const TensorNames& names = llama_names;
  if (c.routers(l, feed_forward_linears) != 0) {
    add_linear(c, l, feed_forward_linears[0], names.gate_proj, {c.f, c.d}, at, table);
    add_linear(c, l, feed_forward_linears[1], names.up_proj, {c.f, c.d}, at, table);
    add_linear(c, l, feed_forward_linears[2], names.down_proj, {c.d, c.f}, at, table);
    return;
  }
  if (c.fused_projections) {
    using Slice = WeightEntry::Slice;
    table.push_back({{{at(names.gate_up_proj), c.f, Slice{0, 2 * c.f, 0, 0}},
                      {at(names.gate_up_proj), c.f, Slice{0, 2 * c.f, 0, c.f}}},
                     c.d,
                     Join::paired});
  } else {
    table.push_back({{{at(names.gate_proj), c.f}, {at(names.up_proj), c.f}}, c.d, Join::paired});
  }
  table.push_back({{{at(names.down_proj), c.d}}, c.f});
  if (c.mlp_bias) {
    table.push_back({{{at(bias_of(names.gate_proj)), c.f}, {at(bias_of(names.up_proj)), c.f}}});
    table.push_back({{{at(bias_of(names.down_proj)), c.d}}});
  }
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
    const auto norm = [&](std::string_view name) { table.push_back(detail::norm_entry(c, at(name), c.d)); };
    if (c.norms != NormPlace::behind) norm(names.input_norm);
    detail::add_attention(c, l, at, table);
    // Between the two layers stands the norm before feed-forward, unless Gemma's and OLMo's, behind attention.
    norm(names.post_attention_norm);
    if (c.norms == NormPlace::around) norm(names.before_feed_forward);
    if (c.routes_feed_forward()) {
      detail::add_experts(c, layout, at, table);
    } else {
      detail::add_feed_forward(c, l, at, table);
    }
    if (c.norms != NormPlace::before) norm(names.behind_feed_forward);
  }
  table.push_back(detail::norm_entry(c, std::string(names.norm), c.d));
  if (!c.tie_word_embeddings) table.push_back({{{std::string(names.lm_head), c.v}}, c.d});
  return table;
}

}  // namespace finteam::inline FINTEAM_ABI
