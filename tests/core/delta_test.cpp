// The rounding of differences: scales with the least squared error, and what the numbers mean.

#include "catch.hpp"
#include "random.hpp"

#include <finteam/core/delta.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

using namespace finteam;

namespace {

/// A row and its rounding.
struct Rounded {
  std::vector<float> d;
  Format format;
  float scale;
  std::vector<std::byte> numbers;

  Rounded(Format f, std::vector<float> row) : Rounded(f, row, fit_delta_scale(f, row)) {}
  Rounded(Format f, std::vector<float> row, float s)
      : d(std::move(row)),
        format(f),
        scale(s),
        numbers(static_cast<std::size_t>(delta_row_bytes(f, static_cast<index_t>(d.size()))), std::byte{0xFF}) {
    quantise_delta(format, d, scale, numbers.data());
  }
  [[nodiscard]] float operator[](std::size_t j) const {
    const RawDelta raw{numbers.data(), reinterpret_cast<const std::byte*>(&scale), 1, 1, static_cast<index_t>(d.size()),
                       format};
    return raw(0, static_cast<index_t>(j));
  }
  [[nodiscard]] double error() const {
    double sum = 0;
    for (std::size_t j = 0; j < d.size(); ++j)
      sum += std::pow(static_cast<double>(d[j]) - static_cast<double>((*this)[j]), 2);
    return sum;
  }
};

/// About normal, deviation 0.58.
std::vector<float> normal(test::Random& random, std::size_t n) {
  std::vector<float> d(n);
  for (float& x : d) {
    for (int i = 0; i < 4; ++i) x += static_cast<float>(random.uniform(-0.5, 0.5));
  }
  return d;
}

}  // namespace

TEST_CASE("a difference in one bit is its signs and their mean magnitude, the lowest bit first", "[core]") {
  const Rounded r(Format::int1, {1, -2, 3, -4, 5, 6, -7, -8, -9});
  CHECK(r.scale == 5);
  CHECK(r.numbers == std::vector<std::byte>{std::byte{0b00110101}, std::byte{0}});
  CHECK(r[0] == 5);
  CHECK(r[1] == -5);
  CHECK(r[8] == -5);
}

TEST_CASE("a difference in two bits has four levels of its scale", "[core]") {
  const Rounded r(Format::int2, {-3, -1, 1, 3, 1});
  CHECK(r.scale == 2);
  CHECK(r.numbers == std::vector<std::byte>{std::byte{0b11100100}, std::byte{0b10}});
  for (std::size_t j = 0; j < r.d.size(); ++j) CHECK(r[j] == r.d[j]);
}

TEST_CASE("rows begin at bytes of their own", "[core]") {
  CHECK(delta_row_bytes(Format::int1, 0) == 0);
  CHECK(delta_row_bytes(Format::int1, 8) == 1);
  CHECK(delta_row_bytes(Format::int1, 9) == 2);
  CHECK(delta_row_bytes(Format::int2, 8) == 2);
  CHECK(delta_row_bytes(Format::int2, 9) == 3);
}

TEST_CASE("what did not change takes turns above and below", "[core]") {
  const Format format = GENERATE(Format::int1, Format::int2);
  std::vector<float> d(64, 0.0F);
  d[10] = d[11] = 8;
  const Rounded r(format, d);
  float sum = 0;
  for (std::size_t j = 0; j < d.size(); ++j) sum += j == 10 || j == 11 ? 0 : r[j];
  CHECK(sum == 0);
  CHECK(r[10] > 0);
}

TEST_CASE("no other scale near the chosen one has less squared error, and the error is counted right", "[core]") {
  const Format format = GENERATE(Format::int1, Format::int2);
  test::Random random(3);
  for (const std::size_t n : {1U, 2U, 7U, 33U, 64U, 500U}) {
    std::vector<float> d = normal(random, n);
    if (n == 500) {
      for (std::size_t j = 0; j < n; j += 2) d[j] *= 0.01F;  // most of it near zero
    }
    const Rounded best(format, d);
    for (const float factor : {0.9F, 0.97F, 1.03F, 1.1F}) {
      CHECK(best.error() <= Rounded(format, d, best.scale * factor).error() * (1 + 1e-6));
    }
    const DeltaError error = delta_error(format, d, best.scale);
    double squares = 0;
    for (const float x : d) squares += static_cast<double>(x) * static_cast<double>(x);
    CHECK(std::abs(error.squares - squares) <= 1e-9 * squares);
    CHECK(std::abs(error.errors - best.error()) <= 1e-6 * squares);
  }
  // of normal numbers: sqrt(1 - 2/π) with one bit, 0.345 with two (Max 1960)
  const Rounded many(format, normal(random, 100'000));
  const DeltaError error = delta_error(format, many.d, many.scale);
  const double relative = std::sqrt(error.errors / error.squares);
  CHECK(relative < (format == Format::int1 ? 0.61 : 0.35));
  CHECK(relative > (format == Format::int1 ? 0.55 : 0.3));
}

TEST_CASE("nothing has the scale 0, and a number that is not finite none", "[core]") {
  const Format format = GENERATE(Format::int1, Format::int2);
  CHECK(fit_delta_scale(format, {}) == 0);
  const Rounded zeros(format, std::vector<float>(9, 0.0F));
  CHECK(zeros.scale == 0);
  CHECK(zeros[8] == 0);
  CHECK(delta_error(format, zeros.d, 0).errors == 0);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const std::size_t at : {0U, 8U, 9U}) {
      std::vector<float> d(10, 1.0F);
      d[at] = -bad;
      CHECK(std::isnan(fit_delta_scale(format, d)));
    }
  }
}

TEST_CASE("scales have the same bits on every instruction set and compiler", "[core]") {
  test::Random random(5);
  std::vector<float> d(1003);
  for (float& x : d) x = static_cast<float>(random.below(1 << 20) - (1 << 19)) * 0x1p-21F;
  CHECK(std::bit_cast<std::uint32_t>(fit_delta_scale(Format::int1, d)) == 0x3DFF92E8U);
  CHECK(std::bit_cast<std::uint32_t>(fit_delta_scale(Format::int2, d)) == 0x3DFD9CCFU);
}
