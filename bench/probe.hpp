// What the machine can do, probed in some tens of milliseconds so that every timing can stand between two probes: bytes
// read from memory, operations in registers, and where the threads are (a cache line sent to and fro).
// Not here: what is timed (harness.hpp).
#pragma once

#include <finteam/backend/thread_pool.hpp>

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <new>
#include <string_view>
#include <thread>
#include <vector>

namespace bench {

using finteam::index_t;

/// Seconds since some moment.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Spins until done(); gives the core away when that takes long, for the one that is waited for may need it.
template <class Done>
void spin_until(Done&& done) {
  for (int i = 0; !done(); ++i) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (i > 1000) std::this_thread::yield();
  }
}

/// f(thread) on all threads of the pool at once, none before all are there; the seconds from the first that began to
/// the last that ended.
template <class F>
double on_every_thread(finteam::ThreadPool& pool, F&& f) {
  const index_t n = pool.concurrency();
  std::atomic<index_t> arrived{0};
  std::vector<double> begin(static_cast<std::size_t>(n)), end(static_cast<std::size_t>(n));
  finteam::parallel_for(pool, n, [&](index_t i) {
    arrived.fetch_add(1);
    spin_until([&] { return arrived.load() == n; });
    begin[static_cast<std::size_t>(i)] = now();
    f(i);
    end[static_cast<std::size_t>(i)] = now();
  });
  return *std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end());
}

// --- where the threads are -------------------------------------------------------------------------------------------

/// Told by the time of a cache line from one thread to another, one way.
enum class Die : std::uint8_t {
  same,   ///< one die, or one thread only
  two,    ///< two dies, or sockets: 80 ns or more
  core,   ///< two threads of one core: 22 ns or less
  moved,  ///< the probes before and after do not agree, or another process took a core meanwhile
};

constexpr std::string_view name(Die die) {
  constexpr std::string_view names[] = {"same", "two", "core", "moved"};
  return names[static_cast<std::size_t>(die)];
}

constexpr Die die_of(double one_way_ns) {
  return one_way_ns >= 80 ? Die::two : one_way_ns > 22 || one_way_ns == 0 ? Die::same : Die::core;
}

/// Nanoseconds of a cache line from the first thread to the farthest of the next few, one way; 0 for a single thread.
inline double one_way_ns(finteam::ThreadPool& pool) {
  constexpr int trips = 300, tries = 4, stop = -1;
  const index_t partners = std::min<index_t>(pool.concurrency(), 16);
  struct alignas(128) Line {
    std::atomic<int> turn{0};
  };
  std::vector<Line> lines(16);
  double farthest = 0;
  on_every_thread(pool, [&](index_t thread) {
    for (index_t partner = 1; partner < partners; ++partner) {
      std::atomic<int>& turn = lines[static_cast<std::size_t>(partner)].turn;
      if (thread == partner) {  // odd turns are the partner's
        int seen = 0;
        while (seen != stop) {
          spin_until([&] { return (seen = turn.load(std::memory_order_acquire)) == stop || seen % 2 == 1; });
          if (seen != stop) turn.store(seen + 1, std::memory_order_release);
        }
      } else if (thread == 0) {
        double best = 1;
        const double begin = now();
        for (int t = 0; t < tries && now() - begin < 0.005; ++t) {
          const double start = now();
          for (int i = 2 * t * trips; i < 2 * (t + 1) * trips; i += 2) {
            turn.store(i + 1, std::memory_order_release);
            spin_until([&] { return turn.load(std::memory_order_acquire) == i + 2; });
          }
          best = std::min(best, (now() - start) / (2 * trips));
        }
        turn.store(stop, std::memory_order_release);
        farthest = std::max(farthest, best * 1e9);
      }
    }
  });
  return farthest;
}

/// Gives each thread of the pool a core of its own for as long as this lives, if there are enough; else does nothing.
/// A scheduler that puts two of them on one core for some milliseconds would be measured instead of the kernels.
class Pinned {
 public:
  explicit Pinned(finteam::ThreadPool& pool) : pool_(pool) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < pool.concurrency()) return;
    std::vector<int> cores;
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &allowed)) cores.push_back(core);
    }
    on_every_thread(pool_, [&](index_t thread) {
      const auto i = static_cast<std::size_t>(thread);
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cores[i], &one);
      sched_setaffinity(0, sizeof one, &one);
    });
    all_ = allowed;
    pinned_ = true;
  }
  ~Pinned() {
    if (!pinned_) return;
    on_every_thread(pool_, [&](index_t) { sched_setaffinity(0, sizeof all_, &all_); });
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  finteam::ThreadPool& pool_;
  cpu_set_t all_{};
  bool pinned_ = false;
};

// --- operations in registers -----------------------------------------------------------------------------------------

/// The instruction against which a product's operations are counted: float, bf16 pairs, u8 · s8 fours.
enum class Peak : std::uint8_t { f32, bf16, int8 };

#if defined(__AVX512F__) && defined(__AVX512BW__)
inline constexpr std::size_t register_bytes = 64;
#elif defined(__AVX2__) && defined(__FMA__)
inline constexpr std::size_t register_bytes = 32;
#else
inline constexpr std::size_t register_bytes = 16;
#endif

/// One vector register. The steps below are assembly, which no compiler spills, contracts or leaves out.
typedef float Register __attribute__((vector_size(register_bytes)));

/// acc += a · b in float; `ops` counts two for each multiply-add.
struct F32Step {
  static constexpr double ops = 2.0 * register_bytes / 4;
  [[gnu::always_inline]] void operator()(Register& acc, const Register& a, const Register& b) const {
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
    asm volatile("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
#elif defined(__x86_64__)
    Register t = a;
    asm volatile("mulps %2, %1\n\taddps %1, %0" : "+x"(acc), "+x"(t) : "x"(b));
#else
    acc = acc + a * b;
#endif
  }
};

/// acc += a · b in bf16 pairs; without such an instruction, as floats.
struct Bf16Step {
#if defined(__AVX512BF16__)
  static constexpr double ops = 2.0 * register_bytes / 2;
  [[gnu::always_inline]] void operator()(Register& acc, const Register& a, const Register& b) const {
    asm volatile("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
  }
#else
  static constexpr double ops = F32Step::ops;
  [[gnu::always_inline]] void operator()(Register& acc, const Register& a, const Register& b) const {
    F32Step{}(acc, a, b);
  }
#endif
};

/// acc += a · b, u8 · s8 in fours; without such an instruction, the three (SSE2: two, on 16 bits) that do it.
struct Int8Step {
#if defined(__AVX512BW__) || defined(__AVX2__)
  static constexpr double ops = 2.0 * register_bytes;
#elif defined(__x86_64__)
  static constexpr double ops = 2.0 * register_bytes / 2;
#else
  static constexpr double ops = F32Step::ops;
#endif
  [[gnu::always_inline]] void operator()(Register& acc, const Register& a, const Register& b) const {
#if defined(__AVX512VNNI__)
    asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
#elif defined(__AVXVNNI__) && !defined(__AVX512BW__)
    asm volatile("{vex} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
#elif defined(__AVX512BW__) || defined(__AVX2__)
    Register t;
    asm volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %3, %1, %1\n\tvpaddd %1, %0, %0"
                 : "+v"(acc), "=&v"(t)
                 : "v"(a), "v"(b));
#elif defined(__x86_64__)
    Register t = a;
    asm volatile("pmaddwd %2, %1\n\tpaddd %1, %0" : "+x"(acc), "+x"(t) : "x"(b));
#else
    F32Step{}(acc, a, b);
#endif
  }
};

/// Gop/s of a step on all threads of the pool, once (a fraction of a millisecond).
template <class Step>
double gops_of(finteam::ThreadPool& pool) {
  constexpr int rounds = 100'000, chains = 12;
  std::vector<float> sinks(static_cast<std::size_t>(pool.concurrency()) * 32);
  const double seconds = on_every_thread(pool, [&](index_t thread) {
    const Register a = Register{} + 0.5F, b = Register{} + 0.25F;
    Register c0{}, c1{}, c2{}, c3{}, c4{}, c5{}, c6{}, c7{}, c8{}, c9{}, c10{}, c11{};  // GCC 12 keeps no array of them
    constexpr Step step;
    for (int r = 0; r < rounds; ++r) {
      step(c0, a, b), step(c1, a, b), step(c2, a, b), step(c3, a, b), step(c4, a, b), step(c5, a, b);
      step(c6, a, b), step(c7, a, b), step(c8, a, b), step(c9, a, b), step(c10, a, b), step(c11, a, b);
    }
    const Register sum = c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11;
    sinks[static_cast<std::size_t>(thread) * 32] = sum[0];
  });
  return Step::ops * chains * rounds * static_cast<double>(pool.concurrency()) / seconds / 1e9;
}

inline double gops_once(finteam::ThreadPool& pool, Peak peak) {
  switch (peak) {
    case Peak::f32: return gops_of<F32Step>(pool);
    case Peak::bf16: return gops_of<Bf16Step>(pool);
    default: return gops_of<Int8Step>(pool);
  }
}

// --- bytes from memory -----------------------------------------------------------------------------------------------

/// Bytes that the caches of so many threads do not hold: 256 MB, or more where the last cache is large.
inline std::size_t beyond_caches(index_t threads) {
  std::size_t last = 0;  // KiB; sysconf tells nonsense of some processors
  std::ifstream("/sys/devices/system/cpu/cpu0/cache/index3/size") >> last;
  return std::clamp(2048 * last * static_cast<std::size_t>(threads), std::size_t{256} << 20, std::size_t{2} << 30);
}

/// Memory to be read, in huge pages where the system gives them.
class ReadBuffer {
 public:
  explicit ReadBuffer(std::size_t bytes) : bytes_(bytes), mapped_(bytes + huge) {
    void* p = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(p);
    data_ = base_ + (huge - reinterpret_cast<std::uintptr_t>(base_) % huge) % huge;
    madvise(data_, bytes_, MADV_HUGEPAGE);
    std::memset(data_, 1, bytes_);
  }
  ~ReadBuffer() { munmap(base_, mapped_); }
  ReadBuffer(const ReadBuffer&) = delete;
  ReadBuffer& operator=(const ReadBuffer&) = delete;

  /// GB/s of reading all of it once or, if it is small, some times over; each thread its own part, as two streams.
  double gbps_once(finteam::ThreadPool& pool) {
    constexpr std::size_t lanes = 4, step = 2 * lanes * sizeof(Word);
    const std::size_t threads = static_cast<std::size_t>(pool.concurrency());
    const std::size_t words = std::max(bytes_ / threads / step, std::size_t{1}) * lanes;  // of one stream
    if (2 * words * sizeof(Word) * threads > bytes_) return 0;
    const std::size_t read = 2 * words * sizeof(Word) * threads;
    const int passes = static_cast<int>(std::max<std::size_t>(1, (std::size_t{64} << 20) / read));
    std::vector<long long> sinks(threads * 16);
    const double seconds = on_every_thread(pool, [&](index_t thread) {
      Word sum[2 * lanes] = {};
      for (int pass = 0; pass < passes; ++pass) {
        const Word* p = reinterpret_cast<const Word*>(data_) + 2 * words * static_cast<std::size_t>(thread);
        for (const Word* end = p + words; p < end; p += lanes) {
#pragma GCC unroll 4
          for (std::size_t i = 0; i < lanes; ++i) {
            sum[i] += p[i];
            sum[lanes + i] += p[words + i];
          }
        }
      }
      for (std::size_t i = 1; i < 2 * lanes; ++i) sum[0] += sum[i];
      sinks[static_cast<std::size_t>(thread) * 16] = sum[0][0];
    });
    return sinks[0] != 0 ? static_cast<double>(read) * passes / seconds / 1e9 : 0;
  }

 private:
  typedef long long Word __attribute__((vector_size(register_bytes), may_alias));
  static constexpr std::size_t huge = std::size_t{2} << 20;

  std::size_t bytes_, mapped_;
  std::byte *base_ = nullptr, *data_ = nullptr;
};

// --- all of it -------------------------------------------------------------------------------------------------------

/// The best that a few short tries reached.
struct Limits {
  double read_gbps = 0, peak_gops = 0, one_way_ns = 0;
};

/// Probes one pool's threads: reading as many bytes as a step does (at most what no cache holds), and one instruction.
class Probe {
 public:
  Probe(finteam::ThreadPool& pool, double bytes)
      : pool_(pool),
        buffer_(
            static_cast<std::size_t>(std::clamp(bytes, 1e6, static_cast<double>(beyond_caches(pool.concurrency()))))) {}

  Limits operator()(Peak peak) {
    Limits best{.one_way_ns = one_way_ns(pool_)};
    for (int i = 0; i < 3; ++i) {
      best.read_gbps = std::max(best.read_gbps, buffer_.gbps_once(pool_));
      best.peak_gops = std::max(best.peak_gops, gops_once(pool_, peak));
    }
    return best;
  }

 private:
  finteam::ThreadPool& pool_;
  ReadBuffer buffer_;
};

}  // namespace bench
