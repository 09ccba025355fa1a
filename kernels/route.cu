// Routers: which experts rows choose, and the list of each expert's rows that the products read (multiply.cu). One
// block, a warp for each row, in double and in the order of finteam::gate_weights. Bound by latency: E and t are small.
#include "numbers.cuh"

#include <algorithm>

namespace finteam::cuda_v0_1::kernels {
namespace {

inline constexpr int most_warps = 16;

/// A row's weights and whether each stays, in shared memory. [experts]
struct Row {
  double* weight;
  std::int32_t* stays;
};
[[nodiscard]] constexpr std::size_t row_bytes(int experts) {
  return static_cast<std::size_t>(experts + experts % 2) * (sizeof(double) + sizeof(std::int32_t));
}

/// f(i) for a lane's experts; then every lane has done so.
template <class F>
__device__ __forceinline__ void each_expert(int experts, F&& f) {
  for (int i = simt::thread() % warp_threads; i < experts; i += warp_threads) f(i);
  simt::warp_barrier();
}

/// weight = softmax(logits). Returns whether they are numbers.
__device__ __forceinline__ bool find_softmax(const float* logits, int experts, const Row& to) {
  float most = -infinity();
  each_expert(experts, [&](int i) { most = fmaxf(most, logits[i]); });
  const auto largest = static_cast<double>(warp_max(most));
  each_expert(experts, [&](int i) { to.weight[i] = exp(static_cast<double>(logits[i]) - largest); });
  double sum = 0;
  for (int i = 0; i < experts; ++i) sum += to.weight[i];
  simt::warp_barrier();
  each_expert(experts, [&](int i) { to.weight[i] /= sum; });
  return sum == sum;
}

/// Which weights are among the top_k largest (ties: the lower index). Numbers from 0 to 1 have the order of their bits.
__device__ __forceinline__ void find_largest(int experts, int top_k, const Row& row) {
  each_expert(experts, [&](int i) {
    const auto mine = bits<std::uint64_t>(row.weight[i]);
    int rank = 0;
    for (int j = 0; j < experts; ++j) {
      const auto other = bits<std::uint64_t>(row.weight[j]);
      rank += other > mine || (other == mine && j < i) ? 1 : 0;
    }
    row.stays[i] = rank < top_k ? 1 : 0;
  });
}

/// Of row r: all weights, and the slots of those that are not 0.
__device__ __forceinline__ void choose(const Route& p, int r, const Row& row) {
  const int experts = p.routes.experts, top_k = p.routes.top_k;
  const bool numbers = find_softmax(kernels::row(p.logits, r), experts, row), all = top_k >= experts || !numbers;
  if (all) {
    each_expert(experts, [&](int i) { row.stays[i] = 1; });
  } else {
    find_largest(experts, top_k, row);
  }
  double kept = 0;
  for (int i = 0; i < experts; ++i) kept += row.stays[i] != 0 ? row.weight[i] : 0.0;
  const double share = all || p.renormalise == 0 || kept == 0 ? 1.0 : kept;
  float* weights = kernels::row(p.weights, r);
  simt::warp_barrier();
  each_expert(experts, [&](int i) {
    weights[i] = row.stays[i] != 0 ? static_cast<float>(row.weight[i] / share) : 0.0F;
    row.stays[i] = weights[i] != 0 ? 1 : 0;
  });
  each_expert(experts, [&](int i) {
    int slot = 0;
    for (int j = 0; j < i; ++j) slot += row.stays[j];
    if (row.stays[i] == 0 || slot >= top_k) return;
    p.routes.expert[r * top_k + slot] = i;
    p.routes.weight[r * top_k + slot] = weights[i];
  });
  int used = 0;
  for (int i = 0; i < experts; ++i) used += row.stays[i];
  for (int slot = used + simt::thread() % warp_threads; slot < top_k; slot += warp_threads) {
    p.routes.expert[r * top_k + slot] = -1;
    p.routes.weight[r * top_k + slot] = 0;
  }
  simt::warp_barrier();
}

/// Each expert's pairs, by a thread for each expert. count: shared, [experts].
__device__ __forceinline__ void list_pairs(const Routes& p, std::int32_t* count) {
  const int pairs = p.rows * p.top_k;
  for (int e = simt::thread(); e < p.experts; e += simt::threads()) {
    count[e] = 0;
    for (int i = 0; i < pairs; ++i) count[e] += p.expert[i] == e ? 1 : 0;
  }
  simt::barrier();
  int groups = 0, before = 0;
  for (int e = 0; e < p.experts; ++e) groups += count[e] != 0 ? 1 : 0;
  for (int e = simt::thread(), next = 0; e < p.experts; e += simt::threads()) {
    for (; next < e; ++next) before += count[next] != 0 ? 1 : 0;
    if (count[e] == 0) continue;
    p.groups[2 * before] = e;
    p.groups[2 * before + 1] = count[e];
    std::int32_t* to = p.pairs + std::int64_t{before} * p.rows;
    for (int i = 0; i < pairs; ++i) {
      if (p.expert[i] == e) *to++ = i;
    }
  }
  for (int g = groups + simt::thread(); g < p.group_count(); g += simt::threads()) {
    p.groups[2 * g] = -1;
    p.groups[2 * g + 1] = 0;
  }
}

__global__ void __launch_bounds__(most_warps* warp_threads) route(Route p) {
  simt::begin();
  const int warp = simt::thread() / warp_threads, warps = simt::threads() / warp_threads, experts = p.routes.experts;
  auto* const weight = reinterpret_cast<double*>(simt::shared() + static_cast<std::size_t>(warp) * row_bytes(experts));
  const Row mine{weight, reinterpret_cast<std::int32_t*>(weight + experts)};
  for (int r = warp; r < p.routes.rows; r += warps) choose(p, r, mine);
  simt::barrier();
  list_pairs(p.routes, reinterpret_cast<std::int32_t*>(simt::shared()));
}

}  // namespace
}  // namespace finteam::cuda_v0_1::kernels

namespace finteam::cuda_v0_1 {

Status run(Context* c, const Route& p) noexcept {
  if (p.routes.rows == 0) return {};
  constexpr std::size_t most_bytes = 48 * 1024;
  const std::size_t bytes = kernels::row_bytes(p.routes.experts);
  const auto warps = std::clamp<std::size_t>(most_bytes / bytes, 1,
                                             static_cast<std::size_t>(std::min(p.routes.rows, kernels::most_warps)));
  return kernels::launch(kernels::route, {1, 1, 1}, static_cast<int>(warps) * kernels::warp_threads, warps * bytes,
                         stream_of(c), p);
}

}  // namespace finteam::cuda_v0_1
