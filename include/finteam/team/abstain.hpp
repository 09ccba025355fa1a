// When an answer with labels is not to be acted on: thresholds, and which of them said so.
// Not here: the numbers themselves (view.hpp).
#pragma once

#include <finteam/core/error.hpp>

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

  /// Throws Error(invalid_argument) for a NaN.
  void validate() const {
    const auto require = [](double x, const char* what) {
      if (std::isnan(x)) throw Error(Code::invalid_argument, std::string("abstain: ") + what, "a number", "NaN");
    };
    require(least_probability, "least_probability");
    require(greatest_entropy, "greatest_entropy");
    require(greatest_disagreement, "greatest_disagreement");
  }
};

/// Which threshold an answer did not keep to: the first, in this order.
enum class AbstainReason : std::uint8_t { none, probability, entropy, disagreement };

/// The reason's name, as the enumerator is spelt.
[[nodiscard]] constexpr std::string_view name(AbstainReason reason) noexcept {
  constexpr std::string_view names[] = {"none", "probability", "entropy", "disagreement"};
  return names[static_cast<std::size_t>(reason)];
}

/// Why an answer is not to be acted on; none: it may be. entropy, disagreement: bits.
[[nodiscard]] constexpr AbstainReason why_abstain(const Abstain& rule, double probability, double entropy,
                                                  double disagreement) noexcept {
  if (probability < rule.least_probability) return AbstainReason::probability;
  if (entropy > rule.greatest_entropy) return AbstainReason::entropy;
  if (disagreement > rule.greatest_disagreement) return AbstainReason::disagreement;
  return AbstainReason::none;
}

}  // namespace finteam::inline FINTEAM_ABI
