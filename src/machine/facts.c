#include "machine/facts.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

#define FACTS_VERSION 10u /* changes with the file and with what is measured */
#define LIMIT_SECONDS 0.025
#define LIMIT_ROUNDS 2
#define COST_SECONDS 0.002
#define WHAT (LIMIT_CURVE | LIMIT_L3 | LIMIT_L2 | LIMIT_L1 | LIMIT_INT8 | LIMIT_BF16 | LIMIT_F32 | LIMIT_BARRIER)

typedef struct facts_file {
    char magic[8];
    uint64_t key, sum; /* of what they were measured for; checksum of the facts */
    machine_facts facts;
} facts_file;

static const char magic[8] = {'D', 'I', 'L', 'F', 'A', 'C', 'T', 'S'};

/* Of all that facts depend on. */
static uint64_t key_of(const machine *m, const kernels *k, int n_threads)
{
    const uint64_t numbers[] = {FACTS_VERSION,       DIL_TYPE_COUNT,          (uint64_t)n_threads,     (uint64_t)m->n_cores,
                                (uint64_t)m->n_cpus, m->caches[1].size_bytes, m->caches[2].size_bytes, sizeof(machine_facts)};
    const char *const names[] = {cpu_name(), k->name, kernels_build()};
    uint64_t key = XXH3_64bits(numbers, sizeof numbers);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        key = XXH3_64bits_withSeed(names[i], strlen(names[i]), key);
    return key;
}

static dil_status find_path(char *out, size_t n, uint64_t key, dil_error *err)
{
    char base[2000], folder[2100];
    DIL_TRY(os_cache_dir(base, sizeof base, err));
    snprintf(folder, sizeof folder, "%s/machine", base);
    DIL_TRY(os_make_dirs(folder, err));
    snprintf(out, n, "%s/%016llx.facts", folder, (unsigned long long)key);
    return DIL_OK;
}

static bool load(const char *path, uint64_t key, facts_file *r)
{
    os_file f;
    dil_error ignored;
    if (!os_exists(path) || os_file_open(&f, path, &ignored) != DIL_OK)
        return false;
    bool good = f.size_bytes == sizeof *r && os_file_read(&f, 0, r, sizeof *r, &ignored) == DIL_OK;
    os_file_close(&f);
    return good && memcmp(r->magic, magic, sizeof magic) == 0 && r->key == key &&
           r->sum == XXH3_64bits_withSeed(&r->facts, sizeof r->facts, key);
}

static dil_status save(const char *path, uint64_t key, facts_file *r, dil_error *err)
{
    memcpy(r->magic, magic, sizeof magic);
    r->key = key;
    r->sum = XXH3_64bits_withSeed(&r->facts, sizeof r->facts, key);
    return os_write_file(path, r, sizeof *r, err);
}

/* Whether others want to run, as the caller sees it when its own workers sleep. */
static bool busy_now(void) { return os_runnable_tasks() > 1; }

/* The better of two measurements of everything: higher speeds, shorter times. */
static void keep_better(machine_limits *l, const machine_limits *other)
{
    machine_rate *mine = &l->memory;
    const machine_rate *theirs = &other->memory;
    const ptrdiff_t n_speeds = &l->barrier - mine, n = (machine_rate *)(l + 1) - mine;
    for (ptrdiff_t i = 0; i < n; i++)
        if (i < n_speeds ? theirs[i].best > mine[i].best : theirs[i].best < mine[i].best)
            mine[i] = theirs[i];
}

/* One number of threads: its limits, and the costs of kernels if `costs`, between two looks at the limits. */
static dil_status measure_count(machine_facts *f, const machine *m, const kernels *k, int n_threads, bool costs,
                                dil_progress_fn progress, void *user, dil_error *err)
{
    team *t;
    int cpus[TEAM_MAX];
    machine_limits *l = &f->limits[f->n_counts++];
    dil_status status = DIL_OK;
    DIL_TRY(team_new(&t, n_threads, err));
    if (machine_thread_cpus(m, cpus, n_threads) == n_threads)
        team_pin(t, cpus, NULL);
    for (int round = 0; round < (costs ? LIMIT_ROUNDS : 1) && status == DIL_OK; round++) {
        machine_limits now;
        status = machine_measure(&now, m, k, t, WHAT, LIMIT_SECONDS, err);
        if (status == DIL_OK && round == 0)
            *l = now;
        else if (status == DIL_OK)
            keep_better(l, &now);
        if (status == DIL_OK && costs && round == 0)
            status = costs_measure(&f->costs, m, k, t, COST_SECONDS, progress, user, err);
    }
    team_free(t);
    return status;
}

static dil_status measure(machine_facts *f, const machine *m, const kernels *k, int n_threads, dil_progress_fn progress, void *user,
                          dil_error *err)
{
    const int counts[FACT_COUNTS] = {1, n_threads / 2, n_threads};
    int before = 0;
    memset(f, 0, sizeof *f);
    f->busy = busy_now();
    for (int i = 0; i < FACT_COUNTS; i++) {
        if (counts[i] <= before)
            continue;
        before = counts[i];
        if (progress && !progress(user, "threads", (uint64_t)counts[i], (uint64_t)n_threads))
            return DIL_FAIL(err, DIL_CANCELLED, "machine: measuring was cancelled");
        DIL_TRY(measure_count(f, m, k, counts[i], counts[i] == n_threads, progress, user, err));
        f->busy = busy_now() || f->busy;
    }
    return DIL_OK;
}

dil_status machine_facts_get(machine_facts *out, const machine *m, const kernels *k, int32_t n_threads, facts_use use,
                             dil_progress_fn progress, void *user, dil_error *err)
{
    char path[2200];
    if (n_threads == 0)
        n_threads = machine_default_threads(m) < TEAM_MAX ? machine_default_threads(m) : TEAM_MAX;
    const uint64_t key = key_of(m, k, n_threads);
    facts_file *r = mem_calloc(1, sizeof *r, MEM_MISC);
    if (!r)
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory for what it can do");
    dil_status status = find_path(path, sizeof path, key, err);
    if (status == DIL_OK &&
        (use == FACTS_AGAIN || !load(path, key, r) || (use == FACTS_OF_QUIET && r->facts.busy && !busy_now()))) {
        status = measure(&r->facts, m, k, n_threads, progress, user, err);
        if (status == DIL_OK)
            status = save(path, key, r, err);
    }
    if (status == DIL_OK)
        *out = r->facts;
    mem_free(r);
    return status;
}

const machine_limits *machine_facts_limits(const machine_facts *f, int32_t n_threads)
{
    int i = f->n_counts - 1;
    for (; i > 0 && f->limits[i].n_threads > n_threads; i--)
        ;
    return &f->limits[i];
}

double machine_weight_rate(const machine_facts *f, dil_type type, int32_t n_threads, double working_set)
{
    const linear_cost *l = &f->costs.linear[type];
    const double bytes = (double)panel_bytes(type, 2048) / (2048.0 * PANEL_ROWS),
                 reading = machine_read_rate(machine_facts_limits(f, n_threads), working_set);
    const double units = (l->value + l->row / 2048) / PANEL_ROWS / n_threads;
    return units > 0 ? 1 / cost_together(units, bytes / reading, l->stall) : 0;
}
