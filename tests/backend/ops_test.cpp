// The ops by hand: small cases whose answers are known, on every backend that is there.
#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>

#include "catch.hpp"
#include "op_cases.hpp"
#include "tolerance.hpp"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

using namespace finteam;

namespace {

/// A file's f32 tensor.
struct Floats {
  std::vector<float> values;
  std::vector<index_t> shape;
  [[nodiscard]] RawTensor raw() const { return {reinterpret_cast<const std::byte*>(values.data()), DType::f32, shape}; }
};

using Row = std::vector<float>;
MatrixView<float> rows(Row& v, index_t columns) { return op_cases::matrix(v, columns); }

}  // namespace

TEMPLATE_TEST_CASE("embed looks rows up", "[backend]", Reference, Cpu) {
  TestType backend;
  const Floats file{{1, 2, 3, 4, 5, 6}, {3, 2}};
  const auto w = op_cases::one_matrix(backend, file.raw());
  REQUIRE(w.rows() == 3);
  REQUIRE(w.cols() == 2);
  Row y(4);
  const std::array<std::int32_t, 2> tokens = {2, 0};
  backend.embed(w, tokens, rows(y, 2));
  REQUIRE(y == Row{5, 6, 1, 2});
}

TEMPLATE_TEST_CASE("rms_norm divides by the root of the mean square and scales, also in place", "[backend]", Reference,
                   Cpu) {
  TestType backend;
  const Floats file{{1, 2}, {2}};
  auto s = op_cases::one_vector(backend, file.raw());
  Row x = {3, 4, -6, 8};
  backend.rms_norm(rows(x, 2), s.view(), 0.0F, rows(x, 2));
  const double root = std::sqrt(12.5);
  for (const std::size_t row : {0, 1}) {
    REQUIRE(tolerance::op(DType::f32).holds(x[2 * row], (row == 0 ? 3 : -3) / root));
    REQUIRE(tolerance::op(DType::f32).holds(x[2 * row + 1], 8 / root));
  }
  Row zero(2);
  backend.rms_norm(rows(zero, 2), s.view(), 1e-5F, rows(zero, 2));
  REQUIRE(zero == Row{0, 0});
}

TEMPLATE_TEST_CASE("matmul overwrites or accumulates", "[backend]", Reference, Cpu) {
  TestType backend;
  const Floats file{{1, 0, -1, 2, 1, 0.5F}, {2, 3}};
  const auto w = op_cases::one_matrix(backend, file.raw());
  Row x = {1, 2, 3}, y = {std::numeric_limits<float>::quiet_NaN(), 20};
  op_cases::product(backend, rows(x, 3), w, Write::overwrite, rows(y, 2));
  REQUIRE(y == Row{-2, 5.5F});
  y = {10, 20};
  op_cases::product(backend, rows(x, 3), w, Write::accumulate, rows(y, 2));
  REQUIRE(y == Row{8, 25.5F});
}

TEMPLATE_TEST_CASE("matmul writes nothing beside its outputs and follows the strides of its rows", "[backend]",
                   Reference, Cpu) {
  TestType backend;
  const Floats file{{2, 3}, {1, 2}};
  const auto w = op_cases::one_matrix(backend, file.raw());
  Row x = {1, 10, 99, 100, 1000, 99}, y = {7, 7, 7, 7};
  const MatrixView<const float> strided(x.data(), {2, 2}, {3, 1});
  op_cases::product(backend, strided, w, Write::overwrite, MatrixView<float>(y.data(), {2, 1}, {2, 1}));
  REQUIRE(y == Row{32, 7, 3200, 7});
  op_cases::product(backend, strided.rows(0, 0), w, Write::overwrite, MatrixView<float>(y.data(), {0, 1}));
  REQUIRE(y == Row{32, 7, 3200, 7});
}

TEMPLATE_TEST_CASE("rope turns the pair (i, i + e/2)", "[backend]", Reference, Cpu) {
  TestType backend;
  Row x = {1, 2, 3, 4, 10, 20, 30, 40}, cosine = {0, 1}, sine = {1, 0};
  backend.rope(rows(cosine, 2), rows(sine, 2), op_cases::heads(x, 2, 4));
  REQUIRE(x == Row{-3, 2, 1, 4, -30, 20, 10, 40});
}

TEMPLATE_TEST_CASE("angles are positions times frequencies, those of long sequences where there are any", "[backend]",
                   Reference, Cpu) {
  TestType backend;
  const float pi = std::numbers::pi_v<float>;
  Row frequency = {pi / 2, pi / 6}, long_frequency = {pi, pi / 3}, cosine(6, 7.0F), sine(6, 7.0F);
  const VectorView<const float> normal(frequency.data(), {2}), longer(long_frequency.data(), {2});
  const std::array<Site, 3> sites = {Site{nullptr, 0}, Site{nullptr, 1}, Site{nullptr, 1, true}};
  const auto are = [](const Row& y, const std::array<double, 6>& expected) {
    for (std::size_t i = 0; i < 6; ++i) CHECK(static_cast<double>(y[i]) == Approx(expected[i]).margin(2e-7));
  };
  backend.angles(normal, longer, 2.0F, sites, rows(cosine, 2), rows(sine, 2));
  const double root = std::sqrt(3.0);
  are(cosine, {2, 2, 0, root, -2, 1});
  are(sine, {0, 0, 2, 1, 0, root});
  backend.angles(normal, {}, 1.0F, sites, rows(cosine, 2), rows(sine, 2));
  are(cosine, {1, 1, 0, root / 2, 0, root / 2});
  are(sine, {0, 0, 1, 0.5, 1, 0.5});
}

TEMPLATE_TEST_CASE("from_host and to_host follow the strides of rows", "[backend]", Reference, Cpu) {
  TestType backend;
  const Row x = {1, 2, 9, 3, 4, 9};
  auto there = backend.template tensor<float, 2>({2, 2}, std::pmr::get_default_resource());
  Row y(6);
  backend.from_host(MatrixView<const float>(x.data(), {2, 2}, {3, 1}), there.view());
  backend.to_host(there.view(), MatrixView<float>(y.data(), {2, 2}, {3, 1}));
  REQUIRE(y == Row{1, 2, 0, 3, 4, 0});
}

TEMPLATE_TEST_CASE("cache_write puts a position into its page and slot, and nothing elsewhere", "[backend]", Reference,
                   Cpu) {
  TestType backend;
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  Tensor<std::byte, 3> heads({1, 6, KvPage::bytes(format, 2)});
  const CacheLayer<Host> cache{heads.view(), format, 2};
  const std::array<std::int32_t, 2> pages = {5, 2};
  const std::array<Site, 2> sites = {Site{pages.data(), 33}, Site{pages.data(), 31}};
  Row keys = {1, -1, 3, 3}, values = {5, 5, -7, 7};  // the greatest of a group, so exact in 8 bits too, up to a scale's
  backend.cache_write(sites, op_cases::heads(keys, 1, 2), op_cases::heads(values, 1, 2), cache);
  for (index_t page = 0; page < 6; ++page) {
    for (index_t slot = 0; slot < page_tokens; ++slot) {
      for (index_t i = 0; i < 2; ++i) {
        const std::size_t at = static_cast<std::size_t>(i) + (page == 5 ? 2 : 0);
        const bool there = (page == 2 && slot == 1) || (page == 5 && slot == 31);
        const tolerance::Bound stored{0, format == CacheFormat::int8 ? 0x1p-8 : 0};  // a key's scale is bf16
        REQUIRE(stored.holds(cache.page(page, 0).key(slot, i), there ? keys[at] : 0));
        REQUIRE(stored.holds(cache.page(page, 0).value(slot, i), there ? values[at] : 0));
      }
    }
  }
}

TEMPLATE_TEST_CASE("cache_copy copies one page of every head, and no other", "[backend]", Reference, Cpu) {
  TestType backend;
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  op_cases::Cache cache(format, 1, 2, 6, {65});
  cache.fill(4);
  backend.cache_copy(cache.layer(), cache.pages[0], cache.pages[2]);
  for (index_t head = 0; head < 2; ++head) {
    const auto page = [&](std::size_t i) { return cache.layer().page(cache.pages[i], head); };
    const auto bytes = static_cast<std::size_t>(KvPage::bytes(format, 6));
    REQUIRE(std::memcmp(page(0).keys(), page(2).keys(), bytes) == 0);
    REQUIRE(std::memcmp(page(0).keys(), page(1).keys(), bytes) != 0);
  }
}

TEMPLATE_TEST_CASE("attention weighs values by the softmax of scaled scores, two heads to a group", "[backend]",
                   Reference, Cpu) {
  TestType backend;
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  op_cases::Cache cache(format, 1, 1, 2, {1});
  const auto put = [&](index_t slot, std::array<float, 2> key, std::array<float, 2> value) {
    cache.layer().page(cache.pages[0], 0).write(slot, key.data(), value.data());
  };
  put(0, {1, 0}, {4, -8});
  put(1, {0, 1}, {8, 16});
  const float log3 = std::log(3.0F);
  Row q = {2 * log3, 0, 0, 0}, y(4, 7.0F);  // head 0: weights 3/4 and 1/4; head 1: 1/2 and 1/2
  backend.attention(cache.sites, op_cases::heads(q, 2, 2), cache.layer(), {.scale = 0.5F}, op_cases::heads(y, 2, 2));
  const Row expected = {5, -2, 6, 4};
  // rounded scores: 2^-9 of log 3 for a query, as much for a key's scale
  const double slack = format == CacheFormat::f32 ? 0 : 24 * 0x1p-8;
  for (std::size_t i = 0; i < 4; ++i) {
    REQUIRE(tolerance::Bound{slack + 1e-5, 1e-5}.holds(y[i], expected[i]));
  }
}

TEMPLATE_TEST_CASE("attention to a single position is its value, exactly", "[backend]", Reference, Cpu) {
  TestType backend;
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  op_cases::Cache cache(format, 1, 1, 18, {0});
  cache.fill(3);
  Row q = inputs::values(18, 4), y(18);
  backend.attention(cache.sites, op_cases::heads(q, 1, 18), cache.layer(), {.scale = 0.7F}, op_cases::heads(y, 1, 18));
  for (index_t i = 0; i < 18; ++i) {
    const float value = cache.layer().page(cache.pages[0], 0).value(0, i);
    // in 8 bits a scale becomes 255 steps: two roundings
    const tolerance::Bound bound{0, format == CacheFormat::int8 ? 2.4e-7 : 0};
    REQUIRE(bound.holds(y[static_cast<std::size_t>(i)], value));
  }
}

TEMPLATE_TEST_CASE("attention survives scores that would overflow exp", "[backend]", Reference, Cpu) {
  TestType backend;
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  op_cases::Cache cache(format, 1, 1, 2, {65});
  cache.fill(5);
  Row q = {3000, -2000}, y(2);
  backend.attention(cache.sites, op_cases::heads(q, 1, 2), cache.layer(), {.scale = 1.0F}, op_cases::heads(y, 1, 2));
  for (const float value : y) REQUIRE(std::isfinite(value));
}

TEMPLATE_TEST_CASE("a key, a value or a query that is not finite makes what sees it not finite", "[backend]", Reference,
                   Cpu) {
  TestType backend;
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const int where : {0, 1, 2}) {
      op_cases::Cache cache(format, 1, 1, 4, {40});
      cache.fill(6);
      Row k = inputs::values(4, 7), v = inputs::values(4, 8), q = inputs::values(4, 9), y(4);
      (where == 0 ? k : where == 1 ? v : q)[2] = bad;
      const Site site{cache.pages.data(), 20};
      backend.cache_write({&site, 1}, op_cases::heads(k, 1, 4), op_cases::heads(v, 1, 4), cache.layer());
      backend.attention(cache.sites, op_cases::heads(q, 1, 4), cache.layer(), {.scale = 1.0F},
                        op_cases::heads(y, 1, 4));
      for (const float value : y) REQUIRE_FALSE(std::isfinite(value));
    }
  }
}

TEMPLATE_TEST_CASE("matmul_gated and gated are gate times its sigmoid times up, and saturate without NaN", "[backend]",
                   Reference, Cpu) {
  TestType backend;
  const float log3 = std::log(3.0F), inf = std::numeric_limits<float>::infinity();
  const Floats gate{{0, log3, -log3, 1000, -1000, -1e30F, inf}, {7, 1}}, up{{5, 4, 4, 2, 2, 2, 1}, {7, 1}};
  const std::array<RawTensor, 2> pair{gate.raw(), up.raw()};
  const auto w = backend.matrix(pair, Join::paired, Weights::stored, inputs::memory);
  REQUIRE(w.rows() == 7);
  Row one = {1}, y(7, 9.0F);
  auto in = backend.input(1, 1, inputs::memory);
  backend.prepare(rows(one, 1), w, in);
  backend.matmul_gated(in, w, {}, {}, rows(y, 7));
  const std::array<double, 6> expected = {0, 3.0 * log3, -1.0 * log3, 2000, 0, 0};
  for (std::size_t i = 0; i < 6; ++i) REQUIRE(tolerance::op(DType::f32).holds(y[i], expected[i]));
  REQUIRE(y[6] == inf);
  Row gates = gate.values, ups = up.values;
  backend.gated(rows(gates, 7), rows(ups, 7), {}, rows(gates, 7));
  REQUIRE(gates == y);
}

TEMPLATE_TEST_CASE("the other activations have their values, and saturate without NaN", "[backend]", Reference, Cpu) {
  TestType backend;
  Row gate = {0, 1, -1, 1e30F, -1e30F, 8, -20}, up = {3, 2, 2, 2, 2, 9, -9}, y(7);
  backend.gated(rows(gate, 7), rows(up, 7), {.kind = Activation::Kind::gelu_tanh}, rows(y, 7));
  const std::array<double, 7> gelu = {0, 2 * 0.8411919906, 2 * -0.1588080094, 2e30, 0, 72, 0};
  for (std::size_t i = 0; i < 7; ++i) REQUIRE(tolerance::op(DType::f32).holds(y[i], gelu[i]));
  // transformers' gpt_oss: gate at most 7, up within 7, plus one
  backend.gated(rows(gate, 7), rows(up, 7), {Activation::Kind::clamped_silu, 1.702F, 7}, rows(y, 7));
  const auto glu = [](double z, double u) { return z / (1 + std::exp(-1.702 * z)) * (u + 1); };
  const std::array<double, 7> clamped = {0, glu(1, 2), glu(-1, 2), glu(7, 2), 0, glu(7, 7), glu(-20, -7)};
  for (std::size_t i = 0; i < 7; ++i) REQUIRE(tolerance::op(DType::f32).holds(y[i], clamped[i]));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& activation : op_cases::activations) {
    gate = {nan, 1, nan}, up = {1, nan, nan};
    backend.gated(rows(gate, 3), rows(up, 3), activation, rows(gate, 3));
    for (const float value : gate) REQUIRE(std::isnan(value));
  }
}

TEMPLATE_TEST_CASE("soft_cap is cap times tanh, exact in sign and at its ends, and NaN stays", "[backend]", Reference,
                   Cpu) {
  TestType backend;
  Row x = {0, 1e-6F, -0.5F, 2, -30, 1e30F, -std::numeric_limits<float>::infinity()};
  Row y = x;
  backend.soft_cap(2, rows(y, 7));
  for (std::size_t i = 0; i < 7; ++i) {
    REQUIRE(tolerance::op(DType::f32).holds(y[i], 2 * std::tanh(static_cast<double>(x[i]) / 2)));
  }
  REQUIRE(y[5] == 2);
  REQUIRE(y[6] == -2);
  Row bad = {std::numeric_limits<float>::quiet_NaN()};
  backend.soft_cap(2, rows(bad, 1));
  REQUIRE(std::isnan(bad[0]));
}

TEMPLATE_TEST_CASE("a sink takes its share of a row's attention, and gives nothing for it", "[backend]", Reference,
                   Cpu) {
  TestType backend;
  op_cases::Cache cache(CacheFormat::f32, 1, 1, 4, {0});
  Row k = {1, 0, 0, 0}, v = {2, 4, 6, 8}, q = {3, 0, 0, 0, 5, 0, 0, 0}, y(8);
  backend.cache_write(cache.sites, op_cases::heads(k, 1, 4), op_cases::heads(v, 1, 4), cache.layer());
  const Row sinks = {3, 5 + std::log(3.0F)};  // as great as the score; three times its weight
  backend.attention(cache.sites, op_cases::heads(q, 2, 4), cache.layer(), {.scale = 1, .sinks = {sinks.data(), {2}}},
                    op_cases::heads(y, 2, 4));
  const Row expected = {1, 2, 3, 4, 0.5F, 1, 1.5F, 2};
  for (std::size_t i = 0; i < 8; ++i) REQUIRE(tolerance::op(DType::f32).holds(y[i], expected[i]));
}

TEMPLATE_TEST_CASE("gated follows the strides of its rows and writes nothing beside them", "[backend]", Reference,
                   Cpu) {
  TestType backend;
  Row gate = {50, 99, 60, 99}, up = {2, 3, 99, 99}, y = {7, 7, 7, 7, 7, 7};
  backend.gated(MatrixView<const float>(gate.data(), {2, 1}, {2, 1}), MatrixView<const float>(up.data(), {2, 1}), {},
                MatrixView<float>(y.data() + 1, {2, 1}, {3, 1}));
  REQUIRE(y == Row{7, 100, 7, 7, 180, 7});
}

TEMPLATE_TEST_CASE("a number that is not finite, in a weight or an activation, is NaN in every quantised product",
                   "[backend]", Reference, Cpu) {
  TestType backend;
  const Weights weights = GENERATE(Weights::int8, Weights::int4, Weights::int4_zero);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Floats file{inputs::values(2 * 70, 3), {2, 70}};
    file.values[35] = bad;
    Row x = inputs::values(70, 4), y(2);
    const auto w = op_cases::one_matrix(backend, file.raw(), weights);
    op_cases::product(backend, rows(x, 70), w, Write::overwrite, rows(y, 2));
    REQUIRE(std::isnan(y[0]));
    REQUIRE(std::isfinite(y[1]));
    file.values[35] = 1;
    x[69] = bad;
    op_cases::product(backend, rows(x, 70), op_cases::one_matrix(backend, file.raw(), weights), Write::overwrite,
                      rows(y, 2));
    for (const float value : y) REQUIRE(std::isnan(value));
  }
}

TEMPLATE_TEST_CASE("a quantised row of zeros is zero, and the smallest numbers do not become NaN", "[backend]",
                   Reference, Cpu) {
  TestType backend;
  const Weights weights = GENERATE(Weights::int8, Weights::int4, Weights::int4_zero);
  Floats file{Row(64, 0.0F), {1, 64}};
  Row x(64, 1e-38F), y = {7};
  op_cases::product(backend, rows(x, 64), op_cases::one_matrix(backend, file.raw(), weights), Write::overwrite,
                    rows(y, 1));
  REQUIRE(y[0] == 0);
  file.values.assign(64, 1e-38F);
  x.assign(64, 1e30F);
  op_cases::product(backend, rows(x, 64), op_cases::one_matrix(backend, file.raw(), weights), Write::overwrite,
                    rows(y, 1));
  REQUIRE(std::isfinite(y[0]));
}

TEMPLATE_TEST_CASE("a tensor of the wrong rank is refused as matrix and as vector", "[backend]", Reference, Cpu) {
  TestType backend;
  const Floats file{{1, 2}, {2}}, square{{1, 2, 3, 4}, {2, 2}};
  const auto refused = [](auto&& make) {
    try {
      make();
    } catch (const Error& e) {
      return e.code() == Code::mismatch && e.found().front() == '[';
    }
    return false;
  };
  REQUIRE(refused([&] { (void)op_cases::one_matrix(backend, file.raw()); }));
  REQUIRE(refused([&] { (void)op_cases::one_vector(backend, square.raw()); }));
}
