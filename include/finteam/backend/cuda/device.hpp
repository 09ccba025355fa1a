// What the static target finteam::cuda does for the host headers: memory, streams, graphs, and a kernel for each
// command. Plain functions that return a status; nothing here throws. Not here: any CUDA header, so that a program's
// own files need none.
#pragma once

#include <finteam/backend/cuda/commands.hpp>

#include <cstddef>
#include <cstdint>

namespace finteam::cuda_v0_1 {

/// 0, or an error of the CUDA runtime or of cuBLASLt, and what it calls it.
struct Status {
  int code = 0;
  const char* what = nullptr;
  [[nodiscard]] bool ok() const noexcept { return code == 0; }
};

/// Of one device.
struct Properties {
  char name[256];
  std::int32_t device, major, minor, multiprocessors;
  std::int32_t library;                            ///< version of the CUDA runtime
  std::size_t memory, free_memory, shared_memory;  ///< bytes; shared: of one block
};

/// In its order everything that it is given runs.
struct Stream {
  void* handle = nullptr;
  bool overlaps = false;  ///< a kernel may begin while the one before it ends
  std::int32_t device = 0;
  std::size_t most_shared = 0;  ///< bytes of shared memory that a block can have
};

/// One device's, for one thread at a time. Not null once made.
struct Context;

/// How many devices there are; a status where the driver is missing.
Status count_devices(int& count) noexcept;
/// stream: of the caller, or null for one of its own.
Status open(int device, void* stream, Context*& context, Properties& properties) noexcept;
void close(Context* context) noexcept;
Stream stream_of(const Context* context) noexcept;
int multiprocessors_of(const Context* context) noexcept;

/// Device memory.
Status allocate(const Context* context, std::size_t bytes, void*& p) noexcept;
void release(const Context* context, void* p) noexcept;
/// Host memory that copies run from and to in the background.
Status allocate_pinned(const Context* context, std::size_t bytes, void*& p) noexcept;
void release_pinned(const Context* context, void* p) noexcept;

/// In the stream's order; from pinned host memory, or at once from any other.
Status copy_in(const Context* context, void* to, const void* from, std::size_t bytes) noexcept;
Status copy_out(const Context* context, void* to, const void* from, std::size_t bytes) noexcept;
Status set_bytes(const Context* context, void* to, int value, std::size_t bytes) noexcept;
/// Until the stream is empty.
Status wait(const Context* context) noexcept;

/// A place in the stream; await(): until all before it has run.
Status mark(const Context* context, void*& event) noexcept;
Status await(const Context* context, void* event) noexcept;
void release_event(const Context* context, void* event) noexcept;

/// What is given to the stream between the two does not run, but becomes a graph; other threads are not disturbed.
Status begin_graph(const Context* context) noexcept;
Status end_graph(const Context* context, void*& graph) noexcept;
Status launch_graph(const Context* context, void* graph) noexcept;
void release_graph(const Context* context, void* graph) noexcept;

Status run(Context* context, const Fill& command) noexcept;
Status run(Context* context, const Copy& command) noexcept;
Status run(Context* context, const Embed& command) noexcept;
Status run(Context* context, const AddBias& command) noexcept;
Status run(Context* context, const SoftCap& command) noexcept;
Status run(Context* context, const Norm& command) noexcept;
Status run(Context* context, const Prepare& command) noexcept;
Status run(Context* context, const Multiply& command) noexcept;
/// Not of int8, int4 and int4_zero.
Status run(Context* context, const MultiplyEach& command) noexcept;
Status run(Context* context, const Finish& command) noexcept;
Status run(Context* context, const Widen& command) noexcept;
Status run(Context* context, const Gemm& command) noexcept;
Status run(Context* context, const Route& command) noexcept;
Status run(Context* context, const MultiplyRouted& command) noexcept;
Status run(Context* context, const AddRouted& command) noexcept;
Status run(Context* context, const Gated& command) noexcept;
Status run(Context* context, const Angles& command) noexcept;
Status run(Context* context, const Rope& command) noexcept;
Status run(Context* context, const CacheWrite& command) noexcept;
Status run(Context* context, const TurnAndWrite& command) noexcept;
Status run(Context* context, const CacheCopy& command) noexcept;
Status run(Context* context, const Attend& command) noexcept;
Status run(Context* context, const AttendRuns& command) noexcept;
Status run(Context* context, const NextToken& command) noexcept;
Status run(Context* context, const LogP& command) noexcept;

}  // namespace finteam::cuda_v0_1
