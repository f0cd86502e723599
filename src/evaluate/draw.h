/*
 * Drawing tasks the way llama.cpp's tools do, so that scores on a part of a task file are about the same tasks: the generator
 * MT19937 (Matsumoto and Nishimura 1998) and whole numbers below a bound by Lemire's multiplication, as GNU's C++ library does
 * it. For protocols only; everything else uses sampling/rng.
 */
#ifndef EVALUATE_DRAW_H
#define EVALUATE_DRAW_H

#include <stdint.h>

typedef struct draw {
    uint32_t state[624];
    int at;
} draw;

void draw_begin(draw *d, uint32_t seed);
uint32_t draw_bits(draw *d);
uint32_t draw_below(draw *d, uint32_t n); /* 0 .. n - 1; n >= 1 */

#endif
