// Learns a team's gate from prompts whose role is known (JSON lines: role, instruction, prompt), and counts how often
// its favourite is right on three lines of every nine that it has not seen, with their instruction and without.

#include <finteam/file/json_view.hpp>
#include <finteam/finteam.hpp>

#include <CLI/CLI.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

using namespace finteam;
namespace fs = std::filesystem;
using Examples = std::vector<GateExample>;

namespace {

struct Prompts {
  Examples with, without;
};

void read(const std::string& file, const Team<Cpu>& team, Prompts& learned, Prompts& held_out) {
  std::ifstream in(file);
  std::string text;
  for (int n = 0; std::getline(in, text); ++n) {
    const Json json = parse_json(text, file + ":" + std::to_string(n + 1));
    const JsonView line(json, file + ":" + std::to_string(n + 1));
    const auto role = static_cast<std::int32_t>(team.index_of(line.at("role").as_string()));
    const std::string& prompt = line.at("prompt").as_string();
    Prompts& to = n / 3 % 3 == 0 ? held_out : learned;
    to.with.push_back({line.at("instruction").as_string() + prompt, role});
    to.without.push_back({prompt, role});
  }
}

/// The team with another gate: a folder of links to its files, and a team.json that names the gate.
Team<Cpu> with_gate(const fs::path& folder, const GateFit& fit, const std::string& of) {
  std::string name = (fs::temp_directory_path() / "fit-gate-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw Error(Code::system, name, "a new folder", "none");
  const fs::path other = name;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename() == "team.json") continue;
    fs::create_symlink(fs::absolute(entry.path()), other / entry.path().filename());
  }
  Json json = parse_json(MappedFile::open(folder / "team.json").text(), "team.json");
  json["gate"] = {{"file", "fitted.safetensors"}, {"reads", "prompt_mean_hidden"}, {"of", of}};
  std::ofstream(other / "team.json") << json.dump(2);
  fit.write(other / "fitted.safetensors");
  auto team = open_team(other);
  fs::remove_all(other);  // what is open stays readable
  return team;
}

double routed(const Team<Cpu>& team, const Examples& examples) {
  Session desk(team);
  double right = 0;
  for (const GateExample& example : examples) {
    const Roles& roles = desk.generate(example.prompt, [](std::string_view) {}, {.max_tokens = 1}).roles;
    const auto lighter = [](const RoleView& a, const RoleView& b) { return a.weight < b.weight; };
    right += std::max_element(roles.begin(), roles.end(), lighter) - roles.begin() == example.role ? 1 : 0;
  }
  return right / static_cast<double>(examples.size());
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app{"finteam fit_gate: prompts in, a gate out"};
  std::string folder, file, of, out;
  app.add_option("team", folder, "a team's folder")->required();
  app.add_option("file", file, "JSON lines: role, instruction, prompt")->required()->check(CLI::ExistingFile);
  app.add_option("--of", of, "the role that the gate reads")->required();
  app.add_option("--out", out, "where the gate that learned from both is written");
  CLI11_PARSE(app, argc, argv);
  const auto team = open_team(folder);
  Prompts learned, held_out;
  read(file, team, learned, held_out);
  Examples both = learned.with;
  both.insert(both.end(), learned.without.begin(), learned.without.end());
  std::cout << "| gate learned from prompts | number | right of " << held_out.with.size()
            << " held out, with instruction | without |\n|---|---|---|---|\n"
            << std::fixed << std::setprecision(3);
  for (const auto& [name, examples] : {std::pair{"with instruction", &learned.with},
                                       {"without instruction", &learned.without},
                                       {"of both kinds", &both}}) {
    const GateFit fit = fit_gate(team, *examples, {.of = of});
    if (!out.empty()) fit.write(out);  // the last one stays
    const auto other = with_gate(folder, fit, of);
    std::cout << "| " << name << " | " << examples->size() << " | " << routed(other, held_out.with) << " | "
              << routed(other, held_out.without) << " |\n";
  }
} catch (const std::exception& e) {
  std::cerr << "fit_gate: " << e.what() << "\n";
  return 1;
}
