#include "train/net.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "theorem/random.h"
#include "train/net_internal.h"

/* ---- shape ---- */

typedef struct bound {
    const char *name;
    int value, least, most;
} bound;

static dil_status check_experts(const net_config *c, dil_error *err)
{
    if (c->n_experts == 0 && (c->n_used || c->n_ff_expert))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "num_experts_per_tok, moe_intermediate_size: wanted 0 without experts, found %d, %d",
                        c->n_used, c->n_ff_expert);
    if (c->n_experts > 0 && c->n_ff != 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "intermediate_size: wanted 0 with experts, found %d", c->n_ff);
    if (c->n_experts > 0 && (c->n_used < 1 || c->n_used > NET_MAX_USED || c->n_used > c->n_experts))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "num_experts_per_tok: wanted 1 to %d of %d experts, found %d", NET_MAX_USED,
                        c->n_experts, c->n_used);
    return DIL_OK;
}

dil_status net_config_check(const net_config *c, dil_error *err)
{
    const bound bounds[] = {
        {N_("vocabulary size"), c->n_vocab, 2, 1 << 20},
        {"context_length", c->n_context, 1, NET_MAX_CONTEXT},
        {"hidden_size", c->n_embd, 1, NET_MAX_EMBD},
        {"num_hidden_layers", c->n_layer, 1, NET_MAX_LAYERS},
        {"num_attention_heads", c->n_head, 1, NET_MAX_HEADS},
        {"num_key_value_heads", c->n_head_kv, 1, c->n_head > 0 ? c->n_head : 1},
        {"head_dim", c->head_dim, 2, NET_MAX_HEAD_DIM},
        {"intermediate_size", c->n_ff, c->n_experts ? 0 : 1, NET_MAX_FF},
        {"num_experts", c->n_experts, 0, NET_MAX_EXPERTS},
        {"moe_intermediate_size", c->n_ff_expert, c->n_experts ? 1 : 0, NET_MAX_FF},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (bounds[i].value < bounds[i].least || bounds[i].value > bounds[i].most)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted %d to %d, found %d", _(bounds[i].name), bounds[i].least,
                            bounds[i].most, bounds[i].value);
    if (c->head_dim % 2)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "head_dim: wanted an even number, found %d", c->head_dim);
    if (c->n_head % c->n_head_kv)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "num_key_value_heads: wanted a divisor of %d heads, found %d", c->n_head,
                        c->n_head_kv);
    if (!(c->norm_eps > 0.0f && c->norm_eps < 1.0f) || !(c->rope_base > 1.0f) || !(c->embd_scale > 0.0f))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "rms_norm_eps, rope_theta, embedding_scale: wanted within (0, 1), above 1, above 0; found %g, %g, %g",
                        (double)c->norm_eps, (double)c->rope_base, (double)c->embd_scale);
    return check_experts(c, err);
}

/* ---- parameters ---- */

/* Adds a parameter to the list; with n->parameters NULL only counts. Its place in the values is n->size. */
static parameter *add_parameter(net *n, const char *name, int layer, parameter_kind kind, int matrices, int n_rows, int columns)
{
    parameter *p = n->parameters ? &n->parameters[n->n_parameters] : NULL;
    size_t count = (size_t)matrices * (size_t)n_rows * (size_t)columns;
    if (p) {
        *p = (parameter){.kind = kind, .n = matrices, .rows = n_rows, .columns = columns, .count = count};
        if (layer >= 0)
            (void)snprintf(p->name, sizeof p->name, "blk.%d.%s", layer, name);
        else
            (void)snprintf(p->name, sizeof p->name, "%s", name);
        p->w = n->values ? n->values + n->size : NULL;
        p->g = n->gradients ? n->gradients + n->size : NULL;
    }
    n->n_parameters++;
    n->size += count;
    return p;
}

static void add_norm(net *n, norm *m, const char *name, int layer, int width, int per_token)
{
    parameter *p = add_parameter(n, name, layer, PARAMETER_VECTOR, 1, 1, width);
    if (p)
        *m = (norm){p->w, p->g, n->c.norm_eps, width, per_token};
}

static void add_weight(net *n, weight *w, const char *name, int layer, parameter_kind kind, int matrices, int n_out, int n_in)
{
    parameter *p = add_parameter(n, name, layer, kind, matrices, n_out, n_in);
    if (p)
        *w = (weight){.w = p->w, .g = p->g, .n = matrices, .n_out = n_out, .n_in = n_in, .kind = n->crew.kind};
    if (p && kind == PARAMETER_ROUTER)
        w->kind.bf16 = false; /* small and touchy */
}

static void add_bias(net *n, weight *w, const char *name, int layer)
{
    parameter *p = add_parameter(n, name, layer, PARAMETER_VECTOR, 1, 1, w->n_out);
    if (p) {
        w->bias = p->w;
        w->bias_g = p->g;
    }
}

static void add_attention(net *n, net_layer *l, int i)
{
    const net_config *c = &n->c;
    int q = c->n_head * c->head_dim, kv = c->n_head_kv * c->head_dim;
    add_norm(n, &l->attn_norm, "attn_norm.weight", i, c->n_embd, 1);
    add_weight(n, &l->q, "attn_q.weight", i, PARAMETER_MATRIX, 1, q, c->n_embd);
    add_weight(n, &l->k, "attn_k.weight", i, PARAMETER_MATRIX, 1, kv, c->n_embd);
    add_weight(n, &l->v, "attn_v.weight", i, PARAMETER_MATRIX, 1, kv, c->n_embd);
    l->q.n_out = q; /* for the biases while only counting */
    l->k.n_out = l->v.n_out = kv;
    if (c->qkv_bias) {
        add_bias(n, &l->q, "attn_q.bias", i);
        add_bias(n, &l->k, "attn_k.bias", i);
        add_bias(n, &l->v, "attn_v.bias", i);
    }
    if (c->qk_norm) {
        add_norm(n, &l->q_norm, "attn_q_norm.weight", i, c->head_dim, c->n_head);
        add_norm(n, &l->k_norm, "attn_k_norm.weight", i, c->head_dim, c->n_head_kv);
    }
    add_weight(n, &l->o, "attn_output.weight", i, PARAMETER_MATRIX, 1, c->n_embd, q);
    if (c->post_norm)
        add_norm(n, &l->attn_post, "post_attention_norm.weight", i, c->n_embd, 1);
}

static void add_ffn(net *n, net_layer *l, int i)
{
    const net_config *c = &n->c;
    bool moe = c->n_experts > 0;
    parameter_kind kind = moe ? PARAMETER_EXPERTS : PARAMETER_MATRIX;
    int groups = moe ? c->n_experts : 1, n_ff = moe ? c->n_ff_expert : c->n_ff;
    add_norm(n, &l->ffn_norm, "ffn_norm.weight", i, c->n_embd, 1);
    if (moe)
        add_weight(n, &l->router, "ffn_gate_inp.weight", i, PARAMETER_ROUTER, 1, c->n_experts, c->n_embd);
    l->f.n_groups = groups;
    l->f.activation = c->activation;
    add_weight(n, &l->f.gate, moe ? "ffn_gate_exps.weight" : "ffn_gate.weight", i, kind, groups, n_ff, c->n_embd);
    add_weight(n, &l->f.up, moe ? "ffn_up_exps.weight" : "ffn_up.weight", i, kind, groups, n_ff, c->n_embd);
    add_weight(n, &l->f.down, moe ? "ffn_down_exps.weight" : "ffn_down.weight", i, kind, groups, c->n_embd, n_ff);
    if (c->post_norm)
        add_norm(n, &l->ffn_post, "post_ffw_norm.weight", i, c->n_embd, 1);
}

/* All parameters, in the order of values and of files. */
static void add_parameters(net *n)
{
    const net_config *c = &n->c;
    n->n_parameters = 0;
    n->size = 0;
    n->embedding = add_parameter(n, "token_embd.weight", -1, PARAMETER_EMBEDDING, 1, c->n_vocab, c->n_embd);
    for (int i = 0; i < c->n_layer; i++) {
        add_attention(n, &n->layers[i], i);
        add_ffn(n, &n->layers[i], i);
    }
    add_norm(n, &n->out_norm, "output_norm.weight", -1, c->n_embd, 1);
    if (!c->tied)
        add_weight(n, &n->head, "output.weight", -1, PARAMETER_MATRIX, 1, c->n_vocab, c->n_embd);
    else if (n->embedding)
        n->head = (weight){
            .w = n->embedding->w, .g = n->embedding->g, .n = 1, .n_out = c->n_vocab, .n_in = c->n_embd, .kind = n->crew.kind};
}

/* ---- memory ---- */

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static float *carve_floats(void *base, size_t *used, size_t tokens, int width)
{
    return mem_carve(base, used, tokens * (size_t)width * sizeof(float));
}

static void carve_layer(net *n, net_layer *l, void *base, size_t *used)
{
    const net_config *c = &n->c;
    size_t t = (size_t)n->n_tokens, experts = (size_t)c->n_experts, slots = t * (size_t)(experts ? c->n_used : 1);
    int q = c->n_head * c->head_dim, kv = c->n_head_kv * c->head_dim, n_ff = experts ? c->n_ff_expert : c->n_ff;
    l->x = carve_floats(base, used, t, c->n_embd);
    l->normed = carve_floats(base, used, t, c->n_embd);
    l->q_raw = c->qk_norm ? carve_floats(base, used, t, q) : NULL;
    l->k_raw = c->qk_norm ? carve_floats(base, used, t, kv) : NULL;
    l->q_out = carve_floats(base, used, t, q);
    l->k_out = carve_floats(base, used, t, kv);
    l->v_out = carve_floats(base, used, t, kv);
    l->attended = carve_floats(base, used, t, q);
    l->attn_raw = c->post_norm ? carve_floats(base, used, t, c->n_embd) : NULL;
    l->x_ffn = carve_floats(base, used, t, c->n_embd);
    l->normed_ffn = carve_floats(base, used, t, c->n_embd);
    l->gate = carve_floats(base, used, slots, n_ff);
    l->up = carve_floats(base, used, slots, n_ff);
    l->ffn_raw = c->post_norm ? carve_floats(base, used, t, c->n_embd) : NULL;
    if (!experts)
        return;
    l->r = (routing){.n_experts = c->n_experts, .n_used = c->n_used};
    l->r.z = carve_floats(base, used, t, c->n_experts);
    l->r.chosen = mem_carve(base, used, slots * sizeof(int16_t));
    l->r.share = carve_floats(base, used, slots, 1);
    l->r.slot = mem_carve(base, used, slots * sizeof(int32_t));
    l->r.token = mem_carve(base, used, slots * sizeof(int32_t));
    l->r.slot_share = carve_floats(base, used, slots, 1);
    l->r.first = mem_carve(base, used, (experts + 1) * sizeof(int32_t));
    l->flock = carve_floats(base, used, experts, c->n_experts);
}

/* Words a worker needs for the greediest layer. */
static size_t scratch_words(const net *n)
{
    const net_config *c = &n->c;
    int q = c->n_head * c->head_dim, n_ff = c->n_experts ? c->n_ff_expert : c->n_ff;
    size_t widest = most(most((size_t)c->n_embd, (size_t)q), most((size_t)n_ff, (size_t)c->n_vocab));
    size_t words =
        most((size_t)BLOCK_TOKENS * widest, outer_scratch_words((int64_t)most(most((size_t)c->n_embd, (size_t)q), (size_t)n_ff)));
    words = most(words, most(PRODUCT_COLS * widest, ffn_scratch_words(&n->layers[0].f)));
    words = most(words, attention_scratch_words(&(attention_shape){1, c->n_context, c->n_head, c->n_head_kv, c->head_dim}));
    return (words + 63) / 64 * 64;
}

static loss_input loss_shape(const net *n)
{
    return (loss_input){.n_sequences = n->n_tokens / n->c.n_context,
                        .n_tokens = n->c.n_context,
                        .n_experts = n->c.n_experts,
                        .n_used = n->c.n_used};
}

/* Every buffer of a pass; base NULL: only counts. Returns bytes. */
static size_t carve_buffers(net *n, void *base)
{
    const net_config *c = &n->c;
    size_t used = 0, t = (size_t)n->n_tokens, slots = t * (size_t)(c->n_experts ? c->n_used : 1);
    int q = c->n_head * c->head_dim, kv = c->n_head_kv * c->head_dim, n_ff = c->n_experts ? c->n_ff_expert : c->n_ff;
    size_t logit_rows = most(t, (size_t)team_size(n->crew.workers) * BLOCK_TOKENS);
    for (int i = 0; i < c->n_layer; i++)
        carve_layer(n, &n->layers[i], base, &used);
    n->cs = carve_floats(base, &used, (size_t)c->n_context, c->head_dim);
    n->cs_back = carve_floats(base, &used, (size_t)c->n_context, c->head_dim);
    n->x_last = carve_floats(base, &used, t, c->n_embd);
    n->normed_last = carve_floats(base, &used, t, c->n_embd);
    n->inputs = mem_carve(base, &used, t * sizeof(int32_t));
    n->targets = mem_carve(base, &used, t * sizeof(int32_t));
    n->logits = carve_floats(base, &used, logit_rows, c->n_vocab);
    n->nats = carve_floats(base, &used, t, 1);
    n->log_sum = carve_floats(base, &used, t, 1);
    n->dx = carve_floats(base, &used, t, c->n_embd);
    n->dn = carve_floats(base, &used, t, c->n_embd);
    n->dq = carve_floats(base, &used, t, q);
    n->dk = carve_floats(base, &used, t, kv);
    n->dv = carve_floats(base, &used, t, kv);
    n->d_o = carve_floats(base, &used, t, q);
    n->d_raw = c->post_norm ? carve_floats(base, &used, t, c->n_embd) : NULL;
    n->slot_y = carve_floats(base, &used, slots, c->n_embd);
    n->act = carve_floats(base, &used, slots, n_ff);
    n->dshare = carve_floats(base, &used, slots, 1);
    n->dz = carve_floats(base, &used, t, c->n_experts);
    n->prices = c->n_experts ? carve_floats(base, &used, (size_t)c->n_layer, c->n_experts) : NULL;
    loss_input shape = loss_shape(n);
    n->loss_scratch = mem_carve(base, &used, c->n_experts ? loss_scratch_bytes(&shape) : 0);
    n->crew.partial =
        carve_floats(base, &used, (size_t)crew_blocks(n->n_tokens), c->n_embd > c->head_dim ? c->n_embd : c->head_dim);
    n->crew.scratch_words = scratch_words(n);
    n->crew.scratch = mem_carve(base, &used, (size_t)team_size(n->crew.workers) * n->crew.scratch_words * sizeof(uint32_t));
    return used;
}

/* ---- prepared forms of the matrices ---- */

#define LAYER_WEIGHTS 8

static int list_weights(net *n, weight **list)
{
    int count = 0;
    for (int i = 0; i < n->c.n_layer; i++) {
        net_layer *l = &n->layers[i];
        weight *const all[] = {&l->q, &l->k, &l->v, &l->o, &l->f.gate, &l->f.up, &l->f.down};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            list[count++] = all[j];
        if (n->c.n_experts)
            list[count++] = &l->router;
    }
    list[count++] = &n->head;
    return count;
}

static size_t carve_prepared(net *n, void *base)
{
    weight *list[NET_MAX_LAYERS * LAYER_WEIGHTS + 1];
    size_t used = 0;
    for (int i = 0, count = list_weights(n, list); i < count; i++) {
        size_t matrices = (size_t)list[i]->n;
        list[i]->forward = mem_carve(base, &used, matrices * weight_forward_words(list[i]) * sizeof(uint32_t));
        list[i]->backward = mem_carve(base, &used, matrices * weight_backward_words(list[i]) * sizeof(uint32_t));
    }
    return used;
}

void net_refresh(net *n)
{
    weight *list[NET_MAX_LAYERS * LAYER_WEIGHTS + 1];
    const weight *wanted[NET_MAX_LAYERS * LAYER_WEIGHTS + 1];
    int count = list_weights(n, list);
    for (int i = 0; i < count; i++)
        wanted[i] = list[i];
    weight_prepare(&n->crew, wanted, count);
}

/* ---- life ---- */

dil_status net_compute_check(net_compute compute, const kernels *k, dil_error *err)
{
    if (compute == NET_COMPUTE_BF16 && !k->training.product_bf16)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "compute bf16: wanted a CPU with AVX512_BF16, found kernel level %s; use f32 or auto",
                        k->name);
    return DIL_OK;
}

void net_rotations(net *n)
{
    const int half = n->c.head_dim / 2;
    for (int t = 0; t < n->c.n_context; t++)
        for (int i = 0; i < half; i++) {
            double angle = (double)t * pow((double)n->c.rope_base, -2.0 * i / n->c.head_dim);
            float *cs = n->cs + (t * half + i) * 2, *back = n->cs_back + (t * half + i) * 2;
            back[0] = cs[0] = (float)cos(angle);
            cs[1] = (float)sin(angle);
            back[1] = -cs[1];
        }
}

static dil_status allocate(net *n, dil_error *err)
{
    n->layers = mem_calloc((size_t)n->c.n_layer, sizeof *n->layers, MEM_MISC);
    if (!n->layers)
        return DIL_FAIL(err, DIL_NO_MEMORY, "net: no memory for %d layers", n->c.n_layer);
    add_parameters(n);
    n->parameters = mem_calloc((size_t)n->n_parameters, sizeof *n->parameters, MEM_MISC);
    size_t bytes = n->size * sizeof(float);
    n->values = mem_map(bytes, MEM_WEIGHTS);
    n->gradients = mem_map(bytes, MEM_WEIGHTS);
    if (!n->parameters || !n->values || !n->gradients)
        return DIL_FAIL(err, DIL_NO_MEMORY, "net: no memory for %zu values and their gradients", n->size);
    add_parameters(n);
    n->prepared_bytes = carve_prepared(n, NULL);
    n->prepared = mem_map(n->prepared_bytes, MEM_PACKED);
    n->buffers_bytes = carve_buffers(n, NULL);
    n->buffers = mem_map(n->buffers_bytes, MEM_ACTIVATIONS);
    if (!n->prepared || !n->buffers)
        return DIL_FAIL(err, DIL_NO_MEMORY, "net: no memory for %zu bytes of buffers of %d tokens",
                        n->prepared_bytes + n->buffers_bytes, n->n_tokens);
    os_advise_huge(n->prepared, n->prepared_bytes);
    os_advise_huge(n->buffers, n->buffers_bytes);
    os_advise_huge(n->values, bytes);
    os_advise_huge(n->gradients, bytes);
    (void)carve_prepared(n, n->prepared);
    (void)carve_buffers(n, n->buffers);
    net_rotations(n);
    n->dense_first[1] = n->n_tokens;
    return DIL_OK;
}

dil_status net_new(net **out, const net_config *c, net_compute compute, int n_tokens, team *workers, const kernels *k,
                   dil_error *err)
{
    DIL_TRY(net_config_check(c, err));
    if (n_tokens < c->n_context || n_tokens % c->n_context || n_tokens > NET_MAX_TOKENS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "tokens of a pass: wanted a multiple of the context's %d up to %d, found %d",
                        c->n_context, NET_MAX_TOKENS, n_tokens);
    DIL_TRY(net_compute_check(compute, k, err));
    net *n = mem_calloc(1, sizeof *n, MEM_MISC);
    if (!n)
        return DIL_FAIL(err, DIL_NO_MEMORY, "net: no memory");
    n->c = *c;
    n->n_tokens = n_tokens;
    if (compute == NET_COMPUTE_AUTO)
        compute = k->training.product_bf16 ? NET_COMPUTE_BF16 : NET_COMPUTE_F32;
    n->compute = compute;
    n->crew.workers = workers;
    n->crew.kind = (product_kind){k, compute == NET_COMPUTE_BF16};
    dil_status status = allocate(n, err);
    if (status == DIL_OK)
        *out = n;
    else
        net_free(n);
    return status;
}

void net_free(net *n)
{
    if (!n)
        return;
    if (n->buffers)
        mem_unmap(n->buffers, n->buffers_bytes, MEM_ACTIVATIONS);
    if (n->prepared)
        mem_unmap(n->prepared, n->prepared_bytes, MEM_PACKED);
    if (n->values)
        mem_unmap(n->values, n->size * sizeof(float), MEM_WEIGHTS);
    if (n->gradients)
        mem_unmap(n->gradients, n->size * sizeof(float), MEM_WEIGHTS);
    mem_free(n->parameters);
    mem_free(n->layers);
    mem_free(n);
}

/* ---- what others ask ---- */

const net_config *net_config_of(const net *n) { return &n->c; }
net_compute net_compute_of(const net *n) { return n->compute; }
int net_n_parameters(const net *n) { return n->n_parameters; }
parameter *net_parameter_at(net *n, int i) { return &n->parameters[i]; }
size_t net_size(const net *n) { return n->size; }
float *net_values(net *n) { return n->values; }
float *net_gradients(net *n) { return n->gradients; }
float *net_prices(net *n) { return n->prices; }
const int16_t *net_choices(const net *n, int layer) { return n->c.n_experts ? n->layers[layer].r.chosen : NULL; }
const float *net_scores(const net *n, int layer) { return n->c.n_experts ? n->layers[layer].r.z : NULL; }
const parameter *net_router(net *n, int layer)
{
    for (int i = 0; i < n->n_parameters; i++)
        if (n->parameters[i].kind == PARAMETER_ROUTER && n->parameters[i].w == n->layers[layer].router.w)
            return &n->parameters[i];
    return NULL;
}

void net_clear_gradients(net *n) { memset(n->gradients, 0, n->size * sizeof *n->gradients); }

size_t net_active(const net *n)
{
    size_t active = n->size;
    for (int i = 0; i < n->n_parameters; i++) {
        const parameter *p = &n->parameters[i];
        if (p->kind == PARAMETER_EXPERTS)
            active -= p->count / (size_t)p->n * (size_t)(p->n - n->c.n_used);
        if (p->kind == PARAMETER_EMBEDDING && !n->c.tied)
            active -= p->count;
    }
    return active;
}

double net_flops(const net *n) { return 6.0 * (double)net_active(n); }

/* ---- first values ---- */

/* Two independent normal numbers from two uniform ones (Box and Muller 1958). */
static void fill_normal(float *w, size_t count, float deviation, uint64_t *state)
{
    for (size_t i = 0; i < count; i += 2) {
        double u = ((double)(random_next(state) >> 11) + 1.0) * 0x1p-53, v = (double)(random_next(state) >> 11) * 0x1p-53;
        double radius = sqrt(-2.0 * log(u)), angle = 6.283185307179586 * v;
        w[i] = deviation * (float)(radius * cos(angle));
        if (i + 1 < count)
            w[i + 1] = deviation * (float)(radius * sin(angle));
    }
}

static bool is_output(const char *name) { return strstr(name, "attn_output") || strstr(name, "ffn_down"); }

void net_initialise(net *n, uint64_t seed)
{
    for (int i = 0; i < n->n_parameters; i++) {
        parameter *p = &n->parameters[i];
        uint64_t state = seed * 0x9E3779B97F4A7C15u + (uint64_t)i;
        float deviation = is_output(p->name) ? 0.02f / sqrtf(2.0f * (float)n->c.n_layer) : 0.02f;
        if (p->kind != PARAMETER_VECTOR)
            fill_normal(p->w, p->count, deviation, &state);
        else
            for (size_t j = 0; j < p->count; j++)
                p->w[j] = strstr(p->name, ".bias") ? 0.0f : 1.0f;
    }
    if (n->prices)
        memset(n->prices, 0, (size_t)n->c.n_layer * (size_t)n->c.n_experts * sizeof *n->prices);
    net_refresh(n);
}
