/* What the kernels of all types of numbers share: sizes, random numbers, rows of scores. */

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Tokens of a tile, which should stay in the second cache; 12 x 32 products lie in registers. */
#define QUERIES 288
#define KEYS 192
#define PANEL 32
#define DROPPED_AT_ONCE 16384

#define SMALLER(a, b) ((a) < (b) ? (a) : (b))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define TILES(n, size) (((n) + (size)-1) / (size))
#define ROUND_UP(n, size) (TILES(n, size) * (size))

#define FLOAT32_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#define BFLOAT16_TARGET                                                                            \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,avx512bf16")))
#define TARGET FLOAT32_TARGET

typedef uint32_t word;

/* What all heads of all images have in common. Steps are in elements, from token to token. */
struct attention {
  long n_tokens, n_heads, width;
  long q_step, kv_step, out_step;
  float scale, log2_scale; /* of the products of queries and keys; the second times log2(e) */
  float upscale;           /* of weights that are kept */
  uint32_t limit;          /* a weight is dropped where 16 random bits are below */
  int local;               /* no token attends to itself */
};

/* Either queries, keys and values (images, tokens, 3, heads, width), or, with `shared`, queries
   (images, tokens, heads, width) and tokens (images, tokens, width) that are the keys and values of
   all heads; their gradients are (images, heads, tokens, width). */
struct tensors {
  uint64_t seed;
  const void *q, *shared, *grad; /* grad is NULL for the forward pass */
  void *out, *q_grad, *shared_grad;
  float *log_sums;
};

/* The next words of some memory, on cache lines of their own; only counted if there is none. */
static void *take(char *memory, size_t *used, long n_words)
{
  char *here = memory ? memory + *used : NULL;
  *used += ROUND_UP((size_t)n_words, 16) * sizeof(word);
  return here;
}

/* -- which weights are dropped ------------------------------------------------------------------ */

static inline uint64_t mixed_bits(uint64_t x)
{
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/* What the random numbers of a query's weights start from. */
static inline uint64_t random_row(uint64_t seed, long query)
{
  return mixed_bits(seed ^ mixed_bits((uint64_t)query));
}

/* Which of the 32 numbers from `key` on are kept: a 32-bit mixing function with multiplications,
   into which the query enters twice, so that rows are not one another's shifted. */
TARGET static inline __mmask32 kept(uint32_t limit, uint64_t row, long key)
{
  const __m512i pairs = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  if (limit == 0)
    return ~(__mmask32)0;
  __m512i x = _mm512_add_epi32(pairs, _mm512_set1_epi32((int)(key / 2)));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32((int)0x9e3779b9u));
  x = _mm512_add_epi32(x, _mm512_set1_epi32((int)(uint32_t)row));
  x = _mm512_xor_epi32(x, _mm512_srli_epi32(x, 16));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32((int)0x7feb352du));
  x = _mm512_xor_epi32(x, _mm512_set1_epi32((int)(uint32_t)(row >> 32)));
  x = _mm512_xor_epi32(x, _mm512_srli_epi32(x, 15));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32((int)0x846ca68bu));
  x = _mm512_xor_epi32(x, _mm512_srli_epi32(x, 16));
  return _mm512_cmpge_epu16_mask(x, _mm512_set1_epi16((short)limit));
}

/* -- rows of scores ----------------------------------------------------------------------------- */

/* 2^x within 2e-7 of it, 0 below 2^-149, by a polynomial on [-1/2, 1/2]. */
TARGET static inline __m512 exp2_of(__m512 x)
{
  x = _mm512_max_ps(_mm512_set1_ps(-150), x); /* NaN stays */
  const __m512 whole = _mm512_roundscale_ps(x, 0), rest = _mm512_sub_ps(x, whole);
  __m512 y = _mm512_set1_ps(1.535336188319500e-4f);
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.339887440266574e-3f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(9.618437357674640e-3f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(5.550332471162809e-2f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(2.402264791363012e-1f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(6.931472028550421e-1f));
  y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1));
  return _mm512_scalef_ps(y, whole);
}

TARGET static inline __m512 exponentials(const float *scores, float scale, float shift)
{
  const __m512 x = _mm512_loadu_ps(scores);
  /* Rounded like the maximum, lest a large one be far from itself. */
  return exp2_of(_mm512_sub_ps(_mm512_mul_ps(x, _mm512_set1_ps(scale)), _mm512_set1_ps(shift)));
}

/* Minus infinity where there is no key, and where a token would attend to itself. */
static void hide(const struct attention *unit, float *scores, long n_queries, long n_keys,
                 long query, long key)
{
  const float never = unit->scale < 0 ? INFINITY : -INFINITY; /* once multiplied */
  for (long i = 0; i < n_queries; i++)
    for (long j = n_keys; j < ROUND_UP(n_keys, PANEL); j++)
      scores[i * KEYS + j] = never;
  if (unit->local)
    for (long i = LARGER(0, key - query); i < SMALLER(n_queries, key + n_keys - query); i++)
      scores[i * KEYS + query + i - key] = never;
}

/* Raise a maximum of scores; return the factor of what was summed with the former one. */
TARGET static inline float raise_maximum(const float *row, long n, float scale, float *maximum)
{
  __m512 most = _mm512_set1_ps(*maximum);
  for (long j = 0; j < n; j += 16)
    most = _mm512_max_ps(most, _mm512_mul_ps(_mm512_loadu_ps(row + j), _mm512_set1_ps(scale)));
  const float before = *maximum;
  *maximum = _mm512_reduce_max_ps(most);
  return *maximum == before ? 1 : exp2f(before - *maximum);
}

TARGET static inline void scale_row(float *row, long n, float factor)
{
  for (long j = 0; j < n; j += 16)
    _mm512_storeu_ps(row + j, _mm512_mul_ps(_mm512_loadu_ps(row + j), _mm512_set1_ps(factor)));
}

TARGET static inline void combine_rows(float *a, float a_factor, const float *b, float b_factor,
                                       long n)
{
  for (long j = 0; j < n; j += 16) {
    const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(b + j), _mm512_set1_ps(b_factor));
    _mm512_storeu_ps(a + j, _mm512_fmadd_ps(_mm512_loadu_ps(a + j), _mm512_set1_ps(a_factor), x));
  }
}

/* The first n of sixteen lanes. */
static inline __mmask16 lanes(long n)
{
  if (n <= 0)
    return 0;
  return n < 16 ? (__mmask16)((1u << n) - 1) : (__mmask16)-1;
}
