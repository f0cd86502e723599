#include "quantize/walk.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "quantize/walk_internal.h"

#define PIECE_VALUES ((uint64_t)1 << 22)
#define MOST_CURVATURE_FLOATS ((size_t)1 << 28)
#define HEAD_ROWS 4096 /* of the output matrix whose forms are made together */

/* ---- shape ---- */

static dil_status refuse(const hparams *h, const char *what, dil_error *err)
{
    return DIL_FAIL(err, DIL_UNSUPPORTED, "calibration: architecture %.*s: %s", STR_ARG(h->architecture), _(what));
}

static dil_status shape(net_config *c, const gguf *in, const hparams *h, int n_context, dil_error *err)
{
    if (h->latent.kv_rank || h->sinks || h->attn_softcap != 0.0f || h->logit_softcap != 0.0f || !h->pre_norm ||
        h->residual_scale != 1.0f || h->logit_scale != 1.0f || h->qk == QK_NORM_FULL || h->head_dim != h->n_rot)
        return refuse(h, "the trainer knows no such layers", err);
    if (h->window && (uint32_t)n_context > h->window)
        return refuse(h, "sequences must not be longer than its windows", err);
    *c = (net_config){.n_vocab = (int)h->n_vocab,
                      .n_context = n_context,
                      .n_embd = (int)h->n_embd,
                      .n_layer = 1,
                      .n_head = (int)h->n_head,
                      .n_head_kv = (int)h->n_head_kv,
                      .head_dim = (int)h->head_dim,
                      .n_ff = h->experts.n_experts ? 0 : (int)h->n_ff,
                      .n_experts = (int)h->experts.n_experts,
                      .n_used = (int)h->experts.n_used,
                      .n_ff_expert = (int)h->experts.n_ff,
                      .activation = h->act == ACTIVATION_GELU ? NET_GEGLU : NET_SWIGLU,
                      .qk_norm = h->qk == QK_NORM_HEAD,
                      .qkv_bias = gguf_tensor_find(in, "blk.0.attn_q.bias") != NULL,
                      .post_norm = h->post_norm,
                      .tied = gguf_tensor_find(in, "output.weight") == NULL,
                      .pairs = h->pairs,
                      .rope_base = h->rope[0].base,
                      .norm_eps = h->norm_eps,
                      .embd_scale = h->embd_scale};
    return DIL_OK;
}

/* ---- reading ---- */

/* In pieces, each of which leaves memory again: the file is read rarely, and the states of all tokens are there already. */
static void decode(const gguf_tensor *t, float *out)
{
    const uint64_t columns = t->ne[0], n = t->ne[1] * t->ne[2] * t->ne[3],
                   piece = columns < PIECE_VALUES ? PIECE_VALUES / columns : 1;
    const size_t row_bytes = (size_t)(t->size_bytes / n);
    for (uint64_t row = 0; row < n; row += piece) {
        size_t count = (size_t)(n - row < piece ? n - row : piece);
        const uint8_t *from = (const uint8_t *)t->data + (size_t)row * row_bytes;
        format_get(t->type)->decode(from, out + (size_t)row * (size_t)columns, count * (size_t)columns);
        os_advise_drop(from, count * row_bytes);
    }
}

bool walk_of_layer(const parameter *p) { return strncmp(p->name, "blk.", 4) == 0; }

/* The name of a parameter of the one-layer net in the file: its layer becomes `layer`. */
static void file_name(const parameter *p, int layer, char out[96])
{
    if (walk_of_layer(p))
        snprintf(out, 96, "blk.%d.%s", layer, p->name + 6); /* behind "blk.0." */
    else
        snprintf(out, 96, "%s", p->name);
}

const gguf_tensor *walk_tensor_of(const walk *w, const parameter *p, int layer)
{
    char name[96];
    file_name(p, layer, name);
    return gguf_tensor_find(w->in, name);
}

static dil_status read_parameter(walk *w, parameter *p, int layer, dil_error *err)
{
    char name[96];
    file_name(p, layer, name);
    const gguf_tensor *t = gguf_tensor_find(w->in, name);
    if (!t)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted a tensor '%s', found none", gguf_path(w->in), name);
    uint64_t count = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    if (count != p->count || t->ne[0] != (uint64_t)p->columns || !format_get(t->type)->decode)
        return DIL_FAIL(err, DIL_FORMAT, "%s: tensor '%s': wanted %zu values in rows of %d, found %llu in rows of %llu",
                        gguf_path(w->in), name, p->count, p->columns, (unsigned long long)count, (unsigned long long)t->ne[0]);
    if (w->read)
        w->read(w->read_ctx, t, p->w);
    else
        decode(t, p->w);
    for (size_t i = 0; i < p->count; i++)
        if (!isfinite(p->w[i]))
            return DIL_FAIL(err, DIL_FORMAT, "%s: tensor '%s': wanted finite weights, found %g in row %zu", gguf_path(w->in), name,
                            (double)p->w[i], i / (size_t)p->columns);
    return DIL_OK;
}

static dil_status read_parameters(walk *w, int layer, bool layers, dil_error *err)
{
    for (int i = 0; i < net_n_parameters(w->n); i++)
        if (walk_of_layer(net_parameter_at(w->n, i)) == layers)
            DIL_TRY(read_parameter(w, net_parameter_at(w->n, i), layer, err));
    return DIL_OK;
}

static int widest(const net_config *c)
{
    int most = c->n_embd > c->n_head * c->head_dim ? c->n_embd : c->n_head * c->head_dim,
        ff = c->n_experts ? c->n_ff_expert : c->n_ff;
    return ff > most ? ff : most;
}

dil_status walk_new(walk **out, const gguf *in, const int32_t *tokens, int n_sequences, int n_context, team *workers,
                    const kernels *k, dil_error *err)
{
    walk *w = mem_calloc(1, sizeof *w, MEM_MISC);
    net_config c;
    if (!w)
        return DIL_FAIL(err, DIL_NO_MEMORY, "calibration: no memory");
    w->in = in;
    w->most_floats = MOST_CURVATURE_FLOATS;
    w->n_sequences = n_sequences;
    w->n_context = n_context;
    w->batch = n_context < BATCH_TOKENS ? BATCH_TOKENS / n_context : 1;
    dil_status status = hparams_read(&w->h, in, err);
    if (status == DIL_OK)
        status = shape(&c, in, &w->h, n_context, err);
    if (status == DIL_OK)
        status = net_new(&w->n, &c, NET_COMPUTE_AUTO, w->batch * n_context, workers, k, err);
    if (status == DIL_OK) {
        size_t n = (size_t)n_sequences * (size_t)n_context;
        w->tokens = mem_alloc(n * sizeof *tokens, MEM_MISC);
        w->x = mem_map(n * (size_t)c.n_embd * sizeof(float), MEM_ACTIVATIONS);
        w->attended = mem_map(n * (size_t)(c.n_head * c.head_dim) * sizeof(float), MEM_ACTIVATIONS);
        w->weighted_bytes = (size_t)(w->batch * n_context * (c.n_experts ? c.n_used : 1)) * (size_t)widest(&c) * sizeof(float);
        w->weighted = mem_map(w->weighted_bytes, MEM_ACTIVATIONS);
        w->heads_bytes = (size_t)c.n_head * (size_t)(w->batch * n_context) * (size_t)c.n_embd * sizeof(float);
        w->heads = mem_map(w->heads_bytes, MEM_ACTIVATIONS);
        w->turns = mem_alloc((size_t)w->batch * (size_t)n_context * sizeof *w->turns, MEM_MISC);
        if (!w->tokens || !w->x || !w->attended || !w->weighted || !w->heads || !w->turns)
            status = DIL_FAIL(err, DIL_NO_MEMORY, "calibration: no memory for %zu tokens", n);
        else
            memcpy(w->tokens, tokens, n * sizeof *tokens);
    }
    if (status == DIL_OK) {
        net_layer *l = &w->n->layers[0];
        w->own_x = l->x;
        w->own_attended = l->attended;
        w->own_x_ffn = l->x_ffn;
        status = read_parameters(w, 0, false, err);
    }
    if (status == DIL_OK)
        *out = w;
    else
        walk_free(w);
    return status;
}

void walk_free(walk *w)
{
    if (!w)
        return;
    size_t n = (size_t)w->n_sequences * (size_t)w->n_context;
    if (w->x)
        mem_unmap(w->x, n * w->h.n_embd * sizeof(float), MEM_ACTIVATIONS);
    if (w->attended)
        mem_unmap(w->attended, n * w->h.n_head * w->h.head_dim * sizeof(float), MEM_ACTIVATIONS);
    if (w->weighted)
        mem_unmap(w->weighted, w->weighted_bytes, MEM_ACTIVATIONS);
    if (w->heads)
        mem_unmap(w->heads, w->heads_bytes, MEM_ACTIVATIONS);
    mem_free(w->tokens);
    mem_free(w->turns);
    net_free(w->n);
    mem_free(w);
}

void walk_read_by(walk *w, walk_read_fn fn, void *ctx)
{
    w->read = fn;
    w->read_ctx = ctx;
}

const hparams *walk_hparams(const walk *w) { return &w->h; }
int64_t walk_n_tokens(const walk *w) { return (int64_t)w->n_sequences * w->n_context; }

/* ---- walking ---- */

void walk_batches(walk *w, walk_batch_fn fn, void *ctx)
{
    net_layer *l = &w->n->layers[0];
    for (int s = 0; s < w->n_sequences; s += w->batch) {
        int n = w->n_sequences - s < w->batch ? w->n_sequences - s : w->batch;
        fn(w, l, (int64_t)s * w->n_context, (int64_t)n * w->n_context, ctx);
    }
}

float *walk_state(const walk *w, int64_t token) { return w->x + (size_t)token * w->h.n_embd; }
float *walk_attended(const walk *w, int64_t token) { return w->attended + (size_t)token * w->h.n_head * w->h.head_dim; }

static void embed_batch(walk *w, net_layer *l, int64_t first, int64_t n, void *ctx)
{
    (void)ctx;
    (void)l;
    embed_forward(&w->n->crew, w->n->embedding->w, w->n->c.n_embd, w->n->c.embd_scale, w->tokens + first, n, walk_state(w, first));
}

dil_status walk_restart(walk *w, dil_error *err) { return read_parameters(w, 0, false, err); }

dil_status walk_begin(walk *w, dil_error *err)
{
    (void)err;
    walk_batches(w, embed_batch, NULL);
    return DIL_OK;
}

dil_status walk_load(walk *w, int layer, dil_error *err)
{
    w->layer = layer;
    w->priced = false;
    w->n->c.rope_base = w->h.window && w->h.windowed[layer] ? w->h.rope[1].base : w->h.rope[0].base;
    net_rotations(w->n);
    DIL_TRY(read_parameters(w, layer, true, err));
    walk_changed(w);
    return DIL_OK;
}

void walk_changed(walk *w)
{
    net_layer *l = &w->n->layers[0];
    const weight *list[] = {&l->q, &l->k, &l->v, &l->o, &l->f.gate, &l->f.up, &l->f.down, &l->router};
    weight_prepare(&w->n->crew, list, w->n->c.n_experts ? 8 : 7);
}

walk_matrix walk_matrix_at(walk *w, net_place place)
{
    const net_layer *l = &w->n->layers[0];
    const weight *const at[NET_PLACES] = {&l->q, &l->k, &l->v, &l->o, &l->f.gate, &l->f.up, &l->f.down};
    return (walk_matrix){at[place]->w, at[place]->n, at[place]->n_out, at[place]->n_in};
}

walk_stage walk_stage_of(net_place place)
{
    return place <= NET_K        ? WALK_QK
           : place == NET_V      ? WALK_VALUES
           : place == NET_OUTPUT ? WALK_OUTPUT
           : place <= NET_UP     ? WALK_GATE_UP
                                 : WALK_DOWN;
}

const char *walk_tensor_name(const walk *w, net_place place)
{
    static const char *const dense[NET_PLACES] = {"attn_q.weight",   "attn_k.weight", "attn_v.weight",  "attn_output.weight",
                                                  "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"};
    static const char *const experts[NET_PLACES] = {
        [NET_GATE] = "ffn_gate_exps.weight", [NET_UP] = "ffn_up_exps.weight", [NET_DOWN] = "ffn_down_exps.weight"};
    return w->n->c.n_experts && experts[place] ? experts[place] : dense[place];
}

static void drop(void *p, size_t n) { os_advise_drop(p, n); }

static void prepare_head_rows(void *ctx, int64_t item, int worker)
{
    const walk *w = ctx;
    const weight *head = &w->n->head;
    const int first = (int)item * HEAD_ROWS, n = head->n_out - first < HEAD_ROWS ? head->n_out - first : HEAD_ROWS;
    weight_prepare_rows(&w->n->crew, head, first, n, worker);
    drop(head->w + (size_t)first * (size_t)head->n_in, (size_t)n * (size_t)head->n_in * sizeof *head->w);
}

/* The forms are as large as the values: rows go as theirs come. */
void walk_head_prepare(walk *w)
{
    if (w->head_prepared)
        return;
    crew_items(&w->n->crew, (w->n->head.n_out + HEAD_ROWS - 1) / HEAD_ROWS, prepare_head_rows, w);
    w->head_prepared = true;
}

dil_status walk_head_release(walk *w, dil_error *err)
{
    const weight *head = &w->n->head;
    drop(head->forward, weight_forward_words(head) * sizeof *head->forward);
    drop(head->backward, weight_backward_words(head) * sizeof *head->backward);
    w->head_prepared = false;
    return walk_restart(w, err);
}

void walk_leave_words(walk *w)
{
    const parameter *words = w->n->embedding;
    const weight *head = &w->n->head;
    drop(words->w, words->count * sizeof *words->w);
    if (!w->n->c.tied)
        drop(head->w, (size_t)head->n_out * (size_t)head->n_in * sizeof *head->w);
}

dil_status walk_meet_words(walk *w, dil_error *err)
{
    drop(w->attended, (size_t)walk_n_tokens(w) * w->h.n_head * w->h.head_dim * sizeof *w->attended);
    return walk_restart(w, err);
}

float *walk_embedding(walk *w, int *n_rows, int *n_columns)
{
    *n_rows = w->n->c.n_vocab;
    *n_columns = w->n->c.n_embd;
    return w->n->embedding->w;
}

static void advance_batch(walk *w, net_layer *l, int64_t first, int64_t n, void *ctx)
{
    (void)ctx;
    l->x_ffn = walk_state(w, first);
    layer_ffn_norm(w->n, l, walk_price(w), n);
    layer_ffn(w->n, l, n, w->n->dx);
    memcpy(l->x_ffn, w->n->dx, (size_t)n * w->h.n_embd * sizeof(float));
}

void walk_advance(walk *w) { walk_batches(w, advance_batch, NULL); }

float *walk_head(walk *w) { return w->n->head.w; }
