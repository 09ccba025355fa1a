// A gate at work on one text: what it has seen of it, and the roles' weights that follow.
// Not here: who reads (session.hpp), what the settings mean in team.json (gate_settings.hpp).
#pragma once

#include <finteam/core/tensor.hpp>
#include <finteam/file/config_type.hpp>
#include <finteam/file/safetensors.hpp>
#include <finteam/team/gate_settings.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A gate as it was opened.
struct Gate {
  GateSettings settings;
  Tensor<float, 2> weight;  ///< of a linear gate: [roles, d of what it reads]
  Tensor<float, 1> bias;    ///< … [roles]
};

namespace detail {

/// The gate of so many roles that settings describe. folder: the team's; where: its team.json, in errors; read: the
/// config of what a linear gate reads. Throws Error as Safetensors::open; not_found, mismatch or malformed for weights
/// that are not there, of another shape, or not finite; mismatch for a layer that is not there.
[[nodiscard]] inline Gate open_gate(const std::filesystem::path& folder, const std::string& where,
                                    const GateSettings& settings, index_t roles, const Config& read) {
  Gate gate{settings, {}, {}};
  if (!settings.is_linear()) return gate;
  if (settings.layer && *settings.layer > read.layers) {
    throw Error(Code::mismatch, where + ": gate.layer",
                "at most the " + std::to_string(read.layers) + " layers of what it reads",
                std::to_string(*settings.layer));
  }
  const Safetensors file = Safetensors::open(folder / settings.file);
  const auto take = [&](std::string_view name, std::initializer_list<index_t> shape, float* out) {
    const RawTensor raw = file.tensor(name);
    const std::string named = where + ": gate: " + printable(settings.file) + ": " + std::string(name);
    if (!std::equal(raw.shape.begin(), raw.shape.end(), shape.begin(), shape.end())) {
      throw Error(Code::mismatch, named, shape_string(shape), shape_string(raw.shape));
    }
    for (index_t i = 0; i < raw.size(); ++i) {
      out[i] = raw[i];
      if (!std::isfinite(out[i])) {
        throw Error(Code::malformed, named, "finite numbers", std::to_string(out[i]) + " at " + std::to_string(i));
      }
    }
  };
  gate.weight = Tensor<float, 2>({roles, read.d});
  gate.bias = Tensor<float, 1>({roles});
  take("weight", {roles, read.d}, gate.weight.data());
  take("bias", {roles}, gate.bias.data());
  return gate;
}

}  // namespace detail

/// The running feature of a linear gate: the sum or the last of states that it was shown.
class GateFeature {
 public:
  /// Room for d numbers.
  explicit GateFeature(index_t d) { sum_.reserve(static_cast<std::size_t>(d)); }

  void start(index_t d) {
    sum_.assign(static_cast<std::size_t>(d), 0.0);
    count_ = 0;
  }
  /// states [t, d]: of the next t tokens. mean: they are summed; else the last one stays.
  void see(MatrixView<const float> states, bool mean) noexcept {
    for (index_t t = mean ? 0 : states.extent(0) - 1; t < states.extent(0); ++t) {
      for (std::size_t i = 0; i < sum_.size(); ++i) {
        sum_[i] = (mean ? sum_[i] : 0.0) + static_cast<double>(states(t, static_cast<index_t>(i)));
      }
    }
    count_ = mean ? count_ + states.extent(0) : 1;
  }
  /// The feature [d] of what was seen, into `out`.
  void read(std::span<double> out) const noexcept {
    for (std::size_t i = 0; i < sum_.size(); ++i) out[i] = sum_[i] / static_cast<double>(count_);
  }
  [[nodiscard]] index_t size() const noexcept { return static_cast<index_t>(sum_.size()); }

 private:
  std::vector<double> sum_;
  index_t count_ = 0;
};

/// One thread at a time. Without a gate: a team of one.
class RoleGate {
 public:
  /// gate: null for a team of one; outlives this. d: the widest state that it may read.
  RoleGate(const Gate* gate, index_t roles, index_t d)
      : gate_(gate),
        feature_(d),
        values_(static_cast<std::size_t>(d)),
        scores_(static_cast<std::size_t>(roles)),
        performance_(roles, gate != nullptr ? gate->settings.performance : RunningPerformanceOptions{}) {
    log_prior_.assign(scores_.size(), 0.0);
    for (std::size_t k = 0; gate != nullptr && k < gate->settings.prior.size(); ++k) {
      log_prior_[k] = std::log(gate->settings.prior[k]);
    }
    likelihood_ = log_prior_;
  }

  /// A new text.
  void start() {
    if (gate_ != nullptr && gate_->settings.is_linear()) feature_.start(gate_->weight.extent(1));
    likelihood_ = log_prior_;
  }
  /// States [t, d] of the text's next tokens, of the role that it reads.
  void see(MatrixView<const float> states) noexcept {
    feature_.see(states, gate_->settings.reads != GateReads::last_hidden);
  }
  /// log p of the text's next token in a role.
  void see(index_t role, double log_p) noexcept { likelihood_[static_cast<std::size_t>(role)] += log_p; }

  /// The weights of all roles, by what was seen so far. weights [roles], overwritten; NaN if what was seen is.
  void weigh(std::span<double> weights) {
    if (gate_ == nullptr) return std::fill(weights.begin(), weights.end(), 1.0);
    if (gate_->settings.is_linear()) {
      const auto feature = std::span(values_).first(static_cast<std::size_t>(feature_.size()));
      feature_.read(feature);
      linear_scores(gate_->weight.view(), gate_->bias.view().span(), feature, scores_);
    } else if (gate_->settings.reads == GateReads::performance) {
      const auto log_weights = performance_.log_weights();
      for (std::size_t k = 0; k < scores_.size(); ++k) scores_[k] = log_prior_[k] + log_weights[k];
    } else {
      scores_ = likelihood_;
    }
    gate_weights(gate_->settings.rule, scores_);
    std::copy(scores_.begin(), scores_.end(), weights.begin());
  }

  /// What the host reported so far.
  [[nodiscard]] RunningPerformance& performance() noexcept { return performance_; }
  [[nodiscard]] const RunningPerformance& performance() const noexcept { return performance_; }

 private:
  const Gate* gate_;
  GateFeature feature_;
  std::vector<double> values_, scores_, log_prior_, likelihood_;
  RunningPerformance performance_;
};

}  // namespace finteam::inline FINTEAM_ABI
