/* The output stream: whole characters, stop strings over token borders, hostile bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "output/stream.h"

/* Ids of the vocabulary below: the byte tokens, then pieces of several bytes. */
enum { BYTE_0 = 3, PIECE_0 = BYTE_0 + 256 };
static const char *const pieces[] = {"hello", "</", "s>", "x", "</s>x", "a</s>b", "caf\xC3\xA9", "\xF0\x9F\x98\x80", "ab", "aab"};
enum { HELLO = PIECE_0, LT_SLASH, S_GT, X, STOP_X, A_STOP_B, CAFE, SMILE, AB, AAB };

static vocab *v;

static int make_vocab(void **state)
{
    (void)state;
    static char names[256][8];
    static str tokens[300];
    static float scores[300];
    static int32_t types[300];
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
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++, n++) {
        tokens[n] = str_of(pieces[i]);
        types[n] = TOKEN_NORMAL;
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
    dil_error err;
    return vocab_new(&v, &source, &err) == DIL_OK ? 0 : -1;
}

static int free_vocab(void **state)
{
    (void)state;
    vocab_free(v);
    return 0;
}

static stream *make(const char *const *stops, int n)
{
    stream *s = NULL;
    dil_error err = {DIL_OK, ""};
    if (stream_new(&s, v, stops, n, &err) != DIL_OK)
        fail_msg("%s", err.text);
    return s;
}

static void assert_text(str got, const char *want)
{
    assert_int_equal(got.n, strlen(want));
    assert_memory_equal(got.p, want, got.n);
}

static void push(stream *s, token_id id, bool stops, const char *want)
{
    str text;
    assert_int_equal(stream_push(s, id, &text), stops);
    assert_text(text, want);
}

/*
 * Everything a stream shows for bytes, pushed as byte tokens; every shown piece must be well-formed
 * by itself.
 */
static bool run_bytes(stream *s, const char *bytes, size_t n, char *out, size_t out_size)
{
    size_t used = 0;
    bool stopped = false;
    str text;
    stream_reset(s);
    for (size_t i = 0; i < n && !stopped; i++) {
        stopped = stream_push(s, BYTE_0 + (unsigned char)bytes[i], &text);
        assert_true(utf8_valid(text));
        assert_true(used + text.n < out_size);
        memcpy(out + used, text.p, text.n);
        used += text.n;
    }
    text = stream_finish(s);
    assert_true(utf8_valid(text));
    assert_true(used + text.n < out_size);
    memcpy(out + used, text.p, text.n);
    out[used + text.n] = '\0';
    assert_false(stream_failed(s));
    return stopped;
}

static void emoji_over_byte_tokens(void **state)
{
    (void)state;
    stream *s = make(NULL, 0);
    push(s, HELLO, false, "hello");
    push(s, BYTE_0 + 0xF0, false, "");
    push(s, BYTE_0 + 0x9F, false, "");
    push(s, BYTE_0 + 0x98, false, "");
    push(s, BYTE_0 + 0x80, false, "\xF0\x9F\x98\x80");
    push(s, SMILE, false, "\xF0\x9F\x98\x80");
    push(s, CAFE, false, "caf\xC3\xA9");
    assert_text(stream_finish(s), "");
    stream_free(s);
}

static void control_tokens_are_not_shown(void **state)
{
    (void)state;
    stream *s = make(NULL, 0);
    push(s, 1, false, "");
    push(s, 2, false, "");
    push(s, X, false, "x");
    stream_free(s);
}

static void unfinished_and_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        {"\xF0\x9F\x98", "\xEF\xBF\xBD"},   /* cut at the end: one */
        {"\xF0\x9F\x98x", "\xEF\xBF\xBDx"}, /* cut inside: one for the longest beginning */
        {"\xC3\xC3\xA9", "\xEF\xBF\xBD\xC3\xA9"},
        {"\x80\xBFz", "\xEF\xBF\xBD\xEF\xBF\xBDz"},               /* stray continuations */
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}, /* a surrogate */
        {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},                 /* overlong */
        {"\xF5\xFF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}, /* above U+10FFFF */
        {"\xE2\x82\xF0\x9F\x98\x80", "\xEF\xBF\xBD\xF0\x9F\x98\x80"},
    };
    stream *s = make(NULL, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[64];
        assert_false(run_bytes(s, cases[i].bytes, strlen(cases[i].bytes), out, sizeof out));
        assert_string_equal(out, cases[i].want);
    }
    stream_free(s);
}

static void stop_over_two_tokens(void **state)
{
    (void)state;
    static const char *const stops[] = {"</s>"};
    stream *s = make(stops, 1);
    push(s, HELLO, false, "hello");
    push(s, LT_SLASH, false, ""); /* held back */
    push(s, X, false, "</x");     /* it was not */
    push(s, LT_SLASH, false, "");
    push(s, S_GT, true, "");
    push(s, HELLO, true, ""); /* nothing more after a stop */
    assert_text(stream_finish(s), "");
    stream_reset(s);
    push(s, A_STOP_B, true, "a"); /* inside one token, text on both sides */
    stream_free(s);
}

static void overlapping_stops(void **state)
{
    (void)state;
    static const char *const stops[] = {"</s>", "s>x"};
    stream *s = make(stops, 2);
    push(s, STOP_X, true, ""); /* "</s>" is completed first */
    stream_reset(s);
    push(s, LT_SLASH, false, "");
    push(s, S_GT, true, "");
    stream_reset(s);
    push(s, HELLO, false, "hello");
    push(s, S_GT, false, "");
    push(s, X, true, "");
    stream_free(s);

    static const char *const nested[] = {"abc", "abcd", "bc"}; /* "abc" and "bc" end at the same byte */
    char out[64];
    s = make(nested, 3);
    assert_true(run_bytes(s, "xabcd", 5, out, sizeof out));
    assert_string_equal(out, "x");
    stream_free(s);

    static const char *const chained[] = {"aabaaax"}; /* falls back over two borders */
    s = make(chained, 1);
    assert_true(run_bytes(s, "aabaaabaaax", 11, out, sizeof out));
    assert_string_equal(out, "aaba");
    stream_free(s);

    static const char *const repeating[] = {"aab"};
    s = make(repeating, 1);
    assert_true(run_bytes(s, "aaaab", 5, out, sizeof out));
    assert_string_equal(out, "aa");
    stream_free(s);
}

static void held_back_until_the_end(void **state)
{
    (void)state;
    static const char *const stops[] = {"</s>", ""};
    stream *s = make(stops, 2); /* the empty one is ignored */
    push(s, HELLO, false, "hello");
    push(s, LT_SLASH, false, "");
    assert_text(stream_finish(s), "</");
    assert_text(stream_finish(s), "");
    stream_reset(s);
    push(s, LT_SLASH, false, "");
    push(s, BYTE_0 + 0xF0, false, "");
    assert_text(stream_finish(s), "</\xEF\xBF\xBD");
    stream_free(s);
}

static void stop_of_characters(void **state)
{
    (void)state;
    static const char *const stops[] = {"\xC5\x9F\xF0\x9F\x98\x80"}; /* s with cedilla, smile */
    char out[64];
    stream *s = make(stops, 1);
    assert_true(run_bytes(s, "a\xC5\x9F\xF0\x9F\x98\x80", 7, out, sizeof out));
    assert_string_equal(out, "a");
    assert_false(run_bytes(s, "a\xC5\x9F\xF0\x9F\x98\x81", 7, out, sizeof out));
    assert_string_equal(out, "a\xC5\x9F\xF0\x9F\x98\x81");
    stream_free(s);
}

/* The stop that is completed first, found the slow way; -1: none. */
static ptrdiff_t first_stop(const char *text, const char *const *stops, int n_stops)
{
    for (size_t end = 1; end <= strlen(text); end++) {
        size_t longest = 0;
        for (int i = 0; i < n_stops; i++) {
            size_t n = strlen(stops[i]);
            if (n <= end && n > longest && memcmp(text + end - n, stops[i], n) == 0)
                longest = n;
        }
        if (longest > 0)
            return (ptrdiff_t)(end - longest);
    }
    return -1;
}

/*
 * Random texts over a small alphabet, cut into random tokens: the same answer as the slow search,
 * whatever the cut.
 */
static void any_cut_gives_the_same_text(void **state)
{
    (void)state;
    static const char *const stops[] = {"abab", "bb", "aaab", "babba"};
    static const struct {
        token_id id;
        const char *text;
    } choices[] = {
        {BYTE_0 + 'a', "a"}, {BYTE_0 + 'b', "b"}, {AB, "ab"}, {AAB, "aab"}, {X, "x"},
    };
    uint64_t seed = 5;
    stream *s = make(stops, 4);
    for (int round = 0; round < 20000; round++) {
        char whole[128] = "", shown[128] = "";
        bool stopped = false;
        str text;
        stream_reset(s);
        for (int i = 0; i < 8; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            size_t c = (size_t)(seed >> 33) % 5;
            strcat(whole, choices[c].text);
            if (stopped)
                continue;
            stopped = stream_push(s, choices[c].id, &text);
            strncat(shown, text.p, text.n);
            ptrdiff_t at = first_stop(whole, stops, 4);
            assert_int_equal(stopped, at >= 0);
            assert_memory_equal(shown, whole, strlen(shown));
        }
        text = stream_finish(s);
        strncat(shown, text.p, text.n);
        ptrdiff_t at = first_stop(whole, stops, 4);
        assert_int_equal(strlen(shown), at >= 0 ? (size_t)at : strlen(whole));
        assert_memory_equal(shown, whole, strlen(shown));
    }
    stream_free(s);
}

static void random_bytes_are_always_whole(void **state)
{
    (void)state;
    static const char *const stops[] = {"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"};
    uint64_t seed = 9;
    stream *s = make(stops, 1);
    for (int round = 0; round < 5000; round++) {
        char bytes[40], out[200];
        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            bytes[i] = (char)((seed >> 40) % 3 ? 0x80 | (seed >> 56) : seed >> 57);
        }
        (void)run_bytes(s, bytes, sizeof bytes, out, sizeof out);
    }
    stream_free(s);
}

static void limits(void **state)
{
    (void)state;
    stream *s = NULL;
    dil_error err;
    static char long_stop[1026];
    const char *many[65], *one[1] = {long_stop};
    for (int i = 0; i < 65; i++)
        many[i] = "x";
    memset(long_stop, 'y', sizeof long_stop - 1);
    assert_int_equal(stream_new(&s, v, many, 65, &err), DIL_BAD_ARGUMENT);
    assert_int_equal(stream_new(&s, v, one, 1, &err), DIL_BAD_ARGUMENT);
    one[0] = "\xF0\x9F";
    assert_int_equal(stream_new(&s, v, one, 1, &err), DIL_BAD_ARGUMENT);
    assert_null(s);
    long_stop[1024] = '\0';
    one[0] = long_stop;
    s = make(one, 1);
    stream_free(s);
}

static void memory_runs_out_anywhere(void **state)
{
    (void)state;
    static const char *const stops[] = {"</s>", "x"};
    size_t held = mem_bytes(MEM_TEXT);
    dil_status status = DIL_NO_MEMORY;
    for (int64_t after = 0; after < 100 && status != DIL_OK; after++) {
        stream *s = NULL;
        dil_error err;
        mem_inject_failure(after);
        status = stream_new(&s, v, stops, 2, &err);
        mem_inject_failure(-1);
        assert_true(status == DIL_OK || (status == DIL_NO_MEMORY && !s));
        stream_free(s);
        assert_true(mem_bytes(MEM_TEXT) == held);
    }
    assert_int_equal(status, DIL_OK);
    str text;
    stream *s = make(stops, 2);
    mem_inject_failure(0);
    (void)stream_push(s, HELLO, &text);
    mem_inject_failure(-1);
    assert_true(stream_failed(s));
    stream_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emoji_over_byte_tokens),
        cmocka_unit_test(control_tokens_are_not_shown),
        cmocka_unit_test(unfinished_and_malformed),
        cmocka_unit_test(stop_over_two_tokens),
        cmocka_unit_test(overlapping_stops),
        cmocka_unit_test(held_back_until_the_end),
        cmocka_unit_test(stop_of_characters),
        cmocka_unit_test(any_cut_gives_the_same_text),
        cmocka_unit_test(random_bytes_are_always_whole),
        cmocka_unit_test(limits),
        cmocka_unit_test(memory_runs_out_anywhere),
    };
    return cmocka_run_group_tests_name("output", tests, make_vocab, free_vocab);
}
