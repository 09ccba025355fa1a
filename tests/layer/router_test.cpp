// A linear layer behind a router of its own, against the formula in double: law 1 in a linear layer.

#include "catch.hpp"
#include "random.hpp"
#include "tolerance.hpp"

#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/layer/router.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

using namespace finteam;

TEMPLATE_TEST_CASE("a routed linear layer adds the softmax of the largest logits times their experts", "[layer][law1]",
                   Reference, Cpu) {
  constexpr index_t t = 9, k = 37, n = 21, experts = 5;
  const index_t top_k = GENERATE(1, 2, 5);
  CAPTURE(top_k);
  TestType b;
  auto* const memory = std::pmr::get_default_resource();
  test::Random random(23);
  const auto draw = [&](index_t rows, index_t columns) {
    return random.floats(static_cast<std::size_t>(rows * columns), -1, 1);
  };
  const auto matrix = [&](const std::vector<float>& values, index_t rows, index_t columns) {
    const std::vector<index_t> shape{rows, columns};
    const RawTensor raw{reinterpret_cast<const std::byte*>(values.data()), DType::f32, shape};
    return b.matrix({&raw, 1}, Join::stacked, Weights::stored, memory);
  };
  std::vector<float> x = draw(t, k), before = draw(t, n), router = draw(experts, k);
  std::vector<std::vector<float>> each;
  RoutedLinear<TestType> w{.experts = {}, .top_k = top_k};
  w.router.push_back(matrix(router, experts, k));
  RouterScratch<TestType> s{.logits = b.template tensor<float, 2>({t, experts}, memory),
                            .scores = std::vector<double>(experts),
                            .chosen = {}};
  for (index_t e = 0; e < experts; ++e) {
    each.push_back(draw(n, k));
    w.experts.push_back(matrix(each.back(), n, k));
    s.chosen.emplace_back(t);
  }
  std::vector<float> weights(t * experts, 0.25F), y = before;
  s.weights = {weights.data(), {t, experts}};
  s.share = 0.5F;
  auto input = b.input(t, k, memory);
  routed_linear<TestType>(b, w, MatrixView<float>(x.data(), {t, k}), s, input, MatrixView<float>(y.data(), {t, n}));

  const auto product = [&](const std::vector<float>& m, index_t i, index_t row) {
    double sum = 0;
    for (index_t j = 0; j < k; ++j) {
      sum += static_cast<double>(m[static_cast<std::size_t>(i * k + j)]) *
             static_cast<double>(x[static_cast<std::size_t>(row * k + j)]);
    }
    return sum;
  };
  for (index_t row = 0; row < t; ++row) {
    std::vector<double> logits;
    for (index_t e = 0; e < experts; ++e) logits.push_back(product(router, e, row));
    std::vector<std::size_t> order(experts);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return logits[i] > logits[j]; });
    std::vector<double> share(experts);
    double sum = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(top_k); ++i) {
      sum += share[order[i]] = std::exp(logits[order[i]]);
    }
    for (std::size_t e = 0; e < experts; ++e) {
      share[e] /= sum;
      CHECK(std::abs(static_cast<double>(weights[static_cast<std::size_t>(row) * experts + e]) -
                     (0.25 + 0.5 * share[e])) < 1e-6);
    }
    for (index_t i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(row * n + i);
      double expected = static_cast<double>(before[at]);
      for (std::size_t e = 0; e < experts; ++e) expected += share[e] * product(each[e], i, row);
      CHECK(std::abs(static_cast<double>(y[at]) - expected) < 1e-5);
    }
  }
}
