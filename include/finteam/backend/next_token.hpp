// What a backend may do besides `Backend`: say how likely tokens are, mix the logits of a team's experts and choose the
// tokens that follow, where the logits are. Where it does not, mix/mixture.hpp and text/sampler.hpp do it on the host.
#pragma once

#include <finteam/backend/backend.hpp>
#include <finteam/core/sampling.hpp>

#include <concepts>
#include <cstdint>
#include <span>

namespace finteam::inline FINTEAM_ABI {

/// t rows of one sequence, each to be followed by a token. n experts answer, of weight > 0 each, Σ weight = 1.
template <class Space>
struct NextTokens {
  std::span<const VectorView<const float, Space>> logits;  ///< [t, n]: row by row, each expert's [v]
  std::span<const double> weight;                          ///< [n]
  bool mixes_logits = false;             ///< Σ weight · logits, then a distribution; else Σ weight · p
  std::span<const std::int32_t> absent;  ///< ids that no token has
  std::span<const std::int32_t> before;  ///< the sequence: row i's token follows all of it but its last t - 1 - i ids
  Sampling sampling;
};

/// A token that was chosen. id: -1 where the mixture's greatest log p is not finite.
struct NextToken {
  std::int32_t id = -1;
  float log_p = 0;  ///< under the mixture
};

/// A token, and the row of logits that foretells it.
struct Foretold {
  std::int32_t row = 0, id = 0;
};

/// As log_sum_exp, mix_next_token and Sampler::sample say, but for the last bits; of a row the same whatever others are
/// chosen with it (law 3).
template <class B>
concept ChoosesTokens = Backend<B> &&
    requires(B& b, const NextTokens<typename B::Space>& of, std::span<NextToken> to,
             MatrixView<const float, typename B::Space> x, std::span<const Foretold> tokens, std::span<double> log_p) {
  /// to [t], once everything before has run.
  b.next_tokens(of, to);
  /// log_p[i] = x[row,id] - log Σ_j exp(x[row,j]) of tokens[i], once everything before has run; tokens of one row
  /// follow each other. x [t, v].
  b.log_p(x, tokens, log_p);
};

}  // namespace finteam::inline FINTEAM_ABI
