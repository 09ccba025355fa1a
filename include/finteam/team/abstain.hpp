// When an answer with labels is not to be acted on: thresholds, and which of them said so.
// Not here: the numbers themselves (view.hpp).
#pragma once

#include <finteam/core/checked.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {

/// What an answer must keep to. The defaults let every answer stand.
struct Abstain {
  double least_probability = 0;                                            ///< of its label
  double greatest_entropy = std::numeric_limits<double>::infinity();       ///< of its probabilities, bits
  double greatest_disagreement = std::numeric_limits<double>::infinity();  ///< of the roles, bits
  /// In the set of stated coverage, which a calibrated task has: an answer whose set is larger, or does not hold it,
  /// does not stand.
  index_t most_labels = std::numeric_limits<index_t>::max();

  /// Whether it asks for a set of labels.
  [[nodiscard]] constexpr bool reads_label_set() const noexcept {
    return most_labels != std::numeric_limits<index_t>::max();
  }

  /// Throws Error(invalid_argument) for a NaN, or a most_labels below 1.
  void validate() const {
    const auto require = [](double x, const char* what) {
      if (std::isnan(x)) throw Error(Code::invalid_argument, std::string("abstain: ") + what, "a number", "NaN");
    };
    require(least_probability, "least_probability");
    require(greatest_entropy, "greatest_entropy");
    require(greatest_disagreement, "greatest_disagreement");
    if (most_labels < 1) {
      throw Error(Code::invalid_argument, "abstain: most_labels", "at least 1", std::to_string(most_labels));
    }
  }
};

/// What keeps to it keeps to both.
[[nodiscard]] constexpr Abstain stricter(const Abstain& a, const Abstain& b) noexcept {
  return {std::max(a.least_probability, b.least_probability), std::min(a.greatest_entropy, b.greatest_entropy),
          std::min(a.greatest_disagreement, b.greatest_disagreement), std::min(a.most_labels, b.most_labels)};
}

/// Which threshold an answer did not keep to: the first, in this order.
enum class AbstainReason : std::uint8_t { none, probability, entropy, disagreement, labels };

/// The reason's name, as the enumerator is spelt.
[[nodiscard]] constexpr std::string_view name(AbstainReason reason) noexcept {
  constexpr std::string_view names[] = {"none", "probability", "entropy", "disagreement", "labels"};
  return names[static_cast<std::size_t>(reason)];
}

/// Why an answer is not to be acted on; none: it may be. entropy, disagreement: bits; labels: in its set, 0 if it
/// is not among them.
[[nodiscard]] constexpr AbstainReason why_abstain(const Abstain& rule, double probability, double entropy,
                                                  double disagreement, index_t labels) noexcept {
  if (probability < rule.least_probability) return AbstainReason::probability;
  if (entropy > rule.greatest_entropy) return AbstainReason::entropy;
  if (disagreement > rule.greatest_disagreement) return AbstainReason::disagreement;
  if (rule.reads_label_set() && (labels == 0 || labels > rule.most_labels)) return AbstainReason::labels;
  return AbstainReason::none;
}

}  // namespace finteam::inline FINTEAM_ABI
