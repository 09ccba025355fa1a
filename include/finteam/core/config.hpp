// Version, the inline namespace that carries version and instruction set, and the build switches.
// Not here: anything that a program could change at run time.
#pragma once

#define FINTEAM_VERSION_MAJOR 0
#define FINTEAM_VERSION_MINOR 1
#define FINTEAM_VERSION_PATCH 0

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "finteam: -ffast-math, or a part of it, would change answers between builds; compile this file without it"
#endif

// Two translation units built for different instruction sets must never merge in the linker.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__FMA__)
#if defined(__AVX512VNNI__) && defined(__AVX512BF16__)
#define FINTEAM_ABI v0_1_avx512_vnni_bf16
#elif defined(__AVX512VNNI__)
#define FINTEAM_ABI v0_1_avx512_vnni
#elif defined(__AVX512BF16__)
#define FINTEAM_ABI v0_1_avx512_bf16
#else
#define FINTEAM_ABI v0_1_avx512
#endif
#elif defined(__AVX2__) && defined(__FMA__) && defined(__AVXVNNI__)
#define FINTEAM_ABI v0_1_avx2_vnni
#elif defined(__AVX2__) && defined(__FMA__)
#define FINTEAM_ABI v0_1_avx2
#elif defined(__x86_64__) && defined(__FMA__)
#define FINTEAM_ABI v0_1_x86_64_fma
#elif defined(__x86_64__)
#define FINTEAM_ABI v0_1_x86_64
#else
#define FINTEAM_ABI v0_1_generic
#endif
