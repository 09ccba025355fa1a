// Reads the pre_tokenizer of a tokenizer.json. What is not understood is refused by its name.
#pragma once

#include <finteam/text/pre_tokenizer.hpp>
#include <finteam/text/tokenizer_key.hpp>

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

/// GPT-2's own pattern, which ByteLevel uses when it is asked to cut the text itself.
/// Source: Radford et al. 2019 (GPT-2), encoder.py.
inline constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
/// What Whitespace keeps: `\w+|[^\w\s]+`, where \w is the regex crate's, not Oniguruma's.
/// Source: tokenizers, pre_tokenizers/whitespace.rs; Unicode Technical Standard 18, annex C.
inline constexpr std::string_view words_pattern =
    R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d\s]+)";

struct PreTokenizerParts {
  std::vector<PreTokenizerStep> steps;
  bool byte_level = false;  ///< words are bytes to the model
};

[[nodiscard]] inline SplitBehavior read_behavior(const JsonView& value) {
  using enum SplitBehavior;
  static constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> names = {
      {{"Isolated", isolated},
       {"Removed", removed},
       {"MergedWithPrevious", merged_with_previous},
       {"MergedWithNext", merged_with_next},
       {"Contiguous", contiguous}}};
  for (const auto& [name, behavior] : names) {
    if (value.as_string() == name) return behavior;
  }
  value.refuse("Isolated or Removed or MergedWithPrevious or MergedWithNext or Contiguous", Code::unsupported);
}

[[nodiscard]] inline PreTokenizerStep read_split(const JsonView& split) {
  only_keys(split, {"type", "pattern", "behavior", "invert"});
  const SplitBehavior behavior = read_behavior(split.at("behavior"));
  const bool invert = split.bool_or("invert", false);
  const JsonView pattern = split.at("pattern");
  only_keys(pattern, {"Regex", "String"});
  if (const auto regex = pattern.find("Regex")) {
    return pre_tokenize::SplitPattern{Pattern(regex->as_string(), regex->where()), behavior, invert};
  }
  return pre_tokenize::SplitString{short_string(pattern.at("String")), behavior, invert};
}

[[nodiscard]] inline PreTokenizerStep read_metaspace(const JsonView& json) {
  using enum pre_tokenize::PrependScheme;
  only_keys(json, {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
  pre_tokenize::Metaspace m{one_character(json.at("replacement")), always, json.bool_or("split", true)};
  const auto scheme = json.find("prepend_scheme");
  const std::string name = scheme ? scheme->as_string() : "always";
  if (name != "always" && name != "first" && name != "never") {
    scheme->refuse("always or first or never", Code::unsupported);
  }
  m.prepend = name == "first" ? first_of_text : name == "never" ? never : always;
  if (!json.bool_or("add_prefix_space", true)) {  // older files say it like this
    if (scheme && name != "never") scheme->refuse("never, as add_prefix_space is false", Code::mismatch);
    m.prepend = never;
  }
  return m;
}

inline void read_byte_level(const JsonView& json, PreTokenizerParts& parts) {
  only_keys(json, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  if (json.at("add_prefix_space").as_bool()) parts.steps.emplace_back(pre_tokenize::PrefixSpace{});
  if (json.bool_or("use_regex", true)) {
    parts.steps.emplace_back(
        pre_tokenize::SplitPattern{Pattern(gpt2_pattern, json.where()), SplitBehavior::isolated, false});
  }
  parts.byte_level = true;
}

inline void read_pre_tokenizer_step(const JsonView& json, PreTokenizerParts& parts) {
  using pre_tokenize::SplitCharacters;
  const std::string& type = type_of(json, {"Split", "ByteLevel", "Metaspace", "Digits", "Punctuation", "Whitespace",
                                           "WhitespaceSplit", "BertPreTokenizer", "Sequence"});
  // Its output is another alphabet, in which no step but the model reads here.
  if (parts.byte_level) json.refuse("no step after ByteLevel", Code::unsupported);
  if (type == "Split") {
    parts.steps.push_back(read_split(json));
  } else if (type == "ByteLevel") {
    read_byte_level(json, parts);
  } else if (type == "Metaspace") {
    parts.steps.push_back(read_metaspace(json));
  } else if (type == "Digits") {
    only_keys(json, {"type", "individual_digits"});
    const bool each = json.at("individual_digits").as_bool();
    parts.steps.emplace_back(SplitCharacters{is_numeric, each ? SplitBehavior::isolated : SplitBehavior::contiguous});
  } else if (type == "Punctuation") {
    only_keys(json, {"type", "behavior"});
    const auto behavior = json.find("behavior");
    parts.steps.emplace_back(
        SplitCharacters{is_punctuation, behavior ? read_behavior(*behavior) : SplitBehavior::isolated});
  } else {
    only_keys(json, {"type"});
    if (type == "Whitespace") {
      parts.steps.emplace_back(
          pre_tokenize::SplitPattern{Pattern(words_pattern, json.where()), SplitBehavior::removed, true});
      return;
    }
    parts.steps.emplace_back(SplitCharacters{is_white_space, SplitBehavior::removed});
    if (type == "BertPreTokenizer") parts.steps.emplace_back(SplitCharacters{is_punctuation, SplitBehavior::isolated});
  }
}

[[nodiscard]] inline PreTokenizerParts read_pre_tokenizer(const JsonView& json) {
  PreTokenizerParts parts;
  each_step(json, "pretokenizers", [&](const JsonView& step) { read_pre_tokenizer_step(step, parts); });
  return parts;
}

}  // namespace finteam::inline FINTEAM_ABI::detail
