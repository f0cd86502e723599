/*
 * What happened when: the newest events of a run, for a browser to draw. They lie in a ring that is taken at the beginning, so that
 * recording allocates nothing, and become a file in Chrome's trace event format, which chrome://tracing and Perfetto open.
 */
#ifndef BASE_EVENTS_H
#define BASE_EVENTS_H

#include <stdint.h>

#include "base/threads.h"
#include "dilmodeli.h"

typedef struct events events;

/* Tracks of the picture: the number of a worker, or one of these. */
enum { EVENTS_PASSES = TEAM_MAX, EVENTS_COMMAND, EVENTS_TRACKS };

typedef struct event_span {
    uint64_t start_ns, end_ns; /* os_time_ns(), not before events_new */
    const char *name;          /* [static] nothing that JSON would have to escape */
    int32_t layer, rows;       /* -1: none */
    uint16_t track;
} event_span;

/* Room for the newest `capacity` events, 1 .. 1 << 24. [owned: free with events_free] */
DIL_MUST_CHECK dil_status events_new(events **out, uint64_t capacity, dil_error *err);
void events_free(events *e); /* NULL is allowed */

/* From any thread, as long as others do not add a whole `capacity` meanwhile: workers that meet at barriers do not. */
void events_add(events *e, const event_span *what);
uint64_t events_recorded(const events *e); /* all, the dropped ones included */
uint64_t events_dropped(const events *e);  /* the oldest: those that newer ones replaced */

/* While nobody adds: the file, which appears whole. */
DIL_MUST_CHECK dil_status events_write(const events *e, const char *path, dil_error *err);

#endif
