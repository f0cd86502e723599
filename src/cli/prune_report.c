#include "cli/prune_report.h"

#include <math.h>
#include <string.h>

#include "base/os.h"
#include "base/status.h"
#include "evaluate/report_json.h"

static const char *const things[] = {
    [PRUNE_NEURONS] = "neurons", [PRUNE_EXPERTS] = "experts", [PRUNE_LAYERS] = "layers", [PRUNE_BLOCKS] = "blocks"};

static double per_megabyte(double cost, const prune_report *r, uint64_t bytes)
{
    return bytes < r->in_bytes ? cost / ((double)(r->in_bytes - bytes) * 1e-6) : 0;
}

static const allocate_baseline *way(const prune_report *r, const char *name)
{
    for (int i = 0; i < r->quantized.n_baselines; i++)
        if (strcmp(r->quantized.baseline[i].name, name) == 0)
            return &r->quantized.baseline[i];
    return NULL;
}

/* ---- for people ---- */

static void print_plan(FILE *out, const prune_report *r)
{
    char size[32];
    const prune_plan *p = &r->plan;
    if (p->kind == PRUNE_BLOCKS) {
        fprintf(out, _("  %d of %d blocks of 32 weights are zero; the file stores them, %s without\n"), p->n_removed, p->n_before,
                str_bytes(r->stored_bytes, size, sizeof size));
        return;
    }
    if (p->kind != PRUNE_LAYERS) {
        fprintf(out,
                p->kind == PRUNE_EXPERTS ? _("  %d of %d experts gone from each of %d layers\n")
                                         : _("  %d of %d neurons gone from each of %d layers\n"),
                p->n_removed, p->n_before, p->n_lists);
        return;
    }
    fprintf(out, _("  %d of %d layers gone:"), p->n_removed, p->n_before);
    for (int i = 0; i < p->n_removed; i++)
        fprintf(out, "%s %d (%.4f)", i ? "," : "", p->removed[i], p->cost[i]);
    fputc('\n', out);
}

static void print_price(FILE *out, const prune_report *r)
{
    char size[32];
    const allocate_baseline *game = way(r, "game");
    if (r->plan.n_lists > 1)
        fprintf(out, _("  divergence expected layer by layer: %.4f nats per token\n"), r->expected);
    fprintf(out, _("  divergence on the calibration text: %.4f nats per token, %.2g for each MB that is saved\n"), r->found,
            per_megabyte(r->found, r, r->stored_bytes ? r->stored_bytes : r->out_bytes));
    if (!r->compared || !game) {
        fputs(_("  no quantized file of the whole model is as small\n"), out);
        return;
    }
    fprintf(out, _("  the whole model quantized to that size (%s): %.2g expected, %.2g for each MB: %s\n"),
            str_bytes(game->bytes, size, sizeof size), game->cost, per_megabyte(game->cost, r, game->bytes),
            game->cost <= r->found ? _("dil quantize is the cheaper way to these bytes")
                                   : _("pruning is the cheaper way to these bytes"));
}

void prune_report_print(FILE *out, const prune_report *r, const char *out_path, bool written, double seconds)
{
    char before[32], after[32];
    fprintf(out, written ? _("%s: %s -> %s, %.0f s\n") : _("%s: %s -> %s, %.0f s; dry run, nothing was written\n"), out_path,
            str_bytes(r->in_bytes, before, sizeof before), str_bytes(r->out_bytes, after, sizeof after), seconds);
    print_plan(out, r);
    print_price(out, r);
    if (r->measured)
        fprintf(out, _("  measured divergence %.4f +- %.4f nats per token, same first word %.1f %%\n"), r->kld, r->kld_error,
                100.0 * r->same_top);
    else if (r->not_measured[0])
        fprintf(out, _("  not measured: %s\n"), r->not_measured);
    if (r->decoded)
        fputs(_("  matrices that changed had been quantized; they are F16 now: dil quantize makes them small again\n"), out);
}

/* ---- for programs ---- */

static json_t *list_json(const prune_plan *p, int list)
{
    json_t *removed = json_array(), *costs = json_array();
    for (int i = 0; i < p->n_removed; i++) {
        size_t at = (size_t)list * (size_t)p->n_removed + (size_t)i;
        json_array_append_new(removed, json_integer(p->removed[at]));
        json_array_append_new(costs, report_number(p->cost[at]));
    }
    return json_pack("{s:o, s:o}", "removed", removed, "expected_divergence", costs);
}

static json_t *ways_json(const prune_report *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->quantized.n_baselines && r->compared; i++) {
        const allocate_baseline *b = &r->quantized.baseline[i];
        json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o}", "name", b->name, "bytes", report_count(b->bytes),
                                              "divergence", report_number(b->cost), "divergence_per_megabyte",
                                              report_number(per_megabyte(b->cost, r, b->bytes))));
    }
    return list;
}

json_t *prune_report_json(const prune_report *r, const char *in_path, const char *out_path, bool written, double seconds)
{
    const prune_plan *p = &r->plan;
    json_t *lists = json_array(), *measured = json_null();
    for (int i = 0; i < p->n_lists; i++)
        json_array_append_new(lists, list_json(p, i));
    if (r->measured)
        measured = json_pack("{s:o, s:o, s:o}", "divergence", report_number(r->kld), "error", report_number(r->kld_error),
                             "same_first_word", report_number(r->same_top));
    return json_pack("{s:o, s:o, s:b, s:s, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:{s:o, s:i, s:i}, "
                     "s:{s:o, s:o, s:o, s:o}, s:o}",
                     "input", report_text(str_of(in_path)), "output", report_text(str_of(out_path)), "written", written, "kind",
                     things[p->kind], "model_layers", r->n_layer, "before", p->n_before, "removed", p->n_removed, "lists", lists,
                     "in_bytes", report_count(r->in_bytes), "out_bytes", report_count(r->out_bytes), "stored_bytes",
                     report_count(r->stored_bytes ? r->stored_bytes : r->out_bytes), "expected_divergence",
                     report_number(r->expected), "found_divergence", report_number(r->found), "divergence_per_megabyte",
                     report_number(per_megabyte(r->found, r, r->stored_bytes ? r->stored_bytes : r->out_bytes)),
                     "quantized_instead", ways_json(r), "measured", measured, "decoded", r->decoded, "calibration", "text",
                     report_text(str_of(r->text)), "sequences", r->n_sequences, "tokens_each", r->n_context, "seconds", "finding",
                     report_number(r->seconds[0]), "writing", report_number(r->seconds[1]), "measuring",
                     report_number(r->seconds[2]), "all", report_number(seconds), "peak_memory_bytes",
                     report_count(os_peak_rss_bytes()));
}
