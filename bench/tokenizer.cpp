// How fast does each kind of tokenizer encode English, on one core? (Bytes of text per second, in MB; the rest of a row
// is as in the others: its bytes per step are those of the text, and its fraction of the read bandwidth is small.)
#include "harness.hpp"

#include <finteam/file/json_view.hpp>
#include <finteam/text/tokenizer.hpp>

#include <cstdint>
#include <utility>

namespace bench {
namespace {

const std::filesystem::path goldens = FINTEAM_BENCH_SOURCE "/tests/goldens/tokenizer";

/// Sentences of frequent words of financial news, with numbers, in paragraphs. The same every time.
std::string english(std::size_t bytes) {
  const finteam::JsonFile file = finteam::JsonFile::open(goldens / "parity/pool.json");
  const auto words = file.root().json()["words"].get<std::vector<std::string>>();
  const auto numbers = file.root().json()["numbers"].get<std::vector<std::string>>();
  std::uint64_t state = 1;
  const auto below = [&state](std::size_t n) {  // splitmix64
    std::uint64_t z = (state += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return (z ^ (z >> 31)) % n;
  };
  std::string text;
  while (text.size() < bytes) {
    const std::size_t what = below(100);
    text += what < 8 ? numbers[below(numbers.size())] : words[below(words.size())];
    text += what < 80 ? " " : what < 90 ? ", " : what < 98 ? ". " : ".\n\n";
  }
  return text;
}

struct Kind {
  std::string name;
  finteam::Tokenizer tokenizer;
};

/// Small ones of the parity tests, and the bundled team's.
std::vector<Kind> kinds(const Options& o) {
  std::vector<Kind> list;
  const finteam::JsonFile golden = finteam::JsonFile::open(goldens / "parity/golden.json");
  for (const std::string wanted : {"Llama 3", "Qwen2", "gpt-oss", "Llama 2", "Mistral", "Gemma", "T5", "BERT"}) {
    for (const Json& g : golden.root().json()) {
      if (g["name"] != wanted) continue;
      Json file = finteam::JsonFile::open(goldens / "parity" / g["file"].get<std::string>()).root().json();
      for (const auto& [pointer, value] : g["changes"].items()) file[Json::json_pointer(pointer)] = value;
      list.push_back({"tokenizer, as " + wanted + "'s", finteam::Tokenizer::parse(file.dump(), wanted)});
    }
  }
  list.push_back(
      {"tokenizer of " + o.tokenizer.parent_path().filename().string(), finteam::Tokenizer::open(o.tokenizer)});
  return list;
}

}  // namespace

void tokenizer(Run& run) {
  const std::string text = english(1'000'000);
  Run part{run.options, run.pool};
  part.options.seconds /= 8;  // there are many rows
  part.options.peer.clear();
  for (const Kind& kind : kinds(run.options)) {
    auto scratch = kind.tokenizer.scratch(text.size());
    std::vector<std::int32_t> ids;
    ids.reserve(kind.tokenizer.max_ids(text.size()));
    kind.tokenizer.encode(text, scratch, ids);
    const double tokens = static_cast<double>(ids.size()), bytes = static_cast<double>(text.size());
    measure(part, Peak::f32,
            {{.work = {.name = kind.name,
                       .sequences = 0,
                       .tokens = tokens,
                       .bytes = bytes,
                       .more = {{"shape", "-"}, {"weights", "-"}, {"threads", 1}}},
              .part =
                  [&](index_t) {
                    ids.clear();
                    kind.tokenizer.encode(text, scratch, ids);
                  }}},
            1e18);
    Json& row = part.rows.back();
    row["text_mb_per_s"] = bytes / row["seconds_per_step"].get<double>() / 1e6;
    say(kind.name + ": " + row["text_mb_per_s"].dump() + " MB/s of text");
    run.rows.push_back(std::move(row));
  }
}

}  // namespace bench
