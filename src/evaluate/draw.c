#include "evaluate/draw.h"

enum { WORDS = 624, MIDDLE = 397 };

void draw_begin(draw *d, uint32_t seed)
{
    d->state[0] = seed;
    for (uint32_t i = 1; i < WORDS; i++)
        d->state[i] = 1812433253u * (d->state[i - 1] ^ d->state[i - 1] >> 30) + i;
    d->at = WORDS;
}

static void twist(uint32_t x[WORDS])
{
    for (int i = 0; i < WORDS; i++) {
        uint32_t y = (x[i] & 0x80000000u) | (x[(i + 1) % WORDS] & 0x7fffffffu);
        x[i] = x[(i + MIDDLE) % WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

uint32_t draw_bits(draw *d)
{
    if (d->at == WORDS) {
        twist(d->state);
        d->at = 0;
    }
    uint32_t y = d->state[d->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

uint32_t draw_below(draw *d, uint32_t n)
{
    uint64_t product = (uint64_t)draw_bits(d) * n;
    for (uint32_t least = -n % n; (uint32_t)product < least;)
        product = (uint64_t)draw_bits(d) * n;
    return (uint32_t)(product >> 32);
}
