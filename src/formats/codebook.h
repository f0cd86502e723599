/*
 * Formats whose magnitudes come in words from a code book: which codes of a grid (grid.h) may stand side by side, and the best choice
 * of them. Words are of magnitudes, with signs beside them: the grid's levels are -magnitude[n - 1] .. -magnitude[0], magnitude[0] ..
 * magnitude[n - 1]. Or they are of values, and a shift is added to all of a unit (or of a group) or taken from them: the levels are value[0] -
 * shift, value[0] + shift, value[1] - shift ..
 */
#ifndef FORMATS_CODEBOOK_H
#define FORMATS_CODEBOOK_H

#include "formats/grid.h"

#define CODEBOOK_MAX_UNIT 8

typedef struct codebook {
    int width;        /* values of a word */
    int unit;         /* values that are chosen together: a word, or words that share a condition on their signs */
    bool even;        /* an even number of a unit's values is negative */
    int shifted;      /* values that have one shift: a unit, or a group; 0: words of magnitudes */
    int n_magnitudes; /* a word's entries are 0 .. n_magnitudes - 1: the number of a value among its magnitudes or values */
    int n_words;
    const void *entries; /* [n_words] of iq_tables.h: bytes, one a value */
    int low_bits;        /* that an entry's byte has below its magnitude; of a shifted book: the entry is a value, from -1 on */
    uint16_t *allowed;   /* bits of the codes that may follow a prefix: [1 + n + n^2 ..], prefixes as numbers with base n */
    int n_quarters;      /* n^(width / 4): forms of a quarter of a word, numbers with base n; those of a half are pairs of them */
    uint16_t *begin;     /* [n_quarters^2 + 1]: where the second halves behind a first half begin */
    uint8_t *second;     /* [n_words]: CODEBOOK_PITCH * first quarter + second */
    uint16_t *word;      /* [n^width]: the word with these magnitudes, or CODEBOOK_NONE */
} codebook;

#define CODEBOOK_NONE 0xffff
#define CODEBOOK_PITCH 12

enum { CODEBOOK_SHIFT_DOWN, CODEBOOK_SHIFT_UP, CODEBOOK_SHIFT_EITHER };
static inline int codebook_shift(uint8_t code) { return code & 1; } /* of a shifted book's code; the other one: code ^ 1 */

/* The shift is one for the whole group: units do not choose it. */
static inline bool codebook_group_shifts(const codebook *b) { return b && b->shifted > b->unit; }

/* What a unit wants to be: codes with small sum of weight[j] * error[j]^2, error[j] = target[j] - scale * level[code[j]], where
 * error[j] * share[j * stride + k] is taken from the targets k > j. */
typedef struct codebook_wish {
    const float *target, *weight; /* [unit], weights not negative */
    const float *share;           /* NULL: errors are not shared */
    size_t stride;
    float scale;
    float bound; /* a sum that must be undercut; INFINITY: any will do */
    int shift;   /* of a shifted book: CODEBOOK_SHIFT_UP, .._DOWN or either */
} codebook_wish;

/* The best codes of all [unit] and their sum; when none is below the bound, or anything is not finite or the scale 0, code is left alone
 * and the bound returned. Exact but for rounding; of equals the first found. */
float codebook_nearest(const grid *g, const codebook_wish *wish, uint8_t *code);

/* Codes [width] of a word and the signs of its values (bit k: value k is negative; of a shifted book bit 0: the shift is down), and the
 * way back. */
void codebook_read(const codebook *b, unsigned word, unsigned signs, uint8_t *code);
unsigned codebook_write(const codebook *b, const uint8_t *code, unsigned *signs);

extern const codebook codebook_iq1_s, codebook_iq1_m, codebook_iq2_xxs, codebook_iq2_xs, codebook_iq2_s, codebook_iq3_xxs,
    codebook_iq3_s;
void codebook_prepare(void); /* fills the tables of all; any number of times, by any thread. grid_get does it. */

#endif
