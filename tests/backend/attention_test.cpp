// Law 3 for prompts: a row's attention depends on what its sequence holds up to its position, and on nothing that is
// read with it. Rows of one sequence share tiles here, which the cases of op_cases.hpp, a sequence a row, do not.
#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/backend/thread_pool.hpp>
#include <finteam/layer/kv_cache.hpp>

#include "catch.hpp"
#include "op_cases.hpp"
#include "tolerance.hpp"

#include <cmath>
#include <limits>

using namespace finteam;

namespace {

/// Heads, and a prompt that ends within a page.
struct Heads {
  index_t h, g, e;
};
constexpr index_t prompt = 107;

using Bits = std::vector<std::uint32_t>;

/// A sequence's keys, values and queries.
struct Rows {
  std::vector<float> k, v, q;
};
Rows rows_of(const Heads& s, std::uint64_t seed) {
  return {inputs::values(prompt * s.g * s.e, 3 * seed), inputs::values(prompt * s.g * s.e, 3 * seed + 1),
          inputs::values(prompt * s.h * s.e, 3 * seed + 2)};
}

/// A cache of one layer, and steps over it.
template <Backend B>
struct Bench {
  Bench(B backend, Heads shape, CacheFormat format)
      : b(backend),
        s(shape),
        cache(b, {.layers = 1,
                  .kv_heads = s.g,
                  .head_dim = s.e,
                  .sequences = 4,
                  .tokens = prompt,
                  .pages = 16,
                  .format = format}) {}

  /// The attention of the rows at `sites`, which are written first.
  std::vector<float> step(const std::vector<Site>& sites, const std::vector<float>& k, const std::vector<float>& v,
                          std::vector<float>& q) {
    const auto t = static_cast<index_t>(sites.size());
    std::vector<float> y(static_cast<std::size_t>(t * s.h * s.e), 7.0F);
    b.cache_write(sites, {k.data(), {t, s.g, s.e}}, {v.data(), {t, s.g, s.e}}, cache.layer(0));
    b.attention(sites, {q.data(), {t, s.h, s.e}}, cache.layer(0), {.scale = 0.2F}, {y.data(), {t, s.h, s.e}});
    return y;
  }
  /// A new sequence, read in chunks: every row's attention.
  std::vector<float> read(const Rows& all, index_t chunk) {
    const auto sequence = cache.open();
    std::vector<float> out;
    for (index_t first = 0; first < prompt; first += chunk) {
      const index_t t = std::min(chunk, prompt - first);
      cache.extend(sequence, first + t);
      std::vector<Site> sites;
      for (index_t i = 0; i < t; ++i) sites.push_back(cache.site(sequence, static_cast<std::int32_t>(first + i)));
      const auto part = [&](const std::vector<float>& x, index_t width) {
        return std::vector<float>(x.begin() + first * width, x.begin() + (first + t) * width);
      };
      auto q = part(all.q, s.h * s.e);
      const auto y = step(sites, part(all.k, s.g * s.e), part(all.v, s.g * s.e), q);
      out.insert(out.end(), y.begin(), y.end());
    }
    cache.close(sequence);
    return out;
  }

  B b;
  Heads s;
  KvCache<B> cache;
};

Bits bits(const std::vector<float>& x) {
  Bits b;
  for (const float v : x) b.push_back(std::bit_cast<std::uint32_t>(v));
  return b;
}

// heads of a group that fill a tile, part of one, more than one; widths with and without tails
constexpr std::array<Heads, 6> shapes{{{8, 2, 64}, {3, 3, 16}, {6, 2, 34}, {5, 1, 18}, {13, 1, 8}, {4, 2, 270}}};

}  // namespace

TEST_CASE("a prompt's attention has the same bits at once, in any chunks and on any threads", "[law3]") {
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  ThreadPool two(2), three(3);
  for (const Heads& s : shapes) {
    CAPTURE(name(format), s.h, s.g, s.e);
    Bench<Cpu> alone(Cpu(), s, format), on_two(Cpu{ExecutorRef(two)}, s, format),
        on_three(Cpu{ExecutorRef(three)}, s, format);
    const auto all = rows_of(s, 1);
    const Bits whole = bits(alone.read(all, prompt));
    for (const index_t chunk : {1, 2, 3, 7, 31, 32, 33, 50}) {
      CAPTURE(chunk);
      REQUIRE(bits(alone.read(all, chunk)) == whole);
    }
    REQUIRE(bits(on_two.read(all, prompt)) == whole);
    REQUIRE(bits(on_three.read(all, prompt)) == whole);
    REQUIRE(bits(on_three.read(all, 50)) == whole);
  }
}

TEST_CASE("a prompt's attention agrees with the reference", "[backend]") {
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  for (const Heads& s : shapes) {
    CAPTURE(name(format), s.h, s.g, s.e);
    Bench<Cpu> cpu(Cpu(), s, format);
    Bench<Reference> reference(Reference(), s, format);
    const auto all = rows_of(s, 2);
    const auto ours = cpu.read(all, prompt), expected = reference.read(all, prompt);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      if (!tolerance::attention(format).holds(ours[i], expected[i])) FAIL(i << ": " << ours[i] << " " << expected[i]);
    }
  }
}

TEST_CASE("rows of several sequences in any order have the bits that they have alone", "[law2][law3]") {
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  const Heads s{8, 2, 34};
  Bench<Cpu> bench(Cpu(), s, format);
  std::vector<Rows> rows;
  std::vector<Bits> alone;
  std::vector<std::int32_t> sequences;
  for (std::uint64_t i = 0; i < 3; ++i) {
    rows.push_back(rows_of(s, 10 + i));
    alone.push_back(bits(bench.read(rows.back(), prompt)));
  }
  for (std::size_t i = 0; i < 3; ++i) {
    sequences.push_back(bench.cache.open());
    bench.cache.extend(sequences.back(), prompt);
  }
  std::vector<Site> sites;
  std::vector<float> k, v, q;
  std::vector<std::pair<std::size_t, index_t>> order;
  for (index_t p = 0; p < prompt; ++p) {  // runs of one, two and five rows
    for (const auto& [sequence, run] : {std::pair<std::size_t, index_t>{0, 1}, {1, 2}, {2, 5}}) {
      for (index_t i = p / run * run; p % run == 0 && i < std::min(p + run, prompt); ++i)
        order.emplace_back(sequence, i);
    }
  }
  for (const auto& [sequence, p] : order) {
    const auto add = [&, at = p](std::vector<float>& to, const std::vector<float>& from, index_t width) {
      to.insert(to.end(), from.begin() + at * width, from.begin() + (at + 1) * width);
    };
    sites.push_back(bench.cache.site(sequences[sequence], static_cast<std::int32_t>(p)));
    add(k, rows[sequence].k, s.g * s.e);
    add(v, rows[sequence].v, s.g * s.e);
    add(q, rows[sequence].q, s.h * s.e);
  }
  const Bits together = bits(bench.step(sites, k, v, q));
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto width = static_cast<std::size_t>(s.h * s.e);
    const auto& expected = alone[order[i].first];
    const auto at = static_cast<std::size_t>(order[i].second) * width;
    REQUIRE(std::equal(&together[i * width], &together[(i + 1) * width], &expected[at]));
  }
}

TEST_CASE("what is not finite reaches the rows that see it and no other, and leaves nothing behind", "[law3]") {
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const Heads& s : shapes) {
    CAPTURE(name(format), s.h, s.g, s.e);
    Bench<Cpu> bench(Cpu(), s, format);
    const auto all = rows_of(s, 3);
    const Bits clean = bits(bench.read(all, prompt));
    const index_t row = 37;
    const auto width = static_cast<std::size_t>(s.h * s.e);
    for (const float bad : {nan, inf, -inf}) {
      for (const bool in_key : {true, false}) {
        auto spoilt = all;
        for (index_t head = 0; head < s.g; ++head) {
          (in_key ? spoilt.k : spoilt.v)[static_cast<std::size_t>((row * s.g + head) * s.e + s.e - 1)] = bad;
        }
        for (const index_t chunk : {index_t{1}, prompt}) {
          const auto y = bench.read(spoilt, chunk);
          const Bits found = bits(y);
          const auto before = static_cast<std::size_t>(row) * width;
          REQUIRE(std::equal(clean.begin(), clean.begin() + static_cast<std::ptrdiff_t>(before), found.begin()));
          if (!std::isnan(bad) && in_key) continue;  // a score of -inf is a weight of zero
          for (std::size_t i = before; i < y.size(); ++i) {
            if (std::isfinite(y[i])) FAIL(i << ": " << y[i]);
          }
        }
      }
    }
    REQUIRE(bits(bench.read(all, prompt)) == clean);  // in the same pages
  }
}
