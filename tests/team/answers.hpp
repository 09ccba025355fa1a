// What tests ask of teams, and what must be the same in two answers.
#pragma once

#include "catch.hpp"

#include <finteam/file/json.hpp>
#include <finteam/team/session.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace test {

inline const std::string headline = "The Committee raised its target range as inflation stayed above 2 percent";

/// Streams to nobody.
inline constexpr auto quiet = [](std::string_view) {};

/// The golden team's micro role alone.
inline void only_micro(finteam::Json& team) {
  team["roles"] = finteam::Json::array({{{"name", "micro"}, {"path", "micro"}}});
  team["gate"] = nullptr;
}

struct Answers {
  finteam::View view;
  finteam::Score score;
  finteam::Generation greedy, sampled;
};

/// The team's answers, whoever gave them.
inline void check_same_answers(const Answers& a, const Answers& b) {
  CHECK(a.view.probabilities == b.view.probabilities);
  CHECK(a.score.log_probability == b.score.log_probability);
  CHECK(a.greedy.ids == b.greedy.ids);
  CHECK(a.greedy.log_probability == b.greedy.log_probability);
  CHECK(a.sampled.ids == b.sampled.ids);
  CHECK(a.sampled.text == b.sampled.text);
}

/// And what each role said.
inline void check_same_bits(const Answers& a, const Answers& b) {
  check_same_answers(a, b);
  CHECK(a.view.disagreement == b.view.disagreement);
  REQUIRE(a.view.roles.size() == b.view.roles.size());
  for (std::size_t k = 0; k < a.view.roles.size(); ++k) {
    CHECK(a.view.roles[k].weight == b.view.roles[k].weight);
    CHECK(a.view.roles[k].scores == b.view.roles[k].scores);
  }
}

}  // namespace test
