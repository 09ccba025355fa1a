// How many launches ops are, which only a device that is not there can count.
#include <simt.cuh>

#include <finteam/backend/cuda.hpp>

#include "backend/inputs.hpp"
#include "catch.hpp"

#include <array>
#include <vector>

using namespace finteam;
namespace layouts = finteam::cuda_v0_1;

namespace {

/// What f gives to the stream, copies among it.
template <class F>
std::size_t given(Cuda& cuda, F&& f) {
  const auto* const context = cuda.context()->get();
  REQUIRE(layouts::begin_graph(context).ok());
  f();
  const std::size_t n = layouts::kernels::simt::captured(layouts::stream_of(context))->size();
  void* graph = nullptr;
  REQUIRE(layouts::end_graph(context, graph).ok());
  layouts::release_graph(context, graph);
  return n;
}

}  // namespace

TEST_CASE("products of one format are one launch, their rows prepared in it, and one copy of what it is told",
          "[cuda]") {
  constexpr index_t k = 64, r = 8, experts = 3, parts = 2;
  Cuda cuda;
  const inputs::File file({r, k}, DType::bf16, 1);
  const RawTensor raw = file.raw();
  const auto count = [&](Weights weights) {
    const auto w = cuda.matrix({&raw, 1}, Join::stacked, weights, nullptr);
    auto x = cuda.tensor<float, 2>({experts, k}, nullptr), y = cuda.tensor<float, 2>({experts, parts * r}, nullptr);
    std::vector<Cuda::Input> input;
    std::vector<Product<Cuda>> products;
    for (index_t e = 0; e < experts; ++e) input.push_back(cuda.input(1, k, nullptr));
    for (index_t e = 0; e < experts; ++e) {
      cuda.prepare(x.view().rows(e, 1), w, input[static_cast<std::size_t>(e)]);
      for (index_t part = 0; part < parts; ++part) {
        const MatrixView<float, Device> to(y.data() + e * parts * r + part * r, {1, r});
        products.push_back({&input[static_cast<std::size_t>(e)], &w, Write::overwrite, to});
      }
    }
    return given(cuda, [&] { cuda.matmul(products); });
  };
  CHECK(count(Weights::bf16) == 2);
  CHECK(count(Weights::stored) == experts + 2);    // rows in float are prepared first
  CHECK(count(Weights::int8) == experts * parts);  // whole weights are worth a launch each
}
