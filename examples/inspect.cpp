// What is in a folder? Opens a Hugging Face checkpoint or a team without loading weights, and prints its family and
// sizes, roles and gate, tokenizer and chat format, bytes in memory, and what this library does not understand of it.

#include "inspect/inspect.hpp"

#include <CLI/CLI.hpp>

#include <iostream>
#include <string>

int main(int argc, char** argv) {
  CLI::App app{"finteam-inspect: what a checkpoint's or a team's folder holds, from its configs and headers"};
  app.footer(
      "Exit status: 0, 1 if something was not understood, 2 for wrong usage.\n"
      "The keys of --json: docs/tools.md");
  std::string folder, base;
  bool json = false;
  app.add_option("folder", folder, "a Hugging Face checkpoint, a team (team.json), or an adapter on --base")
      ->required();
  app.add_option("--base", base, "the base of an adapter or a low-bit difference");
  app.add_flag("--json", json, "print one JSON object");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    const inspect::Report report = inspect::inspect_folder(folder, base);
    if (json) {
      // Names of a hostile file need not be UTF-8.
      std::cout << report.json().dump(2, ' ', false, finteam::Json::error_handler_t::replace) << "\n";
    } else {
      report.print(std::cout);
    }
    return report.refusals().empty() ? 0 : 1;
  } catch (const std::exception& e) {
    std::cerr << "finteam-inspect: " << e.what() << "\n";
    return 1;
  }
}
