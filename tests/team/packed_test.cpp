// Teams whose packed weights are kept in a folder: the same answers, a source that changes, files that lie.

#include "catch.hpp"
#include "counting_memory.hpp"
#include "team/answers.hpp"
#include "team/folder.hpp"

#include <finteam/backend/reference.hpp>
#include <finteam/backend/thread_pool.hpp>
#include <finteam/file/safetensors_writer.hpp>
#include <finteam/team/plan.hpp>

#include <sys/stat.h>

#include <cstring>
#include <functional>
#include <set>
#include <thread>

using namespace finteam;
using test::quiet;
namespace fs = std::filesystem;

namespace {

struct Answer {
  std::vector<double> numbers;
  std::string text;
  friend bool operator==(const Answer&, const Answer&) = default;
};

template <Backend B>
Answer ask(const Team<B>& team, B b) {
  Session<B> desk(team, {.tokens = 200}, b);
  Answer answer;
  const View& view = desk.classify("sentiment", "Profit rose 12% in the third quarter", {.wake = Wake::all});
  answer.numbers.assign(view.probabilities.begin(), view.probabilities.end());
  for (const RoleView& r : view.roles) answer.numbers.insert(answer.numbers.end(), r.scores.begin(), r.scores.end());
  answer.numbers.push_back(desk.score("the outlook stays weak").log_probability);
  answer.text = desk.generate("What now?", quiet, {.max_tokens = 20}).text;
  return answer;
}

Answer answer_of(const fs::path& folder, const OpenOptions& options = {}) {
  const auto team = open_team(folder, options);
  return ask(team, Cpu());
}

/// The files of a folder, and which they are.
std::set<std::pair<std::string, std::uint64_t>> files(const fs::path& folder) {
  std::set<std::pair<std::string, std::uint64_t>> all;
  for (const auto& entry : fs::directory_iterator(folder)) {
    struct ::stat facts {};
    REQUIRE(::stat(entry.path().c_str(), &facts) == 0);
    all.emplace(entry.path().filename().string(), facts.st_ino);
  }
  return all;
}

std::string read(const fs::path& file) { return std::string(MappedFile::open(file).text()); }

/// A team whose role quant has a model file of its own, and the folder of packed files of one opening of it.
struct Packed {
  explicit Packed(const OpenOptions& how = {.weights = Weights::int4}) : options(how) {
    team.unlink_role("quant");
    const std::string bytes = read(model());
    test::write(model(), bytes);
    options.packed = folder.path() / "packed";
    answer = answer_of(team.path(), options);
    before = files(options.packed);
  }
  [[nodiscard]] fs::path model() const { return team.path() / "quant" / "model.safetensors"; }
  [[nodiscard]] Answer again() const { return answer_of(team.path(), options); }
  /// Any of the files.
  [[nodiscard]] fs::path file(std::size_t i = 0) const {
    return options.packed / std::next(before.begin(), static_cast<std::ptrdiff_t>(i))->first;
  }

  test::TeamFolder team;
  test::TemporaryFolder folder;
  OpenOptions options;
  Answer answer;
  std::set<std::pair<std::string, std::uint64_t>> before;
};

/// A safetensors file with another header.
std::string with_header(const std::string& file, const std::function<void(std::string&)>& change) {
  std::uint64_t n = 0;
  std::memcpy(&n, file.data(), 8);
  std::string header = file.substr(8, n);
  change(header);
  n = header.size();
  std::string length(8, '\0');
  std::memcpy(length.data(), &n, 8);
  return length + header + file.substr(8 + static_cast<std::size_t>([&] {
                                         std::uint64_t old = 0;
                                         std::memcpy(&old, file.data(), 8);
                                         return old;
                                       }()));
}

Error refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e;
  }
  FAIL("it was accepted");
  return {Code::cancelled, "", "", ""};
}

}  // namespace

TEST_CASE("a team out of packed files answers with the same bits, in every format", "[team][law3]") {
  const auto weights = GENERATE(Weights::stored, Weights::bf16, Weights::int8, Weights::int4, Weights::int4_zero);
  CAPTURE(name(weights));
  const test::TemporaryFolder folder;
  OpenOptions options{.weights = weights};
  if (weights == Weights::int4) options.choices = {{"lm_head", Weights::int8}};
  const Answer answer = answer_of(test::golden_team(), options);

  options.packed = folder.path() / "made" / "on the way";
  CHECK(answer_of(test::golden_team(), options) == answer);
  const auto written = files(options.packed);
  CHECK(written.size() == 3);

  test::CountingMemory memory;
  options.memory = &memory;
  ThreadPool pool(2);
  const auto team = open_team(test::golden_team(), options, Cpu(pool));
  CHECK(memory.most() < plan(test::golden_team(), options).weights / 10);  // norms: nothing was packed
  CHECK(ask(team, Cpu(pool)) == answer);
  CHECK(files(options.packed) == written);
}

TEST_CASE("a packed file is an ordinary safetensors file whose panels lie on 64-byte lines", "[team]") {
  const Packed packed;
  for (std::size_t i = 0; i < 3; ++i) {
    const Safetensors file = Safetensors::open(packed.file(i));
    CHECK(file.metadata().at("finteam").find(std::to_string(packing_version)) != std::string::npos);
    CHECK(file.header().size() % 64 == 0);
    CHECK(file.contains("model.layers.0.mlp.gate_proj.weight+model.layers.0.mlp.up_proj.weight"));
    CHECK(file.tensor("model.norm.weight").dtype == DType::f32);
    CHECK(file.metadata().at("formats").find("model.embed_tokens.weight: int4 stacked [601, ") != std::string::npos);
  }
}

TEST_CASE("other options have files of their own", "[team]") {
  Packed packed;
  const auto count = [&] { return files(packed.options.packed).size(); };
  REQUIRE(count() == 3);
  packed.options.choices = {{"down_proj", Weights::int8}};
  (void)packed.again();
  CHECK(count() == 6);
  packed.options.weights = Weights::bf16;
  (void)packed.again();
  CHECK(count() == 9);
  packed.options.weights = Weights::int4;
  packed.options.choices.clear();
  CHECK(packed.again() == packed.answer);
  CHECK(count() == 9);
}

TEST_CASE("a source that changed is noticed", "[team][law5]") {
  Packed packed;
  std::string bytes = read(packed.model());
  const auto count = [&] { return files(packed.options.packed).size(); };
  REQUIRE(count() == 3);
  const auto time = fs::last_write_time(packed.model());
  SECTION("by its time") {
    fs::last_write_time(packed.model(), time + std::chrono::nanoseconds(1));
    CHECK(packed.again() == packed.answer);
    CHECK(count() == 4);
  }
  SECTION("by its header") {
    test::write(packed.model(),
                with_header(bytes, [](std::string& h) { h.insert(h.find('{') + 1, " "), h.pop_back(); }));
    fs::last_write_time(packed.model(), time);
    CHECK(packed.again() == packed.answer);
    CHECK(count() == 4);
  }
  SECTION("by its size") {
    test::write(packed.model(), with_header(bytes, [](std::string& h) { h += "        "; }));
    fs::last_write_time(packed.model(), time);
    CHECK(packed.again() == packed.answer);
    CHECK(count() == 4);
  }
  SECTION("by its contents, if it is asked for, and not else") {
    for (std::size_t i = bytes.size() - 4000; i < bytes.size(); i += 4) bytes[i] = static_cast<char>(bytes[i] ^ 0x40);
    test::write(packed.model(), bytes);
    fs::last_write_time(packed.model(), time);
    CHECK(packed.again() == packed.answer);
    CHECK(count() == 3);
    packed.options.verify = Verify::contents;
    const Answer changed = packed.again();
    CHECK_FALSE(changed == packed.answer);
    CHECK(count() == 6);
    // The contents tell: another time does not matter, and what was there before is there again.
    fs::last_write_time(packed.model(), time + std::chrono::hours(1));
    CHECK(packed.again() == changed);
    CHECK(count() == 6);
    bytes[bytes.size() - 1] = static_cast<char>(bytes[bytes.size() - 1] ^ 1);
    test::write(packed.model(), bytes);
    (void)packed.again();
    CHECK(count() == 7);
  }
}

TEST_CASE("a packed file that is not what it should be is replaced", "[team][law5][refused]") {
  struct Damage {
    const char* what;
    std::function<std::string(std::string)> change;
  };
  const auto header = [](std::function<void(std::string&)> change) {
    return [change](const std::string& file) { return with_header(file, change); };
  };
  const auto replace = [header](std::string from, std::string to) {
    return header([=](std::string& h) {
      const auto at = h.find(from);
      REQUIRE(at != std::string::npos);
      h.replace(at, from.size(), to);
    });
  };
  const std::vector<Damage> damages{
      {"nothing in it", [](const std::string&) { return std::string(); }},
      {"text", [](const std::string&) { return std::string("no safetensors file"); }},
      {"half of it", [](const std::string& f) { return f.substr(0, f.size() / 2); }},
      {"a byte less", [](const std::string& f) { return f.substr(0, f.size() - 1); }},
      {"a byte more", [](const std::string& f) { return f + "x"; }},
      {"zeros where its end was",
       [](const std::string& f) { return f.substr(0, f.size() - 4096) + std::string(4096, '\0'); }},
      {"a header that is too long", [](std::string f) { return f.replace(0, 8, "\xFF\xFF\xFF\xFF\0\0\0\0", 8); }},
      {"another layout", replace("layout ", "Layout ")},
      {"another source", replace("header ", "Header ")},
      {"other formats", replace("int4 stacked", "int8 stacked")},
      {"another type", replace("\"U8\"", "\"I8\"")},
      {"another type of a vector", replace("\"F32\"", "\"I32\"")},
      {"no tensor of a name", replace("\"model.norm.weight\":{", "\"model.morn.weight\":{")},
      {"panels that lie between lines", header([](std::string& h) { h += "        "; })},
      {"turned shapes", header([](std::string& h) {
         const auto at = h.find("\"shape\":[") + 9, comma = h.find(',', at), end = h.find(']', at);
         h = h.substr(0, at) + h.substr(comma + 1, end - comma - 1) + "," + h.substr(at, comma - at) + h.substr(end);
       })},
      {"a folder of no tensors", header([](std::string& h) { h = "{}"; })},
  };
  const Packed packed;
  const std::string good = read(packed.file());
  for (const Damage& damage : damages) {
    CAPTURE(damage.what);
    const std::string bad = damage.change(good);
    REQUIRE(bad != good);
    test::write(packed.file(), bad);
    CHECK(packed.again() == packed.answer);
    CHECK(read(packed.file()) == good);
  }
}

TEST_CASE("every byte of a packed file is under a checksum", "[team][law5][refused]") {
  const Packed packed;
  const std::string good = read(packed.file(1));
  const Safetensors file = Safetensors::open(packed.file(1));
  for (const std::string_view name : file.names()) {
    CAPTURE(name);
    std::string bad = good;
    if (name == "checksums") {
      bad.back() = static_cast<char>(bad.back() ^ 1);
    } else {
      const auto found = parse_json(good.substr(8, file.header().size() - 8), "header").at(std::string(name));
      const auto begin = found["data_offsets"][0].get<std::size_t>(), end = found["data_offsets"][1].get<std::size_t>();
      const std::size_t at = file.header().size() + begin + (end - begin) * 2 / 3;
      bad[at] = static_cast<char>(bad[at] ^ 4);
    }
    test::write(packed.file(1), bad);
    CHECK(packed.again() == packed.answer);
    CHECK(read(packed.file(1)) == good);
  }
}

TEST_CASE("the file of another role is not taken for a role's own", "[team][law5][refused]") {
  const Packed packed;
  const std::string first = read(packed.file(0)), second = read(packed.file(1));
  test::write(packed.file(0), second);
  CHECK(packed.again() == packed.answer);
  CHECK(read(packed.file(0)) == first);
}

TEST_CASE("a folder for packed weights that cannot be written is refused by name", "[team][law5][refused]") {
  const test::TemporaryFolder folder;
  test::write(folder.path() / "file", "x");
  const Error inside =
      refusal([&] { (void)answer_of(test::golden_team(), {.packed = folder.path() / "file" / "in"}); });
  CHECK(inside.code() == Code::system);
  CHECK(inside.where() == (folder.path() / "file" / "in").string());
  const Error taken = refusal([&] { (void)answer_of(test::golden_team(), {.packed = folder.path() / "file"}); });
  CHECK(taken.code() == Code::system);
  CHECK(taken.where().starts_with((folder.path() / "file").string()));

  const Packed packed;
  fs::remove(packed.file());
  fs::create_directories(packed.file() / "a folder in its place");
  CHECK(refusal([&] { (void)packed.again(); }).code() == Code::system);
  CHECK(files(packed.options.packed).size() == 3);  // and nothing unfinished
}

TEST_CASE("packed files may be removed while they are in use", "[team]") {
  const Packed packed;
  const auto team = open_team(packed.team.path(), packed.options);
  fs::remove_all(packed.options.packed);
  CHECK(ask(team, Cpu()) == packed.answer);
}

TEST_CASE("two that open at once both live, and leave whole files", "[team]") {
  const Answer answer = answer_of(test::golden_team(), {.weights = Weights::int8});
  for (int round = 0; round < 5; ++round) {
    const test::TemporaryFolder folder;
    const OpenOptions options{.weights = Weights::int8, .packed = folder.path() / "packed"};
    std::array<Answer, 3> answers;
    std::vector<std::thread> threads;
    for (Answer& a : answers) threads.emplace_back([&a, &options] { a = answer_of(test::golden_team(), options); });
    for (auto& t : threads) t.join();
    for (const Answer& a : answers) CHECK(a == answer);
    const auto left = files(options.packed);
    CHECK(left.size() == 3);
    for (const auto& [name, inode] : left) CHECK(name.ends_with(".safetensors"));
    CHECK(answer_of(test::golden_team(), options) == answer);
    CHECK(files(options.packed) == left);
  }
}

TEST_CASE("a backend that has no panels opens without packed files", "[team]") {
  const test::TemporaryFolder folder;
  const auto team = open_team<Reference>(test::golden_team(), {.packed = folder.path() / "packed"});
  CHECK_FALSE(fs::exists(folder.path() / "packed"));
}

TEST_CASE("progress never goes back, and ends at the total", "[team]") {
  Packed packed;
  struct Seen {
    std::vector<std::uint64_t> done;
    std::uint64_t total = 0;
  };
  const auto open = [&](OpenOptions options) {
    Seen seen;
    options.progress = [&](std::uint64_t done, std::uint64_t total) {
      seen.done.push_back(done);
      seen.total = total;
    };
    (void)open_team(packed.team.path(), options);
    CHECK(std::is_sorted(seen.done.begin(), seen.done.end()));
    CHECK(seen.done.size() > 20);
    CHECK(seen.done.back() == seen.total);
    return seen.total;
  };
  const std::uint64_t total = open({.weights = Weights::int4});
  CHECK(open(packed.options) == total);
  std::string bad = read(packed.file());
  bad[bad.size() - 5000] = static_cast<char>(bad[bad.size() - 5000] ^ 1);
  test::write(packed.file(), bad);  // found out late, and packed again
  CHECK(open(packed.options) == total);
}
