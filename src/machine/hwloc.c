#include "machine/machine_internal.h"

#include "base/status.h"

#ifdef DIL_HAVE_HWLOC

#include <hwloc.h>
#include <string.h>

/* The allowed processors of the topology: those given, or (of a described machine) all of them. */
static hwloc_bitmap_t allowed_set(hwloc_topology_t t, const machine_source *s)
{
    int own[MACHINE_MAX_CPUS];
    const int *cpus = s->allowed;
    int n = s->n_allowed;
    hwloc_bitmap_t set = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(t));
    if (!set || (!cpus && (s->synthetic || s->xml)))
        return set;
    if (!cpus) {
        cpus = own;
        n = os_allowed_cpus(own, MACHINE_MAX_CPUS);
        n = n < MACHINE_MAX_CPUS ? n : MACHINE_MAX_CPUS;
    }
    hwloc_bitmap_t given = hwloc_bitmap_alloc();
    for (int i = 0; given && i < n; i++)
        hwloc_bitmap_set(given, (unsigned)cpus[i]);
    if (given)
        hwloc_bitmap_and(set, set, given);
    hwloc_bitmap_free(given);
    return set;
}

static int ancestor_index(hwloc_topology_t t, hwloc_obj_t core, hwloc_obj_type_t type)
{
    hwloc_obj_t up = hwloc_get_ancestor_obj_by_type(t, type, core);
    return up ? (int)up->logical_index : -1;
}

static int numa_index(hwloc_topology_t t, hwloc_obj_t core)
{
    for (hwloc_obj_t node = NULL; (node = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_NUMANODE, node));)
        if (hwloc_bitmap_intersects(node->cpuset, core->cpuset))
            return (int)node->logical_index;
    return 0;
}

static void add_core(machine *m, hwloc_topology_t t, hwloc_obj_t core, hwloc_const_bitmap_t allowed)
{
    static const hwloc_obj_type_t levels[MACHINE_CACHE_LEVELS] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE,
                                                                  HWLOC_OBJ_L4CACHE};
    machine_core c = {.first_sibling = m->n_cpus, .numa = numa_index(t, core)};
    int kind = hwloc_cpukinds_get_by_cpuset(t, core->cpuset, 0), socket = ancestor_index(t, core, HWLOC_OBJ_PACKAGE);
    for (int cpu = hwloc_bitmap_first(core->cpuset); cpu >= 0; cpu = hwloc_bitmap_next(core->cpuset, cpu))
        if (hwloc_bitmap_isset(allowed, (unsigned)cpu) && m->n_cpus < MACHINE_MAX_CPUS) {
            m->cpus[m->n_cpus++] = cpu;
            c.n_cpus++;
        }
    if (c.n_cpus == 0)
        return;
    c.cpu = m->cpus[c.first_sibling];
    c.kind = kind < 0 ? 0 : kind;
    c.socket = socket < 0 ? 0 : socket;
    for (int level = 0; level < MACHINE_CACHE_LEVELS; level++)
        c.cache[level] = ancestor_index(t, core, levels[level]);
    m->cores[m->n_cores++] = c;
}

static void add_caches(machine *m, hwloc_topology_t t, hwloc_const_bitmap_t allowed)
{
    static const hwloc_obj_type_t levels[MACHINE_CACHE_LEVELS] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE,
                                                                  HWLOC_OBJ_L4CACHE};
    for (int level = 0; level < MACHINE_CACHE_LEVELS; level++) {
        machine_level *l = &m->caches[level];
        for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(t, levels[level], o));) {
            int sharing = 0;
            for (int i = 0; i < m->n_cores; i++)
                sharing += m->cores[i].cache[level] == (int)o->logical_index;
            if (!hwloc_bitmap_intersects(o->cpuset, allowed))
                continue;
            l->n_caches++;
            l->n_cores = sharing > l->n_cores ? sharing : l->n_cores;
            l->size_bytes = l->size_bytes == 0 || o->attr->cache.size < l->size_bytes ? o->attr->cache.size : l->size_bytes;
            l->line_bytes = (int)o->attr->cache.linesize;
        }
    }
}

static dil_status load(hwloc_topology_t t, const machine_source *s, dil_error *err)
{
    if (!s->synthetic && !s->xml) /* the kernel's word is enough; asking every core by CPUID moves this thread around */
        hwloc_topology_set_components(t, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
    if (s->synthetic && hwloc_topology_set_synthetic(t, s->synthetic) != 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "machine: hwloc cannot read the description '%s'", s->synthetic);
    if (s->xml && hwloc_topology_set_xmlbuffer(t, s->xml, (int)strlen(s->xml) + 1) != 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "machine: hwloc cannot read the XML text");
    if (hwloc_topology_load(t) != 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "machine: hwloc could not load the topology");
    return DIL_OK;
}

static dil_status fill(machine *m, hwloc_topology_t t, const machine_source *s, dil_error *err)
{
    hwloc_bitmap_t allowed = allowed_set(t, s);
    if (!allowed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory");
    /* Machines that hide their cores (some virtual ones) have only processors. */
    bool has_cores = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_CORE) > 0;
    for (hwloc_obj_t core = NULL; m->n_cores < MACHINE_MAX_CPUS;) {
        core = hwloc_get_next_obj_by_type(t, has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU, core);
        if (!core)
            break;
        add_core(m, t, core, allowed);
    }
    add_caches(m, t, allowed);
    hwloc_bitmap_free(allowed);
    return DIL_OK;
}

dil_status machine_from_hwloc(machine *m, const machine_source *source, dil_error *err)
{
    hwloc_topology_t t;
    if (hwloc_topology_init(&t) != 0)
        return DIL_FAIL(err, DIL_NO_MEMORY, "machine: no memory");
    dil_status status = load(t, source, err);
    if (status == DIL_OK)
        status = fill(m, t, source, err);
    hwloc_topology_destroy(t);
    m->detailed = status == DIL_OK;
    return status;
}

#else

dil_status machine_from_hwloc(machine *m, const machine_source *source, dil_error *err)
{
    (void)m;
    if (source->synthetic || source->xml)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "machine: described topologies need hwloc, which this build lacks");
    return DIL_UNSUPPORTED;
}

#endif
