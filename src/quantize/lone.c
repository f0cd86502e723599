#include "quantize/lone.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "experts/router.h"
#include "quantize/surgeon.h"
#include "theorem/random.h"
#include "train/product.h"

#define SURGEON_DAMPING 0.01f

struct lone {
    const gguf *file;
    const gguf_tensor *gate, *up, *down; /* [n_experts] matrices each */
    hparams h;
    product_kind kind;
    team *workers;
    int n, n_ff;        /* inputs; neurons that are left */
    int n_learnt, held; /* inputs 0 .. n_learnt - 1 are learnt from, held .. n - 1 measured on */
    float *rows;        /* [n][n_embd] */
    uint16_t *chosen;   /* [n][n_used] */
    float *weights;     /* [n][n_used] */
    int32_t *kept;      /* [n_experts][n_ff]: neurons; NULL: all */
    float *pruned;      /* [n_experts][n_embd][n_ff]: down matrices that make up for the others; NULL */
    /* Of the expert at hand, -1: none, and of the inputs at hand. */
    int expert, first, end, n_mine;
    int32_t *mine;      /* [n]: its inputs */
    float *mine_weight; /* [n] */
    float *hidden;      /* [n_mine][n_ff]; NULL: not known yet */
};

const hparams *lone_hparams(const lone *l) { return &l->h; }
int lone_n_ff(const lone *l) { return l->n_ff; }
int lone_n_held(const lone *l) { return l->n - l->held; }
const float *lone_held(const lone *l) { return l->rows + (size_t)l->held * l->h.n_embd; }

static dil_status no_memory(const lone *l, dil_error *err)
{
    return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %d inputs of a layer of experts", gguf_path(l->file), l->n);
}

/* ---- products on all workers ---- */

typedef struct product_job {
    const lone *l;
    rows x;
    int n, n_sum, n_columns;
    uint32_t *matrix;
    float *y;         /* [n][n_columns] */
    uint32_t *packed; /* [workers][BLOCK_TOKENS][steps] */
    team *workers;
} product_job;

static void product_part(void *ctx, int worker)
{
    const product_job *j = ctx;
    const product_kind kind = j->l->kind;
    const size_t steps = (size_t)product_steps(kind, j->n_sum);
    uint32_t *packed = j->packed + (size_t)worker * BLOCK_TOKENS * steps;
    for (int first; (first = (int)team_claim(j->workers) * BLOCK_TOKENS) < j->n;) {
        const int n = j->n - first < BLOCK_TOKENS ? j->n - first : BLOCK_TOKENS;
        pack_rows(kind, rows_from(j->x, first), n, j->n_sum, packed);
        product_run(kind, &(product_block){packed, steps, n, j->matrix, j->n_sum, j->n_sum, j->n_columns,
                                           j->y + (size_t)first * (size_t)j->n_columns, (size_t)j->n_columns, false});
    }
}

/* y [n][n_columns] = x W^T, W [n_columns][n_sum]. */
static dil_status multiply(const lone *l, rows x, int n, const float *w, int n_columns, int n_sum, float *y, dil_error *err)
{
    const size_t steps = (size_t)product_steps(l->kind, n_sum);
    product_job j = {.l = l, .x = x, .n = n, .n_sum = n_sum, .n_columns = n_columns, .y = y, .workers = l->workers};
    uint32_t *scratch = mem_alloc(PRODUCT_COLS * steps * sizeof *scratch, MEM_MISC);
    j.matrix = mem_alloc(prepared_words(l->kind, n_sum, n_columns) * sizeof *j.matrix, MEM_MISC);
    j.packed = mem_alloc((size_t)team_size(l->workers) * BLOCK_TOKENS * steps * sizeof *j.packed, MEM_MISC);
    const bool fits = scratch && j.matrix && j.packed;
    if (fits) {
        prepare_transposed(l->kind, (rows){w, (size_t)n_sum, NULL}, n_columns, n_sum, j.matrix, scratch);
        team_run(l->workers, product_part, &j);
    }
    mem_free(scratch);
    mem_free(j.matrix);
    mem_free(j.packed);
    return fits ? DIL_OK : no_memory(l, err);
}

typedef struct outer_job {
    const lone *l;
    const float *x; /* [n][n_columns] */
    int n, n_columns;
    float *h;
    uint32_t *scratch; /* [workers][outer_scratch_words] */
} outer_job;

static void outer_part(void *ctx, int worker)
{
    const outer_job *j = ctx;
    const size_t width = (size_t)j->n_columns;
    const rows x = {j->x, width, NULL};
    uint32_t *scratch = j->scratch + (size_t)worker * outer_scratch_words(j->n_columns);
    for (int first; (first = (int)team_claim(j->l->workers) * OUTER_ROWS) < j->n_columns;) {
        const int n = j->n_columns - first < OUTER_ROWS ? j->n_columns - first : OUTER_ROWS;
        outer_run(j->l->kind, &(outer_block){x, x, first, j->n, n, j->n_columns, j->h + (size_t)first * width, width}, scratch);
    }
}

/* h [n_columns][n_columns]: mean of x x^T, with a share of a sphere of the same size: all of it where there are no inputs. */
static dil_status curvature(const lone *l, const float *x, int n, int n_columns, float *h, dil_error *err)
{
    const size_t width = (size_t)n_columns;
    const double share = (double)n_columns / (double)(n + n_columns);
    double trace = 0;
    outer_job j = {.l = l, .x = x, .n = n, .n_columns = n_columns, .h = h};
    memset(h, 0, width * width * sizeof *h);
    if (n > 0) {
        j.scratch = mem_alloc((size_t)team_size(l->workers) * outer_scratch_words(n_columns) * sizeof *j.scratch, MEM_MISC);
        if (!j.scratch)
            return no_memory(l, err);
        team_run(l->workers, outer_part, &j);
        mem_free(j.scratch);
    }
    for (size_t i = 0; i < width * width; i++)
        h[i] = n > 0 ? (float)(h[i] * (1.0 - share) / n) : 0.0f;
    for (size_t i = 0; i < width; i++)
        trace += (double)h[i * width + i];
    const double own = trace > 0 ? trace / (1.0 - share) / (double)n_columns * share : 1.0;
    for (size_t i = 0; i < width; i++)
        h[i * width + i] += (float)own;
    return DIL_OK;
}

/* ---- inputs ---- */

static dil_status take_inputs(lone *l, const lone_inputs *in, dil_error *err)
{
    const size_t n = (size_t)in->n * l->h.n_embd;
    l->rows = mem_alloc(n * sizeof *l->rows, MEM_MISC);
    if (!l->rows)
        return no_memory(l, err);
    uint64_t seed = in->seed;
    for (size_t i = 0; i < n && !in->rows; i++)
        l->rows[i] = (float)random_normal(&seed);
    if (!in->rows)
        return DIL_OK;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(in->rows[i]))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "inputs: row %zu, value %zu: wanted a finite number, found %g", i / l->h.n_embd,
                            i % l->h.n_embd, (double)in->rows[i]);
    memcpy(l->rows, in->rows, n * sizeof *l->rows);
    return DIL_OK;
}

static const gguf_tensor *tensor(const lone *l, const char *role)
{
    char name[96];
    snprintf(name, sizeof name, "blk.0.%s.weight", role);
    return gguf_tensor_find(l->file, name);
}

/* Matrix number `index` of a tensor, as f32. */
static void decode_matrix(const gguf_tensor *t, int index, float *w)
{
    const uint64_t values = t->ne[0] * t->ne[1], bytes = t->size_bytes / (t->ne[2] * t->ne[3]);
    format_get(t->type)->decode((const uint8_t *)t->data + (uint64_t)index * bytes, w, (size_t)values);
}

static dil_status choose(lone *l, dil_error *err)
{
    const expert_params *p = &l->h.experts;
    const size_t n_experts = p->n_experts;
    const router_rule rule = {
        .gating = p->gating, .n_experts = p->n_experts, .n_used = p->n_used, .normalise = p->normalise, .scale = p->scale};
    float *router = mem_alloc(n_experts * l->h.n_embd * sizeof *router, MEM_MISC);
    float *scores = mem_alloc((size_t)l->n * n_experts * sizeof *scores, MEM_MISC);
    float *scratch = mem_alloc(2 * n_experts * sizeof *scratch, MEM_MISC);
    l->chosen = mem_alloc((size_t)l->n * p->n_used * sizeof *l->chosen, MEM_MISC);
    l->weights = mem_alloc((size_t)l->n * p->n_used * sizeof *l->weights, MEM_MISC);
    dil_status status = router && scores && scratch && l->chosen && l->weights ? DIL_OK : no_memory(l, err);
    if (status == DIL_OK) {
        decode_matrix(tensor(l, "ffn_gate_inp"), 0, router);
        status = multiply(l, (rows){l->rows, l->h.n_embd, NULL}, l->n, router, (int)n_experts, (int)l->h.n_embd, scores, err);
    }
    for (size_t i = 0; status == DIL_OK && i < (size_t)l->n; i++)
        router_exact(&rule, scores + i * n_experts, l->chosen + i * p->n_used, l->weights + i * p->n_used, scratch);
    mem_free(router);
    mem_free(scores);
    mem_free(scratch);
    return status;
}

/* Everything the layer needs is there and has the right shape: the model's own checks say so. */
static dil_status check(lone *l, const gguf *file, dil_error *err)
{
    model *m;
    DIL_TRY(model_open(&m, gguf_path(file), &(model_options){.header_only = true}, err));
    l->h = m->h;
    l->h.architecture = STR(MODEL_LONE_LAYER);
    const expert_layer *e = m->layers[0].moe;
    const bool plain =
        l->h.lone && !e->router_bias && !e->choice_bias && !e->gate_bias && !e->up_bias && !e->down_bias && !m->layers[0].gate.rows;
    model_close(m);
    if (!plain)
        return DIL_FAIL(err, DIL_UNSUPPORTED,
                        "%s: wanted a lone layer of experts without biases and shared experts, found another model",
                        gguf_path(file));
    l->gate = tensor(l, "ffn_gate_exps");
    l->up = tensor(l, "ffn_up_exps");
    l->down = tensor(l, "ffn_down_exps");
    if (!l->gate || !l->up || !l->down)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: wanted gate and up of experts in tensors of their own", gguf_path(file));
    l->n_ff = (int)l->h.experts.n_ff;
    return DIL_OK;
}

static dil_status build(lone *l, const lone_inputs *in, dil_error *err)
{
    DIL_TRY(check(l, l->file, err));
    if (in->n < 1 || in->n > 1 << 22)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "inputs: wanted 1..%d rows, found %d", 1 << 22, in->n);
    if (in->n_held < 0 || in->n_held >= in->n)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "inputs: wanted 0..%d of them to measure on, found %d", in->n - 1, in->n_held);
    l->n = in->n;
    l->n_learnt = in->n - in->n_held;
    l->held = in->n_held > 0 ? l->n_learnt : 0;
    l->mine = mem_alloc((size_t)l->n * sizeof *l->mine, MEM_MISC);
    l->mine_weight = mem_alloc((size_t)l->n * sizeof *l->mine_weight, MEM_MISC);
    if (!l->mine || !l->mine_weight)
        return no_memory(l, err);
    DIL_TRY(take_inputs(l, in, err));
    return choose(l, err);
}

dil_status lone_new(lone **out, const gguf *file, const lone_inputs *in, const kernels *k, team *workers, dil_error *err)
{
    lone *l = mem_calloc(1, sizeof *l, MEM_MISC);
    if (!l)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for a layer of experts", gguf_path(file));
    l->file = file;
    l->kind = (product_kind){.k = k};
    l->workers = workers;
    l->expert = -1;
    dil_status status = build(l, in, err);
    if (status != DIL_OK) {
        lone_free(l);
        return status;
    }
    *out = l;
    return DIL_OK;
}

void lone_free(lone *l)
{
    if (!l)
        return;
    mem_free(l->rows);
    mem_free(l->chosen);
    mem_free(l->weights);
    mem_free(l->kept);
    mem_free(l->pruned);
    mem_free(l->mine);
    mem_free(l->mine_weight);
    mem_free(l->hidden);
    mem_free(l);
}

/* ---- one expert ---- */

/* Inputs first .. end - 1. */
static void meet(lone *l, int expert, int first, int end)
{
    const size_t n_used = l->h.experts.n_used;
    if (l->expert == expert && l->first == first && l->end == end)
        return;
    mem_free(l->hidden);
    l->hidden = NULL;
    l->expert = expert;
    l->first = first;
    l->end = end;
    l->n_mine = 0;
    for (size_t i = (size_t)first * n_used; i < (size_t)end * n_used; i++)
        if (l->chosen[i] == expert) {
            l->mine_weight[l->n_mine] = l->weights[i];
            l->mine[l->n_mine++] = (int32_t)(i / n_used);
        }
}

/* Rows of gate or up that are left; whole [all neurons][n_embd] is room. */
static void read_rows(const lone *l, const gguf_tensor *t, int expert, float *whole, float *w)
{
    const size_t n_embd = l->h.n_embd;
    decode_matrix(t, expert, whole);
    for (size_t i = 0; i < (size_t)l->n_ff; i++) {
        const size_t row = l->kept ? (size_t)l->kept[(size_t)expert * (size_t)l->n_ff + i] : i;
        memmove(w + i * n_embd, whole + row * n_embd, n_embd * sizeof *w);
    }
}

static void read_down(const lone *l, int expert, float *w)
{
    const size_t values = (size_t)l->h.n_embd * (size_t)l->n_ff;
    if (l->pruned)
        memcpy(w, l->pruned + (size_t)expert * values, values * sizeof *w);
    else
        decode_matrix(l->down, expert, w);
}

static size_t whole_values(const lone *l) { return (size_t)l->h.experts.n_ff * l->h.n_embd; }

/* What the neurons of the expert at hand say to its inputs. */
static dil_status find_hidden(lone *l, dil_error *err)
{
    const size_t n = (size_t)l->n_mine * (size_t)l->n_ff;
    const rows x = {l->rows, l->h.n_embd, l->mine};
    if (l->hidden)
        return DIL_OK;
    float *w = mem_alloc(whole_values(l) * sizeof *w, MEM_MISC), *up = mem_alloc((n + 1) * sizeof *up, MEM_MISC);
    l->hidden = mem_alloc((n + 1) * sizeof *l->hidden, MEM_MISC);
    dil_status status = w && up && l->hidden ? DIL_OK : no_memory(l, err);
    if (status == DIL_OK) {
        read_rows(l, l->gate, l->expert, w, w);
        status = multiply(l, x, l->n_mine, w, l->n_ff, (int)l->h.n_embd, l->hidden, err);
    }
    if (status == DIL_OK) {
        read_rows(l, l->up, l->expert, w, w);
        status = multiply(l, x, l->n_mine, w, l->n_ff, (int)l->h.n_embd, up, err);
    }
    if (status == DIL_OK)
        l->kind.k->silu_mul(l->hidden, up, l->hidden, (int64_t)n);
    mem_free(w);
    mem_free(up);
    if (status != DIL_OK) {
        mem_free(l->hidden);
        l->hidden = NULL;
    }
    return status;
}

/* mean of (weight x) (weight x)^T; x: rows of l->rows, or the hidden values. */
static dil_status weighted_curvature(lone *l, bool of_hidden, float *h, dil_error *err)
{
    const size_t width = of_hidden ? (size_t)l->n_ff : l->h.n_embd;
    float *x = mem_alloc(((size_t)l->n_mine * width + 1) * sizeof *x, MEM_MISC);
    if (!x)
        return no_memory(l, err);
    for (size_t i = 0; i < (size_t)l->n_mine; i++) {
        const float *from = of_hidden ? l->hidden + i * width : l->rows + (size_t)l->mine[i] * width;
        for (size_t j = 0; j < width; j++)
            x[i * width + j] = l->mine_weight[i] * from[j];
    }
    dil_status status = curvature(l, x, l->n_mine, (int)width, h, err);
    mem_free(x);
    return status;
}

dil_status lone_matrix(lone *l, net_place place, int expert, float *w, float *h, dil_error *err)
{
    meet(l, expert, 0, l->n_learnt);
    if (place == NET_DOWN && w)
        read_down(l, expert, w);
    if (place != NET_DOWN && w) {
        float *whole = mem_alloc(whole_values(l) * sizeof *whole, MEM_MISC);
        if (!whole)
            return no_memory(l, err);
        read_rows(l, place == NET_GATE ? l->gate : l->up, expert, whole, w);
        mem_free(whole);
    }
    if (!h)
        return DIL_OK;
    if (place == NET_DOWN)
        DIL_TRY(find_hidden(l, err));
    return weighted_curvature(l, place == NET_DOWN, h, err);
}

dil_status lone_outputs(lone *l, float *y, dil_error *err)
{
    const size_t n_embd = l->h.n_embd;
    float *down = mem_alloc(n_embd * (size_t)l->n_ff * sizeof *down, MEM_MISC);
    float *said = mem_alloc((size_t)lone_n_held(l) * n_embd * sizeof *said, MEM_MISC);
    dil_status status = down && said ? DIL_OK : no_memory(l, err);
    memset(y, 0, (size_t)lone_n_held(l) * n_embd * sizeof *y);
    for (int e = 0; status == DIL_OK && e < (int)l->h.experts.n_experts; e++) {
        meet(l, e, l->held, l->n);
        status = find_hidden(l, err);
        if (status != DIL_OK)
            break;
        read_down(l, e, down);
        status = multiply(l, (rows){l->hidden, (size_t)l->n_ff, NULL}, l->n_mine, down, (int)n_embd, l->n_ff, said, err);
        for (size_t i = 0; status == DIL_OK && i < (size_t)l->n_mine; i++)
            l->kind.k->add_scaled(y + (size_t)(l->mine[i] - l->held) * n_embd, said + i * n_embd, l->mine_weight[i],
                                  (int64_t)n_embd);
    }
    mem_free(down);
    mem_free(said);
    return status;
}

/* ---- pruning ---- */

static int by_number(const void *a, const void *b) { return *(const int32_t *)a - *(const int32_t *)b; }

/* kept [n_kept] and down [n_embd][n_kept] of one expert. */
static dil_status prune_expert(lone *l, int expert, int n_removed, int32_t *kept, float *down, dil_error *err)
{
    const size_t n = (size_t)l->n_ff, n_embd = l->h.n_embd, n_kept = n - (size_t)n_removed;
    float *h = mem_alloc(n * n * sizeof *h, MEM_MISC), *w = mem_alloc(n_embd * n * sizeof *w, MEM_MISC);
    int32_t *removed = mem_alloc((size_t)n_removed * sizeof *removed, MEM_MISC);
    double *cost = mem_alloc((size_t)n_removed * sizeof *cost, MEM_MISC);
    dil_status status = h && w && removed && cost ? lone_matrix(l, NET_DOWN, expert, w, h, err) : no_memory(l, err);
    const surgeon_task t = {.w = w,
                            .rows = (int)n_embd,
                            .columns = (int)n,
                            .h = h,
                            .damping = SURGEON_DAMPING,
                            .n_remove = n_removed,
                            .workers = l->workers,
                            .removed = removed,
                            .cost = cost};
    if (status == DIL_OK)
        status = surgeon_remove(&t, err);
    if (status == DIL_OK) {
        qsort(removed, (size_t)n_removed, sizeof *removed, by_number);
        for (size_t i = 0, gone = 0, at = 0; i < n; i++)
            if (gone < (size_t)n_removed && removed[gone] == (int32_t)i)
                gone++;
            else
                kept[at++] = (int32_t)i;
        for (size_t row = 0; row < n_embd; row++)
            for (size_t i = 0; i < n_kept; i++)
                down[row * n_kept + i] = w[row * n + (size_t)kept[i]];
    }
    mem_free(h);
    mem_free(w);
    mem_free(removed);
    mem_free(cost);
    return status;
}

dil_status lone_prune(lone *l, int n_removed, dil_error *err)
{
    const size_t n_experts = l->h.experts.n_experts, n_kept = (size_t)(l->n_ff - n_removed), values = n_kept * l->h.n_embd;
    if (l->kept || n_removed < 1 || n_removed >= l->n_ff)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "pruning: wanted 1..%d of an expert's %d neurons, once, found %d", l->n_ff - 1,
                        l->n_ff, n_removed);
    int32_t *kept = mem_alloc(n_experts * n_kept * sizeof *kept, MEM_MISC);
    float *pruned = mem_alloc(n_experts * values * sizeof *pruned, MEM_MISC);
    dil_status status = kept && pruned ? DIL_OK : no_memory(l, err);
    for (size_t e = 0; status == DIL_OK && e < n_experts; e++)
        status = prune_expert(l, (int)e, n_removed, kept + e * n_kept, pruned + e * values, err);
    if (status != DIL_OK) {
        mem_free(kept);
        mem_free(pruned);
        return status;
    }
    l->kept = kept;
    l->pruned = pruned;
    l->n_ff = (int)n_kept;
    mem_free(l->hidden);
    l->hidden = NULL;
    l->expert = -1;
    return DIL_OK;
}
