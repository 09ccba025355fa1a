// The one mix of law 1, y[t,:] += Σ_k weight[t,k] · expert(chosen[t,k])(x)[t,:], at the team's output: an expert is a
// whole decoder, its y a distribution or logits. Experts are taken in a fixed order; one expert of weight 1 is returned
// bit for bit.
#pragma once

#include <finteam/backend/cpu/simd_log.hpp>
#include <finteam/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// Where a team mixes: at its output Σ w p (an ensemble; Li et al. 2022, BTM) or Σ w logits (a product of experts), or
/// inside: in every linear layer, Σ w · what a role adds to a shared base, or in every feed-forward layer, Σ w · an
/// expert behind a router (merged checkpoints).
enum class MixIn : std::uint8_t { probabilities, logits, deltas, experts };

/// Whether one decoder gives the mixture.
[[nodiscard]] constexpr bool is_inside(MixIn mix) noexcept { return mix == MixIn::deltas || mix == MixIn::experts; }

namespace detail {

/// y[i … i + 15] = block, up to the end of y.
template <class Arch>
FINTEAM_INLINE inline void store_block(const simd::Lanes<Arch>& block, std::span<float> y, std::size_t i) noexcept {
  if (i + 16 <= y.size()) {
    block.store(y.data() + i);
  } else {
    block.store(y.data() + i, static_cast<index_t>(y.size() - i));
  }
}

}  // namespace detail

/// log Σ_j exp(x[j]): e^(x - max) in float, sixteen sums kept exactly, the rest in double. x [v]; a -∞ adds nothing; a
/// NaN or +∞, or nothing but -∞, gives NaN. At most 7e-7 off, and 1e-8 for typical logits: only a difference x - max
/// that float must round is off by more than its exponential, by half a unit of its last place.
template <class Arch = DefaultArch>
[[nodiscard]] double log_sum_exp(std::span<const float> x) noexcept {
  using Lanes = detail::simd::Lanes<Arch>;
  const float largest = detail::simd::greatest<Arch>(x);
  const Lanes m = Lanes::broadcast(largest);
  detail::simd::ExactSums<Arch> sums;
  detail::simd::for_blocks<Arch>(x, -std::numeric_limits<float>::infinity(),
                                 [&](std::size_t, const Lanes& block)
                                     FINTEAM_INLINE { sums.add(detail::simd::exp(block - m)); });
  return static_cast<double>(largest) + std::log(sums.total());
}

/// y[i] = x[i] - log Σ_j exp(x[j]), in place, rounded once: logits become log-probabilities. x [v].
template <class Arch = DefaultArch>
void log_softmax(std::span<float> x) noexcept {
  using Lanes = detail::simd::Lanes<Arch>;
  const double total = log_sum_exp<Arch>(x);
  const Lanes high = Lanes::broadcast(static_cast<float>(total));
  const Lanes low = Lanes::broadcast(static_cast<float>(total - static_cast<double>(static_cast<float>(total))));
  const Lanes lowest = Lanes::broadcast(std::numeric_limits<float>::lowest());
  detail::simd::for_blocks<Arch>(x, 0.0F, [&](std::size_t i, const Lanes& block) FINTEAM_INLINE {
    const detail::simd::Difference<Arch> y(block, high);
    detail::store_block(where_less(y.value, lowest, y.value, y.value + (y.lost - low)), x, i);  // -∞ lost a NaN
  });
}

/// y[i] = log Σ_k weight[k] · exp(x[k,i]), Σ weight = 1: the mixture of distributions that are given as logarithms.
/// x [n, v], weight [n] (an expert of weight 0 is not read, one below 2^-100 counts as that), y [v], overwritten; y may
/// be a row of x. A token that every expert forbids (-∞) stays so; a NaN gives NaN.
/// m + log1p(Σ_k weight[k] · expm1(x[k,i] - m)), m = max_k x[k,i], where the sum is at least sqrt(1/2) - 1, so that
/// equal experts give their own bits and probabilities near 1 keep theirs; else m + log Σ_k weight[k] · exp(x[k,i] -
/// m). In float: at most 5e-7 and 1 ulp of the result off, for weights from 1e-3 and |x| up to 30.
template <class Arch = DefaultArch>
void mix_probabilities(std::span<const double> weight, MatrixView<const float> x, std::span<float> y) noexcept {
  using Lanes = detail::simd::Lanes<Arch>;
  const Lanes nothing = Lanes::broadcast(-std::numeric_limits<float>::infinity());
  const Lanes lowest = Lanes::broadcast(std::numeric_limits<float>::lowest()), zero = Lanes::zero();
  for (std::size_t i = 0; i < y.size(); i += 16) {
    const auto count = static_cast<index_t>(std::min<std::size_t>(16, y.size() - i));
    const auto load = [&](std::size_t k) FINTEAM_INLINE {
      const float* const p = x.data() + static_cast<index_t>(k) * x.stride(0) + static_cast<index_t>(i);
      return count == 16 ? Lanes::load(p) : Lanes::load(p, count);
    };
    Lanes m = nothing;
    for (std::size_t k = 0; k < weight.size(); ++k) {
      if (weight[k] > 0) m = max(load(k), m);
    }
    Lanes sum = zero, sum_minus_one = zero;
    for (std::size_t k = 0; k < weight.size(); ++k) {
      if (!(weight[k] > 0)) continue;
      const Lanes w = Lanes::broadcast(static_cast<float>(std::max(weight[k], 0x1p-100)));
      const detail::simd::Exponential<Arch> e(load(k) - m);
      sum = fmadd(w, e.value, sum);
      sum_minus_one = fmadd(w, e.minus_one, sum_minus_one);
    }
    const Lanes log = detail::simd::log(sum, sum_minus_one);
    detail::store_block(where_less(m, lowest, m, where_equal(log, zero, m, m + log)), y, i);
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
template <class Arch = DefaultArch>
void mix_next_token(MixIn where, std::span<const double> weight, MatrixView<float> x, std::span<float> y) noexcept {
  if (where == MixIn::logits) {
    mix_logits(weight, x, y);
    log_softmax<Arch>(y);
    return;
  }
  for (std::size_t k = 0; k < weight.size(); ++k) {
    if (weight[k] > 0) log_softmax<Arch>(x.row(static_cast<index_t>(k)).span());
  }
  mix_probabilities<Arch>(weight, x, y);
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
