/*
 * A sequence of choices as a flight. The token is where its experts are at home, in the mean of their weights. The birds it chooses fly
 * a third of the way to it, all others an eighth of the way home: a bird shows whom it serves now. Nothing else moves a bird, so what
 * neighbours have in common is the choices' doing. Loads fade; prices follow them as in training (theorem/price.h), though here
 * nobody pays them: the choices are made.
 */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "theorem/price.h"
#include "theorem/random.h"
#include "view/flock.h"

enum { DEALS = 4 }; /* of velocities by lot, per step */

typedef struct flight {
    flock_scene *s;
    flock_layer *l;
    const flock_choices *c;
    float *load, *now, *price; /* [n]: fading; of this token alone; */
    flock_point *at;           /* [n] */
    flock_point *before;       /* [n]: one step before the first that is kept */
} flight;

/* ---- one step ---- */

void flock_move(const flock_layer *l, flock_point *at, const uint16_t *chosen, uint32_t n_chosen, flock_point target)
{
    for (int32_t i = 0; i < l->n; i++) {
        bool called = false;
        for (uint32_t r = 0; r < n_chosen && !isnan(target.x); r++)
            called = called || chosen[r] == i;
        flock_point to = called ? target : l->home[i];
        float share = called ? FLOCK_TO_TOKEN : FLOCK_TO_HOME;
        at[i].x += share * (to.x - at[i].x);
        at[i].y += share * (to.y - at[i].y);
    }
}

static const uint16_t *chosen_by(const flight *f, uint64_t token) { return f->c->chosen + token * f->c->stride; }

/* Where the token is: the mean of its experts' homes. */
static flock_point target_of(const flight *f, uint64_t token)
{
    const uint16_t *chosen = chosen_by(f, token);
    double x = 0, y = 0, sum = 0;
    for (uint32_t r = 0; r < f->c->n_used && chosen[r] != FLOCK_NOBODY; r++) {
        double w = f->c->weights ? (double)f->c->weights[token * f->c->stride + r] : 1;
        x += w * (double)f->l->home[chosen[r]].x;
        y += w * (double)f->l->home[chosen[r]].y;
        sum += w;
    }
    return sum > 0 ? (flock_point){(float)(x / sum), (float)(y / sum)} : (flock_point){NAN, NAN};
}

static void step(flight *f, uint64_t token, flock_point target)
{
    const int32_t n = f->l->n;
    const uint16_t *chosen = chosen_by(f, token);
    const float part = (float)f->c->n_used / (float)(n * FLOCK_LOAD_TOKENS), keep = part < 1 ? 1 - part : 0;
    memset(f->now, 0, (size_t)n * sizeof *f->now);
    uint32_t n_chosen = 0;
    for (; n_chosen < f->c->n_used && chosen[n_chosen] != FLOCK_NOBODY; n_chosen++)
        f->now[chosen[n_chosen]] += 1;
    for (int32_t i = 0; n_chosen > 0 && i < n; i++)
        f->load[i] = keep * f->load[i] + (1 - keep) * f->now[i] * (float)n / (float)n_chosen;
    price_follow(f->price, f->load, n, PRICE_PROPORTIONAL, FLOCK_PRICE_RATE);
    flock_move(f->l, f->at, chosen, n_chosen, target);
}

/* ---- all steps ---- */

static void keep_step(const flight *f, uint64_t token, flock_point target)
{
    const flock_layer *l = f->l;
    const size_t n = (size_t)l->n, at = (size_t)(token - f->s->first);
    memcpy(l->at + at * n, f->at, n * sizeof *f->at);
    memcpy(l->load + at * n, f->load, n * sizeof *f->load);
    memcpy(l->price + at * n, f->price, n * sizeof *f->price);
    memcpy(l->chosen + at * f->s->n_used, chosen_by(f, token), f->c->n_used * sizeof *l->chosen);
    l->target[at] = target;
}

static dil_status make_room(flight *f, dil_error *err)
{
    arena *a = f->s->memory;
    flock_layer *l = f->l;
    const size_t n = (size_t)l->n, all = n * f->s->n_steps;
    l->at = arena_calloc(a, all, sizeof *l->at);
    l->load = arena_calloc(a, all, sizeof *l->load);
    l->price = arena_calloc(a, all, sizeof *l->price);
    l->chosen = arena_calloc(a, (size_t)f->s->n_steps * f->s->n_used, sizeof *l->chosen);
    l->target = arena_calloc(a, f->s->n_steps, sizeof *l->target);
    f->load = arena_calloc(a, n, sizeof *f->load);
    f->now = arena_calloc(a, n, sizeof *f->now);
    f->price = arena_calloc(a, n, sizeof *f->price);
    f->at = arena_calloc(a, n, sizeof *f->at);
    f->before = arena_calloc(a, n, sizeof *f->before);
    if (!l->at || !l->load || !l->price || !l->chosen || !l->target || !f->load || !f->now || !f->price || !f->at || !f->before)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %u steps of %d birds", f->s->n_steps, l->n);
    return DIL_OK;
}

dil_status flock_fly(flock_scene *s, flock_layer *l, const flock_choices *c, dil_error *err)
{
    flight f = {.s = s, .l = l, .c = c};
    DIL_TRY(make_room(&f, err));
    for (int32_t i = 0; i < l->n; i++)
        f.load[i] = 1;
    memcpy(f.at, l->home, (size_t)l->n * sizeof *f.at);
    for (uint64_t token = 0; token < s->first + s->n_steps; token++) {
        flock_point target = target_of(&f, token);
        if (token == s->first)
            memcpy(f.before, f.at, (size_t)l->n * sizeof *f.at);
        step(&f, token, target);
        if (token >= s->first)
            keep_step(&f, token, target);
    }
    return flock_measure(s, l, f.before, err);
}

/* ---- curves ---- */

/* The mean alignment when every bird has the velocity of another one: orders by lot, the same in every run. */
static double align_by_lot(const flock_layer *l, const flock_point *at, const flock_point *velocity, flock_point *dealt,
                           uint64_t *seed)
{
    double sum = 0;
    memcpy(dealt, velocity, (size_t)l->n * sizeof *dealt);
    for (int deal = 0; deal < DEALS; deal++) {
        swarm_order order;
        for (int32_t i = l->n - 1; i > 0; i--) {
            int32_t with = (int32_t)(random_next(seed) % (uint64_t)(i + 1));
            flock_point swapped = dealt[with];
            dealt[with] = dealt[i];
            dealt[i] = swapped;
        }
        swarm_measure(&l->graph, &at[0].x, &dealt[0].x, 2, &order);
        sum += order.alignment / DEALS;
    }
    return sum;
}

static double violation(const float *load, int32_t n)
{
    double most = 0, sum = 0;
    for (int32_t i = 0; i < n; i++) {
        most = fmax(most, (double)load[i]);
        sum += (double)load[i];
    }
    return sum > 0 ? most * n / sum - 1 : 0;
}

/* Curves that are not there yet and can be measured. */
static dil_status make_curves(flock_scene *s, flock_layer *l, dil_error *err)
{
    const bool told = l->curve[FLOCK_ALIGNMENT]; /* chance belongs to an alignment of ours */
    for (int c = 0; c < FLOCK_CURVES; c++) {
        bool can = c == FLOCK_VIOLATION ? l->load != NULL : l->at != NULL;
        if (l->curve[c] || !can || (c == FLOCK_CHANCE && told))
            continue;
        l->curve[c] = arena_calloc(s->memory, s->n_steps, sizeof *l->curve[c]);
        if (!l->curve[c])
            return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for the curves of %u steps", s->n_steps);
    }
    return DIL_OK;
}

static void measure_step(const flock_layer *l, size_t t, const flock_point *last, flock_point *velocity, uint64_t *seed,
                         const bool own[FLOCK_CURVES])
{
    const size_t n = (size_t)l->n;
    const flock_point *at = l->at + t * n;
    double values[FLOCK_CURVES] = {0};
    swarm_order order;
    for (size_t i = 0; i < n; i++)
        velocity[i] = (flock_point){at[i].x - last[i].x, at[i].y - last[i].y};
    swarm_measure(&l->graph, &at[0].x, &velocity[0].x, 2, &order);
    values[FLOCK_ALIGNMENT] = order.alignment;
    values[FLOCK_COHESION] = order.cohesion;
    values[FLOCK_SEPARATION] = order.separation;
    if (own[FLOCK_CHANCE])
        values[FLOCK_CHANCE] = align_by_lot(l, at, velocity, velocity + n, seed);
    if (own[FLOCK_VIOLATION])
        values[FLOCK_VIOLATION] = violation(l->load + t * n, l->n);
    for (int c = 0; c < FLOCK_CURVES; c++)
        if (own[c])
            l->curve[c][t] = values[c];
}

dil_status flock_measure(flock_scene *s, flock_layer *l, const flock_point *before, dil_error *err)
{
    const size_t n = (size_t)l->n;
    uint64_t seed = 7;
    bool own[FLOCK_CURVES];
    for (int c = 0; c < FLOCK_CURVES; c++)
        own[c] = !l->curve[c];
    DIL_TRY(make_curves(s, l, err));
    for (int c = 0; c < FLOCK_CURVES; c++)
        own[c] = own[c] && l->curve[c];
    flock_point *velocity = arena_calloc(s->memory, 2 * n, sizeof *velocity);
    if (!velocity)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %d birds", l->n);
    for (size_t t = 0; t < s->n_steps; t++)
        measure_step(l, t, t ? l->at + (t - 1) * n : before, velocity, &seed, own);
    return DIL_OK;
}

void flock_keep(flock_scene *s, uint32_t from, uint32_t end)
{
    for (int32_t i = 0; i < s->n_layers; i++) {
        flock_layer *l = &s->layers[i];
        const size_t birds = (size_t)l->n * from;
        l->at = l->at ? l->at + birds : NULL;
        l->load = l->load ? l->load + birds : NULL;
        l->price = l->price ? l->price + birds : NULL;
        l->chosen = l->chosen ? l->chosen + (size_t)s->n_used * from : NULL;
        l->target = l->target ? l->target + from : NULL;
        for (int c = 0; c < FLOCK_CURVES; c++)
            l->curve[c] = l->curve[c] ? l->curve[c] + from : NULL;
    }
    s->texts = s->texts ? s->texts + from : NULL;
    s->first += from;
    s->n_steps = end - from;
}
