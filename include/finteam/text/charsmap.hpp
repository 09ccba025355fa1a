// SentencePiece's precompiled normalisation: a double-array trie from characters to their replacements.
// Source: Darts-clone's units as SentencePiece writes them (src/normalizer.cc); which part of a text is looked up, and
// that of several keys the shortest counts, as in the tokenizers package, normalizers/precompiled.rs.
#pragma once

#include <finteam/file/quoted.hpp>
#include <finteam/text/text_buffer.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Bytes that base64 stands for (RFC 4648, section 4); nothing if a character is none of its alphabet.
[[nodiscard]] inline std::optional<std::string> base64_bytes(std::string_view text) {
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<std::int8_t, 256> values;
  values.fill(-1);
  for (std::size_t i = 0; i < alphabet.size(); ++i)
    values[static_cast<unsigned char>(alphabet[i])] = static_cast<std::int8_t>(i);
  if (text.size() % 4 != 0) return std::nullopt;
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3 + 3);
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const std::int8_t value = values[static_cast<unsigned char>(c)];
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xFF);
  }
  return bytes;
}

}  // namespace detail

/// Immutable. Hostile bytes make it replace nothing, never read elsewhere.
class Charsmap {
 public:
  /// bytes: the trie's length in bytes (little endian), the trie, the replacements, each ended by a zero byte.
  /// Throws Error(malformed).
  Charsmap(std::string_view bytes, const std::string& where) {
    const auto word = [&](std::size_t at) {
      std::uint32_t w = 0;
      for (std::size_t i = 0; i < 4; ++i)
        w |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + i])) << 8 * i;
      return w;
    };
    const std::size_t trie = bytes.size() < 4 ? 0 : word(0);
    if (trie < 4 || trie % 4 != 0 || trie > bytes.size() - 4) {
      throw Error(Code::malformed, where, "a trie within the charsmap", std::to_string(trie) + " bytes of it");
    }
    for (std::size_t at = 4; at < 4 + trie; at += 4) units_.push_back(word(at));
    replacements_ = bytes.substr(4 + trie);
    check_utf8(replacements_, where);
    for (std::size_t c = 0; c < ascii_.size(); ++c) {
      const char key = static_cast<char>(c);
      if (const auto to = find(std::string_view(&key, 1))) {
        ascii_[c] = {static_cast<std::uint32_t>(to->data() - replacements_.data()),
                     static_cast<std::int32_t>(to->size())};
      }
    }
  }

  /// What the shortest key that `text` starts with becomes, or nothing. Lives as long as the charsmap.
  [[nodiscard]] std::optional<std::string_view> find(std::string_view text) const noexcept {
    std::size_t at = offset(units_[0]);
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte == 0) return std::nullopt;
      at ^= byte;
      if (at >= units_.size() || (units_[at] & 0x800000FF) != byte) return std::nullopt;
      const std::uint32_t unit = units_[at];
      at ^= offset(unit);
      if ((unit >> 8 & 1) == 0) continue;
      if (at >= units_.size()) return std::nullopt;
      return replacement(units_[at] & 0x7FFFFFFF);
    }
    return std::nullopt;
  }

  /// Appends what it makes of a text: short graphemes as a whole, the characters of others one by one.
  void apply(std::string_view text, detail::TextBuffer& out) const {
    while (!text.empty()) {
      const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
      if (byte(0) < 0x80 && (text.size() == 1 || (byte(1) < 0x80 && byte(1) != '\n'))) {
        const Ascii& to = ascii_[byte(0)];
        out.append(to.size < 0 ? text.substr(0, 1)
                               : std::string_view(replacements_).substr(to.at, static_cast<std::size_t>(to.size)));
        text.remove_prefix(1);
        continue;
      }
      const std::size_t length = detail::grapheme_length(text);
      const auto whole = length < 6 ? find(text.substr(0, length)) : std::nullopt;
      if (whole) out.append(*whole);
      for (std::size_t at = 0, n = 0; !whole && at < length; at += n) {
        n = detail::utf8_length(text[at]);
        out.append(find(text.substr(at, n)).value_or(text.substr(at, n)));
      }
      text.remove_prefix(length);
    }
  }

 private:
  static std::size_t offset(std::uint32_t unit) noexcept { return std::size_t{unit >> 10} << ((unit & 0x200) >> 6); }

  [[nodiscard]] std::optional<std::string_view> replacement(std::size_t at) const noexcept {
    const bool starts = at <= replacements_.size() &&
                        (at == replacements_.size() || (static_cast<unsigned char>(replacements_[at]) & 0xC0) != 0x80);
    if (!starts) return std::nullopt;
    const std::string_view rest = std::string_view(replacements_).substr(at);
    return rest.substr(0, rest.find('\0'));
  }

  struct Ascii {
    std::uint32_t at = 0;
    std::int32_t size = -1;  ///< negative: stays as it is
  };

  std::vector<std::uint32_t> units_;
  std::string replacements_;
  std::array<Ascii, 128> ascii_;
};

}  // namespace finteam::inline FINTEAM_ABI
