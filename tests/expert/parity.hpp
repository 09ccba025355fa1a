// Holding a decoder to a golden: logits, the last hidden state and a greedy text of each prompt.
#pragma once

#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/expert/decoder.hpp>

#include "catch.hpp"
#include "expert/golden.hpp"
#include "tolerance.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace parity {

using namespace finteam;

using Ids = std::vector<std::int32_t>;

inline constexpr std::array prompts{"0", "1", "2"};

/// One sequence of at most 140 tokens, read in steps of any size.
template <Backend B>
struct Run {
  Run(const test::Golden& golden, const Config& read)
      : config(read),
        decoder(Decoder<B>::load(b, golden.checkpoint, config)),
        cache(b, {.layers = config.layers,
                  .kv_heads = config.g,
                  .head_dim = config.e,
                  .sequences = 1,
                  .tokens = 140,
                  .pages = KvCache<B>::pages_for(140)}),
        scratch(b, config, 140),
        hidden({140, config.d}),
        logits({140, config.v}),
        hidden_(b.template tensor<float, 2>({140, config.d}, std::pmr::get_default_resource())),
        logits_(b.template tensor<float, 2>({140, config.v}, std::pmr::get_default_resource())) {}

  /// Starts a new sequence, of up to `tokens`.
  void clear(std::size_t tokens) {
    cache.clear();
    sequence = cache.open(config.rope.is_long(static_cast<index_t>(tokens)));
  }

  /// Reads ids where the sequence ends; their rows are then in hidden and logits.
  void read(const Ids& ids, RowKind kind = RowKind::generated) {
    const auto t = static_cast<index_t>(ids.size());
    const auto first = static_cast<std::int32_t>(cache.length(sequence));
    cache.extend(sequence, first + t);
    std::vector<Row> rows;
    for (std::size_t i = 0; i < ids.size(); ++i)
      rows.push_back({ids[i], first + static_cast<std::int32_t>(i), sequence});
    REQUIRE(!decoder.forward(b, cache, rows, scratch, hidden_.view().rows(0, t), {}, {}, kind));
    decoder.logits(b, hidden_.view().rows(0, t), scratch, logits_.view().rows(0, t));
    b.to_host(hidden_.view().rows(0, t), hidden.view().rows(0, t));
    b.to_host(logits_.view().rows(0, t), logits.view().rows(0, t));
  }

  /// Row t of a tensor [_, n].
  static std::vector<float> row(const Tensor<float, 2>& x, index_t t) {
    const index_t n = x.view().extent(1);
    return {x.data() + t * n, x.data() + (t + 1) * n};
  }

  B b;
  Config config;
  Decoder<B> decoder;
  KvCache<B> cache;
  std::int32_t sequence = 0;
  StepScratch<B> scratch;
  Tensor<float, 2> hidden;
  Tensor<float, 2> logits;

 private:
  using States = decltype(std::declval<B&>().template tensor<float, 2>({}, nullptr));
  States hidden_;  // where the backend works
  States logits_;
};

/// The largest |a - b|; infinite where one is NaN or the sizes differ.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    largest = difference <= largest ? largest : difference;
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
  }
  return largest;
}

/// The largest distance from the golden's logits over the kept rows of all prompts.
template <Backend B>
double miss(const test::Golden& golden, const Config& config) {
  Run<B> run(golden, config);
  double largest = 0;
  for (const std::string i : prompts) {
    const Ids prompt = golden.ids("prompt_" + i + ".ids");
    run.clear(prompt.size() + golden.ids("greedy_" + i + ".ids").size());
    run.read(prompt);
    const Ids positions = golden.ids("prompt_" + i + ".positions");
    std::vector<float> kept;
    for (const std::int32_t t : positions) {
      const auto row = run.row(run.logits, t);
      kept.insert(kept.end(), row.begin(), row.end());
    }
    largest = std::max(largest, distance(kept, golden.floats("prompt_" + i + ".logits")));
  }
  return largest;
}

/// One case's whole golden: logits and the last hidden state of each prompt, then ids chosen one at a time.
template <Backend B>
void hold_to_golden(const std::string& name) {
  CAPTURE(name);
  const test::Golden golden(name);
  CHECK(miss<B>(golden, golden.config) <= tolerance::parity);
  Run<B> run(golden, golden.config);
  for (const std::string i : prompts) {
    CAPTURE(i);
    const Ids prompt = golden.ids("prompt_" + i + ".ids"), expected = golden.ids("greedy_" + i + ".ids");
    REQUIRE(expected.size() >= 40);
    run.clear(prompt.size() + expected.size());
    run.read(prompt);
    index_t last = static_cast<index_t>(prompt.size()) - 1;
    CHECK(distance(run.row(run.hidden, last), golden.floats("prompt_" + i + ".hidden")) <= tolerance::parity);
    Ids chosen;
    std::vector<float> scores;
    while (chosen.size() < expected.size()) {
      scores = run.row(run.logits, last);
      chosen.push_back(static_cast<std::int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin()));
      if (chosen.size() < expected.size()) run.read({chosen.back()});
      last = 0;
    }
    CHECK(chosen == expected);
    CHECK(distance(scores, golden.floats("greedy_" + i + ".logits")) <= tolerance::parity);
  }
}

/// How far a decoder of another config is off.
template <class Change>
double changed(const test::Golden& golden, Change&& change) {
  Config config = golden.config;
  change(config);
  return miss<Reference>(golden, config);
}

/// Logits of a prompt's last row, of a decoder that is loaded so.
inline std::vector<float> last_logits(const test::Golden& golden, const OpenOptions& options, Cpu b = {},
                                      const std::string& prompt = "1") {
  const auto decoder = Decoder<Cpu>::load(b, golden.checkpoint, golden.config, options);
  const auto ids = golden.ids("prompt_" + prompt + ".ids");
  const auto t = static_cast<index_t>(ids.size());
  const Config& c = golden.config;
  KvCache<Cpu> cache(b, {c.layers, c.g, c.e, 1, t, KvCache<Cpu>::pages_for(t)});
  StepScratch<Cpu> scratch(b, c, t);
  Tensor<float, 2> hidden({t, c.d}), y({1, c.v});
  const auto sequence = cache.open();
  cache.extend(sequence, t);
  std::vector<Row> rows;
  for (const std::int32_t id : ids) rows.push_back({id, static_cast<std::int32_t>(rows.size()), sequence});
  REQUIRE(!decoder.forward(b, cache, rows, scratch, hidden.view()));
  decoder.logits(b, hidden.view().rows(t - 1, 1), scratch, y.view());
  return {y.data(), y.data() + c.v};
}

}  // namespace parity
