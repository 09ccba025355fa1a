// What a task's label probabilities are worth, as data: a temperature, the threshold of label sets of stated coverage,
// and the labels' frequencies where both were found. Written by a host's fit, named in team.json.
// Not here: the fit (fit_calibration.hpp), what a session makes of it (session_risk.hpp).
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/file/file_writer.hpp>
#include <finteam/file/json_view.hpp>
#include <finteam/mix/gate.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// p = softmax(log p_mixture / temperature); a label is in the set if 1 - p ≤ threshold. Sources: Guo et al. 2017,
/// section 4.2; Angelopoulos & Bates 2021, section 1.1.
struct LabelCalibration {
  double temperature = 1;            ///< from 2^-10 to 2^10; above 1 the team was too sure
  double threshold = 1;              ///< in [0, 1]; 1: every label is in every set
  double coverage = 0.9;             ///< how often a set holds the truth, for texts like the samples; in (0, 1)
  index_t samples = 1;               ///< that the threshold was found with, at least 1
  std::vector<double> prior_then{};  ///< by label: its frequency among the samples, > 0; empty: not known

  /// labels: how many the task has. Throws Error(invalid_argument) for what is out of its range, or a prior_then of
  /// another length.
  void validate(std::size_t labels, const std::string& where) const {
    const auto refuse = [&](const char* what, const std::string& expected, const std::string& found) {
      throw Error(Code::invalid_argument, where + ": calibration: " + what, expected, found);
    };
    if (!(temperature >= 0x1p-10 && temperature <= 0x1p10)) {
      refuse("temperature", "2^-10 to 2^10", std::to_string(temperature));
    }
    if (!(threshold >= 0 && threshold <= 1)) refuse("threshold", "0 to 1", std::to_string(threshold));
    if (!(coverage > 0 && coverage < 1)) refuse("coverage", "between 0 and 1", std::to_string(coverage));
    if (samples < 1) refuse("samples", "at least 1", std::to_string(samples));
    if (!prior_then.empty() && prior_then.size() != labels) {
      refuse("prior_then", std::to_string(labels) + " numbers, one for each label", std::to_string(prior_then.size()));
    }
    for (const double p : prior_then) {
      if (!(p > 0) || !std::isfinite(p)) refuse("prior_then", "finite numbers above 0", std::to_string(p));
    }
  }

  /// p = softmax(log p / temperature), in place; a probability below 2^-1022 counts as that. p [labels].
  void apply(std::span<double> p) const noexcept {
    for (double& x : p) x = std::log(std::max(x, std::numeric_limits<double>::min()));
    softmax(p, temperature);
  }

  /// The labels with 1 - p ≤ threshold, likeliest first (of equals the first). p [labels], set overwritten.
  void choose_set(std::span<const double> p, std::vector<index_t>& set) const {
    const auto of = [&](index_t l) { return p[static_cast<std::size_t>(l)]; };
    set.clear();
    for (index_t l = 0; l < static_cast<index_t>(p.size()); ++l) {
      if (1 - of(l) <= threshold) set.push_back(l);
    }
    std::sort(set.begin(), set.end(), [&](index_t a, index_t b) { return of(a) > of(b) || (of(a) == of(b) && a < b); });
  }

  /// Writes what read_label_calibration reads, to the bit. Errors as FileWriter.
  void write(const std::filesystem::path& path) const {
    Json json = {{"finteam_calibration", 1},
                 {"temperature", temperature},
                 {"threshold", threshold},
                 {"coverage", coverage},
                 {"samples", samples}};
    if (!prior_then.empty()) json["prior_then"] = prior_then;
    FileWriter file(path);
    file.write(json.dump(2) + "\n");
    file.commit();
  }
};

/// {"finteam_calibration": 1, "temperature": 1.4, "threshold": 0.62, "coverage": 0.9, "samples": 400}, and perhaps
/// "prior_then". Throws Error that names the key: not_found for one that is missing, unsupported for an unknown one,
/// malformed for a value out of its range.
[[nodiscard]] inline LabelCalibration read_label_calibration(const JsonView& json) {
  (void)json.at("finteam_calibration").as_int(1, 1);
  detail::only_keys(json, {"finteam_calibration", "temperature", "threshold", "coverage", "samples", "prior_then"});
  LabelCalibration c{.temperature = json.at("temperature").as_number(0x1p-10, 0x1p10),
                     .threshold = json.at("threshold").as_number(0, 1),
                     .coverage = json.at("coverage").as_number(),
                     .samples = json.at("samples").as_int(1, std::numeric_limits<std::int64_t>::max())};
  if (!(c.coverage > 0 && c.coverage < 1)) json.at("coverage").refuse("a number between 0 and 1");
  if (const auto prior = json.find("prior_then")) {
    prior->each([&](const JsonView& p) {
      if (!(p.as_number() > 0)) p.refuse("a number above 0");
      c.prior_then.push_back(p.as_number());
    });
  }
  return c;
}

/// The calibration in a file, for a task of so many labels. Errors as JsonFile::open and read_label_calibration, and
/// Error(mismatch) for a prior_then of another length.
[[nodiscard]] inline LabelCalibration open_label_calibration(const std::filesystem::path& path, std::size_t labels) {
  const JsonFile file = JsonFile::open(path);
  LabelCalibration c = read_label_calibration(file.root());
  if (const auto prior = file.root().find("prior_then"); prior && c.prior_then.size() != labels) {
    prior->refuse(std::to_string(labels) + " numbers, one for each label", Code::mismatch);
  }
  return c;
}

}  // namespace finteam::inline FINTEAM_ABI
