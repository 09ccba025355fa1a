// What tokens are in text: the piece of each id, and the few rules for putting pieces together one after another.
// Not here: reading the rules from a file (decoder_json.hpp), special tokens (tokenizer.hpp).
#pragma once

#include <finteam/text/pattern.hpp>
#include <finteam/text/vocabulary.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace token_decode {

struct Replace {
  std::string from, to;
};
struct ReplacePattern {
  Pattern pattern;
  std::string to;
};
/// Removes up to `count` times `what` from the token's start.
struct Strip {
  std::string what;
  std::size_t count;
};
/// Every `replacement` is a blank; in the first token it is nothing, if `drops_first`.
struct Metaspace {
  std::string replacement;
  bool drops_first;
};
/// A blank before every token but the first and those that begin with `prefix`, which goes.
struct WordPiece {
  std::string prefix;
  bool cleanup;  ///< no blank before punctuation and English contractions
};
/// A blank before every token but the first: what the tokenizers package does without a decoder.
struct Blanks {};

}  // namespace token_decode

using TokenDecoderStep = std::variant<token_decode::Replace, token_decode::ReplacePattern, token_decode::Strip,
                                      token_decode::Metaspace, token_decode::WordPiece, token_decode::Blanks>;

/// How a file says that tokens become text.
struct TokenDecoderRules {
  bool byte_level = false;              ///< pieces are bytes, and together UTF-8
  bool byte_fallback = false;           ///< a token <0xXX> is a byte
  std::vector<TokenDecoderStep> steps;  ///< on each token, in order
  token_decode::Strip text{{}, 0};      ///< on the whole text
};

/// Immutable.
class TokenDecoder {
 public:
  TokenDecoder() = default;
  /// Throws Error(limit_exceeded) beyond a pattern's limits, or for 4 GiB of text.
  TokenDecoder(TokenDecoderRules rules, const Vocabulary& vocabulary) : rules_(std::move(rules)) {
    max_piece_bytes_ = vocabulary.max_token_bytes();
    if (rules_.byte_level) return;  // the vocabulary holds the pieces
    Pattern::Scratch scratch;
    std::uint64_t steps = Pattern::budget(vocabulary.max_token_bytes() + static_cast<std::size_t>(vocabulary.size()));
    const bool first_differs = !rules_.steps.empty() && depends_on_place();
    max_piece_bytes_ = 1;
    for (Table& table : tables_) {
      const bool first = &table == &tables_[0];
      if (first && !first_differs) continue;
      table.ends.reserve(static_cast<std::size_t>(vocabulary.size()));
      for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
        std::string piece(vocabulary.contains(id) ? vocabulary.bytes(id) : std::string_view{});
        if (vocabulary.contains(id)) spell(piece, first, scratch, steps);
        max_piece_bytes_ = std::max(max_piece_bytes_, piece.size());
        table.pieces += piece;
        if (table.pieces.size() > 0xFFFFFFFF) {
          throw Error(Code::limit_exceeded, "decoder", "fewer than 4 GiB of tokens", "more");
        }
        table.ends.push_back(static_cast<std::uint32_t>(table.pieces.size()));
      }
    }
  }

  /// What a token is within a text: of a <0xXX> token its byte. An id of the vocabulary.
  [[nodiscard]] std::string_view piece(std::int32_t id, const Vocabulary& vocabulary,
                                       bool first = false) const noexcept {
    if (rules_.byte_level) return vocabulary.bytes(id);
    const Table& table = tables_[first && !tables_[0].ends.empty() ? 0 : 1];
    const auto i = static_cast<std::size_t>(id);
    const std::size_t begin = i == 0 ? 0 : table.ends[i - 1];
    return std::string_view(table.pieces).substr(begin, table.ends[i] - begin);
  }
  /// The bytes of the longest piece.
  [[nodiscard]] std::size_t max_piece_bytes() const noexcept { return max_piece_bytes_; }
  [[nodiscard]] const TokenDecoderRules& rules() const noexcept { return rules_; }
  /// Whether a token is <0xXX> and means a byte.
  [[nodiscard]] bool is_byte(std::int32_t id, const Vocabulary& vocabulary) const noexcept {
    return rules_.byte_fallback && byte_token(vocabulary.bytes(id)) >= 0;
  }

  /// The byte of "<0x0A>", or -1.
  [[nodiscard]] static int byte_token(std::string_view token) noexcept {
    const auto digit = [](char c) {
      return c >= '0' && c <= '9'   ? c - '0'
             : c >= 'A' && c <= 'F' ? c - 'A' + 10
             : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                    : -1;
    };
    const bool like = token.size() == 6 && token.starts_with("<0x") && token.ends_with('>');
    const int high = like ? digit(token[3]) : -1, low = like ? digit(token[4]) : -1;
    return high < 0 || low < 0 ? -1 : 16 * high + low;
  }

 private:
  [[nodiscard]] bool depends_on_place() const noexcept {
    for (const TokenDecoderStep& step : rules_.steps) {
      if (step.index() >= 3) return true;
    }
    return false;
  }

  void spell(std::string& token, bool first, Pattern::Scratch& scratch, std::uint64_t& steps_left) const {
    for (const TokenDecoderStep& step : rules_.steps) {
      if (const auto* r = std::get_if<token_decode::Replace>(&step)) replace(token, r->from, r->to);
      if (const auto* s = std::get_if<token_decode::Strip>(&step)) {
        for (std::size_t i = 0; i < s->count && token.starts_with(s->what); ++i) token.erase(0, s->what.size());
      }
      if (const auto* m = std::get_if<token_decode::Metaspace>(&step)) {
        replace(token, m->replacement, first && m->drops_first ? "" : " ");
      }
      if (const auto* w = std::get_if<token_decode::WordPiece>(&step)) spell_word_piece(token, *w, first);
      if (std::holds_alternative<token_decode::Blanks>(step) && !first) token.insert(0, " ");
      if (const auto* r = std::get_if<token_decode::ReplacePattern>(&step)) {
        std::string to;
        std::size_t at = 0;
        for (Pattern::Search search(r->pattern, scratch, token, steps_left); search.next(); at = search.end()) {
          to += token.substr(at, search.begin() - at) + r->to;
        }
        token = to + token.substr(at);
      }
    }
    const int byte = rules_.byte_fallback ? byte_token(token) : -1;
    if (byte >= 0) token.assign(1, static_cast<char>(static_cast<unsigned char>(byte)));
  }

  static void spell_word_piece(std::string& token, const token_decode::WordPiece& w, bool first) {
    if (!first && token.starts_with(w.prefix)) {
      token.erase(0, w.prefix.size());
    } else if (!first) {
      token.insert(0, " ");
    }
    if (!w.cleanup) return;
    static constexpr std::array<std::array<std::string_view, 2>, 11> changes = {{{" .", "."},
                                                                                 {" ?", "?"},
                                                                                 {" !", "!"},
                                                                                 {" ,", ","},
                                                                                 {" ' ", "'"},
                                                                                 {" n't", "n't"},
                                                                                 {" 'm", "'m"},
                                                                                 {" do not", " don't"},
                                                                                 {" 's", "'s"},
                                                                                 {" 've", "'ve"},
                                                                                 {" 're", "'re"}}};
    for (const auto& [from, to] : changes) replace(token, from, to);
  }
  static void replace(std::string& text, std::string_view from, std::string_view to) {
    if (text.find(from) == std::string::npos) return;
    std::string out;
    std::size_t at = 0;
    for (std::size_t end = 0; (end = text.find(from, at)) != std::string::npos; at = end + from.size()) {
      out.append(text, at, end - at).append(to);
    }
    text = out.append(text, at);
  }

  struct Table {
    std::string pieces;
    std::vector<std::uint32_t> ends;
  };
  TokenDecoderRules rules_;
  std::array<Table, 2> tables_;  // of the first token (empty where that makes no difference), of all others
  std::size_t max_piece_bytes_ = 1;
};

}  // namespace finteam::inline FINTEAM_ABI
