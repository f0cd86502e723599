/*
 * The matrix steps. A worker claims a chunk of panels (16 output values each), computes it for all rows of the batch, and
 * finishes it while it is in cache: bias, activation, residual add. Which worker takes a chunk never changes a result.
 */
#include "compute/exec.h"

#include <string.h>

enum { HIDDEN_ROWS = 32 }; /* rows that go through the activation together */

/* The yardstick: the panel decoded to f32, times f32 activations. */
static void linear_exact(const compute *c, const weight *w, const act *x, int panel, int n_panels, int32_t n, float *y,
                         size_t y_stride, worker_scratch *ws)
{
    float *row = ws->exact, *transposed = ws->exact + w->cols;
    for (int p = 0; p < n_panels; p++) {
        const uint8_t *source = w->panels + (size_t)(panel + p) * w->panel_bytes;
        for (int r = 0; r < PANEL_ROWS; r++) {
            panel_decode_row(w->type, source, r, w->cols, row);
            for (uint32_t i = 0; i < w->cols; i++)
                transposed[(size_t)i * PANEL_ROWS + (size_t)r] = row[i];
        }
        linear_args a = {.panels = (const uint8_t *)transposed, .panel_bytes = panel_bytes(DIL_TYPE_F32, w->cols), .n_panels = 1,
                         .k = w->cols, .x = x, .n_tokens = n, .y = y + p * PANEL_ROWS, .y_stride = y_stride, .scratch = ws->linear};
        c->k->linear[DIL_TYPE_F32].gemm(&a);
    }
}

/* y[t][..] for panels [panel, panel + n_panels) and all n rows of x. */
static void linear(const compute *c, const weight *w, const act *x, int panel, int n_panels, int32_t n, float *y, size_t y_stride,
                   worker_scratch *ws)
{
    if (n == 0)
        return;
    if (c->options.exact && w->type != DIL_TYPE_F32) {
        linear_exact(c, w, x, panel, n_panels, n, y, y_stride, ws);
        return;
    }
    linear_args a = {.panels = w->panels + (size_t)panel * w->panel_bytes, .panel_bytes = w->panel_bytes, .n_panels = n_panels,
                     .k = w->cols, .x = x, .n_tokens = n, .y = y, .y_stride = y_stride, .scratch = ws->linear};
    if (n >= c->k->gemm_from[w->type]) {
        c->k->linear[w->type].gemm(&a);
        return;
    }
    for (int32_t t = 0; t < n; t += GEMV_TOKENS) {
        a.token = t;
        a.n_tokens = n - t < GEMV_TOKENS ? n - t : GEMV_TOKENS;
        a.y = y + (size_t)t * y_stride;
        c->k->linear[w->type].gemv(&a);
    }
}

/* Panels per claim: few enough that every worker gets several, enough that a claim is worth its atomic; gemm wants them even. */
static int chunk_panels(const compute *c, int n_panels, int32_t n_rows, size_t bytes_per_panel)
{
    int workers = team_size(c->workers);
    if (n_rows >= 16) {
        int chunk = n_panels / (8 * workers) / 2 * 2;
        return chunk < 2 ? 2 : chunk < c->k->panel_chunk ? chunk : c->k->panel_chunk;
    }
    int chunk = (n_panels + 6 * workers - 1) / (6 * workers);
    int least = (int)(8192 / (bytes_per_panel + 1)) + 1;
    return workers == 1 ? n_panels : chunk > least ? chunk : least;
}

static void add_bias(float *y, size_t y_stride, const float *bias, int first_row, int n_values, int32_t n, const kernels *k)
{
    if (bias)
        for (int32_t t = 0; t < n; t++)
            k->add(y + (size_t)t * y_stride, bias + first_row, n_values);
}

/* Values of the chunk that exist (the last panel may be padded). */
static int chunk_values(const weight *w, int panel, int n_panels)
{
    int values = n_panels * PANEL_ROWS, left = (int)w->rows - panel * PANEL_ROWS;
    return values < left ? values : left;
}

void step_qkv(compute *c, const step *s, int worker)
{
    const layer *l = &c->m->layers[s->layer];
    const weight *w[3] = {&l->q, &l->k, &l->v};
    const float *bias[3] = {l->q_bias, l->k_bias, l->v_bias};
    float *y[3] = {c->q, c->kk, c->v};
    size_t stride[3] = {c->q_stride, c->kv_stride, c->kv_stride};
    uint32_t claim = team_claim(c->workers), before = 0;
    for (int i = 0; i < 3; i++) {
        int chunk = chunk_panels(c, w[i]->n_panels, c->n, w[i]->panel_bytes);
        uint32_t n_chunks = (uint32_t)((w[i]->n_panels + chunk - 1) / chunk);
        for (; claim < before + n_chunks; claim = team_claim(c->workers)) {
            int panel = (int)(claim - before) * chunk;
            int n_panels = w[i]->n_panels - panel < chunk ? w[i]->n_panels - panel : chunk;
            float *out = y[i] + panel * PANEL_ROWS;
            linear(c, w[i], &c->nrm.view, panel, n_panels, c->n, out, stride[i], &c->scratch[worker]);
            add_bias(out, stride[i], bias[i], panel * PANEL_ROWS, chunk_values(w[i], panel, n_panels), c->n, c->k);
        }
        before += n_chunks;
    }
}

/* A projection back into the residual stream: x += residual_scale * (w * a + bias), or into tmp when a norm comes between. */
static void project(compute *c, const step *s, int worker, const weight *w, const float *bias, const act_buffer *a)
{
    int32_t n = step_rows(c, s);
    int chunk = chunk_panels(c, w->n_panels, n, w->panel_bytes);
    bool add = !c->h->post_norm;
    for (uint32_t claim; (claim = team_claim(c->workers)) < (uint32_t)((w->n_panels + chunk - 1) / chunk);) {
        int panel = (int)claim * chunk;
        int n_panels = w->n_panels - panel < chunk ? w->n_panels - panel : chunk;
        int first = panel * PANEL_ROWS, values = chunk_values(w, panel, n_panels);
        linear(c, w, &a->view, panel, n_panels, n, c->tmp + first, c->x_stride, &c->scratch[worker]);
        add_bias(c->tmp + first, c->x_stride, bias, first, values, n, c->k);
        for (int32_t t = 0; add && t < n; t++) {
            float *x = c->x + (size_t)t * c->x_stride + first;
            const float *y = c->tmp + (size_t)t * c->x_stride + first;
            if (c->h->residual_scale == 1.0f)
                c->k->add(x, y, values);
            else
                c->k->add_scaled(x, y, c->h->residual_scale, values);
        }
    }
}

void step_attn_out(compute *c, const step *s, int worker)
{
    const layer *l = &c->m->layers[s->layer];
    project(c, s, worker, &l->o, l->o_bias, &c->attn);
}

void step_down(compute *c, const step *s, int worker)
{
    const layer *l = &c->m->layers[s->layer];
    project(c, s, worker, &l->down, l->down_bias, &c->hidden);
}

/* hidden = act(gate) * up of n rows of the chunk's values, which lie one row after the other; quantized from where they are. */
static void finish_hidden(compute *c, const layer *l, int32_t n, int first, int values, size_t stride, worker_scratch *ws)
{
    void (*act_mul)(const float *, const float *, float *, int64_t) = c->h->act == ACTIVATION_GELU ? c->k->gelu_mul : c->k->silu_mul;
    bool is_half = l->down.type == DIL_TYPE_F16 || l->down.type == DIL_TYPE_BF16;
    bool floats = c->options.exact || l->down.type == DIL_TYPE_F32 || (is_half && !c->k->bf16_dot);
    for (int32_t t = 0; t < n; t += HIDDEN_ROWS) {
        int32_t rows = n - t < HIDDEN_ROWS ? n - t : HIDDEN_ROWS;
        float *g = ws->gate + (size_t)t * stride, *u = ws->up + (size_t)t * stride;
        act_mul(g, u, g, (int64_t)((size_t)(rows - 1) * stride) + values);
        for (int32_t r = 0; floats && r < rows; r++)
            memcpy(c->hidden.f + (size_t)(t + r) * c->hidden.view.f_stride + first, g + (size_t)r * stride, (size_t)values * sizeof *g);
        act_quantize_from(c, &c->hidden, g, stride, t, rows, first, values);
    }
}

/* hidden = act(gate * nrm) * (up * nrm), quantized for the down projection on the way. */
void step_gate_up(compute *c, const step *s, int worker)
{
    const layer *l = &c->m->layers[s->layer];
    worker_scratch *ws = &c->scratch[worker];
    int32_t n = step_rows(c, s);
    int chunk = chunk_panels(c, l->gate.n_panels, n, 2 * l->gate.panel_bytes);
    chunk = chunk > FFN_CHUNK ? FFN_CHUNK : (chunk + 1) / 2 * 2;
    for (uint32_t claim; (claim = team_claim(c->workers)) < (uint32_t)((l->gate.n_panels + chunk - 1) / chunk);) {
        int panel = (int)claim * chunk;
        int n_panels = l->gate.n_panels - panel < chunk ? l->gate.n_panels - panel : chunk;
        int first = panel * PANEL_ROWS, values = chunk_values(&l->gate, panel, n_panels);
        size_t stride = (size_t)n_panels * PANEL_ROWS;
        linear(c, &l->gate, &c->nrm.view, panel, n_panels, n, ws->gate, stride, ws);
        linear(c, &l->up, &c->nrm.view, panel, n_panels, n, ws->up, stride, ws);
        add_bias(ws->gate, stride, l->gate_bias, first, values, n, c->k);
        add_bias(ws->up, stride, l->up_bias, first, values, n, c->k);
        finish_hidden(c, l, n, first, values, stride, ws);
    }
}

void step_head(compute *c, const step *s, int worker)
{
    const weight *w = &c->m->head;
    const hparams *h = c->h;
    int32_t n = step_rows(c, s);
    int chunk = chunk_panels(c, w->n_panels, n, w->panel_bytes);
    for (uint32_t claim; (claim = team_claim(c->workers)) < (uint32_t)((w->n_panels + chunk - 1) / chunk);) {
        int panel = (int)claim * chunk;
        int n_panels = w->n_panels - panel < chunk ? w->n_panels - panel : chunk;
        int first = panel * PANEL_ROWS, values = chunk_values(w, panel, n_panels);
        linear(c, w, &c->nrm.view, panel, n_panels, n, c->logits + first, c->logit_stride, &c->scratch[worker]);
        add_bias(c->logits + first, c->logit_stride, c->m->head_bias, first, values, n, c->k);
        for (int32_t t = 0; t < n; t++) {
            float *row = c->logits + (size_t)t * c->logit_stride + first;
            if (h->logit_scale != 1.0f)
                c->k->scale(row, h->logit_scale, values);
            if (h->logit_softcap > 0.0f)
                c->k->softcap(row, h->logit_softcap, values);
        }
    }
}
