#include "evaluate/outputs.h"

#include "base/mem.h"
#include "base/status.h"
#include "engine/generate.h"
#include "evaluate/lines.h"

#define MOST_ANSWER_BYTES ((size_t)1 << 30)
#define MOST_PROMPTS ((size_t)1 << 24)

/* A sequence that generates; its text grows in the answer of its prompt. */
typedef struct slot {
    session *session;
    stream *stream;
    int32_t prompt; /* index, -1: idle */
    int32_t n_generated;
    token_id next; /* to be run */
} slot;

typedef struct answer {
    strbuf text;
    bool done;
} answer;

typedef struct outputs {
    engine *e;
    const outputs_options *o;
    sampler *greedy;
    str rest; /* prompts that have not begun */
    int32_t n_begun;
    answer *answers; /* [n_prompts] */
    int32_t n_slots;
    slot *slots;       /* [n_slots] */
    session **running; /* [n_slots] of one pass, as the next two */
    token_id *tokens;
    const float **logits;
    token_list prompt;
    strbuf text;
    outputs_stats stats;
} outputs;

/* All answers that come next in the prompts' order. */
static dil_status emit_ready(outputs *w, dil_error *err)
{
    while (w->stats.n_answers < w->stats.n_prompts && w->answers[w->stats.n_answers].done) {
        answer *a = &w->answers[w->stats.n_answers];
        DIL_TRY(w->o->emit(w->o->ctx, strbuf_str(&a->text), err));
        strbuf_free(&a->text);
        w->stats.n_answers++;
    }
    return DIL_OK;
}

static void add_line(strbuf *out, str text)
{
    for (size_t i = 0; i < text.n; i++)
        strbuf_add_char(out, text.p[i] == '\n' || text.p[i] == '\r' ? ' ' : text.p[i]);
}

static dil_status finish(outputs *w, slot *s, dil_error *err)
{
    answer *a = &w->answers[s->prompt];
    add_line(&a->text, stream_finish(s->stream));
    if (a->text.failed || stream_failed(s->stream))
        return DIL_FAIL(err, DIL_NO_MEMORY, "prompt %d: no memory for its answer", s->prompt + 1);
    a->done = true;
    s->prompt = -1;
    return emit_ready(w, err);
}

/* The most probable token after what the sequence holds, unless it ends here. */
static dil_status take(outputs *w, slot *s, const float *logits, dil_error *err)
{
    const token_id id = sampler_pick(w->greedy, logits, 0, NULL);
    if (vocab_is_end(engine_vocab(w->e), id)) {
        w->stats.n_ended++;
        return finish(w, s, err);
    }
    str text;
    (void)stream_push(s->stream, id, &text); /* without stop texts it never says stop */
    add_line(&w->answers[s->prompt].text, text);
    s->next = id;
    s->n_generated++;
    w->stats.n_generated++;
    if (s->n_generated == w->o->n_predict || session_n_tokens(s->session) + 1 >= engine_context(w->e))
        return finish(w, s, err);
    return DIL_OK;
}

static dil_status read_prompt(outputs *w, str line, dil_error *err)
{
    if (memchr(line.p, '\0', line.n) || !utf8_valid(line))
        return DIL_FAIL(err, DIL_FORMAT, "wanted UTF-8 without NUL bytes, found others");
    strbuf_clear(&w->text);
    strbuf_add_str(&w->text, line);
    if (w->text.failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory");
    const chat_message messages[2] = {{"system", w->o->system}, {"user", w->text.p}};
    w->prompt.n = 0;
    return generate_prompt(w->e, w->o->system ? messages : messages + 1, w->o->system ? 2 : 1, w->o->plain, false, &w->prompt, err);
}

static dil_status begin_prompt(outputs *w, slot *s, str line, dil_error *err)
{
    int32_t n_reused = 0;
    const float *logits;
    s->prompt = w->n_begun++;
    s->n_generated = 0;
    stream_reset(s->stream);
    DIL_TRY(read_prompt(w, line, err));
    if (w->prompt.n == 0)
        return finish(w, s, err);
    DIL_TRY(session_sync(s->session, w->prompt.ids, (int32_t)w->prompt.n, &logits, &n_reused, NULL, NULL, err));
    w->stats.n_prompt_tokens += (int64_t)w->prompt.n;
    w->stats.n_reused += n_reused;
    return take(w, s, logits, err);
}

/* Gives every idle slot a prompt, as long as there are some. */
static dil_status begin_prompts(outputs *w, dil_error *err)
{
    str line;
    for (int32_t i = 0; i < w->n_slots; i++)
        while (w->slots[i].prompt < 0 && lines_next(&w->rest, &line)) {
            const dil_status status = begin_prompt(w, &w->slots[i], line, err);
            if (status != DIL_OK)
                (void)status_prefix(err, "prompt %d: ", w->n_begun);
            DIL_TRY(status);
        }
    return DIL_OK;
}

/* One token for every sequence that generates. */
static dil_status step(outputs *w, dil_error *err)
{
    int32_t n = 0;
    for (int32_t i = 0; i < w->n_slots; i++)
        if (w->slots[i].prompt >= 0) {
            w->running[n] = w->slots[i].session;
            w->tokens[n++] = w->slots[i].next;
        }
    if (n == 0)
        return DIL_OK;
    DIL_TRY(engine_step(w->e, w->running, w->tokens, n, w->logits, err));
    n = 0;
    for (int32_t i = 0; i < w->n_slots; i++)
        if (w->slots[i].prompt >= 0)
            DIL_TRY(take(w, &w->slots[i], w->logits[n++], err));
    return DIL_OK;
}

static dil_status run(outputs *w, dil_error *err)
{
    while (w->stats.n_answers < w->stats.n_prompts) {
        DIL_TRY(begin_prompts(w, err));
        DIL_TRY(step(w, err));
        if (w->o->report && !w->o->report(w->o->ctx, &w->stats))
            return DIL_FAIL(err, DIL_CANCELLED, "outputs: cancelled after %d of %d answers", w->stats.n_answers,
                            w->stats.n_prompts);
    }
    return DIL_OK;
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

static dil_status prepare(outputs *w, dil_error *err)
{
    const size_t n_prompts = (size_t)w->stats.n_prompts;
    const int32_t room = least(engine_max_outputs(w->e), engine_micro_batch(w->e));
    const int32_t n = least(least(w->o->n_parallel, room), w->stats.n_prompts - w->n_begun);
    sampler_options greedy = sampler_options_default();
    greedy.temperature = 0;
    w->answers = mem_calloc(n_prompts, sizeof *w->answers, MEM_TEXT);
    w->slots = mem_calloc((size_t)n, sizeof *w->slots, MEM_MISC);
    w->running = mem_calloc((size_t)n, sizeof *w->running, MEM_MISC);
    w->tokens = mem_calloc((size_t)n, sizeof *w->tokens, MEM_MISC);
    w->logits = mem_calloc((size_t)n, sizeof *w->logits, MEM_MISC);
    if (!w->answers || !w->slots || !w->running || !w->tokens || !w->logits)
        return DIL_FAIL(err, DIL_NO_MEMORY, "outputs: no memory for %zu prompts", n_prompts);
    for (size_t i = 0; i < n_prompts; i++)
        w->answers[i].text = STRBUF(MOST_ANSWER_BYTES);
    w->n_slots = n;
    DIL_TRY(sampler_new(&w->greedy, &greedy, engine_vocab(w->e), engine_n_vocab(w->e), err));
    for (int32_t i = 0; i < n; i++) {
        w->slots[i].prompt = -1;
        DIL_TRY(session_new(&w->slots[i].session, w->e, err));
        DIL_TRY(stream_new(&w->slots[i].stream, engine_vocab(w->e), NULL, 0, err));
    }
    return DIL_OK;
}

static void clear(outputs *w)
{
    for (int32_t i = 0; i < w->n_slots; i++) {
        session_free(w->slots[i].session);
        stream_free(w->slots[i].stream);
    }
    for (int32_t i = 0; w->answers && i < w->stats.n_prompts; i++)
        strbuf_free(&w->answers[i].text);
    sampler_free(w->greedy);
    token_list_free(&w->prompt);
    strbuf_free(&w->text);
    mem_free(w->answers);
    mem_free(w->slots);
    mem_free(w->running);
    mem_free(w->tokens);
    mem_free(w->logits);
}

dil_status evaluate_outputs(engine *e, str prompts, const outputs_options *options, outputs_stats *out, dil_error *err)
{
    outputs w = {.e = e, .o = options, .rest = prompts, .text = STRBUF(MOST_ANSWER_BYTES)};
    const size_t n = lines_count(prompts);
    if (options->n_predict == 0 || options->n_parallel < 1)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "outputs: wanted at least one token and one sequence, found %d and %d",
                        options->n_predict, options->n_parallel);
    if (n == 0 || n > MOST_PROMPTS)
        return DIL_FAIL(err, n ? DIL_LIMIT : DIL_FORMAT, "prompts: wanted 1..%zu lines, found %zu", MOST_PROMPTS, n);
    if (options->n_skip < 0 || (size_t)options->n_skip > n)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "outputs: wanted to leave out 0..%zu prompts, found %d", n, options->n_skip);
    for (str line; w.n_begun < options->n_skip && lines_next(&w.rest, &line);)
        w.n_begun++;
    w.stats = (outputs_stats){.n_prompts = (int32_t)n, .n_answers = w.n_begun};
    dil_status status = prepare(&w, err);
    if (status == DIL_OK)
        status = run(&w, err);
    clear(&w);
    if (status == DIL_OK)
        *out = w.stats;
    return status;
}
