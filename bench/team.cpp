// What does a team of three cost, in each form that a team can have, in tokens of one expert of the same shape and
// format? Writing, writing with the favourite role ahead, and reading a prompt; each beside what its bytes, or its
// operations, make of it at least. Team and expert take turns.
#include "model.hpp"
#include "topology.hpp"

namespace bench {

namespace {

/// The rows of one topology.
void ask(Run& run, const std::string& topology, Desk& one) {
  static constexpr index_t tokens = 32, texts = 3, prompt = 256;  // how many guesses are kept differs from text to text
  const Options& o = run.options;
  const auto folder = random_team(o.models, o.shape, topology, o.tokenizer);
  Desk team(run, folder, 512);
  const finteam::Config& c = one.config();
  const double floor = team.bytes_per_token() / one.bytes_per_token();
  const double roles = topology == "top1" ? 1 : topology == "merged" ? floor : 3;  // rows, or what experts make of one
  const auto step = [&](const std::string& name, Desk& desk, double n, double ratio_floor, bool draft) {
    Desk::Text all;
    for (index_t i = 0; i < texts; ++i) {
      const Desk::Text text = desk.generate(tokens, draft, static_cast<std::uint64_t>(i));
      all = {all.tokens + text.tokens, all.drafted + text.drafted, all.kept + text.kept};
    }
    Json more = {{"topology", topology},
                 {"roles", n},
                 {"memory_bytes", desk.memory_bytes()},
                 {"memory_ratio", desk.memory_bytes() / one.memory_bytes()}};
    if (draft) {  // whose steps are those of several tokens: the floor is not that of one
      more["acceptance"] = static_cast<double>(all.kept) / static_cast<double>(std::max<index_t>(all.drafted, 1));
    } else {
      more["ratio_floor"] = ratio_floor;
    }
    return Step{
        .work = {.name = name,
                 .sequences = static_cast<index_t>(n),
                 .tokens = 1,
                 .bytes = desk.bytes_per_token(),
                 .flops = n * step_flops(c, 1, 0, 1),
                 .more = more,
                 .steps = static_cast<double>(all.tokens)},
        .part = [&desk, draft](index_t i) { (void)desk.generate(tokens, draft, static_cast<std::uint64_t>(i)); },
        .parts = texts};
  };
  std::vector<Step> writing = {step("one expert", one, 1, 1, false), step("team, writing", team, roles, floor, false)};
  if (topology == "separate") writing.push_back(step("team, writing ahead", team, roles, floor, true));
  measure(run, peak_of(o.weights), writing);
  const auto reading = [&](const std::string& name, Desk& desk, double n) {
    return Step{.work = {.name = name,
                         .sequences = static_cast<index_t>(n),
                         .tokens = static_cast<double>(prompt),
                         .bytes = desk.bytes_per_token(),
                         .flops = n * step_flops(c, static_cast<double>(prompt), 0, 1),
                         .more = {{"topology", topology}, {"roles", n}, {"prompt", prompt}, {"ratio_floor", n}}},
                .part = [&desk](index_t) { desk.read(prompt); }};
  };
  measure(run, peak_of(o.weights), {reading("one expert, reading", one, 1), reading("team, reading", team, roles)});
}

}  // namespace

void team(Run& run) {
  Desk one(run, checkpoint_folder(run), 512);
  for (const auto name : topology_names) {
    if (!run.options.topology.empty() && run.options.topology != name) continue;
    try {
      ask(run, std::string(name), one);
    } catch (const finteam::Error& e) {
      if (e.code() != finteam::Code::limit_exceeded || !run.options.topology.empty()) throw;
      say(std::string(name) + " is left out: " + e.what());
    }
  }
}

}  // namespace bench
