// `finteam-convert team`: a team.json for a set of folders, opened as far as headers tell, and kept only if all of it
// is understood.
#pragma once

#include "../inspect/inspect.hpp"
#include "undo.hpp"

#include <finteam/team/team_tokenizer.hpp>

#include <filesystem>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

namespace convert {

using finteam::Json;

struct Team {
  std::vector<std::string> roles, gate;
  std::string base, chat, tokenizer, to, gate_file, of, mix_in = "probabilities";
  int top_k = 0;
  bool force = false;
};

/// "macro=path"
[[nodiscard]] inline std::pair<std::string, std::string> role_of(const std::string& text) {
  const std::size_t at = text.find('=');
  if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
    throw Error(Code::invalid_argument, "--role", "NAME=PATH", text);
  }
  return {text.substr(0, at), text.substr(at + 1)};
}

/// The gate of team.json: a word of docs/team.md, and numbers that are its prior. Nothing is made up: without a word
/// all roles weigh the same.
[[nodiscard]] inline Json gate_of(const Team& team, Links& links) {
  Json gate = {{"reads", team.gate.empty() ? "prior" : team.gate.front()}};
  for (std::size_t i = 1; i < team.gate.size(); ++i) {
    gate["prior"].push_back(finteam::parse_json(team.gate[i], "--gate: " + team.gate[i]));
  }
  if (gate["reads"] == "prior" && !gate.contains("prior")) gate["prior"] = std::vector<int>(team.roles.size(), 1);
  if (!team.gate_file.empty()) gate["file"] = links.inside(team.gate_file, "gate.safetensors");
  if (!team.of.empty()) gate["of"] = team.of;
  if (team.top_k > 0) gate["top_k"] = team.top_k;
  return gate;
}

[[nodiscard]] inline Json manifest_of(const Team& team, Links& links) {
  Json json = {{"finteam", 1}, {"roles", Json::array()}};
  if (!team.base.empty()) json["base"] = links.inside(team.base, "base");
  for (const std::string& text : team.roles) {
    const auto [name, path] = role_of(text);
    const auto has = [folder = fs::path(path)](const char* part) { return finteam::detail::is_there(folder / part); };
    if (team.base.empty() && (has("adapter_config.json") || has("delta_config.json")) && !has("config.json")) {
      throw Error(Code::invalid_argument, "role " + name, "--base, the checkpoint that this adapter is for", "none");
    }
    json["roles"].push_back({{"name", name}, {"path", links.inside(path, name)}});
  }
  if (team.roles.size() > 1) {
    json["gate"] = gate_of(team, links);
    json["mix_in"] = team.mix_in;
  }
  if (!team.chat.empty()) json["chat"] = team.chat;
  if (!team.tokenizer.empty()) json["tokenizer"] = links.inside(team.tokenizer, "tokenizer.json");
  return json;
}

/// Writes team.json, and keeps it if everything is understood that it speaks of.
inline int run(const Team& team) {
  const fs::path file = fs::path(team.to) / "team.json";
  if (finteam::detail::is_there(file) && !team.force) {
    throw Error(Code::invalid_argument, file.string(), "no such file, or --force", "a team.json");
  }
  Links links(team.to, team.force);
  const Json json = manifest_of(team, links);
  const finteam::Manifest manifest = finteam::read_manifest(finteam::JsonView(json, "team.json"));
  OldFile old(file);
  old.write(json.dump(2) + "\n");
  inspect::Report report = inspect::inspect_folder(team.to);
  if (!finteam::detail::is_there(finteam::detail::tokenizer_path(team.to, manifest))) {
    report.refused(
        {Code::not_found, team.to, "a tokenizer.json there, in the base or the first role, or --tokenizer", "none"});
  }
  report.print(std::cout);
  if (!report.refusals().empty()) {
    std::cerr << "finteam-convert: " << file.string() << " is not written: see what is not understood\n";
    return 1;
  }
  old.keep();
  links.keep();
  std::cout << "written: " << file.string() << "\n";
  return 0;
}

}  // namespace convert
