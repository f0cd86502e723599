/* Torture: the n-th allocation fails, then the n-th call of the operating system, for n = 0, 1, 2, ... until all goes well.
 * Each time: the right status with a text, nothing leaked, outputs untouched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>

#include "base/os.h"
#include "engine/engine.h"
#include "evaluate/evaluate.h"
#include "evaluate/outputs.h"
#include "tiny_model.h"

#define MOST_FAILURES 20000
#define SCRIPT_TOKENS 70

static size_t held_at_start[MEM_TAGS];
static char model_path[600], gemma_path[600], out_path[600];

static int prepare(void **state)
{
    (void)state;
    tiny_model llama = tiny_llama(DIL_TYPE_Q8_0), gemma = tiny_gemma(DIL_TYPE_F32);
    tiny_write(tiny_path(model_path, "torture"), &llama);
    tiny_write(tiny_path(gemma_path, "torture-gemma"), &gemma);
    tiny_path(out_path, "torture-out");
    for (int tag = 0; tag < MEM_TAGS; tag++)
        held_at_start[tag] = mem_bytes((mem_tag)tag);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    return unlink(model_path) | unlink(gemma_path);
}

typedef dil_status (*script)(dil_error *err);

/* Descriptors this process holds. */
static int open_files(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Runs the script with ever later failures; returns how many there were. */
static int torture(script run, void (*inject)(int64_t), dil_status wanted)
{
    int files = open_files();
    for (int n = 0; n < MOST_FAILURES; n++) {
        dil_error err = {.code = DIL_OK};
        inject(n);
        dil_status status = run(&err);
        inject(-1);
        for (int tag = 0; tag < MEM_TAGS; tag++)
            if (mem_bytes((mem_tag)tag) != held_at_start[tag])
                fail_msg("failure %d (%s): %zd bytes of '%s' leaked", n, err.text,
                         (ptrdiff_t)(mem_bytes((mem_tag)tag) - held_at_start[tag]), mem_tag_name((mem_tag)tag));
        if (open_files() != files)
            fail_msg("failure %d (%s): %d open files, %d before", n, err.text, open_files(), files);
        if (status == DIL_OK)
            return n;
        if (status != wanted || err.code != wanted || err.text[0] == '\0')
            fail_msg("failure %d: wanted '%s', found '%s': %s", n, status_name(wanted), status_name(status), err.text);
    }
    fail_msg("it never succeeds");
    return 0;
}

static void torture_both(script run, int least_allocations, int least_calls)
{
    int allocations = torture(run, mem_inject_failure, DIL_NO_MEMORY);
    int calls = torture(run, os_inject_failure, DIL_IO);
    if (allocations < least_allocations || calls < least_calls)
        fail_msg("wanted at least %d allocations and %d system calls, found %d and %d", least_allocations, least_calls, allocations,
                 calls);
}

/* ---- the life of an engine ---- */

static dil_status use_session(engine *e, session *s, dil_error *err)
{
    token_id tokens[SCRIPT_TOKENS];
    const float *logits;
    for (int i = 0; i < SCRIPT_TOKENS; i++)
        tokens[i] = 3 + i;
    DIL_TRY(session_sync(s, tokens, SCRIPT_TOKENS - 3, &logits, NULL, NULL, NULL, err));
    for (int i = SCRIPT_TOKENS - 3; i < SCRIPT_TOKENS; i++)
        DIL_TRY(engine_step(e, &s, &tokens[i], 1, &logits, err));
    return DIL_OK;
}

static dil_status run_engine(const char *path, dil_error *err)
{
    engine *e = NULL;
    session *s = NULL;
    engine_options o = {.n_threads = 3, .context = 128, .micro_batch = 32};
    dil_status status = engine_open(&e, path, &o, err);
    if (status != DIL_OK) {
        assert_null(e);
        return status;
    }
    status = session_new(&s, e, err);
    assert_true(status == DIL_OK || !s);
    if (status == DIL_OK)
        status = use_session(e, s, err);
    session_free(s);
    engine_close(e);
    return status;
}

static dil_status run_llama(dil_error *err) { return run_engine(model_path, err); }
static dil_status run_gemma(dil_error *err) { return run_engine(gemma_path, err); }

static void engine_life(void **state)
{
    (void)state;
    torture_both(run_llama, 20, 4);
    torture_both(run_gemma, 20, 4);
}

static dil_status run_plan(dil_error *err)
{
    engine_plan plan = {.context = 77};
    dil_status status = engine_plan_file(&plan, model_path, NULL, err);
    assert_true(status == DIL_OK || plan.context == 77);
    return status;
}

static void planning(void **state)
{
    (void)state;
    torture_both(run_plan, 5, 2);
}

/* ---- writing a file ---- */

static dil_status write_file(gguf_writer *w, dil_error *err)
{
    static const float values[64] = {1, 2, 3};
    static const str words[2] = {{"one", 3}, {"two", 3}};
    DIL_TRY(gguf_writer_set_str(w, "general.architecture", STR("llama"), err));
    DIL_TRY(gguf_writer_set_strings(w, "some.words", words, 2, err));
    DIL_TRY(gguf_writer_set_f32_array(w, "some.numbers", values, 64, err));
    DIL_TRY(gguf_writer_set_u32(w, "one.number", 5, err));
    DIL_TRY(gguf_writer_add_tensor(w, STR("a"), DIL_TYPE_F32, 1, (const uint64_t[]){64}, err));
    DIL_TRY(gguf_writer_add_tensor(w, STR("b"), DIL_TYPE_F32, 2, (const uint64_t[]){16, 2}, err));
    DIL_TRY(gguf_writer_data(w, values, sizeof values, err));
    return gguf_writer_data(w, values, sizeof values / 2, err);
}

static dil_status run_writer(dil_error *err)
{
    gguf_writer *w;
    dil_status status = gguf_writer_new(&w, out_path, err);
    if (status == DIL_OK) {
        status = write_file(w, err);
        if (status == DIL_OK)
            status = gguf_writer_finish(w, err);
        else
            gguf_writer_abort(w);
    }
    assert_int_equal(os_exists(out_path), status == DIL_OK); /* all of it or nothing */
    char part[700];
    (void)snprintf(part, sizeof part, "%s.part-%ld", out_path, os_process_id());
    assert_false(os_exists(part));
    if (status == DIL_OK)
        (void)unlink(out_path);
    return status;
}

static void writing(void **state)
{
    (void)state;
    torture_both(run_writer, 3, 3);
}

/* ---- a vocabulary and a text ---- */

static dil_status run_vocab(dil_error *err)
{
    gguf *g;
    vocab *v = NULL;
    token_list list = {0};
    DIL_TRY(gguf_open(&g, model_path, NULL, err));
    vocab_source source;
    vocab_source_init(&source);
    source.model = STR("llama");
    dil_status status = gguf_get_strings(g, "tokenizer.ggml.tokens", &source.tokens, &source.n_tokens, err);
    if (status == DIL_OK)
        status = gguf_get_f32_array(g, "tokenizer.ggml.scores", &source.scores, &source.n_scores, err);
    if (status == DIL_OK)
        status = gguf_get_i32_array(g, "tokenizer.ggml.token_type", &source.types, &source.n_types, err);
    if (status == DIL_OK)
        status = vocab_new(&v, &source, err);
    if (status == DIL_OK)
        status = vocab_encode(v, STR("a text of words, \xc3\xa7ok g\xc3\xbczel </s> and more"), true, true, &list, err);
    token_list_free(&list);
    vocab_free(v);
    gguf_close(g);
    return status;
}

static void vocabulary(void **state)
{
    (void)state;
    torture_both(run_vocab, 5, 2);
}

/* ---- measuring ---- */

static dil_status with_engine(dil_status (*use)(engine *, dil_error *), dil_error *err)
{
    engine *e;
    engine_options o = {.n_threads = 1, .context = 64, .n_sessions = 2};
    DIL_TRY(engine_open(&e, model_path, &o, err));
    dil_status status = use(e, err);
    engine_close(e);
    return status;
}

static const char *const text = "some words that are long enough for a few small chunks of a text, and then some more of them";

static dil_status measure(engine *e, dil_error *err)
{
    perplexity_options o = {.context = 32, .save_base = out_path};
    perplexity_result r;
    divergence_result d;
    dil_status status = evaluate_perplexity(e, str_of(text), &o, &r, err);
    assert_int_equal(os_exists(out_path), status == DIL_OK);
    if (status == DIL_OK) {
        status = evaluate_divergence(e, out_path, 0, NULL, NULL, &d, err);
        (void)unlink(out_path);
    }
    return status;
}

static dil_status measure_more(engine *e, dil_error *err)
{
    static const char tasks[] = "a dog\n1\nruns\nsleeps well\nflies\nswims\n";
    static const token_id tokens[] = {1, 50, 60, 70};
    choice_result c;
    DIL_TRY(evaluate_hellaswag(e, str_of(tasks), 0, NULL, NULL, &c, err));
    dil_status status = evaluate_logits(e, tokens, 4, out_path, err);
    assert_int_equal(os_exists(out_path), status == DIL_OK);
    if (status == DIL_OK)
        (void)unlink(out_path);
    return status;
}

static dil_status take_answer(void *ctx, str answer, dil_error *err)
{
    (void)answer;
    (void)err;
    ++*(int *)ctx;
    return DIL_OK;
}

static dil_status answer(engine *e, dil_error *err)
{
    int n = 0;
    outputs_stats stats = {.n_answers = 77};
    const outputs_options o = {.n_predict = 4, .n_parallel = 2, .plain = true, .emit = take_answer, .ctx = &n};
    const dil_status status = evaluate_outputs(e, STR("one\ntwo\nthree\n"), &o, &stats, err);
    assert_int_equal(status == DIL_OK ? 3 : 77, stats.n_answers);
    assert_true(status != DIL_OK || n == 3);
    return status;
}

static dil_status run_answer(dil_error *err) { return with_engine(answer, err); }
static dil_status run_measure(dil_error *err) { return with_engine(measure, err); }
static dil_status run_measure_more(dil_error *err) { return with_engine(measure_more, err); }

static void measuring(void **state)
{
    (void)state;
    torture_both(run_measure, 30, 8);
    torture_both(run_measure_more, 30, 6);
    torture_both(run_answer, 30, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_life), cmocka_unit_test(planning),  cmocka_unit_test(writing),
        cmocka_unit_test(vocabulary),  cmocka_unit_test(measuring),
    };
    return cmocka_run_group_tests(tests, prepare, clear);
}
