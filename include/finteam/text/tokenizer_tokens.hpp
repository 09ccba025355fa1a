// Reads the tokens of a tokenizer.json: the added ones and the vocabulary. Not here: models (model_json.hpp).
#pragma once

#include <finteam/text/byte_level.hpp>
#include <finteam/text/byte_trie.hpp>
#include <finteam/text/normalizer.hpp>
#include <finteam/text/tokenizer_key.hpp>
#include <finteam/text/vocabulary.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

/// White space, which U+2581 stands for in many vocabularies.
[[nodiscard]] inline bool is_blank(std::string_view text) noexcept {
  for (std::size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const char32_t c = utf8_first(text.substr(at));
    if (!is_white_space(c) && c != 0x2581) return false;
  }
  return true;
}

/// One of added_tokens. Law 5: none of them comes out of text, but for those that are white space alone and not
/// special. These carry no structure, and Gemma's and Phi's models have seen them in every text: without them the ids
/// of ordinary text would not be transformers'. lstrip and rstrip are for who writes the token beside text; single_word
/// matters only where it is looked for.
[[nodiscard]] inline AddedTokens::Entry read_added_token(const JsonView& token, std::int64_t max_id) {
  only_keys(token, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  AddedTokens::Entry e{.content = token.at("content").as_string(),
                       .id = static_cast<std::int32_t>(token.at("id").as_int(0, max_id)),
                       .kind = token.bool_or("special", false) ? TokenKind::special : TokenKind::added,
                       .strips_left = token.bool_or("lstrip", false),
                       .strips_right = token.bool_or("rstrip", false),
                       .normalized = token.bool_or("normalized", false)};
  if (e.content.empty()) token.at("content").refuse("a string that is not empty");
  if (e.kind == TokenKind::added && is_blank(e.content)) {
    e.kind = TokenKind::ordinary;
    for (const std::string_view key : {"single_word", "lstrip", "rstrip"}) must_be_off(token, key);
    if (e.content.size() > 256) token.at("content").refuse("at most 256 bytes of white space", Code::limit_exceeded);
  }
  return e;
}

[[nodiscard]] inline AddedTokens read_added_tokens(const JsonView& root, std::int64_t max_id) {
  std::vector<AddedTokens::Entry> entries;
  if (const auto list = root.find("added_tokens")) {
    list->each([&](const JsonView& token) { entries.push_back(read_added_token(token, max_id)); });
  }
  AddedTokens added(std::move(entries));
  for (std::size_t i = 1; i < added.entries().size(); ++i) {
    if (added.entries()[i].content == added.entries()[i - 1].content) {
      throw Error(Code::malformed, root.where() + ": added_tokens", "every content once",
                  in_quotes(added.entries()[i].content) + " twice");
    }
  }
  return added;
}

/// Puts one token into the vocabulary; found: whether a model may look it up.
inline void put_token(Vocabulary& vocabulary, std::int32_t id, std::string_view token, TokenKind kind, bool byte_level,
                      bool found, const std::string& where) {
  if (vocabulary.contains(id)) {
    throw Error(Code::malformed, where, "an id of its own for every token",
                "id " + std::to_string(id) + " for " + in_quotes(token) + " and for another token");
  }
  const auto bytes = byte_level ? byte_level_bytes(token) : std::nullopt;
  vocabulary.set(id, kind, bytes ? std::string_view(*bytes) : token);
  // A token that text cannot spell, or must not be able to, is not found by its bytes.
  if (found && (bytes || !byte_level) && !vocabulary.index(id)) {
    throw Error(Code::malformed, where, "every token once", in_quotes(token) + " twice");
  }
}

/// f(token, id, where) for each token of a vocabulary: an object of ids, or (Unigram) an array of tokens with scores.
template <class F>
void each_token(const JsonView& vocab, std::int64_t max_id, F&& f) {
  if (!vocab.is_array()) {
    vocab.each_member([&](std::string_view token, const JsonView& id) {
      f(token, static_cast<std::int32_t>(id.as_int(0, max_id)), id.where());
    });
    return;
  }
  std::int32_t i = 0;
  vocab.each([&](const JsonView& token) {
    if (token.size() != 2) token.refuse("a token and its score");
    f(std::string_view(token[0].as_string()), i++, token.where());
  });
}

/// What a normalised text has for an added token that is normalised too, and so what it decodes to; others as they are.
/// Source: tokenizers, tokenizer/added_vocabulary.rs, simple_id_to_token.
class AddedTokenForms {
 public:
  explicit AddedTokenForms(const Normalizer& normalizer)
      : normalizer_(normalizer), scratch_(normalizer, max_bytes), steps_left_(Pattern::budget(max_bytes)) {}

  /// Throws Error(limit_exceeded) beyond 64 KiB.
  [[nodiscard]] std::string operator()(const AddedTokens::Entry& e) {
    if (!e.normalized || normalizer_.empty()) return e.content;
    return std::string(normalizer_.apply(e.content, scratch_, patterns_, steps_left_));
  }

 private:
  static constexpr std::size_t max_bytes = 65536;
  const Normalizer& normalizer_;
  Normalizer::Scratch scratch_;
  Pattern::Scratch patterns_;
  std::uint64_t steps_left_;
};

[[nodiscard]] inline Vocabulary read_vocabulary(const JsonView& vocab, const AddedTokens& added, AddedTokenForms& form,
                                                bool byte_level, std::int64_t max_id) {
  std::int32_t greatest = -1;
  each_token(vocab, max_id,
             [&](std::string_view, std::int32_t id, const std::string&) { greatest = std::max(greatest, id); });
  for (const AddedTokens::Entry& e : added.entries()) greatest = std::max(greatest, e.id);
  Vocabulary vocabulary(vocab.json().size() + added.entries().size(), greatest + 1);
  std::vector<bool> listed(added.entries().size());
  each_token(vocab, max_id, [&](std::string_view token, std::int32_t id, const std::string& where) {
    const AddedTokens::Entry* e = added.entry(token);
    if (e != nullptr && e->id != id) {
      throw Error(Code::mismatch, where, std::to_string(e->id) + " as in added_tokens", std::to_string(id));
    }
    if (e != nullptr) listed[static_cast<std::size_t>(e - added.entries().data())] = true;
    const bool ordinary = e == nullptr || e->kind == TokenKind::ordinary;
    put_token(vocabulary, id, ordinary ? std::string(token) : form(*e), ordinary ? TokenKind::ordinary : e->kind,
              byte_level, ordinary, vocab.where());
  });
  for (std::size_t i = 0; i < listed.size(); ++i) {
    const AddedTokens::Entry& e = added.entries()[i];
    const std::string where = vocab.where() + " and added_tokens";
    if (!listed[i]) put_token(vocabulary, e.id, form(e), e.kind, byte_level, false, where);
  }
  return vocabulary;
}

/// The white space tokens that are looked for in text, as it is or normalised. Of two with one form the first counts.
[[nodiscard]] inline std::optional<ByteTrie> blank_tokens(const AddedTokens& added, AddedTokenForms& form,
                                                          bool normalized) {
  std::map<std::string, std::int32_t> forms;
  for (const AddedTokens::Entry& e : added.entries()) {
    const bool wanted = e.kind == TokenKind::ordinary && e.normalized == normalized;
    if (std::string text = wanted ? form(e) : std::string(); !text.empty()) forms.emplace(std::move(text), e.id);
  }
  if (forms.empty()) return std::nullopt;
  return ByteTrie({forms.begin(), forms.end()});
}

}  // namespace finteam::inline FINTEAM_ABI::detail
