// A gate learned from labelled prompts: what it reads is what the opened gate reads, and what it says is the
// regression's.

#include "catch.hpp"
#include "team/answers.hpp"
#include "team/shared_folder.hpp"

#include <finteam/team/fit_gate.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

using namespace finteam;
using test::quiet;

namespace {

/// Prompts that differ by role, and one more for each that is not learned from.
struct Prompts {
  std::vector<GateExample> learned, held_out;
};

Prompts prompts() {
  const std::vector<std::vector<std::string>> texts = {
      {"The Committee raised its target range", "Inflation stayed above 2 percent", "Unemployment fell in March",
       "Consumer spending slowed again", "Members judged that rates were high", "Industrial production rose"},
      {"Profit rose 12% in the third quarter", "The company cut its outlook", "Shares fell after the results",
       "Revenue missed by $0.02", "The board approved a merger", "Analysts raised their targets"},
      {"2015-09-21: +0.2, +1.3, +0.1", "2017 | 2018 | 2019", "Total | 5,810 | 4,905", "-0.8, -0.1, -1.5, -1.02",
       "12.5% of 1,208 is 151", "(0.3 + 0.7) / 2 = 0.5"}};
  Prompts p;
  for (std::size_t k = 0; k < texts.size(); ++k) {
    for (std::size_t i = 0; i < texts[k].size(); ++i) {
      (i == 5 ? p.held_out : p.learned).push_back({texts[k][i], static_cast<std::int32_t>(k)});
    }
  }
  return p;
}

void prior(Json& team) { team["gate"] = {{"reads", "prior"}, {"prior", {1, 1, 1}}}; }

/// Opens a folder's team with a fitted gate and compares its weights with softmax(W x + b), x being the embedding.
void check_round_trip(const test::fs::path& folder, const GateFitOptions& options, const GateFit& fit) {
  Json json = parse_json(MappedFile::open(folder / "team.json").text(), "team.json");
  json["gate"] = {{"file", "fitted.safetensors"},
                  {"reads", gate_reads_names[static_cast<std::size_t>(options.reads)]},
                  {"of", options.of}};
  if (options.layer) json["gate"]["layer"] = *options.layer;
  test::write(folder / "team.json", json.dump());
  fit.write(folder / "fitted.safetensors");
  const auto team = open_team(folder);
  Session desk(team);
  const auto n = static_cast<index_t>(fit.bias.size()), d = static_cast<index_t>(fit.weight.size()) / n;
  REQUIRE(team.gate()->weight.extent(1) == d);
  CHECK(std::equal(fit.weight.begin(), fit.weight.end(), team.gate()->weight.data()));
  CHECK(std::equal(fit.bias.begin(), fit.bias.end(), team.gate()->bias.data()));
  for (const GateExample& example : prompts().held_out) {
    const EmbedOptions what{.of = options.of,
                            .layer = options.reads == GateReads::mean_embedding ? 0 : options.layer,
                            .pooling = options.reads == GateReads::last_hidden ? Pooling::last : Pooling::mean,
                            .form = options.form};
    const auto x = desk.embed(example.prompt, what).span();
    std::vector<double> feature(x.begin(), x.end()), expected(3);
    linear_scores({fit.weight.data(), {n, d}}, fit.bias, feature, expected);
    softmax(expected);
    const Roles& roles = options.form == PromptForm::chat
                             ? desk.generate(example.prompt, quiet, {.max_tokens = 1}).roles
                             : desk.complete(example.prompt, quiet, {.max_tokens = 1}).roles;
    for (std::size_t k = 0; k < 3; ++k) CHECK(roles[k].weight == Approx(expected[k]).margin(1e-4));
  }
}

}  // namespace

TEST_CASE("a fitted gate opens and weighs as the regression predicts", "[team]") {
  const GateReads reads = GENERATE(GateReads::mean_hidden, GateReads::last_hidden, GateReads::mean_embedding);
  const PromptForm form = GENERATE(PromptForm::chat, PromptForm::text);
  const bool layer = GENERATE(false, true);
  if (layer && reads == GateReads::mean_embedding) return;
  const test::TeamFolder folder(prior);
  GateFitOptions options{.reads = reads, .of = "quant", .form = form};
  options.regression.held_out = 0;
  if (layer) options.layer = 1;
  const auto learned = prompts().learned;
  const GateFit fit = fit_gate(open_team(folder.path()), learned, options);
  CHECK(fit.training.samples == 15);
  CHECK(fit.training.accuracy > 0.9);
  CHECK(fit.held_out.samples == 0);
  check_round_trip(folder.path(), options, fit);
}

TEST_CASE("a gate can be fitted on a shared base or a role of it, whatever gate the team has", "[team]") {
  const char* of = GENERATE("base", "macro");
  const char* gate = GENERATE("prior", "linear");
  const test::SharedFolder folder(
      [&](Json& team) {
        if (std::string(gate) == "prior") prior(team);
      },
      0.5F);
  const auto learned = prompts().learned;
  const GateFitOptions options{.of = of};
  const auto team = open_team(folder.path());
  const GateFit fit = fit_gate(team, learned, options);
  CHECK(fit.training.samples + fit.held_out.samples == 15);
  CHECK(fit.held_out.samples == 3);
  // the same on any executor's side, and a second time
  const GateFit again = fit_gate(team, learned, options);
  CHECK(again.weight == fit.weight);
  CHECK(again.bias == fit.bias);
  check_round_trip(folder.path(), options, fit);
}

TEST_CASE("a gate cannot be fitted to what makes no sense", "[refused]") {
  const auto team = open_team(test::golden_team());
  std::vector<GateExample> learned = prompts().learned;
  const auto refuse = [&](const GateFitOptions& options, Code code, const std::string& says) {
    try {
      (void)fit_gate(team, learned, options);
      FAIL("was not refused: " << says);
    } catch (const Error& e) {
      CAPTURE(e.what(), says);
      CHECK(name(e.code()) == name(code));
      CHECK(std::string(e.what()).find(says) != std::string::npos);
    }
  };
  refuse({.reads = GateReads::likelihood}, Code::invalid_argument, "what a linear gate reads, found prompt_likelihood");
  refuse({.reads = GateReads::mean_embedding, .layer = 1}, Code::invalid_argument, "layer");
  refuse({.of = "nano"}, Code::not_found, "nano");
  refuse({.layer = 99}, Code::invalid_argument, "layer");
  refuse({.regression = {.l2 = -1}}, Code::invalid_argument, "l2");
  refuse({.limits = {.tokens = 4}}, Code::limit_exceeded, "at most 4 tokens");
  learned[2].role = 3;
  refuse({}, Code::invalid_argument, "classes 0 to 2, found 3");
  learned.erase(learned.begin() + 5, learned.end());
  learned[2].role = 0;
  refuse({}, Code::invalid_argument, "none of role micro");
  learned.clear();
  refuse({}, Code::invalid_argument, "none of role macro");
}

TEST_CASE("a gate fitted on the bundled team routes prompts that it has not seen, with their instruction and without",
          "[team]") {
  const test::fs::path source = FINTEAM_SOURCE_DIR;
  const auto team = open_team(source / "examples" / "mini-team");
  std::vector<GateExample> learned, with, without;
  std::ifstream in(source / "training" / "data" / "routing.jsonl");
  std::string line;
  for (int n = 0; std::getline(in, line); ++n) {
    const Json json = parse_json(line, "line");
    const auto role = static_cast<std::int32_t>(team.index_of(json.at("role").get<std::string>()));
    const std::string prompt = json.at("prompt"), whole = json.at("instruction").get<std::string>() + prompt;
    const bool held_out = n / 3 % 3 == 0;
    (held_out ? with : learned).push_back({whole, role});
    (held_out ? without : learned).push_back({prompt, role});
  }
  REQUIRE(learned.size() == 156);
  REQUIRE(without.size() == 42);
  const GateFit fit = fit_gate(team, learned, {.of = "micro"});
  Session desk(team);
  const auto right = [&](const std::vector<GateExample>& examples) {
    double count = 0;
    for (const GateExample& example : examples) {
      const auto x = desk.embed(example.prompt, {.of = "micro", .form = PromptForm::chat}).span();
      const std::vector<double> feature(x.begin(), x.end());
      std::vector<double> scores(3);
      linear_scores({fit.weight.data(), {3, static_cast<index_t>(x.size())}}, fit.bias, feature, scores);
      count += std::max_element(scores.begin(), scores.end()) - scores.begin() == example.role ? 1 : 0;
    }
    return count / static_cast<double>(examples.size());
  };
  CHECK(right(with) >= 0.9);
  CHECK(right(without) >= 0.9);
}
