/*
 * Chat templates: choosing a format, errors, limits, memory, threads. Equality with Jinja2 is
 * tests/python/test_chat_jinja.py.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/os.h"
#include "tokens/chat.h"
#include "tokens/chat_builtin.h"

static const chat_message turns[] = {
    {"system", "Be brief."},
    {"user", " Hi "},
    {"assistant", "Hello."},
    {"user", "Bye"},
};

static void assert_renders(const char *source, bool fallback, const char *kind, const char *want)
{
    chat_template *t = NULL;
    strbuf out = STRBUF(1 << 20);
    dil_error err = {DIL_OK, ""};
    if (chat_template_new(&t, str_of(source), STR("<s>"), STR("</s>"), fallback, &err) != DIL_OK)
        fail_msg("%s", err.text);
    assert_string_equal(chat_template_kind(t), kind);
    if (chat_template_render(t, turns, 4, true, &out, &err) != DIL_OK)
        fail_msg("%s", err.text);
    assert_string_equal(out.p, want);
    strbuf_free(&out);
    chat_template_free(t);
}

static void builtin_formats(void **state)
{
    (void)state;
    static const struct {
        const char *marker, *kind, *want;
    } cases[] = {
        {"", "plain", "Be brief.\n Hi \nHello.\nBye"},
        {"<|im_start|>", "chatml",
         "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
         "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"},
        {"<|start_header_id|>", "llama3",
         "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
        {"<start_of_turn>", "gemma",
         "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
         "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"},
        {"[INST] ", "mistral-v1", "<s>[INST] Be brief.\n\n Hi  [/INST]Hello.</s>[INST] Bye [/INST]"},
        {" [INST] ", "mistral-v1", "<s> [INST] Be brief.\n\n Hi  [/INST] Hello.</s> [INST] Bye [/INST]"},
        {"[INST] [AVAILABLE_TOOLS]", "mistral-v3", "<s>[INST]  Hi [/INST] Hello.</s>[INST] Be brief.\n\nBye[/INST]"},
        {"[INST][AVAILABLE_TOOLS]", "mistral-v3", "<s>[INST] Hi [/INST]Hello.</s>[INST]Be brief.\n\nBye[/INST]"},
        {"[INST] [SYSTEM_PROMPT] ", "mistral-v7",
         "<s>[SYSTEM_PROMPT] Be brief.[/SYSTEM_PROMPT][INST]  Hi [/INST] Hello.</s>[INST] Bye[/INST]"},
        {"[INST] <<SYS>>", "llama2", "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Hello. </s><s>[INST] Bye [/INST]"},
        {"<|assistant|><|end|>", "phi3",
         "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi <|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n"},
        {"<|assistant|><|user|>", "zephyr",
         "<|system|>\nBe brief.</s>\n<|user|>\n Hi </s>\n<|assistant|>\nHello.</s>\n<|user|>\nBye</s>\n<|assistant|>\n"},
        {"<|START_OF_TURN_TOKEN|>", "command-r",
         "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
         "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hello.<|END_OF_TURN_TOKEN|>"
         "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Bye<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"},
        {"<|start_of_role|>", "granite",
         "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|> Hi <|end_of_text|>\n"
         "<|start_of_role|>assistant<|end_of_role|>Hello.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char broken[100] = "{% if broken %}"; /* does not parse: the format by its marker, with or without the engine */
        if (cases[i].marker[0])
            strcat(broken, cases[i].marker);
        assert_renders(cases[i].marker[0] ? broken : "", true, cases[i].kind, cases[i].want);
    }
    assert_renders("{% if broken %}", true, "plain", "Be brief.\n Hi \nHello.\nBye");
}

static void default_system_of_chatml(void **state)
{
    (void)state;
    const str source = STR("'<|im_start|>system' {{ x }} '<|im_start|>system\\nYou are small.\\nVery.<|im_end|>\\n'");
    strbuf out = STRBUF(1 << 16);
    chat_conversation c = {turns + 3, 1, false, source, STR(""), STR(""), "", ""};
    chat_builtin_render(chat_builtin_find(source), &c, &out);
    assert_string_equal(out.p, "<|im_start|>system\nYou are small.\nVery.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n");
    strbuf_free(&out);
}

static void nothing_recognised(void **state)
{
    (void)state;
    chat_template *t = NULL;
    dil_error err = {DIL_OK, ""};
    dil_status status = chat_template_new(&t, STR("{% if %}"), STR(""), STR(""), false, &err);
    assert_true(status == DIL_FORMAT || status == DIL_UNSUPPORTED);
    assert_null(t);
    assert_non_null(strstr(err.text, "chat template"));
    static char large[(1 << 20) + 2];
    memset(large, 'x', sizeof large);
    assert_int_equal(chat_template_new(&t, (str){large, sizeof large}, STR(""), STR(""), true, &err), DIL_LIMIT);
    assert_null(t);
}

static void memory_runs_out_anywhere(void **state)
{
    (void)state;
    size_t held = mem_bytes(MEM_TEXT);
    int failures = 0;
    for (int64_t after = 0; after < 100; after++) {
        chat_template *t = NULL;
        dil_error err;
        strbuf out = STRBUF(1 << 20);
        mem_inject_failure(after);
        dil_status status =
            chat_template_new(&t, STR("{{ messages[1].content * 5000 }}<|im_start|>"), STR(""), STR(""), true, &err);
        if (status == DIL_OK)
            status = chat_template_render(t, turns, 4, true, &out, &err);
        mem_inject_failure(-1);
        assert_true(status == DIL_OK || (status == DIL_NO_MEMORY && out.n == 0));
        failures += status != DIL_OK;
        strbuf_free(&out);
        chat_template_free(t);
        assert_true(mem_bytes(MEM_TEXT) == held);
    }
    assert_true(failures >= 2 && failures < 50);
}

#ifdef DIL_HAVE_BRIDGE

static chat_template *jinja(const char *source)
{
    chat_template *t = NULL;
    dil_error err = {DIL_OK, ""};
    if (chat_template_new(&t, str_of(source), STR("<s>"), STR("</s>"), false, &err) != DIL_OK)
        fail_msg("%s", err.text);
    assert_string_equal(chat_template_kind(t), "jinja");
    return t;
}

static void jinja_renders_and_appends(void **state)
{
    (void)state;
    chat_template *t = jinja("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}"
                             "{% if add_generation_prompt %}[go]{% endif %}");
    strbuf out = STRBUF(1 << 16);
    dil_error err;
    strbuf_add_str(&out, STR("before "));
    assert_int_equal(chat_template_render(t, turns, 2, true, &out, &err), DIL_OK);
    assert_string_equal(out.p, "before <s>[system]Be brief.[user]Hi[go]");
    assert_int_equal(chat_template_render_json(t, "[{\"role\":\"x\",\"content\":\"y\"}]", NULL, NULL, false, &out, &err), DIL_OK);
    assert_string_equal(out.p, "before <s>[system]Be brief.[user]Hi[go]<s>[x]y");
    strbuf_free(&out);
    chat_template_free(t);
}

static void failures_leave_the_output(void **state)
{
    (void)state;
    chat_template *t = jinja("some text\n{{ raise_exception('no system role') }}");
    strbuf out = STRBUF(1 << 16);
    dil_error err;
    strbuf_add_str(&out, STR("kept"));
    assert_int_equal(chat_template_render(t, turns, 4, true, &out, &err), DIL_FORMAT);
    assert_string_equal(out.p, "kept");
    assert_non_null(strstr(err.text, "line 2: no system role"));
    assert_int_equal(chat_template_render_json(t, "[1,", NULL, NULL, true, &out, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(chat_template_render_json(t, "[]", "{", NULL, true, &out, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(chat_template_render_json(t, "[]", NULL, "[1]", true, &out, &err), DIL_BAD_ARGUMENT);
    assert_string_equal(out.p, "kept");
    strbuf_free(&out);
    chat_template_free(t);
}

static void small_buffers_are_respected(void **state)
{
    (void)state;
    chat_template *t = jinja("0123456789");
    strbuf out = STRBUF(5);
    dil_error err;
    assert_int_equal(chat_template_render(t, turns, 1, true, &out, &err), DIL_NO_MEMORY);
    assert_int_equal(out.n, 0);
    strbuf_free(&out);
    chat_template_free(t);
}

/* A template that does not end is given up after its time, and never started again. */
static void given_up_once(void **state)
{
    (void)state;
    chat_template *t = jinja("{% set ns = namespace(s=['x'], t=['x']) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}"
                             "{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}");
    strbuf out = STRBUF(1 << 16);
    dil_error err;
    uint64_t start = os_time_ns();
    assert_int_equal(chat_template_render(t, turns, 1, true, &out, &err), DIL_LIMIT);
    uint64_t first = os_time_ns() - start;
    assert_int_equal(chat_template_render(t, turns, 1, true, &out, &err), DIL_LIMIT);
    uint64_t second = os_time_ns() - start - first;
    assert_true(first < 120000000000u && second < first / 4);
    assert_int_equal(out.n, 0);
    strbuf_free(&out);
    chat_template_free(t);
}

static void *render_often(void *arg)
{
    const chat_template *t = arg;
    size_t failed = 0;
    for (int i = 0; i < 50; i++) {
        strbuf out = STRBUF(1 << 16);
        failed += chat_template_render(t, turns, 4, true, &out, NULL) != DIL_OK || strcmp(out.p, "4 Bye True") != 0;
        strbuf_free(&out);
    }
    return failed ? arg : NULL;
}

/* One template, several threads, each with a stack of 64 KiB: the depth is the worker's. */
static void many_threads_small_stacks(void **state)
{
    (void)state;
    chat_template *t = jinja("{{ messages | length }} {{ messages[-1].content }} {{ add_generation_prompt }}");
    pthread_t threads[4];
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 << 10);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], &attr, render_often, t), 0);
    for (int i = 0; i < 4; i++) {
        void *failed = t;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    pthread_attr_destroy(&attr);
    chat_template_free(t);
}

#else

static void without_the_engine(void **state)
{
    (void)state;
    chat_template *t = NULL;
    dil_error err = {DIL_OK, ""};
    strbuf out = STRBUF(1 << 16);
    assert_int_equal(chat_template_new(&t, STR("{{ x }}<|im_start|>"), STR(""), STR(""), false, &err), DIL_OK);
    assert_string_equal(chat_template_kind(t), "chatml");
    assert_int_equal(chat_template_render_json(t, "[]", NULL, NULL, true, &out, &err), DIL_UNSUPPORTED);
    chat_template_free(t);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builtin_formats),
        cmocka_unit_test(default_system_of_chatml),
        cmocka_unit_test(nothing_recognised),
        cmocka_unit_test(memory_runs_out_anywhere),
#ifdef DIL_HAVE_BRIDGE
        cmocka_unit_test(jinja_renders_and_appends),
        cmocka_unit_test(failures_leave_the_output),
        cmocka_unit_test(small_buffers_are_respected),
        cmocka_unit_test(given_up_once),
        cmocka_unit_test(many_threads_small_stacks),
#else
        cmocka_unit_test(without_the_engine),
#endif
    };
    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}
