// What a session says of an answer with labels before it is acted on: how sure it is, which role it hangs on, whether
// to abstain. Include session.hpp.
#pragma once

#include <finteam/team/session.hpp>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
void Session<B>::assess(const Task& task, const Ask& ask) {
  const auto& p = view_.probabilities;
  const auto best = static_cast<std::size_t>(std::max_element(p.begin(), p.end()) - p.begin());
  view_.label.assign(task.labels[best]);
  view_.probability = p[best];
  view_.entropy = entropy_bits(p);
  const MatrixView<const double> by_role(label_probability_.data(),
                                         {static_cast<index_t>(weights_.size()), static_cast<index_t>(p.size())});
  view_.disagreement = jensen_shannon_bits(weights_, by_role);
  leave_one_role_out(weights_, by_role, effects_, effect_scratch_);
  for (std::size_t k = 0; k < effects_.size(); ++k) view_.roles[k].effect = effects_[k];
  view_.abstain_reason = why_abstain(ask.abstain, view_.probability, view_.entropy, view_.disagreement);
  view_.abstains = view_.abstain_reason != AbstainReason::none;
}

}  // namespace finteam::inline FINTEAM_ABI
