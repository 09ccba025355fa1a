// Law 4: within a session's limits nothing is allocated. malloc itself is interposed, so C libraries are counted too.

#include "catch.hpp"
#include "team/answers.hpp"
#include "team/merged_team.hpp"
#include "team/shared_folder.hpp"

#include <finteam/backend/thread_pool.hpp>
#include <finteam/team/session.hpp>

#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FINTEAM_TEST_COUNTS_MALLOC 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef FINTEAM_TEST_COUNTS_MALLOC
#endif
#endif

#ifdef FINTEAM_TEST_COUNTS_MALLOC

namespace {
std::atomic<bool> counting{false};
std::atomic<int> allocations{0};
void count() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t n) {
  count();
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  count();
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  count();
  return __libc_realloc(p, n);
}
void* aligned_alloc(std::size_t alignment, std::size_t n) {
  count();
  return __libc_memalign(alignment, n);
}
}

using namespace finteam;
using test::quiet;

namespace {

template <class F>
int allocations_of(F&& f) {
  allocations = 0;
  counting = true;
  f();
  counting = false;
  return allocations;
}

}  // namespace

TEST_CASE("the counter of allocations counts", "[law4]") {
  CHECK(allocations_of([] { delete new std::string(1000, 'x'); }) >= 1);
  CHECK(allocations_of([] {
          void* volatile kept = malloc(10);  // volatile: Clang would take an unused pair away
          free(kept);
        }) == 1);
}

TEST_CASE("within a session's limits no call allocates, the first one neither", "[law4]") {
  const auto with_threads = GENERATE(1, 2);
  CAPTURE(with_threads);
  ThreadPool pool(with_threads);
  const auto team = open_team(test::golden_team(), {}, Cpu(pool));
  Session desk(team, {.tokens = 300, .labels = 4, .rows = 64}, Cpu(pool));
  const std::string text =
      "Profit rose 12% in the third quarter, but the outlook for Zürich stays weak, the company said on Tuesday";
  const Task task{.instruction = "Which of these?",
                  .input = "Text: {text}",
                  .labels = {"up", "down", "neither up nor down this time"}};
  const GenerateOptions sampled{.max_tokens = 50,
                                .sampling = {.temperature = 0.9F, .top_k = 20, .top_p = 0.9F, .seed = 3}};
  std::size_t streamed = 0;
  const auto count_bytes = [&](std::string_view s) { streamed += s.size(); };

  CHECK(allocations_of([&] { (void)desk.classify("sentiment", text); }) == 0);
  CHECK(allocations_of([&] { (void)desk.classify(task, text, {.wake = Wake::all}); }) == 0);
  CHECK(allocations_of([&] { (void)desk.classify("direction", text); }) == 0);
  Task calibrated = task;
  calibrated.calibration = {.temperature = 2, .threshold = 0.9, .prior_then = {1, 1, 2}};
  const std::vector<double> now{2, 1, 1};
  const Ask careful{.wake = Wake::all, .abstain = {.least_probability = 0.9}, .prior_now = now};
  CHECK(allocations_of([&] { (void)desk.classify(calibrated, text, careful); }) == 0);
  CHECK(allocations_of([&] { (void)desk.embed(text, {.of = "micro", .layer = 1, .form = PromptForm::chat}); }) == 0);
  CHECK(allocations_of([&] { (void)desk.embed(text, {.layer = 0, .pooling = Pooling::last}); }) == 0);
  CHECK(allocations_of([&] { (void)desk.next_logits(text, "quant"); }) == 0);
  CHECK(allocations_of([&] { (void)desk.next_log_probabilities(text); }) == 0);
  CHECK(allocations_of([&] { (void)desk.score(text); }) == 0);
  CHECK(allocations_of([&] { (void)desk.generate(text, count_bytes, {.max_tokens = 50}); }) == 0);
  CHECK(allocations_of([&] { (void)desk.generate(text, count_bytes, sampled); }) == 0);
  CHECK(streamed > 0);
}

TEST_CASE("no topology, gate or guess allocates either", "[law4]") {
  const auto by_token = [](Json& team) {
    team["gate"]["per"] = "token";
    team["gate"]["top_k"] = 1;
  };
  const test::SharedFolder shared, inside([](Json&team) { team["mix_in"] = "deltas"; }), tokens(by_token);
  const test::TeamFolder separate,
      long_names([](Json&team) { team["roles"][0]["name"] = "the analyst of everything that central banks say"; });
  const test::TeamFolder likelihood([](Json& team) {
    team["gate"] = {{"reads", "prompt_likelihood"}, {"per", "token"}};
  });
  const std::string text = "Profit rose 12% in the third quarter, but the outlook for the year stays weak";
  for (const auto& folder :
       {shared.path(), inside.path(), tokens.path(), separate.path(), long_names.path(), likelihood.path()}) {
    const auto team = open_team(folder);
    for (const Draft draft : {Draft::none, Draft::favourite, Draft::prompt}) {
      Session desk(team, {.tokens = 300, .labels = 4, .rows = 64});
      const GenerateOptions options{.max_tokens = 40,
                                    .sampling = {.temperature = 0.7F, .min_p = 0.01F, .repetition_penalty = 1.1F},
                                    .draft = draft};
      CHECK(allocations_of([&] { (void)desk.classify("sentiment", text, {.wake = Wake::all}); }) == 0);
      CHECK(allocations_of([&] { (void)desk.score(text); }) == 0);
      CHECK(allocations_of([&] { (void)desk.complete(text, quiet, options); }) == 0);
    }
  }
}

TEST_CASE("nor does a merged team's, whatever its routers choose", "[law4]") {
  const test::MergedTeam folder(test::merged_roles(GENERATE(false, true)));
  const auto team = open_team(folder.path());
  Session desk(team, {.tokens = 300, .labels = 4, .rows = 64});
  const std::string text = "Profit rose 12% in the third quarter, but the outlook for Zürich stays weak";
  const auto nothing = quiet;
  CHECK(allocations_of([&] { (void)desk.classify("sentiment", text); }) == 0);
  CHECK(allocations_of([&] { (void)desk.classify("direction", text, {.wake = Wake::all}); }) == 0);
  CHECK(allocations_of([&] { (void)desk.score(text); }) == 0);
  CHECK(allocations_of([&] { (void)desk.generate(text, nothing, {.max_tokens = 50}); }) == 0);
  CHECK(allocations_of([&] { (void)desk.generate(text, nothing, {.max_tokens = 50, .draft = Draft::prompt}); }) == 0);
}

#else

TEST_CASE("within a session's limits no call allocates, the first one neither", "[law4]") {
  WARN("skipped: malloc cannot be interposed in this build");
}

#endif
