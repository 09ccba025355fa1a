// Memory, streams and graphs of the CUDA runtime, as device.hpp names them. Every call's status goes back to the host.
#include "context.cuh"

#include <algorithm>
#include <cstring>
#include <new>

namespace finteam::cuda_v0_1 {

Status count_devices(int& count) noexcept {
  count = 0;
  return status(cudaGetDeviceCount(&count));
}

Status open(int device, void* stream, Context*& context, Properties& properties) noexcept {
  context = new (std::nothrow) Context;
  if (context == nullptr) return status(cudaErrorMemoryAllocation);
  context->device = device;
  const OnDevice here(context);
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
  context->overlaps = p.major >= 9;
  context->stream = static_cast<cudaStream_t>(stream);
  if (stream == nullptr) {
    if (const auto e = cudaStreamCreateWithFlags(&context->stream, cudaStreamNonBlocking); e != cudaSuccess) {
      return status(e);
    }
    context->owns_stream = true;
  }
  if (const auto e = cudaMalloc(&context->workspace, Context::workspace_bytes); e != cudaSuccess) return status(e);
  return status(cublasLtCreate(&context->blas));
}

void close(Context* context) noexcept {
  if (context == nullptr) return;
  {
    const OnDevice here(context);
    if (context->stream != nullptr) cudaStreamSynchronize(context->stream);
    if (context->blas != nullptr) cublasLtDestroy(context->blas);
    cudaFree(context->workspace);
    if (context->owns_stream) cudaStreamDestroy(context->stream);
  }
  delete context;
}

Stream stream_of(const Context* context) noexcept { return {context->stream, context->overlaps}; }
int multiprocessors_of(const Context* context) noexcept { return context->multiprocessors; }

Status allocate(const Context* context, std::size_t bytes, void*& p) noexcept {
  const OnDevice here(context);
  return status(cudaMalloc(&p, bytes));
}
void release(const Context* context, void* p) noexcept {
  const OnDevice here(context);
  cudaFree(p);
}
Status allocate_pinned(const Context* context, std::size_t bytes, void*& p) noexcept {
  const OnDevice here(context);
  return status(cudaMallocHost(&p, bytes));
}
void release_pinned(const Context* context, void* p) noexcept {
  const OnDevice here(context);
  cudaFreeHost(p);
}

Status copy_in(const Context* context, void* to, const void* from, std::size_t bytes) noexcept {
  const OnDevice here(context);
  return status(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, context->stream));
}
Status copy_out(const Context* context, void* to, const void* from, std::size_t bytes) noexcept {
  const OnDevice here(context);
  return status(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, context->stream));
}
Status set_bytes(const Context* context, void* to, int value, std::size_t bytes) noexcept {
  const OnDevice here(context);
  return status(cudaMemsetAsync(to, value, bytes, context->stream));
}
Status wait(const Context* context) noexcept {
  const OnDevice here(context);
  return status(cudaStreamSynchronize(context->stream));
}

Status mark(const Context* context, void*& event) noexcept {
  const OnDevice here(context);
  if (event == nullptr) {
    cudaEvent_t made = nullptr;
    if (const auto e = cudaEventCreateWithFlags(&made, cudaEventDisableTiming); e != cudaSuccess) return status(e);
    event = made;
  }
  return status(cudaEventRecord(static_cast<cudaEvent_t>(event), context->stream));
}
Status await(const Context* context, void* event) noexcept {
  const OnDevice here(context);
  return status(cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
}
void release_event(const Context* context, void* event) noexcept {
  const OnDevice here(context);
  if (event != nullptr) cudaEventDestroy(static_cast<cudaEvent_t>(event));
}

Status begin_graph(const Context* context) noexcept {
  const OnDevice here(context);
  return status(cudaStreamBeginCapture(context->stream, cudaStreamCaptureModeRelaxed));
}
Status end_graph(const Context* context, void*& graph) noexcept {
  const OnDevice here(context);
  cudaGraph_t captured = nullptr;
  if (const auto e = cudaStreamEndCapture(context->stream, &captured); e != cudaSuccess) return status(e);
  cudaGraphExec_t made = nullptr;
  const auto e = cudaGraphInstantiate(&made, captured, 0);
  cudaGraphDestroy(captured);
  graph = made;
  return status(e);
}
Status launch_graph(const Context* context, void* graph) noexcept {
  const OnDevice here(context);
  return status(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), context->stream));
}
void release_graph(const Context* context, void* graph) noexcept {
  const OnDevice here(context);
  if (graph != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

}  // namespace finteam::cuda_v0_1
