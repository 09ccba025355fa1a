// How the benches of the CUDA backend measure: medians of many steps, each row beside the device's limits of the same
// run and its own verdict, and kept in a file as soon as it is there, so that a run can be stopped and goes on.
// Not here: any question (each bench/gpu_*.cpp asks one), the engine (gpu_model.hpp).
#pragma once

#include "gpu_device.hpp"

#include <finteam/backend/backend.hpp>
#include <finteam/backend/thread_pool.hpp>
#include <finteam/core/format.hpp>
#include <finteam/file/config.hpp>
#include <finteam/file/json.hpp>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bench {

using finteam::index_t;
using finteam::Json;

struct GpuOptions {
  std::string shape = "llama-3-8b", commit = "unknown";
  std::vector<std::string> weights = {"bf16", "int8", "int4"};
  index_t layers = 0;     ///< of a decoder; 0: the shape's own
  index_t context = 512;  ///< tokens before the one that is decoded
  double seconds = 1;     ///< at least so long for each row
  int device = 0;
  double tolerance = 1;  ///< times what is allowed
  bool again = false;    ///< rows of this commit that the file has, too
  bool trial = false;    ///< as little as shows that every question works: its times mean nothing
  std::filesystem::path json;
};

/// How far a result is from what it should be, said before it is timed.
struct Verdict {
  std::string against;
  double error = 0, allowed = 0;
  bool same = true;  ///< what must have the same bits has
  [[nodiscard]] bool right() const noexcept { return same && error <= allowed; }
};

/// The greatest |a - b|, over the root mean square of b; infinite if one is not finite.
double greatest_error(std::span<const float> a, std::span<const float> b);
/// The root mean square of a - b, over that of b; infinite if one is not finite.
double mean_error(std::span<const float> a, std::span<const float> b);

/// What one step does.
struct GpuWork {
  std::string name, weights;
  index_t rows = 1;
  double tokens = 1;
  double bytes = 0;  ///< that it must read; 0: it is bound by arithmetic
  double flops = 0;
  double steps = 1;            ///< that one sample does
  bool with_recording = true;  ///< the host's time counts, too
  double bar = 0;              ///< a fraction of the copy bandwidth; of arithmetic, TFLOP/s
  double most_to_one = 0;      ///< a bar from above: times the one that it is compared to
  Json more = Json::object();
};

/// A step: record() is what the host says, run() gives it to the device and waits.
struct GpuStep {
  GpuWork work;
  std::function<Verdict()> check;
  std::function<void()> record, run;
};

/// A run, its limits, and its rows: those of the file, and new ones.
class GpuRun {
 public:
  /// Throws Error where the device is not there, or the file is of another device.
  GpuRun(const GpuOptions& options, finteam::ThreadPool& pool);

  [[nodiscard]] const GpuOptions& options() const noexcept { return options_; }
  [[nodiscard]] finteam::ThreadPool& pool() const noexcept { return pool_; }
  [[nodiscard]] finteam::Config config() const;
  /// Positions, or rows of a prompt; of a trial, few.
  [[nodiscard]] index_t positions(index_t n) const noexcept {
    return options_.trial ? std::max<index_t>(1, n / 64) : n;
  }
  /// What makes a sample long, or the caches cold; of a trial, next to nothing.
  [[nodiscard]] double much(double n) const noexcept { return options_.trial ? 1 : n; }
  /// Checks a step, times it, and writes its row. one: seconds that it is compared to, or 0. Returns its seconds.
  double measure(const GpuStep& step, double one = 0);
  /// Rows from here on are of this part.
  void begin(const std::string& part);
  /// Whether a row still has to be measured. context: tokens before, or 0 if its name says it.
  [[nodiscard]] bool wants(const std::string& name, const std::string& weights, index_t rows,
                           index_t context = 0) const;
  /// f(), the first time that it is asked about such weights and roles.
  [[nodiscard]] Verdict once(const std::string& weights, index_t roles, const std::function<Verdict()>& f);
  [[nodiscard]] bool all_right() const noexcept { return right_; }
  /// The rows that this run has asked about, for a reader.
  [[nodiscard]] std::string table() const;

 private:
  void add(Json row);
  void write() const;

  GpuOptions options_;
  finteam::ThreadPool& pool_;
  Json machine_;
  Json rows_ = Json::array();
  GpuLimits limits_;
  std::map<std::pair<std::string, index_t>, Verdict> verdicts_;
  std::string part_;
  bool right_ = true;
};

// The questions.
void gpu_products(GpuRun&);
void gpu_attention(GpuRun&);
void gpu_decode(GpuRun&);
void gpu_prefill(GpuRun&);
void gpu_team(GpuRun&);

finteam::Weights weights_named(const std::string& name);

}  // namespace bench
