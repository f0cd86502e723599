#include "machine/kernel_work.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"

#define READ_STEP ((size_t)64 << 10) /* bytes per call of read_stream */
#define ORDINARY 0x2c                /* bytes that are ordinary numbers as F16, BF16 and F32: no product is a special one */

/* Operands of one worker: tokens in every form a kernel may read, panels, pages, and room for results. */
struct work_operands {
    _Alignas(64) float f[WORK_TOKENS * WORK_COLUMNS];
    _Alignas(64) float g[WORK_QUERIES * (ATTN_SLOTS + 16)];
    float d[WORK_TOKENS * WORK_COLUMNS / ACT_BLOCK], s[WORK_TOKENS * WORK_COLUMNS / ACT_BLOCK],
        s16[WORK_TOKENS * WORK_COLUMNS / ACT_BLOCK * 2];
    int32_t isum[WORK_TOKENS * WORK_COLUMNS / ACT_BLOCK], isum16[WORK_TOKENS * WORK_COLUMNS / ACT_BLOCK * 2];
    _Alignas(64) int8_t q[WORK_TOKENS * WORK_COLUMNS];
    _Alignas(64) uint16_t bf16[WORK_TOKENS * WORK_COLUMNS];
    _Alignas(64) float y[WORK_TOKENS * WORK_PANELS * PANEL_ROWS];
    _Alignas(64) uint8_t panels[WORK_PANELS * PANEL_ROWS * WORK_COLUMNS * sizeof(float)];
};

static act view(const work_operands *o)
{
    return (act){.f = o->f,
                 .q = o->q,
                 .d = o->d,
                 .s = o->s,
                 .isum = o->isum,
                 .s16 = o->s16,
                 .isum16 = o->isum16,
                 .bf16 = o->bf16,
                 .f_stride = WORK_COLUMNS,
                 .q_stride = WORK_COLUMNS,
                 .b_stride = WORK_COLUMNS / ACT_BLOCK,
                 .bf16_stride = WORK_COLUMNS};
}

/* Ones everywhere; weights of quantized types are any bytes, so that code books are read all over. */
void work_fill(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    for (size_t i = 0; i < sizeof o->f / sizeof *o->f; i++) {
        o->f[i] = 1;
        o->q[i] = 1;
        o->bf16[i] = 0x3f80;
    }
    for (size_t i = 0; i < sizeof o->g / sizeof *o->g; i++)
        o->g[i] = 1;
    for (size_t i = 0; i < sizeof o->d / sizeof *o->d * 2; i++) {
        o->d[i / 2] = 1;
        o->s[i / 2] = ACT_BLOCK;
        o->isum[i / 2] = act_sums(ACT_BLOCK / 2, ACT_BLOCK / 2);
        o->s16[i] = ACT_BLOCK / 2;
        o->isum16[i] = act_sums(ACT_BLOCK / 4, ACT_BLOCK / 4);
    }
}

void work_fill_panels(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    memset(o->panels, ORDINARY, sizeof o->panels);
    if (!format_get(w->type)->is_quantized)
        return;
    uint32_t word = 1;
    for (size_t i = 0; i < sizeof o->panels; i++, word = word * 1664525u + 1013904223u)
        o->panels[i] = (uint8_t)(word >> 24);
}

static linear_args products(const kernel_work *w, work_operands *o, const act *x, int worker)
{
    return (linear_args){.panels = o->panels,
                         .panel_bytes = panel_bytes(w->type, w->columns),
                         .n_panels = WORK_PANELS,
                         .k = w->columns,
                         .x = x,
                         .n_tokens = w->n,
                         .y = o->y,
                         .y_stride = WORK_PANELS * PANEL_ROWS,
                         .scratch = w->scratch + (size_t)worker * w->scratch_bytes,
                         .ahead = w->k->ahead};
}

void work_gemv(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    const act x = view(o);
    const linear_args a = products(w, o, &x, worker);
    for (int64_t i = 0; i < j->amount; i++)
        w->k->linear[w->type].gemv(&a);
}

void work_gemm(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    const act x = view(o);
    const linear_args a = products(w, o, &x, worker);
    for (int64_t i = 0; i < j->amount; i++)
        w->k->linear[w->type].gemm(&a);
}

/* Tokens through panels that are far away, one call for some of them as the engine does. */
static void far_products(job *j, int worker, linear_fn fn)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    const act x = view(o);
    linear_args a = products(w, o, &x, worker);
    const size_t step = a.panel_bytes * (size_t)w->n_panels, n = w->far_bytes / step;
    a.n_panels = w->n_panels;
    for (int64_t i = 0; i < j->amount; i++)
        for (size_t at = 0; at < n; at++) {
            a.panels = w->far + (size_t)worker * w->far_bytes + at * w->jump % n * step;
            fn(&a);
        }
}

void work_gemv_far(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    far_products(j, worker, w->k->linear[w->type].gemv);
}

void work_gemm_far(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    far_products(j, worker, w->k->linear[w->type].gemm);
}

/* A chunk of pages as the engine walks it: scores, softmax, weighted sums. */
void work_attend(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    const int dim = (int)w->columns;
    const size_t row_bytes = attn_row_bytes(dim), page_bytes = kv_page_bytes(w->type, dim), score_stride = ATTN_SLOTS + 16;
    int32_t n_slots[WORK_QUERIES];
    float m, l, *scores = o->g;
    for (int i = 0; i < w->n; i++)
        n_slots[i] = KV_PAGE;
    attn_page p = {.type = w->type, .head_dim = dim, .n_rows = w->n, .n_slots = n_slots};
    p.scratch = w->scratch + (size_t)worker * w->scratch_bytes;
    for (int64_t i = 0; i < j->amount; i++) {
        for (int r = 0; r < w->n; r++)
            w->k->attn_query(w->type, o->f, dim, 0.1f, (uint8_t *)o->bf16 + (size_t)r * row_bytes);
        for (int page = 0; page < ATTN_CHUNK; page++) {
            p.first_slot = page * KV_PAGE;
            p.page = o->panels + (size_t)page * page_bytes;
            w->k->attn_qk(&p, o->bf16, row_bytes, scores, score_stride);
        }
        for (int r = 0; r < w->n; r++)
            w->k->attn_softmax(w->type, scores + (size_t)r * score_stride, 0, ATTN_SLOTS, ATTN_SLOTS, 0, &m, &l);
        for (int page = 0; page < ATTN_CHUNK; page++) {
            p.first_slot = page * KV_PAGE;
            p.page = o->panels + (size_t)(ATTN_CHUNK + page) * page_bytes;
            w->k->attn_pv(&p, scores, score_stride, o->y, WORK_HEAD_DIM);
        }
    }
    memset(o->y, 0, sizeof o->y); /* sums do not grow without end */
}

void work_store(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    for (int64_t i = 0; i < j->amount; i++)
        for (int slot = 0; slot < KV_PAGE; slot++) {
            w->k->kv_store_k(w->type, o->panels, slot, o->f, WORK_HEAD_DIM);
            w->k->kv_store_v(w->type, o->panels + sizeof o->panels / 2, slot, o->f, WORK_HEAD_DIM);
        }
}

/* ---- rows of WORK_COLUMNS values ---- */

#define VECTOR_WORK(name, call)                                                    \
    void name(job *j, int worker)                                                  \
    {                                                                              \
        const kernel_work *w = j->ctx;                                             \
        work_operands *o = &w->of[worker];                                         \
        for (int64_t i = 0; i < j->amount; i++)                                    \
            for (size_t at = 0; at < WORK_ROWS * WORK_COLUMNS; at += WORK_COLUMNS) \
                call;                                                              \
    }

VECTOR_WORK(work_norm, w->k->rmsnorm(o->f + at, o->f, 1e-5f, WORK_COLUMNS, o->g + at))
VECTOR_WORK(work_round_rows, w->k->round_bf16(o->f + at, WORK_COLUMNS, o->bf16 + at))
VECTOR_WORK(work_add_rows, w->k->add(o->g + at, o->f + at, WORK_COLUMNS))
VECTOR_WORK(work_hadamard, w->k->hadamard(o->g + at, WORK_COLUMNS))
VECTOR_WORK(work_silu, w->k->silu_mul(o->f + at, o->f + at, o->g + at, WORK_COLUMNS))
VECTOR_WORK(work_gelu, w->k->gelu_mul(o->f + at, o->f + at, o->g + at, WORK_COLUMNS))
VECTOR_WORK(work_swiglu_oai, w->k->swiglu_oai_mul(o->f + at, o->f + at, o->g + at, WORK_COLUMNS))

void work_rotate(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    for (int64_t i = 0; i < j->amount; i++)
        for (size_t at = 0; at < WORK_ROWS * WORK_COLUMNS; at += WORK_ROPE_DIM)
            w->k->rope(o->g + at, o->f, WORK_ROPE_DIM, ROPE_HALVES);
    for (size_t at = 0; at < WORK_ROWS * WORK_COLUMNS; at++) /* as they were: a rotation by ones grows */
        o->g[at] = 1;
}

void work_quantize(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    quantize_args a = {.f = o->f,
                       .f_stride = WORK_COLUMNS,
                       .k = WORK_COLUMNS,
                       .n_rows = WORK_ROWS,
                       .q = o->q,
                       .d = o->d,
                       .s = o->s,
                       .isum = o->isum,
                       .q_stride = WORK_COLUMNS,
                       .b_stride = WORK_COLUMNS / ACT_BLOCK};
    for (int64_t i = 0; i < j->amount; i++)
        w->k->quantize(&a);
}

void work_angles(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    double sum = 0;
    for (int64_t i = 0; i < j->amount; i++)
        for (int n = 0; n < WORK_ROWS * WORK_COLUMNS; n++)
            sum += cos(n * 0.37) + sin(n * 0.37);
    w->of[worker].y[0] = (float)sum;
}

/* What the same bytes take when nothing else is done with them. */
void work_read_far(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    uint64_t sum = 0;
    for (int64_t i = 0; i < j->amount; i++)
        for (size_t at = 0; at < w->far_bytes; at += READ_STEP)
            sum ^= w->k->read_stream(w->far + (size_t)worker * w->far_bytes + at, READ_STEP);
    atomic_fetch_xor_explicit(&j->sink, sum, memory_order_relaxed);
}

void work_fill_far(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    uint64_t *words = (uint64_t *)(void *)(w->far + (size_t)worker * w->far_bytes);
    for (size_t i = 0; i < w->far_bytes / sizeof *words; i++)
        words[i] = (i + 1) * 0x9E3779B97F4A7C15u;
}

bool work_take_room(kernel_work *w, const machine *m, size_t n)
{
    const size_t attention = attn_scratch_bytes(WORK_HEAD_DIM), linear = linear_scratch_bytes(WORK_COLUMNS);
    w->scratch_bytes = ((linear > attention ? linear : attention) + 63) / 64 * 64;
    const uint64_t most = m->memory_bytes / 8, far = w->far_bytes < most ? w->far_bytes : most;
    w->far_bytes = (size_t)far / n / READ_STEP * READ_STEP;
    w->n_bytes = n * (sizeof(work_operands) + w->scratch_bytes + w->far_bytes);
    uint8_t *room = mem_map(w->n_bytes, MEM_MISC);
    if (!room)
        return false;
    os_advise_huge(room, w->n_bytes);
    w->of = (work_operands *)(void *)room;
    w->scratch = room + n * sizeof(work_operands);
    w->far = w->scratch + n * w->scratch_bytes;
    return true;
}

void work_give_room(kernel_work *w)
{
    if (w->of)
        mem_unmap(w->of, w->n_bytes, MEM_MISC);
}

/* Pages of ordinary numbers, or of small ones where bytes are those of a quantized type. */
void work_fill_pages(job *j, int worker)
{
    const kernel_work *w = j->ctx;
    work_operands *o = &w->of[worker];
    const bool floats = w->type == DIL_TYPE_F32 || w->type == DIL_TYPE_F16 || w->type == DIL_TYPE_BF16;
    memset(o->panels, floats ? ORDINARY : 1, sizeof o->panels);
}
