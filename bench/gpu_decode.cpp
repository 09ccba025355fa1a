// How long is the next token of one sequence on a GPU, from the host's first word to the end, beside reading its
// weights and its cache once?
#include "gpu_model.hpp"
#include "harness.hpp"
#include "shape.hpp"

namespace bench {

void gpu_decode(GpuRun& run) {
  const index_t context = run.options().context;
  for (const std::string& weights : run.options().weights) {
    if (!run.wants("decode", weights, 1, context)) continue;
    Verdict verdict = check_widths(run, weights, 0);
    constexpr index_t rows = 512;
    GpuDecoders one(run, weights, 1, 0, context + 1, rows);
    one.read(context, rows);
    const auto step = [&] {
      one.record(finteam::RowKind::generated, context, 1);
      one.run();
    };
    const auto c = run.config();
    run.measure({.work = {.name = "decode",
                          .weights = weights,
                          .bytes = one.bytes(context),
                          .flops = step_flops(c, 1, static_cast<double>(context + 1), 1),
                          .bar = weights == "bf16"   ? 0.85
                                 : weights == "int8" ? 0.75
                                                     : 0.60,
                          .more = {{"context", context}, {"cache", "bf16"}}},
                 .check =
                     [&] {
                       step();
                       const auto alone = one.logits();
                       for (int i = 0; i < 3; ++i) step();
                       verdict.same = one.logits() == alone && mean_error(alone, alone) == 0 && one.graphs() > 0;
                       verdict.against += "; as a graph the same bits as without";
                       return verdict;
                     },
                 .record = [&] { one.record(finteam::RowKind::generated, context, 1); },
                 .run = [&] { one.run(); }});
  }
}

}  // namespace bench
