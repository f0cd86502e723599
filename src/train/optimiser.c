#include "train/optimiser.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "train/muon.h"

#define PIECE 32768 /* values a worker takes at a time */

struct optimiser {
    optimiser_config c;
    net *n;
    team *workers;
    const kernels *k;
    size_t size, n_pieces;
    float *state;     /* [2][size]: first moments, second moments */
    double *squares;  /* [n_pieces]: sums of squared gradients */
    muon *orthogonal; /* NULL: AdamW for everything */
};

dil_status optimiser_new(optimiser **out, net *n, const optimiser_config *c, team *workers, const kernels *k, dil_error *err)
{
    optimiser *o = mem_calloc(1, sizeof *o, MEM_MISC);
    if (!o)
        return DIL_FAIL(err, DIL_NO_MEMORY, "optimiser: no memory");
    *o = (optimiser){.c = *c, .n = n, .workers = workers, .k = k, .size = net_size(n)};
    o->n_pieces = (o->size + PIECE - 1) / PIECE;
    o->state = mem_map(2 * o->size * sizeof *o->state, MEM_WEIGHTS);
    o->squares = mem_calloc(o->n_pieces, sizeof *o->squares, MEM_MISC);
    dil_status status = DIL_OK;
    if (!o->state || !o->squares)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "optimiser: no memory for two moments of %zu values", o->size);
    if (status == DIL_OK && c->muon)
        status = muon_new(&o->orthogonal, n, c->muon == MUON_ALL, workers, k, err);
    if (status == DIL_OK)
        *out = o;
    else
        optimiser_free(o);
    return status;
}

void optimiser_free(optimiser *o)
{
    if (!o)
        return;
    if (o->state)
        mem_unmap(o->state, 2 * o->size * sizeof *o->state, MEM_WEIGHTS);
    muon_free(o->orthogonal);
    mem_free(o->squares);
    mem_free(o);
}

float *optimiser_state(optimiser *o) { return o->state; }
size_t optimiser_state_size(const optimiser *o) { return 2 * o->size; }

double optimiser_schedule(const optimiser_config *c, uint64_t step, uint64_t n_steps)
{
    double at = ((double)step + 1.0) / (double)n_steps;
    if (at < c->warmup)
        return at / c->warmup;
    if (c->schedule == SCHEDULE_WSD)
        return at <= 1.0 - c->decay ? 1.0 : 1.0 - (1.0 - c->lr_end) * (at - (1.0 - c->decay)) / c->decay;
    double through = c->warmup < 1.0 ? (at - c->warmup) / (1.0 - c->warmup) : 1.0;
    return c->lr_end + (1.0 - c->lr_end) * 0.5 * (1.0 + cos(3.141592653589793 * through));
}

/* ---- the norm of the gradient: pieces in parallel, their sums in order ---- */

static size_t piece_size(const optimiser *o, size_t first) { return o->size - first < PIECE ? o->size - first : PIECE; }

static void square_pieces(void *ctx, int worker)
{
    optimiser *o = ctx;
    (void)worker;
    for (size_t i = team_claim(o->workers); i < o->n_pieces; i = team_claim(o->workers)) {
        const float *g = net_gradients(o->n) + i * PIECE;
        o->squares[i] = (double)o->k->training.dot(g, g, (int64_t)piece_size(o, i * PIECE));
    }
}

static double gradient_norm(optimiser *o)
{
    double sum = 0.0;
    team_run(o->workers, square_pieces, o);
    for (size_t i = 0; i < o->n_pieces; i++)
        sum += o->squares[i];
    return sqrt(sum);
}

/* ---- a step ---- */

typedef struct step_run {
    optimiser *o;
    double factor; /* of the schedule */
    float g_scale, correction1, correction2;
} step_run;

static float rate_of(const optimiser_config *c, const parameter *p, double factor)
{
    float kind = p->kind == PARAMETER_ROUTER ? c->lr_router : p->kind == PARAMETER_EMBEDDING ? c->lr_embedding : 1.0f;
    return c->lr * kind * (float)factor;
}

/* The part [first, first + n) of all values, which may touch several parameters. */
static void step_piece(const step_run *r, size_t first, size_t n)
{
    optimiser *o = r->o;
    float *w = net_values(o->n), *m = o->state, *v = o->state + o->size;
    const float *g = net_gradients(o->n);
    for (int i = 0; i < net_n_parameters(o->n); i++) {
        const parameter *p = net_parameter_at(o->n, i);
        size_t begin = (size_t)(p->w - w), end = begin + p->count;
        begin = begin > first ? begin : first;
        end = end < first + n ? end : first + n;
        if (begin >= end || (o->orthogonal && muon_takes(o->orthogonal, p)))
            continue;
        float lr = rate_of(&o->c, p, r->factor), decay = p->kind == PARAMETER_VECTOR ? 0.0f : o->c.weight_decay * lr;
        o->k->training.adamw(w + begin, g + begin, m + begin, v + begin, (int64_t)(end - begin),
                             &(adamw_args){lr, o->c.beta1, o->c.beta2, o->c.eps, decay, r->correction1, r->correction2,
                                           r->g_scale});
    }
}

static void step_pieces(void *ctx, int worker)
{
    const step_run *r = ctx;
    (void)worker;
    for (size_t i = team_claim(r->o->workers); i < r->o->n_pieces; i = team_claim(r->o->workers))
        step_piece(r, i * PIECE, piece_size(r->o, i * PIECE));
}

double optimiser_step(optimiser *o, uint64_t step, uint64_t n_steps)
{
    double norm = gradient_norm(o), t = (double)step + 1.0;
    if (!isfinite(norm))
        return norm;
    step_run r = {.o = o, .factor = optimiser_schedule(&o->c, step, n_steps), .g_scale = 1.0f};
    if (o->c.clip > 0.0f && norm > (double)o->c.clip)
        r.g_scale = (float)((double)o->c.clip / norm);
    r.correction1 = (float)(1.0 - pow((double)o->c.beta1, t));
    r.correction2 = (float)(1.0 - pow((double)o->c.beta2, t));
    team_run(o->workers, step_pieces, &r);
    if (o->orthogonal)
        muon_step(o->orthogonal, o->state, o->c.muon_lr * (float)r.factor, o->c.weight_decay, r.g_scale);
    net_refresh(o->n);
    return norm;
}
