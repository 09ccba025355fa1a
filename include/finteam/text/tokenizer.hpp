// Text to token ids and back, as a Hugging Face tokenizer.json describes it: BPE over bytes or characters, Unigram,
// WordPiece. Special and added tokens are never recognised in text; a chat format (chat.hpp) puts them around it.
#pragma once

#include <finteam/text/token_stream.hpp>
#include <finteam/text/tokenizer_json.hpp>
#include <finteam/text/tokenizer_scratch.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What decoding does with special tokens.
enum class SpecialTokens : std::uint8_t { skip, keep };

/// An immutable tokenizer, shared between threads. It moves, and never copies.
class Tokenizer {
 public:
  /// The longest text that a scratch can be made for, in bytes.
  static constexpr std::size_t max_text_bytes = std::size_t{1} << 28;

  /// Reads a tokenizer.json. Throws Error: not_found or system for the file, malformed, unsupported or mismatch for
  /// what it holds; everything that this build does not implement is refused by name.
  [[nodiscard]] static Tokenizer open(const std::filesystem::path& path) {
    return Tokenizer(detail::open_tokenizer_json(path));
  }
  /// The same from the file's bytes. where: its name in errors.
  [[nodiscard]] static Tokenizer parse(std::string_view json, const std::string& where) {
    return Tokenizer(detail::parse_tokenizer_json(json, where));
  }
  Tokenizer(Tokenizer&&) noexcept = default;
  Tokenizer& operator=(Tokenizer&&) noexcept = default;

  /// All memory that encoding needs, for one thread at a time, with this tokenizer. Made by Tokenizer::scratch.
  using Scratch = TokenizerScratch;

  /// Memory for texts of up to max_bytes bytes: at most 28 bytes for each, and 2 MiB; at most 90 bytes for each where
  /// text is normalised or has characters for symbols. Throws Error(limit_exceeded).
  [[nodiscard]] Scratch scratch(std::size_t max_bytes) const {
    if (max_bytes > max_text_bytes) {
      throw Error(Code::limit_exceeded, where() + ": scratch", "at most " + std::to_string(max_text_bytes) + " bytes",
                  std::to_string(max_bytes));
    }
    return Scratch(parts_, max_bytes);
  }

  /// A bound on the ids of a text of so many bytes.
  [[nodiscard]] std::size_t max_ids(std::size_t text_bytes) const noexcept {
    return detail::max_symbols(*parts_, text_bytes);
  }

  /// Appends the ids of a text, with nothing before or after it. Special and added tokens are not recognised: they are
  /// spelt out. (White space that is an added token of its own and not special, as Gemma's runs of newlines, is: it is
  /// no structure, and a model saw it in every text.) place: whether other tokens of the same text stand before it.
  /// With max_ids(text.size()) reserved it allocates nothing. Throws Error: malformed (not UTF-8, with the byte
  /// offset), invalid_argument (another tokenizer's scratch), limit_exceeded (longer than the scratch is for,
  /// normalised beyond four bytes for each, or beyond a pattern's limits); ids is then as it was. O(n log n).
  void encode(std::string_view text, Scratch& scratch, std::vector<std::int32_t>& ids,
              TextPlace place = TextPlace::start) const {
    scratch.check(parts_, text.size());
    check_utf8(text, "text");
    const std::size_t before = ids.size();
    try {
      scratch.encode(text, place == TextPlace::start, ids);
    } catch (...) {
      ids.resize(before);
      throw;
    }
  }
  /// The same, with memory of its own.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text, TextPlace place = TextPlace::start) const {
    Scratch s = scratch(text.size());
    std::vector<std::int32_t> ids;
    encode(text, s, ids, place);
    return ids;
  }

  /// The ids that the file's template puts before and after a single text (BOS, EOS).
  [[nodiscard]] std::span<const std::int32_t> prefix() const noexcept { return parts_->prefix; }
  [[nodiscard]] std::span<const std::int32_t> suffix() const noexcept { return parts_->suffix; }

  /// The text of some ids, where what is not UTF-8 reads U+FFFD. Throws Error(invalid_argument) for an id that no token
  /// has.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids, SpecialTokens special = SpecialTokens::skip,
                                   TextPlace place = TextPlace::start) const;

  /// The bytes that a token adds to a text, which need not be whole characters. Lives as long as the tokenizer.
  /// Throws Error(invalid_argument) for an id that no token has.
  [[nodiscard]] std::string_view bytes(std::int32_t id) const {
    check(id);
    return parts_->decoder.piece(id, vocabulary());
  }
  /// TokenKind::absent for an id that no token has.
  [[nodiscard]] TokenKind kind(std::int32_t id) const noexcept {
    return vocabulary().contains(id) ? vocabulary().kind(id) : TokenKind::absent;
  }
  /// The token for text that the vocabulary cannot spell, if there is one; of all special tokens it alone comes out of
  /// text.
  [[nodiscard]] std::optional<std::int32_t> unknown() const noexcept { return parts_->model.unknown; }

  /// Whether the file wants the white space before, or behind, an added token to go with it. A chat format that writes
  /// the token beside text asks.
  [[nodiscard]] bool strips_left(std::int32_t id) const noexcept {
    const auto* e = added(id);
    return e != nullptr && e->strips_left;
  }
  [[nodiscard]] bool strips_right(std::int32_t id) const noexcept {
    const auto* e = added(id);
    return e != nullptr && e->strips_right;
  }

  /// The token whose content the file spells like this: "<|eot_id|>", "Ġthe", "▁the".
  [[nodiscard]] std::optional<std::int32_t> token(std::string_view content) const {
    if (const auto id = parts_->model.added.find(content)) return id;
    if (!parts_->model.byte_level) return vocabulary().find(content);
    const auto bytes = byte_level_bytes(content);
    return bytes ? vocabulary().find(*bytes) : std::nullopt;
  }

  /// The greatest id + 1.
  [[nodiscard]] std::int32_t size() const noexcept { return vocabulary().size(); }
  /// The most bytes that a token adds to a text.
  [[nodiscard]] std::size_t max_token_bytes() const noexcept { return parts_->decoder.max_piece_bytes(); }
  /// The file's name, for errors.
  [[nodiscard]] const std::string& where() const noexcept { return parts_->where; }

 private:
  friend class StreamDecoder;
  explicit Tokenizer(detail::TokenizerParts parts)
      : parts_(std::make_shared<const detail::TokenizerParts>(std::move(parts))) {}

  [[nodiscard]] const Vocabulary& vocabulary() const noexcept { return parts_->model.vocabulary; }
  void check(std::int32_t id) const {
    if (!vocabulary().contains(id))
      throw Error(Code::invalid_argument, where(), "the id of a token", std::to_string(id));
  }
  [[nodiscard]] const AddedTokens::Entry* added(std::int32_t id) const noexcept {
    for (const AddedTokens::Entry& e : parts_->model.added.entries()) {
      if (e.id == id) return &e;
    }
    return nullptr;
  }

  std::shared_ptr<const detail::TokenizerParts> parts_;  // scratches hold it too: a shared place tells whose they are
};

/// The text of ids that arrive one at a time: whole characters only. Allocates when it is made, then never.
class StreamDecoder {
 public:
  /// The tokenizer must outlive it. place: whether the text that it continues is shown already.
  explicit StreamDecoder(const Tokenizer& tokenizer, SpecialTokens special = SpecialTokens::skip,
                         TextPlace place = TextPlace::start)
      : parts_(tokenizer.parts_), special_(special), stream_(parts_->decoder, parts_->model.vocabulary, place) {}

  /// The characters that this token completes; valid until the next call. Throws Error(invalid_argument) for an id that
  /// no token has.
  std::string_view push(std::int32_t id) {
    const Vocabulary& vocabulary = parts_->model.vocabulary;
    if (!vocabulary.contains(id)) {
      throw Error(Code::invalid_argument, parts_->where, "the id of a token", std::to_string(id));
    }
    if (special_ == SpecialTokens::skip && vocabulary.kind(id) == TokenKind::special) return {};
    return stream_.push(id);
  }
  /// A new text, which stands there; what waited of the last one is gone.
  void begin(TextPlace place) { stream_.begin(place); }
  /// The end of the text: what still waited, or nothing. The decoder is then as new.
  std::string_view flush() { return stream_.flush(); }
  /// The most bytes that push() or flush() can return.
  [[nodiscard]] std::size_t max_piece_bytes() const noexcept { return stream_.max_bytes(); }

 private:
  std::shared_ptr<const detail::TokenizerParts> parts_;
  SpecialTokens special_;
  TokenStream stream_;
};

inline std::string Tokenizer::decode(std::span<const std::int32_t> ids, SpecialTokens special, TextPlace place) const {
  StreamDecoder stream(*this, special, place);
  std::string text;
  for (const std::int32_t id : ids) text += stream.push(id);
  return text += stream.flush();
}

}  // namespace finteam::inline FINTEAM_ABI
