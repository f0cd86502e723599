#include "cli/quantize_report.h"

#include <math.h>
#include <string.h>

#include "base/os.h"
#include "base/status.h"
#include "cli/print.h"
#include "cli/report_json.h"

static double bits(uint64_t bytes, uint64_t values) { return values ? 8.0 * (double)bytes / (double)values : 0.0; }

static uint64_t values_of(const player *q) { return (uint64_t)q->n * (uint64_t)q->rows * (uint64_t)q->columns; }

/* Over all matrices. */
typedef struct totals {
    uint64_t values[DIL_TYPE_COUNT], bytes, matrix_values;
    round_report round;
} totals;

static totals add_up(const compress_report *r)
{
    totals t = {.matrix_values = players_values(&r->players)};
    for (int i = 0; i < r->players.n; i++) {
        const player *q = &r->players.p[i];
        t.values[q->choice[q->chosen].type] += values_of(q);
        t.bytes += q->choice[q->chosen].bytes;
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

static const char *thing(const preset_report *r) { return r->kind == PRUNE_EXPERTS ? "experts" : "neurons"; }

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

/* ---- for programs ---- */

static json_t *ways_json(const allocate_report *a)
{
    json_t *list = json_array();
    for (int i = 0; i < a->n_baselines; i++) {
        const allocate_baseline *b = &a->baseline[i];
        json_t *way =
            json_pack("{s:s, s:o, s:o}", "name", b->name, "bytes", report_count(b->bytes), "divergence", report_number(b->cost));
        if (b->seconds > 0)
            json_object_set_new(way, "tokens_per_second", report_number(1 / b->seconds));
        if (b->recipe)
            json_object_set_new(way, "recipe", json_string(b->recipe));
        json_array_append_new(list, way);
    }
    return list;
}

static json_t *stability_json(const stability *s)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "codes", (json_int_t)s->codes, "codes_that_could_do_better",
                     (json_int_t)s->restless_codes, "scales", (json_int_t)s->scales, "scales_that_could_do_better",
                     (json_int_t)s->restless_scales);
}

static json_t *matrix_json(const compress_report *r, int i)
{
    const player *q = &r->players.p[i];
    const compress_matrix *m = &r->matrix[i];
    const player_choice *c = &q->choice[q->chosen];
    return json_pack("{s:o, s:i, s:s, s:i, s:i, s:i, s:i, s:o, s:o, s:o, s:{s:o, s:o, s:o, s:o, s:i, s:o, s:o, s:o}}", "name",
                     report_text(q->tensor->name), "layer", q->layer, "type", format_get(c->type)->name, "experts", q->n, "rows",
                     q->rows, "columns", q->columns, "curvature_columns", m->curvature_columns ? m->curvature_columns : q->columns,
                     "bytes", report_count(c->bytes), "bits_per_weight", report_number(bits(c->bytes, values_of(q))),
                     "expected_divergence", report_number(m->predicted), "rounding", "power", report_number(m->round.power),
                     "plain", report_number(m->round.plain), "feedback", report_number(m->round.fed), "equilibrium",
                     report_number(m->round.cost), "sweeps", m->round.n_sweeps, "codes", report_count((uint64_t)m->round.n_codes),
                     "moved_in_last_sweep", report_count((uint64_t)m->round.moved), "checked", stability_json(&m->round.checked));
}

static json_t *measured_json(const compress_report *r)
{
    if (!r->measured)
        return json_null();
    return json_pack("{s:o, s:o, s:o}", "divergence", report_number(r->kld), "error", report_number(r->kld_error),
                     "same_first_word", report_number(r->same_top));
}

static json_t *attempts_json(const compress_report *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->n_attempts; i++)
        json_array_append_new(list, json_pack("{s:o, s:o, s:o, s:b}", "bytes", report_count(r->attempt[i].bytes),
                                              "expected_divergence", report_number(r->attempt[i].expected), "divergence",
                                              report_number(r->attempt[i].found), "taken", i == r->taken));
    return list;
}

void quantize_report_preset_json(json_t *report, const preset_report *r)
{
    json_object_set_new(report, "preset",
                        json_pack("{s:s, s:f, s:f, s:f, s:s, s:i, s:i, s:o, s:o, s:{s:o, s:o}, s:o}", "name", r->preset->name,
                                  "bits_per_weight", r->preset->bits, "share", r->preset->share, "budget", r->budget, "structure",
                                  thing(r), "before", r->n_before, "removed", r->n_removed, "divergence_of_removal",
                                  report_number(r->pruned_cost), "expected_divergence_of_the_bits",
                                  report_number(r->quantized_cost), "whole_model_at_that_size", "bytes",
                                  report_count(r->whole_bytes), "expected_divergence", report_number(r->whole_cost),
                                  "seconds_before_the_file", report_number(r->seconds)));
}

static json_t *refined_json(const refine_result *r)
{
    return json_pack("{s:o, s:o, s:i, s:i, s:i, s:i, s:o, s:o}", "divergence_before", report_number(r->before), "divergence_after",
                     report_number(r->after), "steps", r->n_steps, "best_step", r->best, "sequences", r->n_train, "judges",
                     r->n_judges, "scales", report_count(r->n_scales), "norms", report_count(r->n_norms));
}

json_t *quantize_report_json(const compress_report *r, const char *in_path, const char *out_path, double seconds)
{
    static const char *const phases[] = {"calibration", "allocation", "rounding", "writing", "refining", "measuring"};
    const totals t = add_up(r);
    json_t *times = json_object(), *matrices = json_array(), *curve = json_array(), *all;
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++)
        json_object_set_new(times, phases[i], report_number(r->seconds[i]));
    json_object_set_new(times, "all", report_number(seconds));
    for (int i = 0; i < r->players.n; i++)
        json_array_append_new(matrices, matrix_json(r, i));
    for (int i = 0; i < r->n_curve; i++)
        json_array_append_new(curve, ways_json(&r->curve[i]));
    all = json_pack("{s:o, s:o, s:b, s:o, s:o, s:o, s:b, s:{s:o, s:i, s:i}, s:o, s:o, s:o, s:o}", "input",
                    report_text(str_of(in_path)), "output", report_text(str_of(out_path)), "written", (int)r->written, "in_bytes",
                    report_count(r->in_bytes), "out_bytes", report_count(r->out_bytes), "bits_per_weight",
                    report_number(bits(t.bytes, t.matrix_values)), "stock", (int)players_are_stock(&r->players), "calibration",
                    "text", report_text(str_of(r->text)), "sequences", r->n_sequences, "tokens_each", r->n_context,
                    "expected_divergence", report_number(r->predicted), "measured", measured_json(r), "seconds", times,
                    "peak_memory_bytes", report_count(os_peak_rss_bytes()));
    if (r->allocated)
        json_object_set_new(all, "game",
                            json_pack("{s:o, s:o, s:o, s:o, s:o}", "price_per_byte", report_number(r->allocation.price),
                                      "price_per_millisecond", report_number(r->second_price / 1000), "gap",
                                      report_number(r->allocation.gap), "bound", report_number(r->allocation.bound), "ways",
                                      ways_json(&r->allocation)));
    if (r->n_attempts > 0)
        json_object_set_new(all, "attempts", attempts_json(r));
    if (r->refined.n_steps)
        json_object_set_new(all, "refined", refined_json(&r->refined));
    json_object_set_new(all, "curve", curve);
    json_object_set_new(all, "matrices", matrices);
    return all;
}
