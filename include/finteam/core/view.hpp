// Non-owning views of tensors: a pointer, extents and strides, with the memory space in the type.
// Not here: ownership (tensor.hpp), Eigen (eigen.hpp).
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/core/dtype.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

namespace finteam::inline FINTEAM_ABI {

/// Memory that the CPU addresses. A view of another space does not convert to it, so it cannot reach a CPU op.
struct Host {};

/// A view of T with Rank extents; element (i, j, …) lies at data + i·strides[0] + j·strides[1] + …
/// Rows are contiguous: the last stride is 1. Cheap: pass by value. `TensorView<const T>` is read-only.
template <class T, std::size_t Rank, class Space = Host>
class TensorView {
 public:
  using value_type = T;
  using space = Space;
  static constexpr std::size_t rank = Rank;

  constexpr TensorView() noexcept = default;

  /// Row-major and dense over `extents`.
  constexpr TensorView(T* data, std::array<index_t, Rank> extents) noexcept : data_(data), extents_(extents) {
    index_t stride = 1;
    for (std::size_t r = Rank; r-- > 0;) {
      strides_[r] = stride;
      stride *= extents_[r];
    }
  }

  constexpr TensorView(T* data, std::array<index_t, Rank> extents, std::array<index_t, Rank> strides) noexcept
      : data_(data), extents_(extents), strides_(strides) {}

  /// A writable view reads as a read-only one.
  template <class U>
  requires(std::is_same_v<const U, T> &&
           !std::is_const_v<U>) constexpr TensorView(TensorView<U, Rank, Space> other) noexcept
      : data_(other.data()), extents_(other.extents()), strides_(other.strides()) {}

  [[nodiscard]] constexpr T* data() const noexcept { return data_; }
  [[nodiscard]] constexpr index_t extent(std::size_t r) const noexcept { return extents_[r]; }
  [[nodiscard]] constexpr index_t stride(std::size_t r) const noexcept { return strides_[r]; }
  [[nodiscard]] constexpr const std::array<index_t, Rank>& extents() const noexcept { return extents_; }
  [[nodiscard]] constexpr const std::array<index_t, Rank>& strides() const noexcept { return strides_; }

  /// Number of elements.
  [[nodiscard]] constexpr index_t size() const noexcept {
    index_t n = 1;
    for (const index_t e : extents_) n *= e;
    return n;
  }

  /// Element (i, j, …); not checked.
  template <class... Index>
  requires(sizeof...(Index) == Rank) [[nodiscard]] constexpr T& operator()(Index... index) const noexcept {
    index_t offset = 0;
    std::size_t r = 0;
    ((offset += static_cast<index_t>(index) * strides_[r++]), ...);
    return data_[offset];
  }

  /// Slice i of the first extent, one rank lower.
  [[nodiscard]] constexpr auto row(index_t i) const noexcept requires(Rank > 1) {
    std::array<index_t, Rank - 1> e{}, s{};
    for (std::size_t r = 1; r < Rank; ++r) {
      e[r - 1] = extents_[r];
      s[r - 1] = strides_[r];
    }
    return TensorView<T, Rank - 1, Space>(data_ + i * strides_[0], e, s);
  }

  /// Slices [first, first + count) of the first extent.
  [[nodiscard]] constexpr TensorView rows(index_t first, index_t count) const noexcept {
    auto e = extents_;
    e[0] = count;
    return {data_ + first * strides_[0], e, strides_};
  }

  /// A rank-1 view as a span.
  [[nodiscard]] constexpr std::span<T> span() const noexcept requires(Rank == 1) {
    return {data_, static_cast<std::size_t>(extents_[0])};
  }

 private:
  T* data_ = nullptr;
  std::array<index_t, Rank> extents_{};
  std::array<index_t, Rank> strides_{};
};

/// [n]
template <class T, class Space = Host>
using VectorView = TensorView<T, 1, Space>;
/// [n, k]
template <class T, class Space = Host>
using MatrixView = TensorView<T, 2, Space>;

/// A tensor as a file holds it: bytes of `dtype`, row-major, dense, perhaps not aligned. Not owning.
struct RawTensor {
  const std::byte* data = nullptr;
  DType dtype = DType::f32;
  std::span<const index_t> shape;

  [[nodiscard]] index_t size() const noexcept {
    index_t n = 1;
    for (const index_t e : shape) n *= e;
    return n;
  }
  /// Element i in row-major order, exactly, as float.
  [[nodiscard]] float operator[](index_t i) const noexcept { return load_element(data, dtype, i); }
};

}  // namespace finteam::inline FINTEAM_ABI
