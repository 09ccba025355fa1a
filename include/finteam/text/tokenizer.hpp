// Text to token ids and back: byte-level BPE, as a Hugging Face tokenizer.json describes it (the Llama 3 family).
// Special and added tokens are never recognised in text; a chat format (chat.hpp) puts them around it.
#pragma once

#include <finteam/text/bpe.hpp>
#include <finteam/text/pattern.hpp>
#include <finteam/text/tokenizer_json.hpp>
#include <finteam/text/utf8.hpp>
#include <finteam/text/vocabulary.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
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

  /// All memory that encoding needs, for one thread at a time. Made by Tokenizer::scratch.
  class Scratch {
   public:
    [[nodiscard]] std::size_t max_bytes() const noexcept { return max_bytes_; }

   private:
    friend class Tokenizer;
    explicit Scratch(std::size_t max_bytes) : max_bytes_(max_bytes), merger_(max_bytes) {}
    std::size_t max_bytes_;
    Pattern::Scratch pattern_;
    WordMerger merger_;
  };

  /// Memory for texts of up to max_bytes bytes: at most 28 bytes for each, and 2 MiB. Throws Error(limit_exceeded).
  [[nodiscard]] Scratch scratch(std::size_t max_bytes) const {
    if (max_bytes > max_text_bytes) {
      throw Error(Code::limit_exceeded, where_ + ": scratch", "at most " + std::to_string(max_text_bytes) + " bytes",
                  std::to_string(max_bytes));
    }
    return Scratch(max_bytes);
  }

  /// Appends the ids of a text, with nothing before or after it. Special and added tokens are not recognised: they are
  /// spelt out. At most one id per byte: with text.size() ids reserved it allocates nothing.
  /// Throws Error: malformed (not UTF-8, with the byte offset), limit_exceeded (longer than the scratch is for, or
  /// beyond the pattern's limits); ids is then as it was. O(n log n) in the longest word.
  void encode(std::string_view text, Scratch& scratch, std::vector<std::int32_t>& ids) const {
    if (text.size() > scratch.max_bytes_) {
      throw Error(Code::limit_exceeded, "text", "at most " + std::to_string(scratch.max_bytes_) + " bytes",
                  std::to_string(text.size()));
    }
    check_utf8(text, "text");
    const std::size_t before = ids.size();
    try {
      append_words(text, scratch, ids);
    } catch (...) {
      ids.resize(before);
      throw;
    }
  }
  /// The same, with memory of its own.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text) const {
    Scratch s = scratch(text.size());
    std::vector<std::int32_t> ids;
    encode(text, s, ids);
    return ids;
  }

  /// The ids that the file's template puts before and after a single text (BOS, EOS).
  [[nodiscard]] std::span<const std::int32_t> prefix() const noexcept { return prefix_; }
  [[nodiscard]] std::span<const std::int32_t> suffix() const noexcept { return suffix_; }

  /// The text of some ids: their bytes, where what is not UTF-8 reads U+FFFD. Throws Error(invalid_argument) for an id
  /// that no token has.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids,
                                   SpecialTokens special = SpecialTokens::skip) const {
    Utf8Stream stream(max_token_bytes());
    std::string text;
    for (const std::int32_t id : ids) {
      const std::string_view token = bytes(id);
      if (special == SpecialTokens::keep || kind(id) != TokenKind::special) text += stream.push(token);
    }
    return text += stream.flush();
  }

  /// The bytes of a token, which need not be whole characters. Lives as long as the tokenizer.
  /// Throws Error(invalid_argument) for an id that no token has.
  [[nodiscard]] std::string_view bytes(std::int32_t id) const {
    if (!vocabulary_.contains(id)) {
      throw Error(Code::invalid_argument, where_, "the id of a token", std::to_string(id));
    }
    return vocabulary_.bytes(id);
  }
  /// TokenKind::absent for an id that no token has.
  [[nodiscard]] TokenKind kind(std::int32_t id) const noexcept {
    return vocabulary_.contains(id) ? vocabulary_.kind(id) : TokenKind::absent;
  }

  /// The token whose content the file spells like this: "<|eot_id|>", "Ġthe".
  [[nodiscard]] std::optional<std::int32_t> token(std::string_view content) const {
    if (const auto id = added_.find(content)) return id;
    const auto bytes = byte_level_bytes(content);
    return bytes ? vocabulary_.find(*bytes) : std::nullopt;
  }

  /// The greatest id + 1.
  [[nodiscard]] std::int32_t size() const noexcept { return vocabulary_.size(); }
  /// The bytes of the longest token.
  [[nodiscard]] std::size_t max_token_bytes() const noexcept { return vocabulary_.max_token_bytes(); }
  /// The file's name, for errors.
  [[nodiscard]] const std::string& where() const noexcept { return where_; }

 private:
  explicit Tokenizer(detail::TokenizerParts parts)
      : where_(std::move(parts.where)),
        vocabulary_(std::move(parts.model.vocabulary)),
        added_(std::move(parts.model.added)),
        merges_(std::move(parts.model.merges)),
        byte_tokens_(parts.model.byte_tokens),
        ignore_merges_(parts.model.ignore_merges),
        pattern_(parts.pattern, where_ + ": pre_tokenizer: pattern"),
        prefix_(std::move(parts.prefix)),
        suffix_(std::move(parts.suffix)) {}

  void append_words(std::string_view text, Scratch& scratch, std::vector<std::int32_t>& ids) const {
    Pattern::Search search(pattern_, scratch.pattern_, text);
    std::size_t at = 0;
    while (search.next()) {
      append_word(text.substr(at, search.begin() - at), scratch, ids);  // what lies between two matches is a word too
      append_word(text.substr(search.begin(), search.end() - search.begin()), scratch, ids);
      at = search.end();
    }
    append_word(text.substr(at), scratch, ids);
  }

  void append_word(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
    if (word.empty()) return;
    if (const auto whole = ignore_merges_ ? vocabulary_.find(word) : std::nullopt) {
      ids.push_back(*whole);
    } else {
      scratch.merger_.append(word, byte_tokens_, merges_, ids);
    }
  }

  std::string where_;
  Vocabulary vocabulary_;
  AddedTokens added_;
  MergeTable merges_;
  std::array<std::int32_t, 256> byte_tokens_;
  bool ignore_merges_;
  Pattern pattern_;
  std::vector<std::int32_t> prefix_, suffix_;
};

/// The text of ids that arrive one at a time: whole characters only. Allocates when it is made, then never.
class StreamDecoder {
 public:
  /// The tokenizer must outlive it.
  explicit StreamDecoder(const Tokenizer& tokenizer, SpecialTokens special = SpecialTokens::skip)
      : tokenizer_(&tokenizer), special_(special), stream_(tokenizer.max_token_bytes()) {}

  /// The characters that this token completes; valid until the next call. Throws Error(invalid_argument) for an id that
  /// no token has.
  std::string_view push(std::int32_t id) {
    const std::string_view token = tokenizer_->bytes(id);
    if (special_ == SpecialTokens::skip && tokenizer_->kind(id) == TokenKind::special) return {};
    return stream_.push(token);
  }
  /// The end of the text: U+FFFD for a character that was cut, or nothing. The decoder is then as new.
  std::string_view flush() { return stream_.flush(); }
  /// The most bytes that push() can return.
  [[nodiscard]] std::size_t max_piece_bytes() const noexcept { return 3 * (tokenizer_->max_token_bytes() + 4); }

 private:
  const Tokenizer* tokenizer_;
  SpecialTokens special_;
  Utf8Stream stream_;
};

}  // namespace finteam::inline FINTEAM_ABI
