#include "catch.hpp"
#include "team/answers.hpp"
#include "team/folder.hpp"

#include <finteam/file/safetensors_writer.hpp>
#include <finteam/team/session.hpp>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

using namespace finteam;
using test::quiet;

namespace {

const std::string question = "What happened to rates?";

bool is_utf8(std::string_view s) {
  try {
    check_utf8(s, "test");
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

TEST_CASE("what is streamed is the text, in whole UTF-8 characters", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    std::string streamed;
    bool whole = true;
    const Generation& text = desk.generate(question,
                                           [&](std::string_view s) {
                                             whole = whole && !s.empty() && is_utf8(s);
                                             streamed += s;
                                           },
                                           {.max_tokens = 60, .sampling = {.temperature = 1.5F, .seed = seed}});
    CHECK(whole);
    CHECK(streamed == text.text);
    CHECK(streamed == team.tokenizer().decode(text.ids, SpecialTokens::skip));
    CHECK(text.log_probability < 0);
  }
}

TEST_CASE("a seed replays its text, another seed gives another, and temperature zero ignores it", "[team][law3]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const auto text = [&](float temperature, std::uint64_t seed) {
    return desk.generate(question, quiet, {.max_tokens = 30, .sampling = {.temperature = temperature, .seed = seed}})
        .ids;
  };
  const auto first = text(1, 5);
  CHECK(text(1, 6) != first);
  CHECK(text(1, 5) == first);
  CHECK(text(0, 5) == text(0, 6));
}

TEST_CASE("top-k of one is greedy whatever the temperature", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const auto greedy = desk.generate(question, quiet, {.max_tokens = 20}).ids;
  CHECK(desk.generate(question, quiet, {.max_tokens = 20, .sampling = {.temperature = 2, .top_k = 1, .seed = 3}}).ids ==
        greedy);
}

TEST_CASE("max_tokens, the session's limit, stop ids and stop strings each end a text and say so", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const Generation free = desk.generate(question, quiet, {.max_tokens = 40});
  REQUIRE(free.ids.size() == 40);
  CHECK(free.finish == Finish::length);

  const Generation& at_id = desk.generate(question, quiet, {.max_tokens = 40, .stop_ids = {free.ids[7]}});
  CHECK(at_id.finish == Finish::end_token);
  CHECK(at_id.ids.size() <= 8);

  const std::string stop = free.text.substr(9, 5);
  REQUIRE(is_utf8(stop));
  const Generation& at_string = desk.generate(question, quiet, {.max_tokens = 40, .stop = {"never in there", stop}});
  CHECK(at_string.finish == Finish::stop_string);
  CHECK(at_string.text == free.text.substr(0, free.text.find(stop)));
  CHECK(desk.generate(question, quiet, {.max_tokens = 40}).text == free.text);  // and it is forgotten afterwards

  Session small(team, {.tokens = free.prompt_tokens + 10});
  const Generation& full = small.generate(question, quiet, {.max_tokens = 40});
  CHECK(full.finish == Finish::length);
  CHECK(full.ids == std::vector<std::int32_t>(free.ids.begin(), free.ids.begin() + 10));
}

TEST_CASE("a caller, a stop request and a deadline end a text, and what was said is returned", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const Generation free = desk.generate(question, quiet, {.max_tokens = 40});

  int pieces = 0;
  const Generation ended = desk.generate(question, [&](std::string_view) { return ++pieces < 5; }, {.max_tokens = 40});
  CHECK(ended.finish == Finish::caller);
  CHECK(pieces == 5);
  CHECK(free.text.starts_with(ended.text));

  std::stop_source source;
  pieces = 0;
  const Generation& stopped = desk.generate(question,
                                            [&](std::string_view) {
                                              if (++pieces == 3) source.request_stop();
                                            },
                                            {.max_tokens = 40, .interrupt = {.stop = source.get_token()}});
  CHECK(stopped.finish == Finish::cancelled);
  CHECK(free.text.starts_with(stopped.text));
  CHECK(stopped.ids.size() < 20);

  const auto past = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  const Generation& late = desk.generate(question, quiet, {.interrupt = {.deadline = past}});
  CHECK(late.finish == Finish::deadline);
  CHECK(late.ids.empty());
  CHECK(desk.generate(question, quiet, {.max_tokens = 40}).ids == free.ids);
}

TEST_CASE("a completion goes on from the text as it stands, and its log-probability is the longer text's less its own",
          "[team][law1]") {
  const test::TeamFolder folder([](Json& team) {  // one role: a gate would read the longer text differently
    team["roles"] = Json::array({{{"name", "micro"}, {"path", "micro"}}});
    team["gate"] = nullptr;
  });
  const auto team = open_team(folder.path());
  Session desk(team);
  const std::string text = "Profit rose";
  const Generation more = desk.complete(text, quiet, {.max_tokens = 12, .sampling = {.temperature = 1, .seed = 9}});
  CHECK(more.prompt_tokens == static_cast<index_t>(team.tokenizer().encode(text).size()) + 1);  // and the BOS
  std::vector<std::int32_t> ids = team.tokenizer().encode(text);
  ids.insert(ids.end(), more.ids.begin(), more.ids.end());
  const std::string whole = team.tokenizer().decode(ids);
  if (team.tokenizer().encode(whole) == ids) {  // else the sampled pieces are not how the tokenizer would cut them
    CHECK(desk.score(whole).log_probability ==
          Approx(desk.score(text).log_probability + more.log_probability).epsilon(1e-9));
  }
  const Generation other = desk.generate(text, quiet, {.max_tokens = 12});
  CHECK(other.prompt_tokens > more.prompt_tokens);
}

TEST_CASE("a caller's callback runs in the caller's floating-point environment", "[team][law4]") {
#if defined(__x86_64__)
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const unsigned before = __builtin_ia32_stmxcsr(), host = before | 0x8040U;  // flush subnormals to zero
  __builtin_ia32_ldmxcsr(host);
  bool same = true;
  desk.generate(question,
                [&](std::string_view) { same = same && (__builtin_ia32_stmxcsr() & 0xFFC0U) == (host & 0xFFC0U); },
                {.max_tokens = 5});
  const unsigned after = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(before);
  CHECK(same);
  CHECK((after & 0xFFC0U) == (host & 0xFFC0U));
#else
  WARN("skipped: not x86-64");
#endif
}

TEST_CASE("a caller's exception passes through, and the session goes on", "[team][law4]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const Generation before = desk.generate(question, quiet, {.max_tokens = 20});
  CHECK_THROWS_AS(desk.generate(question, [](std::string_view) { throw std::bad_alloc(); }), std::bad_alloc);
  CHECK(desk.generate(question, quiet, {.max_tokens = 20}).ids == before.ids);
}

TEST_CASE("an id that no token has is never generated, however probable: models pad their vocabularies", "[team]") {
  const test::TeamFolder folder([](Json& team) {
    team["roles"] = Json::array({{{"name", "micro"}, {"path", "micro"}}});
    team["gate"] = nullptr;
  });
  folder.unlink_role("micro");
  const Checkpoint original = Checkpoint::open(test::golden_team() / "micro");
  const RawTensor embedding = original.tensor("model.embed_tokens.weight", {601, 32});
  std::vector<float> padded(610 * 32);
  for (std::size_t i = 0; i < padded.size(); ++i) {  // the padding's logits are twice another token's, either sign
    padded[i] =
        i < 601 * 32 ? embedding[static_cast<index_t>(i)] : (i / 32 % 2 == 0 ? 2.0F : -2.0F) * padded[i - 300 * 32];
  }
  std::vector<TensorToWrite> tensors;
  for (const std::string_view name : original.names()) {
    const RawTensor raw = original.tensor(name);
    const auto bytes = static_cast<std::size_t>(raw.size()) * bytes_of(raw.dtype);
    tensors.push_back({std::string(name), raw.dtype, {raw.shape.begin(), raw.shape.end()}, {raw.data, bytes}});
    if (name != "model.embed_tokens.weight") continue;
    tensors.back().shape = {610, 32};
    tensors.back().data = std::as_bytes(std::span(padded));
  }
  test::fs::remove(folder.path() / "micro" / "model.safetensors");
  write_safetensors(folder.path() / "micro" / "model.safetensors", tensors);
  Json config = parse_json(MappedFile::open(test::golden_team() / "micro" / "config.json").text(), "config.json");
  config["vocab_size"] = 610;
  test::write(folder.path() / "micro" / "config.json", config.dump());

  const auto team = open_team(folder.path());
  CHECK(team.absent_ids().size() == 9);
  Session desk(team);
  for (const float temperature : {0.0F, 3.0F}) {
    const Generation& text =
        desk.generate(question, quiet, {.max_tokens = 100, .sampling = {.temperature = temperature, .seed = 1}});
    CHECK(text.ids.size() > 10);
    CHECK(*std::max_element(text.ids.begin(), text.ids.end()) < 601);
  }
}

TEST_CASE("a conversation is read turn by turn", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const std::vector<Message> chat{{ChatRole::system, "You are terse."},
                                  {ChatRole::user, "Rates?"},
                                  {ChatRole::assistant, "Up."},
                                  {ChatRole::user, "Why?"}};
  const Generation& text = desk.generate(std::span<const Message>(chat), quiet, {.max_tokens = 5});
  std::vector<std::int32_t> ids;
  auto scratch = team.chat().scratch(team.tokenizer(), 1000);
  team.chat().encode(team.tokenizer(), scratch, chat, ids);
  CHECK(text.prompt_tokens == static_cast<index_t>(ids.size()));
  CHECK(text.ids.size() == 5);
}

TEST_CASE("classify and score throw when they are stopped, and the session goes on", "[team]") {
  const auto team = open_team(test::golden_team());
  Session desk(team);
  const View before = desk.classify("sentiment", question);
  std::stop_source source;
  source.request_stop();
  const auto code_of = [](auto&& call) {
    try {
      call();
    } catch (const Error& e) {
      return e.code();
    }
    return Code::system;
  };
  CHECK(code_of([&] { desk.classify("sentiment", question, {.interrupt = {.stop = source.get_token()}}); }) ==
        Code::cancelled);
  const auto past = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  CHECK(code_of([&] { desk.score(question, {.interrupt = {.deadline = past}}); }) == Code::deadline);
  CHECK(desk.classify("sentiment", question).probabilities == before.probabilities);
}

TEST_CASE("loading reports its progress up to the last byte", "[team]") {
  std::uint64_t last = 0, total = 0;
  int calls = 0;
  bool rising = true;
  const auto team = open_team(test::golden_team(), {.progress = [&](std::uint64_t done, std::uint64_t all) {
                                rising = rising && done >= last && done <= all;
                                last = done;
                                total = all;
                                ++calls;
                              }});
  CHECK(rising);
  CHECK(calls > 10);
  CHECK(last == total);
  CHECK(total > 0);
}

TEST_CASE("a caller's memory resource gives the weights, the caches and the scratch, and gets all of it back",
          "[team][law4]") {
  struct Counting : std::pmr::memory_resource {
    std::size_t live = 0, most = 0;
    void* do_allocate(std::size_t bytes, std::size_t alignment) override {
      live += bytes;
      most = std::max(most, live);
      return std::pmr::new_delete_resource()->allocate(bytes, alignment);
    }
    void do_deallocate(void* p, std::size_t bytes, std::size_t alignment) override {
      live -= bytes;
      std::pmr::new_delete_resource()->deallocate(p, bytes, alignment);
    }
    [[nodiscard]] bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
  } weights, scratch;
  {
    const auto team = open_team(test::golden_team(), {.memory = &weights});
    Session desk(team, {.memory = &scratch});
    CHECK(weights.live > 3 * 601 * 32 * 4);
    CHECK(scratch.live > 0);
    (void)desk.classify("sentiment", question);
  }
  CHECK(weights.live == 0);
  CHECK(scratch.live == 0);
}
