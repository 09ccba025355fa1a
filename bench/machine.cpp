// What can this machine do, on one thread and on all: bytes from memory, multiply-adds in registers (float, bf16, 8
// bit), a cache line from thread to thread; told apart by where the threads are?
#include "harness.hpp"

#include <map>

namespace bench {
namespace {

/// Probes one pool for as long as a row may take. A row's step is a billion bytes or operations, its limit the best of
/// all probes on that die, so its fraction says how steady the machine is.
void probe_pool(Run& run, finteam::ThreadPool& pool) {
  Probe probe(pool, 1e18);
  std::vector<double> ways;
  Samples read, peak[3];
  const double begin = now();
  do {
    for (const Peak p : {Peak::f32, Peak::bf16, Peak::int8}) {
      const Limits l = probe(p);
      const Die die = die_of(l.one_way_ns);
      ways.push_back(l.one_way_ns);
      read.push_back({1 / l.read_gbps, l.read_gbps, l.peak_gops, die});
      peak[static_cast<std::size_t>(p)].push_back({1 / l.peak_gops, l.read_gbps, l.peak_gops, die});
    }
  } while (now() - begin < run.options.seconds);

  for (Samples* samples : {&read, &peak[0], &peak[1], &peak[2]}) {
    std::map<Die, Sample> best;
    for (const Sample& x : *samples) {
      best[x.die].read_gbps = std::max(best[x.die].read_gbps, x.read_gbps);
      best[x.die].peak_gops = std::max(best[x.die].peak_gops, x.peak_gops);
    }
    for (Sample& x : *samples) x = {x.seconds, best[x.die].read_gbps, best[x.die].peak_gops, x.die};
  }

  const auto add = [&](const std::string& name, double bytes, double flops, const Samples& samples) {
    const Json more = {{"shape", "-"}, {"weights", "-"}, {"threads", pool.concurrency()}, {"one_way_ns", median(ways)}};
    run.add(
        row(run, {.name = name, .sequences = 0, .tokens = 0, .bytes = bytes, .flops = flops, .more = more}, samples));
  };
  const std::string threads =
      pool.concurrency() == 1 ? ", 1 thread" : ", " + std::to_string(pool.concurrency()) + " threads";
  add("read" + threads, 1e9, 0, read);
  add("f32 multiply-adds" + threads, 0, 1e9, peak[0]);
  add("bf16 multiply-adds" + threads, 0, 1e9, peak[1]);
  add("int8 multiply-adds" + threads, 0, 1e9, peak[2]);
}

}  // namespace

void machine(Run& run) {
  if (run.pool.concurrency() > 1) {
    finteam::ThreadPool alone(1);
    probe_pool(run, alone);
  }
  probe_pool(run, run.pool);
}

}  // namespace bench
