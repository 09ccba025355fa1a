// A team of role experts: decoders, tokenizer, chat format, gate and tasks, opened from a folder. Immutable.
// Not here: anything that changes while it answers (session.hpp).
#pragma once

#include <finteam/backend/cpu.hpp>
#include <finteam/expert/decoder.hpp>
#include <finteam/file/safetensors.hpp>
#include <finteam/team/role_gate.hpp>
#include <finteam/team/team_files.hpp>
#include <finteam/text/chat.hpp>
#include <finteam/text/chat_recognition.hpp>
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
  /// team.json's format, or that of the chat template beside the tokenizer, or the default.
  void open_chat(const std::filesystem::path& tokenizer);
  /// Throws Error(mismatch) if there is a tokenizer at `own` whose tokens are not those of the team's, at `path`.
  void refuse_other_tokenizer(const std::filesystem::path& own, const std::filesystem::path& path) const;
  void open_gate(const std::filesystem::path& folder, const std::string& where);

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
  open_gate(folder, files.where);
}

template <Backend B>
void Team<B>::open_tokenizer(const std::filesystem::path& folder) {
  std::filesystem::path path = folder / (manifest_.tokenizer.empty() ? "tokenizer.json" : manifest_.tokenizer);
  if (manifest_.tokenizer.empty() && !detail::is_there(path)) {
    path = folder / (manifest_.base.empty() ? manifest_.roles.front().path : manifest_.base) / "tokenizer.json";
  }
  tokenizer_ = Tokenizer::open(path);
  if (!manifest_.base.empty()) refuse_other_tokenizer(folder / manifest_.base / "tokenizer.json", path);
  for (const auto& role : manifest_.roles) refuse_other_tokenizer(folder / role.path / "tokenizer.json", path);
  if (tokenizer_->size() > vocab_size()) {
    throw Error(Code::mismatch, path.string(), "ids below the roles' vocabulary of " + std::to_string(vocab_size()),
                std::to_string(tokenizer_->size() - 1));
  }
  for (std::int32_t id = 0; id < vocab_size(); ++id) {
    if (tokenizer_->kind(id) == TokenKind::absent) absent_ids_.push_back(id);
  }
  open_chat(path);
  if (chat_->end_id()) end_ids_.insert(end_ids_.begin(), *chat_->end_id());
}

template <Backend B>
void Team<B>::open_chat(const std::filesystem::path& tokenizer) {
  if (!manifest_.chat) {
    if (const auto source = find_chat_template(tokenizer.parent_path())) manifest_.chat = recognise_chat(*source);
  }
  if (!manifest_.chat) {
    std::string& name = manifest_.default_chat;
    if (name.empty()) name = tokenizer_->token("<|start_header_id|>") ? "llama-3" : "none";
    manifest_.chat = chat_layout(name, tokenizer.string());
  }
  chat_.emplace(*manifest_.chat, *tokenizer_);
}

template <Backend B>
void Team<B>::refuse_other_tokenizer(const std::filesystem::path& own, const std::filesystem::path& path) const {
  if (!detail::is_there(own) || MappedFile::open(own).text() == MappedFile::open(path).text()) return;
  const Tokenizer other = Tokenizer::open(own);
  bool same = other.size() == tokenizer_->size();
  for (std::int32_t id = 0; same && id < other.size(); ++id) {
    same = other.kind(id) == tokenizer_->kind(id) &&
           (other.kind(id) == TokenKind::absent || other.bytes(id) == tokenizer_->bytes(id));
  }
  if (!same) throw Error(Code::mismatch, other.where(), "the tokens of " + tokenizer_->where(), "others");
}

template <Backend B>
void Team<B>::open_gate(const std::filesystem::path& folder, const std::string& where) {
  if (!manifest_.gate) return;
  Gate gate{*manifest_.gate, {}, {}};
  const GateSettings& g = gate.settings;
  if (!g.is_linear()) {
    gate_ = std::move(gate);
    return;
  }
  const Config& read = models_[manifest_.base.empty() ? g.of : 0].decoder.config();
  if (g.layer && *g.layer > read.layers) {
    throw Error(Code::mismatch, where + ": gate.layer",
                "at most the " + std::to_string(read.layers) + " layers of what it reads", std::to_string(*g.layer));
  }
  const Safetensors file = Safetensors::open(folder / g.file);
  const index_t n = static_cast<index_t>(roles_.size()), d = read.d;
  const auto take = [&](std::string_view name, std::initializer_list<index_t> shape, float* out) {
    const RawTensor raw = file.tensor(name);
    if (!std::equal(raw.shape.begin(), raw.shape.end(), shape.begin(), shape.end())) {
      throw Error(Code::mismatch, where + ": gate: " + detail::printable(g.file) + ": " + std::string(name),
                  detail::shape_string(shape), detail::shape_string(raw.shape));
    }
    for (index_t i = 0; i < raw.size(); ++i) {
      out[i] = raw[i];
      if (!std::isfinite(out[i])) {
        throw Error(Code::malformed, where + ": gate: " + detail::printable(g.file) + ": " + std::string(name),
                    "finite numbers", std::to_string(out[i]) + " at " + std::to_string(i));
      }
    }
  };
  gate.weight = Tensor<float, 2>({n, d});
  gate.bias = Tensor<float, 1>({n});
  take("weight", {n, d}, gate.weight.data());
  take("bias", {n}, gate.bias.data());
  gate_ = std::move(gate);
}

}  // namespace finteam::inline FINTEAM_ABI
