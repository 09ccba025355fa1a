// Keys and values to their pages, a warp for each row and head, which turns queries and keys by the way; and pages over
// pages.
#include "numbers.cuh"

namespace finteam::cuda_v0_1::kernels {
namespace {

inline constexpr int copy_threads = 256;

__device__ __forceinline__ std::byte* page_of(const Cache& cache, std::int64_t page, std::int64_t head) {
  return cache.data + head * cache.head_stride + page * cache.page_stride;
}
__device__ __forceinline__ const float* head_of(const Heads& x, std::int64_t t, std::int64_t head) {
  return x.data + t * x.row_stride + head * x.head_stride;
}

/// Element i in the cache's format; int8: by the scale that it is rounded with.
__device__ __forceinline__ void store(CacheFormat format, std::byte* page, std::int64_t at, float x, float inverse) {
  if (format == CacheFormat::f32) {
    put(page, at, x);
  } else if (format == CacheFormat::bf16) {
    put(page, at, to_bf16(x));
  } else {
    put(page, at, static_cast<std::int8_t>(to_byte(x, inverse)));
  }
}

/// A head of row t turned by its angles, by a warp. As elementwise.cu's rope, bit for bit.
__device__ __forceinline__ void turn(const Rope& p, std::int64_t t, std::int64_t head) {
  float* x = p.x.data + t * p.x.row_stride + head * p.x.head_stride;
  const std::int64_t half = p.cosine.n;
  for (std::int64_t j = simt::thread(); j < half; j += warp_threads) {
    const float c = row(p.cosine, t)[j], s = row(p.sine, t)[j], a = x[j], b = x[j + half];
    x[j] = fmaf(-b, s, a * c);
    x[j + half] = fmaf(a, s, b * c);
  }
}

/// Key and value of row t to their page, by a warp. Stored values are always finite: one that is not makes its own key
/// NaN instead, and is zero.
__device__ __forceinline__ void write(const CacheWrite& p, std::int64_t t, std::int64_t head) {
  const std::int64_t lane = simt::thread();
  const PageLayout layout{p.cache.format, p.cache.e};
  const std::int32_t position = p.sites.position[t];
  const std::int32_t* pages = p.sites.tables + p.sites.table[t];
  std::byte* page = page_of(p.cache, pages[position / page_tokens], head);
  const std::int64_t slot = position % page_tokens;
  const float *key = head_of(p.k, t, head), *value = head_of(p.v, t, head);

  std::uint32_t most = 0;
  for (std::int64_t i = lane; i < layout.e; i += warp_threads) {
    most = magnitude(value[i]) > most ? magnitude(value[i]) : most;
  }
  most = warp_max(most);
  const bool finite = most <= (layout.format == CacheFormat::f32 ? 0x7F7FFFFFU : 0x7F7F7FFFU);  // once rounded, too
  const ActivationScale of_value = activation_scale(finite ? most : 0);
  for (std::int64_t i = lane; i < pad(layout.e, group_inputs); i += warp_threads) {
    const bool inside = i < layout.e;
    const float k = !inside ? 0.0F : !finite && i == 0 ? not_a_number() : key[i];
    const ActivationScale of_key = key_scale(warp_max(magnitude(k)));
    if (!inside) continue;
    store(layout.format, page, layout.key(slot, i), k, of_key.inverse);
    store(layout.format, page, layout.value(slot, i), finite ? value[i] : 0.0F, of_value.inverse);
    if (layout.format == CacheFormat::int8 && lane == 0) put(page, layout.key_scale(slot, i), of_key.scale);
  }
  if (layout.format == CacheFormat::int8 && lane == 0) put(page, layout.value_scale(slot), of_value.scale);
}

__global__ void cache_write(CacheWrite p) {
  simt::begin();
  write(p, simt::block_x(), simt::block_y());
}

/// The keys are the last heads that are turned.
__global__ void turn_and_write(TurnAndWrite p) {
  simt::begin();
  const std::int64_t t = simt::block_x(), head = simt::block_y(), queries = p.turn.x.heads - p.write.k.heads;
  turn(p.turn, t, head);
  if (head < queries) return;
  simt::warp_barrier();
  write(p.write, t, head - queries);
}

__global__ void cache_copy(CacheCopy p) {
  simt::begin();
  const std::int64_t head = simt::block_x();
  const std::byte* from = page_of(p.cache, p.from, head);
  std::byte* to = page_of(p.cache, p.to, head);
  for (std::int64_t i = 16 * simt::thread(); i < p.cache.page_stride; i += 16 * copy_threads) {
    put(to, i, at<Words>(from, i));
  }
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const CacheWrite& p) noexcept {
  if (p.k.rows == 0) return {};
  const dim3 grid{static_cast<unsigned>(p.k.rows), static_cast<unsigned>(p.k.heads), 1};
  return kernels::launch(kernels::cache_write, grid, kernels::warp_threads, 0, stream_of(c), p);
}
Status run(Context* c, const TurnAndWrite& p) noexcept {
  if (p.turn.x.rows == 0) return {};
  const dim3 grid{static_cast<unsigned>(p.turn.x.rows), static_cast<unsigned>(p.turn.x.heads), 1};
  return kernels::launch(kernels::turn_and_write, grid, kernels::warp_threads, 0, stream_of(c), p);
}
Status run(Context* c, const CacheCopy& p) noexcept {
  return kernels::launch(kernels::cache_copy, {static_cast<unsigned>(p.cache.g), 1, 1}, kernels::copy_threads, 0,
                         stream_of(c), p);
}

}  // namespace finteam::cuda_v0_1
