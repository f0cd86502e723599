/* Vocabularies learnt from texts, and texts as batches of tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <xxhash.h>
#include <zstd.h>

#include "leaks.h"
#include "model/vocab_load.h"
#include "tiny_model.h"
#include "tokens/pretokenize.h"
#include "train/corpus.h"
#include "train/documents.h"
#include "train/merges.h"
#include "train/tokenizer.h"

#define END "<|endoftext|>"

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static void fails(dil_status wanted, dil_status found, const dil_error *err, const char *part)
{
    if (found != wanted || !strstr(err->text, part))
        fail_msg("wanted status %d with \"%s\", found %d: %s", wanted, part, found, err->text);
}

static void write_bytes(const char *path, const void *p, size_t n)
{
    os_writer w;
    dil_error err;
    ok(os_writer_open(&w, path, &err), &err);
    ok(os_writer_write(&w, p, n, &err), &err);
    ok(os_writer_commit(&w, &err), &err);
}

static void write_text(const char *path, const strbuf *b) { write_bytes(path, b->p, b->n); }

/* Words of a few letters, so that pairs overlap, repeat and tie. */
static void add_words(strbuf *b, uint32_t seed, int n)
{
    static const char *const parts[] = {"a", "b", "aa", "ab", "ba", "\xC4\x9F", "\xC4\xB1", "the", "lar", "ler", ".", "7"};
    for (int i = 0; i < n; i++) {
        for (uint32_t k = 1 + tiny_random(&seed) % 6; k > 0; k--)
            strbuf_add_str(b, str_of(parts[tiny_random(&seed) % (sizeof parts / sizeof *parts)]));
        strbuf_add_char(b, i % 9 == 8 ? '\n' : ' ');
    }
}

static strbuf words(uint32_t seed, int n)
{
    strbuf b = STRBUF(64u << 20);
    add_words(&b, seed, n);
    return b;
}

/* ---- vocabularies ---- */

static vocab *load(const char *path)
{
    gguf *g;
    vocab *v;
    dil_error err;
    ok(gguf_open(&g, path, NULL, &err), &err);
    ok(vocab_from_gguf(&v, g, &err), &err);
    gguf_close(g);
    return v;
}

static vocab *learn(const char *name, str text, int n_vocab)
{
    char path[600];
    dil_error err;
    tokenizer_options o = {.n_vocab = n_vocab, .texts = &text, .n_texts = 1, .pre = "qwen2", .n_threads = 2};
    ok(tokenizer_train(tiny_path(path, name), &o, &err), &err);
    return load(path);
}

/* The definition, without any care for time: all pairs are counted anew for every merge. */
#define SLOW_TOKENS 600
#define SLOW_WORDS 4000
typedef struct slow_word {
    uint16_t s[64];
    int n;
    uint64_t count;
} slow_word;
typedef struct slow {
    slow_word words[SLOW_WORDS];
    int n_words;
    uint64_t weight;
    char text[SLOW_TOKENS][256];
    size_t length[SLOW_TOKENS];
    int n_tokens;
    uint64_t counts[SLOW_TOKENS][SLOW_TOKENS];
} slow;

static dil_status slow_add(void *ctx, const char *p, size_t n)
{
    slow *s = ctx;
    slow_word w = {.n = (int)n, .count = s->weight};
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++)
        w.s[i] = (unsigned char)p[i];
    for (int i = 0; i < s->n_words; i++)
        if (s->words[i].n == w.n && memcmp(s->words[i].s, w.s, sizeof w.s) == 0) {
            s->words[i].count += w.count;
            return DIL_OK;
        }
    assert_true(s->n_words < SLOW_WORDS);
    s->words[s->n_words++] = w;
    return DIL_OK;
}

static void slow_count(slow *s)
{
    memset(s->counts, 0, sizeof s->counts);
    for (int w = 0; w < s->n_words; w++)
        for (int i = 0; i + 1 < s->words[w].n; i++)
            s->counts[s->words[w].s[i]][s->words[w].s[i + 1]] += s->words[w].count;
}

static void slow_merge(slow *s, int *left, int *right)
{
    uint64_t best = 0;
    slow_count(s);
    for (int a = 0; a < s->n_tokens; a++)
        for (int b = 0; b < s->n_tokens; b++)
            if (s->counts[a][b] > best) {
                best = s->counts[a][b];
                *left = a;
                *right = b;
            }
    int id = s->n_tokens++;
    memcpy(s->text[id], s->text[*left], s->length[*left]);
    memcpy(s->text[id] + s->length[*left], s->text[*right], s->length[*right]);
    s->length[id] = s->length[*left] + s->length[*right];
    for (int w = 0; w < s->n_words; w++) {
        slow_word *word = &s->words[w];
        int kept = 0;
        for (int i = 0; i < word->n; kept++) {
            bool both = i + 1 < word->n && word->s[i] == *left && word->s[i + 1] == *right;
            word->s[kept] = both ? (uint16_t)id : word->s[i];
            i += both ? 2 : 1;
        }
        word->n = kept;
    }
}

static slow *slow_new(const str *texts, const uint64_t *weights, int n)
{
    pretokenizer *pre;
    dil_error err;
    slow *s = mem_calloc(1, sizeof *s, MEM_MISC);
    ok(pretokenizer_new(&pre, pre_rule_find(STR("qwen2")), &err), &err);
    for (int i = 0; i < n; i++) {
        pretokenize_run run = {.pre = pre};
        s->weight = weights[i];
        ok(pretokenize(&run, texts[i], slow_add, s, &err), &err);
        pretokenize_end(&run);
    }
    pretokenizer_free(pre);
    for (s->n_tokens = 0; s->n_tokens < 256; s->n_tokens++) {
        s->text[s->n_tokens][0] = (char)s->n_tokens;
        s->length[s->n_tokens] = 1;
    }
    return s;
}

static void add_letters(strbuf *b, const slow *s, int token)
{
    for (size_t i = 0; i < s->length[token]; i++) {
        char letter[4];
        strbuf_add(b, letter, (size_t)vocab_byte_letter((unsigned char)s->text[token][i], letter));
    }
}

static void compare_with_slow(const char *path, slow *s)
{
    gguf *g;
    dil_error err;
    const str *merges;
    uint64_t n;
    ok(gguf_open(&g, path, NULL, &err), &err);
    ok(gguf_get_strings(g, "tokenizer.ggml.merges", &merges, &n, &err), &err);
    for (uint64_t i = 0; i < n; i++) {
        int left = 0, right = 0;
        strbuf wanted = STRBUF(4096);
        slow_merge(s, &left, &right);
        add_letters(&wanted, s, left);
        strbuf_add_char(&wanted, ' ');
        add_letters(&wanted, s, right);
        if (!str_equal(strbuf_str(&wanted), merges[i]))
            fail_msg("merge %d: wanted \"%s\", found \"%.*s\"", (int)i, wanted.p, STR_ARG(merges[i]));
        strbuf_free(&wanted);
    }
    gguf_close(g);
}

static void test_merges(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 4; seed++) {
        char path[600];
        dil_error err;
        strbuf a = words(seed, 600), b = words(100 + seed, 300);
        str texts[] = {strbuf_str(&a), strbuf_str(&b)};
        tokenizer_options o = {.n_vocab = SLOW_TOKENS + 3,
                               .texts = texts,
                               .weights = (double[]){0.75, 1.5},
                               .n_texts = 2,
                               .pre = "qwen2",
                               .n_threads = 2};
        ok(tokenizer_train(tiny_path(path, "slow.gguf"), &o, &err), &err);
        slow *s = slow_new(texts, (uint64_t[]){1, 2}, 2);
        compare_with_slow(path, s);
        mem_free(s);
        strbuf_free(&a);
        strbuf_free(&b);
    }
}

static void test_taken_texts(void **state)
{
    counted_word some[] = {{"abab", 4, 0, 5}, {"cd", 2, 0, 3}};
    word_count all = {some, 2, 2};
    learnt_merge merges[4];
    int n = 0;
    dil_error err;
    (void)state;
    ok(merges_learn(merges, 4, &n, &all, (str[]){STR("ab")}, 1, NULL, NULL, &err), &err);
    assert_int_equal(n, 4);
    assert_true(merges[3].left == 'c' && merges[3].right == 'd');
    assert_true(merges[0].left == 'b' && merges[0].right == 'a');
    assert_true(merges[1].left == 'a' && merges[1].right == 256);
    assert_true(merges[2].left == 257 && merges[2].right == 'b');
}

/* "xy" and "ab" as often as each other: the space before x has the lowest byte, then a; a merged token comes after all bytes. */
static void test_ties(void **state)
{
    char path[600];
    gguf *g;
    dil_error err;
    const str *merges;
    uint64_t n;
    strbuf text = STRBUF(4096);
    (void)state;
    strbuf_add_str(&text, STR("ab xy\nab xy\n"));
    for (char c = 'A'; c <= 'Z'; c++)
        strbuf_printf(&text, "%c%c%c\n", c, c + 32, c + 32);
    str s = strbuf_str(&text);
    tokenizer_options o = {.n_vocab = 300, .texts = &s, .n_texts = 1, .pre = "qwen2"};
    ok(tokenizer_train(tiny_path(path, "ties.gguf"), &o, &err), &err);
    ok(gguf_open(&g, path, NULL, &err), &err);
    ok(gguf_get_strings(g, "tokenizer.ggml.merges", &merges, &n, &err), &err);
    static const char *const wanted[] = {"\xC4\xA0 x", "a b", "\xC4\xA0x y", "A a", "B b"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!str_equal(merges[i], str_of(wanted[i])))
            fail_msg("merge %zu: wanted \"%s\", found \"%.*s\"", i, wanted[i], STR_ARG(merges[i]));
    gguf_close(g);
    strbuf_free(&text);
}

static void test_round_trip(void **state)
{
    (void)state;
    strbuf text = words(7, 3000);
    static const char sample[] = "The quick brown fox, it's 12 o'clock!\n\n\tI\xC4\x9F"
                                 "d\xC4\xB1rl\xC4\xB1 \xC3\xA7"
                                 "ocuklar \xC5\x9Fimdi g\xC3\xB6l\xC3\xBC "
                                 "seyrediyor; \xE2\x82\xBA"
                                 "1.250,75 \xF0\x9F\x98\x80 \x01\x7F\r\n  x<|im_end|>";
    vocab *v = learn("trip.gguf", strbuf_str(&text), 500);
    dil_error err;
    token_list ids = {0};
    strbuf back = STRBUF(4096);
    ok(vocab_encode(v, STR(sample), false, false, &ids, &err), &err);
    vocab_decode(v, ids.ids, ids.n, false, &back);
    assert_true(str_equal(strbuf_str(&back), STR(sample)));
    assert_true(ids.n < sizeof sample - 1);
    ids.n = 0;
    ok(vocab_encode(v, STR("thelar"), true, true, &ids, &err), &err);
    assert_true(ids.n > 0 && ids.n < 4); /* learnt; no bos */
    ids.n = 0;
    ok(vocab_encode(v, STR("<|im_start|>a<|im_end|>" END), false, true, &ids, &err), &err);
    assert_int_equal(ids.n, 4);
    assert_int_equal(ids.ids[0], 498);
    assert_int_equal(ids.ids[1], 'a');
    assert_int_equal(ids.ids[2], vocab_eot(v));
    assert_int_equal(ids.ids[3], vocab_eos(v));
    assert_int_equal(vocab_eos(v), 497);
    assert_int_equal(vocab_eot(v), 499);
    assert_int_equal(vocab_size(v), 500);
    for (token_id id = 0; id < 500; id++)
        assert_int_equal(vocab_type(v, id), id < 497 ? TOKEN_NORMAL : TOKEN_CONTROL);
    assert_false(vocab_adds_bos(v));
    token_list_free(&ids);
    strbuf_free(&back);
    strbuf_free(&text);
    vocab_free(v);
}

static void test_marks_teach_nothing(void **state)
{
    (void)state;
    strbuf text = words(9, 400);
    for (int i = 0; i < 2000; i++)
        strbuf_add_str(&text, STR("ab" END "ba\n"));
    vocab *v = learn("marks.gguf", strbuf_str(&text), 330);
    assert_int_equal(vocab_find(v, STR("<|")), TOKEN_NONE);
    assert_int_equal(vocab_find(v, STR("en")), TOKEN_NONE);
    assert_int_not_equal(vocab_find(v, STR("ba")), TOKEN_NONE);
    vocab_free(v);
    strbuf_free(&text);
}

static bool same_files(const char *a, const char *b)
{
    char *p, *q;
    size_t n, m;
    dil_error err;
    ok(os_read_all(a, 64u << 20, &p, &n, &err), &err);
    ok(os_read_all(b, 64u << 20, &q, &m, &err), &err);
    bool same = n == m && memcmp(p, q, n) == 0;
    mem_free(p);
    mem_free(q);
    return same;
}

static void test_threads_change_nothing(void **state)
{
    char one[600], three[600];
    dil_error err;
    (void)state;
    strbuf text = words(3, 500000); /* several blocks */
    str s = strbuf_str(&text);
    assert_true(s.n > 3u << 20);
    tokenizer_options o = {.n_vocab = 2000, .texts = &s, .n_texts = 1, .pre = "qwen2", .n_threads = 1};
    ok(tokenizer_train(tiny_path(one, "one.gguf"), &o, &err), &err);
    o.n_threads = 3;
    ok(tokenizer_train(tiny_path(three, "three.gguf"), &o, &err), &err);
    assert_true(same_files(one, three));
    strbuf_free(&text);
}

static bool refuse(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user, (void)what, (void)done, (void)total;
    return false;
}

static void test_bad_options(void **state)
{
    char path[600];
    dil_error err;
    (void)state;
    strbuf text = words(1, 300);
    str good = strbuf_str(&text), bad = STR("abc \xFF"), little = STR("ab");
    const tokenizer_options fine = {.n_vocab = 320, .texts = &good, .n_texts = 1, .pre = "qwen2", .n_threads = 1};
    tiny_path(path, "bad.gguf");
    tokenizer_options o = fine;
    o.n_vocab = 299;
    fails(DIL_BAD_ARGUMENT, tokenizer_train(path, &o, &err), &err, "found 299");
    o.n_vocab = 65537;
    fails(DIL_BAD_ARGUMENT, tokenizer_train(path, &o, &err), &err, "found 65537");
    o = fine, o.pre = "nobody";
    fails(DIL_UNSUPPORTED, tokenizer_train(path, &o, &err), &err, "nobody");
    o = fine, o.n_texts = 0;
    fails(DIL_BAD_ARGUMENT, tokenizer_train(path, &o, &err), &err, "found 0");
    o = fine, o.weights = (double[]){0};
    fails(DIL_BAD_ARGUMENT, tokenizer_train(path, &o, &err), &err, "weight");
    o = fine, o.texts = &bad;
    fails(DIL_FORMAT, tokenizer_train(path, &o, &err), &err, "UTF-8");
    o = fine, o.texts = &little;
    fails(DIL_BAD_ARGUMENT, tokenizer_train(path, &o, &err), &err, "after 260");
    o = fine, o.progress = refuse;
    fails(DIL_CANCELLED, tokenizer_train(path, &o, &err), &err, "cancelled");
    assert_false(os_exists(path));
    strbuf_free(&text);
}

/* ---- documents ---- */

static void test_documents(void **state)
{
    static const char *const wanted[] = {"one\ntwo", "three", "", "\n four\n"};
    str text = STR("one\ntwo\n\n" END "\r\n\nthree" END END "\n four\n"), piece;
    size_t at = 0, n = 0;
    (void)state;
    for (bool ends; documents_next(text, &at, &piece, &ends); n++) {
        str w = n == 3 ? STR(" four\n") : str_of(wanted[n]);
        assert_true(str_equal(piece, w));
        assert_int_equal(ends, n < 3);
    }
    assert_int_equal(n, 4);
    str lines = STR("aaaa\n bbb\n<|x\n\nccc\nddd");
    assert_int_equal(documents_block(lines, 0, 2), 15); /* not before a space, '<' or an empty line */
    assert_int_equal(documents_block(lines, 15, 2), 19);
    assert_int_equal(documents_block(lines, 19, 2), lines.n);
    assert_int_equal(documents_block(lines, 0, 100), lines.n);
}

/* ---- corpora ---- */

static vocab *shared; /* of most tests here */
static int n_progress;

static bool note_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    assert_true(done <= total && strstr(what, "tokenising"));
    n_progress++;
    return true;
}

/* Lines of numbers: no stretch of 16 tokens comes twice. From line `marked` on each ends with a letter of its own. */
static strbuf numbers(int from, int n, int marked)
{
    strbuf b = STRBUF(64u << 20);
    for (int i = 0; i < n; i++)
        strbuf_printf(&b, "%06d%s\n", from + i, i < marked ? "" : "Q");
    return b;
}

static corpus_source source(const char *name, double weight, double held_out)
{
    corpus_source s = {.weight = weight, .held_out = held_out};
    char path[600], file[64];
    (void)snprintf(s.name, sizeof s.name, "%s", name);
    (void)snprintf(file, sizeof file, "%s.txt", name);
    (void)snprintf(s.path, sizeof s.path, "%s", tiny_path(path, file));
    return s;
}

static corpus_source numbers_source(const char *name, int from, int n, double weight)
{
    corpus_source s = source(name, weight, 0);
    strbuf b = numbers(from, n, n);
    write_text(s.path, &b);
    strbuf_free(&b);
    return s;
}

static const char *folder(void)
{
    static char path[600];
    return tiny_path(path, "run");
}

static corpus_options options(const corpus_source *sources, int n)
{
    n_progress = 0;
    return (corpus_options){.sources = sources,
                            .n_sources = n,
                            .v = shared,
                            .directory = folder(),
                            .context = 16,
                            .seed = 5,
                            .n_threads = 2,
                            .progress = note_progress};
}

static corpus *open_with(const corpus_options *o)
{
    corpus *c;
    dil_error err;
    ok(corpus_open(&c, o, &err), &err);
    return c;
}

static corpus *open_sources(const corpus_source *sources, int n)
{
    corpus_options o = options(sources, n);
    return open_with(&o);
}

static int fresh(void **state)
{
    dil_error ignored;
    (void)state;
    return os_exists(folder()) && os_remove_tree(folder(), &ignored) != DIL_OK;
}

static int prepare(void **state)
{
    (void)state;
    strbuf text = words(11, 3000);
    shared = learn("shared.gguf", strbuf_str(&text), 400);
    strbuf_free(&text);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    vocab_free(shared);
    return 0;
}

/* Where a sequence stands in the training part; it is there once. */
static size_t find_start(corpus_part part, const int32_t *tokens, size_t n)
{
    size_t found = SIZE_MAX;
    for (size_t at = 0; at + n <= part.n; at++) {
        size_t i = 0;
        while (i < n && part.tokens[at + i] == tokens[i])
            i++;
        if (i == n) {
            assert_int_equal(found, SIZE_MAX);
            found = at;
        }
    }
    assert_int_not_equal(found, SIZE_MAX);
    return found;
}

static void test_batches_are_pure(void **state)
{
    enum { N = 6, LENGTH = 17 };
    int32_t a[N * LENGTH], b[N * LENGTH], halves[N * LENGTH];
    int from[N];
    (void)state;
    corpus_source s[] = {numbers_source("one", 0, 400, 1), numbers_source("two", 1000, 300, 2)};
    corpus *c = open_sources(s, 2), *again = open_sources(s, 2);
    corpus_options o = options(s, 2);
    o.seed = 6;
    corpus *other = open_with(&o);
    int n_same = 0;
    for (uint64_t step = 0; step < 200; step += 7) {
        corpus_batch(c, step, N, a, from);
        corpus_batch(again, step + 1, N, b, NULL);
        corpus_batch(again, step, N, b, NULL);
        assert_memory_equal(a, b, sizeof a);
        corpus_batch(c, 2 * step, N / 2, halves, NULL);
        corpus_batch(c, 2 * step + 1, N / 2, halves + N / 2 * LENGTH, NULL);
        assert_memory_equal(a, halves, sizeof a);
        corpus_batch(other, step, N, b, NULL);
        n_same += memcmp(a, b, sizeof a) == 0;
        for (int i = 0; i < N; i++)
            find_start(corpus_training(c, from[i]), a + i * LENGTH, LENGTH); /* inputs and targets are one stretch of text */
    }
    assert_int_equal(n_same, 0);
    corpus_free(c);
    corpus_free(again);
    corpus_free(other);
}

/* Starts of one pass; they lie a context apart. Returns how many pieces there are. */
static size_t take_pass(const corpus *c, size_t pass, size_t *starts)
{
    int32_t tokens[17];
    corpus_part part = corpus_training(c, 0);
    size_t n = (part.n - 1) / 16 - 1;
    assert_true(n <= 500);
    for (size_t i = 0; i < n; i++) {
        corpus_batch(c, pass * n + i, 1, tokens, NULL);
        starts[i] = find_start(part, tokens, 17);
        assert_int_equal(starts[i] % 16, starts[0] % 16);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(starts[k], starts[i]);
    }
    return n;
}

static void test_no_piece_comes_twice(void **state)
{
    size_t first[500], second[500], n_same = 0, n_next = 0, n;
    (void)state;
    corpus_source s = numbers_source("one", 0, 800, 1);
    corpus *c = open_sources(&s, 1);
    n = take_pass(c, 0, first);
    assert_int_equal(take_pass(c, 1, second), n);
    for (size_t i = 0; i < n; i++) {
        n_same += first[i] / 16 == second[i] / 16;
        n_next += i > 0 && first[i] == first[i - 1] + 16;
    }
    assert_true(n > 300 && n_same < n / 20 && n_next < n / 20);
    assert_int_not_equal(first[0] % 16, second[0] % 16); /* cut elsewhere; holds for this seed */
    corpus_free(c);
}

/* Piece number k of a source: not one of its pass that came before. */
static void note_start(corpus_part part, const int32_t *tokens, int k, size_t *starts)
{
    int n = (int)(part.n - 1) / 16 - 1, i = k % n;
    assert_true(n > 10 && n <= 40);
    starts[i] = find_start(part, tokens, 17);
    for (int before = 0; before < i; before++)
        assert_int_not_equal(starts[before], starts[i]);
}

static void test_shares(void **state)
{
    enum { N = 8 };
    int32_t tokens[N * 17];
    int from[N], had[3] = {0};
    size_t starts[40] = {0};
    (void)state;
    corpus_source s[] = {numbers_source("a", 0, 50, 0.5), numbers_source("b", 100, 50, 1), numbers_source("c", 200, 50, 2.5)};
    corpus *c = open_sources(s, 3);
    for (int step = 0; step < 9000; step++) { /* more than the 65536 turns */
        corpus_batch(c, (uint64_t)step, N, tokens, from);
        for (int i = 0; i < N; i++) {
            if (from[i] == 0)
                note_start(corpus_training(c, 0), tokens + 17 * i, had[0], starts);
            had[from[i]]++;
        }
        for (int k = 0; k < 3; k++)
            assert_true(fabs(had[k] - s[k].weight / 4 * N * (step + 1)) < 3.5);
    }
    corpus_free(c);
}

static strbuf text_of(corpus_part part)
{
    strbuf b = STRBUF(64u << 20);
    for (size_t i = 0; i < part.n; i++)
        vocab_decode_token(shared, part.tokens[i], true, &b);
    return b;
}

static void test_held_out(void **state)
{
    int32_t tokens[4 * 17];
    char *text;
    size_t n, n_train;
    dil_error err;
    (void)state;
    corpus_source s = source("held", 1, 0.1);
    strbuf b = numbers(0, 1000, 900); /* lines grow by a letter: the cut falls behind line 900 */
    write_text(s.path, &b);
    ok(corpus_read(&s, &text, &n, &n_train, &err), &err);
    assert_true(n == b.n && memcmp(text, b.p, n) == 0);
    assert_int_equal(text[n_train - 1], '\n');
    assert_true((double)n_train >= 0.9 * (double)n && (double)n_train < 0.9 * (double)n + 8);
    corpus *c = open_sources(&s, 1);
    strbuf train = text_of(corpus_training(c, 0)), held = text_of(corpus_held_out(c, 0));
    size_t mark = sizeof END - 1;
    assert_int_equal(train.n, n_train + 2 * mark);
    assert_int_equal(held.n, n - n_train + 2 * mark);
    assert_memory_equal(train.p + mark, text, n_train);
    assert_memory_equal(held.p + mark, text + n_train, n - n_train);
    assert_memory_equal(held.p, END, mark);
    assert_memory_equal(held.p + held.n - mark, END, mark);
    assert_int_equal(corpus_training(c, 0).n_bytes, n_train);
    assert_int_equal(corpus_held_out(c, 0).n_bytes, n - n_train);
    corpus_part h = corpus_held_out(c, 0);
    for (uint64_t step = 0; step < 500; step++) {
        corpus_batch(c, step, 4, tokens, NULL);
        for (int i = 0; i < 4; i++)
            find_start(corpus_training(c, 0), tokens + 17 * i, 17);
        for (size_t at = 0; at + 17 <= h.n; at++) {
            size_t i = 0;
            while (i < 17 && h.tokens[at + i] == tokens[i])
                i++;
            assert_true(i < 17);
        }
    }
    strbuf_free(&train);
    strbuf_free(&held);
    strbuf_free(&b);
    mem_free(text);
    corpus_free(c);
}

static void test_marks(void **state)
{
    static const char text[] = "one\n\n" END "\n\ntwo" END "\n" END END "<|im_end|> three\n";
    (void)state;
    corpus_source s = source("marks", 1, 0);
    write_bytes(s.path, text, sizeof text - 1);
    corpus_options o = options(&s, 1);
    o.context = 1;
    corpus *c = open_with(&o);
    strbuf b = text_of(corpus_training(c, 0));
    assert_string_equal(b.p, END "one" END "two" END "<|im_end|> three\n" END);
    assert_int_equal(corpus_training(c, 0).n_bytes, 3 + 3 + 17);
    assert_int_equal(corpus_held_out(c, 0).n, 0);
    for (size_t i = 0; i < corpus_training(c, 0).n; i++)
        assert_true(corpus_training(c, 0).tokens[i] != vocab_eot(shared)); /* as written in the text it is text */
    strbuf_free(&b);
    corpus_free(c);
}

static void test_blocks_fit_together(void **state)
{
    token_list ids = {0};
    dil_error err;
    (void)state;
    strbuf text = words(21, 500000);
    corpus_source s = source("long", 1, 0);
    write_text(s.path, &text);
    corpus *c = open_sources(&s, 1);
    assert_true(n_progress > 0);
    corpus_part part = corpus_training(c, 0);
    ok(vocab_encode(shared, strbuf_str(&text), false, false, &ids, &err), &err);
    assert_int_equal(part.n, ids.n + 2);
    for (size_t i = 0; i < ids.n; i++)
        assert_int_equal(part.tokens[i + 1], ids.ids[i]);
    token_list_free(&ids);
    strbuf_free(&text);
    corpus_free(c);
}

static void damage(size_t at, ptrdiff_t cut)
{
    char path[700], *p;
    size_t n;
    dil_error err;
    (void)snprintf(path, sizeof path, "%s/tokens-one.bin", folder());
    ok(os_read_all(path, 1u << 20, &p, &n, &err), &err);
    p[at < n ? at : n - 1] ^= 1;
    write_bytes(path, p, (size_t)((ptrdiff_t)n + cut));
    mem_free(p);
}

/* Opens; whether the text was tokenised (again). */
static bool made(const corpus_options *o, const char *begins)
{
    n_progress = 0;
    corpus *c = open_with(o);
    strbuf b = text_of(corpus_training(c, 0));
    assert_memory_equal(b.p + sizeof END - 1, begins, strlen(begins));
    strbuf_free(&b);
    corpus_free(c);
    return n_progress > 0;
}

static void test_cache(void **state)
{
    (void)state;
    corpus_source s = numbers_source("one", 0, 400, 1);
    corpus_options o = options(&s, 1);
    assert_true(made(&o, "000000"));
    assert_false(made(&o, "000000"));
    static const size_t places[] = {0, 8, 17, 33, 45, 64, 90, 97, 333, SIZE_MAX};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        damage(places[i], 0);
        assert_true(made(&o, "000000"));
        assert_false(made(&o, "000000"));
    }
    damage(SIZE_MAX, -1);
    assert_true(made(&o, "000000"));
    damage(SIZE_MAX, -2000);
    assert_true(made(&o, "000000"));
    s.held_out = 0.2;
    assert_true(made(&o, "000000"));
    assert_false(made(&o, "000000"));
    s.held_out = 0;
    assert_true(made(&o, "000000"));
    s = numbers_source("one", 5000, 400, 1); /* same size, another time */
    assert_true(made(&o, "005000"));
    s = numbers_source("one", 6000, 401, 1);
    assert_true(made(&o, "006000"));
    strbuf text = words(12, 3000);
    vocab *v = learn("other.gguf", strbuf_str(&text), 400), *kept = shared;
    o.v = shared = v;
    assert_true(made(&o, "006000"));
    assert_false(made(&o, "006000"));
    shared = kept;
    vocab_free(v);
    strbuf_free(&text);
}

/* A file whose sums are right but whose tokens are none of the vocabulary's is made again. Its head: sum of the ids at 80, of what
 * stands before it at 88. */
static void test_foreign_tokens(void **state)
{
    (void)state;
    corpus_source s = numbers_source("one", 0, 400, 1);
    corpus_options o = options(&s, 1);
    char path[700], *p;
    size_t n;
    dil_error err;
    const size_t head = 96;
    assert_true(made(&o, "000000"));
    (void)snprintf(path, sizeof path, "%s/tokens-one.bin", folder());
    for (int id = vocab_size(shared) - 1; id <= vocab_size(shared); id++) {
        ok(os_read_all(path, 1u << 20, &p, &n, &err), &err);
        uint16_t foreign = (uint16_t)id;
        memcpy(p + n - 20, &foreign, sizeof foreign);
        uint64_t sum = XXH3_64bits(p + head, n - head);
        memcpy(p + 80, &sum, sizeof sum);
        sum = XXH3_64bits(p, 88);
        memcpy(p + 88, &sum, sizeof sum);
        write_bytes(path, p, n);
        mem_free(p);
        assert_true(made(&o, "000000") == (id == vocab_size(shared)));
    }
}

static void test_compressed(void **state)
{
    char *text;
    size_t n, n_train;
    dil_error err;
    (void)state;
    strbuf b = words(31, 30000);
    corpus_source s = source("packed", 1, 0.25);
    (void)snprintf(s.path + strlen(s.path) - 4, 16, ".txt.zst");
    size_t room = ZSTD_compressBound(b.n) + 1000, half = b.n / 2;
    char *packed = mem_alloc(room, MEM_MISC);
    size_t first = ZSTD_compress(packed, room, b.p, half, 3);
    size_t second = ZSTD_compress(packed + first, room - first, b.p + half, b.n - half, 3);
    assert_false(ZSTD_isError(first) || ZSTD_isError(second));
    write_bytes(s.path, packed, first + second); /* two frames */
    ok(corpus_read(&s, &text, &n, &n_train, &err), &err);
    assert_int_equal(n, b.n);
    assert_memory_equal(text, b.p, n);
    assert_true(n_train < n && text[n_train - 1] == '\n');
    mem_free(text);
    write_bytes(s.path, packed, first + second - 5);
    fails(DIL_FORMAT, corpus_read(&s, &text, &n, &n_train, &err), &err, "end of the file");
    packed[first / 2] ^= 64;
    packed[0] ^= 1;
    write_bytes(s.path, packed, first + second);
    fails(DIL_FORMAT, corpus_read(&s, &text, &n, &n_train, &err), &err, "zstd");
    mem_free(packed);
    strbuf_free(&b);
}

static void test_bad_sources(void **state)
{
    corpus *c;
    dil_error err;
    (void)state;
    corpus_source s = source("bad", 1, 0), twice[2];
    corpus_options o = options(&s, 1);
    fails(DIL_IO, corpus_open(&c, &o, &err), &err, "bad.txt");
    write_bytes(s.path, "abcdefghijklm\xC3(nopqrstuvwxyz", 28);
    fails(DIL_FORMAT, corpus_open(&c, &o, &err), &err, "byte 13");
    write_bytes(s.path, "ab\n", 3);
    fails(DIL_BAD_ARGUMENT, corpus_open(&c, &o, &err), &err, "more than 16 tokens");
    s = numbers_source("bad", 0, 400, 1);
    o.progress = refuse;
    fails(DIL_CANCELLED, corpus_open(&c, &o, &err), &err, "cancelled");
    o.progress = NULL;
    s.weight = 0;
    fails(DIL_BAD_ARGUMENT, corpus_open(&c, &o, &err), &err, "weight");
    s.weight = 1;
    s.held_out = 0.6;
    fails(DIL_BAD_ARGUMENT, corpus_open(&c, &o, &err), &err, "held_out");
    s.held_out = 0;
    s.name[1] = '/';
    fails(DIL_BAD_ARGUMENT, corpus_open(&c, &o, &err), &err, "b/d");
    s.name[1] = 'a';
    twice[0] = twice[1] = s;
    o.sources = twice;
    o.n_sources = 2;
    fails(DIL_BAD_ARGUMENT, corpus_open(&c, &o, &err), &err, "again");
    o.n_sources = 0;
    fails(DIL_BAD_ARGUMENT, corpus_open(&c, &o, &err), &err, "found 0");
}

static void test_vocabulary_too_large(void **state)
{
    enum { N = 65537 };
    corpus *c;
    dil_error err;
    vocab *v;
    vocab_source vs;
    (void)state;
    str *tokens = mem_calloc(N, sizeof *tokens, MEM_MISC), merge = STR("t0 t1");
    char *texts = mem_calloc(N, 8, MEM_MISC);
    for (int i = 0; i < N; i++) {
        (void)snprintf(texts + 8 * (size_t)i, 8, i == 2 ? "t0t1" : "t%d", i);
        tokens[i] = str_of(texts + 8 * (size_t)i);
    }
    vocab_source_init(&vs);
    vs.model = STR("gpt2");
    vs.pre = STR("qwen2");
    vs.tokens = tokens;
    vs.n_tokens = N;
    vs.merges = &merge;
    vs.n_merges = 1;
    vs.eos = 5;
    ok(vocab_new(&v, &vs, &err), &err);
    corpus_source s = numbers_source("one", 0, 400, 1);
    corpus_options o = options(&s, 1);
    o.v = v;
    fails(DIL_UNSUPPORTED, corpus_open(&c, &o, &err), &err, "found 65537");
    vocab_free(v);
    mem_free(texts);
    mem_free(tokens);
}

/* Whatever fails, nothing is kept and the next call works. */
static void test_failures(void **state)
{
    char path[600];
    dil_error err;
    (void)state;
    strbuf text = words(1, 300);
    str t = strbuf_str(&text);
    tokenizer_options train = {.n_vocab = 320, .texts = &t, .n_texts = 1, .pre = "qwen2", .n_threads = 1};
    corpus_source s = numbers_source("one", 0, 100, 1);
    corpus_options o = options(&s, 1);
    o.n_threads = 1;
    tiny_path(path, "failing.gguf");
    for (int kind = 0; kind < 2; kind++) {
        void (*inject)(int64_t) = kind ? os_inject_failure : mem_inject_failure;
        dil_status a = DIL_IO, b = DIL_IO;
        for (int after = 0; (a != DIL_OK || b != DIL_OK) && after < 2000; after++) {
            corpus *c = NULL;
            (void)fresh(NULL);
            inject(after);
            a = tokenizer_train(path, &train, &err);
            inject(-1);
            inject(after);
            b = corpus_open(&c, &o, &err);
            inject(-1);
            assert_true(b == DIL_OK || b == DIL_NO_MEMORY || b == DIL_IO);
            corpus_free(c);
        }
        assert_true(a == DIL_OK && b == DIL_OK);
    }
    strbuf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_taken_texts),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_marks_teach_nothing),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_documents),
        cmocka_unit_test_setup(test_batches_are_pure, fresh),
        cmocka_unit_test_setup(test_no_piece_comes_twice, fresh),
        cmocka_unit_test_setup(test_shares, fresh),
        cmocka_unit_test_setup(test_held_out, fresh),
        cmocka_unit_test_setup(test_marks, fresh),
        cmocka_unit_test_setup(test_blocks_fit_together, fresh),
        cmocka_unit_test_setup(test_cache, fresh),
        cmocka_unit_test_setup(test_foreign_tokens, fresh),
        cmocka_unit_test_setup(test_compressed, fresh),
        cmocka_unit_test_setup(test_bad_sources, fresh),
        cmocka_unit_test_setup(test_vocabulary_too_large, fresh),
        cmocka_unit_test_setup(test_failures, fresh),
    };
    return leaks_run_group_tests(tests, prepare, finish);
}
