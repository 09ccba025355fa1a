// Reads config.json and generation_config.json, as transformers 4 and 5 write them. Not here: what a Config holds
// (config_type.hpp), what each family means (family.hpp), tensors.
#pragma once

#include <finteam/file/family.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

namespace detail {

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

/// v, d, layers, h and f.
inline void read_sizes(const JsonView& json, Config& c) {
  const auto extent = [&](std::string_view key, std::int64_t most) {
    return static_cast<index_t>(json.at(key).as_int(1, most));
  };
  c.v = extent("vocab_size", 10'000'000);
  c.d = extent("hidden_size", 1'000'000);
  c.layers = extent("num_hidden_layers", 1'000);
  c.h = extent("num_attention_heads", 10'000);
  c.f = extent("intermediate_size", 10'000'000);
}

/// g and e.
inline void read_heads(const JsonView& json, const Family& family, Config& c) {
  if (family.needs_key_heads && !json.find("num_key_value_heads")) {
    throw Error(Code::not_found, c.where, "key \"num_key_value_heads\", whose default is not the number of heads",
                "none");
  }
  c.g = static_cast<index_t>(json.int_or("num_key_value_heads", c.h, 1, 10'000));
  if (c.h % c.g != 0) {
    json.at("num_key_value_heads").refuse("a divisor of num_attention_heads " + std::to_string(c.h), Code::mismatch);
  }
  const auto head_dim = json.find("head_dim");
  if (!head_dim && family.head_dim == 0 && c.d % c.h != 0) {
    json.at("hidden_size").refuse("a multiple of num_attention_heads " + std::to_string(c.h), Code::mismatch);
  }
  c.e = head_dim               ? static_cast<index_t>(head_dim->as_int(1, 65'536))
        : family.head_dim != 0 ? family.head_dim
                               : c.d / c.h;
  if (c.e % 2 != 0) throw Error(Code::mismatch, c.where + ": head_dim", "an even width", std::to_string(c.e));
}

/// The ropes of all layers: one, or in Gemma 3 one for those with a window and one for the others, as two keys or as an
/// object for each type of layer say.
inline void read_ropes(const JsonView& json, const Family& family, Config& c) {
  RopeContext context{.theta = family.theta, .max_positions = c.max_positions, .phi3 = c.fused_projections};
  if (const auto original = json.find("original_max_position_embeddings")) {
    context.original_max_positions = static_cast<index_t>(original->as_int(2, config_max_positions));
  }
  const auto both = json.find("rope_parameters");
  if (c.model_type != "gemma3_text") {
    c.rope = read_rope_of_config(json, context);
  } else if (both && (both->find("full_attention") || both->find("sliding_attention"))) {
    const auto one = [&](std::string_view type, double theta) {
      const auto parameters = both->find(type);
      RopeConfig rope = parameters ? read_rope(*parameters, context) : RopeConfig{};
      rope.theta = parameters ? parameters->number_or("rope_theta", theta, 1e-3, 1e12) : theta;
      return rope;
    };
    c.rope = one("full_attention", family.theta);
    c.window_rope = one("sliding_attention", 1e4);
  } else {
    c.rope = read_rope_of_config(json, context);
    c.window_rope = RopeConfig{.theta = json.number_or("rope_local_base_freq", 1e4, 1e-3, 1e12)};
  }
  check_rope(c.rope, c.e, c.where);
  if (c.window_rope) check_rope(*c.window_rope, c.e, c.where);
}

}  // namespace detail

/// The Config of a config.json's text. Needed: model_type, vocab_size, hidden_size, num_hidden_layers,
/// num_attention_heads, intermediate_size, and of some families num_key_value_heads or the numbers of experts; the rest
/// defaults as transformers' configuration of the model_type does, but no eos and no bos. Error(not_found): a key is
/// missing. Error(malformed): a value of another type, or out of its bounds. Error(unsupported): another model_type,
/// rope type or feature, or a key that is not known. Error(mismatch): values that contradict each other.
[[nodiscard]] inline Config parse_config(std::string_view text, std::string where) {
  const JsonFile file(text, std::move(where), JsonLimits{.values = 100'000, .bytes = std::size_t{1} << 24});
  const JsonView json = file.root();
  const detail::Family& family = detail::family_of(json.at("model_type"));
  Config c;
  c.where = file.where();
  c.model_type = family.model_type;
  if (const auto x = json.find("quantization_config")) c.quantization = read_quantization(*x);
  detail::read_sizes(json, c);
  family.read(json, c);
  detail::refuse_unknown_keys(json, family);
  if (c.experts * c.layers > 65'536) {
    throw Error(Code::limit_exceeded, c.where, "at most 65536 experts in all layers",
                std::to_string(c.experts) + " in each of " + std::to_string(c.layers));
  }
  detail::read_heads(json, family, c);
  if (c.activation == Activation{}) c.activation = detail::read_activation(json, family);
  c.max_positions = static_cast<index_t>(
      json.int_or("max_position_embeddings", family.max_positions, 1, detail::config_max_positions));
  c.rms_norm_eps = json.number_or("rms_norm_eps", family.eps, 0, 1);
  c.tie_word_embeddings = json.bool_or("tie_word_embeddings", family.tied);
  detail::read_ropes(json, family, c);
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
