// How fast is the next token of 1, 3 and 8 sequences, a row and its logits each, and what does a step of several cost
// in steps of one? They take turns, so both see the same machine.
#include "model.hpp"
#include "shape.hpp"

namespace bench {

void decode(Run& run) {
  std::vector<index_t> sequences = {1, 3, 8};
  if (run.options.sequences == 1) sequences = {1};
  if (run.options.sequences > 1) sequences = {1, run.options.sequences};
  const index_t most = sequences.back(), context = run.options.context;
  Expert expert(run, most, context + 1, std::max<index_t>(most, 4));
  expert.check();
  const auto& c = expert.config();
  std::vector<Step> steps;
  for (const index_t n : sequences) {
    const double rows = static_cast<double>(n), seen = rows * static_cast<double>(context + 1);
    steps.push_back({.work = {.name = "decode",
                              .sequences = n,
                              .tokens = rows,
                              .bytes = step_weight_bytes(c, run.options.weights) +
                                       static_cast<double>(c.layers) * cache_bytes(c, run.options.cache) * seen,
                              .flops = step_flops(c, rows, seen, rows),
                              .more = {{"context", context}, {"cache", run.options.cache}},
                              .reported = run.options.sequences == 0 || n == run.options.sequences},
                     .part = [&, n](index_t) { expert.step(n, context, 1, n); }});
  }
  measure(run, peak_of(run.options.weights), steps);
}

}  // namespace bench
