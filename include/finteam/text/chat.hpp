// Chat formats: from messages to the ids that a model was tuned on. Structure is put together from token ids, and every
// content is tokenised apart, so that no content can become structure. Not here: templates as text.
#pragma once

#include <finteam/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Who speaks. (A team's roles are another thing.)
enum class ChatRole : std::uint8_t { system, user, assistant };

/// One turn of a conversation. The content is not owned.
struct Message {
  ChatRole role = ChatRole::user;
  std::string_view content;
};

/// The text without the whitespace at its ends, as Python's str.strip (and so a template's `trim`) sees whitespace.
/// Source: CPython, Objects/unicodeobject.c, _PyUnicode_IsWhitespace (bidirectional types WS, B, S and category Zs).
[[nodiscard]] inline std::string_view strip(std::string_view text) noexcept {
  const auto is_space = [](std::string_view character) {
    const char32_t c = detail::utf8_decode(character);
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
  };
  const auto is_character = [](std::string_view s) {
    const detail::Utf8Step step = detail::utf8_step(s);
    return step.kind == detail::Utf8Step::Kind::complete && step.bytes == s.size();
  };
  for (std::size_t n = 1; n <= 4 && n <= text.size();) {
    const std::string_view first = text.substr(0, n);
    const bool space = is_character(first) && is_space(first);
    if (space) text.remove_prefix(n);
    n = space ? 1 : n + 1;
  }
  for (std::size_t n = 1; n <= 4 && n <= text.size();) {
    const std::string_view last = text.substr(text.size() - n);
    const bool space = is_character(last) && is_space(last);
    if (space) text.remove_suffix(n);
    n = space ? 1 : n + 1;
  }
  return text;
}

/// A family's way to write a conversation. Immutable; made for one tokenizer and used with it.
class ChatFormat {
 public:
  /// <|begin_of_text|>, then for each message <|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>, then
  /// the header of the assistant's turn; content without the whitespace at its ends. Throws Error(mismatch) if the
  /// tokenizer lacks one of these four, or has it as an ordinary token that text could spell. Source:
  /// meta-llama/llama-models, models/llama3/chat_format.py; ids as transformers' apply_chat_template gives them.
  [[nodiscard]] static ChatFormat llama3(const Tokenizer& tokenizer) {
    ChatFormat f(tokenizer);
    f.start_ = {structure(tokenizer, "<|begin_of_text|>")};
    const std::int32_t start_header = structure(tokenizer, "<|start_header_id|>");
    const std::int32_t end_header = structure(tokenizer, "<|end_header_id|>");
    for (const ChatRole role : {ChatRole::system, ChatRole::user, ChatRole::assistant}) {
      std::vector<std::int32_t>& header = f.headers_[static_cast<std::size_t>(role)];
      header = {start_header};
      for (const std::int32_t id : tokenizer.encode(name(role))) header.push_back(id);
      header.push_back(end_header);
      header.insert(header.end(), f.blank_line_.begin(), f.blank_line_.end());
    }
    f.end_ = structure(tokenizer, "<|eot_id|>");
    return f;
  }

  /// No structure, for base models: what the tokenizer's template puts before a text (BOS), then the contents as they
  /// are, with a blank line between two of them. Who speaks is not written.
  [[nodiscard]] static ChatFormat none(const Tokenizer& tokenizer) {
    ChatFormat f(tokenizer);
    f.start_.assign(tokenizer.prefix().begin(), tokenizer.prefix().end());
    return f;
  }

  /// "llama-3" or "none"; throws Error(unsupported) for another name. where: the file and key that hold it.
  [[nodiscard]] static ChatFormat by_name(std::string_view name, const Tokenizer& tokenizer, const std::string& where) {
    if (name == "llama-3") return llama3(tokenizer);
    if (name == "none") return none(tokenizer);
    throw Error(Code::unsupported, where, "a chat format of \"llama-3\" or \"none\"", detail::in_quotes(name));
  }

  /// Appends the ids of a conversation up to where the assistant's answer begins. With max_ids() reserved it allocates
  /// nothing. Throws Error: invalid_argument (no message), and what Tokenizer::encode throws; ids is then as it was.
  void encode(const Tokenizer& tokenizer, Tokenizer::Scratch& scratch, std::span<const Message> messages,
              std::vector<std::int32_t>& ids) const {
    if (messages.empty()) throw Error(Code::invalid_argument, "chat", "at least one message", "none");
    const std::size_t before = ids.size();
    try {
      append(start_, ids);
      for (const Message& m : messages) {
        if (end_) {
          append_turn(tokenizer, scratch, m, ids);
        } else {
          if (&m != messages.data()) append(blank_line_, ids);
          tokenizer.encode(m.content, scratch, ids);
        }
      }
      append(headers_[static_cast<std::size_t>(ChatRole::assistant)], ids);
    } catch (...) {
      ids.resize(before);
      throw;
    }
  }

  /// A bound on the ids of a conversation.
  [[nodiscard]] std::size_t max_ids(std::span<const Message> messages) const noexcept {
    std::size_t header = blank_line_.size();
    for (const auto& h : headers_) header = std::max(header, h.size());
    std::size_t n = start_.size() + header;
    for (const Message& m : messages) n += header + m.content.size() + 1;
    return n;
  }

  /// The token that ends the assistant's turn; nothing where the format has none.
  [[nodiscard]] std::optional<std::int32_t> end_id() const noexcept { return end_; }

 private:
  explicit ChatFormat(const Tokenizer& tokenizer) : blank_line_(tokenizer.encode("\n\n")) {}

  static std::string_view name(ChatRole role) noexcept {
    return role == ChatRole::system ? "system" : role == ChatRole::user ? "user" : "assistant";
  }
  static std::int32_t structure(const Tokenizer& tokenizer, std::string_view content) {
    const auto id = tokenizer.token(content);
    const bool there = id && tokenizer.kind(*id) != TokenKind::ordinary;
    if (!there) {
      throw Error(Code::mismatch, tokenizer.where() + ": added_tokens", std::string(content) + " (chat format llama-3)",
                  id ? "an ordinary token" : "none");
    }
    return *id;
  }
  static void append(const std::vector<std::int32_t>& what, std::vector<std::int32_t>& ids) {
    ids.insert(ids.end(), what.begin(), what.end());
  }
  void append_turn(const Tokenizer& tokenizer, Tokenizer::Scratch& scratch, const Message& m,
                   std::vector<std::int32_t>& ids) const {
    append(headers_[static_cast<std::size_t>(m.role)], ids);
    check_utf8(m.content, "message");  // before stripping, so that the offset is the caller's
    tokenizer.encode(strip(m.content), scratch, ids);
    ids.push_back(*end_);
  }

  std::vector<std::int32_t> blank_line_;
  std::vector<std::int32_t> start_;
  std::array<std::vector<std::int32_t>, 3> headers_;
  std::optional<std::int32_t> end_;
};

}  // namespace finteam::inline FINTEAM_ABI
