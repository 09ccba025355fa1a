// Rope with factors for long sequences (longrope): which of them a team reads with, and what it says of it.

#include "catch.hpp"
#include "team/answers.hpp"
#include "team/folder.hpp"

#include <finteam/team/session.hpp>

#include <algorithm>
#include <string>
#include <vector>

using namespace finteam;
using test::quiet;

namespace {

/// The golden team, its roles' rope scaled for sequences longer than `original`.
class LongRopeFolder : public test::TeamFolder {
 public:
  explicit LongRopeFolder(index_t original) {
    for (const std::string role : {"macro", "micro", "quant"}) {
      unlink_role(role);
      const auto file = path() / role / "config.json";
      Json config = parse_json(MappedFile::open(file).text(), "config.json");
      config.erase("rope_parameters");
      config["rope_scaling"] = {{"type", "longrope"},
                                {"original_max_position_embeddings", original},
                                {"short_factor", {1, 1, 1, 1}},
                                {"long_factor", {1, 2, 4, 8}}};
      test::write(file, config.dump());
    }
  }
};

bool all_long(const Roles& roles) {
  return std::all_of(roles.begin(), roles.end(), [](const RoleView& r) { return r.long_context; });
}
bool none_long(const Roles& roles) {
  return std::none_of(roles.begin(), roles.end(), [](const RoleView& r) { return r.long_context; });
}

}  // namespace

TEST_CASE("a text is read with the rope of what it may come to, which the answer says, and replays", "[team][law3]") {
  const auto plain = open_team(test::golden_team());
  Session first(plain);
  const index_t prompt = first.generate(test::headline, quiet, {.max_tokens = 1}).prompt_tokens;
  CHECK(none_long(first.generate(test::headline, quiet, {.max_tokens = 99}).roles));

  const LongRopeFolder folder(prompt + 10);
  const auto team = open_team(folder.path());
  Session desk(team);
  const auto write = [&](index_t tokens) {
    return Generation(desk.generate(test::headline, quiet, {.max_tokens = tokens}));
  };
  const Generation brief = write(10), extended = write(11);
  CHECK(none_long(brief.roles));
  CHECK(all_long(extended.roles));
  CHECK(brief.log_probability != extended.log_probability);
  const Generation further = write(30);  // the same rope: what it begins with is the same
  CHECK(all_long(further.roles));
  const auto shared = static_cast<std::ptrdiff_t>(std::min(further.ids.size(), extended.ids.size()));
  CHECK(std::equal(extended.ids.begin(), extended.ids.begin() + shared, further.ids.begin()));
  Session another(team);  // nothing is left of an earlier text's rope
  CHECK(write(10).log_probability == brief.log_probability);
  CHECK(another.generate(test::headline, quiet, {.max_tokens = 11}).ids == extended.ids);
}

TEST_CASE("labels, scores and states are read by what they may come to", "[team]") {
  const LongRopeFolder folder(60);
  const auto team = open_team(folder.path());
  Session desk(team);
  std::string text = "Profit rose.";
  CHECK(none_long(desk.score(text).roles));
  const auto brief = std::vector<float>(desk.embed(text).span().begin(), desk.embed(text).span().end());
  for (int i = 0; i < 5; ++i) text += " Shares of the bank fell after the results, and bonds rose.";
  CHECK(all_long(desk.score(text).roles));
  CHECK(all_long(desk.classify("sentiment", text).roles));
  const auto again = desk.embed("Profit rose.").span();
  CHECK(std::equal(brief.begin(), brief.end(), again.begin(), again.end()));
}
