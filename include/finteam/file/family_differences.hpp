// The families of decoders: what a config.json of each model_type means where it says nothing, the keys that it may
// have, and its few differences from Llama. Not here: the keys that all have (config.hpp), tensor names (expert/).
// Source: transformers 5.23, models/*/configuration_*.py and modeling_*.py.
#pragma once

#include <finteam/file/config_type.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// "layer_types", if it is there: which layers have the window. Else by(l): whether layer l has it.
template <class By>
void read_layer_types(const JsonView& json, Config& c, By&& by) {
  if (const auto types = json.find("layer_types")) {
    if (static_cast<index_t>(types->size()) != c.layers) {
      types->refuse("a type for each of " + std::to_string(c.layers) + " layers", Code::mismatch);
    }
    types->each([&](const JsonView& type) {
      const bool full = type.as_string() == "full_attention";
      if (!full && type.as_string() != "sliding_attention") {
        type.refuse("full_attention or sliding_attention", Code::unsupported);
      }
      c.sees_all.push_back(full);
    });
  } else {
    for (index_t l = 0; l < c.layers; ++l) c.sees_all.push_back(!by(l));
  }
  const bool none = std::ranges::find(c.sees_all, false) == c.sees_all.end();
  if (!none && c.window == 0) {
    throw Error(Code::mismatch, json.where() + ": sliding_window", "a window for sliding layers", "none");
  }
}

/// The window that a key states; null, or absent where `otherwise` is 0: none.
inline void read_window(const JsonView& json, Config& c, index_t otherwise) {
  const bool there = json.json().contains("sliding_window");
  const auto window = json.find("sliding_window");
  c.window = window ? static_cast<index_t>(window->as_int(1, config_max_positions)) : there ? 0 : otherwise;
}

/// Biases of all four projections of attention.
inline void read_attention_bias(const JsonView& json, Config& c, bool otherwise = false) {
  c.qkv_bias = c.o_bias = json.bool_or("attention_bias", otherwise);
}

/// How many experts, and how many of them for a token.
inline void read_expert_counts(const JsonView& json, Config& c, std::string_view experts) {
  c.experts = static_cast<index_t>(json.at(experts).as_int(1, 4096));
  c.experts_per_token = static_cast<index_t>(json.at("num_experts_per_tok").as_int(1, c.experts));
}

/// What mergoo's config says besides Llama's: routers for linear layers, by name, in some blocks. No names, or no
/// blocks: a plain model. Refused: adapters behind routers. Source: mergoo 0.0.10, compose_layers.py and composers/.
inline void read_routed_linears(const JsonView& json, Config& c) {
  if (const auto x = json.find("adapter_configs")) x->refuse("none: experts of whole matrices", Code::unsupported);
  const JsonView names = json.at("router_layers"), blocks = json.at("router_layers_index");
  names.each([&](const JsonView& name) {
    const std::string linear = name.as_string();
    const auto is = [&](std::span<const std::string_view> linears) {
      return std::ranges::find(linears, linear) != linears.end();
    };
    if (!is(attention_linears) && !is(feed_forward_linears)) {
      name.refuse("q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj", Code::unsupported);
    }
    if (std::ranges::find(c.router_layers, linear) == c.router_layers.end()) c.router_layers.push_back(linear);
  });
  blocks.each([&](const JsonView& block) {
    const auto l = static_cast<index_t>(block.as_int(0, c.layers - 1));
    if (std::ranges::find(c.router_layers_index, l) == c.router_layers_index.end()) c.router_layers_index.push_back(l);
  });
  const index_t experts = static_cast<index_t>(json.at("num_experts").as_int(1, 4096));
  const index_t top_k = static_cast<index_t>(json.at("num_experts_per_tok").as_int(1, experts));
  if (c.router_layers.empty() || c.router_layers_index.empty()) {
    c.router_layers.clear();
    return;
  }
  c.experts = experts;
  c.experts_per_token = top_k;
}

inline void read_llama(const JsonView& json, Config& c) {
  read_attention_bias(json, c);
  c.mlp_bias = json.bool_or("mlp_bias", false);
  if (json.find("router_layers")) read_routed_linears(json, c);
}

/// A config without the key means 4,096.
inline void read_mistral(const JsonView& json, Config& c) { read_window(json, c, 4096); }

inline void read_mixtral(const JsonView& json, Config& c) {
  read_window(json, c, 0);
  read_expert_counts(json, c, "num_local_experts");
  if (!json.bool_or("norm_topk_prob", true)) json.at("norm_topk_prob").refuse("true", Code::unsupported);
}

inline void read_phi3(const JsonView& json, Config& c) {
  read_window(json, c, 0);
  c.fused_projections = true;
  for (const std::string_view key : {"full_attn_mod", "interpolate_factor"}) {  // Phi-4-mini's, of no use there
    if (json.int_or(key, 1, 0, 1'000'000) != 1) json.at(key).refuse("1", Code::unsupported);
  }
}

/// Qwen 2, 2.5, 3: windows from max_window_layers on, if they are used.
inline void read_qwen_window(const JsonView& json, Config& c) {
  if (!json.bool_or("use_sliding_window", false)) return;
  read_window(json, c, 4096);
  const index_t first = static_cast<index_t>(json.int_or("max_window_layers", 28, 0, 10'000));
  read_layer_types(json, c, [&](index_t l) { return c.window > 0 && l >= first; });
}

inline void read_qwen2(const JsonView& json, Config& c) {
  read_qwen_window(json, c);
  c.qkv_bias = true;
}

inline void read_qwen3(const JsonView& json, Config& c) {
  read_qwen_window(json, c);
  read_attention_bias(json, c);
  c.head_norm = HeadNorm::each;
}

/// Every layer has experts, or it is refused.
inline void read_qwen3_moe(const JsonView& json, Config& c) {
  if (json.bool_or("use_sliding_window", false)) read_window(json, c, 4096);
  read_attention_bias(json, c);
  c.head_norm = HeadNorm::each;
  read_expert_counts(json, c, json.find("num_experts") ? "num_experts" : "num_local_experts");
  c.experts_renormalise = json.bool_or("norm_topk_prob", false);
  c.f = static_cast<index_t>(json.at("moe_intermediate_size").as_int(1, 10'000'000));
  if (json.int_or("decoder_sparse_step", 1, 1, 1'000'000) != 1) {
    json.at("decoder_sparse_step").refuse("1: experts in every layer", Code::unsupported);
  }
  if (!json.bool_or("use_qk_norm", true)) json.at("use_qk_norm").refuse("true", Code::unsupported);
  if (const auto dense = json.find("mlp_only_layers"); dense && dense->size() != 0) {
    dense->refuse("no layers: experts in every layer", Code::unsupported);
  }
}

/// Gemma 2 and 3: what both have.
inline void read_gemma(const JsonView& json, Config& c, double score_cap, double logit_cap) {
  read_window(json, c, 4096);
  read_attention_bias(json, c);
  c.norms = NormPlace::around;
  c.norms_add_one = true;
  c.embedding_scale = std::sqrt(static_cast<double>(c.d));
  c.score_scale = 1 / std::sqrt(json.number_or("query_pre_attn_scalar", 256, 1e-6, 1e9));
  const auto cap = [&](std::string_view key, double otherwise) {
    if (!json.json().contains(key)) return otherwise;
    const auto value = json.find(key);
    return value ? value->as_number(1e-6, 1e9) : 0.0;
  };
  c.score_cap = cap("attn_logit_softcapping", score_cap);
  c.logit_cap = cap("final_logit_softcapping", logit_cap);
  if (json.bool_or("use_bidirectional_attention", false)) {
    json.at("use_bidirectional_attention").refuse("false", Code::unsupported);
  }
}

inline void read_gemma2(const JsonView& json, Config& c) {
  read_gemma(json, c, 50, 30);
  if (const auto other = json.find("sliding_window_size");
      other && other->as_int(1, config_max_positions) != c.window) {
    other->refuse("sliding_window, " + std::to_string(c.window), Code::mismatch);
  }
  read_layer_types(json, c, [](index_t l) { return l % 2 == 0; });
}

inline void read_gemma3(const JsonView& json, Config& c) {
  read_gemma(json, c, 0, 0);
  c.head_norm = HeadNorm::each;
  const std::string_view pattern =
      json.json().contains("_sliding_window_pattern") ? "_sliding_window_pattern" : "sliding_window_pattern";
  const index_t every = static_cast<index_t>(json.int_or(pattern, 6, 1, 1000));
  read_layer_types(json, c, [&](index_t l) { return (l + 1) % every != 0; });
}

inline void read_smollm3(const JsonView& json, Config& c) {
  read_attention_bias(json, c);
  c.mlp_bias = json.bool_or("mlp_bias", false);
  const index_t every = static_cast<index_t>(json.int_or("no_rope_layer_interval", 4, 1, 1000));
  const auto list = json.find("no_rope_layers");  // 1 where a layer has it, in spite of the name
  if (list && static_cast<index_t>(list->size()) != c.layers) {
    list->refuse("a number for each of " + std::to_string(c.layers) + " layers", Code::mismatch);
  }
  for (index_t l = 0; l < c.layers; ++l) {
    c.rotates.push_back(list ? (*list)[static_cast<std::size_t>(l)].as_int(0, 1) != 0 : (l + 1) % every != 0);
  }
  if (!json.bool_or("use_sliding_window", false)) return;
  read_window(json, c, 0);
  read_layer_types(json, c, [&](index_t l) { return c.window > 0 && !c.has_rope(l); });
}

/// gpt-oss: experts in every layer, whose gate and up rows alternate, with biases everywhere.
inline void read_gpt_oss(const JsonView& json, Config& c) {
  read_window(json, c, 128);
  read_layer_types(json, c, [](index_t l) { return l % 2 == 0; });
  read_attention_bias(json, c, true);
  c.mlp_bias = c.router_bias = c.sinks = true;
  read_expert_counts(json, c, "num_local_experts");
  c.activation = {Activation::Kind::clamped_silu, static_cast<float>(json.number_or("swiglu_alpha", 1.702, 1e-6, 1e6)),
                  static_cast<float>(json.number_or("swiglu_limit", 7, 1e-6, 1e6))};
  if (json.string_or("hidden_act", "silu") != "silu") json.at("hidden_act").refuse("\"silu\"", Code::unsupported);
  if (!json.find("rope_scaling") && !json.find("rope_parameters")) {
    throw Error(Code::not_found, c.where, "key \"rope_scaling\" or \"rope_parameters\"", "neither");
  }
}

inline void read_olmo2(const JsonView& json, Config& c) {
  read_attention_bias(json, c);
  c.norms = NormPlace::behind;
  c.head_norm = HeadNorm::all;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
