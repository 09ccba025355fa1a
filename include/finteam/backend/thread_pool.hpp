// A fork-join pool of threads for callers that have none: an Executor that starts its threads when it is made.
// Not here: queues, futures, priorities. The library itself makes no pool.
#pragma once

#include <finteam/backend/executor.hpp>
#include <finteam/core/error.hpp>

#include <atomic>
#include <cstdint>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace finteam::inline FINTEAM_ABI {

/// Where a pool's threads run.
enum class Pin : std::uint8_t {
  none,   ///< where the system likes
  cores,  ///< each on a processor of its own, of those that the thread which makes the pool may use; Linux only
};

/// Runs tasks on `threads` threads, the caller's among them. The threads wait for work by spinning for a tenth
/// of a millisecond or so and then asleep. run() allocates nothing. A run() that finds the pool at work (called from
/// within a task, or by a second thread at the same time) does its tasks on the calling thread alone, so neither can
/// deadlock.
class ThreadPool {
 public:
  static constexpr index_t max_threads = 1024;

  /// Starts threads - 1 threads. Pinned, they take the last of the processors: the first are left to the caller's
  /// thread, which is not touched. Throws Error(invalid_argument) unless 1 ≤ threads ≤ max_threads, Error(system) if
  /// one cannot be started or pinned.
  explicit ThreadPool(index_t threads, Pin pin = Pin::none) {
    if (threads < 1 || threads > max_threads) {
      throw Error(Code::invalid_argument, "ThreadPool: threads", "1 to " + std::to_string(max_threads),
                  std::to_string(threads));
    }
    try {
      workers_.reserve(static_cast<std::size_t>(threads - 1));
      while (workers_.size() + 1 < static_cast<std::size_t>(threads)) workers_.emplace_back([this] { work(); });
      if (pin == Pin::cores) pin_workers();
    } catch (const Error&) {
      stop();
      throw;
    } catch (const std::system_error& e) {
      stop();
      throw Error(Code::system, "ThreadPool", std::to_string(threads) + " threads", e.what());
    } catch (...) {
      stop();
      throw;
    }
  }
  /// Joins the threads. No run() may be under way.
  ~ThreadPool() { stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// How many tasks may run at once.
  [[nodiscard]] index_t concurrency() const noexcept { return static_cast<index_t>(workers_.size()) + 1; }

  /// work.run(work.context, i) for every i in [0, count); returns when all have finished.
  void run(index_t count, Work work) noexcept {
    if (count <= 1 || workers_.empty() || busy_.test_and_set(std::memory_order_acquire)) {
      Serial{}.run(count, work);
      return;
    }
    work_ = work;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    // The gate was closed and nobody inside: a new round, open. Publishes the three fields above.
    state_.store(((state_.load(std::memory_order_relaxed) & round_mask) + one_round) | open, std::memory_order_release);
    state_.notify_all();
    take_tickets();
    state_.fetch_and(~open, std::memory_order_relaxed);
    wait_until_nobody_inside();
    busy_.clear(std::memory_order_release);
  }

 private:
  // One word: the round's number, whether its gate is open, whether the pool stops, and how many workers are inside.
  // A worker enters while the gate is open, so one that wakes late costs the caller nothing.
  static constexpr std::uint32_t inside_mask = 0x7FF, open = 0x800, stopping = 0x1000, one_round = 0x2000,
                                 round_mask = ~std::uint32_t{0x1FFF};
  static constexpr int spins = 10000;

  void pin_workers() {
#if defined(__linux__)
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    std::vector<int> processors;
    if (::sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
      for (int i = CPU_SETSIZE; i-- > 0;) {
        if (CPU_ISSET(i, &allowed)) processors.push_back(i);
      }
    }
    if (processors.size() <= workers_.size()) {
      throw Error(Code::system, "ThreadPool: pinned", std::to_string(workers_.size() + 1) + " processors",
                  std::to_string(processors.size()));
    }
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(processors[i], &one);
      const int status = ::pthread_setaffinity_np(workers_[i].native_handle(), sizeof one, &one);
      if (status != 0) {
        throw Error(Code::system, "ThreadPool: pinned", "a thread on processor " + std::to_string(processors[i]),
                    std::system_category().message(status));
      }
    }
#endif
  }

  static void pause() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void take_tickets() noexcept {
    for (;;) {
      const index_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= count_) return;
      work_.run(work_.context, i);
    }
  }

  /// Waits until done(state), first spinning, then asleep; returns that state.
  template <class Done>
  std::uint32_t wait_for(Done done) const noexcept {
    for (int spin = 0;; ++spin) {
      const std::uint32_t state = state_.load(std::memory_order_acquire);
      if (done(state)) return state;
      if (spin < spins) {
        pause();
      } else {
        state_.wait(state, std::memory_order_acquire);
      }
    }
  }

  void wait_until_nobody_inside() const noexcept {
    wait_for([](std::uint32_t state) { return (state & inside_mask) == 0; });
  }

  void work() noexcept {
    std::uint32_t last_round = 0;
    for (;;) {
      std::uint32_t state = wait_for([last_round](std::uint32_t s) {
        return (s & stopping) != 0 || ((s & open) != 0 && (s & round_mask) != last_round);
      });
      if ((state & stopping) != 0) return;
      if (!state_.compare_exchange_strong(state, state + 1, std::memory_order_acquire, std::memory_order_relaxed))
        continue;
      last_round = state & round_mask;
      take_tickets();
      const std::uint32_t left = state_.fetch_sub(1, std::memory_order_release) - 1;
      if ((left & (inside_mask | open)) == 0) state_.notify_all();
    }
  }

  void stop() noexcept {
    state_.fetch_or(stopping, std::memory_order_release);
    state_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  alignas(64) std::atomic<std::uint32_t> state_{0};
  alignas(64) std::atomic<index_t> next_{0};
  index_t count_ = 0;
  Work work_;
  std::atomic_flag busy_;
  std::vector<std::thread> workers_;
};

static_assert(Executor<ThreadPool>);

}  // namespace finteam::inline FINTEAM_ABI
