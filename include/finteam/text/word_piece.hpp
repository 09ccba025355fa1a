// WordPiece: the longest token that a word starts with, then the longest that continues it, and so on.
// Source: Wu et al. 2016; an unknown word is one token, as in the tokenizers package, models/wordpiece/mod.rs.
#pragma once

#include <finteam/text/byte_trie.hpp>
#include <finteam/text/unicode.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Immutable. Made by the reader of a file.
struct WordPieceModel {
  ByteTrie trie;
  ByteTrie::Node inside = ByteTrie::root;  ///< where the tokens that continue a word begin; root: there is none
  bool has_prefix = true;                  ///< false: those inside a word are as those at its start
  std::int32_t unknown = 0;
  std::size_t max_characters = 100;  ///< a longer word is unknown

  /// Appends the ids of a word. O(characters · longest token). Allocates only if `out` must grow.
  void append(std::string_view word, std::vector<std::int32_t>& out) const {
    const std::size_t before = out.size();
    std::size_t characters = 0;
    for (std::size_t at = 0; at < word.size() && characters <= max_characters; at += detail::utf8_length(word[at]))
      ++characters;
    bool known = characters <= max_characters;
    for (std::size_t at = 0; known && at < word.size();) {
      const bool nowhere = at > 0 && has_prefix && inside == ByteTrie::root;
      const ByteTrie::Match token =
          nowhere ? ByteTrie::Match{} : trie.longest(word.substr(at), at > 0 && has_prefix ? inside : ByteTrie::root);
      known = token.value >= 0;
      if (known) out.push_back(token.value);
      at += token.size;
    }
    if (known) return;
    out.resize(before);
    out.push_back(unknown);
  }
};

}  // namespace finteam::inline FINTEAM_ABI
