// How fast is a prompt read: 128, 512 and 2,048 tokens of one sequence, in steps of as many rows as a session's?
#include "model.hpp"
#include "shape.hpp"

namespace bench {

void prefill(Run& run) {
  std::vector<index_t> prompts = {128, 512, 2048};
  if (run.options.prompt != 0) prompts = {run.options.prompt};
  const index_t most = *std::max_element(prompts.begin(), prompts.end());
  const index_t rows = std::min(rows_of_step(run), most);
  Expert expert(run, 1, most, rows);
  expert.check();
  const auto& c = expert.config();
  for (const index_t prompt : prompts) {
    const double t = static_cast<double>(prompt);
    const index_t parts = (prompt + rows - 1) / rows;
    measure(run, peak_of(run.options.weights),
            {{.work = {.name = "prefill",
                       .sequences = 1,
                       .tokens = t,
                       .bytes = step_weight_bytes(c, run.options.weights),
                       .flops = step_flops(c, t, t * (t + 1) / 2, 1),
                       .more = {{"prompt", prompt}, {"rows_of_step", std::min(rows, prompt)}}},
              .part =
                  [&](index_t i) {
                    const index_t first = i * rows, last = std::min(first + rows, prompt);
                    expert.step(1, first, last - first, last == prompt ? 1 : 0);
                  },
              .parts = parts}});
  }
}

}  // namespace bench
