#include "quantize/importance.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"
#include "engine/engine.h"

typedef struct importance {
    calibration *c;
    const players *p;
} importance;

static void count(const compute_input *in, int64_t columns, float *sums)
{
    for (int32_t i = 0; i < in->n; i++) {
        const float *x = in->x + (size_t)(in->row ? in->row[i] : in->first + i) * in->stride;
        for (int64_t j = 0; j < columns; j++)
            sums[j] += x[j] * x[j];
    }
}

static void look(void *ctx, const compute_input *in)
{
    importance *m = ctx;
    for (int i = 0; i < in->n_readers; i++) {
        const weight *w = in->readers[i];
        int at = players_named(m->p, w->tensor->name);
        if (at < 0)
            continue;
        const player *q = &m->p->p[at];
        size_t expert = (size_t)w->first_row / (size_t)q->rows;
        if ((int64_t)w->cols != q->columns || expert >= (size_t)q->n)
            continue;
        count(in, q->columns, m->c->squares[at] + expert * (size_t)q->columns);
        m->c->counts[at][expert] += (float)in->n;
    }
}

static bool keep(void *ctx, int32_t i, const float *logits)
{
    (void)ctx;
    (void)i;
    (void)logits;
    return true;
}

static dil_status run_all(calibration *c, engine *e, const calibration_options *o, dil_error *err)
{
    session *s = NULL;
    DIL_TRY(session_new(&s, e, err));
    dil_status status = DIL_OK;
    for (int i = 0; status == DIL_OK && i < c->n_sequences; i++) {
        session_truncate(s, 0);
        status = session_eval(s, c->tokens + (size_t)i * (size_t)c->n_context, c->n_context, NULL, keep, NULL, err);
        if (status == DIL_OK && o->progress && !o->progress(o->user, "importance", (uint64_t)i + 1, (uint64_t)c->n_sequences))
            status = DIL_FAIL(err, DIL_CANCELLED, "calibration: cancelled");
    }
    session_free(s);
    return status;
}

/* A matrix that met nothing has no importance, rather than none of it. */
static void drop_unseen(calibration *c, const players *p)
{
    for (int i = 0; i < p->n; i++) {
        double seen = 0;
        for (int e = 0; e < p->p[i].n; e++)
            seen += (double)c->counts[i][e];
        if (seen > 0)
            continue;
        mem_free(c->squares[i]);
        mem_free(c->counts[i]);
        c->squares[i] = c->counts[i] = NULL;
    }
}

static dil_status check_finite(const calibration *c, const players *p, dil_error *err)
{
    for (int i = 0; i < p->n; i++)
        for (size_t j = 0; j < (size_t)p->p[i].n * (size_t)p->p[i].columns; j++)
            if (!isfinite(c->squares[i][j]))
                return DIL_FAIL(
                    err, DIL_FORMAT,
                    "%s: tensor '%.*s': wanted finite inputs, found NaN or infinity in column %zu; some weight before it is no number",
                    gguf_path(p->file), STR_ARG(p->p[i].tensor->name), j % (size_t)p->p[i].columns);
    return DIL_OK;
}

dil_status importance_make(calibration *out, const players *p, int n_threads, const calibration_options *o, dil_error *err)
{
    calibration c = {.n_context = o->n_context};
    engine *e = NULL;
    importance m = {&c, p};
    engine_options eo = engine_options_default();
    snprintf(c.text, sizeof c.text, "%s", o->text_name);
    dil_status status = calibration_tokens(&c.tokens, &c.n_sequences, p->file, o, err);
    if (status == DIL_OK)
        status = calibration_room(&c, p, err);
    eo.n_threads = n_threads;
    eo.context = eo.micro_batch = eo.max_outputs = o->n_context;
    eo.exact = eo.no_pack_cache = true;
    eo.on_input = look;
    eo.input_ctx = &m;
    if (status == DIL_OK)
        status = engine_open(&e, gguf_path(p->file), &eo, err);
    if (status == DIL_OK)
        status = run_all(&c, e, o, err);
    if (e)
        engine_close(e);
    if (status == DIL_OK)
        status = check_finite(&c, p, err);
    if (status == DIL_OK) {
        drop_unseen(&c, p);
        *out = c;
    } else {
        calibration_free(&c);
    }
    return status;
}

/* ---- converting with it ---- */

typedef struct weighting {
    calibration c;
    players p;
} weighting;

/* Sums become means, as the encoders want nothing but ratios; an expert that met nothing has none. */
static const float *importance_at(void *user, str tensor, uint64_t expert)
{
    const weighting *w = user;
    int i = players_named(&w->p, tensor);
    if (i < 0 || !w->c.squares[i] || expert >= (uint64_t)w->p.p[i].n || !(w->c.counts[i][expert] > 0.0f))
        return NULL;
    return w->c.squares[i] + (size_t)expert * (size_t)w->p.p[i].columns;
}

dil_status importance_convert(convert_result *out, const char *in_path, const char *out_path, const char *stats_path,
                              const convert_options *o, dil_error *err)
{
    gguf *in = NULL;
    weighting w = {0};
    convert_options with = *o;
    DIL_TRY(gguf_open(&in, in_path, NULL, err));
    dil_status status = players_new(&w.p, in, err);
    if (status == DIL_OK)
        status = calibration_read(&w.c, &w.p, stats_path, err);
    with.importance = importance_at;
    with.importance_user = &w;
    if (status == DIL_OK)
        status = convert_file(out, in_path, out_path, &with, err);
    calibration_free(&w.c);
    players_free(&w.p);
    gguf_close(in);
    return status;
}
