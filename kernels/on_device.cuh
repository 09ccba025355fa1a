// Which device this thread's calls go to: a stream takes kernels and events only while its own is current.
#pragma once

#include <finteam/backend/cuda/device.hpp>

#include <cuda_runtime.h>

namespace finteam::cuda_v0_1 {

/// A device, for as long as this lives; then the one that was current before.
class OnDevice {
 public:
  explicit OnDevice(int device) noexcept {
    if (cudaGetDevice(&before_) != cudaSuccess) before_ = device;
    changes_ = before_ != device && cudaSetDevice(device) == cudaSuccess;
  }
  ~OnDevice() {
    if (changes_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changes_ = false;
};

/// What the runtime calls an error; its own memory of it is the host's, and cleared.
[[nodiscard]] inline Status status(cudaError_t e) noexcept {
  if (e == cudaSuccess) return {};
  static_cast<void>(cudaGetLastError());
  return {static_cast<int>(e), cudaGetErrorString(e)};
}

}  // namespace finteam::cuda_v0_1
