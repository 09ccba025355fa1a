// Attention of rows one by one, as decoding has them: a block for each split of 256 positions of a row's sequence and
// each key/value head, whose queries share what is read; then a block for each row and head adds the splits up.
// Bound by the bytes of keys and values. Splits lie at absolute multiples and are added in their order, and a split
// that a row does not see counts nothing: a row's bits are its own (law 3). Not here: rows of prompts, many at a time
// (attend_runs.cu).
#include "numbers.cuh"

namespace finteam::cuda_v0_1::kernels {
namespace {

inline constexpr int block_warps = 4, block_threads = block_warps * warp_threads;
inline constexpr int split_pages = split_tokens / page_tokens;
/// Queries of one head of keys that a pass over it serves.
inline constexpr int most_queries = 8;

/// Shared memory: of each query its numbers as the keys' format rounds them, then of each warp and query the weights of
/// a page, the running maximum and sum, and the values so far.
struct Room {
  int width, queries;
  [[nodiscard]] __host__ __device__ int query(int q) const { return q * width; }
  [[nodiscard]] __host__ __device__ int weights(int w, int q) const {
    return queries * width + (w * queries + q) * page_tokens;
  }
  [[nodiscard]] __host__ __device__ int state(int w, int q) const {
    return weights(block_warps, 0) + (w * queries + q) * 2;
  }
  [[nodiscard]] __host__ __device__ int values(int w, int q) const {
    return state(block_warps, 0) + (w * queries + q) * width;
  }
  [[nodiscard]] __host__ __device__ int floats() const { return values(block_warps, 0); }
};

/// scale · q as products with keys of that format round it; by one warp. Beyond e it is zero.
__device__ __forceinline__ void round_query(const float* q, int e, float scale, CacheFormat format, float* to,
                                            int width) {
  for (int i = simt::thread() % warp_threads; i < (width + 31) / 32 * 32; i += warp_threads) {
    const float x = i < e ? q[i] * scale : 0.0F;
    const ActivationScale s = activation_scale(format == CacheFormat::int8 ? warp_max(magnitude(x)) : 0);
    const float rounded = format == CacheFormat::f32    ? x
                          : format == CacheFormat::bf16 ? rounded_to_bf16(x)
                                                        : s.scale * static_cast<float>(to_byte(x, s.inverse));
    if (i < width) to[i] = rounded;
  }
}

/// q · the key in a slot.
template <CacheFormat format>
__device__ __forceinline__ float score(const PageLayout& layout, const std::byte* page, int slot, const float* q) {
  float sum = 0;
  if constexpr (format == CacheFormat::f32) {
    for (int i = 0; i < layout.width(); i += 4) {
      const Words w = at<Words>(page, layout.key(slot, i));
      sum = fmaf(bits<float>(w.x), q[i], sum);
      sum = fmaf(bits<float>(w.y), q[i + 1], sum);
      sum = fmaf(bits<float>(w.z), q[i + 2], sum);
      sum = fmaf(bits<float>(w.w), q[i + 3], sum);
    }
  } else if constexpr (format == CacheFormat::bf16) {
    for (int i = 0; i < layout.width(); i += 8) {
      const Words w = at<Words>(page, layout.key(slot, i));
      const std::uint32_t pairs[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sum = fmaf(from_bf16(pairs[j] & 0xFFFFU), q[i + 2 * j], sum);
        sum = fmaf(from_bf16(pairs[j] >> 16), q[i + 2 * j + 1], sum);
      }
    }
  } else {
    for (int group = 0; group < layout.width(); group += group_inputs) {
      float of_group = 0;
      for (int i = group; i < layout.width() && i < group + group_inputs; i += 16) {
        const Words w = at<Words>(page, layout.key(slot, i));
        const std::uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int j = 0; j < 16; ++j) {
          const auto byte = static_cast<std::int8_t>(words[j / 4] >> (j % 4 * 8));
          of_group = fmaf(static_cast<float>(byte), q[i + j], of_group);
        }
      }
      sum = fmaf(of_group, at<float>(page, layout.key_scale(slot, group)), sum);
    }
  }
  return sum;
}

/// Two neighbouring elements of the value in a slot, from an even one on.
template <CacheFormat format>
__device__ __forceinline__ void value_pair(const PageLayout& layout, const std::byte* page, int slot, int i, float& low,
                                           float& high) {
  const int from = layout.value(slot, i);
  if constexpr (format == CacheFormat::f32) {
    low = at<float>(page, from);
    high = at<float>(page, from + 4);
  } else if constexpr (format == CacheFormat::bf16) {
    const auto pair = at<std::uint32_t>(page, from);
    low = from_bf16(pair & 0xFFFFU);
    high = from_bf16(pair >> 16);
  } else {
    const float scale = at<float>(page, layout.value_scale(slot));
    low = scale * static_cast<float>(at<std::int8_t>(page, from));
    high = scale * static_cast<float>(at<std::int8_t>(page, from + 1));
  }
}

/// One page, by one warp, a lane for each slot, then for each pair of elements: state and values go on.
template <CacheFormat format>
__device__ __forceinline__ void attend_page(const Attend& p, const Room& room, const std::byte* page, int first_slot,
                                            int last_slot, float* memory) {
  const PageLayout layout{format, p.cache.e};
  const int lane = simt::thread() % warp_threads, warp = simt::thread() / warp_threads;
  const bool seen = lane >= first_slot && lane <= last_slot;
  for (int q = 0; q < room.queries; ++q) {
    float s = seen ? score<format>(layout, page, lane, memory + room.query(q)) : -infinity();
    if (seen && p.rule.cap > 0) s = capped(s, p.rule.cap);
    float* state = memory + room.state(warp, q);
    const float before = state[0], most = fmaxf(before, warp_max(s));
    const float weight = seen ? expf(s - most) : 0.0F;  // NaN stays: most is a number
    const float sum = warp_sum(weight), fading = before == most ? 1.0F : expf(before - most);
    memory[room.weights(warp, q) + lane] = weight;
    float* values = memory + room.values(warp, q);
    for (int i = lane; i < room.width; i += warp_threads) values[i] *= fading;
    simt::warp_barrier();
    if (lane == 0) {
      state[0] = most;
      state[1] = fmaf(state[1], fading, sum);
    }
  }
  simt::warp_barrier();
  for (int i = 2 * lane; i < room.width; i += 2 * warp_threads) {
    for (int first = 0; first < room.queries; first += 4) {
      const int count = room.queries - first < 4 ? room.queries - first : 4;
      float sum[4][2] = {};
      for (int slot = first_slot; slot <= last_slot; ++slot) {
        float low, high;
        value_pair<format>(layout, page, slot, i, low, high);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          if (q >= count) break;
          const float weight = memory[room.weights(warp, first + q) + slot];
          sum[q][0] = fmaf(weight, low, sum[q][0]);
          sum[q][1] = fmaf(weight, high, sum[q][1]);
        }
      }
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        if (q >= count) break;
        float* values = memory + room.values(warp, first + q) + i;
        values[0] += sum[q][0];
        values[1] += sum[q][1];
      }
    }
  }
  simt::warp_barrier();
}

/// What a split gives: a maximum, a sum by it, and as many values as a page's row has.
__device__ __forceinline__ float* part_of(const Attend& p, int t, int h, int split) {
  const int width = PageLayout{p.cache.format, p.cache.e}.width() + 2;
  return p.parts + ((std::int64_t{t} * p.q.heads + h) * p.splits + split) * width;
}

/// Several states of one query added up, in their order: their greatest maximum and, by it, their sums and values.
/// part(i): maximum and sum of part i, at(i, j): its value j.
template <class Part>
__device__ __forceinline__ float greatest(int parts, Part&& part) {
  float most = -infinity();
  for (int i = 0; i < parts; ++i) most = fmaxf(most, part(i)[0]);
  return most;
}
/// What a part counts by that maximum; nothing was seen in a part whose maximum is the least.
__device__ __forceinline__ float share(float maximum, float most) {
  return maximum == -infinity() ? 0.0F : maximum == most ? 1.0F : expf(maximum - most);
}

template <CacheFormat format>
__global__ void __launch_bounds__(block_threads, 4) attend(Attend p) {
  simt::begin();
  auto* memory = reinterpret_cast<float*>(simt::shared());
  const int t = simt::block_z(), split = simt::block_x();
  const int h = p.q.heads / p.cache.g, passes = (h + most_queries - 1) / most_queries;
  const int g = simt::block_y() / passes, first_query = simt::block_y() % passes * most_queries;
  const PageLayout layout{format, p.cache.e};
  const Room room{layout.width(), h - first_query < most_queries ? h - first_query : most_queries};
  const int lane = simt::thread() % warp_threads, warp = simt::thread() / warp_threads;

  for (int q = warp; q < room.queries; q += block_warps) {
    const float* from = p.q.data + t * p.q.row_stride + (g * h + first_query + q) * p.q.head_stride;
    round_query(from, p.cache.e, p.rule.scale, format, memory + room.query(q), room.width);
  }
  for (int q = 0; q < room.queries; ++q) {
    for (int i = lane; i < room.width; i += warp_threads) memory[room.values(warp, q) + i] = 0;
    if (lane == 0) {
      memory[room.state(warp, q)] = -infinity();
      memory[room.state(warp, q) + 1] = 0;
    }
  }
  simt::barrier();

  const int last = p.sites.position[t], first = first_position(p.rule, p.sites.position[t]);
  const std::int32_t* pages = p.sites.tables + p.sites.table[t];
  for (int i = split * split_pages + warp; i < (split + 1) * split_pages; i += block_warps) {
    const int begin = i * page_tokens;
    if (begin > last || begin + page_tokens <= first) continue;
    const std::byte* page = p.cache.data + g * p.cache.head_stride + pages[i] * p.cache.page_stride;
    attend_page<format>(p, room, page, first > begin ? first - begin : 0,
                        last - begin < page_tokens ? last - begin : page_tokens - 1, memory);
  }
  simt::barrier();

  for (int q = 0; q < room.queries; ++q) {
    float* part = part_of(p, t, g * h + first_query + q, split);
    const auto state = [&](int w) { return memory + room.state(w, q); };
    const float most = greatest(block_warps, state);
    float shares[block_warps];
#pragma unroll
    for (int w = 0; w < block_warps; ++w) shares[w] = share(state(w)[0], most);
    for (int i = simt::thread(); i < room.width; i += block_threads) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < block_warps; ++w) sum = fmaf(shares[w], memory[room.values(w, q) + i], sum);
      part[2 + i] = sum;
    }
    if (simt::thread() != 0) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < block_warps; ++w) sum = fmaf(shares[w], state(w)[1], sum);
    part[0] = most;
    part[1] = sum;
  }
}

__global__ void __launch_bounds__(block_threads) add_parts(Attend p) {
  simt::begin();
  const int t = simt::block_x(), h = simt::block_y(), width = PageLayout{p.cache.format, p.cache.e}.width();
  const float* parts = part_of(p, t, h, 0);
  const auto part = [&](int s) { return parts + s * (width + 2); };
  float most = greatest(p.splits, part);
  const bool sinks = p.rule.sinks != nullptr;
  if (sinks) most = fmaxf(most, p.rule.sinks[h]);
  float total = sinks ? expf(p.rule.sinks[h] - most) : 0.0F;
  for (int s = 0; s < p.splits; ++s) total = fmaf(share(part(s)[0], most), part(s)[1], total);
  float* y = p.y.data + t * p.y.row_stride + h * p.y.head_stride;
  for (int i = simt::thread(); i < p.cache.e; i += block_threads) {
    float sum = 0;
    for (int s = 0; s < p.splits; ++s) sum = fmaf(share(part(s)[0], most), part(s)[2 + i], sum);
    y[i] = sum / total;
  }
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const Attend& p) noexcept {
  using namespace kernels;
  if (p.q.rows == 0) return {};
  const int h = p.q.heads / p.cache.g, queries = h < most_queries ? h : most_queries;
  const Room room{PageLayout{p.cache.format, p.cache.e}.width(), queries};
  const auto shared = static_cast<std::size_t>(room.floats()) * sizeof(float);
  const dim3 grid{static_cast<unsigned>(p.splits),
                  static_cast<unsigned>(p.cache.g * ((h + most_queries - 1) / most_queries)),
                  static_cast<unsigned>(p.q.rows)};
  Status s{1, "a cache format that no kernel reads"};
  switch (p.cache.format) {
    case CacheFormat::f32: s = launch(attend<CacheFormat::f32>, grid, block_threads, shared, stream_of(c), p); break;
    case CacheFormat::bf16: s = launch(attend<CacheFormat::bf16>, grid, block_threads, shared, stream_of(c), p); break;
    case CacheFormat::int8: s = launch(attend<CacheFormat::int8>, grid, block_threads, shared, stream_of(c), p); break;
  }
  if (!s.ok()) return s;
  return launch(add_parts, {static_cast<unsigned>(p.q.rows), static_cast<unsigned>(p.q.heads), 1}, block_threads, 0,
                stream_of(c), p);
}

}  // namespace finteam::cuda_v0_1
