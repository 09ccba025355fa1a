// Matrices of four-bit integers as GPTQ, AWQ and compressed-tensors store them, read row by row as floats.
// Not here: which of them a checkpoint has (stored_rows.hpp).
#pragma once

#include <finteam/file/checkpoint.hpp>
#include <finteam/file/quantization.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// The rows of a matrix, or of several of the same shape one behind the other. Reads the checkpoint's bytes: it must
/// outlive this.
struct StoredRows {
  /// to[j] = element first + j of a row, j < count; first a multiple of 32. May run on several threads at once.
  std::function<void(index_t row, index_t first, index_t count, float* to)> read;
  DType dtype = DType::f32;          ///< a type that has every number that is read
  std::vector<std::string> tensors;  ///< where they lie
};

namespace detail {

/// The tensor of that name, type and shape. Throws Error(not_found), Error(mismatch).
[[nodiscard]] inline const std::byte* stored_bytes(const Checkpoint& checkpoint, const std::string& name,
                                                   std::string_view type, std::span<const index_t> shape) {
  const auto stored = checkpoint.stored(name);
  if (!stored) throw Error(Code::not_found, checkpoint.where(name), "a tensor", "none of that name");
  if (stored->type != type || !std::ranges::equal(stored->shape, shape)) {
    throw Error(Code::mismatch, checkpoint.where(name), std::string(type) + " " + shape_string(shape),
                std::string(stored->type) + " " + shape_string(stored->shape));
  }
  return stored->bytes.data();
}

/// Word i of an I32 tensor, which need not be aligned.
[[nodiscard]] inline std::uint32_t word(const std::byte* words, index_t i) noexcept {
  std::uint32_t w;
  std::memcpy(&w, words + 4 * i, 4);
  return w;
}
/// Four bits of a word.
[[nodiscard]] constexpr std::uint32_t nibble(std::uint32_t w, index_t i) noexcept {
  return (w >> (4 * static_cast<unsigned>(i))) & 15U;
}

[[nodiscard]] constexpr index_t ceil_div(index_t a, index_t b) noexcept { return (a + b - 1) / b; }

/// "model.layers.0.mlp.up_proj." of "model.layers.0.mlp.up_proj.weight".
[[nodiscard]] inline std::string stem_of(std::string_view weight) {
  return std::string(weight.substr(0, weight.rfind("weight")));
}

/// w[i,j] = scales[g,i] · (q[j,i] - zero[g,i]): qweight I32 [k/8, n], eight inputs a word, qzeros I32 [k/group, n/8],
/// scales [k/group, n], g = g_idx[j] if there is one (I32 [k]), else j / group. Source: transformers and GPTQModel,
/// checkpoint formats gptq and gptq_v2.
[[nodiscard]] inline StoredRows gptq_rows(const Checkpoint& checkpoint, const Quantization& q, const std::string& stem,
                                          index_t n, index_t k) {
  const index_t group = q.group > 0 ? q.group : k, groups = ceil_div(k, group);
  const std::array<std::string, 4> names{stem + "qweight", stem + "qzeros", stem + "scales", stem + "g_idx"};
  if (n % 8 != 0 || k % 8 != 0) {
    throw Error(Code::mismatch, checkpoint.where(names[0]), "multiples of 8 rows and inputs",
                shape_string(std::array{n, k}));
  }
  const std::byte* const weight = stored_bytes(checkpoint, names[0], "I32", std::array{k / 8, n});
  const std::byte* const zeros = stored_bytes(checkpoint, names[1], "I32", std::array{groups, n / 8});
  const RawTensor scales = checkpoint.tensor(names[2], {groups, n});
  StoredRows rows{.read = {}, .tensors = {names[0], names[1], names[2]}};
  std::vector<std::int32_t> group_of(static_cast<std::size_t>(k));
  const bool ordered = checkpoint.contains(names[3]);
  const std::byte* const order = ordered ? stored_bytes(checkpoint, names[3], "I32", std::array{k}) : nullptr;
  for (index_t j = 0; j < k; ++j) {
    const index_t g = ordered ? static_cast<std::int32_t>(word(order, j)) : j / group;
    if (g < 0 || g >= groups) {
      throw Error(Code::malformed, checkpoint.where(names[3]), "groups from 0 to " + std::to_string(groups - 1),
                  std::to_string(g));
    }
    group_of[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(g);
  }
  if (ordered) rows.tensors.push_back(names[3]);
  rows.read = [=, more = q.zero_plus_one ? 0x11111111U : 0U, group_of = std::move(group_of)](index_t i, index_t first,
                                                                                             index_t count, float* to) {
    for (index_t j = first; j < first + count; ++j) {
      const index_t g = group_of[static_cast<std::size_t>(j)];
      const auto value = static_cast<std::int32_t>(nibble(word(weight, j / 8 * n + i), j % 8));
      const auto zero = static_cast<std::int32_t>(nibble(word(zeros, g * (n / 8) + i / 8) + more, i % 8));
      *to++ = scales[g * n + i] * static_cast<float>(value - zero);
    }
  };
  return rows;
}

/// w[i,j] = scales[g,i] · (q[j,i] - zero[g,i]), g = j / group: qweight I32 [k, n/8], qzeros I32 [k/group, n/8], of
/// whose words the four bits i hold output order[i], scales [k/group, n]. Source: AutoAWQ, awq/modules/linear/gemm.py.
[[nodiscard]] inline StoredRows awq_rows(const Checkpoint& checkpoint, const Quantization& q, const std::string& stem,
                                         index_t n, index_t k) {
  const index_t group = q.group > 0 ? q.group : k, groups = ceil_div(k, group);
  const std::array<std::string, 3> names{stem + "qweight", stem + "qzeros", stem + "scales"};
  if (n % 8 != 0) throw Error(Code::mismatch, checkpoint.where(names[0]), "a multiple of 8 rows", std::to_string(n));
  const std::byte* const weight = stored_bytes(checkpoint, names[0], "I32", std::array{k, n / 8});
  const std::byte* const zeros = stored_bytes(checkpoint, names[1], "I32", std::array{groups, n / 8});
  const RawTensor scales = checkpoint.tensor(names[2], {groups, n});
  const auto read = [=](index_t i, index_t first, index_t count, float* to) {
    constexpr std::array<index_t, 8> place{0, 4, 1, 5, 2, 6, 3, 7};  // of output i % 8 in its word
    const index_t at = place[static_cast<std::size_t>(i % 8)];
    for (index_t j = first; j < first + count; ++j) {
      const auto value = static_cast<std::int32_t>(nibble(word(weight, j * (n / 8) + i / 8), at));
      const auto zero = static_cast<std::int32_t>(nibble(word(zeros, j / group * (n / 8) + i / 8), at));
      *to++ = scales[j / group * n + i] * static_cast<float>(value - zero);
    }
  };
  return {read, DType::f32, {names[0], names[1], names[2]}};
}

/// w[i,j] = weight_scale[i,g] · (q[i,j] - 8 - zero[i,g]), g = j / group: weight_packed I32 [n, k/8], and zero 0 unless
/// there is a weight_zero_point I32 [n/8, k/group], eight rows a word, 8 more than it means. Source:
/// compressed-tensors, compressors/pack_quantized.
[[nodiscard]] inline StoredRows packed_rows(const Checkpoint& checkpoint, const Quantization& q,
                                            const std::string& stem, index_t n, index_t k) {
  const index_t group = q.group > 0 ? q.group : k, groups = ceil_div(k, group), words = ceil_div(k, 8);
  const std::string packed = stem + "weight_packed", scale = stem + "weight_scale", zero = stem + "weight_zero_point",
                    shape = stem + "weight_shape", order = stem + "weight_g_idx";
  if (checkpoint.contains(order)) {
    throw Error(Code::unsupported, checkpoint.where(order), "groups in order", "an order of their own");
  }
  const std::byte* const weight = stored_bytes(checkpoint, packed, "I32", std::array{n, words});
  const RawTensor scales = checkpoint.tensor(scale, {n, groups});
  const bool shifted = checkpoint.contains(zero);
  const std::byte* const zeros =
      shifted ? stored_bytes(checkpoint, zero, "I32", std::array{ceil_div(n, 8), groups}) : nullptr;
  StoredRows rows{.read = {}, .tensors = {packed, scale}};
  if (shifted) rows.tensors.push_back(zero);
  if (checkpoint.contains(shape)) rows.tensors.push_back(shape);
  rows.read = [=](index_t i, index_t first, index_t count, float* to) {
    for (index_t j = first; j < first + count; ++j) {
      const index_t g = j / group;
      const auto value = static_cast<std::int32_t>(nibble(word(weight, i * words + j / 8), j % 8));
      const auto offset =
          shifted ? static_cast<std::int32_t>(nibble(word(zeros, i / 8 * groups + g), i % 8)) : std::int32_t{8};
      *to++ = scales[i * groups + g] * static_cast<float>(value - offset);
    }
  };
  return rows;
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
