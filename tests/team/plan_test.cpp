// A plan is what is then taken, to 2%.

#include "catch.hpp"
#include "counting_memory.hpp"
#include "team/folder.hpp"

#include <finteam/team/plan.hpp>

using namespace finteam;

namespace {

bool within_2_percent(std::size_t taken, std::uint64_t planned) {
  const auto a = static_cast<double>(taken), b = static_cast<double>(planned);
  return a <= 1.02 * b && b <= 1.02 * a;
}

}  // namespace

TEST_CASE("opening a team takes the weights that were planned, in every format", "[team]") {
  const auto weights = GENERATE(Weights::stored, Weights::bf16, Weights::int8, Weights::int4, Weights::int4_zero);
  CAPTURE(name(weights));
  test::CountingMemory memory;
  OpenOptions options{.weights = weights, .memory = &memory};
  SECTION("as they are") {}
  SECTION("with a choice") { options.choices = {{"embed_tokens", Weights::int8}, {"down_proj", Weights::bf16}}; }
  const Plan planned = plan(test::golden_team(), options);
  REQUIRE(memory.most() == 0);
  const auto team = open_team(test::golden_team(), options);
  CAPTURE(memory.now(), memory.most(), planned.weights);
  CHECK(within_2_percent(memory.now(), planned.weights));
  CHECK(within_2_percent(memory.most(), planned.weights));
  REQUIRE(planned.roles.size() == 3);
  CHECK(planned.roles[1].name == "micro");
  CHECK(planned.roles[0].weights + planned.roles[1].weights + planned.roles[2].weights == planned.weights);
}

TEST_CASE("a session takes the cache and the scratch that were planned", "[team]") {
  const auto team = open_team(test::golden_team());
  test::CountingMemory memory;
  const auto limits = GENERATE(values<SessionLimits>({{},
                                                      {.tokens = 33, .labels = 3, .rows = 1},
                                                      {.tokens = 500, .labels = 40, .rows = 200},
                                                      {.tokens = 64, .labels = 1, .rows = 64, .text_bytes = 100}}));
  SessionLimits counted = limits;
  counted.memory = &memory;
  const Plan planned = plan(test::golden_team(), {}, limits);
  const Session desk(team, counted);
  CAPTURE(memory.now(), planned.cache, planned.scratch, desk.limits().tokens);
  CHECK(within_2_percent(memory.now(), planned.cache + planned.scratch));
  CHECK(planned.cache_per_1000_tokens * static_cast<std::uint64_t>(desk.limits().tokens) / 1000 <= planned.cache);
}

TEST_CASE("a plan of 8 bits says 8.5 bits a weight, of 4 bits 4.5", "[team]") {
  // 16 outputs of 64 inputs, by hand: two groups of 32 for each output, a bf16 scale for each.
  const index_t inputs = 16 * 64;
  CHECK(8 * panel_bytes(Format::int8, 64) == inputs * 17 / 2);
  CHECK(8 * panel_bytes(Format::int4, 64) == inputs * 9 / 2);
  CHECK(8 * panel_bytes(Format::int4_zero, 64) == inputs * 5);
  const auto bytes = [](Weights w) { return plan(test::golden_team(), {.weights = w}).weights; };
  CHECK(bytes(Weights::int4) < bytes(Weights::int4_zero));
  CHECK(bytes(Weights::int4_zero) < bytes(Weights::int8));
  CHECK(bytes(Weights::int8) < bytes(Weights::stored));
  CHECK(bytes(Weights::bf16) < bytes(Weights::stored));  // the golden team is in f32, and narrow: groups are padded
}

TEST_CASE("a plan refuses what opening would", "[team][law5][refused]") {
  const auto code = [](auto&& call) {
    try {
      call();
      return Code::deadline;
    } catch (const Error& e) {
      return e.code();
    }
  };
  const test::TemporaryFolder empty;
  CHECK(code([&] { (void)plan(empty.path()); }) == Code::not_found);
  CHECK(code([] {
          (void)plan(test::golden_team(), {.choices = {{"lm_haed", Weights::int8}}});
        }) == Code::invalid_argument);
  CHECK(code([] { (void)plan(test::golden_team(), {}, {.tokens = 1}); }) == Code::invalid_argument);
  CHECK(code([] { (void)plan(test::golden_team(), {}, {.rows = 0}); }) == Code::invalid_argument);
}
