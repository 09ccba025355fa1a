// How a session is made, and how it reads a prompt: tokens, the gate's weights, each awake role's cache. Include
// session.hpp.
#pragma once

#include <finteam/team/session.hpp>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
void Session<B>::reserve() {
  const auto n = team_->roles().size();
  const auto labels = static_cast<std::size_t>(limits_.labels), tokens = static_cast<std::size_t>(limits_.tokens);
  const std::size_t label_bytes = static_cast<std::size_t>(limits_.label_bytes);
  ids_.reserve(static_cast<std::size_t>(std::max(limits_.text_bytes, limits_.tokens)) + 64);
  labels_.ids.reserve(static_cast<std::size_t>(limits_.rows) + labels);
  labels_.begin.reserve(labels + 1);
  weights_.assign(n, 0.0);
  route_.assign(n, 0.0F);
  asked_.reserve(n + 1);
  answering_.reserve(n + 1);
  base_scores_.reserve(labels);
  feature_.reserve(static_cast<std::size_t>(team_->widest_hidden()));
  label_probability_.reserve(n * labels);
  content_.reserve(static_cast<std::size_t>(limits_.text_bytes));
  spare_labels_.resize(labels);
  for (auto& s : spare_labels_) s.reserve(label_bytes);
  view_.labels.reserve(labels);
  view_.probabilities.reserve(labels);
  view_.label.reserve(label_bytes);
  for (Roles* roles : {&view_.roles, &score_.roles, &generation_.roles}) {
    roles->resize(n);
    for (std::size_t k = 0; k < n; ++k) {
      RoleView& r = (*roles)[k];
      r.name = team_->roles()[k].name;
      r.label.reserve(label_bytes);
      r.scores.reserve(labels);
      r.probabilities.reserve(labels);
    }
  }
  if (team_->is_merged()) {
    for (Routing* routing : {&view_.routing, &score_.routing, &generation_.routing}) {
      readers_.routing(static_cast<index_t>(n)).shape(routing->prompt);
      readers_.routing(static_cast<index_t>(n)).shape(routing->answer);
    }
  }
  generation_.ids.reserve(tokens);
  draft_.reserve(static_cast<std::size_t>(Reader<B>::logit_rows));
  absent_logits_.reserve(team_->absent_ids().size());
  generation_.text.reserve(tokens * std::min<std::size_t>(stream_.max_piece_bytes(), 256));
}

template <Backend B>
void Session<B>::tokenize_chat(std::span<const Message> chat) {
  ids_.clear();
  team_->chat().encode(team_->tokenizer(), text_scratch_, chat, ids_);
  require_room(1);
}

template <Backend B>
void Session<B>::tokenize_text(std::string_view text) {
  ids_.assign(team_->tokenizer().prefix().begin(), team_->tokenizer().prefix().end());
  team_->tokenizer().encode(text, text_scratch_, ids_);
}

template <Backend B>
void Session<B>::require_room(index_t more) const {
  const index_t tokens = static_cast<index_t>(ids_.size()) + more;
  if (tokens <= limits_.tokens) return;
  throw Error(Code::limit_exceeded, "prompt",
              "at most " + std::to_string(limits_.tokens) + " tokens with what follows it (session limits)",
              std::to_string(tokens));
}

template <Backend B>
std::optional<Code> Session<B>::weigh(Wake wake, const Interrupt& interrupt) {
  readers_.start();
  const auto& gate = team_->gate();
  if (!gate) {
    weights_.assign(weights_.size(), team_->is_merged() ? 0.0 : 1.0);  // routers weigh as they read: see_routing
    choose_roles(wake);
    return std::nullopt;
  }
  const auto of = static_cast<index_t>(gate->of);
  if (of == static_cast<index_t>(weights_.size())) readers_.route(of, {});  // the base alone, whatever it answered last
  feature_.assign(static_cast<std::size_t>(readers_.decoder(of).config().d), 0.0);
  const auto code = readers_.read(b_, {&of, 1}, ids_, interrupt, [&](index_t, MatrixView<const float> hidden) {
    for (index_t t = 0; t < hidden.extent(0); ++t) {
      for (std::size_t i = 0; i < feature_.size(); ++i) feature_[i] += static_cast<double>(hidden(t, i));
    }
  });
  if (code) return code;
  for (double& f : feature_) f /= static_cast<double>(ids_.size());
  linear_scores(gate->weight.view(), gate->bias.view().span(), feature_, weights_);
  require_finite(weights_, who(of));
  softmax(weights_, gate->temperature);
  keep_top_k(weights_, gate->top_k);
  choose_roles(wake);
  return std::nullopt;
}

template <Backend B>
void Session<B>::choose_roles(Wake wake) {
  const bool inside = is_inside(team_->mix_in());
  const auto base = static_cast<index_t>(weights_.size());
  asked_.clear();
  answering_.clear();
  for (index_t k = 0; k < base; ++k) {
    const bool chosen = weights_[static_cast<std::size_t>(k)] > 0 && !inside;
    if (chosen) answering_.push_back(k);
    if (chosen || (wake == Wake::all && !team_->is_merged())) asked_.push_back(k);
  }
  if (!inside) return;
  answering_.push_back(base);
  asked_.push_back(base);
  if (team_->is_merged()) return;
  for (std::size_t k = 0; k < weights_.size(); ++k) route_[k] = static_cast<float>(weights_[k]);
  readers_.forget(base);  // the gate may have read it without them
  readers_.route(base, route_);
}

template <Backend B>
void Session<B>::see_routing(index_t prompt, Roles& roles, Routing& routing) const {
  if (!team_->is_merged()) return;
  readers_.routing(static_cast<index_t>(roles.size())).means(prompt, routing);
  for (std::size_t k = 0; k < roles.size(); ++k) {
    roles[k].weight = routing.prompt.mean(static_cast<index_t>(k));
    roles[k].awake = roles[k].weight > 0;
  }
}

template <Backend B>
std::optional<Code> Session<B>::catch_up(const Interrupt& interrupt) {
  return readers_.read(b_, asked_, ids_, interrupt, [](index_t, MatrixView<const float>) {});
}

}  // namespace finteam::inline FINTEAM_ABI
