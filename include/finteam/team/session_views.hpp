// What a session shows of a text as numbers: states, logits, the mixed next token. Include session.hpp.
#pragma once

#include <finteam/team/session.hpp>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
template <class F>
std::optional<Code> Session<B>::alone(std::size_t of, F&& f) {
  const bool base = of == weights_.size(), lent = base && !team_->has_base_lane();
  const struct Return {  // the first role lends its lane to a base that has none
    Session* session;
    ~Return() {
      if (session == nullptr) return;
      auto& only_first = session->route_;
      std::fill(only_first.begin(), only_first.end(), 0.0F);
      only_first.front() = 1;
      session->readers_.route(0, only_first);
      session->readers_.start(session->declared_, session->prompt_);
    }
  } give_back{lent ? this : nullptr};
  const index_t lane = lent ? 0 : static_cast<index_t>(of);
  if (base) readers_.route(lane, {});
  readers_.start(declared_, prompt_);
  return f(lane);
}

template <Backend B>
VectorView<const float> Session<B>::embed(std::string_view text, const EmbedOptions& options) {
  const FpEnvironment environment;
  detail::refuse_blank(text);
  const std::size_t of = options.of.empty() ? 0 : team_->index_of(options.of);
  const bool base = of == weights_.size();
  const Config& config = readers_.decoder(base ? 0 : static_cast<index_t>(of)).config();
  if (options.layer && (*options.layer < 0 || *options.layer > config.layers)) {
    throw Error(Code::invalid_argument, "layer", "0 to " + std::to_string(config.layers),
                std::to_string(*options.layer));
  }
  if (options.form == PromptForm::chat) {
    const Message message{ChatRole::user, text};
    tokenize_chat({&message, 1});
  } else {
    tokenize_text(text);
    declare(0);
  }
  pool_.start(config.d);
  const auto see = [&](MatrixView<const float> states) { pool_.see(states, options.pooling == Pooling::mean); };
  if (options.layer == 0) {
    readers_.embeddings(b_, base ? std::nullopt : std::optional(static_cast<index_t>(of)), ids_, see);
  } else {
    throw_if(alone(of,
                   [&](index_t lane) {
                     return readers_.read(b_, {&lane, 1}, ids_, options.interrupt, lane, options.layer, see);
                   }),
             "embed");
  }
  pooled_.resize(static_cast<std::size_t>(config.d));
  pool_.read(pooled_);
  require_finite_in(pooled_, [&] { return who(static_cast<index_t>(of)); });
  embedding_.clear();
  for (const double x : pooled_) embedding_.push_back(static_cast<float>(x));
  return {embedding_.data(), {config.d}};
}

template <Backend B>
VectorView<const float> Session<B>::next_logits(std::string_view text, std::string_view role,
                                                const Interrupt& interrupt) {
  const FpEnvironment environment;
  detail::refuse_blank(text);
  const std::size_t of = team_->index_of(role);
  tokenize_text(text);
  declare(0);
  VectorView<const float> logits;
  throw_if(alone(of,
                 [&](index_t lane) {
                   const auto code = readers_.read(b_, {&lane, 1}, ids_, interrupt);
                   if (!code) readers_.logits(b_, {&lane, 1}, logit_rows(0));
                   logits = logit_rows(0).row(lane);
                   return code;
                 }),
           "next_logits");
  const double total = log_sum_exp(logits.span());
  require_finite_in({&total, 1}, [&] { return who(static_cast<index_t>(of)); });
  return logits;
}

template <Backend B>
VectorView<const float> Session<B>::next_log_probabilities(std::string_view text, const Ask& ask) {
  const FpEnvironment environment;
  detail::refuse_blank(text);
  tokenize_text(text);
  declare(0);
  draft_.clear();
  throw_if(weigh(ask.wake, ask.interrupt), "next_log_probabilities");
  throw_if(read_ahead(ask.wake, ask.interrupt), "next_log_probabilities");
  mix(logit_rows(0));
  const double greatest = static_cast<double>(*std::max_element(mixed_.begin(), mixed_.end()));
  require_finite({&greatest, 1}, "the next token");
  return {mixed_.data(), {static_cast<index_t>(mixed_.size())}};
}

}  // namespace finteam::inline FINTEAM_ABI
