// Bytes of a hostile file made fit to stand in an error's text: short, one line, no control characters.
// Not here: validation. Nothing is refused, and the result is for people only.
#pragma once

#include <finteam/core/config.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI::detail {

/// The text with control bytes, and bytes that are not UTF-8, as \xNN; cut after about `max_bytes` with "...".
[[nodiscard]] inline std::string printable(std::string_view text, std::size_t max_bytes = 200) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (out.size() >= max_bytes) return out + "...";
    const auto lead = static_cast<unsigned char>(text[i]);
    std::size_t length = lead < 0x80 ? 1 : lead >= 0xC2 && lead < 0xE0 ? 2 : (lead & 0xF0U) == 0xE0 ? 3 : 4;
    bool good = lead < 0x80 ? lead >= 0x20 && lead != 0x7F : lead >= 0xC2 && lead < 0xF5 && i + length <= text.size();
    for (std::size_t j = 1; good && j < length; ++j) good = (static_cast<unsigned char>(text[i + j]) & 0xC0U) == 0x80;
    // C1 controls (U+0080 … U+009F) and the line separators U+2028, U+2029 break a line of a log as well.
    const auto second = good && length > 1 ? static_cast<unsigned char>(text[i + 1]) : 0U;
    if (good && lead == 0xC2 && second < 0xA0) good = false;
    if (good && length == 3 && (text.substr(i, 3) == "\xE2\x80\xA8" || text.substr(i, 3) == "\xE2\x80\xA9"))
      good = false;
    if (good) {
      out += text.substr(i, length);
      i += length;
    } else {
      out += "\\x";
      out += digits[lead >> 4];
      out += digits[lead & 0xFU];
      ++i;
    }
  }
  return out;
}

/// The text between double quotes, for a value.
[[nodiscard]] inline std::string in_quotes(std::string_view text, std::size_t max_bytes = 60) {
  return '"' + printable(text, max_bytes) + '"';
}

}  // namespace finteam::inline FINTEAM_ABI::detail
