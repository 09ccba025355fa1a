// What do smaller weights cost? Opens a team once in every format and prints a Markdown table: the bytes of its
// weights, the perplexity of texts under each role and the team, how often its label is the one that the stored weights
// give, and how far its probabilities are from theirs.

#include <finteam/file/json_view.hpp>
#include <finteam/finteam.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

namespace {

using namespace finteam;

struct Question {
  Task task;
  std::string text, answer;
};

std::ifstream open(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw Error(Code::not_found, file, "a readable file", "none");
  return in;
}

std::vector<Question> read_questions(const std::vector<std::string>& files, int limit) {
  std::vector<Question> questions;
  for (const std::string& file : files) {
    auto in = open(file);
    std::string text;
    for (int n = 1; std::getline(in, text) && (limit == 0 || n <= limit); ++n) {
      const Json json = parse_json(text, file + ":" + std::to_string(n));
      const JsonView line(json, file + ":" + std::to_string(n));
      Question q{.task = {.instruction = line.at("instruction").as_string(), .input = "{text}", .labels = {}},
                 .text = line.at("input").as_string(),
                 .answer = line.at("answer").as_string()};
      line.at("choices").each([&](const JsonView& c) { q.task.labels.push_back(c.as_string()); });
      questions.push_back(std::move(q));
    }
  }
  return questions;
}

/// Lines of some length.
std::vector<std::string> read_texts(const std::vector<std::string>& files, std::size_t limit) {
  std::vector<std::string> texts;
  for (const std::string& file : files) {
    auto in = open(file);
    std::size_t taken = 0;
    for (std::string line; std::getline(in, line) && (limit == 0 || taken < limit);) {
      if (line.size() < 60 || line.size() > 1200) continue;
      texts.push_back(line);
      ++taken;
    }
  }
  return texts;
}

/// What a team says in one format.
struct Said {
  double bytes = 0;
  std::vector<double> perplexity;  // of each role, then of the team
  std::vector<std::string> labels;
  std::vector<std::vector<double>> probabilities;
};

Said ask(const std::string& folder, const OpenOptions& options, int threads, const std::vector<Question>& questions,
         const std::vector<std::string>& texts) {
  ThreadPool pool(threads);
  const auto team = open_team(folder, options, Cpu(pool));
  Session desk(team, {}, Cpu(pool));
  Said said{
      .bytes = static_cast<double>(plan(folder, options).weights), .perplexity = {}, .labels = {}, .probabilities = {}};
  std::vector<double> sums(team.roles().size() + 1);
  double tokens = 0;
  for (const std::string& text : texts) {
    const Score& score = desk.score(text, {.wake = Wake::all});
    tokens += static_cast<double>(score.tokens);
    for (std::size_t k = 0; k < team.roles().size(); ++k) sums[k] += score.roles[k].scores[0];
    sums.back() += score.log_probability;
  }
  for (const double sum : sums) said.perplexity.push_back(std::exp(-sum / tokens));
  for (const Question& q : questions) {
    const View& view = desk.classify(q.task, q.text);
    said.labels.emplace_back(view.label);
    said.probabilities.emplace_back(view.probabilities.begin(), view.probabilities.end());
  }
  return said;
}

void print_row(const std::string& name, const Said& said, const Said& stored, const std::vector<Question>& questions) {
  double same = 0, right = 0, distance = 0;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    same += said.labels[i] == stored.labels[i] ? 1 : 0;
    right += said.labels[i] == questions[i].answer ? 1 : 0;
    double sum = 0;
    for (std::size_t l = 0; l < said.probabilities[i].size(); ++l) {
      sum += std::abs(said.probabilities[i][l] - stored.probabilities[i][l]);
    }
    distance += sum / 2;
  }
  const auto n = static_cast<double>(questions.size());
  std::cout << "| " << name << " | " << std::setprecision(1) << said.bytes / 1e6 << " |";
  for (const double p : said.perplexity) std::cout << " " << p << " |";
  std::cout << std::setprecision(3) << " " << same / n << " | " << distance / n << " | " << right / n << " |\n";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"finteam quality: what smaller weights cost a team"};
  std::string folder;
  std::vector<std::string> files, text_files;
  int threads = 2, limit = 0;
  app.add_option("team", folder, "a team's folder")->required();
  app.add_option("files", files, "JSON lines: instruction, input, choices, answer")->required();
  app.add_option("--text", text_files, "texts: their lines of 60 to 1,200 bytes are scored")->required();
  app.add_option("--threads", threads, "threads, this one included")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--limit", limit, "at most so many lines of each file; 0: all")->check(CLI::NonNegativeNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    const auto questions = read_questions(files, limit);
    const auto texts = read_texts(text_files, static_cast<std::size_t>(limit));
    const auto rows = {std::pair{"stored", OpenOptions{}},
                       std::pair{"bf16", OpenOptions{.weights = Weights::bf16}},
                       std::pair{"int8", OpenOptions{.weights = Weights::int8}},
                       std::pair{"int4_zero", OpenOptions{.weights = Weights::int4_zero}},
                       std::pair{"int4", OpenOptions{.weights = Weights::int4}},
                       std::pair{"int4, embedding and head int8",
                                 OpenOptions{.weights = Weights::int4, .choices = {{"lm_head", Weights::int8}}}}};
    Said stored;
    for (const auto& [name, options] : rows) {
      const Said said = ask(folder, options, threads, questions, texts);
      if (stored.labels.empty()) {
        stored = said;
        std::cout << "| weights | MB |";
        for (const auto& role : plan(folder).roles) std::cout << " perplexity, " << role.name << " |";
        std::cout << " team | label as stored | distance of probabilities | accuracy |\n|---|---|---|---|";
        for (std::size_t k = 0; k < said.perplexity.size(); ++k) std::cout << "---|";
        std::cout << "---|\n" << std::fixed;
      }
      print_row(name, said, stored, questions);
    }
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "quality: " << e.what() << "\n";
    return 1;
  }
}
