#include "cli/bench_print.h"

#include <stdio.h>

#include "base/status.h"
#include "cli/cli.h"

bool bench_find_format(const char *text, bench_format *out)
{
    static const char *const names[] = {"md", "csv", "json", "jsonl", "sql"};
    for (int i = 0; i < 5; i++)
        if (!text || str_equal_nocase(text, names[i])) {
            *out = (bench_format)i;
            return true;
        }
    return false;
}

/* "llama Q4_1": architecture, the type most weights have. */
static void model_label(const model *m, char *out, size_t n)
{
    uint64_t bytes[DIL_TYPE_COUNT] = {0};
    int most = 0;
    for (uint64_t i = 0; i < gguf_n_tensors(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        bytes[t->type] += t->size_bytes;
        most = bytes[t->type] > bytes[most] ? (int)t->type : most;
    }
    (void)snprintf(out, n, "%.*s %s", STR_ARG(m->h.architecture), format_get((dil_type)most)->name);
}

/* A column of the machine-readable formats. */
typedef struct column {
    const char *name;
    const char *text;
    double value;
    int digits;
} column;
enum { MOST_COLUMNS = 32 };

static int columns_of(engine *e, const bench_result *r, const machine_limits *l, const char *label, column *c)
{
    const model *m = engine_model(e);
    const double mac_seconds = bench_compute_seconds(e, r, l);
    int n = 0;
#define WHOLE(title, x) c[n++] = (column){title, NULL, (double)(x), 0}
#define REAL(title, x, digits) \
    c[n++] = (column) { title, NULL, (x), (digits) }
#define TEXT(title, x) \
    c[n++] = (column) { title, (x), 0, 0 }
    TEXT("model", label);
    WHOLE("model_size", gguf_size_bytes(m->file));
    WHOLE("model_n_params", model_n_params(m));
    WHOLE("n_threads", engine_n_threads(e));
    TEXT("cpu", engine_kernels(e)->name);
    WHOLE("n_ubatch", engine_micro_batch(e));
    TEXT("type_k", format_get(engine_type_k(e))->name);
    TEXT("type_v", format_get(engine_type_v(e))->name);
    WHOLE("n_prompt", r->test.n_prompt);
    WHOLE("n_gen", r->test.n_gen);
    WHOLE("n_depth", r->test.depth);
    WHOLE("n_parallel", r->test.n_parallel > 1 ? r->test.n_parallel : 1);
    WHOLE("runs", r->n_runs);
    REAL("avg_ts", r->mean, 4);
    REAL("stddev_ts", r->deviation, 4);
    REAL("median_ts", r->median, 4);
    WHOLE("bytes_per_token", r->bytes_per_token);
    REAL("gb_per_s", r->bytes_per_token * r->median * 1e-9, 3);
    REAL("gmac_per_s", r->macs_per_token * r->median * 1e-9, 3);
    REAL("share_of_read", r->read_share, 4);
    REAL("share_of_peak", mac_seconds * r->median, 4);
    REAL("read_gb_per_s", r->read_rate * 1e-9, 3);
    REAL("limit_read_gb_per_s", l->memory.best * 1e-9, 3);
    REAL("limit_int8_gmac_per_s", l->int8.best * 1e-9, 2);
    REAL("limit_bf16_gmac_per_s", l->bf16.best * 1e-9, 2);
    REAL("limit_f32_gmac_per_s", l->f32.best * 1e-9, 2);
    return n;
}

void bench_print_head(bench_format f)
{
    if (f == BENCH_MD)
        printf("| model | size | params | threads | cpu | test | t/s | median t/s | GB/s | of read | Gmac/s | of peak |\n"
               "| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    if (f == BENCH_JSON)
        printf("[\n");
    fflush(stdout);
}

static void print_share(double share)
{
    if (share > 0)
        printf(" %.0f %% |", 100.0 * share);
    else
        printf(" |");
}

static void print_md(engine *e, const bench_result *r, const machine_limits *l, const char *label)
{
    char test[96], size[32];
    bench_test_name(&r->test, test, sizeof test);
    printf("| %s | %s | %.2f M | %d | %s | %s | %.2f +- %.2f | %.2f | %.1f |", label,
           str_bytes(gguf_size_bytes(engine_model(e)->file), size, sizeof size), (double)model_n_params(engine_model(e)) * 1e-6,
           engine_n_threads(e), engine_kernels(e)->name, test, r->mean, r->deviation, r->median,
           r->bytes_per_token * r->median * 1e-9);
    print_share(r->read_share);
    printf(" %.1f |", r->macs_per_token * r->median * 1e-9);
    print_share(bench_compute_seconds(e, r, l) * r->median);
    putchar('\n');
}

/* timed: the engine whose times belong to the row, or NULL. */
static void print_json(const column *c, int n, const bench_result *r, engine *timed)
{
    for (int i = 0; i < n; i++) {
        printf("%s\"%s\": ", i ? ", " : "{", c[i].name);
        if (c[i].text)
            printf("\"%s\"", c[i].text);
        else
            printf("%.*f", c[i].digits, c[i].value);
    }
    printf(", \"samples_s\": [");
    for (int32_t i = 0; i < r->n_runs; i++)
        printf("%s%.6f", i ? ", " : "", r->seconds[i]);
    printf("]");
    if (timed) {
        printf(", ");
        cli_print_json_timing(timed);
    }
    printf("}");
}

static void print_values(const column *c, int n, char quote)
{
    for (int i = 0; i < n; i++) {
        if (c[i].text)
            printf("%s%c%s%c", i ? "," : "", quote, c[i].text, quote);
        else
            printf("%s%.*f", i ? "," : "", c[i].digits, c[i].value);
    }
}

static void print_sql(const column *c, int n, bool first)
{
    if (first) {
        printf("CREATE TABLE IF NOT EXISTS bench (");
        for (int i = 0; i < n; i++)
            printf("%s%s %s", i ? ", " : "", c[i].name, c[i].text ? "TEXT" : c[i].digits ? "REAL" : "INTEGER");
        printf(");\n");
    }
    printf("INSERT INTO bench VALUES (");
    print_values(c, n, '\'');
    printf(");\n");
}

static void print_csv(const column *c, int n, bool first)
{
    for (int i = 0; first && i < n; i++)
        printf("%s%s", c[i].name, i + 1 < n ? "," : "\n");
    print_values(c, n, '"');
    putchar('\n');
}

void bench_print_row(bench_format f, engine *e, const bench_result *r, const machine_limits *l, bool timing, bool first)
{
    char label[96];
    column c[MOST_COLUMNS];
    model_label(engine_model(e), label, sizeof label);
    int n = columns_of(e, r, l, label, c);
    if (f == BENCH_JSON && !first)
        printf(",\n");
    switch (f) {
    case BENCH_MD: print_md(e, r, l, label); break;
    case BENCH_JSON: print_json(c, n, r, timing ? e : NULL); break;
    case BENCH_JSONL:
        print_json(c, n, r, timing ? e : NULL);
        putchar('\n');
        break;
    case BENCH_SQL: print_sql(c, n, first); break;
    default: print_csv(c, n, first); break;
    }
    fflush(stdout);
}

void bench_print_end(bench_format f, const machine_limits *l)
{
    if (f == BENCH_JSON)
        printf("\n]\n");
    if (f == BENCH_MD && l->memory.best > 0)
        printf(_("\nmeasured limits, %d threads: reading %.1f GB/s; %.0f Gmac/s in int8, %.0f in bf16, %.0f in f32\n"),
               l->n_threads, l->memory.best * 1e-9, l->int8.best * 1e-9, l->bf16.best * 1e-9, l->f32.best * 1e-9);
}
