// The answer of a distribution: which entry is the largest.
#pragma once

#include <finteam/core/checked.hpp>

#include <algorithm>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// argmax_i p[i]; of equals the lowest i, and 0 of nothing.
[[nodiscard]] inline index_t likeliest(std::span<const double> p) noexcept {
  return std::max_element(p.begin(), p.end()) - p.begin();
}

}  // namespace finteam::inline FINTEAM_ABI
