/*
 * Words are counted (word_count.h), merges learnt (merges.h) and both written down the way GPT-2's tables are: ids 0 .. 255 are the
 * bytes in their order, then the merges' tokens in theirs, and the special tokens at the end.
 */
#include "train/tokenizer.h"

#include <math.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "file/gguf.h"
#include "tokens/vocab.h"
#include "train/documents.h"
#include "train/merges.h"

#define N_BYTES 256
#define MAX_TEXTS 4096
#define MOST_THREADS 16

enum { SPECIAL_END, SPECIAL_TURN, SPECIAL_TURN_END, N_SPECIALS };
static const str specials[N_SPECIALS] = {{DOCUMENTS_MARK, sizeof DOCUMENTS_MARK - 1}, {"<|im_start|>", 12}, {"<|im_end|>", 10}};

/* ---- tables ---- */

typedef struct tables {
    arena *memory;
    str *tokens;    /* [n_vocab] as byte letters */
    str *merges;    /* [n_merges] "left right" */
    int32_t *types; /* [n_vocab] */
    int n_vocab, n_merges;
} tables;

static bool join(arena *memory, str left, const char *between, str right, str *out)
{
    size_t n = strlen(between);
    char *p = arena_alloc(memory, left.n + n + right.n + 1);
    if (!p)
        return false;
    memcpy(p, left.p, left.n);
    memcpy(p + left.n, between, n);
    memcpy(p + left.n + n, right.p, right.n);
    *out = (str){p, left.n + n + right.n};
    return true;
}

static bool fill_tables(tables *t, const learnt_merge *merges)
{
    for (int b = 0; b < N_BYTES; b++) {
        char letter[4];
        int n = vocab_byte_letter((unsigned)b, letter);
        t->tokens[b] = (str){arena_strdup(t->memory, letter, (size_t)n), (size_t)n};
        if (!t->tokens[b].p)
            return false;
    }
    for (int i = 0; i < t->n_merges; i++) {
        str left = t->tokens[merges[i].left], right = t->tokens[merges[i].right];
        if (!join(t->memory, left, "", right, &t->tokens[N_BYTES + i]) || !join(t->memory, left, " ", right, &t->merges[i]))
            return false;
    }
    for (int i = 0; i < t->n_vocab; i++)
        t->types[i] = i < t->n_vocab - N_SPECIALS ? TOKEN_NORMAL : TOKEN_CONTROL;
    memcpy(t->tokens + t->n_vocab - N_SPECIALS, specials, sizeof specials);
    return true;
}

/* ---- the file ---- */

static dil_status set_values(gguf_writer *w, const tables *t, const char *pre, dil_error *err)
{
    uint32_t first_special = (uint32_t)(t->n_vocab - N_SPECIALS);
    DIL_TRY(gguf_writer_set_str(w, "general.architecture", STR("qwen3moe"), err));
    DIL_TRY(gguf_writer_set_str(w, "general.name", STR("vocabulary"), err));
    DIL_TRY(gguf_writer_set_str(w, "tokenizer.ggml.model", STR("gpt2"), err));
    DIL_TRY(gguf_writer_set_str(w, "tokenizer.ggml.pre", str_of(pre), err));
    DIL_TRY(gguf_writer_set_strings(w, "tokenizer.ggml.tokens", t->tokens, (uint64_t)t->n_vocab, err));
    DIL_TRY(gguf_writer_set_i32_array(w, "tokenizer.ggml.token_type", t->types, (uint64_t)t->n_vocab, err));
    DIL_TRY(gguf_writer_set_strings(w, "tokenizer.ggml.merges", t->merges, (uint64_t)t->n_merges, err));
    DIL_TRY(gguf_writer_set_u32(w, "tokenizer.ggml.bos_token_id", first_special + SPECIAL_END, err));
    DIL_TRY(gguf_writer_set_u32(w, "tokenizer.ggml.eos_token_id", first_special + SPECIAL_END, err));
    DIL_TRY(gguf_writer_set_u32(w, "tokenizer.ggml.eot_token_id", first_special + SPECIAL_TURN_END, err));
    DIL_TRY(gguf_writer_set_u32(w, "tokenizer.ggml.padding_token_id", first_special + SPECIAL_END, err));
    return gguf_writer_set_bool(w, "tokenizer.ggml.add_bos_token", false, err);
}

static dil_status write_file(const char *path, const tables *t, const char *pre, dil_error *err)
{
    gguf_writer *w;
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = set_values(w, t, pre, err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}

static dil_status write_vocabulary(const char *path, const learnt_merge *merges, int n_merges, const char *pre, dil_error *err)
{
    tables t = {.memory = arena_new(MEM_VOCAB, SIZE_MAX / 2), .n_vocab = N_BYTES + n_merges + N_SPECIALS, .n_merges = n_merges};
    dil_status status = DIL_OK;
    if (t.memory) {
        t.tokens = arena_calloc(t.memory, (size_t)t.n_vocab, sizeof *t.tokens);
        t.merges = arena_calloc(t.memory, (size_t)n_merges, sizeof *t.merges);
        t.types = arena_calloc(t.memory, (size_t)t.n_vocab, sizeof *t.types);
    }
    if (!t.tokens || !t.merges || !t.types || !fill_tables(&t, merges))
        status = DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %d tokens", path, t.n_vocab);
    else
        status = write_file(path, &t, pre, err);
    arena_free(t.memory);
    return status;
}

/* ---- the call ---- */

static dil_status check_options(const tokenizer_options *o, const pre_rule **rule, dil_error *err)
{
    if (o->n_vocab < TOKENIZER_LEAST_TOKENS || o->n_vocab > TOKENIZER_MOST_TOKENS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "vocabulary: wanted %d .. %d tokens, found %d", TOKENIZER_LEAST_TOKENS,
                        TOKENIZER_MOST_TOKENS, o->n_vocab);
    if (o->n_texts < 1 || o->n_texts > MAX_TEXTS)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "vocabulary: wanted 1 .. %d texts, found %d", MAX_TEXTS, o->n_texts);
    *rule = pre_rule_find(str_of(o->pre));
    if (!*rule || ((*rule)->flags & PRE_MARKS))
        return DIL_FAIL(err, DIL_UNSUPPORTED, "vocabulary: wanted a pre-tokeniser of byte-level BPE (\"qwen2\"), found \"%.60s\"",
                        o->pre);
    for (int i = 0; i < o->n_texts; i++) {
        if (o->weights && !(o->weights[i] > 0 && isfinite(o->weights[i])))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "vocabulary: text %d: wanted a weight > 0, found %g", i, o->weights[i]);
        if (!utf8_valid(o->texts[i]))
            return DIL_FAIL(err, DIL_FORMAT, "vocabulary: text %d: wanted UTF-8, found other bytes", i);
    }
    return DIL_OK;
}

static dil_status count_words(word_count *words, const tokenizer_options *o, const pre_rule *rule, dil_error *err)
{
    int n_threads = o->n_threads > 0 ? o->n_threads : os_cpu_count();
    pretokenizer *pre;
    DIL_TRY(pretokenizer_new(&pre, rule, err));
    word_count_options count = {.texts = o->texts,
                                .weights = o->weights,
                                .n_texts = o->n_texts,
                                .pre = pre,
                                .n_threads = n_threads < MOST_THREADS ? n_threads : MOST_THREADS,
                                .progress = o->progress,
                                .user = o->user};
    dil_status status = word_count_texts(words, &count, err);
    pretokenizer_free(pre);
    return status;
}

dil_status tokenizer_train(const char *out_path, const tokenizer_options *o, dil_error *err)
{
    const pre_rule *rule = NULL;
    word_count words = {0};
    DIL_TRY(check_options(o, &rule, err));
    int n_merges = o->n_vocab - N_BYTES - N_SPECIALS, n_found = 0;
    learnt_merge *merges = mem_alloc((size_t)n_merges * sizeof *merges, MEM_VOCAB);
    if (!merges)
        return DIL_FAIL(err, DIL_NO_MEMORY, "vocabulary: no memory for %d tokens", o->n_vocab);
    dil_status status = count_words(&words, o, rule, err);
    if (status == DIL_OK)
        status = merges_learn(merges, n_merges, &n_found, &words, specials, N_SPECIALS, o->progress, o->user, err);
    if (status == DIL_OK && n_found < n_merges)
        status = DIL_FAIL(err, DIL_BAD_ARGUMENT, "vocabulary: wanted texts for %d tokens, found no more pairs after %d", o->n_vocab,
                          N_BYTES + N_SPECIALS + n_found);
    if (status == DIL_OK)
        status = write_vocabulary(out_path, merges, n_merges, o->pre, err);
    word_count_free(&words);
    mem_free(merges);
    return status;
}
