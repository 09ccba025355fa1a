// Reads a tokenizer.json into the parts of a Tokenizer. What this build does not implement is refused by its name.
// Layout: the tokenizers package's serialisation, version 1.0.
#pragma once

#include <finteam/file/json_view.hpp>
#include <finteam/text/tokenizer_model.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// GPT-2's own pattern, which ByteLevel uses when it is asked to cut the text itself.
/// Source: Radford et al. 2019 (GPT-2), encoder.py.
inline constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct TokenizerParts {
  std::string where;
  TokenizerModel model;
  std::string pattern;
  std::vector<std::int32_t> prefix, suffix;
};

/// Split by a regular expression, every match and everything between two matches a word.
[[nodiscard]] inline std::string read_split(const JsonView& split) {
  only_keys(split, {"type", "pattern", "behavior", "invert"});
  must_be_off(split, "invert");
  const JsonView behavior = split.at("behavior");
  if (behavior.as_string() != "Isolated") behavior.refuse("\"Isolated\"", Code::unsupported);
  const JsonView pattern = split.at("pattern");
  only_keys(pattern, {"Regex"});
  return pattern.at("Regex").as_string();
}

/// True if this ByteLevel also cuts the text.
[[nodiscard]] inline bool read_byte_level(const JsonView& step) {
  only_keys(step, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  must_be_off(step, "add_prefix_space");
  return step.bool_or("use_regex", true);
}

/// The pattern of [Split, ByteLevel], or of a ByteLevel alone.
[[nodiscard]] inline std::string read_pre_tokenizer(const JsonView& pre) {
  if (type_of(pre, {"Sequence", "ByteLevel"}) == "ByteLevel") {
    if (!read_byte_level(pre)) pre.refuse("use_regex true where no Split comes before", Code::unsupported);
    return std::string(gpt2_pattern);
  }
  only_keys(pre, {"type", "pretokenizers"});
  const JsonView steps = pre.at("pretokenizers");
  if (steps.size() != 2) steps.refuse("Split and ByteLevel", Code::unsupported);
  static_cast<void>(type_of(steps[0], {"Split"}));
  static_cast<void>(type_of(steps[1], {"ByteLevel"}));
  std::string pattern = read_split(steps[0]);
  if (read_byte_level(steps[1])) steps[1].refuse("use_regex false after a Split", Code::unsupported);
  return pattern;
}

/// Appends the ids that a template's special token stands for.
inline void read_template_token(const JsonView& special_tokens, const JsonView& piece, const Vocabulary& vocabulary,
                                std::vector<std::int32_t>& ids) {
  const JsonView token = special_tokens.at(piece.at("id").as_string());
  token.at("ids").each([&](const JsonView& id) {
    const auto i = static_cast<std::int32_t>(id.as_int(0, 0x7FFFFFFE));
    const bool there = vocabulary.contains(i) && vocabulary.kind(i) != TokenKind::ordinary;
    if (!there) id.refuse("the id of an added token", Code::mismatch);
    ids.push_back(i);
  });
}

/// What stands before and after a single text. The template for pairs is not read.
inline void read_template(const JsonView& processor, TokenizerParts& parts) {
  only_keys(processor, {"type", "single", "pair", "special_tokens"});
  const JsonView single = processor.at("single");
  int texts = 0;
  single.each([&](const JsonView& piece) {
    only_keys(piece, {"SpecialToken", "Sequence"});
    if (const auto special = piece.find("SpecialToken")) {
      read_template_token(processor.at("special_tokens"), *special, parts.model.vocabulary,
                          texts == 0 ? parts.prefix : parts.suffix);
    }
    if (const auto sequence = piece.find("Sequence")) {
      if (sequence->at("id").as_string() != "A") sequence->at("id").refuse("\"A\" in a template for one text");
      ++texts;
    }
  });
  if (texts != 1) single.refuse("a template with its text once");
}

/// Null, ByteLevel (which changes offsets only), TemplateProcessing, or a Sequence of them.
inline void read_post_processor(const JsonView& processor, TokenizerParts& parts) {
  const std::string& type = type_of(processor, {"Sequence", "ByteLevel", "TemplateProcessing"});
  if (type == "TemplateProcessing") return read_template(processor, parts);
  if (type == "ByteLevel") return;
  only_keys(processor, {"type", "processors"});
  const JsonView steps = processor.at("processors");
  int templates = 0;
  steps.each([&](const JsonView& step) {
    if (type_of(step, {"ByteLevel", "TemplateProcessing"}) == "ByteLevel") return;
    read_template(step, parts);
    ++templates;
  });
  if (templates > 1) steps.refuse("one template", Code::unsupported);
}

[[nodiscard]] inline TokenizerParts read_tokenizer(const JsonFile& file) {
  const JsonView root = file.root();
  only_keys(root, {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                   "decoder", "model"});
  if (const auto version = root.find("version"); version && version->as_string() != "1.0") {
    version->refuse("\"1.0\"", Code::unsupported);
  }
  for (const std::string_view key : {"truncation", "padding", "normalizer"}) must_be_off(root, key);
  TokenizerParts parts;
  parts.where = file.where();
  parts.model = read_model(root);
  parts.pattern = read_pre_tokenizer(root.at("pre_tokenizer"));
  if (const auto processor = root.find("post_processor")) read_post_processor(*processor, parts);
  static_cast<void>(type_of(root.at("decoder"), {"ByteLevel"}));
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
