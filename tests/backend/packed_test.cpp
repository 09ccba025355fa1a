#include <finteam/core/hash.hpp>
#include <finteam/core/packed.hpp>

#include "catch.hpp"
#include "inputs.hpp"
#include "random.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace finteam;

TEST_CASE("a packed matrix gives back every element of every storage type, exactly", "[backend]") {
  const DType dtype = GENERATE(DType::f32, DType::bf16, DType::f16);
  for (const auto& [n, k] : {std::pair<index_t, index_t>{1, 1}, {16, 2}, {17, 3}, {33, 64}, {48, 7}, {5, 31}}) {
    const inputs::File file({n, k}, dtype, 7);
    const PackedMatrix w(file.raw());
    REQUIRE(w.rows() == n);
    REQUIRE(w.cols() == k);
    REQUIRE(w.format() == (dtype == DType::bf16 ? Format::bf16_wide : Format::f32));
    for (index_t i = 0; i < n * k; ++i) REQUIRE(w.element(i / k, i % k) == file.raw()[i]);
  }
}

TEST_CASE("panels of bf16 are [k/2][16][2] with zeros in the tails, on 64-byte lines", "[backend]") {
  const inputs::File file({18, 3}, DType::bf16, 9);
  const PackedMatrix w(file.raw());
  REQUIRE(w.panels() == 2);
  REQUIRE(w.panel_bytes() == 128);
  REQUIRE(reinterpret_cast<std::uintptr_t>(w.panel(0)) % 64 == 0);
  for (index_t p = 0; p < 2; ++p) {
    for (index_t lane = 0; lane < 16; ++lane) {
      for (index_t j = 0; j < 4; ++j) {
        const index_t i = 16 * p + lane;
        const float expected = i < 18 && j < 3 ? file.raw()[i * 3 + j] : 0.0F;
        REQUIRE(load_element(w.panel(p), DType::bf16, j / 2 * 32 + lane * 2 + j % 2) == expected);
      }
    }
  }
}

TEST_CASE("panels of f32 are [k][16] with zeros in the tail", "[backend]") {
  const inputs::File file({3, 5}, DType::f32, 9);
  const PackedMatrix w(file.raw());
  REQUIRE(w.panel_bytes() == 5 * 64);
  for (index_t lane = 0; lane < 16; ++lane) {
    for (index_t j = 0; j < 5; ++j) {
      REQUIRE(load_element(w.panel(0), DType::f32, j * 16 + lane) == (lane < 3 ? file.raw()[lane * 5 + j] : 0.0F));
    }
  }
}

TEST_CASE("a matrix without rows or columns packs to nothing", "[backend]") {
  for (const auto& shape : {std::vector<index_t>{0, 5}, {5, 0}, {0, 0}}) {
    const PackedMatrix w(RawTensor{nullptr, DType::bf16, shape});
    REQUIRE(w.rows() == shape[0]);
    REQUIRE(w.cols() == shape[1]);
  }
}

TEST_CASE("a matrix that cannot be addressed, or is none, is refused", "[backend]") {
  const auto code = [](std::vector<index_t> shape) {
    try {
      const PackedMatrix w(RawTensor{nullptr, DType::f32, shape});
      return Code::system;
    } catch (const Error& e) {
      return e.code();
    }
  };
  const index_t most = std::numeric_limits<index_t>::max();
  REQUIRE(code({most, 2}) == Code::limit_exceeded);
  REQUIRE(code({most, 0}) == Code::limit_exceeded);
  REQUIRE(code({0, most}) == Code::limit_exceeded);
  REQUIRE(code({-1, 2}) == Code::limit_exceeded);
  REQUIRE(code({index_t{1} << 31, index_t{1} << 31}) == Code::limit_exceeded);
  REQUIRE(code({4}) == Code::mismatch);
  REQUIRE(code({4, 1, 1}) == Code::mismatch);
}

TEST_CASE("quantised panels hold what quantise_weights says, group by group", "[backend]") {
  const Weights weights = GENERATE(Weights::int8, Weights::int4, Weights::int4_zero);
  for (const auto& [n, k] : {std::pair<index_t, index_t>{1, 1}, {16, 64}, {17, 33}, {33, 130}, {5, 1100}}) {
    const inputs::File file({n, k}, DType::f32, 21);
    const PackedMatrix w(file.raw(), weights);
    REQUIRE(w.panel_bytes() % 64 == 0);
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < k; j += group_inputs) {
        std::vector<float> group;
        for (index_t a = j; a < std::min(k, j + group_inputs); ++a) group.push_back(file.raw()[i * k + a]);
        const WeightGroup expected = quantise_weights(w.format(), group);
        for (std::size_t a = 0; a < group.size(); ++a) {
          REQUIRE(w.element(i, j + static_cast<index_t>(a)) == expected[static_cast<index_t>(a)]);
        }
      }
    }
  }
}

TEST_CASE("a weight in 8 bits is within half a step of what it stands for", "[backend]") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const auto w = inputs::values(32, seed);
    const WeightGroup group = quantise_weights(Format::int8, w);
    REQUIRE(to_float(to_bf16(group.scale)) == group.scale);
    for (index_t j = 0; j < 32; ++j) {
      // The rounding of the scale, at most 2^-9 of it, can clamp an end of the range.
      REQUIRE(std::abs(group[j] - w[static_cast<std::size_t>(j)]) <= 0.751F * group.scale);
    }
  }
}

TEST_CASE("weights in 4 bits have less squared error than the plain scale would give", "[backend]") {
  const Format format = GENERATE(Format::int4, Format::int4_zero);
  const auto squares = [](const std::vector<float>& w, auto&& value) {
    double sum = 0;
    for (const float x : w) sum += std::pow(static_cast<double>(value(x)) - static_cast<double>(x), 2);
    return sum;
  };
  double chosen = 0, plain = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    auto w = inputs::values(32, seed);
    if (seed % 3 == 0) {
      for (float& x : w) x = std::abs(x) + 0.5F;  // one sign only
    }
    const WeightGroup group = quantise_weights(format, w);
    REQUIRE(to_float(to_bf16(group.scale)) == group.scale);
    index_t next = 0;
    const double error = squares(w, [&](float) { return group[next++]; });
    const auto [low, high] = std::minmax_element(w.begin(), w.end());
    const float least = std::min(*low, 0.0F), most = std::max(*high, 0.0F);
    const float step = format == Format::int4 ? (-least > most ? least : most) / -8 : (most - least) / 15;
    const float bottom = format == Format::int4 ? -8 : std::nearbyint(least / step);
    const double simple =
        squares(w, [&](float x) { return step * std::min(std::max(std::nearbyint(x / step), bottom), bottom + 15); });
    REQUIRE(error <= 1.05 * simple);  // the scale is rounded to bf16
    chosen += error;
    plain += simple;
  }
  REQUIRE(chosen < 0.97 * plain);
}

TEST_CASE("a group of zeros is zeros, and a number that is not finite makes the whole group NaN", "[backend]") {
  const Format format = GENERATE(Format::int8, Format::int4, Format::int4_zero);
  for (const float nothing : {0.0F, -0.0F, 1e-31F}) {
    const WeightGroup group = quantise_weights(format, std::vector<float>(32, nothing));
    for (index_t j = 0; j < 32; ++j) REQUIRE(group[j] == 0);
  }
  constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const float x : {infinity, -infinity, nan, -nan}) {
    for (std::size_t at = 0; at < 32; at += 31) {
      auto w = inputs::values(32, 3);
      w[at] = x;
      REQUIRE(std::isnan(quantise_weights(format, w).scale));
    }
  }
  const WeightGroup largest = quantise_weights(format, std::vector<float>(7, -std::numeric_limits<float>::max()));
  REQUIRE(largest[0] <= -3.2e38F);
  REQUIRE(largest[31] == 0);
}

TEST_CASE("a row of activations in 8 bits is within half a step of what it stands for", "[backend]") {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const auto x = inputs::values(32, seed);
    const ActivationGroup group = quantise_activations(x);
    for (std::size_t j = 0; j < 32; ++j) {
      REQUIRE(std::abs(group.scale * static_cast<float>(group.q[j]) - x[j]) <= 0.501F * group.scale);
    }
  }
}

TEST_CASE("paired and stacked parts keep their rows", "[backend]") {
  const inputs::File a({20, 6}, DType::f32, 1), b({20, 6}, DType::f32, 2);
  const std::array<RawTensor, 2> parts{a.raw(), b.raw()};
  PackedMatrix paired(parts, Join::paired, Format::f32, std::pmr::get_default_resource());
  REQUIRE(paired.rows() == 20);
  REQUIRE(paired.panels() == 4);
  for (index_t i = 0; i < 4; ++i) paired.pack(i, parts);
  for (index_t i = 0; i < 20; ++i) {
    for (index_t j = 0; j < 6; ++j) {
      const auto at = [&](index_t p) { return detail::panel_element(Format::f32, paired.panel(p), i % 16, j); };
      REQUIRE(at(i / 16 * 2) == a.raw()[i * 6 + j]);
      REQUIRE(at(i / 16 * 2 + 1) == b.raw()[i * 6 + j]);
    }
  }
  PackedMatrix stacked(parts, Join::stacked, Format::f32, std::pmr::get_default_resource());
  REQUIRE(stacked.rows() == 40);
  for (index_t i = 0; i < stacked.panels(); ++i) stacked.pack(i, parts);
  for (index_t i = 0; i < 40; ++i) REQUIRE(stacked.element(i, 5) == (i < 20 ? a : b).raw()[i % 20 * 6 + 5]);
  const inputs::File other({20, 7}, DType::f32, 3);
  const std::array<RawTensor, 2> wrong{a.raw(), other.raw()};
  REQUIRE_THROWS_AS(PackedMatrix(wrong, Join::stacked, Format::f32, std::pmr::get_default_resource()), Error);
}

TEST_CASE("packed bytes are those of packing version 1 on every instruction set and compiler", "[backend]") {
  // Files keep them: whoever changes these hashes raises packing_version.
  REQUIRE(packing_version == 1);
  const index_t n = 21, k = 211;
  test::Random random(17);
  std::vector<float> values(static_cast<std::size_t>(n * k));
  for (std::size_t i = 0; i < values.size(); ++i) {  // exact in float
    const auto x = static_cast<std::int32_t>(random.below(1 << 16) * (random.below(9) == 0 ? 5 : 1)) - (1 << 15);
    values[i] = static_cast<float>(x) * (i / 32 % 5 == 4 ? 0x1p-40F : 0x1p-18F);
  }
  const std::array<index_t, 2> shape{n, k};
  const RawTensor raw{reinterpret_cast<const std::byte*>(values.data()), DType::f32, shape};
  const auto hash = [&](Weights weights) {
    const PackedMatrix w(raw, weights);
    return xxh64({w.panel(0), w.bytes()});
  };
  CHECK(hash(Weights::stored) == 0x5437FAB9FBE00367U);
  CHECK(hash(Weights::bf16) == 0xC6A161CAD62437A8U);
  CHECK(hash(Weights::int8) == 0xA56CCCDF479E7429U);
  CHECK(hash(Weights::int4) == 0xBF75AD53CCC57BB0U);
  CHECK(hash(Weights::int4_zero) == 0x0C90882BE6CF479EU);
}
