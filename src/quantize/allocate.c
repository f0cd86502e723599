#include "quantize/allocate.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "theorem/game.h"
#include "theorem/random.h"

#define CELLS 20000      /* of the budget, for dynamic programming */
#define RANDOM_FILES 200 /* whose mean is the baseline of chance */
#define PADDING 16       /* bytes a tensor may be padded by, on average */

/* The game's arrays. */
typedef struct tables {
    int32_t n, n_strategies, *first, *state;
    double *cost, *use, *seconds; /* [strategies]; cost: what is played for, seconds with their price among it */
    double second_price;
} tables;

static void tables_free(tables *t)
{
    mem_free(t->first);
    mem_free(t->state);
    mem_free(t->cost);
    mem_free(t->use);
    mem_free(t->seconds);
}

static dil_status tables_new(tables *t, const players *p, double second_price, dil_error *err)
{
    t->second_price = second_price;
    t->n = p->n;
    for (int i = 0; i < p->n; i++)
        t->n_strategies += p->p[i].n_choices;
    t->first = mem_alloc(((size_t)p->n + 1) * sizeof *t->first, MEM_MISC);
    t->state = mem_calloc((size_t)p->n + 1, sizeof *t->state, MEM_MISC);
    t->cost = mem_alloc(((size_t)t->n_strategies + 1) * sizeof *t->cost, MEM_MISC);
    t->use = mem_alloc(((size_t)t->n_strategies + 1) * sizeof *t->use, MEM_MISC);
    t->seconds = mem_alloc(((size_t)t->n_strategies + 1) * sizeof *t->seconds, MEM_MISC);
    if (!t->first || !t->state || !t->cost || !t->use || !t->seconds)
        return DIL_FAIL(err, DIL_NO_MEMORY, "allocation: no memory for %d matrices", p->n);
    int32_t at = 0;
    for (int i = 0; i < p->n; i++) {
        t->first[i] = at;
        for (int c = 0; c < p->p[i].n_choices; c++, at++) {
            t->seconds[at] = p->p[i].choice[c].seconds;
            t->cost[at] = p->p[i].choice[c].cost + second_price * t->seconds[at];
            t->use[at] = (double)p->p[i].choice[c].bytes;
        }
    }
    t->first[p->n] = at;
    return DIL_OK;
}

static double sum_of(const tables *t, const double *of, const int32_t *state)
{
    double sum = 0;
    for (int32_t i = 0; i < t->n; i++)
        sum += of[t->first[i] + state[i]];
    return sum;
}

static double cost_of(const tables *t, const int32_t *state) { return sum_of(t, t->cost, state); }
static double use_of(const tables *t, const int32_t *state) { return sum_of(t, t->use, state); }

/* ---- other ways ---- */

/* cost: with the price of the seconds, which is taken out again. */
static allocate_baseline *add_way(allocate_report *r, const tables *t, const char *name, uint64_t bytes, double cost,
                                  double seconds)
{
    r->baseline[r->n_baselines] =
        (allocate_baseline){.name = name, .bytes = bytes, .cost = cost - t->second_price * seconds, .seconds = seconds};
    return &r->baseline[r->n_baselines++];
}

static void add_baseline(allocate_report *r, const tables *t, const players *p, const char *name, const int32_t *state)
{
    add_way(r, t, name, p->fixed_bytes + (uint64_t)use_of(t, state), cost_of(t, state), sum_of(t, t->seconds, state));
}

static bool can_take(const player *p, dil_type type, int *choice)
{
    for (*choice = 0; *choice < p->n_choices; ++*choice)
        if (p->choice[*choice].type == type)
            return true;
    return false;
}

/* The best file with one format for all, or the narrowest wider one where it does not fit. */
static void uniform(const tables *t, const players *p, double budget, int32_t *state, allocate_report *r)
{
    double best = INFINITY, best_use = 0, best_seconds = 0;
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const format *f = format_get((dil_type)type);
        bool all = f != NULL, any = false;
        for (int i = 0; all && i < p->n; i++) {
            int c;
            bool takes = can_take(&p->p[i], (dil_type)type, &c);
            any = any || takes;
            if (!takes) {
                double wanted = (double)f->block_bytes / f->block_values * (double)p->p[i].n * p->p[i].rows * p->p[i].columns;
                for (c = 0; c < p->p[i].n_choices && (double)p->p[i].choice[c].bytes < wanted; c++) {}
                all = c < p->p[i].n_choices;
            }
            state[i] = c;
        }
        if (all && any && use_of(t, state) <= budget && cost_of(t, state) < best) {
            best = cost_of(t, state);
            best_use = use_of(t, state);
            best_seconds = sum_of(t, t->seconds, state);
        }
    }
    if (best < INFINITY)
        add_way(r, t, N_("uniform"), p->fixed_bytes + (uint64_t)best_use, best, best_seconds);
}

/* From the smallest file up: always the step that saves most per byte. */
static void greedy(const tables *t, const players *p, double budget, int32_t *state, allocate_report *r)
{
    double use = 0;
    memset(state, 0, (size_t)t->n * sizeof *state);
    use = use_of(t, state);
    for (;;) {
        int32_t best = -1, to = 0;
        double yield = 0;
        for (int32_t i = 0; i < t->n; i++)
            for (int32_t c = state[i] + 1; c < t->first[i + 1] - t->first[i]; c++) {
                double more = t->use[t->first[i] + c] - t->use[t->first[i] + state[i]];
                double gain = t->cost[t->first[i] + state[i]] - t->cost[t->first[i] + c];
                if (more > 0 && use + more <= budget && gain / more > yield) {
                    yield = gain / more;
                    best = i;
                    to = c;
                }
            }
        if (best < 0)
            break;
        use += t->use[t->first[best] + to] - t->use[t->first[best] + state[best]];
        state[best] = to;
    }
    add_baseline(r, t, p, N_("greedy"), state);
}

/* Random steps up from the smallest file until none fits: the mean of many. */
static void chance(const tables *t, const players *p, double budget, int32_t *state, allocate_report *r)
{
    uint64_t seed = 1;
    double cost = 0, use = 0, seconds = 0;
    for (int file = 0; file < RANDOM_FILES; file++) {
        memset(state, 0, (size_t)t->n * sizeof *state);
        double used = use_of(t, state);
        for (int misses = 0; misses < 4 * t->n;) {
            int32_t i = (int32_t)(random_next(&seed) % (uint64_t)t->n), c = state[i] + 1;
            double more = c < t->first[i + 1] - t->first[i] ? t->use[t->first[i] + c] - t->use[t->first[i] + state[i]] : INFINITY;
            if (used + more > budget) {
                misses++;
                continue;
            }
            used += more;
            state[i] = c;
        }
        cost += cost_of(t, state) / RANDOM_FILES;
        use += used / RANDOM_FILES;
        seconds += sum_of(t, t->seconds, state) / RANDOM_FILES;
    }
    add_way(r, t, N_("random"), p->fixed_bytes + (uint64_t)use, cost, seconds);
}

/* The file of a mixture; 0: one of its formats is not offered. */
static uint64_t recipe_bytes(int recipe, const recipe_model *m, const players *p, int32_t *state)
{
    uint64_t sum = p->fixed_bytes;
    for (int i = 0; i < p->n; i++) {
        int c;
        if (!can_take(&p->p[i], recipe_type(recipe, m, &p->p[i]), &c))
            return 0;
        state[i] = c;
        sum += players_padded(p->p[i].choice[c].bytes);
    }
    return sum;
}

/* llama.cpp's largest mixture that is not larger than wanted; of equal ones the best. */
static void mixture(const tables *t, const players *p, const allocate_goal *goal, int32_t *state, allocate_report *r)
{
    int best = -1;
    uint64_t best_bytes = 0;
    double best_cost = 0, best_seconds = 0;
    for (int i = 0; i < recipe_count(); i++) {
        uint64_t bytes = recipe_bytes(i, &goal->model, p, state);
        if (bytes == 0 || bytes > goal->file_bytes || bytes < best_bytes)
            continue;
        double cost = cost_of(t, state);
        if (bytes > best_bytes || cost < best_cost) {
            best = i;
            best_bytes = bytes;
            best_cost = cost;
            best_seconds = sum_of(t, t->seconds, state);
        }
    }
    if (best >= 0)
        add_way(r, t, "llama.cpp", best_bytes, best_cost, best_seconds)->recipe = recipe_name(best);
}

/* best: the cheaper of the greedy answer and that of dynamic programming; both fit. state: work space. */
static dil_status baselines(const game *g, const tables *t, const players *p, const allocate_goal *goal, double budget,
                            int32_t *best, int32_t *state, allocate_report *r, dil_error *err)
{
    double cost;
    uniform(t, p, budget, state, r);
    if (goal->model.n_layer > 0)
        mixture(t, p, goal, state, r);
    greedy(t, p, budget, best, r);
    chance(t, p, budget, state, r);
    dil_status status = game_by_cells(g, budget, CELLS, state, &cost, NULL, err);
    if (status == DIL_OK) {
        add_baseline(r, t, p, N_("dynamic programming"), state);
        if (cost_of(t, state) < cost_of(t, best))
            memcpy(best, state, (size_t)t->n * sizeof *best);
    }
    return status == DIL_LIMIT ? DIL_OK : status;
}

/* ---- the game ---- */

/* Of files with the narrowest (last: false) or the widest formats. */
static uint64_t extreme_bytes(const players *p, bool last)
{
    uint64_t sum = p->fixed_bytes + (uint64_t)p->n * PADDING;
    for (int i = 0; i < p->n; i++)
        sum += p->p[i].choice[last ? p->p[i].n_choices - 1 : 0].bytes;
    return sum;
}

dil_status allocate_size(players *p, const allocate_goal *goal, allocate_report *out, dil_error *err)
{
    tables t = {0};
    game_fit_report fit;
    allocate_report r = {0};
    const double budget = (double)goal->file_bytes - (double)p->fixed_bytes - (double)p->n * PADDING;
    if (goal->file_bytes < extreme_bytes(p, false))
        return DIL_FAIL(err, DIL_LIMIT, "size: wanted at least %llu bytes, which the narrowest formats that fit need, found %llu",
                        (unsigned long long)extreme_bytes(p, false), (unsigned long long)goal->file_bytes);
    dil_status status = tables_new(&t, p, goal->second_price, err);
    game g = {.n_players = t.n, .first = t.first, .cost = t.cost, .use = t.use};
    int32_t *start = mem_calloc(2 * (size_t)p->n + 1, sizeof *start, MEM_MISC);
    if (status == DIL_OK && !start)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "allocation: no memory for %d matrices", p->n);
    if (status == DIL_OK)
        status = baselines(&g, &t, p, goal, budget, start, start + p->n, &r, err);
    game_options options = {.start = start};
    if (status == DIL_OK)
        status = game_fit(&g, budget, &options, t.state, &fit, err);
    if (status == DIL_OK) {
        for (int i = 0; i < p->n; i++)
            p->p[i].chosen = t.state[i];
        r.price = fit.price;
        r.gap = fit.gap > fit.swap_gap ? fit.gap : fit.swap_gap;
        r.bound = fit.bound;
        add_baseline(&r, &t, p, N_("game"), t.state);
        *out = r;
    }
    mem_free(start);
    tables_free(&t);
    return status;
}

dil_status allocate_cost(players *p, double cost, const allocate_goal *goal, allocate_report *out, dil_error *err)
{
    allocate_goal at = *goal;
    uint64_t low = extreme_bytes(p, false), high = extreme_bytes(p, true);
    low = goal->file_bytes < low ? low : goal->file_bytes < high ? goal->file_bytes : high;
    at.file_bytes = high;
    DIL_TRY(allocate_size(p, &at, out, err));
    const double least_cost = players_cost(p);
    if (!(least_cost <= cost))
        return DIL_FAIL(err, DIL_LIMIT,
                        "quality budget: wanted an expected divergence of at most %.3g nats per token, found %.3g with the "
                        "widest formats",
                        cost, least_cost);
    at.file_bytes = low;
    DIL_TRY(allocate_size(p, &at, out, err));
    if (players_cost(p) <= cost)
        return DIL_OK;
    while (high - low > high / 1000) { /* high fits the cost, low does not */
        at.file_bytes = low + (high - low) / 2;
        DIL_TRY(allocate_size(p, &at, out, err));
        *(players_cost(p) <= cost ? &high : &low) = at.file_bytes;
    }
    at.file_bytes = high;
    return allocate_size(p, &at, out, err);
}
