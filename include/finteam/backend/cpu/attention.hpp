// Attention over pages, a tile of queries at a time: the queries of a key/value head and of neighbouring rows share
// what is read. Scores are products with a page's keys (tile.hpp), outputs with its values (page_values.hpp); between
// them runs a softmax that keeps no more than one page's weights. Pages are read one after the other, from front to
// back: a processor that fetches ahead keeps pace with no other order.
// The bits depend on the row's query, its keys and values and its position: pages are taken whole, in order, and a slot
// that a row does not see has the weight zero (law 3).
// Source of the running softmax: Milakov & Gimelshein 2018, algorithm 3; over blocks as in Dao et al. 2022.
#pragma once

#include <finteam/backend/cpu/elementwise.hpp>
#include <finteam/backend/cpu/page_values.hpp>
#include <finteam/backend/cpu/tile.hpp>

#include <algorithm>
#include <array>
#include <limits>

namespace finteam::inline FINTEAM_ABI {
namespace detail {

/// One query: where it reads, where it writes, and the positions that it sees: [first, end).
struct Query {
  const float* q = nullptr;
  float* y = nullptr;
  index_t first = 0, end = 0;
  /// The softmax before the first page: of nothing (finite: of a page that a row does not see, too), or of a sink.
  float greatest = std::numeric_limits<float>::lowest(), total = 0;
};

/// Rows queries of one sequence and one head of the cache, which share the pages that they read.
template <class Arch, CacheFormat F, std::size_t Rows>
class AttentionTile {
 public:
  AttentionTile(const std::array<Query, Rows>& queries, index_t e, const AttentionRule<>& rule) noexcept
      : e_(e), scale_(rule.scale), cap_(rule.cap) {
    greatest_.fill(0);
    for (std::size_t r = 0; r < Rows; ++r) {
      greatest_[r] = queries[r].greatest;
      total_[r] = queries[r].total;
      q_[r] = queries[r].q;
      y_[r] = queries[r].y;
      first_[r] = queries[r].first;
      end_[r] = queries[r].end;
      std::fill(y_[r], y_[r] + e, 0.0F);
    }
    prepare(0);
  }

  void run(const std::int32_t* pages, const CacheLayer<Host>& cache, index_t head) noexcept {
    const index_t begin = *std::min_element(first_.begin(), first_.end()) / page_tokens * page_tokens;
    const index_t end = *std::max_element(end_.begin(), end_.end());
    for (index_t start = begin; start < end; start += page_tokens) {
      const KvPage page = cache.page(pages[start / page_tokens], head);
      scores(page);
      soften(page, start);
      add_values(page);
    }
    const V zero = V::zero();
    for (std::size_t r = 0; r < Rows; ++r) {
      const V total = V::broadcast(total_[r]);
      // + 0: a zero's sign may have come from a slot that the row does not see
      index_t i = 0;
      for (; i + 16 <= e_; i += 16) ((V::load(y_[r] + i) + zero) / total).store(y_[r] + i);
      if (i < e_) ((V::load(y_[r] + i, e_ - i) + zero) / total).store(y_[r] + i, e_ - i);
    }
  }

 private:
  using V = simd::Lanes<Arch>;
  static constexpr auto rows = static_cast<index_t>(Rows);
  static constexpr Format keys = key_format(F);
  static constexpr Format kernel = kernel_format<Arch>(keys);
  /// Panels that go together: as many sums as hide the latency of a multiply-add.
  static constexpr std::size_t together = Rows * V::parts <= 4 ? 2 : 1;
  /// Elements of a query that are prepared at once. Wider heads are prepared anew for every page.
  static constexpr index_t piece = 256;

  /// Elements first … first + piece of the queries, as products with the keys read them.
  void prepare(index_t first) noexcept {
    const V scale = V::broadcast(scale_);
    const index_t k = std::min(piece, e_ - first);
    for (index_t r = 0; r < rows; ++r) {
      const float* q = q_[static_cast<std::size_t>(r)] + first;
      const auto at = [&](index_t j) { return load_row<Arch>(q, j, k) * scale; };
      for (index_t j = 0; j < TileRow<Arch>::written(keys, k); j += TileRow<Arch>::piece) {
        TileRow<Arch>(inputs_.data(), rows, r).write(keys, k, j, at(j), at(j + 16));
      }
    }
  }

  /// scores_[half][r][0 … 16) = scale · q[r] · key of the slot
  void scores(const KvPage& page) noexcept {
    products(page, 0, scores_.data());
    if (e_ <= piece) return;
    for (index_t first = piece; first < e_; first += piece) {
      decltype(scores_) more;
      prepare(first);
      products(page, first, more.data());
      for (std::size_t i = 0; i < more.size(); ++i) scores_[i] += more[i];
    }
    prepare(0);
  }
  void products(const KvPage& page, index_t first, float* to) const noexcept {
    // Bytes come one panel after the other, and two of them at once would not fit the registers.
    constexpr bool bytes = is_quantised(keys);
    constexpr std::size_t panels = bytes ? 1 : together;
    const index_t stride = bytes ? panel_bytes(keys, e_) : 64;
    Ahead none;
    const std::byte* from = page.keys() + (bytes ? panel_bytes(keys, first) : KvPage::key_bytes(F, first));
    for (std::size_t p = 0; p < 2; p += panels) {
      Tile<Arch, kernel, Rows, panels, bytes ? 1 : 2>::run(inputs_.data(), from + static_cast<index_t>(p) * stride,
                                                           stride, std::min(piece, e_ - first), to + p * Rows * 16,
                                                           none);
    }
  }

  /// Scores become weights; greatest scores and totals move on. One loop after another, so that rows overlap in each.
  void soften(const KvPage& page, index_t start) noexcept {
    const V before = V::load(greatest_.data());
    if (cap_ != 0) {
      for (std::size_t i = 0; i < scores_.size(); i += 16) {
        simd::soft_cap(cap_, V::load(&scores_[i])).store(&scores_[i]);
      }
    }
    for (std::size_t r = 0; r < Rows; ++r) {
      const auto unseen = [&](index_t from, index_t to) {
        for (index_t s = from; s < to; ++s) half(s / 16, r)[s % 16] = -std::numeric_limits<float>::infinity();
      };
      unseen(0, std::min(first_[r] - start, page_tokens));
      unseen(std::max<index_t>(end_[r] - start, 0), page_tokens);
      const float most = simd::greatest(simd::max(V::load(half(0, r)), V::load(half(1, r))));
      greatest_[r] = simd::max(most, greatest_[r]);
    }
    alignas(64) std::array<float, 16> of_page{};
    for (std::size_t r = 0; r < Rows; ++r) {
      const V most = V::broadcast(greatest_[r]);
      const V low = simd::exp(V::load(half(0, r)) - most), high = simd::exp(V::load(half(1, r)) - most);
      if constexpr (F == CacheFormat::int8) {
        of_page[r] = simd::sum(low + high);
        (low * V::load(page.scales())).store(half(0, r));
        (high * V::load(page.scales() + 16)).store(half(1, r));
      } else {
        of_page[r] = simd::sum(weights_.put(r, low, high));
      }
    }
    if constexpr (F == CacheFormat::int8) {
      for (std::size_t r = 0; r < Rows; ++r) weights_.put_bytes(r, V::load(half(0, r)), V::load(half(1, r)));
    }
    const V keep = simd::exp(before - V::load(greatest_.data()));
    keep.store(keep_.data());
    simd::fmadd(V::load(total_.data()), keep, V::load(of_page.data())).store(total_.data());
  }
  [[nodiscard]] float* half(index_t i, std::size_t r) noexcept {
    return &scores_[(static_cast<std::size_t>(i) * Rows + r) * 16];
  }

  void add_values(const KvPage& page) noexcept {
    const std::byte* panels = page.values();
    const auto run = [&]<std::size_t Panels>(std::integral_constant<std::size_t, Panels>, index_t i) {
      ValueTile<Arch, F, Rows, Panels>::run(weights_, panels + i % 32 * 4, keep_.data(), y_.data(), i,
                                            std::min<index_t>(16 * Panels, e_ - i));
    };
    for (index_t i = 0; i < e_; i += 32, panels += KvPage::value_panel_bytes(F)) {
      if (together == 2 && i + 32 <= e_) {
        run(std::integral_constant<std::size_t, together>(), i);
      } else {
        for (index_t j = i; j < std::min(i + 32, e_); j += 16) run(std::integral_constant<std::size_t, 1>(), j);
      }
    }
  }

  std::array<const float*, Rows> q_;
  std::array<float*, Rows> y_;
  std::array<index_t, Rows> first_, end_;
  index_t e_;
  float scale_, cap_;
  alignas(64) std::array<float, 16> greatest_, total_{}, keep_;
  alignas(64) std::array<float, 2 * Rows * 16> scores_;
  PageWeights<Arch, F, Rows> weights_;
  alignas(64) std::array<std::byte, Rows * piece * 4> inputs_;
};

/// Queries of a tile, greatest first: all heads of a group, for as many rows as the registers have sums for.
template <class Arch>
struct QueryTiles {
  static constexpr auto sizes() noexcept {
    constexpr std::size_t parts = simd::Lanes<Arch>::parts;
    if constexpr (parts == 1) return std::array<index_t, 4>{12, 4, 2, 1};
    if constexpr (parts == 2) return std::array<index_t, 4>{6, 4, 2, 1};
    if constexpr (parts == 4) return std::array<index_t, 2>{2, 1};
  }
  static constexpr index_t most = sizes()[0];
  [[nodiscard]] static constexpr index_t next(index_t left) noexcept { return next_tile(sizes(), left); }
};

/// One call of attention, as the tasks of an executor see it.
template <class Arch>
class AttentionJob {
 public:
  AttentionJob(std::span<const Site> sites, TensorView<const float, 3> q, const CacheLayer<Host>& cache,
               const AttentionRule<>& rule, TensorView<float, 3> y) noexcept
      : sites_(sites), q_(q), cache_(cache), rule_(rule), y_(y), group_(q.extent(1) / cache.g()) {}

  void run(const ExecutorRef& executor) const {
    // Neighbouring rows that fill a few tiles, unless threads would idle; head by head, so that one head's pages stay
    // in the cache.
    const index_t rows = q_.extent(0), threads = executor.concurrency();
    const index_t size = std::max<index_t>(std::min(4 * most / group_, rows * cache_.g() / (8 * threads)), 1);
    const index_t parts = (rows + size - 1) / size, units = parts * cache_.g();
    index_t positions = 0;
    for (const Site& site : sites_) positions += site.position + 1 - rule_.first(site.position);
    // the arithmetic, or what reading the cache costs in its place
    const index_t work = positions * cache_.e * std::max<index_t>(group_ / 8, 4) / std::max<index_t>(parts, 1);
    for_chunks(executor, units, threads > 1 ? worthwhile_work / (work + 1) + 1 : units,
               [&](index_t first, index_t last) {
                 for (index_t i = first; i < last; ++i) {
                   unit(i / parts, i % parts * size, std::min(rows, (i % parts + 1) * size));
                 }
               });
  }

 private:
  static constexpr index_t most = QueryTiles<Arch>::most;

  /// Rows [first, last) of one head of the cache, sequence by sequence.
  void unit(index_t head, index_t first, index_t last) const noexcept {
    while (first < last) {
      index_t end = first + 1;
      while (end < last && site(end).pages == site(first).pages) ++end;
      switch (cache_.format) {
        case CacheFormat::f32: tiles<CacheFormat::f32>(head, first, end); break;
        case CacheFormat::bf16: tiles<CacheFormat::bf16>(head, first, end); break;
        case CacheFormat::int8: tiles<CacheFormat::int8>(head, first, end); break;
      }
      first = end;
    }
  }

  template <CacheFormat F>
  void tiles(index_t head, index_t first, index_t last) const noexcept {
    const index_t begin = first * group_, end = last * group_;
    for (index_t i = begin; i < end;) {
      const index_t count = QueryTiles<Arch>::next(end - i);
      [&]<std::size_t... I>(std::index_sequence<I...>) {
        constexpr auto sizes = QueryTiles<Arch>::sizes();
        ((count == sizes[I] ? tile<F, static_cast<std::size_t>(sizes[I])>(head, i) : void()), ...);
      }
      (std::make_index_sequence<QueryTiles<Arch>::sizes().size()>{});
      i += count;
    }
  }

  /// Queries i, i + 1, … of all rows: group_ for each row.
  template <CacheFormat F, std::size_t Rows>
  [[gnu::noinline]] void tile(index_t head, index_t i) const noexcept {
    std::array<Query, Rows> queries;
    for (std::size_t r = 0; r < Rows; ++r) {
      const index_t t = (i + static_cast<index_t>(r)) / group_,
                    h = head * group_ + (i + static_cast<index_t>(r)) % group_;
      const index_t position = site(t).position;
      queries[r] = {&q_(t, h, 0), &y_(t, h, 0), rule_.first(position), position + 1};
      if (rule_.sinks.size() == 0) continue;
      const float sink = rule_.sinks(h), lowest = queries[r].greatest;
      queries[r].greatest = sink < lowest ? lowest : sink;  // finite, or NaN
      queries[r].total = 1;
    }
    AttentionTile<Arch, F, Rows>(queries, cache_.e, rule_).run(site(i / group_).pages, cache_, head);
  }

  [[nodiscard]] const Site& site(index_t t) const noexcept { return sites_[static_cast<std::size_t>(t)]; }

  std::span<const Site> sites_;
  TensorView<const float, 3> q_;
  const CacheLayer<Host>& cache_;
  AttentionRule<> rule_;
  TensorView<float, 3> y_;
  index_t group_;
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
