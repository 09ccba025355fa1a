// Kernels that need a row's sum: RMS norms, and the rows of a product in the form that a matrix's format reads. A block
// for each row, which it reads twice (the second time out of a cache). Bound by bytes, few of them.
#include "norm.cuh"

namespace finteam::cuda_v0_1::kernels {
namespace {

__global__ void norm(Norm p) {
  simt::begin();
  const std::int64_t r = simt::block_x(), t = r / p.heads, head = r % p.heads;
  const float* x = row(p.x, t) + head * p.x.n;
  float* y = row(p.y, t) + head * p.y.n;
  const float* scale = scale_of(p.scales, t, p.x.n);
  const float factor = norm_factor(x, p.x.n, p.eps, reinterpret_cast<float*>(simt::shared()));
  for (std::int64_t i = simt::thread(); i < p.x.n; i += row_threads) {
    const float normed = x[i] * factor * scale[i];
    y[i] = p.accumulate != 0 ? y[i] + normed : normed;
  }
}

__global__ void prepare(Prepare p) {
  simt::begin();
  const std::int64_t r = simt::block_x();
  auto* const to = static_cast<std::byte*>(p.to) + r * input_bytes(p.format, p.x.n);
  prepare_row(p, r, reinterpret_cast<float*>(simt::shared()), to, p.groups + r * input_groups(p.x.n));
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const Norm& p) noexcept {
  if (p.x.count == 0) return {};
  return kernels::launch(kernels::norm, {static_cast<unsigned>(p.x.count) * static_cast<unsigned>(p.heads), 1, 1},
                         kernels::row_threads, kernels::row_warps * sizeof(float), stream_of(c), p);
}
Status run(Context* c, const Prepare& p) noexcept {
  if (p.chosen.count == 0) return {};
  return kernels::launch(kernels::prepare, {static_cast<unsigned>(p.chosen.count), 1, 1}, kernels::row_threads,
                         kernels::row_warps * sizeof(float), stream_of(c), p);
}

}  // namespace finteam::cuda_v0_1
