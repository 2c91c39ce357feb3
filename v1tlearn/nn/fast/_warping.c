/* Soft-DTW of many pairs of sequences, with its gradient, for all processors.

   Eight pairs are worked on at a time, each in its lane of a vector, from their frames to the
   gradient of these; nothing larger than a table of the eight leaves the cache. Instead of
   R = D + softmin(R'), the recursion is that of exp(-R / gamma) = exp(-D / gamma) (sum of those of
   the predecessors), in numbers m 2^e whose exponents e have a place of their own, so that none is
   too small: one exponential a cell, no logarithm, and what the gradient needs are the shares of the
   predecessors in the sum. The compiler splits vectors for processors that have narrower ones, and
   fuses no products with sums, so that results are the same on all. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_thread_num() 0 /* without OpenMP, one thread */
#endif

#define LANES 8
#define INLINE static inline __attribute__((always_inline))

typedef double lanes __attribute__((vector_size(8 * LANES)));
typedef int64_t whole __attribute__((vector_size(8 * LANES)));

/* Values of two vectors, by their places in both. */
#ifdef __clang__
#define MIX(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MIX(a, b, ...) __builtin_shuffle(a, b, (whole){__VA_ARGS__})
#endif

struct problem {
  long n, p, q, d; /* pairs of sequences of p and q frames of d values */
  int is_double, is_divergence;
  double gamma;
  const char *x, *y;
  double *values;
  char *x_grad, *y_grad; /* NULL where there is no need of them */
};

/* What one thread works in. */
struct memory {
  lanes *frames;        /* [pair][frame of x, then y][block of LANES values] */
  lanes *costs;         /* [cell], later the shares of all paths that pass it */
  lanes *shares;        /* [cell][from above, from the left, from both] */
  lanes *m, *e;         /* [cell, after a border above and to the left] */
  lanes *pull;          /* [frame][other frame], as drawn by it in the gradient */
  lanes *of_one;        /* [frame, as a single number], of the pull on one frame of one pair */
  lanes *sums;          /* [block], of a gradient */
};

INLINE lanes all(double x)
{
  return x - (lanes){0};
}

INLINE lanes larger(lanes a, lanes b)
{
  const whole first = a > b;
  return (lanes)((first & (whole)a) | (~first & (whole)b));
}

/* Shares of a sum that are less are none, since processors are slow where their products are less
   than the smallest normal number. */
#define LEAST 0x1p-500

/* 2^e for whole e up to 0, or 0 where that is less than LEAST. */
INLINE lanes power_of_two(lanes e)
{
  const whole bits = (whole)(larger(e, all(-1023)) + (0x1p52 + 1023)) << 52;
  return (lanes)(bits & ((lanes)bits >= LEAST));
}

/* Whole e and 2^(t - e), of t from -2^50 to 0: a Taylor series on half an octave around 1. */
INLINE lanes exponential(lanes t, lanes *e)
{
  *e = (t + 0x1.8p52) - 0x1.8p52;
  const lanes x = (t - *e) * 0.69314718055994530942;
  lanes sum = all(1.0 / 6227020800);
  sum = sum * x + 1.0 / 479001600;
  sum = sum * x + 1.0 / 39916800;
  sum = sum * x + 1.0 / 3628800;
  sum = sum * x + 1.0 / 362880;
  sum = sum * x + 1.0 / 40320;
  sum = sum * x + 1.0 / 5040;
  sum = sum * x + 1.0 / 720;
  sum = sum * x + 1.0 / 120;
  sum = sum * x + 1.0 / 24;
  sum = sum * x + 1.0 / 6;
  sum = sum * x + 0.5;
  sum = sum * x + 1.0;
  return sum * x + 1.0;
}

/* Sums of all paths to the last cell as m 2^e, and shares of predecessors if there is room for them;
   whether all costs were numbers in the range of `exponential`. Of symmetric tables, here and below,
   cells on the diagonal and left of it are enough. */
INLINE int align(const struct memory *own, long p, long q, double factor, int symmetric,
                 int with_shares, lanes *m, lanes *e)
{
  const long wide = q + 1;
  whole good = (whole)all(0) - 1;
  for (long cell = 0; cell < (p + 1) * wide; cell++)
    if (cell < wide || cell % wide == 0) {
      own->m[cell] = all(1);
      own->e[cell] = all(cell ? -INFINITY : 0); /* paths begin in the corner of the border */
    }
  /* Those of an anti-diagonal do not wait for each other. */
  for (long diagonal = 0; diagonal < p + q - 1; diagonal++) {
    const long first = symmetric ? (diagonal + 1) / 2 : diagonal < q ? 0 : diagonal - q + 1;
    for (long i = first; i < p && i <= diagonal; i++) {
      const long j = diagonal - i, cell = i * q + j, here = (i + 1) * wide + j + 1;
      const long left = here - 1, both = left - wide;
      const long above = symmetric && i == j ? left : here - wide; /* as if mirrored */
      const lanes t = own->costs[cell] * factor;
      good &= (t > -0x1p50) & (t <= 0);
      lanes log;
      const lanes weight = exponential(t, &log);
      const lanes highest = larger(larger(own->e[above], own->e[left]), own->e[both]);
      const lanes a = own->m[above] * power_of_two(own->e[above] - highest);
      const lanes b = own->m[left] * power_of_two(own->e[left] - highest);
      const lanes c = own->m[both] * power_of_two(own->e[both] - highest);
      const lanes sum = (a + b) + c; /* the same where a and b change places */
      if (with_shares) {
        const lanes one = 1 / sum;
        own->shares[3 * cell] = a * one;
        own->shares[3 * cell + 1] = b * one;
        own->shares[3 * cell + 2] = c * one;
      }
      /* m between 1 and 2 again, and its exponent as a number, by its bits */
      const whole bits = (whole)(sum * weight);
      own->m[here] = (lanes)((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
      own->e[here] = (lanes)((bits >> 52) | 0x4330000000000000) - (0x1p52 + 1023) + log + highest;
    }
  }
  *m = own->m[p * wide + q];
  *e = own->e[p * wide + q];
  int all_good = 1;
  for (int lane = 0; lane < LANES; lane++)
    all_good &= good[lane] != 0;
  return all_good;
}

/* Share of all paths, by their weights, that pass through each cell: in place of its cost. */
INLINE void align_back(const struct memory *own, long p, long q, int symmetric)
{
  lanes *costs = own->costs;
  const lanes *shares = own->shares;
  for (long i = p - 1; i >= 0; i--)
    for (long j = symmetric ? i : q - 1; j >= 0; j--) {
      const long cell = i * q + j, below = cell + q, right = cell + 1, both = below + 1;
      lanes passed = all(i == p - 1 && j == q - 1);
      if (i < p - 1)
        passed += costs[below] * shares[3 * below];
      if (symmetric && j == i)
        passed += passed * (i < p - 1); /* what is to the right is what is below */
      else if (j < q - 1)
        passed += costs[right] * shares[3 * right + 1];
      if (i < p - 1 && j < q - 1)
        passed += costs[both] * shares[3 * both + 2];
      costs[cell] = (lanes)((whole)passed & (passed >= LEAST));
    }
}

/* Sums over each of as many vectors as there are lanes. */
INLINE lanes totals(const lanes *v)
{
  lanes twos[4], fours[2];
  for (int i = 0; i < 4; i++)
    twos[i] = MIX(v[2 * i], v[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
              MIX(v[2 * i], v[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  for (int i = 0; i < 2; i++)
    fours[i] = MIX(twos[2 * i], twos[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               MIX(twos[2 * i], twos[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
  return MIX(fours[0], fours[1], 0, 1, 2, 3, 8, 9, 10, 11) +
         MIX(fours[0], fours[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

/* Squared distances of frames. `a` and `b` are the first frames of both sequences. */
INLINE void distances(const struct problem *all_pairs, const struct memory *own, long a, long p,
                      long b, long q)
{
  const long frames = all_pairs->p + all_pairs->q, blocks = (all_pairs->d + LANES - 1) / LANES;
  for (long i = 0; i < p; i++)
    for (long j = 0; j < (a == b ? i + 1 : q); j++) {
      const lanes *first = own->frames + (a + i) * blocks, *second = own->frames + (b + j) * blocks;
      lanes sums[LANES];
      for (int lane = 0; lane < LANES; lane++)
        sums[lane] = all(0);
      for (long k = 0; k < blocks; k++)
        for (int lane = 0; lane < LANES; lane++) {
          const long at = lane * frames * blocks + k;
          const lanes difference = first[at] - second[at];
          sums[lane] += difference * difference;
        }
      own->costs[i * q + j] = totals(sums);
    }
}

/* Add `scale` times soft-DTW of two sequences to the values, and its gradient to `pull`. */
INLINE int warp(const struct problem *all_pairs, const struct memory *own, long a, long p, long b,
                long q, double scale, int with_grad, double *values)
{
  const long frames = all_pairs->p + all_pairs->q;
  const int symmetric = a == b;
  lanes m, e;
  distances(all_pairs, own, a, p, b, q);
  const double log2_e = 1.44269504088896340736;
  if (!align(own, p, q, -log2_e / all_pairs->gamma, symmetric, with_grad, &m, &e))
    return 0;
  for (int lane = 0; lane < LANES; lane++)
    values[lane] -= scale * all_pairs->gamma * (log(m[lane]) + e[lane] * 0.69314718055994530942);
  if (!with_grad)
    return 1;
  align_back(own, p, q, symmetric);
  for (long i = 0; i < p; i++)
    for (long j = 0; j < (symmetric ? i : q); j++) {
      const lanes drawn = own->costs[i * q + j] * ((symmetric ? 4 : 2) * scale);
      own->pull[(a + i) * frames + b + j] += drawn;
      own->pull[(b + j) * frames + a + i] += drawn;
    }
  return 1;
}

/* Numbers of one frame, filled up with zeros. */
INLINE void read_frame(const char *from, long frame, long d, int is_double, double *to)
{
  for (long k = d; k % LANES; k++)
    to[k] = 0;
  if (is_double)
    memcpy(to, (const double *)from + frame * d, d * sizeof(double));
  else
    for (long k = 0; k < d; k++)
      to[k] = ((const float *)from)[frame * d + k];
}

INLINE void write_frame(char *to, long frame, long d, int is_double, const double *from)
{
  if (is_double)
    memcpy((double *)to + frame * d, from, d * sizeof(double));
  else
    for (long k = 0; k < d; k++)
      ((float *)to)[frame * d + k] = (float)from[k];
}

/* Sum of pull (frame i - other frame), for a few blocks of a frame. */
INLINE void draw(const lanes *z, long i, long frames, long blocks, int few, const double *pull,
                 lanes *to)
{
  lanes sums[4] = {all(0), all(0), all(0), all(0)};
  for (long j = 0; j < frames; j++)
    for (int k = 0; k < few; k++)
      sums[k] += pull[j] * (z[i * blocks + k] - z[j * blocks + k]);
  for (int k = 0; k < few; k++)
    to[k] = sums[k];
}

/* Values of up to LANES pairs from the `first` on, and gradients; 0 where costs are too large. */
__attribute__((target_clones("avx512f", "avx2", "default"))) static int
do_group(const struct problem *all_pairs, const struct memory *own, long first)
{
  const long p = all_pairs->p, q = all_pairs->q, d = all_pairs->d;
  const long frames = p + q, blocks = (d + LANES - 1) / LANES;
  const int is_double = all_pairs->is_double, to_x = !!all_pairs->x_grad, to_y = !!all_pairs->y_grad;
  const long here = all_pairs->n - first < LANES ? all_pairs->n - first : LANES;
  if (here < LANES)
    memset(own->frames, 0, LANES * frames * blocks * sizeof(lanes));
  for (long lane = 0; lane < here; lane++)
    for (long i = 0; i < frames; i++) {
      double *to = (double *)(own->frames + (lane * frames + i) * blocks);
      if (i < p)
        read_frame(all_pairs->x, (first + lane) * p + i, d, is_double, to);
      else
        read_frame(all_pairs->y, (first + lane) * q + i - p, d, is_double, to);
    }
  if (to_x || to_y)
    memset(own->pull, 0, frames * frames * sizeof(lanes));
  double values[LANES] = {0};
  if (!warp(all_pairs, own, 0, p, p, q, 1, to_x || to_y, values))
    return 0;
  if (all_pairs->is_divergence && (!warp(all_pairs, own, 0, p, 0, p, -0.5, to_x, values) ||
                                   !warp(all_pairs, own, p, q, p, q, -0.5, to_y, values)))
    return 0;
  memcpy(all_pairs->values + first, values, here * sizeof(double));
  /* Each frame is drawn to all others. */
  for (long lane = 0; lane < here; lane++)
    for (long i = to_x ? 0 : p; i < (to_y ? frames : p); i++) {
      const lanes *z = own->frames + lane * frames * blocks;
      double *pull = (double *)own->of_one;
      for (long j = 0; j < frames; j++)
        pull[j] = own->pull[i * frames + j][lane];
      long k = 0;
      for (; k + 4 <= blocks; k += 4)
        draw(z + k, i, frames, blocks, 4, pull, own->sums + k);
      for (; k < blocks; k++)
        draw(z + k, i, frames, blocks, 1, pull, own->sums + k);
      const double *found = (const double *)own->sums;
      if (i < p)
        write_frame(all_pairs->x_grad, (first + lane) * p + i, d, is_double, found);
      else
        write_frame(all_pairs->y_grad, (first + lane) * q + i - p, d, is_double, found);
    }
  return 1;
}

/* Parts of memory of one thread, or their size where there is no memory yet. */
static size_t lay_out(const struct problem *all_pairs, lanes *at, struct memory *own)
{
  const long p = all_pairs->p, q = all_pairs->q, longer = p > q ? p : q;
  const long frames = p + q, blocks = (all_pairs->d + LANES - 1) / LANES;
  const long cells = all_pairs->is_divergence ? longer * longer : p * q;
  const long bordered = all_pairs->is_divergence ? (longer + 1) * (longer + 1) : (p + 1) * (q + 1);
  const int with_grad = all_pairs->x_grad || all_pairs->y_grad;
  const struct {
    lanes **part;
    long size;
  } parts[] = {{&own->frames, LANES * frames * blocks}, {&own->costs, cells},
               {&own->shares, with_grad ? 3 * cells : 0}, {&own->m, bordered},
               {&own->e, bordered}, {&own->pull, with_grad ? frames * frames : 0},
               {&own->of_one, (frames + LANES - 1) / LANES}, {&own->sums, blocks}};
  size_t size = 0;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (at)
      *parts[i].part = at + size;
    size += parts[i].size;
  }
  return size * sizeof(lanes);
}

static PyObject *run(PyObject *module, PyObject *args)
{
  struct problem all_pairs;
  unsigned long long x, y, values, x_grad, y_grad;
  int n_threads;
  (void)module;
  if (!PyArg_ParseTuple(args, "(llll)ppdKKKKKi", &all_pairs.n, &all_pairs.p, &all_pairs.q,
                        &all_pairs.d, &all_pairs.is_double, &all_pairs.is_divergence,
                        &all_pairs.gamma, &x, &y, &values, &x_grad, &y_grad, &n_threads))
    return NULL;
  all_pairs.x = (const char *)(uintptr_t)x;
  all_pairs.y = (const char *)(uintptr_t)y;
  all_pairs.values = (double *)(uintptr_t)values;
  all_pairs.x_grad = (char *)(uintptr_t)x_grad;
  all_pairs.y_grad = (char *)(uintptr_t)y_grad;
  struct memory own;
  const size_t size = lay_out(&all_pairs, NULL, &own);
  char *memory = aligned_alloc(sizeof(lanes), size * (size_t)n_threads);
  if (!memory)
    return PyErr_NoMemory();
  int good = 1;
  const long groups = (all_pairs.n + LANES - 1) / LANES;
  Py_BEGIN_ALLOW_THREADS
#pragma omp parallel num_threads(n_threads) if (n_threads > 1) reduction(&& : good)
  {
    struct memory mine;
    lay_out(&all_pairs, (lanes *)(memory + (size_t)omp_get_thread_num() * size), &mine);
#pragma omp for schedule(static)
    for (long group = 0; group < groups; group++)
      good = do_group(&all_pairs, &mine, group * LANES) && good;
  }
  Py_END_ALLOW_THREADS
  free(memory);
  return PyBool_FromLong(good);
}

static PyMethodDef methods[] = {
    {"run", run, METH_VARARGS,
     "Warp: (pairs, frames, other frames, values), whether float64 and not float32, whether the "
     "divergence, gamma, addresses of sequences, other sequences, values (float64) and gradients of "
     "both (or 0), n_threads. False, with nothing to be used, where a cost is no number or far "
     "beyond gamma."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_warping", "Soft-DTW, compiled.", 0,
                                        methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__warping(void)
{
  return PyModule_Create(&definition);
}
