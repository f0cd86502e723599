/* Models that lie: shapes, missing tensors, keys out of range, and files truncated while they are mapped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>

#include "engine/engine.h"
#include "leaks.h"
#include "model/weights.h"
#include "tiny_model.h"

static void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static void fails(dil_status status, const dil_error *err, dil_status wanted, const char *text)
{
    if (status != wanted || (int)err->code != (int)wanted || !strstr(err->text, text))
        fail_msg("wanted %s with '%s', found %s: %s", status_name(wanted), text, status_name(status), err->text);
}

static void cut_file(const char *path, off_t n_bytes) { assert_int_equal(truncate(path, n_bytes), 0); }

static uint64_t size_of(const char *path)
{
    os_file f;
    dil_error err;
    ok(os_file_open(&f, path, &err), &err);
    os_file_close(&f);
    return f.size_bytes;
}

/* ---- files truncated while mapped ---- */

/* Opened whole, then cut to n bytes; then everything but packing is read. */
static dil_status read_cut(const tiny_model *t, off_t n, bool no_vocab, dil_error *err)
{
    char path[600];
    model m = {0};
    tiny_write(tiny_path(path, "cut"), t);
    m.memory = arena_new(MEM_WEIGHTS, (size_t)1 << 30);
    assert_non_null(m.memory);
    ok(gguf_open(&m.file, path, NULL, err), err);
    cut_file(path, n);
    dil_status status = model_read(&m, &(model_options){.no_vocab = no_vocab}, err);
    vocab_free(m.words);
    gguf_close(m.file);
    arena_free(m.memory);
    assert_int_equal(unlink(path), 0);
    return status;
}

static void truncated_before_reading(void **state)
{
    (void)state;
    dil_error err;
    tiny_model t = tiny_llama(DIL_TYPE_F32);
    ok(read_cut(&t, 1 << 30, false, &err), &err); /* longer: nothing is lost */
    fails(read_cut(&t, 0, true, &err), &err, DIL_IO, "truncated");
    fails(read_cut(&t, 16384, true, &err), &err, DIL_IO, "truncated"); /* the header is there, the norms are not */
}

typedef struct cutter {
    const char *path;
    int after;
} cutter;

static bool cut_later(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what, (void)done, (void)total;
    cutter *c = user;
    if (c->after-- == 0)
        cut_file(c->path, 0);
    return true;
}

static void truncated_while_packing(void **state)
{
    (void)state;
    char path[600];
    dil_error err;
    tiny_model t = tiny_llama(DIL_TYPE_F32);
    tiny_path(path, "pack");
    for (int threads = 1; threads <= 3; threads++) {
        tiny_write(path, &t);
        cutter c = {path, threads == 1 ? 3 : 0}; /* alone: in the midst; several: before any of them has read a byte */
        engine *e = NULL;
        engine_options o = {.n_threads = threads, .progress = cut_later, .user = &c};
        fails(engine_open(&e, path, &o, &err), &err, DIL_IO, "truncated");
        assert_null(e);
    }
    assert_int_equal(unlink(path), 0);
}

/* The rows of an embedding that is not the head are read from the mapping. */
static void truncated_while_running(void **state)
{
    (void)state;
    char path[600];
    dil_error err;
    const float *logits;
    tiny_model t = tiny_llama(DIL_TYPE_F32);
    tiny_write(tiny_path(path, "run"), &t);
    engine *e;
    engine_options o = {.n_threads = 3, .context = 256};
    session *s;
    token_id tokens[100];
    for (int i = 0; i < 100; i++)
        tokens[i] = i * 3;
    ok(engine_open(&e, path, &o, &err), &err);
    ok(session_new(&s, e, &err), &err);
    ok(session_sync(s, tokens, 50, &logits, NULL, NULL, NULL, &err), &err);
    cut_file(path, 8192);
    fails(session_sync(s, tokens, 100, &logits, NULL, NULL, NULL, &err), &err, DIL_IO, "truncated");
    assert_int_equal(session_n_tokens(s), 50);
    fails(engine_step(e, &s, tokens, 1, &logits, &err), &err, DIL_IO, path);
    assert_int_equal(session_n_tokens(s), 50);
    session_free(s);
    engine_close(e);
    t.tied = true; /* tied ones have their rows among the packed weights */
    tiny_write(path, &t);
    ok(engine_open(&e, path, &o, &err), &err);
    ok(session_new(&s, e, &err), &err);
    cut_file(path, 0);
    ok(session_sync(s, tokens, 100, &logits, NULL, NULL, NULL, &err), &err);
    session_free(s);
    engine_close(e);
    assert_int_equal(unlink(path), 0);
}

/* ---- files whose keys and shapes do not fit ---- */

typedef struct patch {
    void (*change)(tiny_model *);
    dil_status status;
    const char *text;
} patch;

static void no_arch(tiny_model *t) { t->arch = "falcon"; }
static void odd_heads(tiny_model *t) { t->n_head_kv = 3; }
static void many_kv_heads(tiny_model *t) { t->n_head_kv = 16; }
static void no_heads(tiny_model *t) { t->n_head = t->n_head_kv = 0; }
static void no_ff(tiny_model *t) { t->n_ff = 0; }
static void no_layers(tiny_model *t) { t->n_layer = 0; }
static void odd_dim(tiny_model *t) { t->head_dim = 31; }
static void no_context(tiny_model *t) { t->n_context = 0; }

/* The header says what change makes of it, the tensors are those of a sound model. */
static void write_lie(const char *path, const tiny_model *sound, const tiny_model *lie)
{
    tiny_writer t = {.m = lie};
    tiny_ok(gguf_writer_new(&t.w, path, &t.err), &t.err);
    tiny_values(&t);
    t.m = sound;
    tiny_tensors(&t);
    t.data = true;
    tiny_tensors(&t);
    tiny_ok(gguf_writer_finish(t.w, &t.err), &t.err);
}

static void keys_that_lie(void **state)
{
    (void)state;
    static const patch cases[] = {
        {no_arch, DIL_UNSUPPORTED, "llama, qwen2"},
        {odd_heads, DIL_FORMAT, "wanted a divisor of 8 heads, found 3"},
        {many_kv_heads, DIL_FORMAT, "attention.head_count_kv: wanted 1..8, found 16"},
        {no_heads, DIL_FORMAT, "attention.head_count"},
        {no_ff, DIL_FORMAT, "feed_forward_length"},
        {no_layers, DIL_FORMAT, "block_count"},
        {odd_dim, DIL_FORMAT, "wanted an even number, found 31"},
        {no_context, DIL_FORMAT, "context_length"},
    };
    char path[600];
    dil_error err;
    model *m = NULL;
    tiny_path(path, "lie");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny_model sound = tiny_llama(DIL_TYPE_Q8_0), lie = sound;
        cases[i].change(&lie);
        write_lie(path, &sound, &lie);
        fails(model_open(&m, path, &(model_options){.header_only = true}, &err), &err, cases[i].status, cases[i].text);
        assert_null(m);
    }
    assert_int_equal(unlink(path), 0);
}

/* Every number of the header that shapes depend on, one too small and one too large: the tensor at fault is named. */
static void shapes_that_lie(void **state)
{
    (void)state;
    char path[600];
    dil_error err;
    model *m = NULL;
    tiny_path(path, "shape");
    static const size_t fields[] = {offsetof(tiny_model, n_embd), offsetof(tiny_model, n_ff), offsetof(tiny_model, head_dim)};
    for (size_t i = 0; i < 3; i++)
        for (int by = -32; by <= 32; by += 64) {
            tiny_model sound = tiny_gemma(DIL_TYPE_F32), lie = sound;
            uint32_t *field = (uint32_t *)(void *)((char *)&lie + fields[i]);
            *field = fields[i] == offsetof(tiny_model, head_dim) ? (uint32_t)((int)*field + by / 16) : (uint32_t)((int)*field + by);
            write_lie(path, &sound, &lie);
            fails(model_open(&m, path, &(model_options){.header_only = true}, &err), &err, DIL_FORMAT, "wanted shape [");
        }
    tiny_model sound = tiny_llama(DIL_TYPE_F32), lie = sound;
    lie.n_layer = 3;
    write_lie(path, &sound, &lie);
    fails(model_open(&m, path, &(model_options){.header_only = true}, &err), &err, DIL_FORMAT, "'blk.2.attn_q.weight' is missing");
    lie = sound;
    lie.n_vocab = sound.n_vocab + 1; /* a token without a row */
    write_lie(path, &sound, &lie);
    fails(model_open(&m, path, &(model_options){.header_only = true}, &err), &err, DIL_FORMAT,
          "tokenizer.ggml.tokens: wanted at most 301");
    assert_null(m);
    assert_int_equal(unlink(path), 0);
}

/* ---- what a sound file gives ---- */

static void sound_models(void **state)
{
    (void)state;
    char path[600];
    dil_error err;
    team *workers;
    ok(team_new(&workers, 2, &err), &err);
    static const dil_type types[] = {DIL_TYPE_F32, DIL_TYPE_Q8_0, DIL_TYPE_Q4_K};
    for (int i = 0; i < 6; i++) {
        tiny_model t = tiny_llama(types[i % 3]);
        model *m;
        gguf *g;
        float row[256], wanted[256];
        t.tied = i >= 3;
        tiny_write(tiny_path(path, "sound"), &t);
        ok(model_open(&m, path, &(model_options){.workers = workers}, &err), &err);
        ok(gguf_open(&g, path, NULL, &err), &err);
        assert_int_equal(m->tied, t.tied);
        assert_int_equal(m->h.n_vocab, 301);
        assert_int_equal(vocab_size(m->words), 301);
        uint64_t matrices = 256u * 256 * 2 + 64u * 256 * 2 + 3u * 256 * 256;
        assert_int_equal(model_n_params(m), 2 * (matrices + 512) + 256 + 301u * 256 * (t.tied ? 1 : 2));
        const gguf_tensor *embd = gguf_tensor_find(g, "token_embd.weight");
        uint64_t row_bytes = embd->size_bytes / 301;
        for (token_id id = 0; id < 301; id += 20) { /* tied or not, packed or not: the format's own numbers */
            format_get(t.type)->decode((const char *)embd->data + (size_t)id * row_bytes, wanted, 256);
            ok(model_embed(m, id, row, &err), &err);
            assert_memory_equal(row, wanted, sizeof row);
        }
        gguf_close(g);
        model_close(m);
        assert_true(size_of(path) > 0);
        assert_int_equal(unlink(path), 0);
    }
    team_free(workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_models),
        cmocka_unit_test(keys_that_lie),
        cmocka_unit_test(shapes_that_lie),
        cmocka_unit_test(truncated_before_reading),
        cmocka_unit_test(truncated_while_packing),
        cmocka_unit_test(truncated_while_running),
    };
    return leaks_run_group_tests(tests, NULL, NULL);
}
