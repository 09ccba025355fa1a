// How a session guesses tokens ahead and lets the team check them in one step (speculative decoding). A guess is kept
// if it is the token that the team chooses at that place with the noise of that place, so the text for a seed is the
// same as without. Include session.hpp. Source: Leviathan et al. 2023; Maddison et al. 2014 for the noise.
#pragma once

#include <finteam/team/session.hpp>

#include <algorithm>
#include <cmath>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
std::optional<Code> Session<B>::guess(const GenerateOptions& options) {
  draft_.clear();
  const auto unread = static_cast<index_t>(ids_.size()) - readers_.length(answering_.front());
  if (options.draft == Draft::none || by_token() || unread != 1)
    return std::nullopt;  // the prompt's own step is not shared
  const auto m = static_cast<index_t>(answering_.size());
  const auto left = std::min(limits_.tokens - static_cast<index_t>(ids_.size()),
                             options.max_tokens - static_cast<index_t>(generation_.ids.size()) - 1);
  const index_t fit = std::min(Reader<B>::logit_rows, limits_.rows / m) - 1, most = std::min(left, fit);
  if (options.draft == Draft::prompt) {
    look_up(draft_length_.best(most, {.check_each = 0.1}));
  } else if (m > 1 && readers_.apart(answering_)) {
    // the favourite takes a step for every guess and one more; the others check in a step each
    const double steps = static_cast<double>(m);
    const DraftCost cost{.each = 1, .check = steps, .check_each = 0.02 * (steps - 1)};
    if (const auto code = write_ahead(draft_length_.best(most, cost), options)) return code;
  }
  generation_.drafted += static_cast<index_t>(draft_.size());
  return std::nullopt;
}

template <Backend B>
std::optional<Code> Session<B>::write_ahead(index_t most, const GenerateOptions& options) {
  if (most < 1) return std::nullopt;
  const auto heavier = [&](index_t a, index_t b) {
    return weights_[static_cast<std::size_t>(a)] < weights_[static_cast<std::size_t>(b)];
  };
  const index_t favourite = *std::max_element(answering_.begin(), answering_.end(), heavier);
  for (index_t i = 0;; ++i) {
    if (const auto code = readers_.read(b_, {&favourite, 1}, ids_, options.interrupt)) return code;
    const bool on_device = chooses_on_device();
    readers_.logits(b_, {&favourite, 1}, on_device ? MatrixView<float>() : logit_rows(i), i);
    if (i == most) break;
    if (on_device) {
      constexpr double alone = 1;
      choose_on_device({&favourite, 1}, {&alone, 1}, i, 1, options.sampling);
      if (next_.front().id < 0) break;  // the team will say so
      draft_.push_back(next_.front().id);
    } else {
      const auto own = logit_rows(i).row(favourite);
      if (!std::isfinite(*std::max_element(own.data(), own.data() + own.size()))) break;  // the team will say so
      std::copy(own.data(), own.data() + own.size(), mixed_.begin());  // the mix needs the logits as they are
      log_softmax(mixed_);
      draft_.push_back(choose(options.sampling).id);
    }
    ids_.push_back(draft_.back());
  }
  ids_.resize(ids_.size() - draft_.size());
  return std::nullopt;
}

template <Backend B>
void Session<B>::look_up(index_t most) {
  const std::span<const std::int32_t> text(ids_);
  for (std::size_t n = std::min<std::size_t>(3, text.size() - 1); n > 0 && most > 0; --n) {
    const auto last = text.last(n);
    const auto before = text.first(text.size() - 1);
    const auto found = std::find_end(before.begin(), before.end(), last.begin(), last.end());
    if (found == before.end()) continue;
    const auto next = text.subspan(static_cast<std::size_t>(found - before.begin()) + n);
    draft_.assign(next.begin(), next.begin() + std::min(static_cast<std::ptrdiff_t>(next.size()), most));
    return;
  }
}

template <Backend B>
std::optional<Code> Session<B>::read_ahead(Wake wake, const Interrupt& interrupt, bool on_device) {
  if (draft_.empty()) {
    if (const auto code = by_token() ? follow(wake, interrupt) : catch_up(interrupt)) return code;
    readers_.logits(b_, asked_, on_device ? MatrixView<float>() : logit_rows(0));
    return std::nullopt;
  }
  ids_.insert(ids_.end(), draft_.begin(), draft_.end());
  const auto code =
      readers_.read_with_logits(b_, answering_, ids_, interrupt, on_device ? TensorView<float, 3>() : logits_.view());
  ids_.resize(ids_.size() - draft_.size());
  return code;
}

template <Backend B>
void Session<B>::end_round(index_t kept) {
  if (draft_.empty()) return draft_length_.rest();
  draft_length_.add(static_cast<index_t>(draft_.size()), kept);
  generation_.kept += kept;
  // the last token of ids_ is one that nobody guessed, or that ends the text
  for (const index_t role : answering_) readers_.truncate(b_, role, static_cast<index_t>(ids_.size()) - 1);
}

}  // namespace finteam::inline FINTEAM_ABI
