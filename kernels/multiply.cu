// Products of a few rows by one matrix (multiply.cuh has their sums), and by those of experts behind a router.
//
// Rows behind a router meet several matrices in one launch: blockIdx.z is one of the experts that somebody chose, whose
// rows are gathered where they lie. The rest is the same code, so a row's bits are those of a product by that expert.
#include "multiply.cuh"

namespace finteam::cuda_v0_1::kernels {
namespace {

/// So that two blocks have 64 KB in flight, and registers for both; with many rows there are fewer left.
template <int groups>
[[nodiscard]] constexpr int pieces_ahead(Format format) {
  if (groups > 1) return format == Format::bf16 ? 2 : 1;
  return format == Format::int8 ? 2 : is_integer(format) && !is_delta(format) ? 3 : 4;
}

template <int groups>
__global__ void __launch_bounds__(block_threads, 1) multiply_bf16(Multiply p) {
  multiply_bf16_rows<groups, pieces_ahead<groups>(Format::bf16)>(p, OwnRow{});
}
template <Format format, int groups>
__global__ void __launch_bounds__(block_threads, 1) multiply_integers(Multiply p) {
  multiply_integer_rows<format, groups, pieces_ahead<groups>(format)>(p, OwnRow{});
}
template <bool is_f32>
__global__ void __launch_bounds__(block_threads, 1) multiply_wide(Multiply p) {
  simt::begin();
  multiply_wide_rows<is_f32>(p, OwnRow{});
}

/// f(product, its rows of the input) for the expert that a block has, if it has rows from the block's first on.
template <class F>
__device__ __forceinline__ void with_expert(const MultiplyRouted& p, int block_rows, F&& f) {
  simt::begin();
  const std::int32_t expert = p.routes.groups[2 * simt::block_z()], count = p.routes.groups[2 * simt::block_z() + 1];
  if (simt::block_y() * block_rows >= count) return;
  Multiply product = p.product;
  product.w.data = p.experts.data[expert];
  product.chosen = {p.routes.pairs + std::int64_t{simt::block_z()} * p.routes.rows, nullptr, 1, count};
  if (p.product.gated != 0 && p.experts.bias != nullptr) {
    product.plus = {const_cast<float*>(p.experts.bias[expert]), 0, count, 2 * product.w.n};
  }
  f(product, RowOfPair{product.chosen.rows, p.pairs_each});
}
template <int groups>
__global__ void __launch_bounds__(block_threads, 1) routed_bf16(MultiplyRouted p) {
  with_expert(p, groups * 8, [](const Multiply& q, RowOfPair of) {
    multiply_bf16_rows<groups, pieces_ahead<groups>(Format::bf16)>(q, of);
  });
}
template <Format format, int groups>
__global__ void __launch_bounds__(block_threads, 1) routed_integers(MultiplyRouted p) {
  with_expert(p, groups * 8, [](const Multiply& q, RowOfPair of) {
    multiply_integer_rows<format, groups, pieces_ahead<groups>(format)>(q, of);
  });
}
template <bool is_f32>
__global__ void __launch_bounds__(block_threads, 1) routed_wide(MultiplyRouted p) {
  with_expert(p, wide_rows, [](const Multiply& q, RowOfPair of) { multiply_wide_rows<is_f32>(q, of); });
}

template <Format format>
Status multiply_by_integers(const Context* c, const Multiply& p) {
  return by_rows(p.chosen.count, [&]<int groups>() {
    return launch_tiles<groups>(multiply_integers<format, groups>, c, p, MatrixLayout(p.w), p.chosen.count, 1,
                                prologue_bytes(p, p.chosen.count));
  });
}
Status multiply_wide_by(void (*kernel)(Multiply), const Context* c, const Multiply& p) {
  return launch(kernel, wide_grid(p.w.n, p.chosen.count, 1), block_threads, 0, stream_of(c), p);
}

/// Rows that an expert may well have: twice its share of them all. More take another pass.
std::int32_t likely_rows(const Routes& r) {
  return std::min(r.rows, 2 * ((r.rows * r.top_k + r.experts - 1) / r.experts));
}
template <Format format>
Status route_by_integers(const Context* c, const MultiplyRouted& p) {
  return by_rows(likely_rows(p.routes), [&]<int groups>() {
    return launch_tiles<groups>(routed_integers<format, groups>, c, p, MatrixLayout(p.product.w), p.routes.rows,
                                p.routes.group_count(), prologue_bytes(p.product, p.routes.rows));
  });
}
Status route_wide_by(void (*kernel)(MultiplyRouted), const Context* c, const MultiplyRouted& p) {
  return launch(kernel, wide_grid(p.product.w.n, p.routes.rows, p.routes.group_count()), block_threads, 0, stream_of(c),
                p);
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const Multiply& p) noexcept {
  if (p.chosen.count == 0 || p.w.n == 0) return {};
  using namespace kernels;
  switch (p.w.format) {
    case Format::f32: return multiply_wide_by(multiply_wide<true>, c, p);
    case Format::bf16_wide: return multiply_wide_by(multiply_wide<false>, c, p);
    case Format::bf16:
      return by_rows(p.chosen.count, [&]<int groups>() {
        return launch_tiles<groups>(multiply_bf16<groups>, c, p, MatrixLayout(p.w), p.chosen.count, 1,
                                    prologue_bytes(p, p.chosen.count));
      });
    case Format::int8: return multiply_by_integers<Format::int8>(c, p);
    case Format::int4: return multiply_by_integers<Format::int4>(c, p);
    case Format::int4_zero: return multiply_by_integers<Format::int4_zero>(c, p);
    case Format::int1: return multiply_by_integers<Format::int1>(c, p);
    case Format::int2: return multiply_by_integers<Format::int2>(c, p);
  }
  return {1, "a format that no kernel multiplies"};
}

Status run(Context* c, const MultiplyRouted& p) noexcept {
  if (p.routes.rows == 0 || p.product.w.n == 0) return {};
  using namespace kernels;
  switch (p.product.w.format) {
    case Format::f32: return route_wide_by(routed_wide<true>, c, p);
    case Format::bf16_wide: return route_wide_by(routed_wide<false>, c, p);
    case Format::bf16:
      return by_rows(likely_rows(p.routes), [&]<int groups>() {
        return launch_tiles<groups>(routed_bf16<groups>, c, p, MatrixLayout(p.product.w), p.routes.rows,
                                    p.routes.group_count(), prologue_bytes(p.product, p.routes.rows));
      });
    case Format::int8: return route_by_integers<Format::int8>(c, p);
    case Format::int4: return route_by_integers<Format::int4>(c, p);
    case Format::int4_zero: return route_by_integers<Format::int4_zero>(c, p);
    default: return {1, "a format that no expert's matrix has"};
  }
}

}  // namespace finteam::cuda_v0_1
