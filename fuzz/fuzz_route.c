/*
 * links: experts base
 * A router log of any bytes, from a block of exactly that size: reading it, measuring it and replaying it with every policy;
 * nothing may be held afterwards.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "experts/simulate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const trace *t)
{
    dil_error err;
    simulation s;
    if (t->n_layers > 64 || simulate_all_bytes(t) > (uint64_t)1 << 50)
        return;
    simulate_reuse *reuse = calloc(t->n_places, sizeof *reuse);
    if (reuse && simulate_measure(t, reuse, &err) != DIL_OK)
        abort();
    free(reuse);
    for (int k = 0; k < POLICY_KINDS; k++) {
        uint64_t least = simulate_least(t, (policy_kind)k);
        if (simulate(t, (policy_kind)k, least + simulate_token_bytes(t), &s, NULL, &err) != DIL_OK ||
            s.total.hits > s.total.requests)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dil_error err = {0};
    trace *t = NULL;
    size_t held = mem_bytes(MEM_FILE) + mem_bytes(MEM_MISC) + mem_bytes(MEM_PACKED);
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return 0;
    if (size > 0)
        memcpy(copy, data, size);
    if (trace_parse(&t, copy, size, &err) == DIL_OK) {
        use(t);
        trace_free(t);
    } else if (t || !err.text[0]) {
        abort();
    }
    free(copy);
    if (mem_bytes(MEM_FILE) + mem_bytes(MEM_MISC) + mem_bytes(MEM_PACKED) != held)
        abort();
    return 0;
}
