// How a session generates text and scores it. Include session.hpp.
#pragma once

#include <finteam/team/session.hpp>

#include <limits>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
void Session<B>::mix(MatrixView<float> rows) {
  const auto n = static_cast<index_t>(weights_.size());
  if (is_inside(team_->mix_in())) {
    const auto base = rows.row(n).span();
    std::copy(base.begin(), base.end(), mixed_.begin());
    log_softmax(mixed_);
  } else {
    mix_next_token(team_->mix_in(), weights_, rows.rows(0, n), mixed_);
  }
}

template <Backend B>
void Session<B>::begin_text(const GenerateOptions& options, TextPlace place) {
  if (options.max_tokens < 1) {
    throw Error(Code::invalid_argument, "max_tokens", "at least 1", std::to_string(options.max_tokens));
  }
  options.sampling.validate();
  stream_.begin(options.stop, place);
  generation_.text.clear();
  generation_.ids.clear();
  generation_.log_probability = 0;
  generation_.drafted = generation_.kept = 0;
  draft_length_ = {};
}

template <Backend B>
template <class OnText>
const Generation& Session<B>::generate(std::span<const Message> chat, OnText&& on_text,
                                       const GenerateOptions& options) {
  const FpEnvironment environment;
  // where nothing opens the answer's turn, it goes on with the text
  begin_text(options, team_->chat().end_id() ? TextPlace::start : TextPlace::inside);
  if (chat.empty()) throw Error(Code::invalid_argument, "chat", "at least one message", "none");
  detail::refuse_blank(chat.back().content);
  tokenize_chat(chat);
  return write(environment, on_text, options);
}

template <Backend B>
template <class OnText>
const Generation& Session<B>::complete(std::string_view text, OnText&& on_text, const GenerateOptions& options) {
  const FpEnvironment environment;
  begin_text(options, TextPlace::inside);
  detail::refuse_blank(text);
  tokenize_text(text);
  declare(1);
  return write(environment, on_text, options);
}

template <Backend B>
template <class OnText>
const Generation& Session<B>::write(const FpEnvironment& environment, OnText& on_text, const GenerateOptions& options) {
  Generation& out = generation_;
  out.prompt_tokens = static_cast<index_t>(ids_.size());
  const auto emit = [&](std::string_view piece) {  // false: the caller wants no more
    out.text.append(piece);
    if constexpr (std::is_void_v<decltype(on_text(piece))>) {
      environment.outside([&] { on_text(piece); });
      return true;
    } else {
      return environment.outside([&] { return static_cast<bool>(on_text(piece)); });
    }
  };

  const auto finish_of = [](Code code) { return code == Code::deadline ? Finish::deadline : Finish::cancelled; };
  const index_t most = std::min(options.max_tokens, limits_.tokens - out.prompt_tokens);
  declare(most);
  auto interrupted = weigh(Wake::chosen, options.interrupt);
  if (interrupted) weights_.assign(weights_.size(), 0.0);
  if (!interrupted) interrupted = catch_up(options.interrupt);
  name_roles(out.roles, Wake::chosen);
  std::optional<Finish> end;
  if (interrupted) end = finish_of(*interrupted);
  while (!end) {
    auto code = guess(options);
    if (!code) code = read_ahead(Wake::chosen, options.interrupt, chooses_on_device());
    if (code) end = finish_of(*code);
    index_t kept = 0;
    for (std::size_t i = 0; !end; ++i) {
      const std::int32_t id = sample(static_cast<index_t>(i), options.sampling);
      const bool stops = std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end();
      if (team_->ends(id) || stops) {
        end = Finish::end_token;
      } else if (!stream_.push(id, emit)) {
        end = Finish::caller;
      } else if (stream_.stopped()) {
        end = Finish::stop_string;
      } else if (static_cast<index_t>(out.ids.size()) == most) {
        end = Finish::length;
      }
      if (i == draft_.size() || id != draft_[i]) break;
      ++kept;
    }
    end_round(kept);
  }
  if (by_token() && !interrupted) name_mean_weights(out.roles, static_cast<index_t>(out.ids.size()), Wake::chosen);
  see_routing(out.prompt_tokens, out.roles, out.routing);
  if (*end != Finish::caller) stream_.finish(emit);
  out.finish = stream_.stopped() ? Finish::stop_string : *end;
  return out;
}

template <Backend B>
NextToken Session<B>::choose(const Sampling& sampling) {
  for (const std::int32_t id : team_->absent_ids()) {
    mixed_[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
  }
  const double greatest = static_cast<double>(*std::max_element(mixed_.begin(), mixed_.end()));
  require_finite({&greatest, 1}, "the next token");
  const std::int32_t id = sampler_.sample({mixed_.data(), {static_cast<index_t>(mixed_.size())}},
                                          static_cast<std::int64_t>(ids_.size()), sampling, ids_);
  return {id, mixed_[static_cast<std::size_t>(id)]};
}

template <Backend B>
void Session<B>::choose_on_device(std::span<const index_t> roles, std::span<const double> weights, index_t i,
                                  index_t rows, const Sampling& sampling) {
  if constexpr (ChoosesTokens<B>) {
    rows_of_.clear();
    for (index_t row = i; row < i + rows; ++row) {
      for (const index_t role : roles) rows_of_.push_back(readers_.next_logits(role, row));
    }
    next_.resize(static_cast<std::size_t>(rows));
    b_.next_tokens({.logits = rows_of_,
                    .weight = weights,
                    .mixes_logits = team_->mix_in() == MixIn::logits,
                    .absent = team_->absent_ids(),
                    .before = ids_,
                    .sampling = sampling},
                   next_);
  }
}

template <Backend B>
void Session<B>::choose_ahead(const Sampling& sampling) {
  weights_of_.clear();
  const bool inside = is_inside(team_->mix_in());
  for (const index_t k : answering_) weights_of_.push_back(inside ? 1.0 : weights_[static_cast<std::size_t>(k)]);
  ids_.insert(ids_.end(), draft_.begin(), draft_.end());
  choose_on_device(answering_, weights_of_, 0, static_cast<index_t>(draft_.size()) + 1, sampling);
  ids_.resize(ids_.size() - draft_.size());
}

template <Backend B>
std::int32_t Session<B>::sample(index_t i, const Sampling& sampling) {
  const bool on_device = chooses_on_device();
  const MatrixView<float> rows = logit_rows(i);
  if (on_device && i == 0) choose_ahead(sampling);
  if (!on_device) mix(rows);
  const NextToken next = on_device ? next_[static_cast<std::size_t>(i)] : choose(sampling);
  const double log_p = static_cast<double>(next.log_p);
  require_finite({&log_p, 1}, "the next token");
  if (by_token() && by_likelihood()) show_token(rows, next.id);
  generation_.ids.push_back(next.id);
  generation_.log_probability += log_p;
  ids_.push_back(next.id);
  return next.id;
}

template <Backend B>
const Score& Session<B>::score(std::string_view text, const Ask& ask) {
  const FpEnvironment environment;
  detail::refuse_blank(text);
  tokenize_text(text);
  declare(0);
  if (ids_.size() < 2) throw Error(Code::invalid_argument, "text", "at least two tokens", std::to_string(ids_.size()));
  score_.log_probability = 0;
  score_.tokens = static_cast<index_t>(ids_.size()) - 1;
  for (RoleView& role : score_.roles) role.scores.clear();
  if (by_token()) {
    throw_if(score_by_token(ask), "score");
  } else {
    throw_if(weigh(ask.wake, ask.interrupt), "score");
    name_roles(score_.roles, ask.wake);
    readers_.start(declared_, prompt_);
    const index_t chunk = score_rows();
    for (index_t first = 0; first < score_.tokens; first += chunk) {
      throw_if(score_chunk(first, std::min(chunk, score_.tokens - first), ask.interrupt), "score");
    }
  }
  for (std::size_t k = 0; k < score_.roles.size(); ++k) {
    require_finite_in(score_.roles[k].scores, [&] { return who(static_cast<index_t>(k)); });
  }
  require_finite({&score_.log_probability, 1}, "score");
  see_routing(static_cast<index_t>(ids_.size()), score_.roles, score_.routing);
  return score_;
}

template <Backend B>
std::optional<Code> Session<B>::read_with_logits(std::span<const index_t> roles, index_t tokens,
                                                 const Interrupt& interrupt) {
  const auto so_far = std::span<const std::int32_t>(ids_).first(static_cast<std::size_t>(tokens));
  return readers_.read_with_logits(b_, roles, so_far, interrupt, logits_.view());
}

template <Backend B>
std::optional<Code> Session<B>::score_chunk(index_t first, index_t t, const Interrupt& interrupt) {
  if (const auto code = read_with_logits(asked_, first + t, interrupt)) return code;
  for (index_t i = 0; i < t; ++i) add_score(logit_rows(i), ids_[static_cast<std::size_t>(first + i + 1)]);
  return std::nullopt;
}

template <Backend B>
std::optional<Code> Session<B>::score_by_token(const Ask& ask) {
  draft_.clear();
  forced_.assign(ids_.begin(), ids_.end());
  ids_.resize(1);
  if (const auto code = weigh(ask.wake, ask.interrupt)) return code;
  for (std::size_t i = 1; i < forced_.size(); ++i) {
    if (const auto code = read_ahead(ask.wake, ask.interrupt)) return code;
    const MatrixView<float> rows = logit_rows(0);
    add_score(rows, forced_[i]);
    if (by_likelihood()) show_token(rows, forced_[i]);  // as the mix has left them, as in sample()
    ids_.push_back(forced_[i]);
  }
  name_mean_weights(score_.roles, score_.tokens, ask.wake);
  if (ask.wake != Wake::all && !by_likelihood()) {
    for (RoleView& role : score_.roles) role.scores.clear();  // none of them read the whole text
  }
  return std::nullopt;
}

template <Backend B>
void Session<B>::add_score(MatrixView<float> rows, std::int32_t id) {
  for (const index_t k : asked_) {
    if (k == static_cast<index_t>(weights_.size())) continue;  // the base
    const auto row = std::span<const float>(rows.row(k).span());
    auto& sum = score_.roles[static_cast<std::size_t>(k)].scores;
    sum.resize(1);
    sum[0] += static_cast<double>(row[static_cast<std::size_t>(id)]) - log_sum_exp(row);
  }
  mix(rows);
  score_.log_probability += static_cast<double>(mixed_[static_cast<std::size_t>(id)]);
}

template <Backend B>
void Session<B>::name_mean_weights(Roles& roles, index_t tokens, Wake wake) const {
  for (std::size_t k = 0; k < roles.size(); ++k) {
    roles[k].weight = weight_sums_[k] / static_cast<double>(std::max<index_t>(tokens, 1));
    roles[k].awake = roles[k].weight > 0 || wake == Wake::all;
    roles[k].long_context = readers_.is_long(static_cast<index_t>(k));
  }
}

}  // namespace finteam::inline FINTEAM_ABI
