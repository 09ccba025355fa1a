// Matrices that a checkpoint stores in a way of its own, read row by row as floats: FP8 with scales, MXFP4, four bits
// (stored_int4.hpp), and matrices that lie transposed. Every number comes out as its format defines it.
// Not here: what a config.json says of them (quantization.hpp), what becomes of them in memory (expert/weights.hpp).
#pragma once

#include <finteam/file/stored_int4.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// FP8 (E4M3, no infinities) as float, exactly. Source: Micikevicius et al. 2022, table 1.
[[nodiscard]] constexpr float e4m3_to_float(std::uint8_t bits) noexcept {
  const unsigned exponent = (bits >> 3) & 15U, mantissa = bits & 7U;
  const float sign = (bits & 0x80U) != 0 ? -1.0F : 1.0F;
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-9F;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  return sign * std::bit_cast<float>(((exponent + 120U) << 23) | (mantissa << 20));
}

namespace detail {

/// weight F8_E4M3 [n, k] times weight_scale_inv or weight_scale: [n/b, k/b'], of the tensor, or of each row; rounded
/// once, to float.
/// Source: transformers, integrations/finegrained_fp8.py; compressed-tensors, float-quantized.
[[nodiscard]] inline StoredRows fp8_rows(const Checkpoint& checkpoint, const Quantization& q, const std::string& name,
                                         index_t n, index_t k) {
  const std::byte* const weight = stored_bytes(checkpoint, name, "F8_E4M3", std::array{n, k});
  const std::string blocks = stem_of(name) + "weight_scale_inv", single = stem_of(name) + "weight_scale";
  const bool in_blocks = q.block[0] > 0;
  const std::string& scale_name = checkpoint.contains(blocks) ? blocks : single;
  const RawTensor scale = checkpoint.tensor(scale_name);
  const index_t high = q.block[0] > 0 ? q.block[0] : n, wide = q.block[1] > 0 ? q.block[1] : k;
  const std::array by_block{ceil_div(n, high), ceil_div(k, wide)};
  const bool by_row = !in_blocks && n > 1 && scale.size() == n && scale.shape[0] == n;
  const bool fits =
      in_blocks && q.block[0] > 0 ? std::ranges::equal(scale.shape, by_block) : by_row || scale.size() == 1;
  if (!fits) {
    throw Error(Code::mismatch, checkpoint.where(scale_name),
                in_blocks ? shape_string(by_block) : "[1] or [" + std::to_string(n) + ", 1]",
                shape_string(scale.shape));
  }
  const auto read = [=](index_t row, index_t first, index_t count, float* to) {
    for (index_t j = first; j < first + count; ++j) {
      const index_t at = by_row ? row : scale.size() == 1 ? 0 : row / high * by_block[1] + j / wide;
      *to++ = e4m3_to_float(static_cast<std::uint8_t>(weight[row * k + j])) * scale[at];
    }
  };
  return {read, DType::f32, {name, scale_name}};
}

/// name_blocks U8 [experts, n, k/32, 16], two numbers a byte, the lower half first, name_scales U8 [experts, n, k/32],
/// powers of two. Source: OCP Microscaling Formats 1.0, 5.3.3 and 6.3; transformers, integrations/mxfp4.py.
[[nodiscard]] inline StoredRows mxfp4_rows(const Checkpoint& checkpoint, const std::string& name,
                                           std::array<index_t, 3> shape) {
  const auto [experts, n, k] = shape;
  const std::string blocks_name = name + "_blocks", scales_name = name + "_scales";
  const std::byte* const blocks =
      stored_bytes(checkpoint, blocks_name, "U8", std::array{experts, n, k / 32, index_t{16}});
  const std::byte* const scales = stored_bytes(checkpoint, scales_name, "U8", std::array{experts, n, k / 32});
  if (k % 32 != 0)
    throw Error(Code::mismatch, checkpoint.where(blocks_name), "a multiple of 32 inputs", std::to_string(k));
  const auto read = [=, k = k](index_t row, index_t first, index_t count, float* to) {
    constexpr std::array<float, 8> sizes{0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
    const auto value = [&](std::uint32_t bits) { return (bits & 8U) != 0 ? -sizes[bits & 7U] : sizes[bits]; };
    for (index_t j = first; j < first + count; j += 32) {
      const int power = static_cast<int>(scales[(row * k + j) / 32]);
      const float scale = power == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0F, power - 127);
      for (index_t i = 0; i < 16; ++i) {
        const auto both = static_cast<std::uint32_t>(blocks[(row * k + j) / 2 + i]);
        *to++ = scale * value(both & 15U);
        *to++ = scale * value(both >> 4);
      }
    }
  };
  return {read, DType::bf16, {blocks_name, scales_name}};
}

/// name [experts, k, n], its rows the columns. Errors as Checkpoint::tensor.
[[nodiscard]] inline StoredRows transposed_rows(const Checkpoint& checkpoint, const std::string& name,
                                                std::array<index_t, 3> shape) {
  const auto [experts, n, k] = shape;
  const RawTensor raw = checkpoint.tensor(name, {experts, k, n});
  const auto read = [=, n = n, k = k](index_t row, index_t first, index_t count, float* to) {
    for (index_t j = first; j < first + count; ++j) *to++ = raw[(row / n * k + j) * n + row % n];
  };
  return {read, raw.dtype == DType::bf16 ? DType::bf16 : DType::f32, {name}};
}

}  // namespace detail

/// The matrix of a linear layer [n, k] in the storage that the checkpoint has for it, or nothing if it is stored as
/// plain numbers, or not at all. Throws Error that names the tensor: mismatch for other shapes or types, not_found for
/// scales that are missing.
[[nodiscard]] inline std::optional<StoredRows> stored_rows(const Checkpoint& checkpoint, const Quantization& q,
                                                           const std::string& name, index_t n, index_t k) {
  using Method = Quantization::Method;
  const auto there = [&](std::string_view end) {
    return checkpoint.contains(detail::stem_of(name) + std::string(end));
  };
  const auto stored = checkpoint.stored(name);
  const bool fp8 = q.method == Method::fp8 || q.method == Method::compressed;
  if (fp8 && stored && stored->type == "F8_E4M3") return detail::fp8_rows(checkpoint, q, name, n, k);
  if (stored) return std::nullopt;
  if (q.method == Method::gptq && there("qweight")) {
    return detail::gptq_rows(checkpoint, q, detail::stem_of(name), n, k);
  }
  if (q.method == Method::awq && there("qweight")) return detail::awq_rows(checkpoint, q, detail::stem_of(name), n, k);
  if (q.method == Method::compressed && there("weight_packed")) {
    return detail::packed_rows(checkpoint, q, detail::stem_of(name), n, k);
  }
  return std::nullopt;
}

/// Those of the experts of a layer, [experts, n, k], which lie in one tensor, transposed, or in MXFP4.
[[nodiscard]] inline StoredRows stored_expert_rows(const Checkpoint& checkpoint, const Quantization& q,
                                                   const std::string& name, std::array<index_t, 3> shape) {
  const bool mxfp4 = q.method == Quantization::Method::mxfp4 && !checkpoint.contains(name);
  return mxfp4 ? detail::mxfp4_rows(checkpoint, name, shape) : detail::transposed_rows(checkpoint, name, shape);
}

}  // namespace finteam::inline FINTEAM_ABI
