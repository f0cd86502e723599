/* Answers of a model to many prompts, for comparing models by what they say: greedy, several sequences in every pass. */
#ifndef EVALUATE_OUTPUTS_H
#define EVALUATE_OUTPUTS_H

#include "engine/engine.h"

typedef struct outputs_stats {
    int32_t n_prompts, n_answers;                   /* of the text; answered, those left out among them */
    int32_t n_ended;                                /* answers the model ended itself; the others were cut */
    int64_t n_prompt_tokens, n_reused, n_generated; /* reused: of the prompts, what the cache held already */
} outputs_stats;

typedef struct outputs_options {
    int32_t n_predict;  /* tokens per answer; < 0: until the model ends it or the context is full */
    int32_t n_parallel; /* sequences at once, fewer where the engine's passes have no room for them */
    int32_t n_skip;     /* prompts that were answered before, from the first on */
    bool plain;         /* prompts go to the model as they are, without its template */
    const char *system; /* NULL: none */
    /* An answer as one line, without a break at its end, in the order of the prompts. */
    dil_status (*emit)(void *ctx, str answer, dil_error *err);
    bool (*report)(void *ctx, const outputs_stats *now); /* after every pass; false cancels. May be NULL */
    void *ctx;
} outputs_options;

/*
 * One prompt per line; the engine has room for n_parallel sessions. Line breaks in answers become spaces. A prompt without tokens has an
 * empty answer. Answers do not depend on n_parallel, but with --route neighbours, where the sequences of a pass agree on experts.
 */
DIL_MUST_CHECK dil_status evaluate_outputs(engine *e, str prompts, const outputs_options *options, outputs_stats *out,
                                           dil_error *err);

#endif
