// How a token is chosen from a distribution, as a caller says it. Not here: choosing it (text/sampler.hpp, and
// backend/next_token.hpp where a device does).
#pragma once

#include <finteam/core/config.hpp>
#include <finteam/core/error.hpp>

#include <cmath>
#include <cstdint>
#include <string>

namespace finteam::inline FINTEAM_ABI {

/// How the next token is chosen.
struct Sampling {
  float temperature = 0;         ///< 0: greedy, and of what is below only the repetition penalty matters
  int top_k = 0;                 ///< keep the k likeliest tokens; 0: all
  float top_p = 1;               ///< then keep the smallest set whose mass, at this temperature, is at least p; 1: all
  float min_p = 0;               ///< then keep tokens of at least min_p times the likeliest one's mass; 0: all
  std::uint64_t seed = 0;        ///< of the noise
  float repetition_penalty = 1;  ///< a token that was seen: log p · penalty, so p becomes p^penalty; 1: none
  int repetition_window = 0;     ///< how many of the last tokens count as seen; 0: all that are given

  /// Throws Error(invalid_argument) unless 0 ≤ temperature < ∞, top_k ≥ 0, 0 < top_p ≤ 1, 0 ≤ min_p ≤ 1,
  /// 0 < repetition_penalty < ∞, repetition_window ≥ 0.
  void validate() const {
    const auto refuse = [](const char* what, const char* expected, const std::string& found) {
      throw Error(Code::invalid_argument, std::string("sampling: ") + what, expected, found);
    };
    if (!(temperature >= 0) || !std::isfinite(temperature)) {
      refuse("temperature", "a finite number of at least 0", std::to_string(temperature));
    }
    if (top_k < 0) refuse("top_k", "at least 0", std::to_string(top_k));
    if (!(top_p > 0 && top_p <= 1)) refuse("top_p", "more than 0 and at most 1", std::to_string(top_p));
    if (!(min_p >= 0 && min_p <= 1)) refuse("min_p", "0 to 1", std::to_string(min_p));
    if (!(repetition_penalty > 0) || !std::isfinite(repetition_penalty)) {
      refuse("repetition_penalty", "a finite number above 0", std::to_string(repetition_penalty));
    }
    if (repetition_window < 0) refuse("repetition_window", "at least 0", std::to_string(repetition_window));
  }
};

}  // namespace finteam::inline FINTEAM_ABI
