// What becomes of the matches that a text is cut by, and of what lies between them. Not here: finding them.
#pragma once

#include <finteam/core/config.hpp>

#include <cstddef>
#include <cstdint>

namespace finteam::inline FINTEAM_ABI {

/// What happens to the matches that a text is cut by. Contiguous joins neighbours of one kind.
enum class SplitBehavior : std::uint8_t { isolated, removed, merged_with_previous, merged_with_next, contiguous };

namespace detail {

/// Takes a text's matches and what lies between them, in order, and gives its pieces to emit(begin, end).
/// Source: tokenizers, tokenizer/normalizer.rs, NormalizedString::split.
template <class Emit>
class PieceJoiner {
 public:
  PieceJoiner(SplitBehavior behavior, Emit& emit) : behavior_(behavior), emit_(emit) {}

  void put(std::size_t begin, std::size_t end, bool match) {
    using enum SplitBehavior;
    const bool joins = behavior_ == contiguous             ? match == match_
                       : behavior_ == merged_with_previous ? match && !match_
                       : behavior_ == merged_with_next     ? !match
                                                           : false;
    if (!joins || begin_ == end_) {
      finish();
      begin_ = begin;
    }
    end_ = end;
    match_ = match;
    if (behavior_ == removed && match) begin_ = end_;
  }
  void finish() {
    if (begin_ != end_) emit_(begin_, end_);
    begin_ = end_;
  }

 private:
  SplitBehavior behavior_;
  Emit& emit_;
  std::size_t begin_ = 0, end_ = 0;  // the piece that waits
  bool match_ = false;               // whether its last part is a match
};

/// next(begin, end) -> bool finds the matches of a text.
template <class Next, class Emit>
void cut(std::size_t size, SplitBehavior behavior, bool invert, Next&& next, Emit&& emit) {
  PieceJoiner<Emit> joiner(behavior, emit);
  std::size_t at = 0;
  for (std::size_t begin = 0, end = 0; next(begin, end); at = end) {
    if (at < begin) joiner.put(at, begin, invert);
    joiner.put(begin, end, !invert);
  }
  if (at < size) joiner.put(at, size, invert);
  joiner.finish();
}

}  // namespace detail

}  // namespace finteam::inline FINTEAM_ABI
