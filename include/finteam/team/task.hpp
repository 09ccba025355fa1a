// A question with labels, as data: an instruction, a slot for the text, the labels, and perhaps a prior.
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/file/quoted.hpp>
#include <finteam/team/abstain.hpp>
#include <finteam/team/label_calibration.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// The prompt's content is instruction + "\n" + input, with every "{text}" in `input` replaced by the text in question.
struct Task {
  std::string instruction;
  std::string input = "{text}";
  std::vector<std::string> labels;
  /// By label: p(label) ∝ prior · exp(score). Empty: all equal.
  std::vector<double> prior{};
  /// What the team's probabilities of these labels are worth, if that is known.
  std::optional<LabelCalibration> calibration{};
  /// When its answers are not to be acted on, whatever else a question asks for (Ask::abstain).
  Abstain abstain{};
};

namespace detail {

inline constexpr std::string_view text_slot = "{text}";
inline constexpr index_t most_labels = 4096;  // of a task

/// Throws Error(invalid_argument) for a task that cannot be asked: no, too many, empty or repeated labels, no slot, a
/// bad prior, calibration or rule of abstaining.
inline void check_task(const Task& task, const std::string& where) {
  const auto refuse = [&](std::string expected, std::string found) {
    throw Error(Code::invalid_argument, where, std::move(expected), std::move(found));
  };
  if (task.labels.empty()) refuse("at least one label", "an empty list");
  if (task.labels.size() > static_cast<std::size_t>(most_labels)) {
    refuse("at most " + std::to_string(most_labels) + " labels", std::to_string(task.labels.size()));
  }
  for (auto l = task.labels.begin(); l != task.labels.end(); ++l) {
    if (l->empty()) refuse("labels with text", "an empty label");
    if (std::find(task.labels.begin(), l, *l) != l) refuse("labels that differ", in_quotes(*l) + " twice");
  }
  if (task.input.find(text_slot) == std::string::npos) refuse("an input that holds {text}", in_quotes(task.input));
  if (task.calibration) task.calibration->validate(task.labels.size(), where);
  task.abstain.validate();
  if (task.prior.empty()) return;
  if (task.prior.size() != task.labels.size()) {
    refuse("a prior of " + std::to_string(task.labels.size()) + " numbers", std::to_string(task.prior.size()));
  }
  for (const double p : task.prior) {
    if (!(p > 0) || !std::isfinite(p)) refuse("a prior of finite numbers above 0", std::to_string(p));
  }
}

/// The prompt's content for a text; `content` is overwritten and keeps its capacity.
inline void fill(const Task& task, std::string_view text, std::string& content) {
  content.assign(task.instruction);
  if (!content.empty()) content += '\n';
  std::string_view input = task.input;
  for (auto slot = input.find(text_slot); slot != std::string_view::npos; slot = input.find(text_slot)) {
    content.append(input.substr(0, slot)).append(text);
    input.remove_prefix(slot + text_slot.size());
  }
  content.append(input);
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
