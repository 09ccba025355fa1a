// `finteam-convert pack`: the packed weights of a checkpoint, or of all roles of a team, so that the next start maps
// them.
#pragma once

#include "../inspect/report.hpp"
#include "../progress_bar.hpp"

#include <finteam/finteam.hpp>

#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

namespace convert {

using finteam::Code, finteam::Error;

struct Pack {
  std::string folder, to, weights = "int4", verify = "times";
  std::vector<std::string> choices;
  int threads = 2;
};

[[nodiscard]] inline finteam::Weights weights_of(const std::string& word) {
  using finteam::Weights;
  for (const Weights w : {Weights::stored, Weights::bf16, Weights::int8, Weights::int4, Weights::int4_zero}) {
    if (name(w) == word) return w;
  }
  throw Error(Code::invalid_argument, "weights", "stored, bf16, int8, int4 or int4_zero", word);
}

/// "lm_head=int8"
[[nodiscard]] inline finteam::WeightChoice choice_of(const std::string& text) {
  const std::size_t at = text.find('=');
  if (at == std::string::npos || at == 0) throw Error(Code::invalid_argument, "--choice", "PART=WEIGHTS", text);
  return {text.substr(0, at), weights_of(text.substr(at + 1))};
}

/// Loads every decoder of the folder with its packed weights in `to`, which writes those that are not there.
inline void run(const Pack& pack) {
  finteam::OpenOptions options{.weights = weights_of(pack.weights), .progress = progress_bar, .packed = pack.to};
  for (const std::string& choice : pack.choices) options.choices.push_back(choice_of(choice));
  if (pack.verify == "contents") options.verify = finteam::Verify::contents;
  const finteam::detail::TeamFiles files = finteam::detail::open_team_files(pack.folder, finteam::BaseCheck::headers);
  finteam::ThreadPool pool(pack.threads);
  finteam::Cpu cpu(pool);
  const finteam::Manifest& m = files.manifest;
  for (std::size_t k = 0; k < files.checkpoints.size(); ++k) {
    const auto decoder = finteam::Decoder<finteam::Cpu>::load(cpu, files.checkpoints[k], files.configs[k], options);
    std::uint64_t bytes = 0;
    for (const auto& w : finteam::find_weights(files.checkpoints[k], files.configs[k], options)) bytes += w.bytes();
    const std::string label = !m.base.empty() ? "base" : !m.merged.empty() ? "merged" : m.roles[k].name;
    std::cout << label << ": " << inspect::in_bytes(files.checkpoints[k].bytes()) << " packed into "
              << inspect::in_bytes(bytes) << " (" << pack.weights << ")\n";
  }
  if (!files.experts.empty()) std::cout << "what roles add to the base is read from their own files at every start\n";
}

}  // namespace convert
