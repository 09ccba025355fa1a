// team.json, read and checked: the roles, the gate, the mix, the chat format and the tasks. Data only; nothing is
// opened.
#pragma once

#include <finteam/mix/mixture.hpp>
#include <finteam/team/gate_settings.hpp>
#include <finteam/team/task.hpp>
#include <finteam/text/chat_formats.hpp>

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What team.json says. Paths are relative to its folder.
struct Manifest {
  struct Role {
    std::string name, path;
  };

  static constexpr JsonLimits limits{.depth = 16, .values = 200'000, .bytes = 1 << 24};

  std::vector<Role> roles;
  std::string base;    ///< a path; the roles' are then adapters on it; empty: each role is a checkpoint
  std::string merged;  ///< a path, that of every role: a merged checkpoint, whose experts they are, in its order
  std::optional<GateSettings> gate;  ///< none for a team of one, or a merged one: its routers are the gate
  MixIn mix_in = MixIn::probabilities;
  std::optional<ChatLayout> chat;        ///< none: the one of the checkpoint's own template
  std::string default_chat = "llama-3";  ///< where there is no template; empty: llama-3 if the tokenizer can, or none
  std::string tokenizer;  ///< a path; empty: tokenizer.json in the team's folder, else in the first role's
  std::map<std::string, Task, std::less<>> tasks;
  std::map<std::string, std::string, std::less<>> calibrations;  ///< by task, where it names one: a path

  /// Whether the roles' common decoder is read besides them: by the gate, or as the answer, which is mixed inside.
  [[nodiscard]] bool has_base_lane() const noexcept {
    return !merged.empty() || (!base.empty() && (mix_in == MixIn::deltas || gate_reads_base()));
  }
  /// Whether the gate reads the states of the base.
  [[nodiscard]] bool gate_reads_base() const noexcept {
    return gate && gate->reads_states() && gate->of == roles.size();
  }
  /// Sequences that one decoder reads side by side.
  [[nodiscard]] index_t lanes() const noexcept {
    return base.empty() ? 1 : static_cast<index_t>(roles.size()) + (has_base_lane() ? 1 : 0);
  }
};

namespace detail {

inline constexpr index_t most_roles = 64;

/// Throws Error as JsonView; mismatch for most_labels without a calibration, whose set it counts.
[[nodiscard]] inline Abstain read_abstain(const JsonView& json, bool calibrated) {
  only_keys(json, {"least_probability", "greatest_entropy", "greatest_disagreement", "most_labels"});
  Abstain rule;
  rule.least_probability = json.number_or("least_probability", rule.least_probability, 0, 1);
  if (const auto x = json.find("greatest_entropy")) rule.greatest_entropy = x->as_number(0, 64);
  if (const auto x = json.find("greatest_disagreement")) rule.greatest_disagreement = x->as_number(0, 64);
  if (const auto x = json.find("most_labels")) {
    if (!calibrated) x->refuse("nothing: the task names no calibration, whose coverage it needs", Code::mismatch);
    rule.most_labels = x->as_int(1, 1'000'000);
  }
  return rule;
}

[[nodiscard]] inline Task read_task(const JsonView& json) {
  only_keys(json, {"instruction", "input", "labels", "prior", "calibration", "abstain"});
  Task task{
      .instruction = json.string_or("instruction", ""), .input = json.string_or("input", text_slot), .labels = {}};
  json.at("labels").each([&](const JsonView& label) { task.labels.push_back(label.as_string()); });
  if (const auto prior = json.find("prior")) {
    prior->each([&](const JsonView& p) { task.prior.push_back(p.as_number()); });
  }
  if (const auto rule = json.find("abstain")) task.abstain = read_abstain(*rule, json.find("calibration").has_value());
  check_task(task, json.where());
  return task;
}

}  // namespace detail

/// Throws Error that names the key: not_found, malformed, unsupported (a gate, mix or version of a later finteam),
/// mismatch (several roles and no gate, a mix of deltas without a base, a merged team with a gate or a base).
[[nodiscard]] inline Manifest read_manifest(const JsonView& json) {
  (void)json.at("finteam").as_int(1, 1);
  detail::only_keys(json, {"finteam", "roles", "base", "merged", "tokenizer", "gate", "mix_in", "chat", "tasks"});
  Manifest m;
  if (const auto merged = json.find("merged")) {
    m.merged = detail::inner_path(*merged);
    m.mix_in = MixIn::experts;
    for (const char* key : {"base", "gate", "mix_in"}) {
      if (const auto x = json.find(key)) x->refuse("null: a merged team's routers are the gate", Code::mismatch);
    }
  }
  const JsonView roles = json.at("roles");
  if (roles.size() < 1 || roles.size() > static_cast<std::size_t>(detail::most_roles)) {
    roles.refuse("1 to " + std::to_string(detail::most_roles) + " roles");
  }
  roles.each([&](const JsonView& role) {
    detail::only_keys(role, {"name", "path"});
    if (const auto path = role.find("path"); path && !m.merged.empty()) {
      path->refuse("null: the path of all is merged", Code::mismatch);
    }
    Manifest::Role r{role.at("name").as_string(), m.merged.empty() ? detail::inner_path(role.at("path")) : m.merged};
    if (r.name.empty()) role.at("name").refuse("a name");
    for (const auto& other : m.roles) {
      if (other.name == r.name) role.at("name").refuse("a name that no other role has");
    }
    m.roles.push_back(std::move(r));
  });
  if (const auto base = json.find("base")) m.base = detail::inner_path(*base);
  for (const auto& role : m.roles) {
    if (role.name == "base" && !m.base.empty()) roles.refuse("names other than base, which is the base's");
  }
  std::vector<std::string> names;
  for (const auto& role : m.roles) names.push_back(role.name);
  const auto gate = json.find("gate");
  if (gate) m.gate = detail::read_gate(*gate, names, !m.base.empty());
  if (m.roles.size() > 1 && !m.gate && m.merged.empty()) {
    throw Error(Code::mismatch, json.where(), "a gate, for " + std::to_string(m.roles.size()) + " roles", "none");
  }
  if (const auto mix = json.find("mix_in")) {
    m.mix_in = static_cast<MixIn>(detail::one_of(*mix, {"probabilities", "logits", "deltas"}));
    if (m.mix_in == MixIn::deltas && m.base.empty()) mix->refuse("deltas only with a base", Code::mismatch);
  }
  if (m.gate && !m.gate->rule.renormalise && m.mix_in == MixIn::probabilities) {
    gate->at("renormalise").refuse("true, where probabilities are mixed", Code::mismatch);
  }
  if (m.gate && m.gate->per_token && m.mix_in == MixIn::deltas && m.gate_reads_base()) {
    gate->at("of").refuse("a role, where the base's own states are those of the answer", Code::unsupported);
  }
  if (const auto chat = json.find("chat")) m.chat = chat_layout(*chat);
  if (const auto tokenizer = json.find("tokenizer")) m.tokenizer = detail::inner_path(*tokenizer);
  if (const auto tasks = json.find("tasks")) {
    tasks->each_member([&](std::string_view name, const JsonView& t) {
      const Task task = detail::read_task(t);
      if (!m.merged.empty() && std::isfinite(task.abstain.greatest_disagreement)) {
        t.at("abstain")
            .at("greatest_disagreement")
            .refuse("null: a merged team's roles do not answer for themselves", Code::mismatch);
      }
      m.tasks.emplace(name, task);
      if (const auto file = t.find("calibration")) m.calibrations.emplace(name, detail::inner_path(*file));
    });
  }
  return m;
}

}  // namespace finteam::inline FINTEAM_ABI
