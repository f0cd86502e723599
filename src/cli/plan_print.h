/* What dil plan found out, for people and for programs. */
#ifndef CLI_PLAN_PRINT_H
#define CLI_PLAN_PRINT_H

#include "tune/forecast.h"

/* A forecast and what to think of it. */
typedef struct plan_report {
    forecast f;
    uint64_t limit; /* of memory */
    bool limit_given, fits;
    char advice[640]; /* where it does not fit: what would */
} plan_report;

void plan_print(const plan_report *r);
void plan_print_json(const plan_report *r);
/* Step by step: where time and bytes go, and how much to do at once. */
DIL_MUST_CHECK dil_status plan_explain(const forecast *f, dil_error *err);

#endif
