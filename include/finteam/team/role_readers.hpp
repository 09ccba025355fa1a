// All roles of a team at work: each on a decoder of its own, or on a lane of a shared one, where one step serves them
// all. Where roles share a base, the base can be read alone, too, or with the roles' differences summed: as one more.
// Not here: which roles read, and what becomes of it (session.hpp).
#pragma once

#include <finteam/team/reader.hpp>
#include <finteam/team/team.hpp>

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

template <Backend B>
class RoleReaders {
 public:
  RoleReaders(B& b, const Team<B>& team, const SessionLimits& limits) {
    for (const Model<B>& model : team.models()) readers_.emplace_back(b, model.decoder, team.lanes(), limits);
    for (const Role& role : team.roles()) places_.push_back({role.model, role.expert.value_or(0)});
    if (team.has_base_lane()) places_.push_back({0, team.lanes() - 1});
    for (std::size_t k = 0; k < team.roles().size(); ++k) {
      if (!team.roles()[k].expert) continue;
      std::vector<float> alone(team.roles().size(), 0.0F);
      alone[k] = 1;
      route(static_cast<index_t>(k), alone);
    }
    readings_.reserve(places_.size());
    lanes_.reserve(places_.size());
  }

  /// The roles, and the base where it can be read: the last.
  [[nodiscard]] index_t count() const noexcept { return static_cast<index_t>(places_.size()); }

  /// Every role forgets what it read; what it reads now is of up to so many tokens, the first `prompt` the prompt.
  void start(index_t tokens, index_t prompt) noexcept {
    for (Reader<B>& reader : readers_) reader.start(tokens, prompt);
  }
  /// Whether a role reads as in long sequences.
  [[nodiscard]] bool is_long(index_t role) const noexcept { return reader(role).is_long(); }
  /// One of them does.
  void forget(index_t role) noexcept { reader(role).forget(place(role).lane); }
  /// One of them forgets what it read beyond the first `tokens`.
  void truncate(B& b, index_t role, index_t tokens) { reader(role).truncate(b, place(role).lane, tokens); }
  /// What the decoder's experts count for a role (or the base) from now on, a weight for each.
  void route(index_t role, std::span<const float> weights) { reader(role).route(place(role).lane, weights); }

  /// Tokens that a role has read since start().
  [[nodiscard]] index_t length(index_t role) const noexcept { return reader(role).length(place(role).lane); }
  [[nodiscard]] const Decoder<B>& decoder(index_t role) const noexcept { return reader(role).decoder(); }
  /// What the routers of its decoder made of what it read.
  [[nodiscard]] const RoutingRecord& routing(B& b, index_t role) { return reader(role).routing(b); }

  /// Whether every one of those roles has a decoder of its own.
  [[nodiscard]] bool apart(std::span<const index_t> roles) const noexcept {
    for (std::size_t i = 1; i < roles.size(); ++i) {
      if (place(roles[i]).reader == place(roles[i - 1]).reader) return false;
    }
    return true;
  }

  /// Each of those roles (which rise) reads what it has not read of `tokens`. Returns the interrupt's code if it came;
  /// all must then start again.
  [[nodiscard]] std::optional<Code> read(B& b, std::span<const index_t> roles, std::span<const std::int32_t> tokens,
                                         const Interrupt& interrupt) {
    return read_on(roles, tokens, [&](Reader<B>& r, index_t) { return r.read(b, readings_, interrupt); });
  }
  /// The same, and each(states [t, d]) sees those of what one of them reads, after `layer` blocks if that is given.
  template <class Each>
  [[nodiscard]] std::optional<Code> read(B& b, std::span<const index_t> roles, std::span<const std::int32_t> tokens,
                                         const Interrupt& interrupt, index_t of, std::optional<index_t> layer,
                                         Each&& each) {
    return read_on(roles, tokens, [&](Reader<B>& r, index_t) {
      return &r == &reader(of) ? r.read(b, readings_, interrupt, {place(of).lane, layer}, each)
                               : r.read(b, readings_, interrupt);
    });
  }
  /// The same, and logits[role,i,:] are those of the token after the role's i-th that was new. What is new must fit one
  /// step of one kind of rows. logits [count(), logit_rows, v], overwritten where something was read; or nothing, and
  /// they stay where next_logits() is.
  [[nodiscard]] std::optional<Code> read_with_logits(B& b, std::span<const index_t> roles,
                                                     std::span<const std::int32_t> tokens, const Interrupt& interrupt,
                                                     TensorView<float, 3> logits) {
    return read_on(roles, tokens, [&](Reader<B>& r, index_t first_role) {
      return r.read_with_logits(b, readings_, interrupt, part(logits, first_role, r));
    });
  }

  /// As Reader::embeddings, for a role or, with none, for the base.
  template <class Each>
  void embeddings(B& b, std::optional<index_t> role, std::span<const std::int32_t> ids, Each&& each) {
    if (!role) return readers_.front().embeddings(b, {}, ids, each);
    reader(*role).embeddings(b, place(*role).lane, ids, each);
  }
  /// Whether two roles are lanes of one decoder.
  [[nodiscard]] bool together(index_t a, index_t b) const noexcept { return place(a).reader == place(b).reader; }

  /// logits[role,:] of the token after what each of those roles (which rise) has read. logits [count(), v], overwritten
  /// in those rows; or nothing, and they stay where next_logits(role, i) is.
  void logits(B& b, std::span<const index_t> roles, MatrixView<float> logits, index_t i = 0) {
    each_reader(roles, [&](std::size_t first_role, std::span<const index_t> some) {
      Reader<B>& r = reader(some.front());
      r.logits(b, lanes(some), part(logits, static_cast<index_t>(first_role), r), i);
    });
  }
  /// Where a device has row i of a role's logits until others are found, [v].
  [[nodiscard]] VectorView<const float, typename B::Space> next_logits(index_t role, index_t i) const noexcept {
    return reader(role).next_logits(place(role).lane, i);
  }

  /// As Reader::score, for those roles (which rise). logits [count(), logit_rows, v]: working memory.
  template <class Scores>
  [[nodiscard]] std::optional<Code> score(B& b, std::span<const index_t> roles, const LabelTokens& labels,
                                          const Interrupt& interrupt, TensorView<float, 3> logits, Scores&& scores) {
    std::optional<Code> code;
    each_reader(roles, [&](std::size_t first_role, std::span<const index_t> some) {
      if (code) return;
      Reader<B>& r = reader(some.front());
      const auto part = logits.rows(static_cast<index_t>(first_role), r.lanes());
      const MatrixView<float> rows(part.data(), {part.extent(0) * part.extent(1), part.extent(2)});
      code = r.score(b, lanes(some), labels, interrupt, rows,
                     [&](index_t lane) { return scores(static_cast<index_t>(first_role) + lane); });
    });
    return code;
  }

 private:
  struct Place {
    std::size_t reader = 0;
    index_t lane = 0;
  };

  /// The rows of a reader's lanes, if there are any.
  template <std::size_t Rank>
  [[nodiscard]] static TensorView<float, Rank> part(TensorView<float, Rank> x, index_t first_role,
                                                    const Reader<B>& r) noexcept {
    return x.size() == 0 ? x : x.rows(first_role, r.lanes());
  }

  [[nodiscard]] const Place& place(index_t role) const noexcept { return places_[static_cast<std::size_t>(role)]; }
  [[nodiscard]] Reader<B>& reader(index_t role) noexcept { return readers_[place(role).reader]; }
  [[nodiscard]] const Reader<B>& reader(index_t role) const noexcept { return readers_[place(role).reader]; }

  /// f(reader, the role of its lane 0) for each reader in turn, readings_ being what those of the roles that are its
  /// lanes are to have read.
  template <class F>
  [[nodiscard]] std::optional<Code> read_on(std::span<const index_t> roles, std::span<const std::int32_t> tokens,
                                            F&& f) {
    std::optional<Code> code;
    each_reader(roles, [&](std::size_t first_role, std::span<const index_t> some) {
      if (code) return;
      readings_.clear();
      for (const index_t role : some) readings_.push_back({place(role).lane, tokens});
      code = f(reader(some.front()), static_cast<index_t>(first_role));
    });
    return code;
  }

  /// f(the role of the reader's lane 0, the roles of one reader) for each reader in turn.
  template <class F>
  void each_reader(std::span<const index_t> roles, F&& f) {
    while (!roles.empty()) {
      const Place& first = place(roles.front());
      std::size_t n = 1;
      while (n < roles.size() && place(roles[n]).reader == first.reader) ++n;
      f(static_cast<std::size_t>(roles.front() - first.lane), roles.first(n));
      roles = roles.subspan(n);
    }
  }
  [[nodiscard]] std::span<const index_t> lanes(std::span<const index_t> roles) {
    lanes_.clear();
    for (const index_t role : roles) lanes_.push_back(place(role).lane);
    return lanes_;
  }

  std::vector<Reader<B>> readers_;
  std::vector<Place> places_;  // by role; the base last
  std::vector<Reading> readings_;
  std::vector<index_t> lanes_;
};

}  // namespace finteam::inline FINTEAM_ABI
