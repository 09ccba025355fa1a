// How fast does a team of three roles write, all of them awake, beside one expert that writes alone?
#include "model.hpp"
#include "random_checkpoint.hpp"

namespace bench {

void team(Run& run) {
  static constexpr index_t tokens = 16;
  const auto folder = checkpoint_folder(run);
  Desk one(run, folder, 128), three(run, random_team(folder), 128);
  const auto& c = one.config();
  const auto step = [&](Desk& desk, double roles) {
    // The prompt's few rows are one more step of about the same bytes, whose logits are the first token's.
    const auto steps = static_cast<double>(desk.generate(tokens));
    return Step{.work = {.name = roles == 1 ? "one expert" : "team",
                         .sequences = static_cast<index_t>(roles),
                         .tokens = 1,
                         .bytes = roles * step_weight_bytes(c, run.options.weights),
                         .flops = roles * step_flops(c, 1, 0, 1),
                         .more = {{"roles", roles}},
                         .steps = steps},
                .part = [&desk](index_t) { desk.generate(tokens); }};
  };
  measure(run, peak_of(run.options.weights), {step(one, 1), step(three, 3)});
}

}  // namespace bench
