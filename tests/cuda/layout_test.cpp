// The functions that kernels share with the host: where numbers lie, and what they are rounded to.
#include <finteam/backend/cuda/layout.hpp>
#include <finteam/core/format.hpp>
#include <finteam/core/packed.hpp>

#include "backend/inputs.hpp"
#include "catch.hpp"
#include "tolerance.hpp"

#include <numbers.cuh>

#include <cmath>
#include <limits>
#include <set>

namespace layouts = finteam::cuda_v0_1;
namespace kernels = finteam::cuda_v0_1::kernels;
using finteam::index_t;

TEST_CASE("every number of an integer matrix has bits of its own, within the matrix and beside no scale", "[cuda]") {
  const auto format = GENERATE(layouts::Format::int8, layouts::Format::int4, layouts::Format::int4_zero,
                               layouts::Format::int1, layouts::Format::int2);
  for (const bool paired : {false, true}) {
    const layouts::MatrixLayout w(format, 19, 150, paired);
    std::set<std::pair<index_t, int>> taken;
    std::set<index_t> scales;
    for (index_t row = 0; row < w.rows(); ++row) {
      for (index_t j = 0; j < layouts::pad(w.k, layouts::block_inputs); ++j) {
        const auto place = w.place(row, j);
        REQUIRE(place.byte >= 0);
        REQUIRE(place.byte < w.bytes());
        for (int bit = 0; bit < layouts::bits_of(format); ++bit)
          REQUIRE(taken.insert({place.byte, place.shift + bit}).second);
        scales.insert(w.scale(row, j));
      }
    }
    const auto groups = w.rows() * (layouts::is_delta(format) ? 1 : layouts::pad(w.k, 128) / 32);
    REQUIRE(static_cast<index_t>(scales.size()) == groups);
    const int size = layouts::is_delta(format) ? 4 : 2;
    for (const index_t scale : scales) {
      REQUIRE(scale % size == 0);
      for (int i = 0; i < size; ++i)
        REQUIRE(taken.lower_bound({scale + i, 0}) == taken.lower_bound({scale + i + 1, 0}));
    }
  }
}

TEST_CASE("rows of a pair share tiles of eight and eight, each once", "[cuda]") {
  const layouts::MatrixLayout w(layouts::Format::bf16, 21, 40, true);
  std::set<index_t> rows;
  for (index_t i = 0; i < w.n; ++i) {
    for (const int which : {0, 1}) {
      REQUIRE(rows.insert(w.row(i, which)).second);
      REQUIRE(w.row(i, which) < w.rows());
    }
    REQUIRE(w.row(i, 0) / 16 == w.row(i, 1) / 16);
    REQUIRE(w.row(i, 0) + 8 == w.row(i, 1));
  }
}

TEST_CASE("every key and value of a page has bytes of its own, aligned, within the page", "[cuda]") {
  const auto format = GENERATE(layouts::CacheFormat::f32, layouts::CacheFormat::bf16, layouts::CacheFormat::int8);
  for (const index_t e : {2, 16, 34, 128}) {
    const layouts::PageLayout page(format, e);
    std::set<int> taken;
    const auto take = [&](int at, int size) {
      REQUIRE(at % size == 0);
      REQUIRE(at + size <= page.bytes());
      for (int i = 0; i < size; ++i) REQUIRE(taken.insert(at + i).second);
    };
    for (index_t slot = 0; slot < layouts::page_tokens; ++slot) {
      for (index_t i = 0; i < page.width(); ++i) {
        take(page.key(slot, i), page.element_bytes());
        take(page.value(slot, i), page.element_bytes());
      }
      if (format != layouts::CacheFormat::int8) continue;
      for (index_t i = 0; i < e; i += 32) take(page.key_scale(slot, i), 4);
      take(page.value_scale(slot), 4);
    }
    REQUIRE(page.bytes() % 64 == 0);
  }
}

TEST_CASE("kernels round to bf16 and to bytes as the host does, bit for bit", "[cuda]") {
  inputs::Random random{5};
  for (int i = 0; i < 200'000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(random.bits()));
    REQUIRE(kernels::to_bf16(x) == finteam::to_bf16(x).bits);
  }
  for (int i = 0; i < 2'000; ++i) {
    std::array<float, 32> x;
    const float size = std::ldexp(1.0F, static_cast<int>(random.bits() % 240) - 120);
    for (float& v : x) v = random.value() * size;
    if (i % 50 == 0) x[7] = std::numeric_limits<float>::infinity();
    if (i % 50 == 1) x[9] = std::numeric_limits<float>::quiet_NaN();
    std::uint32_t most = 0;
    for (const float v : x) most = std::max(most, kernels::magnitude(v));
    const auto expected = finteam::quantise_activations(x);
    const auto found = kernels::activation_scale(most);
    REQUIRE(std::isnan(found.scale) == std::isnan(expected.scale));
    if (std::isnan(found.scale)) continue;
    REQUIRE(inputs::bits(found.scale) == inputs::bits(expected.scale));
    const auto weights = finteam::quantise_weights(finteam::Format::int8, x);
    const auto key = kernels::key_scale(most);
    REQUIRE(inputs::bits(key.scale) == inputs::bits(weights.scale));
    for (std::size_t j = 0; j < 32; ++j) {
      REQUIRE(kernels::to_byte(x[j], found.inverse) == expected.q[j]);
      REQUIRE(kernels::to_byte(x[j], key.inverse) == static_cast<int>(weights.q[j]) - 128);
    }
  }
}

TEST_CASE("gates and caps of kernels are those of double arithmetic, and saturate without NaN", "[cuda]") {
  const layouts::Gate silu{layouts::Curve::silu, 0, 0}, gelu{layouts::Curve::gelu_tanh, 0, 0},
      clamped{layouts::Curve::clamped_silu, 1.702F, 7};
  for (const float z : {-200.0F, -20.0F, -1.5F, -1e-3F, 0.0F, 0.25F, 3.0F, 200.0F}) {
    const double x = static_cast<double>(z), u = 1.5;
    CAPTURE(z);
    REQUIRE(tolerance::op(finteam::DType::f32).holds(kernels::gated(silu, z, 1.5F), x / (1 + std::exp(-x)) * u));
    const double inner = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    REQUIRE(
        tolerance::op(finteam::DType::f32).holds(kernels::gated(gelu, z, 1.5F), x / 2 * (1 + std::tanh(inner)) * u));
    const double c = std::min(x, 7.0);
    REQUIRE(
        tolerance::op(finteam::DType::f32)
            .holds(kernels::gated(clamped, z, 1.5F), c / (1 + std::exp(-static_cast<double>(1.702F) * c)) * (u + 1)));
    REQUIRE(tolerance::op(finteam::DType::f32).holds(kernels::capped(z, 5), 5 * std::tanh(x / 5)));
  }
}

TEST_CASE("a row's window begins where the rule says", "[cuda]") {
  REQUIRE(kernels::first_position({1, 0, 0, nullptr}, 100) == 0);
  REQUIRE(kernels::first_position({1, 0, 20, nullptr}, 5) == 0);
  REQUIRE(kernels::first_position({1, 0, 20, nullptr}, 19) == 0);
  REQUIRE(kernels::first_position({1, 0, 20, nullptr}, 20) == 1);
}
