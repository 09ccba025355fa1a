// Teams whose roles share a base: as an ensemble of adapters, and with the adapters summed inside.

#include "catch.hpp"
#include "counting_memory.hpp"
#include "team/answers.hpp"
#include "team/shared_folder.hpp"

#include <finteam/backend/thread_pool.hpp>
#include <finteam/team/plan.hpp>
#include <finteam/team/session.hpp>

#include <string>

using namespace finteam;
using test::Answers;
using test::check_same_bits;
using test::headline;
using test::quiet;

namespace {

void inside(Json& team) { team["mix_in"] = "deltas"; }
void all_awake(Json& team) { team["gate"]["top_k"] = 3; }

void make_low_bit(const test::SharedFolder& folder) {
  folder.make_low_bit("macro", Format::int1, 0.1F, 5);
  folder.make_low_bit("micro", Format::int2, 0.1F, 6);
  folder.make_low_bit("quant", Format::int1, 0.1F, 7);
}

Answers shared_answers(const std::filesystem::path& folder, const OpenOptions& options = {},
                       const SessionLimits& limits = {}, Cpu backend = {}) {
  const auto team = open_team(folder, options, backend);
  Session desk(team, limits, backend);
  Answers a;
  a.view = desk.classify("sentiment", headline);
  a.score = desk.score(headline);
  a.greedy = desk.generate(headline, quiet, {.max_tokens = 24});
  a.sampled = desk.generate(headline, quiet, {.max_tokens = 24, .sampling = {.temperature = 0.8F, .seed = 7}});
  return a;
}

}  // namespace

TEST_CASE("roles whose adapters add nothing are the base, bit for bit", "[law1]") {
  const Weights weights = GENERATE(Weights::stored, Weights::int4);
  const test::SharedFolder folder(all_awake, 0.0F);
  const auto plain = open_team(folder.path() / "base", {.weights = weights});
  Session alone(plain);
  const Score expected = alone.score(headline);
  for (const bool summed : {false, true}) {
    const test::SharedFolder same(
        [&](Json& team) {
          all_awake(team);
          if (summed) inside(team);
        },
        0.0F);
    const auto team = open_team(same.path(), {.weights = weights});
    Session desk(team);
    const Score score = desk.score(headline, {.wake = Wake::all});
    CHECK(score.log_probability == expected.log_probability);
    for (const RoleView& role : score.roles) CHECK(role.scores == expected.roles[0].scores);
  }
}

TEST_CASE("an ensemble on a shared base is the ensemble of its roles alone, bit for bit", "[law1]") {
  const test::SharedFolder folder(all_awake);
  const auto together = open_team(folder.path());
  Session desk(together);
  const View view = desk.classify("direction", headline);
  const Score score = desk.score(headline);
  REQUIRE(view.roles.size() == 3);
  for (std::size_t k = 0; k < 3; ++k) {
    const std::string name = view.roles[k].name;
    const test::SharedFolder one([&](Json& team) {
      team["roles"] = Json::array({{{"name", name}, {"path", name}}});
      team.erase("gate");
    });
    const auto single = open_team(one.path());
    Session alone(single);
    CHECK(alone.classify("direction", headline).roles[0].scores == view.roles[k].scores);
    CHECK(alone.score(headline).roles[0].scores == score.roles[k].scores);
    CHECK(view.roles[k].scores != view.roles[(k + 1) % 3].scores);
  }
}

TEST_CASE("one adapter summed inside at weight 1 is that role", "[law1]") {
  const auto only = [](Json& team) {
    team["roles"] = Json::array({{{"name", "micro"}, {"path", "micro"}}});
    team.erase("gate");
  };
  const test::SharedFolder outside(only), summed([&](Json&team) {
    only(team);
    inside(team);
  });
  const Answers a = shared_answers(outside.path()), b = shared_answers(summed.path());
  CHECK(a.score.log_probability == b.score.log_probability);
  CHECK(a.view.probabilities == b.view.probabilities);
  CHECK(a.greedy.ids == b.greedy.ids);
  CHECK(a.sampled.ids == b.sampled.ids);
}

TEST_CASE("a team on a shared base answers the same on any threads and in any chunks", "[law3]") {
  const std::string shape = GENERATE("adapters", "adapters summed inside", "low-bit differences");
  const Weights weights = GENERATE(Weights::stored, Weights::int4);
  CAPTURE(shape);
  const test::SharedFolder folder([&](Json& team) {
    if (shape == "adapters summed inside") inside(team);
  });
  if (shape == "low-bit differences") make_low_bit(folder);
  const OpenOptions options{.weights = weights};
  const Answers expected = shared_answers(folder.path(), options);
  ThreadPool pool(3);
  check_same_bits(shared_answers(folder.path(), options, {.rows = 9}), expected);
  check_same_bits(shared_answers(folder.path(), options, {.rows = 31}, Cpu{ExecutorRef(pool)}), expected);
}

TEST_CASE("steps of one row read a team on a shared base, a row a lane", "[law3]") {
  const bool summed = GENERATE(false, true);
  const test::SharedFolder folder([&](Json& team) {
    if (summed) inside(team);
  });
  const auto team = open_team(folder.path());
  Session wide(team), narrow(team, {.rows = 1});
  const Score expected = wide.score(headline, {.wake = Wake::all}), found = narrow.score(headline, {.wake = Wake::all});
  CHECK(found.log_probability == expected.log_probability);
  for (std::size_t k = 0; k < 3; ++k) CHECK(found.roles[k].scores == expected.roles[k].scores);
  CHECK(narrow.complete(headline, quiet, {.max_tokens = 9}).ids ==
        wide.complete(headline, quiet, {.max_tokens = 9}).ids);
}

TEST_CASE("labels are a distribution where the gate's weights are not", "[team]") {
  const test::SharedFolder folder([](Json& team) {
    team["mix_in"] = "logits";
    team["gate"]["top_k"] = 1;
    team["gate"]["renormalise"] = false;
  });
  const auto team = open_team(folder.path());
  Session desk(team);
  const View view = desk.classify("sentiment", headline);
  CHECK(view.probabilities[0] + view.probabilities[1] + view.probabilities[2] == Approx(1));
  CHECK(view.disagreement == 0);
}

TEST_CASE("a threshold on disagreement is refused where no role speaks for itself", "[team]") {
  const test::SharedFolder folder(inside);
  const auto team = open_team(folder.path());
  Session desk(team);
  Ask ask{.abstain = {.greatest_disagreement = 0.5}};
  CHECK_THROWS_AS(desk.classify("sentiment", headline, ask), Error);
  ask.wake = Wake::all;
  CHECK_NOTHROW(desk.classify("sentiment", headline, ask));
}

TEST_CASE("with deltas summed inside, each role speaks for itself when all are asked", "[team]") {
  const test::SharedFolder folder(inside), ensemble(all_awake);
  const auto team = open_team(folder.path()), other = open_team(ensemble.path());
  Session desk(team), roles(other);
  const View chosen = desk.classify("sentiment", headline);
  for (const RoleView& role : chosen.roles) CHECK(role.scores.empty());
  const View asked = desk.classify("sentiment", headline, {.wake = Wake::all});
  const View expected = roles.classify("sentiment", headline);
  CHECK(asked.probabilities == chosen.probabilities);
  CHECK(asked.disagreement > 0);
  for (std::size_t k = 0; k < 3; ++k) CHECK(asked.roles[k].scores == expected.roles[k].scores);
}

TEST_CASE("a team on a shared base takes the memory that was planned", "[team]") {
  const std::string shape =
      GENERATE("adapters", "adapters summed inside", "low-bit differences", "a low-bit difference beside adapters");
  const Weights weights = GENERATE(Weights::stored, Weights::int8);
  CAPTURE(shape);
  const test::SharedFolder folder([&](Json& team) {
    if (shape == "adapters summed inside") inside(team);
  });
  if (shape == "low-bit differences") make_low_bit(folder);
  if (shape == "a low-bit difference beside adapters") folder.make_low_bit("micro", Format::int2, 0.1F, 6);
  const auto near = [](std::size_t taken, std::uint64_t planned) {
    const auto a = static_cast<double>(taken), b = static_cast<double>(planned);
    return a <= 1.001 * b && b <= 1.001 * a;
  };
  test::CountingMemory weights_memory, session_memory;
  const OpenOptions options{.weights = weights, .memory = &weights_memory};
  const Plan planned = plan(folder.path(), options);
  const auto team = open_team(folder.path(), options);
  CAPTURE(weights_memory.now(), planned.weights, planned.base, planned.roles[0].weights);
  CHECK(near(weights_memory.now(), planned.weights));
  CHECK(planned.base > planned.roles[0].weights);
  const Session desk(team, {.memory = &session_memory});
  CAPTURE(session_memory.now(), planned.cache, planned.scratch);
  CHECK(near(session_memory.now(), planned.cache + planned.scratch));
}

TEST_CASE("a shared base that does not fit is refused by name", "[refused]") {
  const auto refuse = [](auto&& change, Code code, const std::string& words) {
    const test::SharedFolder folder(change);
    try {
      (void)open_team(folder.path());
      FAIL("was not refused: " << words);
    } catch (const Error& e) {
      CAPTURE(e.what());
      CHECK(e.code() == code);
      CHECK(std::string(e.what()).find(words) != std::string::npos);
    }
  };
  refuse([](Json& team) { team["base"] = "nowhere"; }, Code::not_found, "nowhere");
  refuse([](Json& team) { team["base"] = "../base"; }, Code::malformed, "base");
  refuse([](Json& team) { team["roles"][1]["path"] = "base"; }, Code::not_found, "adapter_config.json");
  refuse([](Json& team) { team["base"] = "."; }, Code::not_found, "config.json");
  refuse([](Json& team) { team["roles"][1]["name"] = "base"; }, Code::malformed, "base");
  refuse([](Json& team) { team["gate"]["of"] = "bass"; }, Code::not_found, "or base");
  refuse(
      [](Json& team) {
        team["base"] = nullptr;
        team["gate"]["of"] = "macro";
        team["mix_in"] = "deltas";
      },
      Code::mismatch, "mix_in");
}

TEST_CASE("a role whose adapter saved a norm speaks with it, and cannot be summed inside", "[team][refused]") {
  const auto save_norm = [](const test::fs::path& role, float plus) {
    const Checkpoint base = Checkpoint::open(role / ".." / "base");
    const auto adapter = Safetensors::open(role / "adapter_model.safetensors");
    test::Floats file;
    const auto add = [&](const std::string& name, const RawTensor& raw, float more) {
      std::vector<float> values;
      for (index_t i = 0; i < raw.size(); ++i) values.push_back(raw[i] + more);
      file.add(name, {raw.shape.begin(), raw.shape.end()}, std::move(values));
    };
    for (const auto name : adapter.names()) add(std::string(name), adapter.tensor(name), 0);
    add("base_model.model.model.norm.weight", base.tensor("model.norm.weight"), plus);
    file.write(role / "with_norm");
    std::filesystem::rename(role / "with_norm", role / "adapter_model.safetensors");
  };
  const auto views = [](const test::SharedFolder& folder) {
    const auto team = open_team(folder.path());
    Session desk(team);
    return desk.classify("sentiment", "Profit rose 12%.", {.wake = Wake::all});
  };
  const test::SharedFolder plain, same, other, summed(inside);
  save_norm(same.path() / "quant", 0);
  save_norm(other.path() / "quant", 0.5F);
  save_norm(summed.path() / "quant", 0.5F);
  const View expected = views(plain), unchanged = views(same), changed = views(other);
  CHECK(unchanged.probabilities == expected.probabilities);
  CHECK(changed.roles[0].probabilities == expected.roles[0].probabilities);
  CHECK(changed.roles[1].probabilities == expected.roles[1].probabilities);
  CHECK(changed.roles[2].probabilities != expected.roles[2].probabilities);
  try {
    (void)open_team(summed.path());
    FAIL("was not refused");
  } catch (const Error& e) {
    CHECK(e.code() == Code::unsupported);
    CHECK(std::string(e.what()).find("role quant: expected nothing but deltas") != std::string::npos);
  }
}
