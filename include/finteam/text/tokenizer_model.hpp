// The model of a tokenizer and its tokens. Not here: reading them (model_json.hpp).
#pragma once

#include <finteam/text/bpe_model.hpp>
#include <finteam/text/unigram.hpp>
#include <finteam/text/vocabulary.hpp>
#include <finteam/text/word_piece.hpp>

#include <cstdint>
#include <optional>
#include <variant>

namespace finteam::inline FINTEAM_ABI::detail {

struct TokenizerModel {
  Vocabulary vocabulary;
  AddedTokens added;
  bool byte_level = false;              ///< the vocabulary's bytes are what its byte-level characters stand for
  std::optional<std::int32_t> unknown;  ///< the token for text that the vocabulary cannot spell
  std::optional<ByteTrie> blanks,
      normalized_blanks;  ///< white space tokens to look for in text, as it is or normalised
  std::variant<BpeModel, UnigramModel, WordPieceModel> model;

  [[nodiscard]] const BpeModel* bpe() const noexcept { return std::get_if<BpeModel>(&model); }
  [[nodiscard]] const UnigramModel* unigram() const noexcept { return std::get_if<UnigramModel>(&model); }
};

}  // namespace finteam::inline FINTEAM_ABI::detail
