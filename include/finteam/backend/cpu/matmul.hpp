// y (+)= x wᵀ over the panels of core/packed.hpp, for one row or for many, and the look-up of rows.
// Tiles, chunks and threads only choose which outputs go together (law 3). Not here: the sums themselves (tile.hpp).
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cpu/tile.hpp>

#include <utility>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// One matrix product, as the tasks of an executor see it.
template <class Arch>
class MatmulJob {
 public:
  template <class B>
  explicit MatmulJob(const Product<B>& p) noexcept
      : x_(*p.input), w_(*p.w), write_(p.write), chosen_(p.chosen), y_(p.y), first_(p.first) {}
  /// Paired: y = gated(plus + gate, plus + up).
  MatmulJob(const CpuInput<Arch>& x, const PackedMatrix& w, const Activation& activation, MatrixView<const float> plus,
            MatrixView<float> y) noexcept
      : x_(x), w_(w), activation_(activation), plus_(plus), y_(y) {}

  /// Pairs of panels: what is handed to a thread at least.
  [[nodiscard]] index_t pairs() const noexcept { return (w_.panels() + 1) / 2; }

  /// Pairs that are worth handing to a thread. Runs of weights are as long as balance allows.
  [[nodiscard]] index_t least_pairs() const noexcept {
    const index_t least = worthwhile_work / std::max<index_t>(x_.rows() * w_.cols() * 2 * panel_outputs, 1) + 1;
    return std::max(least, pairs_in(stream_bytes));
  }

  /// The outputs of the pairs [first, last).
  void run(index_t first, index_t last) const noexcept {
    constexpr Format bf16 = kernel_format<Arch>(Format::bf16);
    switch (w_.format()) {
      case Format::f32: return pairs<Format::f32>(first, last);
      case Format::bf16_wide: return pairs<Format::bf16_wide>(first, last);
      case Format::bf16: return pairs<bf16>(first, last);
      case Format::int8: return pairs<Format::int8>(first, last);
      case Format::int4: return pairs<Format::int4>(first, last);
      case Format::int4_zero: return pairs<Format::int4_zero>(first, last);
      case Format::int1: return pairs<Format::int1>(first, last);
      case Format::int2: return pairs<Format::int2>(first, last);
    }
  }

 private:
  /// With many rows, a few pairs of panels stay in the second cache while the rows go past, and whole tiles send for
  /// the next ones.
  static constexpr index_t stream_bytes = 64 * 1024, cache_bytes = 256 * 1024;

  /// Pairs of panels in so many bytes, at least one.
  [[nodiscard]] index_t pairs_in(index_t bytes) const noexcept {
    return std::max<index_t>(bytes / std::max<index_t>(2 * w_.panel_bytes(), 1), 1);
  }

  template <Format F>
  void pairs(index_t first, index_t last) const noexcept {
    // one tile of rows is one pass over the weights: nothing to keep, and their stream is ahead by itself
    const bool one_tile = x_.rows() <= TileShape<Arch>::most;
    const index_t size = one_tile ? last - first : pairs_in(cache_bytes);
    for (index_t p = first; p < last; p += size) {
      const index_t end = std::min(p + size, last), next = std::min(end + size, last);
      Ahead ahead;
      if (!one_tile && next > end) {
        constexpr index_t most = TileShape<Arch>::most, runs = 2 / TileShape<Arch>::panels(F, most);
        const index_t whole_tiles = x_.rows() / most;
        const index_t times = (end - p) * runs * whole_tiles * ((w_.cols() - 1) / Ahead::elements(F) + 1);
        ahead = {w_.panel(2 * end), ((next - end) * 2 * w_.panel_bytes() / 64 - 1) / times + 1};
      }
      all_rows<F>(2 * p, std::min(2 * end, w_.panels()), ahead);
    }
  }

  template <Format F>
  void all_rows(index_t first, index_t last, Ahead& ahead) const noexcept {
    for (index_t t = 0; t < x_.rows();) {
      const index_t count = TileShape<Arch>::next(x_.rows() - t);
      [&]<std::size_t... I>(std::index_sequence<I...>) {
        constexpr auto sizes = TileShape<Arch>::sizes();
        ((count == sizes[I] ? rows<F, static_cast<std::size_t>(sizes[I])>(t, first, last, ahead) : void()), ...);
      }
      (std::make_index_sequence<TileShape<Arch>::sizes().size()>{});
      t += count;
    }
  }

  /// Rows t … t + Rows - 1 against the panels [first, last), two at a time: a pair, or two that share what is read of
  /// x.
  template <Format F, std::size_t Rows>
  void rows(index_t t, index_t first, index_t last, Ahead& ahead) const noexcept {
    constexpr index_t panels = TileShape<Arch>::panels(F, Rows), size = Rows * 16;
    const std::byte* const x = x_.tile(t) + index_t{Rows} * input_row_bytes<Arch>(F, first_);
    alignas(64) std::array<float, 2 * size> sums;
    Ahead none;
    for (index_t p = first; p < last; p += 2) {
      const index_t count = std::min<index_t>(2, last - p);
      for (index_t c = 0; c < count; c += panels) {
        // the last panel of an odd number stands for both
        const index_t stride = count == 1 ? 0 : w_.panel_bytes();
        Tile<Arch, F, Rows>::run(x, w_.panel(p + c), stride, w_.cols(), sums.data() + c * size,
                                 Rows == TileShape<Arch>::most ? ahead : none);
      }
      for (index_t r = 0; r < index_t{Rows}; ++r) {
        if (w_.join() == Join::paired) {
          finish_pair(t + r, p, sums.data() + r * 16, sums.data() + size + r * 16);
        } else {
          for (index_t c = 0; c < count; ++c) finish(t + r, p + c, sums.data() + c * size + r * 16);
        }
      }
    }
  }

  using V = simd::Lanes<Arch>;

  void finish(index_t t, index_t p, const float* sums) const noexcept {
    const index_t first = p * panel_outputs, count = std::min(panel_outputs, w_.rows() - first);
    float* at = &y_(chosen_.row(t), first);
    const V total = V::load(sums), factor = V::broadcast(chosen_.factor(t));
    put(write_ == Write::accumulate ? fmadd(total, factor, get(at, count)) : total * factor, at, count);
  }

  void finish_pair(index_t t, index_t p, const float* gate, const float* up) const noexcept {
    const index_t n = w_.rows(), first = p / 2 * panel_outputs, count = std::min(panel_outputs, n - first);
    V g = V::load(gate), u = V::load(up);
    if (plus_.size() != 0) {
      g = g + get(&plus_(t, first), count);
      u = u + get(&plus_(t, n + first), count);
    }
    put(simd::gated(g, u, activation_), &y_(t, first), count);
  }

  [[nodiscard]] static V get(const float* at, index_t count) noexcept {
    return count == panel_outputs ? V::load(at) : V::load(at, count);
  }
  static void put(const V& v, float* at, index_t count) noexcept {
    if (count == panel_outputs) {
      v.store(at);
    } else {
      v.store(at, count);
    }
  }

  const CpuInput<Arch>& x_;
  const PackedMatrix& w_;
  Write write_ = Write::overwrite;
  Chosen chosen_{};
  Activation activation_{};
  MatrixView<const float> plus_{};
  MatrixView<float> y_;
  index_t first_ = 0;  // of a row of x
};

/// Runs products side by side, their pairs of panels one after the other: job(p) is the MatmulJob of p.
template <class P, class Job>
void run_products(const ExecutorRef& executor, std::span<const P> products, Job&& job) {
  index_t pairs = 0, least = 1;
  for (const P& p : products) {
    pairs += job(p).pairs();
    least = std::max(least, job(p).least_pairs());
  }
  for_halving_chunks(executor, pairs, least, [&](index_t first, index_t last) {
    for (const P& p : products) {
      const auto& of_p = job(p);
      const index_t count = of_p.pairs();
      if (first < count && last > 0) of_p.run(std::max<index_t>(first, 0), std::min(last, count));
      first -= count;
      last -= count;
    }
  });
}

/// y[row(t),:] = w[tokens[t],:], out of the panels.
inline void unpack_rows(const ExecutorRef& executor, const PackedMatrix& w, std::span<const std::int32_t> tokens,
                        MatrixView<float> y, const Chosen& chosen) {
  const auto rows = static_cast<index_t>(tokens.size());
  for_chunks(executor, rows, chunk_size(executor, rows, 4 * w.cols()), [&](index_t first, index_t last) {
    for (index_t t = first; t < last; ++t) {
      const index_t i = tokens[static_cast<std::size_t>(t)];
      float* to = &y(chosen.row(t), 0);
      const float factor = chosen.factor(t);
      for (index_t j = 0; j < w.cols(); ++j) to[j] = factor * w.element(i, j);
    }
  });
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
