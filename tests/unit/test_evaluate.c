/* Measurements against their definitions, computed here from the raw logits; base files that are sound and damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "evaluate/base_file.h"
#include "evaluate/draw.h"
#include "evaluate/evaluate.h"
#include "leaks.h"
#include "tiny_model.h"

#define CONTEXT 32

static char paths[2][600], base_path[600];

static const char text[] = "the quick brown fox jumps over the lazy dog and then sleeps for a while in the warm sun of a long "
                           "afternoon, until the evening comes and it is time to go home again through the quiet fields";

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

static int prepare(void **state)
{
    (void)state;
    tiny_model one = tiny_llama(DIL_TYPE_F32), other = tiny_llama(DIL_TYPE_Q4_0); /* the same numbers, rounded */
    tiny_write(tiny_path(paths[0], "evaluate"), &one);
    tiny_write(tiny_path(paths[1], "evaluate-q4"), &other);
    tiny_path(base_path, "base");
    return 0;
}

static int clear(void **state)
{
    (void)state;
    int failed = unlink(paths[0]) | unlink(paths[1]);
    (void)unlink(base_path);
    return failed;
}

static engine *open_model(int which)
{
    engine *e;
    dil_error err;
    engine_options o = {.n_threads = 2, .context = 64};
    o.type_k = o.type_v = DIL_TYPE_F32;
    ok(engine_open(&e, paths[which], &o, &err), &err);
    return e;
}

/* ---- the definition ---- */

typedef struct table {
    double *log_p;
    int32_t n_vocab;
} table; /* [position][n_vocab] */

static bool keep_log_p(void *ctx, int32_t i, const float *logits)
{
    table *t = ctx;
    double top = -INFINITY, sum = 0, *row = t->log_p + (size_t)i * (size_t)t->n_vocab;
    for (int32_t j = 0; j < t->n_vocab; j++)
        top = fmax(top, (double)logits[j]);
    for (int32_t j = 0; j < t->n_vocab; j++)
        sum += exp((double)logits[j] - top);
    for (int32_t j = 0; j < t->n_vocab; j++)
        row[j] = (double)logits[j] - top - log(sum);
    return true;
}

/* ln p of every next token after each of n tokens, from scratch. [owned: free] */
static table log_probabilities(engine *e, const token_id *tokens, int32_t n)
{
    dil_error err;
    session *s;
    table t = {.n_vocab = engine_n_vocab(e)};
    t.log_p = malloc((size_t)n * (size_t)t.n_vocab * sizeof *t.log_p);
    assert_non_null(t.log_p);
    ok(session_new(&s, e, &err), &err);
    ok(session_eval(s, tokens, n, NULL, keep_log_p, &t, &err), &err);
    session_free(s);
    return t;
}

/* Tokens of the text as the protocol cuts them: <s> in front, then one by one. */
static token_list encode(engine *e, const char *words)
{
    dil_error err;
    token_list list = {0};
    ok(vocab_encode(engine_vocab(e), str_of(words), true, false, &list, &err), &err);
    return list;
}

static void perplexity_by_hand(void **state)
{
    (void)state;
    dil_error err;
    for (int which = 0; which < 2; which++) {
        engine *e = open_model(which);
        token_list list = encode(e, text);
        int32_t n_chunks = (int32_t)list.n / CONTEXT;
        double sum = 0;
        int n = 0;
        assert_true(n_chunks >= 4);
        for (int32_t chunk = 0; chunk < n_chunks; chunk++) {
            token_id tokens[CONTEXT];
            memcpy(tokens, list.ids + chunk * CONTEXT, sizeof tokens);
            tokens[0] = 1; /* <s> */
            table t = log_probabilities(e, tokens, CONTEXT);
            for (int i = CONTEXT / 2; i < CONTEXT - 1; i++, n++)
                sum -= t.log_p[(size_t)i * (size_t)t.n_vocab + (size_t)tokens[i + 1]];
            free(t.log_p);
        }
        perplexity_result r;
        perplexity_options o = {.context = CONTEXT};
        ok(evaluate_perplexity(e, str_of(text), &o, &r, &err), &err);
        assert_int_equal(r.n_chunks, n_chunks);
        assert_int_equal(r.n_scored, n);
        assert_float_equal(r.mean_nll, sum / n, 1e-5);
        assert_float_equal(r.perplexity / exp(sum / n), 1, 1e-5);
        assert_true(r.error > 0 && r.error < r.perplexity);
        o.n_chunks = 2;
        ok(evaluate_perplexity(e, str_of(text), &o, &r, &err), &err);
        assert_int_equal(r.n_scored, 2 * (CONTEXT - 1 - CONTEXT / 2));
        token_list_free(&list);
        engine_close(e);
    }
}

static bool stop(void *user, int32_t done, int32_t total, double value, double error)
{
    (void)total, (void)value, (void)error;
    return done < *(int *)user;
}

static void perplexity_refused(void **state)
{
    (void)state;
    dil_error err;
    perplexity_result r = {.n_chunks = 77};
    engine *e = open_model(0);
    perplexity_options o = {.context = CONTEXT};
    fails(evaluate_perplexity(e, STR("short"), &o, &r, &err), &err, DIL_LIMIT, "wanted at least 32 tokens");
    o.context = 65;
    fails(evaluate_perplexity(e, str_of(text), &o, &r, &err), &err, DIL_BAD_ARGUMENT, "the engine's 64, found 65");
    o.context = 3;
    fails(evaluate_perplexity(e, str_of(text), &o, &r, &err), &err, DIL_BAD_ARGUMENT, "found 3");
    o = (perplexity_options){.context = CONTEXT, .save_base = "/nowhere/base"};
    fails(evaluate_perplexity(e, str_of(text), &o, &r, &err), &err, DIL_IO, "/nowhere/base");
    int two = 2;
    o = (perplexity_options){.context = CONTEXT, .save_base = base_path, .report = stop, .user = &two};
    fails(evaluate_perplexity(e, str_of(text), &o, &r, &err), &err, DIL_CANCELLED, "after 2 of");
    assert_false(os_exists(base_path)); /* no half of a file */
    assert_int_equal(r.n_chunks, 77);
    engine_close(e);
}

/* ---- divergence ---- */

static void save_base(int which)
{
    dil_error err;
    perplexity_result r;
    engine *e = open_model(which);
    perplexity_options o = {.context = CONTEXT, .save_base = base_path};
    ok(evaluate_perplexity(e, str_of(text), &o, &r, &err), &err);
    engine_close(e);
}

static void divergence_from_itself(void **state)
{
    (void)state;
    dil_error err;
    divergence_result d;
    int32_t context;
    save_base(0);
    ok(evaluate_base_context(base_path, &context, &err), &err);
    assert_int_equal(context, CONTEXT);
    engine *e = open_model(0);
    ok(evaluate_divergence(e, base_path, 0, NULL, NULL, &d, &err), &err);
    /* what 16 bits per value leave: at most half a step each, and the errors of many values cancel */
    if (!(fabs(d.mean_kld) < 2e-5 && d.max_kld < 16.0 / 65535))
        fail_msg("divergence from itself: mean %g, largest %g", d.mean_kld, d.max_kld);
    assert_true(fabs(d.log_ratio) < 1e-4 && d.rms_dp < 1e-4);
    assert_true(d.same_top > 0.98);
    assert_true(d.kld_90 <= d.kld_95 && d.kld_95 <= d.kld_99 && d.kld_99 <= d.kld_999 && d.kld_999 <= d.max_kld);
    engine_close(e);
}

static void divergence_by_hand(void **state)
{
    (void)state;
    dil_error err;
    divergence_result d;
    save_base(0);
    engine *base = open_model(0), *e = open_model(1);
    token_list list = encode(e, text);
    double kld = 0, dp2 = 0, ratio = 0;
    int n = 0, same = 0, n_chunks = (int)list.n / CONTEXT;
    for (int chunk = 0; chunk < n_chunks; chunk++) {
        token_id *tokens = list.ids + chunk * CONTEXT, next[CONTEXT];
        memcpy(next, tokens, sizeof next);
        next[0] = 1;
        table p = log_probabilities(base, next, CONTEXT), q = log_probabilities(e, next, CONTEXT);
        for (int i = CONTEXT / 2; i < CONTEXT - 1; i++, n++) {
            const double *lp = p.log_p + (size_t)i * (size_t)p.n_vocab, *lq = q.log_p + (size_t)i * (size_t)q.n_vocab;
            int top_p = 0, top_q = 0;
            for (int j = 0; j < p.n_vocab; j++) {
                kld += exp(lp[j]) * (lp[j] - lq[j]);
                top_p = lp[j] > lp[top_p] ? j : top_p;
                top_q = lq[j] > lq[top_q] ? j : top_q;
            }
            same += top_p == top_q;
            dp2 += pow(exp(lq[next[i + 1]]) - exp(lp[next[i + 1]]), 2);
            ratio += lp[next[i + 1]] - lq[next[i + 1]];
        }
        free(p.log_p);
        free(q.log_p);
    }
    ok(evaluate_divergence(e, base_path, 0, NULL, NULL, &d, &err), &err);
    assert_int_equal(d.n_scored, n);
    assert_int_equal(d.n_chunks, n_chunks);
    assert_true(kld / n > 1e-4); /* rounding to four bits shows */
    assert_float_equal(d.mean_kld / (kld / n), 1, 2e-3);
    assert_float_equal(d.rms_dp / sqrt(dp2 / n), 1, 2e-3);
    assert_float_equal(d.log_ratio, ratio / n, 1e-4);
    assert_float_equal(d.same_top, (double)same / n, 1.5 / n);
    assert_float_equal(d.perplexity / d.base_perplexity, exp(d.log_ratio), 1e-9);
    int one = 1;
    fails(evaluate_divergence(e, base_path, 0, stop, &one, &d, &err), &err, DIL_CANCELLED, "after 1 of");
    token_list_free(&list);
    engine_close(base);
    engine_close(e);
}

/* ---- damaged base files ---- */

static size_t load(char *bytes, size_t most)
{
    FILE *f = fopen(base_path, "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, most, f);
    assert_int_equal(fclose(f), 0);
    return n;
}

static void store(const char *bytes, size_t n)
{
    FILE *f = fopen(base_path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static char base_bytes[1 << 20], damaged[1 << 20];

static void damaged_numbers(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
        dil_status status;
        const char *text;
    } cases[] = {
        {0, 0x12345678, DIL_FORMAT, "_logits_"},
        {8, 0, DIL_FORMAT, "out of range"},
        {8, 3, DIL_FORMAT, "out of range"},
        {8, UINT32_MAX, DIL_FORMAT, "out of range"},
        {8, 4000, DIL_FORMAT, "cut off"},
        {8, 1u << 20, DIL_FORMAT, "cut off"},
        {12, 0, DIL_FORMAT, "out of range"},
        {12, (uint32_t)-5, DIL_FORMAT, "out of range"},
        {12, 300, DIL_BAD_ARGUMENT, "vocabulary of 300 tokens, this model has 301"},
        {12, 1u << 24, DIL_FORMAT, "cut off"},
        {16, 0, DIL_FORMAT, "out of range"},
        {16, (uint32_t)-1, DIL_FORMAT, "out of range"},
        {16, INT32_MAX, DIL_FORMAT, "cut off"},
        {20, 301, DIL_FORMAT, "byte 20: wanted a token below 301, found 301"},
        {24, UINT32_MAX, DIL_FORMAT, "byte 24: wanted a token below 301, found -1"},
    };
    dil_error err;
    divergence_result d = {.n_chunks = 77};
    save_base(0);
    size_t n = load(base_bytes, sizeof base_bytes);
    engine *e = open_model(0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(damaged, base_bytes, n);
        memcpy(damaged + cases[i].at, &cases[i].value, 4);
        store(damaged, n);
        fails(evaluate_divergence(e, base_path, 0, NULL, NULL, &d, &err), &err, cases[i].status, cases[i].text);
        assert_non_null(strstr(err.text, base_path));
    }
    uint32_t longer = 80; /* sound, but more than the engine's context */
    memset(damaged, 0, sizeof damaged);
    memcpy(damaged, base_bytes, 20);
    memcpy(damaged + 8, &longer, 4);
    store(damaged, sizeof damaged);
    fails(evaluate_divergence(e, base_path, 1, NULL, NULL, &d, &err), &err, DIL_BAD_ARGUMENT, "at most the engine's 64, found 80");
    assert_int_equal(d.n_chunks, 77);
    engine_close(e);
}

/* Cut anywhere: an error that says so. Rows of any bits: numbers come out, nothing breaks. */
static void damaged_length_and_rows(void **state)
{
    (void)state;
    dil_error err;
    divergence_result d;
    save_base(0);
    size_t n = load(base_bytes, sizeof base_bytes);
    engine *e = open_model(0);
    for (size_t cut = 0; cut < n; cut += cut < 64 ? 1 : 1009) {
        store(base_bytes, cut);
        fails(evaluate_divergence(e, base_path, 0, NULL, NULL, &d, &err), &err, cut < 20 ? DIL_IO : DIL_FORMAT,
              cut < 20 ? "the file ends" : "cut off");
    }
    uint32_t random = 9;
    size_t rows = 20 + 4 * CONTEXT * ((strlen(text) + 2) / CONTEXT);
    memcpy(damaged, base_bytes, n);
    for (size_t i = rows; i < n; i++)
        damaged[i] = (char)tiny_random(&random);
    store(damaged, n);
    ok(evaluate_divergence(e, base_path, 0, NULL, NULL, &d, &err), &err);
    fails(evaluate_divergence(e, "/nowhere/base", 0, NULL, NULL, &d, &err), &err, DIL_IO, "/nowhere/base");
    engine_close(e);
}

/* The code itself: 16 bits between the top and 16 below it. */
static void base_code(void **state)
{
    (void)state;
    enum { N = 9 };
    static const float logits[N] = {-3, 2, 7.5f, 7.25f, -40, 0, 1, 6, -8.4f};
    dil_error err;
    kernels k;
    uint16_t row[16];
    float head[2];
    ok(kernels_select(&k, "scalar", &err), &err);
    assert_int_equal(base_row_words(N), N + 1 + 4);
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += exp((double)logits[i] - 7.5);
    double nll = base_encode(&k, logits, N, 5, row);
    assert_float_equal(nll, 7.5 + log(sum), 1e-5);
    memcpy(head, row, sizeof head);
    for (int i = 0; i < N; i++) {
        double decoded = (double)head[0] * row[4 + i] + (double)head[1], wanted = (double)logits[i] - 7.5 - log(sum);
        if (logits[i] < 7.5f - 16.0f)
            wanted = -16.0 - log(sum); /* cut there */
        assert_float_equal(decoded, wanted, 16.0 / 65535 + 1e-5);
    }
    assert_int_equal(row[4 + 2], 65535);
    static const float flat[4] = {1, 1, 1, 1};
    assert_float_equal(base_encode(&k, flat, 4, 0, row), log(4), 1e-6);
}

/* ---- multiple choice ---- */

/* ln p(ending | context) / tokens of the ending, by hand. */
static int best_ending(engine *e, const char *context, const char *const endings[4])
{
    token_list lists[4];
    size_t prefix = SIZE_MAX;
    int best = 0;
    double best_mean = -INFINITY;
    for (int j = 0; j < 4; j++) {
        char line[256];
        (void)snprintf(line, sizeof line, "%s %s", context, endings[j]);
        lists[j] = encode(e, line);
        size_t same = 0;
        while (same < lists[j].n && same < lists[0].n && lists[j].ids[same] == lists[0].ids[same])
            same++;
        prefix = same < prefix ? same : prefix;
    }
    for (int j = 0; j < 4; j++) {
        table t = log_probabilities(e, lists[j].ids, (int32_t)lists[j].n);
        double sum = 0;
        for (size_t i = prefix; i < lists[j].n; i++)
            sum += t.log_p[(i - 1) * (size_t)t.n_vocab + (size_t)lists[j].ids[i]];
        sum /= (double)(lists[j].n - prefix);
        if (sum > best_mean) {
            best_mean = sum;
            best = j;
        }
        free(t.log_p);
        token_list_free(&lists[j]);
    }
    return best;
}

/* The first numbers of MT19937 from seed 1 are in many manuals; bounds against plain rejection over the same numbers. */
static void drawing(void **state)
{
    (void)state;
    static const uint32_t first[] = {1791095845u, 4282876139u, 3093770124u, 4005303368u, 491263u};
    draw d, plain;
    draw_begin(&d, 1);
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        assert_int_equal(draw_bits(&d), first[i]);
    for (int i = 5; i < 9999; i++)
        (void)draw_bits(&d);
    draw_begin(&plain, 5489);
    for (int i = 0; i < 9999; i++)
        (void)draw_bits(&plain);
    assert_int_equal(draw_bits(&plain), 4123659995u); /* the 10,000th of the standard's own seed */
    static const uint32_t bounds[] = {1, 2, 7, 2000, 3000000000u};
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        draw_begin(&d, 7);
        plain = d;
        for (int i = 0; i < 1000; i++) {
            uint64_t n = bounds[b], fair = (UINT64_C(1) << 32) / n * n, product; /* products whose low half counts are fair */
            do
                product = draw_bits(&plain) * n;
            while ((uint32_t)product < (UINT64_C(1) << 32) - fair);
            assert_int_equal(draw_below(&d, bounds[b]), product >> 32);
        }
    }
}

static void hellaswag_by_hand(void **state)
{
    (void)state;
    static const char *const contexts[] = {"a dog", "the sun", "she was", "in the end"};
    static const char *const endings[][4] = {{"runs far", "sleeps well", "flies", "swims on"},
                                             {"sets", "shines here", "burns", "is away"},
                                             {"glad", "sad and tired", "late", "there"},
                                             {"nothing", "all is well", "we go", "it rains"}};
    dil_error err;
    engine *e = open_model(1);
    char tasks[1000] = "";
    int right = 0;
    for (int i = 0; i < 4; i++) {
        int answer = best_ending(e, contexts[i], endings[i]), stated = i == 2 ? (answer + 1) % 4 : answer;
        right += answer == stated;
        size_t n = strlen(tasks);
        (void)snprintf(tasks + n, sizeof tasks - n, "%s\n%d\n%s\r\n%s\n%s\n%s%s", contexts[i], stated, endings[i][0], endings[i][1],
                       endings[i][2], endings[i][3], i < 3 ? "\n" : "");
    }
    choice_result r;
    ok(evaluate_hellaswag(e, str_of(tasks), 0, NULL, NULL, &r, &err), &err);
    assert_int_equal(r.n_tasks, 4);
    assert_int_equal(r.n_right, right);
    assert_int_equal(right, 3);
    assert_float_equal(r.score, 75, 1e-9);
    assert_true(r.low > 25 && r.low < 75 && r.high > 75 && r.high < 100);
    ok(evaluate_hellaswag(e, str_of(tasks), 2, NULL, NULL, &r, &err), &err);
    assert_int_equal(r.n_tasks, 2);
    int one = 1;
    fails(evaluate_hellaswag(e, str_of(tasks), 0, stop, &one, &r, &err), &err, DIL_CANCELLED, "after 1 tasks");
    engine_close(e);
}

static void hellaswag_refused(void **state)
{
    (void)state;
    static const struct {
        const char *tasks;
        dil_status status;
        const char *part;
    } cases[] = {
        {"", DIL_FORMAT, "no task"},
        {"a\n1\nb\nc\nd", DIL_FORMAT, "task 1: wanted 6 lines, found 5"},
        {"a\n4\nb\nc\nd\ne\n", DIL_FORMAT, "found '4'"},
        {"a\n\nb\nc\nd\ne\n", DIL_FORMAT, "wanted the index"},
        {"a\n10\nb\nc\nd\ne\n", DIL_FORMAT, "found '10'"},
        {"a\n0\nsame\nsame\nsame\nsame\n", DIL_FORMAT, "no tokens of its own"},
        {"a\n0\nb\nc\nd\na very long ending that does not fit the context of this engine, which holds only a few words\n",
         DIL_LIMIT, "context"},
    };
    dil_error err;
    choice_result r = {.n_tasks = 77};
    engine *e = open_model(0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        fails(evaluate_hellaswag(e, str_of(cases[i].tasks), 0, NULL, NULL, &r, &err), &err, cases[i].status, cases[i].part);
    size_t n = (1 << 20) + 100;
    char *huge = malloc(n + 1);
    assert_non_null(huge);
    memset(huge, 'a', n);
    memcpy(huge + n - 16, "\n0\nb\nc\nd\ne\n", 11);
    huge[n - 5] = '\0';
    fails(evaluate_hellaswag(e, str_of(huge), 0, NULL, NULL, &r, &err), &err, DIL_LIMIT, "at most 1048576 bytes");
    free(huge);
    assert_int_equal(r.n_tasks, 77);
    engine_close(e);
}

/* ---- logits ---- */

static void logits_file(void **state)
{
    (void)state;
    static const token_id tokens[] = {1, 40, 260, 7};
    dil_error err;
    engine *e = open_model(0);
    ok(evaluate_logits(e, tokens, 4, base_path, &err), &err);
    size_t n = load(base_bytes, sizeof base_bytes);
    assert_int_equal(n, 128 + 4 * 301 * 4);
    assert_memory_equal(base_bytes, "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (4, 301), }", 70);
    assert_int_equal(base_bytes[127], '\n');
    session *s;
    const float *logits;
    ok(session_new(&s, e, &err), &err);
    ok(session_sync(s, tokens, 4, &logits, NULL, NULL, NULL, &err), &err);
    assert_memory_equal(base_bytes + 128 + 3 * 301 * 4, logits, 301 * 4);
    session_free(s);
    engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(perplexity_by_hand),
        cmocka_unit_test(perplexity_refused),
        cmocka_unit_test(divergence_from_itself),
        cmocka_unit_test(divergence_by_hand),
        cmocka_unit_test(damaged_numbers),
        cmocka_unit_test(damaged_length_and_rows),
        cmocka_unit_test(base_code),
        cmocka_unit_test(drawing),
        cmocka_unit_test(hellaswag_by_hand),
        cmocka_unit_test(hellaswag_refused),
        cmocka_unit_test(logits_file),
    };
    return leaks_run_group_tests(tests, prepare, clear);
}
