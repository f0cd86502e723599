/*
 * One caller decides (requests, hints, evictions); threads of the queue of reads only finish what it started: they check a
 * slot's bytes and set its state, which waiting threads sleep on. Nothing else is shared between them, so nothing is locked.
 */
#include "experts/pool.h"

#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

#include "base/aio.h"
#include "base/checked.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

enum { IDLE, READING, READY, FAILED }; /* a slot's bytes */

typedef struct slot_read {
    aio_read read; /* first: the queue gives it back */
    uint32_t layer, expert;
    _Atomic uint32_t state;
    _Atomic bool wanted; /* requested, not only hinted */
    _Atomic bool waited; /* somebody counts the stall */
} slot_read;

/* The first failure since pool_error. Any thread writes it. */
typedef struct failure {
    atomic_flag busy;
    bool set, wanted;
    dil_error why;
    _Atomic bool met; /* a caller got NULL */
} failure;

struct pool {
    residency *r;
    aio *reads;
    uint8_t *memory; /* of the slots */
    uint64_t budget_bytes, held_bytes;
    uint32_t n_layers;
    pool_layer *layers;         /* [n_layers] */
    _Atomic uint64_t *stall_ns; /* [n_layers] */
    residency_place *places;    /* [most experts of a layer] */
    slot_read *slots;           /* [r->n_slots] */
    bool no_sums, watch_content;
    failure failed;
};

/* ---- failures ---- */

static void note(pool *p, bool wanted, const dil_error *why)
{
    failure *f = &p->failed;
    while (atomic_flag_test_and_set_explicit(&f->busy, memory_order_acquire))
        ;
    if (!f->set || (wanted && !f->wanted)) {
        f->set = true;
        f->wanted = wanted;
        f->why = *why;
    }
    atomic_flag_clear_explicit(&f->busy, memory_order_release);
}

/* A caller's mistake, or what it will be told of. */
static void note_met(pool *p, const dil_error *why)
{
    note(p, true, why);
    atomic_store(&p->failed.met, true);
}

dil_status pool_error(pool *p, dil_error *err)
{
    failure *f = &p->failed;
    if (!atomic_exchange(&f->met, false))
        return DIL_OK;
    while (atomic_flag_test_and_set_explicit(&f->busy, memory_order_acquire))
        ;
    dil_error why = f->why;
    f->set = false;
    atomic_flag_clear_explicit(&f->busy, memory_order_release);
    if (err)
        *err = why;
    return why.code;
}

/* ---- reading ---- */

/* Are these the expert's bytes? Without sums only the file's time of change speaks, when the caller gave it. */
static dil_status check(const pool *p, const slot_read *s, dil_error *err)
{
    const pool_layer *l = &p->layers[s->layer];
    if (l->sums && !p->no_sums) {
        uint64_t sum = XXH3_64bits(s->read.to, l->bytes);
        if (sum != l->sums[s->expert])
            return DIL_FAIL(err, DIL_FORMAT, "wanted checksum %016llx, found %016llx", (unsigned long long)l->sums[s->expert],
                            (unsigned long long)sum);
        return DIL_OK;
    }
    const char *changed = aio_file_changed(p->reads, p->watch_content);
    return changed ? DIL_FAIL(err, DIL_IO, "%s", _(changed)) : DIL_OK;
}

static void explain(const pool *p, const slot_read *s, dil_error *why)
{
    const char *changed = aio_file_changed(p->reads, p->watch_content);
    if (!changed)
        changed = aio_name_changed(p->reads);
    status_prefix(why, "layer %u, expert %u, at byte %llu%s%s: ", s->layer, s->expert, (unsigned long long)s->read.offset,
                  changed ? _("; of the file: ") : "", changed ? _(changed) : "");
}

/* On a thread of the queue. */
static void finished(void *ctx, aio_read *read, dil_status status, const dil_error *read_error)
{
    pool *p = ctx;
    slot_read *s = (slot_read *)(void *)read;
    dil_error why;
    if (status != DIL_OK)
        why = *read_error;
    else
        status = check(p, s, &why);
    if (status != DIL_OK) {
        explain(p, s, &why);
        note(p, atomic_load(&s->wanted), &why);
    }
    atomic_store(&s->state, status == DIL_OK ? READY : FAILED);
    os_futex_wake_all(&s->state);
}

static void wait_for(slot_read *s)
{
    while (atomic_load(&s->state) == READING)
        os_futex_wait(&s->state, READING);
}

/* The slot is to hold another expert: a read that has begun is waited for, one that has not is dropped. */
static void clear_slot(pool *p, slot_read *s)
{
    if (atomic_load(&s->state) == READING && !aio_cancel(p->reads, &s->read)) {
        uint64_t began = os_time_ns();
        wait_for(s);
        atomic_fetch_add(&p->stall_ns[s->layer], os_time_ns() - began);
    }
    atomic_store(&s->state, IDLE);
}

static void start(pool *p, int32_t slot, uint32_t layer, uint32_t expert, bool wanted)
{
    const pool_layer *l = &p->layers[layer];
    slot_read *s = &p->slots[slot];
    clear_slot(p, s);
    s->layer = layer;
    s->expert = expert;
    s->read = (aio_read){.offset = l->offset + expert * l->stride,
                         .to = p->memory + residency_slot_offset(p->r, slot),
                         .bytes = round_up_size(l->bytes, AIO_ALIGN),
                         .least = l->bytes};
    atomic_store(&s->wanted, wanted);
    atomic_store(&s->waited, false);
    atomic_store(&s->state, READING);
    aio_start(p->reads, &s->read, wanted);
}

/* ---- requests ---- */

static bool valid(pool *p, const char *what, uint32_t layer, const uint16_t *experts, int n)
{
    dil_error why;
    uint32_t most = layer < p->n_layers ? p->layers[layer].n_experts : 0;
    bool good = most > 0 && n >= 0 && (uint32_t)n <= most;
    for (int i = 0; good && i < n; i++)
        good = experts[i] < most;
    if (good)
        return true;
    DIL_FAIL(&why, DIL_BAD_ARGUMENT, "%s: wanted experts of layer %u below %u, found others; ask the layer's number first", what,
             layer, most);
    note_met(p, &why);
    return false;
}

static void no_place(pool *p, uint32_t layer, uint32_t expert)
{
    dil_error why;
    DIL_FAIL(&why, DIL_BAD_ARGUMENT, "layer %u, expert %u: wanted at most %u experts pinned at once, found more; see pool_capacity",
             layer, expert, pool_capacity(p, layer));
    note_met(p, &why);
}

/* A requested expert that has a slot already. */
static void join(pool *p, const residency_place *place, uint32_t layer, uint32_t expert)
{
    slot_read *s = &p->slots[place->slot];
    atomic_store(&s->wanted, true);
    uint32_t state = atomic_load(&s->state);
    if (state == READING) {
        p->r->counts[layer].joined += place->hinted;
        aio_hurry(p->reads, &s->read);
    } else if (state != READY) {
        start(p, place->slot, layer, expert, true);
    }
}

void pool_request(pool *p, uint32_t layer, const uint16_t *experts, int n)
{
    if (!valid(p, "request", layer, experts, n))
        return;
    residency_request(p->r, layer, experts, n, p->places);
    for (int i = 0; i < n; i++) {
        const residency_place *place = &p->places[i];
        if (place->slot < 0)
            no_place(p, layer, experts[i]);
        else if (place->missing)
            start(p, place->slot, layer, experts[i], true);
        else
            join(p, place, layer, experts[i]);
    }
}

const uint8_t *pool_wait(pool *p, uint32_t layer, uint32_t expert)
{
    int32_t slot = layer < p->n_layers && expert < p->layers[layer].n_experts ? residency_find(p->r, layer, expert) : -1;
    if (slot < 0 || !p->r->slots[slot].pinned) {
        dil_error why;
        DIL_FAIL(&why, DIL_BAD_ARGUMENT, "layer %u, expert %u: wanted one that was requested, found another", layer, expert);
        note_met(p, &why);
        return NULL;
    }
    slot_read *s = &p->slots[slot];
    if (atomic_load_explicit(&s->state, memory_order_acquire) == READING) {
        bool first = !atomic_exchange(&s->waited, true);
        uint64_t began = first ? os_time_ns() : 0;
        wait_for(s);
        if (first)
            atomic_fetch_add(&p->stall_ns[layer], os_time_ns() - began);
    }
    if (atomic_load_explicit(&s->state, memory_order_acquire) == READY)
        return s->read.to;
    atomic_store(&p->failed.met, true);
    return NULL;
}

void pool_release(pool *p, uint32_t layer)
{
    if (layer < p->n_layers)
        residency_release(p->r, layer);
}

void pool_hint(pool *p, uint32_t layer, const uint16_t *experts, int n)
{
    if (!valid(p, "hint", layer, experts, n))
        return;
    for (int i = 0; i < n; i++) {
        int32_t slot = residency_hint(p->r, layer, experts[i]);
        if (slot >= 0)
            start(p, slot, layer, experts[i], false);
    }
}

/* ---- what callers ask ---- */

uint32_t pool_capacity(const pool *p, uint32_t layer) { return residency_capacity(p->r, layer); }

void pool_resident(const pool *p, uint32_t layer, uint8_t *flags)
{
    for (uint32_t e = 0; layer < p->n_layers && e < p->layers[layer].n_experts; e++)
        flags[e] = residency_find(p->r, layer, e) >= 0;
}

static void add_counts(pool_counts *sum, const pool *p, uint32_t layer)
{
    const residency_counts *c = &p->r->counts[layer];
    sum->requests += c->requests;
    sum->hits += c->hits;
    sum->joined += c->joined;
    sum->hinted += c->hinted;
    sum->wasted += c->wasted;
    sum->bytes_read += c->bytes_read;
    sum->stall_ns += atomic_load(&p->stall_ns[layer]);
}

void pool_stats(const pool *p, uint32_t layer, pool_counts *out)
{
    *out = (pool_counts){0};
    for (uint32_t l = 0; l < p->n_layers; l++)
        if (l == layer || layer >= p->n_layers)
            add_counts(out, p, l);
}

void pool_info_get(const pool *p, pool_info *out)
{
    *out = (pool_info){.budget_bytes = p->budget_bytes,
                       .held_bytes = p->held_bytes,
                       .slot_bytes = p->r->slots_bytes,
                       .n_slots = p->r->n_slots,
                       .n_classes = p->r->n_classes,
                       .how = aio_how(p->reads)};
    for (uint32_t l = 0; l < p->n_layers; l++)
        out->all_bytes += p->layers[l].n_experts * (uint64_t)p->layers[l].bytes;
}

uint64_t pool_shrink(pool *p, uint64_t bytes)
{
    uint64_t freed = 0;
    int32_t slot;
    while (freed < bytes && (slot = residency_close(p->r)) >= 0) {
        uint64_t at = residency_slot_offset(p->r, slot);
        size_t size = residency_slot_bytes(p->r, slot);
        clear_slot(p, &p->slots[slot]);
        os_advise_drop(p->memory + at, size);
        freed += size;
    }
    return freed;
}

#define LEAST_CLEAR ((uint64_t)32 << 20)

uint64_t pool_adjust(pool *p, uint64_t memory_left_bytes)
{
    uint64_t clear = p->r->slots_bytes / 16 > LEAST_CLEAR ? p->r->slots_bytes / 16 : LEAST_CLEAR;
    return memory_left_bytes < clear ? pool_shrink(p, clear - memory_left_bytes) : 0;
}

/* ---- opening and closing ---- */

/* Every layer's run must lie in the file, at aligned places. */
static dil_status check_layers(const pool_options *o, uint64_t file_bytes, dil_error *err)
{
    for (uint32_t l = 0; l < o->n_layers; l++) {
        const pool_layer *s = &o->layers[l];
        uint64_t last, end;
        if (s->n_experts == 0)
            continue;
        if (s->offset % POOL_ALIGN != 0 || s->stride % POOL_ALIGN != 0 || s->bytes == 0 || s->bytes > s->stride)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                            "layer %u: wanted experts at multiples of %u bytes, found offset %llu, stride %llu, %zu bytes", l,
                            POOL_ALIGN, (unsigned long long)s->offset, (unsigned long long)s->stride, s->bytes);
        if (!checked_mul_u64(s->n_experts - 1, s->stride, &last) || !checked_add_u64(last, s->offset, &last) ||
            !checked_add_u64(last, s->bytes, &end) || end > file_bytes)
            return DIL_FAIL(err, DIL_IO, "layer %u: wanted %u experts of %llu bytes from byte %llu on, found a file of %llu bytes",
                            l, s->n_experts, (unsigned long long)s->stride, (unsigned long long)s->offset,
                            (unsigned long long)file_bytes);
    }
    return DIL_OK;
}

static dil_status check_identity(const pool_identity *wanted, const os_file *found, dil_error *err)
{
    if ((wanted->size_bytes && wanted->size_bytes != found->size_bytes) || (wanted->device && wanted->device != found->device) ||
        (wanted->inode && wanted->inode != found->inode) || (wanted->mtime_ns && wanted->mtime_ns != found->mtime_ns))
        return DIL_FAIL(err, DIL_IO, "wanted the file of %llu bytes that was opened before, found another; start again",
                        (unsigned long long)wanted->size_bytes);
    return DIL_OK;
}

static uint32_t most_experts(const pool_options *o)
{
    uint32_t most = 0;
    for (uint32_t l = 0; l < o->n_layers; l++)
        most = o->layers[l].n_experts > most ? o->layers[l].n_experts : most;
    return most;
}

/* The pool's own tables behind the struct: places them in memory, or (NULL) only counts. */
static size_t place_tables(pool *p, const pool_options *o)
{
    size_t at = round_up_size(sizeof *p, 64), layers = round_up_size(o->n_layers * sizeof *p->layers, 64),
           stalls = round_up_size(o->n_layers * sizeof *p->stall_ns, 64), places = most_experts(o) * sizeof *p->places;
    if (p) {
        char *memory = (char *)p + at;
        p->layers = (pool_layer *)(void *)memory;
        p->stall_ns = (_Atomic uint64_t *)(void *)(memory + layers);
        p->places = (residency_place *)(void *)(memory + layers + stalls);
        memcpy(p->layers, o->layers, o->n_layers * sizeof *p->layers);
    }
    return at + layers + stalls + places;
}

static residency_layer *sizes_of(const pool_options *o)
{
    residency_layer *sizes = mem_calloc(o->n_layers ? o->n_layers : 1, sizeof *sizes, MEM_PACKED);
    for (uint32_t l = 0; sizes && l < o->n_layers; l++)
        sizes[l] = (residency_layer){.bytes = o->layers[l].bytes, .n_experts = o->layers[l].n_experts};
    return sizes;
}

static residency_options residency_of(const pool_options *o, const residency_layer *sizes)
{
    return (residency_options){
        .layers = sizes, .n_layers = o->n_layers, .n_used = o->n_used, .per_slot_bytes = sizeof(slot_read), .policy = o->policy};
}

uint64_t pool_least_budget(const pool_options *o)
{
    residency_layer *sizes = o->policy == POLICY_BELADY ? NULL : sizes_of(o);
    residency_options options = residency_of(o, sizes);
    uint64_t least = sizes ? residency_least(&options) : 0;
    mem_free(sizes);
    return least ? least + place_tables(NULL, o) + aio_bytes() : 0;
}

static dil_status make_residency(pool *p, const pool_options *o, dil_error *err)
{
    uint64_t own = place_tables(NULL, o) + aio_bytes(), least = pool_least_budget(o);
    residency_layer *sizes = sizes_of(o);
    if (!sizes)
        return DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory for their tables");
    residency_options options = residency_of(o, sizes);
    options.budget_bytes = o->budget_bytes > own ? o->budget_bytes - own : 0;
    dil_status status = residency_new(&p->r, &options, err);
    mem_free(sizes);
    if (status == DIL_NO_MEMORY && least > o->budget_bytes)
        return DIL_FAIL(
            err, DIL_NO_MEMORY,
            "memory for experts: wanted at least %llu bytes (%u experts of a layer at once), found a budget of %llu; give more",
            (unsigned long long)least, o->n_used, (unsigned long long)o->budget_bytes);
    return status;
}

static dil_status make_slots(pool *p, dil_error *err)
{
    p->slots = mem_calloc(p->r->n_slots, sizeof *p->slots, MEM_PACKED);
    p->memory = p->slots ? mem_map(p->r->slots_bytes, MEM_PACKED) : NULL;
    if (!p->memory)
        return DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory for %llu bytes of them", (unsigned long long)p->r->slots_bytes);
    os_advise_huge(p->memory, p->r->slots_bytes);
    return DIL_OK;
}

static dil_status open_file(pool *p, const pool_options *o, dil_error *err)
{
    aio_options options = {.depth = o->depth, .no_ring = o->no_ring, .no_direct = o->no_direct};
    DIL_TRY(aio_open(&p->reads, o->path, &options, finished, p, err));
    const os_file *f = aio_file(p->reads);
    dil_status status = check_identity(&o->identity, f, err);
    if (status == DIL_OK)
        status = check_layers(o, f->size_bytes, err);
    return status == DIL_OK ? DIL_OK : status_prefix(err, "%s: ", o->path);
}

dil_status pool_new(pool **out, const pool_options *o, dil_error *err)
{
    if (o->policy == POLICY_BELADY || (unsigned)o->policy >= POLICY_KINDS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "policy of the pool: wanted swarm, lru, lfu or stale, found %s",
                        policy_name(o->policy));
    size_t tables = place_tables(NULL, o);
    pool *p = mem_calloc(1, tables, MEM_PACKED);
    if (!p)
        return DIL_FAIL(err, DIL_NO_MEMORY, "experts: no memory for their tables");
    (void)place_tables(p, o);
    p->n_layers = o->n_layers;
    p->budget_bytes = o->budget_bytes;
    p->no_sums = o->no_sums;
    p->watch_content = o->identity.mtime_ns != 0;
    atomic_flag_clear(&p->failed.busy);
    dil_status status = make_residency(p, o, err);
    if (status == DIL_OK)
        status = make_slots(p, err);
    if (status == DIL_OK)
        status = open_file(p, o, err);
    if (status == DIL_OK) {
        p->held_bytes = tables + aio_bytes() + p->r->tables_bytes + p->r->n_slots * sizeof *p->slots + p->r->slots_bytes;
        *out = p;
    } else {
        pool_free(p);
    }
    return status;
}

void pool_free(pool *p)
{
    if (!p)
        return;
    aio_close(p->reads);
    if (p->memory)
        mem_unmap(p->memory, p->r->slots_bytes, MEM_PACKED);
    mem_free(p->slots);
    residency_free(p->r);
    mem_free(p);
}
