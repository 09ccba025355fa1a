// The words of kernels/simt.cuh on the host: each thread of a block is a fiber, blocks run one after the other. Warps
// run until all their lanes wait at the same place, and shared memory starts as NaN, so that what a barrier is missing
// shows. Device memory is the host's: AddressSanitizer sees every access of every kernel. Included by kernels/simt.cuh.
#pragma once

#include <boost/context/fiber.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace finteam::cuda_v0_1::kernels::simt {

/// Blocks at work, one after the other; its fibers live on from one to the next.
class Block {
 public:
  static constexpr int lanes = 32;
  static constexpr std::size_t stack_bytes = 64 * 1024;
  struct Exchange {
    std::array<std::array<std::uint32_t, 8>, lanes> words;
  };

  Block() = default;
  Block(const Block&) = delete;
  /// For the blocks of one launch.
  void shape(dim3 grid, int threads, std::size_t shared_bytes);
  /// Runs body() in every thread of the block at `index`. Throws std::logic_error where threads of a warp part at a
  /// barrier for good.
  void run(dim3 index, const std::function<void()>& body);

  [[nodiscard]] int thread() const noexcept { return current_; }
  [[nodiscard]] int threads() const noexcept { return threads_; }
  [[nodiscard]] const dim3& grid() const noexcept { return grid_; }
  [[nodiscard]] const dim3& index() const noexcept { return index_; }
  [[nodiscard]] std::byte* shared() const noexcept { return shared_.get(); }

  void barrier() { pause(State::at_barrier); }
  void warp_barrier() { pause(State::at_warp_barrier); }
  /// What the lanes of the current warp put here, to be read after a warp_barrier(); each time another one of two.
  [[nodiscard]] Exchange& next_exchange() noexcept;

  /// The one of this thread of the host.
  static Block& current() noexcept {
    thread_local Block block;
    return block;
  }

 private:
  enum class State : std::uint8_t { running, at_warp_barrier, at_barrier, ended };
  struct Fiber {
    boost::context::fiber fiber{};
    boost::context::fiber back{};
    State state = State::running;
    unsigned exchanges = 0;
  };
  void pause(State state);
  void run_warp(int first, int last);
  void add_fiber();

  dim3 grid_, index_{};
  int threads_ = 0;
  std::size_t shared_bytes_ = 0;
  std::unique_ptr<std::byte, void (*)(void*)> shared_{nullptr, std::free};
  std::deque<Fiber> fibers_;
  std::vector<std::array<Exchange, 2>> exchanges_;
  int current_ = 0;
  const std::function<void()>* body_ = nullptr;
};

inline int thread() { return Block::current().thread(); }
inline int threads() { return Block::current().threads(); }
inline int block_x() { return static_cast<int>(Block::current().index().x); }
inline int block_y() { return static_cast<int>(Block::current().index().y); }
inline int block_z() { return static_cast<int>(Block::current().index().z); }
inline int blocks_x() { return static_cast<int>(Block::current().grid().x); }
inline int blocks_y() { return static_cast<int>(Block::current().grid().y); }
inline void barrier() { Block::current().barrier(); }
inline void warp_barrier() { Block::current().warp_barrier(); }
inline std::byte* shared() { return Block::current().shared(); }
inline void wait_for_earlier() {}
inline void let_next_begin() {}
inline void begin() {}

template <class T>
T exchange(T x, int mask) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  auto& words = Block::current().next_exchange().words;
  const int lane = thread() % Block::lanes;
  std::memcpy(words[static_cast<std::size_t>(lane)].data(), &x, sizeof(T));
  warp_barrier();
  std::memcpy(&x, words[static_cast<std::size_t>(lane ^ mask)].data(), sizeof(T));
  return x;
}
inline std::uint32_t add_shared(std::uint32_t* p, std::uint32_t x) {
  *p += x;
  return *p - x;
}

inline Words stream(const void* p) {
  Words v;
  std::memcpy(&v, p, 16);
  return v;
}

inline void prefetch(const void*, int) {}
inline void copy_async(void* to, const void* from) { std::memcpy(to, from, 16); }
inline void close_copies() {}
template <int pending>
void await_copies() {}

/// Where what is given to that stream goes while a graph is made of it; else null.
std::vector<std::function<cuda_v0_1::Status()>>* captured(cuda_v0_1::Stream stream) noexcept;

void load_matrices(std::uint32_t (&to)[4], const void* row);
void load_transposed(std::uint32_t (&to)[4], const void* row);
void mma_bf16(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
              std::uint32_t b1);
void mma_int8(std::int32_t (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
              std::uint32_t b0, std::uint32_t b1);

}  // namespace finteam::cuda_v0_1::kernels::simt

namespace finteam::cuda_v0_1::kernels {

template <class Args>
cuda_v0_1::Status launch(void (*kernel)(Args), dim3 grid, int threads, std::size_t shared, cuda_v0_1::Stream stream,
                         const Args& args) {
  if (auto* later = simt::captured(stream)) {
    later->push_back([=] { return launch(kernel, grid, threads, shared, cuda_v0_1::Stream{}, args); });
    return {};
  }
  if (threads < 1 || threads > 1024 || shared > 99 * 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.y > 65535 || grid.z > 65535) {
    return {1, "invalid configuration argument"};
  }
  try {
    simt::Block& block = simt::Block::current();
    block.shape(grid, threads, shared);
    const std::function<void()> body = [&] { kernel(args); };
    for (unsigned z = 0; z < grid.z; ++z) {
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) block.run({x, y, z}, body);
      }
    }
  } catch (const std::logic_error&) {
    return {700, "threads that wait for each other"};
  }
  return {};
}

}  // namespace finteam::cuda_v0_1::kernels
