#include "cli/plan_print.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/status.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/print.h"

static void print_row(const char *what, uint64_t bytes, const char *note)
{
    char size[32];
    fputs("  ", stdout);
    print_cell(stdout, what, 14);
    printf(" %10s  %s\n", str_bytes(bytes, size, sizeof size), note);
}

static void print_rate(const char *what, double tokens, const prediction *p)
{
    char bytes[32], rate[32];
    double read = 0;
    for (int kind = 0; kind < STEP_KINDS; kind++)
        read += p->steps[kind].bytes;
    fputs("  ", stdout);
    print_cell(stdout, what, 22);
    printf(_(" %9.1f tokens/s  bound by %s"), tokens, _(predict_bound_name(p->bound)));
    if (p->bound == BOUND_MEMORY || p->bound == BOUND_CACHE)
        printf(_(": %s at %s/s"), str_bytes((uint64_t)read, bytes, sizeof bytes),
               str_bytes((uint64_t)p->reading, rate, sizeof rate));
    putchar('\n');
}

static void print_speed(const forecast *f)
{
    char what[96];
    putchar('\n');
    snprintf(what, sizeof what, _("prompt of %d"), f->n_prompt);
    print_rate(what, f->prompt_rate, &f->prompt);
    if (f->n_parallel > 1)
        snprintf(what, sizeof what, _("generation, %d at once"), f->n_parallel);
    else
        snprintf(what, sizeof what, "%s", _("generation"));
    print_rate(what, f->first_rate, &f->first);
    print_rate(_("with the context full"), f->last_rate, &f->last);
    if (f->p.experts_memory > 0)
        puts(_("  (if all experts were in memory)"));
    if (f->least_each > 0 && f->n_sequences > 0)
        printf(_("  at %.4g tokens/s each, %d sequences at once give most\n"), f->least_each, f->n_sequences);
    else if (f->least_each > 0)
        printf(_("  not even one sequence keeps %.4g tokens/s\n"), f->least_each);
    puts(_("  (predicted; dil bench measures)"));
}

/* ---- step by step ---- */

static void explain_pass(const char *title, const prediction *p, const level_bytes *levels)
{
    char size[32], l2[32], l3[32], memory[32];
    printf(_("\n%s: %.3f ms, of it %.3f ms at barriers; it goes over %s, read at %.1f GB/s\n"), title, 1e3 * p->seconds,
           1e3 * p->barriers, str_bytes((uint64_t)p->working_set, size, sizeof size), p->reading * 1e-9);
    puts(_("  step            times        ms   share  arithmetic   reading     touches   from L2   from L3 from memory"));
    for (int kind = 0; kind < STEP_KINDS; kind++) {
        const predict_step *s = &p->steps[kind];
        const level_bytes *b = &levels[kind];
        if (s->n)
            printf("  %-14s %6d %9.3f %6.1f%% %11.3f %9.3f   %9s %9s %9s %11s\n", step_name((step_kind)kind), s->n,
                   1e3 * s->seconds, 100 * s->seconds / p->seconds, 1e3 * s->units, 1e3 * s->bytes_seconds,
                   str_bytes((uint64_t)b->touched, size, sizeof size), str_bytes((uint64_t)b->l2, l2, sizeof l2),
                   str_bytes((uint64_t)b->l3, l3, sizeof l3), str_bytes((uint64_t)b->memory, memory, sizeof memory));
    }
}

static void explain_batches(const char *title, const batch_point *points, bool each)
{
    fputs("\n  ", stdout);
    print_cell(stdout, title, 32);
    for (int i = 0; i < BATCH_POINTS; i++)
        printf("%9d", points[i].n);
    fputs("\n  ", stdout);
    print_cell(stdout, _("tokens/s"), 32);
    for (int i = 0; i < BATCH_POINTS; i++)
        printf("%9.1f", points[i].total);
    if (each) {
        fputs("\n  ", stdout);
        print_cell(stdout, _("of it each"), 32);
    }
    for (int i = 0; i < BATCH_POINTS && each; i++)
        printf("%9.1f", points[i].each);
    putchar('\n');
}

dil_status plan_explain(const forecast *f, dil_error *err)
{
    char title[96];
    level_bytes levels[STEP_KINDS];
    const predict_pass prompt = forecast_prompt_pass(f), first = forecast_first_pass(f);
    DIL_TRY(levels_of_pass(levels, &f->by, &prompt, err));
    snprintf(title, sizeof title, _("A pass of %d tokens of a prompt"), prompt.n_tokens);
    explain_pass(title, &f->prompt, levels);
    DIL_TRY(levels_of_pass(levels, &f->by, &first, err));
    explain_pass(_("A pass of generation"), &f->first, levels);
    explain_batches(_("Tokens of a prompt per pass"), f->blocks, false);
    explain_batches(_("Sequences that generate at once"), f->sequences, true);
    return DIL_OK;
}

void plan_print(const plan_report *r)
{
    const forecast *f = &r->f;
    const engine_plan *p = &f->p;
    char size[32], note[192];
    printf(p->n_threads == 1 ? _("%s (%s), context %d, %d thread\n\n") : _("%s (%s), context %d, %d threads\n\n"), f->path,
           str_bytes(p->file_bytes, size, sizeof size), p->context, p->n_threads);
    if (p->experts_memory > 0) {
        print_row(_("weights"), p->packed_bytes - p->expert_bytes, _("packed for the kernels, without experts"));
        snprintf(note, sizeof note, _("of %s; the rest stays on disk"), str_bytes(p->expert_bytes, size, sizeof size));
        print_row(_("experts"), p->experts_memory, note);
    } else {
        print_row(_("weights"), p->packed_bytes, _("packed for the kernels"));
    }
    snprintf(note, sizeof note, _("%s per token"), str_bytes(p->kv_bytes_per_token, size, sizeof size));
    print_row(_("KV cache"), p->kv_bytes, note);
    print_row(_("activations"), p->activation_bytes, _("buffers of one pass"));
    print_row(_("vocabulary"), p->vocab_bytes, "");
    print_row(_("program"), p->program_bytes, _("code and libraries"));
    if (r->limit_given)
        snprintf(note, sizeof note, r->fits ? _("fits in %s (--memory)") : _("DOES NOT FIT in %s (--memory)"),
                 str_bytes(r->limit, size, sizeof size));
    else
        snprintf(note, sizeof note, r->fits ? _("fits in %s of this machine") : _("DOES NOT FIT in %s of this machine"),
                 str_bytes(r->limit, size, sizeof size));
    print_row(_("total"), p->total_bytes, note);
    if (!r->fits)
        printf("  %-14s %s\n", "", r->advice);
    print_speed(f);
}

void plan_print_json(const plan_report *r)
{
    const forecast *f = &r->f;
    const engine_plan *p = &f->p;
    fputs("{\"path\": ", stdout);
    cli_print_json_string(str_of(f->path));
    printf(
        ", \"file_bytes\": %" PRIu64 ", \"weight_bytes\": %" PRIu64 ", \"expert_bytes\": %" PRIu64 ", \"experts_memory\": %" PRIu64
        ", \"kv_bytes\": %" PRIu64 ", \"activation_bytes\": %" PRIu64 ", \"vocab_bytes\": %" PRIu64 ", \"program_bytes\": %" PRIu64
        ", \"total_bytes\": %" PRIu64 ", \"limit_bytes\": %" PRIu64 ", \"fits\": %s, \"kv_bytes_per_token\": %" PRIu64
        ", \"weight_bytes_per_token\": %" PRIu64
        ", \"threads\": %d, \"context\": %d, \"prediction\": {\"n_prompt\": %d, \"n_gen\": %d, \"depth\": %d, \"parallel\": %d, ",
        p->file_bytes, p->packed_bytes, p->expert_bytes, p->experts_memory, p->kv_bytes, p->activation_bytes, p->vocab_bytes,
        p->program_bytes, p->total_bytes, r->limit, r->fits ? "true" : "false", p->kv_bytes_per_token, p->weight_bytes_per_token,
        p->n_threads, p->context, f->n_prompt, f->n_gen, f->depth, f->n_parallel);
    printf(
        "\"prompt_tokens_per_second\": %.2f, \"prompt_bound\": \"%s\", \"tokens_per_second\": %.2f, \"bound\": \"%s\", "
        "\"tokens_per_second_full_context\": %.2f, \"read_bytes_per_second\": %.0f, \"reading_now\": %.3f, \"gemv_now\": %.3f, \"gemm_now\": %.3f, \"best_micro_batch\": %d, \"best_sequences\": %d}}\n",
        f->prompt_rate, predict_bound_name(f->prompt.bound), f->first_rate, predict_bound_name(f->first.bound), f->last_rate,
        f->first.reading, f->by.reading_now, predict_speed_now(&f->by, 1), predict_speed_now(&f->by, 256), f->block,
        f->n_sequences);
}
