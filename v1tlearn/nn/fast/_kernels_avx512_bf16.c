#ifdef __x86_64__
#define VARIANT avx512_bf16
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,avx512bf16")))
#define RUNS HAS_AVX512 && __builtin_cpu_supports("avx512bf16")
#define NARROW(x) _mm512_cvtneps_pbh(x)
#define WEAVE(first, second)                                                                       \
  _mm512_permutexvar_epi16(                                                                        \
      _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, \
                       21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0),                                  \
      (__m512i)_mm512_cvtne2ps_pbh(second, first))
#define MULTIPLY_ADD_PAIRS(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))
#include "_kernels_avx512.h"
#endif
