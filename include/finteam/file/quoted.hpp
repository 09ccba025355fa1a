// Bytes of a hostile file made fit to stand in an error's text: short, one line, no control characters.
// Not here: validation. Nothing is refused, and the result is for people only.
#pragma once

#include <finteam/core/config.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI::detail {

/// Bytes of the printable character that `text` starts with; 0 if it starts with a control character or is not UTF-8.
[[nodiscard]] inline std::size_t printable_length(std::string_view text) noexcept {
  const auto lead = static_cast<unsigned char>(text.front());
  const std::size_t length = lead < 0x80 ? 1 : (lead & 0xE0U) == 0xC0 ? 2 : (lead & 0xF0U) == 0xE0 ? 3 : 4;
  if (length > text.size() || (length == 4 && (lead & 0xF8U) != 0xF0)) return 0;
  unsigned c = length == 1 ? lead : lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xC0U) != 0x80) return 0;
    c = c << 6 | (byte & 0x3FU);
  }
  constexpr unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool encoded = c >= least[length] && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
  const bool control = c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029;
  return encoded && !control ? length : 0;
}

/// The text with control characters, and bytes that are not UTF-8, as \xNN; cut after about `max_bytes` with "...".
[[nodiscard]] inline std::string printable(std::string_view text, std::size_t max_bytes = 200) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  while (!text.empty()) {
    if (out.size() >= max_bytes) return out + "...";
    const std::size_t length = printable_length(text);
    if (length != 0) {
      out += text.substr(0, length);
    } else {
      const auto byte = static_cast<unsigned char>(text.front());
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 0xFU];
    }
    text.remove_prefix(length != 0 ? length : 1);
  }
  return out;
}

/// The text between double quotes, for a value.
[[nodiscard]] inline std::string in_quotes(std::string_view text, std::size_t max_bytes = 60) {
  return '"' + printable(text, max_bytes) + '"';
}

}  // namespace finteam::inline FINTEAM_ABI::detail
