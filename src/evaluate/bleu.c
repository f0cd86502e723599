#include "evaluate/bleu.h"

#include <math.h>

#include "base/mem.h"
#include "base/status.h"
#include "evaluate/bleu_internal.h"
#include "evaluate/lines.h"

#define MOST_LINES ((size_t)1 << 24)
#define MOST_LINE_BYTES ((size_t)1 << 20)

/* ---- scores of counts; the order of the operations is sacreBLEU's ---- */

/* Exponential smoothing: orders without a match count half a match, a quarter, ... */
static double smoothed_bleu(const bleu_system *s, double precision[BLEU_ORDER])
{
    double shrunk = 1, sum = 0;
    for (int k = 0; k < BLEU_ORDER; k++)
        precision[k] = 0;
    if (s->n_right[0] == 0)
        return 0; /* no word agrees, hence nothing longer */
    for (int k = 0; k < BLEU_ORDER; k++) {
        if (s->n_all[k] == 0)
            return 0; /* all too short for this order */
        if (s->n_right[k] == 0)
            shrunk *= 2;
        precision[k] = 100.0 * (s->n_right[k] ? (double)s->n_right[k] : 1 / shrunk) / (double)s->n_all[k];
    }
    for (int k = 0; k < BLEU_ORDER; k++)
        sum += log(precision[k]);
    return s->brevity_penalty * exp(sum / BLEU_ORDER);
}

double bleu_chrf(const int64_t counts[3 * BLEU_CHARACTER_ORDER])
{
    const double beta2 = 4;
    double precision = 0, recall = 0;
    int n = 0; /* orders that both sides have */
    for (int k = 0; k < BLEU_CHARACTER_ORDER; k++) {
        const int64_t *c = counts + 3 * k;
        if (c[0] == 0 || c[1] == 0)
            continue;
        precision += (double)c[2] / (double)c[0];
        recall += (double)c[2] / (double)c[1];
        n++;
    }
    if (n == 0 || precision + recall == 0)
        return 0;
    precision /= n;
    recall /= n;
    return 100 * ((1 + beta2) * precision * recall / (beta2 * precision + recall));
}

void bleu_score(const int64_t counts[BLEU_COUNTS], bleu_system *out)
{
    memcpy(out->n_right, counts + BLEU_RIGHT, sizeof out->n_right);
    memcpy(out->n_all, counts + BLEU_ALL, sizeof out->n_all);
    out->hyp_len = counts[BLEU_HYP_LEN];
    out->ref_len = counts[BLEU_REF_LEN];
    const double hyp = (double)out->hyp_len, ref = (double)out->ref_len;
    out->ratio = ref > 0 ? hyp / ref : 0;
    out->brevity_penalty = hyp >= ref ? 1 : hyp > 0 ? exp(1 - ref / hyp) : 0;
    out->bleu = (bleu_estimate){smoothed_bleu(out, out->precision), NAN, NAN};
    out->chrf = (bleu_estimate){bleu_chrf(counts + BLEU_CHRF), NAN, NAN};
}

/* ---- texts ---- */

typedef struct corpus {
    const bleu_text *hypotheses, *references;
    int n_hypotheses, n_references;
    int32_t n_lines;
    int32_t *counts; /* [n_hypotheses][n_lines][BLEU_COUNTS] */
} corpus;

static const bleu_text *text_of(const corpus *c, int i)
{
    return i < c->n_hypotheses ? &c->hypotheses[i] : &c->references[i - c->n_hypotheses];
}

static dil_status check_lines(const bleu_text *t, dil_error *err)
{
    str text = t->text, line;
    for (size_t n = 1; lines_next(&text, &line); n++) {
        if (line.n > MOST_LINE_BYTES)
            return DIL_FAIL(err, DIL_LIMIT, "%s: line %zu: wanted at most %zu bytes, found %zu", t->name, n, MOST_LINE_BYTES,
                            line.n);
        if (!utf8_valid(line))
            return DIL_FAIL(err, DIL_FORMAT, "%s: line %zu: wanted UTF-8, found other bytes", t->name, n);
    }
    return DIL_OK;
}

/* All texts have as many lines as the first. */
static dil_status check(corpus *c, dil_error *err)
{
    const size_t n = lines_count(text_of(c, 0)->text);
    if (n > MOST_LINES)
        return DIL_FAIL(err, DIL_LIMIT, "%s: wanted at most %zu lines, found %zu", text_of(c, 0)->name, MOST_LINES, n);
    for (int i = 0; i < c->n_hypotheses + c->n_references; i++) {
        const bleu_text *t = text_of(c, i);
        const size_t found = lines_count(t->text);
        if (found != n)
            return DIL_FAIL(err, DIL_FORMAT, "%s: wanted as many lines as %s, %zu, found %zu", t->name, text_of(c, 0)->name, n,
                            found);
        if (n == 0)
            return DIL_FAIL(err, DIL_FORMAT, "%s: wanted at least one line, found none", t->name);
        DIL_TRY(check_lines(t, err));
    }
    c->n_lines = (int32_t)n;
    return DIL_OK;
}

static dil_status count_line(corpus *c, bleu_counter *counter, const str *lines, int32_t at, dil_error *err)
{
    str segments[NGRAMS_MOST_SOURCES];
    memcpy(segments + 1, lines + c->n_hypotheses, (size_t)c->n_references * sizeof *segments);
    for (int h = 0; h < c->n_hypotheses; h++) {
        segments[0] = lines[h];
        int32_t *row = c->counts + ((size_t)h * (size_t)c->n_lines + (size_t)at) * BLEU_COUNTS;
        DIL_TRY(bleu_count(counter, segments, 1 + c->n_references, row, err));
    }
    return DIL_OK;
}

static dil_status count_lines(corpus *c, bleu_counter *counter, dil_error *err)
{
    const bleu_options *o = counter->options;
    str rest[2 + BLEU_MOST_REFERENCES], lines[2 + BLEU_MOST_REFERENCES];
    const int n = c->n_hypotheses + c->n_references;
    for (int i = 0; i < n; i++)
        rest[i] = text_of(c, i)->text;
    for (int32_t at = 0; at < c->n_lines; at++) {
        for (int i = 0; i < n; i++)
            lines_next(&rest[i], &lines[i]);
        DIL_TRY(count_line(c, counter, lines, at, err));
        if (o->progress && !o->progress(o->user, "counting n-grams", (uint64_t)at + 1, (uint64_t)c->n_lines))
            return DIL_FAIL(err, DIL_CANCELLED, "bleu: cancelled after %d lines", at + 1);
    }
    return DIL_OK;
}

static void score_corpus(const corpus *c, bleu_result *out)
{
    for (int h = 0; h < c->n_hypotheses; h++) {
        int64_t sum[BLEU_COUNTS] = {0};
        const int32_t *row = c->counts + (size_t)h * (size_t)c->n_lines * BLEU_COUNTS;
        for (int32_t l = 0; l < c->n_lines; l++, row += BLEU_COUNTS)
            for (int i = 0; i < BLEU_COUNTS; i++)
                sum[i] += row[i];
        bleu_score(sum, &out->system[h]);
    }
    const bleu_system *s = out->system;
    out->bleu = (bleu_difference){{s[1].bleu.value - s[0].bleu.value, NAN, NAN}, NAN};
    out->chrf = (bleu_difference){{s[1].chrf.value - s[0].chrf.value, NAN, NAN}, NAN};
}

static dil_status measure(corpus *c, const bleu_options *o, bleu_result *out, dil_error *err)
{
    bleu_counter counter;
    DIL_TRY(check(c, err));
    c->counts = mem_calloc((size_t)c->n_lines, (size_t)c->n_hypotheses * BLEU_COUNTS * sizeof *c->counts, MEM_MISC);
    if (!c->counts)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bleu: no memory for the counts of %d lines", c->n_lines);
    bleu_counter_begin(&counter, o);
    const dil_status status = count_lines(c, &counter, err);
    bleu_counter_end(&counter);
    DIL_TRY(status);
    out->n_lines = c->n_lines;
    score_corpus(c, out);
    return o->n_resamples > 0 ? bleu_resample(c->counts, c->n_hypotheses, c->n_lines, o, out, err) : DIL_OK;
}

dil_status evaluate_bleu(const bleu_text *hypotheses, int n_hypotheses, const bleu_text *references, int n_references,
                         const bleu_options *options, bleu_result *out, dil_error *err)
{
    corpus c = {.hypotheses = hypotheses, .references = references, .n_hypotheses = n_hypotheses, .n_references = n_references};
    bleu_result result = {0};
    if (n_hypotheses < 1 || n_hypotheses > 2 || n_references < 1 || n_references > BLEU_MOST_REFERENCES)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bleu: wanted one or two hypotheses and 1..%d references, found %d and %d",
                        BLEU_MOST_REFERENCES, n_hypotheses, n_references);
    if (options->n_resamples < 0 || options->n_resamples > BLEU_MOST_RESAMPLES)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bleu: wanted 0..%d resamples, found %d", BLEU_MOST_RESAMPLES, options->n_resamples);
    const dil_status status = measure(&c, options, &result, err);
    mem_free(c.counts);
    if (status == DIL_OK)
        *out = result;
    return status;
}
