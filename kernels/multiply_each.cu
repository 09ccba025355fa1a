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

/// Where a lane's sums of eight rows belong: two rows, or null, and what they count. Its outputs are lane / 4 and the
/// one eight further of a tile.
struct Target {
  float* y[2];
  float factor[2];
};
__device__ __forceinline__ Target target(const Multiply& p, int first, std::int64_t output) {
  Target t{};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = first + simt::thread() % 4 * 2 + i;
    if (r >= p.chosen.count) break;
    t.y[i] = row(p.y, row_of(p.chosen, r)) + output;
    t.factor[i] = factor_of(p.chosen, r);
  }
  return t;
}

/// The sums of the rows for one tile; weights: the lane's part of it, next: its first piece.
template <int groups>
__device__ __forceinline__ void sum_narrow(float (&total)[groups][4], const Multiply& p, const std::uint16_t* weights,
                                           Piece next, const std::uint16_t* all, int first) {
  const int stride = static_cast<int>(MatrixLayout(p.w).stride());
  const auto input_stride = cuda_v0_1::input_stride(Format::bf16, p.input_k);
  const std::uint16_t* inputs[groups];
#pragma unroll
  for (int g = 0; g < groups; ++g) inputs[g] = all + (first + given_row(p.chosen.count - first, g)) * input_stride;
  for (int j = 0; j < stride; j += piece_inputs) {
    const Piece a = next;
    next = load_piece(weights, stride, j + piece_inputs);
    float sum[groups][4] = {};
    add_piece<groups>(sum, a, inputs, j, stride, p.w.k, p.first == 0 && p.input_k == p.w.k);
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
  Target to[groups];
#pragma unroll
  for (int g = 0; g < groups; ++g) to[g] = target(p, first + g * 8, output);
  const auto each_sum = [&](auto&& f) {
#pragma unroll
    for (int g = 0; g < groups; ++g) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool is_output = some && to[g].y[i % 2] != nullptr && output + i / 2 * 8 < p.w.n;
        if (is_output) f(g, i, to[g].y[i % 2][i / 2 * 8]);
      }
    }
  };
  simt::let_next_begin();
  simt::wait_for_earlier();
  float before[groups][4] = {}, total[groups][4] = {};
  if (p.accumulate != 0) each_sum([&](int g, int i, const float& y) { before[g][i] = y; });
  const auto* inputs =
      reinterpret_cast<const std::uint16_t*>(inputs_of<Format::bf16, groups>(p, OwnRow{}).rows) + p.first;
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
