#include "catch.hpp"
#include "random.hpp"

#include <finteam/mix/attribution.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

using namespace finteam;

namespace {

std::vector<RoleEffect> effects(const std::vector<double>& weight, const std::vector<double>& p) {
  const std::size_t labels = p.size() / weight.size();
  std::vector<RoleEffect> found(weight.size(), RoleEffect{-1, true});
  std::vector<double> scratch(2 * labels, -1.0);
  leave_one_role_out(weight, {p.data(), {static_cast<index_t>(weight.size()), static_cast<index_t>(labels)}}, found,
                     scratch);
  return found;
}

}  // namespace

TEST_CASE("the labels without a role are the mixture of the others, renormalised", "[mix]") {
  const std::vector<double> weight{0.5, 0.25, 0.25}, p{1, 0, 0.5, 0.5, 0.25, 0.75};
  std::vector<double> y(2);
  const MatrixView<const double> view(p.data(), {3, 2});
  mix_labels(weight, view, y);
  CHECK(y == std::vector<double>{0.6875, 0.3125});
  CHECK(mix_labels_without(0, weight, view, y));
  CHECK(y == std::vector<double>{0.375, 0.625});
  CHECK(mix_labels_without(1, weight, view, y));
  CHECK(y[0] == Approx(0.75));
  CHECK(y[1] == Approx(0.25));
}

TEST_CASE("a role's effect is the divergence of the answers with and without it", "[mix]") {
  const auto found = effects({0.5, 0.5}, {1, 0, 0, 1});
  // with: (1/2, 1/2), without: (0, 1): H(1/4, 3/4) - 1/2
  const double expected = 0.25 * 2 + 0.75 * std::log2(4.0 / 3) - 0.5;
  CHECK(found[0].divergence_bits == Approx(expected));
  CHECK(found[1].divergence_bits == Approx(expected));
  CHECK(found[0].label_changes);  // of equals the first is the likeliest with both
  CHECK_FALSE(found[1].label_changes);
}

TEST_CASE("a role that says what the others say has no effect", "[mix]") {
  const auto found = effects({0.2, 0.3, 0.5}, {0.7, 0.3, 0.7, 0.3, 0.7, 0.3});
  for (const RoleEffect& e : found) {
    CHECK(e.divergence_bits == Approx(0.0).margin(1e-15));
    CHECK_FALSE(e.label_changes);
  }
}

TEST_CASE("a role that sleeps is not read, and one that is alone cannot be left out", "[mix]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto found = effects({0.0, 1.0}, {nan, nan, 0.25, 0.75});
  for (const RoleEffect& e : found) {
    CHECK(e.divergence_bits == 0);
    CHECK_FALSE(e.label_changes);
  }
  std::vector<double> y(2, -1.0);
  const std::vector<double> p{nan, nan, 0.25, 0.75};
  CHECK_FALSE(mix_labels_without(1, std::vector<double>{0.0, 1.0}, {p.data(), {2, 2}}, y));
  CHECK(y == std::vector<double>{0, 0});
  const auto three = effects({0.5, 0.0, 0.5}, {0.9, 0.1, nan, nan, 0.2, 0.8});
  CHECK(three[1].divergence_bits == 0);
  CHECK(three[0].divergence_bits > 0);
  CHECK(three[0].label_changes);
  CHECK_FALSE(three[2].label_changes);
}

TEST_CASE("effects are those of plain sums, for random roles", "[mix]") {
  test::Random random(61);
  for (int trial = 0; trial < 100; ++trial) {
    const auto n = static_cast<std::size_t>(2 + random.below(4)),
               labels = static_cast<std::size_t>(2 + random.below(4));
    std::vector<double> weight(n), p(n * labels);
    for (double& w : weight) w = random.uniform(0.1, 1);
    const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
    for (double& w : weight) w /= total;
    for (std::size_t k = 0; k < n; ++k) {
      double sum = 0;
      for (std::size_t i = 0; i < labels; ++i) sum += p[k * labels + i] = random.uniform(0.01, 1);
      for (std::size_t i = 0; i < labels; ++i) p[k * labels + i] /= sum;
    }
    const auto found = effects(weight, p);
    for (std::size_t role = 0; role < n; ++role) {
      std::vector<double> all(labels, 0.0), rest(labels, 0.0);
      for (std::size_t i = 0; i < labels; ++i) {
        for (std::size_t k = 0; k < n; ++k) {
          all[i] += weight[k] * p[k * labels + i];
          if (k != role) rest[i] += weight[k] * p[k * labels + i] / (1 - weight[role]);
        }
      }
      double bits = 0;
      for (std::size_t i = 0; i < labels; ++i) {
        const double middle = (all[i] + rest[i]) / 2;
        bits += 0.5 * all[i] * std::log2(all[i] / middle) + 0.5 * rest[i] * std::log2(rest[i] / middle);
      }
      CHECK(found[role].divergence_bits == Approx(bits).margin(1e-12));
      CHECK(found[role].label_changes == (std::max_element(all.begin(), all.end()) - all.begin() !=
                                          std::max_element(rest.begin(), rest.end()) - rest.begin()));
    }
  }
}

TEST_CASE("what a role changes is what it changes in the answer that is made of the mixture", "[mix]") {
  const std::vector<double> weight{0.5, 0.25, 0.25}, p{0.9, 0.1, 0.3, 0.7, 0.2, 0.8};
  const MatrixView<const double> view(p.data(), {3, 2});
  std::vector<RoleEffect> found(3);
  std::vector<double> scratch(4);
  const auto squared = [](std::span<double> y) {
    for (double& x : y) x *= x;
    const double sum = y[0] + y[1];
    for (double& x : y) x /= sum;
  };
  leave_one_role_out(weight, view, found, scratch, squared);
  std::vector<double> both(4);  // with and without the first role
  mix_labels(weight, view, std::span(both).first(2));
  CHECK(mix_labels_without(0, weight, view, std::span(both).last(2)));
  squared(std::span(both).first(2));
  squared(std::span(both).last(2));
  const std::vector<double> half{0.5, 0.5};
  CHECK(found[0].divergence_bits == Approx(jensen_shannon_bits(half, {both.data(), {2, 2}})));
  CHECK(found[0].label_changes);
  // only the proportions of the weights matter
  const std::vector<double> part{0.25, 0.125, 0.125};
  std::vector<RoleEffect> of_part(3);
  leave_one_role_out(part, view, of_part, scratch, squared);
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(of_part[k].divergence_bits == Approx(found[k].divergence_bits).epsilon(1e-12));
    CHECK(of_part[k].label_changes == found[k].label_changes);
  }
}
