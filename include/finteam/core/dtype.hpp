// Storage types of tensors: their names in files, their sizes, and exact conversion to float.
// Not here: arithmetic on them. Storage types convert at the edge; sums are float or wider.
#pragma once

#include <finteam/core/config.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {

/// Storage type of a tensor in a file or in memory.
enum class DType : std::uint8_t { f32, f16, bf16 };

/// Bytes of one element.
[[nodiscard]] constexpr std::size_t bytes_of(DType t) noexcept { return t == DType::f32 ? 4 : 2; }

/// The type's name as safetensors writes it: "F32", "F16", "BF16".
[[nodiscard]] constexpr std::string_view name(DType t) noexcept {
  return t == DType::f32 ? "F32" : t == DType::f16 ? "F16" : "BF16";
}

/// bfloat16: the upper half of a float. Exact to float.
struct bf16 {
  std::uint16_t bits = 0;
};

/// IEEE 754 binary16. Exact to float.
struct f16 {
  std::uint16_t bits = 0;
};

/// The value as float, exactly.
[[nodiscard]] constexpr float to_float(float x) noexcept { return x; }

/// The value as float, exactly.
[[nodiscard]] constexpr float to_float(bf16 x) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

/// The value as float, exactly; subnormals too.
[[nodiscard]] constexpr float to_float(f16 x) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000U) << 16;
  const std::uint32_t exponent = (x.bits >> 10) & 0x1FU;
  const std::uint32_t mantissa = x.bits & 0x3FFU;
  if (exponent == 0) {  // zero and subnormals: mantissa · 2^-24, exact in float
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t biased = exponent == 31 ? 255U : exponent + 112U;
  return std::bit_cast<float>(sign | (biased << 23) | (mantissa << 13));
}

/// Round to nearest, ties to even; NaN stays NaN.
[[nodiscard]] constexpr bf16 to_bf16(float x) noexcept {
  std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7FFFFFFFU) > 0x7F800000U) return {static_cast<std::uint16_t>((u >> 16) | 0x40U)};
  u += 0x7FFFU + ((u >> 16) & 1U);
  return {static_cast<std::uint16_t>(u >> 16)};
}

/// Element i of an array of `t` at p, which need not be aligned (safetensors promises no alignment).
[[nodiscard]] inline float load_element(const std::byte* p, DType t, std::ptrdiff_t i) noexcept {
  if (t == DType::f32) {
    float x;
    std::memcpy(&x, p + 4 * i, 4);
    return x;
  }
  std::uint16_t bits;
  std::memcpy(&bits, p + 2 * i, 2);
  return t == DType::bf16 ? to_float(bf16{bits}) : to_float(f16{bits});
}

/// y[i] = element first + i of an array of `t` at p, for i in [0, count).
inline void load_elements(const std::byte* p, DType t, std::ptrdiff_t first, std::ptrdiff_t count, float* y) noexcept {
  if (t == DType::f32) {
    std::memcpy(y, p + 4 * first, 4 * static_cast<std::size_t>(count));
    return;
  }
  const auto convert = [=](DType of, std::ptrdiff_t i, std::ptrdiff_t n) {
    for (std::ptrdiff_t j = i; j < i + n; ++j) y[j] = load_element(p, of, first + j);
  };
  constexpr std::ptrdiff_t run = 32;  // a count that compilers know is one that they vectorise
  std::ptrdiff_t i = 0;
  for (; i + run <= count; i += run) t == DType::bf16 ? convert(DType::bf16, i, run) : convert(DType::f16, i, run);
  convert(t, i, count - i);
}

}  // namespace finteam::inline FINTEAM_ABI
