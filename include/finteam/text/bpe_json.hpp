// Reads a BPE model from a tokenizer.json: merges, bytes, the unknown token. Not here: its tokens
// (tokenizer_tokens.hpp).
#pragma once

#include <finteam/text/tokenizer_model.hpp>
#include <finteam/text/tokenizer_tokens.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

/// The two halves of a merge: ["a", "b"], or "a b" as older files write it.
[[nodiscard]] inline std::pair<std::string_view, std::string_view> merge_halves(const JsonView& merge) {
  std::pair<std::string_view, std::string_view> halves;
  if (merge.is_array()) {
    if (merge.size() != 2) merge.refuse("two tokens");
    halves = {merge[0].as_string(), merge[1].as_string()};
  } else {
    const std::string_view both = merge.as_string();
    const std::size_t space = both.find(' ');
    if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos) {
      merge.refuse("two tokens with one space between them");
    }
    halves = {both.substr(0, space), both.substr(space + 1)};
  }
  // So that what two tokens merge to is longer than each of them: merges cannot go round.
  if (halves.first.empty() || halves.second.empty()) merge.refuse("two tokens that are not empty");
  return halves;
}

/// The token of each byte: itself, or <0xXX>; BpeModel::none where there is none.
[[nodiscard]] inline std::array<std::int32_t, 256> read_byte_tokens(const Vocabulary& vocabulary, bool byte_level) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::array<std::int32_t, 256> tokens;
  for (std::size_t b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(static_cast<unsigned char>(b));
    const std::string name =
        byte_level ? std::string(1, byte) : std::string("<0x") + digits[b >> 4] + digits[b & 15] + ">";
    tokens[b] = vocabulary.find(name).value_or(BpeModel::none);
  }
  return tokens;
}

/// Adds the neighbours that a token holds.
inline void add_seams(Seams& seams, std::string_view token) {
  for (std::size_t at = 0, next = utf8_length(token[0]); next < token.size();) {
    seams.add(utf8_first(token.substr(at)), utf8_first(token.substr(next)));
    at = next;
    next += utf8_length(token[next]);
  }
}

/// Rank i is the i-th merge. One with an added token is left out, so that text can never become it.
inline void read_merges(const JsonView& merges, const TokenizerModel& t, BpeModel& m) {
  const auto form = [&](std::string_view token) {
    return t.byte_level ? byte_level_bytes(token) : std::optional<std::string>(token);
  };
  const auto is_added = [&](std::string_view token) {
    const AddedTokens::Entry* e = t.added.entry(token);
    return e != nullptr && e->kind != TokenKind::ordinary;
  };
  std::vector<bool> no_text(static_cast<std::size_t>(t.vocabulary.size()));
  for (const std::int32_t id : m.byte_tokens) {
    if (id != BpeModel::none) no_text[static_cast<std::size_t>(id)] = true;
  }
  if (m.unknown != BpeModel::none) no_text[static_cast<std::size_t>(m.unknown)] = true;
  m.merges = MergeTable(merges.size());
  std::int32_t rank = 0;
  merges.each([&](const JsonView& merge) {
    const auto [left, right] = merge_halves(merge);
    const std::int32_t r = rank++;
    if (is_added(left) || is_added(right) || is_added(std::string(left) + std::string(right))) return;
    const auto a = form(left), b = form(right);
    const auto i = a ? t.vocabulary.find(*a) : std::nullopt, j = b ? t.vocabulary.find(*b) : std::nullopt;
    const auto both = i && j ? t.vocabulary.find(*a + *b) : std::nullopt;
    if (!both) merge.refuse("two tokens of the vocabulary whose concatenation is one too");
    if (!m.merges.add(*i, *j, {r, *both})) merge.refuse("every pair once");
    // Text may be cut between neighbours that no token holds, unless a merge takes what is no text.
    m.cuts = m.cuts && !no_text[static_cast<std::size_t>(*i)] && !no_text[static_cast<std::size_t>(*j)];
    if (m.cuts) add_seams(m.seams, *a + *b);
  });
}

/// The id of a token that the file names, added or not.
[[nodiscard]] inline std::int32_t named_token(const JsonView& name, const TokenizerModel& t) {
  const auto added = t.added.find(name.as_string());
  const auto id = added ? added : t.vocabulary.find(name.as_string());
  if (!id) name.refuse("a token of the vocabulary", Code::mismatch);
  return *id;
}

[[nodiscard]] inline BpeModel read_bpe(const JsonView& model, TokenizerModel& t) {
  only_keys(model, {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                    "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (const auto dropout = model.find("dropout"); dropout && !(dropout->is_number() && dropout->as_number() == 0)) {
    dropout->refuse("null or 0, the rest is not supported", Code::unsupported);
  }
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const auto value = model.find(key); value && !value->as_string().empty()) {
      value->refuse("null or nothing, the rest is not supported", Code::unsupported);
    }
  }
  BpeModel m;
  m.bytes = t.byte_level;
  m.cuts = !m.bytes;
  m.ignore_merges = model.bool_or("ignore_merges", false);
  m.byte_fallback = model.bool_or("byte_fallback", false);
  m.fuse_unknown = model.bool_or("fuse_unk", false);
  m.byte_tokens = read_byte_tokens(t.vocabulary, m.bytes);
  for (std::size_t b = 0; m.bytes && b < 256; ++b) {
    if (m.byte_tokens[b] != BpeModel::none) continue;
    throw Error(Code::malformed, model.at("vocab").where(), "a token for each of the 256 bytes",
                "none for " + std::to_string(b));
  }
  // Bytes are never unknown.
  if (const auto unknown = model.find("unk_token"); unknown && !m.bytes) m.unknown = named_token(*unknown, t);
  if (m.unknown != BpeModel::none) t.unknown = m.unknown;
  for (std::size_t c = 0; c < m.ascii.size(); ++c) {
    const char character = static_cast<char>(c);
    m.ascii[c] = t.vocabulary.find(std::string_view(&character, 1)).value_or(BpeModel::none);
  }
  read_merges(model.at("merges"), t, m);
  return m;
}

}  // namespace finteam::inline FINTEAM_ABI::detail
