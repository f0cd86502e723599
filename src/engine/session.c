#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "engine/engine_internal.h"

dil_status session_new(session **out, engine *e, dil_error *err)
{
    session *s = mem_calloc(1, sizeof *s, MEM_KV);
    if (!s)
        return DIL_FAIL(err, DIL_NO_MEMORY, "session: no memory");
    s->e = e;
    s->tokens = mem_alloc((size_t)(e->options.context + KV_PAGE) * sizeof *s->tokens, MEM_KV);
    dil_status status = s->tokens ? kv_seq_init(&s->kv, e->pool, e->options.context, err)
                                  : DIL_FAIL(err, DIL_NO_MEMORY, "session: no memory for its tokens");
    if (status != DIL_OK) {
        mem_free(s->tokens);
        mem_free(s);
        return status;
    }
    s->next = e->sessions;
    e->sessions = s;
    *out = s;
    return DIL_OK;
}

void session_free(session *s)
{
    if (!s)
        return;
    for (session **link = &s->e->sessions; *link; link = &(*link)->next)
        if (*link == s) {
            *link = s->next;
            break;
        }
    kv_seq_free(&s->kv);
    mem_free(s->tokens);
    mem_free(s);
}

engine *session_engine(const session *s) { return s->e; }
int32_t session_n_tokens(const session *s) { return s->kv.n_tokens; }
const token_id *session_tokens(const session *s) { return s->tokens; }

void session_truncate(session *s, int32_t n)
{
    if (n >= 0 && n < s->kv.n_tokens)
        kv_seq_truncate(&s->kv, n);
}

/* How many leading tokens s already holds. */
static int32_t common_prefix(const session *s, const token_id *tokens, int32_t n)
{
    int32_t same = 0, limit = n < s->kv.n_tokens ? n : s->kv.n_tokens;
    while (same < limit && s->tokens[same] == tokens[same])
        same++;
    return same;
}

/* Shares the prefix of another session when it is longer than our own by at least a page. */
static int32_t adopt_prefix(session *s, const token_id *tokens, int32_t n, int32_t own)
{
    const session *best = NULL;
    int32_t longest = own + KV_PAGE - 1;
    for (const session *other = s->e->sessions; other; other = other->next) {
        int32_t same = other == s ? 0 : common_prefix(other, tokens, n);
        if (same > longest) {
            longest = same;
            best = other;
        }
    }
    if (!best)
        return own;
    kv_seq_share(&s->kv, &best->kv, longest);
    memcpy(s->tokens, tokens, (size_t)longest * sizeof *tokens);
    return longest;
}

static dil_status run(session *s, const token_id *tokens, int32_t n, dil_error *err)
{
    int32_t from = s->kv.n_tokens;
    if (from + n > s->e->options.context)
        return DIL_FAIL(err, DIL_LIMIT, "context: wanted room for %d tokens, it holds %d; use a larger context (-c)", from + n,
                        s->e->options.context);
    DIL_TRY(engine_pass(s->e, n, err));
    memcpy(s->tokens + from, tokens, (size_t)n * sizeof *tokens);
    return DIL_OK;
}

dil_status session_sync(session *s, const token_id *tokens, int32_t n, const float **logits, int32_t *n_reused,
                        dil_progress_fn progress, void *user, dil_error *err)
{
    engine *e = s->e;
    if (n < 1 || n > e->options.context)
        return DIL_FAIL(err, n < 1 ? DIL_BAD_ARGUMENT : DIL_LIMIT,
                        "prompt: wanted 1..%d tokens, found %d; use a larger context (-c)", e->options.context, n);
    int32_t same = adopt_prefix(s, tokens, n, common_prefix(s, tokens, n));
    if (same == n)
        same--; /* the last token is run again for its logits */
    kv_seq_truncate(&s->kv, same);
    if (n_reused)
        *n_reused = same;
    for (int32_t from = same; from < n;) {
        int32_t count = n - from < e->micro_batch ? n - from : e->micro_batch;
        for (int32_t i = 0; i < count; i++)
            e->batch[i] = (batch_token){&s->kv, tokens[from + i], from + i == n - 1};
        DIL_TRY(run(s, tokens + from, count, err));
        from += count;
        if (progress && !progress(user, "reading the prompt", (uint64_t)(from - same), (uint64_t)(n - same)))
            return DIL_FAIL(err, DIL_CANCELLED, "prompt: cancelled after %d of %d tokens", from, n);
    }
    *logits = compute_logits(e->c, 0);
    return DIL_OK;
}

dil_status session_eval(session *s, const token_id *tokens, int32_t n, const bool *wants,
                        bool (*each)(void *ctx, int32_t i, const float *logits), void *ctx, dil_error *err)
{
    engine *e = s->e;
    for (int32_t from = 0; from < n;) {
        int32_t count = 0, outputs = 0;
        for (; from + count < n && count < e->micro_batch; count++) {
            bool wanted = !wants || wants[from + count];
            if (wanted && outputs == e->options.max_outputs)
                break;
            outputs += wanted;
            e->batch[count] = (batch_token){&s->kv, tokens[from + count], wanted};
        }
        DIL_TRY(run(s, tokens + from, count, err));
        int32_t row = 0;
        for (int32_t i = 0; i < count; i++)
            if (e->batch[i].wants_logits && !each(ctx, from + i, compute_logits(e->c, row++)))
                return DIL_OK;
        from += count;
    }
    return DIL_OK;
}

dil_status engine_step(engine *e, session *const *sessions, const token_id *tokens, int32_t n, const float **logits, dil_error *err)
{
    if (n < 1 || n > e->options.max_outputs)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "step: wanted 1..%d sessions, found %d", e->options.max_outputs, n);
    for (int32_t i = 0; i < n; i++) {
        if (sessions[i]->e != e) /* its pages have the layout of another model */
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "step: session %d belongs to another engine", i);
        if (sessions[i]->kv.n_tokens >= e->options.context)
            return DIL_FAIL(err, DIL_LIMIT, "context: session %d of the step is full (%d tokens); use a larger context (-c)", i,
                            e->options.context);
        if (i > 0 && sessions[i] == sessions[i - 1]) /* apart, compute_run finds them */
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "step: session %d appears twice", i);
        e->batch[i] = (batch_token){&sessions[i]->kv, tokens[i], true};
    }
    DIL_TRY(engine_pass(e, n, err));
    for (int32_t i = 0; i < n; i++) {
        session *s = sessions[i];
        s->tokens[s->kv.n_tokens - 1] = tokens[i];
        logits[i] = compute_logits(e->c, i);
    }
    return DIL_OK;
}
