#include <finteam/backend/cpu/simd.hpp>

#include "catch.hpp"
#include "inputs.hpp"
#include "tolerance.hpp"

#include <cmath>
#include <limits>

using namespace finteam;
using inputs::bits;
using V = detail::simd::Lanes<DefaultArch>;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

std::array<float, 16> array(const V& v) {
  std::array<float, 16> a;
  v.store(a.data());
  return a;
}

}  // namespace

TEST_CASE("exp is within 2 ulp over the whole range, and lanes have the scalar's bits", "[backend]") {
  for (int step = -8733; step <= 8872; ++step) {
    const float x = static_cast<float>(step) * 0.01F;
    const float y = detail::simd::exp(x);
    if (!tolerance::exponential.holds(y, std::exp(static_cast<double>(x)))) FAIL(x << ": " << y);
    for (const float lane : array(detail::simd::exp(V::broadcast(x)))) {
      if (bits(lane) != bits(y)) FAIL(x << ": " << y << " " << lane);
    }
  }
}

TEST_CASE("exp keeps its promises at the ends", "[backend]") {
  const auto exp = [](float x) {
    const float y = detail::simd::exp(x);
    const auto lanes = array(detail::simd::exp(V::broadcast(x)));
    REQUIRE((bits(lanes[0]) == bits(y) && bits(lanes[15]) == bits(y)));
    return y;
  };
  REQUIRE(bits(exp(0.0F)) == bits(1.0F));
  REQUIRE(bits(exp(-0.0F)) == bits(1.0F));
  REQUIRE(bits(exp(-inf)) == bits(0.0F));
  REQUIRE(exp(inf) == inf);
  REQUIRE(exp(89.0F) == inf);
  REQUIRE(exp(3e38F) == inf);
  REQUIRE(std::isfinite(exp(88.72283F)));
  REQUIRE(exp(-87.33654F) >= std::numeric_limits<float>::min());
  REQUIRE(bits(exp(-87.34F)) == bits(0.0F));
  REQUIRE(bits(exp(-3e38F)) == bits(0.0F));
  REQUIRE(std::isnan(exp(std::numeric_limits<float>::quiet_NaN())));
  REQUIRE(exp(0x1p-140F) == 1.0F);
}

TEST_CASE("fmadd rounds once, in every lane, where the build has fused multiply-add", "[law3]") {
  // a·b = 1 - 2^-46, which float rounds to 1
  const float a = 1 + 0x1p-23F, b = 1 - 0x1p-23F;
#if defined(__FMA__)
  const float expected = -0x1p-46F;
#else
  const float expected = 0;
#endif
  REQUIRE(detail::simd::fmadd(a, b, -1.0F) == expected);
  for (const float lane : array(detail::simd::fmadd(V::broadcast(a), V::broadcast(b), V::broadcast(-1.0F)))) {
    REQUIRE(lane == expected);
  }
}

TEST_CASE("sums and maxima of sixteen lanes take every lane", "[backend]") {
  const auto x = inputs::values(16, 3);
  double sum = 0;
  float greatest = -inf;
  for (const float value : x) {
    sum += static_cast<double>(value);
    greatest = std::max(greatest, value);
  }
  REQUIRE(tolerance::op(DType::f32).holds(detail::simd::sum(V::load(x.data())), sum));
  REQUIRE(detail::simd::greatest(V::load(x.data())) == greatest);
  for (index_t lane = 0; lane < 16; ++lane) {
    std::array<float, 16> one{};
    one[static_cast<std::size_t>(lane)] = 3;
    REQUIRE(detail::simd::sum(V::load(one.data())) == 3);
    REQUIRE(detail::simd::greatest(V::load(one.data())) == 3);
    const auto part = array(V::load(x.data(), lane));
    for (index_t i = 0; i < 16; ++i) {
      const auto at = static_cast<std::size_t>(i);
      REQUIRE(part[at] == (i < lane ? x[at] : 0.0F));
    }
  }
}
