// How the benches time: warm up, repeat, median and spread; and the machine's own limits, probed in the same run
// (the best of several: a limit is what can be reached).
// Not here: any question. Each bench/*.cpp asks one.
#pragma once

#include <finteam/backend/cpu/simd.hpp>
#include <finteam/backend/thread_pool.hpp>
#include <finteam/core/tensor.hpp>
#include <finteam/file/json.hpp>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace bench {

using finteam::index_t;

/// Median, least and greatest seconds of `repeats` calls, after one that does not count.
struct Seconds {
  double median = 0, least = 0, most = 0;
};

template <class F>
Seconds time(int repeats, F&& f) {
  f();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

/// The best GB/s at which `threads` threads together read `bytes` bytes again and again (each its own part, in order).
inline double read_gbps(finteam::ThreadPool& pool, std::size_t bytes) {
  using Lane = xsimd::batch<float>;
  constexpr std::size_t step = 8 * Lane::size;
  const std::size_t threads = static_cast<std::size_t>(pool.concurrency());
  const std::size_t part = std::max<std::size_t>(bytes / sizeof(float) / threads / step, 1) * step;
  finteam::Tensor<float, 1> data({static_cast<index_t>(part * threads)});
  std::fill(data.data(), data.data() + data.size(), 1.0F);
  std::vector<float> sums(threads * 16);
  const int passes =
      static_cast<int>(std::max<std::size_t>(1, (std::size_t{64} << 20) / (part * threads * sizeof(float))));
  const Seconds s = time(9, [&] {
    finteam::parallel_for(pool, static_cast<index_t>(threads), [&](index_t t) {
      Lane sum[8] = {};
      for (int pass = 0; pass < passes; ++pass) {
        const float* p = data.data() + static_cast<std::size_t>(t) * part;
        for (const float* end = p + part; p < end; p += step) {
          for (std::size_t i = 0; i < 8; ++i) sum[i] += Lane::load_aligned(p + i * Lane::size);
        }
      }
      for (std::size_t i = 1; i < 8; ++i) sum[0] += sum[i];
      sums[static_cast<std::size_t>(t) * 16] = sum[0].get(0);
    });
  });
  if (!(sums[0] > 0)) return 0;
  return static_cast<double>(part * threads * sizeof(float)) * passes / s.least / 1e9;
}

/// The best Gflop/s of float multiply-adds in registers, all threads together (2 per multiply-add).
inline double peak_gflops(finteam::ThreadPool& pool) {
  using Lane = xsimd::batch<float>;
  constexpr int rounds = 2'000'000, chains = 12;
  const std::size_t threads = static_cast<std::size_t>(pool.concurrency());
  std::vector<float> sums(threads * 16);
  const Seconds s = time(7, [&] {
    finteam::parallel_for(pool, static_cast<index_t>(threads), [&](index_t t) {
      Lane a[chains];
      for (int i = 0; i < chains; ++i) a[i] = Lane(static_cast<float>(i));
      const Lane x(0.999F), y(0.001F);
      for (int r = 0; r < rounds; ++r) {
        for (Lane& v : a) v = finteam::detail::simd::fmadd(v, x, y);
      }
      for (int i = 1; i < chains; ++i) a[0] += a[i];
      sums[static_cast<std::size_t>(t) * 16] = a[0].get(0);
    });
  });
  if (!(sums[0] > 0)) return 0;
  return 2.0 * chains * rounds * static_cast<double>(Lane::size) * static_cast<double>(threads) / s.least / 1e9;
}

/// The processor's name, as the system tells it.
inline std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

#if defined(__clang__)
inline constexpr const char* compiler = "clang " __clang_version__;
#else
inline constexpr const char* compiler = "gcc " __VERSION__;
#endif

/// Machine, compiler, flags and commit of a run.
inline finteam::Json machine(int threads, const std::string& commit) {
  return {{"processor", processor()},
          {"cores", std::thread::hardware_concurrency()},
          {"threads", threads},
          {"compiler", compiler},
          {"flags", FINTEAM_BENCH_FLAGS},
          {"instruction_set", xsimd::default_arch::name()},
          {"commit", commit}};
}

}  // namespace bench
