#include "experts/flock.h"

#include <string.h>

/* Pairs of 350 tokens ago count half. */
#define GROWTH 1.002f
#define RESCALE 1e20f

size_t flock_bytes(uint32_t n_experts)
{
    return ((size_t)n_experts * (FLOCK_CANDIDATES * (sizeof(uint16_t) + sizeof(float)) + 1) + 63) & ~(size_t)63;
}

void flock_init(flock *f, uint32_t n_experts, void *memory)
{
    size_t n = (size_t)n_experts * FLOCK_CANDIDATES;
    f->n = n_experts;
    f->count = memory;
    f->other = (uint16_t *)(void *)(f->count + n);
    f->n_other = (uint8_t *)(f->other + n);
    f->unit = 1;
}

static void rescale(flock *f)
{
    for (size_t i = 0; i < (size_t)f->n * FLOCK_CANDIDATES; i++)
        f->count[i] /= f->unit;
    f->unit = 1;
}

/* One more pair (i, j). A stranger takes the place of the weakest candidate and half of its count: rare pairs pass through the
 * last places, lasting ones climb. */
static void add(flock *f, uint32_t i, uint16_t j)
{
    uint16_t *other = f->other + (size_t)i * FLOCK_CANDIDATES;
    float *count = f->count + (size_t)i * FLOCK_CANDIDATES;
    int n = f->n_other[i], at = 0;
    while (at < n && other[at] != j)
        at++;
    float total = f->unit;
    if (at < n) {
        total += count[at];
    } else if (n < FLOCK_CANDIDATES) {
        f->n_other[i]++;
    } else {
        at = FLOCK_CANDIDATES - 1;
        total += count[at] / 2;
    }
    for (; at > 0 && count[at - 1] < total; at--) {
        count[at] = count[at - 1];
        other[at] = other[at - 1];
    }
    count[at] = total;
    other[at] = j;
}

void flock_note(flock *f, const uint16_t *experts, int n)
{
    if (n > FLOCK_MOST_CHOSEN)
        return;
    f->unit *= GROWTH;
    if (f->unit > RESCALE)
        rescale(f);
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            if (a != b)
                add(f, experts[a], experts[b]);
}

int flock_neighbours(const flock *f, uint32_t expert, uint16_t out[FLOCK_SIZE], float share[FLOCK_SIZE])
{
    size_t at = (size_t)expert * FLOCK_CANDIDATES;
    int n = f->n_other[expert] < FLOCK_SIZE ? f->n_other[expert] : FLOCK_SIZE;
    float sum = 0;
    memcpy(out, f->other + at, (size_t)n * sizeof *out);
    for (int i = 0; i < n; i++)
        sum += f->count[at + (size_t)i];
    for (int i = 0; share && i < n; i++)
        share[i] = f->count[at + (size_t)i] / sum;
    return n;
}
