// Takes the difference of a fine-tuned checkpoint to the one that it came from, in 1 or 2 bits a weight, for a role
// that shares the base of its team. Prints how far every matrix is off.

#include <finteam/expert/weight_table.hpp>
#include <finteam/file/delta_writer.hpp>

#include <CLI/CLI.hpp>

#include <array>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <string>
#include <string_view>

namespace {

using finteam::DeltaPart;

/// The matrices of the blocks in few bits; the heads as asked; all else, the norms, as it is.
DeltaPart part_of(std::string_view name, bool shared_heads) {
  const auto& names = finteam::llama_names;
  if (name == names.embed_tokens || name == names.lm_head) return shared_heads ? DeltaPart::base : DeltaPart::whole;
  if (!name.starts_with(names.layer)) return DeltaPart::whole;
  for (const std::string_view linear :
       {names.q_proj, names.k_proj, names.v_proj, names.o_proj, names.gate_proj, names.up_proj, names.down_proj}) {
    if (name.ends_with("." + std::string(linear))) return DeltaPart::low_bit;
  }
  return DeltaPart::whole;
}

/// ‖d - d'‖ / ‖d‖
double relative(const finteam::DeltaError& e) { return e.squares > 0 ? std::sqrt(e.errors / e.squares) : 0; }

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A fine-tuned checkpoint as its low-bit difference to a base");
  std::string base_folder, tuned_folder, out, scales = "row", heads = "full";
  int bits = 1;
  app.add_option("base", base_folder, "folder of the base")->required();
  app.add_option("tuned", tuned_folder, "folder of the fine-tuned checkpoint")->required();
  app.add_option("out", out, "folder to write, made if it is not there")->required();
  app.add_option("--bits", bits, "bits a weight: 1 or 2")->check(CLI::IsMember({1, 2}))->capture_default_str();
  app.add_option("--scales", scales, "a scale for every row, or for the matrix")
      ->check(CLI::IsMember({"row", "matrix"}))
      ->capture_default_str();
  app.add_option("--heads", heads, "embed_tokens and lm_head: full where they differ, or shared with the base")
      ->check(CLI::IsMember({"full", "shared"}))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const auto base = finteam::Checkpoint::open(base_folder), tuned = finteam::Checkpoint::open(tuned_folder);
    finteam::DeltaError all;
    finteam::DeltaOptions options;
    options.format = bits == 1 ? finteam::Format::int1 : finteam::Format::int2;
    options.scales = scales == "row" ? finteam::DeltaScales::row : finteam::DeltaScales::matrix;
    options.part = [&](std::string_view name) { return part_of(name, heads == "shared"); };
    std::cout << "‖d - d'‖ / ‖d‖\n" << std::fixed << std::setprecision(4);
    options.written = [&](const finteam::WrittenDelta& w) {
      all.squares += w.error.squares;
      all.errors += w.error.errors;
      std::cout << relative(w.error) << "  " << w.name << std::endl;
    };
    finteam::write_delta(base, tuned, out, options);
    std::cout << relative(all) << "  all\n";
  } catch (const finteam::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
