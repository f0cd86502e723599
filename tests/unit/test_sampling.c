/*
 * Sampling: every truncation against a brute-force form, draws against probabilities, order of
 * ties, same seed same text.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "sampling/candidates.h"
#include "sampling/history.h"
#include "sampling/sampler.h"

enum { N_MAX = 50000 };

/* ---- a brute-force reference in doubles: full sort, one step at a time ---- */

typedef struct ref {
    double logit, p;
    int32_t id;
} ref;
typedef struct ref_list {
    ref v[N_MAX];
    int32_t n;
} ref_list;

static ref_list reference;
static candidate storage[N_MAX];
static float logits[N_MAX];

static uint64_t random_state = 1;
static double random_unit(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

static int by_logit(const void *a, const void *b)
{
    const ref *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static void ref_start(int32_t n)
{
    reference.n = 0;
    for (int32_t i = 0; i < n; i++) {
        if (!isnan(logits[i]) && logits[i] > -INFINITY)
            reference.v[reference.n++] = (ref){(double)logits[i], 0.0, i};
    }
    qsort(reference.v, (size_t)reference.n, sizeof *reference.v, by_logit);
}

static void ref_softmax(double temperature)
{
    double sum = 0.0;
    for (int32_t i = 0; i < reference.n; i++)
        sum += reference.v[i].p = exp((reference.v[i].logit - reference.v[0].logit) / temperature);
    for (int32_t i = 0; i < reference.n; i++)
        reference.v[i].p /= sum;
}

static void ref_top_k(int32_t k) { reference.n = k < reference.n ? k : reference.n; }

static void ref_top_p(double p)
{
    double sum = 0.0;
    ref_softmax(1.0);
    for (int32_t i = 0; i < reference.n; i++) {
        sum += reference.v[i].p;
        if (sum >= p) {
            reference.n = i + 1;
            return;
        }
    }
}

static void ref_min_p(double p)
{
    int32_t kept = 0;
    ref_softmax(1.0);
    for (int32_t i = 0; i < reference.n; i++) {
        if (reference.v[i].p >= p * reference.v[0].p || i == 0)
            reference.v[kept++] = reference.v[i];
    }
    reference.n = kept;
}

static double entropy_now;
static int by_typicality(const void *a, const void *b)
{
    const ref *x = a, *y = b;
    double s = fabs(-log(x->p) - entropy_now), t = fabs(-log(y->p) - entropy_now);
    return s != t ? (s < t ? -1 : 1) : by_logit(a, b);
}

static void ref_typical(double p)
{
    double sum = 0.0;
    ref_softmax(1.0);
    entropy_now = 0.0;
    for (int32_t i = 0; i < reference.n; i++)
        entropy_now -= reference.v[i].p > 0 ? reference.v[i].p * log(reference.v[i].p) : 0.0;
    qsort(reference.v, (size_t)reference.n, sizeof *reference.v, by_typicality);
    for (int32_t i = 0; i < reference.n; i++) {
        sum += reference.v[i].p;
        if (sum > p) {
            reference.n = i + 1;
            break;
        }
    }
    qsort(reference.v, (size_t)reference.n, sizeof *reference.v, by_logit);
}

static void ref_xtc(double threshold)
{
    int32_t above = 0;
    ref_softmax(1.0);
    while (above < reference.n && reference.v[above].p >= threshold)
        above++;
    if (above < 2)
        return;
    reference.n -= above - 1;
    memmove(reference.v, reference.v + above - 1, (size_t)reference.n * sizeof *reference.v);
}

static void random_logits(int32_t n, double scale, bool ties)
{
    for (int32_t i = 0; i < n; i++) {
        double l = (random_unit() + random_unit() + random_unit() - 1.5) * scale;
        logits[i] = (float)(ties ? floor(l) : l);
    }
}

static int candidate_order(const void *a, const void *b) { return candidate_before(a, b) ? -1 : candidate_before(b, a) ? 1 : 0; }

/* The list holds exactly the reference's ids, whatever the order; a sorted list in its order. */
static void assert_same(candidates *c)
{
    assert_int_equal(c->n, reference.n);
    if (!c->sorted)
        qsort(c->v, (size_t)c->n, sizeof *c->v, candidate_order);
    for (int32_t i = 0; i < c->n; i++)
        assert_int_equal(c->v[i].id, reference.v[i].id);
}

static candidates gathered(int32_t n, int32_t k)
{
    candidates c = {storage, 0, false};
    ref_start(n);
    if (k > 0 && k < n) {
        candidates_gather_top_k(&c, logits, n, k);
        ref_top_k(k);
    } else {
        candidates_gather(&c, logits, n);
    }
    return c;
}

/* ---- the generator ---- */

static void rng_known_answers(void **state)
{
    (void)state; /* Random123's test vectors for philox4x32-10 */
    assert_true(rng_bits(0, 0, 0) == 0xe169c58d6627e8d5u);
    assert_true(rng_bits(UINT64_MAX, UINT64_MAX, UINT64_MAX) == 0x41c83b0e408f276du);
    assert_true(rng_bits(0x299f31d0a4093822u, 0x85a308d3243f6a88u, 0x0370734413198a2eu) == 0x94fdccebd16cfe09u);
}

static void rng_is_uniform(void **state)
{
    (void)state;
    enum { BINS = 256, DRAWS = 256 * 1000 };
    static int count[BINS];
    memset(count, 0, sizeof count);
    double chi = 0.0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double u = rng_uniform(42, i, 0);
        assert_true(u >= 0.0 && u < 1.0);
        count[(int)(u * BINS)]++;
    }
    for (int i = 0; i < BINS; i++)
        chi += (count[i] - 1000.0) * (count[i] - 1000.0) / 1000.0;
    assert_true(chi > 160.0 && chi < 360.0); /* 255 degrees of freedom, sigma 22.6 */
}

/* ---- ordering and truncation ---- */

static void sorting_any_pattern(void **state)
{
    (void)state;
    for (int pattern = 0; pattern < 6; pattern++) {
        for (int32_t n = 1; n < 3000; n = n * 3 / 2 + 1) {
            for (int32_t i = 0; i < n; i++) {
                double l[] = {i, -i, 0, i % 7, i < n / 2 ? i : n - i, random_unit() * 10};
                logits[i] = (float)l[pattern];
            }
            for (int32_t k = 1; k <= n; k = k * 2 + 1) {
                candidates c = gathered(n, 0);
                candidates_select(c.v, c.n, k);
                candidates_sort(c.v, k);
                for (int32_t i = 0; i < k; i++)
                    assert_int_equal(c.v[i].id, reference.v[i].id);
            }
            candidates c = gathered(n, 0);
            candidates_sort(c.v, c.n);
            c.sorted = true;
            assert_same(&c);
        }
    }
}

static void top_k_is_exact(void **state)
{
    (void)state;
    for (int round = 0; round < 400; round++) {
        int32_t n = 1 + (int32_t)(random_unit() * 600);
        random_logits(n, 8, round % 2 == 0);
        if (round % 3 == 0)
            logits[(int)(random_unit() * n)] = -INFINITY;
        candidates c = gathered(n, 1 + (int32_t)(random_unit() * n));
        if (c.sorted)
            assert_same(&c);
    }
    for (int32_t k = 1; k < 20000; k = k * 3 + 1) {
        random_logits(N_MAX, 12, k % 2 == 0);
        candidates c = gathered(N_MAX, k);
        assert_same(&c);
    }
    for (int32_t i = 0; i < N_MAX; i++) /* each logit beats all before it */
        logits[i] = (float)i;
    candidates c = gathered(N_MAX, 40);
    assert_same(&c);
}

static void truncations_match(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        int32_t n = round % 10 == 0 ? 20000 : 2 + (int32_t)(random_unit() * 400);
        int32_t k = round % 2 ? 0 : 1 + (int32_t)(random_unit() * 60);
        double p = 0.02 + 0.97 * random_unit();
        random_logits(n, 2 + 20 * random_unit(), false);

        candidates c = gathered(n, k);
        candidates_top_p(&c, (float)p);
        ref_top_p((double)(float)p);
        assert_same(&c);

        c = gathered(n, k);
        candidates_min_p(&c, (float)(p * p));
        ref_min_p((double)(float)(p * p));
        assert_same(&c);

        c = gathered(n, k);
        candidates_typical(&c, (float)p);
        ref_typical((double)(float)p);
        assert_same(&c);

        c = gathered(n, k);
        candidates_xtc(&c, (float)(p / 2));
        ref_xtc((double)(float)(p / 2));
        assert_same(&c);
    }
}

static void typical_can_drop_the_largest(void **state)
{
    (void)state; /* one likely token among many unlikely: the entropy lies nearer to the many */
    logits[0] = 4.0f;
    for (int32_t i = 1; i < 200; i++)
        logits[i] = 0.0f;
    candidates c = gathered(200, 0);
    candidates_typical(&c, 0.2f);
    ref_typical((double)0.2f);
    assert_same(&c);
    assert_int_not_equal(reference.v[0].id, 0);
}

static void surprise_limit(void **state)
{
    (void)state;
    random_logits(500, 10, false);
    for (float mu = 0.1f; mu < 12; mu += 0.7f) {
        candidates c = gathered(500, 0);
        (void)candidates_softmax(&c, 1.0f);
        candidates_limit_surprise(&c, mu);
        ref_softmax(1.0);
        int32_t n = 1;
        while (n < reference.n && -log2(reference.v[n].p) <= (double)mu)
            n++;
        reference.n = n;
        assert_same(&c);
    }
}

/* ---- the whole chain ---- */

static sampler *make(const sampler_options *o, int32_t n)
{
    sampler *s = NULL;
    dil_error err = {DIL_OK, ""};
    assert_int_equal(sampler_new(&s, o, NULL, n, &err), DIL_OK);
    return s;
}

static sampler_options plain_options(void)
{
    sampler_options o = sampler_options_default();
    o.temperature = 1.0f;
    o.top_k = 0;
    o.top_p = 1.0f;
    o.min_p = 0.0f;
    return o;
}

/*
 * Draws at many positions and compares with the reference's probabilities; sigma of chi-square is
 * sqrt(2 * df).
 */
static void assert_distribution(const sampler_options *o, int32_t n, int draws)
{
    static int count[N_MAX];
    memset(count, 0, sizeof count);
    sampler *s = make(o, n);
    for (int i = 0; i < draws; i++)
        count[sampler_pick(s, logits, (uint64_t)i, NULL)]++;
    sampler_free(s);
    double chi = 0.0;
    int df = -1, seen = 0;
    for (int32_t i = 0; i < reference.n; i++) {
        double want = reference.v[i].p * draws;
        seen += count[reference.v[i].id];
        if (want < 5)
            continue;
        chi += (count[reference.v[i].id] - want) * (count[reference.v[i].id] - want) / want;
        df++;
    }
    assert_int_equal(seen, draws); /* nothing outside the truncated set */
    if (df > 0)
        assert_true(chi < df + 5 * sqrt(2.0 * df));
}

static void draws_follow_probabilities(void **state)
{
    (void)state;
    random_logits(60, 6, false);
    sampler_options o = plain_options();
    o.temperature = 0.7f;
    ref_start(60);
    ref_softmax((double)0.7f);
    assert_distribution(&o, 60, 100000);

    o.top_k = 20;
    o.typical_p = 0.97f;
    o.top_p = 0.9f;
    o.min_p = 0.02f;
    o.xtc_probability = 1.0f;
    o.xtc_threshold = 0.15f;
    ref_start(60);
    ref_top_k(20);
    ref_typical((double)0.97f);
    ref_top_p((double)0.9f);
    ref_min_p((double)0.02f);
    ref_xtc((double)0.15f);
    ref_softmax((double)0.7f);
    assert_distribution(&o, 60, 100000);
}

static void xtc_happens_so_often(void **state)
{
    (void)state;
    float two[] = {1.0f, 0.9f};
    sampler_options o = plain_options();
    o.top_k = 2;
    o.xtc_probability = 0.25f;
    o.xtc_threshold = 0.1f;
    o.temperature = 0.0f; /* the largest that XTC leaves */
    sampler *s = make(&o, 2);
    int dropped = 0;
    for (uint64_t i = 0; i < 40000; i++)
        dropped += sampler_pick(s, two, i, NULL) == 1;
    sampler_free(s);
    assert_true(dropped > 9600 && dropped < 10400);
}

static void greedy_and_ties(void **state)
{
    (void)state;
    sampler_options o = sampler_options_default();
    o.temperature = 0.0f;
    sampler *s = make(&o, 5);
    float ties[] = {1, 3, 2, 3, 3};
    assert_int_equal(sampler_pick(s, ties, 0, NULL), 1);
    float hostile[] = {NAN, -INFINITY, 1, NAN, 0};
    assert_int_equal(sampler_pick(s, hostile, 0, NULL), 2);
    float infinite[] = {0, INFINITY, 5, INFINITY, -INFINITY};
    assert_int_equal(sampler_pick(s, infinite, 0, NULL), 1);
    uint32_t mask = 1u << 3 | 1u << 4;
    assert_int_equal(sampler_pick(s, ties, 0, &mask), 3);
    float nothing[] = {NAN, -INFINITY, NAN, -INFINITY, NAN};
    assert_int_equal(sampler_pick(s, nothing, 0, NULL), 0);
    assert_int_equal(sampler_pick(s, nothing, 0, &mask), 3);
    mask = 0;
    assert_int_equal(sampler_pick(s, ties, 0, &mask), TOKEN_NONE);
    sampler_free(s);
}

static void greedy_finds_the_largest_anywhere(void **state)
{
    (void)state;
    sampler_options o = sampler_options_default();
    o.temperature = 0.0f;
    for (int32_t n = 1; n < 300; n += 13) {
        sampler *s = make(&o, n);
        for (int round = 0; round < 50; round++) {
            random_logits(n, 5, round % 2 == 0);
            ref_start(n);
            assert_int_equal(sampler_pick(s, logits, 0, NULL), reference.v[0].id);
        }
        sampler_free(s);
    }
}

static void hostile_logits_never_escape_the_mask(void **state)
{
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 0.0f, 1e-40f, 88.0f};
    for (int round = 0; round < 2000; round++) {
        int32_t n = 1 + (int32_t)(random_unit() * 100);
        uint32_t mask[4] = {0, 0, 0, 0};
        for (int32_t i = 0; i < n; i++) {
            logits[i] = odd[(int)(random_unit() * 8)];
            if (random_unit() < 0.5)
                mask[i / 32] |= 1u << (i % 32);
        }
        sampler_options o = plain_options();
        o.temperature = (float)(random_unit() < 0.2 ? 1e-30 : random_unit() * 2);
        o.top_k = (int32_t)(random_unit() * 20);
        o.top_p = (float)random_unit();
        o.min_p = (float)random_unit();
        o.typical_p = (float)(0.5 + random_unit());
        o.xtc_probability = 0.5f;
        o.mirostat = round % 5 == 0 ? 2 : 0;
        sampler *s = make(&o, n);
        token_id id = sampler_pick(s, logits, (uint64_t)round, mask);
        bool any = (mask[0] | mask[1] | mask[2] | mask[3]) != 0;
        if (!any)
            assert_int_equal(id, TOKEN_NONE);
        else
            assert_true(id >= 0 && id < n && (mask[id / 32] >> (id % 32) & 1));
        float p = sampler_last_probability(s);
        assert_true(p >= 0.0f && p <= 1.0f);
        sampler_free(s);
    }
}

static void same_seed_same_text(void **state)
{
    (void)state;
    random_logits(1000, 5, false);
    sampler_options o = sampler_options_default();
    o.temperature = 2.0f;
    o.seed = 7;
    sampler *a = make(&o, 1000), *b = make(&o, 1000);
    token_id ids[100];
    int same_other_seed = 0;
    for (int i = 0; i < 100; i++)
        ids[i] = sampler_pick(a, logits, (uint64_t)i, NULL);
    for (int i = 99; i >= 0; i--) /* any order, any other draws in between */
        assert_int_equal(sampler_pick(b, logits, (uint64_t)i, NULL), ids[i]);
    sampler_free(b);
    o.seed = 8;
    b = make(&o, 1000);
    for (int i = 0; i < 100; i++)
        same_other_seed += sampler_pick(b, logits, (uint64_t)i, NULL) == ids[i];
    assert_true(same_other_seed < 60);
    sampler_free(a);
    sampler_free(b);
}

static void bias_and_probability(void **state)
{
    (void)state;
    float four[] = {1, 2, 3, 4};
    sampler_bias biases[] = {{0, 10.0f}, {3, -INFINITY}};
    sampler_options o = plain_options();
    o.temperature = 0.0f;
    o.biases = biases;
    o.n_biases = 2;
    sampler *s = make(&o, 4);
    assert_int_equal(sampler_pick(s, four, 0, NULL), 0);
    double sum = exp(-3) + exp(-2) + exp(-1) + 1; /* the model's own probability, not the biased one */
    assert_true(fabs((double)sampler_last_probability(s) - exp(-3) / sum) < 1e-6);
    sampler_free(s);
    assert_true(four[0] == 1.0f && four[3] == 4.0f);
}

/* ---- penalties, DRY, mirostat ---- */

static void penalties_match(void **state)
{
    (void)state;
    enum { N = 30, LENGTH = 500 };
    static token_id text[LENGTH];
    dil_error err;
    for (int32_t window = 1; window < 200; window = window * 2 + 3) {
        history h;
        penalty_window w;
        sampler_options o = plain_options();
        o.repeat_penalty = 1.3f;
        o.presence_penalty = 0.4f;
        o.frequency_penalty = 0.2f;
        assert_int_equal(history_setup(&h, window, &err), DIL_OK);
        assert_int_equal(penalty_init(&w, N, window, &err), DIL_OK);
        for (int i = 0; i < LENGTH; i++) {
            text[i] = (token_id)(random_unit() * random_unit() * N);
            penalty_push(&w, &h, text[i]);
            history_push(&h, text[i]);
            random_logits(N, 5, false);
            float want[N];
            for (int t = 0; t < N; t++) {
                int count = 0;
                for (int j = i; j >= 0 && j > i - window; j--)
                    count += text[j] == t;
                want[t] = logits[t];
                if (count > 0) {
                    want[t] = want[t] <= 0 ? want[t] * 1.3f : want[t] / 1.3f;
                    want[t] -= (float)count * 0.2f + 0.4f;
                }
            }
            penalty_apply(&w, &o, logits);
            for (int t = 0; t < N; t++)
                assert_true(fabsf(logits[t] - want[t]) < 1e-5f);
        }
        penalty_free(&w);
        history_free(&h);
    }
}

/*
 * DRY said plainly: for every earlier place, how long is the common ending, and what came next
 * there?
 */
static void dry_reference(const token_id *text, int n, const sampler_options *o, int limit, float *out)
{
    for (int end = 1; end < n; end++) { /* text[0..end) and text[0..n) end alike; text[end] came next */
        int length = 0;
        while (length < end && text[end - 1 - length] == text[n - 1 - length])
            length++;
        length = length < limit ? length : limit;
        if (length < o->dry_allowed_length)
            continue;
        float penalty = o->dry_multiplier * powf(o->dry_base, (float)(length - o->dry_allowed_length));
        out[text[end]] = fmaxf(out[text[end]], penalty);
    }
}

static void dry_matches(void **state)
{
    (void)state;
    enum { N = 6, LENGTH = 120 };
    dil_error err;
    sampler_options o = plain_options();
    o.dry_multiplier = 0.8f;
    for (int round = 0; round < 300; round++) {
        static token_id text[LENGTH];
        int n = 1 + (int)(random_unit() * (LENGTH - 1)), alphabet = 1 + (int)(random_unit() * N);
        dry d;
        history h;
        o.dry_allowed_length = 1 + round % 4;
        o.dry_last_n = round % 3 ? -1 : 40;
        assert_int_equal(dry_init(&d, &o, NULL, N, &err), DIL_OK);
        assert_int_equal(history_setup(&h, HISTORY_MAX, &err), DIL_OK);
        for (int i = 0; i < n; i++) {
            text[i] = (token_id)(random_unit() * alphabet);
            history_push(&h, text[i]);
        }
        float want[N] = {0}, got[N] = {0};
        int seen = o.dry_last_n > 0 && n > o.dry_last_n ? o.dry_last_n : n;
        if (seen > o.dry_allowed_length)
            dry_reference(text + n - seen, seen, &o, seen, want);
        dry_apply(&d, &h, &o, got);
        for (int t = 0; t < N; t++)
            assert_true(fabsf(-got[t] - want[t]) <= 1e-5f * fabsf(want[t]));
        dry_free(&d);
        history_free(&h);
    }
}

/*
 * <unk> <s> </s>, the 256 byte tokens, then words: a SentencePiece vocabulary small enough to
 * reason about.
 */
static vocab *small_vocab(const char *const *words, int n_words)
{
    static char names[256][8];
    static str tokens[400];
    static float scores[400];
    static int32_t types[400];
    int n = 0;
    const char *const special[] = {"<unk>", "<s>", "</s>"};
    for (int i = 0; i < 3; i++, n++) {
        tokens[n] = str_of(special[i]);
        types[n] = i == 0 ? TOKEN_UNKNOWN : TOKEN_CONTROL;
    }
    for (int i = 0; i < 256; i++, n++) {
        snprintf(names[i], sizeof names[i], "<0x%02X>", i);
        tokens[n] = str_of(names[i]);
        types[n] = TOKEN_BYTE;
    }
    for (int i = 0; i < n_words; i++, n++) {
        tokens[n] = str_of(words[i]);
        types[n] = TOKEN_NORMAL;
        scores[n] = (float)-i;
    }
    vocab_source source = {.model = STR("llama"),
                           .tokens = tokens,
                           .n_tokens = (uint64_t)n,
                           .scores = scores,
                           .n_scores = (uint64_t)n,
                           .types = types,
                           .n_types = (uint64_t)n,
                           .bos = 1,
                           .eos = 2,
                           .eot = TOKEN_NONE,
                           .eom = TOKEN_NONE,
                           .unk = 0,
                           .sep = TOKEN_NONE,
                           .pad = TOKEN_NONE,
                           .mask = TOKEN_NONE,
                           .add_bos = 0,
                           .add_eos = 0,
                           .add_sep = -1,
                           .add_space_prefix = 0,
                           .remove_extra_whitespaces = -1};
    vocab *v = NULL;
    dil_error err = {DIL_OK, ""};
    if (vocab_new(&v, &source, &err) != DIL_OK)
        fail_msg("%s", err.text);
    return v;
}

static void dry_stops_at_breakers(void **state)
{
    (void)state;
    static const char *const words[] = {"a", "b", "c", "d", "x:", "ab", "::"};
    static const char *const breakers[] = {":", "dc"};
    enum { A = 259, B, C, D, XCOLON, AB };
    dil_error err;
    sampler_options o = plain_options();
    o.dry_multiplier = 1.0f;
    o.dry_breakers = breakers;
    o.n_dry_breakers = 2;
    vocab *v = small_vocab(words, 7);
    int32_t n = vocab_size(v);
    static const struct {
        token_id text[10];
        int n;
        float penalty;
        token_id token;
    } cases[] = {
        {{A, B, C, A, B}, 5, 1.0f, C},           /* a b c a b: c would repeat 2 */
        {{A, B, C, XCOLON, A, B}, 6, 1.0f, C},   /* the breaker lies outside the repetition */
        {{A, B, C, A, XCOLON, B}, 6, 0.0f, C},   /* only b since the breaker */
        {{D, B, A, B, C, B, A, B}, 8, 1.75f, C}, /* b a b: 3 */
        {{A, B, C, D, C, A, B}, 7, 1.0f, C},     /* "dc" over two tokens; 2 since */
        {{A, B, C, A, D, C, B}, 7, 0.0f, C},
        {{C, A, B, C, D, C, A, B}, 8, 1.0f, C},  /* c a b repeats, but its c ends a breaker */
        {{A, B, XCOLON, A, B}, 5, 0.0f, XCOLON}, /* a breaker itself is never punished */
        {{A, B, D, A, B}, 5, 1.0f, D},           /* the beginning of one is */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dry d;
        history h;
        assert_int_equal(dry_init(&d, &o, v, n, &err), DIL_OK);
        assert_int_equal(history_setup(&h, 64, &err), DIL_OK);
        for (int j = 0; j < cases[i].n; j++)
            history_push(&h, cases[i].text[j]);
        memset(logits, 0, sizeof *logits * (size_t)n);
        dry_apply(&d, &h, &o, logits);
        assert_true(fabsf(-logits[cases[i].token] - cases[i].penalty) < 1e-6f);
        dry_free(&d);
        history_free(&h);
    }
    vocab_free(v);
}

/* Follows mu beside the sampler: nothing above it is drawn, and the mean surprise settles at tau. */
static void mirostat_holds_its_surprise(void **state)
{
    (void)state;
    static double p[2000];
    random_logits(2000, 9, false);
    ref_start(2000);
    ref_softmax(1.0);
    for (int32_t i = 0; i < reference.n; i++)
        p[reference.v[i].id] = reference.v[i].p;
    sampler_options o = plain_options();
    o.mirostat = 2;
    o.mirostat_tau = 4.0f;
    sampler *s = make(&o, 2000);
    double mu = 8.0, sum = 0.0;
    for (uint64_t i = 0; i < 4000; i++) {
        double allowed = reference.v[0].p;
        for (int32_t j = 1; j < reference.n && -log2(reference.v[j].p) <= mu; j++)
            allowed += reference.v[j].p;
        token_id id = sampler_pick(s, logits, i, NULL);
        assert_true(id == reference.v[0].id || -log2(p[id]) <= mu + 1e-3);
        double surprise = -log2(p[id] / allowed);
        mu -= 0.1 * (surprise - 4.0);
        sum += i >= 1000 ? surprise : 0.0;
    }
    sampler_free(s);
    assert_true(fabs(sum / 3000 - 4.0) < 0.1);
}

/* ---- promises ---- */

static void no_allocation_after_new(void **state)
{
    (void)state;
    sampler_options o = sampler_options_default();
    o.repeat_penalty = 1.1f;
    o.dry_multiplier = 0.8f;
    o.typical_p = 0.9f;
    sampler *s = make(&o, 5000);
    uint64_t calls = mem_calls();
    for (int i = 0; i < 200; i++) {
        random_logits(5000, 5, false);
        sampler_accept(s, sampler_pick(s, logits, (uint64_t)i, NULL));
    }
    assert_true(mem_calls() == calls);
    sampler_accept(s, -5);
    sampler_accept(s, 5000);
    sampler_reset(s);
    sampler_free(s);
}

static void reset_forgets(void **state)
{
    (void)state;
    sampler_options o = plain_options();
    o.temperature = 0.0f;
    o.presence_penalty = 5.0f;
    o.penalty_last_n = -1;
    sampler *s = make(&o, 3);
    float three[] = {3, 2, 1};
    assert_int_equal(sampler_pick(s, three, 0, NULL), 0);
    sampler_accept(s, 0);
    assert_int_equal(sampler_pick(s, three, 1, NULL), 1);
    sampler_reset(s);
    assert_int_equal(sampler_pick(s, three, 0, NULL), 0);
    sampler_free(s);
}

static void bad_options(void **state)
{
    (void)state;
    sampler *s = NULL;
    dil_error err;
    sampler_options o = sampler_options_default();
    o.temperature = NAN;
    assert_int_equal(sampler_new(&s, &o, NULL, 10, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "temperature"));
    o = sampler_options_default();
    o.min_p = 1.5f;
    assert_int_equal(sampler_new(&s, &o, NULL, 10, &err), DIL_BAD_ARGUMENT);
    o = sampler_options_default();
    o.mirostat = 1;
    assert_int_equal(sampler_new(&s, &o, NULL, 10, &err), DIL_BAD_ARGUMENT);
    sampler_bias outside = {10, 1.0f};
    o = sampler_options_default();
    o.biases = &outside;
    o.n_biases = 1;
    assert_int_equal(sampler_new(&s, &o, NULL, 10, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(sampler_new(&s, &(sampler_options){.top_p = 1}, NULL, 0, &err), DIL_BAD_ARGUMENT);
    assert_null(s);
}

static void memory_runs_out_anywhere(void **state)
{
    (void)state;
    static const char *const words[] = {"a", "b:", "::x"};
    vocab *v = small_vocab(words, 3);
    size_t held = mem_bytes(MEM_SAMPLING);
    sampler_options o = sampler_options_default();
    o.repeat_penalty = 1.1f;
    o.dry_multiplier = 0.8f;
    dil_status status = DIL_NO_MEMORY;
    for (int64_t after = 0; after < 1000 && status != DIL_OK; after++) {
        sampler *s = NULL;
        dil_error err;
        mem_inject_failure(after);
        status = sampler_new(&s, &o, v, vocab_size(v), &err);
        mem_inject_failure(-1);
        assert_true(status == DIL_OK || (status == DIL_NO_MEMORY && !s));
        sampler_free(s);
        assert_true(mem_bytes(MEM_SAMPLING) == held);
    }
    assert_int_equal(status, DIL_OK);
    vocab_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rng_known_answers),
        cmocka_unit_test(rng_is_uniform),
        cmocka_unit_test(sorting_any_pattern),
        cmocka_unit_test(top_k_is_exact),
        cmocka_unit_test(truncations_match),
        cmocka_unit_test(typical_can_drop_the_largest),
        cmocka_unit_test(surprise_limit),
        cmocka_unit_test(draws_follow_probabilities),
        cmocka_unit_test(xtc_happens_so_often),
        cmocka_unit_test(greedy_and_ties),
        cmocka_unit_test(greedy_finds_the_largest_anywhere),
        cmocka_unit_test(hostile_logits_never_escape_the_mask),
        cmocka_unit_test(same_seed_same_text),
        cmocka_unit_test(bias_and_probability),
        cmocka_unit_test(penalties_match),
        cmocka_unit_test(dry_matches),
        cmocka_unit_test(dry_stops_at_breakers),
        cmocka_unit_test(mirostat_holds_its_surprise),
        cmocka_unit_test(no_allocation_after_new),
        cmocka_unit_test(reset_forgets),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(memory_runs_out_anywhere),
    };
    return cmocka_run_group_tests_name("sampling", tests, NULL, NULL);
}
