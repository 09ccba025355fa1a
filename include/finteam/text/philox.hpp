// Philox4x32-10: random bits as a pure function of a key and a counter. No state, so no order of calls can matter.
// Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", section 4.3.
#pragma once

#include <finteam/core/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace finteam::inline FINTEAM_ABI {

/// 128 random bits for a counter and a key.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter,
                                                                   std::array<std::uint32_t, 2> key) noexcept {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
    const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
    const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
    counter = {high(b) ^ counter[1] ^ key[0], low(b), high(a) ^ counter[3] ^ key[1], low(a)};
    key = {key[0] + 0x9E3779B9U, key[1] + 0xBB67AE85U};
  }
  return counter;
}

/// A uniform number strictly between 0 and 1 for (seed, position, token): (k + 1/2) / 2^52, k in [0, 2^52), exact.
[[nodiscard]] constexpr double uniform(std::uint64_t seed, std::int64_t position, std::int32_t token) noexcept {
  const auto p = static_cast<std::uint64_t>(position);
  const auto bits = philox4x32_10(
      {static_cast<std::uint32_t>(token), 0, static_cast<std::uint32_t>(p), static_cast<std::uint32_t>(p >> 32)},
      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  const std::uint64_t k = (std::uint64_t{bits[0]} << 32 | bits[1]) >> 12;
  return (static_cast<double>(k) + 0.5) * 0x1p-52;
}

/// u[j] = uniform(seed, position, token[j]) for sixteen tokens at once, in loops that a compiler turns into vectors.
inline void uniforms(std::uint64_t seed, std::int64_t position, const std::array<std::int32_t, 16>& token,
                     std::array<double, 16>& u) noexcept {
  std::array<std::uint32_t, 16> a, b, c, d;
  const auto p = static_cast<std::uint64_t>(position);
  for (std::size_t j = 0; j < 16; ++j) {
    a[j] = static_cast<std::uint32_t>(token[j]);
    b[j] = 0;
    c[j] = static_cast<std::uint32_t>(p);
    d[j] = static_cast<std::uint32_t>(p >> 32);
  }
  auto key = std::array{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    for (std::size_t j = 0; j < 16; ++j) {
      const std::uint64_t x = std::uint64_t{0xD2511F53U} * a[j], y = std::uint64_t{0xCD9E8D57U} * c[j];
      a[j] = static_cast<std::uint32_t>(y >> 32) ^ b[j] ^ key[0];
      b[j] = static_cast<std::uint32_t>(y);
      c[j] = static_cast<std::uint32_t>(x >> 32) ^ d[j] ^ key[1];
      d[j] = static_cast<std::uint32_t>(x);
    }
    key = {key[0] + 0x9E3779B9U, key[1] + 0xBB67AE85U};
  }
  for (std::size_t j = 0; j < 16; ++j) {
    const std::uint64_t k = (std::uint64_t{a[j]} << 32 | b[j]) >> 12;
    u[j] = (static_cast<double>(static_cast<std::int64_t>(k)) + 0.5) * 0x1p-52;
  }
}

}  // namespace finteam::inline FINTEAM_ABI
