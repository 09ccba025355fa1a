// Tokenizers that are not byte-level BPE, and what a file's steps mean for who uses a tokenizer. Their ids are compared
// with the package's in tokenizer_parity_test.cpp.
#include <finteam/file/json_view.hpp>
#include <finteam/text/text_stream.hpp>
#include <finteam/text/tokenizer.hpp>

#include "catch.hpp"
#include "refusals.hpp"
#include "text/goldens.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

using namespace finteam;

namespace {

using TokenIds = std::vector<std::int32_t>;

Json kind_file(const std::string& name) {
  return JsonFile::open(finteam_test::tokenizer_goldens() / "parity" / name).root().json();
}

/// One of the parity tests' files, changed.
Tokenizer changed(const std::string& name, const std::function<void(Json&)>& change) {
  Json file = kind_file(name);
  change(file);
  return Tokenizer::parse(file.dump(), name);
}

Tokenizer llama2() {
  return changed("sp.json", [](Json&) {});
}
Json metaspace(const char* prepend) {
  return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", prepend}, {"split", false}};
}
Json added_token(std::int32_t id, const std::string& content, bool special) {
  return {{"id", id}, {"content", content}, {"special", special}, {"normalized", false}};
}

}  // namespace

TEST_CASE("A blank that a file puts before the first text does not stand before a later one", "[text]") {
  const Tokenizer first = changed("sp.json", [](Json& file) {
    file["normalizer"] = nullptr;
    file["pre_tokenizer"] = metaspace("first");
  });
  CHECK(first.encode("rate") == TokenIds{*first.token("▁rate")});
  CHECK(first.bytes(first.encode("rate", TextPlace::inside)[0])[0] == 'r');
  CHECK(first.encode(" rate", TextPlace::inside) == first.encode("rate"));
  // Old files say it with a normalizer, which does not ask where a text stands.
  const Tokenizer always = llama2();
  CHECK(always.encode("rate", TextPlace::inside) == always.encode("rate"));
}

TEST_CASE("Decoding takes that blank away at the start of a text only", "[text]") {
  const Tokenizer t = llama2();
  const TokenIds ids = t.encode("rate rose");
  CHECK(t.decode(ids) == "rate rose");
  CHECK(t.decode(ids, SpecialTokens::skip, TextPlace::inside) == " rate rose");
  StreamDecoder stream(t, SpecialTokens::skip, TextPlace::inside);
  std::string text;
  for (int round = 0; round < 2; ++round) {  // as new after flush()
    for (const std::int32_t id : ids) text += stream.push(id);
    text += stream.flush();
  }
  CHECK(text == " rate rose rate rose");
  CHECK(t.bytes(ids[0]) == " rate");
  CHECK(t.decode(TokenIds{*t.token("▁"), *t.token("▁")}) == " ");
  CHECK(t.decode(TokenIds{*t.token("<s>"), ids[0]}) == "rate");
  CHECK(t.decode(TokenIds{*t.token("<s>"), ids[0]}, SpecialTokens::keep) == "<s> rate");
}

TEST_CASE("A stream of text goes on with one that is shown already, or is an answer of its own", "[text]") {
  const Tokenizer t = llama2();
  TextStream stream(t);
  const auto shown = [&](TextPlace place) {
    std::string text;
    const auto emit = [&text](std::string_view piece) {
      text += piece;
      return true;
    };
    stream.begin({"fell"}, place);
    for (const std::int32_t id : t.encode("rate rose fell")) static_cast<void>(stream.push(id, emit));
    stream.finish(emit);
    return text;
  };
  CHECK(shown(TextPlace::start) == "rate rose ");
  CHECK(shown(TextPlace::inside) == " rate rose ");
  CHECK(shown(TextPlace::start) == "rate rose ");
}

TEST_CASE("A run of byte tokens is text as a whole or not at all, and a stream waits for its end", "[text]") {
  const Tokenizer t = llama2();
  const auto byte = [](unsigned b) { return static_cast<std::int32_t>(3 + b); };
  REQUIRE(t.bytes(byte(0xE2)) == "\xE2");
  StreamDecoder stream(t, SpecialTokens::skip, TextPlace::inside);
  for (const unsigned b : {0xE2U, 0x82U, 0xACU}) CHECK(stream.push(byte(b)).empty());
  CHECK(stream.push(*t.token("a")) ==
        "\xE2\x82\xAC"
        "a");
  for (const unsigned b : {0xE2U, 0x82U, 0xACU, 0xFFU}) CHECK(stream.push(byte(b)).empty());
  CHECK(stream.flush() == "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  // A long one is shown before its end.
  std::string shown, whole;
  TokenIds ids;
  for (int i = 0; i < 1000; ++i) {
    whole += "\xE2\x82\xAC";
    for (const unsigned b : {0xE2U, 0x82U, 0xACU}) {
      ids.push_back(byte(b));
      const std::string_view piece = stream.push(ids.back());
      CHECK(piece.size() <= stream.max_piece_bytes());
      shown += piece;
    }
  }
  CHECK(whole.size() - shown.size() <= TokenStream::max_waiting + 3);
  shown += stream.flush();
  CHECK(shown == whole);
  CHECK(t.decode(ids) == whole);
  ids.insert(ids.begin() + 5, byte(0xFF));  // what is broken and long is broken to its end, and no longer
  ids.push_back(*t.token("a"));
  ids.push_back(byte(0x41));
  const std::string text = t.decode(ids);
  CHECK(text.size() == 3 * (ids.size() - 2) + 2);
  CHECK(text.substr(text.size() - 5) ==
        "\xEF\xBF\xBD"
        "aA");
}

TEST_CASE("White space that is an added token is found in text, other added tokens are not", "[text][law5]") {
  const Tokenizer t = changed("sp.json", [](Json& file) {
    const auto n = static_cast<std::int32_t>(file["model"]["vocab"].size());
    for (const auto& [i, content] : std::vector<std::pair<std::int32_t, std::string>>{
             {n, "\n\n\n"}, {n + 1, "<table>"}, {n + 2, "\t"}, {n + 3, "<start>"}}) {
      file["added_tokens"].push_back(added_token(i, content, content == "<start>" || content == "\t"));
    }
    file["normalizer"] = file["normalizer"]["normalizers"][1];  // no blank before a text
  });
  const std::int32_t lines = *t.token("\n\n\n");
  CHECK(t.kind(lines) == TokenKind::ordinary);
  CHECK(t.encode("a\n\n\nb") == TokenIds{*t.token("a"), lines, *t.token("b")});
  CHECK(t.encode(std::string(7, '\n')) == TokenIds{lines, lines, *t.token("\n")});
  const std::string text = "<table>\t<start>\n\n\n<s></s><unk>";
  int found = 0;
  for (const std::int32_t id : t.encode(text)) {
    CHECK(t.kind(id) == TokenKind::ordinary);
    found += id == lines ? 1 : 0;
  }
  CHECK(found == 1);
  CHECK(t.kind(*t.token("\t")) == TokenKind::special);
  CHECK(t.decode(t.encode(text)) == text);
}

TEST_CASE("Text cannot become a special token by Unigram's or WordPiece's vocabulary", "[text][law5]") {
  const std::pair<const char*, const char*> rows[] = {{"unigram.json", "a</s><pad><unk>"},
                                                      {"word_piece.json", "a [CLS] [SEP] [PAD] [UNK]"}};
  for (const auto& [name, text] : rows) {
    const Tokenizer t = changed(name, [](Json& file) { file["pre_tokenizer"] = {{"type", "WhitespaceSplit"}}; });
    REQUIRE(t.unknown());
    int ordinary = 0;
    for (const std::int32_t id : t.encode(text)) {
      CHECK((t.kind(id) == TokenKind::ordinary || id == *t.unknown()));
      ordinary += t.kind(id) == TokenKind::ordinary ? 1 : 0;
    }
    CHECK(ordinary > 0);
  }
}

TEST_CASE("What an added token strips is told to who writes it", "[text]") {
  const Tokenizer t = changed("sp.json", [](Json& file) {
    file["added_tokens"][2]["rstrip"] = true;
    file["added_tokens"][1]["lstrip"] = true;
  });
  CHECK((t.strips_right(2) && !t.strips_left(2)));
  CHECK((t.strips_left(1) && !t.strips_right(1)));
  CHECK_FALSE((t.strips_left(0) || t.strips_right(500)));
  CHECK(t.encode(" a </s> b") == llama2().encode(" a </s> b"));
}

TEST_CASE("A text that grows beyond its scratch is an error and changes nothing", "[text][law5]") {
  const Tokenizer t = changed("sp.json", [](Json& file) { file["normalizer"] = {{"type", "NFKC"}}; });
  Tokenizer::Scratch scratch = t.scratch(3000);
  TokenIds ids = {7};
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "\xEF\xB7\xBA";  // U+FDFA is 18 characters there
  test::check_refused([&] { t.encode(text, scratch, ids); }, Code::limit_exceeded, "at most 12256 bytes");
  CHECK(ids == TokenIds{7});
  test::check_refused([&] { t.encode(text.substr(0, 300), scratch, ids); }, Code::limit_exceeded, "at most 856 tokens");
  CHECK(ids == TokenIds{7});
  t.encode(text.substr(0, 18), scratch, ids);
  CHECK(ids.size() > 180);
  CHECK(ids.size() <= 1 + t.max_ids(18));
  // What one tokenizer's memory is for is not what another needs.
  test::check_refused([&] { llama2().encode("a", scratch, ids); }, Code::invalid_argument, "scratch");
}

TEST_CASE("Searches through the pieces of one text share their budget", "[text][law5]") {
  const Tokenizer t = changed("sp.json", [](Json& file) {
    const auto split = [](Json pattern) {
      return Json{{"type", "Split"}, {"pattern", pattern}, {"behavior", "Isolated"}, {"invert", false}};
    };
    file["pre_tokenizer"] = {{"type", "Sequence"},
                             {"pretokenizers", {split({{"String", "▁"}}), split({{"Regex", "x|(?:a+)+[bc]"}})}}};
  });
  std::string text;
  while (text.size() < 100'000) text += "aaaaaaaaaaaaaaaaaa ";
  Tokenizer::Scratch scratch = t.scratch(text.size());
  TokenIds ids;
  const auto start = std::chrono::steady_clock::now();
  test::check_refused([&] { t.encode(text, scratch, ids); }, Code::limit_exceeded, "limits");
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  CHECK(ids.empty());
}

TEST_CASE("A mebibyte of one character is encoded in about a second by every model", "[text]") {
  std::vector<Tokenizer> all = [] {
    std::vector<Tokenizer> list;
    for (const char* name : {"sp.json", "unigram.json", "word_piece.json"}) list.push_back(changed(name, [](Json&) {}));
    for (const char* form : {"NFC", "NFKD"}) {
      list.push_back(changed("sp.json", [&](Json& file) { file["normalizer"] = {{"type", form}}; }));
    }
    list.push_back(changed("sp.json", [](Json& file) { file["model"]["byte_fallback"] = false; }));
    return list;
  }();
  all.push_back(changed("unigram.json", [](Json& file) {  // as dear as a file can make it
    file["pre_tokenizer"] = nullptr;
    for (int n = 2; n <= 256; ++n) {
      file["model"]["vocab"].push_back({std::string(static_cast<std::size_t>(n), 'z'), -1.0 * n});
    }
  }));
  for (const Tokenizer& t : all) {
    Tokenizer::Scratch scratch = t.scratch(1 << 20);
    for (const std::string c : {"a", " ", "7", "z", "\n", "\xCC\x81", "\xE4\xB8\x80", "\xE1\x85\xA1", "\xC2\xA0"}) {
      std::string text;
      while (text.size() + c.size() <= 1 << 20) text += c;
      TokenIds ids;
      const auto start = std::chrono::steady_clock::now();
      t.encode(text, scratch, ids);
      CAPTURE(t.where(), c);
      CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));  // sanitizers
      CHECK(ids.size() <= t.max_ids(text.size()));
    }
  }
}

TEST_CASE("Marks are ordered and composed, in time n log n", "[text]") {
  const auto form = [](NormalForm f, const std::string& text) {
    std::vector<NormalizerStep> steps;
    steps.emplace_back(f);
    const Normalizer n(std::move(steps));
    Normalizer::Scratch scratch(n, 4 * text.size() + 64);
    Pattern::Scratch patterns;
    std::uint64_t budget = 0;
    return std::string(n.apply(text, scratch, patterns, budget));
  };
  CHECK(form(NormalForm::nfc, "e\u0301") == "\u00e9");
  CHECK(form(NormalForm::nfc, "e\u0301\u0323") == "\u1eb9\u0301");  // the lower mark composes first
  CHECK(form(NormalForm::nfd, "\u00e9\u0323") == "e\u0323\u0301");
  CHECK(form(NormalForm::nfc, "\u1100\u1161\u11a8") == "\uac01");
  CHECK(form(NormalForm::nfkc, "\ufb01\u00bd") == "fi1\u20442");
  CHECK(form(NormalForm::nfc, "\u0301a") == "\u0301a");
  CHECK(form(NormalForm::nfd, "\uac01") == "\u1100\u1161\u11a8");
  std::string marks = "a";
  for (int i = 0; i < 200'000; ++i) marks += "\u0301\u0323";  // every pair is out of order
  const auto start = std::chrono::steady_clock::now();
  const std::string ordered = form(NormalForm::nfd, marks);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));  // a quadratic way takes minutes
  CHECK(ordered.substr(0, 5) == "a\u0323\u0323");
  CHECK(ordered.size() == marks.size());
}

TEST_CASE("Every refused tokenizer.json is refused for its reason", "[text][law5]") {
  test::check_refused_files(
      "tokenizer",
      {{"unigram_no_unknown", Code::malformed, "unk_id"},
       {"unigram_unknown_outside", Code::malformed, "unk_id"},
       {"unigram_token_twice", Code::malformed, "every token once"},
       {"unigram_score_text", Code::malformed, "model.vocab[1][1]"},
       {"unigram_token_long", Code::limit_exceeded, "model.vocab[1]"},
       {"unigram_vocabulary_object", Code::malformed, "model.vocab: expected an array"},
       {"unigram_byte_level", Code::unsupported, "BPE after ByteLevel"},
       {"bpe_unknown_missing", Code::mismatch, "unk_token"},
       {"bpe_merge_goes_round", Code::malformed, "model.merges[1]: expected two tokens that are not empty"},
       {"bpe_merge_outside", Code::malformed, "model.merges[0]"},
       {"bpe_id_far", Code::malformed, "model.vocab.b"},
       {"bpe_id_twice", Code::malformed, "an id of its own"},
       {"bpe_dropout", Code::unsupported, "model.dropout"},
       {"word_piece_unknown_missing", Code::mismatch, "unk_token"},
       {"word_piece_words_long", Code::malformed, "max_input_chars_per_word"},
       {"normalizer_many_steps", Code::limit_exceeded, "at most 32 steps"},
       {"normalizer_pattern_engine", Code::unsupported, "normalizer.pattern.Regex"},
       {"normalizer_charsmap_cut", Code::malformed, "precompiled_charsmap"},
       {"metaspace_contradicts", Code::mismatch, "prepend_scheme"},
       {"split_behavior", Code::unsupported, "behavior"},
       {"decoder_strip_before_fuse", Code::unsupported, "decoders[1]"},
       {"blank_token_long", Code::limit_exceeded, "added_tokens[0].content"}},
      [](const std::filesystem::path& path) { static_cast<void>(Tokenizer::open(path)); });
}
