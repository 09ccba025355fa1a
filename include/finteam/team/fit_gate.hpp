// Learns a gate from prompts whose role is known: what the gate will read of each, and a logistic regression on it. For
// a host's tool, not for a step: it allocates. Not here: the regression (mix/logistic_regression.hpp), what a gate does
// (role_gate.hpp).
#pragma once

#include <finteam/file/safetensors_writer.hpp>
#include <finteam/mix/logistic_regression.hpp>
#include <finteam/team/session.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A prompt and the place of its role in the team.
struct GateExample {
  std::string prompt;
  std::int32_t role = 0;
};

/// What the gate is to read, as team.json will say it, and how it is fitted.
struct GateFitOptions {
  GateReads reads = GateReads::mean_hidden;  ///< or last_hidden, or mean_embedding
  std::string of{};                          ///< a role's name, or base; empty: the first role
  std::optional<index_t> layer{};            ///< states after so many blocks; none: after the last and the final norm
  PromptForm form = PromptForm::chat;        ///< as the prompts will come: to generate and classify, or to complete
  LogisticRegressionOptions regression{};
  SessionLimits limits{.labels = 1};
  Interrupt interrupt{};  ///< looked at in every prompt; then Error(cancelled) or Error(deadline)
};

/// A gate: linear_scores' weight and bias, and how they do. Its settings are GateFitOptions'.
struct GateFit {
  std::vector<float> weight;  ///< [roles, d], row-major
  std::vector<float> bias;    ///< [roles]
  index_t iterations = 0;
  FitQuality training, held_out;  ///< of the gate's choice of a role, at temperature 1

  /// Writes the file that team.json's gate names: weight [roles, d] and bias [roles]. Errors as write_safetensors.
  void write(const std::filesystem::path& path) const {
    const auto n = static_cast<index_t>(bias.size()), d = static_cast<index_t>(weight.size() / bias.size());
    const TensorToWrite tensors[] = {{"weight", DType::f32, {n, d}, std::as_bytes(std::span(weight))},
                                     {"bias", DType::f32, {n}, std::as_bytes(std::span(bias))}};
    write_safetensors(path, tensors);
  }
};

/// The linear gate that sends prompts like these to their roles: logistic_regression of the role on what a gate with
/// those options reads of each prompt (Session::embed), whatever gate the team has now; a team that has none yet opens
/// with a fixed prior. Deterministic. Costs one reading of every prompt in one role, none for embeddings. Throws
/// Error(invalid_argument) for a reading that is not linear or has no layers, fewer than 2 roles, a role out of range
/// or without an example, bad options, and as embed.
template <Backend B>
[[nodiscard]] GateFit fit_gate(const Team<B>& team, std::span<const GateExample> examples,
                               const GateFitOptions& options = {}, B backend = {}) {
  GateSettings settings;
  settings.reads = options.reads;
  const auto refuse = [](const char* what, const char* expected, std::string found) {
    throw Error(Code::invalid_argument, std::string("fit gate: ") + what, expected, std::move(found));
  };
  if (!settings.is_linear()) {
    refuse("reads", "what a linear gate reads", std::string(gate_reads_names[static_cast<std::size_t>(options.reads)]));
  }
  if (options.layer && !settings.reads_states()) refuse("layer", "none: embeddings are read", "a layer");
  options.regression.validate();
  std::vector<std::int32_t> roles;
  for (const GateExample& example : examples) roles.push_back(example.role);
  detail::require_classes("fit gate", roles, static_cast<index_t>(team.roles().size()));
  for (std::size_t k = 0; k < team.roles().size(); ++k) {
    if (std::find(roles.begin(), roles.end(), static_cast<std::int32_t>(k)) != roles.end()) continue;
    refuse("examples", "some of every role", "none of role " + detail::printable(team.roles()[k].name));
  }
  const EmbedOptions what{.of = options.of,
                          .layer = settings.reads_states() ? options.layer : std::optional<index_t>(0),
                          .pooling = options.reads == GateReads::last_hidden ? Pooling::last : Pooling::mean,
                          .form = options.form,
                          .interrupt = options.interrupt};
  Session<B> session(team, options.limits, std::move(backend));
  std::vector<float> features;
  for (const GateExample& example : examples) {
    const auto x = session.embed(example.prompt, what).span();
    features.insert(features.end(), x.begin(), x.end());
  }
  const auto samples = static_cast<index_t>(examples.size()), d = static_cast<index_t>(features.size()) / samples;
  LogisticRegression fit = logistic_regression({features.data(), {samples, d}}, roles,
                                               static_cast<index_t>(team.roles().size()), options.regression);
  return {std::move(fit.weight), std::move(fit.bias), fit.iterations, fit.training, fit.held_out};
}

}  // namespace finteam::inline FINTEAM_ABI
