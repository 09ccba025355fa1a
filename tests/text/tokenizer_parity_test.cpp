// 100,000 strings for each tokenizer against the tokenizers package (tools/make_tokenizer_parity.py): their ids by
// hashes, some strings and id sequences in full.
#include <finteam/file/json_view.hpp>
#include <finteam/text/tokenizer.hpp>

#include "catch.hpp"
#include "text/goldens.hpp"
#include "text/strings.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

using namespace finteam;

namespace {

std::filesystem::path parity_goldens() { return finteam_test::tokenizer_goldens() / "parity"; }

Json read_json(const std::filesystem::path& path) { return JsonFile::open(path).root().json(); }

const Json& golden(const std::string& name) {
  static const Json all = read_json(parity_goldens() / "golden.json");
  for (const Json& g : all) {
    if (g["name"] == name) return g;
  }
  FAIL("no golden for " << name);
  return all;
}

const finteam_test::StringPool& pool() {
  static const finteam_test::StringPool p(read_json(parity_goldens() / "pool.json"));
  return p;
}

void check_ids(const Tokenizer& tokenizer, const Json& expected) {
  constexpr std::uint64_t block = 1000;
  Tokenizer::Scratch scratch = tokenizer.scratch(4096);
  std::vector<std::int32_t> ids;
  for (const Json& example : expected["examples"]) {
    const std::string text = pool()(example["n"].get<std::uint64_t>());
    CAPTURE(text);
    CHECK(tokenizer.encode(text) == example["ids"].get<std::vector<std::int32_t>>());
  }
  CHECK(expected["hashes"].size() >= 100);
  for (std::size_t b = 0; b < expected["hashes"].size(); ++b) {
    finteam_test::IdHash hash;
    for (std::uint64_t n = b * block; n < (b + 1) * block; ++n) {
      ids.clear();
      const std::string text = pool()(n);
      tokenizer.encode(text, scratch, ids);
      CHECK(ids.size() <= tokenizer.max_ids(text.size()));
      for (const std::int32_t id : ids) hash.add(id);
      hash.add(0x7FFFFFFF);
    }
    CAPTURE(b);
    CHECK(hash.text() == expected["hashes"][b].get<std::string>());
  }
}

void check_decoding(const Tokenizer& tokenizer, const Json& expected) {
  for (const Json& row : expected["decode"]) {
    const auto ids = row["ids"].get<std::vector<std::int32_t>>();
    CAPTURE(row.dump());
    CHECK(tokenizer.decode(ids, SpecialTokens::keep) == row["keep"].get<std::string>());
    CHECK(tokenizer.decode(ids) == row["skip"].get<std::string>());
    StreamDecoder stream(tokenizer, SpecialTokens::keep);
    std::string text;
    for (const std::int32_t id : ids) {
      const std::string_view piece = stream.push(id);
      CHECK(find_invalid_utf8(piece) == piece.size());
      CHECK(piece.size() <= stream.max_piece_bytes());
      text += piece;
    }
    CHECK(text + std::string(stream.flush()) == row["keep"].get<std::string>());
  }
}

void check_parity(const std::string& name) {
  const Json& g = golden(name);
  Json file = read_json(parity_goldens() / g["file"].get<std::string>());
  for (const auto& [pointer, value] : g["changes"].items()) file[Json::json_pointer(pointer)] = value;
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), name);
  check_ids(tokenizer, g);
  check_decoding(tokenizer, g);
}

void check_real(const std::string& name, const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) {
    WARN("skipped: no " << file);
    return;
  }
  const Tokenizer tokenizer = Tokenizer::open(file);
  check_ids(tokenizer, golden(name));
  check_decoding(tokenizer, golden(name));
}

}  // namespace

#define FINTEAM_PARITY(name) \
  TEST_CASE("100,000 strings become the ids of the tokenizers package: " name, "[parity]") { check_parity(name); }
FINTEAM_PARITY("Llama 3")
FINTEAM_PARITY("Qwen2")
FINTEAM_PARITY("gpt-oss")
FINTEAM_PARITY("Phi-4")
FINTEAM_PARITY("DeepSeek")
FINTEAM_PARITY("BLOOM")
FINTEAM_PARITY("GPT-2")
FINTEAM_PARITY("StarCoder")
FINTEAM_PARITY("white space tokens in normalised text")
FINTEAM_PARITY("Llama 2")
FINTEAM_PARITY("Phi-3")
FINTEAM_PARITY("Mistral")
FINTEAM_PARITY("Gemma")
FINTEAM_PARITY("unknown characters apart")
FINTEAM_PARITY("unknown characters fused")
FINTEAM_PARITY("every behaviour")
FINTEAM_PARITY("T5")
FINTEAM_PARITY("Unigram with bytes")
FINTEAM_PARITY("BERT")
FINTEAM_PARITY("BERT, cased")
FINTEAM_PARITY("Falcon")
#undef FINTEAM_PARITY

TEST_CASE("100,000 strings become the ids of the tokenizers package: the real Llama 3", "[parity]") {
  check_real("the real Llama 3", finteam_test::real_llama3() / "tokenizer.json");
}

TEST_CASE("100,000 strings become the ids of the tokenizers package: the real Mistral", "[parity]") {
  check_real("the real Mistral", std::filesystem::path(FINTEAM_SOURCE_DIR) / "build/mistral-v1/tokenizer.json");
}
