/* Attention of one head of one image, forward and backward, and dropout; included once per variant
   and type of number.

   The including file defines NAME(x), `element` (the type in memory), PER_WORD (elements in 32
   bits), and of vectors of floats READ(from) and WRITE(to, x), and, of vectors of words,
   MULTIPLY_ADD(sum, a, b) and PAIRED(first, second).

   A word is what one lane multiplies and adds at once: a float, or two bfloat16 that follow one
   another along the summed dimension. The left factor of a product is read word by word; the right
   one lies in panels of PANEL columns, one row of words after the other. */

/* -- rows of elements --------------------------------------------------------------------------- */

/* The first n numbers of a vector. */
TARGET static inline floats NAME(read)(const element *from, long n)
{
  element part[LANES] = {0};
  if (n >= LANES)
    return READ(from);
  memcpy(part, from, n * sizeof(element));
  return READ(part);
}

TARGET static inline void NAME(write)(element *to, long n, floats x)
{
  element part[LANES];
  if (n >= LANES) {
    WRITE(to, x);
    return;
  }
  WRITE(part, x);
  memcpy(to, part, n * sizeof(element));
}

TARGET static inline void NAME(put)(element *out, const float *sums, long n, float factor)
{
  for (long j = 0; j < n; j += LANES)
    NAME(write)(out + j, n - j, load(sums + j) * factor);
}

TARGET static inline float NAME(dot)(const element *a, const element *b, long n)
{
  floats total = {0};
  for (long j = 0; j < n; j += LANES)
    total = FMA(NAME(read)(a + j, n - j), NAME(read)(b + j, n - j), total);
  return SUM(total);
}

/* Two vectors follow one another. */
TARGET static inline void NAME(store_row)(word *to, floats low, floats high)
{
  WRITE((element *)to, low);
  WRITE((element *)to + LANES, high);
}

/* Dropout of one part of the elements, of which those of one row and one part of the batch follow
   from the same random numbers. */
TARGET static void NAME(drop)(const struct dropped *job, long part)
{
  const long first = part * DROPPED_AT_ONCE, last = SMALLER(job->n, first + DROPPED_AT_ONCE);
  const float upscale = job->upscale;
  const uint32_t limit = job->limit;
  uint16_t drawn[KEYS + 2 * LANES] = {0};
  for (long begin = first, end; begin < last; begin = end) {
    const long in_row = begin % job->size;
    const long place = job->places[begin / job->size] * job->size + in_row;
    const long key = place % DROPPED_AT_ONCE, odd = key % 2; /* numbers come in pairs */
    const uint64_t row = random_row(job->seed, place / DROPPED_AT_ONCE);
    const uint16_t *numbers = drawn + odd;
    end = SMALLER(last, begin + SMALLER(job->size - in_row, DROPPED_AT_ONCE - key));
    for (long i = begin; i < end; i += KEYS) {
      const element *from = (const element *)job->from + i;
      element *to = (element *)job->to + i;
      const long n = SMALLER(KEYS, end - i);
      long j = 0;
      draw(limit, row, key - odd + i - begin, n + odd, drawn);
      for (; j + LANES <= n; j += LANES)
        WRITE(to + j, KEPT(READ(from + j) * upscale, numbers + j, limit));
      if (j < n)
        NAME(write)(to + j, n - j, KEPT(NAME(read)(from + j, n - j) * upscale, numbers + j, limit));
    }
  }
}

/* -- rows of weights ---------------------------------------------------------------------------- */

/* Weights of one query but for their common factor, dropped; returns the sum of all. */
TARGET static inline float NAME(weigh)(const struct attention *unit, const float *scores, long n,
                                       float maximum, uint64_t row, long key, uint16_t *numbers,
                                       word *weights)
{
  floats total = {0};
  draw(unit->limit, row, key, n, numbers);
  for (long j = 0; j < n; j += 2 * LANES) {
    const floats low = exponentials(scores + j, unit->log2_scale, maximum);
    const floats high = exponentials(scores + j + LANES, unit->log2_scale, maximum);
    total += low + high;
    NAME(store_row)(weights + j / PER_WORD, KEPT(low, numbers + j, unit->limit),
                    KEPT(high, numbers + j + LANES, unit->limit));
  }
  return SUM(total);
}

/* Dropped weights of one query, but for `upscale`, and gradients of its scores, from those of its
   weights; of two, or the last one, where what is summed over queries is laid out in pairs. */
TARGET static inline void NAME(weigh_back)(const struct attention *unit, const float *scores,
                                           const float *grads, long n_rows, long n,
                                           const float *log_sums, const float *deltas,
                                           uint64_t seed, long query, long key, uint16_t *numbers,
                                           word *weights, word *by_key, word *by_query)
{
  const int n_both = PER_WORD == 1 || n_rows == 1 ? 1 : 2;
  for (int i = 0; i < n_both; i++)
    draw(unit->limit, random_row(seed, query + i), key, n, numbers + i * KEYS);
  for (long j = 0; j < n; j += 2 * LANES) {
    floats weight[2][2] = {{{0}}}, slope[2][2] = {{{0}}};
    UNROLL for (int i = 0; i < PER_WORD; i++) {
      if (i >= n_both)
        break;
      UNROLL for (int half = 0; half < 2; half++) {
        const long at = i * KEYS + j + half * LANES;
        const floats e = exponentials(scores + at, unit->log2_scale, log_sums[i]);
        const floats g = KEPT(load(grads + at) * unit->upscale, numbers + at, unit->limit);
        weight[half][i] = KEPT(e, numbers + at, unit->limit);
        slope[half][i] = e * (g - deltas[i]);
      }
      if (PER_WORD > 1)
        NAME(store_row)(by_query + (i * KEYS + j) / PER_WORD, slope[0][i], slope[1][i]);
    }
    UNROLL for (int half = 0; half < 2; half++) {
      store(weights + j + half * LANES, (floats)PAIRED(weight[half][0], weight[half][1]));
      store(by_key + j + half * LANES, (floats)PAIRED(slope[half][0], slope[half][1]));
    }
  }
}

/* -- products ----------------------------------------------------------------------------------- */

/* Sums of n_rows times n_vectors that stay in registers, once inlined with constants. */
TARGET static INLINE void NAME(piece)(const int n_rows, const int n_vectors, long n_words,
                                      const word *restrict a, long row_step, long word_step,
                                      const word *restrict b, float *restrict c, long c_step,
                                      int add)
{
  floats sums[HEIGHT][VECTORS];
  UNROLL for (int i = 0; i < n_rows; i++)
    UNROLL for (int j = 0; j < n_vectors; j++)
      sums[i][j] = add ? load(c + i * c_step + LANES * j) : (floats){0};
  for (long k = 0; k < n_words; k++) {
    words right[VECTORS];
    UNROLL for (int j = 0; j < n_vectors; j++)
      right[j] = *(const loose_words *)(b + PANEL * k + LANES * j);
    UNROLL for (int i = 0; i < n_rows; i++) {
      const words left = a[i * row_step + k * word_step] - (words){0};
      UNROLL for (int j = 0; j < n_vectors; j++)
        sums[i][j] = MULTIPLY_ADD(sums[i][j], left, right[j]);
    }
  }
  UNROLL for (int i = 0; i < n_rows; i++)
    UNROLL for (int j = 0; j < n_vectors; j++)
      store(c + i * c_step + LANES * j, sums[i][j]);
}

/* c (n_rows, n_columns) = or += a b. A word of a is a[i * a_step + k] if `by_rows`, otherwise
   a[k * a_step + i]. Panels of b lie b_step words apart; c has room for whole vectors. */
TARGET static INLINE void NAME(multiply_in)(const int by_rows, const int n_vectors, long n_rows,
                                            long n_words, const word *a, long a_step, const word *b,
                                            float *c, long c_step, int add)
{
  const long row_step = by_rows ? a_step : 1, word_step = by_rows ? 1 : a_step;
#define PIECES_OF(N_ROWS)                                                                          \
  for (; N_ROWS <= HEIGHT && n_rows >= N_ROWS; n_rows -= N_ROWS) {                                 \
    NAME(piece)(N_ROWS, n_vectors, n_words, a, row_step, word_step, b, c, c_step, add);            \
    a += N_ROWS * row_step, c += N_ROWS * c_step;                                                  \
  }
  PIECES_OF(12) PIECES_OF(6) PIECES_OF(3) PIECES_OF(2) PIECES_OF(1)
#undef PIECES_OF
}

TARGET static void NAME(multiply)(long n_rows, long n_columns, long n_words, const word *a,
                                  long a_step, int by_rows, const word *b, long b_step, float *c,
                                  long c_step, int add)
{
  for (; n_columns > 0; n_columns -= PANEL, b += b_step, c += PANEL)
    if (n_columns > PANEL / 2)
      if (by_rows)
        NAME(multiply_in)(1, VECTORS, n_rows, n_words, a, a_step, b, c, c_step, add);
      else
        NAME(multiply_in)(0, VECTORS, n_rows, n_words, a, a_step, b, c, c_step, add);
    else if (by_rows)
      NAME(multiply_in)(1, VECTORS / 2, n_rows, n_words, a, a_step, b, c, c_step, add);
    else
      NAME(multiply_in)(0, VECTORS / 2, n_rows, n_words, a, a_step, b, c, c_step, add);
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
static void NAME(copy_panels)(const word *rows, long n_rows, long n_words, long n, word *to,
                              long step)
{
  for (long column = 0; column < n; column += PANEL, to += step) {
    const long n_own = SMALLER(PANEL, n - column);
    memset(to, 0, TILES(n_rows, PER_WORD) * PANEL * sizeof(word));
    for (long i = 0; i < n_rows; i++) {
      const element *from = (const element *)(rows + i * n_words) + column;
      element *own = (element *)(to + i / PER_WORD * PANEL) + i % PER_WORD;
      for (long j = 0; j < n_own; j++)
        own[j * PER_WORD] = from[j];
    }
  }
}

/* -- forward ------------------------------------------------------------------------------------ */

/* Returns how many bytes of memory it works in; without memory, that is all it does. */
TARGET static size_t NAME(forward)(const struct attention *unit, uint64_t seed, const element *q,
                                   const element *k, const element *v, element *out,
                                   float *log_sums, char *memory)
{
  const long n = unit->n_tokens, width = unit->width;
  const long d = TILES(width, PER_WORD), padded = ROUND_UP(width, PANEL);
  const long n_tiles = TILES(n, KEYS), panel = KEYS / PER_WORD * PANEL;
  const long keys_step = KEYS * d, values_step = KEYS / PER_WORD * padded; /* from tile to tile */
  const long share = TILES(keys_step, QUERIES); /* of a tile, for each query to fetch */
  float maxima[QUERIES], totals[QUERIES];
  uint16_t numbers[KEYS] = {0};
  size_t used = 0;
  word *rows = take(memory, &used, LARGER(KEYS, QUERIES) * d);
  word *keys = take(memory, &used, n_tiles * keys_step);
  word *values = take(memory, &used, n_tiles * values_step);
  word *weights = take(memory, &used, QUERIES * KEYS / PER_WORD);
  float *scores = take(memory, &used, QUERIES * KEYS);
  float *sums = take(memory, &used, QUERIES * padded);
  if (memory == NULL)
    return used;
  for (long tile = 0; tile < n_tiles; tile++) {
    const long key = tile * KEYS, n_keys = SMALLER(KEYS, n - key);
    NAME(copy_rows)(k + key * unit->kv_step, unit->kv_step, n_keys, width, rows, d);
    NAME(copy_columns)(rows, n_keys, d, keys + tile * keys_step);
    NAME(copy_rows)(v + key * unit->kv_step, unit->kv_step, n_keys, width, rows, d);
    NAME(copy_panels)(rows, n_keys, d, width, values + tile * values_step, panel);
  }
  for (long query = 0; query < n; query += QUERIES) {
    const long n_queries = SMALLER(QUERIES, n - query);
    NAME(copy_rows)(q + query * unit->q_step, unit->q_step, n_queries, width, rows, d);
    for (long i = 0; i < n_queries; i++)
      maxima[i] = -FLT_MAX, totals[i] = 0; /* a tile may be all minus infinity */
    memset(sums, 0, n_queries * padded * sizeof(float));
    for (long tile = 0; tile < n_tiles; tile++) {
      const long key = tile * KEYS, n_keys = SMALLER(KEYS, n - key);
      NAME(multiply)(n_queries, n_keys, d, rows, d, 1, keys + tile * keys_step, PANEL * d,
                     scores, KEYS, 0);
      hide(unit, scores, n_queries, n_keys, query, key);
      for (long i = 0; i < n_queries; i++) {
        const float *row = scores + i * KEYS;
        fetch(values + tile * values_step + i * share, share);
        fetch(keys + (tile + 1) % n_tiles * keys_step + i * share, share);
        const float shrink = raise_maximum(row, n_keys, unit->log2_scale, maxima + i);
        if (shrink != 1) {
          totals[i] *= shrink;
          scale_row(sums + i * padded, padded, shrink);
        }
        totals[i] += NAME(weigh)(unit, row, n_keys, maxima[i], random_row(seed, query + i), key,
                                 numbers, weights + i * KEYS / PER_WORD);
      }
      NAME(multiply)(n_queries, width, TILES(n_keys, PER_WORD), weights, KEYS / PER_WORD, 1,
                     values + tile * values_step, panel, sums, padded, 1);
    }
    for (long i = 0; i < n_queries; i++) {
      NAME(put)(out + (query + i) * unit->out_step, sums + i * padded, width,
                unit->upscale / totals[i]);
      log_sums[query + i] = maxima[i] + log2f(totals[i]);
    }
  }
  return used;
}

/* -- backward ----------------------------------------------------------------------------------- */

/* As forward. `v_grad` is NULL where values are the keys: `k_grad` is that of both. */
TARGET static size_t NAME(backward)(const struct attention *unit, uint64_t seed, const element *q,
                                    const element *k, const element *v, const element *out,
                                    const float *log_sums, const element *grad, element *q_grad,
                                    element *k_grad, element *v_grad, char *memory)
{
  const long n = unit->n_tokens, width = unit->width;
  const long kv_step = unit->kv_step, q_step = unit->q_step;
  const long d = TILES(width, PER_WORD), padded = ROUND_UP(width, PANEL);
  const long n_tiles = TILES(n, QUERIES), panel = QUERIES / PER_WORD * PANEL;
  const long rows_step = QUERIES * d, panels_step = QUERIES / PER_WORD * padded;
  uint16_t numbers[PER_WORD * KEYS] = {0};
  size_t used = 0;
  /* All queries and their gradients, as left and as right factors, and one tile of keys. */
  word *query_rows = take(memory, &used, n_tiles * rows_step);
  word *query_panels = take(memory, &used, n_tiles * panels_step);
  word *grad_rows = take(memory, &used, n_tiles * rows_step);
  word *grad_panels = take(memory, &used, n_tiles * panels_step);
  word *rows = take(memory, &used, KEYS * d);
  word *keys = take(memory, &used, KEYS * d);
  word *values = take(memory, &used, KEYS * d);
  word *key_panels = take(memory, &used, KEYS / PER_WORD * padded);
  word *weights = take(memory, &used, QUERIES / PER_WORD * KEYS);
  word *by_key = take(memory, &used, QUERIES / PER_WORD * KEYS);
  /* Rows of single elements are words either way. */
  word *by_query = PER_WORD == 1 ? by_key : take(memory, &used, QUERIES * KEYS / PER_WORD);
  float *scores = take(memory, &used, QUERIES * KEYS);
  float *grads = take(memory, &used, QUERIES * KEYS);
  float *q_sums = take(memory, &used, n * padded);
  float *k_sums = take(memory, &used, KEYS * padded);
  float *v_sums = take(memory, &used, KEYS * padded);
  float *deltas = take(memory, &used, n);
  if (memory == NULL)
    return used;
  for (long i = 0; i < n; i++)
    deltas[i] = NAME(dot)(grad + i * unit->out_step, out + i * unit->out_step, width);
  for (long tile = 0; tile < n_tiles; tile++) {
    const long query = tile * QUERIES, n_queries = SMALLER(QUERIES, n - query);
    word *to = query_rows + tile * rows_step;
    NAME(copy_rows)(q + query * q_step, q_step, n_queries, width, to, d);
    NAME(copy_panels)(to, n_queries, d, width, query_panels + tile * panels_step, panel);
    to = grad_rows + tile * rows_step;
    NAME(copy_rows)(grad + query * unit->out_step, unit->out_step, n_queries, width, to, d);
    NAME(copy_panels)(to, n_queries, d, width, grad_panels + tile * panels_step, panel);
  }
  memset(q_sums, 0, n * padded * sizeof(float));
  for (long key = 0; key < n; key += KEYS) {
    const long n_keys = SMALLER(KEYS, n - key);
    NAME(copy_rows)(v + key * kv_step, kv_step, n_keys, width, rows, d);
    NAME(copy_columns)(rows, n_keys, d, values);
    NAME(copy_rows)(k + key * kv_step, kv_step, n_keys, width, rows, d);
    NAME(copy_columns)(rows, n_keys, d, keys);
    NAME(copy_panels)(rows, n_keys, d, width, key_panels, KEYS / PER_WORD * PANEL);
    memset(k_sums, 0, n_keys * padded * sizeof(float));
    memset(v_sums, 0, n_keys * padded * sizeof(float));
    for (long tile = 0; tile < n_tiles; tile++) {
      const long query = tile * QUERIES, n_queries = SMALLER(QUERIES, n - query);
      NAME(multiply)(n_queries, n_keys, d, query_rows + tile * rows_step, d, 1, keys,
                     PANEL * d, scores, KEYS, 0);
      NAME(multiply)(n_queries, n_keys, d, grad_rows + tile * rows_step, d, 1, values,
                     PANEL * d, grads, KEYS, 0);
      hide(unit, scores, n_queries, n_keys, query, key);
      for (long i = 0; i < n_queries; i += PER_WORD)
        NAME(weigh_back)(unit, scores + i * KEYS, grads + i * KEYS, n_queries - i, n_keys,
                         log_sums + query + i, deltas + query + i, seed, query + i, key,
                         numbers, weights + i / PER_WORD * KEYS, by_key + i / PER_WORD * KEYS,
                         by_query + i * KEYS / PER_WORD);
      NAME(multiply)(n_keys, width, TILES(n_queries, PER_WORD), weights, KEYS, 0,
                     grad_panels + tile * panels_step, panel, v_sums, padded, 1);
      NAME(multiply)(n_keys, width, TILES(n_queries, PER_WORD), by_key, KEYS, 0,
                     query_panels + tile * panels_step, panel, k_sums, padded, 1);
      NAME(multiply)(n_queries, width, TILES(n_keys, PER_WORD), by_query, KEYS / PER_WORD, 1,
                     key_panels, KEYS / PER_WORD * PANEL, q_sums + query * padded, padded, 1);
    }
    for (long j = 0; j < n_keys; j++) {
      float *k_row = k_sums + j * padded, *v_row = v_sums + j * padded;
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
    NAME(put)(q_grad + i * q_step, q_sums + i * padded, width, unit->scale);
  return used;
}

/* -- units -------------------------------------------------------------------------------------- */

/* The work of one head of one image. */
static void NAME(do_unit)(const struct attention *all_heads,
                          const struct tensors *t, long i, char *memory)
{
  const long n = all_heads->n_tokens, image = i / all_heads->n_heads, part = all_heads->out_step;
  const long own = i % all_heads->n_heads * all_heads->width;
  const long in = image * n * all_heads->q_step + own, at = image * n * all_heads->out_step + own;
  const long place = t->places ? t->places[image] : image;
  const uint64_t unit = place * all_heads->n_heads + i % all_heads->n_heads;
  const uint64_t seed = mixed_bits(t->seed + unit);
  const element *q = (const element *)t->q + in;
  const element *shared = t->shared;
  const element *k = shared ? shared + image * n * all_heads->width : q + part;
  const element *v = shared ? k : q + 2 * part;
  element *out = (element *)t->out + at;
  if (t->grad == NULL) {
    NAME(forward)(all_heads, seed, q, k, v, out, t->log_sums + i * n, memory);
    return;
  }
  element *q_grad = (element *)t->q_grad + in;
  element *k_grad = shared ? (element *)t->shared_grad + i * n * all_heads->width : q_grad + part;
  element *v_grad = shared ? NULL : q_grad + 2 * part;
  NAME(backward)(all_heads, seed, q, k, v, out, t->log_sums + i * n, (const element *)t->grad + at,
                 q_grad, k_grad, v_grad, memory);
}

/* Memory in which one thread works. */
static size_t NAME(memory)(const struct attention *all_heads, int backward)
{
  if (!backward)
    return NAME(forward)(all_heads, 0, NULL, NULL, NULL, NULL, NULL, NULL);
  return NAME(backward)(all_heads, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
}
