// The byte-level alphabet: every byte as one printable character, so that a vocabulary of bytes can stand in JSON.
// Source: Radford et al. 2019 (GPT-2), bytes_to_unicode in encoder.py.
#pragma once

#include <finteam/text/utf8.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Bytes that are printable in Latin-1 stand for themselves; the others, in order, are U+0100, U+0101, …
constexpr std::array<std::uint16_t, 256> byte_level_alphabet() noexcept {
  std::array<std::uint16_t, 256> characters{};
  std::uint16_t next = 256;
  for (std::uint16_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    characters[b] = printable ? b : next++;
  }
  return characters;
}

/// The byte that character U+0000 … U+0143 stands for, or -1.
constexpr std::array<std::int16_t, 0x144> byte_level_inverse() noexcept {
  std::array<std::int16_t, 0x144> bytes{};
  for (auto& b : bytes) b = -1;
  for (std::int16_t b = 0; b < 256; ++b) bytes[byte_level_alphabet()[static_cast<std::size_t>(b)]] = b;
  return bytes;
}

}  // namespace detail

/// The bytes that a token of the byte-level alphabet stands for ("Ġthe" is " the"); nothing if a character is outside
/// of it.
[[nodiscard]] inline std::optional<std::string> byte_level_bytes(std::string_view token) {
  constexpr auto inverse = detail::byte_level_inverse();
  std::string bytes;
  bytes.reserve(token.size());
  while (!token.empty()) {
    const detail::Utf8Step step = detail::utf8_step(token);
    if (step.kind != detail::Utf8Step::Kind::complete) return std::nullopt;
    const char32_t c = detail::utf8_decode(token.substr(0, step.bytes));
    if (c >= inverse.size() || inverse[c] < 0) return std::nullopt;
    bytes += static_cast<char>(static_cast<unsigned char>(inverse[c]));
    token.remove_prefix(step.bytes);
  }
  return bytes;
}

}  // namespace finteam::inline FINTEAM_ABI
