#include <finteam/backend/kv_page.hpp>

#include "catch.hpp"
#include "op_cases.hpp"

#include <cmath>
#include <limits>

using namespace finteam;

namespace {

/// A page of its own, zero as in a new cache.
struct Page {
  Tensor<std::byte, 1> bytes;
  KvPage view;
  Page(CacheFormat format, index_t e) : bytes({KvPage::bytes(format, e)}), view(bytes.data(), format, e) {}
};

}  // namespace

TEST_CASE("a page gives back every key and value as its format rounds them, whatever the width", "[backend]") {
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  for (const index_t e : {1, 2, 15, 16, 18, 33, 64, 80, 128, 300}) {
    CAPTURE(name(format), e);
    REQUIRE(KvPage::bytes(format, e) % 64 == 0);
    const Page page(format, e);
    for (index_t slot = page_tokens; slot-- > 0;) {  // in any order
      const auto k = inputs::values(e, static_cast<std::uint64_t>(slot)), v = inputs::values(e, 100);
      page.view.write(slot, k.data(), v.data());
    }
    for (index_t slot = 0; slot < page_tokens; ++slot) {
      const auto k = inputs::values(e, static_cast<std::uint64_t>(slot)), v = inputs::values(e, 100);
      float most = 0;
      for (const float x : v) most = std::max(most, std::abs(x));
      for (index_t i = 0; i < e; ++i) {
        const float key = k[static_cast<std::size_t>(i)], value = v[static_cast<std::size_t>(i)];
        if (format == CacheFormat::int8) {
          // half a step of at most 4 / 127, and for keys half as much again (packed_test.cpp)
          REQUIRE(std::abs(page.view.key(slot, i) - key) <= 0.76F * 4 / 127);
          REQUIRE(std::abs(page.view.value(slot, i) - value) <= 0.501F * most / 127);
        } else {
          const bool whole = format == CacheFormat::f32;
          REQUIRE(page.view.key(slot, i) == (whole ? key : to_float(to_bf16(key))));
          REQUIRE(page.view.value(slot, i) == (whole ? value : to_float(to_bf16(value))));
        }
      }
    }
  }
}

TEST_CASE("keys and values of a page are panels of 32 outputs, with zeros beyond the width", "[backend]") {
  Page page(CacheFormat::bf16, 3);
  const std::array<float, 3> key{1, 2, 3}, value{4, 5, 6};
  page.view.write(17, key.data(), value.data());
  REQUIRE(KvPage::bytes(CacheFormat::bf16, 3) == 2 * 128 + 16 * 128);
  for (index_t i = 0; i < KvPage::bytes(CacheFormat::bf16, 3) / 2; ++i) {
    float expected = 0;
    for (index_t j = 0; j < 3; ++j) {
      if (i == (j / 2 * 32 + 17) * 2 + j % 2) expected = key[static_cast<std::size_t>(j)];
      if (i == 128 + (8 * 32 + j) * 2 + 1) expected = value[static_cast<std::size_t>(j)];
    }
    REQUIRE(load_element(page.bytes.data(), DType::bf16, i) == expected);
  }
}

TEST_CASE("a value that is not finite in its format is stored as zero with a key of NaN, and other slots stay",
          "[backend]") {
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, inf, -inf, std::numeric_limits<float>::max()}) {
    const Page page(format, 70);
    const auto key = inputs::values(70, 1);
    auto value = inputs::values(70, 2);
    page.view.write(3, key.data(), value.data());
    const float before = page.view.value(3, 69);
    value[69] = bad;
    page.view.write(4, key.data(), value.data());
    const bool fits = std::isfinite(bad) && format == CacheFormat::f32;
    bool any_nan = false;
    for (index_t i = 0; i < 70; ++i) {
      any_nan = any_nan || std::isnan(page.view.key(4, i));
      REQUIRE(std::isfinite(page.view.value(4, i)));
      REQUIRE(std::isfinite(page.view.key(3, i)));
      if (!fits) REQUIRE(page.view.value(4, i) == 0);
    }
    REQUIRE(any_nan == !fits);
    REQUIRE(page.view.value(3, 69) == before);
    // and the slot is good for another sequence afterwards
    page.view.write(4, key.data(), inputs::values(70, 2).data());
    for (index_t i = 0; i < 70; ++i) REQUIRE(page.view.key(4, i) == page.view.key(3, i));
  }
}
