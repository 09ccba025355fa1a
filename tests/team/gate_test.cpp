// Every kind of gate on whole teams: what it reads, when it weighs, and that only who is asked runs.

#include "catch.hpp"
#include "team/answers.hpp"
#include "team/shared_folder.hpp"

#include <finteam/team/session.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

using namespace finteam;
using test::headline;
using test::quiet;

namespace {

Json linear(const char* reads, const char* of, const char* per, int top_k) {
  return {{"file", "gate.safetensors"}, {"reads", reads}, {"of", of}, {"per", per}, {"top_k", top_k},
          {"temperature", 20}};
}

std::vector<double> weights_of(const Roles& roles) {
  std::vector<double> w;
  for (const RoleView& role : roles) w.push_back(role.weight);
  return w;
}

std::vector<std::int32_t> ids_of(const Team<Cpu>& team) {
  std::vector<std::int32_t> ids(team.tokenizer().prefix().begin(), team.tokenizer().prefix().end());
  for (const auto id : team.tokenizer().encode(headline)) ids.push_back(id);
  return ids;
}

/// What a team writes, greedily, when at every token everything is read and weighed from the start.
struct Plainly {
  std::vector<std::int32_t> ids;
  double log_probability = 0;
  std::vector<std::vector<double>> weights;
};

Plainly write_plainly(const Team<Cpu>& team, int tokens) {
  Cpu b;
  const SessionLimits limits = detail::checked({}, team.context());
  RoleReaders<Cpu> readers(b, team, limits);
  const auto n = static_cast<index_t>(team.roles().size()), v = team.vocab_size();
  const GateSettings& settings = team.gate()->settings;
  std::vector<std::int32_t> all = ids_of(team);
  Plainly out;
  for (int i = 0; i < tokens; ++i) {
    RoleGate gate(&*team.gate(), n, team.widest_hidden());
    gate.start();
    readers.start(limits.tokens, static_cast<index_t>(all.size()));
    const auto of = static_cast<index_t>(settings.of);
    const auto see = [&](MatrixView<const float> states) { gate.see(states); };
    if (settings.reads == GateReads::mean_embedding) {
      readers.embeddings(b, of < n ? std::optional(of) : std::nullopt, all, see);
    } else {
      REQUIRE(!readers.read(b, {&of, 1}, all, {}, of, settings.layer, see));
    }
    std::vector<double> w(static_cast<std::size_t>(n));
    gate.weigh(w);
    out.weights.push_back(w);
    Tensor<float, 2> logits({readers.count(), v});
    std::vector<float> mixed(static_cast<std::size_t>(v));
    for (index_t k = 0; k < n; ++k) {
      if (w[static_cast<std::size_t>(k)] == 0) continue;
      REQUIRE(!readers.read(b, {&k, 1}, all, {}));
      readers.logits(b, {&k, 1}, logits.view());
    }
    mix_next_token(team.mix_in(), w, logits.view().rows(0, n), mixed);
    for (const auto id : team.absent_ids()) mixed[static_cast<std::size_t>(id)] = -INFINITY;
    const auto best = std::max_element(mixed.begin(), mixed.end()) - mixed.begin();
    out.log_probability += static_cast<double>(mixed[static_cast<std::size_t>(best)]);
    out.ids.push_back(static_cast<std::int32_t>(best));
    all.push_back(out.ids.back());
  }
  return out;
}

}  // namespace

TEST_CASE("a gate by token weighs anew, and sleepers catch up exactly", "[team][law3]") {
  const int top_k = GENERATE(1, 2);
  const char* reads = GENERATE("prompt_mean_hidden", "prompt_last_hidden", "prompt_mean_embedding");
  const std::string shape = GENERATE("separate", "adapters", "adapters, the base's", "low-bit", "low-bit, the base's");
  CAPTURE(top_k, reads, shape);
  const char* of = shape.ends_with("the base's") ? "base" : "micro";
  const auto change = [&](Json& team) { team["gate"] = linear(reads, of, "token", top_k); };
  const test::TeamFolder separate(change);
  const test::SharedFolder shared(change, 0.5F);
  if (shape.starts_with("low-bit")) {  // beside an adapter
    shared.make_low_bit("macro", Format::int1, 0.2F, 5);
    shared.make_low_bit("micro", Format::int2, 0.2F, 6);
  }
  const auto team = open_team(shape == "separate" ? separate.path() : shared.path());
  const Plainly expected = write_plainly(team, 14);
  Session desk(team);
  const Generation found = desk.complete(headline, quiet, {.max_tokens = 14, .stop_ids = {}});
  REQUIRE(found.ids.size() <= expected.ids.size());
  CHECK(std::equal(found.ids.begin(), found.ids.end(), expected.ids.begin()));
  if (found.ids.size() == expected.ids.size()) CHECK(found.log_probability == expected.log_probability);
  // a second answer of the same session is the same
  const Generation again = desk.complete(headline, quiet, {.max_tokens = 14, .draft = Draft::favourite});
  CHECK(again.ids == found.ids);
  CHECK(again.log_probability == found.log_probability);
  CHECK(again.drafted == 0);
}

TEST_CASE("a gate by token changes its mind within a text", "[team]") {
  const test::TeamFolder folder([](Json& team) {
    team["gate"] = linear("prompt_last_hidden", "micro", "token", 1);
    team["gate"]["temperature"] = 1;
  });
  const auto team = open_team(folder.path());
  const Plainly plainly = write_plainly(team, 24);
  Session desk(team);
  const auto mean =
      weights_of(desk.complete(headline, quiet, {.max_tokens = 24}).roles);  // one role at a time is awake
  CHECK(std::any_of(mean.begin(), mean.end(), [](double w) { return w > 0 && w < 1; }));
  CHECK(std::any_of(plainly.weights.begin(), plainly.weights.end(),
                    [&](const auto& w) { return w != plainly.weights[0]; }));
}

TEST_CASE("a gate that reads a named layer sees the states after so many blocks", "[team]") {
  const auto with_layer = [](int layer, const char* reads) {
    return test::TeamFolder([=](Json& team) {
      team["gate"] = linear(reads, "micro", "prompt", 3);
      if (layer >= 0) team["gate"]["layer"] = layer;
    });
  };
  const auto weights = [](const test::TeamFolder& folder) {
    const auto team = open_team(folder.path());
    Session desk(team);
    return weights_of(desk.score(headline).roles);
  };
  const auto last = weights(with_layer(-1, "prompt_mean_hidden"));
  CHECK(weights(with_layer(2, "prompt_mean_hidden")) == last);
  CHECK(weights(with_layer(1, "prompt_mean_hidden")) != last);
  // nothing has been added to the embeddings yet
  CHECK(weights(with_layer(0, "prompt_mean_hidden")) == weights(with_layer(-1, "prompt_mean_embedding")));
  const test::TeamFolder deep = with_layer(3, "prompt_mean_hidden");
  CHECK_THROWS_AS(open_team(deep.path()), Error);
}

TEST_CASE("a fixed prior is the weights, whatever is read", "[team]") {
  const test::TeamFolder folder([](Json& team) { team["gate"] = {{"reads", "prior"}, {"prior", {1, 2, 5}}}; });
  const auto team = open_team(folder.path());
  Session desk(team);
  const auto w = weights_of(desk.classify("sentiment", headline).roles);
  CHECK(w[0] == Approx(0.125));
  CHECK(w[1] == Approx(0.25));
  CHECK(w[2] == Approx(0.625));
  CHECK(weights_of(desk.score("prices").roles) == w);
}

TEST_CASE("weights by likelihood are the posterior of the prompt, and by token of all that came since", "[team]") {
  const char* per = GENERATE("prompt", "token");
  const test::TeamFolder folder([&](Json& team) {
    team["gate"] = {{"reads", "prompt_likelihood"}, {"prior", {1, 3, 2}}, {"per", per}, {"temperature", 40}};
  });
  const test::TeamFolder flat([](Json& team) { team["gate"] = {{"reads", "prior"}, {"prior", {1, 1, 1}}}; });
  const auto team = open_team(folder.path()), plain = open_team(flat.path());
  Session desk(team), other(plain);
  const Score alone = other.score(headline);  // each role's own log-probability
  std::vector<double> expected{std::log(1.0), std::log(3.0), std::log(2.0)};
  for (std::size_t k = 0; k < 3; ++k) expected[k] += alone.roles[k].scores.at(0);
  softmax(expected, 40.0);
  const Generation one = desk.complete(headline, quiet, {.max_tokens = 1});
  for (std::size_t k = 0; k < 3; ++k) CHECK(one.roles[k].weight == Approx(expected[k]).margin(1e-6));
  const Generation more = desk.complete(headline, quiet, {.max_tokens = 12});
  const bool moved = std::abs(more.roles[0].weight - one.roles[0].weight) > 1e-6;
  CHECK(moved == (std::string(per) == "token"));
}

TEST_CASE("weights by performance follow what the host reports, and can be saved and restored", "[team]") {
  const test::TeamFolder folder([](Json& team) { team["gate"] = {{"reads", "performance"}, {"rate", 1.0}}; });
  const auto team = open_team(folder.path());
  Session desk(team);
  const auto before = weights_of(desk.score(headline).roles);
  CHECK(before[0] == Approx(1.0 / 3));
  const std::vector<double> macro_was_right{0.1, 2.0, 3.0};
  desk.report(macro_was_right);
  desk.report(macro_was_right);
  const auto after = weights_of(desk.score(headline).roles);
  CHECK(after[0] > 0.9);
  const std::vector<double> state(desk.gate_state().begin(), desk.gate_state().end());
  Session replay(team);
  replay.restore_gate(state);
  CHECK(weights_of(replay.score(headline).roles) == after);
  CHECK(replay.score(headline).log_probability == desk.score(headline).log_probability);
  const std::vector<double> two{1, 2};
  CHECK_THROWS_AS(desk.report(two), Error);
  const auto other = open_team(test::golden_team());
  Session linear_gate(other);
  CHECK_THROWS_AS(linear_gate.report(macro_was_right), Error);
}

TEST_CASE("a score by a gate by token is the same again, and its weights sum to one", "[team]") {
  const char* reads = GENERATE("prompt_last_hidden", "prompt_likelihood");
  const test::TeamFolder folder([&](Json& team) {
    if (std::string(reads) == "prompt_likelihood") {
      team["gate"] = {{"reads", reads}, {"per", "token"}};
    } else {
      team["gate"] = linear(reads, "quant", "token", 2);
    }
  });
  const auto team = open_team(folder.path());
  Session desk(team);
  const Score first = desk.score(headline), second = desk.score(headline);
  CHECK(first.log_probability == second.log_probability);
  double total = 0;
  for (const RoleView& role : first.roles) total += role.weight;
  CHECK(total == Approx(1));
  // so blunt a gate weighs all alike at every token, as a prior does
  const test::TeamFolder blunt([&](Json& json) {
    json["gate"] = linear("prompt_last_hidden", "quant", "token", 3);
    json["gate"]["temperature"] = 1e6;
  });
  const test::TeamFolder flat([](Json& json) { json["gate"] = {{"reads", "prior"}, {"prior", {1, 1, 1}}}; });
  const auto one = open_team(blunt.path()), other = open_team(flat.path());
  Session by_token(one), by_prompt(other);
  CHECK(by_token.score(headline).log_probability == Approx(by_prompt.score(headline).log_probability).epsilon(1e-5));
}

TEST_CASE("a floor keeps every role awake, and top-k without it lets the others sleep", "[team]") {
  const test::TeamFolder folder([](Json& team) {
    team["gate"]["temperature"] = 0.05;
    team["gate"]["top_k"] = 3;
    team["gate"]["floor"] = 0.1;
  });
  const auto team = open_team(folder.path());
  Session desk(team);
  for (const double w : weights_of(desk.score(headline).roles)) CHECK(w >= 0.1 * 0.999999);
}

TEST_CASE("a gate that makes no sense is refused by its key", "[refused]") {
  const auto refuse = [](const Json& gate, const std::string& words, const char* mix = "probabilities") {
    const test::TeamFolder folder([&](Json& team) {
      team["gate"] = gate;
      team["mix_in"] = mix;
    });
    try {
      (void)open_team(folder.path());
      FAIL("was not refused: " << words);
    } catch (const Error& e) {
      CAPTURE(e.what());
      CHECK(std::string(e.what()).find(words) != std::string::npos);
    }
  };
  refuse({{"reads", "tea leaves"}}, "one of prior, prompt_mean_hidden");
  refuse({{"reads", "prior"}}, "prior");
  refuse({{"reads", "prior"}, {"prior", {1, 2}}}, "3 numbers");
  refuse({{"reads", "prior"}, {"prior", {1, 0, 2}}}, "above 0");
  refuse({{"reads", "prior"}, {"prior", {1, 1, 2}}, {"of", "micro"}}, "no use for it");
  refuse({{"reads", "prior"}, {"prior", {1, 1, 2}}, {"per", "token"}}, "reads no tokens");
  refuse({{"reads", "prompt_mean_hidden"}, {"of", "micro"}}, "file");
  refuse({{"reads", "performance"}, {"rate", -1}}, "rate");
  refuse({{"reads", "prompt_likelihood"}, {"floor", 0.5}}, "floor");
  refuse({{"reads", "prompt_likelihood"}, {"top_k", 2}, {"renormalise", false}}, "renormalise");
}
