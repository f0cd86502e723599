/*
 * Policies of the expert pool on made-up router logs, at several budgets, beside Belady's bound; with a folder, the logs stay
 * there for `dil route`.
 *     bench_policies [FOLDER]
 */
#include <stdio.h>
#include <string.h>

#include "../tests/router_trace.h"
#include "base/os.h"
#include "experts/simulate.h"

static const double shares[] = {0.05, 0.10, 0.15, 0.25, 0.50, 0.75};

static void must(dil_status status, const dil_error *err)
{
    if (status != DIL_OK) {
        fprintf(stderr, "bench_policies: %s\n", err->text);
        exit(1);
    }
}

static void compare(const trace *t)
{
    static const policy_kind kinds[] = {POLICY_LRU, POLICY_LFU, POLICY_STALE, POLICY_SWARM, POLICY_BELADY};
    dil_error err;
    printf("%s: %.1f GB of experts, %.0f MB a token, %llu tokens\n  budget ", t->name, (double)simulate_all_bytes(t) * 1e-9,
           (double)simulate_token_bytes(t) * 1e-6, (unsigned long long)t->n_tokens);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        printf("%10s", policy_name(kinds[k]));
    printf("   ms per token (swarm)\n");
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        uint64_t spent = 0;
        printf("  %4.0f %% ", 100 * shares[i]);
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            simulation s;
            uint64_t began = os_time_ns();
            must(simulate(t, kinds[k], (uint64_t)(shares[i] * (double)simulate_all_bytes(t)), &s, NULL, &err), &err);
            if (kinds[k] == POLICY_SWARM)
                spent = os_time_ns() - began;
            printf("%9.2f%%", 100.0 * (double)s.total.hits / (double)s.total.requests);
        }
        printf("   %.3f\n", (double)spent * 1e-6 / (double)t->n_tokens);
    }
}

int main(int argc, char **argv)
{
    dil_error err;
    const char *folder = argc > 1 ? argv[1] : os_env("TMPDIR");
    for (int seed = 1; seed <= 2; seed++)
        for (int i = 0; i < ROUTER_KINDS; i++) {
            char path[4096];
            trace *t;
            snprintf(path, sizeof path, "%s/%s-%d.route", folder ? folder : ".", router_kinds[i].name, seed);
            must(router_write(&router_kinds[i], (uint64_t)seed, 1, true, path, &err), &err);
            must(trace_open(&t, path, &err), &err);
            compare(t);
            trace_free(t);
            if (argc < 2)
                must(os_remove(path, &err), &err);
        }
    return 0;
}
