// What a config.json says of rotary position embedding, in transformers 4's words (rope_theta, rope_scaling) and 5's
// (rope_parameters). Not here: the frequencies that follow (layer/rope.hpp).
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/file/json_view.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// How the angles of rope are scaled for contexts longer than those of pretraining.
enum class RopeType : std::uint8_t {
  none,      ///< transformers: "default"
  linear,    ///< every frequency / factor
  llama3,    ///< low frequencies / factor, high ones as they are, smooth between
  yarn,      ///< the same between two numbers of rotations, on a ramp over the frequencies' indices
  longrope,  ///< frequency i / short_factor[i], or / long_factor[i] in a sequence that may outgrow pretraining's
};

/// Rotary position embedding: frequency i of share · e/2 is theta^(-2i/(share · e)), then scaled by type.
/// Fields after share are 0, or what changes nothing, where the type has no use for them.
struct RopeConfig {
  RopeType type = RopeType::none;
  double theta = 10'000;
  double share = 1;  ///< of each head, its first elements, that is rotated
  double factor = 0;
  double low_freq_factor = 0;
  double high_freq_factor = 0;
  index_t original_max_positions = 0;
  double attention_factor = 1;  ///< of every cosine and sine
  double beta_fast = 0, beta_slow = 0;
  bool truncate = false;                              ///< the ramp begins and ends at whole indices
  std::vector<double> short_factor{}, long_factor{};  ///< [share · e/2]

  /// Elements of a head of width e that are rotated.
  [[nodiscard]] index_t width(index_t e) const noexcept { return static_cast<index_t>(static_cast<double>(e) * share); }
  /// Whether a sequence of up to so many tokens has other angles than a short one.
  [[nodiscard]] bool is_long(index_t tokens) const noexcept {
    return type == RopeType::longrope && tokens > original_max_positions;
  }

  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

namespace detail {

inline constexpr std::int64_t config_max_positions = std::int64_t{1} << 30;

/// What a config says of positions outside of its rope.
struct RopeContext {
  double theta = 10'000;  ///< if nothing names it
  index_t max_positions = 0;
  std::optional<index_t> original_max_positions{};
  bool phi3 = false;  ///< "su" and "yarn" are old names of longrope, and heads may rotate in part
};

/// Of Llama 3's scaling it must be stated; of the others it is what the config's positions are, as transformers has it.
[[nodiscard]] inline index_t read_original_positions(const JsonView& json, RopeType type, const RopeContext& context) {
  const std::string_view key = "original_max_position_embeddings";
  if (context.original_max_positions) return *context.original_max_positions;
  const auto own = type == RopeType::llama3 ? std::optional(json.at(key)) : json.find(key);
  return own ? static_cast<index_t>(own->as_int(2, config_max_positions)) : context.max_positions;
}

inline void read_llama3(const JsonView& json, RopeConfig& rope) {
  rope.low_freq_factor = json.at("low_freq_factor").as_number(1e-6, 1e6);
  const JsonView high = json.at("high_freq_factor");
  rope.high_freq_factor = high.as_number(1e-6, 1e6);
  if (rope.high_freq_factor <= rope.low_freq_factor) high.refuse("more than low_freq_factor", Code::mismatch);
}

/// The cosines' factor: as stated, or 0.1 · mscale · ln(factor) + 1. Source: Peng et al. 2023 (YaRN), eq. 22;
/// transformers, _compute_yarn_parameters.
inline void read_yarn(const JsonView& json, RopeConfig& rope) {
  rope.beta_fast = json.number_or("beta_fast", 32, 1e-6, 1e6);
  rope.beta_slow = json.number_or("beta_slow", 1, 1e-6, 1e6);
  rope.truncate = json.bool_or("truncate", true);
  const double mscale = json.number_or("mscale", 0, 0, 100), all = json.number_or("mscale_all_dim", 0, 0, 100);
  const auto of = [&](double m) { return rope.factor <= 1 ? 1.0 : std::fma(0.1 * m, std::log(rope.factor), 1.0); };
  rope.attention_factor = mscale != 0 && all != 0 ? of(mscale) / of(all) : of(1);
}

/// The cosines' factor: as stated, or √(1 + ln(factor) / ln(original length)), the factor that of the lengths unless
/// stated. Source: Ding et al. 2024 (LongRoPE); transformers, _compute_longrope_parameters.
inline void read_longrope(const JsonView& json, RopeConfig& rope) {
  const auto factors = [&](std::string_view key, std::vector<double>& to) {
    const JsonView list = json.at(key);
    if (list.size() > 65'536) list.refuse("at most 65536 factors", Code::limit_exceeded);
    list.each([&](const JsonView& x) { to.push_back(x.as_number(1e-6, 1e6)); });
  };
  factors("short_factor", rope.short_factor);
  factors("long_factor", rope.long_factor);
  const double original = static_cast<double>(rope.original_max_positions);
  rope.attention_factor = rope.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(rope.factor) / std::log(original));
}

/// The type, by its newer or its older key; they must agree.
[[nodiscard]] inline RopeType read_rope_type(const JsonView& json, const RopeContext& context) {
  const auto type_of = [&](const JsonView& key) {
    const std::string& type = key.as_string();
    if (type == "longrope" || (context.phi3 && (type == "su" || type == "yarn"))) return RopeType::longrope;
    if (type == "default") return RopeType::none;
    if (type == "linear") return RopeType::linear;
    if (type == "llama3") return RopeType::llama3;
    if (type == "yarn") return RopeType::yarn;
    key.refuse("default, linear, llama3, yarn or longrope", Code::unsupported);
  };
  const auto newer = json.find("rope_type"), older = json.find("type");
  if (newer && older && type_of(*newer) != type_of(*older)) {
    older->refuse(in_quotes(newer->as_string()) + " as rope_type says", Code::mismatch);
  }
  return newer ? type_of(*newer) : older ? type_of(*older) : RopeType::none;
}

/// What part of each head is rotated, if the object says.
[[nodiscard]] inline std::optional<double> read_share(const JsonView& json, const RopeContext& context) {
  const auto share = json.find("partial_rotary_factor");
  if (!share) return std::nullopt;
  if (!context.phi3 && share->as_number() != 1.0) share->refuse("1 (a rotation of whole heads)", Code::unsupported);
  return share->as_number(1e-6, 1);
}

/// {rope_type, factor, …}: transformers 4's rope_scaling or 5's rope_parameters. theta is left alone.
[[nodiscard]] inline RopeConfig read_rope(const JsonView& json, const RopeContext& context) {
  constexpr std::array known{"rope_type",        "type",
                             "rope_theta",       "partial_rotary_factor",
                             "factor",           "low_freq_factor",
                             "high_freq_factor", "original_max_position_embeddings",
                             "attention_factor", "attn_factor",
                             "beta_fast",        "beta_slow",
                             "truncate",         "mscale",
                             "mscale_all_dim",   "short_factor",
                             "long_factor"};
  json.each_member([&](std::string_view key, const JsonView& value) {
    if (std::ranges::find(known, key) == known.end() && !value.is_null()) {
      value.refuse("a key of rope that is known", Code::unsupported);
    }
  });
  RopeConfig rope;
  rope.type = read_rope_type(json, context);
  rope.share = read_share(json, context).value_or(1);
  if (rope.type == RopeType::none) return rope;
  const bool stated = rope.type == RopeType::linear || rope.type == RopeType::llama3;
  if (stated) rope.factor = json.at("factor").as_number(1, 1e6);
  if (rope.type == RopeType::linear) return rope;
  rope.original_max_positions = read_original_positions(json, rope.type, context);
  const double ratio = static_cast<double>(context.max_positions) / static_cast<double>(rope.original_max_positions);
  if (!stated) rope.factor = json.number_or("factor", ratio, 1e-6, 1e6);
  if (rope.type == RopeType::llama3) read_llama3(json, rope);
  if (rope.type == RopeType::yarn) read_yarn(json, rope);
  if (rope.type == RopeType::longrope) read_longrope(json, rope);
  if (rope.type != RopeType::llama3) {
    rope.attention_factor = json.number_or("attention_factor", rope.attention_factor, 1e-6, 1e6);
  }
  return rope;
}

/// The rope of a config in either transformers' words; where both are there they must agree.
[[nodiscard]] inline RopeConfig read_rope_of_config(const JsonView& json, const RopeContext& context) {
  constexpr double least = 1e-3, most = 1e12;
  const auto theta = json.find("rope_theta"), scaling = json.find("rope_scaling"),
             parameters = json.find("rope_parameters");
  RopeConfig rope = parameters ? read_rope(*parameters, context)
                    : scaling  ? read_rope(*scaling, context)
                               : RopeConfig{};
  if (parameters && scaling && read_rope(*scaling, context) != rope) {
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
  rope.theta = value.value_or(context.theta);
  if (const auto stated = read_share(json, context)) {
    const bool inside = (parameters && parameters->find("partial_rotary_factor")) ||
                        (scaling && scaling->find("partial_rotary_factor"));
    if (inside && *stated != rope.share) {
      json.at("partial_rotary_factor").refuse(Json(rope.share).dump() + ", as elsewhere", Code::mismatch);
    }
    rope.share = *stated;
  }
  return rope;
}

/// Throws Error(mismatch) unless what is rotated of heads of width e is an even number of elements, for which there are
/// as many factors as they need.
inline void check_rope(const RopeConfig& rope, index_t e, const std::string& where) {
  const index_t width = rope.width(e);
  if (width < 2 || width % 2 != 0) {
    throw Error(Code::mismatch, where + ": partial_rotary_factor", "an even number of elements of a head",
                std::to_string(width) + " of " + std::to_string(e));
  }
  for (const auto* factors : {&rope.short_factor, &rope.long_factor}) {
    if (rope.type != RopeType::longrope || static_cast<index_t>(factors->size()) == width / 2) continue;
    throw Error(Code::mismatch, where + (factors == &rope.short_factor ? ": short_factor" : ": long_factor"),
                std::to_string(width / 2) + " factors", std::to_string(factors->size()));
  }
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
