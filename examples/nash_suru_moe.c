/* The Nash-Swarm mixture of experts: a decision, a layer that reads less of its router, a layer with a quarter of its experts in memory. */
#include "demo.h"

#define RULE "------------------------"

enum { WIDE = 256, EXPERTS = 64, USED = 8, HIDDEN = 128, CANDIDATES = 64, DIM = 3, PLACES = 3 };

/* ---- a decision ---- */

static void print_group(const dil_decision *d)
{
    printf("\n  candidate  distance  value  place  regret\n  ---------  --------  -----  -----  ------\n");
    for (int i = 0; i < d->n && i < DIL_NEIGHBOURS; i++)
        printf("  %9d  %8.3f  %5.3f  %5s  %6.3f\n", d->member[i], d->distance[i], d->value[i], d->chosen[i] ? "yes" : "-",
               d->regret[i]);
}

/* Two decisions of the same candidates, side by side. */
static void print_decisions(const dil_decision *a, const dil_decision *b)
{
    printf("\n  %-24s  %12s  %12s\n  %.24s  %.12s  %.12s\n", "", "independent", "overlapping", RULE, RULE, RULE);
    printf("  %-24s  %12d  %12d\n", "looked at, of 64", a->n, b->n);
    printf("  %-24s  %12d  %12d\n", "times the group grew", a->n_rounds, b->n_rounds);
    printf("  %-24s  %12s  %12s\n", "certain", a->certain ? "yes" : "no", b->certain ? "yes" : "no");
    printf("  %-24s  %12.3f  %12.3f\n", "price of a place", a->price, b->price);
    printf("  %-24s  %12.3f  %12.3f\n", "most value outside", a->outside, b->outside);
    printf("  %-24s  %12.3g  %12.3g\n", "gap to the equilibrium", a->gap, b->gap);
    printf("  %-24s  %12d  %12d\n", "best of the chosen", a->best, b->best);
}

static void decide(void)
{
    float candidates[CANDIDATES * DIM], task[DIM];
    dil_decide_options o = dil_decide_options_default();
    dil_decision alone = {.struct_size = sizeof alone}, together = alone;
    for (int i = 0; i < CANDIDATES * DIM; i++)
        candidates[i] = demo_normal();
    for (int i = 0; i < DIM; i++)
        task[i] = 0.5f * demo_normal();
    o.n = CANDIDATES, o.dim = DIM, o.candidates = candidates, o.task = task, o.n_chosen = PLACES;
    MUST(dil_decide_adaptive(&o, &alone, &demo_error));
    o.overlap = 0.2;
    MUST(dil_decide_adaptive(&o, &together, &demo_error));
    demo_part("A decision");
    demo_say(
        "%d candidates and a task are points of one space, and there are %d places. The theorem looks at the %d candidates nearest\n"
        "to the task, lets them settle a game for the places, and looks at more while somebody outside could still take one.\n"
        "Overlapping: two chosen ones of the same direction lose up to a fifth of what they are worth together.",
        CANDIDATES, PLACES, DIL_NEIGHBOURS);
    print_decisions(&alone, &together);
    demo_say("The group of the independent ones:");
    print_group(&alone);
    demo_say("Regret is what a candidate would lose by changing alone; nobody's is below 0: that is an equilibrium.");
}

/* ---- a layer ---- */

typedef struct rows {
    size_t n;
    float *x;        /* [n][WIDE] */
    float *y;        /* [n][WIDE] */
    int32_t *chosen; /* [n][USED] */
    float *weights;  /* [n][USED] */
} rows;

static rows new_rows(size_t n)
{
    rows r = {.n = n};
    r.x = demo_array(n * WIDE, sizeof *r.x);
    r.y = demo_array(n * WIDE, sizeof *r.y);
    r.chosen = demo_array(n * USED, sizeof *r.chosen);
    r.weights = demo_array(n * USED, sizeof *r.weights);
    demo_walk(r.x, n, WIDE, 0.4);
    return r;
}

/* Runs the rows one after the other, as a language model would while it writes. Returns the seconds it took. */
static double run(const char *layer, const dil_engine_options *o, const rows *r, float *y, dil_experts_counts *counts,
                  dil_model_info *info)
{
    dil_engine *e = NULL;
    MUST(dil_engine_open(&e, layer, o, &demo_error));
    const double began = demo_now();
    MUST(dil_experts_run(e, r->x, r->n, y, r->chosen, r->weights, &demo_error));
    const double seconds = demo_now() - began;
    *counts = (dil_experts_counts){.struct_size = sizeof *counts};
    *info = (dil_model_info){.struct_size = sizeof *info};
    MUST(dil_experts_count(e, counts, &demo_error));
    MUST(dil_engine_info(e, info, &demo_error));
    dil_engine_close(e);
    return seconds;
}

static const char *same(const rows *r, const float *y)
{
    return memcmp(r->y, y, r->n * WIDE * sizeof *y) == 0 ? "yes, every bit" : "NO";
}

/* The same layer three times: as it is, with its router read in part, with a quarter of its experts in memory. */
static void run_layer(const char *layer, rows *r)
{
    dil_engine_options o = dil_engine_options_default();
    dil_experts_counts counts;
    dil_model_info info;
    float *y = demo_array(r->n * WIDE, sizeof *y);
    o.n_micro_batch = 1;
    o.no_pack_cache = true;
    demo_part("A layer of experts");
    const double exact = run(layer, &o, r, r->y, &counts, &info);
    demo_say("%d experts, %d of them for each row; rows are %d wide and follow one another like the words of a text.", EXPERTS,
             USED, WIDE);
    putchar('\n');
    demo_figure("rows", "%zu", r->n);
    demo_figure("the layer in memory", "%s", demo_bytes((double)info.packed_bytes));
    demo_figure("rows per second, one by one", "%.0f", (double)r->n / exact);

    demo_part("The router, read in part");
    demo_say(
        "The 8-bit copy of a row of the router bounds what its score can be. Only rows that may be among the best are read in full:\n"
        "the choice is certified, not guessed.");
    o.route_local = true;
    run(layer, &o, r, y, &counts, &info);
    putchar('\n');
    demo_figure("bytes of all router rows", "%s", demo_bytes((double)counts.router_full_bytes));
    demo_figure("bytes that were read", "%s (%.1f %%)", demo_bytes((double)counts.router_read_bytes),
                100.0 * (double)counts.router_read_bytes / (double)counts.router_full_bytes);
    demo_figure("the same outputs", "%s", same(r, y));

    demo_part("A quarter of the experts in memory");
    demo_say("The others stay on disk until they are needed; the budget is never exceeded.");
    o.experts_memory = info.packed_bytes / 4;
    o.no_pack_cache = false; /* experts are read from there */
    run(layer, &o, r, y, &counts, &info);
    putchar('\n');
    demo_figure("budget for experts", "%s", demo_bytes((double)info.experts_memory));
    demo_figure("found in memory", "%llu (%.1f %%)", (unsigned long long)counts.n_found,
                100.0 * (double)counts.n_found / (double)(counts.n_found + counts.n_loaded));
    demo_figure("read from disk", "%llu, %s", (unsigned long long)counts.n_loaded, demo_bytes((double)counts.loaded_bytes));
    demo_figure("the same outputs", "%s", same(r, y));
    free(y);
}

/* ---- which policy would have found how much ---- */

static void replay(const char *layer, const rows *r)
{
    static const char *const policies[] = {"swarm", "lru", "lfu", "belady"};
    char log[DEMO_PATH];
    dil_engine *e = NULL;
    double share[4];
    MUST(dil_engine_open(&e, layer, NULL, &demo_error));
    MUST(dil_experts_log(e, demo_path(log, "layer.route"), r->chosen, r->weights, r->n, &demo_error));
    dil_engine_close(e);
    demo_part("Who should stay in memory?");
    demo_say(
        "The choices of that layer as a log, replayed with room for a quarter of the experts. Belady's rule knows the future: no policy\n"
        "finds more.");
    printf("\n  policy  found in memory  read from disk\n  ------  ---------------  --------------\n");
    for (int i = 0; i < 4; i++) {
        dil_replay p = {.struct_size = sizeof p};
        MUST(dil_experts_replay(log, policies[i], 0.25, &p, &demo_error));
        share[i] = 100.0 * (double)p.n_found / (double)p.n_uses;
        printf("  %-6s  %13.2f %%  %14s\n", policies[i], share[i], demo_bytes((double)p.read_bytes));
    }
    demo_say("The swarm's policy finds %.1f %% of what Belady's does; lru finds %.1f %%.", 100 * share[0] / share[3],
             100 * share[1] / share[3]);
    const char *const inputs[] = {log};
    demo_picture("cache", inputs, 1, "cache", NULL, "How often an expert is found in memory, by the share of experts that fit.");
}

static void fly(void)
{
    static const char text[] =
        "A small starling lived in a big old tree. One evening the sky was dark and the wind was cold. The little bird looked "
        "at its friends, and they all turned at once. \"Let us fly home together,\" it said.";
    const char *const inputs[] = {demo_sigircik()};
    demo_part("The flock");
    demo_say(
        "A real model: Sığırcık, the project's own mixture of experts, reads a short story. Each bird is an expert of one layer, lines join the\n"
        "%d nearest, and with every token the experts that serve it fly towards it.",
        DIL_NEIGHBOURS);
    demo_picture("flock", inputs, 1, "flock.html", text, "The flock while the text is read: play, seek, change the layer.");
    demo_picture("flock", inputs, 1, "flock", text, "The same flock after the last token.");
}

int main(int argc, char **argv)
{
    char layer[DEMO_PATH];
    dil_experts shape = dil_experts_default();
    demo_begin(argc, argv, "Nash-Swarm mixture of experts");
    decide();
    shape.n_embd = WIDE, shape.n_ff = HIDDEN, shape.n_experts = EXPERTS, shape.n_used = USED;
    MUST(dil_experts_write(demo_path(layer, "layer.gguf"), &shape, &demo_error));
    rows r = new_rows(demo_quick() ? 512 : 4096);
    run_layer(layer, &r);
    replay(layer, &r);
    fly();
    remove(layer);
    free(r.x);
    free(r.y);
    free(r.chosen);
    free(r.weights);
    demo_end();
    return 0;
}
