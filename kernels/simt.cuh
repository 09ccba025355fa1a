// The words that the kernels are written in: threads, warps, barriers, shared memory, tensor cores, launches. Under
// nvcc they are CUDA's; under any other compiler those of tests/simt/emulated.hpp, where the tests run every kernel on
// the host, one thread at a time. All PTX of the project is here.
#pragma once

#include <finteam/backend/cuda/device.hpp>
#include <finteam/backend/cuda/layout.hpp>

#include <cstddef>
#include <cstdint>

namespace finteam::cuda_v0_1::kernels {

/// 16 bytes, the widest access of a thread.
struct alignas(16) Words {
  std::uint32_t x, y, z, w;
};

}  // namespace finteam::cuda_v0_1::kernels

#ifdef __CUDACC__
#include "on_device.cuh"
#else
#include <simt/emulated.hpp>
#endif

namespace finteam::cuda_v0_1::kernels {

inline constexpr int warp_threads = 32;

#ifdef __CUDACC__

namespace simt {
__device__ __forceinline__ int thread() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int threads() { return static_cast<int>(blockDim.x); }
__device__ __forceinline__ int block_x() { return static_cast<int>(blockIdx.x); }
__device__ __forceinline__ int block_y() { return static_cast<int>(blockIdx.y); }
__device__ __forceinline__ int block_z() { return static_cast<int>(blockIdx.z); }
__device__ __forceinline__ int blocks_x() { return static_cast<int>(gridDim.x); }
__device__ __forceinline__ int blocks_y() { return static_cast<int>(gridDim.y); }

/// All threads of the block have come this far, and see what the others wrote.
__device__ __forceinline__ void barrier() { __syncthreads(); }
__device__ __forceinline__ void warp_barrier() { __syncwarp(); }
/// x of the lane whose number differs by the bits of `mask`.
template <class T>
__device__ __forceinline__ T exchange(T x, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFU, x, mask);
}
/// *p += x, for counts in shared memory that many threads add to. Returns what was there.
__device__ __forceinline__ std::uint32_t add_shared(std::uint32_t* p, std::uint32_t x) { return atomicAdd(p, x); }
/// The block's shared memory, as many bytes as it was launched with.
__device__ __forceinline__ std::byte* shared() {
  extern __shared__ __align__(128) std::byte memory[];
  return memory;
}

/// What comes after reads what earlier kernels wrote. Before it only weights may be read, and what the step was told,
/// for no kernel begins before the copy that is ahead of it: with programmatic dependent launch a kernel begins while
/// the one before it ends.
__device__ __forceinline__ void wait_for_earlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The next kernel may begin.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Both, for a kernel that has nothing to do before.
__device__ __forceinline__ void begin() {
  let_next_begin();
  wait_for_earlier();
}

/// 16 bytes of weights, which no kernel writes and which are read once.
__device__ __forceinline__ Words stream(const void* p) {
  Words v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
/// Global memory on its way to the chip's cache, by a warp: a multiple of 16 bytes, at such an address. It is no read:
/// what is written later is seen.
__device__ __forceinline__ void prefetch(const void* p, int bytes) {
  const auto from = __cvta_generic_to_global(p);
#if __CUDA_ARCH__ >= 900
  if (threadIdx.x % 32 != 0) return;
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#else
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x % 32) * 128; i < bytes; i += 32 * 128) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from + static_cast<unsigned>(i)));
  }
#endif
}
/// 16 bytes from global to shared memory, in the background; and until at most `pending` groups of them are.
__device__ __forceinline__ void copy_async(void* to, const void* from) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(to))),
      "l"(from)
      : "memory");
}
__device__ __forceinline__ void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending>
__device__ __forceinline__ void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/// Four 8x8 matrices of 2 bytes: lane i names a row of matrix i / 8; lane l gets of each the pair (l / 4, 2 (l % 4)).
__device__ __forceinline__ void load_matrices(std::uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}
/// The same of the transposed matrices.
__device__ __forceinline__ void load_transposed(std::uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

/// c [16, 8] += a [16, 16] · b [16, 8], bf16, sums in float. Lane l, r = l / 4, q = 2 (l % 4): a holds (r, q…), (r + 8,
/// q…), (r, q + 8…), (r + 8, q + 8…), b (q…, r), (q + 8…, r), c (r, q), (r, q + 1), (r + 8, q), (r + 8, q + 1).
__device__ __forceinline__ void mma_bf16(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                         std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
/// c [16, 8] = a [16, 32] · b [32, 8], signed bytes, four where bf16 has two.
__device__ __forceinline__ void mma_int8(std::int32_t (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                         std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %10, %10, %10};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(0));
}
}  // namespace simt

/// Runs kernel(args) on grid x · y · z blocks of `threads`, after what the stream holds; on chips that can, it begins
/// before the kernel ahead of it has ended (simt::wait_for_earlier).
template <class Args>
Status launch(void (*kernel)(Args), dim3 grid, int threads, std::size_t shared, Stream stream, const Args& args) {
  const OnDevice here(stream.device);
  if (shared > 48 * 1024) {  // once and for all: launches of a graph may have less than one that comes later
    const auto most = static_cast<int>(stream.most_shared);
    const cudaError_t set = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    if (set != cudaSuccess) return status(set);
  }
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream.handle);
  config.attrs = &overlap;
  config.numAttrs = stream.overlaps ? 1 : 0;
  return status(cudaLaunchKernelEx(&config, kernel, args));
}

#endif

}  // namespace finteam::cuda_v0_1::kernels
