// What a generation is asked for, and what came out of it.
#pragma once

#include <finteam/core/interrupt.hpp>
#include <finteam/team/view.hpp>
#include <finteam/text/sampler.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Which roles answer: those that the gate chose, or all of them (a sleeper's weight stays 0).
enum class Wake : std::uint8_t { chosen, all };

/// How a question is asked.
struct Ask {
  Wake wake = Wake::chosen;
  Interrupt interrupt{};  ///< looked at before every layer; then Error(cancelled) or Error(deadline)
  Abstain abstain{};      ///< of classify: when its answer is not to be acted on, besides what the task says
  /// Of classify: how often each label comes now, > 0, where a task's calibration knows how often it came then
  /// (prior_then); they need not sum to 1. Empty: as often.
  std::span<const double> prior_now{};
};

/// Where tokens are guessed that the team then checks in one step. The text is the same with any of them.
enum class Draft : std::uint8_t {
  none,
  favourite,  ///< the role that weighs most writes ahead; of use where roles have decoders of their own
  prompt,     ///< what followed when the text's last tokens came before; of use where answers repeat their prompt
};

/// How text is generated.
struct GenerateOptions {
  index_t max_tokens = 256;              ///< at least 1; the session's limit on tokens ends a text too
  Sampling sampling{};                   ///< greedy unless temperature > 0
  std::vector<std::string> stop{};       ///< ends the text before any of these
  std::vector<std::int32_t> stop_ids{};  ///< besides the end tokens of the chat format and the roles' configs
  Interrupt interrupt{};                 ///< looked at before every layer; the text so far is returned
  Draft draft = Draft::none;
};

/// Why a text ended.
enum class Finish : std::uint8_t { end_token, stop_string, length, cancelled, deadline, caller };

/// The reason's name, as the enumerator is spelt.
[[nodiscard]] constexpr std::string_view name(Finish f) noexcept {
  constexpr std::string_view names[] = {"end_token", "stop_string", "length", "cancelled", "deadline", "caller"};
  return names[static_cast<std::size_t>(f)];
}

/// A generated text.
struct Generation {
  std::string text;               ///< what was streamed, whole UTF-8 characters, without the stop string
  std::vector<std::int32_t> ids;  ///< every sampled token, an end token included
  Finish finish = Finish::length;
  double log_probability = 0;  ///< Σ log p of ids under the team's mixture (before temperature, top-k and top-p)
  Roles roles;                 ///< the gate's weights
  index_t prompt_tokens = 0;
  index_t drafted = 0, kept = 0;  ///< tokens that were guessed, and how many of them the team chose
  Routing routing;                ///< of a merged team; empty for others
};

/// How probable a text is.
struct Score {
  double log_probability = 0;  ///< Σ log p(token | those before it) under what `generate` mixes, nats
  index_t tokens = 0;          ///< how many were scored; perplexity = exp(-log_probability / tokens)
  Roles roles;                 ///< weights; scores[0] = the role's own log-probability of the text
  Routing routing;             ///< of a merged team, the text as prompt; empty for others
};

}  // namespace finteam::inline FINTEAM_ABI
