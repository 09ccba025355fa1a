// Decoders and sessions on the CUDA backend: families against transformers' goldens, law 3, and the bundled team.
#include <finteam/backend/cuda.hpp>
#include <finteam/team/session.hpp>

#include "catch.hpp"
#include "expert/parity.hpp"
#include "team/answers.hpp"
#include "team/merged_team.hpp"
#include "team/shared_folder.hpp"

#include <array>
#include <chrono>
#include <stop_token>

using namespace finteam;
using test::quiet;

namespace {

/// A golden's decoder in a format, with a cache in another, and two sequences.
struct Bench {
  explicit Bench(const test::Golden& golden, Weights weights, CacheFormat cache_format)
      : config(golden.config),
        decoder(Decoder<Cuda>::load(b, golden.checkpoint, config, {.weights = weights})),
        cache(b, {config.layers, config.g, config.e, 2, 160, 10, cache_format}),
        scratch(b, config, 64),
        hidden(b.tensor<float, 2>({64, config.d}, nullptr)),
        logits(b.tensor<float, 2>({64, config.v}, nullptr)) {}

  struct Ids {
    std::int32_t sequence;
    std::vector<std::int32_t> ids;
  };
  /// One step of all these, and the logits of its last row.
  std::vector<float> read(const std::vector<Ids>& all, RowKind kind) {
    std::vector<Row> rows;
    for (const auto& [sequence, ids] : all) {
      auto position = static_cast<std::int32_t>(cache.length(sequence));
      cache.extend(sequence, position + static_cast<index_t>(ids.size()));
      for (const std::int32_t id : ids) rows.push_back({id, position++, sequence});
    }
    const auto t = static_cast<index_t>(rows.size());
    REQUIRE(!decoder.forward(b, cache, rows, scratch, hidden.view().rows(0, t), {}, {}, kind));
    decoder.logits(b, hidden.view().rows(t - 1, 1), scratch, logits.view().rows(0, 1));
    std::vector<float> host(static_cast<std::size_t>(config.v));
    b.to_host(logits.view().rows(0, 1), {host.data(), {1, config.v}});
    return host;
  }

  Cuda b;
  Config config;
  Decoder<Cuda> decoder;
  KvCache<Cuda> cache;
  StepScratch<Cuda> scratch;
  DeviceTensor<float, 2> hidden, logits;
};

/// After a prompt in chunks and three generated tokens: alone, or beside another sequence.
std::vector<std::vector<float>> read_on(Bench& device, const std::vector<std::int32_t>& prompt, std::size_t chunk,
                                        bool beside) {
  device.cache.clear();
  const std::int32_t other = beside ? device.cache.open() : 0, sequence = device.cache.open();
  if (beside) static_cast<void>(device.read({{other, {3, 1, 4}}}, RowKind::prompt));
  std::vector<std::vector<float>> all;
  for (std::size_t i = 0; i < prompt.size(); i += chunk) {
    const auto end = std::min(prompt.size(), i + chunk);
    all.assign(
        1, device.read(
               {{sequence,
                 {prompt.begin() + static_cast<std::ptrdiff_t>(i), prompt.begin() + static_cast<std::ptrdiff_t>(end)}}},
               RowKind::prompt));
  }
  for (const std::int32_t id : {5, 6, 7}) {
    std::vector<Bench::Ids> step;
    if (beside) step.push_back({other, {9, 2}});
    step.push_back({sequence, {id}});
    all.push_back(device.read(step, RowKind::generated));
  }
  return all;
}

}  // namespace

TEST_CASE("a prompt's chunks and the sequences beside it change no bit on the device", "[cuda][law3]") {
  const Weights weights = GENERATE(Weights::stored, Weights::bf16, Weights::int8, Weights::int4);
  const CacheFormat format = GENERATE(CacheFormat::f32, CacheFormat::bf16, CacheFormat::int8);
  if (weights != Weights::bf16 && format == CacheFormat::f32) return;
  const test::Golden golden("llama3");
  const auto prompt = golden.ids("prompt_1.ids");
  Bench device(golden, weights, format);
  const auto expected = read_on(device, prompt, prompt.size(), false);
  REQUIRE(expected.size() == 4);
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}}) {
    CHECK(read_on(device, prompt, chunk, false) == expected);
  }
  CHECK(read_on(device, prompt, prompt.size(), true) == expected);
}

TEST_CASE("weights and caches of few bits on the device lose what they lose on the CPU", "[cuda]") {
  const Weights weights = GENERATE(Weights::bf16, Weights::int8, Weights::int4, Weights::int4_zero);
  const test::Golden golden("llama3");
  const auto prompt = golden.ids("prompt_1.ids");
  Bench device(golden, weights, CacheFormat::bf16);
  const auto sequence = device.cache.open();
  const auto kind = GENERATE(RowKind::prompt, RowKind::generated);
  const auto found = device.read({{sequence, prompt}}, kind);
  const auto expected = parity::last_logits(golden, {.weights = weights});
  double squares = 0, off = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto a = static_cast<double>(found[i]), b = static_cast<double>(expected[i]);
    squares += b * b;
    off += (a - b) * (a - b);
  }
  CHECK(std::sqrt(off / squares) < tolerance::device_share(weights, kind));
}

TEST_CASE("a team on the device answers as on the CPU, in every topology", "[cuda]") {
  const int kind = GENERATE(0, 1, 2, 3);
  CAPTURE(kind);
  const test::TeamFolder separate;
  const test::SharedFolder lora, differences;
  if (kind == 2) {
    differences.make_low_bit("macro", Format::int1, 0.1F, 5);
    differences.make_low_bit("micro", Format::int2, 0.1F, 6);
    differences.make_low_bit("quant", Format::int1, 0.1F, 7);
  }
  const test::MergedTeam merged;
  const std::array folders{separate.path(), lora.path(), differences.path(), merged.path()};
  const auto& folder = folders[static_cast<std::size_t>(kind)];
  const auto on_cpu = open_team(folder);
  const auto on_device = open_team(folder, Cuda());
  const SessionLimits limits{.tokens = 128, .rows = 64};
  Session cpu(on_cpu, limits);
  Session<Cuda> device(on_device, limits);
  const Ask ask{.wake = kind == 3 ? Wake::chosen : Wake::all};
  const View expected = cpu.classify("sentiment", test::headline, ask);
  const View found = device.classify("sentiment", test::headline, ask);
  REQUIRE(found.probabilities.size() == expected.probabilities.size());
  for (std::size_t l = 0; l < expected.probabilities.size(); ++l) {
    CHECK(tolerance::whole_model.holds(found.probabilities[l], expected.probabilities[l]));
  }
  for (std::size_t k = 0; k < expected.roles.size(); ++k) {
    CHECK(tolerance::whole_model.holds(found.roles[k].weight, expected.roles[k].weight));
  }
  const GenerateOptions few{.max_tokens = 6};
  const auto expected_ids = cpu.generate(test::headline, quiet, few).ids;
  CHECK(device.generate(test::headline, quiet, few).ids == expected_ids);
}

TEST_CASE("a decode step of a plain model is one graph, however far the sequence has come", "[cuda]") {
  const test::Golden golden("llama3");
  Bench device(golden, Weights::bf16, CacheFormat::bf16);
  const auto sequence = device.cache.open();
  static_cast<void>(device.read({{sequence, {1, 2, 3}}}, RowKind::prompt));
  REQUIRE(device.b.graphs() == 0);
  for (int i = 0; i < 70; ++i) {  // over the borders of pages
    static_cast<void>(device.read({{sequence, {4 + i % 3}}}, RowKind::generated));
    REQUIRE(device.b.graphs() == (i == 0 ? 0 : 1));
  }
}

TEST_CASE("a stop or a deadline ends a call on the device, which then answers as if nothing had been", "[cuda]") {
  const test::TeamFolder folder;
  const auto team = open_team(folder.path(), Cuda());
  Session<Cuda> device(team, {.tokens = 64, .rows = 16});
  const std::string text = "Rates rose and rates rose and";
  const auto past = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  const auto expected = device.generate(text, quiet, {.max_tokens = 4}).ids;
  REQUIRE(expected.size() == 4);

  CHECK(device.generate(text, quiet, {.max_tokens = 4, .interrupt = {.deadline = past}}).finish == Finish::deadline);
  try {
    device.classify("sentiment", text, {.interrupt = {.deadline = past}});
    FAIL("answered");
  } catch (const Error& e) {
    CHECK(e.code() == Code::deadline);
  }
  std::stop_source source;
  const auto stop = [&](std::string_view) { source.request_stop(); };
  const Generation& some = device.generate(text, stop, {.max_tokens = 4, .interrupt = {.stop = source.get_token()}});
  CHECK(some.finish == Finish::cancelled);
  REQUIRE(!some.ids.empty());
  REQUIRE(some.ids.size() < 4);
  CHECK(std::equal(some.ids.begin(), some.ids.end(), expected.begin()));
  CHECK(device.generate(text, quiet, {.max_tokens = 4}).ids == expected);
}
