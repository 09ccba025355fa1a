// What of a text's states a host wants to see.
// Not here: reading them (session_views.hpp).
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/core/interrupt.hpp>

#include <cstdint>
#include <optional>
#include <string_view>

namespace finteam::inline FINTEAM_ABI {

/// How the states of a text's tokens become one.
enum class Pooling : std::uint8_t { mean, last };

/// How a text is read: as it stands, as complete() and score() read it, or as a user's message with the header of the
/// reply, as generate() and classify() do.
enum class PromptForm : std::uint8_t { text, chat };

/// What is read of a text, and in whom.
struct EmbedOptions {
  std::string_view of{};  ///< a role's name, or base, where roles share one; empty: the first role
  std::optional<index_t>
      layer{};  ///< states after so many blocks, 0: input embeddings; none: after all and the final norm
  Pooling pooling = Pooling::mean;
  PromptForm form = PromptForm::text;
  Interrupt interrupt{};  ///< looked at before every layer; then Error(cancelled) or Error(deadline)
};

}  // namespace finteam::inline FINTEAM_ABI
