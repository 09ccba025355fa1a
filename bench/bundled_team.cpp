// How fast do the bundled team's roles read and write, and how close is that to this machine's limits?
// prefill: 512 tokens in one sequence; decode: 1 and 3 sequences, a token each; classify: the time to a label.
// The weights fit in the caches, so decode is measured against the bandwidth of reading as many bytes as a role has.

#include "harness.hpp"

#include <finteam/finteam.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

namespace {

using namespace finteam;

/// One role of the team, with a cache for `sequences` sequences of up to `tokens` tokens.
class Bench {
 public:
  Bench(const Decoder<Cpu>& decoder, Cpu& b, index_t sequences, index_t tokens)
      : decoder_(decoder),
        b_(b),
        c_(decoder.config()),
        cache_(b, {.layers = c_.layers,
                   .kv_heads = c_.g,
                   .head_dim = c_.e,
                   .sequences = sequences,
                   .tokens = tokens,
                   .pages = sequences * KvCache<Cpu>::pages_for(tokens)}),
        scratch_(b, c_, tokens),
        hidden_({tokens, c_.d}),
        logits_({sequences, c_.v}) {
    for (index_t s = 0; s < sequences; ++s) cache_.extend(cache_.open(), tokens);
  }

  /// `count` tokens from position `first` in each sequence, and the logits of the last `logits` rows.
  void step(index_t sequences, index_t first, index_t count, index_t logits) {
    std::vector<Row> rows;
    for (index_t s = 0; s < sequences; ++s) {
      for (index_t i = 0; i < count; ++i) {
        rows.push_back({static_cast<std::int32_t>((17 * (first + i) + 31 * s + 5) % c_.v),
                        static_cast<std::int32_t>(first + i), static_cast<std::int32_t>(s)});
      }
    }
    const index_t t = static_cast<index_t>(rows.size());
    (void)decoder_.forward(b_, cache_, rows, scratch_, hidden_.view().rows(0, t));
    decoder_.logits(b_, hidden_.view().rows(t - logits, logits), scratch_, logits_.view().rows(0, logits));
  }

  /// Throws unless a prompt of 40 tokens at once and token by token gives the same, finite logits.
  void check() {
    step(1, 0, 40, 1);
    const std::vector<float> whole(logits_.data(), logits_.data() + c_.v);
    for (index_t i = 0; i < 40; ++i) step(1, i, 1, 1);
    if (!std::isfinite(whole[0]) || !std::equal(whole.begin(), whole.end(), logits_.data())) {
      throw Error(Code::system, "bench", "the same finite logits at once and token by token", "others");
    }
  }

  /// Weights of the blocks and the head, each used once for every row (the head for every row of logits).
  [[nodiscard]] double block_weights() const {
    const double d = static_cast<double>(c_.d), e = static_cast<double>(c_.e), f = static_cast<double>(c_.f);
    return static_cast<double>(c_.layers) *
           (2 * d * e * static_cast<double>(c_.h) + 2 * d * e * static_cast<double>(c_.g) + 3 * d * f);
  }
  [[nodiscard]] double head_weights() const { return static_cast<double>(c_.v) * static_cast<double>(c_.d); }

 private:
  const Decoder<Cpu>& decoder_;
  Cpu& b_;
  Config c_;
  KvCache<Cpu> cache_;
  StepScratch<Cpu> scratch_;
  Tensor<float, 2> hidden_, logits_;
};

Json row(const std::string& name, index_t sequences, double tokens, const bench::Seconds& s, double bytes, double flops,
         double read_gbps, double peak_gflops) {
  const double by_bytes = bytes / s.median / 1e9 / read_gbps, by_flops = flops / s.median / 1e9 / peak_gflops;
  return {{"name", name},
          {"shape", "mini-team role"},
          {"weights", "bf16"},
          {"sequences", sequences},
          {"tokens_per_s", tokens / s.median},
          {"seconds_per_step", s.median},
          {"seconds_least", s.least},
          {"seconds_most", s.most},
          {"bytes_per_step", bytes},
          {"flops_per_step", flops},
          {"read_gbps", read_gbps},
          {"peak_gops", peak_gflops},
          {"limit", by_bytes > by_flops ? "read" : "arithmetic"},
          {"fraction", std::max(by_bytes, by_flops)}};
}

Json run(const std::string& folder, int threads, const std::string& commit) {
  ThreadPool pool(threads);
  Cpu b(pool);
  const auto team = open_team(folder, {}, b);
  const Decoder<Cpu>& decoder = team.roles()[0].decoder;
  Json rows = Json::array();
  const auto add = [&](const std::string& name, index_t sequences, index_t count, index_t logits, int repeats) {
    Bench bench(decoder, b, sequences, 512);
    const double weights = bench.block_weights(), head = bench.head_weights();
    const double t = static_cast<double>(sequences * count);
    const double bytes = 2 * (weights + head), flops = 2 * (weights * t + head * static_cast<double>(logits));
    const double read = bench::read_gbps(pool, static_cast<std::size_t>(bytes)), peak = bench::peak_gflops(pool);
    bench.check();
    const auto s = bench::time(repeats, [&] { bench.step(sequences, 512 - count, count, logits); });
    rows.push_back(row(name, sequences, t, s, bytes, flops, read, peak));
  };
  add("prefill 512", 1, 512, 1, 15);
  add("decode", 1, 1, 1, 201);
  add("decode", 3, 1, 3, 201);

  Session desk(team, {}, b);
  const auto s = bench::time(
      31, [&] { (void)desk.classify("sentiment", "Shares rose after the company raised its outlook for the year"); });
  rows.push_back({{"name", "classify"},
                  {"shape", "mini-team, three roles"},
                  {"weights", "bf16"},
                  {"sequences", 1},
                  {"seconds_per_step", s.median},
                  {"seconds_least", s.least},
                  {"seconds_most", s.most}});
  return {{"machine", bench::machine(threads, commit)}, {"rows", rows}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Prefill and decode of the bundled team"};
  std::string folder, file = "-", commit = "unknown";
  int threads = 2;
  app.add_option("team", folder, "a team's folder")->required();
  app.add_option("--threads", threads, "threads, this one included")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--json", file, "where the results go; -: standard output")->capture_default_str();
  app.add_option("--commit", commit, "what was built, for the results")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const std::string results = run(folder, threads, commit).dump(1);
    if (file == "-") {
      std::cout << results << "\n";
    } else {
      std::ofstream(file) << results << "\n";
    }
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "bundled_team: " << e.what() << "\n";
    return 1;
  }
}
