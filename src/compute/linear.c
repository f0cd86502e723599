/*
 * The matrix steps. A worker claims a chunk of panels (16 output values each), computes it for all rows of the batch, and
 * finishes it while it is in cache: bias, activation, residual add. Which worker takes a chunk never changes a result.
 */
#include "compute/exec.h"

#include <limits.h>
#include <string.h>

enum { HIDDEN_ROWS = 32 }; /* rows that go through the activation together */

/* The yardstick: the panel decoded to f32, times f32 activations. */
static void linear_exact(const compute *c, const weight *w, const act *x, int panel, int n_panels, int32_t first, int32_t n,
                         float *y, size_t y_stride, worker_scratch *ws)
{
    float *row = ws->exact, *transposed = ws->exact + w->cols;
    for (int p = 0; p < n_panels; p++) {
        const uint8_t *source = w->panels + (size_t)(panel + p) * w->panel_bytes;
        for (int r = 0; r < PANEL_ROWS; r++) {
            panel_decode_row(w->type, source, r, w->cols, row);
            for (uint32_t i = 0; i < w->cols; i++)
                transposed[(size_t)i * PANEL_ROWS + (size_t)r] = row[i];
        }
        linear_args a = {.panels = (const uint8_t *)transposed,
                         .panel_bytes = panel_bytes(DIL_TYPE_F32, w->cols),
                         .n_panels = 1,
                         .k = w->cols,
                         .x = x,
                         .token = first,
                         .n_tokens = n,
                         .y = y + p * PANEL_ROWS,
                         .y_stride = y_stride,
                         .scratch = ws->linear};
        c->k->linear[DIL_TYPE_F32].gemm(&a);
    }
}

void linear(const compute *c, const weight *w, const act *x, int panel, int n_panels, int32_t first, int32_t n, float *y,
            size_t y_stride, worker_scratch *ws)
{
    if (n == 0)
        return;
    if (c->options.exact && w->type != DIL_TYPE_F32) {
        linear_exact(c, w, x, panel, n_panels, first, n, y, y_stride, ws);
        return;
    }
    linear_args a = {.panels = w->panels + (size_t)panel * w->panel_bytes,
                     .panel_bytes = w->panel_bytes,
                     .n_panels = n_panels,
                     .k = w->cols,
                     .x = x,
                     .token = first,
                     .n_tokens = n,
                     .y = y,
                     .y_stride = y_stride,
                     .scratch = ws->linear,
                     .ahead = c->tuning.ahead};
    if (n >= c->k->gemm_from[w->type]) {
        c->k->linear[w->type].gemm(&a);
        return;
    }
    for (int32_t t = 0; t < n; t += GEMV_TOKENS) {
        a.token = first + t;
        a.n_tokens = n - t < GEMV_TOKENS ? n - t : GEMV_TOKENS;
        a.y = y + (size_t)t * y_stride;
        c->k->linear[w->type].gemv(&a);
    }
}

split split_matrix(const compute *c, step_kind kind, int n_panels, int most, int unit, int32_t n_rows, size_t bytes_per_panel)
{
    int workers = c->n_workers, chunk;
    int32_t rows = c->by_rows ? c->part_rows : n_rows, tokens = c->tuning.tile[kind].tokens, unit_rows = c->k->token_tile;
    if (n_rows == 0) /* nobody wants logits of this batch */
        return (split){.n_panels = n_panels, .chunk = 1, .block = 1};
    int32_t n_blocks = rows > tokens ? (rows + tokens - 1) / tokens : 1;
    split s = {.n_panels = n_panels,
               .n_rows = n_rows,
               .block = ((rows + n_blocks - 1) / n_blocks + unit_rows - 1) / unit_rows * unit_rows};
    if (n_rows >= 16) {
        chunk = n_panels * ((n_rows + s.block - 1) / s.block) / (c->tuning.items_many * workers);
        chunk = chunk < c->tuning.tile[kind].panels ? chunk : c->tuning.tile[kind].panels;
        unit = unit > 2 ? unit : 2; /* gemm wants even panels */
    } else {
        int least = (int)(8192 / (bytes_per_panel + 1)) + 1;
        chunk = (n_panels + c->tuning.items_few * workers - 1) / (c->tuning.items_few * workers);
        chunk = workers == 1 ? n_panels : chunk > least ? chunk : least;
    }
    chunk = chunk < most ? chunk : most;
    s.chunk = chunk < unit ? unit : chunk / unit * unit;
    uint32_t n_chunks = (uint32_t)((n_panels + s.chunk - 1) / s.chunk);
    if (c->by_rows) {
        count_items(c, n_rows, s.block, n_chunks, s.n_items);
        s.first_chunk[c->n_parts] = n_chunks;
        return s;
    }
    for (int p = 0; p < c->n_parts; p++) {
        s.first_chunk[p + 1] = n_chunks * (uint32_t)(p + 1) / (uint32_t)c->n_parts;
        s.n_items[p] = (s.first_chunk[p + 1] - s.first_chunk[p]) * (uint32_t)((n_rows + s.block - 1) / s.block);
    }
    return s;
}

tile split_tile(const compute *c, const split *s, int part, uint32_t index)
{
    uint32_t first = c->by_rows ? 0 : s->first_chunk[part];
    uint32_t n_chunks = s->first_chunk[c->by_rows ? c->n_parts : part + 1] - first;
    int32_t row = (int32_t)(index / n_chunks) * s->block, n_rows = c->by_rows ? part_size(c, part, s->n_rows) : s->n_rows;
    tile it = {.panel = (int)(first + index % n_chunks) * s->chunk, .row = (c->by_rows ? part_first(c, part) : 0) + row};
    it.n_panels = s->n_panels - it.panel < s->chunk ? s->n_panels - it.panel : s->chunk;
    it.n_rows = n_rows - row < s->block ? n_rows - row : s->block;
    return it;
}

void add_bias(float *y, size_t y_stride, const float *bias, int first_row, int n_values, int32_t n, const kernels *k)
{
    if (bias)
        for (int32_t t = 0; t < n; t++)
            k->add(y + (size_t)t * y_stride, bias + first_row, n_values);
}

int chunk_values(const weight *w, int panel, int n_panels)
{
    int values = n_panels * PANEL_ROWS, left = (int)w->rows - panel * PANEL_ROWS;
    return values < left ? values : left;
}

void project_all(compute *c, step_kind kind, int worker, const projection *list, int n)
{
    split parts[PROJECTIONS_MOST];
    uint32_t n_items[TEAM_QUEUES] = {0}, index;
    for (int i = 0; i < n; i++) {
        parts[i] = split_matrix(c, kind, list[i].w->n_panels, INT_MAX, 1, c->n, list[i].w->panel_bytes);
        for (int p = 0; p < c->n_parts; p++)
            n_items[p] += parts[i].n_items[p];
    }
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        int i = 0;
        for (; index >= parts[i].n_items[cl.part]; i++)
            index -= parts[i].n_items[cl.part];
        const projection *p = &list[i];
        tile it = split_tile(c, &parts[i], cl.part, index);
        float *out = p->y + (size_t)it.row * p->y_stride + it.panel * PANEL_ROWS;
        linear(c, p->w, p->x, it.panel, it.n_panels, it.row, it.n_rows, out, p->y_stride, &c->scratch[worker]);
        add_bias(out, p->y_stride, p->bias, it.panel * PANEL_ROWS, chunk_values(p->w, it.panel, it.n_panels), it.n_rows, c->k);
    }
}

void step_qkv(compute *c, const step *s, int worker)
{
    const layer_weights *l = &c->m->layers[s->layer];
    const act *x = &c->nrm.view;
    projection list[] = {{&l->q, l->q_bias, x, c->q, c->q_stride},
                         {&l->k, l->k_bias, x, c->kk, c->k_stride},
                         {&l->v, l->v_bias, x, c->v, c->v_stride}};
    project_all(c, s->kind, worker, list, 3);
}

/* A projection back into the residual stream: x += residual_scale * (w * a + bias), or into tmp when a norm comes between. row_scale
 * [rows] or NULL: weights the whole. */
static void project(compute *c, const step *s, int worker, const weight *w, const float *bias, const act_buffer *a,
                    const float *row_scale)
{
    split parts = split_matrix(c, s->kind, w->n_panels, INT_MAX, 1, step_rows(c, s), w->panel_bytes);
    bool add = !c->h->post_norm;
    uint32_t index;
    for (claims cl = claims_begin(c, worker); claims_next(&cl, parts.n_items, &index);) {
        tile it = split_tile(c, &parts, cl.part, index);
        int first = it.panel * PANEL_ROWS, values = chunk_values(w, it.panel, it.n_panels);
        float *tmp = c->tmp + (size_t)it.row * c->x_stride + first, *x = c->x + (size_t)it.row * c->x_stride + first;
        linear(c, w, &a->view, it.panel, it.n_panels, it.row, it.n_rows, tmp, c->x_stride, &c->scratch[worker]);
        add_bias(tmp, c->x_stride, bias, first, values, it.n_rows, c->k);
        for (int32_t t = 0; add && t < it.n_rows; t++, x += c->x_stride, tmp += c->x_stride) {
            float scale = row_scale ? row_scale[it.row + t] * c->h->residual_scale : c->h->residual_scale;
            if (scale == 1.0f)
                c->k->add(x, tmp, values);
            else
                c->k->add_scaled(x, tmp, scale, values);
        }
    }
}

void step_attn_out(compute *c, const step *s, int worker)
{
    const layer_weights *l = &c->m->layers[s->layer];
    project(c, s, worker, &l->o, l->o_bias, &c->attn, NULL);
}

void step_down(compute *c, const step *s, int worker)
{
    const layer_weights *l = &c->m->layers[s->layer];
    project(c, s, worker, &l->down, l->down_bias, &c->hidden, l->moe && l->moe->shared_gate ? c->moe.shared_weight : NULL);
}

/* Rows go through the activation together, the padding between them too; quantized from where they are. */
void finish_hidden(compute *c, act_buffer *hidden, const tile *it, int values, size_t stride, worker_scratch *ws)
{
    void (*const act_mul)(const float *, const float *, float *, int64_t) = c->h->act == ACTIVATION_GELU ? c->k->gelu_mul
                                                                            : c->h->act == ACTIVATION_SWIGLU_OAI
                                                                                ? c->k->swiglu_oai_mul
                                                                                : c->k->silu_mul;
    int first = it->panel * PANEL_ROWS;
    for (int32_t t = 0; t < it->n_rows; t += HIDDEN_ROWS) {
        int32_t rows = it->n_rows - t < HIDDEN_ROWS ? it->n_rows - t : HIDDEN_ROWS, row = it->row + t;
        float *g = ws->gate + (size_t)t * stride, *u = ws->up + (size_t)t * stride;
        act_mul(g, u, g, (int64_t)((size_t)(rows - 1) * stride) + values);
        for (int32_t r = 0; hidden->floats && r < rows; r++)
            memcpy(hidden->f + (size_t)(row + r) * hidden->view.f_stride + first, g + (size_t)r * stride,
                   (size_t)values * sizeof *g);
        act_quantize_from(c, hidden, g, stride, row, rows, first, values);
    }
}

int ffn_chunk(const compute *c, const step *s, int32_t held)
{
    if (step_rows(c, s) > COMPUTE_FEW_ROWS)
        return s->kind == STEP_GATE_UP ? c->tuning.tile[STEP_GATE_UP].panels : FFN_CHUNK;
    int room = (int)(c->ffn_room / ((size_t)(held > 0 ? held : 1) * PANEL_ROWS));
    return room < FFN_CHUNK ? FFN_CHUNK : room < FFN_CHUNK_FEW ? room / 2 * 2 : FFN_CHUNK_FEW;
}

/* hidden = act(gate * nrm) * (up * nrm), quantized for the down projection on the way. */
void step_gate_up(compute *c, const step *s, int worker)
{
    const layer_weights *l = &c->m->layers[s->layer];
    worker_scratch *ws = &c->scratch[worker];
    split parts =
        split_matrix(c, s->kind, l->gate.n_panels, ffn_chunk(c, s, step_rows(c, s)), 2, step_rows(c, s), 2 * l->gate.panel_bytes);
    uint32_t index;
    for (claims cl = claims_begin(c, worker); claims_next(&cl, parts.n_items, &index);) {
        tile it = split_tile(c, &parts, cl.part, index);
        int first = it.panel * PANEL_ROWS, values = chunk_values(&l->gate, it.panel, it.n_panels);
        size_t stride = (size_t)it.n_panels * PANEL_ROWS;
        linear(c, &l->gate, &c->nrm.view, it.panel, it.n_panels, it.row, it.n_rows, ws->gate, stride, ws);
        linear(c, &l->up, &c->nrm.view, it.panel, it.n_panels, it.row, it.n_rows, ws->up, stride, ws);
        add_bias(ws->gate, stride, l->gate_bias, first, values, it.n_rows, c->k);
        add_bias(ws->up, stride, l->up_bias, first, values, it.n_rows, c->k);
        finish_hidden(c, &c->hidden, &it, values, stride, ws);
    }
}

void step_head(compute *c, const step *s, int worker)
{
    const weight *w = &c->m->head;
    const hparams *h = c->h;
    split parts = split_matrix(c, s->kind, w->n_panels, INT_MAX, 1, step_rows(c, s), w->panel_bytes);
    uint32_t index;
    for (claims cl = claims_begin(c, worker); claims_next(&cl, parts.n_items, &index);) {
        tile it = split_tile(c, &parts, cl.part, index);
        int first = it.panel * PANEL_ROWS, values = chunk_values(w, it.panel, it.n_panels);
        float *row = c->logits + (size_t)it.row * c->logit_stride + first;
        linear(c, w, &c->nrm.view, it.panel, it.n_panels, it.row, it.n_rows, row, c->logit_stride, &c->scratch[worker]);
        add_bias(row, c->logit_stride, c->m->head_bias, first, values, it.n_rows, c->k);
        for (int32_t t = 0; t < it.n_rows; t++, row += c->logit_stride) {
            if (h->logit_scale != 1.0f)
                c->k->scale(row, h->logit_scale, values);
            if (h->logit_softcap > 0.0f)
                c->k->softcap(row, h->logit_softcap, values);
        }
    }
}
