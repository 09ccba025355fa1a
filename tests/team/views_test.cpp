// What a session shows as numbers: states, a role's logits, the mixed next token; and as Eigen's maps.

#include "catch.hpp"
#include "team/answers.hpp"
#include "team/shared_folder.hpp"

#include <finteam/core/eigen.hpp>
#include <finteam/team/session.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

using namespace finteam;
using test::headline;
using test::only_micro;
using test::quiet;

namespace {

std::vector<float> copy(VectorView<const float> v) { return {v.data(), v.data() + v.size()}; }

void by_prior(Json& team) { team["gate"] = {{"reads", "prior"}, {"prior", {3, 2, 1}}}; }

}  // namespace

TEST_CASE("an embedding is what the gate reads", "[team]") {
  const char* reads = GENERATE("prompt_mean_hidden", "prompt_last_hidden", "prompt_mean_embedding");
  const int layer = GENERATE(-1, 1);
  if (std::string(reads) == "prompt_mean_embedding" && layer >= 0) return;
  CAPTURE(reads, layer);
  const test::TeamFolder folder([&](Json& team) {
    team["gate"]["reads"] = reads;
    team["gate"]["of"] = "micro";
    team["gate"]["top_k"] = 3;
    team["gate"]["temperature"] = 10;
    if (layer >= 0) team["gate"]["layer"] = layer;
  });
  const auto team = open_team(folder.path());
  EmbedOptions options{.of = "micro", .form = PromptForm::chat};
  if (layer >= 0) options.layer = layer;
  if (std::string(reads) == "prompt_mean_embedding") options.layer = 0;
  if (std::string(reads) == "prompt_last_hidden") options.pooling = Pooling::last;
  Session desk(team, {.rows = 9});
  const auto x = desk.embed(headline, options);
  REQUIRE(x.size() == team.decoder(1).config().d);
  // the gate's own formula, by Eigen
  const Gate& gate = *team.gate();
  const Eigen::VectorXf scores = as_eigen(gate.weight.view()) * as_eigen(x) + as_eigen(gate.bias.view());
  Eigen::ArrayXf w = ((scores.array() - scores.maxCoeff()) / 10).exp();
  w /= w.sum();
  const Generation& said = desk.generate(headline, quiet, {.max_tokens = 1});
  for (std::size_t k = 0; k < 3; ++k) CHECK(said.roles[k].weight == Approx(w[static_cast<index_t>(k)]).margin(1e-5));
}

TEST_CASE("the first role is read if none is named, and each has states of its own", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const auto first = copy(desk.embed(headline)), macro = copy(desk.embed(headline, {.of = "macro"})),
             quant = copy(desk.embed(headline, {.of = "quant"}));
  CHECK(first == macro);
  CHECK(first != quant);
  CHECK(copy(desk.embed(headline, {.form = PromptForm::chat})) != first);
  CHECK(copy(desk.embed(headline)) == first);
}

TEST_CASE("layer 0 is the input embeddings, and the last layer is the final state", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const index_t layers = team.decoder(0).config().layers;
  CHECK(copy(desk.embed(headline, {.layer = layers})) == copy(desk.embed(headline)));
  const auto last = copy(desk.embed(headline, {.layer = 0, .pooling = Pooling::last}));
  // the last token's own embedding, whatever came before
  CHECK(copy(desk.embed("Rates fell 2 percent", {.layer = 0, .pooling = Pooling::last})) == last);
  CHECK(copy(desk.embed("Rates fell 2 percent", {.layer = 1, .pooling = Pooling::last})) !=
        copy(desk.embed(headline, {.layer = 1, .pooling = Pooling::last})));
}

TEST_CASE("a role's next logits are those that it generates from", "[team]") {
  const test::TeamFolder folder(only_micro), all;
  const auto one = open_team(folder.path()), three = open_team(all.path());
  Session alone(one), desk(three);
  const auto logits = copy(alone.next_logits(headline, "micro"));
  CHECK(copy(desk.next_logits(headline, "micro")) == logits);
  CHECK(copy(desk.next_logits(headline, "macro")) != logits);
  auto expected = logits;
  log_softmax(expected);
  CHECK(copy(alone.next_log_probabilities(headline)) == expected);
  const Generation& said = alone.complete(headline, quiet, {.max_tokens = 1});
  CHECK(static_cast<double>(expected[static_cast<std::size_t>(said.ids[0])]) == said.log_probability);
}

TEST_CASE("the team's next token is the mixture of its roles'", "[team][law1]") {
  const char* mix_in = GENERATE("probabilities", "logits");
  const test::TeamFolder folder([&](Json& team) {
    by_prior(team);
    team["mix_in"] = mix_in;
  });
  const auto team = open_team(folder.path());
  Session desk(team);
  const auto found = copy(desk.next_log_probabilities(headline));
  CHECK(std::exp(log_sum_exp(found)) == Approx(1));
  Eigen::ArrayXd mixed = Eigen::ArrayXd::Zero(team.vocab_size());
  const double weight[] = {0.5, 1.0 / 3, 1.0 / 6};
  for (std::size_t k = 0; k < 3; ++k) {
    const Eigen::ArrayXd z = as_eigen(desk.next_logits(headline, team.roles()[k].name)).cast<double>().array();
    const Eigen::ArrayXd p = (z - z.maxCoeff()).exp() / (z - z.maxCoeff()).exp().sum();
    mixed += weight[k] * (std::string(mix_in) == "logits" ? z : p);
  }
  if (std::string(mix_in) == "logits")
    mixed = (mixed - mixed.maxCoeff()).exp() / (mixed - mixed.maxCoeff()).exp().sum();
  for (std::size_t i = 0; i < found.size(); ++i) {
    CHECK(std::exp(static_cast<double>(found[i])) == Approx(mixed[static_cast<index_t>(i)]).epsilon(1e-4).margin(1e-9));
  }
  const Generation& said = desk.complete(headline, quiet, {.max_tokens = 1});
  CHECK(static_cast<double>(found[static_cast<std::size_t>(said.ids[0])]) == said.log_probability);
}

TEST_CASE("a gate by token weighs the next token as it does when the team writes", "[team]") {
  const test::TeamFolder folder([](Json& team) {
    team["gate"]["per"] = "token";
    team["gate"]["temperature"] = 20;
  });
  const auto team = open_team(folder.path());
  Session desk(team);
  const Generation said = desk.complete(headline, quiet, {.max_tokens = 1});
  const auto found = copy(desk.next_log_probabilities(headline));
  CHECK(static_cast<double>(found[static_cast<std::size_t>(said.ids[0])]) == said.log_probability);
}

TEST_CASE("the base of a shared team can be seen, and its roles are as they were afterwards", "[team]") {
  const char* shape = GENERATE("prior", "gate reads the base", "deltas");
  CAPTURE(shape);
  const test::SharedFolder folder(
      [&](Json& team) {
        if (std::string(shape) == "prior") by_prior(team);
        if (std::string(shape) == "deltas") team["mix_in"] = "deltas";
      },
      0.5F);
  const auto team = open_team(folder.path()), plain = open_team(folder.path() / "base");
  Session desk(team), base(plain), fresh(team);
  const View before = fresh.classify("sentiment", headline, {.wake = Wake::all});
  const auto next = copy(fresh.next_log_probabilities(headline));
  for (const index_t layer : {0, 1, 2}) {
    CHECK(copy(desk.embed(headline, {.of = "base", .layer = layer})) == copy(base.embed(headline, {.layer = layer})));
  }
  CHECK(copy(desk.next_logits(headline, "base")) == copy(base.next_logits(headline, "expert")));
  CHECK(copy(desk.next_logits(headline, "macro")) != copy(desk.next_logits(headline, "base")));
  CHECK(copy(desk.next_log_probabilities(headline)) == next);
  CHECK(copy(desk.next_logits(headline, "macro")) == copy(fresh.next_logits(headline, "macro")));
  (void)desk.next_logits(headline, "base");
  const View after = desk.classify("sentiment", headline, {.wake = Wake::all});
  CHECK(after.probabilities == before.probabilities);
  for (std::size_t k = 0; k < 3; ++k) CHECK(after.roles[k].scores == before.roles[k].scores);
}

TEST_CASE("views have the same bits however the text is cut into steps", "[team][law3]") {
  const auto team = open_team(test::golden_team());
  Session whole(team), cut(team, {.rows = 16});
  CHECK(copy(cut.embed(headline, {.of = "quant", .layer = 1})) ==
        copy(whole.embed(headline, {.of = "quant", .layer = 1})));
  CHECK(copy(cut.next_logits(headline, "quant")) == copy(whole.next_logits(headline, "quant")));
  CHECK(copy(cut.next_log_probabilities(headline)) == copy(whole.next_log_probabilities(headline)));
}

TEST_CASE("views of what is not there are refused", "[refused]") {
  const auto team = open_team(test::golden_team());
  Session desk(team, {.tokens = 16});
  const auto code = [](auto&& call) {
    try {
      call();
    } catch (const Error& e) {
      return name(e.code());
    }
    return std::string_view("nothing");
  };
  CHECK(code([&] { (void)desk.embed(headline, {.of = "nano"}); }) == name(Code::not_found));
  CHECK(code([&] { (void)desk.embed(headline, {.of = "base"}); }) == name(Code::not_found));
  CHECK(code([&] { (void)desk.embed(headline, {.layer = 3}); }) == name(Code::invalid_argument));
  CHECK(code([&] { (void)desk.embed(headline, {.layer = -1}); }) == name(Code::invalid_argument));
  CHECK(code([&] { (void)desk.embed(" "); }) == name(Code::invalid_argument));
  CHECK(code([&] { (void)desk.embed(headline + headline); }) == name(Code::limit_exceeded));
  CHECK(code([&] { (void)desk.next_logits("", "macro"); }) == name(Code::invalid_argument));
  CHECK(code([&] { (void)desk.next_logits("Rates", ""); }) == name(Code::not_found));
  CHECK(code([&] { (void)desk.next_log_probabilities("\xFF"); }) == name(Code::malformed));
  std::stop_source stop;
  stop.request_stop();
  CHECK(code([&] { (void)desk.embed("Rates", {.interrupt = {.stop = stop.get_token()}}); }) == name(Code::cancelled));
  CHECK(code([&] { (void)desk.embed("Rates"); }) == "nothing");
}
