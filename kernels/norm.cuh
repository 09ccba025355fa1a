// What a block of 256 threads does with a row: its norm, and the form in which a product reads it. A kernel of its own
// (norm.cu) and the prologue of a product (multiply.cu) give the same bits.
#pragma once

#include "numbers.cuh"

namespace finteam::cuda_v0_1::kernels {

inline constexpr int row_threads = 256, row_warps = row_threads / warp_threads;

/// A thread has four neighbours of a row at a time, and loads so many fours before it looks at any: a row comes at the
/// pace of the memory, not of one load after the other.
inline constexpr int fours = 2;

struct alignas(16) Four {
  float x[4];
};

/// A row of n numbers.
struct Row {
  const float* x;
  std::int64_t n;
  bool aligned;  ///< to 16 bytes, and n to four

  __device__ __forceinline__ Row(const float* first, std::int64_t count)
      : x(first), n(count), aligned(reinterpret_cast<std::uintptr_t>(first) % 16 == 0 && count % 4 == 0) {}

  /// Those from i on; zeros from n on.
  __device__ __forceinline__ Four four(std::int64_t i) const {
    if (aligned && i < n) return at<Four>(x + i);
    Four v{};
#pragma unroll
    for (int j = 0; j < 4; ++j) v.x[j] = i + j < n ? x[i + j] : 0.0F;
    return v;
  }
};

/// f(i, fours) for a thread's fours of the first `count` numbers of rows side by side, i rising; zeros beyond a row's
/// end. All threads of a warp have one where count is a multiple of 128.
template <int rows, class F>
__device__ __forceinline__ void each_four(const Row (&of)[rows], std::int64_t count, F&& f) {
  constexpr int step = 4 * row_threads;
  for (std::int64_t from = simt::thread() * 4; from < count; from += fours * step) {
    Four v[fours][rows];
#pragma unroll
    for (int i = 0; i < fours; ++i) {
#pragma unroll
      for (int r = 0; r < rows; ++r) v[i][r] = of[r].four(from + i * step);
    }
#pragma unroll
    for (int i = 0; i < fours; ++i) {
      if (from + i * step < count) f(from + i * step, v[i]);
    }
  }
}

/// 1 / sqrt(mean_i x[i]² + eps), the same in every thread and in one order. sums: shared, [row_warps].
__device__ __forceinline__ float norm_factor(const Row& row, float eps, float* sums) {
  float sum = 0;
  each_four({row}, row.n, [&](std::int64_t, const Four(&v)[1]) {
#pragma unroll
    for (const float x : v[0].x) sum = fmaf(x, x, sum);
  });
  sum = warp_sum(sum);
  if (simt::thread() % warp_threads == 0) sums[simt::thread() / warp_threads] = sum;
  simt::barrier();
  float total = 0;
  for (int w = 0; w < row_warps; ++w) total += sums[w];
  simt::barrier();
  return 1.0F / sqrtf(total / static_cast<float>(row.n) + eps);
}

/// Numbers i … i + 3 of a row, in a group of 32 that eight lanes have, as signed bytes; and the group's scale and sum.
__device__ __forceinline__ void prepare_integers(std::int64_t i, const Four& v, std::int8_t* to, float* groups) {
  std::uint32_t most = 0;
  for (const float x : v.x) most = magnitude(x) > most ? magnitude(x) : most;
  for (int mask = 1; mask < 8; mask *= 2) {
    const std::uint32_t other = simt::exchange(most, mask);
    most = other > most ? other : most;
  }
  const ActivationScale s = activation_scale(most);
  std::int32_t sum = 0;
  std::uint32_t word = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const std::int32_t q = to_byte(v.x[j], s.inverse);
    sum += q;
    word |= (static_cast<std::uint32_t>(q) & 255U) << (8 * j);
  }
  for (int mask = 1; mask < 8; mask *= 2) sum += simt::exchange(sum, mask);
  put(to, i, word);
  if (i % group_inputs != 0) return;
  groups[i / group_inputs * 2] = s.scale;
  groups[i / group_inputs * 2 + 1] = static_cast<float>(sum);
}

/// Numbers i … i + 3 of a row in that form.
__device__ __forceinline__ void put_prepared(Format format, std::int64_t i, const Four& v, void* to, float* groups) {
  if (is_integer(format)) {
    prepare_integers(i, v, static_cast<std::int8_t*>(to), groups);
  } else if (format == Format::bf16) {
    put(to, 2 * i, to_bf16_pair(v.x[0], v.x[1]) | std::uint64_t{to_bf16_pair(v.x[2], v.x[3])} << 32);
  } else {
    put(to, 4 * i, v);
  }
}

/// x · factor · scale, one by one.
__device__ __forceinline__ Four normed(const Four& x, float factor, const Four& scale) {
  Four y{};
#pragma unroll
  for (int j = 0; j < 4; ++j) y.x[j] = x.x[j] * factor * scale.x[j];
  return y;
}

/// Row r of what Prepare says, to `to` and `groups`: those of this row, in any memory.
__device__ __forceinline__ void prepare_row(const Prepare& p, std::int64_t r, float* sums, void* to, float* groups) {
  const std::int64_t t = row_of(p.chosen, r), n = p.x.n, stride = input_stride(p.format, n);
  const Row x(row(p.x, t), n);
  if (p.scales.shared == nullptr) {
    each_four({x}, stride, [&](std::int64_t i, const Four(&v)[1]) { put_prepared(p.format, i, v[0], to, groups); });
    return;
  }
  const float factor = norm_factor(x, p.eps, sums);
  each_four({x, Row(scale_of(p.scales, t, n), n)}, stride, [&](std::int64_t i, const Four(&v)[2]) {
    put_prepared(p.format, i, normed(v[0], factor, v[1]), to, groups);
  });
}

}  // namespace finteam::cuda_v0_1::kernels
