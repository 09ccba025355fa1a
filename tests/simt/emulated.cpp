#include <simt.cuh>

#include <boost/context/fixedsize_stack.hpp>

#include <algorithm>
#include <utility>

namespace finteam::cuda_v0_1::kernels::simt {
namespace {

std::size_t index_of(int i) { return static_cast<std::size_t>(i); }

float bf16_at(std::uint32_t word, int half) {
  return std::bit_cast<float>(half == 0 ? word << 16 : word & 0xFFFF0000U);
}
int byte_at(std::uint32_t word, int i) { return static_cast<std::int8_t>(word >> (8 * i)); }

/// The fragments of all lanes of the warp.
Block::Exchange& share(std::array<std::uint32_t, 8> mine) {
  Block::Exchange& all = Block::current().next_exchange();
  all.words[index_of(thread() % Block::lanes)] = mine;
  warp_barrier();
  return all;
}

/// f(i, row, column) for the four sums of this lane.
template <class F>
void each_sum(F&& f) {
  const int lane = thread() % Block::lanes;
  for (int i = 0; i < 4; ++i) f(i, lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
}

/// Matrix m's row of 8 pairs, of the addresses that the lanes named.
void load_rows(std::uint32_t (&to)[4], const void* row, bool transposed) {
  const auto address = reinterpret_cast<std::uintptr_t>(row);
  const Block::Exchange& all =
      share({static_cast<std::uint32_t>(address), static_cast<std::uint32_t>(address >> 32), 0, 0, 0, 0, 0, 0});
  const int lane = thread() % Block::lanes;
  const auto element = [&](int matrix, int i, int j) {
    const auto& words = all.words[index_of(8 * matrix + i)];
    const auto* from = reinterpret_cast<const std::byte*>(static_cast<std::uintptr_t>(words[0]) |
                                                          static_cast<std::uintptr_t>(words[1]) << 32);
    std::uint16_t x;
    std::memcpy(&x, from + 2 * j, 2);
    return static_cast<std::uint32_t>(x);
  };
  for (int m = 0; m < 4; ++m) {
    const int i = lane / 4, j = lane % 4 * 2;
    to[m] = transposed ? element(m, j, i) | element(m, j + 1, i) << 16 : element(m, i, j) | element(m, i, j + 1) << 16;
  }
  warp_barrier();
}

}  // namespace

void Block::shape(dim3 grid, int threads, std::size_t shared_bytes) {
  grid_ = grid;
  threads_ = threads;
  shared_bytes_ = shared_bytes;
  shared_.reset(static_cast<std::byte*>(std::aligned_alloc(128, (shared_bytes + 127) / 128 * 128)));
  while (fibers_.size() < index_of(threads)) add_fiber();
  exchanges_.resize((fibers_.size() + lanes - 1) / lanes);
}

void Block::add_fiber() {
  Fiber& f = fibers_.emplace_back();
  f.fiber = boost::context::fiber(std::allocator_arg, boost::context::fixedsize_stack(stack_bytes),
                                  [this, &f](boost::context::fiber&& back) {
                                    f.back = std::move(back);
                                    for (;;) {
                                      (*body_)();
                                      f.state = State::ended;
                                      f.back = std::move(f.back).resume();
                                    }
                                    return std::move(f.back);
                                  });
}

void Block::pause(State state) {
  Fiber& self = fibers_[index_of(current_)];
  self.state = state;
  self.back = std::move(self.back).resume();
}

Block::Exchange& Block::next_exchange() noexcept {
  Fiber& self = fibers_[index_of(current_)];
  return exchanges_[index_of(current_ / lanes)][self.exchanges++ % 2];
}

void Block::run_warp(int first, int last) {
  for (;;) {
    bool waits = false, beyond = false;
    for (int i = first; i < last; ++i) {
      Fiber& f = fibers_[index_of(i)];
      if (f.state != State::running) continue;
      current_ = i;
      f.fiber = std::move(f.fiber).resume();
    }
    for (int i = first; i < last; ++i) {
      const State s = fibers_[index_of(i)].state;
      waits |= s == State::at_warp_barrier;
      beyond |= s == State::at_barrier || s == State::ended;
    }
    if (!waits) return;
    if (beyond) throw std::logic_error("lanes of a warp wait for others that do not come");
    for (int i = first; i < last; ++i) fibers_[index_of(i)].state = State::running;
  }
}

void Block::run(dim3 index, const std::function<void()>& body) {
  index_ = index;
  body_ = &body;
  if (shared_bytes_ != 0) std::memset(shared_.get(), 0xFF, shared_bytes_);
  for (int i = 0; i < threads(); ++i) {
    fibers_[index_of(i)].state = State::running;
    fibers_[index_of(i)].exchanges = 0;
  }
  for (bool more = true; more;) {
    more = false;
    for (int first = 0; first < threads(); first += lanes) run_warp(first, std::min(first + lanes, threads()));
    int ended = 0;
    for (int i = 0; i < threads(); ++i) {
      Fiber& f = fibers_[index_of(i)];
      ended += f.state == State::ended ? 1 : 0;
      if (f.state != State::at_barrier) continue;
      f.state = State::running;
      more = true;
    }
    if (more && ended != 0) throw std::logic_error("threads of a block wait for others that have ended");
  }
}

void load_matrices(std::uint32_t (&to)[4], const void* row) { load_rows(to, row, false); }
void load_transposed(std::uint32_t (&to)[4], const void* row) { load_rows(to, row, true); }

void mma_bf16(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
              std::uint32_t b1) {
  const Block::Exchange& all = share({a0, a1, a2, a3, b0, b1, 0, 0});
  each_sum([&](int i, int row, int column) {
    double sum = 0;
    for (int k = 0; k < 16; ++k) {
      const auto& a = all.words[index_of(row % 8 * 4 + k % 8 / 2)];
      const auto& b = all.words[index_of(column * 4 + k % 8 / 2)];
      sum += static_cast<double>(bf16_at(a[index_of(row / 8 + k / 8 * 2)], k % 2)) *
             static_cast<double>(bf16_at(b[index_of(4 + k / 8)], k % 2));
    }
    c[i] = static_cast<float>(static_cast<double>(c[i]) + sum);
  });
}

void mma_int8(std::int32_t (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
              std::uint32_t b0, std::uint32_t b1) {
  const Block::Exchange& all = share({a0, a1, a2, a3, b0, b1, 0, 0});
  each_sum([&](int i, int row, int column) {
    c[i] = 0;
    for (int k = 0; k < 32; ++k) {
      const auto& a = all.words[index_of(row % 8 * 4 + k % 16 / 4)];
      const auto& b = all.words[index_of(column * 4 + k % 16 / 4)];
      c[i] += byte_at(a[index_of(row / 8 + k / 16 * 2)], k % 4) * byte_at(b[index_of(4 + k / 16)], k % 4);
    }
  });
}

}  // namespace finteam::cuda_v0_1::kernels::simt
