// Which known family a checkpoint's own chat template is: by marks in its text, which is never run.
// Not here: the marks (chat_marks.hpp), the formats (chat_families.hpp).
#pragma once

#include <finteam/file/json_view.hpp>
#include <finteam/text/chat_formats.hpp>
#include <finteam/text/chat_marks.hpp>
#include <finteam/text/chat_template.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace finteam::inline FINTEAM_ABI {

/// A checkpoint's own chat template.
struct ChatTemplate {
  std::string where;                    ///< its file and key
  std::string text;                     ///< Jinja
  std::optional<std::string> bos, eos;  ///< what its bos_token and eos_token are, where the checkpoint says it
};

namespace detail {

inline constexpr std::size_t max_template_bytes = 1 << 20;

/// f(line) for every line that is not empty, until one gives false; whether none did.
template <class F>
[[nodiscard]] bool every_line(std::string_view lines, F&& f) {
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find('\n'), lines.size());
    if (end != 0 && !f(lines.substr(0, end))) return false;
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  return true;
}

/// Whether every <|…|> in the code is one of the format's tokens or markers, or stands aside.
[[nodiscard]] inline bool knows_tokens(std::string_view code, const ChatLayout& layout, std::string_view aside) {
  for (std::size_t at = code.find("<|"); at != std::string_view::npos; at = code.find("<|", at + 2)) {
    const std::size_t end = code.find_first_of("|'", at + 2);
    if (end == std::string_view::npos || !code.substr(end).starts_with("|>")) continue;
    const std::string_view token = code.substr(at, end + 2 - at);
    const auto in = [&](const auto& list) { return std::find(list.begin(), list.end(), token) != list.end(); };
    const bool known = in(layout.tokens) || in(layout.markers) ||
                       !every_line(aside, [&](std::string_view line) { return line != token; });
    if (!known) return false;
  }
  return true;
}

/// What the template writes outside blocks is what it should be. Where it is something, white space beside it belongs
/// to turns with tools.
[[nodiscard]] inline bool has_raw(std::string_view found, std::string_view wanted) {
  std::size_t pieces = 0;
  while (!found.empty()) {
    const std::string_view piece = found.substr(0, found.find('\0'));
    found.remove_prefix(piece.size() + 1);
    const bool blank = piece.find_first_not_of(" \t\r\n") == std::string_view::npos;
    if (!(blank && !wanted.empty()) && (piece != wanted || ++pieces > 1)) return false;
  }
  return pieces == (wanted.empty() ? 0 : 1);
}

[[nodiscard]] inline bool has_marks(const ChatTemplate& source, const TemplateText& text, const ChatMarks& marks) {
  const auto in_code = [&](std::string_view line) { return text.code.find(line) != std::string::npos; };
  const bool all =
      every_line(marks.all, in_code) && every_line(marks.never, [&](std::string_view line) { return !in_code(line); });
  if (!all || !has_raw(text.raw, marks.raw)) return false;
  if ((!marks.bos.empty() && source.bos && *source.bos != marks.bos) ||
      (!marks.eos.empty() && source.eos && *source.eos != marks.eos)) {
    return false;
  }
  return knows_tokens(text.code, chat_layout(marks.family, source.where), marks.aside);
}

/// A special token as tokenizer_config.json writes it: a string, or an object that holds it.
[[nodiscard]] inline std::optional<std::string> read_special(const JsonView& config, std::string_view key) {
  const auto token = config.find(key);
  if (!token) return std::nullopt;
  return token->is_object() ? token->at("content").as_string() : token->as_string();
}

/// A template, or the one of several that is named "default".
[[nodiscard]] inline ChatTemplate read_template_key(const JsonView& key) {
  if (!key.is_array()) return {key.where(), key.as_string(), {}, {}};
  std::optional<ChatTemplate> found;
  key.each([&](const JsonView& named) {
    if (named.at("name").as_string() != "default") return;
    if (found) named.at("name").refuse("one template of that name");
    found = {named.at("template").where(), named.at("template").as_string(), {}, {}};
  });
  if (!found) key.refuse("a template named default", Code::unsupported);
  return *found;
}

}  // namespace detail

/// The chat template of a checkpoint's folder: chat_template.jinja, else tokenizer_config.json's "chat_template".
/// Nothing where neither says one. Throws Error as MappedFile::open and JsonView.
[[nodiscard]] inline std::optional<ChatTemplate> find_chat_template(const std::filesystem::path& folder) {
  std::error_code ignored;
  const auto there = [&](const char* name) { return std::filesystem::exists(folder / name, ignored); };
  std::optional<ChatTemplate> found;
  if (there("chat_template.jinja")) {
    const MappedFile file = MappedFile::open(folder / "chat_template.jinja");
    found = {detail::file_label(folder / "chat_template.jinja"), std::string(file.text()), {}, {}};
  }
  if (there("tokenizer_config.json")) {
    const JsonFile file = JsonFile::open(folder / "tokenizer_config.json");
    if (const auto key = file.root().find("chat_template"); key && !found) found = detail::read_template_key(*key);
    if (found) {
      found->bos = detail::read_special(file.root(), "bos_token");
      found->eos = detail::read_special(file.root(), "eos_token");
    }
  }
  return found;
}

/// The known family's format that a template writes. Throws Error(unsupported) for a template that is no known
/// family's, or not only; limit_exceeded for one of more than 1 MiB.
[[nodiscard]] inline ChatLayout recognise_chat(const ChatTemplate& source) {
  if (source.text.size() > detail::max_template_bytes) {
    throw Error(Code::limit_exceeded, source.where, "a template of at most 1 MiB",
                std::to_string(source.text.size()) + " bytes");
  }
  const detail::TemplateText text = detail::TemplateReader::read(source.text);
  std::string_view family;
  for (const detail::ChatMarks& marks : detail::chat_marks) {
    if (!detail::has_marks(source, text, marks)) continue;
    if (!family.empty()) family = "?";
    if (family.empty()) family = marks.family;
  }
  if (family.empty() || family == "?") {
    throw Error(Code::unsupported, source.where,
                "the chat template of a known family, or \"chat\" in team.json (docs/team.md), by name (" +
                    detail::family_names() + ") or declared",
                "a template that begins " + detail::in_quotes(source.text));
  }
  return chat_layout(family, source.where);
}

}  // namespace finteam::inline FINTEAM_ABI
