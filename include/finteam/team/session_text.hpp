// How a session generates text and scores it. Include session.hpp.
#pragma once

#include <finteam/team/session.hpp>

#include <limits>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
VectorView<const float> Session<B>::next_token() {
  const auto all = logits_.view();
  const index_t n = all.extent(0), v = all.extent(2);
  for (std::size_t k = 0; k < readers_.size(); ++k) {
    if (awake(k)) readers_[k].logits(b_, all.row(static_cast<index_t>(k)).rows(0, 1));
  }
  const MatrixView<float> first_rows(all.data(), {n, v}, {all.stride(0), 1});
  mix_next_token(team_->mix_in(), weights_, first_rows, first_rows.row(0).span());
  for (const std::int32_t id : team_->absent_ids()) first_rows(0, id) = -std::numeric_limits<float>::infinity();
  return first_rows.row(0);
}

template <Backend B>
void Session<B>::begin_text(const GenerateOptions& options) {
  if (options.max_tokens < 1) {
    throw Error(Code::invalid_argument, "max_tokens", "at least 1", std::to_string(options.max_tokens));
  }
  options.sampling.validate();
  stream_.begin(options.stop);
  generation_.text.clear();
  generation_.ids.clear();
  generation_.log_probability = 0;
}

template <Backend B>
template <class OnText>
const Generation& Session<B>::generate(std::span<const Message> chat, OnText&& on_text,
                                       const GenerateOptions& options) {
  const FpEnvironment environment;
  begin_text(options);
  if (chat.empty()) throw Error(Code::invalid_argument, "chat", "at least one message", "none");
  detail::refuse_blank(chat.back().content);
  tokenize_chat(chat);
  return write(environment, on_text, options);
}

template <Backend B>
template <class OnText>
const Generation& Session<B>::complete(std::string_view text, OnText&& on_text, const GenerateOptions& options) {
  const FpEnvironment environment;
  begin_text(options);
  detail::refuse_blank(text);
  tokenize_text(text);
  require_room(1);
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

  const auto interrupted = read_awake(options.interrupt);
  name_roles(out.roles, Wake::chosen);
  std::optional<Finish> end;
  if (interrupted) end = *interrupted == Code::deadline ? Finish::deadline : Finish::cancelled;
  const index_t most = std::min(options.max_tokens, limits_.tokens - out.prompt_tokens);
  while (!end) {
    const std::int32_t id = sample(options.sampling);
    const bool last = static_cast<index_t>(out.ids.size()) == most;
    if (team_->ends(id) || std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
      end = Finish::end_token;
    } else if (!stream_.push(id, emit)) {
      end = Finish::caller;
    } else if (stream_.stopped()) {
      end = Finish::stop_string;
    } else if (last) {
      end = Finish::length;
    } else if (const auto code = append(id, options.interrupt)) {
      end = *code == Code::deadline ? Finish::deadline : Finish::cancelled;
    }
  }
  if (*end != Finish::caller) stream_.finish(emit);
  out.finish = stream_.stopped() ? Finish::stop_string : *end;
  return out;
}

template <Backend B>
std::optional<Code> Session<B>::read_awake(const Interrupt& interrupt) {
  auto code = weigh(interrupt);
  if (code) weights_.assign(weights_.size(), 0.0);
  for (std::size_t k = 0; k < readers_.size() && !code; ++k) {
    if (awake(k)) code = read_prompt(k, interrupt);
  }
  return code;
}

template <Backend B>
std::int32_t Session<B>::sample(const Sampling& sampling) {
  const auto log_p = next_token();
  const index_t position = generation_.prompt_tokens + static_cast<index_t>(generation_.ids.size());
  const double greatest = static_cast<double>(*std::max_element(log_p.data(), log_p.data() + log_p.size()));
  require_finite({&greatest, 1}, "the next token");
  const std::int32_t id = sampler_.sample(log_p, position, sampling);
  generation_.ids.push_back(id);
  generation_.log_probability += static_cast<double>(log_p(id));
  return id;
}

template <Backend B>
std::optional<Code> Session<B>::append(std::int32_t id, const Interrupt& interrupt) {
  for (std::size_t k = 0; k < readers_.size(); ++k) {
    if (!awake(k)) continue;
    if (const auto code = readers_[k].read(b_, {&id, 1}, interrupt)) return code;
  }
  return std::nullopt;
}

template <Backend B>
const Score& Session<B>::score(std::string_view text, const Ask& ask) {
  const FpEnvironment environment;
  detail::refuse_blank(text);
  tokenize_text(text);
  require_room(0);
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
  for (const RoleView& role : score_.roles) require_finite(role.scores, "role " + detail::printable(role.name));
  require_finite({&score_.log_probability, 1}, "score");
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
    const auto code = readers_[k].read(b_, read, interrupt,
                                       [&](MatrixView<const float> hidden) { readers_[k].logits(b_, hidden, logits); });
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
