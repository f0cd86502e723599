/*
 * Rounding of one matrix to every type that has a grid: seconds of all threads together, and errors (relative to the matrix's own power when there are sweeps) of the plain encoder,
 * after feedback and at the equilibrium. Weights and inputs are random, the inputs with strong common directions as models have.
 *   bench_round [--rows N] [--columns N] [--sweeps N] [--threads N] [--types A,B,..]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "quantize/round.h"
#include "theorem/random.h"

typedef struct options {
    int rows, columns, sweeps, threads;
    const char *types; /* NULL: all */
} options;

static uint64_t seed = 1;

static float gaussian(void)
{
    float sum = -6.0f;
    for (int i = 0; i < 12; i++)
        sum += (float)(random_next(&seed) >> 40) * 0x1p-24f;
    return sum;
}

static bool parse(options *o, int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--rows") == 0)
            o->rows = atoi(value);
        else if (strcmp(name, "--columns") == 0)
            o->columns = atoi(value);
        else if (strcmp(name, "--sweeps") == 0)
            o->sweeps = atoi(value);
        else if (strcmp(name, "--threads") == 0)
            o->threads = atoi(value);
        else if (strcmp(name, "--types") == 0)
            o->types = value;
        else
            return false;
    }
    return argc % 2 && o->rows > 0 && o->columns > 0 && o->sweeps >= 0 && o->threads > 0;
}

/* Sum of x x^T over inputs of 16 common directions of falling strength and noise. h: [n][n] of zeros. */
static void fill_curvature(float *h, int n, float *x)
{
    enum { DIRECTIONS = 16 };
    float *direction = x + n;
    for (int i = 0; i < DIRECTIONS * n; i++)
        direction[i] = gaussian();
    for (int t = 0; t < 2 * n; t++) {
        for (int i = 0; i < n; i++)
            x[i] = gaussian() * (i % 61 == 0 ? 3.0f : 1.0f);
        for (int k = 0; k < DIRECTIONS; k++) {
            float strength = gaussian() * 2.0f / (float)(1 + k);
            for (int i = 0; i < n; i++)
                x[i] += strength * direction[k * n + i];
        }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                h[(size_t)i * (size_t)n + (size_t)j] += x[i] * x[j];
    }
}

static bool wanted(const options *o, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = o->types; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == 0))
            return true;
    }
    return o->types == NULL;
}

static bool run_type(const options *o, dil_type type, const float *w, const metric *m, team *workers, uint8_t *out, dil_error *err)
{
    round_report r;
    round_task t = {.type = type, .rows = o->rows, .columns = o->columns, .w = w, .m = m, .most_sweeps = o->sweeps};
    clock_t start = clock();
    if (round_matrix(&t, workers, o->sweeps ? out : NULL, &r, err) != DIL_OK)
        return false;
    const double power = o->sweeps ? r.power : 1;
    printf("%-8s %7.3f s   plain %.6e   fed %.6e   cost %.6e   sweeps %d\n", format_get(type)->name,
           (double)(clock() - start) / CLOCKS_PER_SEC, r.plain / power, r.fed / power, r.cost / power, r.n_sweeps);
    return true;
}

static bool run(const options *o, const float *w, const float *h, team *workers, uint8_t *out, dil_error *err)
{
    kernels k;
    metric *m = NULL;
    bool good =
        kernels_select(&k, NULL, err) == DIL_OK && metric_new(&m, h, o->columns, METRIC_DAMPING, &k, workers, err) == DIL_OK;
    for (int type = 0; good && type < DIL_TYPE_COUNT; type++) {
        const grid *g = grid_get((dil_type)type);
        if (g && o->columns % g->block == 0 && wanted(o, format_get((dil_type)type)->name))
            good = run_type(o, (dil_type)type, w, m, workers, out, err);
    }
    metric_free(m);
    return good;
}

int main(int argc, char **argv)
{
    options o = {.rows = 576, .columns = 1536, .sweeps = 16, .threads = 2};
    dil_error err = {0};
    team *workers = NULL;
    if (!parse(&o, argc, argv)) {
        fprintf(stderr, "usage: bench_round [--rows N] [--columns N] [--sweeps N] [--threads N] [--types A,B,..]\n");
        return 2;
    }
    const size_t n = (size_t)o.columns, values = (size_t)o.rows * n;
    float *w = mem_alloc(values * sizeof *w, MEM_MISC), *h = mem_calloc(n * n, sizeof *h, MEM_MISC);
    float *x = mem_alloc(17 * n * sizeof *x, MEM_MISC);
    uint8_t *out = mem_alloc(values * sizeof *w, MEM_MISC);
    bool good = w && h && x && out && team_new(&workers, o.threads, &err) == DIL_OK;
    if (good) {
        for (size_t i = 0; i < values; i++)
            w[i] = gaussian() * 0.05f;
        fill_curvature(h, o.columns, x);
        good = run(&o, w, h, workers, out, &err);
    }
    if (!good)
        fprintf(stderr, "%s\n", err.text);
    team_free(workers);
    mem_free(w);
    mem_free(h);
    mem_free(x);
    mem_free(out);
    return good ? 0 : 1;
}
