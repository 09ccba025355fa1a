// Where the text tests find their files, and lines of JSON.
#pragma once

#include <finteam/file/json.hpp>
#include <finteam/text/tokenizer.hpp>

#include "catch.hpp"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace finteam_test {

inline std::filesystem::path tokenizer_goldens() {
  return std::filesystem::path(FINTEAM_TEST_DATA) / "goldens" / "tokenizer";
}

/// Llama 3's layout with a small vocabulary.
inline const finteam::Tokenizer& small() {
  static const finteam::Tokenizer tokenizer = finteam::Tokenizer::open(tokenizer_goldens() / "llama3.json");
  return tokenizer;
}

/// The real Llama 3 vocabulary, which is no part of the project.
inline std::filesystem::path real_llama3() {
  return std::filesystem::path(FINTEAM_SOURCE_DIR).parent_path() / "shared" / "tokenizers" / "llama-3";
}

/// Every line of a file as JSON; the test fails if there is none.
inline std::vector<finteam::Json> read_lines(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<finteam::Json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(finteam::parse_json(line, path.string()));
  INFO(path);
  REQUIRE_FALSE(lines.empty());
  return lines;
}

}  // namespace finteam_test
