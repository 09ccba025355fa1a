# How our own programs and tests are compiled: warnings are errors, and for this machine if FINTEAM_NATIVE.
# None of this reaches a consumer.

# Warnings are errors with the compilers that this code is checked with: another one's new warning must not keep a user
# from building. Third-party headers come through imported targets, which are SYSTEM.
set(_checked OFF)
if((CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
   OR (CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 15))
  set(_checked ON)
endif()
option(FINTEAM_WERROR "Warnings in our own programs and tests are errors" ${_checked})
add_library(finteam_warnings INTERFACE)
# Files that are compiled as one may use each other's names for locals of their own.
target_compile_options(finteam_warnings INTERFACE -Wall -Wextra -Wconversion -Wno-sign-conversion
                       $<$<NOT:$<BOOL:$<TARGET_PROPERTY:UNITY_BUILD>>>:-Wshadow> $<$<BOOL:${FINTEAM_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 sees overlapping copies in "literal" + std::string where there are none (GCC bug 105651), and reads of
  # uninitialised values in its own AVX-512 intrinsics, which start from an undefined register (GCC bug 105593).
  target_compile_options(finteam_warnings INTERFACE -Wno-restrict -Wno-maybe-uninitialized)
endif()

# The instruction sets that tests are compiled for, and their flags. "native" is what the rest of the build uses;
# "avx512" has no dot products of short types.
set(FINTEAM_FLAGS_native "")
set(FINTEAM_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(FINTEAM_FLAGS_avx512 -march=skylake-avx512)
set(FINTEAM_FLAGS_x86-64 "")
if(FINTEAM_NATIVE)
  set(FINTEAM_FLAGS_native -march=native)
endif()
set(FINTEAM_SANITIZE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)

# finteam_ours(TARGET [ISA]): one of our targets, for the named instruction set (native if none is named).
function(finteam_ours target)
  set(isa native)
  if(ARGC GREATER 1)
    set(isa ${ARGV1})
  endif()
  target_link_libraries(${target} PRIVATE finteam::finteam finteam_warnings)
  target_compile_options(${target} PRIVATE ${FINTEAM_FLAGS_${isa}})
endfunction()

# FINTEAM_RUNS_…: can this machine run what is compiled for that instruction set? Asked once, by running a program.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$" AND NOT CMAKE_CROSSCOMPILING)
  set(FINTEAM_X86_64 ON)
  include(CheckCXXSourceRuns)
  check_cxx_source_runs([[
    #include <cpuid.h>
    int main() {
      unsigned a, b, c = 0, d;
      const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
      return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 0 : 1;
    }]] FINTEAM_RUNS_avx2)
  check_cxx_source_runs([[
    int main() {
      const bool foundation = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd");
      const bool rest = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
      return foundation && rest && __builtin_cpu_supports("avx512vl") ? 0 : 1;
    }]] FINTEAM_RUNS_avx512)
  set(FINTEAM_RUNS_x86-64 ON)
endif()
