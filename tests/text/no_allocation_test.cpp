// Counts malloc while the hot calls run. It defines malloc, so it wants a program of its own; skipped aloud where a
// sanitizer has its own malloc, or the C library is not glibc.
#include <finteam/file/json_view.hpp>
#include <finteam/text/chat.hpp>
#include <finteam/text/sampler.hpp>
#include <finteam/text/stop.hpp>

#include "catch.hpp"
#include "text/goldens.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define FINTEAM_TEST_NO_MALLOC
#endif
#endif
#else
#define FINTEAM_TEST_NO_MALLOC
#endif

namespace {
std::atomic<long> allocations{0};
}

#ifndef FINTEAM_TEST_NO_MALLOC
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t n) { return ++allocations, __libc_malloc(n); }
void* calloc(std::size_t n, std::size_t m) { return ++allocations, __libc_calloc(n, m); }
void* realloc(void* p, std::size_t n) { return ++allocations, __libc_realloc(p, n); }
void* aligned_alloc(std::size_t a, std::size_t n) { return ++allocations, __libc_memalign(a, n); }
}
#endif

using namespace finteam;

namespace {

/// How often f allocates.
template <class F>
long count(F&& f) {
  const long before = allocations;
  f();
  return allocations - before;
}

bool counting() {
#ifdef FINTEAM_TEST_NO_MALLOC
  WARN("skipped: malloc is not ours in this build");
  return false;
#else
  return count([] {
           std::vector<int> v(100);
           CHECK(v.size() == 100);
         }) > 0;
#endif
}

}  // namespace

TEST_CASE("Encoding, decoding and stopping allocate nothing within their limits", "[law4]") {
  if (!counting()) return;
  const Tokenizer tokenizer = Tokenizer::open(finteam_test::tokenizer_goldens() / "llama3.json");
  const ChatFormat format = ChatFormat::llama3(tokenizer);
  ChatLayout no_tokens = chat_layout("llama-2", "");  // markers, and contents stripped with what is beside them
  no_tokens.tokens.clear();
  no_tokens.end.clear();
  const ChatFormat plain(no_tokens, tokenizer);
  ChatFormat::Scratch plain_scratch = plain.scratch(tokenizer, 10000);
  std::vector<std::string> texts = {std::string(10000, 'a'), std::string(10000, ' '), std::string(10000, '='), ""};
  for (const Json& line : finteam_test::read_lines(finteam_test::tokenizer_goldens() / "strings.jsonl")) {
    texts.push_back(line["text"].get<std::string>());
  }
  ChatFormat::Scratch scratch = format.scratch(tokenizer, 10000);
  StreamDecoder stream(tokenizer);
  StopMatcher stop({"never in there", "\n\n\n\n\n"}, stream.max_piece_bytes());
  std::vector<std::int32_t> ids;
  ids.reserve(20000);
  std::size_t bytes = 0;
  CHECK(count([&] {
          for (const std::string& text : texts) {
            ids.clear();
            tokenizer.encode(text, scratch.text(text), ids);
            for (const std::int32_t id : ids) bytes += stop.push(stream.push(id)).size();
            bytes += stop.push(stream.flush()).size() + stop.flush().size();
            ids.clear();
            const Message message{ChatRole::user, text};
            format.encode(tokenizer, scratch, {&message, 1}, ids);
            if (text.find("[INST]") != std::string::npos) continue;  // refused
            ids.clear();
            plain.encode(tokenizer, plain_scratch, {&message, 1}, ids);
          }
        }) == 0);
  CHECK(bytes > 50000);
}

TEST_CASE("No kind of tokenizer allocates within its limits", "[law4]") {
  if (!counting()) return;
  const auto folder = finteam_test::tokenizer_goldens() / "parity";
  std::vector<std::string> texts = {std::string(3000, 'a'), std::string(3000, ' '), std::string(3000, '\n'), ""};
  for (const Json& line : finteam_test::read_lines(finteam_test::tokenizer_goldens() / "strings.jsonl")) {
    texts.push_back(line["text"].get<std::string>());
  }
  const JsonFile kinds = JsonFile::open(folder / "golden.json");
  for (const Json& kind : kinds.root().json()) {
    if (kind["file"] == "") continue;  // a real one
    Json file = JsonFile::open(folder / kind["file"].get<std::string>()).root().json();
    for (const auto& [pointer, value] : kind["changes"].items()) file[Json::json_pointer(pointer)] = value;
    const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "t");
    Tokenizer::Scratch scratch = tokenizer.scratch(3000);
    StreamDecoder stream(tokenizer);
    std::vector<std::int32_t> ids;
    ids.reserve(tokenizer.max_ids(3000));
    std::size_t bytes = 0;
    CAPTURE(kind["name"].get<std::string>());
    CHECK(count([&] {
            for (const std::string& text : texts) {
              ids.clear();
              tokenizer.encode(text, scratch, ids);
              for (const std::int32_t id : ids) bytes += stream.push(id).size();
              bytes += stream.flush().size();
            }
          }) == 0);
    CHECK(bytes > 20000);
  }
}

TEST_CASE("Both engines match, and give up, without allocating", "[law4]") {
  if (!counting()) return;
  const std::string text(50000, 'a');
  for (const PatternEngine engine : {PatternEngine::fastest, PatternEngine::interpreter}) {
    const Pattern deep("(?:(a)|b)*[cd]|(?:ab?){1,50}", "test", engine), plain("[ab]{1,7}|.", "test", engine);
    Pattern::Scratch scratch;
    std::size_t matches = 0;
    CHECK(count([&] {
            for (Pattern::Search search(plain, scratch, text); search.next();) ++matches;
            for (Pattern::Search search(plain, scratch, text); search.next();) ++matches;
          }) == 0);
    CHECK(matches == 2 * 7143);
    Pattern::Search search(deep, scratch, text);  // an Error is allowed to allocate itself, PCRE2 is not
    CHECK_THROWS_AS(search.next(), Error);
  }
}

TEST_CASE("Sampling allocates nothing", "[law4]") {
  if (!counting()) return;
  std::mt19937 random(1);
  std::vector<float> log_p(5000);
  for (float& x : log_p) x = static_cast<float>(random() % 1000) * -0.01F;
  const std::vector<std::int32_t> seen = {3, 4999, 17};
  Sampler sampler(5000);
  std::int64_t sum = 0;
  CHECK(count([&] {
          for (int i = 0; i < 20; ++i) {
            for (const Sampling& s : {Sampling{}, Sampling{.temperature = 1}, Sampling{.temperature = 1, .top_k = 40},
                                      Sampling{.temperature = 0.8F, .top_k = 400, .top_p = 0.9F, .seed = 2},
                                      Sampling{.temperature = 1, .min_p = 0.1F, .repetition_penalty = 1.2F}}) {
              sum += sampler.sample({log_p.data(), {5000}}, i, s, seen);
            }
          }
        }) == 0);
  CHECK(sum > 0);
}
