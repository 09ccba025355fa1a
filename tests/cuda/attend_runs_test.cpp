// The kernel of kernels/attend_runs.cu, on the host (tests/simt), against a plain loop in double over the same pages;
// and law 3: a row's bits depend on what its sequence holds up to its position.
#include <finteam/backend/cuda/device.hpp>
#include <finteam/backend/cuda/layout.hpp>

#include "catch.hpp"
#include "numbers.cuh"
#include "random.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace attend_runs_test {

namespace cuda = finteam::cuda_v0_1;
namespace kernels = finteam::cuda_v0_1::kernels;
using cuda::AttendRuns;
using cuda::CacheFormat;
using cuda::group_inputs;
using cuda::page_tokens;
using cuda::Status;

namespace {

/// Heads, and how their keys and values are stored.
struct Shape {
  CacheFormat format;
  std::int32_t h, g, e;
};
struct How {
  std::int32_t window = 0;
  float cap = 0;
  bool sinks = false;
};
/// Rows of a prompt that are read in one run, from a position on.
struct Part {
  std::int32_t prompt, first, count;
};

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

/// A device for as long as this lives.
class Device {
 public:
  Device() {
    cuda::Properties properties;
    REQUIRE(cuda::open(0, nullptr, context_, properties).ok());
  }
  ~Device() { cuda::close(context_); }
  Device(const Device&) = delete;
  [[nodiscard]] Status run(const AttendRuns& command) const {
    const Status status = cuda::run(context_, command);
    return status.ok() ? cuda::wait(context_) : status;
  }

 private:
  cuda::Context* context_ = nullptr;
};

/// What slots that nothing was written to hold.
enum class Unwritten { zeros, wild };

/// A layer of a cache whose pages lie in no order, and prompts of `length` rows in it.
class Prompts {
 public:
  Prompts(Shape shape, std::int32_t prompts, std::int32_t length, Unwritten unwritten = Unwritten::wild)
      : s(shape), layout{s.format, s.e}, tables_of((length + page_tokens - 1) / page_tokens), rows(length) {
    pages = prompts * tables_of + 2;
    bytes.resize(size(s.g * pages * layout.bytes()));
    test::Random random(17);
    for (std::int32_t i = 1; i <= prompts * tables_of; ++i) {
      tables.push_back(i);
      std::swap(tables.back(), tables[size(random.below(i))]);
    }
    if (unwritten == Unwritten::wild) fill_with_wild();
    for (std::int32_t prompt = 0; prompt < prompts; ++prompt) {
      for (std::int32_t p = 0; p < length; ++p) {
        for (std::int32_t head = 0; head < s.g; ++head) {
          write(prompt, p, head, random.floats(size(s.e)), random.floats(size(s.e)));
        }
      }
      q.push_back(random.floats(size(length * s.h * s.e)));
    }
    sinks = random.floats(size(s.h), -1, 3);
  }

  /// Puts a key and a value into the slot of a position.
  void write(std::int32_t prompt, std::int32_t p, std::int32_t head, const std::vector<float>& k,
             const std::vector<float>& v) {
    std::byte* page = page_of(prompt, p, head);
    const std::int32_t slot = p % page_tokens;
    for (std::int64_t group = 0; group < layout.width(); group += group_inputs) {
      const std::int64_t end = std::min<std::int64_t>(group + group_inputs, layout.width());
      std::uint32_t most = 0;
      for (std::int64_t i = group; i < std::min<std::int64_t>(end, s.e); ++i) {
        most = std::max(most, kernels::magnitude(k[size(i)]));
      }
      const auto scale = kernels::key_scale(most);
      if (s.format == CacheFormat::int8) kernels::put(page, layout.key_scale(slot, group), scale.scale);
      for (std::int64_t i = group; i < end; ++i) store(page + layout.key(slot, i), k, i, scale.inverse);
    }
    std::uint32_t most = 0;
    for (const float x : v) most = std::max(most, kernels::magnitude(x));
    const auto scale = kernels::activation_scale(most);
    if (s.format == CacheFormat::int8) kernels::put(page, layout.value_scale(slot), scale.scale);
    for (std::int64_t i = 0; i < layout.width(); ++i) store(page + layout.value(slot, i), v, i, scale.inverse);
  }

  /// Each row's attention by the kernel, part by part: [rows of all parts, h, e].
  [[nodiscard]] std::vector<float> attend(const How& how, const std::vector<Part>& parts) const {
    std::vector<std::int32_t> table, position;
    std::vector<cuda::Run> runs;
    std::int32_t longest = 0;
    // between rows and heads, and before them, lies what is not theirs
    const std::int64_t head_stride = s.e + 1, row_stride = s.h * head_stride + 3;
    std::vector<float> x(size(row_stride), nan_value);
    for (const Part& part : parts) {
      runs.push_back({static_cast<std::int32_t>(position.size()) + 1, part.count});
      longest = std::max(longest, part.count);
      for (std::int32_t p = part.first; p < part.first + part.count; ++p) {
        table.push_back(part.prompt * tables_of);
        position.push_back(p);
        x.resize(x.size() + size(row_stride), nan_value);
        for (std::int32_t i = 0; i < s.h * s.e; ++i) {
          x[x.size() - size(row_stride) + size(i / s.e * head_stride + i % s.e)] =
              q[size(part.prompt)][size(p * s.h * s.e + i)];
        }
      }
    }
    table.insert(table.begin(), 1 << 30);
    position.insert(position.begin(), 1 << 30);
    const auto t = static_cast<std::int32_t>(position.size());
    std::vector<float> y(x.size(), -7.0F);
    const AttendRuns command{
        .sites = {table.data(), position.data(), tables.data(), nullptr, t},
        .q = {x.data(), row_stride, head_stride, t, s.h, s.e},
        .cache = {const_cast<std::byte*>(bytes.data()), pages * layout.bytes(), layout.bytes(), s.format, s.g, s.e},
        .rule = {scale(), how.cap, how.window, how.sinks ? sinks.data() : nullptr},
        .y = {y.data(), row_stride, head_stride, t, s.h, s.e},
        .runs = runs.data(),
        .run_count = static_cast<std::int32_t>(runs.size()),
        .longest = longest};
    REQUIRE(Device().run(command).ok());
    return heads_of(y, row_stride, head_stride);
  }

  /// The same by a plain loop, in double.
  [[nodiscard]] std::vector<double> expected(const How& how, const std::vector<Part>& parts) const {
    std::vector<double> y;
    for (const Part& part : parts) {
      for (std::int32_t p = part.first; p < part.first + part.count; ++p) {
        for (std::int32_t head = 0; head < s.h; ++head) {
          const auto row = one_head(how, part.prompt, p, head);
          y.insert(y.end(), row.begin(), row.end());
        }
      }
    }
    return y;
  }

  [[nodiscard]] std::byte* page_of(std::int32_t prompt, std::int32_t p, std::int32_t head) {
    return bytes.data() +
           (std::int64_t{head} * pages + tables[size(prompt * tables_of + p / page_tokens)]) * layout.bytes();
  }

  Shape s;
  cuda::PageLayout layout;
  std::int32_t tables_of, rows, pages;
  std::vector<std::byte> bytes;
  std::vector<std::int32_t> tables;
  std::vector<std::vector<float>> q;
  std::vector<float> sinks;

 private:
  [[nodiscard]] float scale() const { return 1 / std::sqrt(static_cast<float>(s.e)); }

  /// Keys that are NaN, values that are huge.
  void fill_with_wild() {
    for (std::int64_t at = 0; at < static_cast<std::int64_t>(bytes.size()); at += layout.bytes()) {
      std::byte* page = bytes.data() + at;
      for (std::int64_t slot = 0; slot < page_tokens; ++slot) {
        for (std::int64_t i = 0; i < layout.width(); ++i) {
          if (s.format == CacheFormat::int8) {
            kernels::put(page, layout.key(slot, i), std::int8_t{-128});
            kernels::put(page, layout.value(slot, i), static_cast<std::int8_t>(i % 2 == 0 ? 127 : -127));
            kernels::put(page, layout.key_scale(slot, i), nan_value);
            kernels::put(page, layout.value_scale(slot), 1e28F);
          } else {
            kernels::put(page, layout.key(slot, i), kernels::to_bf16(nan_value));
            kernels::put(page, layout.value(slot, i), kernels::to_bf16(i % 2 == 0 ? 1e30F : -1e30F));
          }
        }
      }
    }
  }
  /// Element i, or the zero that lies beyond them.
  void store(std::byte* to, const std::vector<float>& x, std::int64_t i, float inverse) const {
    const float value = i < s.e ? x[size(i)] : 0.0F;
    if (s.format == CacheFormat::int8) {
      kernels::put(to, 0, static_cast<std::int8_t>(kernels::to_byte(value, inverse)));
    } else {
      kernels::put(to, 0, kernels::to_bf16(value));
    }
  }
  [[nodiscard]] double key(const std::byte* page, std::int32_t slot, std::int32_t i) const {
    if (s.format == CacheFormat::bf16) {
      return static_cast<double>(kernels::from_bf16(kernels::at<std::uint16_t>(page, layout.key(slot, i))));
    }
    return static_cast<double>(kernels::at<float>(page, layout.key_scale(slot, i))) *
           kernels::at<std::int8_t>(page, layout.key(slot, i));
  }
  [[nodiscard]] double value(const std::byte* page, std::int32_t slot, std::int32_t i) const {
    if (s.format == CacheFormat::bf16) {
      return static_cast<double>(kernels::from_bf16(kernels::at<std::uint16_t>(page, layout.value(slot, i))));
    }
    return static_cast<double>(kernels::at<float>(page, layout.value_scale(slot))) *
           kernels::at<std::int8_t>(page, layout.value(slot, i));
  }

  /// scale · q as a product with the keys reads it.
  [[nodiscard]] std::vector<double> query(std::int32_t prompt, std::int32_t p, std::int32_t head) const {
    const float* from = &q[size(prompt)][size((p * s.h + head) * s.e)];
    std::vector<double> rounded;
    for (std::int32_t i = 0; i < s.e; ++i) {
      const float x = from[i] * scale();
      if (s.format == CacheFormat::bf16) {
        rounded.push_back(static_cast<double>(kernels::rounded_to_bf16(x)));
        continue;
      }
      std::uint32_t most = 0;
      for (std::int32_t j = i / 32 * 32; j < std::min(i / 32 * 32 + 32, s.e); ++j) {
        most = std::max(most, kernels::magnitude(from[j] * scale()));
      }
      const auto group = kernels::activation_scale(most);
      rounded.push_back(static_cast<double>(group.scale) * kernels::to_byte(x, group.inverse));
    }
    return rounded;
  }

  [[nodiscard]] std::vector<double> one_head(const How& how, std::int32_t prompt, std::int32_t position,
                                             std::int32_t head) const {
    const auto x = query(prompt, position, head);
    const auto page = [&](std::int32_t p) {
      return const_cast<Prompts*>(this)->page_of(prompt, p, head / (s.h / s.g));
    };
    const std::int32_t first = how.window == 0 ? 0 : std::max(position + 1 - how.window, 0);
    std::vector<double> weights;
    double greatest = how.sinks ? static_cast<double>(sinks[size(head)]) : -1e300;
    for (std::int32_t p = first; p <= position; ++p) {
      double dot = 0;
      for (std::int32_t i = 0; i < s.e; ++i) dot += x[size(i)] * key(page(p), p % page_tokens, i);
      const auto cap = static_cast<double>(how.cap);
      weights.push_back(cap == 0 ? dot : cap * std::tanh(dot / cap));
      greatest = std::max(greatest, weights.back());
    }
    double total = how.sinks ? std::exp(static_cast<double>(sinks[size(head)]) - greatest) : 0;
    for (double& w : weights) total += w = std::exp(w - greatest);
    std::vector<double> y(size(s.e));
    for (std::int32_t p = first; p <= position; ++p) {
      for (std::int32_t i = 0; i < s.e; ++i) {
        y[size(i)] += weights[size(p - first)] / total * value(page(p), p % page_tokens, i);
      }
    }
    return y;
  }

  /// The heads alone; what lies between them must be as it was.
  [[nodiscard]] std::vector<float> heads_of(const std::vector<float>& y, std::int64_t row_stride,
                                            std::int64_t head_stride) const {
    std::vector<float> heads;
    for (std::int64_t at = 0; at < static_cast<std::int64_t>(y.size()); ++at) {
      const std::int64_t in_row = at % row_stride;
      if (at >= row_stride && in_row < s.h * head_stride && in_row % head_stride < s.e) {
        heads.push_back(y[size(at)]);
      } else if (y[size(at)] != -7.0F) {
        FAIL("written beyond the heads: " << at);
      }
    }
    return heads;
  }
};

std::vector<std::uint32_t> bits(const std::vector<float>& x) {
  std::vector<std::uint32_t> b;
  for (const float v : x) b.push_back(std::bit_cast<std::uint32_t>(v));
  return b;
}

/// The bits of a part's rows where they follow each other in `from`, which starts at the prompt's position 0.
bool same_rows(const std::vector<float>& from, const Shape& s, std::int32_t first, const std::vector<float>& part) {
  const auto all = bits(from), some = bits(part);
  return std::equal(some.begin(), some.end(), all.begin() + std::int64_t{first} * s.h * s.e);
}

/// Queries are rounded as here, scores are exact up to float. A weight in bf16 is off by at most 2^-8 of itself, values
/// are at most 2: 2^-7, and as much again for all else.
void require_near(const Prompts& prompts, const How& how, const std::vector<Part>& parts) {
  CAPTURE(static_cast<int>(prompts.s.format), prompts.s.h, prompts.s.g, prompts.s.e, how.window, how.cap, how.sinks);
  const auto found = prompts.attend(how, parts);
  const auto expected = prompts.expected(how, parts);
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double difference = std::abs(static_cast<double>(found[i]) - expected[i]);
    if (!(difference <= 1.0 / 64)) FAIL(i << ": " << found[i] << " " << expected[i]);
  }
}

constexpr CacheFormat formats[] = {CacheFormat::bf16, CacheFormat::int8};

}  // namespace

TEST_CASE("rows of prompts attend as a plain loop does", "[cuda]") {
  const CacheFormat format = GENERATE(from_range(std::begin(formats), std::end(formats)));
  const Prompts narrow({format, 4, 1, 16}, 2, 230), wide({format, 4, 2, 64}, 1, 164);
  require_near(narrow, {}, {{0, 0, 130}, {1, 5, 17}, {0, 100, 64}, {1, 100, 130}, {0, 5, 1}});
  require_near(narrow, {.cap = 0.75F}, {{1, 0, 64}, {0, 100, 17}, {1, 0, 1}});
  require_near(wide, {.window = 70, .sinks = true}, {{0, 0, 17}, {0, 100, 64}});
  require_near(wide, {.window = 1}, {{0, 60, 6}});
  require_near(Prompts({format, 1, 1, 80}, 1, 70), {.sinks = true}, {{0, 5, 65}});
  require_near(Prompts({format, 2, 2, 128}, 2, 117), {.cap = 0.5F, .sinks = true}, {{0, 0, 1}, {1, 100, 17}});
  require_near(Prompts({format, 1, 1, 250}, 1, 66), {.window = 33}, {{0, 30, 36}});
  require_near(Prompts({format, 1, 1, 256}, 1, 66), {.window = 3, .cap = 0.5F}, {{0, 0, 66}});
}

TEST_CASE("a prompt's rows have the same bits in one run and in any others", "[cuda][law3]") {
  const CacheFormat format = GENERATE(from_range(std::begin(formats), std::end(formats)));
  const std::int32_t e = GENERATE(34, 128);
  const Prompts prompts({format, 2, 1, e}, 1, 140);
  for (const How& how : {How{}, How{.window = 40, .cap = 1.5F, .sinks = true}}) {
    const auto whole = prompts.attend(how, {{0, 0, 140}});
    REQUIRE(same_rows(whole, prompts.s, 0, prompts.attend(how, {{0, 0, 1}, {0, 1, 62}, {0, 63, 1}, {0, 64, 76}})));
    REQUIRE(same_rows(whole, prompts.s, 27, prompts.attend(how, {{0, 27, 100}, {0, 127, 1}})));
    REQUIRE(same_rows(whole, prompts.s, 139, prompts.attend(how, {{0, 139, 1}})));
  }
}

TEST_CASE("rows of two prompts at once have the bits that they have alone", "[cuda][law3]") {
  const CacheFormat format = GENERATE(from_range(std::begin(formats), std::end(formats)));
  const Prompts prompts({format, 1, 1, 66}, 2, 75);
  const auto first = prompts.attend({}, {{0, 0, 75}}), second = prompts.attend({}, {{1, 0, 75}});
  const auto both = prompts.attend({}, {{1, 5, 70}, {0, 70, 5}});
  const auto middle = both.begin() + 70 * prompts.s.e;
  REQUIRE(same_rows(second, prompts.s, 5, {both.begin(), middle}));
  REQUIRE(same_rows(first, prompts.s, 70, {middle, both.end()}));
}

TEST_CASE("slots and pages that no row sees may hold anything", "[cuda][law3]") {
  const CacheFormat format = GENERATE(from_range(std::begin(formats), std::end(formats)));
  Prompts wild({format, 1, 1, 96}, 1, 97, Unwritten::wild);
  const Prompts zeros({format, 1, 1, 96}, 1, 97, Unwritten::zeros);
  for (const How& how : {How{}, How{.window = 30}}) {
    REQUIRE(bits(wild.attend(how, {{0, 0, 97}})) == bits(zeros.attend(how, {{0, 0, 97}})));
  }
  // of two pages of a tile, neither the one before what is seen nor the one after it need be there
  const How how{.window = 10};
  for (const std::int32_t seen : {1, 2}) {
    const std::vector<Part> part{{0, seen * page_tokens + 10, 15}};
    const auto whole = wild.attend(how, part);
    const auto tables = wild.tables;
    for (std::int32_t i = 0; i < wild.tables_of; ++i) wild.tables[size(i)] = i == seen ? tables[size(i)] : 1 << 28;
    REQUIRE(bits(wild.attend(how, part)) == bits(whole));
    wild.tables = tables;
  }
}

TEST_CASE("a key that is NaN reaches the rows that see it and no other", "[cuda][law3]") {
  const CacheFormat format = GENERATE(from_range(std::begin(formats), std::end(formats)));
  Prompts prompts({format, 1, 1, 32}, 1, 100);
  for (const How& how : {How{}, How{.window = 20, .cap = 2}}) {
    const auto clean = prompts.attend(how, {{0, 0, 100}});
    Prompts spoilt = prompts;
    std::vector<float> key(32, 1.0F);
    key[31] = nan_value;
    spoilt.write(0, 37, 0, key, std::vector<float>(32, 1.0F));
    const auto found = spoilt.attend(how, {{0, 0, 100}});
    const std::int32_t end = how.window == 0 ? 100 : 37 + how.window;
    for (std::int32_t i = 0; i < 100 * 32; ++i) {
      const bool sees = i / 32 >= 37 && i / 32 < end;
      if (sees != std::isnan(found[size(i)])) FAIL(i << ": " << found[size(i)]);
    }
    REQUIRE(same_rows(clean, prompts.s, 0, {found.begin(), found.begin() + 37 * 32}));
    REQUIRE(same_rows(clean, prompts.s, end, {found.begin() + end * 32, found.end()}));
  }
}

TEST_CASE("caches that the kernel does not read are refused", "[cuda]") {
  AttendRuns command{};
  command.run_count = command.longest = 1;
  command.cache.format = CacheFormat::f32;
  command.cache.e = 64;
  REQUIRE_FALSE(Device().run(command).ok());
  command.cache.format = CacheFormat::bf16;
  command.cache.e = 258;
  REQUIRE_FALSE(Device().run(command).ok());
  command.run_count = 0;
  REQUIRE(Device().run(command).ok());
}

}  // namespace attend_runs_test
