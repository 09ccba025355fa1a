// A session: one thread's cache, scratch and sampler on a shared team. It answers: classify, score, generate.
// Its limits are given when it is made, and within them nothing is allocated.
#pragma once

#include <finteam/backend/fp_environment.hpp>
#include <finteam/backend/next_token.hpp>
#include <finteam/team/draft_length.hpp>
#include <finteam/team/embed_options.hpp>
#include <finteam/team/generation.hpp>
#include <finteam/team/role_readers.hpp>
#include <finteam/team/team.hpp>
#include <finteam/text/text_stream.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace finteam::inline FINTEAM_ABI {

/// A session belongs to one thread at a time; the team must outlive it. What a call returns is the session's own, and
/// good until its next call; copy it to keep it (`auto view = …` does).
///
/// Every call throws Error(invalid_argument) for an empty text, Error(malformed) for text that is not UTF-8, and
/// Error(limit_exceeded) for what exceeds the session's limits, Error(malformed) when a role's weights give no finite
/// score; the session can be used again afterwards.
template <Backend B>
class Session {
 public:
  /// Throws Error(invalid_argument) on limits that make no sense, std::bad_alloc when memory runs out.
  explicit Session(const Team<B>& team, const SessionLimits& limits = {}, B backend = {})
      : team_(&team),
        limits_(detail::checked(limits, team.context())),
        b_(std::move(backend)),
        text_scratch_(team.chat().scratch(team.tokenizer(), static_cast<std::size_t>(limits_.text_bytes))),
        readers_(b_, team, limits_),
        logits_({readers_.count(), Reader<B>::logit_rows, team.vocab_size()}, limits_.memory),
        mixed_(static_cast<std::size_t>(team.vocab_size())),
        gate_(team.gate() ? &*team.gate() : nullptr, static_cast<index_t>(team.roles().size()), team.widest_hidden()),
        sampler_(team.vocab_size()),
        stream_(team.tokenizer()),
        pool_(team.widest_hidden()) {
    reserve();
  }

  /// A team that would be gone before its session.
  Session(const Team<B>&&, const SessionLimits& = {}, B = {}) = delete;

  /// Which of the task's labels fits the text: a label's score in a role is the log-probability of its tokens and its
  /// end; softmax over the labels per role; the gate mixes the roles' distributions, and the task's calibration, if it
  /// has one, says what they are worth. Throws Error(invalid_argument) for a task or an Ask that makes no sense.
  const View& classify(const Task& task, std::string_view text, const Ask& ask = {}) {
    detail::check_task(task, "task");
    return classify_checked(task, text, ask);
  }
  /// The same, for a task that team.json describes. Throws Error(not_found) if it does not.
  const View& classify(std::string_view task, std::string_view text, const Ask& ask = {}) {
    return classify_checked(team_->task(task), text, ask);
  }

  /// How probable the text is, as it stands (no chat format), under what `generate` mixes. The gate reads the whole
  /// text, so a gated team's score ranks texts and roles; it is not a distribution over texts as one role's is.
  const Score& score(std::string_view text, const Ask& ask = {});

  /// Streams a reply to `prompt`: on_text(std::string_view) gets whole UTF-8 characters as they come, and may return
  /// false to end the text. Greedy unless options.sampling says otherwise; for a seed the text is always the same.
  template <class OnText>
  const Generation& generate(std::string_view prompt, OnText&& on_text, const GenerateOptions& options = {}) {
    const Message message{ChatRole::user, prompt};
    return generate(std::span<const Message>(&message, 1), on_text, options);
  }
  /// The same, in reply to a conversation.
  template <class OnText>
  const Generation& generate(std::span<const Message> chat, OnText&& on_text, const GenerateOptions& options = {});

  /// The same, but the text goes on as it stands, without a chat format: what a base model does, and what score()
  /// scores.
  template <class OnText>
  const Generation& complete(std::string_view text, OnText&& on_text, const GenerateOptions& options = {});

  /// The states of the text's tokens in a role, or in the base alone, as one [d]: what a linear gate reads, in float.
  /// Throws Error(not_found) for a role that is not there, Error(invalid_argument) for a layer that it has not.
  VectorView<const float> embed(std::string_view text, const EmbedOptions& options = {});

  /// Logits [v] of the token after the text as it stands, in a role, or in the base alone ("base"). Throws
  /// Error(not_found) for a role that is not there.
  VectorView<const float> next_logits(std::string_view text, std::string_view role, const Interrupt& interrupt = {});

  /// log p [v] of the token after the text as it stands, under what `generate` mixes: Σ exp = 1 over all v, those ids
  /// included that no token has.
  VectorView<const float> next_log_probabilities(std::string_view text, const Ask& ask = {});

  /// For a gate by performance: each role's loss at an outcome that is now known, such as -log p of the label that came
  /// true. Every role's, be it asleep or not. Throws Error(unsupported) for another gate, Error(invalid_argument) for
  /// losses that are not finite, or not one for each role.
  void report(std::span<const double> losses) { performance().observe(losses); }
  /// What was reported so far, as n numbers: restored, the same reports give the same weights, bit for bit.
  [[nodiscard]] std::span<const double> gate_state() { return performance().log_weights(); }
  /// Error(invalid_argument) for what gate_state() never was.
  void restore_gate(std::span<const double> state) { performance().restore(state); }

  /// The team that answers.
  [[nodiscard]] const Team<B>& team() const noexcept { return *team_; }
  /// The limits in force, the defaults filled in.
  [[nodiscard]] const SessionLimits& limits() const noexcept { return limits_; }

 private:
  void reserve();

  const View& classify_checked(const Task& task, std::string_view text, const Ask& ask);
  void tokenize_labels(const Task& task);
  void shape_view(const Task& task);
  /// p = softmax(scores + log prior); empty if scores are.
  static void distribution(const Task& task, std::span<const double> scores, std::vector<double>& p);
  void answer(const Task& task);
  /// Throws Error(invalid_argument) for thresholds that are NaN, or frequencies of labels that the task has no use for.
  static void check(const Ask& ask, const Task& task);
  /// The label, and what is to be known before it is acted on, of the mixture in view_.probabilities and
  /// label_probability_.
  void assess(const Task& task, const Ask& ask);

  /// The ids of a conversation, with the reply's header, into ids_. Throws for what the class comment says.
  void tokenize_chat(std::span<const Message> chat);
  /// The ids of a text as it stands, into ids_.
  void tokenize_text(std::string_view text);
  /// From now on sequences are of up to ids_, which are the prompt, and `more` tokens. Throws Error(limit_exceeded)
  /// unless they fit.
  void declare(index_t more);
  /// The gate reads ids_ and sets weights_, asked_ and answering_. Afterwards the roles that it reads have read ids_.
  [[nodiscard]] std::optional<Code> weigh(Wake wake, const Interrupt& interrupt);
  /// The gate sees what is new in ids_, the role whose states it reads having read it.
  [[nodiscard]] std::optional<Code> show_gate(const Interrupt& interrupt);
  /// Every role reads ids_, and the gate sees how likely it is to each.
  [[nodiscard]] std::optional<Code> show_likelihoods(const Interrupt& interrupt);
  /// The gate sees how likely a token is to each role. rows [count, v]: their logits of it.
  void show_token(MatrixView<const float> rows, std::int32_t id);
  /// A gate by token sees what is new in ids_ and weighs anew. Afterwards who answers has read ids_.
  [[nodiscard]] std::optional<Code> follow(Wake wake, const Interrupt& interrupt);
  /// Sets weights_ from what the gate has seen, asked_ and answering_. Error(malformed) if they are not finite.
  void choose_roles(Wake wake);
  [[nodiscard]] const GateSettings* settings() const noexcept {
    return team_->gate() ? &team_->gate()->settings : nullptr;
  }
  [[nodiscard]] RunningPerformance& performance() {
    if (settings() == nullptr || settings()->reads != GateReads::performance) {
      throw Error(Code::unsupported, "gate", "one that reads performance", "another");
    }
    return gate_.performance();
  }
  [[nodiscard]] bool by_token() const noexcept { return settings() != nullptr && settings()->per_token; }
  [[nodiscard]] bool by_likelihood() const noexcept {
    return settings() != nullptr && settings()->reads == GateReads::likelihood;
  }
  /// Every role of asked_ reads what it has not read of ids_.
  [[nodiscard]] std::optional<Code> catch_up(const Interrupt& interrupt);
  /// Tokens of every role that are read at once where each one's logits are wanted: they must fit one step.
  [[nodiscard]] index_t score_rows() const noexcept {
    return std::min(Reader<B>::logit_rows, std::max<index_t>(limits_.rows / readers_.count(), 1));
  }
  /// Those roles read on until the first `tokens` of ids_; logit_rows(i) are then those after the i-th that was new.
  [[nodiscard]] std::optional<Code> read_with_logits(std::span<const index_t> roles, index_t tokens,
                                                     const Interrupt& interrupt);
  /// Every role of asked_ reads ids_[first … first + t); adds log p of ids_[first + 1 … first + t] to score_. t ≤
  /// score_rows().
  [[nodiscard]] std::optional<Code> score_chunk(index_t first, index_t t, const Interrupt& interrupt);
  /// The same with a gate by token: a token at a time, as generate would.
  [[nodiscard]] std::optional<Code> score_by_token(const Ask& ask);
  /// Adds log p of a token, of the logits in rows [count, v], to score_.
  void add_score(MatrixView<float> rows, std::int32_t id);

  /// f(i): i stands for a role, or for the base alone, and has read nothing. Returns what f does.
  template <class F>
  [[nodiscard]] std::optional<Code> alone(std::size_t of, F&& f);

  /// Checks a generation's options and empties generation_.
  void begin_text(const GenerateOptions& options, TextPlace place);
  /// Generates what follows ids_; on_text runs in the host's floating-point environment.
  template <class OnText>
  const Generation& write(const FpEnvironment& environment, OnText& on_text, const GenerateOptions& options);
  /// log p of the team's next token into mixed_, of the answering roles' logits. rows [count, v], destroyed.
  void mix(MatrixView<float> rows);
  /// The answering roles' logits after token i of those that were last read: [count, v].
  [[nodiscard]] MatrixView<float> logit_rows(index_t i) {
    const auto all = logits_.view();
    return {all.data() + i * all.stride(1), {all.extent(0), all.extent(2)}, {all.stride(0), 1}};
  }
  /// Guesses tokens after ids_, into draft_. The favourite, if it did, has then read them, its logits in order.
  [[nodiscard]] std::optional<Code> guess(const GenerateOptions& options);
  [[nodiscard]] std::optional<Code> write_ahead(index_t most, const GenerateOptions& options);
  void look_up(index_t most);
  /// Every role of asked_ reads ids_, and those that answer draft_; logits are then those after the last of ids_ and i
  /// of draft_, at logit_rows(i), or where they are found.
  [[nodiscard]] std::optional<Code> read_ahead(Wake wake, const Interrupt& interrupt, bool on_device = false);
  /// So many guesses were kept; what was read of the others is forgotten.
  void end_round(index_t kept);
  /// The token after ids_, by log p in mixed_.
  [[nodiscard]] NextToken choose(const Sampling& sampling);
  /// Whether the backend chooses tokens itself: logits then stay with it, and nobody may want to see them.
  [[nodiscard]] bool chooses_on_device() const noexcept { return ChoosesTokens<B> && !(by_token() && by_likelihood()); }
  /// The same, by the backend: of each of `rows` rows of logits from the i-th on, mixed of those roles by their
  /// weights, the last of which follows ids_, into next_.
  void choose_on_device(std::span<const index_t> roles, std::span<const double> weights, index_t i, index_t rows,
                        const Sampling& sampling);
  /// The tokens after ids_ and each of draft_, into next_.
  void choose_ahead(const Sampling& sampling);
  /// Chooses the next token from the i-th row of logits and adds it to generation_ and ids_.
  std::int32_t sample(index_t i, const Sampling& sampling);

  /// The weights of an answer by a gate by token: their mean over its tokens.
  void name_mean_weights(Roles& roles, index_t tokens, Wake wake) const;
  /// Of a merged team: what its routers made of ids_, of which the prompt is so long, and of labels; roles weigh as
  /// they did in the prompt.
  void see_routing(index_t prompt, Roles& roles, Routing& routing);
  void name_roles(Roles& roles, Wake wake) const {
    for (std::size_t k = 0; k < roles.size(); ++k) {
      roles[k].weight = weights_[k];
      roles[k].awake = weights_[k] > 0 || wake == Wake::all;
      roles[k].long_context = readers_.is_long(static_cast<index_t>(k));
    }
  }
  /// What errors call a role, or the base.
  [[nodiscard]] std::string who(index_t role) const {
    return role < static_cast<index_t>(weights_.size())
               ? "role " + detail::printable(team_->roles()[static_cast<std::size_t>(role)].name)
               : std::string(team_->is_merged() ? "the model" : "the base");
  }
  /// Weights that overflow or hold NaN must not become an answer.
  static void require_finite(std::span<const double> x, const char* where) {
    require_finite_in(x, [where] { return std::string(where); });
  }
  /// where() names them; it is called for an error only, for names may be long.
  template <class Where>
  static void require_finite_in(std::span<const double> x, Where&& where) {
    for (const double v : x) {
      if (!std::isfinite(v)) throw Error(Code::malformed, where(), "finite scores", std::to_string(v));
    }
  }
  static void throw_if(std::optional<Code> code, const char* during) {
    if (code) throw Error(*code, during, "time to finish", *code == Code::deadline ? "the deadline" : "a stop request");
  }

  const Team<B>* team_;
  SessionLimits limits_;
  B b_;
  ChatFormat::Scratch text_scratch_;
  RoleReaders<B> readers_;
  Tensor<float, 3> logits_;   // [roles and base, logit_rows, v]
  std::vector<float> mixed_;  // log p of the next token, [v]
  RoleGate gate_;
  Sampler sampler_;
  TextStream stream_;
  std::vector<std::int32_t> ids_;
  LabelTokens labels_;
  std::vector<double> weights_;             // by role, after top-k; Σ = 1
  std::vector<float> route_;                // the same for the base's lane
  std::vector<index_t> asked_, answering_;  // roles that read (with the base, if it does); that the answer is mixed of
  std::vector<index_t> reading_, everyone_;
  std::vector<double> weight_sums_;        // of a gate by token: Σ over the tokens of an answer, by role
  index_t declared_ = 0;                   // tokens that a sequence may come to
  index_t prompt_ = 0;                     // of them, those that were given
  std::size_t shown_ = 0;                  // tokens of ids_ that the gate has seen
  std::vector<double> label_probability_;  // [roles, labels]
  std::vector<double> label_weights_;      // by role, Σ = 1: of its labels in the answer's
  std::vector<double> effect_scratch_;     // [2, labels]
  std::vector<RoleEffect> effects_;        // [roles]
  std::vector<double> base_scores_;        // by label: of the base's lane, if it answers
  std::vector<std::string> spare_labels_;  // strings that keep their capacity while a view has fewer labels
  std::string content_;
  View view_;
  Score score_;
  Generation generation_;
  std::vector<std::int32_t> draft_, forced_;
  std::vector<VectorView<const float, typename B::Space>> rows_of_;  // of logits, of each answering role
  std::vector<double> weights_of_;                                   // of those roles
  std::vector<NextToken> next_;                                      // after ids_, and after each of draft_
  DraftLength draft_length_;
  GateFeature pool_;
  std::vector<double> pooled_;    // [d]
  std::vector<float> embedding_;  // [d]
};

}  // namespace finteam::inline FINTEAM_ABI

#include <finteam/team/session_classify.hpp>
#include <finteam/team/session_draft.hpp>
#include <finteam/team/session_reading.hpp>
#include <finteam/team/session_risk.hpp>
#include <finteam/team/session_text.hpp>
#include <finteam/team/session_views.hpp>
