#include <finteam/backend/thread_pool.hpp>

#include "catch.hpp"

#include <array>
#include <atomic>
#include <thread>
#include <vector>

using namespace finteam;

TEST_CASE("a pool runs every index exactly once, for any count and number of threads", "[backend]") {
  for (const index_t threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    REQUIRE(pool.concurrency() == threads);
    for (const index_t count : {0, 1, 2, 7, 64, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
      parallel_for(pool, count, [&](index_t i) { runs[static_cast<std::size_t>(i)].fetch_add(1); });
      for (const auto& n : runs) REQUIRE(n.load() == 1);
    }
  }
}

TEST_CASE("what tasks write is seen by the caller, round after round", "[backend]") {
  ThreadPool pool(3);
  std::array<index_t, 16> cells{};
  for (index_t round = 1; round <= 2000; ++round) {
    parallel_for(pool, 16, [&](index_t i) { cells[static_cast<std::size_t>(i)] += round; });
    if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the workers fall asleep
  }
  for (const index_t cell : cells) REQUIRE(cell == 2000 * 2001 / 2);
}

TEST_CASE("a task may use the pool that runs it", "[backend]") {
  ThreadPool pool(2);
  std::atomic<int> runs{0};
  parallel_for(pool, 8, [&](index_t) { parallel_for(pool, 8, [&](index_t) { runs.fetch_add(1); }); });
  REQUIRE(runs.load() == 64);
}

TEST_CASE("two threads may use one pool at the same time", "[backend]") {
  ThreadPool pool(2);
  std::atomic<int> runs{0};
  const auto use = [&] {
    for (int round = 0; round < 200; ++round) parallel_for(pool, 5, [&](index_t) { runs.fetch_add(1); });
  };
  std::thread other(use);
  use();
  other.join();
  REQUIRE(runs.load() == 2 * 200 * 5);
}

TEST_CASE("a pool of no threads or too many is refused", "[backend]") {
  for (const index_t threads : {index_t{0}, index_t{-1}, ThreadPool::max_threads + 1}) {
    try {
      ThreadPool pool(threads);
      FAIL("made");
    } catch (const Error& e) {
      REQUIRE(e.code() == Code::invalid_argument);
      REQUIRE(e.found() == std::to_string(threads));
    }
  }
}

TEST_CASE("an executor reference without an executor runs everything in order on the caller", "[backend]") {
  std::vector<index_t> order;
  parallel_for(ExecutorRef{}, 4, [&](index_t i) { order.push_back(i); });
  REQUIRE(order == std::vector<index_t>{0, 1, 2, 3});
  REQUIRE(ExecutorRef{}.concurrency() == 1);
}

#if defined(__linux__)
TEST_CASE("a pinned pool's threads each stay on a processor of their own, and the caller's thread on all of its",
          "[backend]") {
  cpu_set_t allowed;
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  if (CPU_COUNT(&allowed) < 2) {
    WARN("skipped: one processor only");
    return;
  }
  ThreadPool pool(2, Pin::cores);
  cpu_set_t worker;
  CPU_ZERO(&worker);
  std::atomic<bool> both{false};
  const std::thread::id caller = std::this_thread::get_id();
  parallel_for(pool, 2, [&](index_t) {  // the two tasks wait for each other, so each has a thread of its own
    if (std::this_thread::get_id() != caller) {
      sched_getaffinity(0, sizeof worker, &worker);
      both = true;
    } else {
      while (!both) std::this_thread::yield();
    }
  });
  REQUIRE(CPU_COUNT(&worker) == 1);
  cpu_set_t after;
  REQUIRE(sched_getaffinity(0, sizeof after, &after) == 0);
  REQUIRE(CPU_EQUAL(&allowed, &after));
  REQUIRE_THROWS_AS(ThreadPool(CPU_COUNT(&allowed) + 1, Pin::cores), Error);
}
#endif
