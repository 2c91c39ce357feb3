#ifdef __x86_64__
#define VARIANT avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#define RUNS HAS_AVX512
#include "_kernels_avx512.h"
#endif
