// A weight in a device's memory, laid out as layout.hpp says: packed on the host, then copied.
// Not here: the products.
#pragma once

#include <finteam/backend/cpu/parallel.hpp>
#include <finteam/backend/cuda/device_memory.hpp>
#include <finteam/backend/cuda/layout.hpp>
#include <finteam/core/packed.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A weight [n, k], or a pair of them; moves only.
class DeviceMatrix {
 public:
  DeviceMatrix() noexcept = default;
  DeviceMatrix(std::shared_ptr<detail::CudaContext> context, const detail::cuda::MatrixLayout& layout)
      : n_(layout.n),
        k_(layout.k),
        format_(layout.format),
        paired_(layout.paired),
        buffer_(std::move(context), static_cast<std::size_t>(layout.bytes())) {}

  /// n: outputs of a product (paired: of each of the two).
  [[nodiscard]] index_t rows() const noexcept { return n_; }
  [[nodiscard]] index_t cols() const noexcept { return k_; }
  [[nodiscard]] detail::cuda::Format format() const noexcept { return format_; }
  [[nodiscard]] detail::cuda::Matrix get() const noexcept {
    return {buffer_.data(), format_, static_cast<std::int32_t>(n_), static_cast<std::int32_t>(k_), paired_ ? 1 : 0};
  }
  /// Bytes in the device's memory.
  [[nodiscard]] std::size_t bytes() const noexcept { return buffer_.size(); }
  /// Its number; the matrix is not empty.
  [[nodiscard]] int device() const noexcept { return buffer_.context()->properties().device; }

 private:
  index_t n_ = 0, k_ = 0;
  detail::cuda::Format format_ = detail::cuda::Format::f32;
  bool paired_ = false;
  detail::DeviceBuffer buffer_;
};

namespace detail {

/// Tiles of a matrix on the host, on their way to a device: packed from tile `first` on.
class PackedTiles {
 public:
  PackedTiles(const cuda::MatrixLayout& layout, std::byte* to, index_t first_tile) noexcept
      : layout_(layout), to_(to), first_(first_tile * tile_bytes(layout)) {}

  [[nodiscard]] static index_t tile_bytes(const cuda::MatrixLayout& w) noexcept {
    return cuda::is_integer(w.format) ? w.tile_bytes()
                                      : cuda::tile_outputs * w.stride() * (w.format == cuda::Format::f32 ? 4 : 2);
  }

  /// Row i of a tensor as row `row` of the matrix. The tiles' bytes were zero before.
  void put(index_t row, const RawTensor& raw, index_t i, Format format) const {
    const index_t k = layout_.k;
    if (!is_quantised(format)) return put_floats(row, raw, i);
    std::array<float, finteam::group_inputs> x;
    for (index_t j = 0; j < k; j += finteam::group_inputs) {
      const index_t count = std::min(finteam::group_inputs, k - j);
      load_elements(raw.data, raw.dtype, i * k + j, count, x.data());
      put_group(row, j, quantise_weights(format, {x.data(), static_cast<std::size_t>(count)}), format);
    }
  }
  /// Row i of a difference.
  void put(index_t row, const RawDelta& raw, index_t i) const {
    const int bits = cuda::bits_of(layout_.format);
    const float scale = raw.scale(i);
    std::memcpy(to_ + layout_.scale(row, 0) - first_, &scale, 4);
    const std::byte* numbers = raw.row(i);
    for (index_t j = 0; j < raw.k; ++j) {
      const auto byte = static_cast<unsigned>(numbers[j * bits / 8]);
      put_number(row, j, byte >> (j * bits % 8) & ((1U << bits) - 1));
    }
  }

 private:
  void put_floats(index_t row, const RawTensor& raw, index_t i) const {
    const index_t k = layout_.k, size = layout_.format == cuda::Format::f32 ? 4 : 2;
    std::byte* to = to_ + row * layout_.stride() * size - first_;
    if (size == 2 && raw.dtype == DType::bf16) {
      std::memcpy(to, raw.data + 2 * i * k, static_cast<std::size_t>(2 * k));
      return;
    }
    for (index_t j = 0; j < k; ++j) {
      const float x = raw[i * k + j];
      const bf16 rounded = to_bf16(x);
      std::memcpy(to + j * size, size == 4 ? static_cast<const void*>(&x) : &rounded, static_cast<std::size_t>(size));
    }
  }
  void put_number(index_t row, index_t j, unsigned q) const {
    const cuda::Place place = layout_.place(row, j);
    to_[place.byte - first_] |= static_cast<std::byte>(q << place.shift);
  }
  void put_group(index_t row, index_t j, const WeightGroup& group, Format format) const {
    for (index_t i = 0; i < std::min(finteam::group_inputs, layout_.k - j); ++i) {
      const unsigned q = group.q[static_cast<std::size_t>(i)];
      put_number(row, j + i, format == Format::int8 ? (q - 128U) & 255U : q);
    }
    const bf16 scale = to_bf16(group.scale), zero = to_bf16(group.zero);
    std::byte* to = to_ + layout_.scale(row, j) - first_;
    std::memcpy(to, &scale, 2);
    if (format == Format::int4_zero) std::memcpy(to + 128, &zero, 2);
  }

  cuda::MatrixLayout layout_;
  std::byte* to_;
  index_t first_;
};

/// Packs a matrix some tiles at a time, put(tiles, row of the matrix, index of its part, row of the part), and copies
/// them to the device. parts: rows of each.
template <class Put>
[[nodiscard]] DeviceMatrix pack_matrix(const std::shared_ptr<CudaContext>& context, const ExecutorRef& executor,
                                       const cuda::MatrixLayout& layout, std::span<const index_t> parts, Put&& put) {
  DeviceMatrix w(context, layout);
  const index_t bytes = PackedTiles::tile_bytes(layout);
  const index_t some = std::clamp<index_t>((index_t{64} << 20) / std::max<index_t>(bytes, 1), 1, layout.tiles());
  std::vector<std::byte> host(static_cast<std::size_t>(some * bytes));
  auto* const device = static_cast<std::byte*>(const_cast<void*>(w.get().data));
  for (index_t first = 0; first < layout.tiles(); first += some) {
    const index_t count = std::min(some, layout.tiles() - first);
    std::fill(host.begin(), host.end(), std::byte{0});
    const PackedTiles tiles(layout, host.data(), first);
    for_chunks(executor, count, chunk_size(executor, count, layout.k * cuda::tile_outputs), [&](index_t a, index_t b) {
      for (index_t row = (first + a) * cuda::tile_outputs; row < (first + b) * cuda::tile_outputs; ++row) {
        std::size_t part = layout.paired ? static_cast<std::size_t>(row % 16 / 8) : 0;
        index_t i = layout.paired ? row / 16 * 8 + row % 8 : row;
        if (i >= layout.n) continue;
        while (!layout.paired && i >= parts[part]) i -= parts[part++];
        put(tiles, row, part, i);
      }
    });
    check(cuda::copy_in(context->get(), device + first * bytes, host.data(), static_cast<std::size_t>(count * bytes)),
          "weights to be copied to the device");
    check(cuda::wait(context->get()), "weights to be copied to the device");
  }
  return w;
}

/// A matrix of several tensors. Throws Error(mismatch) unless they join.
[[nodiscard]] inline DeviceMatrix pack_matrix(const std::shared_ptr<CudaContext>& context, const ExecutorRef& executor,
                                              std::span<const RawTensor> parts, Join join, Format format) {
  const auto shape = PackedMatrix::shape_of(parts, join);
  const PackedMatrix checked(shape, join, format, nullptr);  // its size
  std::vector<index_t> rows;
  for (const RawTensor& part : parts) rows.push_back(part.shape[0]);
  const cuda::MatrixLayout layout(static_cast<cuda::Format>(format), shape[0], shape[1], join == Join::paired);
  return pack_matrix(context, executor, layout, rows,
                     [&](const PackedTiles& tiles, index_t row, std::size_t part, index_t i) {
                       tiles.put(row, parts[part], i, format);
                     });
}

/// The differences `parts`, stacked. Throws Error(mismatch) unless they join.
[[nodiscard]] inline DeviceMatrix pack_matrix(const std::shared_ptr<CudaContext>& context, const ExecutorRef& executor,
                                              std::span<const RawDelta> parts) {
  const auto shape = PackedMatrix::shape_of(parts);
  const PackedMatrix checked(shape, Join::stacked, parts[0].format, nullptr);
  std::vector<index_t> rows;
  for (const RawDelta& part : parts) rows.push_back(part.n);
  const cuda::MatrixLayout layout(static_cast<cuda::Format>(parts[0].format), shape[0], shape[1], false);
  return pack_matrix(
      context, executor, layout, rows,
      [&](const PackedTiles& tiles, index_t row, std::size_t part, index_t i) { tiles.put(row, parts[part], i); });
}

}  // namespace detail

}  // namespace finteam::inline FINTEAM_ABI
