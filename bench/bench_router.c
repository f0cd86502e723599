/*
 * Routing of one token among N experts, n_embd 2048, 8 used, one thread: the full scan (F32 panels, gemv, exact choice) beside the
 * certified choice and the purely local mode; then batches that agree on experts. Cold: round robin over the routers of as many
 * layers as exceed the caches. States are synthetic: each channel has its own size, some are large, and a state keeps much of the
 * one before.
 *     bench_router [LEVEL [STATES]]   STATES: how many more are compared bit for bit with the full scan
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "experts/router.h"
#include "theorem/random.h"

enum { EMBD = 2048, USED = 8, STATES = 512, HOT = 8 };
#define COLD_BYTES (160.0 * 1024 * 1024)
#define KEEPS 0.7f /* of a state in the next one */

static uint64_t seed = 11;
static double uniform(void) { return (double)(random_next(&seed) >> 11) * 0x1p-53; }
static double seconds(void) { return (double)os_time_ns() * 1e-9; }

static float normal(void)
{
    double sum = 0.0;
    for (int i = 0; i < 4; i++)
        sum += uniform();
    return (float)((sum - 2.0) * 1.7320508);
}

static void must(dil_status status, const dil_error *err)
{
    if (status != DIL_OK) {
        fprintf(stderr, "bench_router: %s\n", err->text);
        exit(1);
    }
}

typedef struct layer {
    float *rows;
    uint8_t *panels;
    router_screen *screen;
} layer;

/* Experts come in families of 8 that share part of their direction. */
static void make_layer(const kernels *k, uint32_t n, layer *l)
{
    static float family[EMBD];
    size_t panel = panel_bytes(DIL_TYPE_F32, EMBD);
    dil_error err;
    l->rows = mem_alloc((size_t)n * EMBD * sizeof(float), MEM_MISC);
    l->panels = mem_alloc(n / PANEL_ROWS * panel, MEM_MISC);
    for (uint32_t i = 0; i < n; i++)
        for (size_t c = 0; c < EMBD; c++) {
            family[c] = i % 8 == 0 ? normal() : family[c];
            l->rows[(size_t)i * EMBD + c] = 0.02f * (0.5f * family[c] + normal());
        }
    for (uint32_t p = 0; p < n / PANEL_ROWS; p++)
        panel_pack(DIL_TYPE_F32, l->rows + (size_t)p * PANEL_ROWS * EMBD, EMBD * sizeof(float), PANEL_ROWS, EMBD,
                   l->panels + p * panel);
    must(router_screen_new(&l->screen, k, l->rows, NULL, n, EMBD, &err), &err);
}

static void make_states(float *x)
{
    static float size[EMBD];
    for (size_t c = 0; c < EMBD; c++)
        size[c] = expf(0.5f * normal()) * (c % 200 == 7 ? 8.0f : 1.0f);
    for (size_t t = 0; t < STATES; t++)
        for (size_t c = 0; c < EMBD; c++) {
            float fresh = size[c] * normal();
            x[t * EMBD + c] = t == 0 ? fresh : KEEPS * x[(t - 1) * EMBD + c] + sqrtf(1.0f - KEEPS * KEEPS) * fresh;
        }
}

/* ---- ways to route ---- */

typedef struct run {
    const kernels *k;
    const layer *layers;
    router_rule rule;
    const float *states;
    float *y, *scratch;
    void *work;
    router_evidence sum;
    uint32_t n_calls;
} run;

typedef void (*way)(run *r, const layer *l, const float *x, uint16_t *chosen, float *weights);

static void full(run *r, const layer *l, const float *x, uint16_t *chosen, float *weights)
{
    act a = {.f = x, .f_stride = EMBD};
    r->k->linear[DIL_TYPE_F32].gemv(&(linear_args){.panels = l->panels,
                                                   .panel_bytes = panel_bytes(DIL_TYPE_F32, EMBD),
                                                   .n_panels = (int)r->rule.n_experts / PANEL_ROWS,
                                                   .k = EMBD,
                                                   .x = &a,
                                                   .n_tokens = 1,
                                                   .y = r->y,
                                                   .y_stride = r->rule.n_experts});
    router_exact(&r->rule, r->y, chosen, weights, r->scratch);
}

static void certified(run *r, const layer *l, const float *x, uint16_t *chosen, float *weights)
{
    router_evidence e;
    router_certified(l->screen, &r->rule, x, r->work, chosen, weights, &e);
    r->sum.n_scored += e.n_scored;
    r->sum.read_bytes += e.read_bytes;
    r->sum.full_bytes += e.full_bytes;
    r->n_calls++;
}

/* Microseconds per call; n_layers 1: hot. The best of some rounds. */
static double measure(run *r, way w, uint32_t n_layers)
{
    uint16_t chosen[USED];
    float weights[USED];
    double best = INFINITY;
    uint32_t calls = n_layers > 1 ? n_layers : 200;
    for (int round = 0; round < 7; round++) {
        double started = seconds();
        for (uint32_t i = 0; i < calls; i++)
            w(r, &r->layers[i % n_layers], r->states + (size_t)((i + 31 * (uint32_t)round) % STATES) * EMBD, chosen, weights);
        double took = (seconds() - started) / calls * 1e6;
        best = took < best ? took : best;
    }
    return best;
}

/* The given states, and sums of two of them by chance. */
static void check_equal(run *r, const layer *l, size_t more)
{
    static float x[EMBD];
    uint16_t a[USED], b[USED];
    float v[USED], w[USED];
    for (size_t t = 0; t < STATES + more; t++) {
        const float *first = r->states + (t < STATES ? t : random_next(&seed) % STATES) * EMBD;
        const float *second = r->states + random_next(&seed) % STATES * EMBD;
        const float part = t < STATES ? 0.0f : normal();
        for (size_t c = 0; c < EMBD; c++)
            x[c] = first[c] + part * second[c];
        full(r, l, x, a, v);
        certified(r, l, x, b, w);
        if (memcmp(a, b, sizeof a) != 0 || memcmp(v, w, sizeof v) != 0) {
            fprintf(stderr, "bench_router: the certified choice is another one at state %zu\n", t);
            exit(1);
        }
    }
}

/* ---- the local mode ---- */

static void local(run *r, const layer *l, float margin, uint32_t n_hot, uint32_t refresh)
{
    router_memory *m;
    router_evidence e, sum = {0};
    uint16_t a[USED], b[USED], last[USED] = {0};
    float v[USED], w[USED];
    uint32_t common = 0, again = 0, fallbacks = 0, candidates = 0;
    dil_error err;
    must(router_memory_new(&m, &r->rule, &(router_memory_options){n_hot, margin, refresh}, &err), &err);
    for (size_t t = 0; t < STATES; t++) {
        full(r, l, r->states + t * EMBD, a, v);
        router_local(l->screen, &r->rule, r->states + t * EMBD, m, r->work, b, w, &e);
        sum.read_bytes += e.read_bytes;
        sum.full_bytes += e.full_bytes;
        common += router_common(a, b, USED);
        again += t > 0 ? router_common(a, last, USED) : 0;
        fallbacks += e.fell_back;
        candidates += e.fell_back ? 0 : e.n_scored;
        memcpy(last, a, sizeof a);
    }
    printf(
        "  local, %u hot, margin %4.1f, refresh %2u: bytes %5.1f %%, recall@8 %.3f, fell back %5.1f %%, %5.1f candidates; next token uses %.2f again\n",
        n_hot, (double)margin, refresh, 100.0 * (double)sum.read_bytes / (double)sum.full_bytes, (double)common / (STATES * USED),
        100.0 * fallbacks / STATES, (double)candidates / (STATES - fallbacks), (double)again / ((STATES - 1) * USED));
    router_memory_free(m);
}

/* ---- batches ---- */

/* Scores of a text: all tokens prefer some experts, each has its own taste. */
static void batch(uint32_t n_tokens, uint32_t n, float budget)
{
    float *z = mem_alloc((size_t)n_tokens * n * sizeof *z, MEM_MISC), *w = mem_alloc((size_t)n_tokens * USED * sizeof *w, MEM_MISC);
    uint16_t *chosen = mem_alloc((size_t)n_tokens * USED * sizeof *chosen, MEM_MISC);
    router_rule r = {.gating = GATING_SOFTMAX, .n_experts = n, .n_used = USED, .normalise = true, .scale = 1.0f};
    router_offer o = {.price = 1.0f, .budget = budget, .keep = 2};
    router_batch_report report[2];
    dil_error err;
    for (uint32_t e = 0; e < n; e++)
        for (uint32_t t = 0; t < n_tokens; t++)
            z[(size_t)t * n + e] = 1.5f * normal() + (t > 0 ? 0.0f : 1.0f * normal());
    for (size_t i = n; i < (size_t)n_tokens * n; i++)
        z[i] += 0.7f * z[i % n];
    double took = INFINITY;
    for (int round = 0; round < 5; round++) {
        double started = seconds();
        must(router_batch(&r, z, n, n_tokens, &o, chosen, w, NULL, &report[0], &err), &err);
        took = fmin(took, seconds() - started);
    }
    o.alone = true;
    must(router_batch(&r, z, n, n_tokens, &o, chosen, w, NULL, &report[1], &err), &err);
    printf(
        "batch of %3u among %3u, budget %.2f: %3u experts -> %3u (best responses alone %3u), all pay %.1f -> %.1f, %u sweeps, %.2f ms\n",
        n_tokens, n, (double)budget, report[0].n_before, report[0].n_after, report[1].n_after, report[0].potential_before,
        report[0].potential, report[0].sweeps, 1e3 * took);
    mem_free(z);
    mem_free(w);
    mem_free(chosen);
}

static void bench(const kernels *k, uint32_t n, const float *states, size_t more)
{
    uint32_t n_layers = (uint32_t)(COLD_BYTES / ((double)n * EMBD * sizeof(float)));
    layer *layers = mem_calloc(n_layers, sizeof *layers, MEM_MISC);
    dil_error err;
    for (uint32_t l = 0; l < n_layers; l++)
        make_layer(k, n, &layers[l]);
    run r = {.k = k, .layers = layers, .states = states};
    r.rule = (router_rule){.gating = GATING_SOFTMAX, .n_experts = n, .n_used = USED, .normalise = true, .scale = 1.0f};
    r.y = mem_alloc(n * sizeof(float), MEM_MISC);
    r.scratch = mem_alloc(2 * n * sizeof(float), MEM_MISC);
    r.work = mem_alloc(router_work_bytes(layers[0].screen), MEM_MISC);
    check_equal(&r, &layers[0], more);
    double bytes = 100.0 * (double)r.sum.read_bytes / (double)r.sum.full_bytes, rows = (double)r.sum.n_scored / r.n_calls;
    double cold[2] = {measure(&r, full, n_layers), measure(&r, certified, n_layers)};
    double hot[2] = {measure(&r, full, 1), measure(&r, certified, 1)};
    printf(
        "N %3u: certified bytes %5.1f %%, exact rows %5.1f; cold %6.1f us, full %6.1f us: %.2f x; hot %6.1f us, full %6.1f us: %.2f x\n",
        n, bytes, rows, cold[1], cold[0], cold[0] / cold[1], hot[1], hot[0], hot[0] / hot[1]);
    static const float margins[] = {0.0f, 1.0f, 2.0f, INFINITY};
    must(router_screen_flock(layers[0].screen, NULL, &err), &err);
    for (size_t i = 0; i < sizeof margins / sizeof *margins; i++)
        for (uint32_t refresh = 0; refresh <= 8; refresh += 8)
            local(&r, &layers[0], margins[i], HOT, refresh);
    fflush(stdout);
    for (uint32_t l = 0; l < n_layers; l++) {
        mem_free(layers[l].rows);
        mem_free(layers[l].panels);
        router_screen_free(layers[l].screen);
    }
    mem_free(layers);
    mem_free(r.y);
    mem_free(r.scratch);
    mem_free(r.work);
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {64, 128, 256, 512};
    float *states = mem_alloc((size_t)STATES * EMBD * sizeof(float), MEM_MISC);
    kernels k;
    dil_error err;
    must(kernels_select(&k, argc > 1 ? argv[1] : NULL, &err), &err);
    printf("level %s\n", k.name);
    make_states(states);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        bench(&k, sizes[i], states, argc > 2 ? (size_t)strtoull(argv[2], NULL, 10) : 0);
    static const uint32_t tokens[] = {4, 16, 64, 512};
    for (size_t i = 0; i < 4; i++)
        for (int budget = 1; budget <= 3; budget += 2)
            for (uint32_t n = 64; n <= 256; n *= 4)
                batch(tokens[i], n, 0.1f * (float)budget);
    mem_free(states);
    return 0;
}
