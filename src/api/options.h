/* The engine's options as the public header has them. */
#ifndef API_OPTIONS_H
#define API_OPTIONS_H

#include "engine/engine.h"

/* options NULL: defaults. BAD_ARGUMENT names the field. */
DIL_MUST_CHECK dil_status take_engine_options(engine_options *out, const dil_engine_options *options, dil_error *err);

#endif
