// What a Context is: one device, one stream, cuBLASLt's handle, and the algorithms that were chosen for its shapes.
#pragma once

#include "on_device.cuh"

#include <cublasLt.h>

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
  int device = 0, multiprocessors = 0;
  std::size_t most_shared = 0;
  cudaStream_t stream = nullptr;
  bool owns_stream = false, overlaps = false;
  cublasLtHandle_t blas = nullptr;
  std::vector<Algorithm> algorithms;
};

[[nodiscard]] inline Status status(cublasStatus_t e) noexcept {
  return {static_cast<int>(e), e == CUBLAS_STATUS_SUCCESS ? nullptr : cublasLtGetStatusString(e)};
}

}  // namespace finteam::cuda_v0_1
