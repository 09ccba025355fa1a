// How work is spread over threads: a fork-join call that the caller may bring, and a reference to one.
// Not here: threads. The library starts none unless the caller makes a ThreadPool (thread_pool.hpp).
#pragma once

#include <finteam/core/checked.hpp>

#include <concepts>
#include <type_traits>

namespace finteam::inline FINTEAM_ABI {

/// Work to be done for every index: a function pointer and its context, neither owned. Must not throw.
struct Work {
  void (*run)(void* context, index_t index) = nullptr;
  void* context = nullptr;
};

/// Runs work.run(work.context, i) for every i in [0, count), each exactly once, in any order, on any threads, and
/// returns when all have finished. `concurrency()` is how many may run at once (at least 1). Neither call may throw.
/// Results never depend on the executor (law 3).
template <class E>
concept Executor = requires(E& e, index_t count, Work work) {
  e.run(count, work);
  { e.concurrency() } -> std::convertible_to<index_t>;
};

/// Runs everything on the calling thread.
struct Serial {
  void run(index_t count, Work work) const noexcept {
    for (index_t i = 0; i < count; ++i) work.run(work.context, i);
  }
  [[nodiscard]] index_t concurrency() const noexcept { return 1; }
};

/// A non-owning reference to any Executor; Serial by default. The executor must outlive it.
class ExecutorRef {
 public:
  ExecutorRef() noexcept = default;

  template <Executor E>
  requires(!std::same_as<E, ExecutorRef>) ExecutorRef(E& executor)
  noexcept  // NOLINT: a reference converts as a string converts to string_view
      : executor_(&executor),
        run_([](void* e, index_t count, Work work) { static_cast<E*>(e)->run(count, work); }),
        concurrency_([](void* e) -> index_t { return static_cast<E*>(e)->concurrency(); }) {}

  void run(index_t count, Work work) const {
    if (executor_ != nullptr) {
      run_(executor_, count, work);
    } else {
      Serial{}.run(count, work);
    }
  }
  [[nodiscard]] index_t concurrency() const { return executor_ != nullptr ? concurrency_(executor_) : 1; }

 private:
  void* executor_ = nullptr;
  void (*run_)(void*, index_t, Work) = nullptr;
  index_t (*concurrency_)(void*) = nullptr;
};

/// f(i) for every i in [0, count), by way of an executor. f must not throw.
template <class F>
void parallel_for(const ExecutorRef& executor, index_t count, F&& f) {
  using Function = std::remove_reference_t<F>;
  executor.run(count, Work{[](void* context, index_t i) { (*static_cast<Function*>(context))(i); },
                           const_cast<void*>(static_cast<const void*>(&f))});
}

}  // namespace finteam::inline FINTEAM_ABI
