// Reads the normalizer of a tokenizer.json. What is not understood is refused by its name.
#pragma once

#include <finteam/text/normalizer.hpp>
#include <finteam/text/tokenizer_key.hpp>

#include <string>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

inline void read_bert_normalizer(const JsonView& json, std::vector<NormalizerStep>& steps) {
  only_keys(json, {"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"});
  const bool lowercase = json.at("lowercase").as_bool();
  if (json.at("clean_text").as_bool()) steps.emplace_back(normalize::Clean{});
  if (json.at("handle_chinese_chars").as_bool()) steps.emplace_back(normalize::SpaceChinese{});
  if (json.bool_or("strip_accents", lowercase)) {
    steps.emplace_back(NormalForm::nfd);
    steps.emplace_back(normalize::RemoveMarks{.nonspacing = true});
  }
  if (lowercase) steps.emplace_back(normalize::Lowercase{});
}

inline void read_replace(const JsonView& json, std::vector<NormalizerStep>& steps) {
  only_keys(json, {"type", "pattern", "content"});
  const JsonView pattern = json.at("pattern");
  const std::string& content = json.at("content").as_string();
  only_keys(pattern, {"String", "Regex"});
  if (const auto regex = pattern.find("Regex")) {
    steps.emplace_back(normalize::ReplacePattern{Pattern(regex->as_string(), regex->where()), content});
  } else {
    steps.emplace_back(normalize::Replace{short_string(pattern.at("String")), content});
  }
}

inline void read_normalizer_step(const JsonView& json, std::vector<NormalizerStep>& steps) {
  const std::string& type = type_of(json, {"NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace", "Strip", "Lowercase",
                                           "StripAccents", "Precompiled", "BertNormalizer", "Sequence"});
  if (type == "BertNormalizer") return read_bert_normalizer(json, steps);
  if (type == "Replace") return read_replace(json, steps);
  if (type == "Prepend") {
    only_keys(json, {"type", "prepend"});
    steps.emplace_back(normalize::Prepend{json.at("prepend").as_string()});
  } else if (type == "Strip") {
    only_keys(json, {"type", "strip_left", "strip_right"});
    steps.emplace_back(normalize::Strip{json.at("strip_left").as_bool(), json.at("strip_right").as_bool()});
  } else if (type == "Precompiled") {
    only_keys(json, {"type", "precompiled_charsmap"});
    const JsonView map = json.at("precompiled_charsmap");
    const auto bytes = base64_bytes(map.as_string());
    if (!bytes) map.refuse("base64");
    steps.emplace_back(Charsmap(*bytes, map.where()));
  } else {
    only_keys(json, {"type"});
    if (type == "NFC") steps.emplace_back(NormalForm::nfc);
    if (type == "NFD") steps.emplace_back(NormalForm::nfd);
    if (type == "NFKC") steps.emplace_back(NormalForm::nfkc);
    if (type == "NFKD") steps.emplace_back(NormalForm::nfkd);
    if (type == "Lowercase") steps.emplace_back(normalize::Lowercase{});
    if (type == "StripAccents") steps.emplace_back(normalize::RemoveMarks{.nonspacing = false});
  }
}

[[nodiscard]] inline Normalizer read_normalizer(const JsonView& json) {
  std::vector<NormalizerStep> steps;
  each_step(json, "normalizers", [&](const JsonView& step) { read_normalizer_step(step, steps); });
  return Normalizer(std::move(steps));
}

}  // namespace finteam::inline FINTEAM_ABI::detail
