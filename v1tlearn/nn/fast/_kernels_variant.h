/* The kernels for one kind of vector.

   The file that includes this defines VARIANT (its name), RUNS (whether the processor has what it
   needs), TARGET, LANES (numbers in a vector), HEIGHT and VECTORS (rows, and vectors in each, of the
   products that lie in registers), and FMA(a, b, c). It may define what else these vectors do at
   once: MAX, SUM, LARGEST, KEPT, and, of bfloat16, NARROW, WEAVE and MULTIPLY_ADD_PAIRS. All else is
   in the vectors of GCC and Clang. */

#include "_kernels_shared.h"

#define PANEL (VECTORS * LANES)
_Static_assert(LARGEST_PANEL % PANEL == 0 && KEYS % PANEL == 0, "tiles consist of panels");

typedef float floats __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), may_alias));
typedef uint16_t shorts __attribute__((vector_size(2 * LANES), may_alias));
typedef floats loose_floats __attribute__((aligned(4)));
typedef words loose_words __attribute__((aligned(4)));
typedef shorts loose_shorts __attribute__((aligned(2)));

TARGET static inline floats load(const void *from)
{
  return *(const loose_floats *)from;
}

TARGET static inline void store(void *to, floats x)
{
  *(loose_floats *)to = x;
}

TARGET static inline floats all(float x)
{
  return x - (floats){0};
}

#ifndef MAX
#define MAX larger
/* b where either is not a number. */
TARGET static inline floats larger(floats a, floats b)
{
  const ints first = a > b;
  return (floats)((first & (ints)a) | (~first & (ints)b));
}
#endif

#ifndef SUM
#define SUM sum_of
#define LARGEST largest_of
/* By halves, which compilers turn into operations on vectors. */
TARGET static inline float sum_of(floats x)
{
  for (int n = LANES / 2; n > 0; n /= 2)
    for (int i = 0; i < n; i++)
      x[i] += x[i + n];
  return x[0];
}

TARGET static inline float largest_of(floats x)
{
  for (int n = LANES / 2; n > 0; n /= 2)
    for (int i = 0; i < n; i++)
      x[i] = x[i] > x[i + n] ? x[i] : x[i + n];
  return x[0];
}
#endif

/* -- which weights are dropped ------------------------------------------------------------------ */

/* Random numbers of the n weights from `key` on, in whole vectors, if any are dropped: a 32-bit
   mixing function with multiplications, into which the query enters twice, so that rows are not one
   another's shifted. */
TARGET static inline void draw(uint32_t limit, uint64_t row, long key, long n, uint16_t *numbers)
{
  words pairs;
  for (int i = 0; i < LANES; i++)
    pairs[i] = (uint32_t)i;
  for (long j = 0; limit && j < n; j += 2 * LANES) {
    words x = (pairs + (uint32_t)((key + j) / 2)) * 0x9e3779b9u + (uint32_t)row;
    x = (x ^ (x >> 16)) * 0x7feb352du ^ (uint32_t)(row >> 32);
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    *(loose_words *)(numbers + j) = x ^ (x >> 16);
  }
}

#ifndef KEPT
#define KEPT kept
/* A vector, with zeros where its random numbers are too small. */
TARGET static inline floats kept(floats x, const uint16_t *numbers, uint32_t limit)
{
  const ints drawn = __builtin_convertvector(*(const loose_shorts *)numbers, ints);
  return (floats)((ints)x & (drawn >= (int32_t)limit));
}
#endif

/* -- rows of scores ----------------------------------------------------------------------------- */

/* 2^x of x <= 0 within 2e-7 of it, 0 below 2^-126, by a polynomial on [-1/2, 1/2]. */
TARGET static inline floats exp2_of(floats x)
{
  x = MAX(all(-127), x); /* NaN stays */
  /* Rounded to whole numbers, which the last bits of this sum are, as exponents of floats. */
  const floats sum = x + 12583039.0f, rest = x - (sum - 12583039.0f);
  floats y = FMA(all(1.535336188319500e-4f), rest, all(1.339887440266574e-3f));
  y = FMA(y, rest, all(9.618437357674640e-3f));
  y = FMA(y, rest, all(5.550332471162809e-2f));
  y = FMA(y, rest, all(2.402264791363012e-1f));
  y = FMA(y, rest, all(6.931472028550421e-1f));
  y = FMA(y, rest, all(1));
  return y * (floats)((words)sum << 23);
}

/* Of scores times a scale, rounded like the maximum, lest a large one be far from itself. */
TARGET static inline floats exponentials(const float *scores, float scale, float shift)
{
  return exp2_of(load(scores) * scale - shift);
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
  floats most = all(*maximum);
  for (long j = 0; j < n; j += LANES)
    most = MAX(most, load(row + j) * scale);
  const float before = *maximum;
  *maximum = LARGEST(most);
  return *maximum == before ? 1 : exp2f(before - *maximum);
}

TARGET static inline void scale_row(float *row, long n, float factor)
{
  for (long j = 0; j < n; j += LANES)
    store(row + j, load(row + j) * factor);
}

TARGET static inline void combine_rows(float *a, float a_factor, const float *b, float b_factor,
                                       long n)
{
  for (long j = 0; j < n; j += LANES)
    store(a + j, FMA(load(a + j), all(a_factor), load(b + j) * b_factor));
}

/* -- float32 ------------------------------------------------------------------------------------ */

#define NAME(x) x##_float32
#define PER_WORD 1
#define element float
#define MULTIPLY_ADD(sum, a, b) FMA((floats)(a), (floats)(b), sum)
#define READ(from) load(from)
#define WRITE(to, x) store(to, x)
#define PAIRED(first, second) ((words)(first))
#include "_kernels_typed.h"
#undef NAME
#undef PER_WORD
#undef element
#undef MULTIPLY_ADD
#undef READ
#undef WRITE
#undef PAIRED

/* -- bfloat16: products of bfloat16, everything else in float32 --------------------------------- */

#define HIGH 0xffff0000u

#ifdef NARROW
#define MULTIPLIES_BFLOAT16 1
#else
#define MULTIPLIES_BFLOAT16 0
#define NARROW(x) __builtin_convertvector(rounded(x) >> 16, shorts)
#define WEAVE(first, second) (rounded(first) >> 16 | (rounded(second) & HIGH))
#define MULTIPLY_ADD_PAIRS(sum, a, b)                                                              \
  FMA((floats)((a) & HIGH), (floats)((b) & HIGH),                                                  \
      FMA((floats)((a) << 16), (floats)((b) << 16), sum))

/* Numbers whose first half is the nearest bfloat16, or not a number either. */
TARGET static inline words rounded(floats x)
{
  const words bits = (words)x, nan = (words)(x != x);
  return (~nan & (bits + 0x7fff + (bits >> 16 & 1))) | (nan & (bits | 0x400000));
}
#endif

#define NAME(x) x##_bfloat16
#define PER_WORD 2
#define element uint16_t
#define MULTIPLY_ADD MULTIPLY_ADD_PAIRS
#define READ(from) (floats)(__builtin_convertvector(*(const loose_shorts *)(from), words) << 16)
#define WRITE(to, x) (*(loose_shorts *)(to) = (shorts)NARROW(x))
#define PAIRED(first, second) (words)WEAVE(first, second)
#include "_kernels_typed.h"

static int runs(void)
{
  return RUNS;
}

const struct variant VARIANT = {
    .name = NAME_OF(VARIANT),
    .runs = runs,
    .multiplies_bfloat16 = MULTIPLIES_BFLOAT16,
    .float32 = {memory_float32, do_unit_float32, drop_float32},
    .bfloat16 = {memory_bfloat16, do_unit_bfloat16, drop_bfloat16},
};
