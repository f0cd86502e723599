/* BLEU and chrF: words and scores worked out by hand, n-grams against counting one by one, the bootstrap against scores of drawn texts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/status.h"
#include "evaluate/bleu_internal.h"
#include "evaluate/lines.h"
#include "leaks.h"
#include "sampling/sampler.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static void fails(dil_status status, const dil_error *err, dil_status wanted, const char *part)
{
    if (status != wanted || (int)err->code != (int)wanted || !strstr(err->text, part))
        fail_msg("wanted %s with '%s', found %s: %s", status_name(wanted), part, status_name(status), err->text);
}

static void near(double wanted, double found)
{
    if (!(fabs(wanted - found) < 1e-10))
        fail_msg("wanted %.15g, found %.15g", wanted, found);
}

/* ---- words ---- */

static void check_words(const char *segment, bleu_tokenizer t, const char *wanted)
{
    bleu_scratch s = {STRBUF(1 << 20), STRBUF(1 << 20), false};
    strbuf out = STRBUF(1 << 20);
    bleu_tokenize(str_of(segment), t, &s, &out);
    assert_false(s.failed || out.failed);
    if (strlen(wanted) + (*wanted != 0) != out.n || memcmp(wanted, out.p ? out.p : "", strlen(wanted)) != 0)
        fail_msg("'%s': wanted '%s', found '%s'", segment, wanted, out.p ? out.p : "");
    strbuf_free(&s.a);
    strbuf_free(&s.b);
    strbuf_free(&out);
}

static void test_words_13a(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"Hello, world!", "Hello , world !"},
        {"It costs 1,000.5 (or so).", "It costs 1,000.5 ( or so ) ."},
        {"3. x 3.5 .5 5.", "3 . x 3.5 . 5 5 ."}, /* a point stays between digits only */
        {"a.b,c", "a . b , c"},
        {"...", ". . ."},
        {"1990-1995 well-known -", "1990 - 1995 well-known -"},
        {"don't \"quote\"", "don't \" quote \""},
        {"a/b a&b [x] {y} 50% #1 $2 *3+4=7 <t> ^_`|~\\@;:?",
         "a / b a & b [ x ] { y } 50 % # 1 $ 2 * 3 + 4 = 7 < t > ^ _ ` | ~ \\ @ ; : ?"},
        {"&quot;A&amp;B&quot; &lt;p&gt; &amp;lt;", "\" A & B \" < p > <"}, /* the last: &amp; first, then &lt; */
        {"on<skipped>e<skipped> two", "one two"},
        {"hyphen-\nation\nnext", "hyphenation next"},
        {"end-\n", "end-"}, /* white space at the end is gone before hyphens are joined */
        {"\xC3\xA7ok g\xC3\xBCzel.\xC2\xA0Tamam\xE3\x80\x82", "\xC3\xA7ok g\xC3\xBCzel . Tamam\xE3\x80\x82"},
        {"\xF0\x9F\x98\x80.\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80 . \xF0\x9F\x98\x80"},
        {"e\xCC\x81t\xC3\xA9\xE2\x80\x99s", "e\xCC\x81t\xC3\xA9\xE2\x80\x99s"},
        {"", ""},
        {" \t ", ""},
    };
    for (int i = 0; i < COUNT(pairs); i++)
        check_words(pairs[i][0], BLEU_13A, pairs[i][1]);
}

static void test_words_plain(void **state)
{
    (void)state;
    check_words(" a,b\tc.\xE2\x80\x83"
                "d\x1C"
                "e ",
                BLEU_NONE, "a,b c. d e");
    check_words("a\xE2\x80\x8B"
                "b",
                BLEU_NONE,
                "a\xE2\x80\x8B"
                "b"); /* the zero-width space is none */
    check_words("a b\xC4\x9F", BLEU_CHAR, "a b \xC4\x9F");
    check_words("ab\xCC\x81 \xF0\x9F\x98\x80.", BLEU_CHAR, "a b \xCC\x81 \xF0\x9F\x98\x80 .");
    check_words("", BLEU_CHAR, "");
}

static void test_white_space(void **state)
{
    (void)state;
    static const uint32_t white[] = {0x09,   0x0A,   0x0B,   0x0C,   0x0D,   0x1C,   0x1D,   0x1E,   0x1F,   0x20,
                                     0x85,   0xA0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006,
                                     0x2007, 0x2008, 0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
    int n = 0;
    for (uint32_t c = 0; c <= 0x10FFFF; c++)
        if (bleu_is_white(c)) {
            assert_true(n < COUNT(white));
            assert_int_equal(white[n++], c);
        }
    assert_int_equal(COUNT(white), n);
}

/* Words that are missing for want of memory are not passed over. */
static void test_words_without_memory(void **state)
{
    (void)state;
    bleu_scratch s = {STRBUF(16), STRBUF(16), false};
    strbuf out = STRBUF(1 << 20);
    bleu_tokenize(STR("a (short) one"), BLEU_13A, &s, &out);
    assert_true(s.failed && !out.failed);
    strbuf_free(&s.a);
    strbuf_free(&s.b);
    strbuf_free(&out);
}

/* ---- n-grams ---- */

static int64_t occurrences(ngram_source in, const uint32_t *what, size_t n)
{
    int64_t count = 0;
    for (size_t i = 0; i + n <= in.n; i++)
        count += memcmp(in.symbols + i, what, n * sizeof *what) == 0;
    return count;
}

/* The definition: every different n-gram of the first source, looked up everywhere. best: index 0, else that source. */
static int64_t match_by_hand(const ngram_source *s, int n_sources, size_t n, int which)
{
    int64_t sum = 0;
    for (size_t i = 0; i + n <= s[0].n; i++) {
        const uint32_t *what = s[0].symbols + i;
        if (occurrences((ngram_source){s[0].symbols, i + n - 1}, what, n) > 0)
            continue; /* counted where it stood first */
        int64_t most = 0, own = occurrences(s[0], what, n);
        for (int r = 1; r < n_sources; r++) {
            int64_t there = occurrences(s[r], what, n);
            most = (which == 0 || which == r) && there > most ? there : most;
        }
        sum += own < most ? own : most;
    }
    return sum;
}

static void test_ngrams(void **state)
{
    (void)state;
    ngrams g = {0};
    dil_error err;
    uint64_t draw = 0;
    for (int round = 0; round < 300; round++) {
        uint32_t symbols[4][24];
        ngram_source sources[4];
        int64_t match[NGRAMS_MOST_ORDER][NGRAMS_MOST_SOURCES];
        const int n_sources = 2 + round % 3;
        for (int s = 0; s < n_sources; s++) {
            sources[s] = (ngram_source){symbols[s], rng_bits(1, (uint64_t)round, draw++) % 25};
            for (size_t i = 0; i < sources[s].n; i++)
                symbols[s][i] = (uint32_t)(rng_bits(1, (uint64_t)round, draw++) % 3);
        }
        ok(ngrams_match(&g, sources, n_sources, 6, match, &err), &err);
        for (int k = 0; k < 6; k++)
            for (int s = 0; s < n_sources; s++)
                assert_int_equal(match_by_hand(sources, n_sources, (size_t)k + 1, s), match[k][s]);
    }
    ngrams_free(&g);
}

/* ---- scores ---- */

static bleu_result score(const char *hyp, const char *const *refs, int n_refs, bleu_options o)
{
    bleu_text h = {"hyp", str_of(hyp)}, r[8];
    bleu_result out;
    dil_error err;
    for (int i = 0; i < n_refs; i++)
        r[i] = (bleu_text){"ref", str_of(refs[i])};
    ok(evaluate_bleu(&h, 1, r, n_refs, &o, &out, &err), &err);
    return out;
}

static bleu_system score_one(const char *hyp, const char *ref) { return score(hyp, &ref, 1, (bleu_options){0}).system[0]; }

static void test_bleu_by_hand(void **state)
{
    (void)state;
    bleu_system s = score_one("the cat sat on the mat\n", "the cat is on the mat\n");
    near(100.0 * 5 / 6, s.precision[0]);
    near(100.0 * 3 / 5, s.precision[1]);
    near(100.0 * 1 / 4, s.precision[2]);
    near(100.0 / (2 * 3), s.precision[3]); /* no match: half of one */
    near(100 * pow(5.0 / 6 * 3 / 5 * 1 / 4 * 1 / 6, 0.25), s.bleu.value);
    near(1, s.brevity_penalty);
    assert_true(isnan(s.bleu.low) && isnan(s.chrf.high)); /* no resamples were asked for */

    s = score_one("a b c d", "a b c d e f"); /* all right, but short */
    near(exp(1 - 6.0 / 4), s.brevity_penalty);
    near(100 * exp(1 - 6.0 / 4), s.bleu.value);
    near(4.0 / 6, s.ratio);

    s = score_one("a x b y c", "a b c d e"); /* orders 2 to 4 without a match: 1/2, 1/4, 1/8 */
    near(100 * pow(3.0 / 5 * (1.0 / 2 / 4) * (1.0 / 4 / 3) * (1.0 / 8 / 2), 0.25), s.bleu.value);

    near(0, score_one("a b c", "a b c").bleu.value);               /* nothing has four words */
    near(100, score_one("a b c d\n\n", "a b c d\n\n").bleu.value); /* an empty line adds nothing */
    near(0, score_one("x y z u", "a b c d").bleu.value);
    near(0, score_one("\n", "a b c d\n").brevity_penalty);
    near(0, score_one("\n", "a b c d\n").bleu.value);
    near(1, score_one("\n", "\n").brevity_penalty);

    s = score_one("a b c d\ne f g h i\r\n", "a b c d x\r\ne f g y\n"); /* the corpus is scored as one: sums of lines */
    assert_int_equal(9, s.hyp_len);
    assert_int_equal(9, s.ref_len);
    const int64_t right[] = {7, 5, 3, 1}, all[] = {9, 7, 5, 3};
    assert_memory_equal(right, s.n_right, sizeof right);
    assert_memory_equal(all, s.n_all, sizeof all);
}

static void test_references(void **state)
{
    (void)state;
    const char *refs[] = {"the cat is on the mat", "there is a cat on the mat"}, *lengths[] = {"a a a a a a", "a a", "a a a a a a"};
    bleu_system s = score("the the the the the the the", refs, 2, (bleu_options){0}).system[0];
    assert_int_equal(2, s.n_right[0]); /* Papineni's example: no oftener than in one reference */
    assert_int_equal(7, s.ref_len);
    assert_int_equal(2, score("a a a a", lengths, 3, (bleu_options){0}).system[0].ref_len); /* 2 and 6 are as near: the shorter */
    const char *parts[] = {"x b c d", "a b x d"};
    s = score("a b c d", parts, 2, (bleu_options){0}).system[0];
    assert_int_equal(4, s.n_right[0]); /* each word from whichever reference has it */
    assert_int_equal(3, s.n_right[1]);
    assert_int_equal(1, s.n_right[2]);
}

static void test_chrf_by_hand(void **state)
{
    (void)state;
    near(100 * 7.0 / 11, score_one("ab", "abc").chrf.value); /* precision 1, recall (2/3 + 1/2) / 2; no third order in ab */
    near(100 * 7.0 / 11, score_one(" a\tb ", "a bc").chrf.value);
    near(0, score_one("ab", "xyz").chrf.value);
    near(0, score_one("\n", "\n").chrf.value + score_one("\n", "ab\n").chrf.value + score_one("ab\n", "\n").chrf.value);
    near(100, score_one("\xC3\xA7", "\xC3\xA7").chrf.value);
    near(0, score_one("\xC3\xA7", "\xC3\xBC").chrf.value); /* characters, not bytes */
    const char *refs[] = {"xyz", "abc", "ab"};
    near(100, score("ab", refs, 3, (bleu_options){0}).system[0].chrf.value);
    near(100 * 7.0 / 11, score("ab", refs, 2, (bleu_options){0}).system[0].chrf.value);
    const char *lengths[] = {"abcdefgh", "x"};
    near(100 * 11.0 / 47,
         score("ab", lengths, 2, (bleu_options){0}).system[0].chrf.value); /* no matches of one lent to the other */
    near(100,
         score_one("abc\nab", "\nab").chrf.value); /* where the reference has no n-gram of an order, the line has none either */
    const char *as_bad[] = {"xyz\nab",
                            "xy\nab"}; /* of references that are equally bad the first: recall (2/5 + 1/3) / 2, precision 1/2 */
    near(100 * 5 * 0.5 * (11.0 / 30) / (4 * 0.5 + 11.0 / 30), score("ab\nab", as_bad, 2, (bleu_options){0}).system[0].chrf.value);
}

static void test_options(void **state)
{
    (void)state;
    const char *ref = "i\xCC\x87stanbul'da \xC3\xA7ok g\xC3\xBCzel bir g\xC3\xBCn";
    const char *hyp = "\xC4\xB0STANBUL'DA \xC3\x87OK G\xC3\x9CZEL B\x49R G\xC3\x9CN";
    near(100, score(hyp, &ref, 1, (bleu_options){.lowercase = true}).system[0].bleu.value);
    near(100, score(hyp, &ref, 1, (bleu_options){.lowercase = true}).system[0].chrf.value);
    near(0, score(hyp, &ref, 1, (bleu_options){0}).system[0].bleu.value);
    const char *spaced = "a,b. c d e";
    assert_int_equal(7, score("a", &spaced, 1, (bleu_options){0}).system[0].ref_len);
    assert_int_equal(4, score("a", &spaced, 1, (bleu_options){.tokenizer = BLEU_NONE}).system[0].ref_len);
    assert_int_equal(7, score("a", &spaced, 1, (bleu_options){.tokenizer = BLEU_CHAR}).system[0].ref_len);
    bleu_tokenizer t;
    for (int i = 0; i < 3; i++)
        assert_true(bleu_tokenizer_find(bleu_tokenizer_name((bleu_tokenizer)i), &t) && (int)t == i);
    assert_false(bleu_tokenizer_find("14a", &t));
}

/* ---- the bootstrap ---- */

static const char hyp_a[] =
    "the quick brown fox jumps\nover the lazy dog\n\nit was a very good day\nnobody knows the way home\nshort\n";
static const char hyp_b[] =
    "the quick brown fox jumped over\nover lazy dogs and cats\nnot empty\nit was very good day\nnobody knows the way\nshort one\n";
static const char ref_a[] =
    "the quick brown fox jumped over\nover the lazy dog there\nempty\nit was a good day\nnobody knows the way home\nshort one\n";
enum { RESAMPLES = 83, LINES = 6 };

/* The lines of a resample as a text. */
static str drawn(const char *text, uint64_t seed, int resample, strbuf *out)
{
    str rest = str_of(text), line[LINES];
    for (int i = 0; i < LINES; i++)
        assert_true(lines_next(&rest, &line[i]));
    strbuf_clear(out);
    for (int i = 0; i < LINES; i++) {
        strbuf_add_str(out, line[(int)(rng_uniform(seed, (uint64_t)resample, (uint64_t)i) * LINES)]);
        strbuf_add_char(out, '\n');
    }
    return strbuf_str(out);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void check_interval(double *scores, const bleu_estimate *e)
{
    qsort(scores, RESAMPLES, sizeof *scores, ascending);
    near(scores[RESAMPLES / 40], e->low);
    near(scores[RESAMPLES - 1 - RESAMPLES / 40], e->high);
    assert_true(e->low < e->high);
}

static void check_p(const double *differences, const bleu_difference *d)
{
    int n = 0;
    for (int i = 0; i < RESAMPLES; i++)
        n += fabs(differences[i] - d->estimate.value) >= fabs(d->estimate.value);
    near((n + 1.0) / (RESAMPLES + 1), d->p);
    assert_true(d->p > 0.02 && d->p < 0.98); /* this text tells right from wrong */
}

static void test_bootstrap(void **state)
{
    (void)state;
    const bleu_options o = {.n_resamples = RESAMPLES, .seed = 7};
    const bleu_text hyps[] = {{"a", str_of(hyp_a)}, {"b", str_of(hyp_b)}}, ref = {"r", str_of(ref_a)};
    bleu_result whole, part;
    dil_error err;
    double bleu[3][RESAMPLES], chrf[3][RESAMPLES];
    strbuf memory[3] = {STRBUF(4096), STRBUF(4096), STRBUF(4096)};
    ok(evaluate_bleu(hyps, 2, &ref, 1, &o, &whole, &err), &err);
    for (int r = 0; r < RESAMPLES; r++) {
        const bleu_text some[] = {{"a", drawn(hyp_a, 7, r, &memory[0])}, {"b", drawn(hyp_b, 7, r, &memory[1])}};
        const bleu_text some_ref = {"r", drawn(ref_a, 7, r, &memory[2])};
        ok(evaluate_bleu(some, 2, &some_ref, 1, &(bleu_options){0}, &part, &err), &err);
        for (int s = 0; s < 2; s++) {
            bleu[s][r] = part.system[s].bleu.value;
            chrf[s][r] = part.system[s].chrf.value;
        }
        bleu[2][r] = bleu[1][r] - bleu[0][r];
        chrf[2][r] = chrf[1][r] - chrf[0][r];
    }
    near(whole.system[1].bleu.value - whole.system[0].bleu.value, whole.bleu.estimate.value);
    check_p(bleu[2], &whole.bleu);
    check_p(chrf[2], &whole.chrf);
    for (int s = 0; s < 2; s++) {
        check_interval(bleu[s], &whole.system[s].bleu);
        check_interval(chrf[s], &whole.system[s].chrf);
    }
    check_interval(bleu[2], &whole.bleu.estimate);
    check_interval(chrf[2], &whole.chrf.estimate);
    for (int i = 0; i < 3; i++)
        strbuf_free(&memory[i]);
}

static void test_bootstrap_limits(void **state)
{
    (void)state;
    const bleu_text hyps[] = {{"a", str_of(hyp_a)}, {"a again", str_of(hyp_a)}}, ref = {"r", str_of(ref_a)};
    bleu_result r, again;
    dil_error err;
    bleu_options o = {.n_resamples = 50, .seed = 1};
    ok(evaluate_bleu(hyps, 2, &ref, 1, &o, &r, &err), &err);
    near(0, r.bleu.estimate.value);
    near(0, r.chrf.estimate.high);
    near(1, r.bleu.p); /* the same text twice: no difference at all */
    near(1, r.chrf.p);
    ok(evaluate_bleu(hyps, 2, &ref, 1, &o, &again, &err), &err);
    assert_memory_equal(&r, &again, sizeof r);
    o.seed = 2;
    ok(evaluate_bleu(hyps, 2, &ref, 1, &o, &again, &err), &err);
    assert_true(r.system[0].bleu.low != again.system[0].bleu.low);
    const char *one = "a b c d f";
    bleu_system s = score("a b c d e", &one, 1, o).system[0]; /* one line: every resample is the text */
    near(s.bleu.value, s.bleu.low);
    near(s.bleu.value, s.bleu.high);
}

/* ---- what is refused ---- */

static void test_errors(void **state)
{
    (void)state;
    bleu_text h[] = {{"h.txt", STR("a\nb\n")}, {"h2.txt", STR("a\nb\n")}}, r = {"r.txt", STR("a\nb\nc")};
    const bleu_options none = {0}, many = {.n_resamples = BLEU_MOST_RESAMPLES + 1}, negative = {.n_resamples = -1};
    bleu_result out, before;
    dil_error err;
    memset(&out, 0x5A, sizeof out);
    before = out;
    fails(evaluate_bleu(h, 1, &r, 1, &none, &out, &err), &err, DIL_FORMAT, "r.txt: wanted as many lines as h.txt, 2, found 3");
    r.text = STR("a\nb");
    h[1].text = STR("a\n\n\n");
    fails(evaluate_bleu(h, 2, &r, 1, &none, &out, &err), &err, DIL_FORMAT, "h2.txt: wanted as many lines as h.txt, 2, found 3");
    h[1].text = STR("a\n\xC3(\n");
    fails(evaluate_bleu(h, 2, &r, 1, &none, &out, &err), &err, DIL_FORMAT, "h2.txt: line 2: wanted UTF-8");
    h[0].text = h[1].text = r.text = STR("");
    fails(evaluate_bleu(h, 1, &r, 1, &none, &out, &err), &err, DIL_FORMAT, "h.txt: wanted at least one line");
    h[0].text = h[1].text = r.text = STR("a");
    fails(evaluate_bleu(h, 0, &r, 1, &none, &out, &err), &err, DIL_BAD_ARGUMENT, "found 0 and 1");
    fails(evaluate_bleu(h, 3, &r, 1, &none, &out, &err), &err, DIL_BAD_ARGUMENT, "found 3 and 1");
    fails(evaluate_bleu(h, 1, &r, 0, &none, &out, &err), &err, DIL_BAD_ARGUMENT, "found 1 and 0");
    fails(evaluate_bleu(h, 1, &r, 65, &none, &out, &err), &err, DIL_BAD_ARGUMENT, "found 1 and 65");
    fails(evaluate_bleu(h, 1, &r, 1, &many, &out, &err), &err, DIL_BAD_ARGUMENT, "resamples");
    fails(evaluate_bleu(h, 1, &r, 1, &negative, &out, &err), &err, DIL_BAD_ARGUMENT, "found -1");
    char *wide = calloc(1, (1 << 20) + 2);
    assert_non_null(wide);
    memset(wide, 'x', (1 << 20) + 1);
    h[0].text = str_of(wide);
    fails(evaluate_bleu(h, 1, &r, 1, &none, &out, &err), &err, DIL_LIMIT, "h.txt: line 1: wanted at most 1048576 bytes");
    h[0].text.n--;
    r.text = h[0].text;
    assert_memory_equal(&before, &out, sizeof out);
    ok(evaluate_bleu(h, 1, &r, 1, &(bleu_options){.tokenizer = BLEU_CHAR}, &out, &err), &err);
    near(100, out.system[0].bleu.value);
    near(100, out.system[0].chrf.value);
    free(wide);
}

static bool until(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what, (void)done, (void)total;
    return --*(int *)user > 0;
}

static void test_cancelled(void **state)
{
    (void)state;
    const bleu_text h = {"a", str_of(hyp_a)}, ref = {"r", str_of(ref_a)};
    bleu_result out;
    dil_error err;
    int left = 3;
    bleu_options o = {.n_resamples = 10, .progress = until, .user = &left};
    fails(evaluate_bleu(&h, 1, &ref, 1, &o, &out, &err), &err, DIL_CANCELLED, "after 3 lines");
    left = LINES + 4;
    fails(evaluate_bleu(&h, 1, &ref, 1, &o, &out, &err), &err, DIL_CANCELLED, "after 4 resamples");
}

/* Every allocation fails once: a status, nothing written, nothing lost. */
static void test_no_memory(void **state)
{
    (void)state;
    const bleu_text h[] = {{"a", str_of(hyp_a)}, {"b", str_of(hyp_b)}}, ref = {"r", str_of(ref_a)};
    const bleu_options o = {.lowercase = true, .n_resamples = 10};
    bleu_result out, before;
    dil_error err;
    dil_status status = DIL_NO_MEMORY;
    memset(&out, 0x5A, sizeof out);
    before = out;
    int n = 0;
    for (; status != DIL_OK && n < 1000; n++) {
        mem_inject_failure(n);
        status = evaluate_bleu(h, 2, &ref, 1, &o, &out, &err);
        mem_inject_failure(-1);
        if (status != DIL_OK) {
            assert_int_equal(DIL_NO_MEMORY, status);
            assert_memory_equal(&before, &out, sizeof out);
        }
    }
    assert_true(n > 8 && status == DIL_OK);
    bleu_result plain;
    ok(evaluate_bleu(h, 2, &ref, 1, &o, &plain, &err), &err);
    assert_memory_equal(&plain, &out, sizeof out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_13a),        cmocka_unit_test(test_words_plain),
        cmocka_unit_test(test_white_space),      cmocka_unit_test(test_words_without_memory),
        cmocka_unit_test(test_ngrams),           cmocka_unit_test(test_bleu_by_hand),
        cmocka_unit_test(test_references),       cmocka_unit_test(test_chrf_by_hand),
        cmocka_unit_test(test_options),          cmocka_unit_test(test_bootstrap),
        cmocka_unit_test(test_bootstrap_limits), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_cancelled),        cmocka_unit_test(test_no_memory),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
