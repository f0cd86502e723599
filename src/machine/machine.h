/*
 * The machine this process runs on: cores with their SMT siblings and kinds, NUMA nodes, caches and who shares them, huge
 * pages, and what control groups leave of it. From hwloc; without it from what the system says of its processors (every
 * core of one kind, one NUMA node). Only processors the process may run on are counted.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/os.h"

#define MACHINE_MAX_CPUS 1024
#define MACHINE_CACHE_LEVELS 4

/* A physical core. Cores stand in the order threads should take them: the most powerful kind first, then as hwloc numbers
 * them, so that neighbours share caches and NUMA nodes. */
typedef struct machine_core {
    int cpu;                         /* number of its first allowed logical processor */
    int n_cpus;                      /* allowed logical processors: 1, or more with SMT */
    int first_sibling;               /* index in machine.cpus of the first of them; the others follow */
    int kind;                        /* 0: the least powerful kind; equal kinds, equal cores */
    int numa;                        /* index of its node, from 0 */
    int socket;                      /* index of its package, from 0 */
    int cache[MACHINE_CACHE_LEVELS]; /* index of its data cache of level 1.., -1: none known */
} machine_core;

typedef struct machine_level {
    uint64_t size_bytes; /* of one cache (the smallest, when they differ); 0: there is none, or it is unknown */
    int line_bytes;
    int n_caches; /* how many there are */
    int n_cores;  /* most cores that share one */
} machine_level;

typedef struct machine {
    int n_cores, n_cpus, n_kinds, n_numa, n_sockets;
    machine_core *cores;                        /* [n_cores] */
    int *cpus;                                  /* [n_cpus] logical processors, core by core */
    machine_level caches[MACHINE_CACHE_LEVELS]; /* [0]: L1 data, [1]: L2, ... */
    uint64_t memory_bytes;                      /* physical, or what control groups leave of it */
    double quota_cpus;                          /* processors' worth of time control groups allow; 0: no limit */
    uint64_t huge_page_bytes;                   /* 0: none */
    os_huge_mode huge_mode;
    bool detailed; /* from hwloc */
} machine;

/* Where the knowledge comes from. All zero: this system. Tests give a topology and limits of their own. */
typedef struct machine_source {
    const char *synthetic; /* hwloc's synthetic description, e.g. "numa:2 l3:1 core:4 pu:2"; all its processors are allowed */
    const char *xml;       /* hwloc's XML text instead */
    const int *allowed; /* [n_allowed] processors the process may run on; NULL: all of a given topology, or what the system says */
    int n_allowed;
    const char *limits_root; /* see os_limits_read */
} machine_source;

/* source may be NULL. Fails with NO_MEMORY, or BAD_ARGUMENT for a description that cannot be read. [owned: free with machine_free] */
DIL_MUST_CHECK dil_status machine_topology(machine **out, const machine_source *source, dil_error *err);
void machine_free(machine *m);

/* One thread per core of the most powerful kind, but no more than the quota allows (rounded up): at least 1. SMT siblings share
 * the units a matrix product needs, and a slow core holds a barrier back. */
int machine_default_threads(const machine *m);

/* Processors for n threads, one each: cores in their order first, then siblings. Returns how many of the n got one; when that is
 * less than n, threads should not be pinned. */
int machine_thread_cpus(const machine *m, int *out, int n);

#endif
