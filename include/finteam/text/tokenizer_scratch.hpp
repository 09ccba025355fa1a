// The memory that encoding needs, and the encoding itself: normalise, cut into words, words to ids.
#pragma once

#include <finteam/text/tokenizer_json.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// A bound on the symbols, and so on the ids, of a text. Bytes of a text that nothing changes are their own symbols.
/// Others may grow: an Error where they grow beyond this.
[[nodiscard]] inline std::size_t max_symbols(const TokenizerParts& parts, std::size_t text_bytes) noexcept {
  return text_bytes + (parts.grows() ? text_bytes + 256 : 0);
}
/// What a normalised text may have in bytes: a blank is three in U+2581, and twice that is rare.
[[nodiscard]] inline std::size_t max_normalized_bytes(const TokenizerParts& parts, std::size_t text_bytes) noexcept {
  return parts.grows() ? 4 * text_bytes + 256 : text_bytes;
}

}  // namespace detail

class Tokenizer;

/// All memory that encoding needs, for one thread at a time. Made by Tokenizer::scratch.
class TokenizerScratch {
 public:
  [[nodiscard]] std::size_t max_bytes() const noexcept { return max_bytes_; }

 private:
  friend class Tokenizer;
  using Parts = detail::TokenizerParts;

  TokenizerScratch(std::shared_ptr<const Parts> parts, std::size_t max_bytes)
      : parts_(std::move(parts)),
        max_bytes_(max_bytes),
        normalizer_(parts_->normalizer, detail::max_normalized_bytes(*parts_, max_bytes)),
        pre_tokenizer_(parts_->pre_tokenizer, detail::max_normalized_bytes(*parts_, max_bytes)),
        merger_(parts_->model.bpe() != nullptr ? detail::max_symbols(*parts_, max_bytes) : 0),
        cutter_(parts_->model.unigram() != nullptr ? detail::max_normalized_bytes(*parts_, max_bytes) : 0) {}

  void check(const std::shared_ptr<const Parts>& parts, std::size_t text_bytes) const {
    if (parts != parts_) {
      throw Error(Code::invalid_argument, "scratch", "one that this tokenizer made", "another's");
    }
    if (text_bytes > max_bytes_) {
      throw Error(Code::limit_exceeded, "text", "at most " + std::to_string(max_bytes_) + " bytes",
                  std::to_string(text_bytes));
    }
  }

  void encode(std::string_view text, bool first, std::vector<std::int32_t>& ids) {
    steps_left_ = Pattern::budget(text.size());
    ids_before_ = ids.size();
    max_ids_ = detail::max_symbols(*parts_, text.size());
    each_piece(text, first, parts_->model.blanks, ids, [&](std::string_view piece, bool at_start) {
      const std::string_view normalized = parts_->normalizer.apply(piece, normalizer_, patterns_, steps_left_);
      each_piece(normalized, at_start, parts_->model.normalized_blanks, ids,
                 [&](std::string_view part, bool part_first) {
                   const auto word = [&](std::string_view w) { append(w, ids); };
                   parts_->pre_tokenizer.cut(part, part_first, pre_tokenizer_, patterns_, steps_left_, word);
                 });
    });
  }

  /// Appends the white space tokens of a text (the leftmost, of these the longest); f(piece, first) for what lies
  /// between. Source: tokenizers, tokenizer/added_vocabulary.rs.
  template <class F>
  static void each_piece(std::string_view text, bool first, const std::optional<ByteTrie>& blanks,
                         std::vector<std::int32_t>& ids, F&& f) {
    std::size_t begin = 0;
    for (std::size_t at = 0; blanks && at < text.size();) {
      const ByteTrie::Match token = blanks->longest(text.substr(at));
      if (token.value < 0) {
        ++at;
        continue;
      }
      if (begin < at) f(text.substr(begin, at - begin), first && begin == 0);
      ids.push_back(token.value);
      begin = at += token.size;
    }
    if (begin < text.size()) f(text.substr(begin), first && begin == 0);
  }

  void append(std::string_view word, std::vector<std::int32_t>& ids) {
    const auto& model = parts_->model;
    if (const BpeModel* bpe = model.bpe()) {
      bpe->append(word, model.vocabulary, merger_, ids);
    } else if (const UnigramModel* unigram = model.unigram()) {
      cutter_.append(word, *unigram, model.vocabulary, ids);
    } else {
      std::get<WordPieceModel>(model.model).append(word, ids);
    }
    if (ids.size() - ids_before_ > max_ids_) {
      throw Error(Code::limit_exceeded, "text", "at most " + std::to_string(max_ids_) + " tokens", "more");
    }
  }

  std::shared_ptr<const Parts> parts_;
  std::size_t max_bytes_;
  Pattern::Scratch patterns_;
  Normalizer::Scratch normalizer_;
  PreTokenizer::Scratch pre_tokenizer_;
  WordMerger merger_;
  UnigramCutter cutter_;
  std::uint64_t steps_left_ = 0;
  std::size_t ids_before_ = 0, max_ids_ = 0;
};

}  // namespace finteam::inline FINTEAM_ABI
