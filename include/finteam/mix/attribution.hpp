// What each role did to the answer: the mixture of labels without it, and how far that is from the whole. Not causes: a
// role that agrees with another one changes little by leaving, though either alone would have sufficed.
#pragma once

#include <finteam/core/view.hpp>
#include <finteam/mix/likeliest.hpp>
#include <finteam/mix/mixture.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// y[i] = Σ_k weight[k] · p[k,i], summed in increasing k. weight [n] (a role of weight 0 is not read), p [n, labels],
/// y [labels], overwritten.
inline void mix_labels(std::span<const double> weight, MatrixView<const double> p, std::span<double> y) noexcept {
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i] = 0;
    for (std::size_t k = 0; k < weight.size(); ++k) {
      if (weight[k] > 0) y[i] = std::fma(weight[k], p(k, i), y[i]);
    }
  }
}

/// y[i] = Σ_{k ≠ role} weight[k] · p[k,i] / Σ_{k ≠ role} weight[k]: the labels without a role. weight [n] (a role of
/// weight 0 is not read), p [n, labels], y [labels], overwritten. False, and y is all 0, if no other role has weight.
inline bool mix_labels_without(std::size_t role, std::span<const double> weight, MatrixView<const double> p,
                               std::span<double> y) noexcept {
  double others = 0;
  for (std::size_t k = 0; k < weight.size(); ++k) others += k != role && weight[k] > 0 ? weight[k] : 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i] = 0;
    for (std::size_t k = 0; k < weight.size(); ++k) {
      if (k != role && weight[k] > 0) y[i] = std::fma(weight[k] / others, p(k, i), y[i]);
    }
  }
  return others > 0;
}

/// What changes when a role leaves.
struct RoleEffect {
  double divergence_bits = 0;  ///< Jensen-Shannon, between the labels with and without it, in [0, 1]
  bool label_changes = false;  ///< another label is then the likeliest
};

/// The effect of every role: RoleEffect{} for one that no other could replace (it alone has weight), or that has none.
/// weight [n], p [n, labels], effects [n], overwritten; scratch [2 · labels], overwritten. finish(y) makes the answer
/// of a mixture [labels] in place (a calibration); weights need not sum to 1. Of equal labels the first is the
/// likeliest. Source: leave-one-out influence (Cook 1977); the divergence is Lin 1991, eq. 4.1.
template <class Finish>
void leave_one_role_out(std::span<const double> weight, MatrixView<const double> p, std::span<RoleEffect> effects,
                        std::span<double> scratch, Finish&& finish) noexcept {
  const auto labels = static_cast<std::size_t>(p.extent(1));
  const auto all = scratch.first(labels), without = scratch.subspan(labels, labels);
  double total = 0;
  for (const double w : weight) total += w > 0 ? w : 0.0;
  mix_labels(weight, p, all);
  if (total > 0) {
    for (double& y : all) y /= total;
  }
  finish(all);
  for (std::size_t k = 0; k < effects.size(); ++k) {
    effects[k] = {};
    if (!(weight[k] > 0) || !mix_labels_without(k, weight, p, without)) continue;
    finish(without);
    constexpr std::array<double, 2> half{0.5, 0.5};
    effects[k] = {jensen_shannon_bits(half, MatrixView<const double>(scratch.data(), {2, p.extent(1)})),
                  likeliest(all) != likeliest(without)};
  }
}

/// The same, where the mixture is the answer.
inline void leave_one_role_out(std::span<const double> weight, MatrixView<const double> p,
                               std::span<RoleEffect> effects, std::span<double> scratch) noexcept {
  leave_one_role_out(weight, p, effects, scratch, [](std::span<double>) {});
}

}  // namespace finteam::inline FINTEAM_ABI
