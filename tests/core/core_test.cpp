// Storage types, checked arithmetic, views and tensors.

#include "catch.hpp"
#include "random.hpp"

#include <finteam/core/checked.hpp>
#include <finteam/core/dtype.hpp>
#include <finteam/core/eigen.hpp>
#include <finteam/core/tensor.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>

using namespace finteam;

TEST_CASE("every bf16 is a float and comes back as itself", "[core]") {
  for (std::uint32_t u = 0; u < 65536; ++u) {
    const bf16 x{static_cast<std::uint16_t>(u)};
    const float f = to_float(x);
    if (std::isnan(f)) {
      CHECK(std::isnan(to_float(to_bf16(f))));
    } else if (to_bf16(f).bits != x.bits) {
      FAIL_CHECK("bits " << u);
    }
  }
}

TEST_CASE("a float rounds to the nearest bf16, ties to even", "[core]") {
  CHECK(to_bf16(std::bit_cast<float>(0x3F808000U)).bits == 0x3F80);  // halfway, and the lower one is even
  CHECK(to_bf16(std::bit_cast<float>(0x3F818000U)).bits == 0x3F82);  // halfway, and the upper one is even
  CHECK(to_bf16(std::bit_cast<float>(0x3F808001U)).bits == 0x3F81);
  CHECK(to_bf16(std::numeric_limits<float>::max()).bits == 0x7F80);  // rounds to infinity
}

TEST_CASE("f16 widens exactly: normal, subnormal, infinite and not a number", "[core]") {
  CHECK(to_float(f16{0x3C00}) == 1.0F);
  CHECK(to_float(f16{0xC000}) == -2.0F);
  CHECK(to_float(f16{0x7BFF}) == 65504.0F);
  CHECK(to_float(f16{0x0001}) == 0x1p-24F);
  CHECK(to_float(f16{0x83FF}) == -1023 * 0x1p-24F);
  CHECK(std::signbit(to_float(f16{0x8000})));
  CHECK(to_float(f16{0xFC00}) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(to_float(f16{0x7E00})));
}

TEST_CASE("an element is read from bytes that are not aligned", "[core]") {
  std::array<std::byte, 13> bytes{};
  const float x = -3.25F;
  std::memcpy(bytes.data() + 5, &x, 4);
  CHECK(load_element(bytes.data() + 1, DType::f32, 1) == x);
}

TEST_CASE("arithmetic on lengths says when it would overflow", "[core][law5]") {
  std::uint64_t c = 0;
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  CHECK(detail::checked_add(most - 1, 1, c));
  CHECK_FALSE(detail::checked_add(most, 1, c));
  CHECK(detail::checked_mul(most / 3, 3, c));
  CHECK_FALSE(detail::checked_mul(most / 3 + 1, 3, c));
  const index_t negative[] = {4, -1}, huge[] = {index_t{1} << 31, index_t{1} << 31}, good[] = {3, 5};
  CHECK_FALSE(detail::checked_bytes(std::span<const index_t>(negative), 4, c));
  CHECK_FALSE(detail::checked_bytes(std::span<const index_t>(huge), 4, c));
  CHECK(detail::checked_bytes(std::span<const index_t>(good), 4, c));
  CHECK(c == 60);
  CHECK_THROWS_AS((Tensor<float, 2>({index_t{1} << 40, index_t{1} << 40})), Error);
}

TEST_CASE("views, their rows and Eigen's maps name the same elements", "[core]") {
  auto data = test::Random(1).floats(4 * 6);
  const MatrixView<float> whole(data.data(), {4, 6});
  const MatrixView<float> part(data.data() + 1, {4, 3}, {6, 1});
  CHECK(&part(2, 1) == &whole(2, 2));
  CHECK(part.row(3).data() == &whole(3, 1));
  CHECK(&whole.rows(1, 2)(1, 5) == &whole(2, 5));
  CHECK(as_eigen(part)(2, 1) == whole(2, 2));
  as_eigen(part)(3, 2) = 7.0F;
  CHECK(whole(3, 3) == 7.0F);
  CHECK(as_eigen(whole.row(1)).dot(as_eigen(whole.row(1))) > 0);
}

TEST_CASE("a view of another memory space does not reach an op of the host's", "[core]") {
  struct Device {};
  STATIC_REQUIRE(std::is_convertible_v<MatrixView<float>, MatrixView<const float>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<MatrixView<float, Device>, MatrixView<const float>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<MatrixView<const float>, MatrixView<float>>);
}

TEST_CASE("a tensor is aligned, starts at zero, moves, and an empty one is legal", "[core]") {
  Tensor<float, 2> a({3, 5});
  CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % 64 == 0);
  for (index_t i = 0; i < a.size(); ++i) CHECK(a.data()[i] == 0.0F);
  a.view()(2, 4) = 1.5F;
  const float* where = a.data();
  const Tensor<float, 2> b = std::move(a);
  CHECK(b.data() == where);
  CHECK(b.view()(2, 4) == 1.5F);
  const Tensor<float, 2> empty({0, 5});
  CHECK(empty.size() == 0);
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<Tensor<float, 2>>);
}

TEST_CASE("an error reads where, expected, found", "[core]") {
  const Error e(Code::mismatch, "micro/model.safetensors: q_proj.weight", "[4096, 4096]", "[4096, 1024]");
  CHECK(std::string(e.what()) == "micro/model.safetensors: q_proj.weight: expected [4096, 4096], found [4096, 1024]");
  CHECK(name(e.code()) == "mismatch");
}
