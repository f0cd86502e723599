#include "quantize/round.h"

#include "quantize/respond.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

enum {
    TILE_ROWS = 64, /* rows that are rounded together: products of their errors with the curvature are matrix products */
    PART = 32,      /* columns that respond between two such products; more where a group is wider */
    CURIOUS = 3,    /* sweeps in which other scales are tried with the codes' answers */
    REFRESH = 8,    /* sweeps between two fresh computations of the gradients */
    SAMPLE = 16     /* one row of so many is checked for players that could still do better */
};

typedef struct rounding {
    const round_task *t;
    const grid *g;
    grid_borders borders;
    unit_curve *units; /* [columns / unit]; NULL: no code book */
    const format *f;
    int part, n_blocks; /* columns per part; blocks per row */
    size_t row_bytes;
    uint8_t *out;
    team *workers;
    struct tile *tiles; /* [workers] */
    round_report *sums; /* [number of tiles], added up in order */
} rounding;

/* What a worker holds of the rows at hand. */
typedef struct tile {
    int first, n;                   /* rows */
    float *x, *g;                   /* [TILE_ROWS][columns]: values; feedback's targets, then gradients (x - w) H */
    float *change;                  /* [TILE_ROWS][columns]: of x, in a part or everywhere */
    grid_block *block;              /* [TILE_ROWS][n_blocks] */
    group_curve *curve;             /* [TILE_ROWS][groups of a row] */
    group_curve *super_curve;       /* [TILE_ROWS][n_blocks] */
    int order[TILE_ROWS], n_active; /* rows as they stand in the arrays; the first n_active have not settled */
    bool moved[TILE_ROWS];
    uint8_t *bytes; /* of a block */
} tile;

static double row_weight(const rounding *r, const tile *t, int row)
{
    return r->t->row_weight ? (double)r->t->row_weight[t->first + t->order[row]] : 1.0;
}

/* ---- error feedback ---- */

/* The unit's best codes, its later values making up for the errors of the earlier ones. */
static void feed_unit(const rounding *r, grid_block *b, int at, int column, const float *target)
{
    const metric *m = r->t->m;
    size_t n = (size_t)r->t->columns;
    codebook_wish wish = {.target = target,
                          .weight = m->importance + column,
                          .share = m->feedback + (size_t)column * n + column,
                          .stride = n,
                          .scale = grid_scale(r->g, b, at / r->g->group),
                          .bound = INFINITY,
                          .shift = codebook_group_shifts(r->g->book) ? b->min[at / r->g->group] : CODEBOOK_SHIFT_EITHER};
    (void)codebook_nearest(r->g, &wish, b->code + at);
}

/* A part of one row: each value is rounded, and the later ones of the part make up for its error. Returns the cost of what remains. */
static double feed_part(const rounding *r, grid_block *b, int at, int column, float *target, float *error)
{
    const grid *g = r->g;
    size_t n = (size_t)r->t->columns;
    double cost = 0;
    for (int j = 0; j < r->part; j++) {
        int group = (at + j) / g->group;
        float scale = grid_scale(g, b, group), offset = grid_offset_of(g, b, group), v = target[j];
        if (g->book && j % g->book->unit == 0)
            feed_unit(r, b, at + j, column + j, target + j);
        if (!g->book)
            b->code[at + j] = (uint8_t)(scale != 0.0f ? grid_nearest(g, (v - offset) / scale) : 0);
        error[j] = v - (scale * (float)g->level[b->code[at + j]] + offset);
        cost += (double)r->t->m->importance[column + j] * (double)error[j] * (double)error[j];
        const float *share = r->t->m->feedback + (size_t)(column + j) * n + column;
        for (int k = j + 1; k < r->part; k++)
            target[k] -= error[j] * share[k];
    }
    return cost;
}

/* Adds change [n][part] times rows column .. of a prepared n x n operand to columns first .. of y. */
static void spread(const rounding *r, const tile *t, const uint32_t *operand, int column, int first, float *y)
{
    int n = r->t->columns;
    if (first >= n)
        return;
    product_run(r->t->m->kind, &(product_block){.a = (const uint32_t *)t->change,
                                                .a_pitch = (size_t)r->part,
                                                .n_rows = t->n_active,
                                                .b = operand + (size_t)first * (size_t)n + (size_t)column * PRODUCT_COLS,
                                                .n_sum = r->part,
                                                .pitch = n,
                                                .n_columns = n - first,
                                                .y = y + first,
                                                .y_stride = (size_t)n,
                                                .add = true});
}

static void encode_block(const rounding *r, const tile *t, int row, int block, const float *values)
{
    const grid *g = r->g;
    r->f->encode(values, t->bytes, (size_t)g->block, r->t->m->importance + (size_t)block * (size_t)g->block);
    g->read(t->bytes, &t->block[(size_t)row * (size_t)r->n_blocks + (size_t)block]);
}

/* Returns the cost: what remains of each column's error after those before it, times what that costs. */
static double feed(const rounding *r, tile *t)
{
    const grid *g = r->g;
    size_t n = (size_t)r->t->columns;
    double cost = 0;
    memcpy(t->g, r->t->w + (size_t)t->first * n, (size_t)t->n * n * sizeof(float));
    for (int block = 0; block < r->n_blocks; block++) {
        int from = block * g->block;
        for (int row = 0; row < t->n; row++)
            encode_block(r, t, row, block, t->g + (size_t)row * n + from);
        for (int at = 0; at < g->block; at += r->part) {
            for (int row = 0; row < t->n; row++)
                cost += row_weight(r, t, row) * feed_part(r, &t->block[(size_t)row * (size_t)r->n_blocks + (size_t)block], at,
                                                          from + at, t->g + (size_t)row * n + from + at,
                                                          t->change + (size_t)row * (size_t)r->part);
            spread(r, t, r->t->m->feed, from + at, from + at + r->part, t->g);
        }
    }
    return cost;
}

/* ---- the state ---- */

static void plain(const rounding *r, tile *t)
{
    for (int row = 0; row < t->n; row++)
        for (int block = 0; block < r->n_blocks; block++)
            encode_block(r, t, row, block, r->t->w + (size_t)(t->first + row) * (size_t)r->t->columns + block * r->g->block);
}

static double product_of(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* y = x H for n_rows rows. */
static void times_curvature(const rounding *r, const float *x, int n_rows, float *y)
{
    const size_t n = (size_t)r->t->columns;
    product_run(r->t->m->kind, &(product_block){.a = (const uint32_t *)x,
                                                .a_pitch = n,
                                                .n_rows = n_rows,
                                                .b = r->t->m->product,
                                                .n_sum = (int64_t)n,
                                                .pitch = (int64_t)n,
                                                .n_columns = (int64_t)n,
                                                .y = y,
                                                .y_stride = n});
}

/* Values of the active rows' blocks, gradients from them; both without the errors that gather in sums. */
static void refresh(const rounding *r, tile *t)
{
    const size_t n = (size_t)r->t->columns;
    for (int row = 0; row < t->n_active; row++) {
        const float *w = r->t->w + (size_t)(t->first + t->order[row]) * n;
        float *x = t->x + (size_t)row * n;
        for (int block = 0; block < r->n_blocks; block++)
            grid_values(r->g, &t->block[(size_t)row * (size_t)r->n_blocks + (size_t)block], x + block * r->g->block);
        for (size_t i = 0; i < n; i++)
            t->change[(size_t)row * n + i] = x[i] - w[i];
    }
    times_curvature(r, t->change, t->n_active, t->g);
}

/* The same; returns the cost. */
static double measure(const rounding *r, tile *t)
{
    const size_t n = (size_t)r->t->columns;
    double cost = 0;
    refresh(r, t);
    for (int row = 0; row < t->n; row++)
        cost += row_weight(r, t, row) * product_of(t->change + (size_t)row * n, t->g + (size_t)row * n, n);
    return cost;
}

/* sum w H w^T; t->g is lost. */
static double power(const rounding *r, tile *t)
{
    size_t n = (size_t)r->t->columns;
    const float *w = r->t->w + (size_t)t->first * n;
    double sum = 0;
    times_curvature(r, w, t->n, t->g);
    for (int row = 0; row < t->n; row++)
        sum += row_weight(r, t, row) * product_of(w + (size_t)row * n, t->g + (size_t)row * n, n);
    return sum;
}

/* ---- best responses ---- */

/* One part of one row: its groups in order; change = what became of x. */
static int64_t settle_part(const rounding *r, tile *t, int row, int column, bool curious)
{
    const grid *g = r->g;
    const size_t n = (size_t)r->t->columns;
    float *x = t->x + (size_t)row * n + column, *change = t->change + (size_t)row * (size_t)r->part, grad[RESPOND_MOST_GROUP];
    group_player p = {.g = g, .borders = &r->borders, .stride = n};
    int64_t moved = 0;
    p.b = &t->block[(size_t)row * (size_t)r->n_blocks + (size_t)(column / g->block)];
    memcpy(grad, t->g + (size_t)row * n + column, (size_t)r->part * sizeof *grad);
    memcpy(change, x, (size_t)r->part * sizeof *change);
    for (int at = 0; at < r->part; at += g->group) {
        p.group = (column + at) % g->block / g->group;
        p.h = r->t->m->h + (size_t)(column + at) * n + (size_t)(column + at);
        p.inverse_own = r->t->m->inverse_own + column + at;
        p.units = r->units ? r->units + (column + at) / g->book->unit : NULL;
        p.x = x + at;
        p.grad = grad + at;
        p.curve = &t->curve[((size_t)row * n + (size_t)(column + at)) / (size_t)g->group];
        int64_t here = group_respond(&p, curious);
        moved += here;
        for (int j = at; here && j < at + g->group; j++) { /* what the next groups of the part see */
            float d = x[j] - change[j];
            const float *h = r->t->m->h + (size_t)(column + j) * n + column;
            for (int k = at + g->group; k < r->part && d != 0.0f; k++)
                grad[k] += d * h[k];
        }
    }
    for (int j = 0; j < r->part; j++)
        change[j] = x[j] - change[j];
    if (moved)
        t->super_curve[p.b - t->block].known = false;
    return moved;
}

/* ---- a tile ---- */

static int64_t sweep(const rounding *r, tile *t, bool curious)
{
    int64_t moved = 0;
    memset(t->moved, 0, sizeof t->moved);
    for (int column = 0; column < r->t->columns; column += r->part) {
        int64_t before = moved;
        for (int row = 0; row < t->n_active; row++) {
            int64_t here = settle_part(r, t, row, column, curious);
            moved += here;
            t->moved[row] = t->moved[row] || here;
        }
        if (moved > before)
            spread(r, t, r->t->m->product, column, 0, t->g);
    }
    return moved;
}

static void swap_floats(float *a, float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = a[i];
        a[i] = b[i];
        b[i] = v;
    }
}

static void swap_curves(group_curve *a, group_curve *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        group_curve v = a[i];
        a[i] = b[i];
        b[i] = v;
    }
}

static void swap_rows(const rounding *r, tile *t, int a, int b)
{
    const size_t n = (size_t)r->t->columns, blocks = (size_t)r->n_blocks, groups = n / (size_t)r->g->group;
    int row = t->order[a];
    t->order[a] = t->order[b];
    t->order[b] = row;
    t->moved[a] = t->moved[b];
    swap_floats(t->x + (size_t)a * n, t->x + (size_t)b * n, n);
    swap_floats(t->g + (size_t)a * n, t->g + (size_t)b * n, n);
    for (size_t i = 0; i < blocks; i++) {
        grid_block v = t->block[(size_t)a * blocks + i];
        t->block[(size_t)a * blocks + i] = t->block[(size_t)b * blocks + i];
        t->block[(size_t)b * blocks + i] = v;
    }
    swap_curves(t->super_curve + (size_t)a * blocks, t->super_curve + (size_t)b * blocks, blocks);
    swap_curves(t->curve + (size_t)a * groups, t->curve + (size_t)b * groups, groups);
}

/* Rows in which nobody moved are at an equilibrium: they go behind the others and are left alone. */
static void retire(const rounding *r, tile *t)
{
    for (int row = 0; row < t->n_active;)
        if (t->moved[row])
            row++;
        else
            swap_rows(r, t, row, --t->n_active);
}

/* The numbers of a row's super-blocks answer in order; gradients follow. Whether any moved. */
static bool settle_supers_of_row(const rounding *r, tile *t, int row)
{
    const size_t n = (size_t)r->t->columns, width = (size_t)r->g->block;
    float *x = t->x + (size_t)row * n, *grad = t->g + (size_t)row * n, before[GRID_MAX_BLOCK];
    bool any = false;
    for (size_t block = 0; block < (size_t)r->n_blocks; block++) {
        const size_t from = block * width, at = (size_t)row * (size_t)r->n_blocks + block;
        const float *h = r->t->m->h + from * n;
        memcpy(before, x + from, width * sizeof *before);
        if (!super_respond(r->g, &t->block[at], h + from, n, x + from, grad + from, &t->super_curve[at]))
            continue;
        any = true;
        for (size_t i = 0; i < width; i++) {
            const float d = x[from + i] - before[i];
            for (size_t k = 0; k < n; k++)
                grad[k] += d * h[i * n + k];
        }
    }
    return any;
}

static void settle_supers(const rounding *r, tile *t)
{
    for (int row = 0; row < t->n_active; row++)
        if (settle_supers_of_row(r, t, row))
            t->moved[row] = true;
}

/* Behind measure(). */
static void check_row(const rounding *r, const tile *t, int row, stability *sum)
{
    const size_t n = (size_t)r->t->columns;
    const float *grad = t->g + (size_t)row * n;
    stability_add(&(stability_row){.g = r->g,
                                   .blocks = &t->block[(size_t)row * (size_t)r->n_blocks],
                                   .m = r->t->m,
                                   .units = r->units,
                                   .grad = grad,
                                   .cost = product_of(t->change + (size_t)row * n, grad, n)},
                  sum);
}

static void settle(const rounding *r, tile *t, round_report *report)
{
    const bool supers = r->g->scale_lo != r->g->scale_hi && r->g->number != GRID_ONE;
    const size_t n = (size_t)r->t->columns;
    memset(t->curve, 0, (size_t)t->n * n / (size_t)r->g->group * sizeof *t->curve);
    memset(t->super_curve, 0, (size_t)t->n * (size_t)r->n_blocks * sizeof *t->super_curve);
    t->n_active = t->n;
    refresh(r, t);
    for (int i = 0; i < r->t->most_sweeps && t->n_active; i++) {
        report->moved = sweep(r, t, i < CURIOUS);
        report->n_sweeps++;
        if (supers) {
            refresh(r, t);
            settle_supers(r, t);
        }
        if (i >= CURIOUS)
            retire(r, t);
        if (!supers && i % REFRESH == REFRESH - 1)
            refresh(r, t);
    }
    t->n_active = t->n;
    report->cost = measure(r, t);
    for (int row = 0; r->out && row < t->n; row++)
        if ((t->first + t->order[row]) % SAMPLE == 0)
            check_row(r, t, row, &report->checked);
}

static void round_tile(const rounding *r, tile *t, round_report *report)
{
    *report = (round_report){.n_codes = (int64_t)t->n * r->t->columns};
    for (int row = 0; row < t->n; row++)
        t->order[row] = row;
    t->n_active = t->n;
    if (r->out)
        report->power = power(r, t);
    if (r->out || r->t->no_feedback) {
        plain(r, t);
        report->fed = report->plain = measure(r, t);
    }
    if (!r->t->no_feedback)
        report->fed = feed(r, t);
    report->cost = report->fed;
    if (r->t->most_sweeps)
        settle(r, t, report);
    for (int row = 0; r->out && row < t->n; row++)
        for (int block = 0; block < r->n_blocks; block++)
            r->g->write(&t->block[(size_t)row * (size_t)r->n_blocks + (size_t)block],
                        r->out + (size_t)(t->first + t->order[row]) * r->row_bytes + (size_t)block * r->f->block_bytes);
}

static int n_tiles(const rounding *r) { return (r->t->rows + TILE_ROWS - 1) / TILE_ROWS; }

static void round_tiles(void *ctx, int worker)
{
    rounding *r = ctx;
    tile *t = &r->tiles[worker];
    for (int i = (int)team_claim(r->workers); i < n_tiles(r); i = (int)team_claim(r->workers)) {
        t->first = i * TILE_ROWS;
        t->n = r->t->rows - t->first < TILE_ROWS ? r->t->rows - t->first : TILE_ROWS;
        round_tile(r, t, &r->sums[i]);
    }
}

static size_t carve_tile(const rounding *r, tile *t, void *base)
{
    size_t used = 0, values = (size_t)TILE_ROWS * (size_t)r->t->columns * sizeof(float);
    t->x = mem_carve(base, &used, values);
    t->g = mem_carve(base, &used, values);
    t->change = mem_carve(base, &used, values);
    t->block = mem_carve(base, &used, (size_t)TILE_ROWS * (size_t)r->n_blocks * sizeof(grid_block));
    t->curve = mem_carve(base, &used, (size_t)TILE_ROWS * (size_t)(r->t->columns / r->g->group) * sizeof(group_curve));
    t->super_curve = mem_carve(base, &used, (size_t)TILE_ROWS * (size_t)r->n_blocks * sizeof(group_curve));
    t->bytes = mem_carve(base, &used, r->f->block_bytes);
    return used;
}

void round_report_add(round_report *sum, const round_report *r)
{
    sum->plain += r->plain;
    sum->fed += r->fed;
    sum->cost += r->cost;
    sum->power += r->power;
    sum->n_codes += r->n_codes;
    sum->moved += r->moved;
    sum->n_sweeps = r->n_sweeps > sum->n_sweeps ? r->n_sweeps : sum->n_sweeps;
    stability_sum(&sum->checked, &r->checked);
}

static void add_reports(const rounding *r, round_report *out)
{
    *out = (round_report){0};
    for (int i = 0; i < n_tiles(r); i++)
        round_report_add(out, &r->sums[i]);
}

static void find_units(const rounding *r)
{
    const size_t n = (size_t)r->t->columns;
    int unit = r->g->book->unit;
    for (size_t i = 0; i < n; i += (size_t)unit)
        unit_curve_of(r->t->m->h + i * n + i, n, unit, &r->units[i / (size_t)unit]);
}

dil_status round_matrix(const round_task *t, team *workers, uint8_t *out, round_report *report, dil_error *err)
{
    rounding r = {.t = t, .g = grid_get(t->type), .f = format_get(t->type), .out = out, .workers = workers};
    uint64_t row_bytes;
    if (!r.g || t->columns != t->m->n || t->columns % PART || !format_row_bytes(t->type, (uint64_t)t->columns, &row_bytes))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "rounding: rows of %d values cannot be rounded to type %s", t->columns,
                        r.f ? r.f->name : "?");
    r.row_bytes = (size_t)row_bytes;
    grid_borders_of(r.g, &r.borders);
    r.n_blocks = t->columns / r.g->block;
    r.part = r.g->group > PART ? r.g->group : PART;
    tile probe;
    size_t n_workers = (size_t)team_size(workers), bytes = carve_tile(&r, &probe, NULL);
    uint8_t *base = mem_alloc(n_workers * bytes, MEM_MISC);
    r.tiles = mem_alloc(n_workers * sizeof *r.tiles, MEM_MISC);
    r.sums = mem_alloc((size_t)n_tiles(&r) * sizeof *r.sums, MEM_MISC);
    dil_status status = DIL_OK;
    if (r.g->book)
        r.units = mem_alloc((size_t)(t->columns / r.g->book->unit) * sizeof *r.units, MEM_MISC);
    if (base && r.tiles && r.sums && (r.units || !r.g->book)) {
        if (r.units)
            find_units(&r);
        for (size_t i = 0; i < n_workers; i++)
            carve_tile(&r, &r.tiles[i], base + i * bytes);
        team_run(workers, round_tiles, &r);
        add_reports(&r, report);
    } else {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "rounding: no memory for %zu bytes of work space", n_workers * bytes);
    }
    mem_free(base);
    mem_free(r.units);
    mem_free(r.tiles);
    mem_free(r.sums);
    return status;
}
