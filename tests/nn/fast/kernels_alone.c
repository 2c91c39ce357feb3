/* Every variant of the kernels that runs here against loops in double, without Python: for
   sanitizers, which see each byte beyond an array, and for the emulators of other processors. */

#include <stdio.h>
#include <stdlib.h>

#include "_kernels_shared.h"

static const struct variant *const ALL[] = {
#ifdef __x86_64__
    &avx512_bf16, &avx512, &avx2,
#endif
#ifdef __aarch64__
    &neon,
#endif
    &generic,
};

static int n_failed, n_done;

static void check(int fine, const char *variant, int is_wide, const char *what, double error)
{
  n_done++;
  if (!fine)
    printf("%s, %s: %s, error %g\n", variant, is_wide ? "float32" : "bfloat16", what, error), n_failed++;
}

static void *room(size_t n_bytes)
{
  return malloc(n_bytes ? n_bytes : 1);
}

static double drawn(void)
{
  static uint64_t state = 1;
  double sum = -6;
  for (int i = 0; i < 12; i++)
    sum += (double)(mixed_bits(state++) >> 11) / 9007199254740992.0;
  return sum;
}

static void put(void *to, long i, int is_wide, double x)
{
  const float narrow = (float)x;
  uint32_t bits;
  memcpy(&bits, &narrow, 4);
  if (is_wide)
    ((float *)to)[i] = narrow;
  else
    ((uint16_t *)to)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static double get(const void *from, long i, int is_wide)
{
  uint32_t bits;
  float x;
  if (is_wide)
    return ((const float *)from)[i];
  bits = (uint32_t)((const uint16_t *)from)[i] << 16;
  memcpy(&x, &bits, 4);
  return x;
}

/* Whether the number at `key` is kept, of those that follow from a row's random number. */
static int is_kept(uint32_t limit, uint64_t row, long key)
{
  uint32_t x = (uint32_t)(key / 2) * 0x9e3779b9u + (uint32_t)row;
  x = (x ^ x >> 16) * 0x7feb352du ^ (uint32_t)(row >> 32);
  x = (x ^ x >> 15) * 0x846ca68bu;
  x ^= x >> 16;
  return (key % 2 ? x >> 16 : x & 0xffff) >= limit;
}

struct arrays {
  double *q, *k, *v, *grad, *out, *q_grad, *k_grad, *v_grad;
};

/* One head of one image: all arrays are (n, width). */
static void attend(const struct attention *unit, uint64_t seed, const struct arrays *of)
{
  const long n = unit->n_tokens, d = unit->width;
  double *p = room(n * sizeof(double));
  memset(of->k_grad, 0, n * d * sizeof(double)), memset(of->v_grad, 0, n * d * sizeof(double));
  for (long i = 0; i < n; i++) {
    double most = -INFINITY, total = 0, delta = 0;
    const uint64_t row = random_row(seed, i);
    for (long j = 0; j < n; j++) {
      p[j] = 0;
      for (long c = 0; c < d; c++)
        p[j] += unit->scale * of->q[i * d + c] * of->k[j * d + c];
      if (unit->local && i == j)
        p[j] = -INFINITY;
      most = LARGER(most, p[j]);
    }
    for (long j = 0; j < n; j++)
      total += p[j] = exp(p[j] - most);
    for (long c = 0; c < d; c++)
      of->out[i * d + c] = of->q_grad[i * d + c] = 0;
    for (long j = 0; j < n; j++)
      for (long c = 0; c < d; c++) {
        const double kept = is_kept(unit->limit, row, j) ? p[j] / total * unit->upscale : 0;
        of->out[i * d + c] += kept * of->v[j * d + c];
        of->v_grad[j * d + c] += kept * of->grad[i * d + c];
      }
    for (long c = 0; c < d; c++)
      delta += of->out[i * d + c] * of->grad[i * d + c];
    for (long j = 0; j < n; j++) {
      double slope = 0;
      for (long c = 0; c < d; c++)
        slope += of->grad[i * d + c] * of->v[j * d + c];
      slope = is_kept(unit->limit, row, j) ? slope * unit->upscale : 0;
      slope = p[j] / total * (slope - delta) * unit->scale;
      for (long c = 0; c < d; c++) {
        of->q_grad[i * d + c] += slope * of->k[j * d + c];
        of->k_grad[j * d + c] += slope * of->q[i * d + c];
      }
    }
  }
  free(p);
}

static void compare(const char *variant, int is_wide, const char *what, const void *found,
                    long step, const double *expected, long n, long width)
{
  double error = 0, size = 0;
  for (long i = 0; i < n; i++)
    for (long c = 0; c < width; c++) {
      const double e = expected[i * width + c], x = get(found, i * step + c, is_wide);
      error += (x - e) * (x - e), size += e * e;
    }
  /* Of one weight that is 1, gradients of queries and keys are differences of equal numbers. */
  error = sqrt(error / LARGER(size, (size < 1e-12 ? 1 : 1e-6) * (double)(n * width)));
  check(error < (is_wide ? 2e-6 : 2e-2), variant, is_wide, what, error);
}

/* One image whose heads have queries, keys and values of their own, or one of tokens for both. */
static void try_attention(const struct variant *variant, int is_wide, long n, long n_heads,
                          long width, int shared, int local, uint32_t limit)
{
  const struct kernels *kernels = is_wide ? &variant->float32 : &variant->bfloat16;
  const size_t size = is_wide ? 4 : 2;
  struct attention unit = {.n_tokens = n, .n_heads = n_heads, .width = width,
                           .scale = (float)(1 / sqrt((double)width)),
                           .upscale = 65536.0f / (65536 - (float)limit), .limit = limit,
                           .local = local, .out_step = n_heads * width};
  unit.log2_scale = unit.scale * 1.44269504f;
  unit.q_step = shared ? unit.out_step : 3 * unit.out_step;
  unit.kv_step = shared ? width : unit.q_step;
  const long n_q = n * unit.q_step, n_out = n * unit.out_step, n_shared = shared ? n * width : 0;
  void *q = room(n_q * size), *tokens = room(n_shared * size), *grad = room(n_out * size);
  void *out = room(n_out * size), *q_grad = room(n_q * size);
  void *shared_grad = room(n_heads * n_shared * size);
  float *log_sums = room(n * n_heads * sizeof(float));
  for (long i = 0; i < n_q; i++)
    put(q, i, is_wide, drawn());
  for (long i = 0; i < n_shared; i++)
    put(tokens, i, is_wide, drawn());
  for (long i = 0; i < n_out; i++)
    put(grad, i, is_wide, drawn());
  struct tensors tensors = {.seed = 5, .q = q, .shared = shared ? tokens : NULL, .out = out,
                            .log_sums = log_sums};
  for (int backward = 0; backward < 2; backward++) {
    const size_t n_bytes = kernels->memory(&unit, backward);
    char *memory = aligned_alloc(64, ROUND_UP(n_bytes, 64));
    if (backward)
      tensors.grad = grad, tensors.q_grad = q_grad, tensors.shared_grad = shared ? shared_grad : NULL;
    for (long head = 0; head < n_heads; head++)
      kernels->do_unit(&unit, &tensors, head, memory);
    free(memory);
  }
  double *all = room(8 * n * width * sizeof(double));
  struct arrays of = {all, all + n * width, all + 2 * n * width, all + 3 * n * width,
                      all + 4 * n * width, all + 5 * n * width, all + 6 * n * width,
                      all + 7 * n * width};
  for (long head = 0; head < n_heads; head++) {
    const long own = head * width;
    for (long i = 0; i < n; i++)
      for (long c = 0; c < width; c++) {
        const long at = i * unit.q_step + own + c, here = i * width + c;
        of.q[here] = get(q, at, is_wide);
        of.k[here] = shared ? get(tokens, here, is_wide) : get(q, at + unit.out_step, is_wide);
        of.v[here] = shared ? of.k[here] : get(q, at + 2 * unit.out_step, is_wide);
        of.grad[here] = get(grad, i * unit.out_step + own + c, is_wide);
      }
    attend(&unit, mixed_bits(tensors.seed + (uint64_t)head), &of);
    const char *name = variant->name, *dq = (const char *)q_grad + own * size;
    compare(name, is_wide, "output", (char *)out + own * size, unit.out_step, of.out, n, width);
    compare(name, is_wide, "gradient of queries", dq, unit.q_step, of.q_grad, n, width);
    if (shared) {
      for (long i = 0; i < n * width; i++)
        of.k_grad[i] += of.v_grad[i];
      compare(name, is_wide, "gradient of tokens", (char *)shared_grad + head * n * width * size,
              width, of.k_grad, n, width);
    } else {
      const char *dk = dq + unit.out_step * size, *dv = dk + unit.out_step * size;
      compare(name, is_wide, "gradient of keys", dk, unit.q_step, of.k_grad, n, width);
      compare(name, is_wide, "gradient of values", dv, unit.q_step, of.v_grad, n, width);
    }
  }
  free(q), free(tokens), free(grad), free(out), free(q_grad), free(shared_grad), free(log_sums);
  free(all);
}

static void try_dropout(const struct variant *variant, int is_wide, long n, uint32_t limit)
{
  const struct kernels *kernels = is_wide ? &variant->float32 : &variant->bfloat16;
  void *from = room(n * (is_wide ? 4 : 2)), *to = room(n * (is_wide ? 4 : 2));
  const int64_t begin = 0;
  const struct dropped job = {n, n, &begin, 2, limit, 11, from, to};
  for (long i = 0; i < n; i++)
    put(from, i, is_wide, i % 7 ? drawn() : i % 2 ? NAN : 1e-40);
  for (long part = 0; part < TILES(n, DROPPED_AT_ONCE); part++)
    kernels->drop(&job, part);
  for (long i = 0; i < n; i++) {
    const uint64_t row = random_row(job.seed, i / DROPPED_AT_ONCE);
    const int kept = is_kept(limit, row, i % DROPPED_AT_ONCE);
    const double x = get(to, i, is_wide), expected = kept ? 2 * get(from, i, is_wide) : 0;
    const int fine = expected != expected ? x != x : fabs(x - expected) <= 3e-40;
    check(fine, variant->name, is_wide, "dropout", x - expected);
  }
  free(from), free(to);
}

int main(void)
{
  const long shapes[][2] = {{1, 7}, {2, 33}, {31, 1}, {KEYS + 1, 18}, {QUERIES + 7, 35}};
  for (size_t i = 0; i < sizeof(ALL) / sizeof(*ALL); i++) {
    if (!ALL[i]->runs())
      continue;
    printf("%s\n", ALL[i]->name);
    for (int is_wide = 0; is_wide < 2; is_wide++) {
      for (int j = 0; j < 5; j++)
        for (int shared = 0; shared < 2; shared++)
          try_attention(ALL[i], is_wide, shapes[j][0], 2, shapes[j][1], shared, j % 2,
                        j % 3 ? 16384 : 0);
      for (long n = 1; n < 20000; n = n * 7 + 2)
        try_dropout(ALL[i], is_wide, n, 20000);
    }
  }
  printf("%d of %d checks failed\n", n_failed, n_done);
  return n_failed > 0 || n_done == 0;
}
