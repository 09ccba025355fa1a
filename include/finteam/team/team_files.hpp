// A team's folder, opened and checked as far as headers and configs tell: the manifest, the models' files, and what
// roles bring to a shared base. Not here: weights (team.hpp, which loads them; plan.hpp, which only counts them).
#pragma once

#include <finteam/expert/lora.hpp>
#include <finteam/expert/low_bit.hpp>
#include <finteam/team/manifest.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Whether a folder has an entry of that name, be it a broken link: opening it then says what is wrong.
[[nodiscard]] inline bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::symlink_status(path, error).type() != std::filesystem::file_type::not_found;
}

/// What a team's folder says before any weight is read.
struct TeamFiles {
  std::string where;  ///< what errors call team.json, or the folder
  Manifest manifest;
  std::vector<Config> configs;  ///< by model: the base's, or each role's
  std::vector<Checkpoint> checkpoints;
  std::vector<ExpertSource> experts;  ///< by role, on the base

  /// Positions that every role was trained for.
  [[nodiscard]] index_t context() const {
    return std::min_element(configs.begin(), configs.end(),
                            [](const Config& a, const Config& b) { return a.max_positions < b.max_positions; })
        ->max_positions;
  }
};

/// An adapter or a difference, whichever is in `folder`, to a base of that config.
[[nodiscard]] inline ExpertSource open_expert(const std::filesystem::path& folder, const Checkpoint& base,
                                              const Config& config, BaseCheck check) {
  if (is_there(folder / "adapter_config.json")) return open_lora(folder, base, config);
  if (!is_there(folder / "delta_config.json")) {
    throw Error(Code::not_found, folder.string(),
                "adapter_config.json (LoRA) or delta_config.json (a low-bit difference)", "neither");
  }
  return open_low_bit(folder, base, config, check);
}

/// Errors as open_team.
[[nodiscard]] inline TeamFiles open_team_files(const std::filesystem::path& folder, BaseCheck check) {
  TeamFiles files;
  files.where = folder.string();
  if (is_there(folder / "team.json")) {
    const JsonFile file = JsonFile::open(folder / "team.json", Manifest::limits);
    files.where = file.where();
    files.manifest = read_manifest(file.root());
  } else {
    files.manifest.default_chat.clear();
    if (const Config config = read_config(folder / "."); config.is_routed()) {
      files.manifest.merged = ".";
      files.manifest.mix_in = MixIn::experts;
      if (config.experts > most_roles) {
        throw Error(Code::limit_exceeded, config.where, "at most " + std::to_string(most_roles) + " experts, as roles",
                    std::to_string(config.experts));
      }
      for (index_t k = 0; k < config.experts; ++k) {
        files.manifest.roles.push_back({"expert " + std::to_string(k), "."});
      }
    } else {
      files.manifest.roles.push_back({"expert", "."});
    }
  }
  const Manifest& m = files.manifest;
  if (!m.base.empty()) {
    files.configs.push_back(read_config(folder / m.base));
    if (files.configs.front().is_routed()) {
      throw Error(Code::unsupported, files.configs.front().where, "a plain base", "experts behind routers");
    }
    files.checkpoints.push_back(Checkpoint::open(folder / m.base));
    for (const auto& role : m.roles) {
      files.experts.push_back(open_expert(folder / role.path, files.checkpoints.front(), files.configs.front(), check));
      const ExpertSource& expert = files.experts.back();
      if (m.mix_in == MixIn::deltas && expert.has_own()) {
        throw Error(Code::unsupported, files.where + ": role " + printable(role.name),
                    "nothing but deltas, which mix_in sums", "tensors of its own in place of the base's");
      }
    }
    return files;
  }
  if (!m.merged.empty()) {
    files.configs.push_back(read_config(folder / m.merged));
    const Config& config = files.configs.front();
    const auto n = config.is_routed() ? config.experts : 0;
    if (n != static_cast<index_t>(m.roles.size())) {
      throw Error(Code::mismatch, config.where,
                  std::to_string(m.roles.size()) + " experts behind routers, for as many roles",
                  n == 0 ? "a plain model" : std::to_string(n));
    }
    files.checkpoints.push_back(Checkpoint::open(folder / m.merged));
    return files;
  }
  for (const auto& role : m.roles) {
    files.configs.push_back(read_config(folder / role.path));
    files.checkpoints.push_back(Checkpoint::open(folder / role.path));
    const index_t v = files.configs.back().v, first = files.configs.front().v;
    if (v != first) {
      throw Error(Code::mismatch, files.where + ": role " + printable(role.name),
                  "a vocabulary of " + std::to_string(first) + " tokens, as role " + m.roles.front().name + " has",
                  std::to_string(v));
    }
  }
  return files;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
