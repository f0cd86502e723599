#include "quantize/surgeon.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/factor.h"

/*
 * Without column j, row w's least cost with the others free is w_j^2 / (2 [H^-1]_jj), reached by w -= w_j [H^-1]_j: / [H^-1]_jj; and the
 * inverse of H without row and column j is H^-1 - [H^-1]_:j [H^-1]_j: / [H^-1]_jj. All rows share H, so one inverse serves them. Columns that
 * are left stand in slots 0 .. n: the last one moves into the place of a removed one.
 */
typedef struct surgery {
    const surgeon_task *t;
    int n;           /* slots in use */
    int32_t *column; /* [columns]: of a slot */
    double *inverse; /* [columns][columns], by slots */
    double *values;  /* [columns][rows], by slots: W^T */
    double *weight;  /* [rows] */
    double *score;   /* [columns], by slots: twice the cost of going next */
    double *share;   /* [columns]: [H^-1]_j: / [H^-1]_jj of the removed one */
    double *gone;    /* [rows]: its values */
    double *row;     /* [columns]: its row of the inverse */
} surgery;

#define CHUNK 16 /* slots claimed at a time */

static double weighted_square(const surgery *s, const double *v)
{
    double lane[4] = {0};
    int i = 0;
    for (; i + 4 <= s->t->rows; i += 4)
        for (int k = 0; k < 4; k++)
            lane[k] += s->weight[i + k] * v[i + k] * v[i + k];
    for (; i < s->t->rows; i++)
        lane[0] += s->weight[i] * v[i] * v[i];
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

static void update_slot(const surgery *s, int slot)
{
    const size_t columns = (size_t)s->t->columns;
    const double share = s->share[slot];
    double *inverse = s->inverse + (size_t)slot * columns, *v = s->values + (size_t)slot * (size_t)s->t->rows;
    for (int i = 0; i < s->n; i++)
        inverse[i] -= share * s->row[i];
    for (int i = 0; i < s->t->rows; i++)
        v[i] -= share * s->gone[i];
    s->score[slot] = weighted_square(s, v) / inverse[slot];
}

static void update_slots(void *ctx, int worker)
{
    const surgery *s = ctx;
    (void)worker;
    for (int at = (int)team_claim(s->t->workers) * CHUNK; at < s->n; at = (int)team_claim(s->t->workers) * CHUNK)
        for (int slot = at; slot < at + CHUNK && slot < s->n; slot++)
            update_slot(s, slot);
}

static int cheapest(const surgery *s)
{
    int best = 0;
    for (int i = 1; i < s->n; i++)
        if (s->score[i] < s->score[best] || (s->score[i] == s->score[best] && s->column[i] < s->column[best]))
            best = i;
    return best;
}

/* The slot's column leaves; the last slot's takes its place. What the others have to know is kept. */
static void take_out(surgery *s, int slot)
{
    const size_t columns = (size_t)s->t->columns, rows = (size_t)s->t->rows, at = (size_t)slot;
    const size_t last = (size_t)--s->n;
    memcpy(s->row, s->inverse + at * columns, columns * sizeof *s->row);
    memcpy(s->gone, s->values + at * rows, rows * sizeof *s->gone);
    double own = s->row[at];
    s->column[at] = s->column[last];
    memmove(s->values + at * rows, s->values + last * rows, rows * sizeof *s->values);
    memmove(s->inverse + at * columns, s->inverse + last * columns, columns * sizeof *s->inverse);
    for (size_t i = 0; i < last; i++)
        s->inverse[i * columns + at] = s->inverse[i * columns + last];
    s->row[at] = s->row[last];
    s->score[at] = s->score[last];
    for (size_t i = 0; i < last; i++)
        s->share[i] = s->row[i] / own;
}

/* ---- beginning and end ---- */

/* H^-1 = (L^-1)^T L^-1, from the columns of L^-1, which are laid in the rows of `columns` first. */
typedef struct inversion {
    const factor *f;
    double *columns, *inverse; /* [n][n] */
} inversion;

static void invert_rows(void *ctx, int worker)
{
    const inversion *v = ctx;
    const size_t n = (size_t)v->f->n;
    (void)worker;
    for (size_t i = team_claim(v->f->workers); i < n; i = team_claim(v->f->workers))
        for (size_t j = 0; j <= i; j++) {
            double lane[4] = {0};
            const double *a = v->columns + i * n, *b = v->columns + j * n;
            for (size_t k = i; k < n; k++)
                lane[k % 4] += a[k] * b[k];
            v->inverse[i * n + j] = v->inverse[j * n + i] = (lane[0] + lane[1]) + (lane[2] + lane[3]);
        }
}

static void invert(surgery *s, factor *f)
{
    const size_t n = (size_t)f->n;
    for (size_t i = 0; i < n; i++) /* L is not needed any more */
        for (size_t k = i; k < n; k++)
            f->l[i * n + k] = f->inverse[k * n + i];
    team_run(f->workers, invert_rows, &(inversion){f, f->l, s->inverse});
}

static dil_status begin(surgery *s, dil_error *err)
{
    const surgeon_task *t = s->t;
    const size_t rows = (size_t)t->rows, columns = (size_t)t->columns;
    factor f = {0};
    dil_status status = DIL_OK;
    s->n = t->columns;
    s->column = mem_alloc(columns * sizeof *s->column, MEM_MISC);
    s->inverse = mem_alloc(columns * columns * sizeof(double), MEM_MISC);
    s->values = mem_alloc(columns * rows * sizeof(double), MEM_MISC);
    s->weight = mem_alloc(rows * sizeof(double), MEM_MISC);
    s->score = mem_alloc(columns * sizeof(double), MEM_MISC);
    s->share = mem_alloc(columns * sizeof(double), MEM_MISC);
    s->gone = mem_calloc(rows, sizeof(double), MEM_MISC);
    s->row = mem_calloc(columns, sizeof(double), MEM_MISC);
    bool room = s->column && s->inverse && s->values && s->weight && s->score && s->share && s->gone && s->row;
    if (!room || !factor_new(&f, t->columns, t->workers))
        status = DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for %d x %d numbers", t->columns, t->columns);
    if (status == DIL_OK)
        status = factor_damped(&f, t->h, false, t->damping, err);
    if (status == DIL_OK) {
        invert(s, &f);
        for (size_t i = 0; i < columns; i++)
            s->column[i] = (int32_t)i;
        for (size_t r = 0; r < rows; r++) {
            s->weight[r] = t->row_weight ? (double)t->row_weight[r] : 1.0;
            for (size_t i = 0; i < columns; i++)
                s->values[i * rows + r] = (double)t->w[r * columns + i];
        }
        memset(s->share, 0, columns * sizeof *s->share);
        team_run(t->workers, update_slots, s); /* nothing has gone: scores only */
    }
    factor_free(&f);
    return status;
}

static void write_back(const surgery *s)
{
    const size_t rows = (size_t)s->t->rows, columns = (size_t)s->t->columns;
    memset(s->t->w, 0, rows * columns * sizeof *s->t->w);
    for (int i = 0; i < s->n; i++)
        for (size_t r = 0; r < rows; r++)
            s->t->w[r * columns + (size_t)s->column[i]] = (float)s->values[(size_t)i * rows + r];
}

static void end(surgery *s)
{
    mem_free(s->column);
    mem_free(s->inverse);
    mem_free(s->values);
    mem_free(s->weight);
    mem_free(s->score);
    mem_free(s->share);
    mem_free(s->gone);
    mem_free(s->row);
}

dil_status surgeon_remove(const surgeon_task *t, dil_error *err)
{
    surgery s = {.t = t};
    double cost = 0;
    dil_status status = begin(&s, err);
    for (int i = 0; status == DIL_OK && i < t->n_remove; i++) {
        int slot = cheapest(&s);
        t->removed[i] = s.column[slot];
        t->cost[i] = cost += 0.5 * s.score[slot];
        take_out(&s, slot);
        team_run_some(t->workers, team_unhindered(t->workers), update_slots,
                      &s); /* a meeting for each column: others must not hold it up */
    }
    if (status == DIL_OK)
        write_back(&s);
    end(&s);
    return status;
}
