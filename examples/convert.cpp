// Writes what a team is opened from: its packed weights, or a team.json for a set of folders.

#include "convert/pack.hpp"
#include "convert/team.hpp"

#include <CLI/CLI.hpp>

#include <iostream>

namespace {

using convert::Pack, convert::Team;

void add_pack(CLI::App& app, Pack& pack) {
  app.add_option("folder", pack.folder, "a checkpoint or a team")->required();
  app.add_option("--to", pack.to, "folder for packed weights, made if it is not there: OpenOptions::packed")
      ->required();
  app.add_option("--weights", pack.weights, "what every matrix is kept as: bf16, int8, int4, int4_zero, stored")
      ->capture_default_str();
  app.add_option("--choice", pack.choices, "PART=WEIGHTS: other weights where a tensor's name holds PART; repeatable");
  app.add_option("--verify", pack.verify, "how packed weights are known to be the checkpoint's")
      ->check(CLI::IsMember({"times", "contents"}))
      ->capture_default_str();
  app.add_option("--threads", pack.threads, "threads, this one included")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
}

void add_team(CLI::App& app, Team& team) {
  app.add_option("--role", team.roles, "NAME=PATH: a checkpoint, or with --base an adapter or a difference; repeatable")
      ->required();
  app.add_option("--to", team.to, "the team's folder; what lies elsewhere is linked into it")->required();
  app.add_option("--base", team.base, "the checkpoint that roles are adapters on, or differences to");
  app.add_option("--chat", team.chat, "the chat format's name");
  app.add_option("--tokenizer", team.tokenizer, "a tokenizer.json, where no folder has one");
  app.add_option(
         "--gate", team.gate,
         "what the gate reads, and the roles' prior: prior 2 1 1 (without it: all the same), prompt_likelihood, "
         "performance; with --gate-file and --of a linear gate, as prompt_mean_hidden")
      ->expected(1, 65);
  app.add_option("--gate-file", team.gate_file, "a linear gate's weights, as fit_gate writes them");
  app.add_option("--of", team.of, "the role, or base, whose states a linear gate reads");
  app.add_option("--top-k", team.top_k, "roles that answer a question; without it: all");
  app.add_option("--mix-in", team.mix_in, "probabilities, logits, or on a base deltas")->capture_default_str();
  app.add_flag("--force", team.force, "replace a team.json that is there");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"finteam-convert: packed weights, or a team.json"};
  app.footer("Exit status: 0, 1 if something was refused, 2 for wrong usage. docs/tools.md has examples.");
  app.require_subcommand(1);
  Pack pack;
  Team team;
  CLI::App* const packing =
      app.add_subcommand("pack", "write the packed weights of a checkpoint, or of a team's roles");
  CLI::App* const teaming = app.add_subcommand("team", "write a team.json for a set of folders");
  add_pack(*packing, pack);
  add_team(*teaming, team);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    if (teaming->parsed()) return convert::run(team);
    convert::run(pack);
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "finteam-convert: " << e.what() << "\n";
    return 1;
  }
}
