// What a host must know before it acts on an answer: whether it hangs on one role, and when to abstain.

#include "catch.hpp"
#include "team/answers.hpp"
#include "team/shared_folder.hpp"

#include <finteam/team/session.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace finteam;
using test::headline;
using test::quiet;

namespace {

std::size_t likeliest(const std::vector<double>& p) {
  return static_cast<std::size_t>(std::max_element(p.begin(), p.end()) - p.begin());
}

/// What is left of a view's roles without one of them.
std::vector<double> without(const View& view, std::size_t gone) {
  std::vector<double> p(view.labels.size(), 0.0);
  double total = 0;
  for (std::size_t k = 0; k < view.roles.size(); ++k) {
    if (k == gone || !(view.roles[k].weight > 0)) continue;
    total += view.roles[k].weight;
    for (std::size_t l = 0; l < p.size(); ++l) p[l] += view.roles[k].weight * view.roles[k].probabilities[l];
  }
  for (double& x : p) x /= total;
  return p;
}

double jensen_shannon(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double m = 0.5 * (a[i] + b[i]);
    sum += 0.5 * a[i] * std::log2(a[i] / m) + 0.5 * b[i] * std::log2(b[i] / m);
  }
  return sum;
}

}  // namespace

TEST_CASE("each role's effect is what its leaving changes", "[team]") {
  const test::TeamFolder folder([](Json& team) { team["gate"] = {{"reads", "prior"}, {"prior", {3, 2, 1}}}; });
  const auto team = open_team(folder.path());
  Session desk(team);
  double most = 0;
  for (const char* task : {"sentiment", "direction"}) {
    const View& view = desk.classify(task, headline);
    for (std::size_t k = 0; k < view.roles.size(); ++k) {
      const auto left = without(view, k);
      const RoleEffect& effect = view.roles[k].effect;
      CHECK(effect.divergence_bits == Approx(jensen_shannon(view.probabilities, left)).margin(1e-12));
      CHECK(effect.label_changes == (likeliest(left) != likeliest(view.probabilities)));
      most = std::max(most, effect.divergence_bits);
    }
  }
  CHECK(most > 0);
}

TEST_CASE("a role that sleeps, and one that nobody could replace, have no effect", "[team]") {
  const test::TeamFolder folder([](Json& team) {
    team["gate"] = {{"reads", "prior"}, {"prior", {3, 2, 1}}, {"top_k", 1}};
  });
  const auto team = open_team(folder.path());
  Session desk(team);
  for (const RoleView& role : desk.classify("sentiment", headline, {.wake = Wake::all}).roles) {
    CHECK(role.effect.divergence_bits == 0);
    CHECK_FALSE(role.effect.label_changes);
  }
}

TEST_CASE("with deltas summed inside, roles have an effect only if they were asked", "[team]") {
  const test::SharedFolder folder([](Json& team) { team["mix_in"] = "deltas"; }, 0.5F);
  const auto team = open_team(folder.path());
  Session desk(team);
  const View asked = desk.classify("sentiment", headline, {.wake = Wake::all});
  CHECK(std::any_of(asked.roles.begin(), asked.roles.end(), [](auto& r) { return r.effect.divergence_bits > 0; }));
  for (const RoleView& role : desk.classify("sentiment", headline).roles) {
    CHECK(role.effect.divergence_bits == 0);
    CHECK_FALSE(role.effect.label_changes);
  }
}

TEST_CASE("an answer abstains beyond any threshold, says which, and stays the same answer", "[team]") {
  const test::TeamFolder folder([](Json& team) { team["gate"] = {{"reads", "prior"}, {"prior", {1, 1, 1}}}; });
  const auto team = open_team(folder.path());
  Session desk(team);
  const View plain = desk.classify("sentiment", headline);
  CHECK_FALSE(plain.abstains);
  CHECK(plain.abstain_reason == AbstainReason::none);
  REQUIRE(plain.disagreement > 0);
  const auto reason = [&](const Abstain& rule) {
    const View& view = desk.classify("sentiment", headline, {.abstain = rule});
    CHECK(view.label == plain.label);
    CHECK(view.probabilities == plain.probabilities);
    CHECK(view.abstains == (view.abstain_reason != AbstainReason::none));
    return name(view.abstain_reason);
  };
  // at the threshold the answer stands
  CHECK(reason({plain.probability, plain.entropy, plain.disagreement}) == "none");
  CHECK(reason({.least_probability = std::nextafter(plain.probability, 1)}) == "probability");
  CHECK(reason({.greatest_entropy = std::nextafter(plain.entropy, 0)}) == "entropy");
  CHECK(reason({.greatest_disagreement = std::nextafter(plain.disagreement, 0)}) == "disagreement");
  CHECK(reason({.least_probability = 2, .greatest_entropy = 0, .greatest_disagreement = 0}) == "probability");
  CHECK(reason({}) == "none");  // the session does not remember
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(reason({.least_probability = nan}), Error);
  CHECK_THROWS_AS(reason({.greatest_entropy = nan}), Error);
  CHECK_THROWS_AS(reason({.greatest_disagreement = nan}), Error);
  CHECK(reason({}) == "none");
}
