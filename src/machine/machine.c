#include "machine/machine.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/status.h"
#include "machine/machine_internal.h"

/* Every allowed processor, siblings of one core together, and the caches of the first one. */
static void from_system(machine *m)
{
    int cpus[MACHINE_MAX_CPUS], n = os_allowed_cpus(cpus, MACHINE_MAX_CPUS);
    n = n < MACHINE_MAX_CPUS ? n : MACHINE_MAX_CPUS;
    bool taken[MACHINE_MAX_CPUS] = {false};
    for (int i = 0; i < n; i++) {
        if (taken[i])
            continue;
        machine_core c = {.cpu = cpus[i], .first_sibling = m->n_cpus, .cache = {m->n_cores, m->n_cores, -1, -1}};
        int core = os_cpu_first_sibling(cpus[i]);
        for (int j = i; j < n; j++)
            if (j == i || os_cpu_first_sibling(cpus[j]) == core) {
                taken[j] = true;
                m->cpus[m->n_cpus++] = cpus[j];
                c.n_cpus++;
            }
        m->cores[m->n_cores++] = c;
    }
    for (int level = 0; level < 3; level++) /* L3 is taken for shared by all */
        m->caches[level] = (machine_level){.size_bytes = os_cache_bytes(level + 1),
                                           .line_bytes = 64,
                                           .n_caches = level < 2 ? m->n_cores : 1,
                                           .n_cores = level < 2 ? 1 : m->n_cores};
}

/* A system that says nothing of its processors has one. */
static void at_least_one(machine *m)
{
    if (m->n_cores > 0)
        return;
    m->cores[0] = (machine_core){.n_cpus = 1};
    m->cpus[0] = 0;
    m->n_cores = m->n_cpus = 1;
}

static int by_kind(const void *a, const void *b)
{
    const machine_core *x = a, *y = b;
    return x->kind != y->kind ? y->kind - x->kind : x->first_sibling - y->first_sibling; /* siblings stand in hwloc's order */
}

/* Distinct values of a field of the cores, the values being small and not negative. */
static int distinct(const machine *m, size_t offset)
{
    bool seen[MACHINE_MAX_CPUS] = {false};
    int n = 0;
    for (int i = 0; i < m->n_cores; i++) {
        int value = *(const int *)(const void *)((const char *)&m->cores[i] + offset);
        if (value >= 0 && value < MACHINE_MAX_CPUS && !seen[value]) {
            seen[value] = true;
            n++;
        }
    }
    return n;
}

static void finish(machine *m, const machine_source *s)
{
    os_limits limits;
    at_least_one(m);
    qsort(m->cores, (size_t)m->n_cores, sizeof *m->cores, by_kind);
    m->n_kinds = distinct(m, offsetof(machine_core, kind));
    m->n_numa = distinct(m, offsetof(machine_core, numa));
    m->n_sockets = distinct(m, offsetof(machine_core, socket));
    os_limits_read(s->limits_root, &limits);
    m->quota_cpus = limits.cpus;
    m->memory_bytes = os_memory_bytes();
    if (limits.memory_bytes && limits.memory_bytes < m->memory_bytes)
        m->memory_bytes = limits.memory_bytes;
    m->huge_page_bytes = os_huge_page_bytes(&m->huge_mode);
}

dil_status machine_topology(machine **out, const machine_source *source, dil_error *err)
{
    machine_source this_system = {0};
    const machine_source *s = source ? source : &this_system;
    machine *m = mem_calloc(1, sizeof *m, MEM_MISC);
    if (m) {
        m->cores = mem_calloc(MACHINE_MAX_CPUS, sizeof *m->cores, MEM_MISC);
        m->cpus = mem_calloc(MACHINE_MAX_CPUS, sizeof *m->cpus, MEM_MISC);
    }
    if (!m || !m->cores || !m->cpus) {
        machine_free(m);
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory");
    }
    dil_status status = machine_from_hwloc(m, s, err);
    if (status == DIL_UNSUPPORTED && !s->synthetic && !s->xml) {
        from_system(m);
        status = DIL_OK;
    }
    if (status != DIL_OK) {
        machine_free(m);
        return status;
    }
    finish(m, s);
    *out = m;
    return DIL_OK;
}

void machine_free(machine *m)
{
    if (!m)
        return;
    mem_free(m->cores);
    mem_free(m->cpus);
    mem_free(m);
}

int machine_default_threads(const machine *m)
{
    int n = 0;
    while (n < m->n_cores && m->cores[n].kind == m->cores[0].kind)
        n++;
    if (m->quota_cpus > 0 && m->quota_cpus < n)
        n = (int)ceil(m->quota_cpus);
    return n;
}

int machine_thread_cpus(const machine *m, int *out, int n)
{
    int given = 0;
    for (int sibling = 0; given < n; sibling++) {
        bool any = false;
        for (int i = 0; i < m->n_cores && given < n; i++) {
            const machine_core *c = &m->cores[i];
            if (sibling < c->n_cpus) {
                out[given++] = m->cpus[c->first_sibling + sibling];
                any = true;
            }
        }
        if (!any)
            break;
    }
    return given;
}
