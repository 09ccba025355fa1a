// What is done to each number by itself, a thread for each: fill, copy, embeddings, biases, caps, gates, angles,
// rotation, and what a product of many rows leaves to do. Bound by the bytes that it moves, a few for each of a step's
// rows. Not here: what needs a row's sum (norm.cu).
#include "numbers.cuh"

#include <algorithm>

namespace finteam::cuda_v0_1::kernels {
namespace {

inline constexpr int block_threads = 256;

/// f(row, column) for every element of rows · columns, a thread each; blocks (column blocks, rows in turn).
template <class F>
__device__ __forceinline__ void each(std::int64_t rows, std::int64_t columns, F&& f) {
  const std::int64_t column = static_cast<std::int64_t>(simt::block_x()) * block_threads + simt::thread();
  if (column >= columns) return;
  for (std::int64_t r = simt::block_y(); r < rows; r += simt::blocks_y()) f(r, column);
}
template <class Args>
Status launch_each(void (*kernel)(Args), Context* context, std::int64_t rows, std::int64_t columns, const Args& args) {
  if (rows == 0 || columns == 0) return {};
  const dim3 grid{static_cast<unsigned>((columns + block_threads - 1) / block_threads),
                  static_cast<unsigned>(std::min<std::int64_t>(rows, 65535)), 1};
  return launch(kernel, grid, block_threads, 0, stream_of(context), args);
}

__global__ void fill(Fill p) {
  simt::begin();
  each(p.y.count, p.y.n, [&](std::int64_t r, std::int64_t i) { row(p.y, r)[i] = p.value; });
}

__global__ void copy(Copy p) {
  simt::begin();
  each(p.y.count, p.y.n, [&](std::int64_t r, std::int64_t i) { row(p.y, r)[i] = row(p.x, r)[i]; });
}

__global__ void embed(Embed p) {
  simt::begin();
  const MatrixLayout w(p.w);
  each(p.chosen.count, p.w.k, [&](std::int64_t r, std::int64_t i) {
    row(p.y, row_of(p.chosen, r))[i] = factor_of(p.chosen, r) * element(w, p.w.data, p.tokens[r], i);
  });
}

__global__ void add_bias(AddBias p) {
  simt::begin();
  each(p.chosen.count, p.y.n, [&](std::int64_t r, std::int64_t i) {
    float& y = row(p.y, row_of(p.chosen, r))[i];
    y = fmaf(factor_of(p.chosen, r), p.bias[i], y);
  });
}

__global__ void soft_cap(SoftCap p) {
  simt::begin();
  each(p.chosen.count, p.y.n, [&](std::int64_t r, std::int64_t i) {
    float& y = row(p.y, row_of(p.chosen, r))[i];
    y = capped(y, p.cap);
  });
}

__global__ void gated_rows(Gated p) {
  simt::begin();
  each(p.y.count, p.y.n,
       [&](std::int64_t r, std::int64_t i) { row(p.y, r)[i] = gated(p.curve, row(p.gate, r)[i], row(p.up, r)[i]); });
}

/// Eight inputs of a row, which share their scale: a word or two of the matrix, 16 bytes of the result.
__device__ __forceinline__ Words widened(const Widen& p, const MatrixLayout& w, std::int64_t r, std::int64_t j) {
  const bool bytes = w.format == Format::int8;
  const auto low = at<std::uint32_t>(p.w.data, w.place(r, j).byte);
  const std::uint32_t high = bytes ? at<std::uint32_t>(p.w.data, w.place(r, j + 4).byte) : low >> 4;
  const std::int64_t at_scale = w.scale(r, j);
  const float scale = from_bf16(at<std::uint16_t>(p.w.data, at_scale));
  const float zero = w.format == Format::int4_zero ? from_bf16(at<std::uint16_t>(p.w.data, at_scale + 128)) : 8.0F;
  float x[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const auto byte = static_cast<std::uint8_t>((i < 4 ? low : high) >> i % 4 * 8);
    const float q = bytes ? static_cast<float>(static_cast<std::int8_t>(byte)) : static_cast<float>(byte & 15) - zero;
    x[i] = j + i < p.w.k ? scale * q : 0.0F;
  }
  return {to_bf16_pair(x[0], x[1]), to_bf16_pair(x[2], x[3]), to_bf16_pair(x[4], x[5]), to_bf16_pair(x[6], x[7])};
}
__global__ void widen(Widen p) {
  simt::begin();
  const MatrixLayout w(p.w);
  each(w.rows(), w.stride() / 8, [&](std::int64_t r, std::int64_t piece) {
    put(p.to, (r * w.stride() + piece * 8) * 2, widened(p, w, r, piece * 8));
  });
}

/// Output i of row r of a product, out of what the product gave.
__device__ __forceinline__ void finish_one(const Finish& p, std::int64_t r, std::int64_t i) {
  const Multiply& m = p.product;
  const float* z = p.z + r * p.stride;
  float* y = row(m.y, row_of(m.chosen, r));
  if (m.gated != 0) {
    const float* plus = m.plus.data == nullptr ? nullptr : row(m.plus, r);
    const float gate = z[i / 8 * 16 + i % 8], up = z[i / 8 * 16 + 8 + i % 8];
    y[i] = plus == nullptr ? gated(m.gate, gate, up) : gated(m.gate, gate + plus[i], up + plus[m.w.n + i]);
  } else {
    const float factor = factor_of(m.chosen, r);
    y[i] = m.accumulate != 0 ? fmaf(factor, z[i], y[i]) : factor * z[i];
  }
}
__global__ void finish(Finish p) {
  simt::begin();
  each(p.product.chosen.count, p.product.w.n, [&](std::int64_t r, std::int64_t i) { finish_one(p, r, i); });
}

/// Slots in their order, whatever other rows chose.
__global__ void add_routed(AddRouted p) {
  simt::begin();
  each(p.y.count, p.y.n, [&](std::int64_t r, std::int64_t i) {
    float sum = row(p.y, r)[i];
    for (std::int64_t pair = r * p.routes.top_k; pair < (r + 1) * p.routes.top_k; ++pair) {
      const std::int32_t expert = p.routes.expert[pair];
      if (expert < 0) break;
      const float z = row(p.z, pair)[i];
      sum = fmaf(p.routes.weight[pair], p.experts.bias == nullptr ? z : z + p.experts.bias[expert][i], sum);
    }
    row(p.y, r)[i] = sum;
  });
}

__global__ void angles(Angles p) {
  simt::begin();
  each(p.sites.count, p.cosine.n, [&](std::int64_t t, std::int64_t i) {
    const bool is_long = p.long_frequency != nullptr && p.sites.is_long[t] != 0;
    const float frequency = (is_long ? p.long_frequency : p.frequency)[i];
    const auto angle = static_cast<double>(static_cast<float>(p.sites.position[t]) * frequency);
    row(p.cosine, t)[i] = static_cast<float>(static_cast<double>(p.factor) * cos(angle));
    row(p.sine, t)[i] = static_cast<float>(static_cast<double>(p.factor) * sin(angle));
  });
}

__global__ void rope(Rope p) {
  simt::begin();
  const std::int64_t half = p.cosine.n;
  each(p.x.rows, p.x.heads * half, [&](std::int64_t t, std::int64_t i) {
    float* head = p.x.data + t * p.x.row_stride + i / half * p.x.head_stride;
    const std::int64_t j = i % half;
    const float c = row(p.cosine, t)[j], s = row(p.sine, t)[j], a = head[j], b = head[j + half];
    head[j] = fmaf(-b, s, a * c);
    head[j + half] = fmaf(a, s, b * c);
  });
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const Fill& p) noexcept { return kernels::launch_each(kernels::fill, c, p.y.count, p.y.n, p); }
Status run(Context* c, const Copy& p) noexcept { return kernels::launch_each(kernels::copy, c, p.y.count, p.y.n, p); }
Status run(Context* c, const Embed& p) noexcept {
  return kernels::launch_each(kernels::embed, c, p.chosen.count, p.w.k, p);
}
Status run(Context* c, const AddBias& p) noexcept {
  return kernels::launch_each(kernels::add_bias, c, p.chosen.count, p.y.n, p);
}
Status run(Context* c, const SoftCap& p) noexcept {
  return kernels::launch_each(kernels::soft_cap, c, p.chosen.count, p.y.n, p);
}
Status run(Context* c, const Gated& p) noexcept {
  return kernels::launch_each(kernels::gated_rows, c, p.y.count, p.y.n, p);
}
Status run(Context* c, const Widen& p) noexcept {
  const MatrixLayout w(p.w);
  return kernels::launch_each(kernels::widen, c, w.rows(), w.stride() / 8, p);
}
Status run(Context* c, const Finish& p) noexcept {
  return kernels::launch_each(kernels::finish, c, p.product.chosen.count, p.product.w.n, p);
}
Status run(Context* c, const AddRouted& p) noexcept {
  return kernels::launch_each(kernels::add_routed, c, p.y.count, p.y.n, p);
}
Status run(Context* c, const Angles& p) noexcept {
  return kernels::launch_each(kernels::angles, c, p.sites.count, p.cosine.n, p);
}
Status run(Context* c, const Rope& p) noexcept {
  return kernels::launch_each(kernels::rope, c, p.x.rows, p.x.heads * p.cosine.n, p);
}

}  // namespace finteam::cuda_v0_1
