// Kernels that need a row's sum: RMS norms, and the rows of a product in the form that a matrix's format reads. A block
// for each row, which it reads twice (the second time out of a cache). Bound by bytes, few of them.
#include "norm.cuh"

namespace finteam::cuda_v0_1::kernels {
namespace {

__global__ void norm(Norm p) {
  simt::begin();
  const std::int64_t r = simt::block_x(), t = r / p.heads, head = r % p.heads;
  const Row x(row(p.x, t) + head * p.x.n, p.x.n);
  float* y = row(p.y, t) + head * p.y.n;
  const float factor = norm_factor(x, p.eps, reinterpret_cast<float*>(simt::shared()));
  const Row scale(scale_of(p.scales, t, p.x.n), p.x.n), before(p.accumulate != 0 ? y : x.x, p.x.n);
  each_four({x, scale, before}, p.x.n, [&](std::int64_t i, const Four(&v)[3]) {
    const Four to = normed(v[0], factor, v[1]);
    for (int j = 0; j < 4 && i + j < p.x.n; ++j) y[i + j] = p.accumulate != 0 ? v[2].x[j] + to.x[j] : to.x[j];
  });
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
