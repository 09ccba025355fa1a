// Random test inputs: reproducible, never zeros.
#pragma once

#include <finteam/core/checked.hpp>

#include <cstdint>
#include <vector>

namespace test {

/// splitmix64: the same numbers on every machine and standard library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  /// In [low, high).
  double uniform(double low, double high) { return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53; }
  /// In [0, n).
  std::int32_t below(std::int64_t n) { return static_cast<std::int32_t>(bits() % static_cast<std::uint64_t>(n)); }

  std::vector<float> floats(std::size_t n, double low = -2, double high = 2) {
    std::vector<float> x(n);
    for (float& v : x) v = static_cast<float>(uniform(low, high));
    return x;
  }
  std::vector<std::int32_t> ids(std::size_t n, std::int64_t vocabulary) {
    std::vector<std::int32_t> x(n);
    for (auto& v : x) v = below(vocabulary);
    return x;
  }

 private:
  std::uint64_t state_;
};

}  // namespace test
