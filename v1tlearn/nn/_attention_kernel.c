/* Attention with dropout on the weights, for processors with vectors of 512 bits.

   As in Dao et al. (2022), weights are computed tile by tile, in caches, and again in the backward
   pass; what is dropped follows from a hash of seed, query and key, whatever the tiles and threads.
   Python passes addresses of memory that it has checked: see _compiled_attention.py. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#if defined(__x86_64__) && defined(__GNUC__) && defined(_OPENMP)
#define HAS_KERNELS
#include <cpuid.h>
#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdatomic.h>
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

/* -- float32 ------------------------------------------------------------------------------------ */

#define NAME(x) x##_float32
#define PER_WORD 1
#define MULTIPLY_ADD(sum, a, b) _mm512_fmadd_ps(a, b, sum)
#define element float

/* Weights of one query but for their common factor, dropped; returns the sum of all. */
TARGET static inline float weigh_float32(const struct attention *unit, const float *scores, long n,
                                         float maximum, uint64_t row, long key, word *weights)
{
  __m512 total = _mm512_setzero_ps();
  float *to = (float *)weights;
  for (long j = 0; j < n; j += 32) {
    const __m512 low = exponentials(scores + j, unit->log2_scale, maximum);
    const __m512 high = exponentials(scores + j + 16, unit->log2_scale, maximum);
    const __mmask32 keep = kept(unit->limit, row, key + j);
    total = _mm512_add_ps(total, _mm512_add_ps(low, high));
    _mm512_storeu_ps(to + j, _mm512_maskz_mov_ps((__mmask16)keep, low));
    _mm512_storeu_ps(to + j + 16, _mm512_maskz_mov_ps((__mmask16)(keep >> 16), high));
  }
  return _mm512_reduce_add_ps(total);
}

/* Dropped weights of one query, but for `upscale`, and gradients of its scores, from those of its
   weights. */
TARGET static inline void weigh_back_float32(const struct attention *unit, const float *scores,
                                             const float *grads, long n_rows, long n,
                                             const float *log_sums, const float *deltas,
                                             uint64_t seed, long query, long key, word *weights,
                                             word *by_key, word *by_query)
{
  (void)n_rows, (void)by_query;
  const __m512 up = _mm512_set1_ps(unit->upscale), delta = _mm512_set1_ps(*deltas);
  const uint64_t row = random_row(seed, query);
  for (long j = 0; j < n; j += 32) {
    __mmask32 keep = kept(unit->limit, row, key + j);
    for (long at = j; at < j + 32; at += 16, keep >>= 16) {
      const __m512 p = exponentials(scores + at, unit->log2_scale, *log_sums);
      const __m512 g = _mm512_maskz_mul_ps((__mmask16)keep, _mm512_loadu_ps(grads + at), up);
      _mm512_storeu_ps(weights + at, _mm512_maskz_mov_ps((__mmask16)keep, p));
      _mm512_storeu_ps(by_key + at, _mm512_mul_ps(p, _mm512_sub_ps(g, delta)));
    }
  }
}

/* The first n of sixteen numbers. */
TARGET static inline __m512 read_float32(const float *from, long n)
{
  return _mm512_maskz_loadu_ps(lanes(n), from);
}

TARGET static inline void write_float32(float *to, long n, __m512 x)
{
  _mm512_mask_storeu_ps(to, lanes(n), x);
}

/* One row of a panel. */
TARGET static inline void weave_float32(const float *row, long next, long n, word *to)
{
  (void)next;
  _mm512_storeu_ps(to, _mm512_maskz_loadu_ps(lanes(n), row));
  _mm512_storeu_ps(to + 16, _mm512_maskz_loadu_ps(lanes(n - 16), row + 16));
}

#include "_attention_kernel_unit.h"
#undef NAME
#undef PER_WORD
#undef MULTIPLY_ADD
#undef element
#undef TARGET

/* -- bfloat16: products of bfloat16, everything else in float32 --------------------------------- */

#define TARGET BFLOAT16_TARGET
#define NAME(x) x##_bfloat16
#define PER_WORD 2
#define MULTIPLY_ADD(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))
#define element uint16_t

TARGET static inline void store_rounded(void *to, __m512 low, __m512 high)
{
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

TARGET static inline float weigh_bfloat16(const struct attention *unit, const float *scores, long n,
                                          float maximum, uint64_t row, long key, word *weights)
{
  __m512 total = _mm512_setzero_ps();
  for (long j = 0; j < n; j += 32) {
    const __m512 low = exponentials(scores + j, unit->log2_scale, maximum);
    const __m512 high = exponentials(scores + j + 16, unit->log2_scale, maximum);
    const __mmask32 keep = kept(unit->limit, row, key + j);
    total = _mm512_add_ps(total, _mm512_add_ps(low, high));
    store_rounded(weights + j / 2, _mm512_maskz_mov_ps((__mmask16)keep, low),
                  _mm512_maskz_mov_ps((__mmask16)(keep >> 16), high));
  }
  return _mm512_reduce_add_ps(total);
}

static const uint16_t WOVEN[64] = {
    0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
    11, 43, 12, 44, 13, 45, 14, 46, 15, 47, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53,
    22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};

/* Two rows of 32 numbers become 32 words. */
TARGET static inline void store_woven(word *to, __m512i even, __m512i odd)
{
  const __m512i low = _mm512_loadu_si512(WOVEN), high = _mm512_loadu_si512(WOVEN + 32);
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(even, low, odd));
  _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(even, high, odd));
}

/* Two queries at once, or the last one: what is summed over queries is laid out in pairs. */
TARGET static inline void weigh_back_bfloat16(const struct attention *unit, const float *scores,
                                              const float *grads, long n_rows, long n,
                                              const float *log_sums, const float *deltas,
                                              uint64_t seed, long query, long key, word *weights,
                                              word *by_key, word *by_query)
{
  const __m512 up = _mm512_set1_ps(unit->upscale);
  const uint64_t rows[2] = {random_row(seed, query), random_row(seed, query + 1)};
  const int n_pair = n_rows > 1 ? 2 : 1;
  for (long j = 0; j < n; j += 32) {
    __m512i p[2], s[2];
    p[1] = s[1] = _mm512_setzero_si512();
    for (int i = 0; i < n_pair; i++) {
      __m512 weight[2], slope[2];
      __mmask32 keep = kept(unit->limit, rows[i], key + j);
      for (int half = 0; half < 2; half++, keep >>= 16) {
        const long at = i * KEYS + j + 16 * half;
        const __m512 e = exponentials(scores + at, unit->log2_scale, log_sums[i]);
        const __m512 g = _mm512_maskz_mul_ps((__mmask16)keep, _mm512_loadu_ps(grads + at), up);
        weight[half] = _mm512_maskz_mov_ps((__mmask16)keep, e);
        slope[half] = _mm512_mul_ps(e, _mm512_sub_ps(g, _mm512_set1_ps(deltas[i])));
      }
      p[i] = (__m512i)_mm512_cvtne2ps_pbh(weight[1], weight[0]);
      s[i] = (__m512i)_mm512_cvtne2ps_pbh(slope[1], slope[0]);
      _mm512_storeu_si512(by_query + (i * KEYS + j) / 2, s[i]);
    }
    store_woven(weights + j, p[0], p[1]);
    store_woven(by_key + j, s[0], s[1]);
  }
}

TARGET static inline __m512 read_bfloat16(const uint16_t *from, long n)
{
  const __m512i x = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}

TARGET static inline void write_bfloat16(uint16_t *to, long n, __m512 x)
{
  _mm256_mask_storeu_epi16(to, lanes(n), (__m256i)_mm512_cvtneps_pbh(x));
}

/* Two rows of a panel, the second `next` elements on, or of zeros where that is 0. */
TARGET static inline void weave_bfloat16(const uint16_t *row, long next, long n, word *to)
{
  const __mmask32 some = n < 32 ? ((__mmask32)1 << n) - 1 : ~(__mmask32)0;
  store_woven(to, _mm512_maskz_loadu_epi16(some, row),
              _mm512_maskz_loadu_epi16(next ? some : 0, row + next));
}

#include "_attention_kernel_unit.h"

/* -- what the processor can --------------------------------------------------------------------- */

static int has_float32(void)
{
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("fma");
}

/* Not where the processor multiplies matrices of bfloat16 (AMX), which torch's products use. */
static int has_bfloat16(void)
{
  unsigned a, b, c, d;
  const int has_leaf = __get_cpuid_count(7, 0, &a, &b, &c, &d);
  return has_float32() && __builtin_cpu_supports("avx512bf16") && !(has_leaf && d >> 22 & 1);
}
#endif

/* -- for Python --------------------------------------------------------------------------------- */

static PyObject *types(PyObject *module, PyObject *unused)
{
  (void)module, (void)unused;
#ifdef HAS_KERNELS
  if (has_bfloat16())
    return Py_BuildValue("(ss)", "float32", "bfloat16");
  if (has_float32())
    return Py_BuildValue("(s)", "float32");
#endif
  return PyTuple_New(0);
}

#ifdef HAS_KERNELS
/* Whether a type is float32; -1 with an error set if this processor cannot compute with it. */
static int is_float32(const char *type)
{
  if (strcmp(type, "float32") == 0 && has_float32())
    return 1;
  if (strcmp(type, "bfloat16") == 0 && has_bfloat16())
    return 0;
  PyErr_Format(PyExc_ValueError, "no kernel for numbers of type '%s' on this processor", type);
  return -1;
}

static PyObject *memory_size(PyObject *module, PyObject *args)
{
  const char *type;
  struct attention all = {0};
  (void)module;
  if (!PyArg_ParseTuple(args, "s(lll)", &type, &all.n_tokens, &all.n_heads, &all.width))
    return NULL;
  const int wide = is_float32(type);
  if (wide < 0)
    return NULL;
  return PyLong_FromSize_t(wide ? memory_float32(&all) : memory_bfloat16(&all));
}

/* Threads take one unit after the other, since those of a busy machine are not equally fast. They
   are the ones of torch, which loads the same OpenMP library. */
static void share_out(const struct attention *all, const struct tensors *tensors, long n_units,
                      int wide, int n_threads, char *memory)
{
  const size_t size = wide ? memory_float32(all) : memory_bfloat16(all);
  atomic_long next = 0;
#pragma omp parallel num_threads(n_threads) if (n_threads > 1)
  {
    char *own = memory + (size_t)omp_get_thread_num() * size;
    for (long i = atomic_fetch_add(&next, 1); i < n_units; i = atomic_fetch_add(&next, 1))
      (wide ? do_unit_float32 : do_unit_bfloat16)(all, tensors, i, own);
  }
}

static PyObject *run(PyObject *module, PyObject *args)
{
  const char *type;
  struct attention all;
  unsigned long long seed, q, shared, out, log_sums, grad, q_grad, shared_grad, memory;
  long n_images;
  int n_threads;
  (void)module;
  if (!PyArg_ParseTuple(args, "s(llll)(ffIp)KKKKKKKKKi", &type, &n_images, &all.n_tokens,
                        &all.n_heads, &all.width, &all.scale, &all.upscale, &all.limit, &all.local,
                        &seed, &q, &shared, &out, &log_sums, &grad, &q_grad, &shared_grad, &memory,
                        &n_threads))
    return NULL;
  const int wide = is_float32(type);
  if (wide < 0)
    return NULL;
  all.log2_scale = all.scale * 1.44269504f;
  if (all.log2_scale == 0)
    all.log2_scale = FLT_MIN; /* of weights that are equal; what is hidden stays so */
  all.out_step = all.n_heads * all.width;
  all.q_step = shared ? all.out_step : 3 * all.out_step;
  all.kv_step = shared ? all.width : all.q_step;
  const struct tensors tensors = {
      seed,
      (const void *)(uintptr_t)q,
      (const void *)(uintptr_t)shared,
      (const void *)(uintptr_t)grad,
      (void *)(uintptr_t)out,
      (void *)(uintptr_t)q_grad,
      (void *)(uintptr_t)shared_grad,
      (float *)(uintptr_t)log_sums,
  };
  Py_BEGIN_ALLOW_THREADS
  share_out(&all, &tensors, n_images * all.n_heads, wide, n_threads, (char *)(uintptr_t)memory);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}
static PyObject *drop(PyObject *module, PyObject *args)
{
  const char *type;
  unsigned long long seed, from, to;
  long n;
  unsigned limit;
  float upscale;
  int n_threads;
  (void)module;
  if (!PyArg_ParseTuple(args, "slfIKKKi", &type, &n, &upscale, &limit, &seed, &from, &to,
                        &n_threads))
    return NULL;
  const int wide = is_float32(type);
  if (wide < 0)
    return NULL;
  const long n_parts = TILES(n, DROPPED_AT_ONCE);
  Py_BEGIN_ALLOW_THREADS
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
  for (long i = 0; i < n_parts; i++)
    if (wide)
      drop_float32(n, i, upscale, limit, seed, (float *)(uintptr_t)from, (float *)(uintptr_t)to);
    else
      drop_bfloat16(n, i, upscale, limit, seed, (uint16_t *)(uintptr_t)from,
                    (uint16_t *)(uintptr_t)to);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}
#endif

static PyMethodDef methods[] = {
    {"types", types, METH_NOARGS, "Types of numbers that there is a kernel for here."},
#ifdef HAS_KERNELS
    {"memory_size", memory_size, METH_VARARGS,
     "Bytes that each thread works in: type, (n_tokens, n_heads, head_dim)."},
    {"run", run, METH_VARARGS,
     "Attend: type, (n_images, n_tokens, n_heads, head_dim), (scale, upscale, limit, local), seed, "
     "addresses of qkv or q, shared keys and values (or 0), out, log_sums, grad (0: forward), "
     "gradients of the first two, memory, n_threads."},
    {"drop", drop, METH_VARARGS,
     "Dropout: type, number of elements, upscale, limit, seed, addresses of what is read and "
     "written, n_threads."},
#endif
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_attention_kernel",
                                        "Attention with dropout, compiled.", 0, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__attention_kernel(void)
{
  return PyModule_Create(&definition);
}
