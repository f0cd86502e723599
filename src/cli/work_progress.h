/* The line that tells how far long work of several kinds is. */
#ifndef CLI_WORK_PROGRESS_H
#define CLI_WORK_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct work_progress {
    bool quiet, shown;
    const char *what; /* the kind at hand */
    uint64_t started_ns, drawn_ns, began_with;
} work_progress;

/* A dil_progress_fn: what, how far, how long still; false after Ctrl-C. */
bool work_progress_tell(void *user, const char *what, uint64_t done, uint64_t total);
void work_progress_end(work_progress *p); /* takes the line away */

#endif
