// Every tolerance of the tests, with its reason. A test that compares numbers takes its bound from here.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/core/dtype.hpp>

namespace tolerance {

/// |a - b| ≤ absolute + relative · |b|; false if either is NaN.
struct Bound {
  double absolute;
  double relative;
  [[nodiscard]] bool holds(double a, double b) const {
    const double difference = a > b ? a - b : b - a;
    return difference <= absolute + relative * (b < 0 ? -b : b);
  }
};

/// One op in float against the same op in double, inputs of order one. Weights of every storage type widen exactly, so
/// the type adds nothing: what is left is float's rounding in sums of at most a few hundred terms, 2^-24 · sqrt(300) ≈
/// 1e-6 of the largest partial sum (order 10), with room for the unluckiest of a hundred thousand draws.
[[nodiscard]] constexpr Bound op(finteam::DType weights) {
  switch (weights) {
    case finteam::DType::f32: return {2e-5, 1e-5};
    case finteam::DType::bf16: return {2e-5, 1e-5};
    case finteam::DType::f16: return {2e-5, 1e-5};
  }
  return {0, 0};
}

/// A prompt's rows on a GPU, whose activations and weights are bf16 numbers there: each term of a sum of up to 160 is
/// off by 2^-8 of itself at most, typically by 2^-10: 2^-10 · sqrt(160) · 1.3 ≈ 0.016, five of those. Against integers
/// Reference rounds activations to steps of 1/127 of a group's greatest (about 2.5): 0.006 · sqrt(160) = 0.07, eight of
/// those. (Twenty times that behind a gate, whose other factor is up to 30 here.)
[[nodiscard]] constexpr Bound prompt_op(finteam::Weights weights) {
  return weights == finteam::Weights::stored || weights == finteam::Weights::bf16 ? Bound{0.08, 0.01}
                                                                                  : Bound{0.6, 0.05};
}

/// A product with a low-bit difference: as op, with numbers of magnitude up to 1.5 and up to a thousand of them.
inline constexpr Bound delta{5e-5, 1e-5};

/// Attention in float against attention in double over the same stored keys and values, of magnitude up to 4. A weight
/// that is rounded to bf16 is off by 2^-9 of itself; the total is that of the rounded ones, so an output is off by at
/// most 2^-8 of the greatest value. A weight that is rounded to 8 bits is off by at most half a step, 1/510 of its
/// page's greatest; with up to 32 of them in either direction, six standard deviations (0.29 steps each) are 0.039
/// of the greatest value. vdpbf16ps takes subnormals as zero, which is far below either.
[[nodiscard]] constexpr Bound attention(finteam::CacheFormat format) {
  switch (format) {
    case finteam::CacheFormat::f32: return {1e-5, 1e-5};
    case finteam::CacheFormat::bf16: return {4 * 0x1p-8, 1e-5};
    case finteam::CacheFormat::int8: return {4 * 0.039, 1e-5};
  }
  return {0, 0};
}

/// The product of two such sums, one of them behind a sigmoid: each has the other's size, up to 20, as its factor.
inline constexpr Bound gated{2e-4, 1e-5};

/// exp in float against exp in double: 2 units in the last place of a normal float.
inline constexpr Bound exponential{0, 2.4e-7};

/// Logits and hidden states against transformers' in float32, absolute. The goldens themselves are up to 1.5e-5 from
/// the same function in float64 (golden.json: float32_error); every mistake that they know moves a logit by 100 of
/// these.
inline constexpr double parity = 1e-4;

/// log p of a mixture in float on a device and on the host, each 5e-7 and a unit of the last place off.
inline constexpr Bound log_p{2e-6, 3e-7};

/// Label scores, probabilities and bits of a whole team against the same in float64 behind float32 decoders: `parity`,
/// and as much again relative to it, since a score sums several log-probabilities.
inline constexpr Bound whole_model{parity, 1e-5};

/// A low-bit difference sees activations of 8 bits, off by at most 1/254 of their group's greatest: of what it does to
/// logits through all layers, so much may be missing.
inline constexpr double low_bit_share = 0.03;

/// Weights in 8 and in 4 bits, activations in 8: root mean square of what a checkpoint's logits are off, over their
/// own. The goldens' few random layers, with scores and logits that vary by more than 1, hand every rounding on almost
/// undamped: they measure 0.03 to 0.11 and 0.31 to 0.64 (docs say what trained models lose: far less). A scale or a
/// group that is read wrongly makes it 1 and more.
inline constexpr double int8_share = 0.15, int4_share = 0.75;

/// Logits on a GPU with a cache in bf16 against the CPU's with one in float and the same weights: root mean square of
/// the difference over their own. Generated rows and bf16 round alike: what is left is the cache and last bits (0.022);
/// rows of prompts meet integers in bf16 there, in 8 bits here, which is the loss of 8 bits.
[[nodiscard]] constexpr double device_share(finteam::Weights weights, finteam::RowKind kind) {
  return weights != finteam::Weights::bf16 && kind == finteam::RowKind::prompt ? int8_share : 0.05;
}

}  // namespace tolerance
