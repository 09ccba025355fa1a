// A decoder of a merged checkpoint for a test: what it computes, and what its routers chose.
#pragma once

#include "catch.hpp"
#include "expert/golden.hpp"
#include "expert/merged_folder.hpp"

#include <finteam/backend/cpu.hpp>
#include <finteam/expert/decoder.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace merged_run {

using namespace finteam;

using Ids = std::vector<std::int32_t>;
using Floats = std::vector<float>;

inline constexpr auto every_format = {Weights::stored, Weights::bf16, Weights::int8, Weights::int4, Weights::int4_zero};

/// A decoder of a folder, and sequences of up to 128 tokens.
template <Backend B>
struct Run {
  explicit Run(const std::filesystem::path& folder, const OpenOptions& options = {}, B backend = {})
      : b(backend),
        config(read_config(folder)),
        checkpoint(Checkpoint::open(folder)),
        decoder(Decoder<B>::load(b, checkpoint, config, options)),
        cache(b, {.layers = config.layers,
                  .kv_heads = config.g,
                  .head_dim = config.e,
                  .sequences = 3,
                  .tokens = 128,
                  .pages = 12}),
        scratch(b, config, 128) {}

  /// What was computed for the rows of a step, row after row.
  struct Step {
    Floats hidden, logits;
    Floats routing;  ///< [t, layers, experts]
    [[nodiscard]] Floats row(const Floats& x, std::size_t i, std::size_t t) const {
      const auto n = static_cast<std::ptrdiff_t>(x.size() / t), at = static_cast<std::ptrdiff_t>(i) * n;
      return {x.begin() + at, x.begin() + at + n};
    }
    friend bool operator==(const Step&, const Step&) = default;
  };

  Step step(const std::vector<Row>& rows) {
    const auto t = static_cast<index_t>(rows.size());
    for (const Row& r : rows) cache.extend(r.sequence, std::max<index_t>(cache.length(r.sequence), r.position + 1));
    Tensor<float, 2> hidden({t, config.d}), logits({t, config.v});
    REQUIRE(!decoder.forward(b, cache, rows, scratch, hidden.view()));
    decoder.logits(b, hidden.view(), scratch, logits.view());
    Step out{{hidden.data(), hidden.data() + hidden.size()}, {logits.data(), logits.data() + logits.size()}, {}};
    for (index_t i = 0; i < t; ++i) {
      const float* weights = scratch.routing(b).row(i).data();
      out.routing.insert(out.routing.end(), weights, weights + scratch.routing(b).stride(0));
    }
    return out;
  }
  /// Reads ids at the end of a sequence.
  Step read(const Ids& ids, std::int32_t sequence) {
    std::vector<Row> rows;
    auto position = static_cast<std::int32_t>(cache.length(sequence));
    for (const std::int32_t id : ids) rows.push_back({id, position++, sequence});
    return step(rows);
  }
  /// A new sequence in steps of `chunk` rows.
  Step read_in_chunks(const Ids& ids, std::size_t chunk) {
    cache.clear();
    const auto sequence = cache.open();
    Step all;
    for (std::size_t i = 0; i < ids.size(); i += chunk) {
      const auto end = std::min(i + chunk, ids.size());
      const Step s = read(
          {ids.begin() + static_cast<std::ptrdiff_t>(i), ids.begin() + static_cast<std::ptrdiff_t>(end)}, sequence);
      all.hidden.insert(all.hidden.end(), s.hidden.begin(), s.hidden.end());
      all.logits.insert(all.logits.end(), s.logits.begin(), s.logits.end());
      all.routing.insert(all.routing.end(), s.routing.begin(), s.routing.end());
    }
    return all;
  }
  Step read_once(const Ids& ids) { return read_in_chunks(ids, ids.size()); }

  B b;
  Config config;
  Checkpoint checkpoint;
  Decoder<B> decoder;
  KvCache<B> cache;
  StepScratch<B> scratch;
};

/// The largest |a - b|; infinite where one is NaN or the sizes differ.
inline double distance(const Floats& a, const Floats& b) {
  if (a.size() != b.size() || a.empty()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, difference);
  }
  return largest;
}

/// [layers, t, experts] as [t, layers, experts].
inline Floats by_row(const Floats& routing, std::size_t layers, std::size_t experts) {
  const std::size_t t = routing.size() / layers / experts;
  Floats out;
  for (std::size_t i = 0; i < t; ++i) {
    for (std::size_t l = 0; l < layers; ++l) {
      for (std::size_t k = 0; k < experts; ++k) out.push_back(routing[(l * t + i) * experts + k]);
    }
  }
  return out;
}

/// A merged checkpoint in a folder of its own.
struct Folder {
  explicit Folder(const test::Merged& merged) { merged.write(folder.path()); }
  [[nodiscard]] const std::filesystem::path& path() const { return folder.path(); }
  test::TemporaryFolder folder;
};

inline std::vector<test::fs::path> copies(const std::string& name, std::size_t n) {
  return std::vector<test::fs::path>(n, test::golden_folder(name));
}

inline Ids some_ids(std::size_t n, const Config& config) { return test::Random(17).ids(n, config.v); }

inline void require_refused(const std::filesystem::path& folder, Code code, const std::string& words) {
  try {
    Run<Cpu> run(folder);
    FAIL("was not refused: " << words);
  } catch (const Error& e) {
    CAPTURE(e.what());
    CHECK(e.code() == code);
    CHECK(std::string(e.what()).find(words) != std::string::npos);
  }
}

}  // namespace merged_run
