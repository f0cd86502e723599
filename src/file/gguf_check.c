/*
 * gguf_check: the reader in reporting mode, then what loaders rely on in the metadata, then the
 * data (gguf_scan.c). Offsets of metadata defects are those of the key.
 */
#include <inttypes.h>

#include "base/status.h"
#include "file/gguf_internal.h"

#define MAX_TOKEN_TYPE 6

/* The value of key when it is an array of that element kind. A wrong kind is reported and gives
 * NULL. */
static dil_status array_of(const gguf *g, gguf_sink *sink, const char *key, gguf_kind element, const gguf_value **out)
{
    const gguf_value *v = gguf_find(g, key);
    *out = NULL;
    if (!v)
        return DIL_OK;
    if (v->kind != GGUF_ARRAY || v->element != element)
        return gguf_defect(sink, &g->shards[0], v->offset, "key '%s': wanted an array of %s, found %s%s", key,
                           gguf_kind_name(element), v->kind == GGUF_ARRAY ? _("an array of ") : "",
                           gguf_kind_name(v->kind == GGUF_ARRAY ? v->element : v->kind));
    *out = v;
    return DIL_OK;
}

static dil_status check_architecture(const gguf *g, gguf_sink *sink)
{
    const gguf_shard *s = &g->shards[0];
    const gguf_value *v = gguf_find(g, "general.architecture");
    if (!v)
        return gguf_defect(sink, s, GGUF_HEADER_BYTES,
                           "key 'general.architecture': wanted the name of the architecture, found no such key");
    if (v->kind != GGUF_STRING)
        return gguf_defect(sink, s, v->offset, "key 'general.architecture': wanted STRING, found %s", gguf_kind_name(v->kind));
    if (((const str *)v->data)->n == 0)
        return gguf_defect(sink, s, v->offset,
                           "key 'general.architecture': wanted the name of the architecture, found an empty string");
    return DIL_OK;
}

static dil_status check_texts(const gguf *g, gguf_sink *sink)
{
    char shown[GGUF_SHOWN];
    for (uint64_t i = 0; i < gguf_n_values(g); i++) {
        const gguf_value *v = gguf_value_at(g, i);
        if (v->kind == GGUF_STRING && !utf8_valid(*(const str *)v->data))
            DIL_TRY(gguf_defect(sink, &g->shards[0], v->offset, "key %s: wanted text in valid UTF-8, found other bytes",
                                gguf_show(v->key, shown)));
    }
    return DIL_OK;
}

/* scores, token types: as long as the list of tokens. */
static dil_status check_companion(const gguf *g, gguf_sink *sink, const char *key, gguf_kind element, uint64_t n_tokens,
                                  const gguf_value **out)
{
    DIL_TRY(array_of(g, sink, key, element, out));
    if (*out && (*out)->count != n_tokens)
        DIL_TRY(gguf_defect(sink, &g->shards[0], (*out)->offset,
                            "key '%s': wanted %" PRIu64 " values, one per token, found %" PRIu64, key, n_tokens, (*out)->count));
    return DIL_OK;
}

static dil_status check_token_types(const gguf *g, gguf_sink *sink, const gguf_value *types)
{
    for (uint64_t i = 0; types && i < types->count; i++) {
        int32_t type;
        memcpy(&type, (const uint8_t *)types->data + i * sizeof type, sizeof type);
        if (type < 0 || type > MAX_TOKEN_TYPE)
            return gguf_defect(sink, &g->shards[0], types->offset,
                               "key 'tokenizer.ggml.token_type': element %" PRIu64 ": wanted 0 to %d, found %d", i, MAX_TOKEN_TYPE,
                               type);
    }
    return DIL_OK;
}

static dil_status check_token_ids(const gguf *g, gguf_sink *sink, uint64_t n_tokens)
{
    char shown[GGUF_SHOWN];
    for (uint64_t i = 0; i < gguf_n_values(g); i++) {
        const gguf_value *v = gguf_value_at(g, i);
        bool negative;
        uint64_t id;
        if (!str_starts(v->key, STR("tokenizer.ggml.")) || !str_ends(v->key, STR("_token_id")))
            continue;
        if (v->kind == GGUF_ARRAY || !gguf_value_integer(v, 0, &negative, &id))
            DIL_TRY(gguf_defect(sink, &g->shards[0], v->offset, "key %s: wanted an integer, found %s", gguf_show(v->key, shown),
                                gguf_kind_name(v->kind)));
        else if (negative || id >= n_tokens)
            DIL_TRY(gguf_defect(sink, &g->shards[0], v->offset, "key %s: wanted a token below %" PRIu64 ", found %s%" PRIu64,
                                gguf_show(v->key, shown), n_tokens, negative ? "-" : "", id));
    }
    return DIL_OK;
}

/* A merge is two non-empty pieces with a space between them. */
static bool merge_is_good(str merge)
{
    const char *space = merge.n > 2 ? memchr(merge.p + 1, ' ', merge.n - 2) : NULL;
    return space != NULL;
}

static dil_status check_merges(const gguf *g, gguf_sink *sink, bool wanted)
{
    const gguf_value *v;
    char shown[GGUF_SHOWN];
    DIL_TRY(array_of(g, sink, "tokenizer.ggml.merges", GGUF_STRING, &v));
    if (!v && wanted && !gguf_find(g, "tokenizer.ggml.merges"))
        return gguf_defect(sink, &g->shards[0], GGUF_HEADER_BYTES,
                           "key 'tokenizer.ggml.merges': wanted for the tokenizer 'gpt2', "
                           "found no such key");
    for (uint64_t i = 0; v && i < v->count; i++) {
        str merge = ((const str *)v->data)[i];
        if (!merge_is_good(merge))
            return gguf_defect(sink, &g->shards[0], v->offset,
                               "key 'tokenizer.ggml.merges': element %" PRIu64
                               ": wanted two pieces and a space between them, found %s",
                               i, gguf_show(merge, shown));
    }
    return DIL_OK;
}

static dil_status check_embedding(const gguf *g, gguf_sink *sink, const gguf_value *tokens)
{
    const gguf_tensor *t = gguf_tensor_find(g, "token_embd.weight");
    if (t && t->size_bytes > 0 && t->ne[1] != tokens->count)
        return gguf_defect(sink, &g->shards[t->shard], tokens->offset,
                           "tensor 'token_embd.weight': wanted %" PRIu64 " rows, one per token, found %" PRIu64, tokens->count,
                           t->ne[1]);
    return DIL_OK;
}

static dil_status check_tokenizer(const gguf *g, gguf_sink *sink)
{
    const gguf_shard *s = &g->shards[0];
    const gguf_value *model = gguf_find(g, "tokenizer.ggml.model"), *tokens, *scores, *types;
    if (!model)
        return DIL_OK;
    if (model->kind != GGUF_STRING)
        return gguf_defect(sink, s, model->offset, "key 'tokenizer.ggml.model': wanted STRING, found %s",
                           gguf_kind_name(model->kind));
    str name = *(const str *)model->data;
    DIL_TRY(array_of(g, sink, "tokenizer.ggml.tokens", GGUF_STRING, &tokens));
    if (!tokens && !gguf_find(g, "tokenizer.ggml.tokens") && !str_equal(name, STR("none")) && !str_equal(name, STR("no_vocab")))
        return gguf_defect(sink, s, model->offset, "key 'tokenizer.ggml.tokens': wanted the list of tokens, found no such key");
    if (!tokens)
        return DIL_OK;
    if (tokens->count == 0 || tokens->count > INT32_MAX)
        DIL_TRY(gguf_defect(sink, s, tokens->offset, "key 'tokenizer.ggml.tokens': wanted 1 to 2147483647 tokens, found %" PRIu64,
                            tokens->count));
    DIL_TRY(check_companion(g, sink, "tokenizer.ggml.scores", GGUF_F32, tokens->count, &scores));
    DIL_TRY(check_companion(g, sink, "tokenizer.ggml.token_type", GGUF_I32, tokens->count, &types));
    DIL_TRY(check_token_types(g, sink, types));
    DIL_TRY(check_token_ids(g, sink, tokens->count));
    DIL_TRY(check_merges(g, sink, str_equal(name, STR("gpt2"))));
    return check_embedding(g, sink, tokens);
}

dil_status gguf_check_values(const gguf *g, gguf_sink *sink)
{
    DIL_TRY(check_architecture(g, sink));
    DIL_TRY(check_texts(g, sink));
    return check_tokenizer(g, sink);
}

/* ---- the whole check ---- */

typedef struct guarded_check {
    const gguf *g;
    gguf_sink *sink;
    dil_status status;
} guarded_check;

static void run_guarded_check(void *ctx)
{
    guarded_check *job = ctx;
    job->status = gguf_check_values(job->g, job->sink);
}

static dil_status check_loaded(gguf *g, gguf_sink *sink, dil_progress_fn progress, void *user)
{
    guarded_check job = {.g = g, .sink = sink};
    if (g->shards[0].complete) {
        DIL_TRY(os_guard(run_guarded_check, &job, NULL, SIZE_MAX, sink->err));
        DIL_TRY(job.status);
    }
    return gguf_check_data(g, sink, progress, user);
}

static dil_status check(const char *path, const void *bytes, size_t n, gguf_sink *sink, dil_progress_fn progress, void *user)
{
    gguf *g = NULL;
    dil_status st = gguf_load(&g, path, bytes, n, false, sink);
    if (st == DIL_OK)
        st = check_loaded(g, sink, progress, user);
    gguf_close(g);
    if (st != DIL_OK && st != DIL_FORMAT)
        return st;
    if (sink->n_defects > 0)
        return DIL_FAIL(sink->err, DIL_FORMAT, sink->n_defects == 1 ? N_("%s: %llu defect") : N_("%s: %llu defects"), path,
                        (unsigned long long)sink->n_defects);
    return st;
}

static void ignore_defect(void *ctx, uint64_t offset, const char *text)
{
    (void)ctx;
    (void)offset;
    (void)text;
}

dil_status gguf_check(const char *path, gguf_report_fn report, void *ctx, dil_progress_fn progress, void *user, dil_error *err)
{
    gguf_sink sink = {.report = report ? report : ignore_defect, .ctx = ctx, .err = err};
    return check(path, NULL, 0, &sink, progress, user);
}

dil_status gguf_check_memory(const void *bytes, size_t n, gguf_report_fn report, void *ctx, dil_error *err)
{
    gguf_sink sink = {.report = report ? report : ignore_defect, .ctx = ctx, .err = err};
    return check("memory", bytes ? bytes : "", n, &sink, NULL, NULL);
}
