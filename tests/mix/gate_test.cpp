#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/gate.hpp>

#include <numeric>
#include <vector>

using namespace finteam;

TEST_CASE("a gate's scores are its weights times the feature plus its bias", "[mix]") {
  const float weight[] = {1, 2, 3, -1, 0.5F, 4};
  const float bias[] = {0.25F, -1};
  const double feature[] = {2, -1, 0.5};
  double scores[2];
  linear_scores({weight, {2, 3}}, bias, feature, scores);
  CHECK(scores[0] == 1 * 2 + 2 * -1 + 3 * 0.5 + 0.25);
  CHECK(scores[1] == -1 * 2 + 0.5 * -1 + 4 * 0.5 - 1);
}

TEST_CASE("softmax at a temperature is the softmax of the scaled scores", "[mix]") {
  double x[] = {1, 3, 2};
  softmax(x, 2.0);
  const double e[] = {std::exp(0.5), std::exp(1.5), std::exp(1.0)};
  for (int i = 0; i < 3; ++i) CHECK(x[i] == Approx(e[i] / (e[0] + e[1] + e[2])).epsilon(1e-14));
}

TEST_CASE("softmax of huge scores neither overflows nor loses the largest", "[mix]") {
  double x[] = {1e308, -1e308, 1e308};
  softmax(x);
  CHECK(x[0] == 0.5);
  CHECK(x[1] == 0.0);
  CHECK(x[2] == 0.5);
}

TEST_CASE("top-k keeps the k largest weights and renormalises them", "[mix]") {
  double w[] = {0.2, 0.5, 0.3};
  keep_top_k(w, 2);
  CHECK(w[0] == 0.0);
  CHECK(w[1] == 0.5 / 0.8);
  CHECK(w[2] == 0.3 / 0.8);
}

TEST_CASE("top-k breaks ties towards the lower index", "[mix]") {
  double w[] = {0.25, 0.25, 0.25, 0.25};
  keep_top_k(w, 2);
  CHECK(w[0] == 0.5);
  CHECK(w[1] == 0.5);
  CHECK(w[2] == 0.0);
  CHECK(w[3] == 0.0);
}

TEST_CASE("top-k with k at least n changes no bit", "[mix][law1]") {
  test::Random random(3);
  std::vector<double> w(5);
  for (double& v : w) v = random.uniform(0.01, 1);
  const auto before = w;
  keep_top_k(w, 5);
  CHECK(w == before);
  keep_top_k(w, 9);
  CHECK(w == before);
}

TEST_CASE("top-k of random weights leaves k weights that sum to one, none smaller than a dropped one", "[mix]") {
  test::Random random(4);
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<double> w(6);
    for (double& v : w) v = random.uniform(0.01, 1);
    const auto before = w;
    keep_top_k(w, 3);
    double least_kept = 2, most_dropped = 0;
    int kept = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (w[i] > 0) {
        ++kept;
        least_kept = std::min(least_kept, before[i]);
      } else {
        most_dropped = std::max(most_dropped, before[i]);
      }
    }
    CHECK(kept == 3);
    CHECK(least_kept >= most_dropped);
    CHECK(std::accumulate(w.begin(), w.end(), 0.0) == Approx(1.0).epsilon(1e-14));
  }
}
