// The sums of products of a few rows, the heart of decoding: y[r,i] (+)= factor(r) · Σ_j input[r,j] · w[i,j], up to 32
// rows at once. Not here: the kernels (multiply.cu, multiply_each.cu), which say which product and which rows.
//
// Bound by the bytes of the weights: 3 TB/s of an H100 want about 4 MB in flight, 32 KB for each multiprocessor. A
// block of eight warps streams tiles of 16 outputs; warp w takes the pieces w, w + 8, … of the inputs and has `ahead`
// of them on their way: so many that two blocks have twice that, as far as registers for two blocks go. Tensor cores
// multiply the tile by up to eight rows at the cost of one; more rows read the same weights out of registers. The eight
// sums are added in the warps' order.
//
// Law 3: which warp adds which inputs, and in what order, is fixed by the matrix alone; rows are columns of mma that do
// not meet. So a row's bits are those that it has alone.
//
// Versions: 1 this one; what was measured is in bench/results.
#pragma once

#include "norm.cuh"

#include <algorithm>

namespace finteam::cuda_v0_1::kernels {

inline constexpr int block_warps = 8, block_threads = block_warps * warp_threads;

/// What becomes of output i of row r of the step's product. sum(which): of a pair's first or second.
template <class Sum>
__device__ __forceinline__ void write(const Multiply& p, std::int64_t r, std::int64_t i, Sum&& sum) {
  float* y = row(p.y, row_of(p.chosen, r));
  if (p.gated != 0) {
    const float* plus = p.plus.data == nullptr ? nullptr : row(p.plus, r);
    const float gate = sum(0), up = sum(1);
    y[i] = plus == nullptr ? gated(p.gate, gate, up) : gated(p.gate, gate + plus[i], up + plus[p.w.n + i]);
  } else {
    const float factor = factor_of(p.chosen, r);
    y[i] = p.accumulate != 0 ? fmaf(factor, sum(0), y[i]) : factor * sum(0);
  }
}

/// A block's sums, [8 · groups of rows][16 outputs] of each warp, to the outputs of a tile; first: the first row.
template <int groups>
__device__ __forceinline__ void write_tile(const Multiply& p, std::int64_t tile, std::int64_t first,
                                           const float (&sum)[groups][4]) {
  constexpr int warp_sums = groups * 8 * tile_outputs;
  auto* sums = reinterpret_cast<float*>(simt::shared());
  const int lane = simt::thread() % warp_threads, warp = simt::thread() / warp_threads;
  for (int g = 0; g < groups; ++g) {
    for (int i = 0; i < 4; ++i) {
      const int r = g * 8 + lane % 4 * 2 + i % 2, output = lane / 4 + i / 2 * 8;
      sums[warp * warp_sums + r * tile_outputs + output] = sum[g][i];
    }
  }
  simt::barrier();
  const int outputs = p.w.paired != 0 ? tile_outputs / 2 : tile_outputs;
  const std::int64_t rows = std::int64_t{p.chosen.count} - first;
  for (int at = simt::thread(); at < groups * 8 * outputs; at += block_threads) {
    const int r = at / outputs, output = at % outputs;
    const std::int64_t i = tile * outputs + output;
    if (r >= rows || i >= p.w.n) continue;
    write(p, first + r, i, [&](int which) {
      const float* of_warp = sums + r * tile_outputs + output + which * 8;
      float total = of_warp[0];
      for (int w = 1; w < block_warps; ++w) total += of_warp[w * warp_sums];
      return total;
    });
  }
  simt::barrier();
}

/// Two bf16 of a prepared row, beginning at an even input; those from k on count nothing.
__device__ __forceinline__ std::uint32_t input_pair(const std::uint16_t* x, int j, int k) {
  if (j >= k) return 0;
  const auto pair = at<std::uint32_t>(x + j);
  return j + 1 < k ? pair : pair & 0xFFFFU;
}
/// Eight of them. aligned: x is, to 16 bytes, and what lies beyond k is zero.
__device__ __forceinline__ Words input_words(const std::uint16_t* x, int j, int k, bool aligned) {
  if (aligned) return at<Words>(x + j);
  return {input_pair(x, j, k), input_pair(x, j + 2, k), input_pair(x, j + 4, k), input_pair(x, j + 6, k)};
}

/// Which row of the input row r of a product reads: the same.
struct OwnRow {
  __device__ __forceinline__ int operator()(int r) const { return r; }
};
/// That of a pair of a row and an expert.
struct RowOfPair {
  const std::int32_t* pairs;
  int pairs_each;
  __device__ __forceinline__ int operator()(int r) const { return pairs[r] / pairs_each; }
};

/// The row that a lane gives to column lane / 4 of mma, or the last one: what becomes of it is not written.
__device__ __forceinline__ int given_row(int rows, int g) {
  const int r = g * 8 + simt::thread() % warp_threads / 4;
  return r < rows ? r : rows - 1;
}

/// Rows in the form that a product reads them, and, of integers, the scales and sums of their groups.
struct Inputs {
  const std::byte* rows;
  const float* groups;
};

/// Bytes of shared memory before the rows that a block prepares: its sums, and those of norms.
template <int groups>
constexpr int sums_bytes = (block_warps * groups * 8 * tile_outputs + row_warps) * static_cast<int>(sizeof(float));
/// And of so many such rows.
[[nodiscard]] constexpr std::int64_t prologue_bytes(const Multiply& p, int rows) noexcept {
  return p.input != nullptr ? 0 : rows * prepared_bytes(p.prologue.format, p.input_k);
}

/// The inputs of a product, in a format; without any in memory, those of its rows, prepared in shared memory.
template <Format format, int groups, class InputRow>
__device__ __forceinline__ Inputs inputs_of(const Multiply& p, InputRow input_row) {
  const std::int64_t bytes = input_bytes(format, p.input_k), of_groups = input_groups(p.input_k);
  if (p.input != nullptr) return {static_cast<const std::byte*>(p.input), p.groups};
  std::byte* const room = simt::shared() + sums_bytes<groups>;
  auto* const group_room = reinterpret_cast<float*>(room + p.chosen.count * bytes);
  auto* const sums = reinterpret_cast<float*>(room) - row_warps;
  Prepare prologue = p.prologue;
  prologue.format = format;
  for (int r = 0; r < p.chosen.count; ++r) {
    prepare_row(prologue, input_row(r), sums, room + r * bytes, group_room + r * of_groups);
  }
  simt::barrier();
  return {room, group_room};
}

/// Which of them row r of the product reads.
template <class InputRow>
__device__ __forceinline__ int place_of(const Multiply& p, int r, InputRow input_row) {
  return p.input != nullptr ? input_row(r) : r;
}

/// A lane's part of 16 outputs of 64 inputs: of row lane / 4 and of the row eight further, 8 of every 32 inputs.
struct Piece {
  Words low[2], high[2];
};
inline constexpr int piece_inputs = 64;

__device__ __forceinline__ Piece load_piece(const std::uint16_t* w, int stride, int j) {
  Piece a{};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int from = j + half * 32;
    if (from >= stride) break;
    a.low[half] = simt::stream(w + from);
    a.high[half] = simt::stream(w + from + 8 * stride);
  }
  return a;
}

/// sum += a piece of the weights, from input j on, times those of the rows.
template <int groups>
__device__ __forceinline__ void add_piece(float (&sum)[groups][4], const Piece& a,
                                          const std::uint16_t* const (&inputs)[groups], int j, int stride, int k,
                                          bool aligned) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int from = j + half * 32 + simt::thread() % 4 * 8;
    if (from >= stride) break;
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      const Words b = input_words(inputs[g], from, k, aligned);
      simt::mma_bf16(sum[g], a.low[half].x, a.high[half].x, a.low[half].y, a.high[half].y, b.x, b.y);
      simt::mma_bf16(sum[g], a.low[half].z, a.high[half].z, a.low[half].w, a.high[half].w, b.z, b.w);
    }
  }
}

template <int groups, int ahead, class InputRow>
__device__ __forceinline__ void multiply_bf16_rows(const Multiply& p, InputRow input_row) {
  const MatrixLayout layout(p.w);
  const int lane = simt::thread() % warp_threads, warp = simt::thread() / warp_threads;
  const int stride = static_cast<int>(layout.stride()), tiles = static_cast<int>(layout.tiles());
  const int mine = lane % 4 * 8, begin = warp * piece_inputs, step = block_warps * piece_inputs;
  const int first = simt::block_y() * groups * 8, rows = p.chosen.count - first;
  const auto weights_of = [&](int tile) {
    return static_cast<const std::uint16_t*>(p.w.data) + (std::int64_t{tile} * tile_outputs + lane / 4) * stride + mine;
  };
  const bool aligned = p.first == 0 && p.input_k == p.w.k;
  const int input_stride = static_cast<int>(cuda_v0_1::input_stride(Format::bf16, p.input_k));

  Piece next[ahead];
#pragma unroll
  for (int i = 0; i < ahead; ++i) next[i] = load_piece(weights_of(simt::block_x()), stride, begin + i * step);
  simt::let_next_begin();
  simt::wait_for_earlier();
  const auto* all =
      reinterpret_cast<const std::uint16_t*>(inputs_of<Format::bf16, groups>(p, input_row).rows) + p.first;
  const std::uint16_t* inputs[groups];
#pragma unroll
  for (int g = 0; g < groups; ++g) {
    inputs[g] = all + std::int64_t{place_of(p, first + given_row(rows, g), input_row)} * input_stride;
  }
  for (int tile = simt::block_x(); tile < tiles; tile += simt::blocks_x()) {
    float sum[groups][4] = {};
    for (int from = begin; from < stride; from += ahead * step) {
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        const int j = from + i * step;
        if (j >= stride) break;
        add_piece<groups>(sum, next[i], inputs, j, stride, p.w.k, aligned);
        const bool last = j + ahead * step >= stride;
        const int next_tile = last ? tile + simt::blocks_x() : tile;
        if (next_tile < tiles) {
          next[i] = load_piece(weights_of(next_tile), stride, last ? begin + i * step : j + ahead * step);
        }
      }
    }
    write_tile<groups>(p, tile, first, sum);
  }
}

/// A lane's part of 16 outputs of 128 inputs: its words of each group, as mma_int8 takes them, and the scales and zeros
/// of its two rows.
template <Format format>
struct Block {
  static constexpr int loads = format == Format::int8                                  ? 4
                               : format == Format::int4 || format == Format::int4_zero ? 2
                                                                                       : 1;
  Words words[loads];
  Words scales, zeros;
};

template <Format format>
__device__ __forceinline__ Block<format> load_block(const std::byte* block, std::int64_t integer_bytes, int lane) {
  Block<format> b{};
  if constexpr (format == Format::int1) {
    const auto two = at<std::uint64_t>(block + lane * 8);
    b.words[0] = {static_cast<std::uint32_t>(two), static_cast<std::uint32_t>(two >> 32), 0, 0};
  } else {
#pragma unroll
    for (int i = 0; i < Block<format>::loads; ++i) b.words[i] = simt::stream(block + i * 512 + lane * 16);
  }
  if constexpr (!is_delta(format)) b.scales = simt::stream(block + integer_bytes + lane / 4 * 16);
  if constexpr (format == Format::int4_zero) b.zeros = simt::stream(block + integer_bytes + 128 + lane / 4 * 16);
  return b;
}

/// The bytes that a lane gives to mma_int8 for a group: numbers as they are stored, unsigned but in int8.
struct Fragment {
  std::uint32_t x[4];
};
template <Format format>
__host__ __device__ __forceinline__ Fragment fragment(const Words* words, int group) {
  const auto word = [](const Words& w, int i) { return i == 0 ? w.x : i == 1 ? w.y : i == 2 ? w.z : w.w; };
  if constexpr (format == Format::int8) {
    return {{words[group].x, words[group].y, words[group].z, words[group].w}};
  } else if constexpr (format == Format::int2) {
    const std::uint32_t w = word(words[0], group), mask = 0x03030303U;
    return {{w & mask, w >> 2 & mask, w >> 4 & mask, w >> 6 & mask}};
  } else if constexpr (format == Format::int1) {
    const std::uint32_t w = word(words[0], group / 2) >> (group % 2 * 4), mask = 0x01010101U;
    return {{w & mask, w >> 1 & mask, w >> 2 & mask, w >> 3 & mask}};
  } else {
    const std::uint32_t low = word(words[group / 2], group % 2 * 2), high = word(words[group / 2], group % 2 * 2 + 1);
    const std::uint32_t mask = 0x0F0F0F0FU;
    return {{low & mask, high & mask, low >> 4 & mask, high >> 4 & mask}};
  }
}

/// Number `group` of a lane's row lane / 4 (half 0) or the one eight further, out of eight bf16.
__host__ __device__ __forceinline__ float of_group(const Words& w, int half, int group) {
  const std::uint32_t pair = half == 0 ? (group < 2 ? w.x : w.y) : group < 2 ? w.z : w.w;
  return from_bf16(group % 2 == 0 ? pair & 0xFFFFU : pair >> 16);
}

/// What one unit of a stored number is worth, and which of them stands for zero, where the file does not say.
template <Format format>
__host__ __device__ constexpr float zero_of() {
  return format == Format::int8 ? 0.0F : format == Format::int1 ? 0.5F : format == Format::int2 ? 1.5F : 8.0F;
}

/// sum += scale of the activations · (scale of the weights) · Σ (number - zero) · activation, for a group of 32 inputs.
/// of_rows: the scale and the sum of the activations of the lane's two rows are that far behind `scales`.
template <Format format>
__device__ __forceinline__ void add_group(const Block<format>& block, int group, const std::int32_t (&product)[4],
                                          const float* scales, const int (&of_rows)[2], float (&sum)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* of_row = scales + of_rows[i % 2];
    const float zero = format == Format::int4_zero ? of_group(block.zeros, i / 2, group) : zero_of<format>();
    const float units = fmaf(-zero, of_row[1], static_cast<float>(product[i]));
    const float scale = is_delta(format) ? of_row[0] : of_row[0] * of_group(block.scales, i / 2, group);
    sum[i] = fmaf(scale, units, sum[i]);
  }
}

/// The two rows whose sums a lane gets of mma, columns 2 (lane % 4) and the next, or the last one.
template <class InputRow>
__device__ __forceinline__ void find_scales(int (&to)[2], const Multiply& p, int first, int g, int stride,
                                            InputRow input_row) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = first + g * 8 + simt::thread() % 4 * 2 + i;
    to[i] = place_of(p, r < p.chosen.count ? r : p.chosen.count - 1, input_row) * stride;
  }
}

/// sum += a block of the weights, number j of its tile, times the rows.
template <Format format, int groups>
__device__ __forceinline__ void add_block(float (&sum)[groups][4], const Block<format>& block, int j,
                                          const std::byte* const (&inputs)[groups], const float* scales,
                                          const int (&scales_of_rows)[groups][2]) {
#pragma unroll
  for (int group = 0; group < block_inputs / group_inputs; ++group) {
    const Fragment a = fragment<format>(block.words, group);
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      const auto b = at<std::uint64_t>(inputs[g] + j * block_inputs + group * group_inputs);
      std::int32_t product[4];
      simt::mma_int8(product, a.x[0], a.x[1], a.x[2], a.x[3], static_cast<std::uint32_t>(b),
                     static_cast<std::uint32_t>(b >> 32));
      add_group<format>(block, group, product, scales + (j * 4 + group) * 2, scales_of_rows[g], sum[g]);
    }
  }
}

template <Format format, int groups, int ahead, class InputRow>
__device__ __forceinline__ void multiply_integer_rows(const Multiply& p, InputRow input_row) {
  const MatrixLayout layout(format, p.w.n, p.w.k, p.w.paired != 0);
  const int lane = simt::thread() % warp_threads, warp = simt::thread() / warp_threads;
  const int blocks = static_cast<int>(layout.blocks()), tiles = static_cast<int>(layout.tiles());
  constexpr int integer_bytes = tile_outputs * block_inputs * bits_of(format) / 8;
  const int block_bytes = static_cast<int>(layout.block_bytes());
  const int first = simt::block_y() * groups * 8, rows = p.chosen.count - first;
  const auto tile_of = [&](int tile) {
    return static_cast<const std::byte*>(p.w.data) + tile * layout.tile_bytes() + layout.head_bytes();
  };
  const auto load = [&](int tile, int j) {
    return j < blocks ? load_block<format>(tile_of(tile) + j * block_bytes, integer_bytes, lane) : Block<format>{};
  };
  const int stride = static_cast<int>(input_stride(format, p.input_k));
  const int row_groups = static_cast<int>(input_groups(p.input_k));

  Block<format> next[ahead];
#pragma unroll
  for (int i = 0; i < ahead; ++i) next[i] = load(simt::block_x(), warp + i * block_warps);
  simt::let_next_begin();
  simt::wait_for_earlier();
  const Inputs all = inputs_of<Format::int8, groups>(p, input_row);
  const std::byte* inputs[groups];
  int scales_of_rows[groups][2];
#pragma unroll
  for (int g = 0; g < groups; ++g) {
    inputs[g] = all.rows + lane % 4 * 8 + std::int64_t{place_of(p, first + given_row(rows, g), input_row)} * stride;
    find_scales(scales_of_rows[g], p, first, g, row_groups, input_row);
  }
  for (int tile = simt::block_x(); tile < tiles; tile += simt::blocks_x()) {
    float sum[groups][4] = {};
    for (int from = warp; from < blocks; from += ahead * block_warps) {
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        const int j = from + i * block_warps;
        if (j >= blocks) break;
        add_block<format, groups>(sum, next[i], j, inputs, all.groups, scales_of_rows);
        const bool last = j + ahead * block_warps >= blocks;
        const int next_tile = last ? tile + simt::blocks_x() : tile;
        if (next_tile < tiles) next[i] = load(next_tile, last ? warp + i * block_warps : j + ahead * block_warps);
      }
    }
    if constexpr (is_delta(format)) {
      const auto* scales = reinterpret_cast<const float*>(tile_of(tile) - layout.head_bytes());
      constexpr float unit = format == Format::int1 ? 2.0F : 1.0F;
      for (int g = 0; g < groups; ++g) {
        for (int i = 0; i < 4; ++i) sum[g][i] *= unit * scales[lane / 4 + i / 2 * 8];
      }
    }
    write_tile<groups>(p, tile, first, sum);
  }
}

inline constexpr int wide_rows = 4;

/// Weights and activations as they are, each sum in float: an output (or a pair's two) for each warp, four rows at
/// once. For the accuracy that goldens are held to, and for matrices that are too small to matter.
template <bool is_f32, class InputRow>
__device__ __forceinline__ void multiply_wide_rows(const Multiply& p, InputRow input_row) {
  constexpr int rows = wide_rows;
  const MatrixLayout layout(p.w);
  const int lane = simt::thread() % warp_threads, warp = simt::thread() / warp_threads;
  const std::int64_t i = std::int64_t{simt::block_x()} * block_warps + warp,
                     first = std::int64_t{simt::block_y()} * rows;
  if (i >= p.w.n) return;
  float sum[2][rows] = {};
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    if (which > 0 && p.w.paired == 0) break;
    const std::int64_t from = layout.row(i, which) * layout.stride();
    for (std::int64_t j = lane; j < p.w.k; j += warp_threads) {
      const float w = is_f32 ? static_cast<const float*>(p.w.data)[from + j]
                             : from_bf16(static_cast<const std::uint16_t*>(p.w.data)[from + j]);
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        if (first + r >= p.chosen.count) break;
        const auto* x = static_cast<const float*>(p.input) + p.first +
                        input_row(static_cast<int>(first) + r) * input_stride(Format::f32, p.input_k);
        sum[which][r] = fmaf(x[j], w, sum[which][r]);
      }
    }
#pragma unroll
    for (int r = 0; r < rows; ++r) sum[which][r] = warp_sum(sum[which][r]);
  }
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    if (lane == r && first + r < p.chosen.count) write(p, first + r, i, [&](int which) { return sum[which][r]; });
  }
}

/// Tiles that a multiprocessor has at once, so that some load while others add up.
inline constexpr int blocks_each = 2;

/// matrices: so many of up to this layout share the multiprocessors, each with up to `rows` rows. prologue: bytes of
/// its rows.
template <int groups, class Command>
Status launch_tiles(void (*kernel)(Command), const Context* context, const Command& p, const MatrixLayout& w, int rows,
                    int matrices, std::int64_t prologue) {
  const auto tiles = static_cast<unsigned>(w.tiles());
  const auto most = static_cast<unsigned>((multiprocessors_of(context) * blocks_each + matrices - 1) / matrices);
  const auto passes = static_cast<unsigned>((rows + groups * 8 - 1) / (groups * 8));
  return launch(kernel, {std::min(tiles, most), passes, static_cast<unsigned>(matrices)}, block_threads,
                static_cast<std::size_t>(sums_bytes<groups> + prologue), stream_of(context), p);
}

/// Blocks of multiply_wide.
inline dim3 wide_grid(int n, int rows, int matrices) {
  return {static_cast<unsigned>((n + block_warps - 1) / block_warps),
          static_cast<unsigned>((rows + wide_rows - 1) / wide_rows), static_cast<unsigned>(matrices)};
}

/// Groups of eight rows that share a pass over the weights: the fewest that hold them, or four.
template <class Launch>
Status by_rows(std::int32_t rows, Launch&& launch_groups) {
  if (rows <= 8) return launch_groups.template operator()<1>();
  if (rows <= 16) return launch_groups.template operator()<2>();
  return launch_groups.template operator()<4>();
}

}  // namespace finteam::cuda_v0_1::kernels
