// How long until an expert is ready, and how much memory does it then have? Each time in a process of its own: from the
// safetensors of the checkpoint, and from the packed weights that an earlier start has left.
#include "model.hpp"

namespace bench {

void load(Run& run) {
  const Options& o = run.options;
  const auto folder = checkpoint_folder(run);
  const double source = static_cast<double>(std::filesystem::file_size(folder / "model.safetensors"));
  const auto c = finteam::read_config(folder);
  double packed = step_weight_bytes(c, o.weights);
  if (!c.tie_word_embeddings) packed += packed_bytes(c.v, c.d, o.weights);  // the embedding, which no step reads
  for (const bool from_packed : {false, true}) {
    if (from_packed && !has_packed_files()) continue;
    const std::string command = "'" + o.program.string() + "' load --once" + (from_packed ? " --packed" : "") +
                                " --shape " + o.shape + " --weights " + o.weights + " --threads " +
                                std::to_string(run.pool.concurrency()) + " --models '" + o.models.string() + "'";
    Sampler sampler(run.pool, source, peak_of(o.weights));
    Samples samples;
    std::vector<double> resident, most_resident;
    (void)output_of(command);  // the files are in the page cache then, if they fit
    const double begin = now();
    do {
      Json told;
      Sample s = sampler.take(1, 1, [&](index_t) { told = finteam::parse_json(output_of(command), "load --once"); });
      s.seconds = told["seconds"];
      samples.push_back(s);
      resident.push_back(told["resident"]);
      most_resident.push_back(told["resident_peak"]);
    } while (now() - begin < o.seconds);
    run.add(row(run,
                {.name = from_packed ? "load from packed weights" : "load from safetensors",
                 .tokens = 0,
                 .bytes = from_packed ? packed : source,
                 .more = {{"source_bytes", source},
                          {"packed_bytes", packed},
                          {"resident_bytes", median(resident)},
                          {"resident_peak_bytes", median(most_resident)},
                          {"resident_over_packed", median(resident) / packed}}},
                samples));
  }
}

}  // namespace bench
