/* Choosing the kernel level: what the CPU has, or what was asked for. */
#include <stdio.h>

#include "base/cpu.h"
#include "base/status.h"
#include "base/str.h"
#include "kernels/kernels.h"

typedef struct level {
    const char *name;
    uint32_t needs; /* CPU_ flags */
    void (*add)(kernels *k);
} level;

/* Ascending: each overlays the ones before it. */
static const level levels[] = {
    {"scalar", 0, kernels_add_scalar},
#if defined(__x86_64__)
    {"avx2", CPU_AVX2, kernels_add_avx2},
    {"avx512", CPU_AVX512 | CPU_AVX512_VNNI, kernels_add_avx512},
    {"avx512_bf16", CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_BF16, kernels_add_avx512_bf16},
#endif
};
enum { N_LEVELS = sizeof levels / sizeof *levels };

static bool has(const level *l, uint32_t cpu) { return (l->needs & cpu) == l->needs; }

/* The highest level this CPU has. */
static int best_level(uint32_t cpu)
{
    int best = 0;
    for (int i = 1; i < N_LEVELS; i++)
        best = has(&levels[i], cpu) ? i : best;
    return best;
}

static dil_status refuse(const char *wanted, uint32_t cpu, dil_error *err)
{
    char list[64] = "auto";
    for (int i = 0; i < N_LEVELS; i++) {
        if (!has(&levels[i], cpu))
            continue;
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof list - used, ", %s", levels[i].name);
    }
    return DIL_FAIL(err, DIL_BAD_ARGUMENT, "kernel level '%.40s': this CPU has %s", wanted, list);
}

dil_status kernels_select(kernels *out, const char *name, dil_error *err)
{
    uint32_t cpu = cpu_features();
    int chosen = -1;
    if (!name || str_equal_nocase(name, "auto"))
        chosen = best_level(cpu);
    for (int i = 0; i < N_LEVELS && chosen < 0; i++)
        if (str_equal_nocase(name, levels[i].name) && has(&levels[i], cpu))
            chosen = i;
    if (chosen < 0)
        return refuse(name, cpu, err);
    kernels k = {0};
    for (int i = 0; i <= chosen; i++)
        levels[i].add(&k);
    k.name = levels[chosen].name;
    *out = k;
    return DIL_OK;
}

const char *kernels_build(void) { return DIL_BUILD; }
