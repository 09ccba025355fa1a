// Memory of a GPU: its space, the context that it belongs to, buffers and tensors in it. They move.
// Not here: how a step runs (step.hpp).
#pragma once

#include <finteam/backend/cuda/device.hpp>
#include <finteam/backend/executor.hpp>
#include <finteam/core/error.hpp>
#include <finteam/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <memory>
#include <memory_resource>
#include <string>
#include <utility>

namespace finteam::inline FINTEAM_ABI {

/// Memory that a GPU addresses, and the CPU does not.
struct Device {};

/// Which device a Cuda runs on, and how.
struct CudaOptions {
  int device = 0;
  /// A cudaStream_t of the caller's, which outlives the Cuda and all that lies in its memory; null: one of its own.
  void* stream = nullptr;
  /// For weights, caches and scratch: a resource whose addresses are the device's; null: cudaMalloc. Outlives them all.
  std::pmr::memory_resource* memory = nullptr;
  ExecutorRef executor{};                            ///< spreads the packing of weights
  std::size_t staging_bytes = std::size_t{8} << 20;  ///< pinned memory for what a step's host side tells the device
};

namespace detail {

namespace cuda = cuda_v0_1;

/// Throws Error(system) for what the CUDA runtime or cuBLASLt refused.
inline void check(cuda::Status status, const char* expected) {
  if (status.ok()) return;
  throw Error(
      Code::system, "CUDA", expected,
      std::string(status.what == nullptr ? "an error" : status.what) + " (" + std::to_string(status.code) + ")");
}

/// A device and a stream of it; shared by whatever lies in its memory.
class CudaContext {
 public:
  explicit CudaContext(const CudaOptions& options) : memory_(options.memory) {
    int count = 0;
    const cuda::Status counted = cuda::count_devices(count);
    if (!counted.ok() || options.device < 0 || options.device >= count) {
      throw Error(Code::system, "CUDA", "device " + std::to_string(options.device),
                  counted.ok() ? std::to_string(count) + " devices" : std::string(counted.what));
    }
    const cuda::Status opened = cuda::open(options.device, options.stream, context_, properties_);
    if (opened.ok()) return;
    cuda::close(context_);
    check(opened, "a device that can be used");
  }
  ~CudaContext() { cuda::close(context_); }
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  [[nodiscard]] cuda::Context* get() const noexcept { return context_; }
  [[nodiscard]] const cuda::Properties& properties() const noexcept { return properties_; }

  [[nodiscard]] void* allocate(std::size_t bytes) {
    if (memory_ != nullptr) return memory_->allocate(bytes, alignment);
    void* p = nullptr;
    check(cuda::allocate(context_, bytes, p), (std::to_string(bytes) + " bytes of device memory").c_str());
    return p;
  }
  void release(void* p, std::size_t bytes) noexcept {
    if (memory_ == nullptr) return cuda::release(context_, p);  // which waits for the device
    static_cast<void>(cuda::wait(context_));
    memory_->deallocate(p, bytes, alignment);
  }

 private:
  static constexpr std::size_t alignment = 256;
  std::pmr::memory_resource* memory_;
  cuda::Context* context_ = nullptr;
  cuda::Properties properties_{};
};

/// Bytes in a device's memory. Uninitialised.
class DeviceBuffer {
 public:
  DeviceBuffer() noexcept = default;
  /// Throws Error(system) if there is not enough.
  DeviceBuffer(std::shared_ptr<CudaContext> context, std::size_t bytes)
      : context_(std::move(context)), bytes_(bytes), data_(bytes == 0 ? nullptr : context_->allocate(bytes)) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : context_(std::move(other.context_)),
        bytes_(std::exchange(other.bytes_, 0)),
        data_(std::exchange(other.data_, nullptr)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(context_, other.context_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    return *this;
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() {
    if (data_ != nullptr) context_->release(data_, bytes_);
  }

  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }
  [[nodiscard]] const std::shared_ptr<CudaContext>& context() const noexcept { return context_; }

 private:
  std::shared_ptr<CudaContext> context_;
  std::size_t bytes_ = 0;
  void* data_ = nullptr;
};

}  // namespace detail

/// An owning, dense, row-major tensor of trivially copyable T in a device's memory.
template <class T, std::size_t Rank>
class DeviceTensor {
 public:
  DeviceTensor() = default;
  /// Elements start at zero bits. Throws Error(limit_exceeded) if the size overflows, Error(system) if there is not
  /// enough memory.
  DeviceTensor(std::shared_ptr<detail::CudaContext> context, std::array<index_t, Rank> extents) : extents_(extents) {
    std::uint64_t n = 0;
    if (!detail::checked_bytes(std::span<const index_t>(extents), sizeof(T), n)) {
      throw Error(Code::limit_exceeded, "tensor", "a size that fits in memory", detail::shape_string(extents));
    }
    detail::cuda::Context* const of = context->get();
    buffer_ = detail::DeviceBuffer(std::move(context), static_cast<std::size_t>(n));
    if (n != 0) {
      detail::check(detail::cuda::set_bytes(of, buffer_.data(), 0, static_cast<std::size_t>(n)),
                    "memory to be cleared");
    }
  }

  [[nodiscard]] TensorView<T, Rank, Device> view() noexcept { return {data(), extents_}; }
  [[nodiscard]] TensorView<const T, Rank, Device> view() const noexcept { return {data(), extents_}; }
  /// The device's address.
  [[nodiscard]] T* data() const noexcept { return static_cast<T*>(buffer_.data()); }
  [[nodiscard]] index_t extent(std::size_t r) const noexcept { return extents_[r]; }
  [[nodiscard]] index_t size() const noexcept { return view().size(); }

 private:
  std::array<index_t, Rank> extents_{};
  detail::DeviceBuffer buffer_;
};

}  // namespace finteam::inline FINTEAM_ABI
