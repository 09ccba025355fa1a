// Small readers that every part of a tokenizer.json needs. Not here: what any part means.
#pragma once

#include <finteam/file/json_view.hpp>
#include <finteam/file/quoted.hpp>
#include <finteam/text/unicode.hpp>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI::detail {

/// Throws Error(unsupported) unless the key is missing, null or false.
inline void must_be_off(const JsonView& object, std::string_view key) {
  const auto value = object.find(key);
  if (value && !(value->json().is_boolean() && !value->as_bool())) {
    value->refuse("null or false, the rest is not supported", Code::unsupported);
  }
}

/// The value of "type"; throws Error(unsupported) with the list of what is known unless it is one of them.
[[nodiscard]] inline const std::string& type_of(const JsonView& object, std::initializer_list<std::string_view> known) {
  const JsonView type = object.at("type");
  const std::string& name = type.as_string();
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    std::string expected;
    for (const std::string_view k : known) expected += (expected.empty() ? "" : " or ") + std::string(k);
    throw Error(Code::unsupported, type.where(), expected, printable(name));
  }
  return name;
}

/// A string that is neither empty nor long enough to make a search for it dear.
[[nodiscard]] inline const std::string& short_string(const JsonView& value) {
  const std::string& s = value.as_string();
  if (s.empty() || s.size() > 256) value.refuse("a string of 1 to 256 bytes");
  return s;
}

/// One character, as a string.
[[nodiscard]] inline const std::string& one_character(const JsonView& value) {
  const std::string& s = value.as_string();
  if (s.empty() || utf8_length(s.front()) != s.size()) value.refuse("one character");
  return s;
}

/// step(const JsonView&) for a step, or for all those of a Sequence (list: the key that holds them), however deep.
template <class Step>
void each_step(const JsonView& json, std::string_view list, int& left, Step&& step) {
  if (json.at("type").as_string() != "Sequence") {
    if (left-- == 0) json.refuse("at most 32 steps", Code::limit_exceeded);
    return step(json);
  }
  only_keys(json, {"type", list});
  json.at(list).each([&](const JsonView& inner) { each_step(inner, list, left, step); });
}
template <class Step>
void each_step(const JsonView& json, std::string_view list, Step&& step) {
  int left = 32;
  each_step(json, list, left, step);
}

}  // namespace finteam::inline FINTEAM_ABI::detail
