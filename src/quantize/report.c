/* Reports of quantizing for programs. */
#include "quantize/report.h"

#include <math.h>

#include "base/os.h"
#include "base/status.h"
#include "evaluate/report_json.h"

static double bits(uint64_t bytes, uint64_t values) { return values ? 8.0 * (double)bytes / (double)values : 0.0; }

static double bits_of_all(const players *p) { return bits(players_matrix_bytes(p), players_values(p)); }

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

/* curvature_columns: that were rounded together; 0: all */
static json_t *matrix_json(const player *q, const round_report *r, int curvature_columns, double expected)
{
    const player_choice *c = &q->choice[q->chosen];
    return json_pack("{s:o, s:i, s:s, s:i, s:i, s:i, s:i, s:o, s:o, s:o, s:{s:o, s:o, s:o, s:o, s:i, s:o, s:o, s:o}}", "name",
                     report_text(q->tensor->name), "layer", q->layer, "type", format_get(c->type)->name, "experts", q->n, "rows",
                     q->rows, "columns", q->columns, "curvature_columns", curvature_columns ? curvature_columns : q->columns,
                     "bytes", report_count(c->bytes), "bits_per_weight",
                     report_number(bits(c->bytes, (uint64_t)q->n * (uint64_t)q->rows * (uint64_t)q->columns)),
                     "expected_divergence", report_number(expected), "rounding", "power", report_number(r->power), "plain",
                     report_number(r->plain), "feedback", report_number(r->fed), "equilibrium", report_number(r->cost), "sweeps",
                     r->n_sweeps, "codes", report_count((uint64_t)r->n_codes), "moved_in_last_sweep",
                     report_count((uint64_t)r->moved), "checked", stability_json(&r->checked));
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

void report_add_preset(json_t *report, const preset_report *r)
{
    json_object_set_new(report, "preset",
                        json_pack("{s:s, s:f, s:f, s:f, s:s, s:i, s:i, s:o, s:o, s:{s:o, s:o}, s:o}", "name", r->preset->name,
                                  "bits_per_weight", r->preset->bits, "share", r->preset->share, "budget", r->budget, "structure",
                                  (r->kind == PRUNE_EXPERTS ? "experts" : "neurons"), "before", r->n_before, "removed",
                                  r->n_removed, "divergence_of_removal", report_number(r->pruned_cost),
                                  "expected_divergence_of_the_bits", report_number(r->quantized_cost), "whole_model_at_that_size",
                                  "bytes", report_count(r->whole_bytes), "expected_divergence", report_number(r->whole_cost),
                                  "seconds_before_the_file", report_number(r->seconds)));
}

static json_t *refined_json(const refine_result *r)
{
    return json_pack("{s:o, s:o, s:i, s:i, s:i, s:i, s:o, s:o}", "divergence_before", report_number(r->before), "divergence_after",
                     report_number(r->after), "steps", r->n_steps, "best_step", r->best, "sequences", r->n_train, "judges",
                     r->n_judges, "scales", report_count(r->n_scales), "norms", report_count(r->n_norms));
}

json_t *report_of_compression(const compress_report *r, const char *in_path, const char *out_path, double seconds)
{
    static const char *const phases[] = {"calibration", "allocation", "rounding", "writing", "refining", "measuring"};
    json_t *times = json_object(), *matrices = json_array(), *curve = json_array(), *all;
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++)
        json_object_set_new(times, phases[i], report_number(r->seconds[i]));
    json_object_set_new(times, "all", report_number(seconds));
    for (int i = 0; i < r->players.n; i++)
        json_array_append_new(matrices, matrix_json(&r->players.p[i], &r->matrix[i].round, r->matrix[i].curvature_columns,
                                                    r->matrix[i].predicted));
    for (int i = 0; i < r->n_curve; i++)
        json_array_append_new(curve, ways_json(&r->curve[i]));
    all = json_pack("{s:o, s:o, s:b, s:o, s:o, s:o, s:b, s:{s:o, s:i, s:i}, s:o, s:o, s:o, s:o}", "input",
                    report_text(str_of(in_path)), "output", report_text(str_of(out_path)), "written", (int)r->written, "in_bytes",
                    report_count(r->in_bytes), "out_bytes", report_count(r->out_bytes), "bits_per_weight",
                    report_number(bits_of_all(&r->players)), "stock", (int)players_are_stock(&r->players), "calibration", "text",
                    report_text(str_of(r->text)), "sequences", r->n_sequences, "tokens_each", r->n_context, "expected_divergence",
                    report_number(r->predicted), "measured", measured_json(r), "seconds", times, "peak_memory_bytes",
                    report_count(os_peak_rss_bytes()));
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

json_t *report_of_matrices(const matrices_report *r, const char *in_path, const char *out_path)
{
    json_t *matrices = json_array();
    for (int i = 0; i < r->players.n; i++)
        json_array_append_new(matrices, matrix_json(&r->players.p[i], &r->round[i], 0, (double)NAN));
    return json_pack("{s:o, s:o, s:b, s:o, s:o, s:o, s:b, s:{s:s, s:i, s:i, s:o}, s:o, s:{s:o, s:o}, s:{s:o}, s:o, s:o}", "input",
                     report_text(str_of(in_path)), "output", report_text(str_of(out_path)), "written", 1, "in_bytes",
                     report_count(r->in_bytes), "out_bytes", report_count(r->out_bytes), "bits_per_weight",
                     report_number(bits_of_all(&r->players)), "stock", (int)players_are_stock(&r->players), "pruned", "structure",
                     r->lone ? "neurons" : "blocks", "before", r->n_before, "removed", r->n_removed, "relative_error",
                     report_number(r->lone ? r->pruned_error : (double)NAN), "relative_error",
                     report_number(r->lone ? r->error : (double)NAN), "game", "price_per_byte", report_number(r->allocation.price),
                     "gap", report_number(r->allocation.gap), "seconds", "all", report_number(r->seconds), "peak_memory_bytes",
                     report_count(os_peak_rss_bytes()), "matrices", matrices);
}

dil_status report_write_compression(const char *path, const preset_report *r, const char *in_path, const char *out_path,
                                    double seconds, dil_error *err)
{
    json_t *report = report_of_compression(&r->file, in_path, out_path, seconds);
    if (report && r->preset)
        report_add_preset(report, r);
    dil_status status = report_write(path, report, err);
    json_decref(report);
    return status;
}
