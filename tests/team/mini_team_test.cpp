// The bundled team against PyTorch: real weights, trained, in bf16.

#include "catch.hpp"
#include "team/answers.hpp"
#include "team/folder.hpp"
#include "tolerance.hpp"

#include <finteam/team/session.hpp>

#include <algorithm>
#include <string>
#include <vector>

using namespace finteam;
using test::quiet;

namespace {

const test::fs::path mini_team = test::fs::path(FINTEAM_SOURCE_DIR) / "examples" / "mini-team";

const Json& golden_prompts() {
  static const Json json =
      parse_json(MappedFile::open(test::fs::path(FINTEAM_TEST_DATA) / "goldens" / "mini_team.json").text(), "golden");
  return json.at("prompts");
}

}  // namespace

TEST_CASE("the bundled team's label scores and gate are PyTorch's", "[parity]") {
  const auto team = open_team(mini_team);
  Session desk(team);
  for (const Json& g : golden_prompts()) {
    CAPTURE(g.at("id").get<std::string>());
    const Task task{.instruction = g.at("instruction"), .input = "{text}", .labels = g.at("labels")};
    const View& view = desk.classify(task, g.at("input").get<std::string>(), {.wake = Wake::all});
    CHECK(view.prompt_tokens == static_cast<index_t>(g.at("prompt_ids").size()));
    for (std::size_t k = 0; k < view.roles.size(); ++k) {
      const RoleView& role = view.roles[k];
      CAPTURE(role.name, role.weight);
      CHECK(tolerance::whole_model.holds(role.weight, g.at("gate_weights")[k]));
      const Json& scores = g.at("label_log_scores").at(role.name);
      REQUIRE(scores.size() == role.scores.size());
      for (std::size_t l = 0; l < scores.size(); ++l) CHECK(tolerance::whole_model.holds(role.scores[l], scores[l]));
    }
  }
}

TEST_CASE("each role of the bundled team replies with PyTorch's tokens", "[parity]") {
  int checked = 0;
  for (const char* role : {"macro", "micro", "quant"}) {
    const test::TemporaryFolder folder;
    test::fs::create_symlink(mini_team / role, folder.path() / "role");
    test::fs::create_symlink(mini_team / "tokenizer.json", folder.path() / "tokenizer.json");
    test::write(folder.path() / "team.json", R"({"finteam": 1, "roles": [{"name": "one", "path": "role"}]})");
    const auto team = open_team(folder.path());
    Session desk(team);
    for (const Json& g : golden_prompts()) {
      if (!g.contains("greedy")) continue;
      CAPTURE(role, g.at("id").get<std::string>());
      auto expected = g.at("greedy").at(role).at("ids").get<std::vector<std::int32_t>>();
      const auto end = std::find_if(expected.begin(), expected.end(), [&](std::int32_t id) { return team.ends(id); });
      if (end != expected.end()) expected.erase(end + 1, expected.end());
      const std::string content = g.at("instruction").get<std::string>() + "\n" + g.at("input").get<std::string>();
      CHECK(desk.generate(content, quiet, {.max_tokens = 32}).ids == expected);
      ++checked;
    }
  }
  CHECK(checked == 6);
}

TEST_CASE("the bundled team is at most 16 MB", "[house]") {
  std::uintmax_t bytes = 0;
  for (const auto& entry : test::fs::recursive_directory_iterator(mini_team)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  CHECK(bytes > 1'000'000);
  CHECK(bytes <= 16'000'000);
}
