/*
 * Training steps of the project's own models on random tokens: seconds per step, tokens/s and GFLOP/s (6 * active parameters per
 * token), forward, backward and the optimiser together. Medians of the steps after the first two; one JSON line.
 *   bench_train [--dense] [--compute f32|bf16] [--sequences N] [--steps N] [--threads N] [--cpu LEVEL]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "theorem/random.h"
#include "train/optimiser.h"

typedef struct options {
    bool dense;
    net_compute compute;
    int sequences, steps, threads;
    const char *cpu;
} options;

static bool parse(options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(name, "--dense") == 0) {
            o->dense = true;
            continue;
        }
        i++;
        if (strcmp(name, "--compute") == 0)
            o->compute = strcmp(value, "f32") == 0 ? NET_COMPUTE_F32 : NET_COMPUTE_BF16;
        else if (strcmp(name, "--sequences") == 0)
            o->sequences = atoi(value);
        else if (strcmp(name, "--steps") == 0)
            o->steps = atoi(value);
        else if (strcmp(name, "--threads") == 0)
            o->threads = atoi(value);
        else if (strcmp(name, "--cpu") == 0)
            o->cpu = value;
        else
            return false;
    }
    return o->sequences > 0 && o->steps > 2 && o->threads > 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int run(const options *o, const net_config *c, team *workers, const kernels *k, dil_error *err)
{
    net *n = NULL;
    optimiser *opt = NULL;
    const optimiser_config oc = {.lr = 1e-3f,
                                 .lr_router = 1.0f,
                                 .lr_embedding = 1.0f,
                                 .beta1 = 0.9f,
                                 .beta2 = 0.95f,
                                 .eps = 1e-8f,
                                 .weight_decay = 0.1f,
                                 .clip = 1.0f,
                                 .warmup = 0.1,
                                 .lr_end = 0.1};
    const loss_config terms = {.balance = 1e-2f, .z = 1e-3f, .recency = 0.9f, .beta = 0.5f};
    double seconds[1000];
    uint64_t state = 1;
    int32_t *tokens = mem_calloc((size_t)o->sequences * 513, sizeof *tokens, MEM_MISC);
    bool good = tokens && net_new(&n, c, o->compute, o->sequences * c->n_context, workers, k, err) == DIL_OK &&
                optimiser_new(&opt, n, &oc, workers, k, err) == DIL_OK;
    if (good)
        net_initialise(n, 1);
    for (int step = 0; good && step < o->steps; step++) {
        net_result r;
        for (int i = 0; i < o->sequences * 513; i++) /* small numbers are frequent, as words are */
            tokens[i] = (int32_t)((random_next(&state) % 8192) * (random_next(&state) % 8192) / 8192);
        uint64_t start = os_time_ns();
        net_clear_gradients(n);
        good = net_train(n, tokens, o->sequences, &(net_loss){1e-4f, c->n_experts ? &terms : NULL}, &r, err) == DIL_OK;
        (void)optimiser_step(opt, (uint64_t)step, (uint64_t)o->steps);
        seconds[step] = (double)(os_time_ns() - start) * 1e-9;
    }
    if (good) {
        qsort(seconds + 2, (size_t)o->steps - 2, sizeof *seconds, by_value);
        double median = seconds[2 + (o->steps - 2) / 2], speed = o->sequences * c->n_context / median;
        printf("{\"model\": \"%s\", \"compute\": \"%s\", \"level\": \"%s\", \"parameters\": %zu, \"active\": %zu, "
               "\"seconds_per_step\": %.4f, \"tokens_per_second\": %.1f, \"gflops\": %.1f}\n",
               o->dense ? "dense" : "moe", net_compute_of(n) == NET_COMPUTE_F32 ? "f32" : "bf16", k->name, net_size(n),
               net_active(n), median, speed, net_flops(n) * speed * 1e-9);
    }
    optimiser_free(opt);
    net_free(n);
    mem_free(tokens);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    options o = {.compute = NET_COMPUTE_AUTO, .sequences = 16, .steps = 8, .threads = os_cpu_count()};
    dil_error err = {0};
    team *workers = NULL;
    kernels k;
    if (!parse(&o, argc, argv) || o.steps > 1000) {
        fprintf(
            stderr,
            "usage: bench_train [--dense] [--compute f32|bf16] [--sequences N] [--steps 3..1000] [--threads N] [--cpu LEVEL]\n");
        return 2;
    }
    net_config c = {.n_vocab = 8192,
                    .n_context = 512,
                    .n_embd = 256,
                    .n_layer = 4,
                    .n_head = 4,
                    .n_head_kv = 2,
                    .head_dim = 64,
                    .n_experts = 32,
                    .n_used = 2,
                    .n_ff_expert = 256,
                    .qk_norm = true,
                    .tied = true,
                    .pairs = ROPE_HALVES,
                    .rope_base = 10000.0f,
                    .norm_eps = 1e-6f,
                    .embd_scale = 1.0f};
    if (o.dense) {
        c.n_experts = c.n_used = c.n_ff_expert = 0;
        c.n_ff = 512;
    }
    bool good = kernels_select(&k, o.cpu, &err) == DIL_OK && team_new(&workers, o.threads, &err) == DIL_OK;
    int code = good ? run(&o, &c, workers, &k, &err) : 1;
    if (code)
        fprintf(stderr, "bench_train: %s\n", err.text);
    team_free(workers);
    return code;
}
