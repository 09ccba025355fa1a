// How a session generates text and scores it. Include session.hpp.
#pragma once

#include <finteam/team/session.hpp>

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
