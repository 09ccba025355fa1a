// Attention of rows one by one, as decoding has them: a block for each split of 256 positions of a row's sequence and
// each key/value head, whose queries share what is read, a warp for each page; then a block for each row and head adds
// the splits up. Bound by the bytes of keys and values, and where few rows leave the chip empty by the wait for them:
// so a warp sends for its whole page at once, before the kernel ahead has ended where that can be, and then loads eight
// pieces before it needs the first, with no branch between them. Splits lie at absolute multiples and are added in
// their order, and what a row does not see counts nothing: a row's bits are its own (law 3). Not here: rows of prompts,
// many at a time (attend_runs.cu).
#include "numbers.cuh"

namespace finteam::cuda_v0_1::kernels {
namespace {

inline constexpr int block_warps = split_tokens / page_tokens, block_threads = block_warps * warp_threads;
/// Queries of one head of keys that a block serves, at most; and how many of them a pass over the values.
inline constexpr int most_queries = 8, value_queries = 4;
/// Pieces of a key, and of values, that a lane loads before it needs the first.
inline constexpr int ahead = 8;
/// Columns of y that a pass of add_parts sums up.
inline constexpr int sum_columns = 4 * warp_threads;

/// n neighbouring words, read at once.
template <int n>
struct alignas(4 * n) Piece {
  std::uint32_t words[n];
};

/// How a cache's numbers lie in words; the pieces of keys, and of values, that a lane reads at once.
template <CacheFormat f>
struct Numbers {
  static constexpr CacheFormat format = f;
  static constexpr int per_word = f == CacheFormat::f32 ? 1 : f == CacheFormat::bf16 ? 2 : 4;
  using Key = Piece<4>;
  static constexpr int key_elements = 4 * per_word;
  using Value = Piece<f == CacheFormat::int8 ? 2 : 4>;
  static constexpr int columns = f == CacheFormat::f32 ? 4 : 8;

  /// Element i of a piece. int8: 2^23 + 128 + x is a float whose last byte is that of x, its sign turned.
  template <int n>
  static __device__ __forceinline__ float element(const Piece<n>& piece, int i) {
    const std::uint32_t word = piece.words[i / per_word];
    if constexpr (f == CacheFormat::f32) return bits<float>(word);
    if constexpr (f == CacheFormat::bf16) return from_bf16(i % 2 == 0 ? word & 0xFFFFU : word >> 16);
    return bits<float>(0x4B000000U | ((word ^ 0x80808080U) >> (i % 4 * 8) & 0xFFU)) - 8388736.0F;
  }
};

/// Shared memory: of each query its numbers as the keys' format rounds them, zeros after them; of each warp the weights
/// of its page [slots, queries], and of each query the page's maximum and sum and its weighted values.
struct Room {
  int width, queries;
  /// A multiple of the elements of `ahead` pieces.
  [[nodiscard]] __host__ __device__ int inputs() const { return (width + 127) / 128 * 128; }
  [[nodiscard]] __host__ __device__ int query(int q) const { return q * inputs(); }
  [[nodiscard]] __host__ __device__ int weights(int w, int slot) const {
    return query(queries) + (w * page_tokens + slot) * queries;
  }
  [[nodiscard]] __host__ __device__ int state(int w, int q) const {
    return weights(block_warps, 0) + (w * queries + q) * 2;
  }
  [[nodiscard]] __host__ __device__ int values(int w, int q) const {
    return state(block_warps, 0) + (w * queries + q) * width;
  }
  [[nodiscard]] __host__ __device__ int floats() const { return values(block_warps, 0); }
};

/// scale · q as products with keys of that format round it; by one warp. Beyond e, up to `inputs`, it is zero.
__device__ __forceinline__ void round_query(const float* q, int e, float scale, CacheFormat format, float* to,
                                            int inputs) {
#pragma unroll 1
  for (int i = simt::thread() % warp_threads; i < inputs; i += warp_threads) {
    const float x = i < e ? q[i] * scale : 0.0F;
    const ActivationScale s = activation_scale(format == CacheFormat::int8 ? warp_max(magnitude(x)) : 0);
    to[i] = format == CacheFormat::f32    ? x
            : format == CacheFormat::bf16 ? rounded_to_bf16(x)
                                          : s.scale * static_cast<float>(to_byte(x, s.inverse));
  }
}

/// Some pieces of a slot's key, zeros where there are none; int8: and the scale of each two.
template <class N>
struct Keys {
  typename N::Key pieces[ahead];
  float scales[ahead / 2];

  __device__ __forceinline__ void load(const PageLayout& layout, const std::byte* page, int slot, int first) {
#pragma unroll
    for (int j = 0; j < ahead; ++j) {
      const int i = first + j * N::key_elements;
      pieces[j] = i < layout.width() ? at<typename N::Key>(page, layout.key(slot, i)) : typename N::Key{};
    }
    if constexpr (N::format == CacheFormat::int8) {
#pragma unroll
      for (int j = 0; j < ahead / 2; ++j) {
        const int i = first + j * group_inputs;
        scales[j] = i < layout.e ? at<float>(page, layout.key_scale(slot, i)) : 0.0F;
      }
    }
  }

  /// sums += q · the pieces, element by element; int8: group by group. q: rows of `inputs` numbers.
  template <int queries>
  __device__ __forceinline__ void add(const float* q, int inputs, float (&sums)[queries]) const {
    constexpr bool grouped = N::format == CacheFormat::int8;
    float of_group[queries] = {};
#pragma unroll
    for (int j = 0; j < ahead; ++j) {
#pragma unroll
      for (int i = 0; i < N::key_elements; i += 4) {
#pragma unroll
        for (int n = 0; n < queries; ++n) {
          const auto four = at<Piece<4>>(q + n * inputs + j * N::key_elements + i);
          float& sum = grouped ? of_group[n] : sums[n];
#pragma unroll
          for (int k = 0; k < 4; ++k) sum = fmaf(N::element(pieces[j], i + k), bits<float>(four.words[k]), sum);
        }
      }
      if constexpr (grouped) {
#pragma unroll
        for (int n = 0; n < queries && j % 2 == 1; ++n) {
          sums[n] = fmaf(of_group[n], scales[j / 2], sums[n]);
          of_group[n] = 0;
        }
      }
    }
  }
};

/// How a warp reads the values of a page: some lanes side by side have a slot, each of them some columns.
template <class N>
struct Lanes {
  int row, slots, first_slot, column;  ///< lanes of a slot; slots at once; mine of those; my first column

  __device__ __forceinline__ explicit Lanes(int width) {
    const int pieces = width / N::columns, lane = simt::thread() % warp_threads;
    row = pieces <= 8 ? 8 : pieces <= 16 ? 16 : 32;
    slots = warp_threads / row;
    first_slot = lane / row;
    column = lane % row * N::columns;
  }
  /// Of `ahead` steps from one on, mine; another column if mine is none.
  __device__ __forceinline__ void load(const PageLayout& layout, const std::byte* page, int step, int first_column,
                                       typename N::Value (&to)[ahead]) const {
    const int i = first_column + column < layout.width() ? first_column + column : first_column;
#pragma unroll
    for (int j = 0; j < ahead; ++j) {
      to[j] = at<typename N::Value>(page, layout.value((step + j) * slots + first_slot, i));
    }
  }
};

/// The scores of a page, a lane for each slot, become weights, which with their maximum and sum go to shared memory.
/// int8: the value's scale goes into its weight.
template <class N, int queries>
__device__ __forceinline__ void weigh(const Attend& p, const Room& room, float (&scores)[queries], bool seen,
                                      float value_scale, float* memory) {
  const int lane = simt::thread() % warp_threads, warp = simt::thread() / warp_threads;
  float most[queries], sums[queries];
#pragma unroll
  for (int q = 0; q < queries; ++q) {
    if (p.rule.cap > 0) scores[q] = capped(scores[q], p.rule.cap);
    most[q] = seen ? scores[q] : -infinity();
  }
  for (int mask = warp_threads / 2; mask > 0; mask /= 2) {
#pragma unroll
    for (int q = 0; q < queries; ++q) most[q] = fmaxf(most[q], simt::exchange(most[q], mask));
  }
#pragma unroll
  for (int q = 0; q < queries; ++q) {
    sums[q] = seen ? expf(scores[q] - most[q]) : 0.0F;  // NaN stays: most is a number
    memory[room.weights(warp, lane) + q] = seen ? sums[q] * value_scale : 0.0F;
  }
  for (int mask = warp_threads / 2; mask > 0; mask /= 2) {
#pragma unroll
    for (int q = 0; q < queries; ++q) sums[q] += simt::exchange(sums[q], mask);
  }
#pragma unroll
  for (int q = 0; q < queries; ++q) {
    if (lane != 0) continue;
    memory[room.state(warp, q)] = most[q];
    memory[room.state(warp, q) + 1] = sums[q];
  }
}

/// The page's values by their weights, to shared memory. Slots that are not seen weigh zero, and what they hold is
/// finite.
template <class N, int queries>
__device__ __forceinline__ void add_values(const PageLayout& layout, const Room& room, const Lanes<N>& lanes,
                                           const std::byte* page, float* memory) {
  constexpr int some = queries < value_queries ? queries : value_queries, all_columns = warp_threads * N::columns;
  const int warp = simt::thread() / warp_threads;
#pragma unroll 1
  for (int first_column = 0; first_column < room.width; first_column += all_columns) {
#pragma unroll 1
    for (int first = 0; first < queries; first += some) {
      float sums[some][N::columns] = {};
#pragma unroll 1
      for (int step = 0; step < lanes.row; step += ahead) {
        typename N::Value values[ahead];
        lanes.load(layout, page, step, first_column, values);
#pragma unroll
        for (int j = 0; j < ahead; ++j) {
          const int slot = (step + j) * lanes.slots + lanes.first_slot;
          const auto weights = at<Piece<some>>(memory + room.weights(warp, slot) + first);
#pragma unroll
          for (int i = 0; i < N::columns; ++i) {
            const float x = N::element(values[j], i);
#pragma unroll
            for (int q = 0; q < some; ++q) sums[q][i] = fmaf(bits<float>(weights.words[q]), x, sums[q][i]);
          }
        }
      }
#pragma unroll 1
      for (int mask = lanes.row; mask < warp_threads; mask *= 2) {
#pragma unroll
        for (int i = 0; i < some * N::columns; ++i) {
          float& sum = sums[i / N::columns][i % N::columns];
          sum += simt::exchange(sum, mask);
        }
      }
      const int column = first_column + lanes.column;
      if (lanes.first_slot != 0 || column >= room.width) continue;
#pragma unroll
      for (int q = 0; q < some; ++q) {
#pragma unroll
        for (int i = 0; i < N::columns; ++i) memory[room.values(warp, first + q) + column + i] = sums[q][i];
      }
    }
  }
}

/// What a split gives: a maximum, a sum by it, and as many values as a page's row has.
__device__ __forceinline__ float* part_of(const Attend& p, int t, int h, int split) {
  const int width = PageLayout{p.cache.format, p.cache.e}.width() + 2;
  return p.parts + ((std::int64_t{t} * p.q.heads + h) * p.splits + split) * width;
}

/// What counts by `most` what was summed up by that maximum; nothing was seen there if it is the least.
__device__ __forceinline__ float share(float maximum, float most) {
  return maximum == -infinity() ? 0.0F : maximum == most ? 1.0F : expf(maximum - most);
}

/// Element i of a query's part of this split: of what its warps have, in their order.
__device__ __forceinline__ void add_pages(const Room& room, const float* memory, int q, int i, float* part) {
  float most = -infinity(), sum = 0, total = 0;
#pragma unroll
  for (int w = 0; w < block_warps; ++w) most = fmaxf(most, memory[room.state(w, q)]);
#pragma unroll
  for (int w = 0; w < block_warps; ++w) {
    const float counts = share(memory[room.state(w, q)], most);
    sum = fmaf(counts, memory[room.values(w, q) + i], sum);
    total = fmaf(counts, memory[room.state(w, q) + 1], total);
  }
  part[2 + i] = sum;
  if (i != 0) return;
  part[0] = most;
  part[1] = total;
}

template <CacheFormat format, int queries>
__global__ void __launch_bounds__(block_threads, 2) attend(Attend p) {
  using N = Numbers<format>;
  auto* memory = reinterpret_cast<float*>(simt::shared());
  const int t = simt::block_z(), split = simt::block_x();
  const int h = p.q.heads / p.cache.g, passes = (h + queries - 1) / queries;
  const int g = simt::block_y() / passes, first_query = simt::block_y() % passes * queries;
  const int lane = simt::thread() % warp_threads, warp = simt::thread() / warp_threads;
  const PageLayout layout{format, p.cache.e};
  const Room room{layout.width(), queries};

  // What the step was told is there already. A warp whose page the row does not see reads one that it sees.
  const int last = p.sites.position[t], first = first_position(p.rule, last);
  const bool sees = split * split_tokens <= last && (split + 1) * split_tokens > first;
  const int mine = split * block_warps + warp, first_page = first / page_tokens, last_page = last / page_tokens;
  const int seen_page = mine < first_page ? first_page : mine > last_page ? last_page : mine;
  const std::int64_t at_page = p.sites.tables[p.sites.table[t] + seen_page];
  const std::byte* page = p.cache.data + g * p.cache.head_stride + at_page * p.cache.page_stride;
  if (sees) simt::prefetch(page, layout.bytes());
  simt::begin();
  if (!sees) return;

  Keys<N> keys;
  keys.load(layout, page, lane, 0);
#pragma unroll 1
  for (int q = warp; q < queries; q += block_warps) {
    const int query = first_query + q;
    const float* from = p.q.data + t * p.q.row_stride + (g * h + query) * p.q.head_stride;
    round_query(from, query < h ? p.cache.e : 0, p.rule.scale, format, memory + room.query(q), room.inputs());
  }
  simt::barrier();

  float scores[queries] = {};
#pragma unroll 1
  for (int i = 0; i < room.width; i += ahead * N::key_elements) {
    if (i != 0) keys.load(layout, page, lane, i);
    keys.add(memory + i, room.inputs(), scores);
  }
  const float value_scale = format == CacheFormat::int8 ? at<float>(page, layout.value_scale(lane)) : 1.0F;
  const int position = mine * page_tokens + lane;
  weigh<N>(p, room, scores, position >= first && position <= last, value_scale, memory);
  simt::warp_barrier();
  add_values<N, queries>(layout, room, Lanes<N>(room.width), page, memory);
  simt::barrier();

  const int count = h - first_query < queries ? h - first_query : queries;
#pragma unroll 1
  for (int i = simt::thread(); i < count * room.width; i += block_threads) {
    const int q = i / room.width;
    add_pages(room, memory, q, i % room.width, part_of(p, t, g * h + first_query + q, split));
  }
}

/// Of the splits that a row sees: each warp has every eighth, then the warps' sums are added in their order.
__global__ void __launch_bounds__(block_threads) add_parts(Attend p) {
  auto* memory = reinterpret_cast<float*>(simt::shared());
  const int t = simt::block_x(), h = simt::block_y();
  const int lane = simt::thread() % warp_threads, warp = simt::thread() / warp_threads;
  const int last = p.sites.position[t];
  const int begin = first_position(p.rule, last) / split_tokens, end = last / split_tokens + 1;
  simt::begin();

  const bool sinks = p.rule.sinks != nullptr;
  float most = sinks ? p.rule.sinks[h] : -infinity();
  for (int s = begin + lane; s < end; s += warp_threads) most = fmaxf(most, part_of(p, t, h, s)[0]);
  most = warp_max(most);
  float total = 0;
  for (int s = begin + lane; s < end; s += warp_threads) {
    const float* part = part_of(p, t, h, s);
    total = fmaf(share(part[0], most), part[1], total);
  }
  total = warp_sum(total) + (sinks ? expf(p.rule.sinks[h] - most) : 0.0F);

  float* y = p.y.data + t * p.y.row_stride + h * p.y.head_stride;
  for (int first = 0; first < p.cache.e; first += sum_columns) {
    float sums[4] = {};
#pragma unroll 4
    for (int s = begin + warp; s < end; s += block_warps) {
      const float* part = part_of(p, t, h, s);
      const float counts = share(part[0], most);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = first + i * warp_threads + lane;
        sums[i] = fmaf(counts, column < p.cache.e ? part[2 + column] : 0.0F, sums[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) memory[warp * sum_columns + i * warp_threads + lane] = sums[i];
    simt::barrier();
    for (int i = simt::thread(); i < sum_columns && first + i < p.cache.e; i += block_threads) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < block_warps; ++w) sum += memory[w * sum_columns + i];
      y[first + i] = sum / total;
    }
    simt::barrier();
  }
}

template <CacheFormat format>
Status run_format(const Stream& stream, const Attend& p, int queries) {
  const int h = p.q.heads / p.cache.g;
  const Room room{PageLayout{format, p.cache.e}.width(), queries};
  const auto shared = static_cast<std::size_t>(room.floats()) * sizeof(float);
  const dim3 grid{static_cast<unsigned>(p.splits), static_cast<unsigned>(p.cache.g * ((h + queries - 1) / queries)),
                  static_cast<unsigned>(p.q.rows)};
  switch (queries) {
    case 1: return launch(attend<format, 1>, grid, block_threads, shared, stream, p);
    case 2: return launch(attend<format, 2>, grid, block_threads, shared, stream, p);
    case 4: return launch(attend<format, 4>, grid, block_threads, shared, stream, p);
    default: return launch(attend<format, most_queries>, grid, block_threads, shared, stream, p);
  }
}

/// As many queries of a head of keys as a block serves: all, up to the next power of two, if two blocks have room.
int queries_of(const Attend& p) {
  const int h = p.q.heads / p.cache.g;
  int queries = h > 4 ? most_queries : h > 2 ? 4 : h;
  const auto floats = [&] { return Room{PageLayout{p.cache.format, p.cache.e}.width(), queries}.floats(); };
  while (queries > 1 && floats() > 12 * 1024) queries /= 2;
  return queries;
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const Attend& p) noexcept {
  using namespace kernels;
  if (p.q.rows == 0) return {};
  const int queries = queries_of(p);
  Status s{1, "a cache format that no kernel reads"};
  switch (p.cache.format) {
    case CacheFormat::f32: s = run_format<CacheFormat::f32>(stream_of(c), p, queries); break;
    case CacheFormat::bf16: s = run_format<CacheFormat::bf16>(stream_of(c), p, queries); break;
    case CacheFormat::int8: s = run_format<CacheFormat::int8>(stream_of(c), p, queries); break;
  }
  if (!s.ok()) return s;
  return launch(add_parts, {static_cast<unsigned>(p.q.rows), static_cast<unsigned>(p.q.heads), 1}, block_threads,
                block_warps * sum_columns * sizeof(float), stream_of(c), p);
}

}  // namespace finteam::cuda_v0_1
