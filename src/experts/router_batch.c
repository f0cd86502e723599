/*
 * Tokens of a batch share the cost of loading experts: the congestion game of theorem/game.h with marginal costs, in incremental form
 * because each token has very many strategies. Its potential is what all pay together:
 *
 *     Phi = sum over tokens of the mass taken away + price * number of experts somebody loads
 *
 * A best response needs no list of strategies: only experts nobody else loads cost the price, exchanging one saves it and costs the
 * weight, so the cheapest weights go first while they are below the price and fit the budget. Moves of one token alone cannot take
 * out an expert that two tokens load; the start does that: whole experts leave, cheapest first, when all who load them can and
 * together gain. Where it stops nobody gains by changing alone (an expert with one user was tried too, and what it needs only becomes
 * scarcer): the sweep that follows proves it. Best responses without the start stop at equilibria that are much worse.
 */
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "experts/router_internal.h"

enum { MOST_SWEEPS = 64 };
#define LEAST_GAIN 1e-9

typedef struct batch {
    const router_rule *r;
    const router_offer *o;
    uint32_t n_tokens, k;
    float *values;   /* [n_tokens][n_experts] */
    uint16_t *exact; /* [n_tokens][k] by rank */
    uint16_t *now;   /* [n_tokens][k]: what stands in the place of each rank */
    float *share;    /* [n_tokens][k]: of the exact weight of each rank */
    uint16_t *order; /* [n_tokens][k]: ranks by share, smallest first */
    double *mass;    /* [n_tokens] */
    uint32_t *users; /* [n_experts]: tokens that have it in their set now */
    uint16_t *reply; /* [k]: an answer in the making */
    float *spare;    /* [n_experts] */
} batch;

/* ---- costs ---- */

static bool is_free(const batch *b, uint32_t expert) { return b->o->resident && b->o->resident[expert]; }
static bool is_loaded(const batch *b, uint32_t expert) { return b->users[expert] > 0 || is_free(b, expert); }

static uint32_t count_loaded(const batch *b)
{
    uint32_t n = 0;
    for (uint32_t e = 0; e < b->r->n_experts; e++)
        n += b->users[e] > 0 && !is_free(b, e);
    return n;
}

static double potential(const batch *b)
{
    double sum = (double)b->o->price * count_loaded(b);
    for (uint32_t t = 0; t < b->n_tokens; t++)
        sum += b->mass[t];
    return sum;
}

static bool affordable(const batch *b, double mass) { return mass <= (double)b->o->budget; }

static double share_of(const batch *b, uint32_t t, uint32_t rank) { return (double)b->share[(size_t)t * b->k + rank]; }

/* The best expert for a token among those loaded already, outside of `set`; n_experts: none. It is none of the exact set that was
 * exchanged: those are not loaded any more. */
static uint32_t substitute(const batch *b, uint32_t t, const uint16_t *set)
{
    const float *values = b->values + (size_t)t * b->r->n_experts;
    uint32_t best = b->r->n_experts;
    for (uint32_t e = 0; e < b->r->n_experts; e++) {
        bool better = values[e] > (best < b->r->n_experts ? values[best] : -INFINITY) && is_loaded(b, e);
        if (better && !router_holds(set, b->k, e))
            best = e;
    }
    return best;
}

/* ---- setting up ---- */

static void sort_ranks(const float *share, uint32_t k, uint16_t *order)
{
    for (uint32_t i = 0; i < k; i++) {
        uint32_t at = i;
        for (; at > 0 && share[i] <= share[order[at - 1]]; at--)
            order[at] = order[at - 1];
        order[at] = (uint16_t)i;
    }
}

static void start_token(batch *b, uint32_t t, const float *scores, float *weights)
{
    const router_rule *r = b->r;
    size_t at = (size_t)t * b->k;
    float *values = b->values + (size_t)t * r->n_experts, sum = 0.0f;
    router_norm norm = router_values(r, scores, values, b->spare);
    router_pick(values, r->n_experts, b->k, b->exact + at);
    router_weigh(r, scores, norm, b->exact + at, weights);
    for (uint32_t i = 0; i < b->k; i++)
        sum += weights[i];
    for (uint32_t i = 0; i < b->k; i++) {
        b->share[at + i] = sum > 0.0f ? weights[i] / sum : INFINITY; /* infinite: nothing may go */
        b->users[b->exact[at + i]]++;
    }
    memcpy(b->now + at, b->exact + at, b->k * sizeof *b->now);
    sort_ranks(b->share + at, b->k, b->order + at);
}

static void batch_close(batch *b)
{
    void *all[] = {b->values, b->exact, b->share, b->mass, b->users};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

static dil_status batch_open(batch *b, dil_error *err)
{
    size_t places = (size_t)b->n_tokens * b->k, n = b->r->n_experts;
    b->values = mem_calloc((b->n_tokens + (size_t)1) * n, sizeof *b->values, MEM_ACTIVATIONS);
    b->exact = mem_calloc(3 * places + b->k, sizeof *b->exact, MEM_ACTIVATIONS);
    b->share = mem_calloc(places, sizeof *b->share, MEM_ACTIVATIONS);
    b->mass = mem_calloc(b->n_tokens, sizeof *b->mass, MEM_ACTIVATIONS);
    b->users = mem_calloc(n, sizeof *b->users, MEM_ACTIVATIONS);
    if (!b->values || !b->exact || !b->share || !b->mass || !b->users) {
        batch_close(b);
        return DIL_FAIL(err, DIL_NO_MEMORY, "router: no memory for a batch of %u tokens", b->n_tokens);
    }
    b->spare = b->values + b->n_tokens * n;
    b->now = b->exact + places;
    b->order = b->now + places;
    b->reply = b->order + places;
    return DIL_OK;
}

/* ---- the start: whole experts leave ---- */

/* Whether all who load an expert can do without it; really: they do. */
static bool leave(batch *b, uint32_t expert, bool really)
{
    for (uint32_t t = 0; t < b->n_tokens; t++) {
        uint16_t *now = b->now + (size_t)t * b->k;
        uint32_t rank = 0;
        while (rank < b->k && now[rank] != expert)
            rank++;
        if (rank == b->k)
            continue;
        bool first = b->exact[(size_t)t * b->k + rank] == expert; /* else it stands in for another one already */
        double more = first ? share_of(b, t, rank) : 0.0;
        uint32_t other = substitute(b, t, now);
        if (rank < b->o->keep || !affordable(b, b->mass[t] + more) || other == b->r->n_experts)
            return false;
        if (really) {
            now[rank] = (uint16_t)other;
            b->mass[t] += more;
            b->users[other]++;
        }
    }
    if (really)
        b->users[expert] = 0;
    return true;
}

/* What the tokens would lose with each expert; infinite where nothing is loaded for it. */
static void weigh_experts(const batch *b, float *weight)
{
    for (uint32_t e = 0; e < b->r->n_experts; e++)
        weight[e] = b->users[e] > 0 && !is_free(b, e) ? 0.0f : INFINITY;
    for (size_t i = 0; i < (size_t)b->n_tokens * b->k; i++)
        weight[b->now[i]] += b->now[i] == b->exact[i] ? b->share[i] : 0.0f;
}

/* One try each: as others leave, masses grow and substitutes become fewer, so who could not leave cannot later. */
static void take_out(batch *b)
{
    weigh_experts(b, b->spare);
    for (;;) {
        uint32_t least = 0;
        for (uint32_t e = 1; e < b->r->n_experts; e++)
            least = b->spare[e] < b->spare[least] ? e : least;
        if (!((double)b->spare[least] < (double)b->o->price))
            return;
        if (leave(b, least, false))
            (void)leave(b, least, true);
        b->spare[least] = INFINITY;
    }
}

/* ---- best responses ---- */

static void count(batch *b, const uint16_t *set, uint32_t by)
{
    for (uint32_t i = 0; i < b->k; i++)
        b->users[set[i]] += by;
}

/* What a token pays for a set; it is not counted among the users. */
static double pays(const batch *b, const uint16_t *set, double mass)
{
    for (uint32_t i = 0; i < b->k; i++)
        mass += is_loaded(b, set[i]) ? 0.0 : (double)b->o->price;
    return mass;
}

/* The best set of a token that is not counted among the users, into b->reply; returns its mass. */
static double answer(batch *b, uint32_t t)
{
    const uint16_t *exact = b->exact + (size_t)t * b->k, *order = b->order + (size_t)t * b->k;
    double mass = 0.0;
    memcpy(b->reply, exact, b->k * sizeof *exact);
    for (uint32_t i = 0; i < b->k; i++) {
        uint32_t rank = order[i];
        double more = share_of(b, t, rank);
        if (rank < b->o->keep || is_loaded(b, exact[rank]))
            continue;
        uint32_t other = substitute(b, t, b->reply);
        if (!(more < (double)b->o->price) || !affordable(b, mass + more) || other == b->r->n_experts)
            break;
        b->reply[rank] = (uint16_t)other;
        mass += more;
    }
    return mass;
}

static bool respond(batch *b, uint32_t t)
{
    uint16_t *now = b->now + (size_t)t * b->k;
    count(b, now, (uint32_t)-1);
    double mass = answer(b, t);
    bool moves = pays(b, b->reply, mass) < pays(b, now, b->mass[t]) - LEAST_GAIN;
    if (moves) {
        memcpy(now, b->reply, b->k * sizeof *now);
        b->mass[t] = mass;
    }
    count(b, now, 1);
    return moves;
}

static void settle(batch *b, router_batch_report *out)
{
    while (!out->settled && out->sweeps < MOST_SWEEPS) {
        uint32_t before = out->moves;
        for (uint32_t t = 0; t < b->n_tokens; t++)
            out->moves += respond(b, t);
        out->sweeps++;
        out->settled = out->moves == before;
    }
}

/* ---- results ---- */

/* weights hold the exact ones by rank and become those of the new set. */
static router_moved finish_token(batch *b, uint32_t t, const float *scores, uint16_t *chosen, float *weights)
{
    const uint16_t *exact = b->exact + (size_t)t * b->k;
    float *values = b->values + (size_t)t * b->r->n_experts, *before = b->share + (size_t)t * b->k;
    router_moved moved = {.mass = b->mass[t]};
    memcpy(chosen, b->now + (size_t)t * b->k, b->k * sizeof *chosen);
    memcpy(before, weights, b->k * sizeof *before);
    router_rank(values, b->k, chosen);
    router_norm norm = router_values(b->r, scores, values, b->spare);
    router_weigh(b->r, scores, norm, chosen, weights);
    moved.n_changed = b->k - router_common(chosen, exact, b->k);
    moved.change = router_change(exact, before, chosen, weights, b->k);
    return moved;
}

dil_status router_batch(const router_rule *r, const float *scores, size_t stride, uint32_t n_tokens, const router_offer *o,
                        uint16_t *chosen, float *weights, router_moved *moved, router_batch_report *out, dil_error *err)
{
    batch b = {.r = r, .o = o, .n_tokens = n_tokens, .k = r->n_used};
    DIL_TRY(batch_open(&b, err));
    for (uint32_t t = 0; t < n_tokens; t++)
        start_token(&b, t, scores + t * stride, weights + (size_t)t * b.k);
    *out = (router_batch_report){.n_before = count_loaded(&b), .potential_before = potential(&b)};
    if (!o->alone)
        take_out(&b);
    settle(&b, out);
    out->n_after = count_loaded(&b);
    out->potential = potential(&b);
    for (uint32_t t = 0; t < n_tokens; t++) {
        router_moved m = finish_token(&b, t, scores + t * stride, chosen + (size_t)t * b.k, weights + (size_t)t * b.k);
        out->most_mass = m.mass > out->most_mass ? m.mass : out->most_mass;
        if (moved)
            moved[t] = m;
    }
    batch_close(&b);
    return DIL_OK;
}
