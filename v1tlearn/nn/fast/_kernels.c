/* Attention with dropout on the weights, and dropout, for CPUs.

   As in Dao et al. (2022), weights are computed tile by tile, in caches, and again in the backward
   pass; what is dropped follows from a hash of seed, query and key, whatever the tiles and threads.
   One text is compiled once per variant, that is, kind of vector, and type of numbers. Python passes
   addresses of contiguous memory: see compiled_attention.py and dropout.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>
#else
#include <pthread.h> /* without OpenMP */
#endif

#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "_kernels_shared.h"

/* The best one first. */
static const struct variant *const VARIANTS[] = {
#ifdef __x86_64__
    &avx512_bf16, &avx512, &avx2,
#endif
#ifdef __aarch64__
    &neon,
#endif
    &generic,
};

#define N_VARIANTS (long)(sizeof(VARIANTS) / sizeof(*VARIANTS))

/* -- threads ------------------------------------------------------------------------------------ */

/* Parts that threads take one after the other, since those of a busy machine are not equally fast;
   attention works in `size` bytes of `memory` per thread. */
struct job {
  const struct kernels *kernels;
  const struct attention *attention;
  const struct tensors *tensors;
  const struct dropped *dropped; /* or NULL: attend */
  long n_parts;
  char *memory;
  size_t size;
  atomic_long next_part, next_thread;
};

static void *work(void *shared)
{
  struct job *job = shared;
  char *own = job->memory;
  if (own)
    own += (size_t)atomic_fetch_add(&job->next_thread, 1) * job->size;
  for (long i; (i = atomic_fetch_add(&job->next_part, 1)) < job->n_parts;)
    if (job->dropped)
      job->kernels->drop(job->dropped, i);
    else
      job->kernels->do_unit(job->attention, job->tensors, i, own);
  return NULL;
}

/* Where torch has loaded libgomp.so.1, as its wheels for Linux do, the threads of OpenMP are those
   of torch; without OpenMP they are started anew, as many as the system lets begin. */
static void share_out(struct job *job, int n_threads)
{
#ifdef _OPENMP
#pragma omp parallel num_threads(n_threads) if (n_threads > 1)
  work(job);
#else
  pthread_t *threads = n_threads > 1 ? malloc((n_threads - 1) * sizeof(*threads)) : NULL;
  int n_others = 0;
  while (threads && n_others < n_threads - 1 && !pthread_create(threads + n_others, NULL, work, job))
    n_others++;
  work(job);
  while (n_others)
    pthread_join(threads[--n_others], NULL);
  free(threads);
#endif
}

/* -- for Python --------------------------------------------------------------------------------- */

static PyObject *variants(PyObject *module, PyObject *unused)
{
  PyObject *found = PyTuple_New(N_VARIANTS);
  (void)module, (void)unused;
  for (long i = 0; found && i < N_VARIANTS; i++) {
    const struct variant *own = VARIANTS[i];
    PyObject *entry = Py_BuildValue("(sNN)", own->name, PyBool_FromLong(own->runs()),
                                    PyBool_FromLong(own->multiplies_bfloat16));
    if (entry == NULL || PyTuple_SetItem(found, i, entry) < 0) {
      Py_DECREF(found);
      return NULL;
    }
  }
  return found;
}

static PyObject *has_amx(PyObject *module, PyObject *unused)
{
  int found = 0;
  (void)module, (void)unused;
#ifdef __x86_64__
  unsigned a, b, c, d;
  found = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1);
#endif
  return PyBool_FromLong(found);
}

/* NULL with an error set if this processor cannot compute so. */
static const struct kernels *find(const char *variant, const char *type)
{
  for (long i = 0; i < N_VARIANTS; i++)
    if (strcmp(variant, VARIANTS[i]->name) == 0 && VARIANTS[i]->runs()) {
      if (strcmp(type, "float32") == 0)
        return &VARIANTS[i]->float32;
      if (strcmp(type, "bfloat16") == 0)
        return &VARIANTS[i]->bfloat16;
    }
  PyErr_Format(PyExc_ValueError, "no kernel '%s' for numbers of type '%s' on this processor",
               variant, type);
  return NULL;
}

static PyObject *memory_size(PyObject *module, PyObject *args)
{
  const char *variant, *type;
  struct attention unit = {0};
  int backward;
  (void)module;
  if (!PyArg_ParseTuple(args, "ss(lll)p", &variant, &type, &unit.n_tokens, &unit.n_heads,
                        &unit.width, &backward))
    return NULL;
  const struct kernels *kernels = find(variant, type);
  return kernels ? PyLong_FromSize_t(kernels->memory(&unit, backward)) : NULL;
}

static PyObject *run(PyObject *module, PyObject *args)
{
  const char *variant, *type;
  struct attention unit;
  unsigned long long seed, q, shared, out, log_sums, grad, q_grad, shared_grad, memory, places;
  long n_images;
  int n_threads;
  (void)module;
  if (!PyArg_ParseTuple(args, "ss(llll)(ffIp)KKKKKKKKKiK", &variant, &type, &n_images,
                        &unit.n_tokens, &unit.n_heads, &unit.width, &unit.scale, &unit.upscale,
                        &unit.limit, &unit.local, &seed, &q, &shared, &out, &log_sums, &grad,
                        &q_grad, &shared_grad, &memory, &n_threads, &places))
    return NULL;
  const struct kernels *kernels = find(variant, type);
  if (kernels == NULL)
    return NULL;
  unit.log2_scale = unit.scale * 1.44269504f;
  if (unit.log2_scale == 0)
    unit.log2_scale = FLT_MIN; /* of weights that are equal; what is hidden stays so */
  unit.out_step = unit.n_heads * unit.width;
  unit.q_step = shared ? unit.out_step : 3 * unit.out_step;
  unit.kv_step = shared ? unit.width : unit.q_step;
  const struct tensors tensors = {
      seed,
      (const int64_t *)(uintptr_t)places,
      (const void *)(uintptr_t)q,
      (const void *)(uintptr_t)shared,
      (const void *)(uintptr_t)grad,
      (void *)(uintptr_t)out,
      (void *)(uintptr_t)q_grad,
      (void *)(uintptr_t)shared_grad,
      (float *)(uintptr_t)log_sums,
  };
  struct job job = {.kernels = kernels,
                    .attention = &unit,
                    .tensors = &tensors,
                    .n_parts = n_images * unit.n_heads,
                    .memory = (char *)(uintptr_t)memory,
                    .size = kernels->memory(&unit, grad != 0)};
  Py_BEGIN_ALLOW_THREADS
  share_out(&job, n_threads);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

static PyObject *drop(PyObject *module, PyObject *args)
{
  const char *variant, *type;
  static const int64_t begin = 0;
  unsigned long long seed, from, to, places;
  struct dropped dropped;
  int n_threads;
  (void)module;
  if (!PyArg_ParseTuple(args, "sslfIKKKilK", &variant, &type, &dropped.n, &dropped.upscale,
                        &dropped.limit, &seed, &from, &to, &n_threads, &dropped.size, &places))
    return NULL;
  struct job job = {.kernels = find(variant, type),
                    .dropped = &dropped,
                    .n_parts = TILES(dropped.n, DROPPED_AT_ONCE)};
  if (job.kernels == NULL)
    return NULL;
  dropped.seed = seed;
  dropped.places = places ? (const int64_t *)(uintptr_t)places : &begin;
  dropped.from = (const void *)(uintptr_t)from;
  dropped.to = (void *)(uintptr_t)to;
  Py_BEGIN_ALLOW_THREADS
  share_out(&job, n_threads);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"variants", variants, METH_NOARGS,
     "Of each variant that was compiled, the best one first: its name, whether it runs on this "
     "processor, and whether it has instructions that multiply bfloat16."},
    {"has_amx", has_amx, METH_NOARGS, "Whether the processor multiplies matrices of bfloat16."},
    {"memory_size", memory_size, METH_VARARGS,
     "Bytes that each thread works in: variant, type, (n_tokens, n_heads, head_dim), backward."},
    {"run", run, METH_VARARGS,
     "Attend: variant, type, (n_images, n_tokens, n_heads, head_dim), (scale, upscale, limit, "
     "local), seed, addresses of qkv or q, shared keys and values (or 0), out, log_sums, grad (0: "
     "forward), gradients of the first two, memory, n_threads, address of the places of the images "
     "in their batch (0: one after the other)."},
    {"drop", drop, METH_VARARGS,
     "Dropout: variant, type, number of elements, upscale, limit, seed, addresses of what is read "
     "and written, n_threads, elements of a row, address of the places of the rows in their batch "
     "(0: there is one row)."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels",
                                        "Attention and dropout, compiled.", 0, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void)
{
  PyObject *module = PyModule_Create(&definition);
  if (module && (PyModule_AddIntConstant(module, "QUERIES", QUERIES) < 0 ||
                 PyModule_AddIntConstant(module, "KEYS", KEYS) < 0 ||
                 PyModule_AddIntConstant(module, "PANEL", LARGEST_PANEL) < 0)) {
    Py_DECREF(module);
    return NULL;
  }
  return module;
}
