/* The public calls on a tiny model: what a program that embeds the library relies on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dilmodeli.h"
#include "tiny_model.h"

static char path[600];
static dil_engine *the_engine;

static int open_engine(void **state)
{
    (void)state;
    tiny_model m = tiny_llama(DIL_TYPE_Q8_0);
    dil_engine_options o = dil_engine_options_default();
    dil_error err = {0};
    tiny_write(tiny_path(path, "api.gguf"), &m);
    o.n_context = 128;
    o.n_sessions = 2;
    o.n_threads = 2;
    if (dil_engine_open(&the_engine, path, &o, &err) != DIL_OK) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int close_engine(void **state)
{
    (void)state;
    dil_engine_close(the_engine);
    return unlink(path);
}

static void versions(void **state)
{
    (void)state;
    assert_string_equal(dil_version(), DIL_VERSION);
    assert_int_equal(dil_abi(), DIL_ABI);
    assert_string_equal(dil_status_name(DIL_NO_MEMORY), "out of memory");
}

static void info(void **state)
{
    (void)state;
    dil_model_info i = {.struct_size = sizeof i}, old = {.struct_size = offsetof(dil_model_info, n_params), .n_vocab = 77};
    dil_error err = {0};
    assert_int_equal(dil_engine_info(the_engine, &i, &err), DIL_OK);
    assert_string_equal(i.architecture, "llama");
    assert_int_equal(i.n_context, 128);
    assert_true(i.n_params > 1000 && i.packed_bytes > 1000 && i.kv_bytes > 0);
    assert_int_equal(dil_engine_info(the_engine, &old, &err),
                     DIL_OK); /* an older, shorter struct: nothing past its end is written */
    assert_string_equal(old.architecture, "llama");
    assert_int_equal(old.n_vocab, 77);
    old.struct_size = 0;
    assert_int_equal(dil_engine_info(the_engine, &old, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "struct_size"));
}

static void text(void **state)
{
    (void)state;
    int32_t tokens[64];
    char back[64];
    size_t n = 0, n_bytes = 0;
    dil_error err = {0};
    assert_int_equal(dil_tokenize(the_engine, "hello there", 11, false, false, tokens, 64, &n, &err), DIL_OK);
    assert_true(n > 0 && n <= 12);
    assert_int_equal(dil_detokenize(the_engine, tokens, n, false, back, sizeof back, &n_bytes, &err), DIL_OK);
    assert_int_equal(n_bytes, 11);
    assert_memory_equal(back, "hello there", 11);
    size_t need = 0;
    assert_int_equal(dil_tokenize(the_engine, "hello there", 11, false, false, tokens, 1, &need, &err), DIL_LIMIT);
    assert_int_equal(need, n);
    assert_int_equal(dil_tokenize(the_engine, NULL, 3, false, false, tokens, 64, &n, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(dil_tokenize(NULL, "x", 1, false, false, tokens, 64, &n, &err), DIL_BAD_ARGUMENT);
}

static bool collect(void *user, const char *piece, size_t n)
{
    strncat(user, piece, n);
    return true;
}

static bool refuse(void *user, const char *piece, size_t n)
{
    (void)piece, (void)n;
    return ++*(int *)user < 2;
}

static void generation(void **state)
{
    (void)state;
    dil_session *s = NULL;
    dil_generation g = dil_generation_default();
    dil_generation_result first, second;
    dil_error err = {0};
    char a[4096] = "", b[4096] = "";
    int32_t prompt[] = {1, 20, 30, 40};
    assert_int_equal(dil_session_new(&s, the_engine, &err), DIL_OK);
    g.max_tokens = 20;
    g.sampling.seed = 7;
    g.on_text = collect;
    g.user = a;
    assert_int_equal(dil_generate(s, prompt, 4, &g, &first, &err), DIL_OK);
    g.user = b;
    assert_int_equal(dil_generate(s, prompt, 4, &g, &second, &err), DIL_OK);
    assert_string_equal(a, b); /* the same seed, now with a reused prefix */
    assert_int_equal(first.n_reused, 0);
    assert_int_equal(second.n_reused, 3);
    assert_int_equal(first.n_generated, second.n_generated);
    int calls = 0;
    g.on_text = refuse;
    g.user = &calls;
    assert_int_equal(dil_generate(s, prompt, 4, &g, &second, &err), DIL_OK);
    assert_string_equal(second.finish, "cancelled");
    g.sampling.top_p = NAN;
    assert_int_equal(dil_generate(s, prompt, 4, &g, NULL, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "top_p"));
    dil_session_free(s);
}

/* Two sessions stepped together give what each gives alone. */
static void steps(void **state)
{
    (void)state;
    dil_session *s[2];
    dil_error err = {0};
    const float *logits, *both[2];
    int32_t prompts[2][3] = {{1, 5, 9}, {1, 300, 270}}, next[2] = {11, 12};
    dil_model_info i = {.struct_size = sizeof i};
    assert_int_equal(dil_engine_info(the_engine, &i, &err), DIL_OK);
    size_t bytes = (size_t)i.n_vocab * sizeof(float);
    float *alone[2] = {malloc(bytes), malloc(bytes)};
    for (int j = 0; j < 2; j++) {
        int32_t whole[4];
        memcpy(whole, prompts[j], sizeof prompts[j]);
        whole[3] = next[j];
        assert_int_equal(dil_session_new(&s[j], the_engine, &err), DIL_OK);
        assert_int_equal(dil_session_sync(s[j], whole, 4, &logits, &err), DIL_OK);
        memcpy(alone[j], logits, bytes);
        assert_int_equal(dil_session_sync(s[j], prompts[j], 3, &logits, &err), DIL_OK);
        assert_int_equal(dil_session_n_tokens(s[j]), 3);
    }
    assert_int_equal(dil_engine_step(the_engine, s, next, 2, both, &err), DIL_OK);
    for (int j = 0; j < 2; j++) {
        assert_memory_equal(both[j], alone[j], bytes);
        dil_session_free(s[j]);
        free(alone[j]);
    }
}

static void bad_calls(void **state)
{
    (void)state;
    dil_engine *e = NULL;
    dil_engine_options o = dil_engine_options_default();
    dil_error err = {0};
    assert_int_equal(dil_engine_open(&e, "/nonexistent.gguf", NULL, &err), DIL_IO);
    assert_non_null(strstr(err.text, "/nonexistent.gguf"));
    assert_int_equal(dil_engine_open(NULL, path, NULL, &err), DIL_BAD_ARGUMENT);
    o.kv_type = "q4_k";
    assert_int_equal(dil_engine_open(&e, path, &o, &err), DIL_BAD_ARGUMENT);
    assert_non_null(strstr(err.text, "q4_k"));
    o = dil_engine_options_default();
    o.cpu_level = "quantum";
    assert_int_equal(dil_engine_open(&e, path, &o, &err), DIL_BAD_ARGUMENT);
    o = dil_engine_options_default();
    o.memory_bytes = 1000;
    assert_int_equal(dil_engine_open(&e, path, &o, &err), DIL_NO_MEMORY);
    assert_null(e);
    dil_engine_close(NULL);
    dil_session_free(NULL);
}

/* Experts on disk and certified routing: the same text. */
static void experts(void **state)
{
    (void)state;
    char moe[600], cache[600], *wanted = NULL;
    tiny_model m = tiny_moe(DIL_TYPE_Q8_0, false);
    tiny_write(tiny_path(moe, "moe.gguf"), &m);
    assert_int_equal(setenv("XDG_CACHE_HOME", tiny_path(cache, "cache"), 1), 0);
    for (int i = 0; i < 3; i++) {
        dil_engine *e;
        dil_error err;
        dil_engine_options o = dil_engine_options_default();
        o.n_threads = 2;
        o.n_context = 128;
        o.route_local = i == 1;
        o.experts_memory = i == 2 ? 3 << 20 : 0;
        assert_int_equal(dil_engine_open(&e, moe, &o, &err), DIL_OK);
        dil_model_info mi = {.struct_size = sizeof mi};
        assert_int_equal(dil_engine_info(e, &mi, &err), DIL_OK);
        assert_int_equal(mi.n_experts, 16);
        assert_int_equal(mi.n_experts_used, 3);
        assert_int_equal(mi.experts_memory, o.experts_memory);
        dil_session *s;
        int32_t tokens[20];
        const float *logits;
        for (int t = 0; t < 20; t++)
            tokens[t] = 3 + 11 * t;
        assert_int_equal(dil_session_new(&s, e, &err), DIL_OK);
        assert_int_equal(dil_session_sync(s, tokens, 20, &logits, &err), DIL_OK);
        size_t n = 301 * sizeof *logits;
        if (i == 0 && (wanted = malloc(n)))
            memcpy(wanted, logits, n);
        assert_memory_equal(logits, wanted, n);
        dil_session_free(s);
        dil_engine_close(e);
    }
    free(wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions), cmocka_unit_test(info),      cmocka_unit_test(text),    cmocka_unit_test(generation),
        cmocka_unit_test(steps),    cmocka_unit_test(bad_calls), cmocka_unit_test(experts),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
