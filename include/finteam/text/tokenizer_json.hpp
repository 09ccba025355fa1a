// Reads a tokenizer.json into the parts of a Tokenizer. What this build does not implement is refused by its name.
// Layout: the tokenizers package's serialisation, version 1.0.
#pragma once

#include <finteam/text/decoder_json.hpp>
#include <finteam/text/model_json.hpp>
#include <finteam/text/normalizer_json.hpp>
#include <finteam/text/post_processor_json.hpp>
#include <finteam/text/pre_tokenizer_json.hpp>
#include <finteam/text/token_decoder.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// What a tokenizer is made of; immutable once it is read.
struct TokenizerParts {
  std::string where;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  TokenizerModel model;
  TokenDecoder decoder;
  std::vector<std::int32_t> prefix, suffix;

  /// Whether a text may become longer before it comes to the model.
  [[nodiscard]] bool grows() const noexcept { return !normalizer.empty() || pre_tokenizer.adds_text(); }
};

[[nodiscard]] inline TokenizerParts read_tokenizer(const JsonFile& file) {
  const JsonView root = file.root();
  only_keys(root, {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                   "decoder", "model"});
  if (const auto version = root.find("version"); version && version->as_string() != "1.0") {
    version->refuse("\"1.0\"", Code::unsupported);
  }
  for (const std::string_view key : {"truncation", "padding"}) must_be_off(root, key);
  TokenizerParts parts;
  parts.where = file.where();
  if (const auto normalizer = root.find("normalizer")) parts.normalizer = read_normalizer(*normalizer);
  PreTokenizerParts pre;
  if (const auto json = root.find("pre_tokenizer")) pre = read_pre_tokenizer(*json);
  parts.pre_tokenizer = PreTokenizer(std::move(pre.steps));
  parts.model = read_model(root, parts.normalizer, pre.byte_level);

  TokenDecoderRules rules{.steps = {}};
  const auto decoder = root.find("decoder");
  if (decoder) rules = read_decoder(*decoder);
  if (!decoder) rules.steps.emplace_back(token_decode::Blanks{});
  if (rules.byte_level != pre.byte_level) {
    throw Error(Code::unsupported, parts.where + ": decoder and pre_tokenizer", "ByteLevel in both or in none",
                pre.byte_level ? "in the pre_tokenizer" : "in the decoder");
  }
  parts.decoder = TokenDecoder(std::move(rules), parts.model.vocabulary);

  if (const auto processor = root.find("post_processor")) {
    PostProcessorParts p = read_post_processor(*processor, parts.model.vocabulary);
    parts.prefix = std::move(p.prefix);
    parts.suffix = std::move(p.suffix);
  }
  return parts;
}

[[nodiscard]] inline TokenizerParts parse_tokenizer_json(std::string_view json, const std::string& where) {
  return read_tokenizer(JsonFile(json, where));
}

[[nodiscard]] inline TokenizerParts open_tokenizer_json(const std::filesystem::path& path) {
  return read_tokenizer(JsonFile::open(path));
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
