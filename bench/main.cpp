// The one door of the benches: which question, of what shape, in which weights; see bench/run.
#include "model.hpp"
#include "topology.hpp"

#include <finteam/core/error.hpp>

#include <CLI/CLI.hpp>

#include <fstream>
#include <iostream>
#include <iterator>
#include <map>

namespace {

using namespace bench;

struct Question {
  std::string_view name;
  void (*ask)(Run&);
};
constexpr Question questions[] = {{"machine", machine},   {"kernels", kernels},    {"prefill", prefill},
                                  {"decode", decode},     {"team", team},          {"load", load},
                                  {"classify", classify}, {"tokenizer", tokenizer}};

/// The standard set of the results files: every question, for both shapes in every format that fits in memory.
void ask_all(Run& run, const std::vector<std::string>& shapes, const std::vector<std::string>& formats) {
  machine(run);
  tokenizer(run);
  for (const auto& shape : shapes) {
    for (const auto& format : formats) {
      Run one{run.options, run.pool};
      one.options.shape = shape;
      one.options.weights = format;
      say("== " + shape + ", " + format);
      for (const Question& q : questions) {
        if (q.ask == machine || q.ask == tokenizer) continue;
        try {
          q.ask(one);
        } catch (const finteam::Error& e) {
          if (e.code() != finteam::Code::limit_exceeded) throw;
          say(std::string(q.name) + " is left out: " + e.what());
        }
      }
      for (Json& row : one.rows) run.rows.push_back(std::move(row));
    }
  }
}

void write(const Run& run, const std::string& file) {
  const std::string json = Json{{"machine", machine_fields(run)}, {"rows", run.rows}}.dump(1) + "\n";
  if (file == "-") {
    std::cout << json;
  } else {
    std::cout << table(run.rows);
    if (!file.empty() && !(std::ofstream(file) << json)) {
      throw finteam::Error(finteam::Code::system, file, "a file that can be written", "an error");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"How fast finteam is on this machine, beside the machine's own limits"};
  Options o;
  const auto formats = weight_formats(), caches = cache_formats();
  std::string shape, weights, json;
  bool once = false, packed = false, unpinned = false;
  o.cache = caches.front();
  o.threads = std::max(1U, std::thread::hardware_concurrency());
  o.models = FINTEAM_BENCH_SOURCE "/build/bench-models";
  o.team = FINTEAM_BENCH_SOURCE "/examples/mini-team";
  o.tokenizer = FINTEAM_BENCH_SOURCE "/examples/mini-team/tokenizer.json";
  std::vector<std::string> names = {"all"}, shapes(std::begin(shape_names), std::end(shape_names));
  for (const Question& q : questions) names.emplace_back(q.name);
  app.add_option("name", o.name, "the question; all: the standard set of a results file")
      ->required()
      ->check(CLI::IsMember(names));
  app.add_option("--shape", shape, "of the model; random weights are made once (" + o.shape + ")")
      ->check(CLI::IsMember(shapes));
  app.add_option("--weights", weights, "their format (" + formats.front() + ")")->check(CLI::IsMember(formats));
  app.add_option("--cache", o.cache, "format of keys and values")->check(CLI::IsMember(caches))->capture_default_str();
  const auto count = CLI::Range(1, 65'536);
  app.add_option("--sequences", o.sequences, "decode: sequences in a step; kernels: rows (a set of them)")
      ->check(count);
  app.add_option("--topology", o.topology, "team: how its roles share weights (each in turn)")
      ->check(CLI::IsMember(std::vector<std::string>(std::begin(topology_names), std::end(topology_names))));
  app.add_option("--prompt", o.prompt, "prefill: tokens (a set of them)")->check(count);
  app.add_option("--context", o.context, "decode: tokens before")->check(count)->capture_default_str();
  app.add_option("--rows", o.rows, "prefill: rows of a step (a session's)")->check(count);
  app.add_option("--threads", o.threads, "this one included")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_flag("--unpinned", unpinned, "leave it to the system on which core a thread runs");
  app.add_option("--seconds", o.seconds, "at least so long for each row")->capture_default_str();
  app.add_option("--json", json, "a file for the results; -: stdout, and nothing else there");
  app.add_option("--peer", o.peer, "a command to run in turns with ours; its last number on stdout is its tokens/s");
  app.add_option("--models", o.models, "where random checkpoints are kept")->capture_default_str();
  app.add_option("--team", o.team, "classify: the bundled team")->capture_default_str();
  app.add_option("--commit", o.commit, "what was built, for the results");
  app.add_flag("--once", once)->group("");
  app.add_flag("--packed", packed)->group("");
  CLI11_PARSE(app, argc, argv);
  try {
    o.program = std::filesystem::read_symlink("/proc/self/exe");
    const bool all = o.name == "all";
    if (!shape.empty()) o.shape = shape;
    o.weights = weights.empty() ? formats.front() : weights;
    finteam::ThreadPool pool(o.threads);
    Run run{o, pool};
    if (once) {
      std::cout << open_once(run, packed).dump() << "\n";
      return 0;
    }
    const std::unique_ptr<Pinned> pinned(unpinned ? nullptr : new Pinned(pool));
    if (all) {
      ask_all(run, shape.empty() ? std::vector<std::string>{"llama-3.2-1b", "llama-3-8b"} : std::vector{shape},
              weights.empty() ? formats : std::vector{weights});
    } else {
      for (const Question& q : questions) {
        if (q.name == o.name) q.ask(run);
      }
    }
    write(run, json);
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "bench: " << e.what() << "\n";
    return 1;
  }
}
