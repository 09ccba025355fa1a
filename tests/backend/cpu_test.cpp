// The CPU backend against the reference backend, and law 3: bits that depend on nothing but the row.
#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/backend/thread_pool.hpp>

#include "catch.hpp"
#include "op_cases.hpp"
#include "tolerance.hpp"

#include <cmath>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

using namespace finteam;
using op_cases::Batch;
using op_cases::Kept;
using op_cases::Output;
using op_cases::Shape;

namespace {

void require_same_bits(const std::vector<Output>& a, const std::vector<Output>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t o = 0; o < a.size(); ++o) {
    INFO(a[o].name);
    REQUIRE(a[o].values.size() == b[o].values.size());
    for (std::size_t i = 0; i < a[o].values.size(); ++i) {
      REQUIRE_FALSE(std::isnan(a[o].values[i]));
      if (inputs::bits(a[o].values[i]) != inputs::bits(b[o].values[i]))
        FAIL(i << ": " << a[o].values[i] << " " << b[o].values[i]);
    }
  }
}

void require_close(const std::vector<Output>& a, const std::vector<Output>& b, tolerance::Bound bound) {
  REQUIRE(a.size() == b.size());
  for (std::size_t o = 0; o < a.size(); ++o) {
    INFO(a[o].name);
    REQUIRE(a[o].values.size() == b[o].values.size());
    for (std::size_t i = 0; i < a[o].values.size(); ++i) {
      auto within = a[o].name.starts_with("matmul_gated") ? tolerance::gated : bound;
      for (const CacheFormat format : op_cases::cache_formats) {
        if (a[o].name.starts_with("attention " + std::string(name(format)))) within = tolerance::attention(format);
      }
      if (!within.holds(a[o].values[i], b[o].values[i])) FAIL(i << ": " << a[o].values[i] << " " << b[o].values[i]);
    }
  }
}

}  // namespace

TEST_CASE("every op of the CPU backend agrees with the reference for every format and shape", "[backend]") {
  const Kept how = GENERATE(from_range(op_cases::kept));
  Cpu cpu;
  Reference reference;
  for (const Shape& shape : op_cases::shapes()) {
    CAPTURE(name(how.weights), name(how.dtype), shape.rows, shape.d, shape.n, shape.e);
    const Batch all{0, shape.rows};
    auto ours = op_cases::run(cpu, shape, all, how, 1), expected = op_cases::run(reference, shape, all, how, 1);
    if (how.weights != Weights::stored) {
      ours.pop_back();  // "normed"
      expected.pop_back();
    }
    require_close(ours, expected, tolerance::op(how.dtype));
  }
}

TEST_CASE("bits do not depend on the number of threads", "[law3]") {
  const Kept how = GENERATE(from_range(op_cases::kept));
  Cpu alone;
  ThreadPool two(2), three(3);
  Cpu on_two{ExecutorRef(two)}, on_three{ExecutorRef(three)};
  std::vector<Shape> shapes = op_cases::shapes();
  shapes.push_back({40, 256, 300, 8, 2, 64, 700});  // enough work for every op to be spread
  for (const Shape& shape : shapes) {
    CAPTURE(shape.rows, shape.d, shape.n, shape.e);
    const Batch all{0, shape.rows};
    const auto expected = op_cases::run(alone, shape, all, how, 2);
    require_same_bits(op_cases::run(on_two, shape, all, how, 2), expected);
    require_same_bits(op_cases::run(on_three, shape, all, how, 2), expected);
  }
}

TEST_CASE("bits of a row do not depend on the rows beside it", "[law3]") {
  const Kept how = GENERATE(from_range(op_cases::kept));
  Cpu cpu;
  for (const Shape& shape : op_cases::shapes()) {
    CAPTURE(shape.rows, shape.d, shape.n, shape.e);
    const auto together = op_cases::run(cpu, shape, {0, shape.rows}, how, 3);
    for (const index_t count : {index_t{1}, index_t{2}, index_t{3}, index_t{5}}) {
      std::vector<Output> joined;
      for (index_t first = 0; first < shape.rows; first += count) {
        const Batch batch{first, std::min(count, shape.rows - first)};
        auto part = op_cases::run(cpu, shape, batch, how, 3);
        for (std::size_t o = 0; o < part.size(); ++o) {
          if (first == 0) {
            joined.push_back(part[o]);
          } else {
            joined[o].values.insert(joined[o].values.end(), part[o].values.begin(), part[o].values.end());
          }
        }
      }
      require_same_bits(joined, together);
    }
  }
}

TEST_CASE("a norm in a product's prologue has the bits of rms_norm", "[backend]") {
  const Kept how = GENERATE(from_range(op_cases::kept));
  Cpu cpu;
  const index_t t = 13, d = 150, n = 20;
  const inputs::File weight({n, d}, how.dtype, 1), scale({d}, how.dtype, 2);
  const auto w = op_cases::one_matrix(cpu, weight.raw(), how.weights);
  const auto s = op_cases::one_vector(cpu, scale.raw());
  std::vector<float> x = inputs::values(t * d, 3), normed(x.size());
  std::vector<float> fused(static_cast<std::size_t>(t * n)), apart(fused.size());
  auto in = cpu.input(t, d, std::pmr::get_default_resource());
  cpu.prepare_normed(op_cases::matrix(x, d), s.view(), 1e-5F, w, in);
  cpu.matmul(in, w, Write::overwrite, op_cases::matrix(fused, n));
  cpu.rms_norm(op_cases::matrix(x, d), s.view(), 1e-5F, op_cases::matrix(normed, d));
  op_cases::product(cpu, op_cases::matrix(normed, d), w, Write::overwrite, op_cases::matrix(apart, n));
  require_same_bits({{"product", fused}}, {{"product", apart}});
}

#if defined(__AVX2__) && defined(__FMA__)
TEST_CASE("bits do not depend on the width of the vector unit", "[law3]") {
  Cpu widest;
  BasicCpu<xsimd::fma3<xsimd::avx2>> eight;
  BasicCpu<xsimd::sse4_2> four;
  const Kept how = GENERATE(from_range(op_cases::kept));
  for (const Shape& shape : op_cases::shapes()) {
    if (how.weights == Weights::bf16 && detail::simd::has_bf16_dot<DefaultArch>) continue;  // vdpbf16ps rounds its way
    const auto comparable = [](std::vector<Output> outputs) {
      if (detail::simd::has_bf16_dot<DefaultArch>) {
        std::erase_if(outputs, [](const Output& output) { return output.name.starts_with("attention bf16"); });
      }
      return outputs;
    };
    const auto expected = comparable(op_cases::run(widest, shape, {0, shape.rows}, how, 4));
    require_same_bits(comparable(op_cases::run(eight, shape, {0, shape.rows}, how, 4)), expected);
    require_same_bits(comparable(op_cases::run(four, shape, {0, shape.rows}, how, 4)), expected);
  }
}
#endif

#if defined(__x86_64__)
namespace {

/// The host's own control word, for a scope.
struct HostSets {
  unsigned saved = _mm_getcsr();
  explicit HostSets(unsigned word) { _mm_setcsr(word); }
  ~HostSets() { _mm_setcsr(saved); }
};

constexpr unsigned masked = 0x1F80, flush = 0x8040, round_up = 0x4000;

}  // namespace

TEST_CASE("bits do not depend on the host's rounding mode and flush-to-zero, which the host keeps", "[law3]") {
  const Shape shape{9, 129, 64, 8, 2, 64, 160};
  const Kept how = GENERATE(from_range(op_cases::kept));
  std::array<ThreadPool*, 2> pools{};
  Cpu plain;
  const auto expected = op_cases::run(plain, shape, {0, shape.rows}, how, 5);
  ThreadPool before(2);
  pools[0] = &before;
  for (const unsigned word : {masked | flush, masked | round_up, masked | flush | round_up}) {
    const HostSets host(word);
    ThreadPool within(2);  // its thread inherits the host's word
    pools[1] = &within;
    require_same_bits(op_cases::run(plain, shape, {0, shape.rows}, how, 5), expected);
    for (ThreadPool* pool : pools) {
      Cpu cpu{ExecutorRef(*pool)};
      require_same_bits(op_cases::run(cpu, shape, {0, shape.rows}, how, 5), expected);
    }
    REQUIRE((_mm_getcsr() & ~0x3FU) == word);
  }
}

TEST_CASE("subnormal results survive a host that flushes them", "[law3]") {
  std::vector<float> one = {0x1p-100F, 0x1p-100F};
  const index_t shape[] = {1, 2};
  const PackedMatrix w(RawTensor{reinterpret_cast<const std::byte*>(one.data()), DType::f32, shape});
  std::vector<float> x = {0x1p-40F, 0x1p-41F}, y = {0};
  const HostSets host(masked | flush);
  Cpu cpu;
  op_cases::product(cpu, op_cases::matrix(x, 2), w, Write::overwrite, op_cases::matrix(y, 1));
  REQUIRE(inputs::bits(y[0]) == inputs::bits(0x1.8p-140F));
}
#endif
