// How fast is a prompt of 2,048 tokens read on a GPU, from embedding to the last one's logits, beside the operations
// that it takes?
#include "gpu_model.hpp"
#include "harness.hpp"
#include "shape.hpp"

namespace bench {

void gpu_prefill(GpuRun& run) {
  const index_t prompt = run.positions(2048), other_rows = run.positions(1000);
  for (const std::string& weights : run.options().weights) {
    if (!run.wants("prefill", weights, prompt)) continue;
    Verdict verdict = check_widths(run, weights, 0);
    GpuDecoders one(run, weights, 1, 0, prompt, prompt);
    const double t = static_cast<double>(prompt);
    run.measure({.work = {.name = "prefill",
                          .weights = weights,
                          .rows = prompt,
                          .tokens = t,
                          .flops = step_flops(run.config(), t, t * (t + 1) / 2, 1),
                          .bar = weights == "bf16" ? 500.0 : 0.0,
                          .more = {{"cache", "bf16"}}},
                 .check =
                     [&] {
                       one.read(prompt, prompt);
                       const auto whole = one.logits();
                       one.read(prompt, other_rows);
                       verdict.same = one.logits() == whole && mean_error(whole, whole) == 0;
                       verdict.against +=
                           "; in steps of " + std::to_string(other_rows) + " rows the same bits as in one";
                       return verdict;
                     },
                 .record = [&] { one.record(finteam::RowKind::prompt, 0, prompt); },
                 .run = [&] { one.run(); }});
  }
}

}  // namespace bench
