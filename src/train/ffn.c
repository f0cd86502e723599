/* Gated feed-forward networks, alone or as experts. */
#include "train/layers.h"

/* A matrix of w by number. */
static const uint32_t *forward_of(const weight *w, int g) { return w->forward + (size_t)g * weight_forward_words(w); }
static const uint32_t *backward_of(const weight *w, int g) { return w->backward + (size_t)g * weight_backward_words(w); }

typedef struct ffn_run {
    const crew *c;
    const ffn *f;
    const ffn_slots *s;
    const float *x, *dy;
    float *y, *activated, *dx, *dscale;
    int blocks_per_group; /* of outer products */
} ffn_run;

/* A block of slots of one group. */
typedef struct slots {
    int group, n;
    int64_t first;
} slots;

/* Items are blocks of BLOCK_TOKENS slots, group after group. */
static int64_t count_blocks(const ffn *f, const ffn_slots *s)
{
    int64_t n = 0;
    for (int g = 0; g < f->n_groups; g++)
        n += crew_blocks(s->first[g + 1] - s->first[g]);
    return n;
}

static slots find_block(const ffn_run *r, int64_t item)
{
    int g = 0;
    int64_t here;
    for (; item >= (here = crew_blocks(r->s->first[g + 1] - r->s->first[g])); g++)
        item -= here;
    int64_t first = r->s->first[g] + item * BLOCK_TOKENS, left = r->s->first[g + 1] - first;
    return (slots){g, left < BLOCK_TOKENS ? (int)left : BLOCK_TOKENS, first};
}

static rows tokens_of(const ffn_run *r, const float *x, int n, int64_t first)
{
    return rows_from((rows){x, (size_t)n, r->s->token}, first);
}

size_t ffn_scratch_words(const ffn *f)
{
    size_t widest = (size_t)(f->gate.n_in > f->gate.n_out ? f->gate.n_in : f->gate.n_out);
    return BLOCK_TOKENS * (widest + (size_t)f->gate.n_out);
}

/* y (+)= rows times a matrix of `from` values to `to`. */
static void times(product_kind k, const uint32_t *a, int n, const uint32_t *matrix, int from, int to, float *y, bool add)
{
    product_run(k, &(product_block){a, (size_t)product_steps(k, from), n, matrix, from, from, to, y, (size_t)to, add});
}

/* What a worker has in front of it: a block of slots, room for packed rows, and for n_ff values per slot. */
typedef struct place {
    slots b;
    uint32_t *packed;
    float *wide, *gate, *up;
} place;

static place place_of(const ffn_run *r, int64_t item, int worker)
{
    slots b = find_block(r, item);
    int n_embd = r->f->gate.n_in, n_ff = r->f->gate.n_out;
    uint32_t *packed = crew_scratch(r->c, worker);
    float *wide = (float *)(void *)(packed + (size_t)BLOCK_TOKENS * (size_t)(n_embd > n_ff ? n_embd : n_ff));
    return (place){b, packed, wide, r->s->gate + b.first * n_ff, r->s->up + b.first * n_ff};
}

static void forward_slots(void *ctx, int64_t item, int worker)
{
    const ffn_run *r = ctx;
    const ffn *f = r->f;
    const product_kind kind = f->gate.kind;
    place at = place_of(r, item, worker);
    slots b = at.b;
    int n_embd = f->gate.n_in, n_ff = f->gate.n_out;
    pack_rows(kind, tokens_of(r, r->x, n_embd, b.first), b.n, n_embd, at.packed);
    times(kind, at.packed, b.n, forward_of(&f->gate, b.group), n_embd, n_ff, at.gate, false);
    times(kind, at.packed, b.n, forward_of(&f->up, b.group), n_embd, n_ff, at.up, false);
    (f->activation == NET_SWIGLU ? kind.k->silu_mul : kind.k->gelu_mul)(at.gate, at.up, at.wide, (int64_t)b.n * n_ff);
    pack_rows(kind, (rows){at.wide, (size_t)n_ff, NULL}, b.n, n_ff, at.packed);
    times(kind, at.packed, b.n, forward_of(&f->down, b.group), n_ff, n_embd, r->y + b.first * n_embd, false);
}

void ffn_forward(const crew *c, const ffn *f, const ffn_slots *s, const float *x, float *y)
{
    crew_items(c, count_blocks(f, s), forward_slots, &(ffn_run){.c = c, .f = f, .s = s, .x = x, .y = y});
}

/* From the gradient of act(gate) * up, d [n_ff] of one slot: those of gate and up in their place, and the slot's activated
 * values, weighted as its token weights it. */
static void backward_slot(const ffn_run *r, int64_t slot, float *gate, float *up, const float *d)
{
    const ffn *f = r->f;
    const kernels *k = f->gate.kind.k;
    int n_ff = f->gate.n_out;
    float scale = r->s->scale ? r->s->scale[slot] : 1.0f, *activated = r->activated + slot * n_ff;
    (f->activation == NET_SWIGLU ? k->training.silu_mul_back : k->training.gelu_mul_back)(gate, up, d, scale, activated, gate, up,
                                                                                          n_ff);
    if (!r->s->scale)
        return;
    r->dscale[slot] = k->training.dot(activated, d, n_ff);
    k->scale(activated, scale, n_ff);
}

static void backward_slots(void *ctx, int64_t item, int worker)
{
    const ffn_run *r = ctx;
    const ffn *f = r->f;
    const product_kind kind = f->gate.kind;
    place at = place_of(r, item, worker);
    slots b = at.b;
    int n_embd = f->gate.n_in, n_ff = f->gate.n_out;
    float *dx = r->dx + b.first * n_embd;
    pack_rows(kind, tokens_of(r, r->dy, n_embd, b.first), b.n, n_embd, at.packed);
    times(kind, at.packed, b.n, backward_of(&f->down, b.group), n_embd, n_ff, at.wide, false);
    for (int64_t i = 0; i < b.n; i++)
        backward_slot(r, b.first + i, at.gate + i * n_ff, at.up + i * n_ff, at.wide + i * n_ff);
    pack_rows(kind, (rows){at.gate, (size_t)n_ff, NULL}, b.n, n_ff, at.packed);
    times(kind, at.packed, b.n, backward_of(&f->gate, b.group), n_ff, n_embd, dx, false);
    pack_rows(kind, (rows){at.up, (size_t)n_ff, NULL}, b.n, n_ff, at.packed);
    times(kind, at.packed, b.n, backward_of(&f->up, b.group), n_ff, n_embd, dx, true);
}

/* Rows first .. of the gradient of matrix `which` (gate, up, down) of a group. */
static void backward_matrix(void *ctx, int64_t item, int worker)
{
    const ffn_run *r = ctx;
    const ffn *f = r->f;
    int n_embd = f->gate.n_in, n_ff = f->gate.n_out, block = (int)(item % r->blocks_per_group),
        group = (int)(item / r->blocks_per_group);
    int of_ff = (n_ff + OUTER_ROWS - 1) / OUTER_ROWS, which = block / of_ff > 2 ? 2 : block / of_ff;
    int64_t slot = r->s->first[group], first = (int64_t)(block - which * of_ff) * OUTER_ROWS;
    const weight *w = which == 0 ? &f->gate : which == 1 ? &f->up : &f->down;
    outer_block b = {.first = first, .n_tokens = r->s->first[group + 1] - slot, .n_columns = w->n_in, .c_stride = (size_t)w->n_in};
    b.y =
        which == 2 ? tokens_of(r, r->dy, n_embd, slot) : (rows){(which ? r->s->up : r->s->gate) + slot * n_ff, (size_t)n_ff, NULL};
    b.x = which == 2 ? (rows){r->activated + slot * n_ff, (size_t)n_ff, NULL} : tokens_of(r, r->x, n_embd, slot);
    b.n_rows = w->n_out - first < OUTER_ROWS ? (int)(w->n_out - first) : OUTER_ROWS;
    b.c = w->g + ((size_t)group * (size_t)w->n_out + (size_t)first) * (size_t)w->n_in;
    outer_run(w->kind, &b, crew_scratch(r->c, worker));
}

void ffn_backward(const crew *c, const ffn *f, const ffn_slots *s, const float *x, const float *dy, float *activated, float *dx,
                  float *dscale)
{
    ffn_run r = {.c = c, .f = f, .s = s, .x = x, .dy = dy, .activated = activated, .dx = dx, .dscale = dscale};
    crew_items(c, count_blocks(f, s), backward_slots, &r);
    if (!f->gate.g)
        return;
    r.blocks_per_group = 2 * ((f->gate.n_out + OUTER_ROWS - 1) / OUTER_ROWS) + (f->gate.n_in + OUTER_ROWS - 1) / OUTER_ROWS;
    crew_items(c, (int64_t)f->n_groups * r.blocks_per_group, backward_matrix, &r);
}
