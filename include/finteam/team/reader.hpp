// A decoder at work: its cache, scratch and hidden states in one session, on one or more lanes. A lane is a sequence of
// its own, read with the decoder's experts at weights of its own; what several lanes read goes in one step. What it
// shows of states and logits lies in host memory, wherever the backend works.
// Not here: roles, the gate and the mix (role_readers.hpp, session.hpp).
#pragma once

#include <finteam/backend/next_token.hpp>
#include <finteam/expert/decoder.hpp>
#include <finteam/mix/mixture.hpp>
#include <finteam/team/limits.hpp>
#include <finteam/team/routing_record.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>
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
  /// Rows that scoring takes in a lane: every token but each label's last.
  [[nodiscard]] index_t rows() const noexcept { return static_cast<index_t>(ids.size()) - count(); }
};

/// The text that a lane is to have read, from its beginning: what it has read of it is not read again.
struct Reading {
  index_t lane = 0;
  std::span<const std::int32_t> ids;
};

/// The lane whose states are looked at while lanes read: after the final norm, or after so many blocks.
struct Look {
  index_t lane = 0;
  std::optional<index_t> layer{};
};

/// A decoder with a cache, scratch and the hidden states of its last step; one thread at a time.
template <Backend B>
class Reader {
 public:
  /// Rows of logits that are taken at once for a lane: more would only cost memory.
  static constexpr index_t logit_rows = 8;

  /// What the cache of a decoder is made for.
  static CacheLimits cache_limits(const Config& c, index_t lanes, const SessionLimits& limits) {
    const auto pages = [](index_t n) { return KvCache<B>::pages_for(n); };
    return {.layers = c.layers,
            .kv_heads = c.g,
            .head_dim = c.e,
            .sequences = lanes * (limits.labels + 1),
            .tokens = limits.tokens,
            .pages = lanes * (pages(limits.tokens) + 2 * limits.labels + pages(limits.rows)),
            .format = limits.cache};
  }

  /// Most rows of a step: the limit's, and at least one for each lane.
  [[nodiscard]] static index_t step_rows(index_t lanes, const SessionLimits& limits) noexcept {
    return std::max(limits.rows, lanes);
  }

  /// limits.tokens, limits.rows and lanes are at least 1 here.
  Reader(B& b, const Decoder<B>& decoder, index_t lanes, const SessionLimits& limits)
      : decoder_(&decoder),
        cache_(b, cache_limits(decoder.config(), lanes, limits), limits.memory),
        scratch_(b, decoder.config(), step_rows(lanes, limits), limits.memory, decoder.deltas()),
        hidden_(b.template tensor<float, 2>({scratch_.rows(), decoder.config().d}, limits.memory)),
        tapped_(b.template tensor<float, 2>({scratch_.rows(), decoder.config().d}, limits.memory)),
        states_(b.template tensor<float, 2>({lanes, decoder.config().d}, limits.memory)),
        logits_(
            b.template tensor<float, 3>({is_on_host<B> ? 0 : lanes, logit_rows, decoder.config().v}, limits.memory)),
        looked_at_(host_room<B>(scratch_.rows(), decoder.config().d, limits.memory)),
        routing_(decoder.config(), limits.tokens, limits.memory),
        lanes_(static_cast<std::size_t>(lanes)) {
    const auto rows = static_cast<std::size_t>(scratch_.rows());
    rows_.reserve(rows);
    unrecorded_.reserve(decoder.config().is_routed() ? rows : 0);
    next_.reserve(rows);
    const auto foretold = std::max(rows, lanes_.size() * static_cast<std::size_t>(limits.labels));
    foretold_.reserve(foretold);
    log_p_.reserve(foretold);
    pieces_.reserve(std::max(rows, lanes_.size()));
    chosen_.reserve(lanes_.size());
    routes_.reserve(std::max(rows, lanes_.size()));
    for (Lane& lane : lanes_) lane.route.reserve(static_cast<std::size_t>(decoder.deltas().experts));
  }

  [[nodiscard]] const Decoder<B>& decoder() const noexcept { return *decoder_; }
  [[nodiscard]] index_t lanes() const noexcept { return static_cast<index_t>(lanes_.size()); }
  /// What the decoder's routers made of what was read since start(), labels beside it.
  [[nodiscard]] const RoutingRecord& routing(B& b) {
    record(b);
    return routing_;
  }

  /// What the decoder's experts count in a lane, one weight for each, or empty: the base alone. To be set before the
  /// lane reads; what it has read stays as it was.
  void route(index_t lane, std::span<const float> weights) { at(lane).route.assign(weights.begin(), weights.end()); }

  /// Every lane forgets what it read. Sequences are opened as lanes read, of up to so many tokens: that, and not how
  /// many they are in the end, fixes their rope; the first `prompt` of them are the prompt.
  void start(index_t tokens, index_t prompt) noexcept {
    is_long_ = decoder_->config().rope.is_long(tokens);
    prompt_ = prompt;
    cache_.clear();
    unrecorded_.clear();
    routing_.start();
    for (Lane& lane : lanes_) lane.sequence = none;
  }

  [[nodiscard]] bool is_long() const noexcept { return is_long_; }

  /// One lane forgets what it read.
  void forget(index_t lane) noexcept {
    if (at(lane).sequence != none) cache_.close(std::exchange(at(lane).sequence, none));
    unrecorded_.clear();
    routing_.start();
  }

  /// A lane forgets what it read beyond its first `tokens`; its state is then nobody's until it reads again.
  void truncate(B& b, index_t lane, index_t tokens) {
    if (length(lane) > tokens) cache_.truncate(b, at(lane).sequence, tokens);
    record(b);
    routing_.truncate(tokens);
  }

  /// Tokens that a lane has read since start().
  [[nodiscard]] index_t length(index_t lane) const noexcept {
    return at(lane).sequence == none ? 0 : cache_.length(at(lane).sequence);
  }

  /// Each lane reads on, in steps of at most `rows` rows that lanes share. Returns the interrupt's code if it came; all
  /// must then start again.
  [[nodiscard]] std::optional<Code> read(B& b, std::span<const Reading> readings, const Interrupt& interrupt) {
    layer_.reset();
    return read_pieces(b, readings, interrupt, [](const Piece&) {});
  }
  /// The same, and each(states [t, d]) sees those of one lane, of every step.
  template <class Each>
  [[nodiscard]] std::optional<Code> read(B& b, std::span<const Reading> readings, const Interrupt& interrupt,
                                         const Look& look, Each&& each) {
    layer_ = look.layer && *look.layer < decoder_->config().layers ? look.layer : std::nullopt;
    return read_pieces(b, readings, interrupt, [&](const Piece& piece) {
      if (piece.lane != look.lane) return;
      const auto states = (layer_ ? tapped_ : hidden_).view().rows(piece.first, piece.count);
      each(on_host<B>(b, states, looked_at_.view()));
    });
  }
  /// The same, and logits[lane,i,:] are those of the token after the lane's i-th that was new. What is new must fit one
  /// step of one kind of rows. logits [lanes(), logit_rows, v], overwritten where something was read; or nothing, and
  /// they stay where next_logits() is.
  [[nodiscard]] std::optional<Code> read_with_logits(B& b, std::span<const Reading> readings,
                                                     const Interrupt& interrupt, TensorView<float, 3> logits) {
    layer_.reset();
    return read_pieces(b, readings, interrupt, [&](const Piece& piece) {
      routes_.assign(static_cast<std::size_t>(piece.count), route_of(piece.lane));
      const auto hidden = hidden_.view().rows(piece.first, piece.count);
      const auto to = logits.size() == 0 ? MatrixView<float>() : logits.row(piece.lane).rows(0, piece.count);
      find_logits(b, hidden, to, is_on_host<B> ? SpaceView() : logits_.view().row(piece.lane).rows(0, piece.count));
    });
  }

  /// each(embeddings [t, d]) sees the input embeddings of the ids, in pieces, as they are read in a lane, or, for
  /// none, as the base has them; nothing is read.
  template <class Each>
  void embeddings(B& b, std::optional<index_t> lane, std::span<const std::int32_t> ids, Each&& each) {
    while (!ids.empty()) {
      const auto part = ids.first(std::min(ids.size(), static_cast<std::size_t>(scratch_.rows())));
      rows_.clear();
      for (const std::int32_t id : part) rows_.push_back({.token = id, .route = lane ? route_of(*lane) : nullptr});
      const auto y = tapped_.view().rows(0, static_cast<index_t>(part.size()));
      decoder_->embeddings(b, rows_, scratch_, y);
      each(on_host<B>(b, y, looked_at_.view()));
      ids = ids.subspan(part.size());
    }
    rows_.clear();
  }

  /// logits[lane,:] of the token after everything that each of those lanes has read, which is something. Lanes rise.
  /// logits [lanes(), v], overwritten in those rows; or nothing, and they stay where next_logits(lane, i) is.
  void logits(B& b, std::span<const index_t> lanes, MatrixView<float> logits, index_t i = 0) {
    chosen_.clear();
    routes_.assign(lanes_.size(), nullptr);
    for (const index_t lane : lanes) {
      chosen_.push_back(static_cast<std::int32_t>(lane));
      routes_[static_cast<std::size_t>(lane)] = route_of(lane);
    }
    find_logits(b, states_.view(), logits, is_on_host<B> ? SpaceView() : each_lane(i), chosen_);
  }

  /// Where a device has row i of a lane's logits until others are found, [v].
  [[nodiscard]] VectorView<const float, typename B::Space> next_logits(index_t lane, index_t i) const noexcept {
    return logits_.view().row(lane).row(i);
  }

  /// scores(lane)[l] = Σ_j log p(label l's token j | what the lane read, its tokens before j), over forks of what was
  /// read, which stays as it was; as many lanes in a step as fit. logits [lanes() · logit_rows, v]: working memory.
  /// labels.rows() ≤ rows. Lanes rise.
  template <class Scores>
  [[nodiscard]] std::optional<Code> score(B& b, std::span<const index_t> lanes, const LabelTokens& labels,
                                          const Interrupt& interrupt, MatrixView<float> logits, Scores&& scores) {
    layer_.reset();
    const auto here = logits.rows(0, ChoosesTokens<B> ? 0 : this->lanes());
    this->logits(b, lanes, here);
    foretold_.clear();
    for (const index_t lane : lanes) {
      for (index_t l = 0; l < labels.count(); ++l) {
        foretold_.push_back({static_cast<std::int32_t>(lane), labels.label(l)[0]});
      }
    }
    find_log_p(b, here, each_lane(0));
    const double* log_p = log_p_.data();
    for (const index_t lane : lanes) {
      for (index_t l = 0; l < labels.count(); ++l) scores(lane)[static_cast<std::size_t>(l)] = *log_p++;
    }
    if (labels.rows() == 0) return std::nullopt;  // labels of one token each, and no end token
    const auto fit = static_cast<std::size_t>(std::max<index_t>(scratch_.rows() / labels.rows(), 1));
    for (std::size_t first = 0; first < lanes.size(); first += fit) {
      const auto some = lanes.subspan(first, std::min(fit, lanes.size() - first));
      if (const auto code = score_rest(b, some, labels, interrupt, logits, scores)) return code;
    }
    return std::nullopt;
  }

 private:
  static constexpr std::int32_t none = -1;

  struct Lane {
    std::int32_t sequence = none;
    std::vector<float> route{};  // by expert, or empty
  };
  /// Rows of a step that belong to one lane.
  struct Piece {
    index_t lane, first, count;
  };
  /// The token that a row of label tokens must foretell.
  struct Next {
    index_t lane, label;
    std::int32_t token;
  };

  [[nodiscard]] Lane& at(index_t lane) noexcept { return lanes_[static_cast<std::size_t>(lane)]; }
  [[nodiscard]] const Lane& at(index_t lane) const noexcept { return lanes_[static_cast<std::size_t>(lane)]; }
  [[nodiscard]] const float* route_of(index_t lane) const noexcept {
    return at(lane).route.empty() ? nullptr : at(lane).route.data();
  }

  /// Rows for ids at the end of a lane.
  void add(index_t lane, std::span<const std::int32_t> ids) {
    if (at(lane).sequence == none) at(lane).sequence = cache_.open(is_long_);
    const std::int32_t sequence = at(lane).sequence;
    auto position = static_cast<std::int32_t>(cache_.length(sequence));
    cache_.extend(sequence, position + static_cast<index_t>(ids.size()));
    pieces_.push_back({lane, static_cast<index_t>(rows_.size()), static_cast<index_t>(ids.size())});
    for (const std::int32_t id : ids) rows_.push_back({id, position++, sequence, route_of(lane)});
  }

  /// Each lane reads on: prompts first, for a step's rows are of one kind. each(piece) follows each step.
  template <class Each>
  [[nodiscard]] std::optional<Code> read_pieces(B& b, std::span<const Reading> readings, const Interrupt& interrupt,
                                                Each&& each) {
    rows_.clear();
    pieces_.clear();
    for (const RowKind kind : {RowKind::prompt, RowKind::generated}) {
      for (const auto& [lane, text] : readings) {
        const auto prompt = std::min(text.size(), static_cast<std::size_t>(prompt_));
        const auto ids = kind == RowKind::prompt ? text.first(prompt) : text;
        while (length(lane) < static_cast<index_t>(ids.size())) {
          const auto unread = ids.subspan(static_cast<std::size_t>(length(lane)));
          const auto room = static_cast<std::size_t>(scratch_.rows()) - rows_.size();
          add(lane, unread.first(std::min(room, unread.size())));
          if (static_cast<index_t>(rows_.size()) < scratch_.rows()) continue;
          if (const auto code = flush(b, kind, interrupt, each)) return code;
        }
      }
      if (rows_.empty()) continue;
      if (const auto code = flush(b, kind, interrupt, each)) return code;
    }
    return std::nullopt;
  }

  /// Runs the step that add() gathered.
  template <class Each>
  [[nodiscard]] std::optional<Code> flush(B& b, RowKind kind, const Interrupt& interrupt, Each&& each) {
    if (const auto code = step(b, kind, interrupt)) return code;
    if (decoder_->config().is_routed()) unrecorded_.assign(rows_.begin(), rows_.end());
    for (const Piece& piece : pieces_) {
      b.copy(hidden_.view().rows(piece.first + piece.count - 1, 1), states_.view().rows(piece.lane, 1));
      each(piece);
    }
    rows_.clear();
    pieces_.clear();
    return std::nullopt;
  }

  template <class Scores>
  [[nodiscard]] std::optional<Code> score_rest(B& b, std::span<const index_t> lanes, const LabelTokens& labels,
                                               const Interrupt& interrupt, MatrixView<float> logits, Scores&& scores) {
    gather_label_rows(b, lanes, labels);
    const auto code = step(b, RowKind::generated, interrupt);
    for (const Row& row : rows_) {
      if (cache_.is_open(row.sequence)) cache_.close(row.sequence);
    }
    const auto t = static_cast<index_t>(rows_.size());
    for (index_t first = 0; first < t && !code; first += logits.extent(0)) {
      const index_t count = std::min(logits.extent(0), t - first);
      routes_.clear();
      foretold_.clear();
      for (index_t i = first; i < first + count; ++i) {
        routes_.push_back(rows_[static_cast<std::size_t>(i)].route);
        foretold_.push_back({static_cast<std::int32_t>(i - first), next_[static_cast<std::size_t>(i)].token});
      }
      const auto here = logits.rows(0, ChoosesTokens<B> ? 0 : count);
      find_logits(b, hidden_.view().rows(first, count), here, all_rows(count));
      find_log_p(b, here, all_rows(count));
      for (index_t i = 0; i < count; ++i) {
        const Next& next = next_[static_cast<std::size_t>(first + i)];
        scores(next.lane)[static_cast<std::size_t>(next.label)] += log_p_[static_cast<std::size_t>(i)];
      }
    }
    if (!code) routing_.add_beside(rows_, scratch_.routing(b));
    rows_.clear();
    return code;
  }

  /// One row for each token of each label but its last, each label of each lane on its own fork.
  void gather_label_rows(B& b, std::span<const index_t> lanes, const LabelTokens& labels) {
    rows_.clear();
    next_.clear();
    for (const index_t lane : lanes) {
      const auto n = static_cast<std::int32_t>(length(lane));
      for (index_t l = 0; l < labels.count(); ++l) {
        const auto ids = labels.label(l);
        if (ids.size() < 2) continue;
        const std::int32_t fork = cache_.fork(b, at(lane).sequence);
        cache_.extend(fork, n + static_cast<index_t>(ids.size()) - 1);
        for (std::size_t j = 0; j + 1 < ids.size(); ++j) {
          rows_.push_back({ids[j], n + static_cast<std::int32_t>(j), fork, route_of(lane)});
          next_.push_back({lane, l, ids[j + 1]});
        }
      }
    }
  }

  /// Records what routers made of the last step's rows. As late as can be: a device that chose has to be waited for.
  void record(B& b) {
    if (unrecorded_.empty()) return;
    routing_.add(unrecorded_, scratch_.routing(b));
    unrecorded_.clear();
  }

  [[nodiscard]] std::optional<Code> step(B& b, RowKind kind, const Interrupt& interrupt) {
    record(b);
    const auto t = static_cast<index_t>(rows_.size());
    std::optional<Tap<typename B::Space>> tap;
    if (layer_) tap = {*layer_, tapped_.view().rows(0, t)};
    return decoder_->forward(b, cache_, rows_, scratch_, hidden_.view().rows(0, t), interrupt, tap, kind);
  }

  using SpaceView = MatrixView<float, typename B::Space>;
  /// Row i of every lane's logits, and the first rows of all of them, where a device has them.
  [[nodiscard]] SpaceView each_lane(index_t i) noexcept {
    const auto all = logits_.view();
    return {all.data() + i * all.stride(1), {all.extent(0), all.extent(2)}, {all.stride(0), 1}};
  }
  [[nodiscard]] SpaceView all_rows(index_t count) noexcept {
    return {logits_.view().data(), {is_on_host<B> ? 0 : count, logits_.view().extent(2)}};
  }

  /// logits[t,:] of the states hidden[t,:], whose routes are in routes_, first in on_device, where the backend is one;
  /// only: of those rows, or of all.
  void find_logits(B& b, MatrixView<const float, typename B::Space> hidden, MatrixView<float> logits,
                   SpaceView on_device, std::span<const std::int32_t> only = {}) {
    if constexpr (is_on_host<B>) {
      decoder_->logits(b, hidden, scratch_, logits, routes_, only);
    } else {
      decoder_->logits(b, hidden, scratch_, on_device, routes_, only);
      if (logits.size() == 0) return;
      if (only.empty()) b.to_host(on_device, logits);
      for (const std::int32_t row : only) b.to_host(on_device.rows(row, 1), logits.rows(row, 1));
    }
  }

  /// log_p_[i] of foretold_[i], by the logits that were found last: here, or where a device has them.
  void find_log_p(B& b, MatrixView<const float> here, SpaceView there) {
    log_p_.resize(foretold_.size());
    if constexpr (ChoosesTokens<B>) {
      b.log_p(there, foretold_, log_p_);
    } else {
      double total = 0;
      for (std::size_t i = 0; i < foretold_.size(); ++i) {
        const auto [row, id] = foretold_[i];
        if (i == 0 || row != foretold_[i - 1].row) total = log_sum_exp(here.row(row).span());
        log_p_[i] = static_cast<double>(here(row, id)) - total;
      }
    }
  }

  using States = decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr));
  using Logits = decltype(std::declval<B&>().template tensor<float, 3>({}, nullptr));

  const Decoder<B>* decoder_;
  KvCache<B> cache_;
  bool is_long_ = false;  // sequences, by their declared length (RopeType::longrope)
  index_t prompt_ = 0;    // positions of every sequence that are the prompt's
  StepScratch<B> scratch_;
  States hidden_;               // of the last step's rows, [rows, d]
  States tapped_;               // the same rows after layer_ blocks
  States states_;               // of the last token of each lane, [lanes, d]
  Logits logits_;               // [lanes, logit_rows, v], where the CPU cannot read them
  Tensor<float, 2> looked_at_;  // states where it can, [rows, d]
  std::optional<index_t> layer_;
  RoutingRecord routing_;
  std::vector<Lane> lanes_;
  std::vector<Row> rows_;
  std::vector<Row> unrecorded_;  // of the last step, whose routing the scratch still has
  std::vector<Piece> pieces_;
  std::vector<Next> next_;
  std::vector<Foretold> foretold_;
  std::vector<double> log_p_;
  std::vector<std::int32_t> chosen_;
  std::vector<const float*> routes_;
};

}  // namespace finteam::inline FINTEAM_ABI
