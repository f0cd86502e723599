/* The tokeniser on small vocabularies made here: the rules, hostile tables, hostile text, failing memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/os.h"
#include "tokens/vocab.h"

#define MAX_TOKENS 600

/* A vocabulary under construction; texts that are not literals live in `pool`. */
typedef struct table {
    str tokens[MAX_TOKENS];
    int32_t types[MAX_TOKENS];
    float scores[MAX_TOKENS];
    str merges[64];
    char pool[8192];
    size_t used;
    vocab_source source;
} table;

static token_id add(table *t, str text, int type, float score)
{
    token_id id = (token_id)t->source.n_tokens++;
    t->tokens[id] = text;
    t->types[id] = type;
    t->scores[id] = score;
    t->source.n_types = t->source.n_scores = t->source.n_tokens;
    return id;
}

static token_id add_z(table *t, const char *text, int type, float score) { return add(t, str_of(text), type, score); }

static void add_merge(table *t, const char *text) { t->merges[t->source.n_merges++] = str_of(text); }

static table *new_table(const char *model, const char *pre)
{
    table *t = calloc(1, sizeof *t);
    assert_non_null(t);
    vocab_source_init(&t->source);
    t->source.model = str_of(model);
    t->source.pre = str_of(pre);
    t->source.tokens = t->tokens;
    t->source.types = t->types;
    t->source.scores = t->scores;
    t->source.merges = t->merges;
    return t;
}

static str pooled(table *t, const char *bytes, size_t n)
{
    memcpy(t->pool + t->used, bytes, n);
    str s = {t->pool + t->used, n};
    t->used += n;
    return s;
}

/* Ids 0..255: the letters of the bytes, as GPT-2 writes them. */
static table *bpe_table(const char *pre)
{
    table *t = new_table("gpt2", pre);
    uint32_t shifted = 0x100;
    for (uint32_t b = 0; b < 256; b++) {
        bool plain = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        char letter[4];
        int n = utf8_encode(plain ? b : shifted++, letter);
        add(t, pooled(t, letter, (size_t)n), TOKEN_NORMAL, 0);
    }
    return t;
}

enum { AB = 256, ABC, BC, SPACE_A, CONTROL, USER, USER_LONG };

static table *small_bpe(const char *pre)
{
    table *t = bpe_table(pre);
    add_z(t, "ab", TOKEN_NORMAL, 0);
    add_z(t, "abc", TOKEN_NORMAL, 0);
    add_z(t, "bc", TOKEN_NORMAL, 0);
    add_z(t,
          "\xC4\xA0"
          "a",
          TOKEN_NORMAL, 0);
    add_z(t, "<|im_end|>", TOKEN_CONTROL, 0);
    add_z(t, "<u>", TOKEN_USER_DEFINED, 0);
    add_z(t, "<u><u>", TOKEN_USER_DEFINED, 0);
    add_merge(t, "b c");
    add_merge(t, "a b");
    add_merge(t, "ab c");
    add_merge(t, "\xC4\xA0 a");
    return t;
}

static vocab *build(table *t)
{
    vocab *v = NULL;
    dil_error err = {0};
    dil_status status = vocab_new(&v, &t->source, &err);
    if (status != DIL_OK)
        print_error("%s\n", err.text);
    assert_int_equal(status, DIL_OK);
    free(t);
    return v;
}

/* Encodes and compares with a list that ends in -1. */
static void check_ids(const vocab *v, str text, bool special, bool parse, const token_id *wanted)
{
    token_list ids = {0};
    dil_error err = {0};
    assert_int_equal(vocab_encode(v, text, special, parse, &ids, &err), DIL_OK);
    size_t n = 0;
    while (wanted[n] != -1)
        n++;
    if (ids.n != n || (n && memcmp(ids.ids, wanted, n * sizeof *wanted) != 0)) {
        for (size_t i = 0; i < ids.n; i++)
            print_error("%d ", (int)ids.ids[i]);
        print_error("for \"%.*s\"\n", STR_ARG(text));
    }
    assert_int_equal(ids.n, n);
    assert_true(n == 0 || memcmp(ids.ids, wanted, n * sizeof *wanted) == 0);
    token_list_free(&ids);
}

#define IDS(...) ((token_id[]){__VA_ARGS__, -1})
#define NO_IDS ((token_id[]){-1})

static void check_text(const vocab *v, const token_id *ids, size_t n, bool special, const char *wanted)
{
    strbuf out = STRBUF(1 << 20);
    vocab_decode(v, ids, n, special, &out);
    assert_false(out.failed);
    assert_string_equal(out.p ? out.p : "", wanted);
    strbuf_free(&out);
}

/* --- BPE --- */

static void bpe_merges_by_rank(void **state)
{
    (void)state;
    vocab *v = build(small_bpe("gpt-2"));
    check_ids(v, STR(""), false, false, NO_IDS);
    check_ids(v, STR("bc"), false, false, IDS(BC));
    check_ids(v, STR("abc"), false, false, IDS('a', BC)); /* "b c" ranks before "a b" */
    check_ids(v, STR("abab"), false, false, IDS(AB, AB));
    check_ids(v, STR("a a"), false, false, IDS('a', SPACE_A));
    check_ids(v, STR("a \n"), false, false, IDS('a', 0x20 + 0, 10));
    vocab_free(v);
}

/* More symbols than the scanning loop takes: the heap must agree with it. */
static void long_words_merge_alike(void **state)
{
    (void)state;
    table *t = small_bpe("gpt-2");
    token_id twice = add_z(t, "aa", TOKEN_NORMAL, 0);
    add_merge(t, "a a");
    vocab *v = build(t);
    check_ids(v, STR("aaa"), false, false, IDS(twice, 'a')); /* leftmost of equals */
    for (size_t n = 1; n < 40; n++) {
        char text[3 * 40], run[40];
        token_id wanted[2 * 40 + 1], pairs[40 + 1];
        for (size_t i = 0; i < n; i++) {
            memcpy(text + 3 * i, "abc", 3);
            wanted[2 * i] = 'a';
            wanted[2 * i + 1] = BC;
            pairs[i] = twice;
        }
        wanted[2 * n] = -1;
        check_ids(v, (str){text, 3 * n}, false, false, wanted);
        memset(run, 'a', n);
        pairs[n / 2] = n % 2 ? 'a' : -1;
        pairs[n / 2 + n % 2] = -1;
        check_ids(v, (str){run, n}, false, false, pairs);
    }
    vocab_free(v);
}

static void bpe_ignore_merges(void **state)
{
    (void)state;
    vocab *v = build(small_bpe("llama-bpe"));
    check_ids(v, STR("abc"), false, false, IDS(ABC)); /* the word is a token: no merging */
    check_ids(v, STR("abcab"), false, false, IDS('a', BC, AB));
    vocab_free(v);
}

static void bpe_special_tokens(void **state)
{
    (void)state;
    table *t = small_bpe("gpt-2");
    t->source.bos = CONTROL;
    t->source.add_bos = 1;
    t->source.eos = CONTROL;
    t->source.add_eos = 1;
    vocab *v = build(t);
    check_ids(v, STR("a<|im_end|>a"), false, true, IDS('a', CONTROL, 'a'));
    token_list plain = {0};
    dil_error err;
    assert_int_equal(vocab_encode(v, STR("<|im_end|>"), false, false, &plain, &err), DIL_OK);
    assert_int_equal(plain.n, 10); /* a control token in plain text is plain text */
    token_list_free(&plain);
    check_ids(v, STR("a<u>a"), false, false, IDS('a', USER, 'a'));
    check_ids(v, STR("<u><u><u>"), false, false, IDS(USER_LONG, USER)); /* longest first */
    check_ids(v, STR("<<u><u>u>"), false, true, IDS('<', USER_LONG, 'u', '>'));
    check_ids(v, STR("a"), true, false, IDS(CONTROL, 'a', CONTROL));
    check_ids(v, STR(""), true, false, IDS(CONTROL, CONTROL));
    assert_true(vocab_is_end(v, CONTROL));
    assert_false(vocab_is_end(v, USER));
    assert_int_equal(vocab_eot(v), CONTROL);
    check_text(v, IDS('a', CONTROL, USER), 3, false, "a<u>");
    check_text(v, IDS('a', CONTROL, USER), 3, true, "a<|im_end|><u>");
    vocab_free(v);
}

/* "aab" is longer than "aa" and begins inside it: it wins although "aa" stands further left. */
static void overlapping_specials(void **state)
{
    (void)state;
    table *t = bpe_table("gpt-2");
    token_id two = add_z(t, "aa", TOKEN_USER_DEFINED, 0);
    token_id three = add_z(t, "abx", TOKEN_USER_DEFINED, 0);
    add_z(t, "zy", TOKEN_NORMAL, 0);
    add_merge(t, "z y");
    t->tokens[two + 2] = STR("zy");
    vocab *v = build(t);
    check_ids(v, STR("aabx"), false, false, IDS('a', three));
    check_ids(v, STR("aaabx"), false, false, IDS(two, three));
    check_ids(v, STR("qaabxqaaq"), false, false, IDS('q', 'a', three, 'q', two, 'q'));
    vocab_free(v);
}

static void bpe_keeps_any_bytes(void **state)
{
    (void)state;
    vocab *v = build(small_bpe("gpt-2"));
    char bytes[512], again[64];
    for (int i = 0; i < 512; i++)
        bytes[i] = (char)(i * 7 + i / 256);
    for (size_t n = 0; n <= sizeof bytes; n += 13) {
        token_list ids = {0};
        strbuf out = STRBUF(4096);
        dil_error err;
        assert_int_equal(vocab_encode(v, (str){bytes, n}, false, false, &ids, &err), DIL_OK);
        vocab_decode(v, ids.ids, ids.n, true, &out);
        assert_int_equal(out.n, n);
        assert_true(n == 0 || memcmp(out.p, bytes, n) == 0);
        strbuf_free(&out);
        token_list_free(&ids);
    }
    memset(again, 0xE2, sizeof again); /* a character that never ends */
    token_list ids = {0};
    dil_error err;
    assert_int_equal(vocab_encode(v, (str){again, sizeof again}, false, false, &ids, &err), DIL_OK);
    assert_int_equal(ids.n, sizeof again);
    token_list_free(&ids);
    vocab_free(v);
}

/* --- SentencePiece --- */

enum { S_UNK, S_BOS, S_EOS, S_BYTES = 3, S_MARK = S_BYTES + 256, S_A, S_B, S_AB, S_MARK_A, S_MARK_AB, S_USER };

static table *small_spm(void)
{
    static const char hex[] = "0123456789ABCDEF";
    table *t = new_table("llama", "default");
    add_z(t, "<unk>", TOKEN_UNKNOWN, 0);
    add_z(t, "<s>", TOKEN_CONTROL, 0);
    add_z(t, "</s>", TOKEN_CONTROL, 0);
    for (int b = 0; b < 256; b++) {
        char name[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        add(t, pooled(t, name, 6), TOKEN_BYTE, 0);
    }
    add_z(t, "\xE2\x96\x81", TOKEN_NORMAL, -5);
    add_z(t, "a", TOKEN_NORMAL, -5);
    add_z(t, "b", TOKEN_NORMAL, -5);
    add_z(t, "ab", TOKEN_NORMAL, -1);
    add_z(t,
          "\xE2\x96\x81"
          "a",
          TOKEN_NORMAL, -2);
    add_z(t,
          "\xE2\x96\x81"
          "ab",
          TOKEN_NORMAL, -3);
    add_z(t, "<u>", TOKEN_USER_DEFINED, 0);
    return t;
}

static void spm_rules(void **state)
{
    (void)state;
    vocab *v = build(small_spm());
    check_ids(v, STR(""), true, false, IDS(S_BOS));
    check_ids(v, STR("ab"), true, false, IDS(S_BOS, S_MARK_AB));
    check_ids(v, STR("a ab"), false, false, IDS(S_MARK_A, S_MARK_AB));
    check_ids(v, STR(" a"), false, false, IDS(S_MARK, S_MARK_A));
    check_ids(v, STR("a\xC5\x9F"), false, false, IDS(S_MARK_A, S_BYTES + 0xC5, S_BYTES + 0x9F));
    check_ids(v, STR("a\xFFz"), false, false, IDS(S_MARK_A, S_BYTES + 0xFF, S_BYTES + 'z'));
    check_ids(v, STR("a<u>a"), false, false, IDS(S_MARK_A, S_USER, S_MARK_A)); /* space again behind a special token */
    check_ids(v, STR("a</s>"), false, true, IDS(S_MARK_A, S_EOS));
    check_text(v, IDS(S_BOS, S_MARK_AB, S_MARK_A), 3, false, "ab a");
    check_text(v, IDS(S_BOS, S_MARK_A), 2, true, "<s>a");
    check_text(v, IDS(S_BYTES + 0xC5, S_BYTES + 0x9F, S_UNK), 3, false, "\xC5\x9F");
    assert_true(vocab_is_end(v, S_EOS));
    vocab_free(v);
}

static void spm_without_prefix(void **state)
{
    (void)state;
    table *t = small_spm();
    t->source.add_space_prefix = 0;
    t->source.add_bos = 0;
    vocab *v = build(t);
    check_ids(v, STR("ab a"), true, false, IDS(S_AB, S_MARK_A));
    check_text(v, IDS(S_MARK_A), 1, false, " a");
    vocab_free(v);
}

/* A token that holds a space behind a letter: the text must not be cut there before merging. */
static void spm_merges_across_spaces(void **state)
{
    (void)state;
    table *t = small_spm();
    token_id across = add_z(t, "b\xE2\x96\x81", TOKEN_NORMAL, -0.5f);
    vocab *v = build(t);
    check_ids(v, STR("ab a"), false, false, IDS(S_MARK_A, across, S_A));
    check_ids(v, STR("a a"), false, false, IDS(S_MARK_A, S_MARK_A));
    vocab_free(v);
}

static void strips_of_phi3(void **state)
{
    (void)state;
    table *t = small_spm();
    t->source.name = STR("Phi-3 mini");
    vocab *v = build(t);
    check_ids(v, STR("a<u> \n a"), false, false, IDS(S_MARK_A, S_USER, S_MARK_A));
    check_ids(v, STR("<s> a"), false, true, IDS(S_BOS, S_MARK, S_MARK_A));
    vocab_free(v);
}

/* --- WordPiece, unigram --- */

static void wpm_rules(void **state)
{
    (void)state;
    table *t = new_table("bert", "");
    enum { UNK, CLS, SEP, MERHABA, DUNYA, LAR, COMMA, HAN };
    add_z(t, "[UNK]", TOKEN_CONTROL, 0);
    add_z(t, "[CLS]", TOKEN_CONTROL, 0);
    add_z(t, "[SEP]", TOKEN_CONTROL, 0);
    add_z(t,
          "\xE2\x96\x81"
          "merhaba",
          TOKEN_NORMAL, 0);
    add_z(t,
          "\xE2\x96\x81"
          "dunya",
          TOKEN_NORMAL, 0);
    add_z(t, "lar", TOKEN_NORMAL, 0);
    add_z(t,
          "\xE2\x96\x81"
          ",",
          TOKEN_NORMAL, 0);
    add_z(t, "\xE2\x96\x81\xE4\xB8\x80", TOKEN_NORMAL, 0);
    t->source.unk = UNK;
    t->source.bos = CLS;
    t->source.sep = SEP;
    vocab *v = build(t);
    check_ids(v, STR("Merhaba,D\xC3\xBCnyalar"), true, false, IDS(CLS, MERHABA, COMMA, DUNYA, LAR, SEP));
    check_ids(v, STR("merhaba xyz\xE4\xB8\x80merhaba"), false, false, IDS(MERHABA, UNK, HAN, MERHABA));
    check_ids(v, STR("merhaba\x01\0\xFF"), false, false, IDS(MERHABA));
    check_text(v, IDS(MERHABA, COMMA, DUNYA, LAR), 4, false, "merhaba, dunyalar");
    vocab_free(v);
}

static void unigram_best_way(void **state)
{
    (void)state;
    table *t = new_table("t5", "");
    enum { PAD, EOS, UNK, MARK, ONE_A, ONE_B, A_B, A_B_B };
    add_z(t, "<pad>", TOKEN_CONTROL, 0);
    add_z(t, "</s>", TOKEN_CONTROL, 0);
    add_z(t, "<unk>", TOKEN_UNKNOWN, 0);
    add_z(t, "\xE2\x96\x81", TOKEN_NORMAL, -2);
    add_z(t, "a", TOKEN_NORMAL, -3);
    add_z(t, "b", TOKEN_NORMAL, -3);
    add_z(t, "ab", TOKEN_NORMAL, -4);
    add_z(t, "abb", TOKEN_NORMAL, -8);
    t->source.add_space_prefix = 1;
    vocab *v = build(t);
    check_ids(v, STR("abb"), true, false, IDS(MARK, A_B, ONE_B, EOS)); /* -4 - 3 beats -8 */
    check_ids(v, STR("aqq"), false, false, IDS(MARK, ONE_A, UNK));     /* neighbouring unknowns are one */
    check_ids(v, STR(""), true, false, IDS(EOS));
    vocab_free(v);
}

/* --- hostile tables --- */

static void refused(table *t, dil_status wanted, const char *says)
{
    vocab *v = NULL;
    dil_error err = {0};
    dil_status status = vocab_new(&v, &t->source, &err);
    if (status != wanted || !strstr(err.text, says))
        print_error("%s (wanted: %s)\n", err.text, says);
    assert_int_equal(status, wanted);
    assert_int_equal(err.code, wanted);
    assert_non_null(strstr(err.text, says));
    assert_null(v);
    free(t);
}

static void bad_tables(void **state)
{
    (void)state;
    table *t = small_bpe("nobody-knows-this");
    refused(t, DIL_UNSUPPORTED, "nobody-knows-this");
    t = small_bpe("gpt-2");
    t->source.model = STR("rwkv");
    refused(t, DIL_UNSUPPORTED, "tokenizer.ggml.model");
    t = small_bpe("gpt-2");
    t->source.n_tokens = 0;
    refused(t, DIL_FORMAT, "tokenizer.ggml.tokens");
    t = small_bpe("gpt-2");
    t->source.n_tokens = UINT64_MAX;
    refused(t, DIL_LIMIT, "tokenizer.ggml.tokens");
    t = small_bpe("gpt-2");
    t->source.n_scores--;
    refused(t, DIL_FORMAT, "tokenizer.ggml.scores");
    t = small_bpe("gpt-2");
    t->source.n_types--;
    refused(t, DIL_FORMAT, "tokenizer.ggml.token_type");
    t = small_bpe("gpt-2");
    t->tokens[7] = STR("ab");
    refused(t, DIL_FORMAT, "\"ab\" is already token 7");
    t = small_bpe("gpt-2");
    t->source.n_merges = 0;
    refused(t, DIL_FORMAT, "tokenizer.ggml.merges");
    t = small_bpe("gpt-2");
    t->source.n_merges = UINT64_MAX;
    refused(t, DIL_LIMIT, "tokenizer.ggml.merges");
    t = small_spm();
    t->source.scores = NULL;
    refused(t, DIL_FORMAT, "tokenizer.ggml.scores");
    t = small_spm();
    t->scores[S_AB] = (float)(0.0 / (double)(t->scores[0]));
    refused(t, DIL_FORMAT, "tokenizer.ggml.scores[262]");
}

static void bad_merges(void **state)
{
    (void)state;
    static const char *const bad[] = {"", " ", "a", "ab", " b", "a ", "a  ", "x y", "a nothing", "\xFF \xFF"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        table *t = small_bpe("gpt-2");
        t->merges[2] = str_of(bad[i]);
        refused(t, DIL_FORMAT, "tokenizer.ggml.merges[2]");
    }
}

static void bad_special_ids(void **state)
{
    (void)state;
    static const char *const keys[] = {"bos_token_id",     "eos_token_id",       "eot_token_id",     "eom_token_id",
                                       "unknown_token_id", "seperator_token_id", "padding_token_id", "mask_token_id"};
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < 3; k++) {
            table *t = small_bpe("gpt-2");
            token_id *ids[] = {&t->source.bos, &t->source.eos, &t->source.eot, &t->source.eom,
                               &t->source.unk, &t->source.sep, &t->source.pad, &t->source.mask};
            *ids[i] = k == 0 ? (token_id)t->source.n_tokens : k == 1 ? INT32_MAX : -2;
            refused(t, DIL_FORMAT, keys[i]);
        }
    }
}

static void odd_tables(void **state)
{
    (void)state;
    table *t = small_bpe("gpt-2"); /* empty tokens keep their ids; odd types are undefined */
    add(t, STR(""), TOKEN_NORMAL, 0);
    token_id odd = add(t, STR("odd"), 77, 0);
    add(t, STR(""), -5, 0);
    add_merge(t, "a b"); /* twice */
    vocab *v = build(t);
    check_ids(v, STR("ab"), false, false, IDS(AB));
    check_text(v, IDS(odd, 'a', -7, INT32_MAX, INT32_MIN), 5, true, "a");
    assert_int_equal(vocab_type(v, -1), TOKEN_UNUSED);
    assert_int_equal(vocab_text(v, INT32_MAX).n, 0);
    assert_int_equal(vocab_find(v, STR("abc")), ABC);
    assert_int_equal(vocab_find(v, STR("no such token, and a long name")), TOKEN_NONE);
    assert_false(vocab_is_end(v, INT32_MIN));
    vocab_free(v);

    t = new_table("llama", "");
    add_z(t, "x", TOKEN_NORMAL, 0); /* no bytes, no unknown of its own, no bos: text vanishes or becomes <unk> = 0 */
    v = build(t);
    check_ids(v, STR("xq"), true, false, IDS(0, 0, 0, 0, 0));
    vocab_free(v);
}

static void bad_charsmap(void **state)
{
    (void)state;
    for (uint32_t size = 0; size < 64; size++) {
        table *t = new_table("t5", "");
        uint8_t map[40];
        add_z(t, "a", TOKEN_NORMAL, -1);
        add_z(t, "</s>", TOKEN_CONTROL, 0);
        add_z(t, "<unk>", TOKEN_UNKNOWN, 0);
        memset(map, (int)(size * 5), sizeof map);
        memcpy(map, &size, 4);
        t->source.charsmap = map;
        t->source.n_charsmap = sizeof map;
        if (size < 4 || size % 4 || size >= sizeof map - 4) {
            refused(t, DIL_FORMAT, "precompiled_charsmap");
            continue;
        }
        vocab *v = build(t);
        token_list ids = {0};
        dil_error err;
        assert_int_equal(vocab_encode(v, STR("a\xC3\xA9 \x01\xFF"), false, false, &ids, &err), DIL_OK);
        token_list_free(&ids);
        vocab_free(v);
    }
}

/* --- hostile text and failing memory --- */

static void long_runs(void **state)
{
    (void)state;
    const size_t n = 1000000;
    char *text = malloc(n);
    assert_non_null(text);
    for (int kind = 0; kind < 2; kind++) {
        vocab *v = build(kind ? small_spm() : small_bpe("llama-bpe"));
        static const char fills[] = " ab\n\xFF\0<'9";
        for (size_t k = 0; k + 1 < sizeof fills; k++) {
            memset(text, fills[k], n);
            token_list ids = {0};
            dil_error err = {0};
            assert_int_equal(vocab_encode(v, (str){text, n}, false, true, &ids, &err), DIL_OK);
            assert_true(ids.n > 0);
            token_list_free(&ids);
        }
        vocab_free(v);
    }
    free(text);
}

/* Every allocation in turn fails: a status, no leak, and the list is as it was. */
static void failing_memory(void **state)
{
    (void)state;
    static const char text[] = "abc ab <u> caba\xFF <|im_end|> \xC5\x9F 123456 don't";
    char many[sizeof text * 20];
    for (size_t i = 0; i < 20; i++)
        memcpy(many + i * (sizeof text - 1), text, sizeof text - 1);
    str all = {many, 20 * (sizeof text - 1)};
    for (int kind = 0; kind < 3; kind++) {
        size_t held = mem_bytes(MEM_VOCAB), texts = mem_bytes(MEM_TEXT);
        bool done = false;
        for (int64_t after = 0; !done; after++) {
            assert_true(after < 5000);
            table *t = kind == 0 ? small_bpe("deepseek-v3") : kind == 1 ? small_spm() : small_bpe("kimi-k2");
            vocab *v = NULL;
            token_list ids = {0};
            dil_error err = {0};
            mem_inject_failure(after);
            dil_status status = vocab_new(&v, &t->source, &err);
            if (status == DIL_OK)
                status = vocab_encode(v, all, true, true, &ids, &err);
            mem_inject_failure(-1);
            done = status == DIL_OK;
            assert_true(done || status == DIL_NO_MEMORY);
            assert_true(done ? ids.n > 0 : ids.n == 0);
            token_list_free(&ids);
            vocab_free(v);
            free(t);
        }
        assert_int_equal(mem_bytes(MEM_VOCAB), held);
        assert_int_equal(mem_bytes(MEM_TEXT), texts);
    }
}

static void limits(void **state)
{
    (void)state;
    vocab *v = build(small_bpe("gpt-2"));
    token_list ids = {0};
    dil_error err = {0};
    assert_int_equal(vocab_encode(v, (str){"", ((size_t)1 << 30) + 1}, false, false, &ids, &err), DIL_LIMIT);
    assert_int_equal(ids.n, 0);
    vocab_free(v);
    assert_int_equal(mem_bytes(MEM_VOCAB), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bpe_merges_by_rank),
        cmocka_unit_test(bpe_ignore_merges),
        cmocka_unit_test(long_words_merge_alike),
        cmocka_unit_test(spm_merges_across_spaces),
        cmocka_unit_test(bpe_special_tokens),
        cmocka_unit_test(overlapping_specials),
        cmocka_unit_test(bpe_keeps_any_bytes),
        cmocka_unit_test(spm_rules),
        cmocka_unit_test(spm_without_prefix),
        cmocka_unit_test(strips_of_phi3),
        cmocka_unit_test(wpm_rules),
        cmocka_unit_test(unigram_best_way),
        cmocka_unit_test(bad_tables),
        cmocka_unit_test(bad_merges),
        cmocka_unit_test(bad_special_ids),
        cmocka_unit_test(odd_tables),
        cmocka_unit_test(bad_charsmap),
        cmocka_unit_test(long_runs),
        cmocka_unit_test(failing_memory),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
