#include "tune/kernel_trace.h"

#include <string.h>

#include "kernels/unpack.h"

#define MOST_STREAMS 48                 /* 8 tokens of 4 arrays, 4 panels, and what else a loop reads */
#define BOOK_BYTES 4096                 /* of a code book, what a block's look-ups touch at most */
#define STACK_BYTES 2048                /* of a quantized kernel's frame, 1.4 to 2.8 KB in AVX2 */
#define STACK_ROUNDS 8                  /* per sweep; the loop needs all of it for every block */
#define STACK_PLACE ((uint64_t)1 << 63) /* where no object can be */
#define BOOK_PLACE (STACK_PLACE + ((uint64_t)1 << 32))

typedef enum level { LEVEL_SCALAR, LEVEL_AVX2, LEVEL_AVX512 } level;

static level level_of(const kernels *k)
{
    if (strcmp(k->name, "scalar") == 0)
        return LEVEL_SCALAR;
    return strcmp(k->name, "avx2") == 0 ? LEVEL_AVX2 : LEVEL_AVX512;
}

/* ---- sweeps: arrays that a loop goes through side by side, from their first byte to their last ---- */

/* total bytes in rows of row_bytes, stride apart. */
typedef struct stream {
    uint64_t at;
    size_t row_bytes, stride, total, done;
} stream;

typedef struct sweep {
    cache_model *c;
    int n;
    stream streams[MOST_STREAMS];
} sweep;

static void sweep_rows(sweep *s, const void *at, size_t row_bytes, size_t stride, size_t n_rows)
{
    const bool together = stride == row_bytes;
    if (row_bytes * n_rows == 0)
        return;
    cache_model_note_runs(s->c, together ? row_bytes * n_rows : row_bytes, together ? 1 : n_rows);
    s->streams[s->n++] = (stream){.at = (uintptr_t)at,
                                  .row_bytes = together ? row_bytes * n_rows : row_bytes,
                                  .stride = stride,
                                  .total = row_bytes * n_rows};
}

static void sweep_array(sweep *s, const void *at, size_t n_bytes) { sweep_rows(s, at, n_bytes, n_bytes, 1); }

/* Touches the granules that bytes [done, until) lie in, whole as far as they belong to the row. */
static void stream_advance(cache_model *c, stream *s, size_t until)
{
    const size_t granule = cache_model_granule(c);
    while (s->done < until) {
        const size_t row = s->done / s->row_bytes, in_row = s->done - row * s->row_bytes;
        const uint64_t address = s->at + row * s->stride + in_row;
        const size_t to_granule = granule - (size_t)(address & (granule - 1)), to_row = s->row_bytes - in_row;
        const size_t n = to_granule < to_row ? to_granule : to_row;
        cache_model_touch(c, address, n);
        s->done += n;
    }
}

/* In as many steps as the longest array has granules. */
static void sweep_run(sweep *s)
{
    size_t longest = 0;
    for (int i = 0; i < s->n; i++)
        longest = s->streams[i].total > longest ? s->streams[i].total : longest;
    const size_t steps = longest / cache_model_granule(s->c) + 1;
    for (size_t step = 1; step <= steps; step++)
        for (int i = 0; i < s->n; i++)
            stream_advance(s->c, &s->streams[i], (size_t)((double)s->streams[i].total * (double)step / (double)steps));
    s->n = 0;
}

/* ---- linear layers ---- */

/*
 * How a kernel walks: chunks of panels, within them parts of the columns, which are expanded into scratch first (or not), then
 * the tiles: some tokens times groups of panels.
 */
typedef struct walk {
    const kernels *k;
    dil_type type;
    const packed_type *packed; /* NULL: floats */
    const linear_args *a;
    int chunk, group, tokens;
    int64_t columns;     /* of a part */
    size_t record_bytes; /* in scratch, per panel and block of columns; 0: panels are read as they are */
} walk;

/* Up to so many tokens the gemm of AVX-512 does not expand: the last numbers of the AVX512_LINEAR lines. */
static int few_tokens(dil_type type, const packed_type *packed)
{
    switch (type) {
    case DIL_TYPE_Q5_0:
    case DIL_TYPE_Q3_K:
    case DIL_TYPE_D3_0: return 12;
    case DIL_TYPE_Q5_K:
    case DIL_TYPE_Q6_K:
    case DIL_TYPE_D6_0:
    case DIL_TYPE_IQ4_XS:
    case DIL_TYPE_MXFP4:
    case DIL_TYPE_NVFP4: return 16;
    default: return packed->bits == 0 ? 8 : 32;
    }
}

static int64_t parts(int64_t n, int64_t most) { return (n + most - 1) / most; }

static void walk_floats(walk *w, level l, bool gemm)
{
    const bool avx512 = l == LEVEL_AVX512;
    if (!gemm) {
        w->chunk = w->group = avx512 ? 4 : w->a->n_tokens <= 2 ? 2 : 1;
        return;
    }
    w->tokens = 6;
    const bool expands = w->type == DIL_TYPE_F16 || (avx512 && w->type == DIL_TYPE_BF16);
    const int64_t most = avx512 || expands ? 256 : w->a->k;
    w->columns = w->a->k < most ? w->a->k : most;
    w->record_bytes = expands ? (size_t)ACT_BLOCK * PANEL_ROWS * (w->k->bf16_dot ? 2 : 4) : 0;
    if (avx512)
        w->chunk = w->group = 4;
}

static void walk_quantized(walk *w, level l, bool gemm)
{
    const int n = w->a->n_tokens;
    if (!gemm)
        return;
    if (l == LEVEL_AVX512 && n <= few_tokens(w->type, w->packed)) {
        w->tokens = (int)parts(n, parts(n, 8));
        return;
    }
    const int whole = l == LEVEL_AVX2 && w->packed->n_minima == 2 ? 2 : 0; /* scales that stay numbers */
    w->record_bytes =
        BLOCK_STEPS * STEP_BYTES + (size_t)(ACT_BLOCK / w->packed->sub + w->packed->n_minima + whole) * PANEL_ROWS * 4;
    w->tokens = 4;
    const int64_t in_group = l == LEVEL_AVX2 ? w->packed->columns / ACT_BLOCK : 1, blocks = w->a->k / ACT_BLOCK;
    w->columns = parts(blocks / in_group, parts(blocks, GEMM_K / ACT_BLOCK)) * in_group * ACT_BLOCK;
    if (l == LEVEL_AVX512) {
        w->tokens = 6;
        w->group = 2;
        w->chunk = GEMM_CHUNK;
    }
}

static walk walk_of(const kernels *k, dil_type type, const linear_args *a, bool gemm)
{
    walk w = {k, type, packed_type_get(type), a, .chunk = 1, .group = 1, .tokens = a->n_tokens, .columns = a->k};
    const level l = level_of(k);
    if (l == LEVEL_SCALAR)
        w.tokens = 8;
    else if (!w.packed)
        walk_floats(&w, l, gemm);
    else
        walk_quantized(&w, l, gemm);
    return w;
}

/* Words of 8 or 4 columns and the high bits of their indices; 0 words: the type has no code book. */
static void book_shape(dil_type type, int *words, int *high_bits)
{
    *words = *high_bits = 0;
#define BOOK(name, n_words, high, sub, marks) \
    if (type == DIL_TYPE_##name) {            \
        *words = n_words;                     \
        *high_bits = high;                    \
    }
    GRID_TYPES(BOOK)
#undef BOOK
}

/* The code book of a type, gone round and round: all of it for every block, or as much as look-ups by chance touch. AVX-512 holds two
 * bytes per entry, other levels its columns. */
static void sweep_book(sweep *s, const walk *w, int64_t columns)
{
    int words, high_bits;
    book_shape(w->type, &words, &high_bits);
    if (words == 0)
        return;
    const size_t entry = level_of(w->k) == LEVEL_AVX512 ? 2 : 32 / (size_t)words, bytes = ((size_t)256 << high_bits) * entry;
    const size_t per_block = bytes < BOOK_BYTES ? bytes : BOOK_BYTES;
    s->streams[s->n++] = (stream){.at = BOOK_PLACE + ((uint64_t)w->type << 20),
                                  .row_bytes = bytes,
                                  .total = per_block * (size_t)(columns / ACT_BLOCK)};
}

/* Columns [from, from + columns) of panels as they are packed. */
static void sweep_panels(sweep *s, const walk *w, int panel, int n_panels, int64_t from, int64_t columns)
{
    const linear_args *a = w->a;
    const size_t begin = (size_t)((int64_t)a->panel_bytes * from / a->k);
    const size_t end = (size_t)((int64_t)a->panel_bytes * (from + columns) / a->k);
    for (int p = panel; p < panel + n_panels; p++)
        sweep_array(s, a->panels + (size_t)p * a->panel_bytes + begin, end - begin);
    sweep_book(s, w, columns);
}

/* A group's place in scratch: the groups of a chunk one after the other. */
static void sweep_scratch(sweep *s, const walk *w, int in_chunk, int n_panels, int64_t columns)
{
    const size_t panel_bytes = w->record_bytes * (size_t)parts(columns, ACT_BLOCK);
    sweep_array(s, w->a->scratch + (size_t)in_chunk * panel_bytes, (size_t)n_panels * panel_bytes);
}

/* Whether sums of activations are read for the offset of the type's quants. Signed bytes of AVX2 have none. */
static bool reads_sums(const walk *w)
{
    const bool signed_bytes = w->type == DIL_TYPE_Q8_0 || w->type == DIL_TYPE_IQ4_NL || w->type == DIL_TYPE_IQ4_XS;
    const level l = level_of(w->k);
    return w->packed->off != 0 && l != LEVEL_SCALAR && !(l == LEVEL_AVX2 && signed_bytes);
}

static void sweep_quantized_token(sweep *s, const walk *w, size_t row, int64_t from, int64_t columns)
{
    const act *x = w->a->x;
    const bool halves = w->packed->sub == 16, minima = w->packed->n_minima == 2;
    const size_t n = (size_t)columns / ACT_BLOCK, at = row * x->b_stride + (size_t)from / ACT_BLOCK;
    sweep_array(s, x->q + row * x->q_stride + from, (size_t)columns);
    sweep_array(s, x->d + at, n * sizeof *x->d);
    if (w->packed->n_minima)
        sweep_array(s, minima ? x->s16 + 2 * at : x->s + at, w->packed->n_minima * n * sizeof *x->s);
    const bool half_sums = halves || (level_of(w->k) == LEVEL_AVX2 && panel_reads_halves(w->type));
    if (reads_sums(w))
        sweep_array(s, half_sums ? x->isum16 + 2 * at : x->isum + at, (half_sums ? 2 : 1) * n * sizeof *x->isum);
}

static void sweep_tokens(sweep *s, const walk *w, int token, int n, int64_t from, int64_t columns)
{
    const act *x = w->a->x;
    for (size_t row = (size_t)(w->a->token + token); n > 0; row++, n--) {
        if (w->packed)
            sweep_quantized_token(s, w, row, from, columns);
        else if (w->k->bf16_dot && w->type != DIL_TYPE_F32)
            sweep_array(s, x->bf16 + row * x->bf16_stride + from, (size_t)columns * sizeof *x->bf16);
        else
            sweep_array(s, x->f + row * x->f_stride + from, (size_t)columns * sizeof *x->f);
    }
}

/* What the compiler could not keep in registers. */
static void sweep_stack(sweep *s, const walk *w)
{
    if (w->packed && level_of(w->k) != LEVEL_SCALAR)
        s->streams[s->n++] = (stream){.at = STACK_PLACE, .row_bytes = STACK_BYTES, .total = STACK_ROUNDS * STACK_BYTES};
}

/* Sums rest in y between parts of the columns. */
static void touch_outputs(sweep *s, const walk *w, int panel, int n_panels, int token, int n)
{
    const size_t row = w->a->y_stride * sizeof(float), width = PANEL_ROWS * sizeof(float);
    sweep_rows(s, w->a->y + (size_t)token * w->a->y_stride + (size_t)panel * PANEL_ROWS, (size_t)n_panels * width, row, (size_t)n);
    sweep_run(s);
}

static int least(int a, int b) { return a < b ? a : b; }

/* All tiles of a part of the columns of a chunk of np panels. */
static void walk_part(sweep *s, const walk *w, int first, int np, int64_t from, int64_t columns)
{
    for (int g = 0; g < np && w->record_bytes; g += w->group) {
        const int n_panels = least(np - g, w->group);
        sweep_panels(s, w, first + g, n_panels, from, columns);
        sweep_scratch(s, w, g, n_panels, columns);
        sweep_run(s);
    }
    for (int t = 0; t < w->a->n_tokens; t += w->tokens)
        for (int g = 0; g < np; g += w->group) {
            const int n_panels = least(np - g, w->group), n = least(w->a->n_tokens - t, w->tokens);
            if (from > 0)
                touch_outputs(s, w, first + g, n_panels, t, n);
            if (w->record_bytes)
                sweep_scratch(s, w, g, n_panels, columns);
            else
                sweep_panels(s, w, first + g, n_panels, from, columns);
            sweep_tokens(s, w, t, n, from, columns);
            sweep_stack(s, w);
            sweep_run(s);
            touch_outputs(s, w, first + g, n_panels, t, n);
        }
}

static void walk_run(cache_model *c, const walk *w)
{
    sweep s = {.c = c};
    for (int first = 0; first < w->a->n_panels; first += w->chunk)
        for (int64_t from = 0; from < w->a->k; from += w->columns) {
            const int64_t left = w->a->k - from;
            walk_part(&s, w, first, least(w->a->n_panels - first, w->chunk), from, left < w->columns ? left : w->columns);
        }
}

void kernel_trace_linear(cache_model *c, const kernels *k, dil_type type, const linear_args *a)
{
    if (a->n_tokens >= k->gemm_from[type]) {
        const walk w = walk_of(k, type, a, true);
        walk_run(c, &w);
        return;
    }
    linear_args some = *a;
    for (int t = 0; t < a->n_tokens; t += GEMV_TOKENS) {
        some.token = a->token + t;
        some.n_tokens = least(a->n_tokens - t, GEMV_TOKENS);
        some.y = a->y + (size_t)t * a->y_stride;
        const walk w = walk_of(k, type, &some, false);
        walk_run(c, &w);
    }
}

/* ---- attention ---- */

/* How many of a page's tokens a row sees. */
static int slots_of(const trace_chunk *a, int row, int page)
{
    const int seen = a->n_seen[row] - page * KV_PAGE;
    return seen < 0 ? 0 : least(seen, KV_PAGE);
}

static int round_up_16(int n) { return (n + 15) / 16 * 16; }

static size_t value_bytes(dil_type type) { return type == DIL_TYPE_F32 ? 4 : type == DIL_TYPE_Q8_0 ? 1 : 2; }

/* Rows of a register tile that begins with `left` rows to go. */
static int tile_rows(const kernels *k, int left, int avx2_rows)
{
    switch (level_of(k)) {
    case LEVEL_SCALAR: return 1;
    case LEVEL_AVX2: return left >= avx2_rows ? avx2_rows : 1;
    default: return least(left, 6);
    }
}

/* n slots of a page of K, [head_dim][KV_PAGE] and scales, or of the floats made of it. */
static void sweep_k(sweep *s, dil_type type, const void *page, int head_dim, int n)
{
    const size_t width = value_bytes(type), values = (size_t)head_dim * KV_PAGE * width, rows = (size_t)parts(head_dim, 32);
    sweep_rows(s, page, (size_t)n * width, KV_PAGE * width, (size_t)head_dim);
    if (type == DIL_TYPE_Q8_0)
        sweep_rows(s, (const char *)page + values, (size_t)n * 2, (size_t)KV_PAGE * 2, rows);
}

/* n slots of a page of V, [KV_PAGE][head_dim] and scales. */
static void sweep_v(sweep *s, dil_type type, const void *page, int head_dim, int n)
{
    const size_t width = value_bytes(type), values = (size_t)head_dim * KV_PAGE * width;
    sweep_array(s, page, (size_t)n * (size_t)head_dim * width);
    if (type == DIL_TYPE_Q8_0)
        sweep_array(s, (const char *)page + values, (size_t)n * (size_t)parts(head_dim, 32) * 2);
}

/* Whether tiles read the page itself; else it is converted into scratch. With AVX-512 few rows do, of V only in bf16. */
static bool reads_page(const kernels *k, dil_type type, int n_rows, bool of_v)
{
    const level l = level_of(k);
    if (type == DIL_TYPE_F32)
        return l != LEVEL_SCALAR;
    return l == LEVEL_AVX512 && n_rows <= 6 && (!of_v || k->attn_bf16);
}

/* A tile's sweeps over 16 slots each are taken as one over all: they meet the same lines of K, and the queries stay. */
static void trace_qk(sweep *s, const kernels *k, const trace_chunk *a, int page)
{
    const dil_type type = a->type_k;
    const bool direct = reads_page(k, type, a->n_rows, false);
    const int most = round_up_16(slots_of(a, a->n_rows - 1, page));
    if (!direct) {
        sweep_k(s, type, a->k_pages[page], a->head_dim_k, most);
        sweep_k(s, DIL_TYPE_F32, a->scratch, a->head_dim_k, most);
        sweep_run(s);
    }
    for (int i = 0, n; i < a->n_rows; i += n) {
        n = tile_rows(k, a->n_rows - i, 6);
        const int n_slots = round_up_16(slots_of(a, i + n - 1, page));
        sweep_k(s, direct ? type : DIL_TYPE_F32, direct ? a->k_pages[page] : a->scratch, a->head_dim_k, n_slots);
        for (int row = i; row < i + n; row++)
            sweep_array(s, (const char *)a->queries + (size_t)row * a->query_stride, (size_t)a->head_dim_k * sizeof(float));
        sweep_run(s);
        sweep_rows(s, a->scores + (size_t)i * a->score_stride + page * KV_PAGE, (size_t)n_slots * sizeof(float),
                   a->score_stride * sizeof(float), (size_t)n);
        sweep_run(s);
    }
}

/* Weights as bf16 take half of the row and pair up V. Sweeps over some dims each are taken as one, as in trace_qk. */
static void trace_pv(sweep *s, const kernels *k, const trace_chunk *a, int page)
{
    const dil_type type = a->type_v;
    const bool direct = reads_page(k, type, a->n_rows, true), pairs = k->attn_bf16 && type != DIL_TYPE_F32;
    const int most = round_up_16(slots_of(a, a->n_rows - 1, page)), width = pairs ? round_up_16(a->head_dim_v) / 2 : a->head_dim_v;
    if (!direct) {
        sweep_v(s, type, a->v_pages[page], a->head_dim_v, most);
        sweep_v(s, DIL_TYPE_F32, a->scratch, width, most);
        sweep_run(s);
    }
    for (int i = 0, n; i < a->n_rows; i += n) {
        n = tile_rows(k, a->n_rows - i, 3);
        const int n_slots = slots_of(a, i + n - 1, page);
        const size_t weight = pairs ? sizeof(uint16_t) : sizeof(float), row_bytes = a->acc_stride * sizeof(float);
        for (int row = i; row < i + n; row++)
            sweep_array(s, (const char *)(a->scores + (size_t)row * a->score_stride) + (size_t)(page * KV_PAGE) * weight,
                        (size_t)n_slots * weight);
        sweep_v(s, direct ? type : DIL_TYPE_F32, direct ? a->v_pages[page] : a->scratch, direct ? a->head_dim_v : width, n_slots);
        sweep_rows(s, a->acc + (size_t)i * a->acc_stride, (size_t)a->head_dim_v * sizeof(float), row_bytes, (size_t)n);
        sweep_run(s);
    }
}

void kernel_trace_attention(cache_model *c, const kernels *k, const trace_chunk *a)
{
    sweep s = {.c = c};
    for (int page = 0; page < a->n_pages; page++)
        trace_qk(&s, k, a, page);
    for (int row = 0; row < a->n_rows; row++)
        for (int pass = 0; pass < 2; pass++) { /* the maximum, then the weights */
            const size_t n = (size_t)least(a->n_seen[a->n_rows - 1], a->n_pages * KV_PAGE);
            sweep_array(&s, a->scores + (size_t)row * a->score_stride, n * sizeof(float));
            sweep_run(&s);
        }
    for (int page = 0; page < a->n_pages; page++)
        trace_pv(&s, k, a, page);
}

/* ---- vectors ---- */

void kernel_trace_rmsnorm(cache_model *c, const float *x, const float *w, int64_t n, float *y)
{
    sweep s = {.c = c};
    const size_t n_bytes = (size_t)n * sizeof *x;
    sweep_array(&s, x, n_bytes);
    sweep_run(&s);
    sweep_array(&s, x, n_bytes);
    sweep_array(&s, w, w ? n_bytes : 0);
    sweep_array(&s, y, n_bytes);
    sweep_run(&s);
}

void kernel_trace_quantize(cache_model *c, const quantize_args *a)
{
    sweep s = {.c = c};
    const size_t blocks = (size_t)parts(a->k, ACT_BLOCK);
    for (size_t row = 0; row < (size_t)a->n_rows; row++) {
        const size_t at = row * a->b_stride, halves = a->isum16 ? 2 * blocks : 0;
        sweep_array(&s, a->f + row * a->f_stride, (size_t)a->k * sizeof *a->f);
        sweep_array(&s, a->q + row * a->q_stride, blocks * ACT_BLOCK);
        sweep_array(&s, a->d + at, blocks * sizeof *a->d);
        sweep_array(&s, a->s + at, blocks * sizeof *a->s);
        sweep_array(&s, a->isum + at, blocks * sizeof *a->isum);
        sweep_array(&s, a->s16 + 2 * at, halves * sizeof *a->s16);
        sweep_array(&s, a->isum16 + 2 * at, halves * sizeof *a->isum16);
        sweep_run(&s);
    }
}

void kernel_trace_mul(cache_model *c, const float *gate, const float *up, float *y, int64_t n)
{
    sweep s = {.c = c};
    const float *const arrays[] = {gate, up, y};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        sweep_array(&s, arrays[i], (size_t)n * sizeof *gate);
    sweep_run(&s);
}
