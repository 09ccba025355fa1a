// A chat format met by a tokenizer: its texts cut at the tokens that are spelt in them.
// Not here: the format as data (chat_layout.hpp), contents and ids (chat_run.hpp).
#pragma once

#include <finteam/text/chat_layout.hpp>
#include <finteam/text/tokenizer.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// A structure token. Some tokens take the white space beside them along (lstrip and rstrip of tokenizer.json).
struct StructureToken {
  std::int32_t id = -1;
  bool eats_before = false, eats_after = false;
};

/// What the tokenizer's file says of an added token.
[[nodiscard]] inline StructureToken structure_token(const Tokenizer& tokenizer, std::int32_t id) {
  return {id, tokenizer.strips_left(id), tokenizer.strips_right(id)};
}

/// A piece of a format's own text: a structure token, or text.
struct ChatPiece {
  StructureToken token;
  std::string text;         ///< where token.id is -1
  std::size_t markers = 0;  ///< in the text
};

/// How often one of the markers stands in a text.
[[nodiscard]] inline std::size_t count_markers(std::string_view text,
                                               const std::vector<std::string>& markers) noexcept {
  std::size_t n = 0;
  for (const std::string& marker : markers) {
    for (std::size_t at = text.find(marker); at != std::string_view::npos; at = text.find(marker, at + marker.size())) {
      ++n;
    }
  }
  return n;
}

/// Cuts a text at the tokens that are spelt in it, each with its spelling as text; the first of them, and of those the
/// longest, wins. pieces: appended to.
inline void cut_pieces(std::string_view text, const std::vector<ChatPiece>& tokens,
                       const std::vector<std::string>& markers, std::vector<ChatPiece>& pieces) {
  while (!text.empty()) {
    std::size_t at = text.size();
    const ChatPiece* next = nullptr;
    for (const ChatPiece& token : tokens) {
      const std::size_t here = text.find(token.text);
      if (here == std::string_view::npos || here > at) continue;
      if (here < at || token.text.size() > next->text.size()) next = &token;
      at = here;
    }
    if (at != 0) {
      const std::string_view own = text.substr(0, at);
      pieces.push_back({{}, std::string(own), count_markers(own, markers)});
    }
    if (next == nullptr) break;
    pieces.push_back({next->token, {}, 0});
    text.remove_prefix(at + next->text.size());
  }
}

/// What a format is made of. Immutable.
struct ChatPieces {
  using List = std::vector<ChatPiece>;
  struct Turn {
    ChatTurn how;
    List before, after;
  };

  List tokens;                       ///< structure, of each the spelling as its text
  std::vector<std::string> markers;  ///< structure that is plain text
  List start, no_system, between, open;
  List answer;  ///< what an assistant's turn has before its content and open has not yet
  std::optional<Turn> system, system_later;
  Turn user, assistant;
  std::optional<std::int32_t> end;
  std::size_t bytes = 0, count = 1;  ///< of all texts, and how many pieces they are cut into

  /// Throws Error(mismatch) for a token that the tokenizer lacks, or has as an ordinary one.
  ChatPieces(const ChatLayout& layout, const Tokenizer& tokenizer) {
    for (const std::string& token : layout.tokens) tokens.push_back(structure(layout, tokenizer, token));
    for (const std::string& marker : layout.markers) {
      if (const auto id = tokenizer.token(marker); id && tokenizer.kind(*id) != TokenKind::ordinary) {
        tokens.push_back({structure_token(tokenizer, *id), marker, 0});
      } else {
        markers.push_back(marker);
      }
    }
    if (!layout.end.empty()) end = structure(layout, tokenizer, layout.end).token.id;
    if (layout.prefix) {
      for (const std::int32_t id : tokenizer.prefix()) start.push_back({structure_token(tokenizer, id), {}, 0});
      count += start.size();
    }
    cut(layout.start, start);
    cut(layout.no_system, no_system);
    cut(layout.between, between);
    cut(layout.open, open);
    const std::string_view before = layout.assistant.before;
    if (before.starts_with(layout.open)) cut(before.substr(layout.open.size()), answer);
    if (layout.system) system = turn(*layout.system);
    if (layout.system_later) system_later = turn(*layout.system_later);
    user = turn(layout.user);
    assistant = turn(layout.assistant);
  }

 private:
  [[nodiscard]] static ChatPiece structure(const ChatLayout& layout, const Tokenizer& tokenizer,
                                           const std::string& content) {
    const auto id = tokenizer.token(content);
    const bool there = id && tokenizer.kind(*id) != TokenKind::ordinary;
    if (!there) {
      throw Error(Code::mismatch, tokenizer.where() + ": added_tokens",
                  printable(content) + " (chat format " + layout.name + ")", id ? "an ordinary token" : "none");
    }
    return {structure_token(tokenizer, *id), content, 0};
  }
  void cut(std::string_view text, List& pieces) {
    const std::size_t before = pieces.size();
    cut_pieces(text, tokens, markers, pieces);
    bytes += text.size();
    count += pieces.size() - before + 1;
  }
  [[nodiscard]] Turn turn(const ChatTurn& how) {
    Turn turn{how, {}, {}};
    cut(how.before, turn.before);
    cut(how.after, turn.after);
    return turn;
  }
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
