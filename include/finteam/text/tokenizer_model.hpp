// Reads the model and the added tokens of a tokenizer.json: byte-level BPE. Not here: the file's other parts
// (tokenizer_json.hpp), encoding (tokenizer.hpp).
#pragma once

#include <finteam/file/json_view.hpp>
#include <finteam/file/quoted.hpp>
#include <finteam/text/bpe.hpp>
#include <finteam/text/byte_level.hpp>
#include <finteam/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

namespace detail {

/// What a byte-level BPE model is made of.
struct TokenizerModel {
  Vocabulary vocabulary;
  AddedTokens added;
  MergeTable merges;
  std::array<std::int32_t, 256> byte_tokens{};
  bool ignore_merges = false;
};

/// Throws Error(unsupported) unless the key is missing, null or false.
inline void must_be_off(const JsonView& object, std::string_view key) {
  const auto value = object.find(key);
  if (value && !(value->json().is_boolean() && !value->as_bool())) {
    value->refuse("null or false, the rest is not supported", Code::unsupported);
  }
}

/// The value of "type"; throws Error(unsupported) with the list of what is known unless it is one of them.
[[nodiscard]] inline const std::string& type_of(const JsonView& object, std::initializer_list<std::string_view> known) {
  const JsonView type = object.at("type");
  const std::string& name = type.as_string();
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    std::string expected;
    for (const std::string_view k : known) expected += (expected.empty() ? "" : " or ") + std::string(k);
    throw Error(Code::unsupported, type.where(), expected, printable(name));
  }
  return name;
}

/// lstrip and rstrip would change the ids around a structure token; single_word and normalized matter only where added
/// tokens are looked for in text, which never happens here.
[[nodiscard]] inline AddedTokens read_added_tokens(const JsonView& root, std::int64_t max_id) {
  std::vector<AddedTokens::Entry> entries;
  if (const auto list = root.find("added_tokens")) {
    list->each([&](const JsonView& token) {
      only_keys(token, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      must_be_off(token, "lstrip");
      must_be_off(token, "rstrip");
      const std::string content = token.at("content").as_string();
      if (content.empty()) token.at("content").refuse("a string that is not empty");
      entries.push_back({content, static_cast<std::int32_t>(token.at("id").as_int(0, max_id)),
                         token.bool_or("special", false) ? TokenKind::special : TokenKind::added});
    });
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

/// Puts one token into the vocabulary; an added token's bytes are its content, an ordinary one's what it stands for.
inline void put_token(Vocabulary& vocabulary, std::int32_t id, std::string_view token, TokenKind kind,
                      const std::string& where) {
  if (vocabulary.contains(id)) {
    throw Error(Code::malformed, where, "an id of its own for every token",
                "id " + std::to_string(id) + " for " + in_quotes(token) + " and for another token");
  }
  const auto bytes = kind == TokenKind::ordinary ? byte_level_bytes(token) : std::nullopt;
  vocabulary.set(id, kind, bytes ? std::string_view(*bytes) : token);
  // A token that text cannot spell, or must not be able to, is not found by its bytes.
  if (bytes && !vocabulary.index(id)) {
    throw Error(Code::malformed, where, "every token once", in_quotes(token) + " twice");
  }
}

[[nodiscard]] inline Vocabulary read_vocabulary(const JsonView& vocab, const AddedTokens& added, std::int64_t max_id) {
  std::int64_t greatest = -1;
  vocab.each_member([&](std::string_view, const JsonView& id) { greatest = std::max(greatest, id.as_int(0, max_id)); });
  for (const AddedTokens::Entry& e : added.entries()) greatest = std::max<std::int64_t>(greatest, e.id);
  Vocabulary vocabulary(vocab.json().size() + added.entries().size(), static_cast<std::int32_t>(greatest + 1));
  vocab.each_member([&](std::string_view token, const JsonView& value) {
    const auto id = static_cast<std::int32_t>(value.as_int(0, max_id));
    const AddedTokens::Entry* e = added.entry(token);
    if (e == nullptr) return put_token(vocabulary, id, token, TokenKind::ordinary, vocab.where());
    if (e->id != id) {
      throw Error(Code::mismatch, value.where(), std::to_string(e->id) + " as in added_tokens", std::to_string(id));
    }
    put_token(vocabulary, id, token, e->kind, vocab.where());
  });
  for (const AddedTokens::Entry& e : added.entries()) {
    const bool same = vocabulary.contains(e.id) && vocabulary.kind(e.id) != TokenKind::ordinary &&
                      vocabulary.bytes(e.id) == e.content;
    if (!same) put_token(vocabulary, e.id, e.content, e.kind, vocab.where() + " and added_tokens");
  }
  return vocabulary;
}

/// The two halves of a merge: ["a", "b"], or "a b" as older files write it.
[[nodiscard]] inline std::pair<std::string_view, std::string_view> merge_halves(const JsonView& merge) {
  if (merge.is_array()) {
    if (merge.size() != 2) merge.refuse("two tokens");
    return {merge[0].as_string(), merge[1].as_string()};
  }
  const std::string_view both = merge.as_string();
  const std::size_t space = both.find(' ');
  if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos) {
    merge.refuse("two tokens with one space between them");
  }
  return {both.substr(0, space), both.substr(space + 1)};
}

/// Rank i is the i-th merge. An added token is no part and no result of a merge, so text can never become one.
[[nodiscard]] inline MergeTable read_merges(const JsonView& merges, const Vocabulary& vocabulary) {
  MergeTable table(merges.size());
  std::int32_t rank = 0;
  merges.each([&](const JsonView& merge) {
    const auto [left, right] = merge_halves(merge);
    const auto a = byte_level_bytes(left), b = byte_level_bytes(right);
    const auto i = a ? vocabulary.find(*a) : std::nullopt, j = b ? vocabulary.find(*b) : std::nullopt;
    const auto both = i && j ? vocabulary.find(*a + *b) : std::nullopt;
    if (!both) merge.refuse("two tokens of the vocabulary whose concatenation is one too, none of them added");
    if (!table.add(*i, *j, {rank++, *both})) merge.refuse("every pair once");
  });
  return table;
}

/// Everything but plain byte-level BPE is refused by its name.
[[nodiscard]] inline TokenizerModel read_model(const JsonView& root) {
  const JsonView model = root.at("model");
  static_cast<void>(type_of(model, {"BPE"}));
  only_keys(model, {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                    "byte_fallback", "ignore_merges", "vocab", "merges"});
  for (const std::string_view key : {"dropout", "unk_token", "byte_fallback"}) must_be_off(model, key);
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const auto value = model.find(key); value && !value->as_string().empty()) {
      value->refuse("null or nothing, the rest is not supported", Code::unsupported);
    }
  }
  const JsonView vocab = model.at("vocab");
  if (!vocab.is_object()) vocab.refuse("an object");
  const auto list = root.find("added_tokens");
  // A few ids may be unused, but a small file must not ask for a large table.
  const auto tokens = static_cast<std::int64_t>(vocab.json().size() + (list ? list->size() : 0));
  const std::int64_t max_id = std::min<std::int64_t>(2 * tokens + 1024, 0x7FFFFFFE);
  TokenizerModel m;
  m.added = read_added_tokens(root, max_id);
  m.vocabulary = read_vocabulary(vocab, m.added, max_id);
  for (std::size_t b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(static_cast<unsigned char>(b));
    const auto id = m.vocabulary.find(std::string_view(&byte, 1));
    if (!id) {
      throw Error(Code::malformed, vocab.where(), "a token for each of the 256 bytes", "none for " + std::to_string(b));
    }
    m.byte_tokens[b] = *id;
  }
  m.merges = read_merges(model.at("merges"), m.vocabulary);
  m.ignore_merges = model.bool_or("ignore_merges", false);
  return m;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
