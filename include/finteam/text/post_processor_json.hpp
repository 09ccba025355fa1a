// Reads the post_processor of a tokenizer.json: what stands before and after a single text.
#pragma once

#include <finteam/text/tokenizer_key.hpp>
#include <finteam/text/vocabulary.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

struct PostProcessorParts {
  std::vector<std::int32_t> prefix, suffix;
};

[[nodiscard]] inline std::int32_t read_added_id(const JsonView& id, const Vocabulary& vocabulary) {
  const auto i = static_cast<std::int32_t>(id.as_int(0, 0x7FFFFFFE));
  const bool there = vocabulary.contains(i) && vocabulary.kind(i) != TokenKind::ordinary;
  if (!there) id.refuse("the id of an added token", Code::mismatch);
  return i;
}

/// The template for pairs is not read.
inline void read_template(const JsonView& processor, const Vocabulary& vocabulary, PostProcessorParts& parts) {
  only_keys(processor, {"type", "single", "pair", "special_tokens"});
  const JsonView single = processor.at("single");
  int texts = 0;
  single.each([&](const JsonView& piece) {
    only_keys(piece, {"SpecialToken", "Sequence"});
    if (const auto special = piece.find("SpecialToken")) {
      const JsonView token = processor.at("special_tokens").at(special->at("id").as_string());
      token.at("ids").each([&](const JsonView& id) {
        (texts == 0 ? parts.prefix : parts.suffix).push_back(read_added_id(id, vocabulary));
      });
    }
    if (const auto sequence = piece.find("Sequence")) {
      if (sequence->at("id").as_string() != "A") sequence->at("id").refuse("\"A\" in a template for one text");
      ++texts;
    }
  });
  if (texts != 1) single.refuse("a template with its text once");
}

/// [CLS] text [SEP].
inline void read_class_and_separator(const JsonView& processor, const Vocabulary& vocabulary,
                                     PostProcessorParts& parts) {
  only_keys(processor, {"type", "sep", "cls", "trim_offsets", "add_prefix_space"});
  for (const std::string_view key : {"cls", "sep"}) {
    const JsonView token = processor.at(key);
    if (token.size() != 2) token.refuse("a token and its id");
    (key == "cls" ? parts.prefix : parts.suffix).push_back(read_added_id(token[1], vocabulary));
  }
}

/// ByteLevel changes offsets only.
[[nodiscard]] inline PostProcessorParts read_post_processor(const JsonView& json, const Vocabulary& vocabulary) {
  PostProcessorParts parts;
  int templates = 0;
  each_step(json, "processors", [&](const JsonView& step) {
    const std::string& type =
        type_of(step, {"TemplateProcessing", "ByteLevel", "BertProcessing", "RobertaProcessing", "Sequence"});
    if (type == "ByteLevel") return;
    if (++templates > 1) json.refuse("one template", Code::unsupported);
    if (type == "TemplateProcessing") return read_template(step, vocabulary, parts);
    read_class_and_separator(step, vocabulary, parts);
  });
  return parts;
}

}  // namespace finteam::inline FINTEAM_ABI::detail
