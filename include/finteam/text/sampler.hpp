// From log-probabilities to one token: greedy, temperature, top-k, top-p. The noise is a function of (seed, position,
// token), so the text for a seed is the same whatever else happens. Not here: a generator with state, or a
// distribution.
#pragma once

#include <finteam/core/view.hpp>
#include <finteam/text/philox.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// How the next token is chosen.
struct Sampling {
  float temperature = 0;   ///< 0: greedy, and nothing below matters
  int top_k = 0;           ///< keep the k likeliest tokens; 0: all
  float top_p = 1;         ///< then keep the smallest set whose mass, at this temperature, is at least p; 1: all
  std::uint64_t seed = 0;  ///< of the noise

  /// Throws Error(invalid_argument) unless 0 ≤ temperature < ∞, top_k ≥ 0, 0 < top_p ≤ 1.
  void validate() const {
    const auto refuse = [](const char* what, const char* expected, const std::string& found) {
      throw Error(Code::invalid_argument, std::string("sampling: ") + what, expected, found);
    };
    if (!(temperature >= 0) || !std::isfinite(temperature)) {
      refuse("temperature", "a finite number of at least 0", std::to_string(temperature));
    }
    if (top_k < 0) refuse("top_k", "at least 0", std::to_string(top_k));
    if (!(top_p > 0 && top_p <= 1)) refuse("top_p", "more than 0 and at most 1", std::to_string(top_p));
  }
};

/// -log(-log(u)) for a uniform u in (0, 1): standard Gumbel noise. Source: Gumbel 1954; Maddison et al. 2014.
[[nodiscard]] inline double gumbel(double u) noexcept { return -std::log(-std::log(u)); }

/// Chooses tokens. Owns scratch for a vocabulary of v; sample() allocates nothing. One thread at a time.
class Sampler {
 public:
  /// v: the vocabulary. Throws Error(invalid_argument) unless v ≥ 1.
  explicit Sampler(index_t v) : v_(v) {
    if (v < 1 || v > 0x7FFFFFFF) {
      throw Error(Code::invalid_argument, "sampler: vocabulary", "1 to 2147483647 tokens", std::to_string(v));
    }
    kept_.reserve(static_cast<std::size_t>(v));
  }

  /// argmax_i (log_p[i] / temperature + gumbel(seed, position, i)) over the kept tokens; temperature 0: argmax_i
  /// log_p[i]. log_p [v], any constant may be added to all of it. Ties go to the lowest id everywhere. A NaN or -∞ is
  /// never chosen. position: of the token to be chosen, in its sequence. Throws Error(invalid_argument) for a bad
  /// Sampling, a wrong width, or when no entry can be chosen. Source: Maddison et al. 2014 (argmax of noisy logits is a
  /// sample); Holtzman et al. 2020 (top-p).
  [[nodiscard]] std::int32_t sample(VectorView<const float> log_p, std::int64_t position, const Sampling& sampling) {
    sampling.validate();
    if (log_p.size() != v_) {
      throw Error(Code::invalid_argument, "sampler: log_p", std::to_string(v_) + " entries",
                  std::to_string(log_p.size()));
    }
    const std::int32_t best = argmax(log_p);
    if (best < 0) {
      throw Error(Code::invalid_argument, "sampler: log_p", "at least one entry that is neither NaN nor -inf", "none");
    }
    if (sampling.temperature == 0) return best;
    keep_all(log_p);
    if (sampling.top_k > 0 && static_cast<std::size_t>(sampling.top_k) < kept_.size())
      keep_top_k(log_p, sampling.top_k);
    if (sampling.top_p < 1) keep_top_p(log_p, best, sampling);
    return noisy_argmax(log_p, best, position, sampling);
  }

 private:
  /// Likelier first; of equals the lower id. A strict total order over the ids that are kept: none of them is NaN.
  static auto likelier(VectorView<const float> log_p) noexcept {
    return [log_p](std::int32_t a, std::int32_t b) { return log_p(a) > log_p(b) || (log_p(a) == log_p(b) && a < b); };
  }
  static bool possible(float x) noexcept { return x >= std::numeric_limits<float>::lowest(); }  // neither NaN nor -inf

  static std::int32_t argmax(VectorView<const float> log_p) noexcept {
    std::int32_t best = -1;
    for (std::int32_t i = 0; i < log_p.size(); ++i) {
      if (possible(log_p(i)) && (best < 0 || log_p(i) > log_p(best))) best = i;
    }
    return best;
  }

  void keep_all(VectorView<const float> log_p) {
    kept_.clear();
    for (std::int32_t i = 0; i < log_p.size(); ++i) {
      if (possible(log_p(i))) kept_.push_back(i);
    }
  }

  void keep_top_k(VectorView<const float> log_p, int k) {
    std::nth_element(kept_.begin(), kept_.begin() + (k - 1), kept_.end(), likelier(log_p));
    kept_.resize(static_cast<std::size_t>(k));
  }

  /// exp((log_p[i] - log_p[best]) / temperature): mass relative to the likeliest token, which has 1.
  static double mass(VectorView<const float> log_p, std::int32_t i, std::int32_t best, float temperature) noexcept {
    if (log_p(i) == log_p(best)) return 1.0;
    return std::exp((static_cast<double>(log_p(i)) - static_cast<double>(log_p(best))) / temperature);
  }

  /// Takes the likeliest tokens off a heap until they hold the mass; they gather at the end of kept_.
  void keep_top_p(VectorView<const float> log_p, std::int32_t best, const Sampling& s) {
    std::sort(kept_.begin(), kept_.end());  // so that the sum has one order
    double total = 0;
    for (const std::int32_t i : kept_) total += mass(log_p, i, best, s.temperature);
    const double wanted = static_cast<double>(s.top_p) * total;
    const auto less_likely = [order = likelier(log_p)](std::int32_t a, std::int32_t b) { return order(b, a); };
    std::make_heap(kept_.begin(), kept_.end(), less_likely);
    auto first = kept_.end();
    double held = 0;
    do {
      std::pop_heap(kept_.begin(), first, less_likely);
      --first;
      held += mass(log_p, *first, best, s.temperature);
    } while (held < wanted && first != kept_.begin());
    kept_.erase(kept_.begin(), first);
  }

  [[nodiscard]] std::int32_t noisy_argmax(VectorView<const float> log_p, std::int32_t best, std::int64_t position,
                                          const Sampling& s) const noexcept {
    const auto score = [&](std::int32_t i) {
      return static_cast<double>(log_p(i)) / s.temperature + gumbel(uniform(s.seed, position, i));
    };
    const double most_noise = gumbel(1.0 - 0x1p-53) + 1;  // more than any; a token out of its reach needs no noise
    std::int32_t chosen = best;
    double highest = score(best);
    for (const std::int32_t i : kept_) {
      if (static_cast<double>(log_p(i)) / s.temperature + most_noise < highest) continue;
      const double x = score(i);
      if (x > highest || (x == highest && i < chosen)) {
        highest = x;
        chosen = i;
      }
    }
    return chosen;
  }

  index_t v_;
  std::vector<std::int32_t> kept_;
};

}  // namespace finteam::inline FINTEAM_ABI
