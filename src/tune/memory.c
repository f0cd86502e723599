#include "tune/memory.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "theorem/game.h"

enum { PLAYER_CACHE, PLAYER_PASS, PLAYER_EXPERTS, N_PLAYERS, MOST_STRATEGIES = 160 };

#define LEAST_CONTEXT 512
#define LEAST_PASS 32

/*
 * What is lost, in one currency: 1 is about a hundredth of the worth of a run. Half the context: 10. Keys and values of 8 bits: 1, of
 * 4 bits: 15, values alone: 4 (docs/PERFORMANCE.md has their divergences). Half the tokens of a pass: 1, a few hundredths of the speed of prompts.
 * Experts out of memory: 60 for all, in proportion: reading them anew is what generation waits for.
 */
#define COST_CONTEXT 10.0
#define COST_PASS 1.0
#define COST_EXPERTS 60.0

static const struct {
    dil_type k, v;
    double cost;
} cache_types[] = {{DIL_TYPE_F16, DIL_TYPE_F16, 0},
                   {DIL_TYPE_Q8_0, DIL_TYPE_Q8_0, 1},
                   {DIL_TYPE_Q8_0, DIL_TYPE_Q4_0, 4},
                   {DIL_TYPE_Q4_0, DIL_TYPE_Q4_0, 15}};
static const double expert_parts[] = {1, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625};

/* A strategy: its value of what the player chooses. */
typedef struct strategy {
    int32_t context, micro_batch;
    dil_type k, v;
    uint64_t experts; /* as engine_options.experts_memory */
} strategy;

typedef struct choices {
    const model *m;
    engine_options *o; /* as resolved: what is tried starts from it */
    const memory_freedom *may;
    int32_t first[N_PLAYERS + 1];
    double cost[MOST_STRATEGIES], use[MOST_STRATEGIES];
    strategy s[MOST_STRATEGIES];
    int32_t n;
} choices;

static strategy as_it_is(const engine_options *o)
{
    return (strategy){o->context, o->micro_batch, o->type_k, o->type_v, o->experts_memory};
}

static engine_options with(const choices *c, const strategy *s)
{
    engine_options o = *c->o;
    o.context = s->context;
    o.micro_batch = s->micro_batch;
    o.type_k = s->k;
    o.type_v = s->v;
    o.experts_memory = s->experts;
    return o;
}

static void add(choices *c, const strategy *s, double cost, uint64_t bytes)
{
    c->s[c->n] = *s;
    c->cost[c->n] = cost;
    c->use[c->n++] = (double)bytes;
}

/* Bytes of the player's own part of the plan; 0: these options cannot be. */
static uint64_t own_bytes(const choices *c, int player, const strategy *s)
{
    engine_plan p;
    dil_error ignored;
    const engine_options o = with(c, s);
    if (engine_plan_model(&p, c->m, &o, &ignored) != DIL_OK)
        return 0;
    return player == PLAYER_CACHE  ? p.kv_bytes
           : player == PLAYER_PASS ? p.activation_bytes
           : s->experts            ? s->experts
                                   : p.expert_bytes;
}

static void add_caches(choices *c)
{
    const strategy now = as_it_is(c->o);
    for (int32_t context = now.context, halvings = 0; halvings == 0 || (c->may->context && context >= LEAST_CONTEXT);
         context /= 2, halvings++)
        for (size_t i = 0; i < sizeof cache_types / sizeof *cache_types; i++) {
            strategy s = now;
            s.context = context;
            if ((!c->may->type_k && cache_types[i].k != now.k && i > 0) || (!c->may->type_v && cache_types[i].v != now.v && i > 0))
                continue;
            s.k = c->may->type_k ? cache_types[i].k : now.k;
            s.v = c->may->type_v ? cache_types[i].v : now.v;
            const uint64_t bytes = own_bytes(c, PLAYER_CACHE, &s);
            if (bytes)
                add(c, &s, COST_CONTEXT * halvings + cache_types[i].cost, bytes);
        }
}

static void add_passes(choices *c)
{
    strategy s = as_it_is(c->o);
    for (int halvings = 0; halvings == 0 || (c->may->micro_batch && s.micro_batch >= LEAST_PASS); s.micro_batch /= 2, halvings++)
        add(c, &s, COST_PASS * halvings, own_bytes(c, PLAYER_PASS, &s));
}

static void add_experts(choices *c, uint64_t all)
{
    strategy s = as_it_is(c->o);
    const int n = c->may->experts && all > 0 ? (int)(sizeof expert_parts / sizeof *expert_parts) : 1;
    for (int i = 0; i < n; i++) {
        s.experts = i > 0 ? (uint64_t)((double)all * expert_parts[i]) : s.experts;
        add(c, &s, COST_EXPERTS * (1 - expert_parts[i]), own_bytes(c, PLAYER_EXPERTS, &s));
    }
}

static void take(engine_options *o, const choices *c, const int32_t *state)
{
    o->context = c->s[c->first[PLAYER_CACHE] + state[PLAYER_CACHE]].context;
    o->type_k = c->s[c->first[PLAYER_CACHE] + state[PLAYER_CACHE]].k;
    o->type_v = c->s[c->first[PLAYER_CACHE] + state[PLAYER_CACHE]].v;
    o->micro_batch = c->s[c->first[PLAYER_PASS] + state[PLAYER_PASS]].micro_batch;
    o->experts_memory = c->s[c->first[PLAYER_EXPERTS] + state[PLAYER_EXPERTS]].experts;
}

/* The process grows a little while it plans: all plans are compared as at the first. */
static void same_program(engine_plan *p, const engine_plan *first)
{
    p->total_bytes = p->total_bytes - p->program_bytes + first->program_bytes;
    p->program_bytes = first->program_bytes;
}

/* What the game left over goes to the context, up to what was there before. */
static void lengthen(engine_options *o, const choices *c, int32_t most, const engine_plan *first)
{
    engine_plan p;
    dil_error ignored;
    for (int32_t step = most / 2 / KV_PAGE * KV_PAGE; step >= KV_PAGE; step = step / 2 / KV_PAGE * KV_PAGE) {
        engine_options longer = *o;
        longer.context = o->context + step < most ? o->context + step : most;
        if (longer.context > o->context && engine_plan_model(&p, c->m, &longer, &ignored) == DIL_OK &&
            p.total_bytes - p.program_bytes + first->program_bytes <= o->memory_bytes)
            *o = longer;
    }
}

static dil_status refuse(const choices *c, const char *path, const memory_report *r, dil_error *err)
{
    char need[32], have[32], file[32];
    const uint64_t budget = c->o->memory_bytes, other = r->least_bytes - r->before.packed_bytes + r->before.expert_bytes;
    str_bytes(r->least_bytes, need, sizeof need);
    str_bytes(budget, have, sizeof have);
    if (r->before.expert_bytes == 0 && budget > other)
        return DIL_FAIL(err, DIL_NO_MEMORY,
                        "%s: needs at least %s, --memory allows %s; weights of at most %s would fit (dil quantize --size)", path,
                        need, have, str_bytes(budget - other, file, sizeof file));
    return DIL_FAIL(err, DIL_NO_MEMORY, "%s: needs at least %s, --memory allows %s; a smaller model needs less", path, need, have);
}

/* The parts' own bytes add up, but for the few that depend on two of them: the budget shrinks by what was too much, and again. */
static dil_status play(choices *c, const char *path, memory_report *r, dil_error *err)
{
    const engine_options asked = *c->o;
    const game g = {.n_players = N_PLAYERS, .first = c->first, .cost = c->cost, .use = c->use};
    const uint64_t fixed = r->before.total_bytes - r->before.kv_bytes - r->before.activation_bytes -
                           (r->before.experts_memory ? r->before.experts_memory : r->before.expert_bytes);
    int32_t state[N_PLAYERS];
    game_fit_report fit;
    double budget = (double)asked.memory_bytes - (double)fixed, least = (double)fixed;
    for (int i = 0; i < N_PLAYERS; i++) {
        double smallest = INFINITY;
        for (int32_t s = c->first[i]; s < c->first[i + 1]; s++)
            smallest = fmin(smallest, c->use[s]);
        least += smallest;
    }
    r->least_bytes = (uint64_t)least;
    for (int tries = 0; tries < 8; tries++) {
        engine_options o = asked;
        dil_error ignored;
        if (budget <= 0 || game_fit(&g, budget, &(game_options){0}, state, &fit, &ignored) != DIL_OK)
            break;
        take(&o, c, state);
        DIL_TRY(engine_plan_model(&r->after, c->m, &o, err));
        same_program(&r->after, &r->before);
        if (r->after.total_bytes <= asked.memory_bytes) {
            if (c->may->context)
                lengthen(&o, c, asked.context, &r->before);
            *c->o = o;
            r->price = fit.price;
            DIL_TRY(engine_plan_model(&r->after, c->m, c->o, err));
            same_program(&r->after, &r->before);
            return DIL_OK;
        }
        budget -= (double)(r->after.total_bytes - asked.memory_bytes) + 1;
    }
    return refuse(c, path, r, err);
}

static dil_status fit_model(choices *c, const char *path, memory_report *r, dil_error *err)
{
    DIL_TRY(engine_plan_model(&r->before, c->m, c->o, err));
    r->after = r->before;
    r->least_bytes = r->before.total_bytes;
    c->o->context = r->before.context;
    c->o->micro_batch = r->before.micro_batch;
    if (r->before.total_bytes <= c->o->memory_bytes)
        return DIL_OK;
    void (*const players[])(choices *) = {add_caches, add_passes};
    for (int i = 0; i < 2; i++) {
        players[i](c);
        c->first[i + 1] = c->n;
    }
    add_experts(c, r->before.expert_bytes);
    c->first[N_PLAYERS] = c->n;
    r->changed = true;
    return play(c, path, r, err);
}

dil_status memory_fit(engine_options *o, const char *path, const memory_freedom *may, memory_report *r, dil_error *err)
{
    model *m;
    engine_options tried = *o;
    choices c = {.o = &tried, .may = may};
    memset(r, 0, sizeof *r);
    if (o->memory_bytes == 0)
        return DIL_OK;
    DIL_TRY(model_open(&m, path, &(model_options){.header_only = true, .no_vocab = o->no_vocab}, err));
    c.m = m;
    dil_status status = fit_model(&c, path, r, err);
    model_close(m);
    if (status == DIL_OK) {
        tried.memory_bytes = 0; /* settled */
        *o = tried;
    }
    return status;
}
