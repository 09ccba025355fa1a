#include <finteam/core/packed.hpp>

#include "catch.hpp"
#include "inputs.hpp"

#include <limits>

using namespace finteam;

TEST_CASE("a packed matrix gives back every element of every storage type, exactly", "[backend]") {
  const DType dtype = GENERATE(DType::f32, DType::bf16, DType::f16);
  for (const auto& [n, k] : {std::pair<index_t, index_t>{1, 1}, {16, 2}, {17, 3}, {33, 64}, {48, 7}, {5, 31}}) {
    const inputs::File file({n, k}, dtype, 7);
    const PackedMatrix w(file.raw());
    REQUIRE(w.rows() == n);
    REQUIRE(w.cols() == k);
    REQUIRE(w.dtype() == (dtype == DType::bf16 ? DType::bf16 : DType::f32));
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
