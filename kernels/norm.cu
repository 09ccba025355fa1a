// Kernels that need a row's sum: RMS norms, and the rows of a product in the form that a matrix's format reads. A block
// for each row, which it reads twice (the second time out of a cache). Bound by bytes, few of them.
#include "numbers.cuh"

namespace finteam::cuda_v0_1::kernels {
namespace {

inline constexpr int block_threads = 256, block_warps = block_threads / warp_threads;

/// 1 / sqrt(mean_i x[i]² + eps), the same in every thread and in one order.
__device__ __forceinline__ float norm_factor(const float* x, std::int64_t n, float eps) {
  auto* sums = reinterpret_cast<float*>(simt::shared());
  float sum = 0;
  for (std::int64_t i = simt::thread(); i < n; i += block_threads) sum = fmaf(x[i], x[i], sum);
  sum = warp_sum(sum);
  if (simt::thread() % warp_threads == 0) sums[simt::thread() / warp_threads] = sum;
  simt::barrier();
  float total = 0;
  for (int w = 0; w < block_warps; ++w) total += sums[w];
  simt::barrier();
  return 1.0F / sqrtf(total / static_cast<float>(n) + eps);
}

__global__ void norm(Norm p) {
  simt::begin();
  const std::int64_t r = simt::block_x(), t = r / p.heads, head = r % p.heads;
  const float* x = row(p.x, t) + head * p.x.n;
  float* y = row(p.y, t) + head * p.y.n;
  const float* scale = scale_of(p.scales, t, p.x.n);
  const float factor = norm_factor(x, p.x.n, p.eps);
  for (std::int64_t i = simt::thread(); i < p.x.n; i += block_threads) {
    const float normed = x[i] * factor * scale[i];
    y[i] = p.accumulate != 0 ? y[i] + normed : normed;
  }
}

/// A group of 32 as signed bytes, by a warp: a lane each.
__device__ __forceinline__ void prepare_group(const Prepare& p, std::int64_t r, std::int64_t group, float x) {
  const std::int64_t lane = simt::thread() % warp_threads;
  const ActivationScale s = activation_scale(warp_max(magnitude(x)));
  const std::int32_t q = to_byte(x, s.inverse), sum = warp_sum(q);
  static_cast<std::int8_t*>(p.to)[r * input_stride(p.format, p.x.n) + group * group_inputs + lane] =
      static_cast<std::int8_t>(q);
  if (lane != 0) return;
  float* to = p.groups + r * input_groups(p.x.n) + group * 2;
  to[0] = s.scale;
  to[1] = static_cast<float>(sum);
}

__global__ void prepare(Prepare p) {
  simt::begin();
  const std::int64_t r = simt::block_x(), t = row_of(p.chosen, r), n = p.x.n, stride = input_stride(p.format, n);
  const float* x = row(p.x, t);
  const bool normed = p.scales.shared != nullptr;
  const float* scale = normed ? scale_of(p.scales, t, n) : nullptr;
  const float factor = normed ? norm_factor(x, n, p.eps) : 1.0F;
  for (std::int64_t i = simt::thread(); i < stride; i += block_threads) {  // whole warps
    const float v = i >= n ? 0.0F : normed ? x[i] * factor * scale[i] : x[i];
    if (is_integer(p.format)) {
      prepare_group(p, r, i / group_inputs, v);
    } else if (p.format == Format::bf16) {
      static_cast<std::uint16_t*>(p.to)[r * stride + i] = to_bf16(v);
    } else {
      static_cast<float*>(p.to)[r * stride + i] = v;
    }
  }
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const Norm& p) noexcept {
  if (p.x.count == 0) return {};
  return kernels::launch(kernels::norm, {static_cast<unsigned>(p.x.count) * static_cast<unsigned>(p.heads), 1, 1},
                         kernels::block_threads, kernels::block_warps * sizeof(float), stream_of(c), p);
}
Status run(Context* c, const Prepare& p) noexcept {
  if (p.chosen.count == 0) return {};
  return kernels::launch(kernels::prepare, {static_cast<unsigned>(p.chosen.count), 1, 1}, kernels::block_threads,
                         kernels::block_warps * sizeof(float), stream_of(c), p);
}

}  // namespace finteam::cuda_v0_1
