// Attention of rows one by one over many splits of a sequence, against the reference, and law 3 for it. ops_test.cpp
// has heads of every width and number, within one split.
#include <finteam/backend/reference.hpp>

#include "backend/op_cases.hpp"
#include "catch.hpp"
#include "cuda/on_host.hpp"
#include "tolerance.hpp"

using namespace finteam;

namespace {

/// Where splits begin and end, and where the ninth is shared by the warps that add them up.
const std::vector<std::int32_t> positions{255, 2600, 256, 3, 1000, 2303};
constexpr index_t rows = 6, g = 2, pages = 82;

struct Asked {
  index_t queries, e;  ///< of each head of keys
  std::int32_t window;
};

template <class B>
std::vector<float> attend(B& backend, op_cases::Cache& cache, const Asked& asked, const std::vector<float>& sinks,
                          index_t first, index_t count) {
  const index_t h = g * asked.queries;
  std::vector<float> q = inputs::values(rows * h * asked.e, 5);
  q = {q.begin() + first * h * asked.e, q.begin() + (first + count) * h * asked.e};
  std::vector<float> y(q.size(), 7.0F);
  const AttentionRule<> rule{.scale = 0.3F, .window = asked.window, .cap = 2.0F, .sinks = {sinks.data(), {h}}};
  const std::span<const Site> sites(cache.sites.data() + first, static_cast<std::size_t>(count));
  backend.attention(sites, op_cases::heads(q, h, asked.e), cache.layer(), rule, op_cases::heads(y, h, asked.e));
  return y;
}

}  // namespace

TEST_CASE("rows that see many splits agree with the reference, each alone as beside the others", "[cuda][law3]") {
  const CacheFormat format = GENERATE(from_range(op_cases::cache_formats));
  on_host::Cuda cuda;
  Reference reference;
  for (const Asked asked : {Asked{4, 16, 0}, Asked{5, 24, 300}, Asked{2, 16, 2000}}) {
    CAPTURE(name(format), asked.queries, asked.e, asked.window);
    op_cases::Cache cache(format, rows, g, asked.e, positions, pages);
    cache.fill(8);
    const std::vector<float> sinks = inputs::values(g * asked.queries, 20);
    const auto found = attend(cuda, cache, asked, sinks, 0, rows),
               expected = attend(reference, cache, asked, sinks, 0, rows);
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (!tolerance::attention(format).holds(found[i], expected[i])) FAIL(i << ": " << found[i] << " " << expected[i]);
    }
    const std::size_t width = found.size() / rows;
    for (index_t row = 0; row < rows; ++row) {
      const auto alone = attend(cuda, cache, asked, sinks, row, 1);
      for (std::size_t i = 0; i < width; ++i) {
        REQUIRE(inputs::bits(alone[i]) == inputs::bits(found[static_cast<std::size_t>(row) * width + i]));
      }
    }
  }
}
