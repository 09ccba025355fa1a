// A device that is not there: its memory is the host's, its stream runs everything at once, a graph is a list of what
// was given to it, and cuBLASLt's products are plain loops. With kernels/*.cu on the host (emulated.hpp) it is all that
// finteam::cuda is, for machines without a GPU. Device memory that nobody wrote is NaN.
#include <simt.cuh>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

namespace finteam::cuda_v0_1 {

using Work = std::vector<std::function<Status()>>;

struct Context {
  Work* captured = nullptr;  ///< where work goes while a graph is made
  bool captures = true;      ///< whether it can be; no stream of a caller's can, as the legacy one cannot
};

namespace {
/// Now, or later as part of a graph.
template <class F>
Status in_order(const Context* context, F&& f) {
  if (context->captured == nullptr) return f();
  context->captured->emplace_back(std::forward<F>(f));
  return {};
}
}  // namespace

Status count_devices(int& count) noexcept {
  count = 2;
  return {};
}
Status open(int device, void* stream, Context*& context, Properties& properties) noexcept {
  context = new Context{.captures = stream == nullptr};
  properties = {"emulated", device, 9, 0, 3, 0, std::size_t{1} << 32, std::size_t{1} << 32, 99 * 1024};
  return {};
}
void close(Context* context) noexcept { delete context; }
Stream stream_of(const Context* context) noexcept { return {const_cast<Context*>(context), true}; }
int multiprocessors_of(const Context*) noexcept { return 3; }

Status allocate(const Context*, std::size_t bytes, void*& p) noexcept {
  p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (p == nullptr) return {2, "out of memory"};
  std::memset(p, 0xFF, bytes);
  return {};
}
void release(const Context*, void* p) noexcept { std::free(p); }
Status allocate_pinned(const Context* context, std::size_t bytes, void*& p) noexcept {
  return allocate(context, bytes, p);
}
void release_pinned(const Context*, void* p) noexcept { std::free(p); }
Status copy_in(const Context* context, void* to, const void* from, std::size_t bytes) noexcept {
  return in_order(context, [=] { return std::memcpy(to, from, bytes), Status{}; });
}
Status copy_out(const Context* context, void* to, const void* from, std::size_t bytes) noexcept {
  return in_order(context, [=] { return std::memcpy(to, from, bytes), Status{}; });
}
Status set_bytes(const Context* context, void* to, int value, std::size_t bytes) noexcept {
  return in_order(context, [=] { return std::memset(to, value, bytes), Status{}; });
}
Status wait(const Context*) noexcept { return {}; }
Status mark(const Context*, void*&) noexcept { return {}; }
Status await(const Context*, void*) noexcept { return {}; }
void release_event(const Context*, void*) noexcept {}
Status begin_graph(const Context* context) noexcept {
  if (!context->captures) return {900, "operation not permitted when stream is capturing"};
  const_cast<Context*>(context)->captured = new Work;
  return {};
}
Status end_graph(const Context* context, void*& graph) noexcept {
  graph = std::exchange(const_cast<Context*>(context)->captured, nullptr);
  return {};
}
Status launch_graph(const Context*, void* graph) noexcept {
  for (const auto& work : *static_cast<Work*>(graph)) {
    if (const Status s = work(); !s.ok()) return s;
  }
  return {};
}
void release_graph(const Context*, void* graph) noexcept { delete static_cast<Work*>(graph); }

static Status multiply(const Gemm& p) {
  const auto number = [](const void* x, std::int64_t i) {
    std::uint16_t bits;
    std::memcpy(&bits, static_cast<const std::uint16_t*>(x) + i, 2);
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
  };
  for (std::int64_t r = 0; r < p.rows; ++r) {
    for (std::int64_t i = 0; i < p.n; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j < p.k; ++j) sum += number(p.x, r * p.x_stride + j) * number(p.w, i * p.w_stride + j);
      float& z = p.z[r * p.z_stride + i];
      z = static_cast<float>(sum + (p.accumulate != 0 ? static_cast<double>(z) : 0.0));
    }
  }
  return {};
}

Status run(Context* context, const Gemm& p) noexcept {
  return in_order(context, [=] { return multiply(p); });
}

}  // namespace finteam::cuda_v0_1

namespace finteam::cuda_v0_1::kernels::simt {

std::vector<std::function<cuda_v0_1::Status()>>* captured(cuda_v0_1::Stream stream) noexcept {
  return stream.handle == nullptr ? nullptr : static_cast<cuda_v0_1::Context*>(stream.handle)->captured;
}

}  // namespace finteam::cuda_v0_1::kernels::simt
