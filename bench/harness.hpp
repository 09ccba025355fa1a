// How the benches measure: every timing stands between two probes of the machine, steps that are to be compared (and a
// peer's command) take turns, and what was timed while the threads were on one die is told from two dies.
// Not here: any question (each bench/*.cpp asks one), the engine (model.hpp).
#pragma once

#include "probe.hpp"

#include <finteam/file/json.hpp>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace bench {

using finteam::Json;

/// What a run was asked for. 0 and "" mean the standard set, or the engine's own default.
struct Options {
  std::string name, shape = "llama-3.2-1b", weights, cache, topology;
  index_t sequences = 0, prompt = 0, context = 512, rows = 0;
  index_t threads = 0;
  double seconds = 8;  ///< at least so long for each row, while more can be learnt
  std::string peer;    ///< a command whose last number on stdout is its tokens/s
  std::filesystem::path models, team, tokenizer, program;
  std::string commit = "unknown";
};

/// A run: its options, its threads, and the rows that the questions add.
struct Run {
  Options options;
  finteam::ThreadPool& pool;
  Json rows = Json::array();

  /// Adds a row, and says so on stderr.
  void add(Json row);
};

// The questions.
void machine(Run&);
void kernels(Run&);
void prefill(Run&);
void decode(Run&);
void team(Run&);
void load(Run&);
void classify(Run&);
void tokenizer(Run&);

/// One line on stderr: what takes its time just now.
void say(const std::string& what);

/// A timing between two probes; the limits are the better of the two.
struct Sample {
  double seconds = 0, read_gbps = 0, peak_gops = 0;
  Die die = Die::same;
};
using Samples = std::vector<Sample>;

/// Takes samples that share the probe between them.
class Sampler {
 public:
  Sampler(finteam::ThreadPool& pool, double bytes, Peak peak) : probe_(pool, bytes), peak_(peak) {}

  /// Times part(0) … part(parts - 1), `repeats` times; probes again after each half second. Seconds are of one repeat,
  /// limits the means over its time.
  Sample take(index_t parts, index_t repeats, const std::function<void(index_t)>& part);
  /// The next sample begins with a probe of its own.
  void forget() { fresh_ = false; }

 private:
  Probe probe_;
  Peak peak_;
  Limits last_;
  bool fresh_ = false;
};

/// What one step is and does.
struct Work {
  std::string name;
  index_t sequences = 1;
  double tokens = 1;           ///< of one step
  double bytes = 0;            ///< that a step must read, each once
  double flops = 0;            ///< that it must do, two for each multiply-add
  Json more = Json::object();  ///< further fields of its row
  double steps = 1;            ///< that one call of all parts does
  bool reported = true;        ///< has a row of its own
};

/// A step that can be timed: part(0) … part(parts - 1).
struct Step {
  Work work;
  std::function<void(index_t)> part;
  index_t parts = 1;
};

/// The fields of a row. fraction = the greater of bytes / time / read_gbps and flops / time / peak_gops; the row is the
/// sample of the median fraction (the machine itself changes meanwhile, so a median time would not belong to a median
/// bandwidth), of the die that most samples have (moved: if there are too few others). "by_die" has the same for each
/// die. With `one`, as many samples taken in turns, ratio_to_one is the median of the quotients of the seconds.
Json row(const Run& run, const Work& work, const Samples& samples, const Samples* one = nullptr);

/// Times the steps in turns, each after a first part that does not count, and adds their rows; those after the first
/// have a ratio_to_one to the first. The reading probe reads what the first step reads, or `probe_bytes`. With a peer,
/// its command runs after each sample of a reported step, told what by the environment (FINTEAM_BENCH_NAME, _SHAPE,
/// _WEIGHTS, _SEQUENCES, _PROMPT, _THREADS).
void measure(Run& run, Peak peak, const std::vector<Step>& steps, double probe_bytes = 0);

/// What a command writes to stdout. Throws Error(system) unless it ends well.
std::string output_of(const std::string& command);

double median(std::vector<double> values);
/// The value that a share of `values` does not exceed.
double quantile(std::vector<double> values, double share);

/// Machine, compiler, flags and commit of a run.
Json machine_fields(const Run& run);
/// The rows as a table for a reader.
std::string table(const Json& rows);
/// A field of /proc/self/status or /proc/meminfo, in bytes; 0 if there is none.
double proc_bytes(const char* file, const std::string& field);

}  // namespace bench
