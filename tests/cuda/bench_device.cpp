// What the benches ask of a device, of one that is not there (simt/device.cpp): bench/gpu_device.cpp without CUDA.
#include "../../bench/gpu_device.hpp"

#include <cstring>

namespace bench {

GpuLimits measure_limits(int) { return {.copy_gbps = 1, .bf16_tflops = 1}; }
void copy_on_device(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
std::string gpu_libraries() { return "none"; }

}  // namespace bench
