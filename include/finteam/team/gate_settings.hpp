// What team.json says of the gate: what it reads, when, and how its scores become weights. Data only.
#pragma once

#include <finteam/file/json_view.hpp>
#include <finteam/mix/gate.hpp>
#include <finteam/mix/running_performance.hpp>

#include <algorithm>
#include <array>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What a gate's scores are made of.
enum class GateReads : std::uint8_t {
  prior,           ///< nothing: log prior
  mean_hidden,     ///< a linear map of the mean state of the tokens so far, in one role
  last_hidden,     ///< … of the last token's state
  mean_embedding,  ///< … of the mean input embedding: no role has to read for it
  likelihood,      ///< log prior + each role's own log-likelihood of the tokens so far (Li et al. 2022, BTM)
  performance,     ///< what the host reported of each role's answers so far (Saqur et al. 2024, MoE-F)
};

/// What team.json calls them.
inline constexpr std::array<std::string_view, 6> gate_reads_names = {
    "prior", "prompt_mean_hidden", "prompt_last_hidden", "prompt_mean_embedding", "prompt_likelihood", "performance"};

/// A gate's settings.
struct GateSettings {
  GateReads reads = GateReads::mean_hidden;
  std::string file;              ///< of a linear gate: a safetensors file with weight [roles, d] and bias [roles]
  std::size_t of = 0;            ///< the role whose states or embeddings it reads; the number of roles: the base
  std::optional<index_t> layer;  ///< states after so many blocks; none: after the last and the final norm
  bool per_token = false;        ///< weighs anew for every token, by all that came before it; false: by the prompt
  std::vector<double> prior;     ///< by role, > 0; empty: all equal
  GateRule rule;
  RunningPerformanceOptions performance;

  [[nodiscard]] bool is_linear() const noexcept {
    return reads == GateReads::mean_hidden || reads == GateReads::last_hidden || reads == GateReads::mean_embedding;
  }
  /// Whether it reads what a role makes of the text.
  [[nodiscard]] bool reads_states() const noexcept {
    return reads == GateReads::mean_hidden || reads == GateReads::last_hidden;
  }
};

namespace detail {

/// A path that stays in its folder (symbolic links are followed): relative, and without "..". One with a zero byte
/// would end there for the system.
[[nodiscard]] inline std::string inner_path(const JsonView& json) {
  const std::filesystem::path path = json.as_string();
  bool climbs = path.empty() || path.is_absolute() ||
                json.as_string().find_first_of(std::string_view("\\\0", 2)) != std::string::npos;
  for (const auto& part : path) climbs = climbs || part == "..";
  if (climbs) json.refuse("a path inside the team's folder");
  return json.as_string();
}

/// Which role a name is; `names.size()` for "base", where there is one.
[[nodiscard]] inline std::size_t role_of(const JsonView& json, const std::vector<std::string>& names, bool has_base) {
  for (std::size_t k = 0; k < names.size(); ++k) {
    if (names[k] == json.as_string()) return k;
  }
  if (!has_base || json.as_string() != "base") {
    json.refuse(has_base ? "the name of a role, or base" : "the name of a role", Code::not_found);
  }
  return names.size();
}

/// Keys that say something to this gate; others are refused.
[[nodiscard]] inline std::vector<std::string_view> gate_keys(const GateSettings& gate) {
  std::vector<std::string_view> keys = {"reads", "per", "top_k", "temperature", "floor", "renormalise"};
  if (gate.is_linear()) keys.insert(keys.end(), {"file", "of"});
  if (gate.reads_states()) keys.push_back("layer");
  if (!gate.is_linear()) keys.push_back("prior");
  if (gate.reads == GateReads::performance) keys.insert(keys.end(), {"switch_probability", "rate"});
  return keys;
}

inline void read_prior(const JsonView& json, std::size_t roles, std::vector<double>& prior) {
  json.each([&](const JsonView& p) {
    if (!(p.as_number() > 0)) p.refuse("a number above 0");
    prior.push_back(p.as_number());
  });
  if (prior.size() != roles) json.refuse(std::to_string(roles) + " numbers, one for each role", Code::mismatch);
}

/// names: the roles'.
[[nodiscard]] inline GateSettings read_gate(const JsonView& json, const std::vector<std::string>& names,
                                            bool has_base) {
  GateSettings gate;
  gate.reads = static_cast<GateReads>(one_of(json.at("reads"), gate_reads_names));
  const auto known = gate_keys(gate);
  json.each_member([&](std::string_view key, const JsonView& value) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      value.refuse("nothing: this gate has no use for it", Code::unsupported);
    }
  });
  if (gate.is_linear()) {
    gate.file = inner_path(json.at("file"));
    gate.of = role_of(json.at("of"), names, has_base);
  }
  if (const auto layer = json.find("layer")) gate.layer = static_cast<index_t>(layer->as_int(0, 1'000));
  if (const auto prior = json.find("prior")) read_prior(*prior, names.size(), gate.prior);
  if (gate.reads == GateReads::prior) (void)json.at("prior");
  if (const auto per = json.find("per")) {
    gate.per_token = one_of(*per, {"prompt", "token"}) == 1;
    if (gate.per_token && !gate.is_linear() && gate.reads != GateReads::likelihood) {
      per->refuse("prompt: this gate reads no tokens", Code::mismatch);
    }
  }
  const auto n = static_cast<std::int64_t>(names.size());
  gate.rule.top_k = json.int_or("top_k", n, 1, n);
  gate.rule.temperature = json.number_or("temperature", 1.0, 1e-6, 1e6);
  gate.rule.floor = json.number_or("floor", 0.0, 0.0, 1.0 / static_cast<double>(n));
  gate.rule.renormalise = json.bool_or("renormalise", true);
  gate.performance.switch_probability = json.number_or("switch_probability", 0.02, 0, 0.999);
  gate.performance.rate = json.number_or("rate", 1.0, 0, 1e6);
  return gate;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
