// Reads the model of a tokenizer.json: BPE, Unigram or WordPiece, with its tokens.
#pragma once

#include <finteam/text/bpe_json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

/// All that text may become, for a trie.
[[nodiscard]] inline std::vector<std::pair<std::string_view, std::int32_t>> findable_tokens(const TokenizerModel& t) {
  std::vector<std::pair<std::string_view, std::int32_t>> tokens;
  for (std::int32_t id = 0; id < t.vocabulary.size(); ++id) {
    const std::string_view token = t.vocabulary.bytes(id);
    const bool text = !token.empty() && t.vocabulary.find(token) == id && t.unknown != id;
    if (text) tokens.emplace_back(token, id);
  }
  return tokens;
}

[[nodiscard]] inline UnigramModel read_unigram(const JsonView& model, TokenizerModel& t) {
  only_keys(model, {"type", "unk_id", "vocab", "byte_fallback"});
  const JsonView vocab = model.at("vocab");
  UnigramModel m;
  m.unknown = static_cast<std::int32_t>(model.at("unk_id").as_int(0, static_cast<std::int64_t>(vocab.size()) - 1));
  t.unknown = m.unknown;
  m.byte_fallback = model.bool_or("byte_fallback", false);
  m.byte_tokens = read_byte_tokens(t.vocabulary, false);
  vocab.each([&](const JsonView& token) {
    m.scores.push_back(token[1].as_number(-1e30, 1e30));
    if (token[0].as_string().size() > UnigramModel::max_token_bytes) {
      token.refuse("a token of at most " + std::to_string(UnigramModel::max_token_bytes) + " bytes",
                   Code::limit_exceeded);
    }
  });
  // Source: tokenizers, models/unigram/model.rs, K_UNK_PENALTY.
  m.unknown_score = *std::min_element(m.scores.begin(), m.scores.end()) - 10;
  m.trie = ByteTrie(findable_tokens(t));
  return m;
}

[[nodiscard]] inline WordPieceModel read_word_piece(const JsonView& model, TokenizerModel& t) {
  only_keys(model, {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"});
  WordPieceModel m;
  m.unknown = named_token(model.at("unk_token"), t);
  t.unknown = m.unknown;
  m.max_characters = static_cast<std::size_t>(model.int_or("max_input_chars_per_word", 100, 1, 1000));
  m.trie = ByteTrie(findable_tokens(t));
  const std::string prefix = model.string_or("continuing_subword_prefix", "##");
  m.has_prefix = !prefix.empty();
  m.inside = m.trie.walk(ByteTrie::root, prefix);
  return m;
}

/// byte_level: whether words come to the model as byte-level characters.
[[nodiscard]] inline TokenizerModel read_model(const JsonView& root, const Normalizer& normalizer, bool byte_level) {
  const JsonView model = root.at("model");
  const std::string& type = type_of(model, {"BPE", "Unigram", "WordPiece"});
  if (byte_level && type != "BPE") model.at("type").refuse("BPE after ByteLevel", Code::unsupported);
  const JsonView vocab = model.at("vocab");
  if (type == "Unigram" ? !vocab.is_array() : !vocab.is_object())
    vocab.refuse(type == "Unigram" ? "an array" : "an object");
  const auto list = root.find("added_tokens");
  // A few ids may be unused, but a small file must not ask for a large table.
  const auto tokens = static_cast<std::int64_t>(vocab.json().size() + (list ? list->size() : 0));
  const std::int64_t max_id = std::min<std::int64_t>(2 * tokens + 1024, 0x7FFFFFFE);
  TokenizerModel t;
  t.byte_level = byte_level;
  t.added = read_added_tokens(root, max_id);
  AddedTokenForms form(normalizer);
  t.vocabulary = read_vocabulary(vocab, t.added, form, byte_level, max_id);
  t.blanks = blank_tokens(t.added, form, false);
  t.normalized_blanks = blank_tokens(t.added, form, true);
  if (type == "BPE") t.model = read_bpe(model, t);
  if (type == "Unigram") t.model = read_unigram(model, t);
  if (type == "WordPiece") t.model = read_word_piece(model, t);
  return t;
}

}  // namespace finteam::inline FINTEAM_ABI::detail
