// The door to utf8proc: what a character is, its lower case, how it decomposes and composes, where graphemes end.
// Not here: normal forms of a text (normal_form.hpp), the encoding (utf8.hpp), character classes in patterns (PCRE2).
#pragma once

#include <finteam/core/config.hpp>
#include <finteam/text/utf8.hpp>

#include <utf8proc.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI::detail {

/// A character in UTF-8, without memory of its own elsewhere.
struct Utf8Character {
  std::array<char, 4> bytes;
  std::uint8_t size;
  [[nodiscard]] std::string_view view() const noexcept { return {bytes.data(), size}; }
};

/// c is no surrogate and at most U+10FFFF.
[[nodiscard]] constexpr Utf8Character utf8_encode(char32_t c) noexcept {
  const auto tail = [c](int shift) { return static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) return {{static_cast<char>(c)}, 1};
  if (c < 0x800) return {{static_cast<char>(0xC0 | c >> 6), tail(0)}, 2};
  if (c < 0x10000) return {{static_cast<char>(0xE0 | c >> 12), tail(6), tail(0)}, 3};
  return {{static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0)}, 4};
}

/// The bytes of the character that well-formed text starts with.
[[nodiscard]] constexpr std::size_t utf8_length(char lead) noexcept {
  const auto b = static_cast<unsigned char>(lead);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

/// The first character of well-formed text that is not empty.
[[nodiscard]] constexpr char32_t utf8_first(std::string_view text) noexcept {
  return utf8_decode(text.substr(0, utf8_length(text.front())));
}

/// Where the last character of text[0, end) begins; end > 0.
[[nodiscard]] constexpr std::size_t utf8_last(std::string_view text, std::size_t end) noexcept {
  do --end;
  while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

/// The property White_Space, which no later version of Unicode changes.
[[nodiscard]] constexpr bool is_white_space(char32_t c) noexcept {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

[[nodiscard]] inline utf8proc_category_t category(char32_t c) noexcept {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}
/// Nd, Nl, No.
[[nodiscard]] inline bool is_numeric(char32_t c) noexcept {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}
/// P*, and what ASCII calls punctuation ($ and + are symbols to Unicode).
[[nodiscard]] inline bool is_punctuation(char32_t c) noexcept {
  if (c < 0x80) return c > 0x20 && c < 0x7F && !(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}
/// Mn, and Mc and Me too unless `nonspacing`.
[[nodiscard]] inline bool is_mark(char32_t c, bool nonspacing) noexcept {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_MN || (!nonspacing && (k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME));
}
/// C*: controls, format characters, private use, and what no character is.
[[nodiscard]] inline bool is_other(char32_t c) noexcept {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_CN || k >= UTF8PROC_CATEGORY_CC;
}

/// Lower case without context; only U+0130 has two characters there, the second of which is U+0307.
[[nodiscard]] inline char32_t lower(char32_t c) noexcept {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

/// 0 for a character that others combine with.
[[nodiscard]] inline unsigned combining_class(char32_t c) noexcept {
  return static_cast<unsigned>(utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class);
}

/// The full decomposition of one character, not ordered. At most 18 characters (U+FDFA).
[[nodiscard]] inline std::span<const utf8proc_int32_t> decompose(char32_t c, bool compatibility,
                                                                 std::array<utf8proc_int32_t, 32>& out) noexcept {
  const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0);
  int boundary = 0;
  const auto n =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), out.data(), static_cast<utf8proc_ssize_t>(out.size()),
                              static_cast<utf8proc_option_t>(options), &boundary);
  return {out.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}

/// The character that two compose to, or 0.
[[nodiscard]] inline char32_t compose(char32_t first, char32_t second) noexcept {
  std::array<utf8proc_int32_t, 2> pair = {static_cast<utf8proc_int32_t>(first), static_cast<utf8proc_int32_t>(second)};
  const auto n =
      utf8proc_normalize_utf32(pair.data(), 2, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  return n == 1 ? static_cast<char32_t>(pair[0]) : 0;
}

/// The bytes of the extended grapheme cluster that well-formed text starts with.
[[nodiscard]] inline std::size_t grapheme_length(std::string_view text) noexcept {
  utf8proc_int32_t state = 0;
  char32_t before = utf8_first(text);
  std::size_t n = utf8_length(text.front());
  while (n < text.size()) {
    const char32_t c = utf8_first(text.substr(n));
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(before), static_cast<utf8proc_int32_t>(c),
                                         &state)) {
      break;
    }
    before = c;
    n += utf8_length(text[n]);
  }
  return n;
}

}  // namespace finteam::inline FINTEAM_ABI::detail
