// Tokens by id, and ids by bytes. Not here: merges (bpe.hpp), reading of files (tokenizer_json.hpp).
// Built once, then immutable.
#pragma once

#include <finteam/core/error.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What a token is: `absent` marks an id that no token has.
enum class TokenKind : std::uint8_t {
  absent,
  ordinary,  ///< may come out of text
  added,     ///< from added_tokens, not special: never comes out of text here (white space alone is ordinary instead),
             ///< is kept when decoding
  special    ///< from added_tokens, special: never comes out of text, is dropped when decoding unless asked for
};

namespace detail {

/// Collisions beyond this many are a file made to collide.
inline constexpr std::size_t max_probes = 512;

/// Spreads the bits of a key over a table. Source: Steele et al. 2014 (SplitMix64), the finaliser.
[[nodiscard]] constexpr std::uint64_t mix_bits(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

/// Source: Fowler, Noll and Vo, FNV-1a of 64 bits.
[[nodiscard]] constexpr std::uint64_t hash_bytes(std::string_view bytes) noexcept {
  std::uint64_t h = 0xCBF29CE484222325ULL;
  for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return mix_bits(h);
}

}  // namespace detail

/// The bytes and the kind of every id in [0, size()), and the id of the bytes of every ordinary token.
class Vocabulary {
 public:
  Vocabulary() = default;
  /// tokens: how many set() and index() will be given. size: the greatest id + 1.
  Vocabulary(std::size_t tokens, std::int32_t size)
      : entries_(static_cast<std::size_t>(size)), slots_(std::bit_ceil(2 * tokens + 1), -1) {}

  [[nodiscard]] std::int32_t size() const noexcept { return static_cast<std::int32_t>(entries_.size()); }
  [[nodiscard]] bool contains(std::int32_t id) const noexcept {
    return id >= 0 && id < size() && kind(id) != TokenKind::absent;
  }
  /// The bytes of the longest token.
  [[nodiscard]] std::size_t max_token_bytes() const noexcept { return max_token_bytes_; }

  /// id in [0, size()).
  [[nodiscard]] TokenKind kind(std::int32_t id) const noexcept { return entries_[static_cast<std::size_t>(id)].kind; }
  /// id in [0, size()). Lives as long as the vocabulary.
  [[nodiscard]] std::string_view bytes(std::int32_t id) const noexcept {
    const Entry& e = entries_[static_cast<std::size_t>(id)];
    return std::string_view(bytes_).substr(e.offset, e.length);
  }

  /// The ordinary token with these bytes, or nothing. Allocates nothing.
  [[nodiscard]] std::optional<std::int32_t> find(std::string_view bytes) const noexcept {
    if (slots_.empty()) return std::nullopt;
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t i = detail::hash_bytes(bytes) & mask; slots_[i] >= 0; i = (i + 1) & mask) {
      if (this->bytes(slots_[i]) == bytes) return slots_[i];
    }
    return std::nullopt;
  }

  /// Building: what id in [0, size()) stands for. All bytes together stay below 2³².
  void set(std::int32_t id, TokenKind kind, std::string_view bytes) {
    if (bytes.size() > 0xFFFFFFFFULL - bytes_.size()) {
      throw Error(Code::limit_exceeded, "vocabulary", "fewer than 4 GiB of tokens", "more");
    }
    entries_[static_cast<std::size_t>(id)] = {static_cast<std::uint32_t>(bytes_.size()),
                                              static_cast<std::uint32_t>(bytes.size()), kind};
    bytes_ += bytes;
    max_token_bytes_ = std::max(max_token_bytes_, bytes.size());
  }

  /// Building: makes find() know this id. False if another token has the same bytes.
  /// Throws Error(limit_exceeded) if too many tokens collide.
  [[nodiscard]] bool index(std::int32_t id) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = detail::hash_bytes(bytes(id)) & mask;
    for (std::size_t probes = 0; slots_[i] >= 0; ++probes, i = (i + 1) & mask) {
      if (bytes(slots_[i]) == bytes(id)) return false;
      if (probes == detail::max_probes) {
        throw Error(Code::limit_exceeded, "vocabulary", "tokens whose hashes differ", "too many collisions");
      }
    }
    slots_[i] = id;
    return true;
  }

 private:
  struct Entry {
    std::uint32_t offset = 0, length = 0;
    TokenKind kind = TokenKind::absent;
  };

  std::vector<Entry> entries_;
  std::string bytes_;
  std::vector<std::int32_t> slots_;
  std::size_t max_token_bytes_ = 0;
};

/// The added tokens of a file by their content.
class AddedTokens {
 public:
  struct Entry {
    std::string content;
    std::int32_t id = 0;
    TokenKind kind = TokenKind::added;  ///< ordinary: white space alone, which is looked for in text
    bool strips_left = false;           ///< takes the white space before it with it
    bool strips_right = false;          ///< and that behind it
    bool normalized = false;            ///< is looked for in text that is normalised, in its own normalised form
  };

  AddedTokens() = default;
  /// Sorts them; two with one content are next to each other then.
  explicit AddedTokens(std::vector<Entry> entries) : entries_(std::move(entries)) {
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.content < b.content; });
  }

  [[nodiscard]] const std::vector<Entry>& entries() const noexcept { return entries_; }
  /// The id of a content, or nothing.
  [[nodiscard]] std::optional<std::int32_t> find(std::string_view content) const noexcept {
    const Entry* e = entry(content);
    return e != nullptr ? std::optional(e->id) : std::nullopt;
  }
  /// Nothing (nullptr) if there is no such content.
  [[nodiscard]] const Entry* entry(std::string_view content) const noexcept {
    const auto at = std::lower_bound(entries_.begin(), entries_.end(), content,
                                     [](const Entry& e, std::string_view c) { return e.content < c; });
    return at != entries_.end() && at->content == content ? &*at : nullptr;
  }

 private:
  std::vector<Entry> entries_;
};

}  // namespace finteam::inline FINTEAM_ABI
