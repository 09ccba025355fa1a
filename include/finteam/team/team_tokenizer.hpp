// A team's one tokenizer, where it lies and that no role's folder holds another; and the chat format that goes with it.
// Not here: what a tokenizer.json says (text/tokenizer.hpp), what a chat template is (text/chat_recognition.hpp).
#pragma once

#include <finteam/team/team_files.hpp>
#include <finteam/text/chat_recognition.hpp>
#include <finteam/text/tokenizer.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI::detail {

/// Where it lies: where team.json says, else in the team's folder, else in the base's or the first role's.
[[nodiscard]] inline std::filesystem::path tokenizer_path(const std::filesystem::path& folder, const Manifest& m) {
  const std::filesystem::path path = folder / (m.tokenizer.empty() ? "tokenizer.json" : m.tokenizer);
  if (!m.tokenizer.empty() || is_there(path)) return path;
  return folder / (m.base.empty() ? m.roles.front().path : m.base) / "tokenizer.json";
}

/// Throws Error(mismatch) if there is a tokenizer at `own` whose tokens are not those of the team's, at `path`.
inline void refuse_other_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& path,
                                   const std::filesystem::path& own) {
  if (!is_there(own) || MappedFile::open(own).text() == MappedFile::open(path).text()) return;
  const Tokenizer other = Tokenizer::open(own);
  bool same = other.size() == tokenizer.size();
  for (std::int32_t id = 0; same && id < other.size(); ++id) {
    same = other.kind(id) == tokenizer.kind(id) &&
           (other.kind(id) == TokenKind::absent || other.bytes(id) == tokenizer.bytes(id));
  }
  if (!same) throw Error(Code::mismatch, other.where(), "the tokens of " + tokenizer.where(), "others");
}

/// The tokenizer at `path`, for roles of a vocabulary of v. Throws Error as Tokenizer::open; mismatch for an id beyond
/// the vocabulary, or a role or a base with another tokenizer.
[[nodiscard]] inline Tokenizer open_tokenizer(const std::filesystem::path& folder, const Manifest& m,
                                              const std::filesystem::path& path, index_t v) {
  Tokenizer tokenizer = Tokenizer::open(path);
  if (!m.base.empty()) refuse_other_tokenizer(tokenizer, path, folder / m.base / "tokenizer.json");
  for (const auto& role : m.roles) refuse_other_tokenizer(tokenizer, path, folder / role.path / "tokenizer.json");
  if (tokenizer.size() > v) {
    throw Error(Code::mismatch, path.string(), "ids below the roles' vocabulary of " + std::to_string(v),
                std::to_string(tokenizer.size() - 1));
  }
  return tokenizer;
}

/// The chat format: team.json's, or that of the chat template beside the tokenizer, which lies at `path`, or the
/// default. Throws Error as find_chat_template and recognise_chat.
[[nodiscard]] inline ChatLayout chat_of(const Manifest& m, const Tokenizer& tokenizer,
                                        const std::filesystem::path& path) {
  if (m.chat) return *m.chat;
  if (const auto source = find_chat_template(path.parent_path())) return recognise_chat(*source);
  const std::string_view otherwise = tokenizer.token("<|start_header_id|>") ? "llama-3" : "none";
  return chat_layout(m.default_chat.empty() ? otherwise : std::string_view(m.default_chat), path.string());
}

}  // namespace finteam::inline FINTEAM_ABI::detail
