// Several products of a few rows in one launch: what experts add to a shared layer. Each by itself is so little work
// that a launch of its own would cost more.
//
// blockIdx.z finds its product in a list; the rest is the code of a product alone (multiply.cuh), so its bits are those
// that it has alone. The list was told: it is there before the step's first kernel, as weights are, so that blocks load
// weights before what came earlier has ended.
//
// What limits such a launch is not bytes but how often one thing waits for another. So a block loads several pieces
// ahead of those that it multiplies; and of matrices of few inputs, the second of a low-rank pair, each warp has a tile
// of its own, without a barrier, whose pieces it sums up in the order of the warps that would have had them.
#include "multiply.cuh"

namespace finteam::cuda_v0_1::kernels {
namespace {

inline constexpr int pieces_ahead = 4;

/// f(product) of the block, if it has rows and outputs from the block's first on.
template <class F>
__device__ __forceinline__ void with_product(const MultiplyEach& p, int block_rows, int block_outputs, F&& f) {
  const Multiply& product = p.products[simt::block_z()];
  if (simt::block_y() * block_rows >= product.chosen.count) return;
  if (simt::block_x() * block_outputs < product.w.n) f(product);
}
template <int groups>
__global__ void __launch_bounds__(block_threads, 1) each_bf16(MultiplyEach p) {
  with_product(p, groups * 8, tile_outputs,
               [](const Multiply& q) { multiply_bf16_rows<groups, pieces_ahead>(q, OwnRow{}); });
}
template <Format format, int groups>
__global__ void __launch_bounds__(block_threads, 1) each_integers(MultiplyEach p) {
  with_product(p, groups * 8, tile_outputs,
               [](const Multiply& q) { multiply_integer_rows<format, groups, pieces_ahead>(q, OwnRow{}); });
}
template <bool is_f32>
__global__ void __launch_bounds__(block_threads, 1) each_wide(MultiplyEach p) {
  with_product(p, wide_rows, block_warps, [](const Multiply& q) {
    simt::begin();
    multiply_wide_rows<is_f32>(q, OwnRow{});
  });
}

/// Whether no warp of a block would have two pieces of a tile, and one of them none.
[[nodiscard]] constexpr bool is_narrow(std::int64_t k) noexcept { return k <= (block_warps - 1) * piece_inputs; }

/// The two rows of the step that a lane has sums of, of eight, or -1, and what they count.
struct Targets {
  std::int32_t row[2];
  float factor[2];
};
__device__ __forceinline__ Targets targets(const Chosen& chosen, int first) {
  Targets t{{-1, -1}, {}};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = first + simt::thread() % 4 * 2 + i;
    if (r >= chosen.count) break;
    t.row[i] = static_cast<std::int32_t>(row_of(chosen, r));
    t.factor[i] = factor_of(chosen, r);
  }
  return t;
}

/// The sums of the rows for one tile; weights: the lane's part of it, piece: the first one.
template <int groups>
__device__ __forceinline__ void sum_narrow(float (&total)[groups][4], const Multiply& p, const std::uint16_t* weights,
                                           Piece piece, const std::uint16_t* all, int first) {
  const int stride = static_cast<int>(MatrixLayout(p.w).stride());
  const auto input_stride = cuda_v0_1::input_stride(Format::bf16, p.input_k);
  const std::uint16_t* inputs[groups];
#pragma unroll
  for (int g = 0; g < groups; ++g) inputs[g] = all + (first + given_row(p.chosen.count - first, g)) * input_stride;
  for (int j = 0; j < stride; j += piece_inputs) {
    if (j != 0) piece = load_piece(weights, stride, j);
    float sum[groups][4] = {};
    add_piece<groups>(sum, piece, inputs, j, stride, p.w.k, p.first == 0 && p.input_k == p.w.k);
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      for (int i = 0; i < 4; ++i) total[g][i] += sum[g][i];
    }
  }
}

template <int groups>
__device__ __forceinline__ void multiply_narrow_rows(const Multiply& p) {
  const MatrixLayout layout(p.w);
  const int lane = simt::thread() % warp_threads, first = simt::block_y() * groups * 8;
  const std::int64_t tile = std::int64_t{simt::block_x()} * block_warps + simt::thread() / warp_threads;
  const std::int64_t output = tile * tile_outputs + lane / 4;
  const bool some = tile < layout.tiles();
  const auto* weights = static_cast<const std::uint16_t*>(p.w.data) + output * layout.stride() + lane % 4 * 8;

  const Piece piece = some ? load_piece(weights, static_cast<int>(layout.stride()), 0) : Piece{};
  Targets to[groups];
#pragma unroll
  for (int g = 0; g < groups; ++g) to[g] = targets(p.chosen, first + g * 8);
  const auto each_sum = [&](auto&& f) {
#pragma unroll
    for (int g = 0; g < groups; ++g) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::int32_t r = to[g].row[i % 2];
        if (some && r >= 0 && output + i / 2 * 8 < p.w.n) f(g, i, row(p.y, r)[output + i / 2 * 8]);
      }
    }
  };
  simt::let_next_begin();
  simt::wait_for_earlier();
  const auto* inputs =
      reinterpret_cast<const std::uint16_t*>(inputs_of<Format::bf16, groups>(p, OwnRow{}).rows) + p.first;
  float before[groups][4] = {}, total[groups][4] = {};
  if (p.accumulate != 0) each_sum([&](int g, int i, const float& y) { before[g][i] = y; });
  if (some) sum_narrow<groups>(total, p, weights, piece, inputs, first);
  each_sum([&](int g, int i, float& y) {
    const float factor = to[g].factor[i % 2];
    y = p.accumulate != 0 ? fmaf(factor, total[g][i], before[g][i]) : factor * total[g][i];
  });
}
template <int groups>
__global__ void __launch_bounds__(block_threads, groups == 1 ? 3 : 1) each_narrow(MultiplyEach p) {
  with_product(p, groups * 8, block_warps * tile_outputs, [](const Multiply& q) { multiply_narrow_rows<groups>(q); });
}

MatrixLayout greatest(const MultiplyEach& p) { return {p.format, p.n, p.k, false}; }

template <int groups>
Status launch_each(void (*kernel)(MultiplyEach), const Context* c, const MultiplyEach& p) {
  return launch_tiles<groups>(kernel, c, p, greatest(p), p.rows, p.count, p.prologue);
}
template <int groups>
Status launch_narrow(const Context* c, const MultiplyEach& p) {
  const auto blocks = static_cast<unsigned>((greatest(p).tiles() + block_warps - 1) / block_warps);
  const auto passes = static_cast<unsigned>((p.rows + groups * 8 - 1) / (groups * 8));
  return launch(each_narrow<groups>, {blocks, passes, static_cast<unsigned>(p.count)}, block_threads,
                static_cast<std::size_t>(sums_bytes<groups> + p.prologue), stream_of(c), p);
}
Status launch_wide(void (*kernel)(MultiplyEach), const Context* c, const MultiplyEach& p) {
  return launch(kernel, wide_grid(p.n, p.rows, p.count), block_threads, 0, stream_of(c), p);
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const MultiplyEach& p) noexcept {
  using namespace kernels;
  switch (p.format) {
    case Format::f32: return launch_wide(each_wide<true>, c, p);
    case Format::bf16_wide: return launch_wide(each_wide<false>, c, p);
    case Format::bf16:
      return by_rows(p.rows, [&]<int groups>() {
        return is_narrow(p.k) ? launch_narrow<groups>(c, p) : launch_each<groups>(each_bf16<groups>, c, p);
      });
    case Format::int1:
      return by_rows(p.rows,
                     [&]<int groups>() { return launch_each<groups>(each_integers<Format::int1, groups>, c, p); });
    case Format::int2:
      return by_rows(p.rows,
                     [&]<int groups>() { return launch_each<groups>(each_integers<Format::int2, groups>, c, p); });
    default: return {1, "a format that products do not share a launch in"};
  }
}

}  // namespace finteam::cuda_v0_1
