// How long until a text has its label, as a host sees it one call after another: median and 99th percentile, of the
// bundled team and of one expert of the shape?
#include "model.hpp"
#include "shape.hpp"

namespace bench {
namespace {

constexpr std::string_view texts[] = {
    "Shares rose after the company raised its outlook for the year",
    "The retailer warned that margins would shrink as costs of freight and labour keep climbing into the autumn",
    "Helen of Troy started at outperform with $210 stock price target at Oppenheimer",
    "The bank will publish its quarterly figures on Thursday before the market opens",
    "Steel maker cuts dividend, blames weak demand from builders and a strong currency; shares fall 8% at the open",
    "Regulator clears merger of the two insurers without conditions",
};

void ask(Run& run, Desk& desk) {
  for (const auto text : texts) (void)desk.classify(text);
  const auto& c = desk.config();
  std::vector<double> calls, tokens, readers;
  Sampler sampler(run.pool, step_weight_bytes(c, run.options.weights), peak_of(run.options.weights));
  Samples samples;
  const double begin = now();
  do {  // calls follow one another for a while, as they would without probes
    const std::size_t before = calls.size();
    Sample s = sampler.take(1, 1, [&](index_t) {
      const double start = now();
      do {
        const double asked = now();
        const auto answer = desk.classify(texts[calls.size() % std::size(texts)]);
        calls.push_back(now() - asked);
        tokens.push_back(static_cast<double>(answer.prompt_tokens));
        readers.push_back(static_cast<double>(answer.readers));
      } while (now() - start < 0.5 && now() - begin < run.options.seconds);
    });
    s.seconds /= static_cast<double>(calls.size() - before);
    samples.push_back(s);
  } while (now() - begin < run.options.seconds || calls.size() < std::size(texts));

  const double t = median(tokens), n = median(readers);
  Json fields = row(run,
                    {.name = "classify",
                     .tokens = t,
                     .bytes = n * step_weight_bytes(c, run.options.weights),
                     .flops = n * step_flops(c, t, t * (t + 1) / 2, 1),
                     .more = {{"prompt", t}, {"roles", n}}},
                    samples);
  fields["calls"] = calls.size();
  fields["seconds_p50"] = median(calls);
  fields["seconds_p99"] = quantile(calls, 0.99);
  run.add(std::move(fields));
}

}  // namespace

void classify(Run& run) {
  {
    Run bundled{run.options, run.pool};
    bundled.options.shape = "bundled-team";
    Desk desk(bundled, run.options.team, 512);
    ask(bundled, desk);
    run.rows.push_back(std::move(bundled.rows[0]));
  }
  Desk desk(run, checkpoint_folder(run), 512);
  ask(run, desk);
}

}  // namespace bench
