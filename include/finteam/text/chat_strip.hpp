// White space at the ends of a text, as chat templates see it.
// Not here: normalisers.
#pragma once

#include <finteam/text/unicode.hpp>
#include <finteam/text/utf8.hpp>

#include <cstddef>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Source: CPython, Objects/unicodeobject.c, _PyUnicode_IsWhitespace (bidirectional types WS, B, S and category Zs).
[[nodiscard]] constexpr bool is_space_of_python(char32_t c) noexcept {
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

/// The text from its first character on that is none of those; bytes that are no UTF-8 are none.
template <class Is>
[[nodiscard]] constexpr std::string_view drop_front(std::string_view text, Is is) noexcept {
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    if (step.kind != Utf8Step::Kind::complete || !is(utf8_decode(text.substr(0, step.bytes)))) break;
    text.remove_prefix(step.bytes);
  }
  return text;
}

/// The text up to its last character that is none of those.
template <class Is>
[[nodiscard]] constexpr std::string_view drop_back(std::string_view text, Is is) noexcept {
  for (std::size_t n = 1; n <= 4 && n <= text.size(); ++n) {
    const std::string_view last = text.substr(text.size() - n);
    const Utf8Step step = utf8_step(last);
    if (step.kind != Utf8Step::Kind::complete || step.bytes != n) continue;
    if (!is(utf8_decode(last))) break;
    text.remove_suffix(n);
    n = 0;
  }
  return text;
}

}  // namespace detail

/// The text without the whitespace at its ends, as Python's str.strip (and so a template's `trim`) sees whitespace.
[[nodiscard]] constexpr std::string_view strip(std::string_view text) noexcept {
  return detail::drop_back(detail::drop_front(text, detail::is_space_of_python), detail::is_space_of_python);
}

}  // namespace finteam::inline FINTEAM_ABI
