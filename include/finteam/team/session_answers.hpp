// How a session answers: the definitions that session.hpp declares. Include session.hpp.
#pragma once

#include <finteam/team/session.hpp>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
SessionLimits Session<B>::checked(const Team<B>& team, SessionLimits limits) {
  const auto refuse = [](const char* where, std::string expected, index_t found) {
    throw Error(Code::invalid_argument, std::string("session limits: ") + where, std::move(expected),
                std::to_string(found));
  };
  if (limits.tokens == 0) limits.tokens = std::min<index_t>(team.context(), 4096);
  if (limits.tokens < 2 || limits.tokens > team.context()) {
    refuse("tokens", "2 to the team's context, " + std::to_string(team.context()), limits.tokens);
  }
  if (limits.text_bytes == 0) limits.text_bytes = 16 * limits.tokens;
  if (limits.text_bytes < 1 || limits.text_bytes > (index_t{1} << 30))
    refuse("text_bytes", "1 to 2^30", limits.text_bytes);
  if (limits.labels < 1 || limits.labels > 4096) refuse("labels", "1 to 4096", limits.labels);
  if (limits.rows < 1 || limits.rows > 65536) refuse("rows", "1 to 65536", limits.rows);
  return limits;
}

template <Backend B>
void Session<B>::reserve() {
  const auto n = team_->roles().size();
  const auto labels = static_cast<std::size_t>(limits_.labels), tokens = static_cast<std::size_t>(limits_.tokens);
  constexpr std::size_t label_bytes = 64;
  ids_.reserve(static_cast<std::size_t>(limits_.text_bytes) + 64);
  labels_.ids.reserve(static_cast<std::size_t>(limits_.rows) + labels);
  labels_.begin.reserve(labels + 1);
  weights_.assign(n, 0.0);
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
  generation_.ids.reserve(tokens);
  generation_.text.reserve(16 * tokens);
}

template <Backend B>
const View& Session<B>::classify_checked(const Task& task, std::string_view text, const Ask& ask) {
  const FpEnvironment environment;
  detail::refuse_blank(text);
  if (static_cast<index_t>(task.labels.size()) > limits_.labels) {
    throw Error(Code::limit_exceeded, "task", "at most " + std::to_string(limits_.labels) + " labels (session limits)",
                std::to_string(task.labels.size()));
  }
  detail::fill(task, text, content_);
  const Message message{ChatRole::user, content_};
  tokenize_chat({&message, 1});
  tokenize_labels(task);
  shape_view(task);
  throw_if(weigh(ask.interrupt), "classify");
  name_roles(view_.roles, ask.wake);
  for (std::size_t k = 0; k < readers_.size(); ++k) {
    RoleView& role = view_.roles[k];
    role.scores.assign(role.awake ? task.labels.size() : 0, 0.0);
    if (!role.awake) continue;
    throw_if(read_prompt(k, ask.interrupt), "classify");
    throw_if(readers_[k].score(b_, labels_, ask.interrupt, logits_.view().row(static_cast<index_t>(k)), role.scores),
             "classify");
  }
  answer(task);
  return view_;
}

template <Backend B>
void Session<B>::tokenize_labels(const Task& task) {
  labels_.ids.clear();
  labels_.begin.assign(1, 0);
  index_t longest = 0;
  for (const std::string& label : task.labels) {
    const index_t first = static_cast<index_t>(labels_.ids.size());
    team_->tokenizer().encode(label, text_scratch_, labels_.ids);
    if (team_->end_id()) labels_.ids.push_back(*team_->end_id());
    labels_.begin.push_back(static_cast<index_t>(labels_.ids.size()));
    longest = std::max(longest, labels_.begin.back() - first);
  }
  const index_t rows = labels_.begin.back() - static_cast<index_t>(task.labels.size());
  if (rows > limits_.rows) {
    throw Error(Code::limit_exceeded, "task", "labels of at most " + std::to_string(limits_.rows) + " tokens together",
                std::to_string(rows));
  }
  const index_t tokens = static_cast<index_t>(ids_.size()) + longest;
  if (tokens > limits_.tokens) {
    throw Error(Code::limit_exceeded, "prompt", "at most " + std::to_string(limits_.tokens) + " tokens with its label",
                std::to_string(tokens));
  }
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
void Session<B>::answer(const Task& task) {
  const std::size_t n = task.labels.size();
  const auto best = [](std::span<const double> p) {
    return static_cast<std::size_t>(std::max_element(p.begin(), p.end()) - p.begin());
  };
  label_probability_.assign(readers_.size() * n, 0.0);
  view_.probabilities.assign(n, 0.0);
  for (std::size_t k = 0; k < readers_.size(); ++k) {
    RoleView& role = view_.roles[k];
    role.label.clear();
    role.probability = 0;
    role.probabilities.assign(role.scores.begin(), role.scores.end());
    if (!role.awake) continue;
    for (std::size_t l = 0; l < task.prior.size(); ++l) role.probabilities[l] += std::log(task.prior[l]);
    softmax(role.probabilities);
    const std::size_t own = best(role.probabilities);
    role.label.assign(task.labels[own]);
    role.probability = role.probabilities[own];
    for (std::size_t l = 0; l < n; ++l) {
      label_probability_[k * n + l] = role.probabilities[l];
      if (role.weight > 0)
        view_.probabilities[l] = std::fma(role.weight, role.probabilities[l], view_.probabilities[l]);
    }
  }
  const std::size_t chosen = best(view_.probabilities);
  view_.label.assign(task.labels[chosen]);
  view_.probability = view_.probabilities[chosen];
  view_.entropy = entropy_bits(view_.probabilities);
  view_.disagreement = jensen_shannon_bits(
      weights_, {label_probability_.data(), {static_cast<index_t>(readers_.size()), static_cast<index_t>(n)}});
}

template <Backend B>
void Session<B>::tokenize_chat(std::span<const Message> chat) {
  ids_.clear();
  team_->chat().encode(team_->tokenizer(), text_scratch_, chat, ids_);
  if (static_cast<index_t>(ids_.size()) >= limits_.tokens) {
    throw Error(Code::limit_exceeded, "prompt", "fewer than " + std::to_string(limits_.tokens) + " tokens",
                std::to_string(ids_.size()));
  }
}

template <Backend B>
std::optional<Code> Session<B>::weigh(const Interrupt& interrupt) {
  for (auto& reader : readers_) reader.start();
  const auto& gate = team_->gate();
  if (!gate) {
    weights_.assign(1, 1.0);
    return std::nullopt;
  }
  Reader<B>& reader = readers_[gate->of];
  feature_.assign(static_cast<std::size_t>(reader.decoder().config().d), 0.0);
  const auto code = reader.read(b_, ids_, interrupt, [&](MatrixView<const float> hidden) {
    for (index_t t = 0; t < hidden.extent(0); ++t) {
      for (std::size_t i = 0; i < feature_.size(); ++i) feature_[i] += static_cast<double>(hidden(t, i));
    }
  });
  if (code) return code;
  for (double& f : feature_) f /= static_cast<double>(ids_.size());
  linear_scores(gate->weight.view(), gate->bias.view().span(), feature_, weights_);
  softmax(weights_, gate->temperature);
  keep_top_k(weights_, gate->top_k);
  return std::nullopt;
}

template <Backend B>
std::optional<Code> Session<B>::read_prompt(std::size_t k, const Interrupt& interrupt) {
  if (readers_[k].length() > 0) return std::nullopt;
  return readers_[k].read(b_, ids_, interrupt);
}

template <Backend B>
VectorView<const float> Session<B>::next_token() {
  const auto all = logits_.view();
  const index_t n = all.extent(0), v = all.extent(2);
  for (std::size_t k = 0; k < readers_.size(); ++k) {
    if (awake(k)) readers_[k].logits(b_, all.row(static_cast<index_t>(k)).rows(0, 1));
  }
  const MatrixView<float> first_rows(all.data(), {n, v}, {all.stride(0), 1});
  mix_next_token(team_->mix_in(), weights_, first_rows, first_rows.row(0).span());
  return first_rows.row(0);
}

template <Backend B>
template <class OnText>
const Generation& Session<B>::generate(std::span<const Message> chat, OnText&& on_text,
                                       const GenerateOptions& options) {
  const FpEnvironment environment;
  if (options.max_tokens < 1) {
    throw Error(Code::invalid_argument, "max_tokens", "at least 1", std::to_string(options.max_tokens));
  }
  options.sampling.validate();
  if (chat.empty()) throw Error(Code::invalid_argument, "chat", "at least one message", "none");
  detail::refuse_blank(chat.back().content);
  if (options.stop != stop_strings_) {  // the one thing that a call may allocate: stop strings it has not seen before
    stop_ = StopMatcher(options.stop, stream_.max_piece_bytes());
    stop_strings_ = options.stop;
  }
  stop_.flush();
  stream_.flush();
  tokenize_chat(chat);

  Generation& out = generation_;
  out.text.clear();
  out.ids.clear();
  out.log_probability = 0;
  out.prompt_tokens = static_cast<index_t>(ids_.size());
  const auto emit = [&](std::string_view piece) {  // false: the caller wants no more
    if (piece.empty()) return true;
    out.text.append(piece);
    if constexpr (std::is_void_v<decltype(on_text(piece))>) {
      on_text(piece);
      return true;
    } else {
      return static_cast<bool>(on_text(piece));
    }
  };
  const auto finish = [&](Finish why) -> const Generation& {
    out.finish = why;
    if (why == Finish::stop_string || why == Finish::caller) return out;
    if (!emit(stop_.push(stream_.flush()))) return out;
    if (stop_.stopped()) out.finish = Finish::stop_string;
    emit(stop_.flush());
    return out;
  };
  const auto interrupted = [](Code code) { return code == Code::deadline ? Finish::deadline : Finish::cancelled; };

  auto code = weigh(options.interrupt);
  if (code) weights_.assign(weights_.size(), 0.0);
  for (std::size_t k = 0; k < readers_.size() && !code; ++k) {
    if (awake(k)) code = read_prompt(k, options.interrupt);
  }
  name_roles(out.roles, Wake::chosen);
  if (code) return finish(interrupted(*code));

  const index_t most = std::min(options.max_tokens, limits_.tokens - out.prompt_tokens);
  for (index_t i = 0; i < most; ++i) {
    const auto log_p = next_token();
    const std::int32_t id = sampler_.sample(log_p, out.prompt_tokens + i, options.sampling);
    out.ids.push_back(id);
    out.log_probability += static_cast<double>(log_p(id));
    if (team_->ends(id) || std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
      return finish(Finish::end_token);
    }
    const std::string_view piece = stop_.push(stream_.push(id));
    if (!emit(piece)) return finish(Finish::caller);
    if (stop_.stopped()) return finish(Finish::stop_string);
    if (i + 1 == most) break;
    for (std::size_t k = 0; k < readers_.size(); ++k) {
      if (!awake(k)) continue;
      if (const auto late = readers_[k].read(b_, {&id, 1}, options.interrupt)) return finish(interrupted(*late));
    }
  }
  return finish(Finish::length);
}

template <Backend B>
const Score& Session<B>::score(std::string_view text, const Ask& ask) {
  const FpEnvironment environment;
  detail::refuse_blank(text);
  ids_.assign(team_->tokenizer().prefix().begin(), team_->tokenizer().prefix().end());
  team_->tokenizer().encode(text, text_scratch_, ids_);
  if (static_cast<index_t>(ids_.size()) > limits_.tokens) {
    throw Error(Code::limit_exceeded, "text", "at most " + std::to_string(limits_.tokens) + " tokens",
                std::to_string(ids_.size()));
  }
  if (ids_.size() < 2) throw Error(Code::invalid_argument, "text", "at least two tokens", std::to_string(ids_.size()));
  throw_if(weigh(ask.interrupt), "score");
  name_roles(score_.roles, ask.wake);
  score_.log_probability = 0;
  score_.tokens = static_cast<index_t>(ids_.size()) - 1;
  for (std::size_t k = 0; k < readers_.size(); ++k) {
    readers_[k].start();
    score_.roles[k].scores.assign(score_.roles[k].awake ? 1 : 0, 0.0);
  }
  const index_t chunk = std::min(Reader<B>::logit_rows, limits_.rows);
  for (index_t first = 0; first < score_.tokens; first += chunk) {
    throw_if(score_chunk(first, std::min(chunk, score_.tokens - first), ask.interrupt), "score");
  }
  return score_;
}

template <Backend B>
std::optional<Code> Session<B>::score_chunk(index_t first, index_t t, const Interrupt& interrupt) {
  const auto all = logits_.view();
  const auto read =
      std::span<const std::int32_t>(ids_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(t));
  for (std::size_t k = 0; k < readers_.size(); ++k) {
    if (!score_.roles[k].awake) continue;
    const auto logits = all.row(static_cast<index_t>(k)).rows(0, t);
    const auto code = readers_[k].read(
        b_, read, interrupt, [&](MatrixView<const float> hidden) { readers_[k].decoder().logits(b_, hidden, logits); });
    if (code) return code;
  }
  for (index_t i = 0; i < t; ++i) {
    const auto id = static_cast<std::size_t>(ids_[static_cast<std::size_t>(first + i + 1)]);
    const MatrixView<float> rows(all.data() + i * all.stride(1), {all.extent(0), all.extent(2)}, {all.stride(0), 1});
    for (std::size_t k = 0; k < readers_.size(); ++k) {
      if (!score_.roles[k].awake) continue;
      const auto row = std::span<const float>(rows.row(static_cast<index_t>(k)).span());
      score_.roles[k].scores[0] += static_cast<double>(row[id]) - log_sum_exp(row);
    }
    mix_next_token(team_->mix_in(), weights_, rows, rows.row(0).span());
    score_.log_probability += static_cast<double>(rows(0, id));
  }
  return std::nullopt;
}

}  // namespace finteam::inline FINTEAM_ABI
