/* dil eval bleu: how much answers agree with references, or with those of another model. */
#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "evaluate/bleu.h"
#include "evaluate/report_json.h"

#define MOST_TEXTS (2 + BLEU_MOST_REFERENCES)

typedef struct bleu_command {
    const cli_options *o;
    bleu_options options;
    bleu_text texts[MOST_TEXTS]; /* hypotheses, then references */
    char *memory[MOST_TEXTS];
    char bleu_signature[160], chrf_signature[160];
} bleu_command;

/* As sacreBLEU writes them, so that scores tell how they were made. */
static void write_signatures(bleu_command *c)
{
    char common[80] = "";
    const cli_options *o = c->o;
    if (c->options.n_resamples > 0)
        (void)snprintf(common, sizeof common, "bs:%d|seed:%" PRIu64 "|", c->options.n_resamples, c->options.seed);
    const char *letters = c->options.lowercase ? "lc" : "mixed";
    (void)snprintf(c->bleu_signature, sizeof c->bleu_signature, "nrefs:%d|%scase:%s|eff:no|tok:%s|smooth:exp|version:dil-%s",
                   o->n_references, common, letters, bleu_tokenizer_name(c->options.tokenizer), DIL_VERSION);
    (void)snprintf(c->chrf_signature, sizeof c->chrf_signature, "nrefs:%d|%scase:%s|eff:yes|nc:%d|nw:0|space:no|version:dil-%s",
                   o->n_references, common, letters, BLEU_CHARACTER_ORDER, DIL_VERSION);
}

static dil_status read_texts(bleu_command *c, dil_error *err)
{
    const cli_options *o = c->o;
    for (int i = 0; i < o->n_hypotheses + o->n_references; i++) {
        bleu_text *t = &c->texts[i];
        t->name = i < o->n_hypotheses ? o->hypotheses[i] : o->references[i - o->n_hypotheses];
        DIL_TRY(cli_read_text(t->name, &c->memory[i], &t->text.n, err));
        t->text.p = c->memory[i];
    }
    return DIL_OK;
}

/* ---- for readers ---- */

/* difference: with its sign. */
static void print_estimate(const char *name, const bleu_estimate *e, bool difference)
{
    printf(difference ? "%-5s %+.2f" : "%-5s %.2f", name, e->value);
    if (e->low <= e->high)
        printf(difference ? " [%+.2f, %+.2f]" : " [%.2f, %.2f]", e->low, e->high);
}

static void print_system(const bleu_system *s)
{
    print_estimate("BLEU", &s->bleu, false);
    printf("  %.1f/%.1f/%.1f/%.1f (BP = %.3f ratio = %.3f hyp_len = %" PRId64 " ref_len = %" PRId64 ")\n", s->precision[0],
           s->precision[1], s->precision[2], s->precision[3], s->brevity_penalty, s->ratio, s->hyp_len, s->ref_len);
    print_estimate("chrF2", &s->chrf, false);
    putchar('\n');
}

static void print_difference(const char *name, const bleu_difference *d)
{
    print_estimate(name, &d->estimate, true);
    if (d->p <= 1)
        printf("  p = %.4f", d->p);
    putchar('\n');
}

static void print_result(const bleu_command *c, const bleu_result *r)
{
    const int n = c->o->n_hypotheses;
    for (int h = 0; h < n; h++) {
        if (n > 1) {
            print_text(stdout, str_of(c->texts[h].name), 4096);
            putchar('\n');
        }
        print_system(&r->system[h]);
    }
    if (n > 1) {
        puts(_("second minus first"));
        print_difference("BLEU", &r->bleu);
        print_difference("chrF2", &r->chrf);
    }
    if (!c->o->quiet)
        printf(r->n_lines == 1 ? _("%d line\nBLEU|%s\nchrF2|%s\n") : _("%d lines\nBLEU|%s\nchrF2|%s\n"), r->n_lines,
               c->bleu_signature, c->chrf_signature);
}

/* ---- for programs ---- */

static json_t *estimate_json(const bleu_estimate *e)
{
    return json_pack("{s:o, s:o, s:o}", "score", report_number(e->value), "low", report_number(e->low), "high",
                     report_number(e->high));
}

static json_t *difference_json(const bleu_difference *d)
{
    json_t *out = estimate_json(&d->estimate);
    json_object_set_new(out, "p", report_number(d->p));
    return out;
}

static json_t *system_json(const char *file, const bleu_system *s)
{
    json_t *bleu = estimate_json(&s->bleu);
    json_object_set_new(bleu, "precisions",
                        json_pack("[f, f, f, f]", s->precision[0], s->precision[1], s->precision[2], s->precision[3]));
    json_object_set_new(bleu, "brevity_penalty", report_number(s->brevity_penalty));
    json_object_set_new(bleu, "ratio", report_number(s->ratio));
    json_object_set_new(bleu, "hyp_len", report_count((uint64_t)s->hyp_len));
    json_object_set_new(bleu, "ref_len", report_count((uint64_t)s->ref_len));
    return json_pack("{s:o, s:o, s:o}", "file", report_text(str_of(file)), "bleu", bleu, "chrf", estimate_json(&s->chrf));
}

static dil_status print_json(const bleu_command *c, const bleu_result *r, dil_error *err)
{
    json_t *systems = json_array();
    for (int h = 0; h < c->o->n_hypotheses; h++)
        json_array_append_new(systems, system_json(c->texts[h].name, &r->system[h]));
    json_t *all = json_pack("{s:i, s:i, s:s, s:s, s:o}", "lines", r->n_lines, "references", c->o->n_references, "bleu_signature",
                            c->bleu_signature, "chrf_signature", c->chrf_signature, "systems", systems);
    if (c->o->n_hypotheses > 1)
        json_object_set_new(all, "difference",
                            json_pack("{s:o, s:o}", "bleu", difference_json(&r->bleu), "chrf", difference_json(&r->chrf)));
    const dil_status status = print_report(all, err);
    json_decref(all);
    return status;
}

/* ---- the command ---- */

static dil_status evaluate(bleu_command *c, dil_error *err)
{
    bleu_result r;
    DIL_TRY(read_texts(c, err));
    write_signatures(c);
    const dil_status status =
        evaluate_bleu(c->texts, c->o->n_hypotheses, c->texts + c->o->n_hypotheses, c->o->n_references, &c->options, &r, err);
    cli_progress_end();
    DIL_TRY(status);
    if (c->o->json)
        return print_json(c, &r, err);
    print_result(c, &r);
    return DIL_OK;
}

static bool read_options(bleu_command *c)
{
    const cli_options *o = c->o;
    c->options = (bleu_options){.lowercase = o->lowercase,
                                .n_resamples = (int32_t)o->resamples,
                                .seed = options_given(o, "seed") ? (uint64_t)o->seed : BLEU_SEED,
                                .progress = o->quiet ? NULL : cli_progress};
    if (options_given(o, "seed") && o->seed < 0)
        os_random(&c->options.seed, sizeof c->options.seed);
    return !o->tokenizer || bleu_tokenizer_find(o->tokenizer, &c->options.tokenizer);
}

static int eval_bleu(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    bleu_command c = {.o = o};
    if (o->n_hypotheses < 1 || o->n_hypotheses > 2 || o->n_references < 1)
        return cli_usage("eval bleu: wanted --hyp FILE once or twice and --ref FILE, found %d and %d", o->n_hypotheses,
                         o->n_references);
    if (!read_options(&c))
        return cli_usage("--tokenize: wanted 13a, none or char, found '%s'", o->tokenizer);
    const dil_status status = evaluate(&c, &err);
    for (int i = 0; i < MOST_TEXTS; i++)
        mem_free(c.memory[i]);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const bleu_list[] = {"hyp", "ref", "tokenize", "lowercase", "resamples", "seed", "json", "quiet", NULL};

const cli_command command_eval_bleu = {
    .name = "eval bleu",
    .usage = N_("eval bleu --hyp FILE [--hyp FILE] --ref FILE [--ref FILE ...] [OPTIONS]"),
    .summary = N_("BLEU and chrF of texts, line by line, as sacreBLEU computes them, with bootstrap intervals."),
    .example = N_("dil eval bleu --hyp q4.txt --ref f16.txt"),
    .options = bleu_list,
    .run = eval_bleu};
