// A paged key/value cache that holds many sequences: fork shares full pages and copies the last, partial one.
// Everything is taken when it is made; afterwards nothing is allocated.
#pragma once

#include <finteam/backend/backend.hpp>

#include <algorithm>
#include <cstdint>
#include <memory_resource>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What a cache is made for.
struct CacheLimits {
  index_t layers = 0;
  index_t kv_heads = 0;   ///< g
  index_t head_dim = 0;   ///< e
  index_t sequences = 1;  ///< sequences alive at once
  index_t tokens = 0;     ///< longest sequence
  index_t pages = 0;      ///< pages in all; at least enough for one longest sequence
  CacheFormat format = CacheFormat::f32;
};

template <Backend B>
class KvCache {
 public:
  /// Throws Error(invalid_argument) on limits that cannot hold one sequence.
  KvCache(B& backend, const CacheLimits& limits, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : limits_(limits), pages_per_sequence_(pages_for(limits.tokens)) {
    if (limits.sequences < 1 || limits.tokens < 1 || limits.pages < pages_per_sequence_) {
      throw Error(Code::invalid_argument, "cache",
                  "room for one sequence of " + std::to_string(limits.tokens) + " tokens",
                  std::to_string(limits.pages) + " pages");
    }
    for (index_t l = 0; l < limits.layers; ++l) {
      layers_.push_back(backend.template tensor<std::byte, 3>(
          {limits.kv_heads, limits.pages, B::page_bytes(limits.format, limits.head_dim)}, memory));
    }
    references_.assign(static_cast<std::size_t>(limits.pages), 0);
    tables_.assign(static_cast<std::size_t>(limits.sequences * pages_per_sequence_), 0);
    lengths_.assign(static_cast<std::size_t>(limits.sequences), closed);
    is_long_.assign(static_cast<std::size_t>(limits.sequences), false);
    free_.reserve(static_cast<std::size_t>(limits.pages));
    for (index_t p = limits.pages; p-- > 0;) free_.push_back(static_cast<std::int32_t>(p));
  }

  /// Pages that n tokens fill.
  [[nodiscard]] static constexpr index_t pages_for(index_t n) noexcept { return (n + page_tokens - 1) / page_tokens; }

  /// A new, empty sequence; is_long: its sites say so, for as long as it and its forks live.
  /// Throws Error(limit_exceeded) when all are in use.
  [[nodiscard]] std::int32_t open(bool is_long = false) {
    const auto slot = std::find(lengths_.begin(), lengths_.end(), closed);
    if (slot == lengths_.end()) {
      throw Error(Code::limit_exceeded, "cache", "at most " + std::to_string(limits_.sequences) + " sequences",
                  "one more");
    }
    *slot = 0;
    is_long_[static_cast<std::size_t>(slot - lengths_.begin())] = is_long;
    return static_cast<std::int32_t>(slot - lengths_.begin());
  }

  /// A new sequence with the same tokens: full pages are shared, the last partial page is copied.
  [[nodiscard]] std::int32_t fork(B& backend, std::int32_t from) {
    const std::int32_t to = open(is_long(from));
    const index_t n = length(from), full = n / page_tokens;
    for (index_t i = 0; i < full; ++i) {
      table(to)[i] = table(from)[i];
      ++references_[static_cast<std::size_t>(table(from)[i])];
    }
    lengths_[static_cast<std::size_t>(to)] = full * page_tokens;
    if (n > full * page_tokens) {
      try {
        extend(to, n);
      } catch (...) {
        close(to);
        throw;
      }
      for (index_t l = 0; l < limits_.layers; ++l) backend.cache_copy(layer(l), table(from)[full], table(to)[full]);
    }
    return to;
  }

  /// Makes the sequence `tokens` long, no shorter than it is, taking pages as needed; the new positions must be written
  /// before they are read. Throws Error(limit_exceeded), with the sequence as it was.
  void extend(std::int32_t sequence, index_t tokens) {
    const index_t have = pages_for(length(sequence)), need = pages_for(tokens);
    if (tokens < length(sequence) || tokens > limits_.tokens || need - have > static_cast<index_t>(free_.size())) {
      refuse(tokens);
    }
    for (index_t i = have; i < need; ++i) table(sequence)[i] = take_page();
    lengths_[static_cast<std::size_t>(sequence)] = tokens;
  }

  /// Makes the sequence `tokens` long, no longer than it is. A partial last page that others share is copied first.
  /// Throws Error(limit_exceeded) if there is none left for that, with the sequence as it was.
  void truncate(B& backend, std::int32_t sequence, index_t tokens) {
    const index_t have = pages_for(length(sequence)), keep = pages_for(tokens);
    if (tokens % page_tokens != 0 && references_[static_cast<std::size_t>(table(sequence)[keep - 1])] > 1) {
      if (free_.empty()) refuse(tokens);
      const std::int32_t shared = table(sequence)[keep - 1], own = take_page();
      for (index_t l = 0; l < limits_.layers; ++l) backend.cache_copy(layer(l), shared, own);
      release_page(shared);
      table(sequence)[keep - 1] = own;
    }
    for (index_t i = keep; i < have; ++i) release_page(table(sequence)[i]);
    lengths_[static_cast<std::size_t>(sequence)] = tokens;
  }

  /// Gives the sequence and the pages that only it used back.
  void close(std::int32_t sequence) noexcept {
    for (index_t i = 0; i < pages_for(length(sequence)); ++i) release_page(table(sequence)[i]);
    lengths_[static_cast<std::size_t>(sequence)] = closed;
  }

  /// Closes every sequence.
  void clear() noexcept {
    for (index_t s = 0; s < limits_.sequences; ++s) {
      if (is_open(static_cast<std::int32_t>(s))) close(static_cast<std::int32_t>(s));
    }
  }

  /// Whether open() or fork() gave this sequence and nothing has closed it since.
  [[nodiscard]] bool is_open(std::int32_t sequence) const noexcept {
    return lengths_[static_cast<std::size_t>(sequence)] != closed;
  }
  /// Tokens in the sequence.
  [[nodiscard]] index_t length(std::int32_t sequence) const noexcept {
    return lengths_[static_cast<std::size_t>(sequence)];
  }
  /// What it was opened as.
  [[nodiscard]] bool is_long(std::int32_t sequence) const noexcept {
    return is_long_[static_cast<std::size_t>(sequence)];
  }
  /// Where position p of the sequence lies.
  [[nodiscard]] Site site(std::int32_t sequence, std::int32_t position) const noexcept {
    return {tables_.data() + sequence * pages_per_sequence_, position, is_long(sequence)};
  }
  /// Keys and values of layer l, all pages.
  [[nodiscard]] CacheLayer<typename B::Space> layer(index_t l) noexcept {
    return {layers_[static_cast<std::size_t>(l)].view(), limits_.format, limits_.head_dim};
  }
  /// Pages that no sequence uses.
  [[nodiscard]] index_t free_pages() const noexcept { return static_cast<index_t>(free_.size()); }

 private:
  static constexpr index_t closed = -1;
  using Pages = decltype(std::declval<B&>().template tensor<std::byte, 3>({}, nullptr));

  [[noreturn]] void refuse(index_t tokens) const {
    throw Error(Code::limit_exceeded, "cache",
                "at most " + std::to_string(limits_.tokens) + " tokens in a sequence and " +
                    std::to_string(limits_.pages) + " pages in all",
                std::to_string(tokens) + " tokens, " + std::to_string(free_.size()) + " pages left");
  }

  /// A free page, which there is.
  [[nodiscard]] std::int32_t take_page() noexcept {
    const std::int32_t page = free_.back();
    free_.pop_back();
    references_[static_cast<std::size_t>(page)] = 1;
    return page;
  }
  void release_page(std::int32_t page) noexcept {
    if (--references_[static_cast<std::size_t>(page)] == 0) free_.push_back(page);
  }

  [[nodiscard]] std::int32_t* table(std::int32_t sequence) noexcept {
    return tables_.data() + sequence * pages_per_sequence_;
  }

  CacheLimits limits_;
  index_t pages_per_sequence_;
  std::vector<Pages> layers_;
  std::vector<std::int32_t> references_;  // by page
  std::vector<std::int32_t> tables_;      // [sequences, pages_per_sequence]
  std::vector<index_t> lengths_;          // by sequence; `closed` if free
  std::vector<bool> is_long_;             // by sequence
  std::vector<std::int32_t> free_;        // a stack of pages
};

}  // namespace finteam::inline FINTEAM_ABI
