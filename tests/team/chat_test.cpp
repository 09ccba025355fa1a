// Which chat format a team has: the one that team.json names or declares, else that of the checkpoint's own template.

#include "catch.hpp"
#include "refusals.hpp"
#include "team/folder.hpp"

#include <finteam/team/session.hpp>

#include <string>
#include <vector>

using namespace finteam;
using test::check_refused;

namespace {

constexpr const char* llama3_template =
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
    "+ "
    "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% "
    "endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

template <class Change>
test::TeamFolder folder_with(Change&& change) {
  return test::TeamFolder([&](Json& team) {
    team.erase("chat");
    change(team);
  });
}
void no_change(Json&) {}

}  // namespace

TEST_CASE("a team that names no chat format has that of the template beside its tokenizer", "[team]") {
  const auto folder = folder_with(no_change);
  CHECK(open_team(folder.path()).chat().name() == "llama-3");  // the default, without one
  test::write(folder.path() / "chat_template.jinja", llama3_template);
  CHECK(open_team(folder.path()).chat().name() == "llama-3");
  test::write(folder.path() / "chat_template.jinja", "{{ messages }}");
  check_refused([&] { (void)open_team(folder.path()); }, Code::unsupported,
                "chat_template.jinja: expected the chat template of a known family, or \"chat\" in team.json");
  test::write(folder.path() / "chat_template.jinja", llama3_template);
  test::write(folder.path() / "tokenizer_config.json", R"({"bos_token": "<s>"})");
  check_refused([&] { (void)open_team(folder.path()); }, Code::unsupported, "chat_template.jinja");
}

TEST_CASE("what team.json says of the chat goes before the template", "[team]") {
  const auto none = folder_with([](Json& team) { team["chat"] = "none"; });
  test::write(none.path() / "chat_template.jinja", "{{ messages }}");
  CHECK(open_team(none.path()).chat().name() == "none");

  const auto declared = folder_with([](Json& team) {
    team["chat"] = {{"tokens", {"<|begin_of_text|>", "<|eot_id|>"}},
                    {"start", "<|begin_of_text|>"},
                    {"user", {{"before", "Q: "}, {"after", "<|eot_id|>"}}},
                    {"assistant", {{"before", "A: "}, {"after", "<|eot_id|>"}}},
                    {"open", "A:"},
                    {"end", "<|eot_id|>"}};
  });
  const auto team = open_team(declared.path());
  CHECK(team.chat().name() == "declared");
  CHECK(team.end_id() == team.tokenizer().token("<|eot_id|>"));
  auto scratch = team.chat().scratch(team.tokenizer(), 100);
  std::vector<std::int32_t> ids;
  const Message message{ChatRole::user, "Rates?"};
  team.chat().encode(team.tokenizer(), scratch, {&message, 1}, ids);
  CHECK(team.tokenizer().decode(ids, SpecialTokens::keep) == "<|begin_of_text|>Q: Rates?<|eot_id|>A:");
  Session desk(team);
  CHECK_NOTHROW(desk.classify("sentiment", "Rates rose"));
}

TEST_CASE("a format whose tokens the tokenizer does not have is refused by the token", "[team][law5]") {
  const auto folder = folder_with([](Json& team) { team["chat"] = "gemma-3"; });
  check_refused([&] { (void)open_team(folder.path()); }, Code::mismatch,
                "added_tokens: expected <bos> (chat format gemma-3), found none");
}
