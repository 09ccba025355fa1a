// A BPE model over bytes or characters: what a word's symbols are, and what its tokens. Not here: merging (bpe.hpp),
// reading (bpe_json.hpp).
// Source: unknown characters as in the tokenizers package, models/bpe/model.rs, merge_word.
#pragma once

#include <finteam/text/bpe.hpp>
#include <finteam/text/unicode.hpp>
#include <finteam/text/vocabulary.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// The neighbours that some token holds, as pairs of characters. Between two others no merge can reach.
class Seams {
 public:
  [[nodiscard]] bool holds(char32_t left, char32_t right) const noexcept {
    const std::uint64_t k = key(left, right);
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t i = detail::mix_bits(k) & mask; slots_[i] != 0; i = (i + 1) & mask) {
      if (slots_[i] == k) return true;
    }
    return false;
  }
  /// Building. Throws Error(limit_exceeded) if too many pairs collide.
  void add(char32_t left, char32_t right) {
    if (holds(left, right)) return;
    if (2 * ++count_ > slots_.size()) {
      std::vector<std::uint64_t> old(2 * slots_.size());
      old.swap(slots_);
      for (const std::uint64_t k : old) {
        if (k != 0) put(k);
      }
    }
    put(key(left, right));
  }

 private:
  static std::uint64_t key(char32_t left, char32_t right) noexcept {
    return std::uint64_t{1} << 63 | std::uint64_t{left} << 32 | right;
  }
  void put(std::uint64_t k) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = detail::mix_bits(k) & mask;
    for (std::size_t probes = 0; slots_[i] != 0; ++probes, i = (i + 1) & mask) {
      if (probes == detail::max_probes) {
        throw Error(Code::limit_exceeded, "merges", "neighbours whose hashes differ", "too many collisions");
      }
    }
    slots_[i] = k;
  }

  std::vector<std::uint64_t> slots_ = std::vector<std::uint64_t>(64);
  std::size_t count_ = 0;
};

/// Immutable. Made by the reader of a file.
struct BpeModel {
  static constexpr std::int32_t none = -1;

  MergeTable merges;
  bool bytes = true;           ///< a word's symbols are its bytes, not its characters
  bool ignore_merges = false;  ///< a word that is a token is this token
  bool byte_fallback = false;  ///< an unknown character is its bytes, if each has a token
  bool fuse_unknown = false;
  bool cuts = false;  ///< words may be cut where `seams` holds no pair
  std::int32_t unknown = none;
  std::array<std::int32_t, 256> byte_tokens{};  ///< or none
  std::array<std::int32_t, 128> ascii{};        ///< the tokens of these characters, or none
  Seams seams;

  /// Appends the ids of a word of well-formed UTF-8 that is not empty. O(n log n). Allocates only if `out` must grow.
  /// Throws Error(limit_exceeded) for more symbols than the merger is for.
  void append(std::string_view word, const Vocabulary& vocabulary, WordMerger& merger,
              std::vector<std::int32_t>& out) const {
    if (const auto whole = ignore_merges ? vocabulary.find(word) : std::nullopt) return out.push_back(*whole);
    if (bytes) return merger.append(word, byte_tokens, merges, out);
    std::size_t begin = 0;
    char32_t before = detail::utf8_first(word);
    for (std::size_t at = detail::utf8_length(word[0]); cuts && at < word.size(); at += detail::utf8_length(word[at])) {
      const char32_t c = detail::utf8_first(word.substr(at));
      if (!seams.holds(before, c) && is_symbol(before, vocabulary) && is_symbol(c, vocabulary)) {
        append_part(word.substr(begin, at - begin), vocabulary, merger, out);
        begin = at;
      }
      before = c;
    }
    append_part(word.substr(begin), vocabulary, merger, out);
  }

 private:
  void append_part(std::string_view part, const Vocabulary& vocabulary, WordMerger& merger,
                   std::vector<std::int32_t>& out) const {
    merger.clear();
    add_characters(part, vocabulary, merger);
    if (!merger.empty()) merger.finish(merges, out);
  }

  [[nodiscard]] std::int32_t symbol(std::string_view character, const Vocabulary& vocabulary) const noexcept {
    if (character.size() == 1) return ascii[static_cast<unsigned char>(character[0])];
    return vocabulary.find(character).value_or(none);
  }
  /// Unknown ones may belong to those beside them.
  [[nodiscard]] bool is_symbol(char32_t c, const Vocabulary& vocabulary) const noexcept {
    return symbol(detail::utf8_encode(c).view(), vocabulary) != none;
  }

  /// An unknown token waits until the next known character, as in the source: others may join it, bytes overtake it.
  void add_characters(std::string_view word, const Vocabulary& vocabulary, WordMerger& merger) const {
    bool waits = false;
    for (std::size_t at = 0, n = 0; at < word.size(); at += n) {
      n = detail::utf8_length(word[at]);
      const std::string_view character = word.substr(at, n);
      if (const std::int32_t id = symbol(character, vocabulary); id != none) {
        if (waits) merger.add(unknown);
        waits = false;
        merger.add(id);
      } else if (byte_fallback && has_bytes(character)) {
        for (const char c : character) merger.add(byte_tokens[static_cast<unsigned char>(c)]);
      } else if (unknown != none) {
        if (waits && !fuse_unknown) merger.add(unknown);
        waits = true;
      }
    }
    if (waits) merger.add(unknown);
  }
  [[nodiscard]] bool has_bytes(std::string_view character) const noexcept {
    for (const char c : character) {
      if (byte_tokens[static_cast<unsigned char>(c)] == none) return false;
    }
    return true;
  }
};

}  // namespace finteam::inline FINTEAM_ABI
