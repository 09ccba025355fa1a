// Fits what a task's label probabilities are worth: the temperature on some examples, the threshold of label sets on
// others, and how both do on the rest. For a host's tool, not for a step: it allocates.
// Not here: what a session makes of it (session_risk.hpp).
#pragma once

#include <finteam/mix/calibration.hpp>
#include <finteam/mix/conformal.hpp>
#include <finteam/mix/logistic_regression.hpp>
#include <finteam/team/session.hpp>
#include <finteam/text/philox.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// A text and the place of its true label in the task's order.
struct LabelExample {
  std::string text;
  std::int32_t label = 0;
};

/// How fit_calibration fits.
struct CalibrationOptions {
  double coverage = 0.9;       ///< how often a label set is to hold the truth, in (0, 1)
  double for_threshold = 0.4;  ///< share of the examples that give the threshold, in (0, 1)
  double held_out = 0.2;       ///< share that gives the figures, in [0, 1); the rest gives the temperature
  std::uint64_t seed = 0;      ///< of the draw of these shares
  Interrupt interrupt{};       ///< looked at in every question; then Error(cancelled) or Error(deadline)

  /// Throws Error(invalid_argument) for shares out of range, or that leave nothing for the temperature.
  void validate() const {
    const auto require = [](bool good, const char* what, const char* expected, double found) {
      if (good) return;
      throw Error(Code::invalid_argument, std::string("fit calibration: ") + what, expected, std::to_string(found));
    };
    require(coverage > 0 && coverage < 1, "coverage", "between 0 and 1", coverage);
    require(for_threshold > 0 && for_threshold < 1, "for_threshold", "between 0 and 1", for_threshold);
    require(held_out >= 0 && held_out < 1, "held_out", "at least 0 and below 1", held_out);
    require(for_threshold + held_out < 1, "held_out", "below 1 with for_threshold", for_threshold + held_out);
  }
};

/// What fit_calibration found. The figures are of the held-out examples; all 0 without them.
struct CalibrationFit {
  LabelCalibration calibration;
  FitQuality before, after;  ///< of the team's probabilities as they are, and calibrated
  double coverage = 0;       ///< share of the label sets that hold the truth
  double set_size = 0;       ///< labels in a set, on average

  /// The calibration as team.json names it. Errors as FileWriter.
  void write(const std::filesystem::path& path) const { calibration.write(path); }
};

namespace detail {

/// Probabilities of some samples and their truth.
struct Outcomes {
  std::vector<double> p;  ///< [samples, labels]
  std::vector<std::int32_t> truth;
  std::size_t labels = 0;

  void add(std::span<const double> row, std::int32_t label) {
    p.insert(p.end(), row.begin(), row.end());
    truth.push_back(label);
  }
  [[nodiscard]] std::span<double> row(std::size_t s) { return std::span(p).subspan(s * labels, labels); }
  [[nodiscard]] MatrixView<const double> view() const {
    return {p.data(), {static_cast<index_t>(truth.size()), static_cast<index_t>(labels)}};
  }
  /// log p, as LabelCalibration::apply takes it.
  [[nodiscard]] Outcomes logs() const {
    Outcomes out = *this;
    for (double& x : out.p) x = std::log(std::max(x, std::numeric_limits<double>::min()));
    return out;
  }
  [[nodiscard]] FitQuality quality() const {
    FitQuality q{.samples = static_cast<index_t>(truth.size())};
    if (truth.empty()) return q;
    for (std::size_t s = 0; s < truth.size(); ++s) {
      q.accuracy += likeliest(view().row(static_cast<index_t>(s)).span()) == truth[s] ? 1 : 0;
    }
    q.accuracy /= static_cast<double>(truth.size());
    q.negative_log_likelihood = negative_log_likelihood(logs().view(), truth);
    q.calibration_error = expected_calibration_error(view(), truth);
    return q;
  }
};

/// 0 … n - 1 in an order that the seed says.
[[nodiscard]] inline std::vector<std::size_t> drawn_order(std::size_t n, std::uint64_t seed) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto noise = [&](std::size_t i) { return uniform(seed, static_cast<std::int64_t>(i), 0); };
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return std::pair(noise(a), a) < std::pair(noise(b), b); });
  return order;
}

}  // namespace detail

/// The calibration of a task by labelled examples: temperature = argmin of the negative log-likelihood on the first
/// share of them (fit_temperature), threshold = conformal_threshold of the calibrated probabilities on the second,
/// figures of the third, each share drawn at random. Deterministic. Each example is a classify of the task without its
/// calibration, if it has one. prior_then is the labels' frequencies in all examples, if none is 0. Throws
/// Error(invalid_argument) for bad options, too few examples for the first two shares, or a label out of range, and as
/// classify. Sources: Guo et al. 2017, section 4.2; Angelopoulos & Bates 2021, section 1.1.
template <Backend B>
[[nodiscard]] CalibrationFit fit_calibration(Session<B>& session, Task task, std::span<const LabelExample> examples,
                                             const CalibrationOptions& options = {}) {
  options.validate();
  task.calibration.reset();
  task.abstain = {};  // which may count the labels of the set that is to be found
  const std::size_t labels = task.labels.size(), n = examples.size();
  const auto part = [&](double share) { return static_cast<std::size_t>(share * static_cast<double>(n)); };
  const std::size_t held_out = part(options.held_out), for_threshold = part(options.for_threshold);
  if (for_threshold < 1 || n - held_out - for_threshold < 1) {
    throw Error(Code::invalid_argument, "fit calibration: examples", "some for each share", std::to_string(n));
  }
  std::vector<double> frequency(labels, 0.0);
  for (const LabelExample& example : examples) {
    if (example.label < 0 || example.label >= static_cast<std::int32_t>(labels)) {
      throw Error(Code::invalid_argument, "fit calibration: label", "0 to " + std::to_string(labels - 1),
                  std::to_string(example.label));
    }
    frequency[static_cast<std::size_t>(example.label)] += 1 / static_cast<double>(n);
  }

  detail::Outcomes fitted{.p = {}, .truth = {}, .labels = labels}, sized = fitted, tested = fitted;
  const auto order = detail::drawn_order(n, options.seed);
  for (std::size_t i = 0; i < n; ++i) {
    const LabelExample& example = examples[order[i]];
    const View& view = session.classify(task, example.text, {.interrupt = options.interrupt});
    detail::Outcomes& share = i < held_out ? tested : i < held_out + for_threshold ? sized : fitted;
    share.add(view.probabilities, example.label);
  }

  CalibrationFit fit;
  LabelCalibration& c = fit.calibration;
  c.coverage = options.coverage;
  c.samples = static_cast<index_t>(sized.truth.size());
  c.temperature = fit_temperature(fitted.logs().view(), fitted.truth).temperature;
  if (std::find(frequency.begin(), frequency.end(), 0.0) == frequency.end()) c.prior_then = frequency;
  std::vector<double> of_truth;
  for (std::size_t s = 0; s < sized.truth.size(); ++s) {
    c.apply(sized.row(s));
    of_truth.push_back(sized.row(s)[static_cast<std::size_t>(sized.truth[s])]);
  }
  c.threshold = std::min(conformal_threshold(of_truth, 1 - options.coverage), 1.0);  // 1 holds every label, as ∞ does

  fit.before = tested.quality();
  std::vector<index_t> set;
  for (std::size_t s = 0; s < tested.truth.size(); ++s) {
    c.apply(tested.row(s));
    c.choose_set(tested.row(s), set);
    if (std::find(set.begin(), set.end(), index_t{tested.truth[s]}) != set.end()) fit.coverage += 1;
    fit.set_size += static_cast<double>(set.size());
  }
  fit.after = tested.quality();
  if (held_out > 0) {
    fit.coverage /= static_cast<double>(held_out);
    fit.set_size /= static_cast<double>(held_out);
  }
  return fit;
}

/// The same for a task that team.json describes. Throws Error(not_found) if it does not.
template <Backend B>
[[nodiscard]] CalibrationFit fit_calibration(Session<B>& session, std::string_view task,
                                             std::span<const LabelExample> examples,
                                             const CalibrationOptions& options = {}) {
  return fit_calibration(session, session.team().task(task), examples, options);
}

}  // namespace finteam::inline FINTEAM_ABI
