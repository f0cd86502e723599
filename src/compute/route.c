/*
 * Which experts a token takes: scores of all experts (route), then the choice (choose), in one of four ways. Only the exact way and
 * the certified one, which gives the same from fewer bytes, leave the model as it is; the others say what they changed.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "compute/exec.h"
#include "experts/router.h"

router_rule route_rule(const compute *c, uint32_t layer_index)
{
    const expert_params *p = &c->h->experts;
    return (router_rule){p->gating,        p->n_experts, p->n_used, p->n_groups,
                         p->n_groups_used, p->normalise, p->scale,  c->m->layers[layer_index].moe->choice_bias};
}

/* Whether rows of this step are chosen for without all scores: few ones; many share one reading of the router anyway. */
static bool screened(const compute *c, const step *s)
{
    return c->screens && c->screens[s->layer] && step_rows(c, s) <= COMPUTE_FEW_ROWS;
}

void step_route(compute *c, const step *s, int worker)
{
    const expert_layer *e = layer_experts(c, s);
    const weight *w = &e->router;
    expert_batch *b = &c->moe;
    if (screened(c, s) || c->options.route.mode == ROUTE_NEIGHBOURS)
        return;
    split parts = split_matrix(c, s->kind, w->n_panels, w->n_panels, 1, step_rows(c, s), w->panel_bytes);
    uint32_t index;
    for (claims cl = claims_begin(c, worker); claims_next(&cl, parts.n_items, &index);) {
        tile it = split_tile(c, &parts, cl.part, index);
        int first = it.panel * PANEL_ROWS;
        float *y = b->scores + (size_t)it.row * b->score_stride + first;
        linear(c, w, &c->nrm.view, it.panel, it.n_panels, it.row, it.n_rows, y, b->score_stride, &c->scratch[worker]);
        add_bias(y, b->score_stride, e->router_bias, first, chunk_values(w, it.panel, it.n_panels), it.n_rows, c->k);
    }
}

/* ---- the four ways ---- */

static const float *row_state(const compute *c, int32_t row) { return c->nrm.f + (size_t)row * c->nrm.view.f_stride; }

static void count_evidence(route_counts *to, const router_evidence *e)
{
    to->n_scored += e->n_scored;
    to->n_fell_back += e->fell_back;
    to->read_bytes += e->read_bytes;
    to->full_bytes += e->full_bytes;
}

static void count_moved(route_counts *to, const router_moved *m)
{
    to->mass += m->mass;
    to->change += m->change;
    to->most_mass = m->mass > to->most_mass ? m->mass : to->most_mass;
    to->n_changed += m->n_changed;
}

static void choose_exact(compute *c, const step *s, const router_rule *rule, int32_t row, worker_scratch *ws)
{
    expert_batch *b = &c->moe;
    size_t at = (size_t)row * rule->n_used;
    router_evidence seen;
    if (screened(c, s)) {
        router_certified(c->screens[s->layer], rule, row_state(c, row), ws->routing, b->chosen + at, b->weights + at, &seen);
        count_evidence(&ws->routed, &seen);
    } else {
        router_exact(rule, b->scores + (size_t)row * b->score_stride, b->chosen + at, b->weights + at, ws->choosing);
    }
}

/* Each token after the one before it; what the layer remembers belongs to one sequence, as long as that goes on where it ended. */
static void choose_by_neighbours(compute *c, const step *s, const router_rule *rule, worker_scratch *ws)
{
    expert_batch *b = &c->moe;
    router_memory *memory = c->memories[s->layer];
    int32_t run = 0; /* route_begin cleared what does not go on */
    for (int32_t row = 0; row < step_rows(c, s); row++) {
        int32_t t = s->on_outputs ? c->token_of[row] : row;
        size_t at = (size_t)row * rule->n_used;
        router_evidence seen;
        if (c->run_of[t] != run)
            router_memory_clear(memory);
        run = c->run_of[t];
        router_local(c->screens[s->layer], rule, row_state(c, row), memory, ws->routing, b->chosen + at, b->weights + at, &seen);
        count_evidence(&ws->routed, &seen);
    }
}

void route_begin(compute *c)
{
    const batch_run *first = &c->runs[0], *last = &c->runs[c->n_runs - 1];
    bool goes_on = first->seq == c->routed_seq && first->position == c->routed_end;
    for (uint32_t i = 0; c->memories && !goes_on && i < c->h->n_layer; i++)
        if (c->memories[i])
            router_memory_clear(c->memories[i]);
    c->routed_seq = last->seq;
    c->routed_end = last->position + last->n;
}

/* Experts in memory first, within the mass; few rows one after the other, each finding what those before it will bring; many at once. */
static void choose_by_cache(compute *c, const step *s, const router_rule *rule, worker_scratch *ws)
{
    expert_batch *b = &c->moe;
    const route_options *o = &c->options.route;
    int32_t n = step_rows(c, s);
    router_offer offer = {.resident = b->resident, .price = ROUTE_PRICE, .budget = o->mass, .keep = 1};
    router_batch_report report;
    memset(b->resident, 0, rule->n_experts);
    if (c->options.experts)
        pool_resident(c->options.experts, s->layer, b->resident);
    if (n > COMPUTE_FEW_ROWS && router_batch(rule, b->scores, b->score_stride, (uint32_t)n, &offer, b->chosen, b->weights, c->moved,
                                             &report, NULL) == DIL_OK) {
        for (int32_t row = 0; row < n; row++)
            count_moved(&ws->routed, &c->moved[row]);
        return;
    }
    for (int32_t row = 0; row < n; row++) {
        size_t at = (size_t)row * rule->n_used;
        router_moved moved;
        router_cached(rule, b->scores + (size_t)row * b->score_stride, &offer, b->chosen + at, b->weights + at, ws->choosing,
                      &moved);
        count_moved(&ws->routed, &moved);
        for (uint32_t i = 0; i < rule->n_used; i++)
            b->resident[b->chosen[at + i]] = 1;
    }
}

static void weigh_shared(compute *c, const expert_layer *e, int32_t row)
{
    const float *x = row_state(c, row);
    float dot = 0.0f;
    for (uint32_t i = 0; i < c->h->n_embd; i++)
        dot = fmaf(x[i], e->shared_gate[i], dot);
    c->moe.shared_weight[row] = 1.0f / (1.0f + expf(-dot));
}

#define CHOOSE_ROWS 8

void step_choose(compute *c, const step *s, int worker)
{
    expert_batch *b = &c->moe;
    const expert_layer *e = layer_experts(c, s);
    worker_scratch *ws = &c->scratch[worker];
    router_rule rule = route_rule(c, s->layer);
    route_mode mode = c->options.route.mode;
    int32_t n = step_rows(c, s);
    uint32_t n_items[TEAM_QUEUES], index;
    count_items(c, n, CHOOSE_ROWS, 1, n_items);
    for (claims cl = claims_begin(c, worker); claims_next(&cl, n_items, &index);) {
        int32_t first = part_first(c, cl.part), end = first + part_size(c, cl.part, n), from = first + (int32_t)index * CHOOSE_ROWS;
        for (int32_t row = from; row < end && row < from + CHOOSE_ROWS; row++) {
            if (mode == ROUTE_EXACT || mode == ROUTE_LOCAL)
                choose_exact(c, s, &rule, row, ws);
            if (e->shared_gate)
                weigh_shared(c, e, row);
        }
    }
    if (atomic_fetch_add_explicit(&b->n_through, 1, memory_order_acq_rel) + 1 != (unsigned)c->n_workers)
        return;
    atomic_store_explicit(&b->n_through, 0, memory_order_relaxed); /* for the next layer, after a barrier */
    if (mode == ROUTE_NEIGHBOURS)
        choose_by_neighbours(c, s, &rule, ws);
    else if (mode == ROUTE_CACHE)
        choose_by_cache(c, s, &rule, ws);
    ws->routed.n_choices += (uint64_t)n;
    if (c->options.on_choice)
        c->options.on_choice(c->options.choice_ctx, s->layer, n, b->chosen, b->weights);
    moe_prepare(c, s);
}

/* ---- what a way of choosing needs ---- */

static dil_status add_screen(compute *c, uint32_t i, dil_error *err)
{
    const weight *w = &c->m->layers[i].moe->router;
    router_rule rule = route_rule(c, i);
    bool neighbours = c->options.route.mode == ROUTE_NEIGHBOURS;
    if (!router_screen_suits(&rule) || w->type != DIL_TYPE_F32)
        return neighbours
                   ? DIL_FAIL(err, DIL_UNSUPPORTED,
                              "%s: layer %u: its routing needs the scores of all experts; wanted --route exact, local or cache",
                              gguf_path(c->m->file), i)
                   : DIL_OK;
    float *rows = arena_calloc(c->memory, (size_t)w->n_panels * PANEL_ROWS * w->cols, sizeof *rows);
    if (!rows)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for the rows of its routers", gguf_path(c->m->file));
    for (uint32_t row = 0; row < w->rows; row++)
        panel_decode_row(w->type, w->panels + row / PANEL_ROWS * w->panel_bytes, (int)(row % PANEL_ROWS), w->cols,
                         rows + (size_t)row * w->cols);
    DIL_TRY(router_screen_new(&c->screens[i], c->k, rows, c->m->layers[i].moe->router_bias, w->rows, w->cols, err));
    size_t bytes = router_work_bytes(c->screens[i]);
    c->routing_bytes = bytes > c->routing_bytes ? bytes : c->routing_bytes;
    if (!neighbours)
        return DIL_OK;
    router_memory_options mo = {.n_hot = c->h->experts.n_used, .margin = 1.0f};
    DIL_TRY(router_screen_flock(c->screens[i], c->workers, err));
    return router_memory_new(&c->memories[i], &rule, &mo, err);
}

dil_status route_new(compute *c, dil_error *err)
{
    route_mode mode = c->options.route.mode;
    size_t n_layer = c->h->n_layer;
    if (c->h->experts.n_experts == 0 || mode == ROUTE_EXACT)
        return DIL_OK;
    c->moved = arena_calloc(c->memory, (size_t)c->options.max_tokens, sizeof *c->moved);
    c->screens = mode == ROUTE_CACHE ? NULL : arena_calloc(c->memory, n_layer, sizeof *c->screens);
    c->memories = arena_calloc(c->memory, n_layer, sizeof *c->memories);
    if (!c->moved || !c->memories || (mode != ROUTE_CACHE && !c->screens))
        return DIL_FAIL(err, DIL_NO_MEMORY, "plan: no memory for routing");
    for (uint32_t i = 0; c->screens && i < n_layer; i++)
        if (c->m->layers[i].moe)
            DIL_TRY(add_screen(c, i, err));
    for (int w = 0; c->routing_bytes > 0 && w < team_size(c->workers); w++) {
        uint8_t *block = arena_calloc(c->memory, c->routing_bytes + 64, 1);
        if (!block)
            return DIL_FAIL(err, DIL_NO_MEMORY, "plan: no memory for routing");
        c->scratch[w].routing = block + (64 - (uintptr_t)block % 64) % 64;
    }
    return DIL_OK;
}

void route_free(compute *c)
{
    for (uint32_t i = 0; i < c->h->n_layer; i++) {
        if (c->screens)
            router_screen_free(c->screens[i]);
        if (c->memories)
            router_memory_free(c->memories[i]);
    }
}

void compute_route_counts(const compute *c, route_counts *out)
{
    *out = (route_counts){0};
    for (int w = 0; w < team_size(c->workers); w++) {
        const route_counts *r = &c->scratch[w].routed;
        out->n_choices += r->n_choices;
        out->n_scored += r->n_scored;
        out->n_fell_back += r->n_fell_back;
        out->read_bytes += r->read_bytes;
        out->full_bytes += r->full_bytes;
        out->n_changed += r->n_changed;
        out->mass += r->mass;
        out->change += r->change;
        out->most_mass = r->most_mass > out->most_mass ? r->most_mass : out->most_mass;
    }
}
