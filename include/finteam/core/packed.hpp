// A weight [n, k] in panels (panel.hpp), made of one tensor or of several that one product reads.
// Not here: arithmetic (backend/cpu/tile.hpp).
#pragma once

#include <finteam/core/delta.hpp>
#include <finteam/core/panel.hpp>
#include <finteam/core/tensor.hpp>

#include <algorithm>
#include <array>
#include <memory_resource>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// How a matrix is made of several tensors [n_i, k], for one product that reads them all.
enum class Join : std::uint8_t {
  stacked,  ///< [Σ n_i, k]: the rows of one after those of another
  paired,   ///< two tensors [n, k], panel by panel in turn: for outputs that are combined with each other
};

/// A weight [n, k] in panels, in memory of its own or in somebody else's. Moves only.
class PackedMatrix {
 public:
  PackedMatrix() noexcept = default;

  /// Room for the matrix that `parts` make together; every panel must then be packed. For packing on many threads.
  /// Throws Error(mismatch) unless all parts are [n, k] with one k (paired: two of one shape), Error(limit_exceeded)
  /// if the size overflows, Error(invalid_argument) for a format that only differences have.
  PackedMatrix(std::span<const RawTensor> parts, Join join, Format format, std::pmr::memory_resource* memory)
      : PackedMatrix(shape_of(parts, join), join, format) {
    if (is_delta(format)) {
      throw Error(Code::invalid_argument, "matrix", "a format that weights are rounded to", std::string(name(format)));
    }
    buffer_ = Buffer(bytes(), memory);
    data_ = buffer_.data();
  }

  /// Room for the stacked matrix that the differences `parts` make together; every panel must then be packed.
  /// Throws Error(mismatch) unless all have one k and one format, Error(limit_exceeded) if the size overflows.
  PackedMatrix(std::span<const RawDelta> parts, std::pmr::memory_resource* memory)
      : PackedMatrix(shape_of(parts), Join::stacked, parts[0].format) {
    buffer_ = Buffer(bytes(), memory);
    data_ = buffer_.data();
  }

  /// The panels of a matrix [n, k] that lie at `data`, which outlives this.
  /// Throws Error(limit_exceeded) if the size overflows.
  PackedMatrix(std::array<index_t, 2> shape, Join join, Format format, const std::byte* data)
      : PackedMatrix(shape, join, format) {
    data_ = data;
  }

  /// The shape [n, k] that parts make together. Throws Error(mismatch) as above.
  [[nodiscard]] static std::array<index_t, 2> shape_of(std::span<const RawTensor> parts, Join join) {
    index_t rows = 0;
    for (const RawTensor& part : parts) {
      if (part.shape.size() != 2) {
        throw Error(Code::mismatch, "matrix", "2 extents", detail::shape_string(part.shape));
      }
      const bool joins = part.shape[1] == parts[0].shape[1] &&
                         (join == Join::stacked || (parts.size() == 2 && part.shape[0] == parts[0].shape[0]));
      if (!joins) {
        throw Error(Code::mismatch, "matrix", "parts that join " + detail::shape_string(parts[0].shape),
                    detail::shape_string(part.shape));
      }
      rows = join == Join::paired || part.shape[0] < 0 ? part.shape[0] : rows + part.shape[0];
    }
    return {rows, parts[0].shape[1]};
  }

  /// Throws Error(mismatch) as above.
  [[nodiscard]] static std::array<index_t, 2> shape_of(std::span<const RawDelta> parts) {
    index_t rows = 0;
    for (const RawDelta& part : parts) {
      if (part.k != parts[0].k || part.format != parts[0].format || !is_delta(part.format)) {
        throw Error(Code::mismatch, "matrix",
                    "differences of " + std::to_string(parts[0].k) + " inputs in int1 or int2",
                    std::to_string(part.k) + " inputs in " + std::string(name(part.format)));
      }
      rows = part.n < 0 ? part.n : rows + part.n;
    }
    return {rows, parts[0].k};
  }

  /// Packs one tensor on the calling thread.
  explicit PackedMatrix(const RawTensor& raw, Weights weights = Weights::stored,
                        std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : PackedMatrix({&raw, 1}, Join::stacked, format_of(weights, {&raw, 1}), memory) {
    for (index_t i = 0; i < panels(); ++i) pack(i, {&raw, 1});
  }

  /// Packs one difference on the calling thread.
  explicit PackedMatrix(const RawDelta& raw, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : PackedMatrix(std::span(&raw, 1), memory) {
    for (index_t i = 0; i < panels(); ++i) pack(i, std::span(&raw, 1));
  }

  /// n: outputs of a product (paired: of each of the two).
  [[nodiscard]] index_t rows() const noexcept { return rows_; }
  [[nodiscard]] index_t cols() const noexcept { return cols_; }
  [[nodiscard]] Format format() const noexcept { return format_; }
  [[nodiscard]] Join join() const noexcept { return join_; }
  [[nodiscard]] index_t panels() const noexcept {
    return (rows_ + panel_outputs - 1) / panel_outputs * (join_ == Join::paired ? 2 : 1);
  }
  /// Bytes from one panel to the next; a multiple of 64.
  [[nodiscard]] index_t panel_bytes() const noexcept { return FINTEAM_ABI::panel_bytes(format_, cols_); }
  /// Stacked: the outputs 16·i … 16·i + 15. Paired: those outputs of the first tensor at 2i, of the second at 2i + 1.
  [[nodiscard]] const std::byte* panel(index_t i) const noexcept { return data_ + i * panel_bytes(); }
  /// Bytes of all panels.
  [[nodiscard]] std::size_t bytes() const noexcept { return static_cast<std::size_t>(panels() * panel_bytes()); }

  /// w[i,j] of a stacked matrix, exactly as it is stored.
  [[nodiscard]] float element(index_t i, index_t j) const noexcept {
    return detail::panel_element(format_, panel(i / panel_outputs), i % panel_outputs, j);
  }

  /// Packs panel i out of `parts`, the tensors that this matrix was made for. Distinct panels may be packed at the same
  /// time.
  void pack(index_t i, std::span<const RawTensor> parts) noexcept {
    std::byte* to = buffer_.data() + i * panel_bytes();
    const index_t pairs = join_ == Join::paired ? 2 : 1, first = i / pairs * panel_outputs;
    const index_t lanes = std::min(panel_outputs, rows_ - first);
    if (lanes < panel_outputs || cols_ % block_inputs != 0) std::fill_n(to, panel_bytes(), std::byte{0});
    std::array<Lane, panel_outputs> rows;
    for (index_t lane = 0; lane < lanes; ++lane) {
      std::size_t part = pairs == 2 ? static_cast<std::size_t>(i % 2) : 0;
      index_t at = first + lane;
      while (pairs == 1 && at >= parts[part].shape[0]) at -= parts[part++].shape[0];
      const RawTensor& raw = parts[part];
      rows[static_cast<std::size_t>(lane)] = {raw.data + at * cols_ * static_cast<index_t>(bytes_of(raw.dtype)),
                                              raw.dtype};
    }
    // A few blocks of every row at a time: their panel stays in the first cache while its lines fill lane by lane.
    for (index_t j = 0; j < cols_; j += piece) {
      for (index_t lane = 0; lane < lanes; ++lane) {
        pack_piece(to, lane, rows[static_cast<std::size_t>(lane)], j, std::min(piece, cols_ - j));
      }
    }
  }

  /// The same out of differences.
  void pack(index_t i, std::span<const RawDelta> parts) noexcept {
    std::byte* to = buffer_.data() + i * panel_bytes();
    const index_t first = i * panel_outputs, lanes = std::min(panel_outputs, rows_ - first);
    if (lanes < panel_outputs || cols_ % block_inputs != 0) std::fill_n(to, panel_bytes(), std::byte{0});
    for (index_t lane = 0; lane < lanes; ++lane) {
      std::size_t part = 0;
      index_t at = first + lane;
      while (at >= parts[part].n) at -= parts[part++].n;
      detail::pack_delta_row(format_, to, lane, parts[part].row(at), cols_, parts[part].scale(at));
    }
  }

 private:
  PackedMatrix(std::array<index_t, 2> shape, Join join, Format format)
      : rows_(shape[0]), cols_(shape[1]), format_(format), join_(join) {
    std::uint64_t b = 0;
    const std::array<index_t, 2> padded{std::max<index_t>(rows_, 1), std::max<index_t>(cols_, 1)};
    // 2 · (n + 15) · (k + 63) · 4 bytes are at most 8,192 · n · k
    const bool fits = rows_ >= 0 && cols_ >= 0 &&
                      detail::checked_bytes(std::span<const index_t>(padded), 8 * panel_outputs * block_inputs, b);
    if (!fits) throw Error(Code::limit_exceeded, "matrix", "a size that fits in memory", detail::shape_string(shape));
  }

  /// A row of a tensor.
  struct Lane {
    const std::byte* data;
    DType dtype;
  };
  static constexpr index_t piece = 4 * block_inputs;

  /// The elements j … j + count - 1 of a row, count ≤ piece.
  void pack_piece(std::byte* panel, index_t lane, const Lane& row, index_t j, index_t count) const noexcept {
    std::byte* to = panel + FINTEAM_ABI::panel_bytes(format_, j);
    if (row.dtype == DType::bf16 && (format_ == Format::bf16 || format_ == Format::bf16_wide)) {
      detail::pack_pairs(to, lane, row.data + 2 * j, count);
    } else {
      std::array<float, piece> floats;
      load_elements(row.data, row.dtype, j, count, floats.data());
      detail::pack_floats(format_, to, lane, floats.data(), count);
    }
  }

  index_t rows_ = 0;
  index_t cols_ = 0;
  Format format_ = Format::f32;
  Join join_ = Join::stacked;
  Buffer buffer_;
  const std::byte* data_ = nullptr;
};

}  // namespace finteam::inline FINTEAM_ABI
