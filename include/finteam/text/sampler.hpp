// From log-probabilities to one token: repetition penalty, then greedy, or temperature, top-k, top-p and min-p. The
// noise is a function of (seed, position, token), so the text for a seed is the same whatever else happens. Not here: a
// generator with state, or a distribution.
#pragma once

#include <finteam/backend/cpu/simd_log.hpp>
#include <finteam/core/sampling.hpp>
#include <finteam/core/view.hpp>
#include <finteam/text/philox.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

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
    penalised_.resize(static_cast<std::size_t>(v));
  }

  /// argmax_i (log_p[i] / temperature + gumbel(seed, position, i)) over the kept tokens; temperature 0: argmax_i
  /// log_p[i]. log_p [v]; without a repetition penalty any constant may be added to all of it. Ties go to the lowest id
  /// everywhere. A NaN or -∞ is never chosen. position: of the token to be chosen, in its sequence. Throws
  /// Error(invalid_argument) for a bad Sampling, a wrong width, or when no entry can be chosen. Source: Maddison et al.
  /// 2014 (argmax of noisy logits is a sample); Holtzman et al. 2020 (top-p); Nguyen et al. 2024 (min-p; after top-p,
  /// as in transformers, so what is kept is what both keep).
  ///
  /// seen: the ids that the repetition penalty is for, oldest first, of which the last repetition_window count; one
  /// that comes twice is penalised once. x = log_p[i] becomes x · penalty if x < 0, else x / penalty, before everything
  /// else, greedy too. That is transformers' formula, which it applies to logits; log_p is normalised, so here p
  /// becomes p^penalty whatever constant a model adds to its logits, and the same number is milder or harsher than
  /// there. Throws Error(invalid_argument) for an id outside 0 … v - 1. Source: Keskar et al. 2019 (CTRL), section 4.1;
  /// transformers, RepetitionPenaltyLogitsProcessor.
  [[nodiscard]] std::int32_t sample(VectorView<const float> log_p, std::int64_t position, const Sampling& sampling,
                                    std::span<const std::int32_t> seen = {}) {
    sampling.validate();
    if (log_p.size() != v_) {
      throw Error(Code::invalid_argument, "sampler: log_p", std::to_string(v_) + " entries",
                  std::to_string(log_p.size()));
    }
    if (sampling.repetition_penalty != 1 && !seen.empty()) log_p = penalise(log_p, sampling, seen);
    const std::int32_t best = argmax(log_p);
    if (best < 0) {
      throw Error(Code::invalid_argument, "sampler: log_p", "at least one entry that is neither NaN nor -inf", "none");
    }
    if (sampling.temperature == 0) return best;
    keep_all(log_p);
    if (sampling.top_k > 0 && static_cast<std::size_t>(sampling.top_k) < kept_.size())
      keep_top_k(log_p, sampling.top_k);
    if (sampling.top_p < 1) keep_top_p(log_p, best, sampling);
    if (sampling.min_p > 0) keep_min_p(log_p, best, sampling);
    return noisy_argmax(log_p, best, position, sampling);
  }

 private:
  /// Likelier first; of equals the lower id. A strict total order over the ids that are kept: none of them is NaN.
  static auto likelier(VectorView<const float> log_p) noexcept {
    return [log_p](std::int32_t a, std::int32_t b) { return log_p(a) > log_p(b) || (log_p(a) == log_p(b) && a < b); };
  }
  static bool possible(float x) noexcept { return x >= std::numeric_limits<float>::lowest(); }  // neither NaN nor -inf

  static std::int32_t argmax(VectorView<const float> log_p) noexcept {
    const std::span<const float> x = log_p.span();
    const float most = detail::simd::greatest<DefaultArch>(x);
    return possible(most) ? static_cast<std::int32_t>(std::find(x.begin(), x.end(), most) - x.begin()) : -1;
  }

  /// log_p with the penalty on what was seen, in penalised_.
  VectorView<const float> penalise(VectorView<const float> log_p, const Sampling& s,
                                   std::span<const std::int32_t> seen) {
    if (s.repetition_window > 0 && static_cast<std::size_t>(s.repetition_window) < seen.size()) {
      seen = seen.last(static_cast<std::size_t>(s.repetition_window));
    }
    std::copy_n(log_p.data(), v_, penalised_.begin());
    for (const std::int32_t id : seen) {
      if (id < 0 || id >= v_) {
        throw Error(Code::invalid_argument, "sampler: seen", "ids 0 to " + std::to_string(v_ - 1), std::to_string(id));
      }
      const float x = log_p(id);
      penalised_[static_cast<std::size_t>(id)] = x < 0 ? x * s.repetition_penalty : x / s.repetition_penalty;
    }
    return {penalised_.data(), {v_}};
  }

  void keep_all(VectorView<const float> log_p) {
    kept_.resize(static_cast<std::size_t>(v_));
    std::size_t count = 0;
    for (std::int32_t i = 0; i < log_p.size(); ++i) {  // no branch: what is possible has no pattern
      kept_[count] = i;
      count += possible(log_p(i)) ? 1 : 0;
    }
    kept_.resize(count);
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
    if (s.top_k > 0) std::sort(kept_.begin(), kept_.end());  // so that the sum has one order
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

  void keep_min_p(VectorView<const float> log_p, std::int32_t best, const Sampling& s) {
    const auto least = static_cast<double>(s.min_p);
    const double far =
        static_cast<double>(log_p(best)) + s.temperature * (std::log(least) - 0.01);  // surely too little
    std::erase_if(kept_, [&](std::int32_t i) {
      return static_cast<double>(log_p(i)) < far || mass(log_p, i, best, s.temperature) < least;
    });
  }

  /// A token of noise-free score x beats `highest` only if its noise is more than highest - x = g, that is if u >
  /// exp(-e^-g), which is at least 1 - e^-g: nearly every token is out of the race by its u, without a logarithm. What
  /// float and double round away is left as slack, so the choice is that of the formula.
  [[nodiscard]] std::int32_t noisy_argmax(VectorView<const float> log_p, std::int32_t best, std::int64_t position,
                                          const Sampling& s) const noexcept {
    const double most_noise = gumbel(1.0 - 0x1p-53) + 1;  // more than any; a token out of its reach needs no u
    std::int32_t chosen = best;
    double highest = static_cast<double>(log_p(best)) / s.temperature + gumbel(uniform(s.seed, position, best));
    std::array<std::int32_t, 16> ids{};
    std::array<double, 16> plain{}, u{};
    alignas(64) std::array<float, 16> reach{};
    for (std::size_t first = 0; first < kept_.size(); first += 16) {
      const std::size_t count = std::min<std::size_t>(16, kept_.size() - first);
      bool in_reach = false;
      for (std::size_t j = 0; j < count; ++j) {
        ids[j] = kept_[first + j];
        plain[j] = static_cast<double>(log_p(ids[j])) / s.temperature;
        const double slack = 0x1p-10 + 0x1p-48 * (std::abs(plain[j]) + std::abs(highest));
        reach[j] = static_cast<float>(plain[j] - highest + slack);
        in_reach |= !(plain[j] + most_noise < highest);
      }
      if (!in_reach) continue;
      using Lanes = detail::simd::Lanes<DefaultArch>;
      detail::simd::exp(Lanes::load(reach.data())).store(reach.data());
      uniforms(s.seed, position, ids, u);
      for (std::size_t j = 0; j < count; ++j) {
        if (1 - u[j] > static_cast<double>(reach[j])) continue;
        const double x = plain[j] + gumbel(u[j]);
        if (x > highest || (x == highest && ids[j] < chosen)) {
          highest = x;
          chosen = ids[j];
        }
      }
    }
    return chosen;
  }

  index_t v_;
  std::vector<std::int32_t> kept_;
  std::vector<float> penalised_;
};

}  // namespace finteam::inline FINTEAM_ABI
