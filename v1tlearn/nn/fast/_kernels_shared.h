/* What all variants of the kernels share: sizes, options, random numbers. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Tokens of a tile, which should stay in the second cache. */
#define QUERIES 288
#define KEYS 192
#define LARGEST_PANEL 32
#define DROPPED_AT_ONCE 16384

#define SMALLER(a, b) ((a) < (b) ? (a) : (b))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define TILES(n, size) (((n) + (size)-1) / (size))
#define ROUND_UP(n, size) (TILES(n, size) * (size))

#define NAME_OF(x) TEXT_OF(x)
#define TEXT_OF(x) #x
#define INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef uint32_t word __attribute__((may_alias));

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
  const int64_t *places;         /* of these images in their batch; NULL: one after the other */
  const void *q, *shared, *grad; /* grad is NULL for the forward pass */
  void *out, *q_grad, *shared_grad;
  float *log_sums;
};

/* Elements of which some are dropped, in the same way whatever the threads, and whichever rows of a
   batch they are: row i, of `size` elements, is row places[i] of it. */
struct dropped {
  long n, size;
  const int64_t *places;
  float upscale;
  uint32_t limit;
  uint64_t seed;
  const void *from;
  void *to;
};

struct kernels {
  size_t (*memory)(const struct attention *, int);
  void (*do_unit)(const struct attention *, const struct tensors *, long, char *);
  void (*drop)(const struct dropped *, long);
};

extern const struct variant {
  const char *name;
  int (*runs)(void);
  int multiplies_bfloat16;
  struct kernels float32, bfloat16;
} avx512_bf16, avx512, avx2, neon, generic;

/* The next words of some memory, on cache lines of their own; only counted if there is none. */
static inline void *take(char *memory, size_t *used, long n_words)
{
  char *here = memory ? memory + *used : NULL;
  *used += ROUND_UP((size_t)n_words, 16) * sizeof(word);
  return here;
}

/* Let n words come into the second cache, which are needed soon. */
static inline void fetch(const word *from, long n)
{
  for (long i = 0; i < n; i += 16)
    __builtin_prefetch(from + i, 0, 2);
}

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
