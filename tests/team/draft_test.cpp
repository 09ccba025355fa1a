// Guessing ahead changes how fast a text is written, and nothing of the text.

#include "catch.hpp"
#include "team/answers.hpp"
#include "team/shared_folder.hpp"

#include <finteam/backend/thread_pool.hpp>
#include <finteam/team/session.hpp>

#include <string>
#include <vector>

using namespace finteam;
using test::quiet;

namespace {

const std::string prompt = "rates rose and rates rose and rates rose and rates";

/// Three roles that are the golden micro role and the same with a little noise in its matrices: their guesses are often
/// right, and not always.
struct NearTeam {
  explicit NearTeam(float noise, int top_k = 3)
      : folder([&](Json& team) {
          team["gate"]["top_k"] = top_k;
          team["gate"]["temperature"] = 100;  // nobody decides alone
        }) {
    std::uint64_t seed = 11;
    for (const char* role : {"macro", "quant"}) {
      folder.unlink_role(role);
      const auto from = Checkpoint::open(test::golden_team() / "micro");
      test::Floats file;
      test::Random random(seed++);
      for (const auto name : from.names()) {
        const RawTensor raw = from.tensor(name);
        std::vector<float> values;
        for (index_t i = 0; i < raw.size(); ++i) {
          values.push_back(raw[i] * static_cast<float>(1 + random.uniform(-noise, noise)));
        }
        file.add(std::string(name), {raw.shape.begin(), raw.shape.end()}, std::move(values));
      }
      std::filesystem::remove(folder.path() / role / "model.safetensors");
      file.write(folder.path() / role / "model.safetensors");
    }
  }
  test::TeamFolder folder;
};

GenerateOptions options(Draft draft, float temperature) {
  return {.max_tokens = 60, .sampling = {.temperature = temperature, .seed = 9}, .draft = draft};
}

/// A few whole characters from the middle of a text.
std::string middle_of(const std::string& text) {
  const auto begins = [&](std::size_t i) { return i >= text.size() || (text[i] & 0xC0) != 0x80; };
  std::size_t from = text.size() / 2, to = from + 5;
  while (!begins(from)) ++from;
  while (!begins(to)) ++to;
  return text.substr(from, to - from);
}

}  // namespace

TEST_CASE("a text is the same with the favourite writing ahead, greedy or sampled", "[team][law3]") {
  const int top_k = GENERATE(2, 3);
  const float temperature = GENERATE(0.0F, 0.8F);
  const Weights weights = GENERATE(Weights::stored, Weights::int8);
  const NearTeam near(0.4F, top_k);
  const auto team = open_team(near.folder.path(), {.weights = weights});
  Session desk(team);
  index_t drafted = 0, kept = 0;
  for (const char* text : {"Profit rose", "The Committee held rates", "prices and wages fell in June"}) {
    const Generation plain = desk.complete(text, quiet, options(Draft::none, temperature));
    const Generation ahead = desk.complete(text, quiet, options(Draft::favourite, temperature));
    CHECK(plain.drafted == 0);
    drafted += ahead.drafted;
    kept += ahead.kept;
    CHECK(ahead.ids == plain.ids);
    CHECK(ahead.text == plain.text);
    CHECK(ahead.log_probability == plain.log_probability);
    CHECK(ahead.finish == plain.finish);
  }
  CAPTURE(drafted, kept);
  CHECK(kept > 5);
  CHECK(kept < drafted);
}

TEST_CASE("a text is the same with its own past as the guess, on any team", "[team][law3]") {
  const float temperature = GENERATE(0.0F, 0.5F);
  const test::SharedFolder shared, summed([](Json&team) { team["mix_in"] = "deltas"; });
  const test::TeamFolder separate;
  for (const auto& folder : {shared.path(), summed.path(), separate.path()}) {
    const auto team = open_team(folder);
    Session desk(team);
    const Generation plain = desk.complete(prompt, quiet, options(Draft::none, temperature));
    const Generation ahead = desk.complete(prompt, quiet, options(Draft::prompt, temperature));
    CHECK(ahead.drafted > 0);
    CHECK(ahead.ids == plain.ids);
    CHECK(ahead.log_probability == plain.log_probability);
  }
}

TEST_CASE("penalties, min-p and stop strings see the same text, guessed ahead or not", "[team][law3]") {
  const Draft draft = GENERATE(Draft::favourite, Draft::prompt);
  const float temperature = GENERATE(0.0F, 0.8F);
  const NearTeam near(0.1F);
  const auto team = open_team(near.folder.path());
  Session desk(team);
  const auto written = [&](GenerateOptions with, Draft how) {
    with.draft = how;
    std::string shown;
    const Generation text = desk.complete(
        prompt, [&](std::string_view piece) { shown += piece; }, with);
    CHECK(text.text == shown);
    return text;
  };
  index_t drafted = 0, kept = 0;
  std::vector<std::vector<std::int32_t>> texts;
  for (const float penalty : {1.0F, 1.2F}) {
    for (const int window : {0, 6}) {
      for (const float min_p : {0.0F, 0.3F}) {
        CAPTURE(penalty, window, min_p);
        GenerateOptions with = options(Draft::none, temperature);
        with.sampling.repetition_penalty = penalty;
        with.sampling.repetition_window = window;
        with.sampling.min_p = min_p;
        const std::string whole = written(with, Draft::none).text;
        for (const bool stops : {false, true}) {
          if (stops) with.stop = {"never to be written", middle_of(whole)};
          const Generation plain = written(with, Draft::none), ahead = written(with, draft);
          CHECK(ahead.ids == plain.ids);
          CHECK(ahead.text == plain.text);
          CHECK(ahead.log_probability == plain.log_probability);
          CHECK(ahead.finish == plain.finish);
          if (stops) CHECK(plain.finish == Finish::stop_string);
          if (stops) CHECK(plain.text.size() < whole.size());
          texts.push_back(plain.ids);
          drafted += ahead.drafted;
          kept += ahead.kept;
        }
      }
    }
  }
  CAPTURE(drafted, kept);
  CHECK(kept > 0);
  CHECK(kept < drafted);
  // the penalty, and where there is noise min-p too, change what is written
  CHECK(texts.front() != texts[8]);
  CHECK((texts.front() != texts[2]) == (temperature > 0));
}

TEST_CASE("guesses stay within the session's limits, and a stop ends the text at the same place", "[team]") {
  const NearTeam near(0.02F);
  const auto team = open_team(near.folder.path());
  Session wide(team);
  const Generation plain = wide.complete(prompt, quiet, options(Draft::none, 0));
  const auto n = plain.prompt_tokens;
  for (const index_t tokens : {n + 1, n + 2, n + 3, n + 9}) {
    for (const index_t rows : {1, 2, 5, 64}) {
      Session desk(team, {.tokens = tokens, .labels = 1, .rows = rows});
      for (const Draft draft : {Draft::none, Draft::favourite, Draft::prompt}) {
        const Generation text = desk.complete(prompt, quiet, options(draft, 0));
        REQUIRE(text.ids.size() <= plain.ids.size());
        CHECK(std::equal(text.ids.begin(), text.ids.end(), plain.ids.begin()));
        CHECK(text.finish == Finish::length);
        CHECK(static_cast<index_t>(text.ids.size()) == tokens - n);
      }
    }
  }
  GenerateOptions stopped = options(Draft::favourite, 0);
  stopped.stop_ids = {plain.ids.at(7)};
  const Generation ahead = wide.complete(prompt, quiet, stopped);
  stopped.draft = Draft::none;
  CHECK(ahead.ids == wide.complete(prompt, quiet, stopped).ids);
  // after a round that was cut short the session is as good as new
  CHECK(wide.complete(prompt, quiet, options(Draft::favourite, 0)).ids == plain.ids);
}

TEST_CASE("roles that agree keep every guess, and write further ahead", "[team]") {
  const NearTeam same(0.0F);
  const auto team = open_team(same.folder.path());
  Session desk(team);
  const Generation ahead = desk.complete(prompt, quiet, options(Draft::favourite, 0.7F));
  CHECK(ahead.kept == ahead.drafted);
  CHECK(ahead.drafted > static_cast<index_t>(ahead.ids.size()) / 2);
}
