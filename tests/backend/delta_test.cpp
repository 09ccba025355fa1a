// Low-bit differences: their panels by hand, their products against the reference, and law 3.
#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/backend/thread_pool.hpp>
#include <finteam/core/hash.hpp>

#include "catch.hpp"
#include "op_cases.hpp"
#include "random.hpp"
#include "tolerance.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <limits>

using namespace finteam;

namespace {

constexpr std::array<Format, 2> delta_formats{Format::int1, Format::int2};

/// A difference as a file may hold it: random bits, those beyond a row's end too, and scales at an odd address.
struct File {
  index_t n, k, scale_count;
  Format format;
  std::vector<std::byte> bytes;

  File(Format f, index_t rows, index_t cols, std::uint64_t seed, bool one_scale = false)
      : n(rows), k(cols), scale_count(one_scale ? 1 : rows), format(f) {
    test::Random random(seed);
    const index_t numbers = n * delta_row_bytes(f, k);
    bytes.resize(static_cast<std::size_t>(1 + numbers + 4 * scale_count));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random.bits());
    for (index_t i = 0; i < scale_count; ++i) {
      const auto scale = static_cast<float>(1 + random.below(1000)) * 0x1p-10F;
      std::memcpy(bytes.data() + 1 + numbers + 4 * i, &scale, 4);
    }
  }
  [[nodiscard]] RawDelta raw() const {
    return {bytes.data() + 1, bytes.data() + 1 + n * delta_row_bytes(format, k), scale_count, n, k, format};
  }
};

template <class Arch>
PackedMatrix matrix(const BasicCpu<Arch>&, std::span<const RawDelta> parts) {
  PackedMatrix w(parts, inputs::memory);
  for (index_t i = 0; i < w.panels(); ++i) w.pack(i, parts);
  return w;
}
Reference::Matrix matrix(const Reference& reference, std::span<const RawDelta> parts) {
  return reference.delta(parts, inputs::memory);
}

/// y = x dᵀ on top of what was there, for `count` of the rows from `first` on.
template <class B>
std::vector<float> product(B& backend, const File& file, index_t first, index_t count) {
  const RawDelta raw = file.raw();
  const auto w = matrix(backend, {&raw, 1});
  std::vector<float> x = inputs::values((first + count) * file.k, 5), y = inputs::values((first + count) * file.n, 6);
  x.erase(x.begin(), x.begin() + first * file.k);
  y.erase(y.begin(), y.begin() + first * file.n);
  op_cases::product(backend, op_cases::matrix(x, file.k), w, Write::accumulate, op_cases::matrix(y, file.n));
  return y;
}

void require_same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE_FALSE(std::isnan(a[i]));
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]))
      FAIL(i << ": " << a[i] << " " << b[i]);
  }
}

struct Case {
  index_t n, k, rows;
};
constexpr std::array<Case, 9> cases{{{1, 1, 1},
                                     {16, 64, 2},
                                     {17, 7, 3},
                                     {33, 65, 4},
                                     {48, 96, 5},
                                     {31, 129, 6},
                                     {80, 191, 9},
                                     {5, 31, 13},
                                     {64, 1000, 19}}};

}  // namespace

TEMPLATE_TEST_CASE("the product with a difference, by hand", "[backend]", Reference, Cpu) {
  TestType backend;
  // +1 -1 -1 and -1 +1 +1, lowest bit first; then -1.5 0.5 1.5 and -0.5 -0.5 -1.5
  const std::array<std::byte, 2> one{std::byte{0b001}, std::byte{0b110}}, two{std::byte{0b111000}, std::byte{0b000101}};
  const std::array<float, 2> scales{2, 0.5F};
  const auto* at = reinterpret_cast<const std::byte*>(scales.data());
  const RawDelta signs{one.data(), at, 2, 2, 3, Format::int1}, levels{two.data(), at, 2, 2, 3, Format::int2};
  std::vector<float> x{127, -127, 64}, y{1, 2};
  op_cases::product(backend, op_cases::matrix(x, 3), matrix(backend, {&signs, 1}), Write::accumulate,
                    op_cases::matrix(y, 2));
  REQUIRE(y == std::vector<float>{1 + 2 * 190, 2 - 0.5F * 190});
  op_cases::product(backend, op_cases::matrix(x, 3), matrix(backend, {&levels, 1}), Write::overwrite,
                    op_cases::matrix(y, 2));
  REQUIRE(y == std::vector<float>{2 * -158.0F, 0.5F * -96.0F});
}

TEST_CASE("a packed difference gives back every number, of one scale or of many, of stacked parts", "[backend]") {
  const Format format = GENERATE(from_range(delta_formats));
  for (const auto& [n, k, rows] : cases) {
    const File a(format, n, k, 1), b(format, n + 3, k, 2, true);
    const std::array<RawDelta, 2> parts{a.raw(), b.raw()};
    const PackedMatrix w = matrix(Cpu{}, parts);
    REQUIRE(w.rows() == 2 * n + 3);
    REQUIRE(w.cols() == k);
    REQUIRE(w.format() == format);
    REQUIRE(w.panel_bytes() == 64 + (k + 63) / 64 * 128 * bits_of(format));
    for (index_t i = 0; i < w.rows(); ++i) {
      const RawDelta& part = parts[i < n ? 0 : 1];
      for (index_t j = 0; j < k; ++j) {
        REQUIRE(w.element(i, j) == part(i < n ? i : i - n, j));
        const float level = part(i < n ? i : i - n, j) / part.scale(i < n ? i : i - n);
        REQUIRE((format == Format::int1 ? std::abs(level) == 1 : std::abs(level) == 0.5F || std::abs(level) == 1.5F));
      }
    }
  }
}

TEST_CASE("packed bytes of differences are those of packing version 1", "[backend]") {
  REQUIRE(packing_version == 1);
  const auto hash = [](Format format) {
    const PackedMatrix w(File(format, 21, 211, 17).raw());
    return xxh64({w.panel(0), w.bytes()});
  };
  CHECK(hash(Format::int1) == 0xD958C2C5ECFCE4B7U);
  CHECK(hash(Format::int2) == 0x7ED6453E7F201E64U);
}

TEST_CASE("products with differences agree with the reference for every number of rows", "[backend]") {
  const Format format = GENERATE(from_range(delta_formats));
  Cpu cpu;
  Reference reference;
  for (const auto& [n, k, most] : cases) {
    for (index_t rows = 1; rows <= most; ++rows) {
      CAPTURE(n, k, rows);
      const File file(format, n, k, 3, rows % 2 == 0);
      const auto ours = product(cpu, file, 0, rows), expected = product(reference, file, 0, rows);
      for (std::size_t i = 0; i < ours.size(); ++i) {
        if (!tolerance::delta.holds(ours[i], expected[i])) FAIL(i << ": " << ours[i] << " " << expected[i]);
      }
    }
  }
}

TEST_CASE("bits of a product with a difference do not depend on the rows beside it or on threads", "[law3]") {
  const Format format = GENERATE(from_range(delta_formats));
  Cpu alone;
  ThreadPool pool(3);
  Cpu on_three{ExecutorRef(pool)};
  for (const auto& [n, k, rows] : {Case{33, 65, 19}, Case{160, 1000, 13}, Case{700, 600, 8}}) {
    const File file(format, n, k, 4);
    const auto together = product(alone, file, 0, rows);
    require_same_bits(product(on_three, file, 0, rows), together);
    for (const index_t count : {1, 2, 3, 4, 5, 6}) {
      std::vector<float> joined;
      for (index_t first = 0; first < rows; first += count) {
        const auto part = product(alone, file, first, std::min(count, rows - first));
        joined.insert(joined.end(), part.begin(), part.end());
      }
      require_same_bits(joined, together);
    }
  }
}

#if defined(__AVX2__) && defined(__FMA__)
TEST_CASE("bits of a product with a difference do not depend on the width of the vector unit", "[law3]") {
  const Format format = GENERATE(from_range(delta_formats));
  Cpu widest;
  BasicCpu<xsimd::fma3<xsimd::avx2>> eight;
  BasicCpu<xsimd::sse4_2> four;
  for (const auto& [n, k, rows] : cases) {
    const File file(format, n, k, 5);
    const auto expected = product(widest, file, 0, rows);
    require_same_bits(product(eight, file, 0, rows), expected);
    require_same_bits(product(four, file, 0, rows), expected);
  }
}
#endif

TEST_CASE("an input that was prepared for the base serves its difference too", "[law3]") {
  const Format format = GENERATE(from_range(delta_formats));
  const Weights weights = GENERATE(Weights::int4, Weights::int4_zero, Weights::int8, Weights::bf16);
  Cpu cpu;
  const index_t n = 40, k = 150;
  const File file(format, n, k, 6);
  const PackedMatrix w(file.raw());
  const inputs::File base({n, k}, DType::f32, 7);
  const auto base_matrix = op_cases::one_matrix(cpu, base.raw(), weights);
  for (index_t rows = 1; rows <= 9; ++rows) {
    std::vector<float> x = inputs::values(rows * k, 8), y(static_cast<std::size_t>(rows * n)), own(y);
    auto in = cpu.input(rows, k, inputs::memory);
    cpu.prepare(op_cases::matrix(x, k), base_matrix, in);
    REQUIRE(in.serves(base_matrix.format()));
    if (weights == Weights::int4 || weights == Weights::int4_zero) REQUIRE(in.serves(format));
    if (weights == Weights::bf16) REQUIRE_FALSE(in.serves(format));
    if (!in.serves(format)) continue;
    cpu.matmul(in, w, Write::overwrite, op_cases::matrix(y, n));
    cpu.prepare(op_cases::matrix(x, k), w, in);
    cpu.matmul(in, w, Write::overwrite, op_cases::matrix(own, n));
    require_same_bits(y, own);
  }
}

TEMPLATE_TEST_CASE("an activation that is not finite is NaN in every output, a scale in its own", "[backend]",
                   Reference, Cpu) {
  TestType backend;
  const Format format = GENERATE(from_range(delta_formats));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const File file(format, 20, 70, 9);
    const RawDelta raw = file.raw();
    std::vector<float> x = inputs::values(70, 4), y(20);
    x[69] = bad;
    op_cases::product(backend, op_cases::matrix(x, 70), matrix(backend, {&raw, 1}), Write::overwrite,
                      op_cases::matrix(y, 20));
    for (const float value : y) REQUIRE_FALSE(std::isfinite(value));
    std::vector<float> scales(20, 1.0F);
    scales[3] = bad;
    RawDelta other = raw;
    other.scales = reinterpret_cast<const std::byte*>(scales.data());
    x[69] = 1;
    op_cases::product(backend, op_cases::matrix(x, 70), matrix(backend, {&other, 1}), Write::overwrite,
                      op_cases::matrix(y, 20));
    for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(std::isfinite(y[i]) == (i != 3));
  }
}

TEST_CASE("differences that do not join are refused, and no weight is rounded to a difference", "[backend]") {
  const auto code = [](auto&& make) {
    try {
      make();
    } catch (const Error& e) {
      return e.code();
    }
    return Code::system;
  };
  const File a(Format::int1, 4, 8, 1), wider(Format::int1, 4, 9, 1), finer(Format::int2, 4, 8, 1);
  const std::array<RawDelta, 2> widths{a.raw(), wider.raw()}, bits{a.raw(), finer.raw()};
  CHECK(code([&] { (void)PackedMatrix(widths, inputs::memory); }) == Code::mismatch);
  CHECK(code([&] { (void)PackedMatrix(bits, inputs::memory); }) == Code::mismatch);
  RawDelta vast = a.raw();
  vast.n = std::numeric_limits<index_t>::max();
  CHECK(code([&] { (void)PackedMatrix(std::span(&vast, 1), inputs::memory); }) == Code::limit_exceeded);
  const inputs::File weight({4, 8}, DType::f32, 2);
  const RawTensor raw = weight.raw();
  CHECK(code([&] {
          (void)PackedMatrix({&raw, 1}, Join::stacked, Format::int1, inputs::memory);
        }) == Code::invalid_argument);
}
