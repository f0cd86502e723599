/* Experts beyond memory: how much memory they get, and the pool that holds those at hand. Private to the engine module. */
#ifndef ENGINE_EXPERTS_H
#define ENGINE_EXPERTS_H

#include "engine/engine.h"

/* Makes of o->experts_memory (0, auto or bytes) what p allows: 0 where all fit or there are none. BAD_ARGUMENT: a budget for a model
 * without experts; NO_MEMORY: auto found no room. */
DIL_MUST_CHECK dil_status experts_budget(engine_options *o, const engine_plan *p, const char *path, dil_error *err);
/* The pool of a model opened with experts_apart. [owned: free with pool_free] */
DIL_MUST_CHECK dil_status experts_pool(pool **out, const model *m, const engine_options *o, dil_error *err);

#endif
