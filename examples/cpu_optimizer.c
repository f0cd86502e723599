/* The CPU optimizer: what the machine can do, what a model will do on it, what it does, and what tuning adds. */
#include "demo.h"

enum { PROMPT = 512, ANSWER = 32, N_PASSES = 6 };

static const int32_t passes[N_PASSES] = {16, 32, 64, 128, 256, 512};

/* ---- the machine ---- */

static void show_machine(void)
{
    dil_machine m = {.struct_size = sizeof m};
    dil_machine_speed s = {.struct_size = sizeof s};
    MUST(dil_machine_info(&m, &demo_error));
    MUST(dil_machine_measure(false, NULL, NULL, &s, &demo_error));
    demo_part("The machine");
    putchar('\n');
    demo_figure("processor", "%s", m.cpu);
    demo_figure("kernels", "%s", m.kernels);
    demo_figure("cores, logical processors", "%d, %d", m.n_cores, m.n_cpus);
    demo_figure("caches", "L1 %s, L2 %s, L3 %s", demo_bytes((double)m.l1_bytes), demo_bytes((double)m.l2_bytes),
                demo_bytes((double)m.l3_bytes));
    demo_figure("memory", "%s", demo_bytes((double)m.memory_bytes));
    demo_say("Measured once and kept, %d threads together%s:", s.n_threads, s.busy ? " (other programs ran meanwhile)" : "");
    putchar('\n');
    if (s.memory > 0) /* 0: the last cache holds all that was read */
        demo_figure("reading from memory", "%s/s", demo_bytes(s.memory));
    demo_figure("reading from L3, L2, L1", "%s/s, %s/s, %s/s", demo_bytes(s.l3), demo_bytes(s.l2), demo_bytes(s.l1));
    demo_figure("multiply-adds, 8-bit integers", "%.0f billion/s", s.int8 * 1e-9);
    demo_figure("multiply-adds, F32", "%.0f billion/s", s.f32 * 1e-9);
    demo_figure("threads waiting for each other", "%.2f microseconds", s.barrier_seconds * 1e6);
}

/* ---- predicted, then measured ---- */

static dil_plan plan_of(const char *model, const dil_engine_options *o, const dil_workload *w)
{
    dil_plan p = {.struct_size = sizeof p};
    MUST(dil_plan_make(model, o, w, &p, &demo_error));
    return p;
}

static dil_speed measure(const char *model, const dil_engine_options *o, const dil_workload *w, int32_t n_runs)
{
    dil_engine *e = NULL;
    dil_speed s = {.struct_size = sizeof s};
    MUST(dil_engine_open(&e, model, o, &demo_error));
    MUST(dil_bench(e, w, n_runs, NULL, NULL, &s, &demo_error));
    dil_engine_close(e);
    return s;
}

static void print_level(const char *name, double prompt, double answer)
{
    printf("  %-19s  %16s  %16s\n", name, demo_bytes(prompt), demo_bytes(answer));
}

static void print_bytes(const dil_plan *p)
{
    const dil_level_bytes *a = &p->prompt_bytes, *b = &p->generation_bytes;
    demo_say("Where the bytes of one pass come from:");
    printf(
        "\n  from                 pass of a prompt  pass of an answer\n  -------------------  ----------------  ----------------\n");
    print_level("memory", a->memory, b->memory);
    print_level("L3", a->l3, b->l3);
    print_level("L2", a->l2, b->l2);
    print_level("touched in all", a->touched, b->touched);
}

static void predict(const char *model, const dil_workload *w)
{
    dil_engine_options o = dil_engine_options_default();
    o.n_context = 2 * PROMPT;
    const dil_plan p = plan_of(model, &o, w);
    demo_part("SmolLM2, predicted from the head of its file");
    putchar('\n');
    demo_figure("weights", "%s", demo_bytes((double)p.weight_bytes));
    demo_figure("KV cache of 1024 tokens", "%s", demo_bytes((double)p.kv_bytes));
    demo_figure("working memory", "%s", demo_bytes((double)p.activation_bytes));
    demo_figure("in all", "%s", demo_bytes((double)p.total_bytes));
    demo_figure("a prompt is bound by", "%s", p.prompt_bound);
    demo_figure("an answer is bound by", "%s", p.generation_bound);
    demo_figure("tokens per pass that suffice", "%d", p.best_micro_batch);
    demo_figure("sequences at once, most in all", "%d", p.best_sequences);
    print_bytes(&p);
    const dil_speed s = measure(model, &o, w, demo_quick() ? 1 : 3);
    demo_part("Predicted and measured");
    printf("\n  tokens per second    predicted  measured       share\n  -------------------  ---------  -------------  -----\n");
    printf("  prompt of %-9d  %9.0f  %5.0f +- %4.0f  %3.0f %%\n", w->n_prompt, p.prompt_rate, s.prompt_rate, s.prompt_deviation,
           100 * s.prompt_rate / p.prompt_rate);
    printf("  answer of %-9d  %9.0f  %5.0f +- %4.0f  %3.0f %%\n", w->n_gen, p.generation_rate, s.generation_rate,
           s.generation_deviation, 100 * s.generation_rate / p.generation_rate);
    demo_say("One token of the answer reads %s.", demo_bytes(s.bytes_per_token));
}

/* ---- tokens per pass ---- */

static FILE *open_log(const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f)
        demo_die("the measured speeds cannot be written");
    fprintf(f, "step:tokens per pass,tokens of a prompt per second\n");
    return f;
}

static void sweep(const char *model)
{
    char predicted[DEMO_PATH], measured[DEMO_PATH];
    FILE *p = open_log(demo_path(predicted, "predicted.csv")), *m = open_log(demo_path(measured, "measured.csv"));
    dil_engine_options o = dil_engine_options_default();
    dil_workload w = dil_workload_default(), only_prompt;
    w.n_prompt = PROMPT;
    only_prompt = w;
    only_prompt.n_gen = 0;
    o.n_context = PROMPT;
    demo_part("How many tokens in one pass?");
    demo_say("A pass reads all weights once: with few tokens in it reading is what takes long, with many it is arithmetic.");
    printf("\n  tokens per pass  predicted  measured\n  ---------------  ---------  --------\n");
    for (int i = 0; i < N_PASSES; i++) {
        o.n_micro_batch = passes[i];
        const dil_plan plan = plan_of(model, &o, &w);
        const dil_speed s = measure(model, &o, &only_prompt, demo_quick() ? 1 : 2);
        printf("  %15d  %9.0f  %8.0f\n", passes[i], plan.prompt_rate, s.prompt_rate);
        fprintf(p, "%d,%.1f\n", passes[i], plan.prompt_rate);
        fprintf(m, "%d,%.1f\n", passes[i], s.prompt_rate);
    }
    fclose(p);
    fclose(m);
    const char *const inputs[] = {predicted, measured};
    demo_picture("metrics", inputs, 2, "passes", NULL, "Speed of a prompt by the tokens of a pass, as predicted and as measured.");
}

/* ---- tuning ---- */

static void tune(const char *model)
{
    dil_tuned t = {.struct_size = sizeof t};
    dil_workload w = dil_workload_default();
    w.n_prompt = 128, w.n_gen = 16; /* short: many turns fit into the time */
    MUST(dil_tune(model, NULL, &w, demo_quick() ? 1 : 10, &t, &demo_error));
    demo_part("Tuning");
    demo_say(
        "Settings race the usual ones in turns; only what is faster beyond doubt is kept, for this model on this machine. Answers never\n"
        "change.");
    putchar('\n');
    demo_figure("time", "%.1f s", t.seconds);
    demo_figure("settings tried, kept", "%d, %d", t.n_trials, t.n_kept);
    demo_figure("a prompt became", "%.3f times as fast", t.prompt_gain);
    demo_figure("an answer became", "%.3f times as fast", t.generation_gain);
    demo_say("%s", t.changed ? "The model is opened with these settings from now on."
                             : "The usual settings were the best: nothing was changed.");
}

int main(int argc, char **argv)
{
    char model[DEMO_PATH];
    dil_workload w = dil_workload_default();
    demo_begin(argc, argv, "CPU optimizer");
    if (!demo_smollm2(model))
        demo_die("SmolLM2 is not there; fetch it (100 MB, once) with: dil pull smollm2");
    w.n_prompt = PROMPT, w.n_gen = ANSWER;
    show_machine();
    predict(model, &w);
    sweep(model);
    tune(model);
    demo_end();
    return 0;
}
