/* dil route: what a router log says about reuse, and what each policy of the expert pool would have read. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "cli/cli.h"
#include "experts/simulate.h"

enum { MOST_BUDGETS = 16 };

typedef struct report {
    const trace *t;
    simulate_reuse *reuse;    /* [t->n_places] */
    residency_counts *layers; /* [POLICY_KINDS, t->n_layers] of the present budget */
    simulation of[POLICY_KINDS];
    bool wanted[POLICY_KINDS];
    uint64_t budgets[MOST_BUDGETS];
    int n_budgets;
    bool by_layer;
} report;

/* In the order of the table: Belady's, which is the bound, last. */
static const policy_kind order[POLICY_KINDS] = {POLICY_LRU, POLICY_LFU, POLICY_STALE, POLICY_SWARM, POLICY_BELADY};

static double percent(uint64_t part, uint64_t of) { return of ? 100.0 * (double)part / (double)of : 0.0; }
static uint64_t misses(const residency_counts *c) { return c->requests - c->hits; }
static double mega(double bytes) { return bytes * 1e-6; }

static double per_token(const report *r, uint64_t n) { return r->t->n_tokens ? (double)n / (double)r->t->n_tokens : 0.0; }

/* ---- what is asked ---- */

static bool read_policies(report *r, const char *name)
{
    policy_kind kind;
    bool all = !name || strcmp(name, "all") == 0;
    for (int i = 0; i < POLICY_KINDS; i++)
        r->wanted[i] = all;
    if (all)
        return true;
    if (!policy_find(name, &kind))
        return false;
    return r->wanted[kind] = true;
}

/* One word of --budget: "400M", "25%". */
static bool read_budget(const char *word, uint64_t all, uint64_t *out)
{
    char number[32];
    double share;
    size_t n = strlen(word);
    if (n == 0 || word[n - 1] != '%')
        return str_to_bytes(word, out) && *out > 0;
    if (n > sizeof number)
        return false;
    memcpy(number, word, n - 1);
    number[n - 1] = '\0';
    if (!str_to_f64(number, &share) || !(share > 0 && share <= 1000))
        return false;
    *out = (uint64_t)(share / 100 * (double)all);
    return true;
}

static bool read_budgets(report *r, const char *text)
{
    char copy[512];
    if (!text)
        text = "10%,25%,50%";
    if (strlen(text) >= sizeof copy)
        return false;
    memcpy(copy, text, strlen(text) + 1);
    for (char *rest = copy, *word; (word = strsep(&rest, ","));)
        if (r->n_budgets == MOST_BUDGETS || !read_budget(word, simulate_all_bytes(r->t), &r->budgets[r->n_budgets++]))
            return false;
    return true;
}

/* ---- sums over the layers ---- */

static simulate_reuse sum_of(const report *r)
{
    simulate_reuse sum = {0};
    for (uint32_t p = 0; p < r->t->n_places; p++) {
        sum.uses += r->reuse[p].uses;
        sum.distinct += r->reuse[p].distinct;
        sum.recalled += r->reuse[p].recalled;
        sum.candidates += r->reuse[p].candidates;
        for (int d = 0; d < SIMULATE_DISTANCES; d++)
            sum.within[d] += r->reuse[p].within[d];
    }
    return sum;
}

static uint64_t count_experts(const trace *t)
{
    uint64_t n = 0;
    for (uint32_t l = 0; l < t->n_layers; l++)
        n += t->layers[l].n_experts;
    return n;
}

/* Uses the local candidates could have recalled: all but those of the first token. */
static uint64_t recallable(const report *r, uint64_t places)
{
    return r->t->n_tokens ? (r->t->n_tokens - 1) * places * r->t->n_used : 0;
}

static double candidates_per_token(const report *r, uint64_t candidates, uint64_t places)
{
    uint64_t n = r->t->n_tokens > 1 ? (r->t->n_tokens - 1) * places : 0;
    return n ? (double)candidates / (double)n : 0.0;
}

/* ---- as a table ---- */

static void print_log(const report *r)
{
    const trace *t = r->t;
    simulate_reuse sum = sum_of(r);
    uint64_t passes = 0;
    for (uint64_t i = 0; i < t->n_tokens; i++)
        passes += t->begins[i];
    char all[40], token[40];
    printf(_("%s: %llu tokens in %llu passes; %u layers with experts, %u used of each\n"), t->name, (unsigned long long)t->n_tokens,
           (unsigned long long)passes, t->n_places, t->n_used);
    printf(_("experts: %s in all, %s a token; %u of %llu were ever used\n"), str_bytes(simulate_all_bytes(t), all, sizeof all),
           str_bytes(simulate_token_bytes(t), token, sizeof token), sum.distinct, (unsigned long long)count_experts(t));
    printf(
        _("reuse: %.1f %% of the uses had their expert in the last token, %.1f %% in the last 2, %.1f %% in 4, %.1f %% in 8, %.1f %% in 16\n"),
        percent(sum.within[0], sum.uses), percent(sum.within[1], sum.uses), percent(sum.within[2], sum.uses),
        percent(sum.within[3], sum.uses), percent(sum.within[4], sum.uses));
    printf(
        _("local candidates: the last token's experts and their 7 neighbours, %.1f per layer, hold %.1f %% of the next token's\n"),
        candidates_per_token(r, sum.candidates, t->n_places), percent(sum.recalled, recallable(r, t->n_places)));
}

static void print_policies(const report *r)
{
    const simulation *best = &r->of[POLICY_BELADY];
    puts(_("  policy    hit rate    MB a token    reads beside Belady's"));
    for (int i = 0; i < POLICY_KINDS; i++) {
        const simulation *s = &r->of[order[i]];
        if (!r->wanted[order[i]])
            continue;
        printf("  %-8s  %6.2f %%    %10.1f    %.2f\n", policy_name(order[i]), percent(s->total.hits, s->total.requests),
               mega(per_token(r, s->total.bytes_read)),
               misses(&best->total) ? (double)misses(&s->total) / (double)misses(&best->total) : 1.0);
    }
}

static void print_layer_hits(const report *r)
{
    fputs(_("  hit rate of each layer\n   layer"), stdout);
    for (int i = 0; i < POLICY_KINDS; i++)
        if (r->wanted[order[i]])
            printf("  %8s", policy_name(order[i]));
    putchar('\n');
    for (uint32_t p = 0; p < r->t->n_places; p++) {
        uint32_t l = r->t->layer_of[p];
        printf("  %6u", l);
        for (int i = 0; i < POLICY_KINDS; i++) {
            const residency_counts *c = &r->layers[(size_t)order[i] * r->t->n_layers + l];
            if (r->wanted[order[i]])
                printf("  %6.2f %%", percent(c->hits, c->requests));
        }
        putchar('\n');
    }
}

static void print_budget(const report *r)
{
    const simulation *s = &r->of[POLICY_BELADY];
    char budget[40];
    printf(
        _("\nbudget %s (%.1f %% of all, %.1f tokens' experts): %u slots, at least %u of a layer; first uses alone are %.1f %%\n"),
        str_bytes(s->budget_bytes, budget, sizeof budget), percent(s->budget_bytes, simulate_all_bytes(r->t)),
        (double)s->budget_bytes / (double)simulate_token_bytes(r->t), s->n_slots, s->least_capacity,
        percent(s->first.requests, s->total.requests));
    print_policies(r);
    if (r->by_layer)
        print_layer_hits(r);
}

/* Uses of the layer's busiest expert beside an even share; 1 less is called MaxVio. */
static double busiest(const report *r, uint32_t place)
{
    const simulate_reuse *m = &r->reuse[place];
    return m->uses ? (double)m->busiest * (double)r->t->layers[r->t->layer_of[place]].n_experts / (double)m->uses : 0.0;
}

static void print_layers(const report *r)
{
    puts(_("\n layer  experts     used  busiest   reuse within  1      2      4      8     16   candidates  recall"));
    for (uint32_t p = 0; p < r->t->n_places; p++) {
        const simulate_reuse *m = &r->reuse[p];
        uint32_t l = r->t->layer_of[p];
        printf("%6u  %7u  %7u  %6.2fx           ", l, r->t->layers[l].n_experts, m->distinct, busiest(r, p));
        for (int d = 0; d < SIMULATE_DISTANCES; d++)
            printf("  %5.1f", percent(m->within[d], m->uses));
        printf("   %10.1f  %6.1f\n", candidates_per_token(r, m->candidates, 1), percent(m->recalled, recallable(r, 1)));
    }
}

/* ---- as JSON ---- */

static void json_reuse(const report *r, const simulate_reuse *m, uint64_t places)
{
    printf(
        "\"distinct\": %u, \"reuse_within\": {\"1\": %.4f, \"2\": %.4f, \"4\": %.4f, \"8\": %.4f, \"16\": %.4f}, \"candidates\": %.3f, \"recall\": %.4f",
        m->distinct, percent(m->within[0], m->uses) / 100, percent(m->within[1], m->uses) / 100,
        percent(m->within[2], m->uses) / 100, percent(m->within[3], m->uses) / 100, percent(m->within[4], m->uses) / 100,
        candidates_per_token(r, m->candidates, places), percent(m->recalled, recallable(r, places)) / 100);
}

static void json_log(const report *r)
{
    const trace *t = r->t;
    simulate_reuse sum = sum_of(r);
    printf("{\"model\": ");
    cli_print_json_string(str_of(t->name));
    printf(", \"tokens\": %" PRIu64 ", \"layers\": %u, \"used\": %u, \"experts\": %" PRIu64 ", \"expert_bytes\": %" PRIu64
           ", \"token_bytes\": %" PRIu64 ", \"finished\": %s, \"ignored_bytes\": %" PRIu64 ", ",
           t->n_tokens, t->n_places, t->n_used, count_experts(t), simulate_all_bytes(t), simulate_token_bytes(t),
           t->finished ? "true" : "false", t->ignored_bytes);
    json_reuse(r, &sum, t->n_places);
    for (uint32_t p = 0; r->by_layer && p < t->n_places; p++) {
        printf("%s{\"layer\": %u, \"busiest\": %.4f, ", p ? ", " : ", \"by_layer\": [", t->layer_of[p], busiest(r, p));
        json_reuse(r, &r->reuse[p], 1);
        printf("}%s", p + 1 == t->n_places ? "]" : "");
    }
    printf(", \"budgets\": [");
}

static void json_policy(const report *r, policy_kind kind)
{
    const simulation *s = &r->of[kind];
    printf("{\"policy\": \"%s\", \"requests\": %" PRIu64 ", \"hits\": %" PRIu64 ", \"hit_rate\": %.6f, \"bytes_per_token\": %.1f",
           policy_name(kind), s->total.requests, s->total.hits, percent(s->total.hits, s->total.requests) / 100,
           per_token(r, s->total.bytes_read));
    for (uint32_t p = 0; r->by_layer && p < r->t->n_places; p++) {
        const residency_counts *c = &r->layers[(size_t)kind * r->t->n_layers + r->t->layer_of[p]];
        printf("%s%.6f%s", p ? ", " : ", \"hit_rates\": [", percent(c->hits, c->requests) / 100,
               p + 1 == r->t->n_places ? "]" : "");
    }
    putchar('}');
}

static void json_budget(const report *r, bool first)
{
    const simulation *s = &r->of[POLICY_BELADY];
    bool begun = false;
    printf("%s{\"budget_bytes\": %" PRIu64 ", \"slots\": %u, \"first_uses\": %" PRIu64 ", \"policies\": [", first ? "" : ", ",
           s->budget_bytes, s->n_slots, s->first.requests);
    for (int i = 0; i < POLICY_KINDS; i++) {
        if (!r->wanted[order[i]])
            continue;
        printf("%s", begun ? ", " : "");
        json_policy(r, order[i]);
        begun = true;
    }
    printf("]}");
}

/* ---- the command ---- */

/* Belady's is replayed always: the others are compared with it. */
static dil_status replay(report *r, uint64_t budget, dil_error *err)
{
    for (int k = 0; k < POLICY_KINDS; k++)
        if (r->wanted[k] || k == POLICY_BELADY)
            DIL_TRY(simulate(r->t, (policy_kind)k, budget, &r->of[k], r->layers + (size_t)k * r->t->n_layers, err));
    return DIL_OK;
}

static dil_status print_report(report *r, bool json, dil_error *err)
{
    r->reuse = mem_calloc(r->t->n_places, sizeof *r->reuse, MEM_MISC);
    r->layers = mem_calloc((size_t)POLICY_KINDS * r->t->n_layers, sizeof *r->layers, MEM_MISC);
    if (!r->reuse || !r->layers)
        return DIL_FAIL(err, DIL_NO_MEMORY, "route: no memory");
    DIL_TRY(simulate_measure(r->t, r->reuse, err));
    for (int i = 0; i < r->n_budgets; i++) {
        DIL_TRY(replay(r, r->budgets[i], err));
        if (i == 0 && json)
            json_log(r);
        else if (i == 0)
            print_log(r);
        if (json)
            json_budget(r, i == 0);
        else
            print_budget(r);
    }
    if (json)
        puts("]}");
    else if (r->by_layer)
        print_layers(r);
    return DIL_OK;
}

static int report_on(const trace *t, const cli_options *o)
{
    report r = {.t = t, .by_layer = o->layers};
    dil_error err = {0};
    if (!read_policies(&r, o->policy))
        return cli_usage("route: --policy: wanted lru, lfu, stale, swarm, belady or all, found '%s'", o->policy);
    if (!read_budgets(&r, o->budget))
        return cli_usage("route: --budget: wanted up to %d sizes such as 400M or 25%%, separated by commas, found '%s'",
                         MOST_BUDGETS, o->budget);
    dil_status status = print_report(&r, o->json, &err);
    mem_free(r.reuse);
    mem_free(r.layers);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static int route(const cli_options *o, char **positional, int n_positional)
{
    trace *t;
    dil_error err = {0};
    (void)n_positional;
    if (trace_open(&t, positional[0], &err) != DIL_OK)
        return cli_fail(&err);
    if (!t->finished)
        fprintf(stderr, _("dil: %s: the log was not finished; %llu bytes of an incomplete record at its end are ignored\n"),
                positional[0], (unsigned long long)t->ignored_bytes);
    int code = report_on(t, o);
    trace_free(t);
    return code;
}

static const char *const replay_options[] = {"policy", "budget", "layers", "json", NULL};

const cli_command command_route = {
    .name = "route",
    .usage = N_("route LOG"),
    .summary = N_("Shows the reuse of experts in a router log, and what each policy of the expert pool would read."),
    .example = N_("dil route chat.route --budget 8G,25% --policy all"),
    .options = replay_options,
    .least_positional = 1,
    .most_positional = 1,
    .run = route};
