/* dil bench: llama-bench's shape, with the bytes that were really read. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "cli/cli.h"
#include "evaluate/bench.h"

typedef enum bench_format { BENCH_MD, BENCH_CSV, BENCH_JSON, BENCH_SQL } bench_format;

static bool find_format(const char *text, bench_format *out)
{
    static const char *const names[] = {"md", "csv", "json", "sql"};
    for (int i = 0; i < 4; i++)
        if (!text || str_equal_nocase(text, names[i])) {
            *out = (bench_format)i;
            return true;
        }
    return false;
}

static void test_name(const bench_test *t, char *out, size_t n)
{
    int used = snprintf(out, n, "%s%d", t->n_prompt ? "pp" : "tg", t->n_prompt ? t->n_prompt : t->n_gen);
    if (t->depth && used > 0 && (size_t)used < n)
        snprintf(out + used, n - (size_t)used, " @ d%d", t->depth);
}

/* "llama 134.5 M Q4_1": architecture, parameters, the type most weights have. */
static void model_label(const model *m, char *out, size_t n)
{
    uint64_t bytes[DIL_TYPE_COUNT] = {0};
    int most = 0;
    for (uint64_t i = 0; i < gguf_n_tensors(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        bytes[t->type] += t->size_bytes;
        most = bytes[t->type] > bytes[most] ? (int)t->type : most;
    }
    snprintf(out, n, "%.*s %s", STR_ARG(m->h.architecture), format_get((dil_type)most)->name);
}

static void print_head(bench_format f)
{
    if (f == BENCH_MD)
        printf("| model | size | params | threads | cpu | test | t/s | median t/s | GB/s |\n| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |\n");
    if (f == BENCH_CSV)
        printf("model,model_size,model_n_params,n_threads,cpu,n_prompt,n_gen,n_depth,runs,avg_ts,stddev_ts,median_ts,bytes_per_token,gb_per_s\n");
    if (f == BENCH_JSON)
        printf("[\n");
    if (f == BENCH_SQL)
        printf("CREATE TABLE IF NOT EXISTS bench (model TEXT, model_size INTEGER, model_n_params INTEGER, n_threads INTEGER, cpu TEXT, "
               "n_prompt INTEGER, n_gen INTEGER, n_depth INTEGER, runs INTEGER, avg_ts REAL, stddev_ts REAL, median_ts REAL, "
               "bytes_per_token REAL, gb_per_s REAL);\n");
}

static void print_row(bench_format f, engine *e, const bench_result *r, bool first)
{
    const model *m = engine_model(e);
    char label[96], test[64], size[32], quote = f == BENCH_SQL ? '\'' : '"';
    double gb = r->bytes_per_token * r->median * 1e-9;
    unsigned long long bytes = gguf_size_bytes(m->file), params = model_n_params(m);
    model_label(m, label, sizeof label);
    test_name(&r->test, test, sizeof test);
    if (f == BENCH_MD) {
        printf("| %s | %s | %.2f M | %d | %s | %s | %.2f +- %.2f | %.2f | %.1f |\n", label, str_bytes(bytes, size, sizeof size),
               (double)params * 1e-6, engine_n_threads(e), engine_kernels(e)->name, test, r->mean, r->deviation, r->median, gb);
    } else if (f == BENCH_JSON) {
        printf("%s  {\"model\": \"%s\", \"model_size\": %llu, \"model_n_params\": %llu, \"n_threads\": %d, \"cpu\": \"%s\", \"n_prompt\": %d, "
               "\"n_gen\": %d, \"n_depth\": %d, \"avg_ts\": %.4f, \"stddev_ts\": %.4f, \"median_ts\": %.4f, \"bytes_per_token\": %.0f, "
               "\"gb_per_s\": %.3f, \"samples_s\": [", first ? "" : ",\n", label, bytes, params, engine_n_threads(e), engine_kernels(e)->name,
               r->test.n_prompt, r->test.n_gen, r->test.depth, r->mean, r->deviation, r->median, r->bytes_per_token, gb);
        for (int32_t i = 0; i < r->n_runs; i++)
            printf("%s%.6f", i ? ", " : "", r->seconds[i]);
        printf("]}");
    } else {
        printf("%s%c%s%c,%llu,%llu,%d,%c%s%c,%d,%d,%d,%d,%.4f,%.4f,%.4f,%.0f,%.3f%s\n", f == BENCH_SQL ? "INSERT INTO bench VALUES (" : "",
               quote, label, quote, bytes, params, engine_n_threads(e), quote, engine_kernels(e)->name, quote, r->test.n_prompt, r->test.n_gen,
               r->test.depth, r->n_runs, r->mean, r->deviation, r->median, r->bytes_per_token, gb, f == BENCH_SQL ? ");" : "");
    }
    fflush(stdout);
}

static dil_status bench_model(const cli_options *o, const char *name, bench_format f, bool *first, dil_error *err)
{
    cli_options own = *o;
    engine *e = NULL;
    bench_result *r = mem_calloc(1, sizeof *r, MEM_MISC);
    own.model = name;
    engine_options eo = cli_engine_options(&own);
    int64_t need = o->depth + (o->prompt_tokens > o->gen_tokens ? o->prompt_tokens : o->gen_tokens);
    eo.context = (int32_t)(o->context > need ? o->context : need > 0 ? need : 1);
    eo.no_vocab = true;
    dil_status status = r ? cli_open(&e, &own, &eo, err) : DIL_FAIL(err, DIL_NO_MEMORY, "bench: no memory");
    bench_test tests[2] = {{(int32_t)o->prompt_tokens, 0, (int32_t)o->depth}, {0, (int32_t)o->gen_tokens, (int32_t)o->depth}};
    for (int i = 0; i < 2 && status == DIL_OK; i++) {
        if (tests[i].n_prompt + tests[i].n_gen == 0)
            continue;
        status = bench_run(e, &tests[i], (int32_t)o->repeats, cli_progress, r, err);
        cli_progress_end();
        if (status == DIL_OK)
            print_row(f, e, r, *first);
        *first = false;
        if (status == DIL_OK && o->timing) {
            cli_print_timing(e);
            compute_times_reset(engine_compute(e));
        }
    }
    engine_close(e);
    mem_free(r);
    return status;
}

static int run(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    bench_format f;
    char names[4096];
    bool first = true;
    dil_status status = DIL_OK;
    if (!o->model || strlen(o->model) >= sizeof names)
        return cli_usage("bench: no model given; use -m MODEL[,MODEL]");
    if (!find_format(o->output, &f))
        return cli_usage("bench: -o: wanted md, csv, json or sql, found '%s'", o->output);
    snprintf(names, sizeof names, "%s", o->model);
    print_head(f);
    for (char *rest = names, *name; status == DIL_OK && (name = strsep(&rest, ","));)
        status = bench_model(o, name, f, &first, &err);
    if (f == BENCH_JSON)
        printf("\n]\n");
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const options[] = {"model", "n-prompt", "n-gen", "depth", "repetitions", "threads", "ctx-size", "batch-size", "ubatch-size",
                                      "cache-type-k", "cache-type-v", "cpu", "memory", "no-pack-cache", "exact", "output", "timing", "quiet", NULL};

const cli_command command_bench = {
    .name = "bench", .usage = "bench -m MODEL[,MODEL] [-p 512] [-n 128] [-d DEPTH] [-t T] [-r 5] [-o md|csv|json|sql]",
    .summary = "Measures prompt processing and generation, as llama-bench does.",
    .example = "dil bench -m smollm2 -p 512 -n 128 -r 5", .options = options, .run = run};
