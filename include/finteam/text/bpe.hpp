// Byte-pair encoding of one word: the merges, and the merging in O(n log n). Not here: how a text is cut into words.
// Source: Sennrich et al. 2016; the order (lowest rank, then leftmost) is that of the tokenizers package,
// models/bpe/word.rs.
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// What a pair of neighbours becomes, and how early: lower ranks first.
struct Merge {
  std::int32_t rank = 0;
  std::int32_t id = 0;
};

/// (left id, right id) → Merge, in one flat table.
class MergeTable {
 public:
  MergeTable() = default;
  explicit MergeTable(std::size_t merges) : slots_(std::bit_ceil(2 * merges + 1)) {}

  /// Nothing (nullptr) if the pair does not merge. Allocates nothing.
  [[nodiscard]] const Merge* find(std::int32_t left, std::int32_t right) const noexcept {
    const std::uint64_t k = key(left, right);
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t i = detail::mix_bits(k) & mask; slots_[i].key != empty; i = (i + 1) & mask) {
      if (slots_[i].key == k) return &slots_[i].merge;
    }
    return nullptr;
  }

  /// Building: false if the pair is there already. At most as many as the constructor was told.
  /// Throws Error(limit_exceeded) if too many pairs collide.
  [[nodiscard]] bool add(std::int32_t left, std::int32_t right, Merge merge) {
    const std::uint64_t k = key(left, right);
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = detail::mix_bits(k) & mask;
    for (std::size_t probes = 0; slots_[i].key != empty; ++probes, i = (i + 1) & mask) {
      if (slots_[i].key == k) return false;
      if (probes == detail::max_probes) {
        throw Error(Code::limit_exceeded, "merges", "pairs whose hashes differ", "too many collisions");
      }
    }
    slots_[i] = {k, merge};
    return true;
  }

 private:
  static constexpr std::uint64_t empty = ~std::uint64_t{0};  // ids are not negative, so no pair has this key
  struct Slot {
    std::uint64_t key = empty;
    Merge merge;
  };
  static std::uint64_t key(std::int32_t left, std::int32_t right) noexcept {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }

  std::vector<Slot> slots_ = std::vector<Slot>(1);
};

/// Merges one word at a time. Owns all memory that words of up to max_symbols need; 28 bytes or less for each of them.
class WordMerger {
 public:
  explicit WordMerger(std::size_t max_symbols)
      : ids_(max_symbols), next_(max_symbols), previous_(max_symbols), ranks_(2 * std::bit_ceil(max_symbols + 1)) {}

  /// A new word, without symbols yet.
  void clear() noexcept { count_ = 0; }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  /// Its next symbol. Throws Error(limit_exceeded) for more than max_symbols.
  void add(std::int32_t id) {
    if (at(count_) == ids_.size()) {
      throw Error(Code::limit_exceeded, "text", "at most " + std::to_string(ids_.size()) + " symbols in a word",
                  "more");
    }
    ids_[at(count_++)] = id;
  }
  /// Appends the ids of the word, which has at least one symbol: the pair of the lowest rank (of equals the leftmost)
  /// merges until none is left. O(n log n). Allocates only if `out` must grow.
  void finish(const MergeTable& merges, std::vector<std::int32_t>& out) {
    start(merges);
    while (ranks_[1] != none) merge_at(lowest(), merges);
    for (std::int32_t i = 0; i < count_; i = next_[at(i)]) out.push_back(ids_[at(i)]);
  }

  /// The same for a word whose symbols are its bytes.
  void append(std::string_view word, const std::array<std::int32_t, 256>& byte_tokens, const MergeTable& merges,
              std::vector<std::int32_t>& out) {
    clear();
    for (const char c : word) add(byte_tokens[static_cast<unsigned char>(c)]);
    finish(merges, out);
  }

 private:
  static constexpr std::int32_t none = std::numeric_limits<std::int32_t>::max();
  static std::size_t at(std::int32_t i) noexcept { return static_cast<std::size_t>(i); }

  /// One node per symbol, and over the nodes a tree of minima: leaf i is the rank of the pair that starts at node i.
  void start(const MergeTable& merges) {
    leaves_ = std::bit_ceil(at(count_));
    for (std::int32_t i = 0; i < count_; ++i) {
      next_[at(i)] = i + 1;
      previous_[at(i)] = i - 1;
    }
    for (std::int32_t i = 0; i < count_; ++i) ranks_[leaves_ + at(i)] = rank(i, merges);
    std::fill(ranks_.begin() + static_cast<index_t>(leaves_ + at(count_)),
              ranks_.begin() + static_cast<index_t>(2 * leaves_), none);
    for (std::size_t i = leaves_ - 1; i > 0; --i) ranks_[i] = std::min(ranks_[2 * i], ranks_[2 * i + 1]);
  }

  /// The rank of the pair that starts at node i.
  [[nodiscard]] std::int32_t rank(std::int32_t i, const MergeTable& merges) const noexcept {
    const std::int32_t j = next_[at(i)];
    if (j >= count_) return none;
    const Merge* merge = merges.find(ids_[at(i)], ids_[at(j)]);
    return merge != nullptr ? merge->rank : none;
  }

  /// The leftmost node whose pair has the lowest rank.
  [[nodiscard]] std::int32_t lowest() const noexcept {
    std::size_t i = 1;
    while (i < leaves_) i = 2 * i + (ranks_[2 * i] == ranks_[i] ? 0 : 1);
    return static_cast<std::int32_t>(i - leaves_);
  }

  void merge_at(std::int32_t i, const MergeTable& merges) noexcept {
    const std::int32_t j = next_[at(i)];
    ids_[at(i)] = merges.find(ids_[at(i)], ids_[at(j)])->id;
    next_[at(i)] = next_[at(j)];
    if (next_[at(i)] < count_) previous_[at(next_[at(i)])] = i;
    set_rank(j, none);
    set_rank(i, rank(i, merges));
    if (previous_[at(i)] >= 0) set_rank(previous_[at(i)], rank(previous_[at(i)], merges));
  }

  void set_rank(std::int32_t i, std::int32_t rank) noexcept {
    std::size_t k = leaves_ + at(i);
    ranks_[k] = rank;
    while (k > 1) {
      k /= 2;
      const std::int32_t minimum = std::min(ranks_[2 * k], ranks_[2 * k + 1]);
      if (ranks_[k] == minimum) return;
      ranks_[k] = minimum;
    }
  }

  std::vector<std::int32_t> ids_, next_, previous_, ranks_;
  std::int32_t count_ = 0;
  std::size_t leaves_ = 1;
};

}  // namespace finteam::inline FINTEAM_ABI
