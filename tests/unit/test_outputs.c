/* Answers to many prompts: what each prompt alone is answered, in order, for any number of sequences at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/generate.h"
#include "evaluate/lines.h"
#include "evaluate/outputs.h"
#include "leaks.h"
#include "tiny_model.h"

#define CONTEXT 96
#define MOST 32

static char path[600];

static const char prompts[] =
    "the quick brown fox\njumps\r\n\nover the lazy dog and then sleeps for a while in the warm sun of a long day\na\nb\n"
    "the quick brown fox runs\nsome words\nand other words\n\xC3\xA7ok g\xC3\xBCzel\nthe end";
enum { PROMPTS = 11 };

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
    tiny_model one = tiny_llama(DIL_TYPE_F32);
    tiny_write(tiny_path(path, "outputs"), &one);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    return unlink(path);
}

static engine *open_engine(int32_t n_sessions)
{
    engine *e;
    dil_error err;
    engine_options o = {.n_threads = 2, .context = CONTEXT, .n_sessions = n_sessions, .max_outputs = n_sessions};
    o.type_k = o.type_v = DIL_TYPE_F32;
    ok(engine_open(&e, path, &o, &err), &err);
    return e;
}

typedef struct answers {
    strbuf text[MOST];
    int n, n_reports, most_reports; /* most 0: all */
    int fail_at;                    /* the answer that cannot be written, counted from 1 */
    outputs_stats last;
} answers;

static void answers_begin(answers *a)
{
    memset(a, 0, sizeof *a);
    for (int i = 0; i < MOST; i++)
        a->text[i] = STRBUF(1 << 20);
}

static void answers_end(answers *a)
{
    for (int i = 0; i < MOST; i++)
        strbuf_free(&a->text[i]);
}

static dil_status keep(void *ctx, str answer, dil_error *err)
{
    answers *a = ctx;
    if (a->n + 1 == a->fail_at)
        return DIL_FAIL(err, DIL_IO, "the disk is full");
    assert_true(a->n < MOST);
    strbuf_add_str(&a->text[a->n++], answer);
    return DIL_OK;
}

static bool count(void *ctx, const outputs_stats *now)
{
    answers *a = ctx;
    assert_true(now->n_answers >= a->last.n_answers && now->n_generated >= a->last.n_generated && now->n_answers <= now->n_prompts);
    a->last = *now;
    return ++a->n_reports != a->most_reports;
}

static outputs_options options(answers *a, int32_t n_predict, int32_t n_parallel)
{
    return (
        outputs_options){.n_predict = n_predict, .n_parallel = n_parallel, .plain = true, .emit = keep, .report = count, .ctx = a};
}

static bool append(void *ctx, str text)
{
    strbuf_add_str(ctx, text);
    return true;
}

/* What the way of one answer says to one prompt. */
static generate_stats alone(engine *e, str line, int32_t n_predict, strbuf *out)
{
    sampler *sm;
    stream *st;
    session *s;
    dil_error err;
    generate_stats stats;
    token_list tokens = {0};
    char content[512];
    (void)snprintf(content, sizeof content, "%.*s", (int)line.n, line.p);
    const chat_message message = {"user", content};
    sampler_options greedy = sampler_options_default();
    greedy.temperature = 0;
    const generate_options go = {.n_predict = n_predict, .emit = append, .ctx = out};
    ok(sampler_new(&sm, &greedy, engine_vocab(e), engine_n_vocab(e), &err), &err);
    ok(stream_new(&st, engine_vocab(e), NULL, 0, &err), &err);
    ok(session_new(&s, e, &err), &err);
    ok(generate_prompt(e, &message, 1, true, false, &tokens, &err), &err);
    ok(generate(e, s, sm, st, &tokens, &go, &stats, &err), &err);
    session_free(s);
    stream_free(st);
    sampler_free(sm);
    token_list_free(&tokens);
    return stats;
}

/* Answers of the first prompts, one after another; n_breaks counts line breaks that became spaces. */
static void answer_alone(int32_t n_predict, answers *a, outputs_stats *sum, int *n_breaks)
{
    engine *e = open_engine(1);
    str rest = str_of(prompts), line;
    *sum = (outputs_stats){.n_prompts = PROMPTS};
    *n_breaks = 0;
    while (lines_next(&rest, &line)) {
        strbuf *text = &a->text[a->n++];
        const generate_stats s = alone(e, line, n_predict, text);
        sum->n_answers++;
        sum->n_generated += s.n_generated;
        sum->n_prompt_tokens += s.n_prompt;
        sum->n_ended += strcmp(s.finish, "end") == 0;
        for (size_t i = 0; i < text->n; i++)
            if (text->p[i] == '\n' || text->p[i] == '\r') {
                text->p[i] = ' ';
                ++*n_breaks;
            }
    }
    assert_int_equal(PROMPTS, a->n);
    engine_close(e);
}

static void check_same(const answers *wanted, const answers *found, int from)
{
    assert_int_equal(PROMPTS - from, found->n);
    for (int i = from; i < PROMPTS; i++) {
        const str a = strbuf_str(&wanted->text[i]), b = strbuf_str(&found->text[i - from]);
        if (!str_equal(a, b))
            fail_msg("prompt %d: wanted '%.*s', found '%.*s'", i + 1, STR_ARG(a), STR_ARG(b));
    }
}

static void check_batches(int32_t n_predict, int *n_breaks, outputs_stats *sum)
{
    answers wanted, found;
    outputs_stats stats;
    dil_error err;
    answers_begin(&wanted);
    answer_alone(n_predict, &wanted, sum, n_breaks);
    for (int32_t n = 1; n <= 16; n = 2 * n + (n > 2)) { /* 1, 2, 4, 9: fewer, as many and more than prompts at once */
        engine *e = open_engine(n);
        answers_begin(&found);
        const outputs_options o = options(&found, n_predict, n);
        ok(evaluate_outputs(e, str_of(prompts), &o, &stats, &err), &err);
        check_same(&wanted, &found, 0);
        assert_int_equal(sum->n_answers, stats.n_answers);
        assert_int_equal(sum->n_generated, stats.n_generated);
        assert_int_equal(sum->n_prompt_tokens, stats.n_prompt_tokens);
        assert_int_equal(sum->n_ended, stats.n_ended);
        assert_memory_equal(&stats, &found.last, sizeof stats);
        answers_end(&found);
        engine_close(e);
    }
    answers_end(&wanted);
}

static void test_batches(void **state)
{
    (void)state;
    int n_breaks, breaks_of_all = 0;
    outputs_stats one, some, all;
    check_batches(1, &n_breaks, &one);
    assert_true(one.n_generated + one.n_ended == PROMPTS);
    check_batches(20, &breaks_of_all, &some);
    assert_true(some.n_generated > 10 * PROMPTS);
    check_batches(-1, &n_breaks, &all); /* until the end or the context is full */
    assert_true(breaks_of_all + n_breaks > 0 && all.n_generated > some.n_generated);
}

static void test_skip(void **state)
{
    (void)state;
    answers wanted, found;
    outputs_stats stats;
    dil_error err;
    engine *e = open_engine(3);
    answers_begin(&wanted);
    outputs_options o = options(&wanted, 12, 3);
    ok(evaluate_outputs(e, str_of(prompts), &o, &stats, &err), &err);
    for (int skip = 0; skip <= PROMPTS; skip += 3) {
        answers_begin(&found);
        o = options(&found, 12, 3);
        o.n_skip = skip == 9 ? PROMPTS : skip;
        ok(evaluate_outputs(e, str_of(prompts), &o, &stats, &err), &err);
        check_same(&wanted, &found, o.n_skip);
        assert_int_equal(PROMPTS, stats.n_answers);
        answers_end(&found);
    }
    answers_end(&wanted);
    engine_close(e);
}

static void test_lines(void **state)
{
    (void)state;
    static const char *const wanted[] = {"a", "", " b\r c", "\r", "", "end"};
    str text = STR("a\r\n\n b\r c\n\r\r\n\r\nend\r"), line;
    assert_int_equal(6, lines_count(text));
    for (int i = 0; i < 6; i++)
        assert_true(lines_next(&text, &line) && str_equal(line, str_of(wanted[i])));
    assert_false(lines_next(&text, &line));
    assert_int_equal(0, lines_count(STR("")));
    assert_int_equal(1, lines_count(STR("\n")));
    assert_int_equal(2, lines_count(STR("a\n\r")));
}

/* What the cache holds of a prompt is not run again. */
static void test_reused(void **state)
{
    (void)state;
    answers a;
    outputs_stats stats;
    dil_error err;
    engine *e = open_engine(1);
    answers_begin(&a);
    const outputs_options o = options(&a, 2, 1);
    ok(evaluate_outputs(e, STR("some words\nsome words\n"), &o, &stats, &err), &err);
    assert_int_equal(stats.n_prompt_tokens / 2 - 1, stats.n_reused); /* the last token is run for its logits */
    assert_true(str_equal(strbuf_str(&a.text[0]), strbuf_str(&a.text[1])));
    answers_end(&a);
    engine_close(e);
}

/* An engine with room for less than was asked of the passes answers all the same. */
static void test_little_room(void **state)
{
    (void)state;
    answers a;
    outputs_stats stats;
    dil_error err;
    engine *e;
    const engine_options eo = {.n_threads = 1, .context = CONTEXT, .n_sessions = 8, .micro_batch = 2};
    ok(engine_open(&e, path, &eo, &err), &err);
    answers_begin(&a);
    const outputs_options o = options(&a, 5, 8);
    ok(evaluate_outputs(e, str_of(prompts), &o, &stats, &err), &err);
    assert_int_equal(PROMPTS, a.n);
    answers_end(&a);
    engine_close(e);
}

static void test_errors(void **state)
{
    (void)state;
    answers a;
    outputs_stats stats = {.n_answers = 77};
    dil_error err;
    engine *e = open_engine(2);
    char wide[CONTEXT * 4];
    answers_begin(&a);
    outputs_options o = options(&a, 3, 2);
    fails(evaluate_outputs(e, STR("fine\na\0b\n"), &o, &stats, &err), &err, DIL_FORMAT, "prompt 2: wanted UTF-8 without NUL");
    fails(evaluate_outputs(e, STR("fine\nfine\n\xFFx\n"), &o, &stats, &err), &err, DIL_FORMAT, "prompt 3: wanted UTF-8");
    memset(wide, 'x', sizeof wide);
    fails(evaluate_outputs(e, (str){wide, sizeof wide}, &o, &stats, &err), &err, DIL_LIMIT,
          "prompt 1: prompt: wanted 1..96 tokens");
    fails(evaluate_outputs(e, STR(""), &o, &stats, &err), &err, DIL_FORMAT, "wanted 1..16777216 lines, found 0");
    o.n_skip = 3;
    fails(evaluate_outputs(e, STR("a\nb\n"), &o, &stats, &err), &err, DIL_BAD_ARGUMENT, "0..2 prompts, found 3");
    o = options(&a, 0, 2);
    fails(evaluate_outputs(e, STR("a"), &o, &stats, &err), &err, DIL_BAD_ARGUMENT, "found 0 and 2");
    o = options(&a, 1, 0);
    fails(evaluate_outputs(e, STR("a"), &o, &stats, &err), &err, DIL_BAD_ARGUMENT, "found 1 and 0");
    a.n_reports = a.n = 0;
    a.last = (outputs_stats){0};
    a.most_reports = 4;
    o = options(&a, 3, 2);
    fails(evaluate_outputs(e, str_of(prompts), &o, &stats, &err), &err, DIL_CANCELLED, "of 11 answers");
    assert_true(a.n_reports == 4 && a.n == a.last.n_answers && a.n > 0);
    answers_end(&a);
    answers_begin(&a);
    a.fail_at = 3;
    fails(evaluate_outputs(e, str_of(prompts), &o, &stats, &err), &err, DIL_IO, "the disk is full");
    assert_int_equal(2, a.n);
    assert_int_equal(77, stats.n_answers);
    answers_end(&a);
    engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines), cmocka_unit_test(test_batches),     cmocka_unit_test(test_reused),
        cmocka_unit_test(test_skip),  cmocka_unit_test(test_little_room), cmocka_unit_test(test_errors),
    };
    return leaks_run_group_tests(tests, prepare, clear);
}
