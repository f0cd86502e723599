/*
 * Certified routing: rows of 8 bits give every score to within a proven distance; rows that could still be among the best are
 * scored from their F32 rows, in the engine's order of arithmetic, so that choice and weights are those of the full router.
 *
 * Write t = <w, x> in real numbers, z for the exact score (an fma chain of K terms, plus the bias b), w~ for the row of 8 bits,
 * x~ for x quantized, e~ for the rest e = x - x~ quantized once more, r = e - e~, B blocks, u = 2^-24, g(n) = n u / (1 - n u), and
 * s for the sum of the screen's two scores <w~, x~> and <w~, e~>, each a chain of B roundings over rounded products. Then
 *
 *     |z - (t + b)|                <= g(K + 2) ||w|| ||x|| + u |b|          rounding of the chain and of adding the bias
 *     |t - <w~, x~ + e~>|          <= ||w - w~|| ||x|| + ||w~|| ||r||       t - <w~, x~ + e~> = <w - w~, x> + <w~, r>
 *     |s - <w~, x~ + e~>|          <= g(B + 2) ||w~|| (||x~|| + ||e~||)     ||x~|| <= ||x|| + ||e||, ||e~|| <= ||e|| + ||r||
 *
 * and underflow adds at most 2^-149 per operation. Their sum bounds |z - (s + b)|. Norms are taken in float with room for rounding.
 * Nothing is excluded where a number is not finite or a sum could overflow.
 */
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/status.h"
#include "experts/router_internal.h"

#define UNIT 0x1p-24
#define TINY 0x1p-149        /* the smallest float */
#define MOST_COLUMNS 1048576 /* g() stays small */
#define MOST_SCORE 1e37      /* no float overflows with smaller products of norms */

/* g(n), with room. */
static double rounding(int64_t n) { return 1.01 * (double)n * UNIT / (1.0 - (double)n * UNIT); }

static int64_t blocks_of(const router_screen *s) { return (s->n_embd + ACT_BLOCK - 1) / ACT_BLOCK; }

bool router_screen_suits(const router_rule *r)
{
    bool weights = r->gating != GATING_SOFTMAX || r->normalise; /* need no other score */
    bool values = !r->bias || r->gating == GATING_SIGMOID;
    return r->n_groups <= 1 && weights && values;
}

/* ---- building ---- */

/* The power of two that brings the largest magnitude of a row to 1..2; 1 for rows of zeros, 0 for rows that are not finite. */
static double row_factor(const float *row, int64_t n)
{
    float most = 0.0f;
    int exponent;
    for (int64_t c = 0; c < n; c++) {
        if (!isfinite(row[c]))
            return 0.0;
        most = fabsf(row[c]) > most ? fabsf(row[c]) : most;
    }
    (void)frexp((double)most, &exponent);
    return most > 0.0f ? ldexp(1.0, 1 - exponent) : 1.0;
}

typedef struct builder {
    float *scaled; /* [blocks * 32] */
    int8_t *q;
    float *d, *s;
    int32_t *isum;
    uint8_t *encoded; /* [PANEL_ROWS][row_bytes] */
    size_t row_bytes;
} builder;

enum { Q8_BYTES = 34 }; /* f16 scale, 32 bytes */

/* One row as Q8_0, quantized like activations are; its distance from the row, and its norm, in units of the scaled row. */
static void encode_row(const router_screen *s, const builder *b, double factor, const float *row, uint8_t *out, double *distance,
                       double *norm)
{
    double error = 0.0, square = 0.0;
    for (int64_t c = 0; c < s->n_embd; c++)
        b->scaled[c] = factor > 0.0 ? (float)((double)row[c] * factor) : 0.0f;
    s->k->quantize(&(quantize_args){.f = b->scaled, .k = s->n_embd, .n_rows = 1, .q = b->q, .d = b->d, .s = b->s, .isum = b->isum});
    for (int64_t block = 0; block < blocks_of(s); block++, out += Q8_BYTES) {
        uint16_t half = f32_to_f16(b->d[block]);
        double d = (double)f16_to_f32(half);
        memcpy(out, &half, sizeof half);
        memcpy(out + sizeof half, b->q + block * ACT_BLOCK, ACT_BLOCK);
        for (int64_t c = block * ACT_BLOCK; c < (block + 1) * ACT_BLOCK; c++) {
            double near = d * b->q[c], exact = c < s->n_embd ? (double)row[c] * factor : 0.0;
            error += (exact - near) * (exact - near);
            square += near * near;
        }
    }
    *distance = sqrt(error) * (1.0 + 1e-9);
    *norm = sqrt(square) * (1.0 + 1e-9);
}

static void build_row(router_screen *s, const builder *b, uint32_t i)
{
    const float *row = s->rows + (size_t)i * (size_t)s->n_embd;
    double factor = row_factor(row, s->n_embd), distance, norm;
    encode_row(s, b, factor, row, b->encoded + i % PANEL_ROWS * b->row_bytes, &distance, &norm);
    double unit = factor > 0.0 ? 1.0 / factor : INFINITY; /* not finite: never excluded */
    s->unit[i] = factor > 0.0 ? unit : 0.0;
    s->by_x[i] = factor > 0.0 ? unit * (distance + rounding(s->n_embd + 2) * (distance + norm)) : INFINITY;
    s->by_rest[i] = factor > 0.0 ? unit * norm : 0.0;
    s->least[i] = TINY * ((double)s->n_embd + 4.0 * (double)blocks_of(s) * s->unit[i]) +
                  (s->bias ? 1.01 * UNIT * fabs((double)s->bias[i]) : 0.0);
}

static dil_status build(router_screen *s, dil_error *err)
{
    size_t blocks = (size_t)blocks_of(s), values = blocks * ACT_BLOCK;
    builder b = {.row_bytes = blocks * Q8_BYTES};
    b.scaled = mem_alloc(values * (sizeof(float) + 1) + blocks * 3 * sizeof(float) + PANEL_ROWS * b.row_bytes, MEM_MISC);
    if (!b.scaled)
        return DIL_FAIL(err, DIL_NO_MEMORY, "router: no memory for a row of %lld numbers", (long long)s->n_embd);
    b.d = b.scaled + values;
    b.s = b.d + blocks;
    b.isum = (int32_t *)(void *)(b.s + blocks);
    b.q = (int8_t *)(b.isum + blocks);
    b.encoded = (uint8_t *)b.q + values;
    for (uint32_t i = 0; i < s->n; i++) {
        build_row(s, &b, i);
        if (i % PANEL_ROWS == PANEL_ROWS - 1 || i == s->n - 1)
            panel_pack(DIL_TYPE_Q8_0, b.encoded, b.row_bytes, (int)(i % PANEL_ROWS) + 1, (int64_t)values,
                       s->panels + i / PANEL_ROWS * s->panel_bytes);
    }
    mem_free(b.scaled);
    return DIL_OK;
}

dil_status router_screen_new(router_screen **out, const kernels *k, const float *rows, const float *bias, uint32_t n_experts,
                             int64_t n_embd, dil_error *err)
{
    if (n_experts < 1 || n_experts > 16384 || n_embd < 1 || n_embd > MOST_COLUMNS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "router: wanted 1..16384 experts and 1..%d columns, found %u and %lld", MOST_COLUMNS,
                        n_experts, (long long)n_embd);
    router_screen *s = mem_calloc(1, sizeof *s, MEM_PACKED);
    if (!s)
        return DIL_FAIL(err, DIL_NO_MEMORY, "router: no memory");
    *s = (router_screen){.k = k, .rows = rows, .bias = bias, .n = n_experts, .n_embd = n_embd};
    s->n_panels = (int)((n_experts + PANEL_ROWS - 1) / PANEL_ROWS);
    s->panel_bytes = panel_bytes(DIL_TYPE_Q8_0, blocks_of(s) * ACT_BLOCK);
    s->panels = mem_alloc((size_t)s->n_panels * s->panel_bytes, MEM_PACKED);
    s->unit = mem_calloc(4 * (size_t)n_experts, sizeof *s->unit, MEM_PACKED);
    dil_status status = DIL_OK;
    if (!s->panels || !s->unit) {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "router: no memory for %u rows of 8 bits", n_experts);
    } else {
        s->by_x = s->unit + n_experts;
        s->by_rest = s->by_x + n_experts;
        s->least = s->by_rest + n_experts;
        status = build(s, err);
    }
    if (status != DIL_OK)
        router_screen_free(s);
    else
        *out = s;
    return status;
}

void router_screen_free(router_screen *s)
{
    if (!s)
        return;
    swarm_graph_free(&s->flock);
    mem_free(s->panels);
    mem_free(s->unit);
    mem_free(s);
}

/* ---- the work block ---- */

/* base NULL: only the size counts. */
static router_work lay_out(const router_screen *s, uint8_t *base, size_t *used)
{
    size_t n = s->n, blocks = (size_t)blocks_of(s), q_stride = round_up_size(blocks * ACT_BLOCK, 64);
    *used = 0;
    router_work w;
    w.high = mem_carve(base, used, n * sizeof *w.high);
    w.row = mem_carve(base, used, n * sizeof *w.row);
    w.scores = mem_carve(base, used, n * sizeof *w.scores);
    w.values = mem_carve(base, used, n * sizeof *w.values);
    w.guess = mem_carve(base, used, n * sizeof *w.guess);
    w.sums = mem_carve(base, used, n * sizeof *w.sums);
    w.y = mem_carve(base, used, 2 * (size_t)s->n_panels * PANEL_ROWS * sizeof *w.y);
    w.rest = mem_carve(base, used, (size_t)s->n_embd * sizeof *w.rest);
    w.q = mem_carve(base, used, 2 * q_stride);
    w.d = mem_carve(base, used, 2 * blocks * sizeof *w.d);
    w.s = mem_carve(base, used, 2 * blocks * sizeof *w.s);
    w.isum = mem_carve(base, used, 2 * blocks * sizeof *w.isum);
    w.index = mem_carve(base, used, n * sizeof *w.index);
    w.seen = mem_carve(base, used, n);
    return w;
}

router_work router_work_of(const router_screen *s, void *block)
{
    size_t used;
    return lay_out(s, block, &used);
}

size_t router_work_bytes(const router_screen *s)
{
    size_t used;
    (void)lay_out(s, NULL, &used);
    return used;
}

void router_work_clear(const router_screen *s, router_work *w)
{
    memset(w->seen, 0, s->n);
    for (uint32_t i = 0; i < s->n; i++)
        w->values[i] = w->scores[i] = -INFINITY;
}

/* ---- scoring ---- */

void router_score(const router_screen *s, const router_rule *r, const float *x, router_work *w, uint32_t from, uint32_t to)
{
    for (uint32_t j = from; j < to; j++)
        w->row[j] = s->rows + (size_t)w->index[j] * (size_t)s->n_embd;
    s->k->dot_rows(w->row + from, (int)(to - from), x, s->n_embd, w->sums + from);
    for (uint32_t j = from; j < to; j++) {
        uint32_t i = w->index[j];
        w->scores[i] = s->bias ? w->sums[j] + s->bias[i] : w->sums[j];
        w->values[i] = router_value(r, i, w->scores[i]);
        w->seen[i] = 1;
    }
}

/* The norm of n floats, at least: room for the rounding of squares and of sums of 32 of them; NaN and infinity stay. */
static double norm_at_least(const float *f, int64_t n)
{
    double total = 0.0;
    for (int64_t c = 0; c < n; c += ACT_BLOCK) {
        float sum[8] = {0};
        int64_t end = n - c < ACT_BLOCK ? n - c : ACT_BLOCK, j = 0;
        for (; j + 8 <= end; j += 8)
            for (int lane = 0; lane < 8; lane++)
                sum[lane] += f[c + j + lane] * f[c + j + lane];
        for (int lane = 0; j + lane < end; lane++)
            sum[lane] += f[c + j + lane] * f[c + j + lane];
        total += (double)(((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7])));
    }
    return sqrt(1.0001 * total + (double)n * TINY);
}

/* Quantizes f into slot 0 or 1; rest [n_embd] = f - what was quantized (rest may be f). */
static void quantize_into(const router_screen *s, router_work *w, int slot, const float *f, float *rest)
{
    size_t blocks = (size_t)blocks_of(s), at = (size_t)slot * blocks;
    int8_t *q = w->q + (size_t)slot * round_up_size(blocks * ACT_BLOCK, 64);
    s->k->quantize(
        &(quantize_args){.f = f, .k = s->n_embd, .n_rows = 1, .q = q, .d = w->d + at, .s = w->s + at, .isum = w->isum + at});
    for (int64_t c = 0; c < s->n_embd; c += ACT_BLOCK) {
        float d = w->d[at + (size_t)(c / ACT_BLOCK)];
        int64_t end = s->n_embd - c < ACT_BLOCK ? s->n_embd : c + ACT_BLOCK;
        for (int64_t j = c; j < end; j++)
            rest[j] = f[j] - d * (float)q[j];
    }
}

/* The screen's scores of x in slot 0 and of its rest in slot 1: the rows are read once. x_norm and rest_norm multiply by_x and
 * by_rest. */
static void screen(const router_screen *s, const float *x, router_work *w, double *x_norm, double *rest_norm)
{
    size_t blocks = (size_t)blocks_of(s);
    quantize_into(s, w, 0, x, w->rest);
    double norm = norm_at_least(x, s->n_embd), none = (double)s->n_embd * TINY;
    double e = 1.001 * norm_at_least(w->rest, s->n_embd) + 2.0 * UNIT * norm + none;
    quantize_into(s, w, 1, w->rest, w->rest);
    double left = 1.001 * norm_at_least(w->rest, s->n_embd) + 4.0 * UNIT * (norm + e) + none;
    *x_norm = norm;
    *rest_norm = left + rounding(blocks_of(s) + 2) * (norm + 2.0 * e + left);
    act a = {
        .q = w->q, .d = w->d, .s = w->s, .isum = w->isum, .q_stride = round_up_size(blocks * ACT_BLOCK, 64), .b_stride = blocks};
    s->k->linear[DIL_TYPE_Q8_0].gemv(&(linear_args){.panels = s->panels,
                                                    .panel_bytes = s->panel_bytes,
                                                    .n_panels = s->n_panels,
                                                    .k = (int64_t)blocks * ACT_BLOCK,
                                                    .x = &a,
                                                    .n_tokens = 2,
                                                    .y = w->y,
                                                    .y_stride = (size_t)s->n_panels * PANEL_ROWS});
}

/* A selection value that sigmoid and bias make of at most z: expf is good to an ulp, the rest to half of one. */
static double sigmoid_value_at_most(double z, double bias)
{
    return (double)router_sigmoid((float)z) + bias + 1e-6 * (1.0 + fabs(bias));
}

void router_bound(const router_screen *s, const router_rule *r, const float *x, router_work *w)
{
    double x_norm, rest_norm;
    screen(s, x, w, &x_norm, &rest_norm);
    const float *rest = w->y + (size_t)s->n_panels * PANEL_ROWS;
    for (uint32_t i = 0; i < s->n; i++) {
        double score = s->unit[i] * ((double)w->y[i] + (double)rest[i]) + (s->bias ? (double)s->bias[i] : 0.0);
        double off = (s->by_x[i] * x_norm + s->by_rest[i] * rest_norm + s->least[i]) * (1.0 + 1e-9);
        bool known =
            (s->by_x[i] + s->by_rest[i]) * x_norm <= MOST_SCORE; /* in the screen's units less: x_norm is finite below 2^84 */
        double high = known ? score + off : INFINITY;
        w->guess[i] = router_value(r, i, (float)score);
        w->high[i] = r->bias ? sigmoid_value_at_most(high, (double)r->bias[i]) : high;
    }
}

void router_conclude(const router_screen *s, const router_rule *r, const router_work *w, uint16_t *chosen, float *weights)
{
    router_pick(w->values, s->n, r->n_used, chosen);
    router_weigh(r, w->scores, (router_norm){0}, chosen, weights);
}

static uint32_t all_of(const router_screen *s, router_work *w)
{
    for (uint32_t i = 0; i < s->n; i++)
        w->index[i] = (uint16_t)i;
    return s->n;
}

/* The k that look best are scored; then whoever could beat the worst of them. */
static uint32_t score_possible(const router_screen *s, const router_rule *r, const float *x, router_work *w)
{
    uint32_t n = r->n_used;
    float threshold = INFINITY;
    router_bound(s, r, x, w);
    router_pick(w->guess, s->n, n, w->index);
    router_score(s, r, x, w, 0, n);
    for (uint32_t j = 0; j < r->n_used; j++)
        threshold = w->values[w->index[j]] < threshold ? w->values[w->index[j]] : threshold;
    for (uint32_t i = 0; i < s->n; i++)
        if (!w->seen[i] && !(w->high[i] < (double)threshold)) /* NaN: nothing is known */
            w->index[n++] = (uint16_t)i;
    router_score(s, r, x, w, r->n_used, n);
    return n;
}

void router_certified(const router_screen *s, const router_rule *r, const float *x, void *work, uint16_t *chosen, float *weights,
                      router_evidence *e)
{
    router_work w = router_work_of(s, work);
    const uint64_t row = (uint64_t)s->n_embd * sizeof(float);
    bool screened = 4 * r->n_used < 3 * s->n; /* else the screen costs more than it can save */
    router_work_clear(s, &w);
    uint32_t n = screened ? score_possible(s, r, x, &w) : all_of(s, &w);
    if (!screened)
        router_score(s, r, x, &w, 0, n);
    router_conclude(s, r, &w, chosen, weights);
    *e = (router_evidence){.n_scored = n, .full_bytes = s->n * row, .read_bytes = n * row};
    if (screened)
        e->read_bytes += (uint64_t)s->n_panels * s->panel_bytes + 4 * sizeof(double) * (uint64_t)s->n;
}
