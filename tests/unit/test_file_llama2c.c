/* llama2.c checkpoints -> GGUF: the real tiny ones when ../shared is there, and wrong ones made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "file/gguf.h"
#include "gguf_bytes.h"

static char directory[256], shared[600];

static const char *path_of(const char *name)
{
    static char paths[4][900];
    static int next;
    char *p = paths[next++ % 4];
    snprintf(p, 900, "%s/%s", directory, name);
    return p;
}

static const char *shared_path(const char *name)
{
    static char paths[2][900];
    static int next;
    char *p = paths[next++ % 2];
    snprintf(p, 900, "%s/data/tiny_models/%s", shared, name);
    return p;
}

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

static void fails(dil_status st, const dil_error *err, dil_status code, const char *wanted)
{
    assert_int_equal(st, code);
    if (!strstr(err->text, wanted))
        fail_msg("wanted '%s', found '%s'", wanted, err->text);
    assert_false(os_exists(path_of("out.gguf")));
}

static int make_room(void **state)
{
    (void)state;
    const char *dir = getenv("DIL_SHARED"), *source = getenv("DIL_SOURCE_DIR");
    snprintf(shared, sizeof shared, "%s%s", dir ? dir : source ? source : ".", dir ? "" : "/../shared");
    make_directory(directory);
    return 0;
}

static int clear_room(void **state)
{
    (void)state;
    static const char *const names[] = {"m.bin", "t.bin", "t.model", "out.gguf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
    return rmdir(directory) == 0 && mem_bytes(MEM_FILE) == 0 && mem_bytes(MEM_TEXT) == 0 ? 0 : -1;
}

/* ---- checkpoints made by hand: every float is its own index ---- */

#define DIM 8
#define HIDDEN 6
#define LAYERS 2
#define HEADS 4
#define KV_HEADS 2
#define VOCAB 5
#define CONTEXT 3
#define HEAD (DIM / HEADS)
#define KV_DIM (HEAD * KV_HEADS)

static size_t n_floats(bool own_output)
{
    size_t layer = DIM + 2 * DIM * DIM + 2 * KV_DIM * DIM + DIM + 3 * HIDDEN * DIM;
    return VOCAB * DIM + LAYERS * layer + DIM + CONTEXT * HEAD + (own_output ? VOCAB * DIM : 0);
}

static void make_checkpoint(bytes *b, bool own_output)
{
    const int32_t header[7] = {DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, own_output ? -VOCAB : VOCAB, CONTEXT};
    b->n = 0;
    put(b, header, sizeof header);
    for (size_t i = 0; i < n_floats(own_output); i++)
        put_f32(b, (float)i);
}

static void put_bin_token(bytes *b, float score, const char *text)
{
    put_f32(b, score);
    put_u32(b, (uint32_t)strlen(text));
    put(b, text, strlen(text));
}

static void make_tokens(bytes *b)
{
    b->n = 0;
    put_u32(b, 6);
    put_bin_token(b, 0, "<unk>");
    put_bin_token(b, 0, "\n<s>\n");
    put_bin_token(b, 0, "\n</s>\n");
    put_bin_token(b, 0, "<0x0A>");
    put_bin_token(b, -3.5f, " a b");
}

static void write_pair(const bytes *checkpoint, const bytes *tokens, const char *tokens_name)
{
    assert_true(write_file(path_of("m.bin"), checkpoint->p, checkpoint->n));
    assert_true(write_file(path_of(tokens_name), tokens->p, tokens->n));
}

static dil_status import(const char *tokens_name, dil_error *err)
{
    return llama2c_import(path_of("m.bin"), path_of(tokens_name), path_of("out.gguf"), err);
}

/* The float of the checkpoint that lies at row, column of the tensor. */
static void expect_float(const gguf *g, const char *name, uint64_t rows, uint64_t columns, size_t start)
{
    const gguf_tensor *t = gguf_tensor_find(g, name);
    if (!t)
        fail_msg("no tensor %s", name);
    assert_int_equal(t->type, DIL_TYPE_F32);
    assert_int_equal(t->n_dims, rows ? 2 : 1);
    assert_true(t->ne[0] == columns && t->ne[1] == (rows ? rows : 1));
    const float *p = t->data;
    size_t n = (size_t)(columns * t->ne[1]);
    assert_true(p[0] == (float)start && p[n - 1] == (float)(start + n - 1));
}

static void test_layout(void **state)
{
    (void)state;
    static bytes m, t;
    dil_error err;
    for (int own = 0; own < 2; own++) {
        gguf *g = NULL;
        make_checkpoint(&m, own);
        make_tokens(&t);
        write_pair(&m, &t, "t.bin");
        ok(import("t.bin", &err), &err);
        ok(gguf_open(&g, path_of("out.gguf"), NULL, &err), &err);
        assert_int_equal(gguf_n_tensors(g), 2 + 9 * LAYERS + own);
        size_t at = VOCAB * DIM;
        expect_float(g, "token_embd.weight", VOCAB, DIM, 0);
        expect_float(g, "blk.0.attn_norm.weight", 0, DIM, at);
        expect_float(g, "blk.1.attn_norm.weight", 0, DIM, at + DIM);
        at += LAYERS * DIM;
        expect_float(g, "blk.1.attn_q.weight", DIM, DIM, at + DIM * DIM);
        at += LAYERS * DIM * DIM;
        expect_float(g, "blk.1.attn_k.weight", KV_DIM, DIM, at + KV_DIM * DIM);
        at += LAYERS * KV_DIM * DIM;
        expect_float(g, "blk.0.attn_v.weight", KV_DIM, DIM, at);
        at += LAYERS * KV_DIM * DIM;
        expect_float(g, "blk.0.attn_output.weight", DIM, DIM, at);
        at += LAYERS * DIM * DIM;
        expect_float(g, "blk.1.ffn_norm.weight", 0, DIM, at + DIM);
        at += LAYERS * DIM;
        expect_float(g, "blk.1.ffn_gate.weight", HIDDEN, DIM, at + HIDDEN * DIM);
        at += LAYERS * HIDDEN * DIM;
        expect_float(g, "blk.0.ffn_down.weight", DIM, HIDDEN, at);
        at += LAYERS * HIDDEN * DIM;
        expect_float(g, "blk.1.ffn_up.weight", HIDDEN, DIM, at + HIDDEN * DIM);
        at += LAYERS * HIDDEN * DIM;
        expect_float(g, "output_norm.weight", 0, DIM, at);
        if (own)
            expect_float(g, "output.weight", VOCAB, DIM, at + DIM + CONTEXT * HEAD);
        gguf_close(g);
        ok(gguf_check(path_of("out.gguf"), NULL, NULL, NULL, NULL, &err), &err);
    }
}

static void test_vocabulary(void **state)
{
    (void)state;
    static bytes m, t;
    static const char *const wanted[] = {"<unk>", "<s>", "</s>", "<0x0A>",
                                         "\xe2\x96\x81"
                                         "a\xe2\x96\x81"
                                         "b"};
    static const int32_t types_wanted[] = {2, 3, 3, 6, 1};
    gguf *g = NULL;
    dil_error err;
    make_checkpoint(&m, false);
    make_tokens(&t);
    write_pair(&m, &t, "t.bin");
    ok(import("t.bin", &err), &err);
    ok(gguf_open(&g, path_of("out.gguf"), NULL, &err), &err);
    const str *texts;
    const int32_t *types;
    const float *scores;
    uint64_t n, n_types, n_scores;
    ok(gguf_get_strings(g, "tokenizer.ggml.tokens", &texts, &n, &err), &err);
    ok(gguf_get_i32_array(g, "tokenizer.ggml.token_type", &types, &n_types, &err), &err);
    ok(gguf_get_f32_array(g, "tokenizer.ggml.scores", &scores, &n_scores, &err), &err);
    assert_true(n == VOCAB && n_types == VOCAB && n_scores == VOCAB && scores[4] == -3.5f);
    for (int i = 0; i < VOCAB; i++) {
        assert_true(str_equal(texts[i], str_of(wanted[i])));
        assert_int_equal(types[i], types_wanted[i]);
    }
    gguf_close(g);
}

static void test_wrong_checkpoints(void **state)
{
    (void)state;
    static bytes m, t;
    dil_error err;
    static const struct {
        int field;
        int32_t value;
        const char *wanted;
    } list[] = {
        {0, 0, "dim: wanted 1 to 16777216, found 0"},
        {0, -8, "dim: wanted 1 to 16777216, found -8"},
        {0, INT32_MAX, "dim: wanted"},
        {0, 12, "wanted dim 12 to be an even multiple of n_heads 4"},
        {1, 0, "hidden_dim: wanted"},
        {1, INT32_MIN, "hidden_dim: wanted"},
        {1, 1 << 24, "weights: wanted a file of"},
        {2, 0, "n_layers: wanted 1 to 65536, found 0"},
        {2, 65536, "weights: wanted a file of"},
        {3, 0, "n_heads: wanted 1 to 8, found 0"},
        {3, 9, "n_heads: wanted 1 to 8, found 9"},
        {3, 3, "wanted dim 8 to be an even multiple"},
        {4, 5, "n_kv_heads: wanted 1 to 4, found 5"},
        {4, 3, "and that of n_kv_heads 3"},
        {5, 0, "vocab_size: wanted"},
        {5, INT32_MIN, "vocab_size: wanted"},
        {5, VOCAB + 1, "weights: wanted a file of"},
        {6, 0, "seq_len: wanted"},
        {6, INT32_MAX, "seq_len: wanted"},
    };
    make_tokens(&t);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        make_checkpoint(&m, false);
        memcpy(m.p + 4 * list[i].field, &list[i].value, 4);
        write_pair(&m, &t, "t.bin");
        fails(import("t.bin", &err), &err, DIL_FORMAT, list[i].wanted);
        assert_non_null(strstr(err.text, "byte offset"));
    }
    make_checkpoint(&m, false);
    for (size_t n = m.n; n-- > 0; n = n > 40 ? n - 11 : n) {
        m.n = n;
        write_pair(&m, &t, "t.bin");
        fails(import("t.bin", &err), &err, DIL_FORMAT, n == 0 ? "empty" : "byte offset");
    }
    make_checkpoint(&m, false);
    put_f32(&m, 0);
    write_pair(&m, &t, "t.bin");
    fails(import("t.bin", &err), &err, DIL_FORMAT, "weights: wanted a file of");
    unlink(path_of("m.bin"));
    fails(import("t.bin", &err), &err, DIL_IO, "m.bin: cannot open");
}

static void test_wrong_tokens(void **state)
{
    (void)state;
    static bytes m, t;
    dil_error err;
    make_checkpoint(&m, false);
    make_tokens(&t);
    size_t whole = t.n;
    for (t.n = 0; t.n < whole; t.n++) {
        write_pair(&m, &t, "t.bin");
        fails(import("t.bin", &err), &err, DIL_FORMAT, "byte offset");
    }
    put_bin_token(&t, 0, "more");
    write_pair(&m, &t, "t.bin");
    fails(import("t.bin", &err), &err, DIL_FORMAT, "wanted 5 as the checkpoint says");
    make_tokens(&t);
    memcpy(t.p + 8, &(int32_t){-1}, 4);
    write_pair(&m, &t, "t.bin");
    fails(import("t.bin", &err), &err, DIL_FORMAT, "length of token 0: wanted 0 to");
    make_checkpoint(&m, false);
    memcpy(m.p + 20, &(int32_t){2}, 4);
    m.n -= 3 * DIM * sizeof(float);
    write_pair(&m, &t, "t.bin");
    fails(import("t.bin", &err), &err, DIL_FORMAT, "tokens: wanted at least 3");
    unlink(path_of("t.bin"));
    make_checkpoint(&m, false);
    assert_true(write_file(path_of("m.bin"), m.p, m.n));
    fails(import("t.bin", &err), &err, DIL_IO, "t.bin: cannot open");
}

/* ---- SentencePiece models made by hand ---- */

static void put_message(bytes *b, uint8_t field, const void *p, size_t n)
{
    put_u8(b, (uint8_t)(field << 3 | 2));
    put_u8(b, (uint8_t)n); /* below 128 */
    put(b, p, n);
}

static void put_piece(bytes *b, const char *text, float score, uint8_t type)
{
    bytes *piece = calloc(1, sizeof *piece);
    assert_non_null(piece);
    put_message(piece, 1, text, strlen(text));
    put_u8(piece, 2 << 3 | 5);
    put_f32(piece, score);
    if (type) {
        put_u8(piece, 3 << 3);
        put_u8(piece, type);
    }
    put_message(b, 1, piece->p, piece->n);
    free(piece);
}

static void make_model(bytes *b, uint8_t last_type, const char *trainer, const char *normalizer)
{
    b->n = 0;
    put_piece(b, "<unk>", 0, 2);
    put_piece(b, "<s>", 0, 3);
    put_piece(b, "</s>", 0, 3);
    put_piece(b, "\xe2\x96\x81", -1, 0);
    put_piece(b, "a", -2, last_type);
    put_message(b, 2, trainer, strlen(trainer));
    put_message(b, 3, normalizer, strlen(normalizer));
}

static void test_sentencepiece(void **state)
{
    (void)state;
    static bytes m, t;
    gguf *g = NULL;
    dil_error err;
    uint32_t bos = 0;
    bool prefix = true;
    make_checkpoint(&m, false);
    /* byte pairs; begin token 2, end token 1; no space in front (field 3 = 0) */
    make_model(&t, 4, "\x18\x02\xc8\x02\x02\xd0\x02\x01", "\x18\x80\x80\x01");
    t.p[t.n - 1] = 0;
    write_pair(&m, &t, "t.model");
    ok(import("t.model", &err), &err);
    ok(gguf_open(&g, path_of("out.gguf"), NULL, &err), &err);
    const str *texts;
    const int32_t *types;
    uint64_t n;
    ok(gguf_get_strings(g, "tokenizer.ggml.tokens", &texts, &n, &err), &err);
    ok(gguf_get_i32_array(g, "tokenizer.ggml.token_type", &types, &n, &err), &err);
    ok(gguf_get_u32(g, "tokenizer.ggml.bos_token_id", &bos, &err), &err);
    ok(gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &prefix, &err), &err);
    assert_true(n == VOCAB && bos == 2 && !prefix && types[4] == 4 && types[3] == 1);
    assert_true(str_equal(texts[3], STR("\xe2\x96\x81")));
    gguf_close(g);
    unlink(path_of("out.gguf"));

    size_t whole = t.n;
    for (t.n = 0; t.n < whole; t.n++) { /* cut between two fields, it is whole but lacks tokens */
        write_pair(&m, &t, "t.model");
        if (import("t.model", &err) == DIL_OK)
            assert_int_equal(unlink(path_of("out.gguf")), 0);
        else
            fails(DIL_FORMAT, &err, DIL_FORMAT, "byte offset");
    }
    make_model(&t, 9, "\x18\x02", "");
    write_pair(&m, &t, "t.model");
    fails(import("t.model", &err), &err, DIL_FORMAT, "type of a piece: wanted 1 to 6");
    make_model(&t, 1, "\x18\x01", "");
    write_pair(&m, &t, "t.model");
    fails(import("t.model", &err), &err, DIL_UNSUPPORTED, "wanted byte pairs (2), found 1");
    make_model(&t, 1, "\x18\x02\xc8\x02\x05", "");
    write_pair(&m, &t, "t.model");
    fails(import("t.model", &err), &err, DIL_FORMAT, "special tokens: wanted the ids");
    make_model(&t, 1, "\x18\x02", "");
    put_piece(&t, "more", 0, 1);
    write_pair(&m, &t, "t.model");
    fails(import("t.model", &err), &err, DIL_FORMAT, "wanted 5 as the checkpoint says");
    /* unknown token 1; a fixed 64-bit field and an unknown number are passed over */
    make_model(&t, 1, "\x18\x02\xc0\x02\x01\x09zzzzzzzz", "");
    put(&t, "\x20\x05", 2);
    write_pair(&m, &t, "t.model");
    ok(import("t.model", &err), &err);
    ok(gguf_open(&g, path_of("out.gguf"), NULL, &err), &err);
    ok(gguf_get_u32(g, "tokenizer.ggml.unknown_token_id", &bos, &err), &err);
    assert_int_equal(bos, 1);
    gguf_close(g);
    unlink(path_of("out.gguf"));
    make_model(&t, 1, "\x18\x02", "");
    put(&t, "\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12);
    write_pair(&m, &t, "t.model");
    fails(import("t.model", &err), &err, DIL_FORMAT, "more than ten bytes");
    make_model(&t, 1, "\x18\x02", "");
    put(&t, "\x0a\x7fx", 3);
    write_pair(&m, &t, "t.model");
    fails(import("t.model", &err), &err, DIL_FORMAT, "a field is longer than what remains");
    make_model(&t, 1, "\x18\x02", "");
    put(&t, "\x0b", 1);
    write_pair(&m, &t, "t.model");
    fails(import("t.model", &err), &err, DIL_FORMAT, "a field of unknown kind");
}

static void test_no_memory(void **state)
{
    (void)state;
    static bytes m, t;
    dil_error err;
    dil_status st = DIL_NO_MEMORY;
    make_checkpoint(&m, true);
    make_tokens(&t);
    write_pair(&m, &t, "t.bin");
    for (int64_t i = 0; st != DIL_OK; i++) {
        mem_inject_failure(i);
        st = import("t.bin", &err);
        mem_inject_failure(-1);
        assert_true(st == DIL_OK || st == DIL_NO_MEMORY);
        assert_int_equal(os_exists(path_of("out.gguf")), st == DIL_OK);
        assert_int_equal(mem_bytes(MEM_FILE) + mem_bytes(MEM_TEXT), 0);
        assert_true(i < 1000);
    }
}

/* ---- the real ones ---- */

static void test_real(void **state)
{
    (void)state;
    gguf *g = NULL;
    dil_error err;
    static const struct {
        const char *checkpoint, *tokens;
        uint32_t n_vocab, dim, context;
    } list[] = {
        {"stories260K.bin", "tok512.bin", 512, 64, 512},
        {"tok105_model5000.bin", "tok105.model", 105, 128, 256},
    };
    if (!os_exists(shared_path("stories260K.bin")))
        skip();
    for (int i = 0; i < 2; i++) {
        uint32_t dim = 0, context = 0;
        const str *tokens;
        uint64_t n;
        ok(llama2c_import(shared_path(list[i].checkpoint), shared_path(list[i].tokens), path_of("out.gguf"), &err), &err);
        ok(gguf_check(path_of("out.gguf"), NULL, NULL, NULL, NULL, &err), &err);
        ok(gguf_open(&g, path_of("out.gguf"), NULL, &err), &err);
        ok(gguf_get_u32(g, "llama.embedding_length", &dim, &err), &err);
        ok(gguf_get_u32(g, "llama.context_length", &context, &err), &err);
        ok(gguf_get_strings(g, "tokenizer.ggml.tokens", &tokens, &n, &err), &err);
        assert_true(dim == list[i].dim && context == list[i].context && n == list[i].n_vocab);
        gguf_close(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_layout, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_vocabulary, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_wrong_checkpoints, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_wrong_tokens, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_sentencepiece, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_no_memory, make_room, clear_room),
        cmocka_unit_test_setup_teardown(test_real, make_room, clear_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
