#include "quantize/matrices.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "engine/engine.h"
#include "model/arch.h"
#include "quantize/blocks.h"
#include "quantize/convert.h"
#include "quantize/lone.h"
#include "quantize/work.h"

#define SAMPLE_EXPERTS 4    /* of a matrix that tell what a format costs, */
#define SAMPLE_ROWS 64      /* and rows of each */
#define SPHERE_COLUMNS 1024 /* columns that are rounded together where nothing is known of what they read */
#define HELD_INPUTS 1024    /* drawn to measure on */
#define HELD_SHARE 8        /* of given ones every eighth is kept for that, of at least HELD_LEAST */
#define HELD_LEAST 64
#define INPUTS_PER_COLUMN 8             /* drawn ones that each expert meets: a curvature of so many columns is known then */
#define DRAWN_VALUES ((int64_t)1 << 26) /* at most */

typedef struct shrink {
    const matrices_options *o;
    gguf *in;
    players p;
    team *workers;
    kernels k;
    lone *lone;     /* NULL: nothing is known of the network */
    metric *sphere; /* of sphere_columns */
    int sphere_columns;
    float *w;        /* the largest matrix */
    uint8_t **bytes; /* [p.n]: what was made of a matrix, all its experts */
    matrices_report *r;
    uint64_t done, total; /* weights */
} shrink;

static dil_status tell(shrink *s, const char *what, uint64_t more, dil_error *err)
{
    s->done += more;
    if (s->o->progress && !s->o->progress(s->o->user, what, s->done, s->total))
        return DIL_FAIL(err, DIL_CANCELLED, "quantize: cancelled");
    return DIL_OK;
}

static size_t values_of(const player *q) { return (size_t)q->rows * (size_t)q->columns; }

/* ---- what a matrix is, and what it reads ---- */

/* Columns that answer for each other. */
static int part_columns(const shrink *s, const player *q)
{
    const int unit = q->columns % 256 == 0 ? 256 : q->columns % BLOCK_COLUMNS == 0 ? BLOCK_COLUMNS : 1; /* of formats that fit */
    int part = unit;
    if (s->lone)
        return q->columns;
    for (int wider = unit; wider <= SPHERE_COLUMNS && wider <= q->columns; wider += unit)
        part = q->columns % wider == 0 ? wider : part;
    return part;
}

static dil_status sphere_of(shrink *s, int columns, dil_error *err)
{
    const size_t n = (size_t)columns;
    if (s->sphere && s->sphere_columns == columns)
        return DIL_OK;
    metric_free(s->sphere);
    s->sphere = NULL;
    float *h = mem_calloc(n * n, sizeof *h, MEM_MISC);
    if (!h)
        return DIL_FAIL(err, DIL_NO_MEMORY, "quantize: no memory for %d columns", columns);
    for (size_t i = 0; i < n; i++)
        h[i * n + i] = 1.0f;
    dil_status status = metric_new(&s->sphere, h, columns, 0.0f, &s->k, s->workers, err);
    mem_free(h);
    s->sphere_columns = columns;
    return status;
}

static dil_status learnt_metric(shrink *s, const player *q, int expert, metric **out, dil_error *err)
{
    float *h = mem_alloc((size_t)q->columns * (size_t)q->columns * sizeof *h, MEM_MISC);
    if (!h)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%.*s: no memory for what it reads", STR_ARG(q->tensor->name));
    dil_status status = lone_matrix(s->lone, (net_place)q->place, expert, s->w, h, err);
    if (status == DIL_OK)
        status = metric_new(out, h, q->columns, METRIC_DAMPING, &s->k, s->workers, err);
    mem_free(h);
    return status;
}

/* One matrix of q goes to s->w; *out: of part_columns. [*out borrowed until the next call] */
static dil_status load(shrink *s, const player *q, int expert, const metric **out, dil_error *err)
{
    if (s->lone) {
        metric_free(s->sphere);
        s->sphere = NULL;
        DIL_TRY(learnt_metric(s, q, expert, &s->sphere, err));
        *out = s->sphere;
        return DIL_OK;
    }
    const gguf_tensor *t = q->tensor;
    const uint64_t bytes = t->size_bytes / (uint64_t)q->n;
    format_get(t->type)->decode((const uint8_t *)t->data + (uint64_t)expert * bytes, s->w, values_of(q));
    for (size_t i = 0; i < values_of(q); i++)
        if (!isfinite(s->w[i]))
            return DIL_FAIL(err, DIL_FORMAT, "%.*s: value %zu: wanted a finite number, found %g", STR_ARG(t->name), i,
                            (double)s->w[i]);
    DIL_TRY(sphere_of(s, part_columns(s, q), err));
    *out = s->sphere;
    return DIL_OK;
}

/* ---- rounding ---- */

/* sum of e H e^T over rows of n columns. */
static double power_of(const float *h, int n, const float *e, int n_rows, size_t stride)
{
    double sum = 0;
    for (int i = 0; i < n_rows; i++, e += stride)
        for (int a = 0; a < n; a++) {
            double dot = 0;
            for (int b = 0; b < n; b++)
                dot += (double)h[(size_t)a * (size_t)n + (size_t)b] * (double)e[b];
            sum += dot * (double)e[a];
        }
    return sum;
}

/* Rows without a grid take what the format's own encoder makes of them; what that costs is told from some of them. */
static dil_status round_plain(const round_task *t, uint8_t *out, round_report *r, dil_error *err)
{
    const size_t n = (size_t)t->rows * (size_t)t->columns;
    uint64_t row_bytes = 0;
    (void)format_row_bytes(t->type, (uint64_t)t->columns, &row_bytes);
    uint8_t *own = out ? out : mem_alloc((size_t)row_bytes * (size_t)t->rows, MEM_MISC);
    float *error = mem_alloc(n * sizeof *error, MEM_MISC);
    dil_status status = own && error ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "rounding: no memory for %d rows", t->rows);
    if (status == DIL_OK) {
        format_get(t->type)->encode(t->w, own, n, NULL);
        format_get(t->type)->decode(own, error, n);
        for (size_t i = 0; i < n; i++)
            error[i] -= t->w[i];
        const int some = t->rows < SAMPLE_ROWS ? t->rows : SAMPLE_ROWS;
        const size_t stride = (size_t)(t->rows / some) * (size_t)t->columns;
        r->plain = r->fed = r->cost = power_of(t->m->h, t->columns, error, some, stride);
        r->power = power_of(t->m->h, t->columns, t->w, some, stride);
    }
    if (own != out)
        mem_free(own);
    mem_free(error);
    return status;
}

/* Rows of s->w that begin at `from`, in parts of the columns; out may be NULL. */
static dil_status round_part(shrink *s, const player *q, dil_type type, const metric *m, int from, int n_rows, int sweeps,
                             uint8_t *out, round_report *sum, dil_error *err)
{
    const size_t part = (size_t)m->n, columns = (size_t)q->columns;
    uint64_t row_bytes = 0, part_bytes = 0;
    (void)format_row_bytes(type, columns, &row_bytes);
    (void)format_row_bytes(type, part, &part_bytes);
    float *w = mem_alloc((size_t)n_rows * part * sizeof *w, MEM_MISC);
    uint8_t *bytes = mem_alloc((size_t)n_rows * (size_t)part_bytes + 1, MEM_MISC);
    dil_status status = w && bytes ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "rounding: no memory for %d rows", n_rows);
    for (size_t at = 0; status == DIL_OK && at < columns; at += part) {
        round_report r = {0};
        for (size_t i = 0; i < (size_t)n_rows; i++)
            memcpy(w + i * part, s->w + ((size_t)from + i) * columns + at, part * sizeof *w);
        const round_task t = {.type = type, .rows = n_rows, .columns = (int)part, .w = w, .m = m, .most_sweeps = sweeps};
        status = grid_get(type) ? round_matrix(&t, s->workers, bytes, &r, err) : round_plain(&t, bytes, &r, err);
        round_report_add(sum, &r);
        for (size_t i = 0; status == DIL_OK && out && i < (size_t)n_rows; i++)
            memcpy(out + i * (size_t)row_bytes + at / part * (size_t)part_bytes, bytes + i * (size_t)part_bytes,
                   (size_t)part_bytes);
    }
    mem_free(w);
    mem_free(bytes);
    return status;
}

/* Relative errors of every format go to the choices' costs. */
static dil_status find_costs(shrink *s, player *q, dil_error *err)
{
    const int n_experts = q->n < SAMPLE_EXPERTS ? q->n : SAMPLE_EXPERTS, n_rows = q->rows < SAMPLE_ROWS ? q->rows : SAMPLE_ROWS;
    round_report sum[PLAYERS_MOST_CHOICES] = {{0}};
    for (int e = 0; e < n_experts; e++) {
        const metric *m;
        DIL_TRY(load(s, q, (int)((int64_t)e * q->n / n_experts), &m, err));
        for (int c = 0; c < q->n_choices; c++)
            DIL_TRY(round_part(s, q, q->choice[c].type, m, (q->rows - n_rows) / 2, n_rows, 0, NULL, &sum[c], err));
    }
    for (int c = 0; c < q->n_choices; c++)
        q->choice[c].cost = sum[c].power > 0 ? sum[c].cost / sum[c].power : 0;
    return tell(s, "looking", (uint64_t)q->n * values_of(q), err);
}

/* Blocks of a plain matrix, those of least power; those left do not change. */
static dil_status clear_blocks(shrink *s, const player *q, const metric *m, dil_error *err)
{
    const size_t part = (size_t)m->n, columns = (size_t)q->columns;
    const int64_t n = (int64_t)q->rows * (m->n / BLOCK_COLUMNS);
    if (s->lone || s->o->prune <= 0 || m->n % BLOCK_COLUMNS)
        return DIL_OK;
    float *w = mem_alloc((size_t)q->rows * part * sizeof *w, MEM_MISC);
    dil_status status = w ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for %d rows", q->rows);
    for (size_t at = 0; status == DIL_OK && at < columns; at += part) {
        for (size_t i = 0; i < (size_t)q->rows; i++)
            memcpy(w + i * part, s->w + i * columns + at, part * sizeof *w);
        const blocks_task t = {.w = w,
                               .rows = q->rows,
                               .columns = m->n,
                               .m = m,
                               .n_remove = (int64_t)(s->o->prune * (double)n + 1e-9),
                               .workers = s->workers};
        status = blocks_remove(&t, err);
        s->r->n_before += (int)n;
        s->r->n_removed += (int)t.n_remove;
        for (size_t i = 0; status == DIL_OK && i < (size_t)q->rows; i++)
            memcpy(s->w + i * columns + at, w + i * part, part * sizeof *w);
    }
    mem_free(w);
    return status;
}

static dil_status round_player(shrink *s, int at, dil_error *err)
{
    const player *q = &s->p.p[at];
    const player_choice *choice = &q->choice[q->chosen];
    const size_t bytes = (size_t)choice->bytes / (size_t)q->n;
    s->bytes[at] = mem_alloc((size_t)choice->bytes, MEM_MISC);
    if (!s->bytes[at])
        return DIL_FAIL(err, DIL_NO_MEMORY, "%.*s: no memory for %llu bytes", STR_ARG(q->tensor->name),
                        (unsigned long long)choice->bytes);
    for (int e = 0; e < q->n; e++) {
        const metric *m;
        DIL_TRY(load(s, q, e, &m, err));
        DIL_TRY(clear_blocks(s, q, m, err));
        DIL_TRY(round_part(s, q, choice->type, m, 0, q->rows, s->o->most_sweeps, s->bytes[at] + (size_t)e * bytes, &s->r->round[at],
                           err));
        DIL_TRY(tell(s, "rounding", values_of(q), err));
    }
    return DIL_OK;
}

/* ---- the lone layer ---- */

static double distance(const float *a, const float *b, size_t n)
{
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return all > 0 ? off / all : 0;
}

static dil_status pruned_error(shrink *s, const float *before, double *out, dil_error *err)
{
    const size_t n = (size_t)lone_n_held(s->lone) * lone_hparams(s->lone)->n_embd;
    float *y = mem_alloc(n * sizeof *y, MEM_MISC);
    dil_status status = y ? lone_outputs(s->lone, y, err) : DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for its outputs");
    if (status == DIL_OK)
        *out = distance(y, before, n);
    mem_free(y);
    return status;
}

/* Enough for what a layer of this shape has to learn. */
static dil_status enough_inputs(const gguf *file, int *out, dil_error *err)
{
    model *m;
    DIL_TRY(model_open(&m, gguf_path(file), &(model_options){.header_only = true}, err));
    const expert_params *x = &m->h.experts;
    const int64_t columns = m->h.n_embd > x->n_ff ? m->h.n_embd : x->n_ff;
    const int64_t wanted = INPUTS_PER_COLUMN * columns * x->n_experts / x->n_used, most = DRAWN_VALUES / m->h.n_embd;
    *out = (int)(wanted < most ? wanted : most) + HELD_INPUTS;
    model_close(m);
    return DIL_OK;
}

static dil_status open_lone(shrink *s, dil_error *err)
{
    lone_inputs in = {.rows = s->o->inputs, .n = s->o->n_inputs, .seed = s->o->seed};
    if (in.n == 0)
        DIL_TRY(enough_inputs(s->in, &in.n, err));
    in.n_held = in.n < HELD_LEAST ? 0 : in.rows || in.n <= HELD_SHARE * HELD_INPUTS ? in.n / HELD_SHARE : HELD_INPUTS;
    return lone_new(&s->lone, s->in, &in, &s->k, s->workers, err);
}

/* Neurons go in steps of 32, which every format's blocks want, until the share or the budget is spent. */
static dil_status prune_lone(shrink *s, const float *before, dil_error *err)
{
    const int step = 32, n_ff = lone_n_ff(s->lone);
    int most = (int)(s->o->prune * n_ff + 1e-9) / step * step;
    s->r->n_before = n_ff;
    for (; most > 0 && s->r->n_removed == 0; most -= most > 4 * step ? most / 4 / step * step : step) {
        double error = 0;
        DIL_TRY(lone_prune(s->lone, most, err));
        DIL_TRY(pruned_error(s, before, &error, err));
        if (s->o->budget <= 0 || error <= s->o->budget) {
            s->r->n_removed = most;
            s->r->pruned_error = error;
            break;
        }
        lone_free(s->lone);
        s->lone = NULL;
        DIL_TRY(open_lone(s, err));
    }
    return DIL_OK;
}

/* Matrices become as large as pruning left them. */
static void resize_players(shrink *s)
{
    for (int i = 0; s->lone && i < s->p.n; i++) {
        player *q = &s->p.p[i];
        if (q->place == NET_GATE || q->place == NET_UP)
            q->rows = lone_n_ff(s->lone);
        if (q->place == NET_DOWN)
            q->columns = lone_n_ff(s->lone);
    }
}

/* Error of what was written, as the engine computes it. */
static dil_status measure(shrink *s, const char *path, const float *before, dil_error *err)
{
    const size_t n = (size_t)lone_n_held(s->lone) * lone_hparams(s->lone)->n_embd;
    engine_options o = engine_options_default();
    engine *e;
    o.lone = true;
    o.no_pack_cache = o.no_profile = true;
    o.n_threads = s->o->n_threads;
    float *y = mem_alloc(n * sizeof *y, MEM_MISC);
    if (!y)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for its outputs", path);
    dil_status status = engine_open(&e, path, &o, err);
    if (status == DIL_OK) {
        status = engine_rows(e, lone_held(s->lone), lone_n_held(s->lone), y, NULL, NULL, err);
        engine_close(e);
    }
    if (status == DIL_OK)
        s->r->error = distance(y, before, n);
    mem_free(y);
    return status;
}

/* ---- the file ---- */

static int player_of(const shrink *s, const gguf_tensor *t)
{
    for (int i = 0; i < s->p.n; i++)
        if (s->p.p[i].tensor == t)
            return i;
    return -1;
}

static dil_status write_tensors(shrink *s, gguf_writer *w, dil_error *err)
{
    const char *const except[] = {MODEL_LONE_LAYER ".expert_feed_forward_length"};
    DIL_TRY(gguf_writer_copy_values(w, s->in, except, s->lone ? 1 : 0, err));
    if (s->lone)
        DIL_TRY(gguf_writer_set_u32(w, except[0], (uint32_t)lone_n_ff(s->lone), err));
    for (uint64_t i = 0; i < gguf_n_tensors(s->in); i++) {
        const gguf_tensor *t = gguf_tensor_at(s->in, i);
        const int at = player_of(s, t);
        uint64_t ne[4] = {t->ne[0], t->ne[1], t->ne[2], t->ne[3]};
        if (at >= 0) {
            ne[0] = (uint64_t)s->p.p[at].columns;
            ne[1] = (uint64_t)s->p.p[at].rows;
        }
        DIL_TRY(
            gguf_writer_add_tensor(w, t->name, at < 0 ? t->type : s->p.p[at].choice[s->p.p[at].chosen].type, t->n_dims, ne, err));
    }
    for (uint64_t i = 0; i < gguf_n_tensors(s->in); i++) {
        const gguf_tensor *t = gguf_tensor_at(s->in, i);
        const int at = player_of(s, t);
        if (at < 0)
            DIL_TRY(gguf_writer_data(w, t->data, (size_t)t->size_bytes, err));
        else
            DIL_TRY(gguf_writer_data(w, s->bytes[at], (size_t)s->p.p[at].choice[s->p.p[at].chosen].bytes, err));
    }
    return DIL_OK;
}

static dil_status write_file(shrink *s, const char *path, dil_error *err)
{
    gguf_writer *w = NULL;
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = write_tensors(s, w, err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}

/* ---- the order of the work ---- */

/* The budget of bits as bytes of a file; never less than what the narrowest formats need. */
static uint64_t goal_bytes(const shrink *s)
{
    uint64_t wanted = s->p.fixed_bytes, least = s->p.fixed_bytes;
    for (int i = 0; i < s->p.n; i++) {
        const player *q = &s->p.p[i];
        wanted += (uint64_t)(s->o->bits / 8 * (double)q->n * (double)values_of(q)) + 64;
        least += players_padded(q->choice[0].bytes) + 16;
    }
    return wanted > least ? wanted : least;
}

static dil_status choose(shrink *s, dil_error *err)
{
    for (int i = 0; i < s->p.n; i++) {
        player *q = &s->p.p[i];
        player_offer(q);
        player_keep_stock(q);
        DIL_TRY(find_costs(s, q, err));
    }
    const allocate_goal goal = {.file_bytes = goal_bytes(s)};
    return allocate_size(&s->p, &goal, &s->r->allocation, err);
}

static dil_status take_room(shrink *s, dil_error *err)
{
    size_t most = 1;
    for (int i = 0; i < s->p.n; i++)
        most = values_of(&s->p.p[i]) > most ? values_of(&s->p.p[i]) : most;
    s->w = mem_alloc(most * sizeof *s->w, MEM_MISC);
    s->bytes = mem_calloc((size_t)s->p.n + 1, sizeof *s->bytes, MEM_MISC);
    s->r->round = mem_calloc((size_t)s->p.n + 1, sizeof *s->r->round, MEM_MISC);
    if (!s->w || !s->bytes || !s->r->round)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for a matrix of %zu values", gguf_path(s->in), most);
    return DIL_OK;
}

static dil_status shrink_all(shrink *s, const char *out_path, float *before, dil_error *err)
{
    if (s->lone) {
        DIL_TRY(lone_outputs(s->lone, before, err));
        DIL_TRY(prune_lone(s, before, err));
        resize_players(s);
    }
    DIL_TRY(take_room(s, err));
    s->total = 2 * players_values(&s->p);
    DIL_TRY(choose(s, err));
    for (int i = 0; i < s->p.n; i++)
        DIL_TRY(round_player(s, i, err));
    os_file written;
    DIL_TRY(write_file(s, out_path, err));
    DIL_TRY(os_file_open(&written, out_path, err));
    s->r->out_bytes = written.size_bytes;
    os_file_close(&written);
    return s->lone ? measure(s, out_path, before, err) : DIL_OK;
}

static dil_status open_all(shrink *s, const char *in_path, const char *out_path, dil_error *err)
{
    DIL_TRY(kernels_select(&s->k, "auto", err));
    DIL_TRY(team_new(&s->workers, s->o->n_threads, err));
    DIL_TRY(gguf_open(&s->in, in_path, &(gguf_options){0}, err));
    DIL_TRY(convert_check_paths(s->in, out_path, err));
    DIL_TRY(players_new(&s->p, s->in, err));
    if (s->p.n == 0)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted at least one matrix, found none", in_path);
    str architecture = STR("");
    DIL_TRY(gguf_get_str(s->in, "general.architecture", &architecture, err));
    s->r->lone = str_equal(architecture, STR(MODEL_LONE_LAYER));
    s->r->in_bytes = gguf_size_bytes(s->in);
    s->r->n_values = players_values(&s->p);
    return s->r->lone ? open_lone(s, err) : DIL_OK;
}

static dil_status check_options(const matrices_options *o, dil_error *err)
{
    if (!(o->bits >= 1 && o->bits <= 16))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bits: wanted 1..16 per weight, found %g", o->bits);
    if (!(o->prune >= 0 && o->prune <= 0.95))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "pruning: wanted a share in 0..0.95, found %g", o->prune);
    if (o->n_threads < 1 || o->n_threads > TEAM_MAX)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "threads: wanted 1..%d, found %d", TEAM_MAX, o->n_threads);
    return DIL_OK;
}

dil_status matrices_suit(bool *out, const char *path, dil_error *err)
{
    gguf *g;
    str architecture = STR("");
    DIL_TRY(gguf_open(&g, path, &(gguf_options){.header_only = true}, err));
    dil_status status = gguf_get_str(g, "general.architecture", &architecture, err);
    if (status == DIL_OK)
        *out = !arch_find(architecture) || str_equal(architecture, STR(MODEL_LONE_LAYER));
    gguf_close(g);
    return status;
}

dil_status matrices_file(matrices_report *out, const char *in_path, const char *out_path, const matrices_options *o, dil_error *err)
{
    matrices_report r = {0};
    shrink s = {.o = o, .r = &r};
    float *before = NULL;
    const uint64_t started_ns = os_time_ns();
    DIL_TRY(check_options(o, err));
    dil_status status = open_all(&s, in_path, out_path, err);
    if (status == DIL_OK && s.lone) {
        before = mem_alloc((size_t)lone_n_held(s.lone) * lone_hparams(s.lone)->n_embd * sizeof *before, MEM_MISC);
        status = before ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for its outputs", in_path);
    }
    if (status == DIL_OK)
        status = shrink_all(&s, out_path, before, err);
    for (int i = 0; s.bytes && i < s.p.n; i++)
        mem_free(s.bytes[i]);
    mem_free(s.bytes);
    mem_free(s.w);
    mem_free(before);
    metric_free(s.sphere);
    lone_free(s.lone);
    team_free(s.workers);
    r.players = s.p;
    r.in = s.in;
    r.seconds = (double)(os_time_ns() - started_ns) * 1e-9;
    if (status == DIL_OK)
        *out = r;
    else
        matrices_report_free(&r);
    return status;
}

void matrices_report_free(matrices_report *r)
{
    players_free(&r->players);
    gguf_close(r->in);
    mem_free(r->round);
    *r = (matrices_report){0};
}
