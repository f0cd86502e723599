#include "engine/generate.h"

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

dil_status generate_prompt(const engine *e, const chat_message *messages, size_t n, bool plain, bool no_special, token_list *out,
                           dil_error *err)
{
    const vocab *v = engine_vocab(e);
    if (plain)
        return vocab_encode(v, str_of(messages[n - 1].content), !no_special, !no_special, out, err);
    strbuf text = STRBUF((size_t)1 << 30);
    dil_status status = chat_template_render(engine_chat(e), messages, n, true, &text, err);
    if (status == DIL_OK && text.failed)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "prompt: no memory for the rendered conversation");
    str bos = vocab_text(v, vocab_bos(v));
    bool has_bos = bos.n > 0 && str_starts(strbuf_str(&text), bos); /* many templates write it themselves */
    if (status == DIL_OK)
        status = vocab_encode(v, strbuf_str(&text), !has_bos, true, out, err);
    strbuf_free(&text);
    return status;
}

static token_id pick(const engine *e, sampler *sm, const float *logits, size_t n_tokens)
{
    events *record = engine_events(e);
    uint64_t start = record ? os_time_ns() : 0;
    token_id id = sampler_pick(sm, logits, n_tokens, NULL);
    if (record)
        events_add(record, &(event_span){start, os_time_ns(), "sample", -1, -1, EVENTS_COMMAND});
    return id;
}

/* One token after another until something ends it. */
static dil_status generate_loop(engine *e, session *s, sampler *sm, stream *st, token_list *tokens, const generate_options *o,
                                const float *logits, generate_stats *stats, uint64_t started, dil_error *err)
{
    const vocab *v = engine_vocab(e);
    uint64_t first = os_time_ns();
    stats->finish = "length";
    for (; o->n_predict < 0 || stats->n_generated < o->n_predict;) {
        token_id id = pick(e, sm, logits, tokens->n);
        if (stats->n_generated == 0)
            stats->first_token_seconds = (double)(os_time_ns() - started) * 1e-9;
        sampler_accept(sm, id);
        if (vocab_is_end(v, id) && !o->ignore_eos) {
            stats->finish = "end";
            break;
        }
        stats->n_generated++;
        DIL_TRY(token_list_add(tokens, id, err));
        str text;
        bool stopped = stream_push(st, id, &text);
        if ((text.n && !o->emit(o->ctx, text)) || os_interrupted()) {
            stats->finish = "cancelled";
            break;
        }
        if (stopped) {
            stats->finish = "stop";
            break;
        }
        if ((int32_t)tokens->n >= engine_context(e)) {
            stats->finish = "context";
            break;
        }
        if (stats->n_generated == o->n_predict)
            break;
        DIL_TRY(engine_step(e, &s, &id, 1, &logits, err));
    }
    str rest = stream_finish(st);
    if (rest.n)
        o->emit(o->ctx, rest);
    stats->generate_seconds = (double)(os_time_ns() - first) * 1e-9;
    return DIL_OK;
}

dil_status generate(engine *e, session *s, sampler *sm, stream *st, token_list *tokens, const generate_options *o,
                    generate_stats *stats, dil_error *err)
{
    const float *logits;
    uint64_t started = os_time_ns();
    *stats = (generate_stats){.n_prompt = (int32_t)tokens->n, .finish = "length"};
    if (tokens->n == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "prompt: it has no tokens");
    stream_reset(st);
    sampler_reset(sm);
    for (size_t i = 0; i < tokens->n; i++)
        sampler_accept(sm, tokens->ids[i]);
    DIL_TRY(session_sync(s, tokens->ids, (int32_t)tokens->n, &logits, &stats->n_reused, o->progress, o->progress_user, err));
    stats->prompt_seconds = (double)(os_time_ns() - started) * 1e-9;
    return generate_loop(e, s, sm, st, tokens, o, logits, stats, started, err);
}
