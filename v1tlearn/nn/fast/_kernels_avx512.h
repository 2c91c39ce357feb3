/* Vectors of 512 bits. */

#include <immintrin.h>

#define LANES 16
#define HEIGHT 12
#define VECTORS 2
#define FMA _mm512_fmadd_ps
#define MAX _mm512_max_ps
#define SUM _mm512_reduce_add_ps
#define LARGEST _mm512_reduce_max_ps
#define KEPT(x, numbers, limit)                                                                    \
  _mm512_maskz_mov_ps(_mm256_cmpge_epu16_mask(_mm256_loadu_si256((const __m256i *)(numbers)),      \
                                              _mm256_set1_epi16((short)(limit))),                  \
                      x)
#define HAS_AVX512                                                                                 \
  (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&                      \
   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&                     \
   __builtin_cpu_supports("fma"))

#include "_kernels_variant.h"
