#include <finteam/finteam.hpp>
#include <iostream>

int main(int, char** argv) {
  auto team = finteam::open_team(argv[1]);          // weights: immutable, shared by threads
  finteam::Session desk(team);                      // cache, scratch, sampler: one thread at a time
  auto view = desk.classify("sentiment", argv[2]);  // a task that the team's own team.json describes
  std::cout << view.label << "  " << view.probability << "\n" << view.roles << "\n";
  desk.generate(argv[2], [](std::string_view s) { std::cout << s << std::flush; }, {.max_tokens = 40});
  std::cout << "\n";
}
