// XXH64, a fast 64-bit hash of bytes: to notice that a file is another or was damaged.
// Not here: a defence against somebody who looks for equal hashes.
#pragma once

#include <finteam/core/config.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace finteam::inline FINTEAM_ABI {

/// XXH64 with seed 0. Source: Collet, the xxHash specification (doc/xxhash_spec.md of github.com/Cyan4973/xxHash).
[[nodiscard]] inline std::uint64_t xxh64(std::span<const std::byte> bytes) noexcept {
  constexpr std::uint64_t p1 = 0x9E3779B185EBCA87U, p2 = 0xC2B2AE3D27D4EB4FU, p3 = 0x165667B19E3779F9U,
                          p4 = 0x85EBCA77C2B2AE63U, p5 = 0x27D4EB2F165667C5U;
  static_assert(std::endian::native == std::endian::little);
  const auto word = [](const std::byte* at) {
    std::uint64_t x;
    std::memcpy(&x, at, 8);
    return x;
  };
  const auto round = [](std::uint64_t lane, std::uint64_t input) { return std::rotl(lane + input * p2, 31) * p1; };
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t h = p5;
  if (left >= 32) {
    std::uint64_t a = p1 + p2, b = p2, c = 0, d = 0 - p1;
    for (; left >= 32; left -= 32, at += 32) {
      a = round(a, word(at));
      b = round(b, word(at + 8));
      c = round(c, word(at + 16));
      d = round(d, word(at + 24));
    }
    h = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    for (const std::uint64_t lane : {a, b, c, d}) h = (h ^ round(0, lane)) * p1 + p4;
  }
  h += bytes.size();
  for (; left >= 8; left -= 8, at += 8) h = std::rotl(h ^ round(0, word(at)), 27) * p1 + p4;
  if (left >= 4) {
    std::uint32_t x;
    std::memcpy(&x, at, 4);
    h = std::rotl(h ^ x * p1, 23) * p2 + p3;
    left -= 4;
    at += 4;
  }
  for (; left > 0; --left, ++at) h = std::rotl(h ^ std::to_integer<std::uint64_t>(*at) * p5, 11) * p1;
  h = (h ^ (h >> 33)) * p2;
  h = (h ^ (h >> 29)) * p3;
  return h ^ (h >> 32);
}

namespace detail {

/// A hash as files and their names have it: 16 hexadecimal digits.
[[nodiscard]] inline std::string hex(std::uint64_t x) {
  std::string s;
  for (int shift = 60; shift >= 0; shift -= 4) s += "0123456789abcdef"[x >> shift & 15U];
  return s;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
