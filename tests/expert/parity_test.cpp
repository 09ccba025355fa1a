// Parity with PyTorch: the goldens of tools/make_goldens.py, held by every backend.

#include "catch.hpp"
#include "expert/golden.hpp"
#include "tolerance.hpp"

#include <finteam/backend/cpu.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/expert/decoder.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

using namespace finteam;

namespace {

using Ids = std::vector<std::int32_t>;

constexpr std::array prompts{"0", "1", "2"};

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
        logits({140, config.v}) {}

  /// Starts a new sequence.
  void clear() {
    cache.clear();
    sequence = cache.open();
  }

  /// Reads ids where the sequence ends; their rows are then in hidden and logits.
  void read(const Ids& ids) {
    const auto t = static_cast<index_t>(ids.size());
    const auto first = static_cast<std::int32_t>(cache.length(sequence));
    cache.extend(sequence, first + t);
    std::vector<Row> rows;
    for (std::size_t i = 0; i < ids.size(); ++i)
      rows.push_back({ids[i], first + static_cast<std::int32_t>(i), sequence});
    REQUIRE(!decoder.forward(b, cache, rows, scratch, hidden.view().rows(0, t)));
    decoder.logits(b, hidden.view().rows(0, t), scratch, logits.view().rows(0, t));
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
};

/// The largest |a - b|; infinite where one is NaN or the sizes differ.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
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
    run.clear();
    run.read(golden.ids("prompt_" + i + ".ids"));
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

/// One case's whole golden: logits and the last hidden state of each prompt, then 64 ids chosen one at a time.
template <Backend B>
void hold_to_golden(const std::string& name) {
  CAPTURE(name);
  const test::Golden golden(name);
  CHECK(miss<B>(golden, golden.config) <= tolerance::parity);
  Run<B> run(golden, golden.config);
  for (const std::string i : prompts) {
    CAPTURE(i);
    const Ids prompt = golden.ids("prompt_" + i + ".ids"), expected = golden.ids("greedy_" + i + ".ids");
    REQUIRE(expected.size() == 64);
    run.clear();
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

}  // namespace

TEMPLATE_TEST_CASE("logits, hidden states and greedy texts are those of transformers", "[parity]", Reference, Cpu) {
  SECTION("Llama 2: as many key heads as heads, config.json without rope_theta and head_dim") {
    hold_to_golden<TestType>("llama2");
  }
  SECTION("Llama 3: bf16, grouped key heads, rope_theta outside") { hold_to_golden<TestType>("llama3"); }
  SECTION("Llama 3.1: scaled rope as transformers 5 writes it") { hold_to_golden<TestType>("llama31"); }
  SECTION("Llama 3.2: tied, head_dim given, scaled rope as transformers 4 wrote it") {
    hold_to_golden<TestType>("llama32");
  }
  SECTION("four shards and an index, linearly scaled rope") { hold_to_golden<TestType>("sharded"); }
  SECTION("f16 with subnormals, and an odd feed-forward width") { hold_to_golden<TestType>("f16"); }
  SECTION("one key head, large eps") { hold_to_golden<TestType>("mqa"); }
  SECTION("Mistral: a window, which ends within a page") { hold_to_golden<TestType>("mistral"); }
}

TEST_CASE("a constant of the config that is read wrongly misses the goldens by more than 100 tolerances", "[parity]") {
  const auto changed = [](const test::Golden& golden, auto change) {
    Config config = golden.config;
    change(config);
    return miss<Reference>(golden, config);
  };
  constexpr double far = 100 * tolerance::parity;
  const test::Golden llama2("llama2"), llama31("llama31"), llama32("llama32"), sharded("sharded"), mqa("mqa"),
      mistral("mistral");
  CHECK(changed(llama2, [](Config& c) { c.rope.theta = 500'000; }) > far);
  CHECK(changed(llama2, [](Config& c) { c.rms_norm_eps = 1e-6; }) > far);
  CHECK(changed(mqa, [](Config& c) { c.rms_norm_eps = 1e-3; }) > far);
  CHECK(changed(sharded, [](Config& c) { c.rope.type = RopeType::none; }) > far);
  CHECK(changed(mistral, [](Config& c) { c.window = 0; }) > far);
  CHECK(changed(mistral, [](Config& c) { --c.window; }) > far);
  CHECK(changed(mistral, [](Config& c) { ++c.window; }) > far);
  CHECK(changed(llama31, [](Config& c) { c.rope.type = RopeType::none; }) > far);
  CHECK(changed(llama31, [](Config& c) { c.rope.type = RopeType::linear; }) > far);
  CHECK(changed(llama31, [](Config& c) { c.rope.original_max_positions = c.max_positions; }) > far);
  CHECK(changed(llama32, [](Config& c) { c.rope.factor = 4; }) > far);
  CHECK(changed(llama32, [](Config& c) { c.rope.theta = 10'000; }) > far);
}
