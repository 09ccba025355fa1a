// What a block of 256 threads does with a row: its norm, and the form in which a product reads it. A kernel of its own
// (norm.cu) and the prologue of a product (multiply.cu) give the same bits.
#pragma once

#include "numbers.cuh"

namespace finteam::cuda_v0_1::kernels {

inline constexpr int row_threads = 256, row_warps = row_threads / warp_threads;

/// 1 / sqrt(mean_i x[i]² + eps), the same in every thread and in one order. sums: shared, [row_warps].
__device__ __forceinline__ float norm_factor(const float* x, std::int64_t n, float eps, float* sums) {
  float sum = 0;
  for (std::int64_t i = simt::thread(); i < n; i += row_threads) sum = fmaf(x[i], x[i], sum);
  sum = warp_sum(sum);
  if (simt::thread() % warp_threads == 0) sums[simt::thread() / warp_threads] = sum;
  simt::barrier();
  float total = 0;
  for (int w = 0; w < row_warps; ++w) total += sums[w];
  simt::barrier();
  return 1.0F / sqrtf(total / static_cast<float>(n) + eps);
}

/// Element i of a row, in a group of 32 that a warp has, as a signed byte; and the group's scale and sum.
__device__ __forceinline__ void prepare_integer(std::int64_t i, float x, std::int8_t* to, float* groups) {
  const ActivationScale s = activation_scale(warp_max(magnitude(x)));
  const std::int32_t q = to_byte(x, s.inverse), sum = warp_sum(q);
  to[i] = static_cast<std::int8_t>(q);
  if (i % group_inputs != 0) return;
  groups[i / group_inputs * 2] = s.scale;
  groups[i / group_inputs * 2 + 1] = static_cast<float>(sum);
}

/// Row r of what Prepare says, to `to` and `groups`: those of this row, in any memory.
__device__ __forceinline__ void prepare_row(const Prepare& p, std::int64_t r, float* sums, void* to, float* groups) {
  const std::int64_t t = row_of(p.chosen, r), n = p.x.n, stride = input_stride(p.format, n);
  const float* x = row(p.x, t);
  const bool normed = p.scales.shared != nullptr;
  const float* scale = normed ? scale_of(p.scales, t, n) : nullptr;
  const float factor = normed ? norm_factor(x, n, p.eps, sums) : 1.0F;
  for (std::int64_t i = simt::thread(); i < stride; i += row_threads) {  // whole warps
    const float v = i >= n ? 0.0F : normed ? x[i] * factor * scale[i] : x[i];
    if (is_integer(p.format)) {
      prepare_integer(i, v, static_cast<std::int8_t*>(to), groups);
    } else if (p.format == Format::bf16) {
      static_cast<std::uint16_t*>(to)[i] = to_bf16(v);
    } else {
      static_cast<float*>(to)[i] = v;
    }
  }
}

}  // namespace finteam::cuda_v0_1::kernels
