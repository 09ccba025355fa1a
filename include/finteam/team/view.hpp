// What a team answered, and what each role said on its own.
// Not here: how it came about (session.hpp).
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/mix/attribution.hpp>
#include <finteam/team/abstain.hpp>
#include <finteam/team/routing.hpp>

#include <charconv>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// One role's part in an answer.
struct RoleView {
  std::string name;
  double weight = 0;           ///< the gate's weight after top-k; 0: the role sleeps. Of a merged team: the
                               ///< routers' mean over the prompt's tokens and the layers
  bool awake = false;          ///< it ran: its weight is above 0, or all roles were asked
  bool long_context = false;   ///< it read with the rope of long sequences: prompt and the most that could follow
                               ///< outgrow its pretraining's contexts (longrope, as of Phi-3)
  std::string label;           ///< its own most probable label; empty if it slept, or if there are no labels
  double probability = 0;      ///< of that label
  std::vector<double> scores;  ///< by label: log-probability of its tokens and its end; empty if it slept
  std::vector<double> probabilities;  ///< by label: softmax of scores + log prior; empty if it slept
  /// Of an answer with labels: what changes when the role leaves; nothing if no other role answers. Where deltas are
  /// summed inside a base: nothing, or, all roles being asked, what would in the mixture of what each says alone.
  RoleEffect effect{};
};

/// The roles in the team's order. Prints as one line per role.
struct Roles : std::vector<RoleView> {
  using std::vector<RoleView>::vector;
};

/// The answer to a question with labels. Each text is the view's own: it may outlive its session.
struct View {
  std::string label;                ///< the most probable one; ties: the first in the task's order
  double probability = 0;           ///< of that label
  std::vector<std::string> labels;  ///< in the task's order
  /// By label: Σ_roles weight · the role's probability; then, if the task is calibrated, softmax of its logarithm over
  /// the temperature; then, if Ask::prior_now is given, · now / then, over their sum.
  std::vector<double> probabilities;
  /// Of a calibrated task: the labels (their places in its order) that the set of stated coverage holds, likeliest
  /// first. None: the text is unlike those that it was calibrated with. By the probabilities before prior_now.
  std::vector<index_t> label_set;
  double coverage = 0;  ///< how often label_set holds the truth, for texts like those; 0: no calibration, and no set
  Roles roles;
  double disagreement = 0;  ///< Jensen-Shannon divergence of the weighted roles as they speak for themselves, bits
  double entropy = 0;       ///< of `probabilities`, bits
  bool abstains =
      false;  ///< it does not keep to the thresholds of Ask or task; label and probabilities are as without them
  AbstainReason abstain_reason = AbstainReason::none;  ///< which one it was
  index_t prompt_tokens = 0;
  Routing routing;  ///< of a merged team; empty for others
};

namespace detail {
/// "0.873": fixed, three decimals.
[[nodiscard]] inline std::string three_decimals(double x) {
  char text[40];
  const auto end = std::to_chars(text, text + sizeof text, x, std::chars_format::fixed, 3);
  return {text, end.ptr};
}
}  // namespace detail

/// "macro  0.713  bullish 0.903" per role, joined by newlines; a role that slept says so.
[[nodiscard]] inline std::string to_string(const Roles& roles) {
  std::string s;
  for (const RoleView& r : roles) {
    if (!s.empty()) s += '\n';
    s += r.name + "  " + detail::three_decimals(r.weight);
    if (!r.awake) {
      s += "  asleep";
    } else if (!r.label.empty()) {
      s += "  " + r.label + " " + detail::three_decimals(r.probability);
    }
  }
  return s;
}

inline std::ostream& operator<<(std::ostream& out, const Roles& roles) { return out << to_string(roles); }

}  // namespace finteam::inline FINTEAM_ABI
