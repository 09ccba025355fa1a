// The one door of the CUDA backend's benches: which part, of what shape, kept in which file; see bench/run gpu.
#include "gpu.hpp"
#include "shape.hpp"

#include <finteam/core/error.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <thread>

namespace {

using namespace bench;

struct Part {
  std::string name;
  void (*ask)(GpuRun&);
  std::string what;
};
const std::vector<Part>& parts() {
  static const std::vector<Part> all = {
      {"products", gpu_products,
       "the model's products alone, of 1 to 32 generated rows, and of 512 and 2048 of a prompt"},
      {"attention", gpu_attention, "attention alone: a row over 2k, 8k and 32k positions, and a prompt of 2048"},
      {"decode", gpu_decode, "the next token of one model, end to end"},
      {"prefill", gpu_prefill, "a prompt of 2048 tokens, end to end"},
      {"team", gpu_team, "a token of each of three experts, and of three adapters on one base"}};
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "How fast the CUDA backend is, beside the device's own limits, measured in the same run: copies within its "
      "memory\n"
      "(bytes read + written), and cuBLASLt's bf16 product of 8192 x 8192 x 8192. Every row has its verdict: wrong\n"
      "results are said, and end with status 1. With --json, rows are kept as soon as they are there; started again "
      "with\n"
      "the same file, what is missing is measured."};
  GpuOptions o;
  std::vector<std::string> chosen, names, shapes(std::begin(shape_names), std::end(shape_names));
  bool list = false;
  index_t threads = std::max(1U, std::thread::hardware_concurrency());
  for (const Part& part : parts()) names.push_back(part.name);
  app.add_option("--part", chosen, "some of: products, attention, decode, prefill, team (all of them)")
      ->check(CLI::IsMember(names))
      ->delimiter(',');
  app.add_flag("--list", list, "what each part asks, and nothing else");
  app.add_option("--json", o.json, "a file for the results, which may have some");
  app.add_option("--shape", o.shape, "of the model, whose weights are random")
      ->check(CLI::IsMember(shapes))
      ->capture_default_str();
  app.add_option("--weights", o.weights, "of products, decode and prefill (bf16, int8, int4)")
      ->check(CLI::IsMember({"bf16", "int8", "int4", "int4_zero"}))
      ->delimiter(',');
  app.add_option("--layers", o.layers, "of the model (the shape's own)")->check(CLI::Range(1, 200));
  app.add_option("--context", o.context, "decode, team: tokens before")
      ->check(CLI::Range(1, 16000))
      ->capture_default_str();
  app.add_option("--seconds", o.seconds, "at least so long for each row")->capture_default_str();
  app.add_option("--device", o.device, "its number")->check(CLI::Range(0, 63))->capture_default_str();
  app.add_option("--threads", threads, "that make weights")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--tolerance", o.tolerance, "times what an error may be (1)")->check(CLI::NonNegativeNumber);
  app.add_flag("--trial", o.trial, "little of everything, to try the bench itself: its times mean nothing");
  app.add_flag("--again", o.again, "rows that the file has of this commit, too");
  app.add_option("--commit", o.commit, "what was built, for the results");
  CLI11_PARSE(app, argc, argv);
  if (list) {
    for (const Part& part : parts()) std::cout << part.name << ": " << part.what << "\n";
    return 0;
  }
  try {
    finteam::ThreadPool pool(threads);
    GpuRun run(o, pool);
    for (const Part& part : parts()) {
      if (!chosen.empty() && std::find(chosen.begin(), chosen.end(), part.name) == chosen.end()) continue;
      run.begin(part.name);
      part.ask(run);
    }
    std::cout << run.table();
    return run.all_right() ? 0 : 1;
  } catch (const std::exception& e) {
    std::cerr << "bench: " << e.what() << "\n";
    return 1;
  }
}
