// Owning tensors of host memory: 64-byte aligned, from the caller's memory resource. They move, and never copy
// silently.
#pragma once

#include <finteam/core/view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <utility>

namespace finteam::inline FINTEAM_ABI {

/// Aligned bytes from a std::pmr::memory_resource, which must outlive it. Uninitialised.
class Buffer {
 public:
  static constexpr std::size_t alignment = 64;

  Buffer() noexcept = default;
  /// Throws what the resource throws (std::bad_alloc for the default one).
  explicit Buffer(std::size_t bytes, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : memory_(memory), bytes_(bytes), data_(bytes != 0 ? memory->allocate(bytes, alignment) : nullptr) {}
  Buffer(Buffer&& other) noexcept
      : memory_(other.memory_), bytes_(std::exchange(other.bytes_, 0)), data_(std::exchange(other.data_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr) memory_->deallocate(data_, bytes_, alignment);
  }

  [[nodiscard]] std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }

 private:
  std::pmr::memory_resource* memory_ = nullptr;
  std::size_t bytes_ = 0;
  void* data_ = nullptr;
};

/// An owning, dense, row-major tensor of trivially copyable T in host memory; elements start at zero bits.
template <class T, std::size_t Rank>
class Tensor {
 public:
  Tensor() = default;
  /// Throws Error(limit_exceeded) if the size overflows.
  explicit Tensor(std::array<index_t, Rank> extents,
                  std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : extents_(extents), buffer_(bytes(extents), memory) {
    std::fill_n(buffer_.data(), buffer_.size(), std::byte{0});
  }

  [[nodiscard]] TensorView<T, Rank> view() noexcept { return {data(), extents_}; }
  [[nodiscard]] TensorView<const T, Rank> view() const noexcept { return {data(), extents_}; }
  [[nodiscard]] T* data() const noexcept { return reinterpret_cast<T*>(buffer_.data()); }
  [[nodiscard]] index_t extent(std::size_t r) const noexcept { return extents_[r]; }
  [[nodiscard]] index_t size() const noexcept { return view().size(); }

 private:
  static std::size_t bytes(const std::array<index_t, Rank>& extents) {
    std::uint64_t n = 0;
    if (!detail::checked_bytes(std::span<const index_t>(extents), sizeof(T), n)) {
      throw Error(Code::limit_exceeded, "tensor", "a size that fits in memory", detail::shape_string(extents));
    }
    return static_cast<std::size_t>(n);
  }

  std::array<index_t, Rank> extents_{};
  Buffer buffer_;
};

}  // namespace finteam::inline FINTEAM_ABI
