// What the benches of the CUDA backend ask of the device itself: its limits, and copies within it. gpu_device.cpp alone
// knows the CUDA runtime and cuBLASLt. Not here: the engine.
#pragma once

#include <cstddef>
#include <string>

namespace bench {

/// What rows are fractions of, measured in the same run.
struct GpuLimits {
  double copy_gbps = 0;    ///< of copies from device to device: bytes read + bytes written
  double bf16_tflops = 0;  ///< of cuBLASLt's bf16 product of 8192 x 8192 x 8192, random numbers, best of its algorithms
};

/// Medians of many repeats. Throws Error(system), also where there is no device.
GpuLimits measure_limits(int device);

/// In device memory, once it has happened. Throws Error(system).
void copy_on_device(void* to, const void* from, std::size_t bytes);

/// "CUDA 13.0, driver 13.0, cuBLASLt 13.1.0".
std::string gpu_libraries();

}  // namespace bench
