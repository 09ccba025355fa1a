// What a task's label probabilities are worth: read from data, applied, refused, and fitted on the bundled team.

#include "catch.hpp"
#include "refusals.hpp"
#include "team/answers.hpp"
#include "team/folder.hpp"

#include <finteam/team/fit_calibration.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

using namespace finteam;
using test::check_refused;
using test::headline;
using test::quiet;

namespace {

Json calibration(double temperature, double threshold) {
  return {{"finteam_calibration", 1},
          {"temperature", temperature},
          {"threshold", threshold},
          {"coverage", 0.9},
          {"samples", 50}};
}

/// The golden team, its sentiment calibrated by that file, three roles awake.
struct Calibrated : test::TeamFolder {
  explicit Calibrated(const std::string& text)
      : TeamFolder([](Json& team) {
          team["tasks"]["sentiment"]["calibration"] = "sentiment.calibration.json";
          team["gate"] = {{"reads", "prior"}, {"prior", {3, 2, 1}}};
        }) {
    test::write(path() / "sentiment.calibration.json", text);
  }
};

const test::fs::path source = FINTEAM_SOURCE_DIR;

/// The bundled team's task of direction: sentences that it was not trained on, and what was taken out of them.
std::vector<LabelExample> directions(const Task& task) {
  std::vector<LabelExample> examples;
  std::ifstream in(source / "training" / "data" / "macro_direction.test.jsonl");
  for (std::string line; std::getline(in, line);) {
    const Json json = parse_json(line, "line");
    const auto label = std::find(task.labels.begin(), task.labels.end(), json.at("answer").get<std::string>());
    REQUIRE(label != task.labels.end());
    std::string text = json.at("input").get<std::string>();
    text.erase(0, std::string("Sentence: ").size());
    examples.push_back({text, static_cast<std::int32_t>(label - task.labels.begin())});
  }
  return examples;
}

}  // namespace

TEST_CASE("a calibrated answer is softmax(log p / T), with the labels that the threshold holds", "[team]") {
  const Calibrated folder(calibration(2.5, 0.7).dump());
  const auto team = open_team(folder.path());
  REQUIRE(team.task("sentiment").calibration);
  Session desk(team);
  Task plain = team.task("sentiment");
  plain.calibration.reset();
  const View before = desk.classify(plain, headline);
  CHECK(before.label_set.empty());
  CHECK(before.coverage == 0);
  const View view = desk.classify("sentiment", headline);
  CHECK(view.coverage == 0.9);
  std::vector<double> expected;
  for (const double p : before.probabilities) expected.push_back(std::pow(p, 1 / 2.5));
  double sum = 0;
  for (const double x : expected) sum += x;
  std::vector<index_t> set;
  for (std::size_t l = 0; l < expected.size(); ++l) {
    CHECK(view.probabilities[l] == Approx(expected[l] / sum).epsilon(1e-12));
    if (1 - expected[l] / sum <= 0.7) set.push_back(static_cast<index_t>(l));
  }
  std::sort(set.begin(), set.end(), [&](index_t a, index_t b) {
    return expected[static_cast<std::size_t>(a)] > expected[static_cast<std::size_t>(b)];
  });
  CHECK(view.label_set == set);
  CHECK(view.label == before.label);
  CHECK(view.entropy == Approx(entropy_bits(view.probabilities)));
  CHECK(view.entropy > before.entropy);
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(view.roles[k].probabilities == before.roles[k].probabilities);
    CHECK(view.roles[k].effect.label_changes == before.roles[k].effect.label_changes);
    const std::size_t a = (k + 1) % 3, b = (k + 2) % 3;
    const std::vector<double>& both = view.probabilities;
    std::vector<double> mean(3), left(3);
    double total = 0;
    for (std::size_t l = 0; l < 3; ++l) {
      const auto part = [&](std::size_t r) { return before.roles[r].weight * before.roles[r].probabilities[l]; };
      left[l] = std::pow((part(a) + part(b)) / (before.roles[a].weight + before.roles[b].weight), 1 / 2.5);
      total += left[l];
    }
    for (std::size_t l = 0; l < 3; ++l) mean[l] = 0.5 * both[l] + 0.5 * (left[l] /= total);
    const double divergence = entropy_bits(mean) - 0.5 * entropy_bits(both) - 0.5 * entropy_bits(left);
    CHECK(view.roles[k].effect.divergence_bits == Approx(divergence).margin(1e-12));
  }
  CHECK(view.disagreement == before.disagreement);
  // a task that is not calibrated, and a session that has seen one
  CHECK(desk.classify("direction", headline).label_set.empty());
  CHECK(desk.classify(plain, headline).probabilities == before.probabilities);
}

TEST_CASE("a threshold of 1 holds every label, likeliest first, and one of 0 none", "[team]") {
  const auto team = open_team(Calibrated(calibration(1, 1).dump()).path());
  Session desk(team);
  Task task = team.task("sentiment");
  const View& all = desk.classify(task, headline);
  REQUIRE(all.label_set.size() == 3);
  CHECK(all.labels[static_cast<std::size_t>(all.label_set[0])] == all.label);
  for (std::size_t i = 1; i < 3; ++i) {
    CHECK(all.probabilities[static_cast<std::size_t>(all.label_set[i - 1])] >=
          all.probabilities[static_cast<std::size_t>(all.label_set[i])]);
  }
  task.calibration->threshold = 0;
  CHECK(desk.classify(task, headline).label_set.empty());
}

TEST_CASE("an answer whose set has too many labels, or not the answer, is not to be acted on", "[team]") {
  const auto team = open_team(Calibrated(calibration(2.5, 0.7).dump()).path());
  Session desk(team);
  Task task = team.task("sentiment");
  const View plain = desk.classify(task, headline);
  std::vector<double> p = plain.probabilities;
  std::sort(p.begin(), p.end(), std::greater<>());
  REQUIRE(p[0] > p[1]);
  REQUIRE(p[1] > p[2]);
  const auto reason = [&](double threshold, const Ask& ask) {
    task.calibration->threshold = threshold;
    const View& view = desk.classify(task, headline, ask);
    CHECK(view.abstains == (view.abstain_reason != AbstainReason::none));
    return name(view.abstain_reason);
  };
  const double none = (1 - p[0]) / 2, one = 1 - (p[0] + p[1]) / 2, two = 1 - (p[1] + p[2]) / 2;
  const Ask at_most_one{.abstain = {.most_labels = 1}}, at_most_two{.abstain = {.most_labels = 2}};
  CHECK(reason(one, at_most_one) == "none");
  CHECK(reason(two, at_most_one) == "labels");
  CHECK(reason(two, at_most_two) == "none");
  CHECK(reason(1, at_most_two) == "labels");
  CHECK(reason(none, at_most_two) == "labels");
  CHECK(reason(two, {}) == "none");
  // the task's own rule, and the stricter of two
  task.abstain.most_labels = 1;
  CHECK(reason(one, {}) == "none");
  CHECK(reason(two, {}) == "labels");
  CHECK(reason(two, at_most_two) == "labels");
  CHECK(reason(two, {.abstain = {.least_probability = 1}}) == "probability");
  // frequencies that make another label the answer leave the set alone: it no longer holds the answer
  task.calibration->prior_then = {1.0 / 3, 1.0 / 3, 1.0 / 3};
  std::vector<double> now(3, 1e-6);
  now[static_cast<std::size_t>(std::min_element(plain.probabilities.begin(), plain.probabilities.end()) -
                               plain.probabilities.begin())] = 1;
  CHECK(reason(one, {.prior_now = now}) == "labels");
  // without a calibration there is no set to count
  task.calibration.reset();
  check_refused([&] { (void)desk.classify(task, headline); }, Code::invalid_argument,
                "abstain: most_labels: expected a task with a calibration");
  check_refused([&] { (void)desk.classify("direction", headline, at_most_one); }, Code::invalid_argument,
                "abstain: most_labels");
  check_refused([&] { (void)desk.classify("direction", headline, {.abstain = {.most_labels = 0}}); },
                Code::invalid_argument, "most_labels: expected at least 1");
}

TEST_CASE("when a task abstains stands in team.json, beside its calibration", "[team][law5]") {
  const auto with = [](const Json& abstain, bool calibrated = true) {
    test::TeamFolder folder([&](Json& team) {
      team["gate"] = {{"reads", "prior"}, {"prior", {3, 2, 1}}};
      team["tasks"]["sentiment"]["abstain"] = abstain;
      if (calibrated) team["tasks"]["sentiment"]["calibration"] = "c.json";
    });
    test::write(folder.path() / "c.json", calibration(1, 1).dump());  // every label is in every set
    return open_team(folder.path());
  };
  const auto asked = [](const Team<Cpu>& team, const Ask& ask = {}) {
    Session desk(team);
    return name(desk.classify("sentiment", headline, ask).abstain_reason);
  };
  CHECK(asked(with({{"most_labels", 2}})) == "labels");
  CHECK(asked(with({{"most_labels", 3}})) == "none");
  CHECK(asked(with({{"most_labels", 3}}), {.abstain = {.most_labels = 2}}) == "labels");
  CHECK(asked(with({{"least_probability", 1}}, false)) == "probability");
  CHECK(asked(with({{"greatest_entropy", 0}}, false)) == "entropy");
  CHECK(asked(with({{"greatest_disagreement", 0}}, false)) == "disagreement");
  CHECK(asked(with(Json::object(), false)) == "none");
  const auto refuse = [&](const Json& abstain, Code code, const std::string& says, bool calibrated = true) {
    check_refused([&] { (void)with(abstain, calibrated); }, code, "team.json: tasks.sentiment.abstain" + says);
  };
  refuse({{"most_labels", 1}}, Code::mismatch, ".most_labels: expected nothing: the task names no calibration", false);
  refuse({{"most_labels", 0}}, Code::malformed, ".most_labels");
  refuse({{"most_labels", 1.5}}, Code::malformed, ".most_labels");
  refuse({{"labels", 1}}, Code::unsupported, ".labels");
  refuse({{"least_probability", 1.5}}, Code::malformed, ".least_probability");
  refuse({{"greatest_entropy", -1}}, Code::malformed, ".greatest_entropy");
  refuse({{"greatest_disagreement", "much"}}, Code::malformed, ".greatest_disagreement");
  refuse(3, Code::malformed, ": expected an object");
  // a calibration that does not state its coverage
  const test::TeamFolder silent([](Json& team) {
    team["tasks"]["sentiment"]["abstain"] = {{"most_labels", 1}};
    team["tasks"]["sentiment"]["calibration"] = "c.json";
  });
  Json json = calibration(1, 1);
  json.erase("coverage");
  test::write(silent.path() / "c.json", json.dump());
  check_refused([&] { (void)open_team(silent.path()); }, Code::not_found, "c.json: expected key \"coverage\"");
}

TEST_CASE("other frequencies of the labels move the probabilities, and leave the set alone", "[team]") {
  Json json = calibration(1.5, 0.7);
  json["prior_then"] = {0.5, 0.25, 0.25};
  const auto team = open_team(Calibrated(json.dump()).path());
  Session desk(team);
  const View then = desk.classify("sentiment", headline);
  const std::vector<double> now{0.2, 0.2, 0.6};
  const View view = desk.classify("sentiment", headline, {.prior_now = now});
  double sum = 0;
  for (std::size_t l = 0; l < 3; ++l) sum += then.probabilities[l] * now[l] / (l == 0 ? 0.5 : 0.25);
  for (std::size_t l = 0; l < 3; ++l) {
    CHECK(view.probabilities[l] == Approx(then.probabilities[l] * now[l] / (l == 0 ? 0.5 : 0.25) / sum));
  }
  CHECK(view.label_set == then.label_set);
  const std::vector<double> same{2, 1, 1}, two{1, 1}, zero{1, 0, 1}, huge{1, 1e300, 1};
  CHECK(desk.classify("sentiment", headline, {.prior_now = same}).probabilities[2] == Approx(then.probabilities[2]));
  const auto ask = [&](const std::vector<double>& prior, const char* task) {
    return [&desk, &prior, task] { (void)desk.classify(task, headline, {.prior_now = prior}); };
  };
  check_refused(ask(two, "sentiment"), Code::invalid_argument, "prior_now: expected 3 numbers");
  check_refused(ask(zero, "sentiment"), Code::invalid_argument, "prior_now: expected numbers above 0");
  check_refused(ask(huge, "sentiment"), Code::invalid_argument, "prior_now");
  check_refused(ask(now, "direction"), Code::invalid_argument, "no prior_then");
}

TEST_CASE("a calibration's file that makes no sense is refused, and the error names file and key", "[law5]") {
  const auto refuse = [](const std::function<void(Json&)>& change, Code code, const std::string& says) {
    Json json = calibration(2, 0.5);
    change(json);
    const Calibrated folder(json.dump());
    check_refused([&] { (void)open_team(folder.path()); }, code, says);
  };
  refuse([](Json& c) { c.erase("finteam_calibration"); }, Code::not_found, "sentiment.calibration.json");
  refuse([](Json& c) { c["finteam_calibration"] = 2; }, Code::malformed, "finteam_calibration");
  refuse([](Json& c) { c["tempreature"] = 2; }, Code::unsupported, "sentiment.calibration.json: tempreature");
  refuse([](Json& c) { c.erase("temperature"); }, Code::not_found, "temperature");
  for (const Json& bad : {Json(0), Json(-1), Json(1e9), Json("2"), Json(nullptr)}) {
    refuse([&](Json& c) { c["temperature"] = bad; }, Code::malformed, "temperature");
  }
  refuse([](Json& c) { c["threshold"] = 1.01; }, Code::malformed, "threshold: expected a number from 0");
  refuse([](Json& c) { c["threshold"] = -0.1; }, Code::malformed, "threshold");
  refuse([](Json& c) { c["coverage"] = 1; }, Code::malformed, "coverage: expected a number between 0 and 1");
  refuse([](Json& c) { c["coverage"] = 0; }, Code::malformed, "coverage");
  refuse([](Json& c) { c["samples"] = 0; }, Code::malformed, "samples");
  refuse([](Json& c) { c["samples"] = 1.5; }, Code::malformed, "samples");
  refuse([](Json& c) { c["prior_then"] = 3; }, Code::malformed, "prior_then");
  refuse([](Json& c) { c["prior_then"] = {0.5, 0.5}; }, Code::mismatch, "prior_then: expected 3 numbers");
  refuse([](Json& c) { c["prior_then"] = Json::array(); }, Code::mismatch, "prior_then: expected 3 numbers");
  refuse([](Json& c) { c["prior_then"] = {0.5, 0, 0.5}; }, Code::malformed, "prior_then[1]: expected a number above 0");
  const auto open = [](const std::string& text) { return [text] { (void)open_team(Calibrated(text).path()); }; };
  check_refused(open(R"({"finteam_calibration": 1, "temperature": NaN})"), Code::malformed,
                "sentiment.calibration.json");
  check_refused(open("[]"), Code::malformed, "an object");
  const test::TeamFolder climbs([](Json& team) { team["tasks"]["sentiment"]["calibration"] = "../c.json"; });
  check_refused([&] { (void)open_team(climbs.path()); }, Code::malformed, "tasks.sentiment.calibration");
  const test::TeamFolder gone([](Json& team) { team["tasks"]["sentiment"]["calibration"] = "c.json"; });
  check_refused([&] { (void)open_team(gone.path()); }, Code::not_found, "c.json");
}

TEST_CASE("a task's own calibration is checked when it is asked", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const auto refuse = [&](const std::function<void(LabelCalibration&)>& change, const std::string& says) {
    Task task = team.task("sentiment");
    change(task.calibration.emplace());
    check_refused([&] { (void)desk.classify(task, headline); }, Code::invalid_argument, says);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  refuse([](auto& c) { c.temperature = 0; }, "temperature");
  refuse([&](auto& c) { c.temperature = nan; }, "temperature");
  refuse([&](auto& c) { c.threshold = nan; }, "threshold");
  refuse([&](auto& c) { c.coverage = nan; }, "coverage");
  refuse([](auto& c) { c.samples = 0; }, "samples");
  refuse([](auto& c) { c.prior_then = {1, 2}; }, "prior_then");
  refuse([&](auto& c) { c.prior_then = {1, 2, nan}; }, "prior_then");
}

TEST_CASE("a fitted calibration keeps its promise on the bundled team, and is read as it was written", "[team]") {
  const auto team = open_team(source / "examples" / "mini-team");
  Session desk(team);
  const auto examples = directions(team.task("direction"));
  REQUIRE(examples.size() == 394);
  const CalibrationFit fit = fit_calibration(desk, "direction", examples, {.held_out = 0.3, .seed = 1});
  const auto line = [](const char* when, const FitQuality& q) {
    return std::string(when) + ": accuracy " + std::to_string(q.accuracy) + ", NLL " +
           std::to_string(q.negative_log_likelihood) + ", ECE " + std::to_string(q.calibration_error);
  };
  INFO(line("before", fit.before) << "\n" << line("after", fit.after));
  INFO("temperature " << fit.calibration.temperature << ", threshold " << fit.calibration.threshold << ", coverage "
                      << fit.coverage << ", labels in a set " << fit.set_size);
  CHECK(fit.before.samples == 118);
  CHECK(fit.calibration.samples == 157);
  CHECK(fit.after.accuracy == fit.before.accuracy);
  CHECK(fit.after.negative_log_likelihood < fit.before.negative_log_likelihood);
  CHECK(fit.after.calibration_error < fit.before.calibration_error);
  CHECK(fit.coverage > 0.83);
  CHECK(fit.set_size < 3);
  REQUIRE(fit.calibration.prior_then.size() == 3);
  CHECK(fit.calibration.prior_then[0] == Approx(191.0 / 394));

  const test::TemporaryFolder folder;
  fit.write(folder.path() / "direction.calibration.json");
  const LabelCalibration read = open_label_calibration(folder.path() / "direction.calibration.json", 3);
  CHECK(read.temperature == fit.calibration.temperature);
  CHECK(read.threshold == fit.calibration.threshold);
  CHECK(read.coverage == fit.calibration.coverage);
  CHECK(read.samples == fit.calibration.samples);
  CHECK(read.prior_then == fit.calibration.prior_then);
  // a task that has one is fitted as if it had none
  Task task = team.task("direction");
  task.calibration = fit.calibration;
  task.abstain.most_labels = 1;
  const CalibrationFit again = fit_calibration(desk, task, examples, {.held_out = 0.3, .seed = 1});
  CHECK(again.calibration.temperature == fit.calibration.temperature);
  CHECK(again.calibration.threshold == fit.calibration.threshold);
}

TEST_CASE("a calibration cannot be fitted to what makes no sense", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  std::vector<LabelExample> examples(10, LabelExample{headline, 1});
  const auto refuse = [&](const CalibrationOptions& options, const std::string& says) {
    check_refused([&] { (void)fit_calibration(desk, "sentiment", examples, options); }, Code::invalid_argument, says);
  };
  refuse({.coverage = 1}, "coverage");
  refuse({.for_threshold = 0}, "for_threshold");
  refuse({.for_threshold = 0.5, .held_out = 0.5}, "held_out");
  refuse({.for_threshold = 0.05}, "some for each share");
  examples[3].label = 3;
  refuse({}, "label: expected 0 to 2, found 3");
  examples.clear();
  refuse({}, "examples");
  examples.assign(10, LabelExample{headline, 1});
  const CalibrationFit fit = fit_calibration(desk, "sentiment", examples, {.held_out = 0});
  CHECK(fit.before.samples == 0);
  CHECK(fit.coverage == 0);
  CHECK(fit.calibration.prior_then.empty());  // two labels never came
  CHECK(fit.calibration.threshold >= 0);
  CHECK(fit.calibration.threshold <= 1);
}
