// The panel layout of law 3: a weight [n, k] in panels of 16 outputs, with k running inside a panel. One layout serves
// the matrix-vector kernel, the matrix-matrix kernel and the look-up of a row. Not here: arithmetic
// (backend/cpu/matmul.hpp), types below 16 bits. Those will keep the shape: 8 bit [n/16][k/4][16][4].
#pragma once

#include <finteam/core/tensor.hpp>

#include <algorithm>
#include <cstring>

namespace finteam::inline FINTEAM_ABI {

/// Outputs in one panel.
inline constexpr index_t panel_outputs = 16;

/// A weight [n, k] in panels: bf16 as [n/16][k/2][16][2], f32 as [n/16][k][16], zeros where n or k end early.
/// f16 is kept as f32, which is exact. A panel starts at a multiple of 64 bytes. Moves only.
class PackedMatrix {
 public:
  PackedMatrix() noexcept = default;

  /// Asks for the constructor that leaves the packing to the caller.
  struct Unpacked {};

  /// Room for a matrix shaped like raw; every panel must then be packed. For packing on many threads.
  /// Throws Error(mismatch) unless raw is [n, k], Error(limit_exceeded) if the size overflows.
  PackedMatrix(Unpacked, const RawTensor& raw, std::pmr::memory_resource* memory)
      : rows_(extent(raw, 0)),
        cols_(extent(raw, 1)),
        dtype_(raw.dtype == DType::bf16 ? DType::bf16 : DType::f32),
        buffer_(bytes(rows_, cols_, dtype_), memory) {}

  /// Packs all of raw, on the calling thread.
  explicit PackedMatrix(const RawTensor& raw, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : PackedMatrix(Unpacked{}, raw, memory) {
    for (index_t i = 0; i < panels(); ++i) pack(i, raw);
  }

  [[nodiscard]] index_t rows() const noexcept { return rows_; }
  [[nodiscard]] index_t cols() const noexcept { return cols_; }
  /// The type of the stored elements: bf16 or f32.
  [[nodiscard]] DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] index_t panels() const noexcept { return panel_count(rows_); }
  /// Bytes from one panel to the next; a multiple of 64.
  [[nodiscard]] index_t panel_bytes() const noexcept { return panel_bytes(cols_, dtype_); }
  /// The outputs 16·i … 16·i + 15.
  [[nodiscard]] const std::byte* panel(index_t i) const noexcept { return buffer_.data() + i * panel_bytes(); }

  /// w[i,j], exactly.
  [[nodiscard]] float element(index_t i, index_t j) const noexcept {
    return load_element(panel(i / panel_outputs), dtype_, offset(i % panel_outputs, j));
  }

  /// Packs panel i of raw, the tensor that this matrix was made for. Distinct panels may be packed at the same time.
  void pack(index_t i, const RawTensor& raw) noexcept {
    std::byte* to = buffer_.data() + i * panel_bytes();
    std::fill_n(to, panel_bytes(), std::byte{0});
    const index_t lanes = std::min(panel_outputs, rows_ - i * panel_outputs);
    for (index_t lane = 0; lane < lanes; ++lane) {
      const index_t from = (i * panel_outputs + lane) * cols_;
      for (index_t j = 0; j < cols_; ++j) {
        if (dtype_ == DType::bf16) {
          std::memcpy(to + 2 * offset(lane, j), raw.data + 2 * (from + j), 2);
        } else {
          const float value = raw[from + j];
          std::memcpy(to + 4 * offset(lane, j), &value, 4);
        }
      }
    }
  }

 private:
  static index_t extent(const RawTensor& raw, std::size_t r) {
    if (raw.shape.size() != 2) throw Error(Code::mismatch, "matrix", "2 extents", detail::shape_string(raw.shape));
    return raw.shape[r];
  }
  static constexpr index_t panel_count(index_t n) noexcept {
    return n / panel_outputs + (n % panel_outputs != 0 ? 1 : 0);
  }
  static constexpr index_t panel_bytes(index_t k, DType dtype) noexcept {
    return dtype == DType::bf16 ? (k / 2 + k % 2) * (panel_outputs * 4) : k * (panel_outputs * 4);
  }
  static std::size_t bytes(index_t n, index_t k, DType dtype) {
    std::uint64_t b = 0;
    const index_t shape[] = {n, k}, padded[] = {std::max<index_t>(n, 1), std::max<index_t>(k, 1)};
    // (n + 15) · (k + 1) · 4 is at most 128 · n · k
    const bool fits = n >= 0 && k >= 0 && detail::checked_bytes(std::span<const index_t>(padded), 8 * panel_outputs, b);
    if (!fits) throw Error(Code::limit_exceeded, "matrix", "a size that fits in memory", detail::shape_string(shape));
    return static_cast<std::size_t>(panel_count(n) * panel_bytes(k, dtype));
  }
  /// Where element j of a lane lies in its panel, counted in elements.
  [[nodiscard]] index_t offset(index_t lane, index_t j) const noexcept {
    return dtype_ == DType::bf16 ? (j / 2 * panel_outputs + lane) * 2 + j % 2 : j * panel_outputs + lane;
  }

  index_t rows_ = 0;
  index_t cols_ = 0;
  DType dtype_ = DType::f32;
  Buffer buffer_;
};

}  // namespace finteam::inline FINTEAM_ABI
