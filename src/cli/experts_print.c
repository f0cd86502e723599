/* What people are told about experts after a run. */
#include <stdio.h>

#include "base/status.h"
#include "cli/cli.h"

static double share(double part, double of) { return of > 0 ? 100 * part / of : 0; }

static void print_pool(engine *e, uint64_t n_choices)
{
    const pool *p = engine_experts(e);
    pool_counts n;
    pool_info info;
    char held[32], all[32], per[32];
    if (!p)
        return;
    pool_stats(p, UINT32_MAX, &n);
    pool_info_get(p, &info);
    uint64_t layers = 0;
    for (uint32_t i = 0; i < engine_model(e)->h.n_layer; i++)
        layers += engine_model(e)->layers[i].moe != NULL;
    double n_tokens = layers ? (double)n_choices / (double)layers : 0;
    fprintf(stderr,
            _("[experts: %s of %s in memory, %.1f %% of %llu requests found there | %s read per token, %.2f s waited | %s]\n"),
            str_bytes(info.budget_bytes, held, sizeof held), str_bytes(info.all_bytes, all, sizeof all),
            share((double)n.hits, (double)n.requests), (unsigned long long)n.requests,
            str_bytes(n_tokens > 0 ? (uint64_t)((double)n.bytes_read / n_tokens) : 0, per, sizeof per), (double)n.stall_ns * 1e-9,
            _(info.how));
}

void cli_print_experts(engine *e)
{
    route_counts r;
    compute_route_counts(engine_compute(e), &r);
    print_pool(e, r.n_choices);
    if (r.full_bytes > 0)
        fprintf(stderr, _("[routing: %.1f %% of the routers' bytes read, %llu full scans in %llu choices]\n"),
                share((double)r.read_bytes, (double)r.full_bytes), (unsigned long long)r.n_fell_back,
                (unsigned long long)r.n_choices);
    if (r.n_changed > 0)
        fprintf(
            stderr,
            _("[routing: %.2f experts per choice exchanged, %.2f %% of the weights moved, at most %.2f %%; outputs of experts moved by "
              "at most %.3f of the largest]\n"),
            (double)r.n_changed / (double)r.n_choices, 100 * r.mass / (double)r.n_choices, 100 * r.most_mass,
            r.change / (double)r.n_choices);
}
