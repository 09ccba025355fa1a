// A session: one thread's cache, scratch and sampler on a shared team. It answers: classify, score, generate.
// Its limits are given when it is made, and within them nothing is allocated.
#pragma once

#include <finteam/backend/fp_environment.hpp>
#include <finteam/mix/gate.hpp>
#include <finteam/team/draft_length.hpp>
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
        text_scratch_(team.tokenizer().scratch(static_cast<std::size_t>(limits_.text_bytes))),
        readers_(b_, team, limits_),
        logits_(
            b_.template tensor<float, 3>({readers_.count(), Reader<B>::logit_rows, team.vocab_size()}, limits_.memory)),
        sampler_(team.vocab_size()),
        stream_(team.tokenizer()) {
    reserve();
  }

  /// A team that would be gone before its session.
  Session(const Team<B>&&, const SessionLimits& = {}, B = {}) = delete;

  /// Which of the task's labels fits the text: a label's score in a role is the log-probability of its tokens and its
  /// end; softmax over the labels per role; the gate mixes the roles' distributions.
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

  /// The ids of a conversation, with the reply's header, into ids_. Throws for what the class comment says.
  void tokenize_chat(std::span<const Message> chat);
  /// The ids of a text as it stands, into ids_.
  void tokenize_text(std::string_view text);
  /// Throws Error(limit_exceeded) unless ids_ and `more` tokens fit.
  void require_room(index_t more) const;
  /// The gate reads ids_ and sets weights_, asked_ and answering_. Afterwards the role that it reads has read ids_.
  [[nodiscard]] std::optional<Code> weigh(Wake wake, const Interrupt& interrupt);
  /// Sets asked_ and answering_ by weights_.
  void choose_roles(Wake wake);
  /// Every role of asked_ reads what it has not read of ids_.
  [[nodiscard]] std::optional<Code> catch_up(const Interrupt& interrupt);
  /// Every role of asked_ reads ids_[first … first + t); adds log p of ids_[first + 1 … first + t] to score_. t ≤
  /// logit_rows.
  [[nodiscard]] std::optional<Code> score_chunk(index_t first, index_t t, const Interrupt& interrupt);

  /// Checks a generation's options and empties generation_.
  void begin_text(const GenerateOptions& options);
  /// Generates what follows ids_; on_text runs in the host's floating-point environment.
  template <class OnText>
  const Generation& write(const FpEnvironment& environment, OnText& on_text, const GenerateOptions& options);
  /// log p of the team's next token, of the answering roles' logits in row i of each. rows [count, v], destroyed.
  VectorView<float> mix(MatrixView<float> rows);
  /// The answering roles' logits after token i of those that were last read: [count, v].
  [[nodiscard]] MatrixView<float> logit_rows(index_t i) {
    const auto all = logits_.view();
    return {all.data() + i * all.stride(1), {all.extent(0), all.extent(2)}, {all.stride(0), 1}};
  }
  /// Guesses tokens after ids_, into draft_. The favourite, if it did, has then read them, its logits in order.
  [[nodiscard]] std::optional<Code> guess(const GenerateOptions& options);
  [[nodiscard]] std::optional<Code> write_ahead(index_t most, const GenerateOptions& options);
  void look_up(index_t most);
  /// Every answering role reads ids_ and draft_; logit_rows(i) are then those after the last of ids_ and i of draft_.
  [[nodiscard]] std::optional<Code> read_ahead(const Interrupt& interrupt);
  /// So many guesses were kept; what was read of the others is forgotten.
  void end_round(index_t kept);
  /// Chooses the next token from logit_rows(i) and adds it to generation_ and ids_.
  std::int32_t sample(index_t i, const Sampling& sampling);

  /// Of a merged team: what its routers made of ids_, of which the prompt is so long, and of labels; roles weigh as
  /// they did in the prompt.
  void see_routing(index_t prompt, Roles& roles, Routing& routing) const;
  void name_roles(Roles& roles, Wake wake) const {
    for (std::size_t k = 0; k < roles.size(); ++k) {
      roles[k].weight = weights_[k];
      roles[k].awake = weights_[k] > 0 || wake == Wake::all;
    }
  }
  /// What errors call a role, or the base.
  [[nodiscard]] std::string who(index_t role) const {
    return role < static_cast<index_t>(weights_.size())
               ? "role " + detail::printable(team_->roles()[static_cast<std::size_t>(role)].name)
               : std::string(team_->is_merged() ? "the model" : "the base");
  }
  /// Weights that overflow or hold NaN must not become an answer.
  static void require_finite(std::span<const double> x, const std::string& where) {
    for (const double v : x) {
      if (!std::isfinite(v)) throw Error(Code::malformed, where, "finite scores", std::to_string(v));
    }
  }
  static void throw_if(std::optional<Code> code, const char* during) {
    if (code) throw Error(*code, during, "time to finish", *code == Code::deadline ? "the deadline" : "a stop request");
  }

  const Team<B>* team_;
  SessionLimits limits_;
  B b_;
  Tokenizer::Scratch text_scratch_;
  RoleReaders<B> readers_;
  decltype(std::declval<B&>().template tensor<float, 3>({}, nullptr)) logits_;  // [roles and base, logit_rows, v]
  Sampler sampler_;
  TextStream stream_;
  std::vector<std::int32_t> ids_;
  LabelTokens labels_;
  std::vector<double> weights_;             // by role, after top-k; Σ = 1
  std::vector<float> route_;                // the same for the base's lane
  std::vector<index_t> asked_, answering_;  // roles that read (with the base, if it does); that the answer is mixed of
  std::vector<double> feature_;             // what the gate reads, [d]
  std::vector<double> label_probability_;   // [roles, labels]
  std::vector<double> base_scores_;         // by label: of the base's lane, if it answers
  std::vector<std::string> spare_labels_;   // strings that keep their capacity while a view has fewer labels
  std::string content_;
  View view_;
  Score score_;
  Generation generation_;
  std::vector<std::int32_t> draft_;
  DraftLength draft_length_;
  std::vector<float> absent_logits_;
};

}  // namespace finteam::inline FINTEAM_ABI

#include <finteam/team/session_classify.hpp>
#include <finteam/team/session_draft.hpp>
#include <finteam/team/session_reading.hpp>
#include <finteam/team/session_text.hpp>
