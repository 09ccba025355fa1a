// The floating-point control word, set for as long as an op runs and given back after it.
// Hosts set flush-to-zero and other rounding modes for their own code; answers must not depend on that (law 3).
// Not here: the exception flags' values, which are restored with the rest of the word.
#pragma once

#include <finteam/core/config.hpp>

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#endif

namespace finteam::inline FINTEAM_ABI {

/// From construction to destruction: round to nearest, subnormals kept (no FTZ, no DAZ), exceptions masked.
/// x86-64 and AArch64; elsewhere it does nothing.
class FpEnvironment {
 public:
  FpEnvironment() noexcept : host_(word()) { set(ours); }
  ~FpEnvironment() { set(host_); }
  FpEnvironment(const FpEnvironment&) = delete;
  FpEnvironment& operator=(const FpEnvironment&) = delete;

  /// f() in the environment that the host had: for a callback of the host's.
  template <class F>
  decltype(auto) outside(F&& f) const {
    struct Back {
      Word word;
      ~Back() { set(word); }
    } const back{word()};
    set(host_);
    return f();
  }

 private:
#if defined(__x86_64__)
  using Word = unsigned;
  static constexpr Word ours = 0x1F80U;
  static Word word() noexcept { return _mm_getcsr(); }
  static void set(Word word) noexcept { _mm_setcsr(word); }
#elif defined(__aarch64__)
  using Word = std::uint64_t;
  static constexpr Word ours = 0;
  static Word word() noexcept {
    Word word;
    asm volatile("mrs %0, fpcr" : "=r"(word)::"memory");
    return word;
  }
  static void set(Word word) noexcept { asm volatile("msr fpcr, %0" ::"r"(word) : "memory"); }
#else
  using Word = int;
  static constexpr Word ours = 0;
  static Word word() noexcept { return 0; }
  static void set(Word) noexcept {}
#endif

  Word host_;
};

namespace detail {

/// A call that the compiler does not look into, so that no arithmetic moves out of an FpEnvironment's scope.
template <class F, class... Arguments>
[[gnu::noinline]] void call(F& f, Arguments... arguments) noexcept {
  f(arguments...);
}

/// f(arguments…) inside an FpEnvironment.
template <class F, class... Arguments>
void with_fp_environment(F&& f, Arguments... arguments) noexcept {
  const FpEnvironment environment;
  call(f, arguments...);
}

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
