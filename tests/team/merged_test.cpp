// Merged checkpoints as teams: their routers are the gate, and the view says what they did.

#include "catch.hpp"
#include "counting_memory.hpp"
#include "team/answers.hpp"
#include "team/merged_team.hpp"

#include <finteam/backend/thread_pool.hpp>
#include <finteam/team/plan.hpp>

#include <cmath>

using namespace finteam;
using test::Answers;
using test::check_same_answers;
using test::quiet;

namespace {

constexpr const char* outlook = "Profit rose 12% in the third quarter, but the outlook for Zürich stays weak.";

/// The merged checkpoint as one role among none.
void as_one_role(Json& team) {
  team["roles"] = Json::parse(R"([{"name": "all", "path": "merged"}])");
  team.erase("merged");
}

template <class T>
Answers merged_answers(const T& team, const SessionLimits& limits = {}, Cpu backend = {}, Draft draft = Draft::none) {
  Session desk(team, limits, backend);
  Answers a;
  a.view = desk.classify("direction", outlook);
  a.score = desk.score(outlook);
  a.greedy = desk.generate(outlook, quiet, {.max_tokens = 24, .draft = draft});
  a.sampled = desk.complete("Shares of the bank", quiet,
                            {.max_tokens = 24, .sampling = {.temperature = 0.8F, .seed = 7}, .draft = draft});
  return a;
}

void check_same_routing(const Answers& a, const Answers& b) {
  const auto same = [](const Routing& x, const Routing& y) {
    CHECK_FALSE(x.empty());
    CHECK(x.prompt.weights == y.prompt.weights);
    CHECK(x.answer.weights == y.answer.weights);
  };
  same(a.view.routing, b.view.routing);
  same(a.score.routing, b.score.routing);
  same(a.greedy.routing, b.greedy.routing);
  same(a.sampled.routing, b.sampled.routing);
}

double sum(const RoutingTable& table, index_t layer) {
  double s = 0;
  for (index_t k = 0; k < table.experts; ++k) s += table(layer, k);
  return s;
}

}  // namespace

TEST_CASE("a merged team answers as its checkpoint does, and says what its routers did", "[team][law1]") {
  const test::Merged merged = test::merged_roles(GENERATE(false, true));
  const test::MergedTeam folder(merged), alone(merged, as_one_role);
  const auto team = open_team(folder.path()), one = open_team(alone.path());
  CHECK(team.is_merged());
  CHECK_FALSE(one.is_merged());
  REQUIRE(team.models().size() == 1);
  const Answers ours = merged_answers(team), plain = merged_answers(one);
  check_same_answers(ours, plain);
  CHECK(plain.view.routing.empty());
  const View& view = ours.view;
  CHECK(view.label == plain.view.label);
  CHECK(view.disagreement == 0);
  REQUIRE(view.roles.size() == 3);
  REQUIRE(view.routing.prompt.layers == 2);
  REQUIRE(view.routing.prompt.experts == 3);
  double total = 0;
  for (std::size_t k = 0; k < 3; ++k) {
    const RoleView& role = view.roles[k];
    CHECK(role.name == team.roles()[k].name);
    CHECK(role.awake);
    CHECK(role.label.empty());
    CHECK(role.scores.empty());
    CHECK(role.probabilities.empty());
    CHECK(role.weight == view.routing.prompt.mean(static_cast<index_t>(k)));
    CHECK(role.weight > 0.05);
    CHECK(ours.greedy.roles[k].weight == ours.greedy.routing.prompt.mean(static_cast<index_t>(k)));
    total += role.weight;
  }
  CHECK(std::abs(total - 1) < 1e-6);
  for (index_t l = 0; l < 2; ++l) {
    CHECK(std::abs(sum(view.routing.prompt, l) - 1) < 1e-6);
    CHECK(std::abs(sum(view.routing.answer, l) - 1) < 1e-6);
    CHECK(std::abs(sum(ours.greedy.routing.answer, l) - 1) < 1e-6);
    CHECK(sum(ours.score.routing.answer, l) == 0);
  }
  const std::string lines = to_string(view.roles);
  CHECK(lines.substr(0, 9) == "macro  0.");
  CHECK(std::count(lines.begin(), lines.end(), '\n') == 2);
}

TEST_CASE("a merged checkpoint without a team.json is a team of its experts", "[team]") {
  const bool fused = GENERATE(false, true);
  test::Merged merged(test::golden_roles(), 2);
  const test::MergedTeam named(merged);
  if (fused) merged.fuse();
  const test::TemporaryFolder bare;
  merged.write(bare.path());
  std::filesystem::create_symlink(test::golden_team() / "tokenizer.json", bare.path() / "tokenizer.json");
  const auto team = open_team(bare.path()), other = open_team(named.path());
  REQUIRE(team.roles().size() == 3);
  CHECK(team.roles()[0].name == "expert 0");
  CHECK(team.roles()[2].name == "expert 2");
  Session desk(team), named_desk(other);
  const Score score = desk.score(outlook), expected = named_desk.score(outlook);
  CHECK(score.log_probability == expected.log_probability);
  CHECK(score.routing.prompt.weights == expected.routing.prompt.weights);
  CHECK(desk.generate(outlook, quiet, {.max_tokens = 9}).ids ==
        named_desk.generate(outlook, quiet, {.max_tokens = 9}).ids);
}

TEST_CASE("the means of a routing are those of the weights that the decoder's routers gave", "[team]") {
  const test::MergedTeam folder;
  const auto team = open_team(folder.path());
  Session desk(team);
  const Generation answer = desk.complete(outlook, quiet, {.max_tokens = 12});
  auto text_scratch = team.tokenizer().scratch(1000);
  std::vector<std::int32_t> ids(team.tokenizer().prefix().begin(), team.tokenizer().prefix().end());
  team.tokenizer().encode(outlook, text_scratch, ids);
  const auto prompt = static_cast<index_t>(ids.size());
  REQUIRE(prompt == answer.prompt_tokens);
  ids.insert(ids.end(), answer.ids.begin(), answer.ids.end() - 1);  // the last one is not read
  const auto t = static_cast<index_t>(ids.size());

  Cpu b;
  const Decoder<Cpu>& decoder = team.decoder(0);
  const Config& c = decoder.config();
  KvCache<Cpu> cache(b, {c.layers, c.g, c.e, 1, t, KvCache<Cpu>::pages_for(t)});
  StepScratch<Cpu> scratch(b, c, t);
  Tensor<float, 2> hidden({t, c.d});
  const auto sequence = cache.open();
  cache.extend(sequence, t);
  std::vector<Row> rows;
  for (const std::int32_t id : ids) rows.push_back({id, static_cast<std::int32_t>(rows.size()), sequence});
  REQUIRE(!decoder.forward(b, cache, rows, scratch, hidden.view()));
  const auto mean = [&](index_t l, index_t k, index_t first, index_t last) {
    double s = 0;
    for (index_t i = first; i < last; ++i) s += static_cast<double>(scratch.routing(b)(i, l, k));
    return s / static_cast<double>(last - first);
  };
  for (index_t l = 0; l < c.layers; ++l) {
    for (index_t k = 0; k < 3; ++k) {
      CHECK(answer.routing.prompt(l, k) == mean(l, k, 0, prompt));
      CHECK(answer.routing.answer(l, k) == mean(l, k, prompt, t));
    }
  }
}

TEST_CASE("a merged team answers the same on any threads, in any chunks, guessing ahead or not", "[law3]") {
  const Weights weights = GENERATE(Weights::stored, Weights::int4);
  const test::MergedTeam folder(test::merged_roles(GENERATE(false, true)));
  const auto team = open_team(folder.path(), {.weights = weights});
  const Answers expected = merged_answers(team);
  ThreadPool pool(3);
  const auto check = [&](const Answers& a) {
    check_same_answers(a, expected);
    check_same_routing(a, expected);
  };
  check(merged_answers(team, {.rows = 17}));
  check(merged_answers(team, {.rows = 33}, Cpu{ExecutorRef(pool)}));
  const Answers drafted = merged_answers(team, {}, {}, Draft::prompt);
  check(drafted);
  CHECK(drafted.greedy.drafted + drafted.sampled.drafted > drafted.greedy.kept + drafted.sampled.kept);
  check(merged_answers(team, {}, {}, Draft::favourite));
}

TEST_CASE("blocks without routers do not count in what a merged team's roles weigh", "[team]") {
  const test::MergedTeam folder(test::merged_roles(true, {1}));
  const auto team = open_team(folder.path());
  Session desk(team);
  const View view = desk.classify("direction", outlook);
  CHECK(sum(view.routing.prompt, 0) == 0);
  CHECK(std::abs(sum(view.routing.prompt, 1) - 1) < 1e-6);
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(view.roles[k].weight == view.routing.prompt(1, static_cast<index_t>(k)));
    CHECK(view.roles[k].weight > 0.05);
  }
}

TEST_CASE("a merged team of one role's copies is that role", "[law1]") {
  const Weights weights = GENERATE(Weights::stored, Weights::int8);
  const test::MergedTeam folder(test::Merged(std::vector<test::fs::path>(3, test::golden_team() / "micro"), 1));
  const test::TeamFolder plain([](Json& team) {
    team["roles"] = Json::parse(R"([{"name": "micro", "path": "micro"}])");
    team.erase("gate");
  });
  const OpenOptions options{.weights = weights};
  const Answers ours = merged_answers(open_team(folder.path(), options)),
                theirs = merged_answers(open_team(plain.path(), options));
  check_same_answers(ours, theirs);
  CHECK(ours.view.probability == theirs.view.probability);
}

TEST_CASE("asking all roles of a merged team asks the same", "[team]") {
  const test::MergedTeam folder;
  const auto team = open_team(folder.path());
  Session desk(team);
  const View chosen = desk.classify("sentiment", outlook);
  const View asked = desk.classify("sentiment", outlook, {.wake = Wake::all});
  CHECK(asked.probabilities == chosen.probabilities);
  CHECK(to_string(asked.roles) == to_string(chosen.roles));
}

TEST_CASE("a merged team takes the memory that was planned, packed or mapped", "[team]") {
  const Weights weights = GENERATE(Weights::stored, Weights::int4);
  const int layout = GENERATE(0, 1, 2);
  test::Merged merged = test::merged_roles(layout == 2);
  if (layout == 1) merged.fuse();
  const test::MergedTeam folder(merged);
  const auto near = [](std::size_t taken, std::uint64_t planned) {
    const auto a = static_cast<double>(taken), b = static_cast<double>(planned);
    return a <= 1.02 * b && b <= 1.02 * a;
  };
  test::CountingMemory weights_memory, session_memory;
  OpenOptions options{.weights = weights, .memory = &weights_memory};
  const Plan planned = plan(folder.path(), options, {.tokens = 300});
  const auto team = open_team(folder.path(), options);
  CAPTURE(weights_memory.now(), planned.weights);
  CHECK(near(weights_memory.now(), planned.weights));
  REQUIRE(planned.roles.size() == 3);
  CHECK(planned.roles[0].weights == planned.roles[2].weights);
  CHECK(planned.base + 3 * planned.roles[1].weights == planned.weights);
  const Session desk(team, {.tokens = 300, .memory = &session_memory});
  CAPTURE(session_memory.now(), planned.cache, planned.scratch);
  CHECK(near(session_memory.now(), planned.cache + planned.scratch));

  const test::TemporaryFolder packed;
  options.packed = packed.path();
  const Answers expected = merged_answers(team);
  for (int i = 0; i < 2; ++i) check_same_answers(merged_answers(open_team(folder.path(), options)), expected);
}

TEST_CASE("a merged team that does not fit is refused by name", "[refused]") {
  const test::Merged merged(test::golden_roles(), 2);
  const auto refuse = [&](auto&& change, Code code, const std::string& words) {
    const test::MergedTeam folder(merged, change);
    try {
      (void)open_team(folder.path());
      FAIL("was not refused: " << words);
    } catch (const Error& e) {
      CAPTURE(e.what());
      CHECK(e.code() == code);
      CHECK(std::string(e.what()).find(words) != std::string::npos);
    }
    CHECK_THROWS_AS(plan(folder.path()), Error);
  };
  refuse([](Json& team) { team["roles"].erase(2); }, Code::mismatch, "expected 2 experts behind routers");
  refuse([](Json& team) { team["roles"][1]["path"] = "merged"; }, Code::mismatch, "path");
  refuse([](Json& team) { team["gate"] = Json::object(); }, Code::mismatch, "gate");
  refuse([](Json& team) { team["base"] = "merged"; }, Code::mismatch, "base");
  refuse([](Json& team) { team["mix_in"] = "logits"; }, Code::mismatch, "mix_in");
  refuse([](Json& team) { team["mix_in"] = "experts"; }, Code::mismatch, "mix_in");
  refuse([](Json& team) { team["merged"] = "../merged"; }, Code::malformed, "merged");
  refuse([](Json& team) { team["merged"] = "nowhere"; }, Code::not_found, "nowhere");
  refuse([](Json& team) { team.erase("merged"); }, Code::not_found, "path");
  const test::MergedTeam plain(merged, [](Json&) {});
  std::filesystem::remove_all(plain.path() / "merged");
  std::filesystem::create_symlink(test::golden_team() / "macro", plain.path() / "merged");
  CHECK_THROWS_AS(open_team(plain.path()), Error);
  // adapters on a merged base
  refuse(
      [](Json& team) {
        team.erase("merged");
        team["base"] = "merged";
        for (auto& role : team["roles"]) role["path"] = "merged";
        team["mix_in"] = "deltas";
        team["roles"].erase(2);
        team["roles"].erase(1);
      },
      Code::unsupported, "experts behind routers");
}
