// Overflow-safe arithmetic for lengths that come from files and callers, and the printing of shapes in errors.
#pragma once

#include <finteam/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

namespace finteam::inline FINTEAM_ABI {

/// An extent, index or count. Signed, so that differences are safe.
using index_t = std::ptrdiff_t;

namespace detail {

/// c = a + b; false if it would not fit.
[[nodiscard]] constexpr bool checked_add(std::uint64_t a, std::uint64_t b, std::uint64_t& c) noexcept {
  c = a + b;
  return c >= a;
}

/// c = a · b; false if it would not fit.
[[nodiscard]] constexpr bool checked_mul(std::uint64_t a, std::uint64_t b, std::uint64_t& c) noexcept {
  c = a * b;
  return a == 0 || c / a == b;
}

/// Π extents · element_bytes, within ptrdiff_t; false if it would not fit.
template <class Extent>
[[nodiscard]] constexpr bool checked_bytes(std::span<const Extent> extents, std::uint64_t element_bytes,
                                           std::uint64_t& bytes) noexcept {
  bytes = element_bytes;
  for (const Extent e : extents) {
    if (e < 0 || !checked_mul(bytes, static_cast<std::uint64_t>(e), bytes)) return false;
  }
  return bytes <= static_cast<std::uint64_t>(std::numeric_limits<index_t>::max());
}

/// "[4096, 1024]"
template <class Extents>
[[nodiscard]] std::string shape_string(const Extents& extents) {
  std::string s = "[";
  for (const auto e : extents) {
    if (s.size() > 1) s += ", ";
    s += std::to_string(e);
  }
  return s + "]";
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
