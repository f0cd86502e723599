/*
 * The public header over the engine. dil_engine and dil_session are never defined: they are the engine's own objects under
 * their public names. Every call checks its arguments; option structs are read as far as the caller's struct_size reaches.
 */
#include "dilmodeli.h"

#include <stdio.h>
#include <string.h>

#include "api/arguments.h"
#include "api/options.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/generate.h"

static engine *inner(const dil_engine *e) { return (engine *)(uintptr_t)e; }
static session *inner_session(const dil_session *s) { return (session *)(uintptr_t)s; }

const char *dil_version(void) { return DIL_VERSION; }
uint32_t dil_abi(void) { return DIL_ABI; }
const char *dil_status_name(dil_status status) { return status_name(status); }

/* ---- engine ---- */

dil_engine_options dil_engine_options_default(void) { return (dil_engine_options){.struct_size = sizeof(dil_engine_options)}; }

dil_status dil_engine_open(dil_engine **out, const char *path, const dil_engine_options *options, dil_error *err)
{
    engine_options eo;
    engine *e;
    DIL_TRY(need(out, "dil_engine_open: out", err));
    DIL_TRY(need(path, "dil_engine_open: path", err));
    DIL_TRY(take_engine_options(&eo, options, err));
    DIL_TRY(engine_open(&e, path, &eo, err));
    *out = (dil_engine *)e;
    return DIL_OK;
}

void dil_engine_close(dil_engine *e) { engine_close(inner(e)); }

dil_status dil_engine_info(const dil_engine *e, dil_model_info *out, dil_error *err)
{
    DIL_TRY(need(e, "dil_engine_info: engine", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_model_info", err));
    const model *m = engine_model(inner(e));
    dil_model_info info = {.n_params = model_n_params(m),
                           .file_bytes = gguf_size_bytes(m->file),
                           .packed_bytes = m->packed_bytes,
                           .kv_bytes = engine_kv_bytes(inner(e)),
                           .n_vocab = (int32_t)m->h.n_vocab,
                           .n_embd = (int32_t)m->h.n_embd,
                           .n_layer = (int32_t)m->h.n_layer,
                           .n_head = (int32_t)m->h.n_head,
                           .n_head_kv = (int32_t)m->h.n_head_kv,
                           .n_ff = (int32_t)(m->h.n_ff ? m->h.n_ff : m->h.experts.n_ff),
                           .n_context_trained = (int32_t)m->h.n_context,
                           .n_context = engine_context(inner(e)),
                           .n_threads = engine_n_threads(inner(e)),
                           .n_experts = (int32_t)m->h.experts.n_experts,
                           .n_experts_used = (int32_t)m->h.experts.n_used};
    static const char *const cache_states[] = {
        [PACK_CACHE_OFF] = "off", [PACK_CACHE_READ] = "read", [PACK_CACHE_WRITTEN] = "written", [PACK_CACHE_FAILED] = "failed"};
    snprintf(info.pack_cache, sizeof info.pack_cache, "%s", cache_states[m->cache_state]);
    if (engine_experts(inner(e))) {
        pool_info pi;
        pool_info_get(engine_experts(inner(e)), &pi);
        info.experts_memory = pi.budget_bytes;
    }
    snprintf(info.architecture, sizeof info.architecture, "%.*s", STR_ARG(m->h.architecture));
    give_struct(out, &info, sizeof info);
    return DIL_OK;
}

/* ---- text ---- */

/* A lone layer of experts knows none. */
static dil_status need_text(const dil_engine *e, const char *what, dil_error *err)
{
    if (engine_vocab(inner(e)))
        return DIL_OK;
    return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: %s: wanted a language model, found a layer of experts alone, which knows no text",
                    what, gguf_path(engine_model(inner(e))->file));
}

static dil_status give(const void *from, size_t n, size_t item, void *to, size_t room, size_t *out_n, const char *what,
                       dil_error *err)
{
    *out_n = n;
    if (n > room)
        return DIL_FAIL(err, DIL_LIMIT, "%s: wanted room for %zu, found %zu", what, n, room);
    if (n)
        memcpy(to, from, n * item);
    return DIL_OK;
}

dil_status dil_tokenize(const dil_engine *e, const char *text, size_t text_bytes, bool add_special, bool parse_special,
                        int32_t *tokens, size_t max_tokens, size_t *n, dil_error *err)
{
    token_list list = {0};
    DIL_TRY(need(e, "dil_tokenize: engine", err));
    DIL_TRY(need_text(e, "dil_tokenize", err));
    DIL_TRY(need(n, "dil_tokenize: n", err));
    if ((!text && text_bytes) || (!tokens && max_tokens))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_tokenize: text and tokens must not be NULL");
    dil_status status =
        vocab_encode(engine_vocab(inner(e)), (str){text ? text : "", text_bytes}, add_special, parse_special, &list, err);
    if (status == DIL_OK)
        status = give(list.ids, list.n, sizeof *list.ids, tokens, max_tokens, n, "dil_tokenize: tokens", err);
    token_list_free(&list);
    return status;
}

static dil_status give_text(strbuf *b, char *text, size_t max_bytes, size_t *n, const char *what, dil_error *err)
{
    dil_status status =
        b->failed ? DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory", what) : give(b->p, b->n, 1, text, max_bytes, n, what, err);
    strbuf_free(b);
    return status;
}

dil_status dil_detokenize(const dil_engine *e, const int32_t *tokens, size_t n_tokens, bool special, char *text, size_t max_bytes,
                          size_t *n, dil_error *err)
{
    strbuf b = STRBUF((size_t)1 << 30);
    DIL_TRY(need(e, "dil_detokenize: engine", err));
    DIL_TRY(need_text(e, "dil_detokenize", err));
    DIL_TRY(need(n, "dil_detokenize: n", err));
    if ((!tokens && n_tokens) || (!text && max_bytes))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_detokenize: tokens and text must not be NULL");
    vocab_decode(engine_vocab(inner(e)), tokens, n_tokens, special, &b);
    return give_text(&b, text, max_bytes, n, "dil_detokenize: text", err);
}

bool dil_token_is_end(const dil_engine *e, int32_t token)
{
    return e && engine_vocab(inner(e)) && vocab_is_end(engine_vocab(inner(e)), token);
}

/* Messages as the engine has them [owned: free with mem_free]. */
static dil_status take_messages(const dil_engine *e, const dil_message *messages, size_t n, chat_message **out, const char *what,
                                dil_error *err)
{
    DIL_TRY(need(e, what, err));
    DIL_TRY(need_text(e, what, err));
    DIL_TRY(need(messages, what, err));
    for (size_t i = 0; i < n; i++)
        if (!messages[i].role || !messages[i].content)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: message %zu: role and content must not be NULL", what, i);
    *out = mem_calloc(n ? n : 1, sizeof **out, MEM_TEXT);
    if (!*out)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory", what);
    for (size_t i = 0; i < n; i++)
        (*out)[i] = (chat_message){messages[i].role, messages[i].content};
    return DIL_OK;
}

dil_status dil_apply_template(const dil_engine *e, const dil_message *messages, size_t n_messages, char *text, size_t max_bytes,
                              size_t *n, dil_error *err)
{
    chat_message *own;
    strbuf b = STRBUF((size_t)1 << 30);
    DIL_TRY(need(n, "dil_apply_template: n", err));
    DIL_TRY(take_messages(e, messages, n_messages, &own, "dil_apply_template", err));
    dil_status status = chat_template_render(engine_chat(inner(e)), own, n_messages, true, &b, err);
    mem_free(own);
    if (status != DIL_OK) {
        strbuf_free(&b);
        return status;
    }
    return give_text(&b, text, max_bytes, n, "dil_apply_template: text", err);
}

dil_status dil_chat_tokens(const dil_engine *e, const dil_message *messages, size_t n_messages, int32_t *tokens, size_t max_tokens,
                           size_t *n, dil_error *err)
{
    chat_message *own;
    token_list list = {0};
    DIL_TRY(need(n, "dil_chat_tokens: n", err));
    DIL_TRY(take_messages(e, messages, n_messages, &own, "dil_chat_tokens", err));
    dil_status status = generate_prompt(inner(e), own, n_messages, false, false, &list, err);
    if (status == DIL_OK)
        status = give(list.ids, list.n, sizeof *tokens, tokens, max_tokens, n, "dil_chat_tokens: tokens", err);
    mem_free(own);
    token_list_free(&list);
    return status;
}

/* ---- sessions ---- */

dil_status dil_session_new(dil_session **out, dil_engine *e, dil_error *err)
{
    session *s;
    DIL_TRY(need(out, "dil_session_new: out", err));
    DIL_TRY(need(e, "dil_session_new: engine", err));
    DIL_TRY(need_text(e, "dil_session_new", err));
    DIL_TRY(session_new(&s, inner(e), err));
    *out = (dil_session *)s;
    return DIL_OK;
}

void dil_session_free(dil_session *s) { session_free(inner_session(s)); }

size_t dil_session_n_tokens(const dil_session *s) { return s ? (size_t)session_n_tokens(inner_session(s)) : 0; }

dil_status dil_session_sync(dil_session *s, const int32_t *tokens, size_t n_tokens, const float **logits, dil_error *err)
{
    DIL_TRY(need(s, "dil_session_sync: session", err));
    DIL_TRY(need(tokens, "dil_session_sync: tokens", err));
    DIL_TRY(need(logits, "dil_session_sync: logits", err));
    if (n_tokens > INT32_MAX)
        return DIL_FAIL(err, DIL_LIMIT, "dil_session_sync: %zu tokens are more than any context", n_tokens);
    return session_sync(inner_session(s), tokens, (int32_t)n_tokens, logits, NULL, NULL, NULL, err);
}

dil_status dil_engine_step(dil_engine *e, dil_session *const *sessions, const int32_t *tokens, size_t n, const float **logits,
                           dil_error *err)
{
    DIL_TRY(need(e, "dil_engine_step: engine", err));
    DIL_TRY(need(sessions, "dil_engine_step: sessions", err));
    DIL_TRY(need(tokens, "dil_engine_step: tokens", err));
    DIL_TRY(need(logits, "dil_engine_step: logits", err));
    for (size_t i = 0; i < n; i++)
        DIL_TRY(need(sessions[i], "dil_engine_step: a session", err));
    if (n > INT32_MAX)
        return DIL_FAIL(err, DIL_LIMIT, "dil_engine_step: %zu sessions are too many", n);
    return engine_step(inner(e), (session *const *)(uintptr_t)sessions, tokens, (int32_t)n, logits, err);
}

/* ---- generation ---- */

dil_sampling dil_sampling_default(void)
{
    sampler_options o = sampler_options_default();
    return (dil_sampling){.struct_size = sizeof(dil_sampling),
                          .seed = o.seed,
                          .temperature = o.temperature,
                          .top_k = o.top_k,
                          .top_p = o.top_p,
                          .min_p = o.min_p,
                          .typical_p = o.typical_p,
                          .repeat_penalty = o.repeat_penalty,
                          .penalty_last_n = o.penalty_last_n,
                          .presence_penalty = o.presence_penalty,
                          .frequency_penalty = o.frequency_penalty};
}

dil_generation dil_generation_default(void)
{
    return (dil_generation){.struct_size = sizeof(dil_generation), .sampling = dil_sampling_default(), .max_tokens = -1};
}

static sampler_options sampler_of(const dil_sampling *s)
{
    sampler_options o = sampler_options_default();
    o.seed = s->seed;
    o.temperature = s->temperature;
    o.top_k = s->top_k;
    o.top_p = s->top_p;
    o.min_p = s->min_p;
    o.typical_p = s->typical_p;
    o.repeat_penalty = s->repeat_penalty;
    o.penalty_last_n = s->penalty_last_n;
    o.presence_penalty = s->presence_penalty;
    o.frequency_penalty = s->frequency_penalty;
    return o;
}

static bool emit_text(void *ctx, str text)
{
    const dil_generation *g = ctx;
    return !g->on_text || g->on_text(g->user, text.p, text.n);
}

static void fill_result(dil_generation_result *out, const generate_stats *s)
{
    *out = (dil_generation_result){.n_prompt = s->n_prompt,
                                   .n_reused = s->n_reused,
                                   .n_generated = s->n_generated,
                                   .prompt_seconds = s->prompt_seconds,
                                   .generate_seconds = s->generate_seconds,
                                   .first_token_seconds = s->first_token_seconds};
    snprintf(out->finish, sizeof out->finish, "%s", s->finish);
}

dil_status dil_generate(dil_session *s, const int32_t *prompt, size_t n_prompt, const dil_generation *options,
                        dil_generation_result *result, dil_error *err)
{
    dil_generation g = dil_generation_default();
    sampler *sm = NULL;
    stream *st = NULL;
    token_list tokens = {0};
    generate_stats stats;
    DIL_TRY(need(s, "dil_generate: session", err));
    DIL_TRY(need(prompt, "dil_generate: prompt", err));
    DIL_TRY(take_options(&g, sizeof g, options, options ? options->struct_size : 0, "dil_generation", err));
    engine *e = session_engine(inner_session(s));
    sampler_options so = sampler_of(&g.sampling);
    generate_options go = {
        .n_predict = g.max_tokens, .emit = emit_text, .ctx = &g, .progress = g.progress, .progress_user = g.user};
    dil_status status = sampler_new(&sm, &so, engine_vocab(e), engine_n_vocab(e), err);
    if (status == DIL_OK)
        status = stream_new(&st, engine_vocab(e), g.stops, g.n_stops, err);
    for (size_t i = 0; i < n_prompt && status == DIL_OK; i++)
        status = token_list_add(&tokens, prompt[i], err);
    if (status == DIL_OK)
        status = generate(e, inner_session(s), sm, st, &tokens, &go, &stats, err);
    if (status == DIL_OK && result)
        fill_result(result, &stats);
    token_list_free(&tokens);
    stream_free(st);
    sampler_free(sm);
    return status;
}
