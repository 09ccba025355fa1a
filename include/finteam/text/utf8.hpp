// UTF-8: where text stops being well-formed, and a stream that turns bytes into whole characters only.
// Not here: normal forms, character classes (pattern.hpp leaves those to PCRE2).
#pragma once

#include <finteam/core/error.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// What stands at the start of some bytes.
struct Utf8Step {
  enum class Kind : std::uint8_t {
    complete,    ///< a well-formed character of `bytes` bytes
    incomplete,  ///< all `bytes` bytes there are begin a well-formed character, and more are needed
    invalid      ///< the first `bytes` bytes are a maximal ill-formed part
  } kind;
  std::uint8_t bytes;
};

/// Classifies the start of s, which is not empty.
/// Source: The Unicode Standard, table 3-7, and "Substitution of Maximal Subparts" in section 3.9.
[[nodiscard]] constexpr Utf8Step utf8_step(std::string_view s) noexcept {
  using Kind = Utf8Step::Kind;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(s[i])); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {Kind::complete, 1};
  const std::size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                             : lead >= 0xE0 && lead <= 0xEF ? 3
                             : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                            : 0;
  if (length == 0) return {Kind::invalid, 1};
  unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == s.size()) return {Kind::incomplete, static_cast<std::uint8_t>(i)};
    if (byte(i) < low || byte(i) > high) return {Kind::invalid, static_cast<std::uint8_t>(i)};
    low = 0x80;
    high = 0xBF;
  }
  return {Kind::complete, static_cast<std::uint8_t>(length)};
}

/// The code point of a well-formed character.
[[nodiscard]] constexpr char32_t utf8_decode(std::string_view character) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(character[i])); };
  switch (character.size()) {
    case 1: return byte(0);
    case 2: return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3: return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default: return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

}  // namespace detail

/// The offset of the first byte that is not part of a well-formed character; text.size() if all is well.
[[nodiscard]] constexpr std::size_t find_invalid_utf8(std::string_view text) noexcept {
  std::size_t at = 0;
  while (at < text.size()) {
    const detail::Utf8Step step = detail::utf8_step(text.substr(at));
    if (step.kind != detail::Utf8Step::Kind::complete) break;
    at += step.bytes;
  }
  return at;
}

/// Throws Error(malformed) that names the byte offset unless text is well-formed UTF-8.
inline void check_utf8(std::string_view text, std::string_view where) {
  const std::size_t at = find_invalid_utf8(text);
  if (at == text.size()) return;
  throw Error(Code::malformed, std::string(where), "UTF-8", "invalid bytes at byte offset " + std::to_string(at));
}

/// Bytes in, whole characters out. What can never become a character turns into U+FFFD, one for each maximal ill-formed
/// part, exactly as a lossy decoder would that saw all bytes at once. Allocates when it is made, then never.
class Utf8Stream {
 public:
  /// max_bytes: the longest piece that push() will be given.
  explicit Utf8Stream(std::size_t max_bytes) : max_bytes_(max_bytes) { out_.reserve(3 * (max_bytes + 4)); }

  /// The characters that are complete now; valid until the next call. Throws Error(limit_exceeded) for a longer piece.
  std::string_view push(std::string_view bytes) {
    if (bytes.size() > max_bytes_) {
      throw Error(Code::limit_exceeded, "stream decoder", "a piece of at most " + std::to_string(max_bytes_) + " bytes",
                  std::to_string(bytes.size()));
    }
    out_.clear();
    for (const char c : bytes) {
      pending_[pending_bytes_++] = c;
      drain();
    }
    return out_;
  }

  /// The end of the stream: U+FFFD for a character that was cut, or nothing. The stream is then as new.
  std::string_view flush() {
    out_.clear();
    if (pending_bytes_ != 0) out_ += detail::replacement_character;
    pending_bytes_ = 0;
    return out_;
  }

 private:
  /// Moves what is decided out of pending_; afterwards it is empty or incomplete.
  void drain() {
    while (pending_bytes_ != 0) {
      const std::string_view pending(pending_.data(), pending_bytes_);
      const detail::Utf8Step step = detail::utf8_step(pending);
      if (step.kind == detail::Utf8Step::Kind::incomplete) return;
      out_ += step.kind == detail::Utf8Step::Kind::complete ? pending : detail::replacement_character;
      pending_bytes_ -= step.bytes;
      for (std::size_t i = 0; i < pending_bytes_; ++i) pending_[i] = pending_[i + step.bytes];
    }
  }

  std::size_t max_bytes_;
  std::string out_;
  std::array<char, 4> pending_{};
  std::size_t pending_bytes_ = 0;
};

}  // namespace finteam::inline FINTEAM_ABI
