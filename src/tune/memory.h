/*
 * A plan for the memory there is. Players are the parts of a run that take memory by choice (the KV cache's length and types, the
 * tokens of a pass, the experts kept in memory), their strategies are the sizes they may have, and all pay one price for bytes
 * (theorem/game.h): the budget is met where one more byte is worth the same to everybody.
 */
#ifndef TUNE_MEMORY_H
#define TUNE_MEMORY_H

#include "engine/engine.h"

/* What may be changed; what somebody has asked for stays. */
typedef struct memory_freedom {
    bool context, type_k, type_v, micro_batch, experts;
} memory_freedom;

typedef struct memory_report {
    engine_plan before, after;
    bool changed;
    uint64_t least_bytes; /* of the smallest plan there is */
    double price;         /* what a byte was worth; 0: all fitted */
} memory_report;

/*
 * Makes o fit in o->memory_bytes (0: nothing is done), changing what it may and no more than it must; o then holds what was chosen,
 * and memory_bytes 0, so that nobody asks again. NO_MEMORY, with what would help, when nothing fits.
 */
DIL_MUST_CHECK dil_status memory_fit(engine_options *o, const char *path, const memory_freedom *may, memory_report *r,
                                     dil_error *err);

#endif
