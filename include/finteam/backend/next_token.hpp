// What a backend may do besides `Backend`: mix the logits of a team's experts and choose the tokens that follow, where
// the logits are. Where it does not, they are copied to the host, whose mix/mixture.hpp and text/sampler.hpp do it.
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

/// As mix_next_token and Sampler::sample say, but for the last bits; of a row the same whatever others are chosen with
/// it (law 3).
template <class B>
concept ChoosesTokens = Backend<B> && requires(B& b, const NextTokens<typename B::Space>& of, std::span<NextToken> to) {
  /// to [t], once everything before has run.
  b.next_tokens(of, to);
};

}  // namespace finteam::inline FINTEAM_ABI
