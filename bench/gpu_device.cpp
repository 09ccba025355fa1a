// The device's own limits: see gpu_device.hpp.
#include "gpu_device.hpp"

#include "random_checkpoint.hpp"

#include <finteam/core/error.hpp>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace bench {
namespace {

using finteam::Code;
using finteam::Error;

void check(cudaError_t status, const char* expected) {
  if (status != cudaSuccess) throw Error(Code::system, "CUDA", expected, cudaGetErrorString(status));
}
void check(cublasStatus_t status, const char* expected) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error(Code::system, "cuBLASLt", expected, cublasLtGetStatusString(status));
}

struct Free {
  void operator()(void* p) const noexcept { cudaFree(p); }
};
using Memory = std::unique_ptr<void, Free>;

Memory allocate(std::size_t bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, bytes), "device memory");
  return Memory(p);
}

/// An object of cuBLASLt, whose handles are pointers.
template <class T>
using Handle = std::unique_ptr<std::remove_pointer_t<T>, cublasStatus_t (*)(T)>;

/// Seconds of f(), between two events; the median of so many, after one that does not count.
template <class F>
double seconds_of(int repeats, F&& f) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "an event");
  check(cudaEventCreate(&end), "an event");
  std::vector<double> all;
  for (int r = 0; r <= repeats; ++r) {
    check(cudaEventRecord(begin), "an event");
    f();
    check(cudaEventRecord(end), "an event");
    check(cudaEventSynchronize(end), "a measurement to end");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "a time");
    if (r != 0) all.push_back(1e-3 * static_cast<double>(ms));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(all.begin(), all.begin() + repeats / 2, all.end());
  return all[static_cast<std::size_t>(repeats / 2)];
}

double copy_gbps() {
  constexpr std::size_t bytes = std::size_t{1} << 30;
  constexpr int copies = 8;
  const Memory from = allocate(bytes), to = allocate(bytes);
  const double seconds = seconds_of(20, [&] {
    for (int i = 0; i < copies; ++i) {
      check(cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDeviceToDevice, nullptr), "a copy");
    }
  });
  return 2.0 * copies * static_cast<double>(bytes) / seconds / 1e9;
}

/// bf16 numbers of a normal distribution, on the device.
Memory random_matrix(std::size_t count, std::uint64_t seed) {
  std::vector<finteam::bf16> host(count);
  RandomValues(0.0F).fill(seed, 0, host.data(), count);
  Memory device = allocate(2 * count);
  check(cudaMemcpy(device.get(), host.data(), 2 * count, cudaMemcpyHostToDevice), "a copy");
  return device;
}

double bf16_tflops() {
  constexpr std::uint64_t n = 8192;
  constexpr std::size_t workspace_bytes = std::size_t{64} << 20;
  constexpr int most_algorithms = 8, products = 4;
  const Memory a = random_matrix(n * n, 1), b = random_matrix(n * n, 2), c = allocate(2 * n * n),
               workspace = allocate(workspace_bytes);
  cublasLtHandle_t made = nullptr;
  check(cublasLtCreate(&made), "cuBLASLt");
  const Handle<cublasLtHandle_t> blas(made, cublasLtDestroy);
  cublasLtMatmulDesc_t operation_made = nullptr;
  check(cublasLtMatmulDescCreate(&operation_made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product");
  const Handle<cublasLtMatmulDesc_t> operation(operation_made, cublasLtMatmulDescDestroy);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check(cublasLtMatmulDescSetAttribute(operation.get(), CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
        "a product");
  cublasLtMatrixLayout_t layout_made = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout_made, CUDA_R_16BF, n, n, static_cast<std::int64_t>(n)), "a layout");
  const Handle<cublasLtMatrixLayout_t> layout(layout_made, cublasLtMatrixLayoutDestroy);
  cublasLtMatmulPreference_t preference_made = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference_made), "a preference");
  const Handle<cublasLtMatmulPreference_t> preference(preference_made, cublasLtMatmulPreferenceDestroy);
  check(cublasLtMatmulPreferenceSetAttribute(preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace_bytes, sizeof workspace_bytes),
        "a preference");
  std::array<cublasLtMatmulHeuristicResult_t, most_algorithms> found{};
  int count = 0;
  check(cublasLtMatmulAlgoGetHeuristic(blas.get(), operation.get(), layout.get(), layout.get(), layout.get(),
                                       layout.get(), preference.get(), most_algorithms, found.data(), &count),
        "an algorithm");
  const float alpha = 1, beta = 0;
  double best = 0;
  for (int i = 0; i < count; ++i) {
    const double seconds = seconds_of(10, [&] {
      for (int p = 0; p < products; ++p) {
        check(cublasLtMatmul(blas.get(), operation.get(), &alpha, a.get(), layout.get(), b.get(), layout.get(), &beta,
                             c.get(), layout.get(), c.get(), layout.get(), &found[static_cast<std::size_t>(i)].algo,
                             workspace.get(), workspace_bytes, nullptr),
              "a product");
      }
    });
    best = std::max(best, 2.0 * products * static_cast<double>(n * n) * static_cast<double>(n) / seconds / 1e12);
  }
  return best;
}

}  // namespace

GpuLimits measure_limits(int device) {
  check(cudaSetDevice(device), "a device");
  return {copy_gbps(), bf16_tflops()};
}

void copy_on_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice), "a copy");
  check(cudaDeviceSynchronize(), "a copy");
}

std::string gpu_libraries() {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  return "CUDA " + version(runtime) + ", driver " + version(driver) + ", cuBLASLt " +
         std::to_string(cublasLtGetVersion());
}

}  // namespace bench
