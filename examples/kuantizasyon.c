/* Quantization: real experts in 2 to 8 bits, with and without pruning, and what each costs on rows that nobody learnt from. */
#include "demo.h"

enum { TAKEN = 8, USED = 2, LAYER = 1, MOST_MATRICES = 4, N_CASES = 5, POINTS = 32 };

typedef struct layer {
    int32_t n_embd, n_ff, n_experts;
    float *router, *gate, *up, *down; /* [n_experts][n_embd], [n_experts][n_ff][n_embd] twice, [n_experts][n_embd][n_ff] */
    float *rows;                      /* [n_rows][n_embd] */
    size_t n_rows;
} layer;

typedef struct choice {
    const char *name, *file, *preset;
    double bits, prune;
} choice;

static const choice cases[N_CASES] = {{"2 bits, 50 % pruned", "2-bit-50", "dusuk", 2, 0.5},
                                      {"4 bits, 30 % pruned", "4-bit-30", "dengeli", 4, 0.3},
                                      {"8 bits, 10 % pruned", "8-bit-10", "yuksek", 8, 0.1},
                                      {"4 bits, not pruned", "4-bit", NULL, 4, 0},
                                      {"3 bits, not pruned", "3-bit", NULL, 3, 0}};
enum { PRUNED = 1, UNPRUNED = 3, AS_SMALL = 4 };

typedef struct result {
    dil_quantize_report report;
    dil_quantized matrices[MOST_MATRICES];
    double error;
} result;

/* ---- the layer ---- */

/* Values of a tensor of the file; shape[4] may be NULL. [owned] */
static float *read_tensor(const dil_file *f, const char *name, uint64_t *shape)
{
    dil_tensor t;
    for (size_t i = 0; i < dil_file_n_tensors(f); i++) {
        MUST(dil_file_tensor(f, i, &t, &demo_error));
        if (strcmp(t.name, name) != 0)
            continue;
        float *values = demo_array(t.n_values, sizeof *values);
        MUST(dil_file_read(f, i, values, t.n_values, &demo_error));
        if (shape)
            memcpy(shape, t.shape, sizeof t.shape);
        return values;
    }
    demo_die("a tensor of the mixture of experts is not in its file");
    return NULL;
}

static float *read_part(const dil_file *f, const char *part, uint64_t *shape)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", LAYER, part);
    return read_tensor(f, name, shape);
}

/* The model's own words, normalised and scaled as what enters its experts is: rows of the size and the correlations the weights know. */
static void make_rows(layer *l, const dil_file *f)
{
    uint64_t shape[4];
    float *words = read_tensor(f, "token_embd.weight", shape), *norm = read_part(f, "ffn_norm", NULL);
    const size_t width = (size_t)l->n_embd;
    l->n_rows = demo_quick() ? 1024 : 2560;
    l->rows = demo_array(l->n_rows * width, sizeof *l->rows);
    for (size_t i = 0; i < l->n_rows; i++) {
        const float *word = words + i * 4099 % shape[1] * width; /* each word once */
        double squares = 1e-12;
        for (size_t k = 0; k < width; k++)
            squares += (double)word[k] * word[k];
        for (size_t k = 0; k < width; k++)
            l->rows[i * width + k] = (float)(word[k] / sqrt(squares / (double)width)) * norm[k];
    }
    free(words);
    free(norm);
}

static layer take_layer(const char *path)
{
    layer l = {.n_experts = demo_quick() ? USED : TAKEN};
    dil_file *f = NULL;
    uint64_t shape[4];
    MUST(dil_file_open(&f, demo_sigircik(), &demo_error));
    l.router = read_part(f, "ffn_gate_inp", NULL);
    l.gate = read_part(f, "ffn_gate_exps", shape);
    l.up = read_part(f, "ffn_up_exps", NULL);
    l.down = read_part(f, "ffn_down_exps", NULL);
    l.n_embd = (int32_t)shape[0], l.n_ff = (int32_t)shape[1];
    make_rows(&l, f);
    dil_file_close(f);
    dil_experts e = dil_experts_default();
    e.n_embd = l.n_embd, e.n_ff = l.n_ff, e.n_experts = l.n_experts, e.n_used = USED;
    e.router = l.router, e.gate = l.gate, e.up = l.up, e.down = l.down; /* the first experts come first */
    MUST(dil_experts_write(path, &e, &demo_error));
    return l;
}

/* ---- what is lost ---- */

static void run(const char *path, const float *x, size_t n, float *y)
{
    dil_engine_options o = dil_engine_options_default();
    dil_engine *e = NULL;
    o.no_pack_cache = true;
    MUST(dil_engine_open(&e, path, &o, &demo_error));
    MUST(dil_experts_run(e, x, n, y, NULL, NULL, &demo_error));
    dil_engine_close(e);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Signal over error of every row, worst first, as a log for dil view metrics. */
static void write_rows(const char *path, const float *y, const float *of, size_t n, size_t width)
{
    double *quality = demo_array(n, sizeof *quality);
    FILE *f = fopen(path, "w");
    if (!f)
        demo_die("the figures of the rows cannot be written");
    for (size_t i = 0; i < n; i++)
        quality[i] = -10 * log10(demo_relative(y + i * width, of + i * width, width) + 1e-30);
    qsort(quality, n, sizeof *quality, by_size);
    fprintf(f, "step:%% of the fresh rows,signal over error (dB)\n");
    for (int i = 0; i <= POINTS; i++)
        fprintf(f, "%.4g,%.3f\n", 100.0 * i / POINTS, quality[(n - 1) * (size_t)i / POINTS]);
    fclose(f);
    free(quality);
}

static void quantize(const choice *c, const char *path, const layer *l, const float *fresh, size_t n_fresh, const float *wanted,
                     result *r)
{
    char small[DEMO_PATH], name[64];
    const size_t width = (size_t)l->n_embd;
    float *y = demo_array(n_fresh * width, sizeof *y);
    dil_quantize_options o = dil_quantize_options_default();
    o.bits = c->bits, o.prune = c->prune, o.preset = c->preset, o.fast = true;
    o.inputs = l->rows, o.n_inputs = (int32_t)(l->n_rows - n_fresh);
    r->report = (dil_quantize_report){.struct_size = sizeof r->report};
    demo_path(small, "small.gguf");
    MUST(dil_quantize(path, small, &o, &r->report, r->matrices, MOST_MATRICES, &demo_error));
    run(small, fresh, n_fresh, y);
    r->error = demo_relative(y, wanted, n_fresh * width);
    snprintf(name, sizeof name, "%s.csv", c->file);
    write_rows(demo_path(small, name), y, wanted, n_fresh, width);
    remove(demo_path(small, "small.gguf"));
    free(y);
}

/* ---- the story ---- */

static void print_sizes(const result *r)
{
    demo_part("How small, and what is lost");
    demo_say("Error: |y' - y|^2 / |y|^2 of the layer's outputs on rows that were not learnt from.");
    printf("\n  setting              bits of a weight  file       of F32   neurons gone  error      seconds\n"
           "  -------------------  ----------------  ---------  -------  ------------  ---------  -------\n");
    for (int i = 0; i < N_CASES; i++) {
        const dil_quantize_report *q = &r[i].report;
        char gone[32];
        snprintf(gone, sizeof gone, "%d of %d", q->n_removed, q->n_structure);
        printf("  %-19s  %16.2f  %9s  %5.1f %%  %12s  %7.3f %%  %7.1f\n", cases[i].name, q->bits, demo_bytes((double)q->out_bytes),
               100.0 * (double)q->out_bytes / (double)q->in_bytes, gone, 100 * r[i].error, q->seconds);
    }
}

static void print_rounding(const result *r)
{
    demo_part("Rounding, alone and at the equilibrium");
    demo_say(
        "Formats are chosen by a game in which every matrix pays for its bytes; then every code and every scale answers the others\n"
        "until nobody gains. Beside it the error of rounding each weight by itself, on the same inputs.");
    printf("\n  setting              matrix  format   alone      equilibrium  left     still moving\n"
           "  -------------------  ------  -------  ---------  -----------  -------  ------------\n");
    for (int i = 0; i < N_CASES; i++)
        for (size_t m = 0; m < r[i].report.n_matrices && m < MOST_MATRICES; m++) {
            const dil_quantized *q = &r[i].matrices[m];
            const char *part = strstr(q->name, "ffn_");
            printf("  %-19s  %-6.*s  %-7s  %7.3f %%  %9.3f %%  %5.1f %%  %10.2f %%\n", cases[i].name,
                   part ? (int)strcspn(part + 4, "_.") : 6, part ? part + 4 : q->name, q->type, 100 * q->plain_error,
                   100 * q->error, 100 * q->error / q->plain_error, 100 * q->moved);
        }
    printf("\n  setting              price of a byte  gap\n  -------------------  ---------------  ---------\n");
    for (int i = 0; i < N_CASES; i++)
        printf("  %-19s  %15.3g  %9.3g\n", cases[i].name, r[i].report.price, r[i].report.gap);
}

static void print_honesty(const result *r)
{
    const result *pruned = &r[PRUNED], *whole = &r[UNPRUNED], *small = &r[AS_SMALL];
    demo_part("What pruning costs");
    putchar('\n');
    demo_figure("error by pruning 30 % alone", "%.3f %%", 100 * pruned->report.pruned_cost);
    demo_figure("4 bits, pruned", "%s, error %.3f %%", demo_bytes((double)pruned->report.out_bytes), 100 * pruned->error);
    demo_figure("4 bits, not pruned", "%s, error %.3f %%", demo_bytes((double)whole->report.out_bytes), 100 * whole->error);
    demo_figure("3 bits, not pruned", "%s, error %.3f %%", demo_bytes((double)small->report.out_bytes), 100 * small->error);
    demo_say(
        "Pruning made the error %.1f times as large for %.0f %% of the bytes. Of about the same size, 3 bits without pruning have %.2f\n"
        "times the error of 4 bits with it: %s",
        pruned->error / whole->error, 100.0 * (double)pruned->report.out_bytes / (double)whole->report.out_bytes,
        small->error / pruned->error,
        small->error < pruned->error ? "here fewer bits are the better way to be small." : "here pruning is worth it.");
}

int main(int argc, char **argv)
{
    char path[DEMO_PATH], logs[N_CASES][DEMO_PATH];
    const char *inputs[N_CASES];
    static result r[N_CASES];
    demo_begin(argc, argv, "Quantization and pruning");
    layer l = take_layer(demo_path(path, "experts.gguf"));
    const size_t n_fresh = l.n_rows / 5, width = (size_t)l.n_embd;
    const float *fresh = l.rows + (l.n_rows - n_fresh) * width;
    float *wanted = demo_array(n_fresh * width, sizeof *wanted);
    demo_part("Real experts");
    demo_say(
        "The first %d of the experts of layer %d of Sığırcık, the project's own mixture of experts, as a layer of its own: %d wide, %d\n"
        "neurons each, %d used for a row. The rows are the model's own words, normalised as it does: %zu to learn from, %zu fresh ones.",
        l.n_experts, LAYER, l.n_embd, l.n_ff, USED, l.n_rows - n_fresh, n_fresh);
    run(path, fresh, n_fresh, wanted);
    for (int i = 0; i < N_CASES; i++) {
        char name[64];
        quantize(&cases[i], path, &l, fresh, n_fresh, wanted, &r[i]);
        snprintf(name, sizeof name, "%s.csv", cases[i].file);
        inputs[i] = demo_path(logs[i], name);
    }
    print_sizes(r);
    demo_picture("metrics", inputs, N_CASES, "quality", NULL,
                 "Each line has all fresh rows, worst first: how far the error is below the signal. 10 dB: a tenth of the error.");
    print_rounding(r);
    print_honesty(r);
    remove(path);
    free(wanted);
    free(l.router), free(l.gate), free(l.up), free(l.down), free(l.rows);
    demo_end();
    return 0;
}
