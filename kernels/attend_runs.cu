// Attention of rows of prompts: tiles of rows against tiles of keys on tensor cores, a running softmax between the two
// products. Not here: rows that are generated, caches of floats, heads wider than 256 (attend.cu).
//
// y[t,h,:] = Σ_p softmax_p(scale · q[t,h,:]·k[p,h',:]) v[p,h',:], as `b.attention` of backend.hpp has it.
//
// Versions. Nothing has been measured yet: what each should reach is arithmetic.
// 1. This one. A block takes 64 rows of a head, a warp 16 of them; scores and sums stay in registers, queries too where
//    there is room. Keys and values come by turns: while scores are made the tile's values arrive, while they are
//    summed up the next tile's keys do. Each warp reads each tile from shared memory for itself: 16 cycles of it for
//    64 of the warp's tensor core (A100), so four warps keep both equally busy. Expected: half of mma.sync's peak.
// 2. Not written: 32 rows for each warp. Half of the reads from shared memory and L2, twice the sums in registers.
// 3. Not written: wgmma and bulk copies, for the half of sm_90's tensor cores that mma.sync does not reach.
//
// Operations: 4 · e for each row, head and position that it sees. Bytes: 8 · e for each row and head, queries in and
// sums out; 4 · e (int8: 2 · e) for each position and head of the cache, keys and values, once from memory, but from L2
// for each head and 64 rows again: 64 operations for each of those bytes (int8: 128).
//
// int8: scores are sums of integers, group by group of 32 elements, exact up to the scales; values become bf16
// integers, exact too, and their scales count in the weights.
//
// Law 3: tiles begin at multiples of 64 positions, whatever the block's rows are, and one that a row does not see
// leaves its state as it is: the greatest score stays, the factor is 2^0 = 1, and what is added is zero times something
// finite. Only the sign of a zero may change by that, so finish() gives every zero the same.
//
// Sources: Milakov & Gimelshein 2018, algorithm 3 (running softmax); Dao 2023, FlashAttention-2 (tiles).
#include "numbers.cuh"

#include <algorithm>
#include <cfloat>

namespace finteam::cuda_v0_1::kernels {
namespace {

constexpr int warps = 4, block_threads = warps * warp_threads;
constexpr int warp_rows = 16, tile_rows = warps * warp_rows;
constexpr int tile_tokens = 64, tile_pages = tile_tokens / page_tokens;
constexpr float log2_e = 1.4426950408889634F;

/// A kernel for heads up to `w` elements wide, and what it keeps where in shared memory (bytes). A tile lies there as
/// [pieces of 16 bytes][64 slots]: the eight rows of a matrix that ldmatrix reads are eight slots of one piece, 128
/// bytes in a row, so that they never share a bank.
template <CacheFormat f, int w>
struct Shape {
  static constexpr CacheFormat format = f;
  static constexpr bool is_int8 = f == CacheFormat::int8;
  static constexpr int width = w;
  static constexpr int piece = is_int8 ? 16 : 8;     // elements of 16 bytes
  static constexpr int pieces = width / piece;       // of a key or a value as it is stored
  static constexpr int steps = pieces / 2;           // two pieces of a key: what an mma takes; int8: a group of 32
  static constexpr bool parks_queries = width > 96;  // registers are the sums' then

  static constexpr int tile_bytes = pieces * tile_tokens * 16;
  static constexpr int keys = 0, stored_values = tile_bytes;
  static constexpr int values = is_int8 ? 2 * tile_bytes : stored_values;  // in bf16
  static constexpr int scales = values + width * tile_tokens * 2;          // of keys [steps][64], of values [64], float
  static constexpr int queries = scales + (is_int8 ? (steps + 1) * tile_tokens * 4 : 0);
  static constexpr int query_scales = queries + (parks_queries ? steps * block_threads * 16 : 0);
  static constexpr int bytes = query_scales + (parks_queries && is_int8 ? steps * block_threads * 8 : 0);
  static_assert(width % 32 == 0 && bytes <= 99 * 1024);
};

__device__ __forceinline__ int lane() { return simt::thread() % warp_threads; }
__device__ __forceinline__ int warp() { return simt::thread() / warp_threads; }
/// Where a piece of a slot lies in a tile.
__device__ __forceinline__ int in_tile(int piece, int slot) { return (piece * tile_tokens + slot) * 16; }

/// What a block does: rows of a run against the tiles of [first_page, last_page]; and of the warp: its first row in the
/// step, its position, how many of its 16 there are.
struct Work {
  const std::byte* cache;     // the head's pages
  const std::int32_t* pages;  // of the sequence
  std::int32_t first_page, last_page;
  std::int32_t row, position, rows;

  __device__ __forceinline__ int first_tile() const { return first_page / tile_pages; }
  __device__ __forceinline__ int last_tile() const { return last_page / tile_pages; }
  /// Whether any row of the warp sees any slot of a tile.
  __device__ __forceinline__ bool sees(const Rule& rule, int tile) const {
    const std::int32_t slot = tile * tile_tokens;
    return rows > 0 && slot < position + rows && first_position(rule, position) < slot + tile_tokens;
  }
};

/// The block's; those that see most begin first. No cache: the run has ended before.
__device__ __forceinline__ Work work_of(const AttendRuns& b) {
  const Run run = b.runs[simt::block_z()];
  const int first = (simt::blocks_x() - 1 - simt::block_x()) * tile_rows, own = first + warp() * warp_rows;
  if (first >= run.count) return {};
  const std::int32_t position = b.sites.position[run.first], end = std::min(first + tile_rows, run.count);
  const std::int32_t kv_head = simt::block_y() / (b.q.heads / b.cache.g);
  Work work{};
  work.cache = b.cache.data + kv_head * b.cache.head_stride;
  work.pages = b.sites.tables + b.sites.table[run.first];
  work.first_page = first_position(b.rule, position + first) / page_tokens;
  work.last_page = (position + end - 1) / page_tokens;
  work.row = run.first + own;
  work.position = position + own;
  work.rows = std::max(0, std::min(int{warp_rows}, run.count - own));
  return work;
}

// ---- from the cache to shared memory ----

/// The page that the warp's 16 slots of a tile are in. Of two pages one may be beyond what the block sees, and need not
/// exist: the other stands in for it, as its slots are masked and its values finite.
__device__ __forceinline__ const std::byte* page_of(const AttendRuns& b, const Work& work, int tile) {
  const std::int32_t page = tile * tile_pages + warp() * warp_rows / page_tokens;
  return work.cache + work.pages[std::max(work.first_page, std::min(page, work.last_page))] * b.cache.page_stride;
}

/// The warp's 16 slots of a tile: pieces that are `piece_bytes` apart, of slots that are `slot_bytes` apart; those from
/// `stored` on are zero. Eight lanes write eight slots side by side, and four such read 64 bytes of each. Half by half:
/// with both unrolled, some shapes spill registers.
template <int pieces>
__device__ __forceinline__ void fetch(std::byte* tile, const std::byte* from, int slot_bytes, int piece_bytes,
                                      int stored) {
#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    const int slot = warp() * warp_rows + half * 8 + lane() % 8;
    for (int i = 0; i < pieces; i += 4) {
      const int piece = i + lane() / 8;
      std::byte* to = tile + in_tile(piece, slot);
      if (piece < stored) {
        simt::copy_async(to, from + slot % page_tokens * slot_bytes + piece * piece_bytes);
      } else if (piece < pieces) {
        put(to, 0, Words{});
      }
    }
  }
}

/// int8: the scales of the warp's slots, of each group of their keys, then of their values.
template <class S>
__device__ __forceinline__ void fetch_scales(std::byte* scales, const std::byte* page, const PageLayout& layout) {
  for (int i = lane(); i < (S::steps + 1) * 4; i += warp_threads) {
    const int group = i / 4, slot = warp() * warp_rows + i % 4 * 4;
    std::byte* to = scales + (group * tile_tokens + slot) * 4;
    if (group == S::steps) {
      simt::copy_async(to, page + layout.value_scale(slot % page_tokens));
    } else if (group < layout.groups()) {
      simt::copy_async(to, page + layout.key_scale(slot % page_tokens, group * group_inputs));
    } else {
      put(to, 0, Words{});
    }
  }
}

template <class S>
__device__ __forceinline__ void fetch_keys(const AttendRuns& b, const Work& work, int tile) {
  const PageLayout layout{S::format, b.cache.e};
  const std::byte* page = page_of(b, work, tile);
  const int stored = layout.width() / S::piece;
  fetch<S::pieces>(simt::shared() + S::keys, page, 16, page_tokens * 16, stored);
  if constexpr (S::is_int8) fetch_scales<S>(simt::shared() + S::scales, page, layout);
  simt::close_copies();
}

template <class S>
__device__ __forceinline__ void fetch_values(const AttendRuns& b, const Work& work, int tile) {
  const PageLayout layout{S::format, b.cache.e};
  const std::byte* from = page_of(b, work, tile) + layout.values();
  const int stored = layout.width() / S::piece;
  fetch<S::pieces>(simt::shared() + S::stored_values, from, stored * 16, 16, stored);
  simt::close_copies();
}

/// The i-th signed byte of a word, given with its top bit turned over, as a float: exact.
__device__ __forceinline__ float signed_byte(std::uint32_t turned, int i) {
  return bits<float>(0x4B000000U | (turned >> (8 * i) & 0xFFU)) - 8388736.0F;
}
/// Two floats that bf16 holds.
__device__ __forceinline__ std::uint32_t exact_pair(float low, float high) {
  return bits<std::uint32_t>(low) >> 16 | (bits<std::uint32_t>(high) & 0xFFFF0000U);
}
__device__ __forceinline__ void widen(std::uint32_t word, std::uint32_t& low, std::uint32_t& high) {
  const std::uint32_t turned = word ^ 0x80808080U;
  low = exact_pair(signed_byte(turned, 0), signed_byte(turned, 1));
  high = exact_pair(signed_byte(turned, 2), signed_byte(turned, 3));
}

/// int8: the values of a tile in bf16. Each piece becomes two.
template <class S>
__device__ __forceinline__ void widen_values() {
  const std::byte* from = simt::shared() + S::stored_values;
  std::byte* to = simt::shared() + S::values;
  for (int i = simt::thread(); i < S::pieces * tile_tokens; i += block_threads) {
    const int piece = i / tile_tokens, slot = i % tile_tokens;
    const auto v = at<Words>(from, in_tile(piece, slot));
    Words low, high;
    widen(v.x, low.x, low.y);
    widen(v.y, low.z, low.w);
    widen(v.z, high.x, high.y);
    widen(v.w, high.z, high.w);
    put(to, in_tile(2 * piece, slot), low);
    put(to, in_tile(2 * piece + 1, slot), high);
  }
}

// ---- queries ----

/// Both rows of a lane, l / 4 and l / 4 + 8, in one step: what mma takes; int8: and what its integers count.
struct Query {
  Words a;
  float scale[2];
};

/// scale · q of one of the warp's rows; zero beyond the heads' width and the run's end.
struct ScaledRow {
  const float* q;
  int e;
  float scale;
  __device__ __forceinline__ float operator()(int i) const { return i < e ? q[i] * scale : 0.0F; }
};
__device__ __forceinline__ ScaledRow scaled_row(const AttendRuns& b, const Work& work, int r) {
  const float* q = b.q.data + (work.row + r) * b.q.row_stride + simt::block_y() * b.q.head_stride;
  return {q, r < work.rows ? b.q.e : 0, b.rule.scale};
}

/// Elements i … i + 3 with a group's scale.
__device__ __forceinline__ std::uint32_t four_bytes(const ScaledRow& row, int i, float inverse) {
  std::uint32_t word = 0;
  for (int j = 0; j < 4; ++j) {
    word |= (static_cast<std::uint32_t>(to_byte(row(i + j), inverse)) & 0xFFU) << (8 * j);
  }
  return word;
}

/// Of one row the group at i, of which the lane has four elements and the four that are 16 further.
__device__ __forceinline__ float round_group(const ScaledRow& row, int i, std::uint32_t& low, std::uint32_t& high) {
  std::uint32_t most = 0;
  for (int j = 0; j < 4; ++j) most = std::max(most, std::max(magnitude(row(i + j)), magnitude(row(i + j + 16))));
  most = std::max(most, simt::exchange(most, 1));
  most = std::max(most, simt::exchange(most, 2));
  const ActivationScale scale = activation_scale(most);
  low = four_bytes(row, i, scale.inverse);
  high = four_bytes(row, i + 16, scale.inverse);
  return scale.scale;
}

template <class S>
__device__ __forceinline__ Query query(const ScaledRow& low, const ScaledRow& high, int step) {
  Query q{};
  if constexpr (S::is_int8) {
    const int i = step * 32 + lane() % 4 * 4;
    q.scale[0] = round_group(low, i, q.a.x, q.a.z);
    q.scale[1] = round_group(high, i, q.a.y, q.a.w);
  } else {
    const int i = step * 16 + lane() % 4 * 2;
    q.a = {to_bf16_pair(low(i), low(i + 1)), to_bf16_pair(high(i), high(i + 1)), to_bf16_pair(low(i + 8), low(i + 9)),
           to_bf16_pair(high(i + 8), high(i + 9))};
  }
  return q;
}

/// The warp's queries, in registers or, each thread for itself, in shared memory.
template <class S>
class Queries {
 public:
  __device__ __forceinline__ Queries(const AttendRuns& b, const Work& work) {
    const ScaledRow low = scaled_row(b, work, lane() / 4), high = scaled_row(b, work, lane() / 4 + 8);
#pragma unroll
    for (int step = 0; step < S::steps; ++step) {
      const Query q = query<S>(low, high, step);
      if constexpr (S::parks_queries) {
        put(simt::shared(), words(step), q.a);
        if constexpr (S::is_int8) {
          put(simt::shared(), scales(step), q.scale[0]);
          put(simt::shared(), scales(step) + 4, q.scale[1]);
        }
      } else {
        held_[step] = q;
      }
    }
  }
  __device__ __forceinline__ Query operator[](int step) const {
    if constexpr (S::parks_queries) {
      Query q{at<Words>(simt::shared(), words(step)), {}};
      if constexpr (S::is_int8) {
        q.scale[0] = at<float>(simt::shared(), scales(step));
        q.scale[1] = at<float>(simt::shared(), scales(step) + 4);
      }
      return q;
    } else {
      return held_[step];
    }
  }

 private:
  __device__ __forceinline__ static int words(int step) {
    return S::queries + (step * block_threads + simt::thread()) * 16;
  }
  __device__ __forceinline__ static int scales(int step) {
    return S::query_scales + (step * block_threads + simt::thread()) * 8;
  }
  Query held_[S::parks_queries ? 1 : S::steps];
};

// ---- scores ----

/// Of 16 rows and 64 slots: the lane has s[n][i] of row l / 4 + i / 2 · 8 and slot 8 n + 2 (l % 4) + i % 2.
using Scores = float[tile_tokens / 8][4];

/// s += what a group's sums of integers count.
template <class S>
__device__ __forceinline__ void add_integers(float (&s)[4], const std::int32_t (&sum)[4], const Query& q, int step,
                                             int n) {
  const int slot = n * 8 + lane() % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto key = at<float>(simt::shared(), S::scales + (step * tile_tokens + slot + i % 2) * 4);
    // a sum is less than 2^22: as a float without a conversion, which runs at a quarter of the rate
    const float exact = bits<float>(0x4B400000U + static_cast<std::uint32_t>(sum[i])) - 12582912.0F;
    s[i] = fmaf(exact, q.scale[i / 2] * key, s[i]);
  }
}

/// s = the products of the warp's queries with a tile's keys.
template <class S>
__device__ __forceinline__ void multiply_keys(const Queries<S>& queries, Scores& s) {
#pragma unroll
  for (int n = 0; n < tile_tokens / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = 0;
  }
  const std::byte* own = simt::shared() + S::keys + in_tile(lane() / 8 % 2, lane() / 16 * 8 + lane() % 8);
#pragma unroll
  for (int step = 0; step < S::steps; ++step) {
    const Query q = queries[step];
#pragma unroll
    for (int n = 0; n < tile_tokens / 8; n += 2) {
      std::uint32_t k[4];  // both pieces of eight slots, and of the next eight
      simt::load_matrices(k, own + in_tile(2 * step, n * 8));
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if constexpr (S::is_int8) {
          std::int32_t sum[4];
          simt::mma_int8(sum, q.a.x, q.a.y, q.a.z, q.a.w, k[2 * i], k[2 * i + 1]);
          add_integers<S>(s[n + i], sum, q, step, n + i);
        } else {
          simt::mma_bf16(s[n + i], q.a.x, q.a.y, q.a.z, q.a.w, k[2 * i], k[2 * i + 1]);
        }
      }
    }
  }
}

/// The rule's cap, and -inf where a row does not see a slot, whatever its key is.
__device__ __forceinline__ void mask(const Rule& rule, const Work& work, int tile, Scores& s) {
  if (rule.cap != 0) {
#pragma unroll
    for (int n = 0; n < tile_tokens / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] = capped(s[n][i], rule.cap);
    }
  }
  const std::int32_t slot = tile * tile_tokens + lane() % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int32_t position = work.position + lane() / 4 + half * 8;
    const std::int32_t first = first_position(rule, position) - slot, last = position - slot;
#pragma unroll
    for (int n = 0; n < tile_tokens / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int own = n * 8 + i;
        if (own < first || own > last) s[n][2 * half + i] = -infinity();
      }
    }
  }
}

// ---- the running softmax ----

/// Of the lane's two rows: the greatest score so far, times log2(e); the lane's own part of the sum of weights; and of
/// its columns 8 n + 2 (l % 4) + i % 2 the weighted values.
template <class S>
struct State {
  float greatest[2], total[2];
  float sums[S::width / 8][4];
};

/// Before the first tile: of nothing, or of a sink. Finite, so that a tile that a row does not see changes nothing.
template <class S>
__device__ __forceinline__ void begin(const Rule& rule, State<S>& state) {
  const float sink = rule.sinks == nullptr ? -infinity() : rule.sinks[simt::block_y()];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float greatest = fmaxf(sink * log2_e, -FLT_MAX);
    state.greatest[half] = greatest;
    state.total[half] = lane() % 4 == 0 ? exp2f(fmaf(sink, log2_e, -greatest)) : 0.0F;
  }
#pragma unroll
  for (int n = 0; n < S::width / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) state.sums[n][i] = 0;
  }
}

/// s becomes weights; the state takes in their sum and, if they are greater, their size. NaN goes into the sum.
template <class S>
__device__ __forceinline__ void soften(Scores& s, State<S>& state) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = -infinity();
#pragma unroll
    for (int n = 0; n < tile_tokens / 8; ++n) most = fmaxf(most, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    most = fmaxf(most, simt::exchange(most, 1));
    most = fmaxf(most, simt::exchange(most, 2));
    const float greatest = fmaxf(state.greatest[half], most * log2_e);
    const float factor = exp2f(state.greatest[half] - greatest);
    float total = state.total[half] * factor;
#pragma unroll
    for (int n = 0; n < tile_tokens / 8; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        s[n][i] = exp2f(fmaf(s[n][i], log2_e, -greatest));
        total += s[n][i];
      }
    }
    state.greatest[half] = greatest;
    state.total[half] = total;
#pragma unroll
    for (int n = 0; n < S::width / 8; ++n) {
      state.sums[n][2 * half] *= factor;
      state.sums[n][2 * half + 1] *= factor;
    }
  }
}

/// Two weights in bf16, to the nearest. They are not negative; if one is NaN, so is the total, and this does not count.
__device__ __forceinline__ std::uint32_t weight_pair(float low, float high) {
  return (bits<std::uint32_t>(low) + 0x8000U) >> 16 | ((bits<std::uint32_t>(high) + 0x8000U) & 0xFFFF0000U);
}

/// The weights in bf16, as mma takes them: w[n] of both rows. int8: times the values' scales.
using Weights = std::uint32_t[tile_tokens / 8][2];
template <class S>
__device__ __forceinline__ void round_weights(const Scores& s, Weights& w) {
#pragma unroll
  for (int n = 0; n < tile_tokens / 8; ++n) {
    float scale[2] = {1, 1};
    if constexpr (S::is_int8) {
      const int slot = n * 8 + lane() % 4 * 2;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        scale[i] = at<float>(simt::shared(), S::scales + (S::steps * tile_tokens + slot + i) * 4);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      w[n][half] = weight_pair(s[n][2 * half] * scale[0], s[n][2 * half + 1] * scale[1]);
    }
  }
}

/// sums += weights · values.
template <class S>
__device__ __forceinline__ void add_values(const Weights& w, State<S>& state) {
  const std::byte* own = simt::shared() + S::values + in_tile(lane() / 16, lane() % 16);
#pragma unroll
  for (int slot = 0; slot < tile_tokens; slot += 16) {
    const std::uint32_t(&low)[2] = w[slot / 8], (&high)[2] = w[slot / 8 + 1];
#pragma unroll
    for (int n = 0; n < S::width / 8; n += 2) {
      std::uint32_t v[4];  // 16 slots of a piece of eight columns, and of the next piece
      simt::load_transposed(v, own + in_tile(n, slot));
      simt::mma_bf16(state.sums[n], low[0], low[1], high[0], high[1], v[0], v[1]);
      simt::mma_bf16(state.sums[n + 1], low[0], low[1], high[0], high[1], v[2], v[3]);
    }
  }
}

/// y = sums / total.
template <class S>
__device__ __forceinline__ void finish(const AttendRuns& b, const Work& work, const State<S>& state) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = state.total[half];
    total += simt::exchange(total, 1);
    total += simt::exchange(total, 2);
    const float inverse = 1.0F / total;
    const int r = lane() / 4 + half * 8;
    if (r >= work.rows) continue;
    float* y = b.y.data + (work.row + r) * b.y.row_stride + simt::block_y() * b.y.head_stride;
#pragma unroll
    for (int n = 0; n < S::width / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = n * 8 + lane() % 4 * 2 + i;
        if (column < b.y.e) y[column] = fmaf(state.sums[n][2 * half + i], inverse, 0.0F);  // -0 becomes +0
      }
    }
  }
}

/// Three blocks for each multiprocessor, two of wide heads: while one waits at a barrier, another multiplies.
template <class S>
__global__ void __launch_bounds__(block_threads, S::width > 128 ? 2 : 3) attend_runs(AttendRuns b) {
  simt::wait_for_earlier();
  const Work work = work_of(b);
  if (work.cache == nullptr) return;
  fetch_keys<S>(b, work, work.first_tile());
  const Queries<S> queries(b, work);
  State<S> state;
  begin(b.rule, state);
  for (int tile = work.first_tile(); tile <= work.last_tile(); ++tile) {
    const bool seen = work.sees(b.rule, tile);
    simt::await_copies<0>();
    simt::barrier();  // the keys are here, and no warp needs the last tile's values any more
    fetch_values<S>(b, work, tile);
    Weights weights;
    if (seen) {
      Scores s;
      multiply_keys(queries, s);
      mask(b.rule, work, tile, s);
      soften(s, state);
      round_weights<S>(s, weights);
    }
    simt::await_copies<0>();
    simt::barrier();  // the values are here, and no warp needs the keys any more
    if (tile < work.last_tile()) fetch_keys<S>(b, work, tile + 1);
    if constexpr (S::is_int8) {
      widen_values<S>();
      simt::barrier();
    }
    if (seen) add_values(weights, state);
  }
  simt::let_next_begin();
  finish(b, work, state);
}

template <CacheFormat format, int width>
Status run_shape(const Stream& stream, const AttendRuns& b) {
  using S = Shape<format, width>;
  const auto tiles = static_cast<unsigned>((b.longest + tile_rows - 1) / tile_rows);
  const dim3 grid{tiles, static_cast<unsigned>(b.q.heads), static_cast<unsigned>(b.run_count)};
  return launch(&attend_runs<S>, grid, block_threads, S::bytes, stream, b);
}

template <CacheFormat format>
Status run_format(const Stream& stream, const AttendRuns& b) {
  if (b.cache.e <= 64) return run_shape<format, 64>(stream, b);
  if (b.cache.e <= 96) return run_shape<format, 96>(stream, b);
  if (b.cache.e <= 128) return run_shape<format, 128>(stream, b);
  return run_shape<format, 256>(stream, b);
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* context, const AttendRuns& b) noexcept {
  if (b.run_count == 0 || b.longest == 0) return {};
  if (!serves_runs(b.cache.format, b.cache.e)) return {1, "AttendRuns: caches of floats and wide heads are Attend's"};
  const Stream stream = stream_of(context);
  return b.cache.format == CacheFormat::int8 ? kernels::run_format<CacheFormat::int8>(stream, b)
                                             : kernels::run_format<CacheFormat::bf16>(stream, b);
}

}  // namespace finteam::cuda_v0_1
