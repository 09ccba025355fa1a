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
#if defined(__x86_64__)
  FpEnvironment() noexcept : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80U); }
  ~FpEnvironment() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  FpEnvironment() noexcept {
    asm volatile("mrs %0, fpcr" : "=r"(saved_)::"memory");
    asm volatile("msr fpcr, %0" ::"r"(std::uint64_t{0}) : "memory");
  }
  ~FpEnvironment() { asm volatile("msr fpcr, %0" ::"r"(saved_) : "memory"); }
#else
  FpEnvironment() noexcept {}
  ~FpEnvironment() {}
#endif
  FpEnvironment(const FpEnvironment&) = delete;
  FpEnvironment& operator=(const FpEnvironment&) = delete;

 private:
#if defined(__x86_64__)
  unsigned saved_;
#elif defined(__aarch64__)
  std::uint64_t saved_ = 0;
#endif
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
