// Rows in a device's memory, from and to the host.
#pragma once

#include <finteam/backend/cuda.hpp>

#include "backend/inputs.hpp"

#include <algorithm>
#include <vector>

namespace device_rows {

using finteam::index_t;
using Floats = std::vector<float>;

inline Floats read_rows(finteam::Cuda& cuda, finteam::MatrixView<const float, finteam::Device> x) {
  Floats to(static_cast<std::size_t>(x.size()));
  cuda.to_host(x, {to.data(), {x.extent(0), x.extent(1)}});
  return to;
}
inline finteam::DeviceTensor<float, 2> give(finteam::Cuda& cuda, const Floats& x, index_t rows) {
  const index_t n = static_cast<index_t>(x.size()) / rows;
  auto to = cuda.tensor<float, 2>({rows, n}, nullptr);
  cuda.from_host({x.data(), {rows, n}}, to.view());
  return to;
}
inline bool same_bits(const Floats& a, const Floats& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](float x, float y) { return inputs::bits(x) == inputs::bits(y); });
}

}  // namespace device_rows
