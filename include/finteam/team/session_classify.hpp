// How a session classifies. Include session.hpp.
#pragma once

#include <finteam/mix/likeliest.hpp>
#include <finteam/team/session.hpp>

#include <numeric>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
const View& Session<B>::classify_checked(const Task& task, std::string_view text, const Ask& ask) {
  const FpEnvironment environment;
  detail::refuse_blank(text);
  check(ask, task);
  if (static_cast<index_t>(task.labels.size()) > limits_.labels) {
    throw Error(Code::limit_exceeded, "task", "at most " + std::to_string(limits_.labels) + " labels (session limits)",
                std::to_string(task.labels.size()));
  }
  if (is_inside(team_->mix_in()) && std::isfinite(stricter(task.abstain, ask.abstain).greatest_disagreement) &&
      (team_->is_merged() || ask.wake != Wake::all)) {
    throw Error(Code::unsupported, "abstain: greatest_disagreement",
                "roles that answer for themselves: Wake::all, on a base", "roles that are mixed inside");
  }
  detail::fill(task, text, content_);
  const Message message{ChatRole::user, content_};
  tokenize_chat({&message, 1});
  tokenize_labels(task);
  shape_view(task);
  throw_if(weigh(ask.wake, ask.interrupt), "classify");
  name_roles(view_.roles, ask.wake);
  throw_if(catch_up(ask.interrupt), "classify");
  for (RoleView& role : view_.roles) role.scores.clear();
  const auto scores = [&](index_t k) -> std::vector<double>& {
    return k < static_cast<index_t>(weights_.size()) ? view_.roles[static_cast<std::size_t>(k)].scores : base_scores_;
  };
  for (const index_t k : asked_) scores(k).assign(task.labels.size(), 0.0);
  const auto code = readers_.score(b_, asked_, labels_, ask.interrupt, logits_.view(),
                                   [&](index_t k) { return std::span<double>(scores(k)); });
  throw_if(code, "classify");
  for (const index_t k : asked_) require_finite_in(scores(k), [&] { return who(k); });
  answer(task);
  assess(task, ask);
  see_routing(view_.prompt_tokens, view_.roles, view_.routing);
  return view_;
}

template <Backend B>
void Session<B>::tokenize_labels(const Task& task) {
  labels_.ids.clear();
  labels_.begin.assign(1, 0);
  index_t longest = 0;
  for (const std::string& label : task.labels) {
    if (static_cast<index_t>(label.size()) > limits_.label_bytes) {
      throw Error(Code::limit_exceeded, "task",
                  "labels of at most " + std::to_string(limits_.label_bytes) + " bytes (session limits)",
                  std::to_string(label.size()));
    }
    const index_t first = static_cast<index_t>(labels_.ids.size());
    team_->chat().encode_answer(team_->tokenizer(), text_scratch_, label, labels_.ids);
    if (team_->end_id()) labels_.ids.push_back(*team_->end_id());
    labels_.begin.push_back(static_cast<index_t>(labels_.ids.size()));
    longest = std::max(longest, labels_.begin.back() - first);
  }
  const index_t rows = labels_.begin.back() - static_cast<index_t>(task.labels.size());
  if (rows > limits_.rows) {
    throw Error(Code::limit_exceeded, "task", "labels of at most " + std::to_string(limits_.rows) + " tokens together",
                std::to_string(rows));
  }
  declare(longest);
}

template <Backend B>
void Session<B>::shape_view(const Task& task) {
  while (view_.labels.size() > task.labels.size()) {
    spare_labels_.push_back(std::move(view_.labels.back()));
    view_.labels.pop_back();
  }
  while (view_.labels.size() < task.labels.size()) {
    view_.labels.push_back(std::move(spare_labels_.back()));
    spare_labels_.pop_back();
  }
  for (std::size_t l = 0; l < task.labels.size(); ++l) view_.labels[l].assign(task.labels[l]);
  view_.prompt_tokens = static_cast<index_t>(ids_.size());
}

template <Backend B>
void Session<B>::distribution(const Task& task, std::span<const double> scores, std::vector<double>& p) {
  p.assign(scores.begin(), scores.end());
  for (std::size_t l = 0; l < std::min(task.prior.size(), p.size()); ++l) p[l] += std::log(task.prior[l]);
  softmax(p);
}

template <Backend B>
void Session<B>::answer(const Task& task) {
  const std::size_t n = task.labels.size();
  label_probability_.assign(weights_.size() * n, 0.0);
  label_weights_.assign(weights_.begin(), weights_.end());
  if (settings() != nullptr && !settings()->rule.renormalise) {
    const double sum = std::accumulate(label_weights_.begin(), label_weights_.end(), 0.0);
    for (double& w : label_weights_) w /= sum;  // labels are a distribution, whatever logits or deltas weigh
  }
  view_.probabilities.assign(n, 0.0);
  for (std::size_t k = 0; k < weights_.size(); ++k) {
    RoleView& role = view_.roles[k];
    role.label.clear();
    role.probability = 0;
    distribution(task, role.scores, role.probabilities);
    if (role.scores.empty()) continue;
    const std::size_t own = static_cast<std::size_t>(likeliest(role.probabilities));
    role.label.assign(task.labels[own]);
    role.probability = role.probabilities[own];
    for (std::size_t l = 0; l < n; ++l) {
      label_probability_[k * n + l] = role.probabilities[l];
      if (role.weight > 0)
        view_.probabilities[l] = std::fma(label_weights_[k], role.probabilities[l], view_.probabilities[l]);
    }
  }
  if (is_inside(team_->mix_in())) distribution(task, base_scores_, view_.probabilities);
}

}  // namespace finteam::inline FINTEAM_ABI
