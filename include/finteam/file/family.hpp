// The families of decoders: what a config.json of each model_type means where it says nothing, and the keys that it may
// have. Not here: what its own keys mean (family_differences.hpp), tensor names (expert/weight_table.hpp).
// Source: transformers 5.23, models/*/configuration_*.py.
#pragma once

#include <finteam/file/family_differences.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// A model_type. What a config.json of it means by keys that are not there, and which keys it may have.
struct Family {
  std::string_view model_type;
  void (*read)(const JsonView& json, Config& c);  ///< what is its own; sizes but e and g are there already
  std::string_view keys;                          ///< of its own, with blanks between
  double theta = 1e4, eps = 1e-6;
  index_t max_positions = 32'768;
  bool needs_key_heads = false;  ///< num_key_value_heads; else as many as heads
  index_t head_dim = 0;          ///< 0: d / h
  bool tied = false;
  std::string_view activation_key = "hidden_act", activation = "silu";
};

inline constexpr std::array families{
    Family{.model_type = "llama",
           .read = read_llama,
           .keys = "attention_bias mlp_bias router_layers router_layers_index num_experts num_experts_per_tok "
                   "max_sequence_length",
           .max_positions = 2048},
    Family{.model_type = "mistral",
           .read = read_mistral,
           .keys = "sliding_window",
           .max_positions = 131'072,
           .needs_key_heads = true},
    Family{.model_type = "mixtral",
           .read = read_mixtral,
           .keys = "sliding_window num_local_experts num_experts_per_tok norm_topk_prob",
           .theta = 1e6,
           .eps = 1e-5,
           .max_positions = 131'072,
           .needs_key_heads = true},
    Family{.model_type = "phi3",
           .read = read_phi3,
           .keys = "sliding_window original_max_position_embeddings partial_rotary_factor full_attn_mod "
                   "interpolate_factor",
           .eps = 1e-5,
           .max_positions = 4096},
    Family{.model_type = "qwen2",
           .read = read_qwen2,
           .keys = "use_sliding_window sliding_window max_window_layers layer_types",
           .needs_key_heads = true},
    Family{.model_type = "qwen3",
           .read = read_qwen3,
           .keys = "attention_bias use_sliding_window sliding_window max_window_layers layer_types",
           .needs_key_heads = true,
           .head_dim = 128},
    Family{.model_type = "qwen3_moe",
           .read = read_qwen3_moe,
           .keys = "attention_bias use_sliding_window sliding_window max_window_layers num_experts num_local_experts "
                   "num_experts_per_tok norm_topk_prob moe_intermediate_size decoder_sparse_step mlp_only_layers "
                   "use_qk_norm",
           .needs_key_heads = true},
    Family{.model_type = "gemma2",
           .read = read_gemma2,
           .keys = "attention_bias sliding_window sliding_window_size layer_types query_pre_attn_scalar "
                   "attn_logit_softcapping final_logit_softcapping use_bidirectional_attention hidden_act",
           .max_positions = 8192,
           .needs_key_heads = true,
           .head_dim = 256,
           .tied = true,
           .activation_key = "hidden_activation",
           .activation = "gelu_pytorch_tanh"},
    Family{.model_type = "gemma3_text",
           .read = read_gemma3,
           .keys = "attention_bias sliding_window layer_types query_pre_attn_scalar attn_logit_softcapping "
                   "final_logit_softcapping use_bidirectional_attention hidden_act sliding_window_pattern "
                   "rope_local_base_freq",
           .theta = 1e6,
           .max_positions = 131'072,
           .needs_key_heads = true,
           .head_dim = 256,
           .tied = true,
           .activation_key = "hidden_activation",
           .activation = "gelu_pytorch_tanh"},
    Family{.model_type = "smollm3",
           .read = read_smollm3,
           .keys = "attention_bias mlp_bias no_rope_layers no_rope_layer_interval use_sliding_window sliding_window "
                   "layer_types max_window_layers",
           .theta = 2e6,
           .needs_key_heads = true,
           .tied = true},
    Family{.model_type = "gpt_oss",
           .read = read_gpt_oss,
           .keys = "attention_bias sliding_window layer_types num_local_experts num_experts_per_tok experts_per_token "
                   "swiglu_alpha swiglu_limit initial_context_length",
           .theta = 1.5e5,
           .eps = 1e-5,
           .max_positions = 131'072,
           .needs_key_heads = true,
           .head_dim = 64},
    Family{.model_type = "olmo2", .read = read_olmo2, .keys = "attention_bias", .eps = 1e-5, .max_positions = 2048},
};

[[nodiscard]] inline const Family& family_of(const JsonView& model_type) {
  const std::string& name = model_type.as_string();
  std::string known;
  for (const Family& family : families) {
    if (family.model_type == name) return family;
    known += (known.empty() ? "" : ", ") + in_quotes(family.model_type);
  }
  model_type.refuse("one of " + known, Code::unsupported);
}

[[nodiscard]] inline Activation read_activation(const JsonView& json, const Family& family) {
  const auto key = json.find(family.activation_key);
  const std::string_view name = key ? std::string_view(key->as_string()) : family.activation;
  if (name == "silu") return {};
  if (name == "gelu_pytorch_tanh") return {.kind = Activation::Kind::gelu_tanh};
  key->refuse("\"silu\" or \"gelu_pytorch_tanh\"", Code::unsupported);
}

/// Keys that every family has or may have: what the decoder reads, and what only training, generation or tools do.
inline constexpr std::string_view common_keys =
    "model_type vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "intermediate_size max_position_embeddings rms_norm_eps tie_word_embeddings rope_theta rope_scaling "
    "rope_parameters quantization_config bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id "
    "decoder_start_token_id architectures auto_map transformers_version torch_dtype dtype use_cache initializer_range "
    "attention_dropout hidden_dropout resid_pdrop embd_pdrop pretraining_tp output_router_logits router_aux_loss_coef "
    "router_jitter_noise id2label label2id num_labels return_dict output_attentions output_hidden_states torchscript "
    "is_decoder is_causal chunk_size_feed_forward gradient_checkpointing task_specific_params problem_type "
    "tokenizer_class "
    "max_length min_length do_sample temperature top_k top_p typical_p repetition_penalty length_penalty "
    "no_repeat_ngram_size encoder_no_repeat_ngram_size num_beams num_beam_groups diversity_penalty early_stopping "
    "num_return_sequences cache_implementation is_llama_config transformers.js_config unsloth_fixed unsloth_version "
    "model_max_length finetuning_task prefix";

/// Whether a list of words has this one.
[[nodiscard]] constexpr bool has_word(std::string_view words, std::string_view word) noexcept {
  for (std::size_t at = words.find(word); at != std::string_view::npos; at = words.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    if ((at == 0 || words[at - 1] == ' ') && (end == words.size() || words[end] == ' ')) return true;
  }
  return false;
}

/// Throws Error(unsupported) for a key that is on no list and may change the mathematics: one whose value is not null,
/// false, zero or empty; for keys that begin with _, which transformers keeps for itself, it never does.
inline void refuse_unknown_keys(const JsonView& json, const Family& family) {
  json.each_member([&](std::string_view key, const JsonView& value) {
    const Json& x = value.json();
    const bool off = x.is_null() || x == Json("") || x == Json(false) || (x.is_number() && x == Json(0)) ||
                     ((x.is_array() || x.is_object()) && x.empty());
    if (key == "is_causal" && x == Json(false)) value.refuse("true: attention to what came before", Code::unsupported);
    if (off || key == family.activation_key || key.starts_with('_') || has_word(common_keys, key) ||
        has_word(family.keys, key))
      return;
    value.refuse("no such key in a config of " + in_quotes(family.model_type) +
                     ": it may change the mathematics (take it out if it does not)",
                 Code::unsupported);
  });
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
