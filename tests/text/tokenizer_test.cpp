#include <finteam/file/json.hpp>
#include <finteam/text/tokenizer.hpp>

#include "catch.hpp"
#include "text/goldens.hpp"

#include <chrono>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace finteam;
using finteam_test::read_lines;
using finteam_test::small;
using finteam_test::tokenizer_goldens;
using Ids = std::vector<std::int32_t>;

namespace {

std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// FNV-1a of 64 bits over the ids as little-endian 32-bit numbers, as the goldens' tool writes it.
std::string hash(const Ids& ids) {
  std::uint64_t h = 0xCBF29CE484222325ULL;
  for (const std::int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8)
      h = (h ^ (static_cast<std::uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3ULL;
  }
  std::string s;
  for (int shift = 60; shift >= 0; shift -= 4) s += "0123456789abcdef"[h >> shift & 0xF];
  return s;
}

}  // namespace

TEST_CASE("Ids equal those of the tokenizers package on 2,000 random Unicode strings", "[parity]") {
  const Tokenizer plain = Tokenizer::open(tokenizer_goldens() / "plain.json");
  const auto lines = read_lines(tokenizer_goldens() / "strings.jsonl");
  CHECK(lines.size() == 2000);
  int differ = 0;
  for (const Json& line : lines) {
    const auto text = line["text"].get<std::string>();
    const auto expected = line["ids"].get<Ids>();
    CAPTURE(text);
    CHECK(small().encode(text) == expected);
    CHECK(hash(plain.encode(text)) == line["plain"].get<std::string>());
    CHECK(small().decode(expected) == text);
    differ += hash(expected) != line["plain"].get<std::string>() ? 1 : 0;
  }
  CHECK(differ > 5);  // or the second tokenizer would prove nothing
}

TEST_CASE("Ids equal those of the real Llama 3 tokenizer", "[parity]") {
  const auto folder = finteam_test::real_llama3();
  if (!std::filesystem::exists(folder / "tokenizer.json")) {
    WARN("skipped: no " << (folder / "tokenizer.json"));
    return;
  }
  const Tokenizer tokenizer = Tokenizer::open(folder / "tokenizer.json");
  CHECK(tokenizer.size() == 128256);
  CHECK(Ids(tokenizer.prefix().begin(), tokenizer.prefix().end()) == Ids{128000});
  for (const Json& line : read_lines(folder / "expected.jsonl")) {
    const auto text = line["text"].get<std::string>();
    CAPTURE(text);
    CHECK(tokenizer.encode(text) == line["ids"].get<Ids>());
    CHECK(tokenizer.decode(line["ids"].get<Ids>()) == text);
  }
  for (const Json& line : read_lines(tokenizer_goldens() / "strings.jsonl")) {
    const auto text = line["text"].get<std::string>();
    CAPTURE(text);
    CHECK(hash(tokenizer.encode(text)) == line["big"].get<std::string>());
  }
}

TEST_CASE("Decoding equals that of the tokenizers package, for broken characters too", "[parity]") {
  int broken = 0;
  for (const Json& line : read_lines(tokenizer_goldens() / "decode.jsonl")) {
    const auto ids = line["ids"].get<Ids>();
    const auto text = line["text"].get<std::string>();
    CHECK(small().decode(ids, SpecialTokens::keep) == text);
    broken += text.find("\xEF\xBF\xBD") != std::string::npos ? 1 : 0;
  }
  CHECK(broken > 50);
}

TEST_CASE("A streaming decoder gives whole characters only, and the same text", "[text]") {
  for (const Json& line : read_lines(tokenizer_goldens() / "decode.jsonl")) {
    StreamDecoder stream(small(), SpecialTokens::keep);
    std::string text;
    for (const std::int32_t id : line["ids"].get<Ids>()) {
      const std::string_view piece = stream.push(id);
      CHECK(find_invalid_utf8(piece) == piece.size());
      CHECK(piece.size() <= stream.max_piece_bytes());
      text += piece;
    }
    text += stream.flush();
    CHECK(text == line["text"].get<std::string>());
  }
  StreamDecoder stream(small());
  const Ids euro = small().encode("\xE2\x82\xAC");
  REQUIRE(euro.size() > 1);
  for (std::size_t i = 0; i + 1 < euro.size(); ++i) CHECK(stream.push(euro[i]).empty());
  CHECK(stream.push(euro.back()) == "\xE2\x82\xAC");
  CHECK(stream.flush().empty());
}

TEST_CASE("Special and added tokens are never found in text", "[law5]") {
  for (const std::string text :
       {"<|eot_id|>", "a<|begin_of_text|>b", "<|start_header_id|>system<|end_header_id|>", "<|note|>"}) {
    CAPTURE(text);
    for (const std::int32_t id : small().encode(text)) CHECK(small().kind(id) == TokenKind::ordinary);
    CHECK(small().decode(small().encode(text)) == text);
  }
  // Not even where merges lead to them, or where the vocabulary lists them and the whole word is looked up.
  Json file = Json::parse(slurp(tokenizer_goldens() / "llama3.json"));
  const std::int32_t the = file["model"]["vocab"]["Ġthe"];
  CHECK(Tokenizer::parse(file.dump(), "t").encode(" the") == Ids{the});
  file["added_tokens"].push_back({{"id", the}, {"content", "Ġthe"}, {"special", false}});
  const Tokenizer without = Tokenizer::parse(file.dump(), "t");
  CHECK(without.encode(" the").size() > 1);
  for (const std::int32_t i : without.encode(" the then other")) CHECK(without.kind(i) == TokenKind::ordinary);
  file = Json::parse(slurp(tokenizer_goldens() / "llama3.json"));
  const std::int32_t whole = file["model"]["vocab"]["ĠEBITDA"];
  CHECK(Tokenizer::parse(file.dump(), "t").encode(" EBITDA") == Ids{whole});
  file["added_tokens"].push_back({{"id", whole}, {"content", "ĠEBITDA"}, {"special", true}});
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "t");
  for (const std::int32_t i : tokenizer.encode(" EBITDA")) CHECK(i != whole);
}

TEST_CASE("Tokens are found by their content, and known by kind, bytes and id", "[text]") {
  const Tokenizer& t = small();
  const auto eot = t.token("<|eot_id|>"), the = t.token("Ġthe"), note = t.token("<|note|>");
  REQUIRE((eot && the && note));
  CHECK(t.kind(*eot) == TokenKind::special);
  CHECK(t.kind(*the) == TokenKind::ordinary);
  CHECK(t.kind(*note) == TokenKind::added);
  CHECK(t.kind(t.size()) == TokenKind::absent);
  CHECK(t.kind(-1) == TokenKind::absent);
  CHECK(t.bytes(*the) == " the");
  CHECK_FALSE(t.token("<|nothing|>"));
  CHECK_FALSE(t.token(" the"));
  CHECK(Ids(t.prefix().begin(), t.prefix().end()) == Ids{*t.token("<|begin_of_text|>")});
  CHECK(t.suffix().empty());
  CHECK(t.decode(Ids{*eot, *the, *note}) == " the<|note|>");
  CHECK(t.decode(Ids{*eot, *the, *note}, SpecialTokens::keep) == "<|eot_id|> the<|note|>");
  CHECK(t.size() == *note + 1);
  for (const Ids& bad : {Ids{-1}, Ids{t.size()}}) {
    CHECK_THROWS_AS(t.decode(bad), Error);
    CHECK_THROWS_AS(StreamDecoder(t).push(bad[0]), Error);
  }
}

TEST_CASE("Bad text is refused with its byte offset, and the ids stay as they were", "[text][law5]") {
  struct Row {
    std::string text;
    Code code;
    std::string says;
  };
  Tokenizer::Scratch scratch = small().scratch(64);
  for (const Row& row : std::vector<Row>{{"abc\xFF", Code::malformed, "byte offset 3"},
                                         {"\xED\xA0\x80", Code::malformed, "byte offset 0"},
                                         {"price \xE2\x82", Code::malformed, "byte offset 6"},
                                         {"\xC0\x80", Code::malformed, "byte offset 0"},
                                         {std::string(65, 'a'), Code::limit_exceeded, "at most 64 bytes"}}) {
    Ids ids = {1, 2, 3};
    try {
      small().encode(row.text, scratch, ids);
      FAIL("accepted");
    } catch (const Error& e) {
      CAPTURE(e.what());
      CHECK(e.code() == row.code);
      CHECK(std::string(e.what()).find(row.says) != std::string::npos);
    }
    CHECK(ids == Ids{1, 2, 3});
  }
  CHECK_THROWS_AS(small().scratch(Tokenizer::max_text_bytes + 1), Error);
  scratch = small().scratch(128);  // an old one goes before its memory
  scratch = small().scratch(64);
  Ids ids;
  small().encode(std::string(64, 'a'), scratch, ids);
  CHECK_FALSE(ids.empty());
  CHECK(small().encode("").empty());
  CHECK(small().decode(small().encode(std::string("a\0b", 3))) == std::string("a\0b", 3));
}

TEST_CASE("A text beyond the limits of the file's pattern is an error and changes nothing", "[text][law5]") {
  Json file = Json::parse(slurp(tokenizer_goldens() / "llama3.json"));
  file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "x|(?:a+)+[bc]";
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "t");
  Tokenizer::Scratch scratch = tokenizer.scratch(4096);
  Ids ids = {5};
  try {
    tokenizer.encode("x" + std::string(2000, 'a'), scratch, ids);
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.code() == Code::limit_exceeded);
  }
  CHECK(ids == Ids{5});
  tokenizer.encode("xx", scratch, ids);
  CHECK(ids.size() == 3);
}

TEST_CASE("One tokenizer serves many threads, each with its own scratch", "[text]") {
  const auto lines = read_lines(tokenizer_goldens() / "strings.jsonl");
  std::vector<int> wrong(3, -1);
  std::vector<std::thread> threads;
  for (int& w : wrong) {
    threads.emplace_back([&lines, &w] {
      Tokenizer::Scratch scratch = small().scratch(4096);
      int n = 0;
      Ids ids;
      for (const Json& line : lines) {
        ids.clear();
        small().encode(line["text"].get_ref<const std::string&>(), scratch, ids);
        n += ids != line["ids"].get<Ids>() ? 1 : 0;
      }
      w = n;
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(wrong == std::vector<int>{0, 0, 0});
}

TEST_CASE("A mebibyte of one character is encoded in about a second", "[text]") {
  for (const char c : {'a', ' ', '7', '=', '\n'}) {
    const std::string text(1 << 20, c);
    const auto start = std::chrono::steady_clock::now();
    const Ids ids = small().encode(text);
    CHECK(std::chrono::steady_clock::now() - start <
          std::chrono::seconds(20));  // sanitizers; a quadratic way takes hours
    CHECK(small().decode(ids) == text);
  }
}

TEST_CASE("ByteLevel alone cuts by GPT-2's own pattern", "[text]") {
  Json file = Json::parse(slurp(tokenizer_goldens() / "plain.json"));
  file["pre_tokenizer"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  file["post_processor"] = nullptr;
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "t");
  CHECK(tokenizer.prefix().empty());
  CHECK(tokenizer.encode("1234").size() == small().encode("1234").size() - 1);  // "1234", not "123" and "4"
  CHECK(tokenizer.decode(tokenizer.encode("It's\n\n  12345")) == "It's\n\n  12345");
}

TEST_CASE("A template may put tokens before and after a text", "[text]") {
  Json file = Json::parse(slurp(tokenizer_goldens() / "llama3.json"));
  const std::int32_t bos = *small().token("<|begin_of_text|>"), eot = *small().token("<|eot_id|>");
  Json& step = file["post_processor"]["processors"][1];
  step["single"].push_back({{"SpecialToken", {{"id", "end"}, {"type_id", 0}}}});
  step["special_tokens"]["end"] = {{"id", "end"}, {"ids", {eot, bos}}, {"tokens", {"x", "y"}}};
  file["post_processor"] = Json(step);  // and it may stand alone
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "t");
  CHECK(Ids(tokenizer.prefix().begin(), tokenizer.prefix().end()) == Ids{bos});
  CHECK(Ids(tokenizer.suffix().begin(), tokenizer.suffix().end()) == Ids{eot, bos});
}

TEST_CASE("A tokenizer.json that is not understood, or lies, is refused by name", "[text][law5]") {
  const Json good = Json::parse(slurp(tokenizer_goldens() / "plain.json"));
  REQUIRE_NOTHROW(Tokenizer::parse(good.dump(), "tokenizer.json"));
  struct Row {
    const char* name;
    const char* path;   // what is changed,
    const char* value;  // to what; nothing: removed
    Code code;
    const char* says;
  };
  const std::vector<Row> rows = {
      {"another model", "/model/type", R"("WordLevel")", Code::unsupported,
       "model.type: expected BPE or Unigram or WordPiece, found WordLevel"},
      {"no model", "/model", "", Code::not_found, "model"},
      {"no type", "/model/type", "", Code::not_found, "type"},
      {"model is a string", "/model", R"("BPE")", Code::malformed, "model: expected an object"},
      {"dropout", "/model/dropout", "0.1", Code::unsupported, "model.dropout"},
      {"subword prefix", "/model/continuing_subword_prefix", R"("##")", Code::unsupported, "continuing_subword_prefix"},
      {"word suffix", "/model/end_of_word_suffix", R"("</w>")", Code::unsupported, "end_of_word_suffix"},
      {"unknown key in model", "/model/magic", "1", Code::unsupported, "model.magic"},
      {"ignore_merges is a number", "/model/ignore_merges", "1", Code::malformed, "ignore_merges"},
      {"byte_fallback is a string", "/model/byte_fallback", R"("yes")", Code::malformed, "byte_fallback"},
      {"vocabulary is an array", "/model/vocab", "[]", Code::malformed, "model.vocab: expected an object"},
      {"empty vocabulary", "/model/vocab", "{}", Code::malformed, "added_tokens[0].id"},
      {"missing byte", "/model/vocab/Ġ", "", Code::malformed, "none for 32"},
      {"negative id", "/model/vocab/Ġthe", "-1", Code::malformed, "vocab.Ġthe"},
      {"id far out of range", "/model/vocab/Ġthe", "2000000000", Code::malformed, "vocab.Ġthe"},
      {"id that overflows", "/model/vocab/Ġthe", "18446744073709551615", Code::malformed, "vocab.Ġthe"},
      {"id is a fraction", "/model/vocab/Ġthe", "1.5", Code::malformed, "vocab.Ġthe"},
      {"id twice", "/model/vocab/Ġthe", "5", Code::malformed, "an id of its own"},
      {"no merges", "/model/merges", "", Code::not_found, "merges"},
      {"merge of one", "/model/merges/7", R"("abc")", Code::malformed, "merges[7]"},
      {"merge of three", "/model/merges/7", R"(["a", "b", "c"])", Code::malformed, "merges[7]"},
      {"merge with two spaces", "/model/merges/7", R"("a b c")", Code::malformed, "merges[7]"},
      {"merge of unknown tokens", "/model/merges/7", R"(["nonsense", "a"])", Code::malformed, "merges[7]"},
      {"merge to an unknown token", "/model/merges/7", R"(["Ł", "Ł"])", Code::malformed, "merges[7]"},
      {"merge that goes round", "/model/merges/7", R"(["", "a"])", Code::malformed, "merges[7]: expected two tokens"},
      {"merge twice", "/model/merges/7", R"(["Ġ", "t"])", Code::malformed, "every pair once"},
      {"merge is a number", "/model/merges/7", "7", Code::malformed, "merges[7]"},
      {"merge of numbers", "/model/merges/7", "[1, 2]", Code::malformed, "merges[7]"},
      {"another normalizer", "/normalizer", R"({"type": "Nmt"})", Code::unsupported, "normalizer.type"},
      {"normalizer with another key", "/normalizer", R"({"type": "NFC", "form": 1})", Code::unsupported,
       "normalizer.form"},
      {"normalizer without its list", "/normalizer", R"({"type": "Sequence"})", Code::not_found, "normalizers"},
      {"replacing nothing", "/normalizer", R"({"type": "Replace", "pattern": {"String": ""}, "content": "a"})",
       Code::malformed, "normalizer.pattern.String"},
      {"replacing what can match nothing", "/normalizer",
       R"({"type": "Replace", "pattern": {"Regex": " *"}, "content": "a"})", Code::unsupported, "normalizer.pattern"},
      {"charsmap is no base64", "/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "a!=="})",
       Code::malformed, "precompiled_charsmap"},
      {"charsmap is empty", "/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": ""})", Code::malformed,
       "precompiled_charsmap"},
      {"charsmap whose trie is longer", "/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "/////wAA"})",
       Code::malformed, "precompiled_charsmap"},
      {"truncation", "/truncation", R"({"max_length": 8})", Code::unsupported, "truncation"},
      {"padding", "/padding", R"({"strategy": "BatchLongest"})", Code::unsupported, "padding"},
      {"unknown key", "/telemetry", "true", Code::unsupported, "telemetry"},
      {"another version", "/version", R"("2.0")", Code::unsupported, "version"},
      {"no pre-tokenizer for a byte-level decoder", "/pre_tokenizer", "", Code::unsupported, "ByteLevel in both"},
      {"another pre-tokenizer", "/pre_tokenizer", R"({"type": "UnicodeScripts"})", Code::unsupported,
       "found UnicodeScripts"},
      {"another step", "/pre_tokenizer/pretokenizers/0/type", R"("FixedLength")", Code::unsupported,
       "found FixedLength"},
      {"a step after ByteLevel", "/pre_tokenizer/pretokenizers/0",
       R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})", Code::unsupported,
       "no step after ByteLevel"},
      {"another behaviour", "/pre_tokenizer/pretokenizers/0/behavior", R"("Doubled")", Code::unsupported, "behavior"},
      {"a split by nothing", "/pre_tokenizer/pretokenizers/0/pattern", R"({"String": ""})", Code::malformed, "String"},
      {"a split by something else", "/pre_tokenizer/pretokenizers/0/pattern", R"({"Glob": "*"})", Code::unsupported,
       "pattern.Glob"},
      {"a pattern that PCRE2 refuses", "/pre_tokenizer/pretokenizers/0/pattern/Regex", R"("(a")", Code::malformed,
       "pattern"},
      {"a pattern of another engine", "/pre_tokenizer/pretokenizers/0/pattern/Regex", R"("\\R+")", Code::unsupported,
       "pattern"},
      {"a pattern that matches nothing", "/pre_tokenizer/pretokenizers/0/pattern/Regex", R"("a*")", Code::unsupported,
       "pattern"},
      {"a metaspace of two characters", "/pre_tokenizer/pretokenizers/0",
       R"({"type": "Metaspace", "replacement": "__"})", Code::malformed, "replacement"},
      {"a metaspace that prepends otherwise", "/pre_tokenizer/pretokenizers/0",
       R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})", Code::unsupported, "prepend_scheme"},
      {"another post-processor", "/post_processor/type", R"("BertProcessing")", Code::unsupported, "processors"},
      {"class token that is ordinary", "/post_processor/processors/0", R"({"type": "BertProcessing", "cls": ["a", 1]})",
       Code::mismatch, "cls[1]"},
      {"two templates", "/post_processor/processors/0", R"({"type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}})",
       Code::unsupported, "one template"},
      {"template without text", "/post_processor/processors/1/single/1", "", Code::malformed, "its text once"},
      {"template with a second text", "/post_processor/processors/1/single/1/Sequence/id", R"("B")", Code::malformed,
       "\"A\""},
      {"template of an unknown token", "/post_processor/processors/1/single/0/SpecialToken/id", R"("<s>")",
       Code::not_found, "<s>"},
      {"template of an id without token", "/post_processor/processors/1/special_tokens/<|begin_of_text|>/ids/0",
       "99999", Code::mismatch, "the id of an added token"},
      {"template of an ordinary token", "/post_processor/processors/1/special_tokens/<|begin_of_text|>/ids/0", "300",
       Code::mismatch, "the id of an added token"},
      {"another decoder", "/decoder", R"({"type": "CTC"})", Code::unsupported, "decoder.type"},
      {"decoder of other tokens", "/decoder", R"({"type": "Fuse"})", Code::unsupported, "ByteLevel in both"},
      {"no decoder", "/decoder", "", Code::unsupported, "ByteLevel in both"},
      {"decoder steps out of order", "/decoder",
       R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})", Code::unsupported,
       "decoders[1]"},
      {"decoder strips the end", "/decoder", R"({"type": "Strip", "content": " ", "start": 0, "stop": 1})",
       Code::unsupported, "stop"},
      {"added token without id", "/added_tokens/0/id", "", Code::not_found, "added_tokens[0]"},
      {"added token with a taken id", "/added_tokens/0/id", "300", Code::malformed, "an id of its own"},
      {"added token is empty", "/added_tokens/0/content", R"("")", Code::malformed, "content"},
      {"added token twice", "/added_tokens/1/content", R"("<|begin_of_text|>")", Code::malformed, "twice"},
      {"added token against the vocabulary", "/added_tokens/1/content", R"("Ġthe")", Code::mismatch, "vocab.Ġthe"},
      {"added token is a byte", "/added_tokens", R"([{"id": 0, "content": "!"}])", Code::malformed, "none for 33"},
      {"white space token that strips", "/added_tokens",
       R"([{"id": 1205, "content": "\n\n", "special": false, "lstrip": true}])", Code::unsupported, "lstrip"},
  };
  for (const Row& row : rows) {
    Json bad = good;
    const Json::json_pointer path(row.path);
    if (*row.value == '\0') {
      bad = bad.patch(Json::array({{{"op", "remove"}, {"path", row.path}}}));
    } else {
      bad[path] = Json::parse(row.value);
    }
    CAPTURE(row.name);
    try {
      static_cast<void>(Tokenizer::parse(bad.dump(), "tokenizer.json"));
      FAIL_CHECK("accepted");
    } catch (const Error& e) {
      CAPTURE(e.what());
      CHECK(name(e.code()) == name(row.code));
      CHECK(std::string(e.what()).find("tokenizer.json") == 0);
      CHECK(std::string(e.what()).find(row.says) != std::string::npos);
    }
  }
}

TEST_CASE("Bytes that are no JSON, and a file that is not there, are refused", "[text][law5]") {
  const std::string whole = slurp(tokenizer_goldens() / "plain.json");
  const auto refused = [](const std::string& text) {
    try {
      static_cast<void>(Tokenizer::parse(text, "tokenizer.json"));
    } catch (const Error& e) {
      return name(e.code());
    }
    return std::string_view("accepted");
  };
  CHECK(refused("") == "malformed");
  CHECK(refused("[]") == "malformed");
  CHECK(refused("null") == "malformed");
  CHECK(refused(whole.substr(0, whole.size() / 2)) == "malformed");
  CHECK(refused(whole + "x") == "malformed");
  CHECK(refused(std::string(5000, '[')) == "limit_exceeded");
  try {
    static_cast<void>(Tokenizer::open(tokenizer_goldens() / "absent.json"));
    FAIL("opened");
  } catch (const Error& e) {
    CHECK(e.code() == Code::not_found);
  }
}
