// Pseudo-random inputs of the backend tests: the same on every machine and compiler. Never zeros.
#pragma once

#include <finteam/backend/backend.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace inputs {

inline auto* const memory = std::pmr::get_default_resource();

using finteam::index_t;

/// A 64-bit mixer (splitmix64's finaliser) over a counter.
struct Random {
  std::uint64_t state;
  std::uint64_t bits() {
    std::uint64_t z = state += 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  /// Roughly normal, standard deviation 1.15: four uniform integers, scaled by a power of two. Exact in any rounding
  /// mode.
  float value() {
    std::int32_t sum = -2 * 65535;
    for (const std::uint64_t b = bits(); const int shift : {0, 16, 32, 48}) {
      sum += static_cast<std::int32_t>((b >> shift) & 0xFFFFU);
    }
    return static_cast<float>(sum == 0 ? 1 : sum) * 0x1p-15F;
  }
};

inline std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

/// n values.
inline std::vector<float> values(index_t n, std::uint64_t seed) {
  Random random{seed * 0x2545F4914F6CDD1DU + 1};
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = random.value();
  return v;
}

/// Truncates to binary16; for values in its normal range.
inline finteam::f16 to_f16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  const auto exponent = static_cast<std::int32_t>((u >> 23) & 0xFFU) - 112;
  const std::uint32_t sign = (u >> 16) & 0x8000U;
  if (exponent <= 0) return {static_cast<std::uint16_t>(sign | 1U)};
  return {static_cast<std::uint16_t>(sign | (static_cast<std::uint32_t>(exponent) << 10) | ((u >> 13) & 0x3FFU))};
}

/// A file's tensor of random values, at an odd address, as safetensors may have it.
struct File {
  std::vector<index_t> shape;
  finteam::DType dtype;
  std::vector<std::byte> bytes;

  File(std::vector<index_t> extents, finteam::DType type, std::uint64_t seed, float scale = 1)
      : shape(std::move(extents)), dtype(type) {
    index_t n = 1;
    for (const index_t e : shape) n *= e;
    const std::size_t size = finteam::bytes_of(type);
    bytes.resize(static_cast<std::size_t>(n) * size + 1);
    std::byte* at = bytes.data() + 1;
    for (float x : values(n, seed)) {
      x *= scale;
      const std::uint16_t half = type == finteam::DType::bf16 ? finteam::to_bf16(x).bits : to_f16(x).bits;
      std::memcpy(at, type == finteam::DType::f32 ? static_cast<const void*>(&x) : &half, size);
      at += size;
    }
  }
  [[nodiscard]] finteam::RawTensor raw() const { return {bytes.data() + 1, dtype, shape}; }
};

}  // namespace inputs
