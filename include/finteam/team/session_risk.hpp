// What a session says of an answer with labels before it is acted on: how sure it is, which role it hangs on, whether
// to abstain. Include session.hpp.
#pragma once

#include <finteam/mix/calibration.hpp>
#include <finteam/mix/likeliest.hpp>
#include <finteam/team/session.hpp>

#include <algorithm>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
void Session<B>::check(const Ask& ask, const Task& task) {
  ask.abstain.validate();
  if (stricter(task.abstain, ask.abstain).reads_label_set() && !task.calibration) {
    throw Error(Code::invalid_argument, "abstain: most_labels", "a task with a calibration, which states the coverage",
                "none");
  }
  if (ask.prior_now.empty()) return;
  if (!task.calibration || task.calibration->prior_then.empty()) {
    throw Error(Code::invalid_argument, "prior_now", "nothing: the task's calibration has no prior_then",
                "frequencies");
  }
  if (ask.prior_now.size() != task.labels.size()) {
    throw Error(Code::invalid_argument, "prior_now",
                std::to_string(task.labels.size()) + " numbers, one for each label",
                std::to_string(ask.prior_now.size()));
  }
  for (std::size_t l = 0; l < ask.prior_now.size(); ++l) {
    const double now = ask.prior_now[l], ratio = now / task.calibration->prior_then[l];
    if (ratio >= 1e-100 && ratio <= 1e100) continue;
    throw Error(Code::invalid_argument, "prior_now", "numbers above 0, of the size of prior_then's",
                std::to_string(now));
  }
}

template <Backend B>
void Session<B>::assess(const Task& task, const Ask& ask) {
  auto& p = view_.probabilities;
  view_.label_set.clear();
  view_.coverage = 0;
  const auto correct = [&](std::span<double> y) {
    if (!ask.prior_now.empty()) correct_prior(y, task.calibration->prior_then, ask.prior_now);
  };
  if (task.calibration) {
    task.calibration->apply(p);
    task.calibration->choose_set(p, view_.label_set);
    view_.coverage = task.calibration->coverage;
  }
  correct(p);
  const auto best = static_cast<std::size_t>(likeliest(p));
  view_.label.assign(task.labels[best]);
  view_.probability = p[best];
  view_.entropy = entropy_bits(p);
  const MatrixView<const double> by_role(label_probability_.data(),
                                         {static_cast<index_t>(weights_.size()), static_cast<index_t>(p.size())});
  view_.disagreement = jensen_shannon_bits(label_weights_, by_role);
  leave_one_role_out(weights_, by_role, effects_, effect_scratch_, [&](std::span<double> y) {
    if (task.calibration) task.calibration->apply(y);
    correct(y);
  });
  for (std::size_t k = 0; k < effects_.size(); ++k) view_.roles[k].effect = effects_[k];
  const auto& set = view_.label_set;
  const bool held = std::find(set.begin(), set.end(), static_cast<index_t>(best)) != set.end();
  view_.abstain_reason = why_abstain(stricter(task.abstain, ask.abstain), view_.probability, view_.entropy,
                                     view_.disagreement, held ? static_cast<index_t>(set.size()) : 0);
  view_.abstains = view_.abstain_reason != AbstainReason::none;
}

}  // namespace finteam::inline FINTEAM_ABI
