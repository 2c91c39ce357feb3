#ifdef __x86_64__
#include <immintrin.h>

#define VARIANT avx2
#define TARGET __attribute__((target("avx2,fma")))
#define RUNS __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
#define LANES 8
#define HEIGHT 6
#define VECTORS 2
#define FMA _mm256_fmadd_ps
#define MAX _mm256_max_ps
#include "_kernels_variant.h"
#endif
