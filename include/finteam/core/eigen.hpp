// Views as Eigen maps, for a host that computes with logits, hidden states and gates. Reads and writes the same memory.
// Not for the decoder: Eigen keeps statics, and starts OpenMP under -fopenmp.
#pragma once

#include <finteam/core/view.hpp>

#include <Eigen/Core>

#include <type_traits>

namespace finteam::inline FINTEAM_ABI {
namespace detail {
template <class T, class Plain>
using EigenMap =
    Eigen::Map<std::conditional_t<std::is_const_v<T>, const Plain, Plain>, Eigen::Unaligned, Eigen::OuterStride<>>;
}

/// [n] as a column vector of n.
template <class T>
[[nodiscard]] auto as_eigen(VectorView<T> v) noexcept {
  using Vector = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, 1>;
  return Eigen::Map<std::conditional_t<std::is_const_v<T>, const Vector, Vector>>(v.data(), v.extent(0));
}

/// [n, k] as a row-major matrix of n rows and k columns.
template <class T>
[[nodiscard]] auto as_eigen(MatrixView<T> m) noexcept {
  using Matrix = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return detail::EigenMap<T, Matrix>(m.data(), m.extent(0), m.extent(1), Eigen::OuterStride<>(m.stride(0)));
}

}  // namespace finteam::inline FINTEAM_ABI
