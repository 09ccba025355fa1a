// The harness of all questions: samples between probes, rows, the table. See harness.hpp.
#include "harness.hpp"

#include <finteam/core/error.hpp>

#include <sys/resource.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>

namespace bench {

using finteam::Code;
using finteam::Error;

std::string output_of(const std::string& command) {
  // It may use every core, whatever this thread is pinned to.
  cpu_set_t mine, all;
  sched_getaffinity(0, sizeof mine, &mine);
  std::memset(&all, 0xFF, sizeof all);
  sched_setaffinity(0, sizeof all, &all);
  FILE* const pipe = popen(command.c_str(), "r");
  sched_setaffinity(0, sizeof mine, &mine);
  std::string text;
  char part[4096];
  for (std::size_t n = 1; pipe != nullptr && (n = std::fread(part, 1, sizeof part, pipe)) != 0;) text.append(part, n);
  if (pipe == nullptr || pclose(pipe) != 0) {
    throw Error(Code::system, "command", "an exit status of 0", command);
  }
  return text;
}

namespace {

/// The tokens/s of the peer: the last number that its command writes.
double peer_tokens_per_s(const Run& run, const Work& work) {
  const auto set = [](const char* key, const std::string& value) {
    setenv((std::string("FINTEAM_BENCH_") + key).c_str(), value.c_str(), 1);
  };
  set("NAME", work.name);
  set("SHAPE", run.options.shape);
  set("WEIGHTS", run.options.weights);
  set("SEQUENCES", std::to_string(work.sequences));
  set("PROMPT", work.more.contains("prompt") ? work.more["prompt"].dump() : "0");
  set("THREADS", std::to_string(run.pool.concurrency()));
  const std::string text = output_of(run.options.peer);
  const char digits[] = "0123456789";
  const auto end = text.find_last_of(digits);
  if (end == std::string::npos) throw Error(Code::malformed, "--peer", "a number of tokens/s", "none");
  auto begin = text.find_last_not_of("0123456789.+-eE", end);
  begin = text.find_first_of(digits, begin == std::string::npos ? 0 : begin);
  return std::strtod(text.c_str() + begin, nullptr);
}

/// How often another process has taken a core from one of our threads so far.
long preemptions() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

double by_bytes(const Work& work, const Sample& s) {
  return s.read_gbps > 0 ? work.bytes / s.seconds / 1e9 / s.read_gbps : 0;
}
double by_flops(const Work& work, const Sample& s) {
  return s.peak_gops > 0 ? work.flops / s.seconds / 1e9 / s.peak_gops : 0;
}
double fraction(const Work& work, const Sample& s) { return std::max(by_bytes(work, s), by_flops(work, s)); }

/// The fields that depend on the samples, for those of them that `chosen` allows.
Json summary(const Work& work, const Samples& samples, const Samples* one, const std::function<bool(Die)>& chosen) {
  Samples own;
  std::vector<double> seconds, ratios;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (!chosen(samples[i].die)) continue;
    own.push_back(samples[i]);
    seconds.push_back(samples[i].seconds);
    if (one != nullptr && chosen((*one)[i].die)) ratios.push_back(samples[i].seconds / (*one)[i].seconds);
  }
  std::ranges::sort(own, {}, [&](const Sample& s) { return fraction(work, s); });
  const Sample& s = own[(own.size() - 1) / 2];
  Json fields = {{"samples", own.size()},
                 {"seconds_per_step", s.seconds},
                 {"seconds_median", median(seconds)},
                 {"seconds_least", quantile(seconds, 0)},
                 {"seconds_most", quantile(seconds, 1)},
                 {"tokens_per_s", work.tokens / s.seconds},
                 {"read_gbps", s.read_gbps},
                 {"peak_gops", s.peak_gops},
                 {"limit", by_bytes(work, s) > by_flops(work, s) ? "read" : "arithmetic"},
                 {"fraction", fraction(work, s)}};
  if (!ratios.empty()) fields["ratio_to_one"] = median(ratios);
  return fields;
}

std::map<Die, std::size_t> counts(const Samples& samples) {
  std::map<Die, std::size_t> count;
  for (const Sample& s : samples) ++count[s.die];
  return count;
}

/// The most frequent die; moved only if no other has three samples.
Die most_frequent(const Samples& samples) {
  std::pair<Die, std::size_t> best{Die::moved, 0};
  const auto count = counts(samples);
  for (const auto& [die, n] : count) {
    if (die != Die::moved && n > best.second) best = {die, n};
  }
  const auto moved = count.find(Die::moved);
  return best.second < 3 && moved != count.end() && moved->second > best.second ? Die::moved : best.first;
}

}  // namespace

void say(const std::string& what) { std::cerr << what << std::endl; }

void Run::add(Json row) {
  char line[160];
  std::snprintf(line, sizeof line, "  %s, %d: %.3f ms, %.2f of %s", row["name"].get<std::string>().c_str(),
                row["sequences"].get<int>(), 1e3 * row["seconds_per_step"].get<double>(), row["fraction"].get<double>(),
                row["limit"].get<std::string>().c_str());
  say(line);
  rows.push_back(std::move(row));
}

Sample Sampler::take(index_t parts, index_t repeats, const std::function<void(index_t)>& part) {
  if (!fresh_) last_ = probe_(peak_);
  fresh_ = true;
  Sample sum{.die = die_of(last_.one_way_ns)};
  double span = 0;
  const auto close = [&] {
    const Limits after = probe_(peak_);
    sum.seconds += span;
    sum.read_gbps += span * std::max(last_.read_gbps, after.read_gbps);
    sum.peak_gops += span * std::max(last_.peak_gops, after.peak_gops);
    if (die_of(after.one_way_ns) != die_of(last_.one_way_ns)) sum.die = Die::moved;
    last_ = after;
    span = 0;
  };
  for (index_t r = 0; r < repeats; ++r) {
    for (index_t i = 0; i < parts; ++i) {
      const long before = preemptions();
      const double start = now();
      part(i);
      const double took = now() - start;
      if (static_cast<double>(preemptions() - before) > 2 + 20 * took) sum.die = Die::moved;
      span += took;
      if (span > 0.5) close();
    }
  }
  if (span > 0) close();
  sum.read_gbps /= sum.seconds;
  sum.peak_gops /= sum.seconds;
  sum.seconds /= static_cast<double>(repeats);
  return sum;
}

Json row(const Run& run, const Work& work, const Samples& samples, const Samples* one) {
  const Die die = most_frequent(samples);
  Json fields = summary(work, samples, one, [&](Die d) { return d == die; });
  fields["name"] = work.name;
  fields["shape"] = run.options.shape;
  fields["weights"] = run.options.weights;
  fields["sequences"] = work.sequences;
  fields["threads"] = run.pool.concurrency();
  fields["bytes_per_step"] = work.bytes;
  fields["flops_per_step"] = work.flops;
  fields["die"] = name(die);
  for (const auto& [d, n] : counts(samples)) {
    fields["by_die"][std::string(name(d))] = summary(work, samples, one, [d = d](Die x) { return x == d; });
  }
  fields.update(work.more);
  if (fields.contains("topology") && fields.contains("ratio_to_one")) fields["ratio"] = fields["ratio_to_one"];
  return fields;
}

void measure(Run& run, Peak peak, const std::vector<Step>& steps, double probe_bytes) {
  const Options& o = run.options;
  // A peer runs for seconds, so ours should see as many moves of the cores as it does.
  const double least_seconds = std::min(o.peer.empty() ? 0.02 : 1.0, o.seconds);
  const std::size_t least_samples = o.peer.empty() ? 3 : 5;
  Sampler sampler(run.pool, probe_bytes > 0 ? probe_bytes : steps.front().work.bytes, peak);
  std::vector<index_t> repeats;
  for (const Step& step : steps) {
    const double start = now();
    step.part(0);
    const double whole = (now() - start) * static_cast<double>(step.parts);
    repeats.push_back(std::max<index_t>(1, static_cast<index_t>(std::ceil(least_seconds / whole))));
  }
  std::vector<Samples> samples(steps.size());
  std::vector<std::vector<double>> theirs(steps.size()), ratios(steps.size());
  const double begin = now();
  for (;;) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      Sample s = sampler.take(steps[i].parts, repeats[i], steps[i].part);
      s.seconds /= steps[i].work.steps;
      samples[i].push_back(s);
      if (o.peer.empty() || !steps[i].work.reported) continue;
      theirs[i].push_back(peer_tokens_per_s(run, steps[i].work));
      ratios[i].push_back(steps[i].work.tokens / s.seconds / theirs[i].back());
      sampler.forget();
    }
    const double spent = now() - begin;
    std::size_t alike = 0;
    for (const auto& [die, n] : counts(samples.back())) {
      if (die != Die::moved || steps.size() == 1) alike = std::max(alike, n);  // a comparison wants them in one place
    }
    if (spent > o.seconds && alike >= least_samples) break;
    if (o.peer.empty() && spent > 4 * o.seconds && spent > 0.1) break;
  }
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (!steps[i].work.reported) continue;
    Json fields = row(run, steps[i].work, samples[i], i != 0 ? &samples[0] : nullptr);
    if (!theirs[i].empty()) {
      fields["peer_tokens_per_s"] = median(theirs[i]);
      fields["ratio_to_peer"] = median(ratios[i]);
    }
    run.add(std::move(fields));
  }
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = std::ceil(share * static_cast<double>(values.size())) - 1;
  return values[static_cast<std::size_t>(std::max(at, 0.0))];
}

double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

double proc_bytes(const char* file, const std::string& field) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(field + ":")) return 1024 * std::strtod(line.c_str() + field.size() + 1, nullptr);
  }
  return 0;
}

namespace {

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

#if defined(__clang__)
constexpr const char* compiler = "clang " __clang_version__;
#else
constexpr const char* compiler = "gcc " __VERSION__;
#endif

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
constexpr const char* instruction_set = "avx512 with bf16 and vnni";
#elif defined(__AVX512BW__)
constexpr const char* instruction_set = "avx512";
#elif defined(__AVX2__) && defined(__FMA__)
constexpr const char* instruction_set = "avx2";
#else
constexpr const char* instruction_set = "baseline";
#endif

}  // namespace

Json machine_fields(const Run& run) {
  return {{"processor", processor()},
          {"cores", std::thread::hardware_concurrency()},
          {"threads", run.pool.concurrency()},
          {"memory_bytes", proc_bytes("/proc/meminfo", "MemTotal")},
          {"compiler", compiler},
          {"flags", FINTEAM_BENCH_FLAGS},
          {"instruction_set", instruction_set},
          {"commit", run.options.commit}};
}

std::string table(const Json& rows) {
  std::vector<std::vector<std::string>> lines = {
      {"what", "shape", "weights", "rows", "tokens/s", "ms a step", "fraction", "of", "GB/s", "Gop/s", "die", ""}};
  const auto number = [](double x) {
    char text[32];
    std::snprintf(text, sizeof text, x >= 1000 ? "%.0f" : x >= 100 ? "%.1f" : x >= 1 ? "%.2f" : "%.4f", x);
    return std::string(text);
  };
  for (const Json& r : rows) {
    std::string more;
    for (const char* key : {"prompt", "context", "ratio_to_one", "peer_tokens_per_s", "ratio_to_peer", "ratio_floor",
                            "acceptance", "seconds_p99", "from", "resident_over_packed", "one_way_ns"}) {
      if (!r.contains(key)) continue;
      more += std::string(key) + "=" + (r[key].is_number_float() ? number(r[key]) : r[key].dump()) + " ";
    }
    lines.push_back({r["name"], r["shape"], r["weights"], r["sequences"].dump(), number(r["tokens_per_s"]),
                     number(1e3 * r["seconds_per_step"].get<double>()), number(r["fraction"]), r["limit"],
                     number(r["read_gbps"]), number(r["peak_gops"]), r["die"], more});
  }
  std::vector<std::size_t> widths(lines.front().size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::ostringstream out;
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      const std::string space(widths[i] - line[i].size(), ' ');
      const bool right = i >= 3 && i <= 9 && i != 7;
      out << (right ? space + line[i] : line[i] + (i + 1 < line.size() ? space : ""))
          << (i + 1 < line.size() ? "  " : "\n");
    }
  }
  return out.str();
}

}  // namespace bench
