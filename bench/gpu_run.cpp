// The harness of the CUDA backend's benches: verdicts, medians, the file that a run goes on from. See gpu.hpp.
#include "gpu.hpp"

#include "harness.hpp"
#include "shape.hpp"

#include <finteam/backend/cuda.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <limits>

namespace bench {

using finteam::Code;
using finteam::Error;

namespace {

constexpr std::size_t warm_steps = 4;  // a step is remembered, captured, run; then it is a graph
constexpr std::size_t enough_samples = 7;

/// Calls f(difference, b) for each pair; infinite if one is not finite, or there are not as many.
template <class F>
double compare(std::span<const float> a, std::span<const float> b, F&& error) {
  if (a.size() != b.size() || b.empty()) return std::numeric_limits<double>::infinity();
  double greatest = 0, squares = 0, differences = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    if (!std::isfinite(x) || !std::isfinite(y)) return std::numeric_limits<double>::infinity();
    greatest = std::max(greatest, std::abs(x - y));
    differences += (x - y) * (x - y);
    squares += y * y;
  }
  const double n = static_cast<double>(b.size());
  return error(greatest, std::sqrt(differences / n), std::sqrt(squares / n));
}

Json machine_of(const GpuOptions& o, finteam::ThreadPool& pool) {
  const finteam::Cuda cuda(finteam::CudaOptions{.device = o.device});
  const auto& p = cuda.context()->properties();
  Options host;
  host.commit = o.commit;
  Json fields = machine_fields(Run{host, pool});
  fields["device"] = cuda.device();
  fields["multiprocessors"] = p.multiprocessors;
  fields["device_memory_bytes"] = p.memory;
  fields["libraries"] = gpu_libraries();
  fields["finteam"] = std::to_string(FINTEAM_VERSION_MAJOR) + "." + std::to_string(FINTEAM_VERSION_MINOR) + "." +
                      std::to_string(FINTEAM_VERSION_PATCH);
  return fields;
}

Json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return file ? Json::parse(file) : Json();
}

/// Fields by which a row of ours is known again; a peer's is another's (gpu_peer.py).
bool is_row(const Json& row, const std::string& name, const std::string& weights, index_t rows, index_t context) {
  return !row.contains("peer") && row["name"] == name && row["weights"] == weights && row["rows"] == rows &&
         row.value("context", index_t{0}) == context;
}

}  // namespace

double greatest_error(std::span<const float> a, std::span<const float> b) {
  return compare(a, b, [](double greatest, double, double size) { return greatest / size; });
}
double mean_error(std::span<const float> a, std::span<const float> b) {
  return compare(a, b, [](double, double mean, double size) { return mean / size; });
}

finteam::Weights weights_named(const std::string& name) {
  using finteam::Weights;
  for (const Weights w : {Weights::bf16, Weights::int8, Weights::int4, Weights::int4_zero}) {
    if (finteam::name(w) == name) return w;
  }
  throw Error(Code::invalid_argument, "--weights", "bf16, int8, int4 or int4_zero", name);
}

GpuRun::GpuRun(const GpuOptions& options, finteam::ThreadPool& pool)
    : options_(options), pool_(pool), machine_(machine_of(options, pool)) {
  const Json before = read_json(options.json);
  if (!before.is_null()) {
    const Json& device = before.at("machine").at("device");
    if (device != machine_["device"]) {
      throw Error(Code::mismatch, options.json.string(), "rows of " + machine_["device"].dump(), "of " + device.dump());
    }
    rows_ = before.at("rows");
  }
  limits_ = measure_limits(options.device);
  machine_["copy_gbps"] = limits_.copy_gbps;
  machine_["bf16_tflops"] = limits_.bf16_tflops;
  std::fprintf(stderr, "%s: copies %.0f GB/s, bf16 products %.0f TFLOP/s\n",
               machine_["device"].get<std::string>().c_str(), limits_.copy_gbps, limits_.bf16_tflops);
}

finteam::Config GpuRun::config() const {
  finteam::Config c = shape(options_.shape);
  if (options_.layers != 0) c.layers = options_.layers;
  return c;
}

void GpuRun::begin(const std::string& part) {
  part_ = part;
  say("== " + part);
}

bool GpuRun::wants(const std::string& name, const std::string& weights, index_t rows, index_t context) const {
  if (options_.again) return true;
  return std::none_of(rows_.begin(), rows_.end(), [&](const Json& row) {
    return is_row(row, name, weights, rows, context) && row["commit"] == options_.commit &&
           row["verdict"]["right"] == true && row["shape"] == options_.shape && row["layers"] == config().layers &&
           (options_.trial || !row.value("trial", false));
  });
}

Verdict GpuRun::once(const std::string& weights, index_t roles, const std::function<Verdict()>& f) {
  const auto known = verdicts_.find({weights, roles});
  return known != verdicts_.end() ? known->second : verdicts_[{weights, roles}] = f();
}

double GpuRun::measure(const GpuStep& step, double one) {
  const GpuWork& w = step.work;
  Verdict verdict = step.check();
  verdict.allowed *= options_.tolerance;
  const std::size_t least_samples = options_.trial ? 1 : enough_samples;
  std::vector<double> seconds, recording;
  const double begin = now();
  for (std::size_t i = 0; seconds.size() < least_samples || now() - begin < options_.seconds; ++i) {
    const double start = now();
    step.record();
    const double recorded = now();
    step.run();
    const double end = now();
    if (i < warm_steps) continue;
    recording.push_back((recorded - start) / w.steps);
    seconds.push_back((end - (w.with_recording ? start : recorded)) / w.steps);
  }
  const double s = median(seconds);
  const double gbps = w.bytes / s / 1e9, tflops = w.flops / s / 1e12;
  const bool by_bytes = w.bytes > 0;
  const double fraction = by_bytes ? gbps / limits_.copy_gbps : tflops / limits_.bf16_tflops;
  Json row = {{"name", w.name},
              {"weights", w.weights},
              {"rows", w.rows},
              {"seconds_per_step", s},
              {"seconds_least", quantile(seconds, 0)},
              {"seconds_most", quantile(seconds, 1)},
              {"seconds_recording", median(recording)},
              {"samples", seconds.size()},
              {"tokens_per_s", w.tokens / s},
              {"bytes_per_step", w.bytes},
              {"flops_per_step", w.flops},
              {"gbps", gbps},
              {"tflops", tflops},
              {"limit", by_bytes ? "copy" : "arithmetic"},
              {"fraction", fraction},
              {"verdict",
               {{"right", verdict.right()},
                {"against", verdict.against},
                {"error", std::isfinite(verdict.error) ? Json(verdict.error) : Json("not finite")},
                {"allowed", verdict.allowed},
                {"same_bits", verdict.same}}}};
  if (w.bar > 0) {
    row["bar"] = w.bar;
    row["reaches_bar"] = (by_bytes ? fraction : tflops) >= w.bar;
  }
  if (one > 0) row["ratio_to_one"] = s / one;
  if (w.most_to_one > 0) {
    row["bar_to_one"] = w.most_to_one;
    row["reaches_bar"] = s / one <= w.most_to_one;
  }
  row.update(w.more);
  add(std::move(row));
  return s;
}

void GpuRun::add(Json row) {
  row["part"] = part_;
  row["shape"] = options_.shape;
  row["layers"] = config().layers;
  row["commit"] = options_.commit;
  if (options_.trial) row["trial"] = true;
  row["copy_gbps"] = limits_.copy_gbps;
  row["bf16_tflops"] = limits_.bf16_tflops;
  right_ = right_ && row["verdict"]["right"] == true;
  const auto old = std::find_if(rows_.begin(), rows_.end(), [&](const Json& r) {
    return is_row(r, row["name"], row["weights"], row["rows"], row.value("context", index_t{0})) &&
           r["shape"] == row["shape"] && r["layers"] == row["layers"];
  });
  std::fprintf(stderr, "  %s, %s, rows %d: %.4f ms, %.3f of %s, %.0f TFLOP/s, %s\n",
               row["name"].get<std::string>().c_str(), row["weights"].get<std::string>().c_str(),
               row["rows"].get<int>(), 1e3 * row["seconds_per_step"].get<double>(), row["fraction"].get<double>(),
               row["limit"].get<std::string>().c_str(), row["tflops"].get<double>(),
               row["verdict"]["right"] == true ? "right" : "WRONG");
  old == rows_.end() ? rows_.push_back(std::move(row)) : void(*old = std::move(row));
  write();
}

void GpuRun::write() const {
  if (options_.json.empty()) return;
  const auto unfinished = options_.json.string() + ".unfinished";
  std::ofstream file(unfinished);
  file << Json{{"machine", machine_}, {"rows", rows_}}.dump(1) << "\n";
  file.close();
  if (!file) throw Error(Code::system, options_.json.string(), "a file that can be written", "an error");
  std::filesystem::rename(unfinished, options_.json);
}

std::string GpuRun::table() const {
  std::string text;
  char line[256];
  std::snprintf(line, sizeof line, "%-34s %-6s %5s %12s %9s %9s %9s %8s  %s\n", "what", "weights", "rows", "ms a step",
                "GB/s", "TFLOP/s", "fraction", "of", "verdict");
  text += line;
  for (const Json& r : rows_) {
    if (r["shape"] != options_.shape || r.contains("peer")) continue;
    std::snprintf(
        line, sizeof line, "%-34s %-6s %5d %12.4f %9.1f %9.1f %9.3f %8s  %s%s%s\n",
        r["name"].get<std::string>().c_str(), r["weights"].get<std::string>().c_str(), r["rows"].get<int>(),
        1e3 * r["seconds_per_step"].get<double>(), r["gbps"].get<double>(), r["tflops"].get<double>(),
        r["fraction"].get<double>(), r["limit"] == "copy" ? "copy" : "bf16",
        r["verdict"]["right"] == true ? "right" : "WRONG",
        !r.contains("reaches_bar") ? ""
        : r["reaches_bar"] == true ? ", bar reached"
                                   : ", below its bar",
        !r.contains("ratio_to_one") ? "" : (", × " + std::to_string(r["ratio_to_one"].get<double>())).c_str());
    text += line;
  }
  return text;
}

}  // namespace bench
