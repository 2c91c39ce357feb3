/* Attention of one head of one image, forward and backward; included once per type of number.

   The including file defines NAME(x), TARGET, `element` (the type in memory), PER_WORD (elements
   in 32 bits), MULTIPLY_ADD(sum, a, b) for sixteen words, and the functions read, write, weave,
   weigh and weigh_back of this type.

   A word is what one lane multiplies and adds at once: a float, or two bfloat16 that follow one
   another along the summed dimension. The left factor of a product is read word by word; the right
   one lies in panels of PANEL columns, one row of words after the other. */

/* -- rows of elements --------------------------------------------------------------------------- */

TARGET static inline void NAME(put)(element *out, const float *sums, long n, float factor)
{
  for (long j = 0; j < n; j += 16)
    NAME(write)(out + j, n - j, _mm512_mul_ps(_mm512_loadu_ps(sums + j), _mm512_set1_ps(factor)));
}

TARGET static inline float NAME(dot)(const element *a, const element *b, long n)
{
  __m512 total = _mm512_setzero_ps();
  for (long j = 0; j < n; j += 16)
    total = _mm512_fmadd_ps(NAME(read)(a + j, n - j), NAME(read)(b + j, n - j), total);
  return _mm512_reduce_add_ps(total);
}

/* Dropout of one part of n elements. */
TARGET static void NAME(drop)(long n, long part, float upscale, uint32_t limit, uint64_t seed,
                              const element *from, element *to)
{
  const long first = part * DROPPED_AT_ONCE, last = SMALLER(n, first + DROPPED_AT_ONCE);
  const uint64_t row = random_row(seed, part);
  for (long i = first; i < last; i += 32) {
    __mmask32 keep = kept(limit, row, i - first);
    for (long at = i; at < i + 32; at += 16, keep >>= 16)
      NAME(write)(to + at, last - at,
                  _mm512_maskz_mul_ps((__mmask16)keep, NAME(read)(from + at, last - at),
                                      _mm512_set1_ps(upscale)));
  }
}

/* -- products ----------------------------------------------------------------------------------- */

/* ROWS times 16 * VECTORS sums that stay in registers. */
#define PIECE(NAME_, ROWS, VECTORS, ROW_STEP, WORD_STEP)                                           \
  TARGET static void NAME(NAME_)(long n_words, const word *restrict a, long a_step,               \
                                 const word *restrict b, float *restrict c, long c_step, int add) \
  {                                                                                                \
    __m512 sums[ROWS][VECTORS];                                                                    \
    _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++)                                        \
      _Pragma("GCC unroll 2") for (int j = 0; j < VECTORS; j++)                                    \
        sums[i][j] = add ? _mm512_loadu_ps(c + i * c_step + 16 * j) : _mm512_setzero_ps();         \
    for (long k = 0; k < n_words; k++) {                                                           \
      __m512 right[VECTORS];                                                                       \
      _Pragma("GCC unroll 2") for (int j = 0; j < VECTORS; j++)                                    \
        right[j] = _mm512_loadu_ps((const float *)(b + PANEL * k + 16 * j));                       \
      _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++) {                                    \
        __m512i left = _mm512_set1_epi32((int)a[i * (ROW_STEP) + k * (WORD_STEP)]);                \
        _Pragma("GCC unroll 2") for (int j = 0; j < VECTORS; j++)                                  \
          sums[i][j] = MULTIPLY_ADD(sums[i][j], _mm512_castsi512_ps(left), right[j]);              \
      }                                                                                            \
    }                                                                                              \
    _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++)                                        \
      _Pragma("GCC unroll 2") for (int j = 0; j < VECTORS; j++)                                    \
        _mm512_storeu_ps(c + i * c_step + 16 * j, sums[i][j]);                                     \
  }

#define PIECES(ROWS)                                                                               \
  PIECE(rows_##ROWS##_1, ROWS, 1, a_step, 1)                                                       \
  PIECE(rows_##ROWS##_2, ROWS, 2, a_step, 1)                                                       \
  PIECE(columns_##ROWS##_1, ROWS, 1, 1, a_step)                                                    \
  PIECE(columns_##ROWS##_2, ROWS, 2, 1, a_step)

PIECES(12)
PIECES(6)
PIECES(3)
PIECES(2)
PIECES(1)

#define HEIGHTS(KIND, VECTORS)                                                                     \
  {                                                                                                \
    NAME(KIND##_12_##VECTORS), NAME(KIND##_6_##VECTORS), NAME(KIND##_3_##VECTORS),                 \
        NAME(KIND##_2_##VECTORS), NAME(KIND##_1_##VECTORS)                                         \
  }

typedef void (*NAME(piece))(long, const word *, long, const word *, float *, long, int);

/* c (n_rows, n_columns) = or += a b. A word of a is a[i * a_step + k] if `by_rows`, otherwise
   a[k * a_step + i]. Panels of b lie b_step words apart; c has room for whole vectors. */
TARGET static void NAME(multiply)(long n_rows, long n_columns, long n_words, const word *a,
                                  long a_step, int by_rows, const word *b, long b_step, float *c,
                                  long c_step, int add)
{
  static const int heights[] = {12, 6, 3, 2, 1};
  static const NAME(piece) pieces[2][2][5] = {{HEIGHTS(columns, 1), HEIGHTS(columns, 2)},
                                              {HEIGHTS(rows, 1), HEIGHTS(rows, 2)}};
  for (long column = 0; column < n_columns; column += PANEL, b += b_step) {
    const NAME(piece) *piece = pieces[by_rows][n_columns - column > 16];
    long row = 0;
    for (int h = 0; h < 5; h++)
      for (; n_rows - row >= heights[h]; row += heights[h])
        piece[h](n_words, a + (by_rows ? row * a_step : row), a_step, b,
                 c + row * c_step + column, c_step, add);
  }
}

/* -- layouts of factors ------------------------------------------------------------------------- */

/* Left factors: rows of elements, `step` apart, become rows of words, the last one filled up. */
static void NAME(copy_rows)(const element *from, long step, long n_rows, long n, word *to,
                            long n_words)
{
  for (long i = 0; i < n_rows; i++, to += n_words) {
    to[n_words - 1] = 0;
    memcpy(to, from + i * step, n * sizeof(element));
  }
}

/* Right factors: rows of words become columns of panels, the last one filled up with zeros. */
static void NAME(copy_columns)(const word *rows, long n_rows, long n_words, word *to)
{
  for (long first = 0; first < n_rows; first += PANEL, rows += PANEL * n_words)
    for (long k = 0; k < n_words; k++, to += PANEL) {
      const long n = SMALLER(PANEL, n_rows - first);
      for (long j = 0; j < n; j++)
        to[j] = rows[j * n_words + k];
      for (long j = n; j < PANEL; j++)
        to[j] = 0;
    }
}

/* Right factors: rows of elements, in words of `n_words` each, become rows of panels that lie
   `step` words apart; rows and columns are filled up with zeros. */
TARGET static void NAME(copy_panels)(const word *rows, long n_rows, long n_words, long n, word *to,
                                     long step)
{
  for (long column = 0; column < n; column += PANEL, to += step)
    for (long i = 0; i < n_rows; i += PER_WORD)
      NAME(weave)((const element *)(rows + i * n_words) + column,
                  i + 1 < n_rows ? n_words * PER_WORD : 0, SMALLER(PANEL, n - column),
                  to + i / PER_WORD * PANEL);
}

/* -- forward ------------------------------------------------------------------------------------ */

/* Tokens that are right factors of two products, and how far apart their tiles lie. */
struct NAME(forward_memory) {
  word *rows, *keys, *values, *weights;
  float *scores, *sums;
  long keys_step, values_step;
};

static size_t NAME(forward_memory)(const struct attention *unit, char *memory,
                                   struct NAME(forward_memory) *m)
{
  const long d = unit->width / PER_WORD + (unit->width % PER_WORD > 0);
  const long padded = ROUND_UP(unit->width, PANEL), n_tiles = TILES(unit->n_tokens, KEYS);
  size_t used = 0;
  m->keys_step = KEYS * d, m->values_step = KEYS / PER_WORD * padded;
  m->rows = take(memory, &used, LARGER(KEYS, QUERIES) * d);
  m->keys = take(memory, &used, n_tiles * m->keys_step);
  m->values = take(memory, &used, n_tiles * m->values_step);
  m->weights = take(memory, &used, QUERIES * KEYS / PER_WORD);
  m->scores = take(memory, &used, QUERIES * KEYS);
  m->sums = take(memory, &used, QUERIES * padded);
  return used;
}

TARGET static void NAME(forward)(const struct attention *unit, uint64_t seed, const element *q,
                                 const element *k, const element *v, element *out,
                                 float *log_sums, char *memory)
{
  const long n = unit->n_tokens, width = unit->width;
  const long d = width / PER_WORD + (width % PER_WORD > 0), padded = ROUND_UP(width, PANEL);
  const long n_tiles = TILES(n, KEYS), panel = KEYS / PER_WORD * PANEL;
  struct NAME(forward_memory) m;
  float maxima[QUERIES], totals[QUERIES];
  NAME(forward_memory)(unit, memory, &m);
  for (long tile = 0; tile < n_tiles; tile++) {
    const long key = tile * KEYS, n_keys = SMALLER(KEYS, n - key);
    NAME(copy_rows)(k + key * unit->kv_step, unit->kv_step, n_keys, width, m.rows, d);
    NAME(copy_columns)(m.rows, n_keys, d, m.keys + tile * m.keys_step);
    NAME(copy_rows)(v + key * unit->kv_step, unit->kv_step, n_keys, width, m.rows, d);
    NAME(copy_panels)(m.rows, n_keys, d, width, m.values + tile * m.values_step, panel);
  }
  for (long query = 0; query < n; query += QUERIES) {
    const long n_queries = SMALLER(QUERIES, n - query);
    NAME(copy_rows)(q + query * unit->q_step, unit->q_step, n_queries, width, m.rows, d);
    for (long i = 0; i < n_queries; i++)
      maxima[i] = -FLT_MAX, totals[i] = 0; /* a tile may be all minus infinity */
    memset(m.sums, 0, n_queries * padded * sizeof(float));
    for (long tile = 0; tile < n_tiles; tile++) {
      const long key = tile * KEYS, n_keys = SMALLER(KEYS, n - key);
      NAME(multiply)(n_queries, n_keys, d, m.rows, d, 1, m.keys + tile * m.keys_step, PANEL * d,
                     m.scores, KEYS, 0);
      hide(unit, m.scores, n_queries, n_keys, query, key);
      for (long i = 0; i < n_queries; i++) {
        const float *row = m.scores + i * KEYS;
        const float shrink = raise_maximum(row, n_keys, unit->log2_scale, maxima + i);
        if (shrink != 1) {
          totals[i] *= shrink;
          scale_row(m.sums + i * padded, padded, shrink);
        }
        totals[i] += NAME(weigh)(unit, row, n_keys, maxima[i], random_row(seed, query + i), key,
                                 m.weights + i * KEYS / PER_WORD);
      }
      NAME(multiply)(n_queries, width, TILES(n_keys, PER_WORD), m.weights, KEYS / PER_WORD, 1,
                     m.values + tile * m.values_step, panel, m.sums, padded, 1);
    }
    for (long i = 0; i < n_queries; i++) {
      NAME(put)(out + (query + i) * unit->out_step, m.sums + i * padded, width,
                unit->upscale / totals[i]);
      log_sums[query + i] = maxima[i] + log2f(totals[i]);
    }
  }
}

/* -- backward ----------------------------------------------------------------------------------- */

/* All queries and their gradients, as left and as right factors, and one tile of keys. */
struct NAME(backward_memory) {
  word *query_rows, *query_panels, *grad_rows, *grad_panels;
  word *rows, *keys, *values, *key_panels, *weights, *by_key, *by_query;
  float *scores, *grads, *q_sums, *k_sums, *v_sums, *deltas;
  long rows_step, panels_step;
};

static size_t NAME(backward_memory)(const struct attention *unit, char *memory,
                                    struct NAME(backward_memory) *m)
{
  const long n = unit->n_tokens, d = unit->width / PER_WORD + (unit->width % PER_WORD > 0);
  const long padded = ROUND_UP(unit->width, PANEL), n_tiles = TILES(n, QUERIES);
  size_t used = 0;
  m->rows_step = QUERIES * d, m->panels_step = QUERIES / PER_WORD * padded;
  m->query_rows = take(memory, &used, n_tiles * m->rows_step);
  m->query_panels = take(memory, &used, n_tiles * m->panels_step);
  m->grad_rows = take(memory, &used, n_tiles * m->rows_step);
  m->grad_panels = take(memory, &used, n_tiles * m->panels_step);
  m->rows = take(memory, &used, KEYS * d);
  m->keys = take(memory, &used, KEYS * d);
  m->values = take(memory, &used, KEYS * d);
  m->key_panels = take(memory, &used, KEYS / PER_WORD * padded);
  m->weights = take(memory, &used, QUERIES / PER_WORD * KEYS);
  m->by_key = take(memory, &used, QUERIES / PER_WORD * KEYS);
  /* Rows of single elements are words either way. */
  m->by_query = PER_WORD == 1 ? m->by_key : take(memory, &used, QUERIES * KEYS / PER_WORD);
  m->scores = take(memory, &used, QUERIES * KEYS);
  m->grads = take(memory, &used, QUERIES * KEYS);
  m->q_sums = take(memory, &used, n * padded);
  m->k_sums = take(memory, &used, KEYS * padded);
  m->v_sums = take(memory, &used, KEYS * padded);
  m->deltas = take(memory, &used, n);
  return used;
}

/* `v_grad` is NULL where values are the keys: `k_grad` is that of both. */
TARGET static void NAME(backward)(const struct attention *unit, uint64_t seed, const element *q,
                                  const element *k, const element *v, const element *out,
                                  const float *log_sums, const element *grad, element *q_grad,
                                  element *k_grad, element *v_grad, char *memory)
{
  const long n = unit->n_tokens, width = unit->width;
  const long kv_step = unit->kv_step, q_step = unit->q_step;
  const long d = width / PER_WORD + (width % PER_WORD > 0), padded = ROUND_UP(width, PANEL);
  const long n_tiles = TILES(n, QUERIES), panel = QUERIES / PER_WORD * PANEL;
  struct NAME(backward_memory) m;
  NAME(backward_memory)(unit, memory, &m);
  for (long i = 0; i < n; i++)
    m.deltas[i] = NAME(dot)(grad + i * unit->out_step, out + i * unit->out_step, width);
  for (long tile = 0; tile < n_tiles; tile++) {
    const long query = tile * QUERIES, n_queries = SMALLER(QUERIES, n - query);
    word *to = m.query_rows + tile * m.rows_step;
    NAME(copy_rows)(q + query * q_step, q_step, n_queries, width, to, d);
    NAME(copy_panels)(to, n_queries, d, width, m.query_panels + tile * m.panels_step, panel);
    to = m.grad_rows + tile * m.rows_step;
    NAME(copy_rows)(grad + query * unit->out_step, unit->out_step, n_queries, width, to, d);
    NAME(copy_panels)(to, n_queries, d, width, m.grad_panels + tile * m.panels_step, panel);
  }
  memset(m.q_sums, 0, n * padded * sizeof(float));
  for (long key = 0; key < n; key += KEYS) {
    const long n_keys = SMALLER(KEYS, n - key);
    NAME(copy_rows)(v + key * kv_step, kv_step, n_keys, width, m.rows, d);
    NAME(copy_columns)(m.rows, n_keys, d, m.values);
    NAME(copy_rows)(k + key * kv_step, kv_step, n_keys, width, m.rows, d);
    NAME(copy_columns)(m.rows, n_keys, d, m.keys);
    NAME(copy_panels)(m.rows, n_keys, d, width, m.key_panels, KEYS / PER_WORD * PANEL);
    memset(m.k_sums, 0, n_keys * padded * sizeof(float));
    memset(m.v_sums, 0, n_keys * padded * sizeof(float));
    for (long tile = 0; tile < n_tiles; tile++) {
      const long query = tile * QUERIES, n_queries = SMALLER(QUERIES, n - query);
      NAME(multiply)(n_queries, n_keys, d, m.query_rows + tile * m.rows_step, d, 1, m.keys,
                     PANEL * d, m.scores, KEYS, 0);
      NAME(multiply)(n_queries, n_keys, d, m.grad_rows + tile * m.rows_step, d, 1, m.values,
                     PANEL * d, m.grads, KEYS, 0);
      hide(unit, m.scores, n_queries, n_keys, query, key);
      for (long i = 0; i < n_queries; i += PER_WORD)
        NAME(weigh_back)(unit, m.scores + i * KEYS, m.grads + i * KEYS, n_queries - i, n_keys,
                         log_sums + query + i, m.deltas + query + i, seed, query + i, key,
                         m.weights + i / PER_WORD * KEYS, m.by_key + i / PER_WORD * KEYS,
                         m.by_query + i * KEYS / PER_WORD);
      NAME(multiply)(n_keys, width, TILES(n_queries, PER_WORD), m.weights, KEYS, 0,
                     m.grad_panels + tile * m.panels_step, panel, m.v_sums, padded, 1);
      NAME(multiply)(n_keys, width, TILES(n_queries, PER_WORD), m.by_key, KEYS, 0,
                     m.query_panels + tile * m.panels_step, panel, m.k_sums, padded, 1);
      NAME(multiply)(n_queries, width, TILES(n_keys, PER_WORD), m.by_query, KEYS / PER_WORD, 1,
                     m.key_panels, KEYS / PER_WORD * PANEL, m.q_sums + query * padded, padded, 1);
    }
    for (long j = 0; j < n_keys; j++) {
      float *k_row = m.k_sums + j * padded, *v_row = m.v_sums + j * padded;
      if (v_grad) {
        NAME(put)(k_grad + (key + j) * kv_step, k_row, width, unit->scale);
        NAME(put)(v_grad + (key + j) * kv_step, v_row, width, unit->upscale);
      } else {
        combine_rows(k_row, unit->scale, v_row, unit->upscale, padded);
        NAME(put)(k_grad + (key + j) * kv_step, k_row, width, 1);
      }
    }
  }
  for (long i = 0; i < n; i++)
    NAME(put)(q_grad + i * q_step, m.q_sums + i * padded, width, unit->scale);
}

/* -- units -------------------------------------------------------------------------------------- */

/* The work of one head of one image. */
static void NAME(do_unit)(const struct attention *all, const struct tensors *t, long i, char *memory)
{
  const long n = all->n_tokens, image = i / all->n_heads, part = all->out_step;
  const long own = i % all->n_heads * all->width;
  const long in = image * n * all->q_step + own, at = image * n * all->out_step + own;
  const uint64_t seed = mixed_bits(t->seed + (uint64_t)i);
  const element *q = (const element *)t->q + in;
  const element *shared = t->shared;
  const element *k = shared ? shared + image * n * all->width : q + part;
  const element *v = shared ? k : q + 2 * part;
  element *out = (element *)t->out + at;
  if (t->grad == NULL) {
    NAME(forward)(all, seed, q, k, v, out, t->log_sums + i * n, memory);
    return;
  }
  element *q_grad = (element *)t->q_grad + in;
  element *k_grad = shared ? (element *)t->shared_grad + i * n * all->width : q_grad + part;
  element *v_grad = shared ? NULL : q_grad + 2 * part;
  NAME(backward)(all, seed, q, k, v, out, t->log_sums + i * n, (const element *)t->grad + at,
                 q_grad, k_grad, v_grad, memory);
}

/* Memory in which one thread works. */
static size_t NAME(memory)(const struct attention *all, int backward)
{
  struct NAME(forward_memory) of_forward;
  struct NAME(backward_memory) of_backward;
  return backward ? NAME(backward_memory)(all, NULL, &of_backward)
                  : NAME(forward_memory)(all, NULL, &of_forward);
}
