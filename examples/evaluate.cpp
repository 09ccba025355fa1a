// How good is a team? Reads labelled questions (JSON lines with task, role, instruction, input, choices, answer),
// asks every role, and prints accuracy and weighted F1 of each role and of the team as a Markdown table. With --compare
// other teams' tables follow: how often a judge there says what it says in the first team stands third in a cell.

#include "progress_bar.hpp"

#include <finteam/file/json_view.hpp>
#include <finteam/finteam.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <string>
#include <vector>

namespace {

/// Answers of one judge on one task.
struct Tally {
  std::vector<std::string> truth, said;
  std::vector<int> question;

  void add(const std::string& right, const std::string& answer, int number) {
    truth.push_back(right);
    said.push_back(answer);
    question.push_back(number);
  }

  [[nodiscard]] double accuracy() const {
    double right = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) right += truth[i] == said[i] ? 1 : 0;
    return right / static_cast<double>(truth.size());
  }

  /// Σ_class share(class) · F1(class), F1 = 2 TP / (2 TP + FP + FN).
  [[nodiscard]] double weighted_f1() const {
    struct Count {
      double tp = 0, fp = 0, fn = 0;
    };
    std::map<std::string, Count> classes;
    for (std::size_t i = 0; i < truth.size(); ++i) {
      if (truth[i] == said[i]) {
        ++classes[truth[i]].tp;
      } else {
        ++classes[truth[i]].fn;
        ++classes[said[i]].fp;
      }
    }
    double sum = 0;
    for (const auto& [label, c] : classes) {
      sum += (c.tp + c.fn) / static_cast<double>(truth.size()) * 2 * c.tp / std::max(1.0, 2 * c.tp + c.fp + c.fn);
    }
    return sum;
  }

  /// Share of the answers that are the other's, to the same questions.
  [[nodiscard]] double agreement(const Tally& other) const {
    if (other.question != question || other.truth != truth) {
      throw finteam::Error(finteam::Code::mismatch, "compare", "the same questions for both teams", "others");
    }
    double same = 0;
    for (std::size_t i = 0; i < said.size(); ++i) same += said[i] == other.said[i] ? 1 : 0;
    return same / static_cast<double>(said.size());
  }

  /// Share of the most frequent right answer.
  [[nodiscard]] double majority() const {
    std::map<std::string, double> n;
    double most = 0;
    for (const auto& t : truth) most = std::max(most, ++n[t]);
    return most / static_cast<double>(truth.size());
  }
};

struct TaskResult {
  std::map<std::string, Tally> judges;  // by role name, and "team"
  double chance = 0;                    // Σ 1 / number of choices
  int routed = 0, questions = 0, too_long = 0;
};

void ask(finteam::Session<finteam::Cpu>& desk, const finteam::JsonView& line, TaskResult& result) {
  finteam::Task task{.instruction = line.at("instruction").as_string(), .input = "{text}", .labels = {}};
  line.at("choices").each([&](const finteam::JsonView& c) { task.labels.push_back(c.as_string()); });
  const std::string answer = line.at("answer").as_string();
  try {
    const auto& view = desk.classify(task, line.at("input").as_string(), {.wake = finteam::Wake::all});
    const finteam::RoleView* favourite = &view.roles.front();
    for (const auto& role : view.roles) {
      if (!role.label.empty()) result.judges[role.name].add(answer, role.label, result.questions + result.too_long);
      if (role.weight > favourite->weight) favourite = &role;
    }
    result.judges["team"].add(answer, view.label, result.questions + result.too_long);
    result.chance += 1.0 / static_cast<double>(task.labels.size());
    result.routed += favourite->name == line.string_or("role", "") ? 1 : 0;
    ++result.questions;
  } catch (const finteam::Error& e) {
    if (e.code() != finteam::Code::limit_exceeded) throw;
    ++result.too_long;
  }
}

using Results = std::map<std::string, TaskResult>;  // by task

Results evaluate(finteam::Session<finteam::Cpu>& desk, const std::vector<std::string>& files, int limit) {
  Results results;
  for (const std::string& file : files) {
    std::ifstream in(file);
    if (!in) throw finteam::Error(finteam::Code::not_found, file, "a readable file", "none");
    std::string text;
    for (int n = 1; std::getline(in, text) && (limit == 0 || n <= limit); ++n) {
      const finteam::Json json = finteam::parse_json(text, file + ":" + std::to_string(n));
      const finteam::JsonView line(json, file + ":" + std::to_string(n));
      if (line.at("choices").size() == 0) continue;  // a free answer: nothing to classify
      ask(desk, line, results[line.at("task").as_string()]);
    }
  }
  return results;
}

/// first: what the answers are compared with; null: nothing.
void print(const Results& results, const finteam::Team<finteam::Cpu>& team, const Results* first) {
  const std::string cells = first != nullptr ? " acc / F1 / same |" : " acc / F1 |";
  std::cout << "| task | questions | majority | chance |";
  for (const auto& role : team.roles()) std::cout << " " << role.name << cells;
  std::cout << " team" << cells << " gate's favourite is the task's role |\n|---|---|---|---|";
  for (std::size_t k = 0; k < team.roles().size(); ++k) std::cout << "---|";
  std::cout << "---|---|\n" << std::fixed << std::setprecision(3);
  for (const auto& result : results) {
    const TaskResult& r = result.second;
    if (r.questions == 0) continue;
    const auto cell = [&](const std::string& judge) {
      const auto own = r.judges.find(judge);
      if (own == r.judges.end()) {  // mixed inside, a role says nothing for itself
        std::cout << " – |";
        return;
      }
      const Tally& t = own->second;
      std::cout << " " << t.accuracy() << " / " << t.weighted_f1();
      if (first != nullptr) {
        const auto& judges = first->at(result.first).judges;
        const auto other = judges.find(judge);
        if (other == judges.end()) {
          throw finteam::Error(finteam::Code::mismatch, "compare", "a role of the first team", judge);
        }
        std::cout << " / " << t.agreement(other->second);
      }
      std::cout << " |";
    };
    std::cout << "| " << result.first << " | " << r.questions
              << (r.too_long > 0 ? " (+" + std::to_string(r.too_long) + " too long)" : "") << " | "
              << r.judges.at("team").majority() << " | " << r.chance / r.questions << " |";
    for (const auto& role : team.roles()) cell(role.name);
    cell("team");
    std::cout << " " << static_cast<double>(r.routed) / r.questions << " |\n";
  }
  std::cout.flush();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"finteam evaluate: labelled questions in, a table out"};
  std::string folder;
  std::vector<std::string> files, others;
  int threads = 2, limit = 0;
  app.add_option("team", folder, "a team's folder")->required();
  app.add_option("files", files, "JSON lines: task, role, instruction, input, choices, answer")->required();
  app.add_option("--compare", others,
                 "folders of teams with the same roles: the same for each, and how often they agree");
  app.add_option("--threads", threads, "threads, this one included")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--limit", limit, "at most so many questions of each file; 0: all")->check(CLI::NonNegativeNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    finteam::ThreadPool pool(threads);
    const auto run = [&](const std::string& path, const Results* first) {
      const auto team = finteam::open_team(path, {.progress = progress_bar}, finteam::Cpu(pool));
      finteam::Session desk(team, {}, finteam::Cpu(pool));
      Results results = evaluate(desk, files, limit);
      print(results, team, first);
      return results;
    };
    const Results first = run(folder, nullptr);
    for (const std::string& other : others) {
      std::cout << "\n" << other << "\n\n";
      (void)run(other, &first);
    }
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "evaluate: " << e.what() << "\n";
    return 1;
  }
}
