// A step's recording: what is told, when it runs, and when it becomes a graph.
#include <finteam/backend/cuda.hpp>

#include "backend/inputs.hpp"
#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <numeric>

using namespace finteam;

namespace {

/// y += weight · bias in one row of four, in a step of its own.
std::vector<float> add_in_step(Cuda& cuda, DeviceTensor<float, 2>& y, VectorView<const float, Device> bias,
                               std::int32_t row, float weight) {
  cuda.begin(RowKind::generated);
  cuda.add_bias(bias, y.view(), {.rows = {&row, 1}, .weight = {&weight, 1}});
  std::vector<float> host(static_cast<std::size_t>(y.size()));
  cuda.to_host(std::as_const(y).view(), {host.data(), {y.extent(0), y.extent(1)}});
  return host;
}

}  // namespace

TEST_CASE("a step that was seen before runs as one graph, with the numbers of its own", "[cuda]") {
  Cuda cuda;
  auto y = cuda.tensor<float, 2>({4, 8}, nullptr);
  const inputs::File file({8}, DType::f32, 1);
  const RawTensor raw = file.raw();
  const auto bias = cuda.vector({&raw, 1}, nullptr);
  std::vector<float> expected(32);
  for (int step = 0; step < 6; ++step) {
    const auto row = static_cast<std::int32_t>((step * 3) % 4);
    const float weight = 0.5F + static_cast<float>(step);
    const auto found = add_in_step(cuda, y, bias.view(), row, weight);
    for (index_t i = 0; i < 8; ++i) {
      float& to = expected[static_cast<std::size_t>(row * 8 + i)];
      to = std::fma(weight, raw[i], to);
    }
    CAPTURE(step);
    REQUIRE(found == expected);
    REQUIRE(cuda.graphs() == (step == 0 ? 0 : 1));
  }
  auto other = cuda.tensor<float, 2>({4, 8}, nullptr);  // another address is another step
  static_cast<void>(add_in_step(cuda, other, bias.view(), 0, 1));
  REQUIRE(cuda.graphs() == 1);
  static_cast<void>(add_in_step(cuda, other, bias.view(), 2, 1));
  REQUIRE(cuda.graphs() == 2);
}

TEST_CASE("on a stream that cannot be captured steps run a command at a time", "[cuda]") {
  constexpr std::uintptr_t legacy = 1;  // cudaStreamLegacy
  Cuda cuda(CudaOptions{.stream = reinterpret_cast<void*>(legacy)});
  auto y = cuda.tensor<float, 2>({4, 8}, nullptr);
  const inputs::File file({8}, DType::f32, 1);
  const RawTensor raw = file.raw();
  const auto bias = cuda.vector({&raw, 1}, nullptr);
  for (int step = 1; step < 5; ++step) {
    const auto found = add_in_step(cuda, y, bias.view(), 2, 1);
    for (index_t i = 0; i < 8; ++i) {
      CHECK(std::abs(found[static_cast<std::size_t>(16 + i)] - static_cast<float>(step) * raw[i]) < 1e-5F);
    }
    CHECK(cuda.graphs() == 0);
  }
}

TEST_CASE("steps of prompts never become graphs", "[cuda]") {
  Cuda cuda;
  auto y = cuda.tensor<float, 2>({1, 8}, nullptr);
  std::vector<float> host(8);
  for (int step = 0; step < 3; ++step) {
    cuda.begin(RowKind::prompt);
    cuda.fill(static_cast<float>(step), y.view());
    cuda.pace();
    cuda.to_host(std::as_const(y).view(), {host.data(), {1, 8}});
    REQUIRE(host == std::vector<float>(8, static_cast<float>(step)));
  }
  REQUIRE(cuda.graphs() == 0);
}

TEST_CASE("what a step is told may be more than there is room for at once", "[cuda]") {
  Cuda cuda(CudaOptions{.staging_bytes = 4096});
  auto y = cuda.tensor<float, 2>({64, 100}, nullptr);
  std::vector<float> x(6400), host(6400);
  std::iota(x.begin(), x.end(), 1.0F);
  for (int again = 0; again < 3; ++again) {
    x[5] += 1;
    cuda.begin(RowKind::generated);
    cuda.from_host({x.data(), {64, 100}}, y.view());
    cuda.to_host(std::as_const(y).view(), {host.data(), {64, 100}});
    REQUIRE(host == x);
  }
  const std::vector<float> row(5000);
  auto wide = cuda.tensor<float, 2>({1, 5000}, nullptr);
  cuda.begin(RowKind::generated);
  REQUIRE_THROWS_AS(cuda.from_host({row.data(), {1, 5000}}, wide.view()), Error);
}

TEST_CASE("sites share the table of their sequence, whose room grows by doubling", "[cuda]") {
  const std::vector<std::int32_t> pages{7, 3, 9, 4, 1, 0, 2, 5, 6, 8, 10, 11};
  const std::vector<std::int32_t> others{20, 21};
  Cuda cuda;
  detail::CudaStep step(cuda.context(), 1 << 16);
  step.hold();
  detail::ToldSites told;
  const std::vector<Site> sites{{pages.data(), 70}, {others.data(), 33, true}, {pages.data(), 290}};
  const auto at = told.tell(step, sites);
  REQUIRE(at.count == 3);
  const auto again = told.tell(step, sites);
  REQUIRE(again.table == at.table);  // told once
  const std::vector<Site> moved{{pages.data(), 71}, {others.data(), 33, true}, {pages.data(), 290}};
  REQUIRE(told.tell(step, moved).table != at.table);
  REQUIRE(detail::ToldSites::table_room(1) == 8);
  REQUIRE(detail::ToldSites::table_room(9) == 16);
  REQUIRE(detail::splits_for(0) == 1);
  REQUIRE(detail::splits_for(255) == 1);
  REQUIRE(detail::splits_for(256) == 2);
  REQUIRE(detail::splits_for(513) == 4);
}

TEST_CASE("rows that follow each other in a sequence are a run", "[cuda]") {
  const std::vector<std::int32_t> a{0, 1}, b{2, 3};
  const std::vector<Site> sites{{a.data(), 4}, {a.data(), 5}, {a.data(), 6},
                                {b.data(), 7}, {b.data(), 9}, {a.data(), 10}};
  std::vector<detail::cuda::Run> runs;
  detail::find_runs(sites, runs);
  const std::vector<detail::cuda::Run> expected{{0, 3}, {3, 1}, {4, 1}, {5, 1}};
  REQUIRE(runs == expected);
}

TEST_CASE("a device that is not there is refused by number", "[cuda]") {
  try {
    const Cuda cuda(CudaOptions{.device = 99});
    FAIL("opened");
  } catch (const Error& e) {
    REQUIRE(e.code() == Code::system);
    REQUIRE(e.where() == "CUDA");
    REQUIRE(e.expected() == "device 99");
  }
}

TEST_CASE("weights of another device are refused", "[cuda]") {
  int count = 0;
  REQUIRE(detail::cuda::count_devices(count).ok());
  if (count < 2) return;
  const inputs::File file({8, 32}, DType::f32, 1);
  const RawTensor raw = file.raw();
  const auto w = Cuda(CudaOptions{.device = 1}).matrix({&raw, 1}, Join::stacked, Weights::stored, nullptr);
  Cuda cuda;
  auto y = cuda.tensor<float, 2>({1, 32}, nullptr);
  const std::int32_t token = 3;
  try {
    cuda.embed(w, {&token, 1}, y.view());
    FAIL("embedded");
  } catch (const Error& e) {
    CHECK(e.code() == Code::mismatch);
    CHECK(e.expected() == "weights on device 0");
  }
}
