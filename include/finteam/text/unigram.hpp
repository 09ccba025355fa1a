// Unigram language model: of all ways to cut a word into tokens the one with the greatest sum of scores.
// Source: Kudo 2018; the search, its ties and its unknown characters as in the tokenizers package,
// models/unigram/model.rs, encode_optimized.
#pragma once

#include <finteam/text/byte_trie.hpp>
#include <finteam/text/unicode.hpp>
#include <finteam/text/vocabulary.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Immutable. Made by the reader of a file.
struct UnigramModel {
  /// The longest token, in bytes: a text costs its length times this.
  static constexpr std::size_t max_token_bytes = 256;

  ByteTrie trie;
  std::vector<double> scores;  ///< by id
  double unknown_score = 0;
  std::int32_t unknown = 0;
  bool byte_fallback = false;                   ///< unknown text is its bytes, if each has a token
  std::array<std::int32_t, 256> byte_tokens{};  ///< or negative
};

/// Cuts one word at a time. Owns all memory that words of up to max_bytes need.
class UnigramCutter {
 public:
  explicit UnigramCutter(std::size_t max_bytes) : last_(max_bytes + 1), scores_(window) {}

  /// Appends the ids of a word of 1 … max_bytes bytes of well-formed UTF-8. O(bytes · longest token).
  void append(std::string_view word, const UnigramModel& model, const Vocabulary& vocabulary,
              std::vector<std::int32_t>& out) {
    search(word, model);
    // From the end back to the beginning, then turned round.
    const std::size_t before = out.size();
    for (std::size_t end = word.size(); end > 0;) {
      const std::size_t begin = start(word, end, model, vocabulary);
      if (last_[end] != model.unknown) {
        out.push_back(last_[end]);
        end = begin;
        continue;
      }
      std::size_t first = begin;  // unknown characters in a row are one
      while (first > 0 && last_[first] == model.unknown) first = start(word, first, model, vocabulary);
      append_unknown(word.substr(first, end - first), model, vocabulary, out);
      end = first;
    }
    std::reverse(out.begin() + static_cast<std::ptrdiff_t>(before), out.end());
  }

 private:
  static constexpr std::size_t window =
      std::bit_ceil(UnigramModel::max_token_bytes + 4);  // scores that may be asked for
  static constexpr std::int32_t none = -1;

  void search(std::string_view word, const UnigramModel& model) {
    std::fill_n(last_.begin(), word.size() + 1, none);
    scores_[0] = 0;
    for (std::size_t begin = 0; begin < word.size();) {
      const double score = scores_[begin % window];
      const std::size_t character = detail::utf8_length(word[begin]);
      bool alone = false;
      ByteTrie::Node node = ByteTrie::root;
      for (std::size_t end = begin; end < word.size();) {
        node = model.trie.child(node, static_cast<unsigned char>(word[end++]));
        if (node == ByteTrie::root) break;
        const std::int32_t id = model.trie.value(node);
        if (id < 0) continue;
        offer(end, score + model.scores[static_cast<std::size_t>(id)], id);
        alone = alone || end - begin == character;
      }
      if (!alone) offer(begin + character, score + model.unknown_score, model.unknown);
      begin += character;
    }
  }
  void offer(std::size_t end, double score, std::int32_t id) noexcept {
    if (last_[end] != none && score <= scores_[end % window]) return;
    last_[end] = id;
    scores_[end % window] = score;
  }

  /// Where the token that ends here begins.
  [[nodiscard]] std::size_t start(std::string_view word, std::size_t end, const UnigramModel& model,
                                  const Vocabulary& vocabulary) const noexcept {
    const std::int32_t id = last_[end];
    return id == model.unknown ? detail::utf8_last(word, end) : end - vocabulary.bytes(id).size();
  }

  /// What is unknown character by character may be a token as a whole.
  static void append_unknown(std::string_view text, const UnigramModel& model, const Vocabulary& vocabulary,
                             std::vector<std::int32_t>& out) {
    if (const auto id = vocabulary.find(text)) {
      out.push_back(*id);
      return;
    }
    bool spelt = model.byte_fallback;
    for (const char c : text) spelt = spelt && model.byte_tokens[static_cast<unsigned char>(c)] >= 0;
    if (!spelt) {
      out.push_back(model.unknown);
    } else {
      for (auto c = text.rbegin(); c != text.rend(); ++c)
        out.push_back(model.byte_tokens[static_cast<unsigned char>(*c)]);
    }
  }

  std::vector<std::int32_t> last_;  // [i]: the token that ends at byte i on the best way there
  std::vector<double> scores_;
};

}  // namespace finteam::inline FINTEAM_ABI
