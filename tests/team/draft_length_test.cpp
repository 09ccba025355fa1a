#include "catch.hpp"

#include <finteam/team/draft_length.hpp>

using namespace finteam;

namespace {

/// Tokens a step of that length gives at an acceptance of a, by the sum itself.
double tokens_per_step(double a, index_t n, const DraftCost& cost) {
  double tokens = 0, power = 1;
  for (index_t i = 0; i <= n; ++i, power *= a) tokens += power;
  return tokens / (static_cast<double>(n) * (cost.each + cost.check_each) + cost.check);
}

}  // namespace

TEST_CASE("the length guessed is the one with the most tokens for its cost", "[team]") {
  const DraftCost cost{.each = 1, .check = 3, .check_each = 0.05};
  DraftLength length;
  for (int round = 0; round < 60; ++round) length.add(4, round % 3 == 0 ? 2 : 4);
  const double a = length.acceptance();
  CHECK(a > 0.85);
  CHECK(a < 0.95);
  const index_t best = length.best(7, cost);
  for (index_t n = 0; n <= 7; ++n) CHECK(tokens_per_step(a, n, cost) <= tokens_per_step(a, best, cost) + 1e-12);
  CHECK(best > 2);
  CHECK(length.best(2, cost) == 2);
  CHECK(length.best(0, cost) == 0);
}

TEST_CASE("guesses that are never kept stop, and are tried again later", "[team]") {
  const DraftCost cost{.each = 1, .check = 2, .check_each = 0.02};
  DraftLength length;
  CHECK(length.best(7, cost) > 0);
  for (int i = 0; i < 20; ++i) length.add(3, 0);
  CHECK(length.best(7, cost) == 0);
  for (int i = 0; i < 100; ++i) length.rest();
  CHECK(length.best(7, cost) > 0);
}
