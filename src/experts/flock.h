/*
 * The flock of an expert: the seven of its layer most often chosen together with it. Counts of pairs decay, so that a flock
 * follows the text; each expert keeps a short list of candidates instead of a row of the whole matrix.
 */
#ifndef EXPERTS_FLOCK_H
#define EXPERTS_FLOCK_H

#include <stddef.h>
#include <stdint.h>

#define FLOCK_SIZE 7
#define FLOCK_CANDIDATES 16  /* at least FLOCK_SIZE */
#define FLOCK_MOST_CHOSEN 32 /* longer lists are unions over many tokens and say nothing about pairs */

typedef struct flock {
    uint32_t n;
    uint16_t *other;  /* [n, FLOCK_CANDIDATES], by falling count; the first n_other[i] of i are in use */
    float *count;     /* [n, FLOCK_CANDIDATES], in units of the present */
    uint8_t *n_other; /* [n] */
    float unit;       /* what one co-activation now adds: grows instead of all counts decaying */
} flock;

size_t flock_bytes(uint32_t n_experts);
/* memory: flock_bytes, zeroed, aligned to 64 [borrowed for the flock's life]. */
void flock_init(flock *f, uint32_t n_experts, void *memory);

/* These were chosen together by one token. Distinct; more than FLOCK_MOST_CHOSEN do not count. */
void flock_note(flock *f, const uint16_t *experts, int n);

/* The neighbours of an expert, strongest first, into out; returns how many. share [n] or NULL: their parts of the sum. */
int flock_neighbours(const flock *f, uint32_t expert, uint16_t out[FLOCK_SIZE], float share[FLOCK_SIZE]);

#endif
