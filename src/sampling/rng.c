/*
 * The generator: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1,
 * 2, 3", SC 2011). Counter-based: the output is a pure function of key = seed and counter =
 * (position, draw), so there is no state to save and a token's randomness does not depend on what
 * was drawn before it or beside it.
 */
#include "sampling/sampler.h"

typedef struct philox {
    uint32_t c[4], k[2];
} philox;

/* One round: two 32x32 -> 64 multiplications, crossed, with the key mixed in. */
static void philox_round(philox *s)
{
    uint64_t a = (uint64_t)0xD2511F53u * s->c[0];
    uint64_t b = (uint64_t)0xCD9E8D57u * s->c[2];
    uint32_t c1 = s->c[1], c3 = s->c[3];

    s->c[0] = (uint32_t)(b >> 32) ^ c1 ^ s->k[0];
    s->c[1] = (uint32_t)b;
    s->c[2] = (uint32_t)(a >> 32) ^ c3 ^ s->k[1];
    s->c[3] = (uint32_t)a;
}

uint64_t rng_bits(uint64_t seed, uint64_t position, uint64_t draw)
{
    philox s = {{(uint32_t)position, (uint32_t)(position >> 32), (uint32_t)draw, (uint32_t)(draw >> 32)},
                {(uint32_t)seed, (uint32_t)(seed >> 32)}};

    for (int round = 0; round < 10; round++) {
        philox_round(&s);
        s.k[0] += 0x9E3779B9u;
        s.k[1] += 0xBB67AE85u;
    }
    return (uint64_t)s.c[1] << 32 | s.c[0];
}

double rng_uniform(uint64_t seed, uint64_t position, uint64_t draw)
{
    return (double)(rng_bits(seed, position, draw) >> 11) * 0x1p-53;
}
