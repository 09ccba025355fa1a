// What a Context is: one device, one stream, cuBLASLt's handle, and the algorithms that were chosen for its shapes.
#pragma once

#include <finteam/backend/cuda/device.hpp>

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace finteam::cuda_v0_1 {

/// The algorithm of all products by matrices of one shape, whatever their rows.
struct Algorithm {
  std::int32_t n, k;
  std::int64_t z_stride;
  cublasLtMatmulAlgo_t algorithm;
};

struct Context {
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

  int device = 0, multiprocessors = 0;
  cudaStream_t stream = nullptr;
  bool owns_stream = false, overlaps = false;
  cublasLtHandle_t blas = nullptr;
  void* workspace = nullptr;
  std::vector<Algorithm> algorithms;
};

[[nodiscard]] inline Status status(cudaError_t e) noexcept {
  return {static_cast<int>(e), e == cudaSuccess ? nullptr : cudaGetErrorString(e)};
}
[[nodiscard]] inline Status status(cublasStatus_t e) noexcept {
  return {static_cast<int>(e), e == CUBLAS_STATUS_SUCCESS ? nullptr : cublasLtGetStatusString(e)};
}

/// The device that a context is of, for as long as this lives; then the one that was current before.
class OnDevice {
 public:
  explicit OnDevice(const Context* context) noexcept {
    cudaGetDevice(&before_);
    if (before_ != context->device) cudaSetDevice(context->device);
    changed_ = before_ != context->device;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace finteam::cuda_v0_1
