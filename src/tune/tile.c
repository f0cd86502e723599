#include "tune/tile.h"

#include "base/checked.h"
#include "tune/kernel_trace.h"

#define LINE 64
#define GRANULE 4096 /* tells the same as lines within some per cent, in a fortieth of the time */
#define MOST_PIECES ((size_t)1 << 24)
#define FIRST_PLACE ((uint64_t)1 << 20)

/* The operands of two tiles side by side, at addresses that are not memory. */
typedef struct operands {
    uint64_t next;
    act x;
    linear_args a; /* of the first tile */
} operands;

/* An array that nothing else shares a granule with. */
static void *place(operands *o, size_t row_bytes, size_t n_rows)
{
    const uint64_t at = o->next;
    o->next += round_up_size(row_bytes * n_rows, GRANULE);
    return (void *)(uintptr_t)at;
}

static void place_activations(operands *o, int64_t columns, size_t n)
{
    const size_t width = round_up_size((size_t)columns, 64), blocks = width / ACT_BLOCK;
    act *x = &o->x;
    *x = (act){.f_stride = width, .q_stride = width, .b_stride = blocks, .bf16_stride = width + 32};
    x->f = place(o, width * sizeof *x->f, n);
    x->q = place(o, width, n);
    x->d = place(o, blocks * sizeof *x->d, n);
    x->s = place(o, blocks * sizeof *x->s, n);
    x->isum = place(o, blocks * sizeof *x->isum, n);
    x->s16 = place(o, 2 * blocks * sizeof *x->s16, n);
    x->isum16 = place(o, 2 * blocks * sizeof *x->isum16, n);
    x->bf16 = place(o, x->bf16_stride * sizeof *x->bf16, n);
}

static void place_operands(operands *o, const tile_shape *shape, size_t bytes_per_panel)
{
    const size_t n_panels = (size_t)shape->n_panels, n = (size_t)shape->n_tokens;
    o->next = FIRST_PLACE;
    place_activations(o, shape->columns, n);
    o->a = (linear_args){.panel_bytes = bytes_per_panel,
                         .n_panels = shape->n_panels,
                         .k = shape->columns,
                         .x = &o->x,
                         .n_tokens = shape->n_tokens,
                         .y_stride = 2 * n_panels * PANEL_ROWS};
    o->a.panels = place(o, bytes_per_panel, 2 * n_panels);
    o->a.scratch = place(o, linear_scratch_bytes(shape->columns), 1);
    o->a.y = place(o, o->a.y_stride * sizeof *o->a.y, n);
}

/* A level that is not there misses what the one above it does. */
static tile_bytes bytes_from(const cache_model *c, const cache_level levels[3], double n_macs)
{
    double missed[3], above = (double)cache_model_touched(c);
    for (int i = 0; i < 3; i++) {
        const double here = levels[i].size_bytes ? cache_model_misses(c, levels[i]) : above;
        missed[i] = above = here < above ? here : above;
    }
    const double bytes = LINE / n_macs;
    return (tile_bytes){bytes * (missed[0] - missed[1]), bytes * (missed[1] - missed[2]), bytes * missed[2]};
}

dil_status tile_measure(tile_bytes *out, const kernels *k, const tile_shape *shape, const cache_level levels[3], dil_error *err)
{
    const size_t bytes_per_panel = panel_bytes(shape->type, shape->columns);
    if (bytes_per_panel == 0 || shape->n_panels <= 0 || shape->n_tokens <= 0)
        return DIL_FAIL(
            err, DIL_BAD_ARGUMENT,
            "tile of type %d: %d panels of %lld columns by %d tokens; wanted at least one of each, and columns that fill blocks",
            (int)shape->type, shape->n_panels, (long long)shape->columns, shape->n_tokens);
    operands o;
    cache_model *c;
    place_operands(&o, shape, bytes_per_panel);
    DIL_TRY(cache_model_new(&c, LINE, GRANULE, MOST_PIECES, err));
    kernel_trace_linear(c, k, shape->type, &o.a);
    cache_model_restart(c);
    o.a.panels += (size_t)shape->n_panels * bytes_per_panel;
    o.a.y += shape->n_panels * PANEL_ROWS;
    kernel_trace_linear(c, k, shape->type, &o.a);
    const dil_status status = cache_model_check(c, err);
    if (status == DIL_OK)
        *out = bytes_from(c, levels, (double)shape->columns * PANEL_ROWS * shape->n_panels * shape->n_tokens);
    cache_model_free(c);
    return status;
}
