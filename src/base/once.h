/* What is computed when it is first needed, whoever needs it: tables. */
#ifndef BASE_ONCE_H
#define BASE_ONCE_H

#include <pthread.h>

typedef pthread_once_t once;
#define ONCE PTHREAD_ONCE_INIT

/* Runs fill in the first call for this flag; every call returns when it has been run. */
static inline void once_run(once *flag, void (*fill)(void)) { (void)pthread_once(flag, fill); }

#endif
