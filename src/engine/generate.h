/* One answer: prompt tokens in, text out piece by piece; shared by the commands, the library and, later, the server. */
#ifndef ENGINE_GENERATE_H
#define ENGINE_GENERATE_H

#include "engine/engine.h"
#include "output/stream.h"
#include "sampling/sampler.h"

typedef struct generate_stats {
    int32_t n_prompt, n_reused, n_generated;
    double prompt_seconds, generate_seconds, first_token_seconds; /* first token: from the start of the call */
    const char *finish;                                           /* "end", "length", "stop", "cancelled", "context" */
} generate_stats;

typedef struct generate_options {
    int32_t n_predict; /* < 0: until the end */
    bool ignore_eos;
    bool (*emit)(void *ctx, str text); /* false: stop */
    void *ctx;
    dil_progress_fn progress; /* of reading the prompt; may be NULL */
    void *progress_user;
} generate_options;

/* Extends `tokens` by what was generated (not the end token). */
DIL_MUST_CHECK dil_status generate(engine *e, session *s, sampler *sm, stream *st, token_list *tokens, const generate_options *o,
                                   generate_stats *stats, dil_error *err);

/* Renders messages by the model's template and appends the ids; with plain the last message's text as it is. */
DIL_MUST_CHECK dil_status generate_prompt(const engine *e, const chat_message *messages, size_t n, bool plain, bool no_special,
                                          token_list *out, dil_error *err);

#endif
