// Work cut into chunks for an executor: large enough to be worth a thread, each in its own FpEnvironment.
// Not here: any influence on results; where the cuts fall changes no bit (law 3).
#pragma once

#include <finteam/backend/executor.hpp>
#include <finteam/backend/fp_environment.hpp>

#include <algorithm>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// Multiply-adds (or operations of their cost) below which handing work to another thread costs more than doing it.
inline constexpr index_t worthwhile_work = 32 * 1024;

/// The number of items for one chunk: a few chunks for each thread, none smaller than `worthwhile_work` nor than 1.
[[nodiscard]] inline index_t chunk_size(const ExecutorRef& executor, index_t count, index_t work_per_item) {
  const index_t threads = std::max<index_t>(executor.concurrency(), 1);
  if (threads == 1) return std::max<index_t>(count, 1);
  const index_t least = worthwhile_work / std::max<index_t>(work_per_item, 1) + 1;
  return std::max(least, count / (4 * threads));
}

/// f(first, last) over chunks of [0, count), at most `size` long; on the calling thread if there is one chunk only.
template <class F>
void for_chunks(const ExecutorRef& executor, index_t count, index_t size, F&& f) {
  if (count <= 0) return;
  if (count <= size) {
    with_fp_environment(f, index_t{0}, count);
    return;
  }
  parallel_for(executor, (count - 1) / size + 1, [&](index_t chunk) {
    const index_t first = chunk * size;
    with_fp_environment(f, first, std::min(count, first + size));
  });
}

/// f(first, last) over [0, count) in chunks that halve, `least` long at the end: a thread that streams memory wants one
/// long run, and the last chunks even out what the threads differ by.
template <class F>
void for_halving_chunks(const ExecutorRef& executor, index_t count, index_t least, F&& f) {
  const index_t threads = std::max<index_t>(executor.concurrency(), 1);
  index_t levels = 0;
  while (count >> levels > 2 * least * threads) ++levels;
  if (threads == 1 || count <= least) return for_chunks(executor, count, count, f);
  parallel_for(executor, threads * (levels + 1), [&](index_t chunk) {
    const index_t level = chunk / threads, piece = chunk % threads;
    const index_t begin = count - (count >> level), end = level == levels ? count : count - (count >> (level + 1));
    const index_t first = begin + (end - begin) * piece / threads, last = begin + (end - begin) * (piece + 1) / threads;
    if (first < last) with_fp_environment(f, first, last);
  });
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
