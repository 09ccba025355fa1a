#include <finteam/backend/cpu/simd_log.hpp>

#include "catch.hpp"
#include "random.hpp"

#include <cmath>
#include <limits>
#include <vector>

using namespace finteam;
using V = detail::simd::Lanes<DefaultArch>;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float no_number = std::numeric_limits<float>::quiet_NaN();

/// The one value in all lanes.
float lane(const V& v) {
  std::array<float, 16> a;
  v.store(a.data());
  for (const float x : a) REQUIRE(std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(a[0]));
  return a[0];
}
/// |found - exact| in units of the last place of a float of exact's size.
double ulps(float found, double exact) {
  const auto size = static_cast<float>(std::abs(exact));
  return std::abs(static_cast<double>(found) - exact) /
         (static_cast<double>(std::nextafter(size, infinity)) - static_cast<double>(size));
}
struct Pair {
  float value, minus_one;
};
Pair exponential(float x) {
  const detail::simd::Exponential<DefaultArch> e(V::broadcast(x));
  return {lane(e.value), lane(e.minus_one)};
}
float log(float s, float u) { return lane(detail::simd::log(V::broadcast(s), V::broadcast(u))); }

}  // namespace

TEST_CASE("e^x and e^x - 1 are within 2 ulp for x from -87 to 0", "[backend]") {
  for (int step = 0; step <= 8700; ++step) {
    const float x = static_cast<float>(step) * -0.01F;
    const Pair e = exponential(x);
    REQUIRE(ulps(e.value, std::exp(static_cast<double>(x))) <= 2);
    REQUIRE(ulps(e.minus_one, std::expm1(static_cast<double>(x))) <= 2);
  }
  for (float x = -0.5F; x < -1e-38F; x *= 0.97F) {
    REQUIRE(ulps(exponential(x).minus_one, std::expm1(static_cast<double>(x))) <= 2);
  }
}

TEST_CASE("e^x and e^x - 1 keep their promises at the ends", "[backend]") {
  CHECK(exponential(0).value == 1.0F);
  CHECK(std::bit_cast<std::uint32_t>(exponential(0).minus_one) == 0);
  for (const float x : {-88.0F, -3e38F, -infinity}) {
    CHECK(exponential(x).minus_one == -1.0F);
    CHECK(exponential(x).value == exponential(-87).value);
  }
  CHECK(std::isnan(exponential(no_number).value));
  CHECK(std::isnan(exponential(no_number).minus_one));
}

TEST_CASE("a logarithm is within 2 ulp, from 1 + u near 1 and from s elsewhere", "[backend]") {
  for (float s = 1; s >= std::numeric_limits<float>::min(); s *= 0.993F) {
    const float u = s - 1;
    const bool near = u >= -0.29289322F;
    const double exact = near ? std::log1p(static_cast<double>(u)) : std::log(static_cast<double>(s));
    REQUIRE(ulps(log(s, u), exact) <= 2);
  }
  for (float u = -0.29F; u < -1e-37F; u *= 0.97F) {
    REQUIRE(ulps(log(1 + u, u), std::log1p(static_cast<double>(u))) <= 2);
  }
  CHECK(std::bit_cast<std::uint32_t>(log(1, 0)) == 0);
  CHECK(std::isnan(log(no_number, no_number)));
}

TEST_CASE("a difference and what it lost are the difference", "[backend][law3]") {
  test::Random random(71);
  for (int trial = 0; trial < 2000; ++trial) {
    const auto a = static_cast<float>(random.uniform(-40, 40)), b = static_cast<float>(random.uniform(-1, 1));
    const detail::simd::Difference<DefaultArch> d(V::broadcast(a), V::broadcast(b));
    const double exact = static_cast<double>(a) - static_cast<double>(b);
    REQUIRE(lane(d.value) == a - b);
    REQUIRE(static_cast<double>(lane(d.value)) + static_cast<double>(lane(d.lost)) == exact);
  }
}

TEST_CASE("exact sums of many floats are those in double", "[backend][law3]") {
  test::Random random(72);
  const auto x = random.floats(100000, 0, 1);
  detail::simd::ExactSums<DefaultArch> sums;
  double sum = 0;
  detail::simd::for_blocks<DefaultArch>(x, 0, [&](std::size_t, const V& block) { sums.add(block); });
  for (const float v : x) sum += static_cast<double>(v);
  CHECK(sums.total() == Approx(sum).epsilon(1e-12));
}

TEST_CASE("the greatest entry passes over NaN, in a span of any length", "[backend]") {
  for (std::size_t n = 0; n < 50; ++n) {
    std::vector<float> x(n, -2);
    CHECK(detail::simd::greatest<DefaultArch>(x) == (n == 0 ? -infinity : -2));
    for (std::size_t at = 0; at < n; ++at) {
      auto y = x;
      y[at] = 3;
      if (n > 1) y[(at + 1) % n] = no_number;
      REQUIRE(detail::simd::greatest<DefaultArch>(y) == 3);
    }
  }
  CHECK(detail::simd::greatest<DefaultArch>(std::vector<float>(20, no_number)) == -infinity);
}
