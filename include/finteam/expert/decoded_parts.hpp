// The parts of a weight as plain tensors, decoded where a checkpoint stores them in another way. Holds one weight at a
// time in memory. Not here: the storage formats (file/stored_rows.hpp).
#pragma once

#include <finteam/backend/cpu/parallel.hpp>
#include <finteam/core/tensor.hpp>
#include <finteam/expert/source_weights.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory_resource>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

/// Plain tensors of a weight's parts; what it decodes, it decodes on the backend's executor, if it has one.
class DecodedParts {
 public:
  template <class B>
  DecodedParts(const B& backend, const SourceWeight& w, std::pmr::memory_resource* memory) : tensors_(w.tensors) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (!w.rows[i]) continue;
      RawTensor& raw = tensors_[i];
      const index_t k = std::max<index_t>(w.entry.k, 1), n = raw.size() / k;
      std::byte* const to = buffers_.emplace_back(static_cast<std::size_t>(n * k) * bytes_of(raw.dtype), memory).data();
      raw.data = to;
      const auto rows = [&, to](index_t first, index_t last) {
        std::array<float, piece> some;
        for (index_t r = first; r < last; ++r) {
          for (index_t j = 0; j < k; j += piece) {
            const index_t count = std::min(piece, k - j);
            w.rows[i](r, j, count, some.data());
            store({some.data(), static_cast<std::size_t>(count)}, raw.dtype,
                  to + static_cast<std::size_t>(r * k + j) * bytes_of(raw.dtype));
          }
        }
      };
      if constexpr (requires { backend.executor(); }) {
        constexpr index_t numbers = 1 << 16;  // that are worth a thread
        for_chunks(backend.executor(), n, numbers / k + 1, rows);
      } else {
        rows(0, n);
      }
    }
  }

  [[nodiscard]] std::span<const RawTensor> tensors() const noexcept { return tensors_; }

 private:
  static constexpr index_t piece = 256;

  static void store(std::span<const float> row, DType dtype, std::byte* to) noexcept {
    if (dtype == DType::f32) {
      std::memcpy(to, row.data(), row.size_bytes());
      return;
    }
    for (const float x : row) {  // exact: the type has every number
      const bf16 y = to_bf16(x);
      std::memcpy(to, &y.bits, 2);
      to += 2;
    }
  }

  std::vector<RawTensor> tensors_;
  std::vector<Buffer> buffers_;
};

}  // namespace finteam::inline FINTEAM_ABI::detail
