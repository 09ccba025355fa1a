// The sections about text: tokenizer, chat format, tasks.
#pragma once

#include "folder.hpp"

#include <finteam/team/team_tokenizer.hpp>
#include <finteam/text/chat.hpp>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace inspect {

/// The types of a part of a tokenizer.json; those of its steps where it is a sequence.
[[nodiscard]] inline Json types_of(const Json& part) {
  if (!part.is_object()) return nullptr;
  for (const char* steps : {"normalizers", "pretokenizers", "processors", "decoders"}) {
    if (!part.contains(steps) || !part[steps].is_array()) continue;
    Json types = Json::array();
    for (const Json& step : part[steps]) types.push_back(types_of(step));
    return types;
  }
  return part.value("type", Json());
}

/// Tokens that are structure, by id; people see the first few.
inline void add_special_tokens(Section& s, const finteam::Tokenizer& tokenizer) {
  constexpr std::size_t most = 6;
  Json special = Json::array();
  std::string text;
  for (std::int32_t id = 0; id < tokenizer.size(); ++id) {
    if (tokenizer.kind(id) != finteam::TokenKind::special) continue;
    const std::string content(tokenizer.bytes(id));
    if (special.size() < most) text += ", " + std::to_string(id) + ' ' + content;
    if (special.size() == most) text += ", …";
    special.push_back({{"id", id}, {"content", content}});
  }
  s.add("special_tokens", special, grouped(special.size()) + text);
  const auto ids = [&](std::string key, std::span<const std::int32_t> list) {
    std::string contents;
    for (const std::int32_t id : list) contents += (contents.empty() ? "" : " ") + std::string(tokenizer.bytes(id));
    s.add(std::move(key), Json(list), contents.empty() ? "none" : contents);
  };
  ids("before_a_text", tokenizer.prefix());
  ids("after_a_text", tokenizer.suffix());
}

/// The team's tokenizer, if it can be read. A checkpoint without one is understood: it has none.
inline std::optional<finteam::Tokenizer> add_tokenizer(const Folder& folder, Report& report) {
  Section s{"tokenizer", "tokenizer"};
  std::optional<finteam::Tokenizer> tokenizer;
  const auto path = folder.manifest.roles.empty() ? folder.path / "tokenizer.json"
                                                  : finteam::detail::tokenizer_path(folder.path, folder.manifest);
  if (folder.manifest.tokenizer.empty() && !finteam::detail::is_there(path)) {
    s.add("file", nullptr, "none: there is no tokenizer.json");
    const auto model = path.parent_path() / "tokenizer.model";
    if (finteam::detail::is_there(model)) {
      report.refused({finteam::Code::unsupported, model.lexically_normal().string(),
                      "a tokenizer.json, which the tokenizers package writes", "SentencePiece's model alone"});
    }
    report.add(std::move(s));
    return tokenizer;
  }
  s.add("file", path.lexically_normal().string());
  const auto file = report.attempt([&] { return finteam::JsonFile::open(path); });
  if (file) {
    const Json& json = file->root().json();
    for (const char* part : {"model", "normalizer", "pre_tokenizer", "decoder", "post_processor"}) {
      if (!json.is_object()) break;
      if (const Json types = types_of(json.value(part, Json())); !types.is_null()) s.add(part, types);
    }
    const bool known = !folder.models.empty() && folder.models.front().config;
    const index_t v = known ? folder.models.front().config->v : std::numeric_limits<std::int32_t>::max();
    tokenizer = report.attempt([&] { return finteam::detail::open_tokenizer(folder.path, folder.manifest, path, v); });
  }
  if (tokenizer) {
    s.add("size", tokenizer->size());
    add_special_tokens(s, *tokenizer);
  }
  report.add(std::move(s));
  return tokenizer;
}

/// The chat format, as far as it is known without a tokenizer. source: the chat template beside where that would be.
[[nodiscard]] inline std::optional<finteam::ChatLayout> chat_layout(const finteam::Manifest& m,
                                                                    const std::optional<finteam::Tokenizer>& tokenizer,
                                                                    const std::filesystem::path& path,
                                                                    const std::optional<finteam::ChatTemplate>& source,
                                                                    Report& report) {
  if (tokenizer) return report.attempt([&] { return finteam::detail::chat_of(m, *tokenizer, path); });
  if (m.chat) return m.chat;
  if (!source) return std::nullopt;
  return report.attempt([&] { return finteam::recognise_chat(*source); });
}

/// How conversations are written, and what says so.
inline void add_chat(const Folder& folder, const std::optional<finteam::Tokenizer>& tokenizer, Report& report) {
  Section s{"chat", "chat"};
  const finteam::Manifest& m = folder.manifest;
  const auto path = m.roles.empty() ? folder.path / "tokenizer.json" : finteam::detail::tokenizer_path(folder.path, m);
  const auto source =
      report.attempt([&] { return finteam::find_chat_template(path.parent_path()); }).value_or(std::nullopt);
  const auto layout = chat_layout(m, tokenizer, path, source, report);
  if (m.chat || source || tokenizer) s.add("from", m.chat ? folder.where : source ? source->where : "the default");
  if (layout) {
    s.add("format", layout->name);
  } else {
    s.add("format", nullptr, tokenizer || source ? "unknown" : "unknown without a tokenizer");
  }
  if (layout && tokenizer) {
    const auto format = report.attempt([&] { return finteam::ChatFormat(*layout, *tokenizer); });
    if (format && format->end_id()) {
      s.add("ends_a_reply", *format->end_id(), std::string(tokenizer->bytes(*format->end_id())));
    }
  }
  report.add(std::move(s));
}

/// Questions that a team.json describes.
inline void add_tasks(const Folder& folder, Report& report) {
  if (folder.manifest.tasks.empty()) return;
  Section s{"tasks", "tasks"};
  for (const auto& [name, task] : folder.manifest.tasks) {
    const auto file = folder.manifest.calibrations.find(name);
    const bool calibrated = file != folder.manifest.calibrations.end();
    if (calibrated) {
      report.attempt([&, &labels = task.labels] {
        return finteam::open_label_calibration(folder.path / file->second, labels.size());
      });
    }
    s.add(name,
          {{"instruction", task.instruction},
           {"input", task.input},
           {"labels", task.labels},
           {"prior", task.prior},
           {"calibration", calibrated ? Json(file->second) : Json()}},
          plain(task.labels) + (calibrated ? "; calibrated by " + file->second : ""));
  }
  report.add(std::move(s));
}

}  // namespace inspect
