/* The counts of one line: word n-grams for BLEU, character n-grams for chrF. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/status.h"
#include "evaluate/bleu_internal.h"

#define MOST_BYTES ((size_t)1 << 30) /* of a line with all its references, words apart */

_Static_assert(1 + BLEU_MOST_REFERENCES == NGRAMS_MOST_SOURCES, "a line and its references are the sources of one match");
_Static_assert(BLEU_ORDER <= NGRAMS_MOST_ORDER && BLEU_CHARACTER_ORDER <= NGRAMS_MOST_ORDER, "orders that can be matched");

void bleu_counter_begin(bleu_counter *c, const bleu_options *options)
{
    const strbuf empty = STRBUF(MOST_BYTES);
    *c = (bleu_counter){.options = options, .lower = empty, .words = empty, .scratch = {.a = empty, .b = empty}};
}

void bleu_counter_end(bleu_counter *c)
{
    strbuf_free(&c->lower);
    strbuf_free(&c->words);
    strbuf_free(&c->scratch.a);
    strbuf_free(&c->scratch.b);
    mem_free(c->word);
    mem_free(c->symbols);
    ngrams_free(&c->matcher);
}

static dil_status reserve(bleu_counter *c, size_t n, dil_error *err)
{
    if (n <= c->room)
        return DIL_OK;
    bleu_word *word = mem_grow(c->word, 2 * n * sizeof *word, MEM_MISC);
    c->word = word ? word : c->word;
    uint32_t *symbols = word ? mem_grow(c->symbols, 2 * n * sizeof *symbols, MEM_MISC) : NULL;
    if (!symbols)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bleu: no memory for a line of %zu symbols", n);
    c->symbols = symbols;
    c->room = 2 * n;
    return DIL_OK;
}

/* sources[s].n are known, and that all their symbols stand one behind the other. */
static void place(const bleu_counter *c, ngram_source *sources, int n)
{
    const uint32_t *at = c->symbols;
    for (int s = 0; s < n; s++) {
        sources[s].symbols = at;
        at += sources[s].n;
    }
}

/* How many n-grams of one order n symbols have. */
static int32_t n_grams(size_t n, int order) { return n >= (size_t)order ? (int32_t)(n - (size_t)order + 1) : 0; }

/* ---- words ---- */

static int by_text(const void *a, const void *b)
{
    const bleu_word *x = a, *y = b;
    const size_t n = x->text.n < y->text.n ? x->text.n : y->text.n;
    const int order = memcmp(x->text.p, y->text.p, n);
    return order ? order : (x->text.n > y->text.n) - (x->text.n < y->text.n);
}

static size_t count_words(str words)
{
    size_t n = 0;
    for (size_t i = 0; i < words.n; i++)
        n += words.p[i] == ' ';
    return n;
}

static void cut_words(str words, bleu_word *out)
{
    const char *at = words.p;
    for (uint32_t n = 0; at < words.p + words.n; n++) {
        const char *space = memchr(at, ' ', (size_t)(words.p + words.n - at));
        out[n] = (bleu_word){{at, (size_t)(space - at)}, n};
        at = space + 1;
    }
}

/* Equal words get equal numbers. */
static void number_words(bleu_counter *c, size_t n)
{
    uint32_t number = 0;
    cut_words(strbuf_str(&c->words), c->word);
    qsort(c->word, n, sizeof *c->word, by_text);
    for (size_t i = 0; i < n; i++) {
        number += i > 0 && by_text(&c->word[i - 1], &c->word[i]) != 0;
        c->symbols[c->word[i].place] = number;
    }
}

static dil_status read_words(bleu_counter *c, const str *segments, int n, ngram_source *sources, dil_error *err)
{
    size_t n_words = 0;
    strbuf_clear(&c->words);
    for (int s = 0; s < n; s++) {
        const size_t before = c->words.n;
        bleu_tokenize(segments[s], c->options->tokenizer, &c->scratch, &c->words);
        sources[s].n = count_words((str){c->words.p + before, c->words.n - before});
        n_words += sources[s].n;
    }
    if (c->words.failed || c->scratch.failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bleu: no memory for the words of a line");
    DIL_TRY(reserve(c, n_words, err));
    if (n_words > 0)
        number_words(c, n_words);
    place(c, sources, n);
    return DIL_OK;
}

/* The length nearest to the hypothesis', of two the shorter. */
static size_t closest(const ngram_source *sources, int n)
{
    const size_t hyp = sources[0].n;
    size_t best = sources[1].n;
    for (int s = 2; s < n; s++) {
        const size_t length = sources[s].n, off = length > hyp ? length - hyp : hyp - length,
                     best_off = best > hyp ? best - hyp : hyp - best;
        if (off < best_off || (off == best_off && length < best))
            best = length;
    }
    return best;
}

static dil_status count_bleu(bleu_counter *c, const str *segments, int n, int32_t *counts, dil_error *err)
{
    ngram_source sources[NGRAMS_MOST_SOURCES];
    int64_t match[NGRAMS_MOST_ORDER][NGRAMS_MOST_SOURCES];
    DIL_TRY(read_words(c, segments, n, sources, err));
    DIL_TRY(ngrams_match(&c->matcher, sources, n, BLEU_ORDER, match, err));
    counts[BLEU_HYP_LEN] = (int32_t)sources[0].n;
    counts[BLEU_REF_LEN] = (int32_t)closest(sources, n);
    for (int k = 0; k < BLEU_ORDER; k++) {
        counts[BLEU_RIGHT + k] = (int32_t)match[k][0];
        counts[BLEU_ALL + k] = n_grams(sources[0].n, k + 1);
    }
    return DIL_OK;
}

/* ---- characters ---- */

static size_t read_characters(str segment, uint32_t *out)
{
    size_t n = 0;
    uint32_t code = 0;
    for (size_t at = 0; at < segment.n;) {
        at += (size_t)utf8_decode(segment.p + at, segment.n - at, &code);
        if (!bleu_is_white(code))
            out[n++] = code;
    }
    return n;
}

static dil_status count_chrf(bleu_counter *c, const str *segments, int n, int32_t *counts, dil_error *err)
{
    ngram_source sources[NGRAMS_MOST_SOURCES];
    int64_t match[NGRAMS_MOST_ORDER][NGRAMS_MOST_SOURCES];
    size_t most = 0, used = 0;
    double best = -1;
    for (int s = 0; s < n; s++)
        most += segments[s].n;
    DIL_TRY(reserve(c, most, err));
    for (int s = 0; s < n; s++)
        used += sources[s].n = read_characters(segments[s], c->symbols + used);
    place(c, sources, n);
    DIL_TRY(ngrams_match(&c->matcher, sources, n, BLEU_CHARACTER_ORDER, match, err));
    for (int s = 1; s < n; s++) { /* the reference of the best score counts, the first of several */
        int64_t row[3 * BLEU_CHARACTER_ORDER];
        for (int k = 0; k < BLEU_CHARACTER_ORDER; k++) {
            const int32_t n_ref = n_grams(sources[s].n, k + 1);
            row[3 * k] = n_ref ? n_grams(sources[0].n, k + 1) : 0;
            row[3 * k + 1] = n_ref;
            row[3 * k + 2] = match[k][s];
        }
        const double score = bleu_chrf(row);
        for (int i = 0; score > best && i < 3 * BLEU_CHARACTER_ORDER; i++)
            counts[i] = (int32_t)row[i];
        best = score > best ? score : best;
    }
    return DIL_OK;
}

/* ---- both ---- */

/* Small letters of all segments, in c->lower. */
static dil_status lower_all(bleu_counter *c, const str *segments, int n, str *out, dil_error *err)
{
    size_t ends[NGRAMS_MOST_SOURCES], begin = 0;
    strbuf_clear(&c->lower);
    for (int s = 0; s < n; s++) {
        bleu_lower(segments[s], &c->lower);
        ends[s] = c->lower.n;
    }
    if (c->lower.failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bleu: no memory for a line in small letters");
    for (int s = 0; s < n; s++) {
        out[s] = (str){strbuf_str(&c->lower).p + begin, ends[s] - begin};
        begin = ends[s];
    }
    return DIL_OK;
}

dil_status bleu_count(bleu_counter *c, const str *segments, int n, int32_t counts[BLEU_COUNTS], dil_error *err)
{
    str lower[NGRAMS_MOST_SOURCES];
    if (c->options->lowercase) {
        DIL_TRY(lower_all(c, segments, n, lower, err));
        segments = lower;
    }
    DIL_TRY(count_bleu(c, segments, n, counts, err));
    return count_chrf(c, segments, n, counts + BLEU_CHRF, err);
}
