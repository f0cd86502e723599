/* The pruned file: tensors without what has left, byte for byte where whole rows, experts or layers go, and the numbers that say so. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/blocks.h"
#include "quantize/prune_internal.h"

#define ALIGNMENT 32 /* of tensors, as most files have it */

typedef enum cut {
    CUT_NOTHING,
    CUT_ALL,    /* the tensor goes */
    CUT_SLICES, /* slices of the outermost dimension go */
    CUT_CHANGED /* the piece of its name is the new data; the innermost dimension is shorter */
} cut;

/* Layer number and what is behind it; false: not of a layer. */
static bool split_name(str name, int *layer, char rest[96])
{
    char text[128];
    int behind = 0;
    snprintf(text, sizeof text, "%.*s", STR_ARG(name));
    if (sscanf(text, "blk.%d.%n", layer, &behind) != 1 || behind == 0)
        return false;
    snprintf(rest, 96, "%s", text + behind);
    return true;
}

static bool one_of(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return true;
    return false;
}

static const char *const neuron_rows[] = {"ffn_gate.weight", "ffn_up.weight", NULL};
static const char *const expert_slices[] = {"ffn_gate_inp.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight",
                                            "ffn_down_exps.weight", NULL};

static cut cut_of(const prune_plan *plan, const char *rest)
{
    if (plan->kind == PRUNE_NEURONS)
        return one_of(rest, neuron_rows) ? CUT_SLICES : strcmp(rest, "ffn_down.weight") == 0 ? CUT_CHANGED : CUT_NOTHING;
    return plan->kind == PRUNE_EXPERTS && one_of(rest, expert_slices) ? CUT_SLICES : CUT_NOTHING;
}

static bool is_gone(const prune_plan *plan, int layer)
{
    for (int i = 0; i < plan->n_removed; i++)
        if (plan->removed[i] == layer)
            return true;
    return false;
}

static int layers_before(const prune_plan *plan, int layer)
{
    int n = layer;
    for (int i = 0; i < plan->n_removed; i++)
        n -= plan->removed[i] < layer;
    return n;
}

/* A tensor as it will be. */
typedef struct cut_tensor {
    cut how;
    int layer;
    char name[128];
    dil_type type;
    uint64_t ne[GGUF_MAX_DIMS], size_bytes;
} cut_tensor;

static cut_tensor cut_tensor_of(const pruning *p, const gguf_tensor *t)
{
    const prune_plan *plan = &p->plan;
    const uint64_t left = (uint64_t)(plan->n_before - plan->n_removed);
    cut_tensor c = {.type = t->type, .size_bytes = t->size_bytes};
    char rest[96];
    memcpy(c.ne, t->ne, sizeof c.ne);
    snprintf(c.name, sizeof c.name, "%.*s", STR_ARG(t->name));
    if (!split_name(t->name, &c.layer, rest))
        return c;
    if (plan->kind == PRUNE_BLOCKS) {
        const int at = players_named(&p->p, t->name);
        if (at >= 0 && p->p.p[at].place < NET_PLACES) {
            c.how = CUT_CHANGED;
            c.type = prune_down_type(t->type);
            (void)format_row_bytes(c.type, t->ne[0], &c.size_bytes);
            c.size_bytes *= t->ne[1] * t->ne[2];
        }
        return c;
    }
    c.how = cut_of(plan, rest);
    if (plan->kind == PRUNE_LAYERS && is_gone(plan, c.layer)) {
        c.how = CUT_ALL;
        c.size_bytes = 0;
    } else if (plan->kind == PRUNE_LAYERS) {
        snprintf(c.name, sizeof c.name, "blk.%d.%s", layers_before(plan, c.layer), rest);
    } else if (c.how == CUT_SLICES) {
        c.ne[t->n_dims - 1] = left;
        c.size_bytes = t->size_bytes / (uint64_t)plan->n_before * left;
    } else if (c.how == CUT_CHANGED) {
        c.ne[0] = left;
        c.type = prune_down_type(t->type);
        (void)format_row_bytes(c.type, left, &c.size_bytes);
        c.size_bytes *= t->ne[1];
    }
    return c;
}

/* ---- checks ---- */

static dil_status refuse(const pruning *p, const gguf_tensor *t, dil_error *err)
{
    return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: tensor '%.*s': wanted one that pruning knows how to cut", gguf_path(p->in),
                    STR_ARG(t->name));
}

/* Nothing else may depend on the number of neurons or experts. */
static bool is_stranger(const prune_plan *plan, const char *rest)
{
    if (strstr(rest, "_norm.") || cut_of(plan, rest) != CUT_NOTHING)
        return false;
    return (plan->kind == PRUNE_NEURONS && strncmp(rest, "ffn_", 4) == 0) || (plan->kind == PRUNE_EXPERTS && strstr(rest, "exp")) ||
           (plan->kind == PRUNE_EXPERTS && strncmp(rest, "ffn_", 4) == 0);
}

dil_status prune_check(const pruning *p, dil_error *err)
{
    const prune_plan *plan = &p->plan;
    for (uint64_t i = 0; i < gguf_n_tensors(p->in) && plan->kind != PRUNE_BLOCKS; i++) {
        const gguf_tensor *t = gguf_tensor_at(p->in, i);
        int layer;
        char rest[96];
        if (!split_name(t->name, &layer, rest))
            continue;
        cut how = cut_of(plan, rest);
        const uint64_t n = how == CUT_SLICES ? t->ne[t->n_dims - 1] : how == CUT_CHANGED ? t->ne[0] : (uint64_t)plan->n_before;
        if (is_stranger(plan, rest) || n != (uint64_t)plan->n_before ||
            (plan->kind != PRUNE_LAYERS && how != CUT_NOTHING && layer >= plan->n_lists))
            return refuse(p, t, err);
    }
    return DIL_OK;
}

static uint64_t aligned(uint64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

uint64_t prune_size(const pruning *p)
{
    uint64_t before = 0, after = 0, size = gguf_size_bytes(p->in);
    for (uint64_t i = 0; i < gguf_n_tensors(p->in); i++) {
        const gguf_tensor *t = gguf_tensor_at(p->in, i);
        before += aligned(t->size_bytes);
        after += aligned(cut_tensor_of(p, t).size_bytes);
    }
    return size > before ? size - before + after : after;
}

uint64_t prune_stored(const pruning *p)
{
    double values = (double)p->plan.n_before * BLOCK_COLUMNS, bytes = 0;
    for (uint64_t i = 0; i < gguf_n_tensors(p->in); i++) {
        const cut_tensor c = cut_tensor_of(p, gguf_tensor_at(p->in, i));
        bytes += c.how == CUT_CHANGED ? (double)c.size_bytes : 0;
    }
    double gone = bytes * (double)p->plan.n_removed / (double)p->plan.n_before;
    return prune_size(p) - (uint64_t)gone + (uint64_t)(values / BLOCK_COLUMNS / 8);
}

/* ---- metadata ---- */

/* A value that says something of each layer. */
static bool is_per_layer(const pruning *p, const gguf_value *v)
{
    const str arch = walk_hparams(p->w)->architecture;
    return v->kind == GGUF_ARRAY && v->count == (uint64_t)p->plan.n_before && str_starts(v->key, arch) &&
           !str_ends(v->key, STR("rope.dimension_sections"));
}

#define MOST_ARRAYS 64

static dil_status write_arrays(const pruning *p, gguf_writer *w, const gguf_value *const *arrays, int n, dil_error *err)
{
    uint64_t at[MODEL_MAX_LAYERS], left = 0;
    for (int i = 0; i < p->plan.n_before; i++)
        if (!is_gone(&p->plan, i))
            at[left++] = (uint64_t)i;
    for (int i = 0; i < n; i++)
        DIL_TRY(gguf_writer_set_elements(w, arrays[i], at, left, err));
    return DIL_OK;
}

static dil_status write_values(const pruning *p, gguf_writer *w, dil_error *err)
{
    static const char *const keys[] = {
        [PRUNE_NEURONS] = "feed_forward_length", [PRUNE_EXPERTS] = "expert_count", [PRUNE_LAYERS] = "block_count"};
    char number[160], names[MOST_ARRAYS][160];
    const char *except[MOST_ARRAYS + 1] = {number};
    const gguf_value *arrays[MOST_ARRAYS];
    int n = 0;
    if (p->plan.kind == PRUNE_BLOCKS)
        return gguf_writer_copy_values(w, p->in, NULL, 0, err);
    snprintf(number, sizeof number, "%.*s.%s", STR_ARG(walk_hparams(p->w)->architecture), keys[p->plan.kind]);
    for (uint64_t i = 0; i < gguf_n_values(p->in) && p->plan.kind == PRUNE_LAYERS; i++) {
        const gguf_value *v = gguf_value_at(p->in, i);
        if (!is_per_layer(p, v))
            continue;
        if (n == MOST_ARRAYS || v->key.n >= sizeof names[0])
            return DIL_FAIL(err, DIL_LIMIT, "%s: key '%.*s': wanted at most %d lists by layer, with shorter names",
                            gguf_path(p->in), STR_ARG(v->key), MOST_ARRAYS);
        snprintf(names[n], sizeof names[n], "%.*s", STR_ARG(v->key));
        except[n + 1] = names[n];
        arrays[n++] = v;
    }
    DIL_TRY(gguf_writer_copy_values(w, p->in, except, n + 1, err));
    DIL_TRY(gguf_writer_set_u32(w, number, (uint32_t)(p->plan.n_before - p->plan.n_removed), err));
    return n ? write_arrays(p, w, arrays, n, err) : DIL_OK;
}

/* ---- tensors ---- */

static dil_status write_slices(const pruning *p, gguf_writer *w, const gguf_tensor *t, int layer, dil_error *err)
{
    const size_t n = (size_t)p->plan.n_before, slice = (size_t)t->size_bytes / n;
    bool *kept = mem_alloc(n * sizeof *kept, MEM_MISC);
    if (!kept)
        return DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for %zu flags", n);
    prune_kept(&p->plan, layer, kept);
    dil_status status = DIL_OK;
    for (size_t i = 0; status == DIL_OK && i < n; i++)
        if (kept[i])
            status = gguf_writer_data(w, (const uint8_t *)t->data + i * slice, slice, err);
    mem_free(kept);
    return status;
}

static dil_status write_changed(const pruning *p, gguf_writer *w, const cut_tensor *c, dil_error *err)
{
    uint8_t *bytes = mem_alloc((size_t)c->size_bytes, MEM_MISC);
    if (!bytes)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %llu bytes", c->name, (unsigned long long)c->size_bytes);
    dil_status status = work_load(p->work, c->name, bytes, (size_t)c->size_bytes)
                            ? gguf_writer_data(w, bytes, (size_t)c->size_bytes, err)
                            : DIL_FAIL(err, DIL_IO, "%s: it was written, but cannot be read back; is the disk full?", c->name);
    mem_free(bytes);
    return status;
}

static dil_status write_tensor(const pruning *p, gguf_writer *w, const gguf_tensor *t, dil_error *err)
{
    const cut_tensor c = cut_tensor_of(p, t);
    switch (c.how) {
    case CUT_ALL: return DIL_OK;
    case CUT_SLICES: return write_slices(p, w, t, c.layer, err);
    case CUT_CHANGED: return write_changed(p, w, &c, err);
    default: return gguf_writer_data(w, t->data, (size_t)t->size_bytes, err);
    }
}

static dil_status write_all(const pruning *p, gguf_writer *w, dil_error *err)
{
    const uint64_t n = gguf_n_tensors(p->in);
    DIL_TRY(write_values(p, w, err));
    for (uint64_t i = 0; i < n; i++) {
        const gguf_tensor *t = gguf_tensor_at(p->in, i);
        const cut_tensor c = cut_tensor_of(p, t);
        if (c.how != CUT_ALL)
            DIL_TRY(gguf_writer_add_tensor(w, str_of(c.name), c.type, t->n_dims, c.ne, err));
    }
    for (uint64_t i = 0; i < n; i++) {
        DIL_TRY(prune_tell(p, "writing", i, n, err));
        DIL_TRY(write_tensor(p, w, gguf_tensor_at(p->in, i), err));
    }
    return DIL_OK;
}

dil_status prune_write(const pruning *p, const char *path, dil_error *err)
{
    gguf_writer *w = NULL;
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = write_all(p, w, err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}
