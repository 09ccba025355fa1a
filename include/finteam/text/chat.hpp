// Chat formats: from messages to the ids that a model was tuned on. Structure is put together from token ids, and every
// text between two of them, a content and what the format writes beside it, is tokenised with special tokens off, so
// that no content can become structure. Not here: the formats as data (chat_layout.hpp), templates as text
// (chat_recognition.hpp).
#pragma once

#include <finteam/text/chat_formats.hpp>
#include <finteam/text/chat_layout.hpp>
#include <finteam/text/chat_message.hpp>
#include <finteam/text/chat_pieces.hpp>
#include <finteam/text/chat_run.hpp>
#include <finteam/text/tokenizer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A family's way to write a conversation. Immutable; made for one tokenizer and used with it.
class ChatFormat {
 public:
  using Scratch = ChatScratch;

  /// Throws Error(mismatch) if the tokenizer lacks one of the format's tokens, or has it as an ordinary token that text
  /// could spell.
  ChatFormat(const ChatLayout& layout, const Tokenizer& tokenizer)
      : layout_(layout),
        pieces_(layout, tokenizer),
        ids_per_byte_(tokenizer.max_ids(1) - tokenizer.max_ids(0)),
        ids_per_run_(tokenizer.max_ids(0)) {}

  /// A known family's: chat_families.hpp. Throws Error(unsupported) for another name. where: the file and key that hold
  /// it.
  [[nodiscard]] static ChatFormat by_name(std::string_view name, const Tokenizer& tokenizer, const std::string& where) {
    return {chat_layout(name, where), tokenizer};
  }
  /// <|begin_of_text|>, then for each message <|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>, then
  /// the header of the assistant's turn; content without the whitespace at its ends.
  [[nodiscard]] static ChatFormat llama3(const Tokenizer& tokenizer) { return by_name("llama-3", tokenizer, "chat"); }
  /// No structure, for base models: what the tokenizer's template puts before a text (BOS), then the contents as they
  /// are, with a blank line between two of them. Who speaks is not written.
  [[nodiscard]] static ChatFormat none(const Tokenizer& tokenizer) { return by_name("none", tokenizer, "chat"); }

  /// Memory for contents of up to max_bytes bytes; those of one run, as a system message put before a user's, together.
  /// Throws Error(limit_exceeded) as Tokenizer::scratch.
  [[nodiscard]] Scratch scratch(const Tokenizer& tokenizer, std::size_t max_bytes) const {
    const std::size_t all = std::max(max_bytes, std::min(Tokenizer::max_text_bytes, max_bytes + pieces_.bytes));
    return {tokenizer.scratch(all), max_bytes};
  }

  /// Appends the ids of a conversation up to where the assistant's answer begins. With max_ids() reserved it allocates
  /// nothing. Throws Error: invalid_argument (no message; roles in an order that the format does not have; a content
  /// that spells its markers), malformed (not UTF-8), limit_exceeded; ids is then as it was.
  void encode(const Tokenizer& tokenizer, Scratch& scratch, std::span<const Message> messages,
              std::vector<std::int32_t>& ids) const {
    detail::check_order(layout_, messages);
    const std::size_t before = ids.size();
    try {
      detail::ChatWriter writer(tokenizer, pieces_.markers, scratch.text_, scratch.run_, ids);
      write(writer, messages, scratch.max_bytes());
      writer.finish();
    } catch (...) {
      ids.resize(before);
      throw;
    }
  }

  /// Appends the ids of an answer to such a conversation, without its end: what an assistant's turn has before its
  /// content and open has not yet, then the content as it is. Errors as encode.
  void encode_answer(const Tokenizer& tokenizer, Scratch& scratch, std::string_view content,
                     std::vector<std::int32_t>& ids) const {
    detail::check_text_bytes(content, scratch.max_bytes());
    const std::size_t before = ids.size();
    try {
      detail::ChatWriter writer(tokenizer, pieces_.markers, scratch.text_, scratch.run_, ids, TextPlace::inside);
      writer.write(pieces_.answer);
      writer.write(content);
      writer.finish();
    } catch (...) {
      ids.resize(before);
      throw;
    }
  }

  /// A bound on the ids of a conversation.
  [[nodiscard]] std::size_t max_ids(std::span<const Message> messages) const noexcept {
    std::size_t bytes = 0;
    for (const Message& m : messages) bytes += m.content.size();
    const std::size_t parts = messages.size() + 1;  // each writes less than all pieces
    return (bytes + parts * pieces_.bytes) * ids_per_byte_ + parts * pieces_.count * (ids_per_run_ + 1);
  }

  /// The token that ends the assistant's turn; nothing where the format has none.
  [[nodiscard]] std::optional<std::int32_t> end_id() const noexcept { return pieces_.end; }
  /// "llama-3"; "declared", or "like" and a name, for one that team.json describes.
  [[nodiscard]] const std::string& name() const noexcept { return layout_.name; }
  /// The format without its tokens' ids.
  [[nodiscard]] const ChatLayout& layout() const noexcept { return layout_; }

 private:
  using Turn = detail::ChatPieces::Turn;

  void write(detail::ChatWriter& writer, std::span<const Message> messages, std::size_t max_bytes) const;
  void write(detail::ChatWriter& writer, const Turn& turn, std::string_view content, const Message* folded,
             std::size_t max_bytes) const;
  [[nodiscard]] const Turn& turn_of(const Message& message) const noexcept {
    return message.role == ChatRole::user        ? pieces_.user
           : message.role == ChatRole::assistant ? pieces_.assistant
                                                 : *pieces_.system_later;
  }

  ChatLayout layout_;
  detail::ChatPieces pieces_;
  std::size_t ids_per_byte_, ids_per_run_;
};

inline void ChatFormat::write(detail::ChatWriter& writer, std::span<const Message> messages,
                              std::size_t max_bytes) const {
  writer.write(pieces_.start);
  const Message* folded = nullptr;
  std::size_t target = 0, i = 0;
  bool none = messages[0].role != ChatRole::system;
  if (!none) {
    i = 1;
    const std::string_view content = detail::written_part(pieces_.system->how, messages[0].content, max_bytes);
    if (layout_.place != SystemPlace::turn) {
      folded = messages.data();
      target = layout_.place == SystemPlace::first_user ? 1 : messages.size() - 1;
    } else if (none = pieces_.system->how.empty_is_none && content.empty(); !none) {
      write(writer, *pieces_.system, content, nullptr, max_bytes);
    }
  }
  if (none) writer.write(pieces_.no_system);
  for (; i < messages.size(); ++i) {
    const Turn& turn = turn_of(messages[i]);
    const std::string_view content = detail::written_part(turn.how, messages[i].content, max_bytes);
    if (turn.how.empty_is_none && content.empty()) continue;
    if (i != 0) writer.write(pieces_.between);
    write(writer, turn, content, i == target ? folded : nullptr, max_bytes);
  }
  writer.write(pieces_.open);
}

inline void ChatFormat::write(detail::ChatWriter& writer, const Turn& turn, std::string_view content,
                              const Message* folded, std::size_t max_bytes) const {
  writer.write(turn.before);
  const std::size_t place = writer.place();
  if (folded != nullptr) {
    writer.write(pieces_.system->before);
    writer.write(detail::written_part(pieces_.system->how, folded->content, max_bytes));
    writer.write(pieces_.system->after);
  }
  writer.write(content);
  if (turn.how.strip == ContentStrip::together) writer.strip_from(place);
  writer.write(turn.after);
}

}  // namespace finteam::inline FINTEAM_ABI
