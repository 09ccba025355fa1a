// Memory, streams and graphs of the CUDA runtime, as device.hpp names them. Every call's status goes back to the host.
#include "context.cuh"

#include <algorithm>
#include <cstring>
#include <new>

namespace finteam::cuda_v0_1 {
namespace {
/// Says what kernels of this library were compiled for.
__global__ void nothing() {}
}  // namespace

Status count_devices(int& count) noexcept {
  count = 0;
  return status(cudaGetDeviceCount(&count));
}

Status open(int device, void* stream, Context*& context, Properties& properties) noexcept {
  context = new (std::nothrow) Context;
  if (context == nullptr) return status(cudaErrorMemoryAllocation);
  context->device = device;
  const OnDevice here(context->device);
  cudaDeviceProp p{};
  if (const auto e = cudaGetDeviceProperties(&p, device); e != cudaSuccess) return status(e);
  properties = {};
  std::copy_n(p.name, std::min(std::strlen(p.name), sizeof(properties.name) - 1), properties.name);
  properties.device = device;
  properties.major = p.major;
  properties.minor = p.minor;
  properties.multiprocessors = context->multiprocessors = p.multiProcessorCount;
  properties.library = CUDART_VERSION;
  properties.shared_memory = p.sharedMemPerBlockOptin;
  if (const auto e = cudaMemGetInfo(&properties.free_memory, &properties.memory); e != cudaSuccess) return status(e);
  cudaFuncAttributes compiled{};
  if (const auto e = cudaFuncGetAttributes(&compiled, nothing); e != cudaSuccess) return status(e);
  context->overlaps = p.major >= 9 && compiled.ptxVersion >= 90;  // else kernels would not wait (simt.cuh)
  context->most_shared = p.sharedMemPerBlockOptin;
  context->stream = static_cast<cudaStream_t>(stream);
  if (stream == nullptr) {
    if (const auto e = cudaStreamCreateWithFlags(&context->stream, cudaStreamNonBlocking); e != cudaSuccess) {
      return status(e);
    }
    context->owns_stream = true;
  }
  return status(cublasLtCreate(&context->blas));
}

void close(Context* context) noexcept {
  if (context == nullptr) return;
  {
    const OnDevice here(context->device);
    if (context->stream != nullptr) cudaStreamSynchronize(context->stream);
    if (context->blas != nullptr) cublasLtDestroy(context->blas);
    if (context->owns_stream) cudaStreamDestroy(context->stream);
  }
  delete context;
}

Stream stream_of(const Context* context) noexcept {
  return {context->stream, context->overlaps, context->device, context->most_shared};
}
int multiprocessors_of(const Context* context) noexcept { return context->multiprocessors; }

Status allocate(const Context* context, std::size_t bytes, void*& p) noexcept {
  const OnDevice here(context->device);
  return status(cudaMalloc(&p, bytes));
}
void release(const Context* context, void* p) noexcept {
  const OnDevice here(context->device);
  cudaFree(p);
}
Status allocate_pinned(const Context* context, std::size_t bytes, void*& p) noexcept {
  const OnDevice here(context->device);
  return status(cudaMallocHost(&p, bytes));
}
void release_pinned(const Context* context, void* p) noexcept {
  const OnDevice here(context->device);
  cudaFreeHost(p);
}

Status copy_in(const Context* context, void* to, const void* from, std::size_t bytes) noexcept {
  const OnDevice here(context->device);
  return status(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, context->stream));
}
Status copy_out(const Context* context, void* to, const void* from, std::size_t bytes) noexcept {
  const OnDevice here(context->device);
  return status(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, context->stream));
}
Status set_bytes(const Context* context, void* to, int value, std::size_t bytes) noexcept {
  const OnDevice here(context->device);
  return status(cudaMemsetAsync(to, value, bytes, context->stream));
}
Status wait(const Context* context) noexcept {
  const OnDevice here(context->device);
  return status(cudaStreamSynchronize(context->stream));
}

Status mark(const Context* context, void*& event) noexcept {
  const OnDevice here(context->device);
  if (event == nullptr) {
    cudaEvent_t made = nullptr;
    if (const auto e = cudaEventCreateWithFlags(&made, cudaEventDisableTiming); e != cudaSuccess) return status(e);
    event = made;
  }
  return status(cudaEventRecord(static_cast<cudaEvent_t>(event), context->stream));
}
Status await(const Context* context, void* event) noexcept {
  const OnDevice here(context->device);
  return status(cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
}
void release_event(const Context* context, void* event) noexcept {
  const OnDevice here(context->device);
  if (event != nullptr) cudaEventDestroy(static_cast<cudaEvent_t>(event));
}

Status begin_graph(const Context* context) noexcept {
  const OnDevice here(context->device);
  return status(cudaStreamBeginCapture(context->stream, cudaStreamCaptureModeRelaxed));
}
Status end_graph(const Context* context, void*& graph) noexcept {
  const OnDevice here(context->device);
  cudaGraph_t captured = nullptr;
  if (const auto e = cudaStreamEndCapture(context->stream, &captured); e != cudaSuccess) return status(e);
  cudaGraphExec_t made = nullptr;
  const auto e = cudaGraphInstantiate(&made, captured, 0);
  cudaGraphDestroy(captured);
  graph = made;
  return status(e);
}
Status launch_graph(const Context* context, void* graph) noexcept {
  const OnDevice here(context->device);
  return status(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), context->stream));
}
void release_graph(const Context* context, void* graph) noexcept {
  const OnDevice here(context->device);
  if (graph != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

}  // namespace finteam::cuda_v0_1
