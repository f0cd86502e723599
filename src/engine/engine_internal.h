/* Shared by engine.c and session.c. */
#ifndef ENGINE_ENGINE_INTERNAL_H
#define ENGINE_ENGINE_INTERNAL_H

#include "engine/engine.h"

struct engine {
    engine_options options;
    kernels k;
    team *workers;
    model *m;
    kv_pool *pool;
    pool *experts; /* or NULL */
    bool adjusts;  /* their memory was chosen by us: it shrinks when others need it */
    int32_t n_passes;
    compute *c;
    int32_t micro_batch; /* in use: at most that of the options */
    profile_state profiled;
    char why_stale[128];
    chat_template *chat;
    batch_token *batch; /* [micro_batch] */
    session *sessions;  /* list of all, for shared prefixes */
};

/* Runs the first n tokens of e->batch. */
DIL_MUST_CHECK dil_status engine_pass(engine *e, int32_t n, dil_error *err);

struct session {
    engine *e;
    session *next;
    kv_seq kv;
    token_id *tokens; /* [context]; the first kv.n_tokens are stored */
};

#endif
