// How many tokens are worth guessing, from how many guesses were kept so far.
// Not here: where guesses come from (session_draft.hpp).
#pragma once

#include <finteam/core/checked.hpp>

#include <algorithm>
#include <cmath>

namespace finteam::inline FINTEAM_ABI {

/// What a round of guesses costs, in steps of one decoder for one token.
struct DraftCost {
  double each = 0;        ///< every guess
  double check = 1;       ///< the step that checks them, whatever their number
  double check_each = 0;  ///< and more for every one of them
};

/// Adapts to the share of guesses that are kept. Deterministic: counts in, a length out.
class DraftLength {
 public:
  /// A round ended: so many of the guesses were kept, and another was refused unless all were.
  void add(index_t guessed, index_t kept) noexcept {
    kept_ = decay * kept_ + static_cast<double>(kept);
    refused_ = decay * refused_ + (kept < guessed ? 1.0 : 0.0);
  }

  /// A round without guesses: what was learnt fades, so that a bad stretch does not end them for good.
  void rest() noexcept {
    kept_ *= decay;
    refused_ *= decay;
  }

  /// The share of guesses that are kept; some trust to begin with.
  [[nodiscard]] double acceptance() const noexcept { return (kept_ + 3) / (kept_ + refused_ + 4); }

  /// The length in [0, most] with the most tokens for its cost: Σ_{i ≤ n} a^i over the round's steps.
  /// Source: Leviathan et al. 2023, 3.5, theorem 3.8, with the cost of checking several at once.
  [[nodiscard]] index_t best(index_t most, const DraftCost& cost) const noexcept {
    const double a = acceptance();
    index_t best = 0;
    double tokens = 1, power = 1, most_per_step = 1 / cost.check;
    for (index_t n = 1; n <= most; ++n) {
      tokens += power *= a;
      const double count = static_cast<double>(n);
      const double per_step = tokens / (count * cost.each + cost.check + count * cost.check_each);
      if (per_step <= most_per_step) continue;
      most_per_step = per_step;
      best = n;
    }
    return best;
  }

 private:
  static constexpr double decay = 0.95;
  double kept_ = 0, refused_ = 0;
};

}  // namespace finteam::inline FINTEAM_ABI
