// One role at work: its decoder with the cache, scratch and hidden states of one session.
// Not here: the gate and the mix (session.hpp).
#pragma once

#include <finteam/expert/decoder.hpp>
#include <finteam/mix/mixture.hpp>
#include <finteam/team/limits.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Continuations of one prompt, laid end to end: label l is ids[begin[l] … begin[l + 1]), its end token last,
/// where there is one.
struct LabelTokens {
  std::vector<std::int32_t> ids;
  std::vector<index_t> begin;

  [[nodiscard]] index_t count() const noexcept { return static_cast<index_t>(begin.size()) - 1; }
  [[nodiscard]] std::span<const std::int32_t> label(index_t l) const noexcept {
    const auto first = begin[static_cast<std::size_t>(l)], last = begin[static_cast<std::size_t>(l) + 1];
    return std::span(ids).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
  }
};

/// One role's decoder with a cache, scratch and the hidden states of its last step; one thread at a time.
template <Backend B>
class Reader {
 public:
  /// Rows of logits that are taken at once: more would only cost memory.
  static constexpr index_t logit_rows = 8;

  /// What the cache of a role is made for.
  static CacheLimits cache_limits(const Config& c, const SessionLimits& limits) {
    const auto pages = [](index_t n) { return KvCache<B>::pages_for(n); };
    return {.layers = c.layers,
            .kv_heads = c.g,
            .head_dim = c.e,
            .sequences = limits.labels + 1,
            .tokens = limits.tokens,
            .pages = pages(limits.tokens) + 2 * limits.labels + pages(limits.rows),
            .format = limits.cache};
  }

  /// limits.tokens and limits.rows are at least 1 here.
  Reader(B& b, const Decoder<B>& decoder, const SessionLimits& limits)
      : decoder_(&decoder),
        cache_(b, cache_limits(decoder.config(), limits), limits.memory),
        scratch_(b, decoder.config(), limits.rows, limits.memory),
        hidden_(b.template tensor<float, 2>({limits.rows, decoder.config().d}, limits.memory)) {
    rows_.reserve(static_cast<std::size_t>(limits.rows));
    next_.reserve(static_cast<std::size_t>(limits.rows));
  }

  /// Forgets everything and begins an empty sequence.
  void start() {
    cache_.clear();
    sequence_ = cache_.open();
    last_ = 0;
  }

  /// Tokens read since start().
  [[nodiscard]] index_t length() const noexcept { return sequence_ < 0 ? 0 : cache_.length(sequence_); }

  /// Appends ids to the sequence, in steps of at most `rows` rows; each(hidden [t, d]) sees the states of every step.
  /// Returns the interrupt's code if it came; the sequence must then be started again.
  template <class Each>
  [[nodiscard]] std::optional<Code> read(B& b, std::span<const std::int32_t> ids, const Interrupt& interrupt,
                                         Each&& each) {
    const std::size_t chunk = static_cast<std::size_t>(scratch_.rows());
    for (std::size_t first = 0; first < ids.size(); first += chunk) {
      const auto part = ids.subspan(first, std::min(chunk, ids.size() - first));
      index_t position = length();
      cache_.extend(sequence_, position + static_cast<index_t>(part.size()));
      rows_.clear();
      for (const std::int32_t id : part) rows_.push_back({id, static_cast<std::int32_t>(position++), sequence_});
      if (const auto code = step(b, interrupt)) return code;
      last_ = static_cast<index_t>(part.size()) - 1;
      each(states());
    }
    return std::nullopt;
  }
  [[nodiscard]] std::optional<Code> read(B& b, std::span<const std::int32_t> ids, const Interrupt& interrupt) {
    return read(b, ids, interrupt, [](auto) {});
  }

  /// Logits of the token after everything that was read. logits [1, v], overwritten.
  void logits(B& b, MatrixView<float, typename B::Space> logits) {
    this->logits(b, hidden_.view().rows(last_, 1), logits);
  }
  /// Logits of the tokens after those whose states are given. hidden [t ≤ rows, d], logits [t, v], overwritten.
  void logits(B& b, MatrixView<const float, typename B::Space> hidden, MatrixView<float, typename B::Space> logits) {
    decoder_->logits(b, hidden, scratch_, logits);
  }

  /// scores[l] = Σ_j log p(label l's token j | what was read, its tokens before j), all labels in one step over one
  /// forked prefix. logits [≥ 1, v]: working memory. Σ label lengths - count ≤ rows. To be called right after read();
  /// the sequence stays as it was, but the states of its last row are gone.
  [[nodiscard]] std::optional<Code> score(B& b, const LabelTokens& labels, const Interrupt& interrupt,
                                          MatrixView<float, typename B::Space> logits, std::span<double> scores) {
    this->logits(b, logits.rows(0, 1));
    const auto first = std::span<const float>(logits.row(0).span());
    const double total = log_sum_exp(first);
    for (index_t l = 0; l < labels.count(); ++l) {
      scores[static_cast<std::size_t>(l)] =
          static_cast<double>(first[static_cast<std::size_t>(labels.label(l)[0])]) - total;
    }
    gather_label_rows(b, labels);
    if (rows_.empty()) return std::nullopt;  // labels of one token each, and no end token
    const auto code = step(b, interrupt);
    for (const Row& row : rows_) {
      if (cache_.is_open(row.sequence)) cache_.close(row.sequence);
    }
    if (code) return code;
    for (index_t r = 0; r < static_cast<index_t>(rows_.size()); r += logits.extent(0)) {
      const index_t t = std::min(logits.extent(0), static_cast<index_t>(rows_.size()) - r);
      this->logits(b, hidden_.view().rows(r, t), logits.rows(0, t));
      for (index_t i = 0; i < t; ++i) {
        const auto row = std::span<const float>(logits.row(i).span());
        const Next next = next_[static_cast<std::size_t>(r + i)];
        scores[static_cast<std::size_t>(next.label)] +=
            static_cast<double>(row[static_cast<std::size_t>(next.token)]) - log_sum_exp(row);
      }
    }
    return std::nullopt;
  }

  [[nodiscard]] const Decoder<B>& decoder() const noexcept { return *decoder_; }

 private:
  struct Next {
    index_t label;
    std::int32_t token;
  };

  /// One row for each token of each label but its last, each label on its own fork.
  void gather_label_rows(B& b, const LabelTokens& labels) {
    rows_.clear();
    next_.clear();
    for (index_t l = 0; l < labels.count(); ++l) {
      const auto ids = labels.label(l);
      if (ids.size() < 2) continue;
      const std::int32_t fork = cache_.fork(b, sequence_);
      const index_t n = length();
      cache_.extend(fork, n + static_cast<index_t>(ids.size()) - 1);
      for (std::size_t j = 0; j + 1 < ids.size(); ++j) {
        rows_.push_back({ids[j], static_cast<std::int32_t>(n) + static_cast<std::int32_t>(j), fork});
        next_.push_back({l, ids[j + 1]});
      }
    }
  }

  [[nodiscard]] std::optional<Code> step(B& b, const Interrupt& interrupt) {
    return decoder_->forward(b, cache_, rows_, scratch_, states(), interrupt);
  }
  [[nodiscard]] auto states() noexcept { return hidden_.view().rows(0, static_cast<index_t>(rows_.size())); }

  const Decoder<B>* decoder_;
  KvCache<B> cache_;
  StepScratch<B> scratch_;
  decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr)) hidden_;  // of the last step's rows, [rows, d]
  std::vector<Row> rows_;
  std::vector<Next> next_;
  std::int32_t sequence_ = -1;
  index_t last_ = 0;  // the row of hidden_ that the next token follows
};

}  // namespace finteam::inline FINTEAM_ABI
