#include "quantize/sense.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/round.h"

#define SAMPLE_ROWS 32 /* of a matrix, rounded with every format, */
#define LEAST_ROWS 16  /* and of each of its experts, however many they are */

/* ---- looks ---- */

int sense_weights(const walk *w, const walk_fisher *f, int layer, walk_stage stage, const float *weights[WALK_MOST_LOOKS])
{
    int n = 0;
    for (int place = 0; place < NET_PLACES; place++)
        if (walk_stage_of((net_place)place) == stage && n == sense_look_of(w, (net_place)place))
            weights[n++] = f->token[place] + (size_t)layer * (size_t)walk_n_tokens(w);
    return n;
}

int sense_look_of(const walk *w, net_place place)
{
    if (place == NET_UP) /* experts: gate's do for both */
        return walk_groups(w, WALK_GATE_UP) > 1 ? 0 : 1;
    return place == NET_K ? 1 : 0;
}

void sense_tied(const walk_fisher *f, int n_vocab, int n_embd, float *head)
{
    double words = 0;
    for (int i = 0; i < n_vocab; i++)
        words += (double)f->vocabulary[i];
    for (size_t i = 0; i < (size_t)n_embd * (size_t)n_embd; i++)
        head[i] = (float)(words * (double)head[i] + (double)f->input[i]);
}

/* ---- costs ---- */

/* A matrix [rows][columns], its rows' weights, and the rows that stand for all: drawn in proportion to weight * square, so that each stands
 * for as much. */
typedef struct sample {
    const sense *s;
    const float *w, *row_weight;
    int rows, columns, n;
    float *values, *weights;
} sample;

static double squares(const float *v, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sum;
}

static void take_rows(sample *a)
{
    const size_t columns = (size_t)a->columns;
    double all = 0, passed = 0;
    int taken = 0;
    for (int i = 0; i < a->rows; i++)
        all += (double)a->row_weight[i] * squares(a->w + (size_t)i * columns, a->columns);
    for (int i = 0; i < a->rows && taken < a->n; i++) {
        const float *row = a->w + (size_t)i * columns;
        double square = squares(row, a->columns);
        passed += (double)a->row_weight[i] * square;
        for (; taken < a->n && passed * a->n > all * (taken + 0.5); taken++) {
            memcpy(a->values + (size_t)taken * columns, row, columns * sizeof(float));
            a->weights[taken] = (float)(all / (a->n * square));
        }
    }
    a->n = taken; /* none: the model never depends on it */
}

static dil_status cost_of(const sample *a, const metric *m, dil_type type, double *out, dil_error *err)
{
    round_report r;
    if (!grid_get(type) || a->n == 0) { /* F16: far below everything else */
        *out = 0;
        return DIL_OK;
    }
    round_task t = {.type = type, .rows = a->n, .columns = a->columns, .w = a->values, .row_weight = a->weights, .m = m};
    DIL_TRY(round_matrix(&t, a->s->workers, NULL, &r, err));
    *out = 0.5 * r.cost;
    return DIL_OK;
}

/* The same rows, columns from .. only. */
static sample columns_of(const sample *a, int from, int columns, float *values)
{
    sample part = *a;
    part.columns = columns;
    part.values = values;
    for (size_t i = 0; i < (size_t)a->n; i++)
        memcpy(values + i * (size_t)columns, a->values + i * (size_t)a->columns + from, (size_t)columns * sizeof *values);
    return part;
}

/* h [part][part] of columns from .. */
static dil_status add_part(const sense *s, player *p, const sample *a, const float *h, dil_error *err)
{
    metric *m = NULL;
    DIL_TRY(metric_new(&m, h, a->columns, s->damping, s->k, s->workers, err));
    dil_status status = DIL_OK;
    for (int i = 0; status == DIL_OK && i < p->n_choices; i++) {
        double cost;
        status = cost_of(a, m, p->choice[i].type, &cost, err);
        p->choice[i].cost += status == DIL_OK ? cost : 0;
    }
    metric_free(m);
    return status;
}

/* Rows of a player (all, an expert's, a head's; groups: how many such there are), and what their columns read: h [parts][part][part]. */
typedef struct seen_rows {
    const float *w, *row_weight, *h;
    int n_rows, groups, parts;
} seen_rows;

static int sample_rows(const seen_rows *of)
{
    const int share = SAMPLE_ROWS / of->groups, wanted = share > LEAST_ROWS ? share : LEAST_ROWS;
    return of->n_rows < wanted ? of->n_rows : wanted;
}

/* Adds their costs to the player's choices. */
static dil_status add_costs(const sense *s, player *p, const seen_rows *of, dil_error *err)
{
    sample a = {.s = s, .w = of->w, .row_weight = of->row_weight, .rows = of->n_rows, .columns = p->columns};
    a.n = sample_rows(of);
    const int part = p->columns / of->parts;
    float *values = mem_alloc((size_t)a.n * (size_t)part * sizeof(float), MEM_MISC);
    a.values = mem_alloc((size_t)a.n * (size_t)p->columns * sizeof(float), MEM_MISC);
    a.weights = mem_alloc((size_t)a.n * sizeof(float), MEM_MISC);
    dil_status status =
        a.values && a.weights && values ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "costs: no memory for %d rows", a.n);
    if (status == DIL_OK)
        take_rows(&a);
    for (int i = 0; status == DIL_OK && i < of->parts; i++) {
        const sample here = columns_of(&a, i * part, part, values);
        status = add_part(s, p, &here, of->h + (size_t)i * (size_t)part * (size_t)part, err);
    }
    mem_free(values);
    mem_free(a.values);
    mem_free(a.weights);
    return status;
}

static void begin_costs(player *p)
{
    for (int i = 0; i < p->n_choices; i++)
        p->choice[i].cost = 0;
}

/* The first matrix of a stage counts its inputs, the others' are the same. */
static player *first_of(players *p, int layer, walk_stage stage)
{
    for (int place = 0; place < NET_PLACES; place++)
        if (walk_stage_of((net_place)place) == stage && players_find(p, layer, place))
            return players_find(p, layer, place);
    return NULL;
}

static void count_first(const sense *s, players *p, int layer, walk_stage stage)
{
    const player *q = first_of(p, layer, stage);
    if (q && s->squares)
        walk_count_squares(s->w, s->squares[q - p->p], s->counts[q - p->p]);
}

static void share_counts(const sense *s, players *p, int layer, walk_stage stage)
{
    const player *from = first_of(p, layer, stage);
    for (int place = 0; s->squares && place < NET_PLACES; place++) {
        bool same = walk_stage_of((net_place)place) == stage || (place == NET_V && stage == WALK_QK);
        const player *q = same ? players_find(p, layer, place) : NULL;
        if (!q || q == from)
            continue;
        memcpy(s->squares[q - p->p], s->squares[from - p->p], (size_t)q->n * (size_t)q->columns * sizeof(float));
        memcpy(s->counts[q - p->p], s->counts[from - p->p], (size_t)q->n * sizeof(float));
    }
}

static dil_status stage_costs(const sense *s, players *p, int layer, walk_stage stage, float *h, dil_error *err)
{
    const float *weights[WALK_MOST_LOOKS];
    const int groups = walk_groups(s->w, stage), parts = walk_parts(s->w, stage);
    const size_t size = walk_group_floats(s->w, stage);
    if (stage != WALK_VALUES) /* they read what queries and keys read */
        count_first(s, p, layer, stage);
    walk_look(s->w, stage, weights, sense_weights(s->w, s->f, layer, stage, weights), h);
    walk_count_squares(s->w, NULL, NULL);
    if (stage != WALK_VALUES)
        share_counts(s, p, layer, stage);
    for (int place = 0; place < NET_PLACES; place++) {
        player *q = players_find(p, layer, place);
        if (!q || walk_stage_of((net_place)place) != stage)
            continue;
        walk_matrix m = walk_matrix_at(s->w, (net_place)place);
        const float *row = s->f->row[place] + (size_t)layer * (size_t)m.n * (size_t)m.rows;
        begin_costs(q);
        const int part = m.n * m.rows / groups;
        for (int e = 0; e < groups; e++)
            DIL_TRY(add_costs(s, q,
                              &(seen_rows){m.w + (size_t)e * (size_t)part * (size_t)m.columns, row + (size_t)e * (size_t)part,
                                           h + ((size_t)sense_look_of(s->w, (net_place)place) * (size_t)groups + (size_t)e) * size,
                                           part, groups, parts},
                              err));
    }
    return DIL_OK;
}

/* What lies between the embedding's words being read and being chosen. */
static dil_status end_costs(const sense *s, players *p, float *head, dil_error *err)
{
    player *embedding = players_find(p, -1, PLACE_EMBEDDING), *output = players_find(p, -1, PLACE_HEAD);
    int n_vocab, n_embd;
    const float *values = walk_embedding(s->w, &n_vocab, &n_embd);
    if (s->squares && (output || embedding))
        walk_count_squares(s->w, s->squares[(output ? output : embedding) - p->p], s->counts[(output ? output : embedding) - p->p]);
    walk_look_head(s->w, s->f->head_token, head);
    walk_count_squares(s->w, NULL, NULL);
    if (p->tied)
        sense_tied(s->f, n_vocab, n_embd, head);
    if (embedding) {
        begin_costs(embedding);
        DIL_TRY(add_costs(s, embedding, &(seen_rows){values, s->f->used, p->tied ? head : s->f->input, n_vocab, 1, 1}, err));
    }
    if (output) {
        begin_costs(output);
        DIL_TRY(add_costs(s, output, &(seen_rows){walk_head(s->w), s->f->vocabulary, head, n_vocab, 1, 1}, err));
    }
    return DIL_OK;
}

/* Floats for all looks at the stage that needs most. */
static size_t most_looked(const walk *w)
{
    size_t most = 0;
    for (int stage = 0; stage < WALK_STAGES; stage++) {
        size_t n = (size_t)walk_looks(w, (walk_stage)stage) * (size_t)walk_groups(w, (walk_stage)stage) *
                   walk_group_floats(w, (walk_stage)stage);
        most = n > most ? n : most;
    }
    return most;
}

float *sense_room(const walk *w) { return mem_alloc(most_looked(w) * sizeof(float), MEM_MISC); }

dil_status sense_costs(const sense *s, players *p, float *head, dil_error *err)
{
    const int n_layer = (int)walk_hparams(s->w)->n_layer;
    float *h = sense_room(s->w);
    dil_status status = h ? walk_begin(s->w, err) : DIL_FAIL(err, DIL_NO_MEMORY, "costs: no memory for what the matrices read");
    if (status == DIL_OK)
        walk_leave_words(s->w);
    for (int i = 0; status == DIL_OK && i < n_layer; i++) {
        if (s->progress && !s->progress(s->user, "costs", (uint64_t)i, (uint64_t)n_layer + 1))
            status = DIL_FAIL(err, DIL_CANCELLED, "quantize: cancelled");
        if (status == DIL_OK)
            status = walk_load(s->w, i, err);
        for (int stage = 0; status == DIL_OK && stage < WALK_STAGES; stage++)
            status = stage_costs(s, p, i, (walk_stage)stage, h, err);
        if (status == DIL_OK)
            walk_advance(s->w);
    }
    mem_free(h);
    if (status == DIL_OK)
        status = walk_meet_words(s->w, err);
    return status == DIL_OK ? end_costs(s, p, head, err) : status;
}
