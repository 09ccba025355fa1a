// A team of role experts: decoders, tokenizer, chat format, gate and tasks, opened from a folder. Immutable.
// Not here: anything that changes while it answers (session.hpp).
#pragma once

#include <finteam/backend/cpu.hpp>
#include <finteam/expert/decoder.hpp>
#include <finteam/team/role_gate.hpp>
#include <finteam/team/team_files.hpp>
#include <finteam/team/team_tokenizer.hpp>
#include <finteam/text/chat.hpp>
#include <finteam/text/tokenizer.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A decoder, and the files it borrows from, if its backend does.
template <Backend B>
struct Model {
  Checkpoint checkpoint;  ///< mapped; a backend that packs its weights does not touch it again
  Decoder<B> decoder;
};

/// A role: a model of its own, or an expert on one that roles share.
struct Role {
  std::string name;
  std::size_t model = 0;
  std::optional<index_t> expert{};
};

namespace detail {

/// Throws Error(invalid_argument) for a text of nothing but ASCII white space.
inline void refuse_blank(std::string_view text) {
  if (text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos) {
    throw Error(Code::invalid_argument, "text", "some text", text.empty() ? "an empty text" : "white space only");
  }
}

}  // namespace detail

/// Shared by threads, each with a Session of its own.
template <Backend B>
class Team {
 public:
  /// See open_team.
  Team(const std::filesystem::path& folder, const OpenOptions& options, B backend);

  /// In team.json's order, which is the order of every mix.
  [[nodiscard]] std::span<const Role> roles() const noexcept { return roles_; }
  /// The place of a role among them; their number for "base", where they share one. Throws Error(not_found).
  [[nodiscard]] std::size_t index_of(std::string_view role) const {
    const bool shared = roles_.front().expert.has_value();
    std::size_t k = 0;
    while (k < roles_.size() && roles_[k].name != role) ++k;
    if (k == roles_.size() && !(shared && role == "base")) {
      throw Error(Code::not_found, "role", shared ? "the name of a role, or base" : "the name of a role",
                  detail::in_quotes(role));
    }
    return k;
  }
  /// The decoders behind them: one for each role, or one for all, a base or a merged one.
  [[nodiscard]] std::span<const Model<B>> models() const noexcept { return models_; }
  /// The decoder of a role.
  [[nodiscard]] const Decoder<B>& decoder(std::size_t role) const noexcept {
    return models_[roles_[role].model].decoder;
  }
  /// Whether the roles are the experts of one merged checkpoint, whose routers are the gate: per token and layer.
  [[nodiscard]] bool is_merged() const noexcept { return !manifest_.merged.empty(); }
  /// Whether the roles' common decoder is read besides them: by the gate, or as the answer, which is mixed inside.
  [[nodiscard]] bool has_base_lane() const noexcept { return manifest_.has_base_lane(); }
  /// Sequences that each decoder reads side by side.
  [[nodiscard]] index_t lanes() const noexcept { return manifest_.lanes(); }
  /// One for all roles.
  [[nodiscard]] const Tokenizer& tokenizer() const noexcept { return *tokenizer_; }
  /// How a conversation becomes ids.
  [[nodiscard]] const ChatFormat& chat() const noexcept { return *chat_; }
  /// Nothing for a team of one, or a merged one.
  [[nodiscard]] const std::optional<Gate>& gate() const noexcept { return gate_; }
  /// What `generate` and `score` mix.
  [[nodiscard]] MixIn mix_in() const noexcept { return manifest_.mix_in; }
  /// v: logits of every role; at least tokenizer().size().
  [[nodiscard]] index_t vocab_size() const noexcept { return models_.front().decoder.config().v; }
  /// Positions that every role was trained for.
  [[nodiscard]] index_t context() const noexcept { return context_; }
  /// The largest d of the roles.
  [[nodiscard]] index_t widest_hidden() const noexcept { return widest_hidden_; }

  /// Throws Error(not_found) for a task that team.json does not describe.
  [[nodiscard]] const Task& task(std::string_view name) const {
    const auto t = manifest_.tasks.find(name);
    if (t == manifest_.tasks.end())
      throw Error(Code::not_found, "task", "a task of team.json", detail::in_quotes(name));
    return t->second;
  }
  /// By name.
  [[nodiscard]] const std::map<std::string, Task, std::less<>>& tasks() const noexcept { return manifest_.tasks; }

  /// The token that ends a reply; the first of them, the chat format's before the configs'. Nothing if no file names
  /// one.
  [[nodiscard]] std::optional<std::int32_t> end_id() const noexcept {
    return end_ids_.empty() ? std::nullopt : std::optional(end_ids_.front());
  }
  /// Ids below vocab_size() that no token has (models pad their vocabularies): never generated.
  [[nodiscard]] std::span<const std::int32_t> absent_ids() const noexcept { return absent_ids_; }
  /// True for a token that ends a reply: the chat format's, or one that a role's config names.
  [[nodiscard]] bool ends(std::int32_t id) const noexcept {
    return std::find(end_ids_.begin(), end_ids_.end(), id) != end_ids_.end();
  }

 private:
  void open_tokenizer(const std::filesystem::path& folder);

  Manifest manifest_;
  std::vector<Model<B>> models_;
  std::vector<Role> roles_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatFormat> chat_;
  std::optional<Gate> gate_;
  std::vector<std::int32_t> end_ids_, absent_ids_;
  index_t context_ = 0, widest_hidden_ = 0;
};

/// Opens the team in `folder`: a team.json, or one Hugging Face checkpoint (a team of one without tasks, or of a merged
/// checkpoint's "expert 0", "expert 1", …). It chats as team.json says, else as the chat template beside the tokenizer,
/// if that is a known family's; without one a lone checkpoint chats as Llama 3 if its tokenizer can. Throws Error that
/// names the file and the key or tensor, what was expected and what was found. Cost: reads every weight once, and packs
/// it as the backend likes it; what it takes in memory, plan() says before.
template <Backend B = Cpu>
[[nodiscard]] Team<B> open_team(const std::filesystem::path& folder, const OpenOptions& options = {}, B backend = {}) {
  return Team<B>(folder, options, std::move(backend));
}

/// The same, on another backend.
template <Backend B>
[[nodiscard]] Team<B> open_team(const std::filesystem::path& folder, B backend) {
  return Team<B>(folder, {}, std::move(backend));
}

template <Backend B>
Team<B>::Team(const std::filesystem::path& folder, const OpenOptions& options, B backend) {
  detail::TeamFiles files = detail::open_team_files(
      folder, options.packed.empty() || options.verify == Verify::contents ? BaseCheck::contents : BaseCheck::headers);
  manifest_ = std::move(files.manifest);
  std::uint64_t total = 0, done = 0;
  for (const Checkpoint& checkpoint : files.checkpoints) total += checkpoint.bytes();
  for (std::size_t k = 0; k < files.checkpoints.size(); ++k) {
    const Config& config = files.configs[k];
    const std::uint64_t before = done;
    OpenOptions of_role = options;
    of_role.progress = [&](std::uint64_t bytes, std::uint64_t) {
      done = before + bytes;
      if (options.progress) options.progress(done, total);
    };
    auto decoder = Decoder<B>::load(backend, files.checkpoints[k], config, of_role, files.experts);
    models_.push_back({std::move(files.checkpoints[k]), std::move(decoder)});
    widest_hidden_ = std::max(widest_hidden_, config.d);
    end_ids_.insert(end_ids_.end(), config.eos.begin(), config.eos.end());
  }
  for (std::size_t k = 0; k < manifest_.roles.size(); ++k) {
    const bool shared = !manifest_.base.empty();
    roles_.push_back({manifest_.roles[k].name, shared || is_merged() ? 0 : k,
                      shared ? std::optional(static_cast<index_t>(k)) : std::nullopt});
  }
  for (const auto& [name, path] : manifest_.calibrations) {
    Task& task = manifest_.tasks.at(name);
    task.calibration = open_label_calibration(folder / path, task.labels.size());
  }
  context_ = files.context();
  open_tokenizer(folder);
  if (manifest_.gate) {
    const Config& read = models_[manifest_.base.empty() ? manifest_.gate->of : 0].decoder.config();
    gate_ = detail::open_gate(folder, files.where, *manifest_.gate, static_cast<index_t>(roles_.size()), read);
  }
}

template <Backend B>
void Team<B>::open_tokenizer(const std::filesystem::path& folder) {
  const std::filesystem::path path = detail::tokenizer_path(folder, manifest_);
  tokenizer_ = detail::open_tokenizer(folder, manifest_, path, vocab_size());
  for (std::int32_t id = 0; id < vocab_size(); ++id) {
    if (tokenizer_->kind(id) == TokenKind::absent) absent_ids_.push_back(id);
  }
  chat_.emplace(detail::chat_of(manifest_, *tokenizer_, path), *tokenizer_);
  if (chat_->end_id()) end_ids_.insert(end_ids_.begin(), *chat_->end_id());
}

}  // namespace finteam::inline FINTEAM_ABI
