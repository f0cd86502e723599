/* The whole system: the proposal's four steps in a row, the loss that balances experts, and a model that answers. */
#include "demo.h"

enum { WIDE = 256, EXPERTS = 8, USED = 2, MOST_ANSWER = 96, MOST_TOKENS = 512, MOST_SUMMARY = 12 };

/* What the table at the end repeats. */
static struct {
    const char *name;
    char value[64];
} summary[MOST_SUMMARY];
static int n_summary;

__attribute__((format(printf, 2, 3))) static void note(const char *name, const char *format, ...)
{
    va_list list;
    if (n_summary == MOST_SUMMARY)
        return;
    summary[n_summary].name = name;
    va_start(list, format);
    vsnprintf(summary[n_summary++].value, sizeof summary[0].value, format, list);
    va_end(list);
}

/* ---- the four steps ---- */

typedef struct experiment {
    size_t n;
    float *x, *before, *after; /* [n][WIDE] */
    float *router;             /* [EXPERTS][WIDE] */
    int32_t *chosen;           /* [n][USED] */
    float *weights;            /* [n][USED] */
    char whole[DEMO_PATH], small[DEMO_PATH];
} experiment;

static double run(experiment *t, const char *path, float *y)
{
    dil_engine *e = NULL;
    MUST(dil_engine_open(&e, path, NULL, &demo_error));
    const double began = demo_now();
    MUST(dil_experts_run(e, t->x, t->n, y, t->chosen, t->weights, &demo_error));
    const double seconds = demo_now() - began;
    dil_engine_close(e);
    return seconds;
}

static void build(experiment *t)
{
    dil_experts layer = dil_experts_default();
    const double began = demo_now();
    t->n = demo_quick() ? 512 : 4096;
    t->x = demo_array(t->n * WIDE, sizeof(float));
    t->before = demo_array(t->n * WIDE, sizeof(float));
    t->after = demo_array(t->n * WIDE, sizeof(float));
    t->router = demo_array(EXPERTS * WIDE, sizeof(float));
    t->chosen = demo_array(t->n * USED, sizeof(int32_t));
    t->weights = demo_array(t->n * USED, sizeof(float));
    demo_walk(t->x, t->n, WIDE, 0.3);
    for (int i = 0; i < EXPERTS * WIDE; i++)
        t->router[i] = demo_normal() / 16;
    layer.n_embd = WIDE, layer.n_ff = demo_quick() ? 32 : 512, layer.n_experts = EXPERTS, layer.n_used = USED;
    layer.router = t->router;
    MUST(dil_experts_write(demo_path(t->whole, "layer.gguf"), &layer, &demo_error));
    const double seconds = demo_now() - began, ran = run(t, t->whole, t->before);
    demo_part("1. Build");
    putchar('\n');
    demo_figure("layer", "%d wide, %d experts of %d neurons, %d used", WIDE, EXPERTS, layer.n_ff, USED);
    demo_figure("time", "%.2f s", seconds);
    demo_figure("rows per second, as built", "%.0f", (double)t->n / ran);
    note("layer built", "%d experts in %.2f s", EXPERTS, seconds);
}

static void quantize(experiment *t)
{
    dil_quantize_options o = dil_quantize_options_default();
    dil_quantize_report r = {.struct_size = sizeof r};
    o.preset = "dengeli", o.fast = true;
    MUST(dil_quantize(t->whole, demo_path(t->small, "layer-4bit.gguf"), &o, &r, NULL, 0, &demo_error));
    demo_part("2. Quantize");
    demo_say("The balanced preset: 4 bits, 30 %% of the neurons may go.");
    putchar('\n');
    demo_figure("time", "%.1f s", r.seconds);
    demo_figure("file", "%s -> %s (%.1f %%)", demo_bytes((double)r.in_bytes), demo_bytes((double)r.out_bytes),
                100.0 * (double)r.out_bytes / (double)r.in_bytes);
    demo_figure("bits of a weight", "%.2f", r.bits);
    demo_figure("neurons gone", "%d of %d", r.n_removed, r.n_structure);
    demo_figure("error, by pruning alone", "%.2f %%", 100 * r.pruned_cost);
    demo_figure("error, of everything", "%.2f %%", 100 * r.cost);
    demo_say(
        "These weights are random, so no neuron can stand in for another: pruning them costs more than it would in a trained model.");
    note("layer quantized", "%.1f %% of the bytes in %.1f s", 100.0 * (double)r.out_bytes / (double)r.in_bytes, r.seconds);
}

static void optimize(const experiment *t)
{
    dil_tuned tuned = {.struct_size = sizeof tuned};
    MUST(dil_tune(t->small, NULL, NULL, demo_quick() ? 1 : 5, &tuned, &demo_error));
    demo_part("3. Optimize");
    putchar('\n');
    demo_figure("time", "%.1f s", tuned.seconds);
    demo_figure("settings tried, kept", "%d, %d", tuned.n_trials, tuned.n_kept);
    demo_figure("many rows became", "%.3f times as fast", tuned.prompt_gain);
    demo_figure("one row became", "%.3f times as fast", tuned.generation_gain);
    note("layer tuned", "%.2f and %.2f times as fast", tuned.prompt_gain, tuned.generation_gain);
    remove(tuned.profile_path);
}

static void infer(experiment *t)
{
    const double seconds = run(t, t->small, t->after), error = demo_relative(t->after, t->before, t->n * WIDE);
    int32_t load[EXPERTS] = {0};
    for (size_t i = 0; i < t->n * USED; i++)
        load[t->chosen[i]]++;
    demo_part("4. Infer");
    putchar('\n');
    demo_figure("rows", "%zu in %.3f s", t->n, seconds);
    demo_figure("rows per second", "%.0f", (double)t->n / seconds);
    demo_figure("error against the layer as built", "%.2f %%", 100 * error);
    printf("\n  expert  rows served\n  ------  -----------\n");
    for (int i = 0; i < EXPERTS; i++)
        printf("  %6d  %11d\n", i, load[i]);
    note("layer run", "%.0f rows/s, error %.2f %%", (double)t->n / seconds, 100 * error);
}

/* ---- the loss ---- */

/* What an optimiser would look at while such a router is trained. */
static void balance(const experiment *t)
{
    float *scores = demo_array(t->n * EXPERTS, sizeof *scores), *d_scores = demo_array(t->n * EXPERTS, sizeof *d_scores);
    dil_loss_options o = dil_loss_options_default();
    dil_loss_values v = {.struct_size = sizeof v};
    double squares = 0;
    for (size_t i = 0; i < t->n; i++)
        for (size_t e = 0; e < EXPERTS; e++)
            for (size_t k = 0; k < WIDE; k++)
                scores[i * EXPERTS + e] += t->x[i * WIDE + k] * t->router[e * WIDE + k];
    o.n_sequences = 1, o.n_tokens = (int32_t)t->n, o.n_experts = EXPERTS, o.n_experts_used = USED, o.n_embd = WIDE;
    o.router_scores = scores, o.router_rows = t->router, o.chosen = t->chosen;
    MUST(dil_loss_compute(&o, &v, NULL, d_scores, &demo_error));
    for (size_t i = 0; i < t->n * EXPERTS; i++)
        squares += (double)d_scores[i] * d_scores[i];
    demo_part("The loss that balances");
    demo_say("What training would add to the cross-entropy for this layer's router, with the usual weights.");
    putchar('\n');
    demo_figure("in all", "%.5f", v.total);
    demo_figure("balance (1: all used alike)", "%.3f", v.balance);
    demo_figure("cache (experts used again)", "%.3f", v.cache);
    demo_figure("swarm (neighbours agree)", "%.3f", v.swarm);
    demo_figure("Nash (0: at the equilibrium)", "%.4f", v.nash);
    demo_figure("entropy of the router", "%.3f nats", v.entropy);
    demo_figure("busiest expert", "%.2f times the mean", v.violation + 1);
    demo_figure("length of the gradient", "%.3g", sqrt(squares));
    note("balancing loss", "%.5f, busiest expert %.2f times the mean", v.total, v.violation + 1);
    free(scores);
    free(d_scores);
}

/* ---- a conversation ---- */

static bool tell(void *user, const char *text, size_t n)
{
    (void)user;
    for (size_t i = 0; i < n; i++) {
        putchar(text[i]);
        if (text[i] == '\n')
            fputs("> ", stdout);
    }
    fflush(stdout);
    return true;
}

static void converse(const char *model)
{
    static const dil_message ask[] = {{"user", "Give me three tips for sleeping well."}};
    dil_engine_options o = dil_engine_options_default();
    dil_generation g = dil_generation_default();
    dil_generation_result r = {0};
    dil_engine *e = NULL;
    dil_session *s = NULL;
    int32_t tokens[MOST_TOKENS];
    size_t n = 0;
    const double began = demo_now();
    o.n_context = 1024;
    MUST(dil_engine_open(&e, model, &o, &demo_error));
    const double opened = demo_now() - began;
    MUST(dil_session_new(&s, e, &demo_error));
    MUST(dil_chat_tokens(e, ask, 1, tokens, MOST_TOKENS, &n, &demo_error));
    g.max_tokens = demo_quick() ? 12 : MOST_ANSWER;
    g.sampling.temperature = 0;
    g.on_text = tell;
    demo_part("A model answers");
    printf("\n> **%s**\n> ", ask[0].content);
    MUST(dil_generate(s, tokens, n, &g, &r, &demo_error));
    printf("\n\n");
    demo_figure("opened in", "%.2f s", opened);
    demo_figure("question", "%d tokens, %.0f a second", r.n_prompt, r.n_prompt / r.prompt_seconds);
    demo_figure("first word after", "%.3f s", r.first_token_seconds);
    demo_figure("answer", "%d tokens, %.0f a second", r.n_generated, r.n_generated / r.generate_seconds);
    demo_figure("ended by", "%s", r.finish);
    note("SmolLM2 answers", "%.0f tokens/s, first word after %.3f s", r.n_generated / r.generate_seconds, r.first_token_seconds);
    dil_session_free(s);
    dil_engine_close(e);
}

static void remember(const char *model)
{
    static const char *const kinds[] = {"f16", "q8_0"};
    dil_plan p[2];
    demo_part("Memory");
    demo_say("What SmolLM2 takes with 4096 tokens of context, by how the KV cache is kept.");
    printf("\n  KV cache  weights  its size  in all\n  --------  -------  --------  --------\n");
    for (int i = 0; i < 2; i++) {
        dil_engine_options o = dil_engine_options_default();
        o.kv_type = kinds[i], o.n_context = 4096;
        p[i] = (dil_plan){.struct_size = sizeof p[i]};
        MUST(dil_plan_make(model, &o, NULL, &p[i], &demo_error));
        printf("  %-8s  %s  %s  %s\n", kinds[i], demo_bytes((double)p[i].weight_bytes), demo_bytes((double)p[i].kv_bytes),
               demo_bytes((double)p[i].total_bytes));
    }
    note("KV cache in q8_0 saves", "%s of %s", demo_bytes((double)(p[0].total_bytes - p[1].total_bytes)),
         demo_bytes((double)p[0].total_bytes));
}

static void draw(const experiment *t)
{
    char log[DEMO_PATH];
    dil_engine *e = NULL;
    MUST(dil_engine_open(&e, t->small, NULL, &demo_error));
    MUST(dil_experts_log(e, demo_path(log, "layer-4bit.route"), t->chosen, t->weights, t->n < 512 ? t->n : 512, &demo_error));
    dil_engine_close(e);
    const char *const inputs[] = {t->small, log};
    demo_picture("flock", inputs, 2, "layer", NULL, "The flock of the layer's eight experts after the first rows.");
}

int main(int argc, char **argv)
{
    static experiment t;
    char model[DEMO_PATH];
    demo_begin(argc, argv, "The whole system");
    build(&t);
    quantize(&t);
    optimize(&t);
    infer(&t);
    draw(&t);
    balance(&t);
    if (demo_smollm2(model)) {
        converse(model);
        remember(model);
    } else {
        demo_part("A model answers");
        demo_say("SmolLM2 is not there, so it cannot answer; fetch it (100 MB, once) with: dil pull smollm2");
    }
    demo_part("Summary");
    putchar('\n');
    for (int i = 0; i < n_summary; i++)
        demo_figure(summary[i].name, "%s", summary[i].value);
    remove(t.whole);
    remove(t.small);
    free(t.x), free(t.before), free(t.after), free(t.router), free(t.chosen), free(t.weights);
    demo_end();
    return 0;
}
