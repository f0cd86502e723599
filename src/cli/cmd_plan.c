/* dil plan: memory and predicted speed from the header alone. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/threads.h"
#include "cli/cli.h"

/* ---- how fast this machine reads memory, roughly ---- */

#define PROBE_BYTES ((size_t)64 << 20)
#define PROBE_CHUNK ((size_t)1 << 20)
#define PROBE_NS 100000000u

typedef struct probe {
    team *workers;
    uint64_t *words;
    uint64_t sums[TEAM_MAX];
} probe;

/* Every worker adds up the chunks it claims; the sum keeps the reads. */
static void probe_read(void *ctx, int worker)
{
    probe *p = ctx;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t at; (at = team_claim(p->workers) * PROBE_CHUNK) < PROBE_BYTES;) {
        const uint64_t *w = p->words + at / 8;
        for (size_t i = 0; i < PROBE_CHUNK / 8; i += 4) {
            a += w[i];
            b += w[i + 1];
            c += w[i + 2];
            d += w[i + 3];
        }
    }
    p->sums[worker] += a + b + c + d;
}

/* Bytes per second of the best pass; 0 when it cannot be measured. */
static double measure_bandwidth(int n_threads)
{
    probe *p = mem_calloc(1, sizeof *p, MEM_MISC);
    uint64_t *words = mem_map(PROBE_BYTES, MEM_MISC), started, best = UINT64_MAX;
    dil_error ignored;
    if (p && words && team_new(&p->workers, n_threads, &ignored) == DIL_OK) {
        p->words = words;
        memset(words, 1, PROBE_BYTES);
        started = os_time_ns();
        do {
            uint64_t begin = os_time_ns();
            team_run(p->workers, probe_read, p);
            uint64_t took = os_time_ns() - begin;
            best = took < best ? took : best;
        } while (os_time_ns() - started < PROBE_NS);
        team_free(p->workers);
    }
    mem_free(p);
    if (words)
        mem_unmap(words, PROBE_BYTES, MEM_MISC);
    return best && best != UINT64_MAX ? (double)PROBE_BYTES / ((double)best * 1e-9) : 0.0;
}

/* ---- output ---- */

typedef struct forecast {
    engine_plan p;
    double bandwidth, first_rate, last_rate;
    uint64_t limit;
    bool fits;
    int32_t most_context;
} forecast;

/* A token reads all weights once, and the K and V of the tokens before it. */
static forecast predict(const engine_plan *p, uint64_t limit)
{
    forecast f = {.p = *p, .bandwidth = measure_bandwidth(p->n_threads), .limit = limit, .fits = p->total_bytes <= limit};
    double weights = (double)p->weight_bytes_per_token, full = (double)p->kv_bytes_per_token * (double)p->context;
    uint64_t fixed = p->total_bytes - p->kv_bytes;
    if (weights > 0) {
        f.first_rate = f.bandwidth / weights;
        f.last_rate = f.bandwidth / (weights + full);
    }
    if (!f.fits && fixed < limit && p->kv_bytes_per_token) {
        uint64_t n = (limit - fixed) / p->kv_bytes_per_token / 64 * 64;
        f.most_context = n < (uint64_t)p->context ? (int32_t)n : 0;
    }
    return f;
}

static void print_row(const char *what, uint64_t bytes, const char *note)
{
    char size[32];
    printf("  %-14s %10s  %s\n", what, str_bytes(bytes, size, sizeof size), note);
}

static void print_people(const forecast *f, const char *path, bool given)
{
    const engine_plan *p = &f->p;
    char size[32], note[96], rate[32];
    printf("%s (%s), context %d, %d %s\n\n", path, str_bytes(p->file_bytes, size, sizeof size), p->context, p->n_threads,
           p->n_threads == 1 ? "thread" : "threads");
    if (p->experts_memory > 0) {
        print_row("weights", p->packed_bytes - p->expert_bytes, "packed for the kernels, without experts");
        snprintf(note, sizeof note, "of %s; the rest stays on disk", str_bytes(p->expert_bytes, size, sizeof size));
        print_row("experts", p->experts_memory, note);
    } else {
        print_row("weights", p->packed_bytes, "packed for the kernels");
    }
    snprintf(note, sizeof note, "%s per token", str_bytes(p->kv_bytes_per_token, size, sizeof size));
    print_row("KV cache", p->kv_bytes, note);
    print_row("activations", p->activation_bytes, "buffers of one pass");
    print_row("vocabulary", p->vocab_bytes, "");
    snprintf(note, sizeof note, "%s in %s %s", f->fits ? "fits" : "DOES NOT FIT", str_bytes(f->limit, size, sizeof size),
             given ? "(--memory)" : "of this machine");
    print_row("total", p->total_bytes, note);
    if (!f->fits && f->most_context > 0)
        printf("  %-14s about -c %d would fit\n", "", f->most_context);
    printf("\n  %-14s %10s  of weights read\n", "per token", str_bytes(p->weight_bytes_per_token, size, sizeof size));
    if (f->bandwidth > 0)
        printf(
            "  %-14s %6.1f tokens/s at the start, %.1f with the context full\n  %-14s (estimate, upper bound: %s/s of memory reads just "
            "measured%s; dil bench measures the model)\n",
            "generation", f->first_rate, f->last_rate, "", str_bytes((uint64_t)f->bandwidth, rate, sizeof rate),
            p->experts_memory > 0 ? ", if all experts were in memory" : "");
}

static void print_json(const forecast *f, const char *path)
{
    const engine_plan *p = &f->p;
    fputs("{\"path\": ", stdout);
    cli_print_json_string(str_of(path));
    printf(
        ", \"file_bytes\": %" PRIu64 ", \"weight_bytes\": %" PRIu64 ", \"expert_bytes\": %" PRIu64 ", \"experts_memory\": %" PRIu64
        ", \"kv_bytes\": %" PRIu64 ", \"activation_bytes\": %" PRIu64 ", \"vocab_bytes\": %" PRIu64 ", \"total_bytes\": %" PRIu64
        ", \"limit_bytes\": %" PRIu64 ", \"fits\": %s, "
        "\"kv_bytes_per_token\": %" PRIu64 ", \"weight_bytes_per_token\": %" PRIu64 ", \"threads\": %d, \"context\": %d, "
        "\"estimate\": {\"read_bytes_per_second\": %.0f, \"tokens_per_second\": %.2f, \"tokens_per_second_full_context\": %.2f}}\n",
        p->file_bytes, p->packed_bytes, p->expert_bytes, p->experts_memory, p->kv_bytes, p->activation_bytes, p->vocab_bytes,
        p->total_bytes, f->limit, f->fits ? "true" : "false", p->kv_bytes_per_token, p->weight_bytes_per_token, p->n_threads,
        p->context, f->bandwidth, f->first_rate, f->last_rate);
}

static int plan(const cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    char path[4096];
    engine_plan p;
    engine_options eo = cli_engine_options(o);
    const char *name = cli_model_named(o, positional, n_positional);
    if (!name)
        return CLI_USAGE;
    dil_status status = cli_model_path(name, path, sizeof path, &err);
    if (status == DIL_OK)
        status = engine_plan_file(&p, path, &eo, &err);
    if (status != DIL_OK)
        return cli_fail(&err);
    forecast f = predict(&p, o->memory_bytes ? o->memory_bytes : os_memory_bytes());
    if (o->json)
        print_json(&f, path);
    else
        print_people(&f, path, o->memory_bytes != 0);
    return f.fits ? CLI_OK : CLI_FAILED;
}

static const char *const plan_options[] = {"model",        "ctx-size", "threads",        "ubatch-size", "cache-type-k",
                                           "cache-type-v", "memory",   "experts-memory", "json",        NULL};

const cli_command command_plan = {
    .name = "plan",
    .usage = "plan MODEL [-c CTX] [-t T] [--memory BYTES] [--json]",
    .summary = "Says what memory a model will take and how fast it may be, from its header.\n\nExit code 1 when it does not fit.",
    .example = "dil plan smollm2 -c 8192 --memory 1G",
    .options = plan_options,
    .most_positional = 1,
    .model_argument = true,
    .run = plan};
