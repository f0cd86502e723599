#include "experts/residency.h"

#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/status.h"

/* ---- classes ---- */

/* Adds n experts of that size to the ascending list, which has room for one more than RESIDENCY_CLASSES. */
static void add_size(residency_class *classes, uint32_t *n_classes, uint64_t bytes, uint32_t n)
{
    uint32_t at = 0;
    while (at < *n_classes && classes[at].slot_bytes < bytes)
        at++;
    if (at == *n_classes || classes[at].slot_bytes != bytes) {
        memmove(classes + at + 1, classes + at, (*n_classes - at) * sizeof *classes);
        classes[at] = (residency_class){.slot_bytes = bytes};
        ++*n_classes;
    }
    classes[at].n_experts += n;
}

/* Joins the two neighbouring sizes that waste least together. */
static void join_sizes(residency_class *classes, uint32_t *n_classes)
{
    uint32_t best = 0;
    double least = 0;
    for (uint32_t i = 0; i + 1 < *n_classes; i++) {
        double waste = (double)classes[i].n_experts * (double)(classes[i + 1].slot_bytes - classes[i].slot_bytes);
        if (i == 0 || waste < least) {
            least = waste;
            best = i;
        }
    }
    classes[best + 1].n_experts += classes[best].n_experts;
    memmove(classes + best, classes + best + 1, (*n_classes - best - 1) * sizeof *classes);
    --*n_classes;
}

static uint64_t padded(uint64_t bytes) { return (bytes + RESIDENCY_ALIGN - 1) & ~(uint64_t)(RESIDENCY_ALIGN - 1); }

static uint32_t make_classes(const residency_options *o, residency_class out[RESIDENCY_CLASSES])
{
    residency_class classes[RESIDENCY_CLASSES + 1] = {0};
    uint32_t n = 0;
    for (uint32_t l = 0; l < o->n_layers; l++) {
        if (o->layers[l].n_experts == 0)
            continue;
        add_size(classes, &n, padded(o->layers[l].bytes), o->layers[l].n_experts);
        if (n > RESIDENCY_CLASSES)
            join_sizes(classes, &n);
    }
    memcpy(out, classes, n * sizeof *out);
    return n;
}

/* The smallest class an expert of that size fits in. */
static uint8_t class_for(const residency_class *classes, uint64_t bytes)
{
    uint8_t c = 0;
    while (classes[c].slot_bytes < bytes)
        c++;
    return c;
}

static uint32_t least_of(const residency_class *c, uint32_t n_used) { return n_used < c->n_experts ? n_used : c->n_experts; }

/* First the least of each, then shares of the rest by the bytes of the classes' experts; what a full class leaves goes to the
 * others, largest experts first. */
static void share(const residency_options *o, residency_class *classes, uint32_t n_classes, uint64_t room)
{
    double all = 0;
    for (uint32_t i = 0; i < n_classes; i++) {
        classes[i].n = least_of(&classes[i], o->n_used);
        room -= classes[i].n * classes[i].slot_bytes;
        all += (double)classes[i].n_experts * (double)classes[i].slot_bytes;
    }
    uint64_t left = room;
    for (uint32_t i = 0; i < n_classes; i++) {
        residency_class *c = &classes[i];
        double part = (double)c->n_experts * (double)c->slot_bytes / all;
        uint64_t more = (uint64_t)((double)room * part) / c->slot_bytes, most = c->n_experts - c->n;
        more = more < most ? more : most;
        more = more * c->slot_bytes <= left ? more : left / c->slot_bytes;
        c->n += (uint32_t)more;
        left -= more * c->slot_bytes;
    }
    for (uint32_t i = n_classes; i-- > 0;) {
        residency_class *c = &classes[i];
        uint64_t more = left / c->slot_bytes, most = c->n_experts - c->n;
        more = more < most ? more : most;
        c->n += (uint32_t)more;
        left -= more * c->slot_bytes;
    }
}

/* ---- memory ---- */

static uint64_t count_experts(const residency_options *o)
{
    uint64_t n = 0;
    for (uint32_t l = 0; l < o->n_layers; l++)
        n += o->layers[l].n_experts;
    return n;
}

static uint32_t most_experts(const residency_options *o)
{
    uint32_t most = 0;
    for (uint32_t l = 0; l < o->n_layers; l++)
        most = o->layers[l].n_experts > most ? o->layers[l].n_experts : most;
    return most;
}

/* Places all tables but the slots' (memory NULL: only counts). counts [n_layers] are the policy's numbers of experts. */
static size_t place(char *memory, const residency_options *o, const uint32_t *counts)
{
    size_t at = 0, n = count_experts(o);
    residency *r = mem_carve(memory, &at, sizeof *r);
    residency_layer *layers = mem_carve(memory, &at, o->n_layers * sizeof *layers);
    uint32_t *first = mem_carve(memory, &at, o->n_layers * sizeof *first);
    uint8_t *class_of = mem_carve(memory, &at, o->n_layers);
    int32_t *where = mem_carve(memory, &at, n * sizeof *where);
    residency_counts *totals = mem_carve(memory, &at, o->n_layers * sizeof *totals);
    residency_candidate *candidates = mem_carve(memory, &at, most_experts(o) * sizeof *candidates);
    void *rule = mem_carve(memory, &at, policy_bytes(o->policy, counts, o->n_layers));
    if (!memory)
        return at;
    r->n_layers = o->n_layers;
    r->n_used = o->n_used;
    r->layers = layers;
    r->first = first;
    r->class_of = class_of;
    r->where = where;
    r->counts = totals;
    r->candidates = candidates;
    r->rule = policy_init(rule, o->policy, counts, o->n_layers);
    memset(where, 0xFF, n * sizeof *where);
    r->layer = o->n_layers;
    uint32_t n_with = 0;
    for (uint32_t l = 0, next = 0; l < o->n_layers; l++) {
        n_with += o->layers[l].n_experts > 0;
        layers[l] = o->layers[l];
        first[l] = next;
        next += layers[l].n_experts;
    }
    r->alone = n_with == 1;
    return at;
}

static uint32_t *policy_counts(const residency_options *o)
{
    uint32_t *counts = mem_calloc(o->n_layers ? o->n_layers : 1, sizeof *counts, MEM_PACKED);
    for (uint32_t l = 0; counts && l < o->n_layers; l++)
        counts[l] = o->layers[l].n_experts;
    return counts;
}

static uint64_t per_slot(const residency_options *o) { return sizeof(residency_slot) + o->per_slot_bytes; }

static uint64_t least_slots(const residency_options *o, const residency_class *classes, uint32_t n_classes)
{
    uint64_t bytes = 64; /* the slots' table begins on a line of its own */
    for (uint32_t i = 0; i < n_classes; i++)
        bytes += least_of(&classes[i], o->n_used) * (classes[i].slot_bytes + per_slot(o));
    return bytes;
}

/* Limits that keep every sum of sizes far below 2^63. */
static bool sane(const residency_options *o)
{
    if (o->n_layers > 65535 || o->n_used == 0 || (unsigned)o->policy >= POLICY_KINDS)
        return false;
    uint64_t n = 0;
    for (uint32_t l = 0; l < o->n_layers; l++) {
        const residency_layer *s = &o->layers[l];
        if (s->n_experts > RESIDENCY_MOST_EXPERTS || (s->n_experts > 0 && (s->bytes == 0 || s->bytes > (uint64_t)1 << 36)))
            return false;
        n += s->n_experts;
    }
    return n > 0 && n <= (uint64_t)1 << 24;
}

uint64_t residency_least(const residency_options *o)
{
    residency_class classes[RESIDENCY_CLASSES];
    uint32_t *counts = sane(o) ? policy_counts(o) : NULL;
    if (!counts)
        return 0;
    uint32_t n = make_classes(o, classes);
    uint64_t bytes = place(NULL, o, counts) + least_slots(o, classes, n);
    mem_free(counts);
    return bytes;
}

/* Slots for the budget's bytes behind the fixed tables, and the bytes of each. */
static void size_slots(const residency_options *o, residency_class *classes, uint32_t n_classes, uint64_t room)
{
    for (uint32_t i = 0; i < n_classes; i++)
        classes[i].slot_bytes += per_slot(o); /* the table's line is part of the price */
    share(o, classes, n_classes, room);
    for (uint32_t i = 0; i < n_classes; i++)
        classes[i].slot_bytes -= per_slot(o);
}

static void number_slots(residency *r)
{
    for (uint32_t i = 0; i < r->n_classes; i++) {
        residency_class *c = &r->classes[i];
        c->first = r->n_slots;
        c->offset = r->slots_bytes;
        r->n_slots += c->n;
        r->slots_bytes += c->n * c->slot_bytes;
    }
    for (uint32_t i = 0; i < r->n_slots; i++)
        r->slots[i] = (residency_slot){.layer = RESIDENCY_NOBODY};
    for (uint32_t l = 0; l < r->n_layers; l++)
        if (r->layers[l].n_experts > 0)
            r->class_of[l] = class_for(r->classes, r->layers[l].bytes);
}

/* Passes of single tokens whose experts fit. */
static double depth_of(const residency *r)
{
    double used = 0;
    for (uint32_t l = 0; l < r->n_layers; l++)
        used += r->layers[l].n_experts > r->n_used ? r->n_used : r->layers[l].n_experts;
    return used > 0 ? r->n_slots / used : 1;
}

dil_status residency_new(residency **out, const residency_options *o, dil_error *err)
{
    residency_class classes[RESIDENCY_CLASSES];
    uint64_t n_slots = 0;
    if (!sane(o))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "experts: wanted layers of at most %u experts and one used, found other sizes",
                        RESIDENCY_MOST_EXPERTS);
    uint32_t *counts = policy_counts(o), n_classes = make_classes(o, classes);
    if (!counts)
        return DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory for their tables");
    size_t fixed = place(NULL, o, counts);
    uint64_t least = fixed + least_slots(o, classes, n_classes);
    if (o->budget_bytes < least) {
        mem_free(counts);
        return DIL_FAIL(err, DIL_NO_MEMORY,
                        "budget for experts: wanted at least %llu bytes, found %llu; %u experts of each layer must fit",
                        (unsigned long long)least, (unsigned long long)o->budget_bytes, o->n_used);
    }
    size_slots(o, classes, n_classes, o->budget_bytes - fixed - 64);
    for (uint32_t i = 0; i < n_classes; i++)
        n_slots += classes[i].n;
    size_t bytes = fixed + round_up_size(n_slots * sizeof(residency_slot), 64);
    char *memory = mem_calloc(1, bytes, MEM_PACKED);
    if (memory) {
        (void)place(memory, o, counts);
        residency *r = (residency *)(void *)memory;
        r->slots = (residency_slot *)(void *)(memory + fixed);
        r->n_classes = n_classes;
        r->tables_bytes = bytes;
        memcpy(r->classes, classes, sizeof classes);
        number_slots(r);
        policy_set_depth(r->rule, depth_of(r));
        *out = r;
    }
    mem_free(counts);
    return memory ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory for their tables");
}

void residency_free(residency *r) { mem_free(r); }

uint32_t residency_capacity(const residency *r, uint32_t layer)
{
    if (layer >= r->n_layers || r->layers[layer].n_experts == 0)
        return 0;
    const residency_class *c = &r->classes[r->class_of[layer]];
    uint32_t open = c->n - c->n_closed;
    return r->layers[layer].n_experts < open ? r->layers[layer].n_experts : open;
}

static const residency_class *class_at(const residency *r, int32_t slot)
{
    const residency_class *c = r->classes;
    while ((uint32_t)slot >= c->first + c->n)
        c++;
    return c;
}

uint64_t residency_slot_offset(const residency *r, int32_t slot)
{
    const residency_class *c = class_at(r, slot);
    return c->offset + ((uint32_t)slot - c->first) * c->slot_bytes;
}

uint64_t residency_slot_bytes(const residency *r, int32_t slot) { return class_at(r, slot)->slot_bytes; }

/* ---- what goes ---- */

static bool goes_before(const residency_candidate *a, const residency_candidate *b)
{
    return a->due != b->due ? b->due : policy_less(a->worth, b->worth);
}

/* The up to `most` slots of the class that go first, in that order, into out; returns how many there are. */
static int find_candidates(const residency *r, const residency_class *c, bool also_due, int most, residency_candidate *out)
{
    int n = 0;
    for (uint32_t i = c->first; i < c->first + c->n_taken; i++) {
        const residency_slot *s = &r->slots[i];
        if (s->pinned || s->closed || (s->due && !also_due))
            continue;
        residency_candidate x = {.worth = policy_worth_of(r->rule, s->layer, s->expert), .slot = (int32_t)i, .due = s->due};
        if (n == most && !goes_before(&x, &out[n - 1]))
            continue;
        int at = n < most ? n++ : n - 1;
        for (; at > 0 && goes_before(&x, &out[at - 1]); at--)
            out[at] = out[at - 1];
        out[at] = x;
    }
    return n;
}

static void evict(residency *r, int32_t slot)
{
    residency_slot *s = &r->slots[slot];
    if (s->layer == RESIDENCY_NOBODY)
        return;
    r->where[r->first[s->layer] + s->expert] = -1;
    r->counts[s->layer].wasted += s->hinted;
    *s = (residency_slot){.layer = RESIDENCY_NOBODY, .closed = s->closed};
}

static int32_t fresh_slot(residency_class *c) { return c->n_taken < c->n ? (int32_t)(c->first + c->n_taken++) : -1; }

static void settle_in(residency *r, int32_t slot, uint32_t layer, uint32_t expert)
{
    evict(r, slot);
    r->slots[slot] = (residency_slot){.layer = layer, .expert = expert};
    r->where[r->first[layer] + expert] = slot;
    r->counts[layer].bytes_read += r->layers[layer].bytes;
}

/* ---- requests and hints ---- */

/* Hinted experts of the layer that were not asked for in its turn: the hint was wrong. */
static void drop_hints(residency *r, uint32_t layer)
{
    for (uint32_t e = 0; e < r->layers[layer].n_experts; e++) {
        int32_t slot = residency_find(r, layer, e);
        if (slot < 0)
            continue;
        r->counts[layer].wasted += r->slots[slot].hinted;
        r->slots[slot].hinted = r->slots[slot].due = false;
    }
}

static void pin_found(residency *r, uint32_t layer, const uint16_t *experts, int n, residency_place *places)
{
    for (int i = 0; i < n; i++) {
        int32_t slot = residency_find(r, layer, experts[i]);
        places[i] = (residency_place){.slot = slot, .missing = slot < 0};
        if (slot < 0)
            continue;
        places[i].hinted = r->slots[slot].hinted;
        r->slots[slot].pinned = true;
        r->slots[slot].hinted = r->slots[slot].due = false;
        r->counts[layer].hits++;
    }
}

/* Puts what is missing into free slots, then into those of the candidates. */
static void place_missing(residency *r, uint32_t layer, const uint16_t *experts, int n, residency_place *places)
{
    residency_class *c = &r->classes[r->class_of[layer]];
    int n_missing = 0, n_candidates = -1, next = 0;
    for (int i = 0; i < n; i++)
        n_missing += places[i].missing;
    for (int i = 0; i < n; i++) {
        if (!places[i].missing)
            continue;
        places[i].slot = residency_find(r, layer, experts[i]);
        if (places[i].slot >= 0) { /* named twice */
            places[i].missing = false;
            continue;
        }
        int32_t slot = fresh_slot(c);
        if (slot < 0 && n_candidates < 0)
            n_candidates = find_candidates(r, c, true, n_missing, r->candidates);
        if (slot < 0 && next < n_candidates)
            slot = r->candidates[next++].slot;
        places[i].slot = slot;
        if (slot < 0)
            continue;
        settle_in(r, slot, layer, experts[i]);
        r->slots[slot].pinned = true;
    }
}

void residency_request(residency *r, uint32_t layer, const uint16_t *experts, int n, residency_place *places)
{
    r->counts[layer].requests += (uint64_t)n;
    policy_use(r->rule, layer, experts, n);
    pin_found(r, layer, experts, n, places);
    if (r->alone)
        drop_hints(r, layer);
    else if (r->layer < r->n_layers && r->layer != layer) /* its turn is over: all portions of a batch have been asked for */
        drop_hints(r, r->layer);
    r->layer = layer;
    place_missing(r, layer, experts, n, places);
}

void residency_release(residency *r, uint32_t layer)
{
    for (uint32_t e = 0; e < r->layers[layer].n_experts; e++) {
        int32_t slot = residency_find(r, layer, e);
        if (slot >= 0)
            r->slots[slot].pinned = false;
    }
}

int32_t residency_hint(residency *r, uint32_t layer, uint32_t expert)
{
    residency_class *c = &r->classes[r->class_of[layer]];
    residency_candidate x;
    int32_t slot = residency_find(r, layer, expert);
    if (slot >= 0) {
        r->slots[slot].due = true;
        return -1;
    }
    slot = fresh_slot(c);
    if (slot < 0 && find_candidates(r, c, false, 1, &x) == 1 && policy_less(x.worth, policy_worth_of_hint(r->rule, layer)))
        slot = x.slot;
    if (slot < 0)
        return -1;
    settle_in(r, slot, layer, expert);
    r->slots[slot].hinted = r->slots[slot].due = true;
    r->counts[layer].hinted++;
    return slot;
}

/* An empty slot goes before all others. */
static bool closable(const residency *r, const residency_class *c, residency_candidate *out)
{
    if (c->n - c->n_closed <= least_of(c, r->n_used))
        return false;
    *out = (residency_candidate){.worth = {-1e300, 0}, .slot = (int32_t)(c->first + c->n_taken)};
    return c->n_taken < c->n || find_candidates(r, c, true, 1, out) == 1;
}

int32_t residency_close(residency *r)
{
    residency_candidate best = {.slot = -1}, x;
    residency_class *of = NULL;
    for (uint32_t i = 0; i < r->n_classes; i++) {
        if (!closable(r, &r->classes[i], &x) || (of && !goes_before(&x, &best)))
            continue;
        best = x;
        of = &r->classes[i];
    }
    if (!of)
        return -1;
    if ((uint32_t)best.slot == of->first + of->n_taken)
        of->n_taken++;
    evict(r, best.slot);
    r->slots[best.slot].closed = true;
    of->n_closed++;
    return best.slot;
}
