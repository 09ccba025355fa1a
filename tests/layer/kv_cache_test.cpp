#include "catch.hpp"
#include "random.hpp"

#include <finteam/backend/reference.hpp>
#include <finteam/layer/kv_cache.hpp>

#include <vector>

using namespace finteam;

namespace {

constexpr CacheLimits limits{.layers = 2, .kv_heads = 2, .head_dim = 4, .sequences = 4, .tokens = 100, .pages = 9};

CacheLimits in_format(CacheFormat format) {
  CacheLimits l = limits;
  l.format = format;
  return l;
}

/// Writes distinct keys and values at [first, last) of a sequence.
void write(Reference& b, KvCache<Reference>& cache, std::int32_t sequence, std::int32_t first, std::int32_t last,
           std::uint64_t seed) {
  test::Random random(seed);
  for (std::int32_t p = first; p < last; ++p) {
    const Site site = cache.site(sequence, p);
    for (index_t l = 0; l < limits.layers; ++l) {
      const auto k = random.floats(8), v = random.floats(8);
      b.cache_write({&site, 1}, {k.data(), {1, 2, 4}}, {v.data(), {1, 2, 4}}, cache.layer(l));
    }
  }
}

/// Everything that a sequence holds.
std::vector<float> content(KvCache<Reference>& cache, std::int32_t sequence) {
  std::vector<float> all;
  for (index_t l = 0; l < limits.layers; ++l) {
    for (std::int32_t p = 0; p < cache.length(sequence); ++p) {
      const index_t page = cache.site(sequence, p).pages[p / page_tokens], slot = p % page_tokens;
      for (index_t g = 0; g < 2; ++g) {
        for (index_t i = 0; i < 4; ++i) {
          all.push_back(cache.layer(l).page(page, g).key(slot, i));
          all.push_back(cache.layer(l).page(page, g).value(slot, i));
        }
      }
    }
  }
  return all;
}

}  // namespace

TEST_CASE("a fork holds what its sequence holds, and the two then grow apart", "[layer][law2]") {
  Reference b;
  KvCache<Reference> cache(b, in_format(GENERATE(CacheFormat::f32, CacheFormat::bf16, CacheFormat::int8)));
  const auto trunk = cache.open();
  cache.extend(trunk, 70);
  write(b, cache, trunk, 0, 70, 1);
  const auto branch = cache.fork(b, trunk);
  CHECK(cache.length(branch) == 70);
  const auto before = content(cache, trunk);
  CHECK(content(cache, branch) == before);
  CHECK(cache.site(branch, 0).pages[0] == cache.site(trunk, 0).pages[0]);  // full pages are shared
  CHECK(cache.site(branch, 0).pages[2] != cache.site(trunk, 0).pages[2]);  // the partial one is its own

  cache.extend(branch, 75);
  write(b, cache, branch, 70, 75, 2);
  CHECK(content(cache, trunk) == before);
}

TEST_CASE("pages come back when the last sequence that uses them closes", "[layer]") {
  Reference b;
  KvCache<Reference> cache(b, limits);
  const index_t all = cache.free_pages();
  const auto trunk = cache.open();
  cache.extend(trunk, 64);
  const auto branch = cache.fork(b, trunk);
  cache.extend(branch, 65);
  CHECK(cache.free_pages() == all - 3);
  cache.close(trunk);
  CHECK(cache.free_pages() == all - 3);
  cache.close(branch);
  CHECK(cache.free_pages() == all);
}

TEST_CASE("a sequence that is made shorter gives its pages back, and leaves what others share alone", "[layer]") {
  Reference b;
  KvCache<Reference> cache(b, in_format(GENERATE(CacheFormat::f32, CacheFormat::bf16, CacheFormat::int8)));
  const index_t all = cache.free_pages();
  const auto trunk = cache.open();
  cache.extend(trunk, 70);
  write(b, cache, trunk, 0, 70, 1);
  const auto branch = cache.fork(b, trunk);
  const auto before = content(cache, trunk);
  cache.truncate(b, branch, 64);
  CHECK(cache.free_pages() == all - 3);
  cache.truncate(b, branch, 40);  // into a page that both hold: it gets a copy
  CHECK(cache.free_pages() == all - 4);
  const auto kept = content(cache, branch);
  cache.extend(branch, 50);
  write(b, cache, branch, 40, 50, 2);
  CHECK(content(cache, trunk) == before);
  cache.truncate(b, branch, 40);
  CHECK(content(cache, branch) == kept);
  cache.truncate(b, branch, 0);
  CHECK(cache.length(branch) == 0);
  CHECK(cache.free_pages() == all - 3);
  cache.clear();
  CHECK(cache.free_pages() == all);
}

TEST_CASE("a cache refuses what it was not made for, and stays as it was", "[layer]") {
  Reference b;
  KvCache<Reference> cache(b, limits);
  const auto s = cache.open();
  CHECK_THROWS_AS(cache.extend(s, 101), Error);  // longer than a sequence may be
  CHECK(cache.length(s) == 0);
  cache.extend(s, 100);
  CHECK_THROWS_AS(cache.extend(s, 99), Error);  // no way back
  const auto t = cache.open();
  cache.extend(t, 100);
  const auto u = cache.open();
  CHECK_THROWS_AS(cache.extend(u, 64), Error);  // two pages, and one is left
  CHECK(cache.free_pages() == 1);
  (void)cache.open();
  CHECK_THROWS_AS(cache.open(), Error);
  cache.clear();
  CHECK(cache.free_pages() == limits.pages);
}
