/* The pre-tokenisers: every rule compiles, keeps every byte, cuts known texts as its model does, and bears hostile text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tokens/pretokenize.h"

/* Words joined by '|', or only their number of bytes. */
typedef struct cuts {
    strbuf joined;
    size_t n_words, n_bytes;
    const char *next;
} cuts;

static dil_status collect(void *ctx, const char *p, size_t n)
{
    cuts *c = ctx;
    assert_true(n > 0);
    assert_true(c->next == NULL || c->next == p); /* in order, without gaps */
    c->next = p + n;
    c->n_bytes += n;
    if (c->n_words++)
        strbuf_add_char(&c->joined, '|');
    strbuf_add(&c->joined, p, n);
    return DIL_OK;
}

static void check(const char *name, const char *text, const char *wanted)
{
    pretokenizer *pre = NULL;
    dil_error err = {0};
    cuts c = {.joined = STRBUF(1 << 16)};
    const pre_rule *rule = pre_rule_find(str_of(name));
    assert_non_null(rule);
    assert_int_equal(pretokenizer_new(&pre, rule, &err), DIL_OK);
    pretokenize_run run = {.pre = pre};
    assert_int_equal(pretokenize(&run, str_of(text), collect, &c, &err), DIL_OK);
    pretokenize_end(&run);
    if (strcmp(c.joined.p, wanted) != 0)
        print_error("%s: ", name);
    assert_string_equal(c.joined.p, wanted);
    strbuf_free(&c.joined);
    pretokenizer_free(pre);
}

static void known_cuts(void **state)
{
    (void)state;
    check("gpt-2", "I'm  ok, 1234\n\nx ", "I|'m| | ok|,| 1234|\n|\n|x| ");
    check("smollm", "a 123b", "a| |1|2|3|b");
    check("llama-bpe", "HE'LL pay $1234.5\r\n\r\n  x", "HE|'LL| pay| $|123|4|.|5|\r\n\r\n| | x");
    check("qwen2", "Ankara'da 1923'te", "Ankara|'d|a| |1|9|2|3|'t|e");
    check("ufakzeka", "Ankara'da 19'un", "Ankara|'da| |1|9|'un");
    check("deepseek-llm", "x\n\n a1234\xE4\xB8\x80!", "x|\n|\n| a|1234|\xE4\xB8\x80|!");
    check("deepseek-coder", "x y(1)2", "x| y|(|1|)|2");
    check("deepseek-v3", "12345 ab,cd!\n", "123|45| ab|,cd|!\n");
    check("falcon", "a-b 12345", "a|-|b| |123|45");
    check("gpt-4o", "HelloWorld it's 12345//\n", "Hello|World| it's| |123|45|//\n");
    check("tekken", "HTTPServer's 12", "HTTPServer|'s| |1|2");
    check("tiny_aya", "1234567 12345x", "1|234|567| |123|45|x");
    check("superbpe", "ab cd 1234567", "ab cd |1|234|567");
    check("afmoe", "ab 1234", "ab| |1|234");
    check("kimi-k2",
          "ab\xE4\xB8\x80\xE4\xBA\x8C"
          "cd  12345",
          "ab|\xE4\xB8\x80\xE4\xBA\x8C|cd| | |123|45");
    check("exaone-moe", "ab cd 1", "ab cd| |1");
    check("bloom", "a b, c.", "a| b|,| c|.");
    check("jais-2", "a     b", "a|    | b");
    check("laguna", "a\n\nb", "a|\n\n|b");
    check("chameleon", "IMGIMGABZ!a", "IMGIMGABZ|!|a");
    check("default", "ab! 12345", "ab|!| |123|45");
}

/* White space as Unicode has it: U+0085 and U+3000 are, U+180E and U+200B are not. */
static void white_space(void **state)
{
    (void)state;
    check("gpt-2",
          "a\xC2\x85\xC2\x85"
          "b",
          "a|\xC2\x85|\xC2\x85|b");
    check("gpt-2",
          "a\xE3\x80\x80"
          "b",
          "a|\xE3\x80\x80|b");
    check("gpt-2",
          "a \xE1\xA0\x8E"
          "b",
          "a| \xE1\xA0\x8E|b");
    check("gpt-2",
          "a \xE2\x80\x8B"
          "b",
          "a| \xE2\x80\x8B|b");
    check("llama-bpe",
          "'\xC5\xBF"
          "a",
          "'\xC5\xBF|a"); /* long s is an s without case */
}

static void unknown_names(void **state)
{
    (void)state;
    assert_null(pre_rule_find(STR("")));
    assert_null(pre_rule_find(STR("gpt")));
    assert_null(pre_rule_find(STR("gpt-2 phi-2")));
    assert_null(pre_rule_find(STR("gpt-22")));
    assert_non_null(pre_rule_find(STR("roberta-bpe")));
}

static void fill(char *text, size_t n, const char *unit)
{
    size_t k = strlen(unit);
    for (size_t i = 0; i < n; i++)
        text[i] = unit[i % k];
}

/* Every rule on long runs: all bytes come out, in bounded time and without a limit struck. */
static void heavy_texts(void **state)
{
    (void)state;
    static const char *const units[] = {" ",  "a",        "A",  "1", "\n", "!", "'", " a", "a ", "\xC5\x9F", "\xE4\xB8\x80",
                                        "aB", "\xCC\x81", " \n"};
    const size_t n = 60000; /* a multiple of every unit's length */
    char *text = malloc(n);
    assert_non_null(text);
    for (int i = 0; i < n_pre_rules; i++) {
        pretokenizer *pre = NULL;
        dil_error err = {0};
        assert_int_equal(pretokenizer_new(&pre, &pre_rules[i], &err), DIL_OK);
        pretokenize_run run = {.pre = pre};
        clock_t start = clock(); /* of this process: a busy machine does not count */
        for (size_t k = 0; k < sizeof units / sizeof units[0]; k++) {
            cuts c = {.joined = STRBUF(1 << 18)};
            fill(text, n, units[k]);
            dil_status status = pretokenize(&run, (str){text, n}, collect, &c, &err);
            if (status != DIL_OK)
                print_error("%s, unit %zu: %s\n", pre_rules[i].names, k, err.text);
            assert_int_equal(status, DIL_OK);
            assert_int_equal(c.n_bytes, n);
            strbuf_free(&c.joined);
        }
        if (clock() - start > 20 * CLOCKS_PER_SEC)
            fail_msg("%s took more than 20 s", pre_rules[i].names);
        pretokenize_end(&run);
        pretokenizer_free(pre);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_cuts),
        cmocka_unit_test(white_space),
        cmocka_unit_test(unknown_names),
        cmocka_unit_test(heavy_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
