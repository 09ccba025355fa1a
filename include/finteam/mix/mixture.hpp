// The one mix of law 1, y[t,:] += Σ_k weight[t,k] · expert(chosen[t,k])(x)[t,:], at the team's output: an expert is a
// whole decoder, its y a distribution or logits. Experts are taken in a fixed order; one expert of weight 1 is returned
// bit for bit.
#pragma once

#include <finteam/core/view.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// Where a team mixes: at its output Σ w p (an ensemble; Li et al. 2022, BTM) or Σ w logits (a product of experts), or
/// inside, in every linear layer, Σ w · what a role adds to a shared base.
enum class MixIn : std::uint8_t { probabilities, logits, deltas };

/// log Σ_j exp(x[j]), summed in double in increasing j. x [v].
[[nodiscard]] inline double log_sum_exp(std::span<const float> x) noexcept {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float v : x) largest = v > largest ? static_cast<double>(v) : largest;
  double sum = 0;
  for (const float v : x) sum += std::exp(static_cast<double>(v) - largest);
  return largest + std::log(sum);
}

/// y[i] = x[i] - log Σ_j exp(x[j]), in place: logits become log-probabilities. x [v].
inline void log_softmax(std::span<float> x) noexcept {
  const double total = log_sum_exp(x);
  for (float& v : x) v = static_cast<float>(static_cast<double>(v) - total);
}

/// y[i] = log Σ_k weight[k] · exp(x[k,i]), Σ weight = 1: the mixture of distributions that are given as logarithms.
/// x [n, v], weight [n] (an expert of weight 0 is not read), y [v], overwritten; y may be a row of x.
/// Written as m + log1p(Σ_k weight[k] · expm1(x[k,i] - m)), m = max_k x[k,i], so that equal experts give their own
/// bits.
inline void mix_probabilities(std::span<const double> weight, MatrixView<const float> x, std::span<float> y) noexcept {
  for (std::size_t i = 0; i < y.size(); ++i) {
    double m = -std::numeric_limits<double>::infinity();
    for (std::size_t k = 0; k < weight.size(); ++k) {
      const float v = x(k, i);
      if (weight[k] > 0 && static_cast<double>(v) > m) m = static_cast<double>(v);
    }
    double sum = 0;
    for (std::size_t k = 0; k < weight.size(); ++k) {
      if (weight[k] > 0) sum = std::fma(weight[k], std::expm1(static_cast<double>(x(k, i)) - m), sum);
    }
    y[i] =
        m == -std::numeric_limits<double>::infinity() ? static_cast<float>(m) : static_cast<float>(m + std::log1p(sum));
  }
}

/// y[i] = Σ_k weight[k] · x[k,i]. x [n, v], weight [n] (an expert of weight 0 is not read), y [v], overwritten; y may
/// be a row of x.
inline void mix_logits(std::span<const double> weight, MatrixView<const float> x, std::span<float> y) noexcept {
  for (std::size_t i = 0; i < y.size(); ++i) {
    double sum = 0;
    for (std::size_t k = 0; k < weight.size(); ++k) {
      if (weight[k] > 0) sum = std::fma(weight[k], static_cast<double>(x(k, i)), sum);
    }
    y[i] = static_cast<float>(sum);
  }
}

/// log p of the team's next token. x [n, v]: each awake expert's logits, destroyed; y [v], overwritten; y may be a row
/// of x.
inline void mix_next_token(MixIn where, std::span<const double> weight, MatrixView<float> x,
                           std::span<float> y) noexcept {
  if (where == MixIn::logits) {
    mix_logits(weight, x, y);
    log_softmax(y);
    return;
  }
  for (std::size_t k = 0; k < weight.size(); ++k) {
    if (weight[k] > 0) log_softmax(x.row(static_cast<index_t>(k)).span());
  }
  mix_probabilities(weight, x, y);
}

/// H(p) = -Σ p log2 p, in bits. p [n].
[[nodiscard]] inline double entropy_bits(std::span<const double> p) noexcept {
  double bits = 0;
  for (const double v : p) {
    if (v > 0) bits = std::fma(-v, std::log2(v), bits);
  }
  return bits;
}

/// Jensen-Shannon divergence of the experts' distributions, H(Σ_k w_k p_k) - Σ_k w_k H(p_k), in bits, never below 0.
/// weight [n] (an expert of weight 0 is not read), p [n, labels]. Source: Lin 1991, eq. 5.1.
[[nodiscard]] inline double jensen_shannon_bits(std::span<const double> weight, MatrixView<const double> p) noexcept {
  double mixed = 0, own = 0;
  for (index_t i = 0; i < p.extent(1); ++i) {
    double q = 0;
    for (std::size_t k = 0; k < weight.size(); ++k) {
      if (weight[k] > 0) q = std::fma(weight[k], p(k, i), q);
    }
    if (q > 0) mixed = std::fma(-q, std::log2(q), mixed);
  }
  for (std::size_t k = 0; k < weight.size(); ++k) {
    if (weight[k] > 0) own = std::fma(weight[k], entropy_bits(p.row(static_cast<index_t>(k)).span()), own);
  }
  return mixed > own ? mixed - own : 0.0;
}

}  // namespace finteam::inline FINTEAM_ABI
