/* dil bench: llama-bench's shape, with the bytes that were really read and the share of what the machine can do. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/bench_print.h"
#include "cli/cli.h"
#include "evaluate/peer.h"
#include "evaluate/statistics.h"

#define MOST_TESTS 512
#define LIMIT_SECONDS 0.25

typedef struct run_state {
    const cli_options *o;
    bench_format format;
    bench_test tests[MOST_TESTS];
    int n_tests, n_printed;
    machine_limits limits; /* of limits.n_threads threads; all 0 with --no-limits */
} run_state;

static dil_status add_test(run_state *s, bench_test t, dil_error *err)
{
    if (s->n_tests == MOST_TESTS)
        return DIL_FAIL(err, DIL_LIMIT, "bench: wanted at most %d tests, found more", MOST_TESTS);
    if (t.n_prompt + t.n_gen > 0)
        s->tests[s->n_tests++] = t;
    return DIL_OK;
}

/* The list of an option, or its one value. */
static cli_numbers values(const cli_numbers *list, int64_t scalar)
{
    cli_numbers one = {1, {scalar}};
    return list->n ? *list : one;
}

static dil_status pair_test(const char *text, int32_t depth, bench_test *out, dil_error *err)
{
    int n = 0;
    *out = (bench_test){.depth = depth};
    if (sscanf(text, "%7d,%7d%n", &out->n_prompt, &out->n_gen, &n) != 2 || text[n] || out->n_prompt < 1 || out->n_gen < 1)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "-pg: wanted two numbers such as 512,128, found '%s'", text);
    return DIL_OK;
}

static dil_status make_tests(run_state *s, dil_error *err)
{
    const cli_options *o = s->o;
    cli_numbers depths = values(&o->depths, o->depth), prompts = values(&o->prompts, o->prompt_tokens);
    cli_numbers gens = values(&o->gens, o->gen_tokens), parallels = values(&o->parallels, o->parallel);
    for (int d = 0; d < depths.n; d++) {
        int32_t depth = (int32_t)depths.v[d];
        for (int i = 0; i < prompts.n; i++)
            DIL_TRY(add_test(s, (bench_test){(int32_t)prompts.v[i], 0, depth, 1}, err));
        for (int i = 0; i < gens.n; i++)
            for (int j = 0; j < parallels.n; j++)
                DIL_TRY(add_test(s, (bench_test){0, (int32_t)gens.v[i], depth, (int32_t)parallels.v[j]}, err));
        for (int i = 0; i < o->n_pairs; i++) {
            bench_test t;
            DIL_TRY(pair_test(o->pairs[i], depth, &t, err));
            DIL_TRY(add_test(s, t, err));
        }
    }
    if (s->n_tests == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bench: nothing to measure: -p and -n are both 0, and there is no -pg");
    return DIL_OK;
}

/* Room for the largest test, and for the most sequences at once. */
static void size_for(const run_state *s, engine_options *eo)
{
    int32_t parallel = 1;
    int64_t context = s->o->context;
    for (int i = 0; i < s->n_tests; i++) {
        const bench_test *t = &s->tests[i];
        int64_t need = (int64_t)t->depth + t->n_prompt + t->n_gen;
        context = need > context ? need : context;
        parallel = t->n_parallel > parallel ? t->n_parallel : parallel;
    }
    eo->context = (int32_t)(context < 1 << 26 ? context : 1 << 26);
    eo->n_sessions = parallel;
    eo->max_outputs = parallel > 8 ? parallel : 8;
    eo->no_vocab = true;
    eo->lone = true;
}

/* What measures the machine beside the engine, on as many threads; all NULL with --no-limits. */
typedef struct gauge {
    machine *m;
    team *workers;
    memory_reader *reader;
} gauge;

static void gauge_close(gauge *g)
{
    machine_reader_close(g->reader);
    team_free(g->workers);
    machine_free(g->m);
}

/* The limits of as many threads once, and a reader for every run. */
static dil_status gauge_open(run_state *s, engine *e, gauge *g, dil_error *err)
{
    int n = engine_n_threads(e), cpus[TEAM_MAX];
    *g = (gauge){0};
    if (s->o->no_limits)
        return DIL_OK;
    DIL_TRY(machine_topology(&g->m, NULL, err));
    DIL_TRY(team_new(&g->workers, n, err));
    if (machine_thread_cpus(g->m, cpus, n) == n)
        team_pin(g->workers, cpus, NULL);
    if (s->limits.n_threads != n)
        DIL_TRY(machine_measure(&s->limits, g->m, engine_kernels(e), g->workers, LIMIT_MEMORY | LIMIT_INT8 | LIMIT_BF16 | LIMIT_F32,
                                LIMIT_SECONDS, err));
    return machine_reader_open(&g->reader, g->m, engine_kernels(e), g->workers, err);
}

static dil_status run_tests(run_state *s, engine *e, dil_error *err)
{
    gauge g = {0};
    bench_result *r = mem_calloc(1, sizeof *r, MEM_MISC);
    dil_status status = r ? gauge_open(s, e, &g, err) : DIL_FAIL(err, DIL_NO_MEMORY, "bench: no memory");
    for (int i = 0; i < s->n_tests && status == DIL_OK; i++) {
        status = bench_run(e, &s->tests[i], (int32_t)s->o->repeats, g.reader, cli_progress, NULL, r, err);
        cli_progress_end();
        if (status != DIL_OK)
            break;
        bench_print_row(s->format, e, r, &s->limits, s->o->timing, s->n_printed++ == 0);
        if (s->o->timing)
            cli_print_timing(e);
    }
    gauge_close(&g);
    mem_free(r);
    return status;
}

/* ---- with a peer ---- */

typedef struct series {
    int32_t n_ours, n_peer;
    double ours[BENCH_MAX_RUNS], peer[BENCH_MAX_RUNS];
} series;

static dil_status run_peer(const run_state *s, series *all, dil_error *err)
{
    char *out, errors[2048];
    int code;
    peer_row rows[MOST_TESTS];
    int32_t n;
    DIL_TRY(os_capture(s->o->compare, (size_t)16 << 20, &out, errors, sizeof errors, &code, err));
    for (size_t end = strlen(errors); end > 0 && errors[end - 1] == '\n'; end--)
        errors[end - 1] = '\0';
    dil_status status = code == 0 ? peer_parse(out, rows, MOST_TESTS, &n, err)
                                  : DIL_FAIL(err, DIL_IO, "--compare: the command ended with exit code %d: %s", code, errors);
    if (status == DIL_FORMAT)
        status_prefix(err, "--compare: ");
    mem_free(out);
    for (int i = 0; i < s->n_tests && status == DIL_OK; i++)
        for (int32_t j = 0; j < n; j++) {
            const bench_test *t = &s->tests[i];
            if (rows[j].n_prompt == t->n_prompt && rows[j].n_gen == t->n_gen && rows[j].depth == t->depth && t->n_parallel <= 1) {
                all[i].peer[all[i].n_peer++] = rows[j].tokens_per_second;
                break;
            }
        }
    return status;
}

static dil_status run_ours(const run_state *s, engine *e, series *all, dil_error *err)
{
    for (int i = 0; i < s->n_tests; i++) {
        bench *b;
        double seconds;
        DIL_TRY(bench_open(&b, e, &s->tests[i], err));
        dil_status status = bench_once(b, &seconds, err);
        bench_close(b);
        if (status != DIL_OK)
            return status;
        all[i].ours[all[i].n_ours++] = bench_tokens(&s->tests[i]) / seconds;
    }
    return DIL_OK;
}

static void print_ratios(const run_state *s, series *all)
{
    printf("| test | ours t/s | peer t/s | median ratio | interval | rounds |\n| --- | ---: | ---: | ---: | --- | ---: |\n");
    for (int i = 0; i < s->n_tests; i++) {
        series *x = &all[i];
        char name[96];
        double ratios[BENCH_MAX_RUNS];
        int32_t n = x->n_ours < x->n_peer ? x->n_ours : x->n_peer;
        bench_test_name(&s->tests[i], name, sizeof name);
        for (int32_t j = 0; j < n; j++)
            ratios[j] = x->ours[j] / x->peer[j];
        if (n == 0) {
            printf("| %s | | not in the peer's output | | | 0 |\n", name);
            continue;
        }
        median_interval ours = statistics_median(x->ours, n), peer = statistics_median(x->peer, n),
                        ratio = statistics_median(ratios, n);
        printf("| %s | %.2f | %.2f | %.3f | %.3f .. %.3f (%.1f %%) | %d |\n", name, ours.median, peer.median, ratio.median,
               ratio.low, ratio.high, 100.0 * ratio.coverage, n);
    }
}

/* Rounds of ours and the peer's, either first in turn. */
static dil_status compare(run_state *s, engine *e, dil_error *err)
{
    series *all = mem_calloc((size_t)s->n_tests, sizeof *all, MEM_MISC);
    dil_status status = all ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "bench: no memory");
    for (int64_t round = 0; round < s->o->repeats && status == DIL_OK; round++) {
        if (round % 2)
            status = run_peer(s, all, err);
        if (status == DIL_OK)
            status = run_ours(s, e, all, err);
        if (round % 2 == 0 && status == DIL_OK)
            status = run_peer(s, all, err);
        if (status == DIL_OK && !cli_progress(NULL, "rounds", (uint64_t)round + 1, (uint64_t)s->o->repeats))
            status = DIL_FAIL(err, DIL_CANCELLED, "bench: cancelled after %d of %d rounds", (int)round + 1, (int)s->o->repeats);
    }
    cli_progress_end();
    if (all && (status == DIL_OK || status == DIL_CANCELLED || os_interrupted()))
        print_ratios(s, all);
    mem_free(all);
    return status;
}

/* ---- every model in every configuration ---- */

static dil_status bench_configuration(run_state *s, const cli_options *o, dil_error *err)
{
    engine *e = NULL;
    engine_options eo = cli_engine_options(o);
    size_for(s, &eo);
    DIL_TRY(cli_open(&e, o, &eo, err));
    dil_status status = o->compare ? compare(s, e, err) : run_tests(s, e, err);
    engine_close(e);
    return status;
}

static dil_status bench_model(run_state *s, const char *name, dil_error *err)
{
    cli_options own = *s->o;
    cli_numbers t = values(&own.thread_counts, own.threads), ub = values(&own.micro_batches, own.micro_batch);
    cli_numbers k = values(&own.types_k, (int64_t)own.type_k), v = values(&own.types_v, (int64_t)own.type_v);
    own.model = name;
    for (int i = 0; i < t.n * ub.n * k.n * v.n; i++) { /* the last of them changes first */
        own.type_v = (dil_type)v.v[i % v.n];
        own.type_k = (dil_type)k.v[i / v.n % k.n];
        own.micro_batch = ub.v[i / (v.n * k.n) % ub.n];
        own.threads = t.v[i / (v.n * k.n * ub.n)];
        DIL_TRY(bench_configuration(s, &own, err));
    }
    return DIL_OK;
}

static dil_status bench_all(run_state *s, char *names, dil_error *err)
{
    DIL_TRY(make_tests(s, err));
    if (!s->o->compare)
        bench_print_head(s->format);
    dil_status status = DIL_OK;
    for (char *rest = names, *name; status == DIL_OK && (name = strsep(&rest, ","));)
        status = bench_model(s, name, err);
    if (!s->o->compare)
        bench_print_end(s->format, &s->limits);
    return status;
}

static int run(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    char names[4096];
    run_state *s = mem_calloc(1, sizeof *s, MEM_MISC);
    if (!s)
        return cli_usage("bench: no memory");
    s->o = o;
    int code = CLI_USAGE;
    if (strlen(o->model) >= sizeof names)
        (void)cli_usage("bench: -m: wanted less than %zu bytes, found %zu", sizeof names, strlen(o->model));
    else if (!bench_find_format(o->output, &s->format))
        (void)cli_usage("bench: -o: wanted md, csv, json, jsonl or sql, found '%s'", o->output);
    else {
        memcpy(names, o->model, strlen(o->model) + 1);
        code = bench_all(s, names, &err) == DIL_OK ? CLI_OK : cli_fail(&err);
    }
    mem_free(s);
    return code;
}

static const char *const options[] = {"model",          "n-prompt",       "n-gen",        "prompt-gen", "depth",
                                      "parallel",       "repetitions",    "threads",      "ctx-size",   "batch-size",
                                      "ubatch-size",    "cache-type-k",   "cache-type-v", "cpu",        "memory",
                                      "experts-memory", "experts-policy", "route",        "route-mass", "no-pack-cache",
                                      "exact",          "output",         "compare",      "no-limits",  "timing",
                                      "trace-events",   "no-profile",     "quiet",        NULL};

const cli_command command_bench = {
    .name = "bench",
    .usage =
        N_("bench -m MODEL[,MODEL] [-p 512] [-n 128] [-pg P,N] [-d DEPTH] [-npl B] [-t T] [-r 5] [-o FORMAT] [--compare COMMAND]"),
    .summary = N_(
        "Measures prompt processing and generation, as llama-bench does.\n\n-p, -n, -d, -npl, -t, -ub, -ctk and -ctv take lists (1,2,4) and "
        "ranges (0-64+16, 1-16*2).\nof read: share of the reading speed measured just before and after each run; of peak: share of what the\n"
        "integer units (F32, F16, BF16 weights: the f32 or bf16 units) could do."),
    .example = N_(
        "dil bench -m smollm2 -p 512 -n 128 -d 0,4096 -npl 1,8\n  dil bench -m a.gguf -p 512 -n 128 --compare 'llama-bench -m a.gguf -p 512 -n 128 -r 1 -o json'"),
    .options = options,
    .run = run,
    .lists = true};
