/*
 * The thread team: a fixed set of workers that run one function together, meet at barriers, and claim chunks of work from
 * an atomic counter, so that a slow or preempted core does not hold the others back. The calling thread is worker 0.
 *
 * Pinned workers stay on their processors while the team has the machine for itself, and move freely as soon as others want
 * to run: a pinned worker behind a stranger would hold everybody back. The calling thread is never pinned: it is not ours.
 */
#ifndef BASE_THREADS_H
#define BASE_THREADS_H

#include <stdint.h>

#include "dilmodeli.h"

#define TEAM_MAX 256

typedef struct team team;
typedef void (*team_fn)(void *ctx, int worker);

/* Starts n_threads - 1 workers (1 <= n_threads <= TEAM_MAX). [owned: free with team_free] */
DIL_MUST_CHECK dil_status team_new(team **out, int n_threads, dil_error *err);
void team_free(team *t);
int team_size(const team *t);

/* cpus: one processor per worker [n_threads]. runnable says now and then, from team_run on, how many tasks of the machine want
 * to run, the caller among them; NULL: os_runnable_tasks. */
void team_pin(team *t, const int *cpus, int (*runnable)(void));

/* Runs fn(ctx, worker) on every worker, returns when all have returned. One caller at a time. */
void team_run(team *t, team_fn fn, void *ctx);

/* The same on the first n_workers (1 .. team_size) only. */
void team_run_some(team *t, int n_workers, team_fn fn, void *ctx);

/* Workers that can run without waiting behind other programs, as the load of the last half second tells: 1 .. team_size.
 * Between runs only. Work with many barriers does better on these alone: at each of them everybody waits for the last. */
int team_unhindered(team *t);

/* Inside fn only. All workers meet; what was written before is visible after. Resets the claim counter to 0. */
void team_barrier(team *t);

/* Inside fn only: the next unclaimed chunk since the last barrier (or the start of fn): 0, 1, 2, ... The caller stops when
 * the number reaches its count of chunks. */
uint32_t team_claim(team *t);

/* The same from one of several counters, so that a worker can look for work near its own data first. */
#define TEAM_QUEUES 8
void team_set_queues(team *t, int n); /* between runs: how many are in use (1..TEAM_QUEUES); more cost barriers time */
uint32_t team_claim_from(team *t, int queue);

#endif
