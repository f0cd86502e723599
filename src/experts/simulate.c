#include "experts/simulate.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "experts/flock.h"

#define NEVER UINT32_MAX

typedef struct replay {
    const trace *t;
    residency *r;
    uint32_t *next;          /* [as t->chosen]: the next pass that uses this expert; POLICY_BELADY only */
    uint8_t *seen;           /* [most experts]: of the present union */
    uint8_t *used;           /* [n_layers, most experts]: ever */
    uint16_t *list;          /* [most experts]: the union of a pass */
    uint32_t *list_next;     /* [most experts] */
    residency_place *places; /* [most experts] */
    uint32_t most, pass;
    simulation *out;
} replay;

static uint32_t most_experts(const trace *t)
{
    uint32_t most = 0;
    for (uint32_t l = 0; l < t->n_layers; l++)
        most = t->layers[l].n_experts > most ? t->layers[l].n_experts : most;
    return most;
}

static uint64_t pass_end(const trace *t, uint64_t from)
{
    uint64_t end = from + 1;
    while (end < t->n_tokens && !t->begins[end])
        end++;
    return end;
}

/* ---- the future ---- */

/* For every use the next pass that needs the same expert, backwards. Uses of one pass see beyond it. */
static dil_status look_ahead(replay *s, dil_error *err)
{
    const trace *t = s->t;
    size_t n = (size_t)t->n_places * s->most;
    uint32_t *coming = mem_alloc(n * sizeof *coming, MEM_MISC), pass = 0;
    s->next = mem_alloc(t->n_tokens * t->n_places * t->n_used * sizeof *s->next, MEM_MISC);
    if (!coming || !s->next) {
        mem_free(coming);
        return DIL_FAIL(err, DIL_NO_MEMORY, "simulation: no memory for the future of %llu tokens", (unsigned long long)t->n_tokens);
    }
    memset(coming, 0xFF, n * sizeof *coming);
    for (uint64_t i = 0; i < t->n_tokens; i++)
        pass += t->begins[i] || i == 0;
    for (uint64_t end = t->n_tokens; end > 0; pass--) {
        uint64_t from = end - 1;
        while (from > 0 && !t->begins[from])
            from--;
        for (int step = 0; step < 2; step++) /* first all uses of the pass look, then they are what earlier ones see */
            for (uint64_t i = from * t->n_places * t->n_used; i < end * t->n_places * t->n_used; i++) {
                uint32_t *c = &coming[i / t->n_used % t->n_places * s->most + t->chosen[i]];
                if (step == 0)
                    s->next[i] = *c;
                else
                    *c = pass - 1;
            }
        end = from;
    }
    mem_free(coming);
    return DIL_OK;
}

/* ---- replaying ---- */

/* The experts a pass uses in a layer, in the order of their first use. */
static int unite(replay *s, uint64_t from, uint64_t end, uint32_t place)
{
    const trace *t = s->t;
    uint32_t layer = t->layer_of[place];
    int n = 0;
    memset(s->seen, 0, t->layers[layer].n_experts);
    for (uint64_t i = from; i < end; i++)
        for (uint32_t k = 0; k < t->n_used; k++) {
            size_t at = (size_t)((i * t->n_places + place) * t->n_used + k);
            uint16_t e = t->chosen[at];
            if (s->seen[e])
                continue;
            s->seen[e] = 1;
            s->list_next[n] = s->next ? s->next[at] : 0;
            s->list[n++] = e;
            uint8_t *ever = &s->used[(size_t)layer * s->most + e];
            s->out->first.requests += !*ever;
            s->out->first.bytes_read += *ever ? 0 : t->layers[layer].bytes;
            *ever = 1;
        }
    return n;
}

/* One layer of one pass, in portions where it needs more than there is room for, as the pool's callers do. */
static void visit(replay *s, uint64_t from, uint64_t end, uint32_t place)
{
    uint32_t layer = s->t->layer_of[place], room = residency_capacity(s->r, layer);
    int n = unite(s, from, end, place);
    for (int at = 0; at < n;) {
        int some = n - at < (int)room ? n - at : (int)room;
        for (int i = at; s->next && i < at + some; i++)
            policy_set_next(s->r->rule, layer, s->list[i],
                            s->list_next[i] == NEVER ? (uint64_t)1 << 50 : (uint64_t)s->list_next[i] * s->t->n_layers + layer);
        residency_request(s->r, layer, s->list + at, some, s->places);
        residency_release(s->r, layer);
        at += some;
    }
}

static residency_layer *sizes_of(const trace *t)
{
    residency_layer *sizes = mem_calloc(t->n_layers, sizeof *sizes, MEM_MISC);
    for (uint32_t l = 0; sizes && l < t->n_layers; l++)
        sizes[l] = (residency_layer){.bytes = t->layers[l].bytes, .n_experts = t->layers[l].n_experts};
    return sizes;
}

static residency_options options_of(const trace *t, policy_kind kind, uint64_t budget, const residency_layer *sizes)
{
    return (
        residency_options){.layers = sizes, .n_layers = t->n_layers, .n_used = t->n_used, .budget_bytes = budget, .policy = kind};
}

static dil_status prepare(replay *s, policy_kind kind, uint64_t budget, dil_error *err)
{
    const trace *t = s->t;
    residency_layer *sizes = sizes_of(t);
    s->most = most_experts(t);
    s->seen = mem_calloc(s->most, 1, MEM_MISC);
    s->used = mem_calloc(t->n_layers, s->most, MEM_MISC);
    s->list = mem_calloc(s->most, sizeof *s->list, MEM_MISC);
    s->list_next = mem_calloc(s->most, sizeof *s->list_next, MEM_MISC);
    s->places = mem_calloc(s->most, sizeof *s->places, MEM_MISC);
    dil_status status = DIL_OK;
    if (!sizes || !s->seen || !s->used || !s->list || !s->list_next || !s->places)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "simulation: no memory");
    residency_options o = options_of(t, kind, budget, sizes);
    if (status == DIL_OK)
        status = residency_new(&s->r, &o, err);
    if (status == DIL_OK && kind == POLICY_BELADY)
        status = look_ahead(s, err);
    mem_free(sizes);
    return status;
}

static void sum_up(const replay *s, residency_counts *layers)
{
    simulation *out = s->out;
    out->slots_bytes = s->r->slots_bytes;
    out->tables_bytes = s->r->tables_bytes;
    out->n_slots = s->r->n_slots;
    out->least_capacity = UINT32_MAX;
    for (uint32_t l = 0; l < s->t->n_layers; l++) {
        uint32_t capacity = residency_capacity(s->r, l);
        if (capacity > 0 && capacity < out->least_capacity)
            out->least_capacity = capacity;
        out->total.requests += s->r->counts[l].requests;
        out->total.hits += s->r->counts[l].hits;
        out->total.bytes_read += s->r->counts[l].bytes_read;
        if (layers)
            layers[l] = s->r->counts[l];
    }
}

dil_status simulate(const trace *t, policy_kind kind, uint64_t budget_bytes, simulation *out, residency_counts *layers,
                    dil_error *err)
{
    simulation result = {.budget_bytes = budget_bytes};
    replay s = {.t = t, .out = &result};
    dil_status status = prepare(&s, kind, budget_bytes, err);
    for (uint64_t from = 0, end; status == DIL_OK && from < t->n_tokens; from = end) {
        end = pass_end(t, from);
        for (uint32_t place = 0; place < t->n_places; place++)
            visit(&s, from, end, place);
    }
    if (status == DIL_OK) {
        sum_up(&s, layers);
        *out = result;
    }
    residency_free(s.r);
    mem_free(s.next);
    mem_free(s.seen);
    mem_free(s.used);
    mem_free(s.list);
    mem_free(s.list_next);
    mem_free(s.places);
    return status;
}

uint64_t simulate_least(const trace *t, policy_kind kind)
{
    residency_layer *sizes = sizes_of(t);
    residency_options o = options_of(t, kind, 0, sizes);
    uint64_t least = sizes ? residency_least(&o) : 0;
    mem_free(sizes);
    return least;
}

uint64_t simulate_all_bytes(const trace *t)
{
    uint64_t bytes = 0;
    for (uint32_t l = 0; l < t->n_layers; l++)
        bytes += t->layers[l].n_experts * t->layers[l].bytes;
    return bytes;
}

uint64_t simulate_token_bytes(const trace *t)
{
    uint64_t bytes = 0;
    for (uint32_t l = 0; l < t->n_layers; l++)
        bytes += t->layers[l].n_experts ? t->n_used * t->layers[l].bytes : 0;
    return bytes;
}

/* ---- what the log says ---- */

static const uint32_t distances[SIMULATE_DISTANCES] = {1, 2, 4, 8, 16};

/* Marks the experts before and their flocks in seen; returns how many that are. */
static uint32_t mark_candidates(const flock *f, const uint16_t *before, uint32_t n_used, uint8_t *seen, uint32_t n_experts)
{
    uint32_t n = 0;
    uint16_t near[FLOCK_SIZE];
    memset(seen, 0, n_experts);
    for (uint32_t k = 0; k < n_used; k++) {
        seen[before[k]] = 1;
        for (int i = flock_neighbours(f, before[k], near, NULL); i-- > 0;)
            seen[near[i]] = 1;
    }
    for (uint32_t e = 0; e < n_experts; e++)
        n += seen[e];
    return n;
}

/* What is known of an expert on the way through a log. */
typedef struct seen_use {
    uint64_t last; /* 1 + the last token that used it; 0: none yet */
    uint64_t count;
} seen_use;

/* uses [n_experts], zeroed */
static void measure_layer(const trace *t, uint32_t place, flock *f, seen_use *uses, uint8_t *seen, simulate_reuse *out)
{
    uint32_t n_experts = t->layers[t->layer_of[place]].n_experts;
    for (uint64_t i = 0; i < t->n_tokens; i++) {
        const uint16_t *chosen = trace_chosen(t, i, place);
        if (i > 0)
            out->candidates += mark_candidates(f, trace_chosen(t, i - 1, place), t->n_used, seen, n_experts);
        for (uint32_t k = 0; k < t->n_used; k++) {
            seen_use *u = &uses[chosen[k]];
            uint64_t before = u->last;
            out->uses++;
            out->distinct += before == 0;
            for (int d = 0; before && d < SIMULATE_DISTANCES; d++)
                out->within[d] += i + 1 - before <= distances[d];
            out->recalled += i > 0 && seen[chosen[k]];
            *u = (seen_use){i + 1, u->count + 1};
            out->busiest = u->count > out->busiest ? u->count : out->busiest;
        }
        flock_note(f, chosen, (int)t->n_used);
    }
}

dil_status simulate_measure(const trace *t, simulate_reuse *out, dil_error *err)
{
    uint32_t most = most_experts(t);
    seen_use *uses = mem_alloc(most * sizeof *uses, MEM_MISC);
    uint8_t *seen = mem_alloc(most, MEM_MISC);
    void *memory = mem_alloc(flock_bytes(most), MEM_MISC);
    bool good = uses && seen && memory;
    memset(out, 0, t->n_places * sizeof *out);
    for (uint32_t place = 0; good && place < t->n_places; place++) {
        flock f = {0};
        memset(uses, 0, most * sizeof *uses);
        memset(memory, 0, flock_bytes(most));
        flock_init(&f, t->layers[t->layer_of[place]].n_experts, memory);
        measure_layer(t, place, &f, uses, seen, &out[place]);
    }
    mem_free(uses);
    mem_free(seen);
    mem_free(memory);
    return good ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "router log: no memory to measure it");
}
