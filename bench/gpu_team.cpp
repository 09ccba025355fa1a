// What do three roles cost on one GPU, a token of each: three separate experts beside reading all their bytes, three
// adapters on one base beside one expert of the same shape?
#include "gpu_model.hpp"
#include "harness.hpp"
#include "shape.hpp"

namespace bench {
namespace {

/// Decoders and roles, one token of each. one: seconds of a single expert, or 0. Returns the seconds.
double ask(GpuRun& run, const std::string& name, index_t decoders, index_t roles, double one, double bar,
           double most_to_one) {
  const index_t context = run.options().context;
  const auto c = run.config();
  Verdict verdict = check_widths(run, "bf16", roles);
  constexpr index_t rows = 64;
  const index_t sequences = std::max<index_t>(roles, 1);
  GpuDecoders team(run, "bf16", decoders, roles, context + 1, sequences * rows);
  team.read(context, rows);
  const auto record = [&] { team.record(finteam::RowKind::generated, context, 1); };
  const double answers = static_cast<double>(decoders * sequences);
  const GpuWork work{.name = name,
                     .weights = "bf16",
                     .rows = decoders * sequences,
                     .bytes = team.bytes(context),
                     .flops = answers * step_flops(c, 1, static_cast<double>(context + 1), 1),
                     .bar = bar,
                     .most_to_one = most_to_one,
                     .more = {{"context", context}, {"cache", "bf16"}}};
  return run.measure({.work = work,
                      .check =
                          [&] {
                            record(), team.run();
                            const auto first = team.logits();
                            for (int i = 0; i < 3; ++i) record(), team.run();
                            verdict.same = team.logits() == first && mean_error(first, first) == 0 && team.graphs() > 0;
                            verdict.against += "; as a graph the same bits as without";
                            return verdict;
                          },
                      .record = record,
                      .run = [&] { team.run(); }},
                     one);
}

}  // namespace

void gpu_team(GpuRun& run) {
  const auto wants = [&](const char* name) { return run.wants(name, "bf16", 3, run.options().context); };
  const bool all = wants("three experts") || wants("three adapters");
  if (!all) return;
  const double one = ask(run, "one expert", 1, 0, 0, 0, 0);  // always: ratios are to this run's
  if (wants("three experts")) ask(run, "three experts", 3, 0, one, 0.80, 0);
  if (wants("three adapters")) ask(run, "three adapters", 1, 3, one, 0, 1.15);
}

}  // namespace bench
