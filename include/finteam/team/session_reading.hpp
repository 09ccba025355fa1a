// How a session is made, and how it reads a prompt: tokens, the gate's weights, each awake role's cache. Include
// session.hpp.
#pragma once

#include <finteam/team/session.hpp>

#include <numeric>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
void Session<B>::reserve() {
  const auto n = team_->roles().size();
  const auto labels = static_cast<std::size_t>(limits_.labels), tokens = static_cast<std::size_t>(limits_.tokens);
  const std::size_t label_bytes = static_cast<std::size_t>(limits_.label_bytes);
  const Message one;
  ids_.reserve(std::max(team_->tokenizer().max_ids(static_cast<std::size_t>(limits_.text_bytes)), tokens) + 64 +
               team_->chat().max_ids({&one, 1}));
  labels_.ids.reserve(static_cast<std::size_t>(limits_.rows) + labels);
  labels_.begin.reserve(labels + 1);
  weights_.assign(n, 0.0);
  route_.assign(n, 0.0F);
  asked_.reserve(n + 1);
  answering_.reserve(n + 1);
  reading_.reserve(n + 1);
  everyone_.resize(n);
  std::iota(everyone_.begin(), everyone_.end(), index_t{0});
  base_scores_.reserve(labels);
  weight_sums_.assign(n, 0.0);
  label_probability_.reserve(n * labels);
  label_weights_.reserve(n);
  effect_scratch_.resize(2 * labels);
  effects_.resize(n);
  content_.reserve(static_cast<std::size_t>(limits_.text_bytes));
  spare_labels_.resize(labels);
  for (auto& s : spare_labels_) s.reserve(label_bytes);
  view_.labels.reserve(labels);
  view_.probabilities.reserve(labels);
  view_.label_set.reserve(labels);
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
      readers_.routing(b_, static_cast<index_t>(n)).shape(routing->prompt);
      readers_.routing(b_, static_cast<index_t>(n)).shape(routing->answer);
    }
  }
  generation_.ids.reserve(tokens);
  forced_.reserve(ids_.capacity());
  draft_.reserve(static_cast<std::size_t>(Reader<B>::logit_rows));
  next_.reserve(draft_.capacity());
  weights_of_.reserve(n + 1);
  rows_of_.reserve(weights_of_.capacity() * draft_.capacity());
  pooled_.reserve(static_cast<std::size_t>(team_->widest_hidden()));
  embedding_.reserve(pooled_.capacity());
  generation_.text.reserve(tokens * std::min<std::size_t>(stream_.max_piece_bytes(), 256));
}

template <Backend B>
void Session<B>::tokenize_chat(std::span<const Message> chat) {
  ids_.clear();
  team_->chat().encode(team_->tokenizer(), text_scratch_, chat, ids_);
  declare(1);
}

template <Backend B>
void Session<B>::tokenize_text(std::string_view text) {
  ids_.assign(team_->tokenizer().prefix().begin(), team_->tokenizer().prefix().end());
  team_->tokenizer().encode(text, text_scratch_.text(text), ids_);
}

template <Backend B>
void Session<B>::declare(index_t more) {
  const index_t tokens = static_cast<index_t>(ids_.size()) + more;
  if (tokens > limits_.tokens) {
    throw Error(Code::limit_exceeded, "prompt",
                "at most " + std::to_string(limits_.tokens) + " tokens with what follows it (session limits)",
                std::to_string(tokens));
  }
  declared_ = tokens;
  prompt_ = static_cast<index_t>(ids_.size());
}

template <Backend B>
std::optional<Code> Session<B>::weigh(Wake wake, const Interrupt& interrupt) {
  readers_.start(declared_, prompt_);
  gate_.start();
  shown_ = 0;
  weight_sums_.assign(weight_sums_.size(), 0.0);
  asked_.clear();
  if (const auto code = by_likelihood() ? show_likelihoods(interrupt) : show_gate(interrupt)) return code;
  choose_roles(wake);
  if (team_->mix_in() == MixIn::deltas) readers_.forget(answering_.front());  // the gate may have read it without them
  return std::nullopt;
}

template <Backend B>
std::optional<Code> Session<B>::show_gate(const Interrupt& interrupt) {
  if (settings() == nullptr || !settings()->is_linear()) return std::nullopt;
  const auto of = static_cast<index_t>(settings()->of);
  const bool base = settings()->of == weights_.size();
  const auto see = [&](MatrixView<const float> states) {
    gate_.see(states);
    shown_ += static_cast<std::size_t>(states.extent(0));
  };
  if (settings()->reads == GateReads::mean_embedding) {
    const auto unseen = std::span<const std::int32_t>(ids_).subspan(shown_);
    readers_.embeddings(b_, base ? std::nullopt : std::optional(of), unseen, see);
    return std::nullopt;
  }
  if (base) readers_.route(of, {});  // the base alone, whatever it answered last
  // Roles on one decoder go on together; one on a decoder of its own waits until the gate has chosen.
  reading_.assign(1, of);
  for (const index_t role : asked_) {
    const bool waits = role == static_cast<index_t>(weights_.size());  // for the weights that the gate is about to set
    if (role != of && !waits && readers_.together(role, of)) reading_.push_back(role);
  }
  std::sort(reading_.begin(), reading_.end());
  return readers_.read(b_, reading_, ids_, interrupt, of, settings()->layer, see);
}

template <Backend B>
std::optional<Code> Session<B>::show_likelihoods(const Interrupt& interrupt) {
  const auto tokens = static_cast<index_t>(ids_.size()), chunk = score_rows();
  for (index_t first = 0; first < tokens; first += chunk) {
    const index_t t = std::min(chunk, tokens - first);
    if (const auto code = read_with_logits(everyone_, first + t, interrupt)) return code;
    for (index_t i = 0; i < t && first + i + 1 < tokens; ++i) {
      show_token(logit_rows(i), ids_[static_cast<std::size_t>(first + i + 1)]);
    }
  }
  return std::nullopt;
}

template <Backend B>
void Session<B>::show_token(MatrixView<const float> rows, std::int32_t id) {
  for (const index_t k : everyone_) {
    const auto logits = rows.row(k).span();
    gate_.see(k, static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum_exp(logits));
  }
}

template <Backend B>
std::optional<Code> Session<B>::follow(Wake wake, const Interrupt& interrupt) {
  if (const auto code = show_gate(interrupt)) return code;
  choose_roles(by_likelihood() ? Wake::all : wake);
  if (const auto code = catch_up(interrupt)) return code;
  for (std::size_t k = 0; k < weights_.size(); ++k) weight_sums_[k] += weights_[k];
  return std::nullopt;
}

template <Backend B>
void Session<B>::choose_roles(Wake wake) {
  gate_.weigh(weights_);
  if (team_->is_merged()) std::fill(weights_.begin(), weights_.end(), 0.0);  // routers weigh as they read: see_routing
  const bool states = settings() != nullptr && settings()->reads_states();
  require_finite_in(weights_, [&] { return states ? who(static_cast<index_t>(settings()->of)) : std::string("gate"); });
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
  readers_.route(base, route_);
}

template <Backend B>
void Session<B>::see_routing(index_t prompt, Roles& roles, Routing& routing) {
  if (!team_->is_merged()) return;
  readers_.routing(b_, static_cast<index_t>(roles.size())).means(prompt, routing);
  for (std::size_t k = 0; k < roles.size(); ++k) {
    roles[k].weight = routing.prompt.mean(static_cast<index_t>(k));
    roles[k].awake = roles[k].weight > 0;
  }
}

template <Backend B>
std::optional<Code> Session<B>::catch_up(const Interrupt& interrupt) {
  return readers_.read(b_, asked_, ids_, interrupt);
}

}  // namespace finteam::inline FINTEAM_ABI
