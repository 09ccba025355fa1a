// The bundled team at work: classifies a handful of headlines and statements, then streams a short text.
// --json prints the classifications as one JSON object.

#include "progress_bar.hpp"

#include <finteam/file/json_view.hpp>
#include <finteam/finteam.hpp>

#include <CLI/CLI.hpp>

#include <array>
#include <iomanip>
#include <iostream>
#include <string>

namespace {

struct Item {
  const char* task;
  const char* text;
};

// Headlines from the held-out part of Twitter Financial News Sentiment; statements of the Federal Reserve Board with a
// word of direction taken out; a week of prices. None of them was trained on. Sources: training/README.md.
constexpr std::array items{
    Item{"sentiment", "Helen of Troy started at outperform with $210 stock price target at Oppenheimer"},
    Item{"sentiment", "Oaktree Strategic Income NII misses by $0.01, misses on total investment income"},
    Item{"sentiment", "PSA trade unions give the nod to merger with Fiat"},
    Item{"direction", "Consumer prices excluding food and energy ____ moderately in February and March."},
    Item{"direction", "Industrial production ____ in recent months for many countries."},
    Item{"movement",
         "Stock: China Petroleum & Corporation ($SNP), Basic Materials. Target day: 2015-11-25\n"
         "Date: open, high, low, close (%)\n"
         "2015-11-18: -0.1, +1.0, -0.4, +0.79\n"
         "2015-11-19: 0.0, +1.3, -0.1, +0.62\n"
         "2015-11-20: -0.1, +1.1, -0.5, +0.32\n"
         "2015-11-23: -0.6, +0.1, -1.4, -1.21\n"
         "2015-11-24: -1.2, +1.3, -1.2, +0.73\n"
         "Tweets: none"},
};

finteam::Json to_json(const Item& item, const finteam::View& view) {
  finteam::Json roles = finteam::Json::array(), gate = finteam::Json::object();
  for (const auto& role : view.roles) {
    finteam::Json distribution = finteam::Json::object();
    for (std::size_t l = 0; l < role.probabilities.size(); ++l) distribution[view.labels[l]] = role.probabilities[l];
    roles.push_back({{"name", role.name},
                     {"weight", role.weight},
                     {"awake", role.awake},
                     {"label", role.label},
                     {"probability", role.probability},
                     {"distribution", distribution}});
    gate[role.name] = role.weight;
  }
  return {{"task", item.task},
          {"text", item.text},
          {"label", view.label},
          {"probability", view.probability},
          {"gate", gate},
          {"roles", roles},
          {"disagreement_bits", view.disagreement},
          {"entropy_bits", view.entropy}};
}

void print(const Item& item, const finteam::View& view) {
  std::cout << item.task << ": " << item.text << "\n  team: " << view.label << " " << std::fixed << std::setprecision(3)
            << view.probability << "   disagreement " << view.disagreement << " bits\n";
  for (const auto& role : view.roles) {
    std::cout << "  " << std::left << std::setw(6) << role.name << " gate " << role.weight << "  says";
    for (std::size_t l = 0; l < role.probabilities.size(); ++l) {
      std::cout << "  " << view.labels[l] << " " << role.probabilities[l];
    }
    std::cout << (role.weight > 0 ? "\n" : "   (asleep: asked, but not counted)\n");
  }
  std::cout << "\n";
}

int run(const std::string& folder, int threads, bool json) {
  finteam::ThreadPool pool(threads);
  const auto team = finteam::open_team(folder, {.progress = progress_bar}, finteam::Cpu(pool));
  finteam::Session desk(team, {}, finteam::Cpu(pool));
  finteam::Json answers = finteam::Json::array();
  for (const Item& item : items) {
    const auto& view = desk.classify(item.task, item.text, {.wake = finteam::Wake::all});
    if (json) {
      answers.push_back(to_json(item, view));
    } else {
      print(item, view);
    }
  }
  if (json) {
    std::cout << finteam::Json{{"answers", answers}}.dump(2) << "\n";
    return 0;
  }
  const std::string beginning =
      "In their discussion of the economic situation and the outlook, meeting participants noted that";
  std::cout << "complete: " << beginning;
  desk.complete(beginning, [](std::string_view s) { std::cout << s << std::flush; },
                {.max_tokens = 40, .sampling = {.temperature = 0.5F, .top_p = 0.9F, .seed = 1}});
  std::cout << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"finteam demo: the bundled role team answers"};
  std::string folder;
  int threads = 2;
  bool json = false;
  app.add_option("team", folder, "a team's folder")->required();
  app.add_option("--threads", threads, "threads, this one included")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_flag("--json", json, "print one JSON object");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(folder, threads, json);
  } catch (const std::exception& e) {
    std::cerr << "demo: " << e.what() << "\n";
    return 1;
  }
}
