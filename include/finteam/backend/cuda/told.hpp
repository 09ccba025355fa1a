// What a step's host side knows and its kernels need, as addresses in the device's memory: rows, sites, runs, tokens.
// Not here: how they come there (step.hpp).
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cuda/layout.hpp>
#include <finteam/backend/cuda/step.hpp>
#include <finteam/backend/next_token.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

template <class T>
[[nodiscard]] cuda::Rows device_rows(MatrixView<T, Device> x) noexcept {
  return {const_cast<float*>(x.data()), x.stride(0), static_cast<std::int32_t>(x.extent(0)),
          static_cast<std::int32_t>(x.extent(1))};
}
template <class T>
[[nodiscard]] cuda::Heads device_heads(TensorView<T, 3, Device> x) noexcept {
  return {const_cast<float*>(x.data()),
          x.stride(0),
          x.stride(1),
          static_cast<std::int32_t>(x.extent(0)),
          static_cast<std::int32_t>(x.extent(1)),
          static_cast<std::int32_t>(x.extent(2))};
}
[[nodiscard]] inline cuda::Cache device_cache(const CacheLayer<Device>& cache) noexcept {
  return {cache.heads.data(),
          cache.heads.stride(0),
          cache.heads.stride(1),
          static_cast<cuda::CacheFormat>(cache.format),
          static_cast<std::int32_t>(cache.g()),
          static_cast<std::int32_t>(cache.e)};
}

[[nodiscard]] inline cuda::Chosen tell_chosen(CudaStep& step, const Chosen& chosen, index_t t) {
  return {chosen.rows.empty() ? nullptr : step.tell(chosen.rows),
          chosen.weight.empty() ? nullptr : step.tell(chosen.weight), chosen.scale,
          static_cast<std::int32_t>(chosen.count(t))};
}
[[nodiscard]] inline cuda::Scales tell_scales(CudaStep& step, const RowScales<Device>& scales) {
  const bool own = !scales.expert.empty() && scales.own.extent(0) != 0;
  return {scales.shared.data(), own ? scales.own.data() : nullptr, own ? step.tell(scales.expert) : nullptr};
}

/// The sites of a step. Every layer asks for the same: they are told once.
class ToldSites {
 public:
  /// Pages that a table has room for: it grows by doubling, so that steps keep their shape as a sequence grows.
  [[nodiscard]] static index_t table_room(index_t pages) noexcept {
    return static_cast<index_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<index_t>(pages, 8))));
  }

  [[nodiscard]] cuda::Sites tell(CudaStep& step, std::span<const Site> sites) {
    fill(sites);
    if (epoch_ == step.epoch() && numbers_ == told_) return sites_;
    const auto t = static_cast<index_t>(sites.size());
    const std::int32_t* at = step.tell(std::span<const std::int32_t>(numbers_));
    sites_ = {at, at + t, at + 3 * t, at + 2 * t, static_cast<std::int32_t>(t)};
    told_ = numbers_;
    epoch_ = step.epoch();
    return sites_;
  }

 private:
  /// [t] tables, [t] positions, [t] whether they are long, then the tables: of rows that share one, once.
  void fill(std::span<const Site> sites) {
    numbers_.clear();
    for (const Site& site : sites) numbers_.push_back(add_table(site));
    for (const Site& site : sites) numbers_.push_back(site.position);
    for (const Site& site : sites) numbers_.push_back(site.is_long ? 1 : 0);
    for (const Table& table : tables_) {
      const std::size_t begin = numbers_.size();
      numbers_.insert(numbers_.end(), table.pages, table.pages + table.count);
      numbers_.resize(begin + static_cast<std::size_t>(table_room(table.count)), 0);
    }
    // Room is known only now: a table's place follows from those before it.
    index_t place = 0;
    for (Table& table : tables_) {
      table.place = place;
      place += table_room(table.count);
    }
    for (std::size_t i = 0; i < sites.size(); ++i) {
      numbers_[i] = static_cast<std::int32_t>(tables_[static_cast<std::size_t>(numbers_[i])].place);
    }
    tables_.clear();
  }
  [[nodiscard]] std::int32_t add_table(const Site& site) {
    const index_t count = site.position / page_tokens + 1;
    auto table = std::find_if(tables_.rbegin(), tables_.rend(), [&](const Table& t) { return t.pages == site.pages; });
    if (table == tables_.rend()) {
      tables_.push_back({site.pages, count, 0});
      return static_cast<std::int32_t>(tables_.size()) - 1;
    }
    table->count = std::max(table->count, count);
    return static_cast<std::int32_t>(tables_.rend() - table) - 1;
  }

  struct Table {
    const std::int32_t* pages;
    index_t count, place;
  };
  std::vector<std::int32_t> numbers_, told_;
  std::vector<Table> tables_;
  cuda::Sites sites_{};
  std::uint64_t epoch_ = 0;
};

/// Tokens whose probabilities are asked for; working memory and results are the step's scratch.
[[nodiscard]] inline cuda::LogP tell_log_p(CudaStep& step, MatrixView<const float, Device> x,
                                           std::span<const Foretold> tokens) {
  static_assert(sizeof(Foretold) == 2 * sizeof(std::int32_t));
  const auto chunks = static_cast<std::size_t>(cuda::token_chunks(static_cast<std::int32_t>(x.extent(1))));
  const std::size_t sums = static_cast<std::size_t>(x.extent(0)) * chunks * sizeof(cuda::TokenSum);
  const auto* const told = reinterpret_cast<const std::int32_t*>(step.tell(tokens));
  auto* const scratch = static_cast<std::byte*>(step.scratch(sums + tokens.size() * sizeof(double)));
  return {device_rows(x), told, static_cast<std::int32_t>(tokens.size()), reinterpret_cast<cuda::TokenSum*>(scratch),
          reinterpret_cast<double*>(scratch + sums)};
}

/// Tokens to be chosen.
class ToldTokens {
 public:
  /// The command, whose results and working memory are the step's scratch.
  [[nodiscard]] cuda::NextToken tell(CudaStep& step, const NextTokens<Device>& of) {
    const auto experts = of.weight.size(), rows = of.logits.size() / experts;
    logits_.clear();
    for (const auto& row : of.logits) logits_.push_back(row.data());
    sites_.clear();
    const Sampling& s = of.sampling;
    const bool penalises = s.repetition_penalty != 1;
    for (std::size_t i = 0; i < rows; ++i) {
      const auto end = static_cast<std::int32_t>(of.before.size() - (rows - 1 - i));
      const std::int32_t begin = s.repetition_window > 0 ? std::max(end - s.repetition_window, 0) : 0;
      sites_.push_back({s.seed, end, begin, end});
    }
    seen_.clear();
    if (penalises) {  // room grows by doubling, so that steps keep their shape as a sequence grows
      seen_.assign(of.before.begin(), of.before.end());
      seen_.resize(std::bit_ceil(std::max<std::size_t>(seen_.size(), 64)), 0);
    }
    cuda::NextToken p{};
    p.logits = step.tell(std::span<const float* const>(logits_));
    p.weight = step.tell(of.weight);
    p.rows = static_cast<std::int32_t>(rows);
    p.experts = static_cast<std::int32_t>(experts);
    p.v = static_cast<std::int32_t>(of.logits.front().size());
    p.mixes_logits = of.mixes_logits ? 1 : 0;
    p.absent = step.tell(of.absent);
    p.absent_count = static_cast<std::int32_t>(of.absent.size());
    p.top_k = s.top_k;
    p.temperature = s.temperature;
    p.top_p = s.top_p;
    p.min_p = s.min_p;
    p.repetition_penalty = s.repetition_penalty;
    p.sites = step.tell(std::span<const cuda::TokenSite>(sites_));
    p.seen = step.tell(std::span<const std::int32_t>(seen_));
    p.seen_room = static_cast<std::int32_t>(seen_.size());
    find_places(step, p);
    return p;
  }

 private:
  static void find_places(CudaStep& step, cuda::NextToken& p) {
    const auto rows = static_cast<std::size_t>(p.rows), chunks = static_cast<std::size_t>(p.chunks());
    std::size_t bytes = 0;
    const auto room = [&](std::size_t count, std::size_t size) {
      return std::exchange(bytes, bytes + (count * size + 255) / 256 * 256);
    };
    const std::size_t log_p = room(rows * static_cast<std::size_t>(p.v), sizeof(float)),
                      unpenalised = room(rows * static_cast<std::size_t>(p.seen_room), sizeof(float)),
                      sums = room(rows * static_cast<std::size_t>(p.sums_each()) * chunks, sizeof(cuda::TokenSum)),
                      bounds = room(rows, sizeof(cuda::TokenBound)),
                      draws = room(rows * chunks, sizeof(cuda::TokenDraw)), to = room(rows, sizeof(cuda::ChosenToken));
    auto* const scratch = static_cast<std::byte*>(step.scratch(bytes));
    p.log_p = reinterpret_cast<float*>(scratch + log_p);
    p.unpenalised = reinterpret_cast<float*>(scratch + unpenalised);
    p.sums = reinterpret_cast<cuda::TokenSum*>(scratch + sums);
    p.bounds = reinterpret_cast<cuda::TokenBound*>(scratch + bounds);
    p.draws = reinterpret_cast<cuda::TokenDraw*>(scratch + draws);
    p.to = reinterpret_cast<cuda::ChosenToken*>(scratch + to);
  }

  std::vector<const float*> logits_;
  std::vector<cuda::TokenSite> sites_;
  std::vector<std::int32_t> seen_;
};

/// Whether a rope turns what a write then writes, as its last heads.
[[nodiscard]] inline bool turns(const cuda::Rope& rope, const cuda::CacheWrite& write) noexcept {
  const cuda::Heads &x = rope.x, &k = write.k;
  return x.rows == k.rows && x.e == k.e && x.row_stride == k.row_stride && x.head_stride == k.head_stride &&
         x.heads >= k.heads && k.data == x.data + (x.heads - k.heads) * x.head_stride;
}

/// Rows that follow each other in one sequence, as runs.
inline void find_runs(std::span<const Site> sites, std::vector<cuda::Run>& runs) {
  runs.clear();
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const bool follows =
        i > 0 && sites[i].pages == sites[i - 1].pages && sites[i].position == sites[i - 1].position + 1;
    if (follows) {
      ++runs.back().count;
    } else {
      runs.push_back({static_cast<std::int32_t>(i), 1});
    }
  }
}

/// Splits that hold a position: a power of two, so that steps keep their shape as a sequence grows.
[[nodiscard]] inline std::int32_t splits_for(std::int32_t position) noexcept {
  return static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint32_t>(position / cuda::split_tokens + 1)));
}

}  // namespace finteam::inline FINTEAM_ABI::detail
