#include "cli/quantize_report.h"

#include <math.h>
#include <string.h>

#include "base/os.h"
#include "base/status.h"
#include "cli/print.h"

static double bits(uint64_t bytes, uint64_t values) { return values ? 8.0 * (double)bytes / (double)values : 0.0; }

static uint64_t values_of(const player *q) { return (uint64_t)q->n * (uint64_t)q->rows * (uint64_t)q->columns; }

/* Over all matrices. */
typedef struct totals {
    uint64_t values[DIL_TYPE_COUNT], bytes, matrix_values;
    round_report round;
} totals;

static totals add_up(const compress_report *r)
{
    totals t = {.bytes = players_matrix_bytes(&r->players), .matrix_values = players_values(&r->players)};
    for (int i = 0; i < r->players.n; i++) {
        const player *q = &r->players.p[i];
        t.values[q->choice[q->chosen].type] += values_of(q);
        round_report_add(&t.round, &r->matrix[i].round);
    }
    return t;
}

/* ---- for people ---- */

static void print_allocation(FILE *out, const compress_report *r)
{
    fprintf(out, _("  expected divergence by the way formats are chosen, in nats per token:\n"));
    for (int i = 0; i < r->allocation.n_baselines; i++) {
        char size[32], name[64];
        const allocate_baseline *b = &r->allocation.baseline[i];
        snprintf(name, sizeof name, "%s%s%s", _(b->name), b->recipe ? " " : "", b->recipe ? b->recipe : "");
        fputs("    ", out);
        print_cell(out, name, 20);
        fprintf(out, " %.4f   %s", b->cost, str_bytes(b->bytes, size, sizeof size));
        if (b->seconds > 0)
            fprintf(out, _("   %.1f tokens/s"), 1 / b->seconds);
        fputc('\n', out);
    }
}

static void print_stability(FILE *out, const stability *s)
{
    if (s->codes > 0)
        fprintf(out, _("  of %lld codes and %lld scales looked at, %lld and %lld could still do better alone\n"),
                (long long)s->codes, (long long)s->scales, (long long)s->restless_codes, (long long)s->restless_scales);
}

/* Matrices too wide to be looked at as a whole. */
static void print_parts(FILE *out, const compress_report *r)
{
    int n = 0, columns = 0;
    for (int i = 0; i < r->players.n; i++) {
        const int part = r->matrix[i].curvature_columns;
        if (part > 0 && part < r->players.p[i].columns) {
            n++;
            columns = columns == 0 || part < columns ? part : columns;
        }
    }
    if (n > 0)
        fprintf(out, _("  %d wide matrices were rounded in parts of %d columns or more, which know nothing of each other\n"), n,
                columns);
}

static void print_attempts(FILE *out, const compress_report *r)
{
    for (int i = 0; i < r->n_attempts; i++) {
        char size[32];
        const compress_attempt *a = &r->attempt[i];
        fprintf(out,
                r->measured ? _("  attempt %d: %s, expected %.4f, measured %.4f")
                            : _("  attempt %d: %s, expected %.4f, not measured: %.4f"),
                i + 1, str_bytes(a->bytes, size, sizeof size), a->expected, a->found);
        fputs(i == r->taken ? _(": taken\n") : "\n", out);
    }
}

void quantize_report_refined(FILE *out, const refine_result *r)
{
    fprintf(out, _("  %llu scales and %llu norms refined on %d sequences, judged on %d others: "), (unsigned long long)r->n_scales,
            (unsigned long long)r->n_norms, r->n_train, r->n_judges);
    if (r->best)
        fprintf(out, _("divergence %.4f -> %.4f (%+.1f %%) after %d steps\n"), r->before, r->after,
                100.0 * (r->after / r->before - 1.0), r->best);
    else
        fprintf(out, _("divergence %.4f, %d steps found nothing better; they stay as they were\n"), r->before, r->n_steps);
}

void quantize_report_print(FILE *out, const compress_report *r, const char *out_path, double seconds)
{
    char before[32], after[32];
    const totals t = add_up(r);
    fprintf(out,
            r->written ? _("%s: %s -> %s, %.3f bits per weight, %.0f s\n")
                       : _("%s: %s -> %s, %.3f bits per weight, %.0f s; dry run, nothing was written\n"),
            out_path, str_bytes(r->in_bytes, before, sizeof before), str_bytes(r->out_bytes, after, sizeof after),
            bits(t.bytes, t.matrix_values), seconds);
    fputs(_("  formats:"), out);
    for (int type = 0, n = 0; type < DIL_TYPE_COUNT; type++)
        if (t.values[type])
            fprintf(out, "%s %s %.1f %%", n++ ? "," : "", format_get((dil_type)type)->name,
                    100.0 * (double)t.values[type] / (double)t.matrix_values);
    fputc('\n', out);
    if (!players_are_stock(&r->players))
        fputs(_("  with formats of our own: other engines cannot read this file\n"), out);
    if (t.round.plain > 0)
        fprintf(out, _("  error of the matrices' outputs: 1 with plain rounding, %.3f with error feedback, %.3f at equilibrium\n"),
                t.round.fed / t.round.plain, t.round.cost / t.round.plain);
    print_stability(out, &t.round.checked);
    print_parts(out, r);
    print_attempts(out, r);
    if (r->allocated)
        print_allocation(out, r);
    else if (!isnan(r->predicted))
        fprintf(out, _("  expected divergence %.4f nats per token\n"), r->predicted);
    if (r->refined.n_steps)
        quantize_report_refined(out, &r->refined);
    if (r->measured)
        fprintf(out, _("  measured divergence %.4f +- %.4f nats per token, same first word %.1f %%\n"), r->kld, r->kld_error,
                100.0 * r->same_top);
    else if (r->not_measured[0])
        fprintf(out, _("  not measured: %s\n"), r->not_measured);
}

void quantize_report_preset_print(FILE *out, const preset_report *r)
{
    char size[32];
    const bool experts = r->kind == PRUNE_EXPERTS;
    fprintf(out,
            experts ? _("  preset %s: %g bits per weight, up to %.0f %% of the experts, within %g nats per token\n")
                    : _("  preset %s: %g bits per weight, up to %.0f %% of the neurons, within %g nats per token\n"),
            r->preset->name, r->preset->bits, 100 * r->preset->share, r->budget);
    if (r->n_removed > 0)
        fprintf(out,
                experts ? _("  %d of %d experts gone from each layer, at %.4f nats per token\n")
                        : _("  %d of %d neurons gone from each layer, at %.4f nats per token\n"),
                r->n_removed, r->n_before, r->pruned_cost);
    else
        fprintf(out,
                experts ? _("  no experts gone: the budget beside %.4f for the bits allows none, or the model has none to spare\n")
                        : _("  no neurons gone: the budget beside %.4f for the bits allows none, or the model has none to spare\n"),
                r->quantized_cost);
    if (r->n_removed > 0 && !isnan(r->whole_cost))
        fprintf(out, _("  the whole model quantized to that size (%s): %.4f expected, nothing gone\n"),
                str_bytes(r->whole_bytes, size, sizeof size), r->whole_cost);
    else if (r->n_removed > 0)
        fputs(_("  no quantized file of the whole model is as small\n"), out);
}
