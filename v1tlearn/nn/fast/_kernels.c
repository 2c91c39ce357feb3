/* Attention with dropout on the weights, and dropout, for processors with vectors of 512 bits.

   As in Dao et al. (2022), weights are computed tile by tile, in caches, and again in the backward
   pass; what is dropped follows from a hash of seed, query and key, whatever the tiles and threads.
   Python passes addresses of contiguous memory: see _compiled_attention.py and dropout.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cpuid.h>
#include <omp.h>
#include <stdatomic.h>

#include "_kernels_shared.h"

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

#include "_kernels_typed.h"
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

#include "_kernels_typed.h"

/* -- what the processor can --------------------------------------------------------------------- */

static int has_float32(void)
{
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("fma");
}

static int has_bfloat16(void)
{
  return has_float32() && __builtin_cpu_supports("avx512bf16");
}

/* -- for Python --------------------------------------------------------------------------------- */

static PyObject *types(PyObject *module, PyObject *unused)
{
  (void)module, (void)unused;
  if (has_bfloat16())
    return Py_BuildValue("(ss)", "float32", "bfloat16");
  if (has_float32())
    return Py_BuildValue("(s)", "float32");
  return PyTuple_New(0);
}

#define AMX_BFLOAT16 (1u << 22) /* of register d of leaf 7 */

static PyObject *has_amx(PyObject *module, PyObject *unused)
{
  unsigned a, b, c, d;
  (void)module, (void)unused;
  return PyBool_FromLong(__get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & AMX_BFLOAT16));
}

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
  int backward;
  (void)module;
  if (!PyArg_ParseTuple(args, "s(lll)p", &type, &all.n_tokens, &all.n_heads, &all.width, &backward))
    return NULL;
  const int wide = is_float32(type);
  if (wide < 0)
    return NULL;
  return PyLong_FromSize_t((wide ? memory_float32 : memory_bfloat16)(&all, backward));
}

/* Threads take one unit after the other, since those of a busy machine are not equally fast. Where
   torch has loaded libgomp.so.1, as its wheels for Linux do, they are the threads of torch. */
static void share_out(const struct attention *all, const struct tensors *tensors, long n_units,
                      int wide, int n_threads, char *memory)
{
  const size_t size = (wide ? memory_float32 : memory_bfloat16)(all, tensors->grad != NULL);
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

static PyMethodDef methods[] = {
    {"types", types, METH_NOARGS, "Types of numbers that there is a kernel for here."},
    {"has_amx", has_amx, METH_NOARGS, "Whether the processor multiplies matrices of bfloat16."},
    {"memory_size", memory_size, METH_VARARGS,
     "Bytes that each thread works in: type, (n_tokens, n_heads, head_dim), backward."},
    {"run", run, METH_VARARGS,
     "Attend: type, (n_images, n_tokens, n_heads, head_dim), (scale, upscale, limit, local), seed, "
     "addresses of qkv or q, shared keys and values (or 0), out, log_sums, grad (0: forward), "
     "gradients of the first two, memory, n_threads."},
    {"drop", drop, METH_VARARGS,
     "Dropout: type, number of elements, upscale, limit, seed, addresses of what is read and "
     "written, n_threads."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels",
                                        "Attention and dropout, compiled.", 0, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void)
{
  PyObject *module = PyModule_Create(&definition);
  if (module && (PyModule_AddIntConstant(module, "QUERIES", QUERIES) < 0 ||
                 PyModule_AddIntConstant(module, "KEYS", KEYS) < 0 ||
                 PyModule_AddIntConstant(module, "PANEL", PANEL) < 0)) {
    Py_DECREF(module);
    return NULL;
  }
  return module;
}
