// y (+)= x wᵀ over the panels of core/packed.hpp, for one row or for many, and the look-up of rows.
// The order of every sum (law 3): an output has two accumulators, for even and for odd k, each taken in increasing k;
// then even + odd; then, when accumulating, y + that. Tiles, chunks and threads only choose which outputs go together.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cpu/parallel.hpp>
#include <finteam/backend/cpu/simd.hpp>
#include <finteam/core/packed.hpp>

#include <utility>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// A panel's elements as they are stored; `load` widens the pair (k, k + 1) of all sixteen outputs.
template <class Arch>
struct Bf16Panel {
  static constexpr index_t pair_bytes = 64;
  FINTEAM_INLINE static void load(const std::byte* p, simd::Lanes<Arch>& even, simd::Lanes<Arch>& odd) noexcept {
    simd::load_bf16_pairs(p, even, odd);
  }
};

template <class Arch>
struct FloatPanel {
  static constexpr index_t pair_bytes = 128;
  FINTEAM_INLINE static void load(const std::byte* p, simd::Lanes<Arch>& even, simd::Lanes<Arch>& odd) noexcept {
    const auto* values = reinterpret_cast<const float*>(p);
    even = simd::Lanes<Arch>::load(values);
    odd = simd::Lanes<Arch>::load(values + panel_outputs);
  }
};

/// The sums of Rows rows with Panels panels: the registers of one tile.
template <class Arch, std::size_t Rows, std::size_t Panels>
struct Accumulators {
  using V = simd::Lanes<Arch>;
  V even[Rows][Panels], odd[Rows][Panels];

  FINTEAM_INLINE void clear() noexcept {
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE { even[r][p] = odd[r][p] = V::zero(); });
    });
  }

  /// Adds the products of k elements: x at `x` (rows `stride` apart), the panels at `w` (`panel_bytes` apart).
  template <class Panel>
  FINTEAM_INLINE void add(const float* x, index_t stride, const std::byte* w, index_t panel_bytes, index_t k) noexcept {
    V w0[Panels], w1[Panels];
    for (index_t j = 0; j + 1 < k; j += 2, w += Panel::pair_bytes) {
      simd::unroll<Panels>(
          [&](std::size_t p) FINTEAM_INLINE { Panel::load(w + static_cast<index_t>(p) * panel_bytes, w0[p], w1[p]); });
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        const V x0 = V::broadcast(x[static_cast<index_t>(r) * stride + j]);
        simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE { even[r][p] = simd::fmadd(x0, w0[p], even[r][p]); });
      });
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        const V x1 = V::broadcast(x[static_cast<index_t>(r) * stride + j + 1]);
        simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE { odd[r][p] = simd::fmadd(x1, w1[p], odd[r][p]); });
      });
    }
    if (k % 2 != 0) add_last<Panel>(x + k - 1, stride, w, panel_bytes);
  }

  /// The last element of an odd k; an f32 panel ends with it.
  template <class Panel>
  FINTEAM_INLINE void add_last(const float* x, index_t stride, const std::byte* w, index_t panel_bytes) noexcept {
    simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE {
      const std::byte* at = w + static_cast<index_t>(p) * panel_bytes;
      V w0, unused;
      if constexpr (Panel::pair_bytes == 64) {
        Panel::load(at, w0, unused);
      } else {
        w0 = V::load(reinterpret_cast<const float*>(at));
      }
      simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
        even[r][p] = simd::fmadd(V::broadcast(x[static_cast<index_t>(r) * stride]), w0, even[r][p]);
      });
    });
  }

  /// Writes the sums at y (rows `stride` apart, panels 16 apart); `outputs` is how many there are from y on.
  FINTEAM_INLINE void write(Write how, float* y, index_t stride, index_t outputs) const noexcept {
    simd::unroll<Rows>([&](std::size_t r) FINTEAM_INLINE {
      simd::unroll<Panels>([&](std::size_t p) FINTEAM_INLINE {
        float* at = y + static_cast<index_t>(r) * stride + static_cast<index_t>(p) * panel_outputs;
        const index_t count = outputs - static_cast<index_t>(p) * panel_outputs;
        V total = even[r][p] + odd[r][p];
        if (count >= panel_outputs) {
          if (how == Write::accumulate) total = V::load(at) + total;
          total.store(at);
        } else {
          if (how == Write::accumulate) total = V::load(at, count) + total;
          total.store(at, count);
        }
      });
    });
  }
};

/// The largest tile that keeps its sums, a row of weights and a broadcast in registers.
template <class Arch>
struct TileShape {
  static constexpr std::size_t parts = simd::Lanes<Arch>::parts;
  static constexpr std::size_t rows = parts == 1 ? 8 : parts == 2 ? 3 : 1;  ///< rows against one panel
  static constexpr std::size_t panels = parts == 1 ? 4 : 1;                 ///< panels against one row
};

/// One matrix product, as the tasks of an executor see it.
template <class Arch>
class MatmulJob {
 public:
  MatmulJob(MatrixView<const float> x, const PackedMatrix& w, Write write, MatrixView<float> y) noexcept
      : x_(x), w_(w), write_(write), y_(y) {}

  void run(const ExecutorRef& executor) const {
    const index_t panels = w_.panels();
    index_t size = chunk_size(executor, panels, x_.extent(0) * w_.cols() * panel_outputs);
    // A chunk's weights stay in the second cache while the rows go past.
    if (x_.extent(0) > 1) size = std::min(size, cache_bytes / std::max<index_t>(w_.panel_bytes(), 1) + 1);
    constexpr auto step = static_cast<index_t>(TileShape<Arch>::panels);
    size = (size + step - 1) / step * step;
    for_chunks(executor, panels, size, [this](index_t first, index_t last) {
      if (w_.dtype() == DType::bf16) {
        chunk<Bf16Panel<Arch>>(first, last);
      } else {
        chunk<FloatPanel<Arch>>(first, last);
      }
    });
  }

 private:
  static constexpr index_t cache_bytes = 384 * 1024;

  template <class Panel>
  void chunk(index_t first, index_t last) const noexcept {
    constexpr auto most = static_cast<index_t>(TileShape<Arch>::rows);
    index_t t = 0;
    for (; t + most <= x_.extent(0); t += most) rows<Panel, TileShape<Arch>::rows>(t, first, last);
    [&]<std::size_t... R>(std::index_sequence<R...>) {
      const index_t rest = x_.extent(0) - t;
      ((rest == static_cast<index_t>(R) + 1 ? rows<Panel, R + 1>(t, first, last) : void()), ...);
    }
    (std::make_index_sequence<TileShape<Arch>::rows - 1>{});
  }

  /// Rows t … t + Rows - 1 against the panels [first, last).
  template <class Panel, std::size_t Rows>
  void rows(index_t t, index_t first, index_t last) const noexcept {
    constexpr std::size_t abreast = std::max<std::size_t>(TileShape<Arch>::panels / Rows, 1);
    index_t p = first;
    for (; p + static_cast<index_t>(abreast) <= last; p += static_cast<index_t>(abreast))
      tile<Panel, Rows, abreast>(t, p);
    if constexpr (abreast > 1) {
      for (; p < last; ++p) tile<Panel, Rows, 1>(t, p);
    }
  }

  template <class Panel, std::size_t Rows, std::size_t Panels>
  [[gnu::noinline]] void tile(index_t t, index_t p) const noexcept {
    Accumulators<Arch, Rows, Panels> sums;
    sums.clear();
    sums.template add<Panel>(&x_(t, 0), x_.stride(0), w_.panel(p), w_.panel_bytes(), w_.cols());
    sums.write(write_, &y_(t, p * panel_outputs), y_.stride(0), w_.rows() - p * panel_outputs);
  }

  MatrixView<const float> x_;
  const PackedMatrix& w_;
  Write write_;
  MatrixView<float> y_;
};

/// y[t,:] = w[tokens[t],:], out of the panels.
inline void unpack_rows(const ExecutorRef& executor, const PackedMatrix& w, std::span<const std::int32_t> tokens,
                        MatrixView<float> y) {
  const auto rows = static_cast<index_t>(tokens.size());
  for_chunks(executor, rows, chunk_size(executor, rows, 4 * w.cols()), [&](index_t first, index_t last) {
    for (index_t t = first; t < last; ++t) {
      const index_t i = tokens[static_cast<std::size_t>(t)];
      for (index_t j = 0; j < w.cols(); ++j) y(t, j) = w.element(i, j);
    }
  });
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
