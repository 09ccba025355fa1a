// A folder as far as headers and configs tell, opened in spite of what is refused: team.json, or a checkpoint, or an
// adapter on a base that is named. Not here: what is said of it (model.hpp, team.hpp).
#pragma once

#include "report.hpp"

#include <finteam/expert/source_weights.hpp>
#include <finteam/team/team_files.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace inspect {

/// A decoder's files.
struct Model {
  std::string name, path;
  std::optional<finteam::Config> config{};
  std::optional<finteam::Checkpoint> checkpoint{};
  std::vector<finteam::SourceWeight> weights{};  ///< empty: not all that the config asks for, or more
};

/// What a role adds to a base.
struct Addition {
  std::string name, path;
  std::optional<std::size_t> expert{};  ///< which of the folder's; none: it was refused
};

/// What is there.
struct Folder {
  std::filesystem::path path;
  std::string where;     ///< what errors call its team.json, or the folder
  bool is_team = false;  ///< there is a team.json
  std::string base{};    ///< of roles that are adapters, as it was named
  finteam::Manifest manifest{};
  std::vector<Model> models{};  ///< a base, a merged checkpoint, or one for each role
  std::vector<Addition> additions{};
  std::vector<finteam::ExpertSource> experts{};

  /// Whether the roles are experts inside of one checkpoint.
  [[nodiscard]] bool is_merged() const noexcept { return !manifest.merged.empty(); }
};

/// The longest key of a file's object that the place of an Error begins with; empty: none.
[[nodiscard]] inline std::string key_of(const finteam::Error& e, const std::string& where, const Json& json) {
  std::string longest;
  if (!json.is_object()) return longest;
  for (const auto& [key, value] : json.items()) {
    const std::string place = where + ": " + key;
    if (!e.where().starts_with(place)) continue;
    const std::string_view rest = std::string_view(e.where()).substr(place.size());
    if ((rest.empty() || rest.starts_with('.') || rest.starts_with('[')) && key.size() > longest.size()) longest = key;
  }
  return longest;
}

/// What read(json) gives. Where it refuses a key of the file as unsupported, the refusal is noted and the rest is read
/// without that key; nothing if that does not help, or there are too many of them.
template <class Read>
auto read_the_rest(const finteam::JsonFile& file, Report& report, Read&& read) {
  using Result = std::optional<std::invoke_result_t<Read, const Json&>>;
  constexpr int most = 20;  // refusals: each costs a reading
  Json json = file.root().json();
  for (int i = 0; i < most; ++i) {
    try {
      return Result(read(std::as_const(json)));
    } catch (const finteam::Error& e) {
      report.refused(e);
      const std::string refused = key_of(e, file.where(), json);
      if (e.code() != finteam::Code::unsupported || refused.empty() || refused == "model_type") return Result();
      json.erase(refused);
    }
  }
  return Result();
}

/// The config of a checkpoint's folder, as finteam::read_config reads it.
[[nodiscard]] inline std::optional<finteam::Config> read_config(const std::filesystem::path& folder, Report& report) {
  const finteam::JsonLimits limits{.values = 100'000, .bytes = std::size_t{1} << 24};
  const auto file = report.attempt([&] { return finteam::JsonFile::open(folder / "config.json", limits); });
  if (!file) return std::nullopt;
  auto config =
      read_the_rest(*file, report, [&](const Json& json) { return finteam::parse_config(json.dump(), file->where()); });
  const auto generation = folder / "generation_config.json";
  if (config && finteam::detail::is_there(generation)) {
    report.attempt([&] {
      finteam::merge_generation_config(finteam::read_text_file(generation, limits.bytes),
                                       finteam::detail::file_label(generation), *config);
      return true;
    });
  }
  return config;
}

[[nodiscard]] inline Model open_model(const std::filesystem::path& folder, std::string name, std::string path,
                                      Report& report) {
  Model model{.name = std::move(name), .path = std::move(path)};
  model.config = read_config(folder / model.path, report);
  model.checkpoint = report.attempt([&] { return finteam::Checkpoint::open(folder / model.path); });
  if (model.config && model.checkpoint) {
    auto weights = report.attempt([&] { return finteam::find_weights(*model.checkpoint, *model.config, {}); });
    if (weights) model.weights = std::move(*weights);
  }
  return model;
}

/// What team.json says; or what a folder without one is: a team of one, or of its experts.
inline void read_manifest(Folder& folder, const std::filesystem::path& base, Report& report) {
  finteam::Manifest& m = folder.manifest;
  if (folder.is_team) {
    const auto file =
        report.attempt([&] { return finteam::JsonFile::open(folder.path / "team.json", finteam::Manifest::limits); });
    if (!file) return;
    folder.where = file->where();
    auto read = read_the_rest(*file, report, [&](const Json& json) {
      return finteam::read_manifest(finteam::JsonView(json, file->where()));
    });
    if (read) m = std::move(*read);
    folder.base = m.base;
    return;
  }
  m.default_chat.clear();
  const auto has = [&](const char* file) { return finteam::detail::is_there(folder.path / file); };
  const bool is_addition = !has("config.json") && (has("adapter_config.json") || has("delta_config.json"));
  m.roles.push_back({is_addition || !base.empty() ? "adapter" : "expert", "."});
  if (!base.empty()) {
    folder.base = base.string();
    m.base = std::filesystem::absolute(base).string();
  } else if (is_addition) {
    report.refused({finteam::Code::not_found, folder.where, "--base, the checkpoint that this adapter is for", "none"});
    m.roles.clear();
  }
}

/// Opens a folder; base: where that of an adapter lies, if that is what the folder is.
[[nodiscard]] inline Folder open_folder(const std::filesystem::path& path, const std::filesystem::path& base,
                                        Report& report) {
  Folder folder{.path = path, .where = path.string()};
  folder.is_team = finteam::detail::is_there(path / "team.json");
  read_manifest(folder, base, report);
  finteam::Manifest& m = folder.manifest;
  if (!m.base.empty()) {
    folder.models.push_back(open_model(path, "base", m.base, report));
    const Model& model = folder.models.front();
    for (const auto& role : m.roles) {
      Addition addition{role.name, role.path};
      if (model.config && model.checkpoint) {
        auto expert = report.attempt([&] {
          return finteam::detail::open_expert(path / role.path, *model.checkpoint, *model.config,
                                              finteam::BaseCheck::headers);
        });
        if (expert) {
          addition.expert = folder.experts.size();
          folder.experts.push_back(std::move(*expert));
        }
      }
      folder.additions.push_back(std::move(addition));
    }
  } else if (folder.is_merged()) {
    folder.models.push_back(open_model(path, "merged", m.merged, report));
  } else {
    for (const auto& role : m.roles) folder.models.push_back(open_model(path, role.name, role.path, report));
  }
  if (!folder.is_team && !folder.models.empty() && folder.models.front().config &&
      folder.models.front().config->is_routed()) {
    m.merged = ".";
    m.mix_in = finteam::MixIn::experts;
  }
  return folder;
}

}  // namespace inspect
