// config.json and generation_config.json of Llama (2, 3, 3.1, 3.2), of Mistral and of merged checkpoints (Mixtral,
// mergoo), as transformers 4 and 5 write them. Not here: other families, rope's frequencies (layer/rope.hpp), tensors.
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/file/json_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// How the angles of rope are scaled for contexts longer than those of pretraining.
enum class RopeType : std::uint8_t {
  none,    ///< transformers: "default"
  linear,  ///< every frequency / factor
  llama3,  ///< low frequencies / factor, high ones as they are, smooth between
};

/// Rotary position embedding: frequency i of e/2 is theta^(-2i/e), then scaled by type.
/// Fields after theta are 0 where the type has no use for them.
struct RopeConfig {
  RopeType type = RopeType::none;
  double theta = 10'000;
  double factor = 0;
  double low_freq_factor = 0;
  double high_freq_factor = 0;
  index_t original_max_positions = 0;

  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

/// The linear layers of a block that can have a router each (mergoo), by the checkpoint's words.
inline constexpr std::array<std::string_view, 4> attention_linears{"q_proj", "k_proj", "v_proj", "o_proj"};
inline constexpr std::array<std::string_view, 3> feed_forward_linears{"gate_proj", "up_proj", "down_proj"};

/// The shape and the constants of a Llama decoder, or of one that holds several experts in its feed-forward layers
/// (Mixtral) or in single linear layers (mergoo).
struct Config {
  std::string where;       ///< what errors call it: "micro/config.json"
  std::string model_type;  ///< "llama", "mistral" or "mixtral"
  index_t v = 0;           ///< vocabulary
  index_t d = 0;           ///< model width
  index_t layers = 0;
  index_t h = 0;                               ///< heads
  index_t g = 0;                               ///< key/value heads; divides h
  index_t e = 0;                               ///< head width, even
  index_t f = 0;                               ///< feed-forward width, of each expert
  index_t experts = 1;                         ///< in each feed-forward or linear layer that has a router
  index_t experts_per_token = 0;               ///< of them, that each router chooses; 0: no router, and one expert
  std::vector<std::string> router_layers{};    ///< linear layers with routers of their own; none: feed-forward layers
  std::vector<index_t> router_layers_index{};  ///< the blocks where they have them
  index_t max_positions = 0;
  index_t window = 0;  ///< positions that a row of attention sees, its own the last; 0: all before it
  double rms_norm_eps = 0;
  bool tie_word_embeddings = false;  ///< the output matrix is the input embedding
  RopeConfig rope;
  std::optional<std::int32_t> bos;  ///< none if the files name none
  std::vector<std::int32_t> eos;    ///< any of them ends a text; empty if the files name none

  /// Whether there are routers: one for each feed-forward layer, or for some linear layers.
  [[nodiscard]] bool is_routed() const noexcept { return experts_per_token > 0; }
  /// Whether each feed-forward layer has one.
  [[nodiscard]] bool routes_feed_forward() const noexcept { return is_routed() && !routes_linears(); }
  /// Whether linear layers have routers of their own.
  [[nodiscard]] bool routes_linears() const noexcept { return !router_layers.empty(); }
  /// Routers in block l.
  [[nodiscard]] index_t routers(index_t l) const noexcept {
    if (routes_feed_forward()) return 1;
    return routers(l, attention_linears) + routers(l, feed_forward_linears);
  }
  /// How many of these linear layers of block l have one.
  [[nodiscard]] index_t routers(index_t l, std::span<const std::string_view> linears) const noexcept {
    if (std::ranges::find(router_layers_index, l) == router_layers_index.end()) return 0;
    return std::ranges::count_if(linears, [&](std::string_view linear) {
      return std::ranges::find(router_layers, linear) != router_layers.end();
    });
  }
};

namespace detail {

inline constexpr std::int64_t config_max_positions = std::int64_t{1} << 30;

/// {rope_type, factor, …}: transformers 4's rope_scaling or 5's rope_parameters. theta is left alone.
[[nodiscard]] inline RopeConfig read_rope(const JsonView& json) {
  RopeConfig rope;
  const auto newer = json.find("rope_type");
  const auto older = json.find("type");
  if (newer && older && newer->as_string() != older->as_string()) {
    older->refuse(in_quotes(newer->as_string()) + " as rope_type says", Code::mismatch);
  }
  const std::string type = newer ? newer->as_string() : older ? older->as_string() : "default";
  if (const auto part = json.find("partial_rotary_factor"); part && part->as_number() != 1.0) {
    part->refuse("1 (a rotation of whole heads)", Code::unsupported);
  }
  if (type == "default") return rope;
  if (type != "linear" && type != "llama3") {
    (newer ? *newer : *older).refuse("default, linear or llama3", Code::unsupported);
  }
  rope.factor = json.at("factor").as_number(1, 1e6);
  if (type == "linear") {
    rope.type = RopeType::linear;
    return rope;
  }
  rope.type = RopeType::llama3;
  rope.low_freq_factor = json.at("low_freq_factor").as_number(1e-6, 1e6);
  const JsonView high = json.at("high_freq_factor");
  rope.high_freq_factor = high.as_number(1e-6, 1e6);
  if (rope.high_freq_factor <= rope.low_freq_factor) high.refuse("more than low_freq_factor", Code::mismatch);
  rope.original_max_positions =
      static_cast<index_t>(json.at("original_max_position_embeddings").as_int(1, config_max_positions));
  return rope;
}

/// The rope of a config in either transformers' words; where both are there they must agree. theta: if nothing names
/// it.
[[nodiscard]] inline RopeConfig read_rope_of_config(const JsonView& json, double default_theta) {
  constexpr double least = 1e-3, most = 1e12;
  const auto theta = json.find("rope_theta");
  const auto scaling = json.find("rope_scaling");
  const auto parameters = json.find("rope_parameters");
  RopeConfig rope = parameters ? read_rope(*parameters) : scaling ? read_rope(*scaling) : RopeConfig{};
  if (parameters && scaling && read_rope(*scaling) != rope) {
    scaling->refuse("the same as rope_parameters", Code::mismatch);
  }
  std::optional<double> value;
  const auto merge = [&](const std::optional<JsonView>& x) {
    if (!x) return;
    const double stated = x->as_number(least, most);
    if (value && *value != stated) x->refuse("rope_theta as elsewhere, " + Json(*value).dump(), Code::mismatch);
    value = stated;
  };
  merge(theta);
  if (scaling) merge(scaling->find("rope_theta"));
  if (parameters) merge(parameters->find("rope_theta"));
  rope.theta = value.value_or(default_theta);
  return rope;
}

/// Appends the token ids of an integer or a list of them, each once; ids must lie in [0, v).
inline void read_token_ids(const JsonView& json, index_t v, std::vector<std::int32_t>& ids) {
  const auto add = [&](const JsonView& id) {
    const auto x = static_cast<std::int32_t>(id.as_int(0, v - 1));
    if (std::ranges::find(ids, x) == ids.end()) ids.push_back(x);
  };
  if (!json.is_array()) return add(json);
  if (json.size() > 256) json.refuse("at most 256 ids", Code::limit_exceeded);
  json.each(add);
}

/// Features that change the arithmetic and that this build does not have.
inline void refuse_unsupported(const JsonView& json) {
  const auto is = [&](std::string_view key, std::string_view only) {
    if (const auto x = json.find(key); x && x->as_string() != only) x->refuse(in_quotes(only), Code::unsupported);
  };
  const auto off = [&](std::string_view key) {
    if (const auto x = json.find(key); x && x->as_bool()) x->refuse("false", Code::unsupported);
  };
  is("hidden_act", "silu");
  off("attention_bias");
  off("mlp_bias");
  if (const auto part = json.find("partial_rotary_factor"); part && part->as_number() != 1.0) {
    part->refuse("1 (a rotation of whole heads)", Code::unsupported);
  }
  if (const auto x = json.find("quantization_config")) x->refuse("weights that are not quantised", Code::unsupported);
}

/// What Mixtral's config says besides Llama's. Refused: windows of attention, and keys of other families that mix
/// experts by other rules. Jitter and the auxiliary loss are training's.
inline void read_experts(const JsonView& json, Config& c) {
  for (const std::string_view key :
       {"sliding_window", "norm_topk_prob", "routed_scaling_factor", "scoring_func", "topk_method", "n_group",
        "topk_group", "n_shared_experts", "num_shared_experts", "shared_expert_intermediate_size",
        "shared_intermediate_size", "moe_intermediate_size", "first_k_dense_replace", "moe_layer_freq",
        "decoder_sparse_step", "mlp_only_layers", "router_bias", "use_routing_bias", "expert_capacity"}) {
    if (const auto x = json.find(key)) x->refuse("null", Code::unsupported);
  }
  c.experts = static_cast<index_t>(json.at("num_local_experts").as_int(1, 4096));
  c.experts_per_token = static_cast<index_t>(json.at("num_experts_per_tok").as_int(1, c.experts));
}

/// Mistral's window: null is none, and a config without the key means 4,096.
inline void read_window(const JsonView& json, Config& c) {
  const auto window = json.find("sliding_window");
  if (window) c.window = static_cast<index_t>(window->as_int(1, config_max_positions));
  if (!window && !json.json().contains("sliding_window")) c.window = 4096;
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

}  // namespace detail

/// The Config of a config.json's text. Needed: model_type, vocab_size, hidden_size, num_hidden_layers,
/// num_attention_heads, intermediate_size, of Mistral and Mixtral num_key_value_heads, of Mixtral num_local_experts and
/// num_experts_per_tok, and beside router_layers router_layers_index, num_experts and num_experts_per_tok; the rest
/// defaults as transformers' LlamaConfig, MistralConfig and MixtralConfig do, but no eos and no bos. Error(not_found):
/// a key is missing. Error(malformed): a value of another type, or out of its bounds. Error(unsupported): another
/// model_type, rope type or feature. Error(mismatch): values that contradict each other.
[[nodiscard]] inline Config parse_config(std::string_view text, std::string where) {
  const JsonFile file(text, std::move(where), JsonLimits{.values = 100'000, .bytes = std::size_t{1} << 24});
  const JsonView json = file.root();
  Config c;
  c.where = file.where();
  c.model_type = json.at("model_type").as_string();
  const bool mixtral = c.model_type == "mixtral", mistral = c.model_type == "mistral";
  if (!mixtral && !mistral && c.model_type != "llama") {
    json.at("model_type").refuse("\"llama\", \"mistral\" or \"mixtral\"", Code::unsupported);
  }
  detail::refuse_unsupported(json);
  if (mixtral) detail::read_experts(json, c);
  if (mistral) detail::read_window(json, c);
  if ((mixtral || mistral) && !json.find("num_key_value_heads")) {
    throw Error(Code::not_found, c.where, "key \"num_key_value_heads\", whose default these models have at 8", "none");
  }

  const auto extent = [&](std::string_view key, std::int64_t most) {
    return static_cast<index_t>(json.at(key).as_int(1, most));
  };
  c.v = extent("vocab_size", 10'000'000);
  c.d = extent("hidden_size", 1'000'000);
  c.layers = extent("num_hidden_layers", 1'000);
  if (c.model_type == "llama" && json.find("router_layers")) detail::read_routed_linears(json, c);
  if (c.experts * c.layers > 65'536) {
    json.at(mixtral ? "num_local_experts" : "num_experts")
        .refuse("at most 65536 experts in all layers", Code::limit_exceeded);
  }
  c.h = extent("num_attention_heads", 10'000);
  c.f = extent("intermediate_size", 10'000'000);
  c.g = static_cast<index_t>(json.int_or("num_key_value_heads", c.h, 1, 10'000));
  if (c.h % c.g != 0) {
    json.at("num_key_value_heads").refuse("a divisor of num_attention_heads " + std::to_string(c.h), Code::mismatch);
  }
  const auto head_dim = json.find("head_dim");
  if (!head_dim && c.d % c.h != 0) {
    json.at("hidden_size").refuse("a multiple of num_attention_heads " + std::to_string(c.h), Code::mismatch);
  }
  c.e = head_dim ? static_cast<index_t>(head_dim->as_int(1, 65'536)) : c.d / c.h;
  if (c.e % 2 != 0) throw Error(Code::mismatch, c.where + ": head_dim", "an even width", std::to_string(c.e));

  c.max_positions = static_cast<index_t>(
      json.int_or("max_position_embeddings", mixtral || mistral ? 131'072 : 2048, 1, detail::config_max_positions));
  c.rms_norm_eps = json.number_or("rms_norm_eps", mixtral ? 1e-5 : 1e-6, 0, 1);
  c.tie_word_embeddings = json.bool_or("tie_word_embeddings", false);
  c.rope = detail::read_rope_of_config(json, mixtral ? 1e6 : 1e4);
  if (const auto bos = json.find("bos_token_id")) c.bos = static_cast<std::int32_t>(bos->as_int(0, c.v - 1));
  if (const auto eos = json.find("eos_token_id")) detail::read_token_ids(*eos, c.v, c.eos);
  return c;
}

/// Adds what generation_config.json says to a Config: more eos ids, and bos if there was none.
/// Errors as parse_config; its other keys (temperature, top_p, …) are the caller's business.
inline void merge_generation_config(std::string_view text, std::string where, Config& config) {
  const JsonFile file(text, std::move(where), JsonLimits{.values = 100'000, .bytes = std::size_t{1} << 24});
  const JsonView json = file.root();
  if (const auto eos = json.find("eos_token_id")) detail::read_token_ids(*eos, config.v, config.eos);
  const auto bos = json.find("bos_token_id");
  if (bos && !config.bos) config.bos = static_cast<std::int32_t>(bos->as_int(0, config.v - 1));
}

/// Reads `folder`/config.json, and `folder`/generation_config.json if it is there. Errors as MappedFile::open and
/// parse_config.
[[nodiscard]] inline Config read_config(const std::filesystem::path& folder) {
  const auto read = [](const std::filesystem::path& path) { return read_text_file(path, std::size_t{1} << 24); };
  const auto path = folder / "config.json";
  Config config = parse_config(read(path), detail::file_label(path));
  const auto generation = folder / "generation_config.json";
  std::error_code ignored;
  if (std::filesystem::exists(generation, ignored)) {
    merge_generation_config(read(generation), detail::file_label(generation), config);
  }
  return config;
}

}  // namespace finteam::inline FINTEAM_ABI
