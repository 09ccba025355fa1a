// The CPU backend against the reference backend, and law 3: bits that depend on nothing but the row.
#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>

#include "catch.hpp"
#include "op_cases.hpp"
#include "tolerance.hpp"

#include <cmath>
#include <thread>

using namespace finteam;
using op_cases::Batch;
using op_cases::Output;
using op_cases::Shape;

namespace {

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

void require_same_bits(const std::vector<Output>& a, const std::vector<Output>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t o = 0; o < a.size(); ++o) {
    INFO(a[o].name);
    REQUIRE(a[o].values.size() == b[o].values.size());
    for (std::size_t i = 0; i < a[o].values.size(); ++i) {
      REQUIRE_FALSE(std::isnan(a[o].values[i]));
      if (bits(a[o].values[i]) != bits(b[o].values[i])) FAIL(i << ": " << a[o].values[i] << " " << b[o].values[i]);
    }
  }
}

void require_close(const std::vector<Output>& a, const std::vector<Output>& b, tolerance::Bound bound) {
  REQUIRE(a.size() == b.size());
  for (std::size_t o = 0; o < a.size(); ++o) {
    INFO(a[o].name);
    REQUIRE(a[o].values.size() == b[o].values.size());
    for (std::size_t i = 0; i < a[o].values.size(); ++i) {
      if (!bound.holds(a[o].values[i], b[o].values[i])) FAIL(i << ": " << a[o].values[i] << " " << b[o].values[i]);
    }
  }
}

}  // namespace

TEST_CASE("every op of the CPU backend agrees with the reference for every storage type and shape", "[backend]") {
  const DType dtype = GENERATE(DType::f32, DType::bf16, DType::f16);
  Cpu cpu;
  Reference reference;
  for (const Shape& shape : op_cases::shapes()) {
    CAPTURE(name(dtype), shape.rows, shape.d, shape.n, shape.e);
    const Batch all{0, shape.rows};
    require_close(op_cases::run(cpu, shape, all, dtype, 1), op_cases::run(reference, shape, all, dtype, 1),
                  tolerance::op(dtype));
  }
}
