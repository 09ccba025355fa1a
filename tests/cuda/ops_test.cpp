// The CUDA backend's ops against the reference backend, and law 3. Without a GPU its kernels run on the host
// (tests/simt), where every access is seen.
#include <finteam/backend/reference.hpp>

#include "backend/op_cases.hpp"
#include "catch.hpp"
#include "cuda/on_host.hpp"
#include "tolerance.hpp"

#include <cmath>

using namespace finteam;
using op_cases::Batch;
using op_cases::Kept;
using op_cases::Output;
using op_cases::Shape;

namespace {

void require_close_on_device(const std::vector<Output>& a, const std::vector<Output>& b, tolerance::Bound bound,
                             tolerance::Bound gated) {
  REQUIRE(a.size() == b.size());
  for (std::size_t o = 0; o < a.size(); ++o) {
    INFO(a[o].name);
    REQUIRE(a[o].values.size() == b[o].values.size());
    for (std::size_t i = 0; i < a[o].values.size(); ++i) {
      auto within = a[o].name.starts_with("matmul_gated") ? gated : bound;
      for (const CacheFormat format : op_cases::cache_formats) {
        if (a[o].name.starts_with("attention " + std::string(name(format)))) within = tolerance::attention(format);
      }
      if (!within.holds(a[o].values[i], b[o].values[i])) FAIL(i << ": " << a[o].values[i] << " " << b[o].values[i]);
    }
  }
}

}  // namespace

TEST_CASE("every op of the CUDA backend agrees with the reference for every format and shape", "[cuda]") {
  const Kept how = GENERATE(from_range(op_cases::kept));
  on_host::Cuda cuda;
  Reference reference;
  for (const Shape& shape : op_cases::shapes()) {
    if (shape.n > 1000) continue;  // more tiles than blocks have the others, too
    CAPTURE(name(how.weights), name(how.dtype), shape.rows, shape.d, shape.n, shape.e);
    const Batch all{0, shape.rows};
    auto found = op_cases::run(cuda, shape, all, how, 7), expected = op_cases::run(reference, shape, all, how, 7);
    if (how.weights != Weights::stored) {  // a norm's last bit decides which way an activation is rounded
      REQUIRE(found.back().name == "normed");
      found.pop_back();
      expected.pop_back();
    }
    require_close_on_device(found, expected, tolerance::op(how.dtype), tolerance::gated);
  }
}

TEST_CASE("rows of prompts agree with the reference as far as activations and weights in bf16 do", "[cuda]") {
  const Kept how = GENERATE(from_range(op_cases::kept));
  on_host::Cuda cuda;
  cuda.begin(RowKind::prompt);
  Reference reference;
  for (const Shape& shape : {op_cases::shapes()[3], op_cases::shapes()[5]}) {
    CAPTURE(name(how.weights), name(how.dtype), shape.rows, shape.d, shape.n, shape.e);
    const auto found = op_cases::run(cuda, shape, {0, shape.rows}, how, 7),
               expected = op_cases::run(reference, shape, {0, shape.rows}, how, 7);
    const tolerance::Bound bound = tolerance::prompt_op(how.weights);
    require_close_on_device(found, expected, bound, {20 * bound.absolute, 2 * bound.relative});
  }
}

#ifndef __SANITIZE_ADDRESS__  // the cases above go through the same kernels, and this takes a minute
TEST_CASE("bits of a row on the device do not depend on the rows beside it", "[cuda][law3]") {
  const Kept how = GENERATE(from_range(op_cases::kept));
  const RowKind kind = GENERATE(RowKind::prompt, RowKind::generated);
  on_host::Cuda cuda;
  cuda.begin(kind);
  const Shape shape = op_cases::shapes()[5];
  const auto together = op_cases::run(cuda, shape, {0, shape.rows}, how, 3);
  for (const Batch part : {Batch{0, 1}, Batch{shape.rows - 3, 3}}) {
    const auto alone = op_cases::run(cuda, shape, part, how, 3);
    for (std::size_t o = 0; o < alone.size(); ++o) {
      INFO(alone[o].name);
      const std::size_t width = together[o].values.size() / static_cast<std::size_t>(shape.rows);
      REQUIRE(alone[o].values.size() == width * static_cast<std::size_t>(part.count));
      for (std::size_t i = 0; i < alone[o].values.size(); ++i) {
        const float beside = together[o].values[i + width * static_cast<std::size_t>(part.first)];
        if (inputs::bits(alone[o].values[i]) != inputs::bits(beside)) FAIL(i << ": " << beside);
      }
    }
  }
}
#endif
