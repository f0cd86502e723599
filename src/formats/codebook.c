/*
 * Tables of the code books, and the search: depth first over the values of a unit, the nearest code first. A prefix is left as soon as its
 * sum reaches the best known: codes further away can only cost more.
 */
#include "formats/codebook.h"

#include <math.h>
#include <string.h>

#include "base/once.h"
#include "formats/codebook_search.h"
#include "formats/iq_tables.h"

enum {
    PREFIXES_2 = 3280,
    KEYS_2 = 6561,
    PREFIXES_3 = 585,
    KEYS_3 = 4096,
    MOST_LEVELS = 16
}; /* 3 magnitudes, 8 values; 8 magnitudes, 4 values */

static uint16_t allowed_1[PREFIXES_2], word_1[KEYS_2], allowed_2[3][PREFIXES_2], word_2[3][KEYS_2], allowed_3[2][PREFIXES_3],
    word_3[2][KEYS_3];

static uint16_t begin_1[82], begin_2[3][82], begin_3[2][65];
static uint8_t second_1[2048], second_2[3][1024], second_3[2][512];

#define BOOK(values, chosen, parity, n, words, bits, table, quarters, kind, i)                                                    \
    {                                                                                                                             \
        .width = values, .unit = chosen, .even = parity, .n_magnitudes = n, .n_words = words, .entries = table, .low_bits = bits, \
        .allowed = allowed_##kind[i], .n_quarters = quarters, .begin = begin_##kind[i], .second = second_##kind[i],               \
        .word = word_##kind[i]                                                                                                    \
    }
#define SHIFTED(values)                                                                                                          \
    {                                                                                                                            \
        .width = 8, .unit = 8, .shifted = values, .n_magnitudes = 3, .n_words = 2048, .entries = iq1_grid, .allowed = allowed_1, \
        .n_quarters = 9, .begin = begin_1, .second = second_1, .word = word_1                                                    \
    }
const codebook codebook_iq1_s = SHIFTED(32);
const codebook codebook_iq1_m = SHIFTED(8);
const codebook codebook_iq2_xxs = BOOK(8, 8, true, 3, 256, 4, iq2_xxs_grid, 9, 2, 0);
const codebook codebook_iq2_xs = BOOK(8, 8, true, 3, 512, 4, iq2_xs_grid, 9, 2, 1);
const codebook codebook_iq2_s = BOOK(8, 8, false, 3, 1024, 4, iq2_s_grid, 9, 2, 2);
const codebook codebook_iq3_xxs = BOOK(4, 8, true, 8, 256, 3, iq3_xxs_grid, 8, 3, 0);
const codebook codebook_iq3_s = BOOK(4, 4, false, 8, 512, 1, iq3_s_grid, 8, 3, 1);

/* The number of a word's value among the magnitudes or values; the codes that stand for it. */
static int entry_of(const codebook *b, unsigned word, int k)
{
    uint8_t byte = ((const uint8_t *)b->entries)[(size_t)word * (size_t)b->width + (size_t)k];
    return b->shifted ? (int8_t)byte + 1 : byte >> b->low_bits;
}

static unsigned codes_of_entry(const codebook *b, int m)
{
    return b->shifted ? 3u << (2 * m) : 1u << (b->n_magnitudes + m) | 1u << (b->n_magnitudes - 1 - m);
}

static void fill_halves(const codebook *b, int keys)
{
    const int quarters = b->n_quarters, halves = quarters * quarters;
    for (int key = 0, found = 0; key < keys; key++) {
        if (key % halves == 0)
            b->begin[key / halves] = (uint16_t)found;
        if (b->word[key] != CODEBOOK_NONE)
            b->second[found++] = (uint8_t)(key % halves / quarters * CODEBOOK_PITCH + key % quarters);
        b->begin[halves] = (uint16_t)found;
    }
}

static void fill(const codebook *b)
{
    const int n = b->n_magnitudes;
    int keys = 1;
    for (int k = 0; k < b->width; k++)
        keys *= n;
    memset(b->word, 0xff, (size_t)keys * sizeof *b->word);
    for (int i = 0; i < b->n_words; i++) {
        int key = 0, first = 0, of_length = 1;
        for (int k = 0; k < b->width; k++) {
            int m = entry_of(b, (unsigned)i, k);
            b->allowed[first + key] |= (uint16_t)codes_of_entry(b, m);
            key = key * n + m;
            first += of_length;
            of_length *= n;
        }
        b->word[key] = (uint16_t)i;
    }
    fill_halves(b, keys);
}

static void fill_all(void)
{
    fill(&codebook_iq1_s); /* IQ1_M has the same words */
    fill(&codebook_iq2_xxs);
    fill(&codebook_iq2_xs);
    fill(&codebook_iq2_s);
    fill(&codebook_iq3_xxs);
    fill(&codebook_iq3_s);
}

void codebook_prepare(void)
{
    static once filled = ONCE;
    once_run(&filled, fill_all);
}

void codebook_read(const codebook *b, unsigned word, unsigned signs, uint8_t *code)
{
    for (int k = 0; k < b->width; k++) {
        int m = entry_of(b, word, k);
        code[k] = (uint8_t)(b->shifted       ? 2 * m + (signs & 1 ? CODEBOOK_SHIFT_DOWN : CODEBOOK_SHIFT_UP)
                            : signs >> k & 1 ? b->n_magnitudes - 1 - m
                                             : b->n_magnitudes + m);
    }
}

static int entry_of_code(const codebook *b, int code)
{
    return b->shifted ? code >> 1 : code < b->n_magnitudes ? b->n_magnitudes - 1 - code : code - b->n_magnitudes;
}

unsigned codebook_write(const codebook *b, const uint8_t *code, unsigned *signs)
{
    int key = 0;
    *signs = b->shifted && codebook_shift(code[0]) == CODEBOOK_SHIFT_DOWN;
    for (int k = 0; k < b->width; k++) {
        *signs |= (unsigned)(!b->shifted && code[k] < b->n_magnitudes) << k;
        key = key * b->n_magnitudes + entry_of_code(b, code[k]);
    }
    return b->word[key];
}

/* ---- the search ---- */

/* A value whose predecessors are chosen. */
typedef struct branch {
    float v, cost;             /* what it should be, in units of the scale; of its predecessors */
    unsigned below, above;     /* codes not tried yet: of levels below v, and not */
    int key, first, of_length; /* the prefix, and where those of its length begin and how many they are */
    bool carried; /* to the unit's later values: those so far have an odd number of signs; of a shifted book: the shift is up */
} branch;

/* Levels below v: [MOST_LEVELS], ascending. */
static unsigned count_below(const float *level, float v)
{
    unsigned at = 0;
    for (unsigned step = MOST_LEVELS / 2; step; step /= 2)
        at += level[at + step - 1] < v ? step : 0;
    return at + (level[at] < v);
}

/* The codes that value j may have for what lies beyond its word: the other signs, the shift. */
static unsigned may_be(const codebook *book, const codebook_wish *w, const branch *b, int j)
{
    const unsigned shifts[] = {[CODEBOOK_SHIFT_DOWN] = 0x5555, [CODEBOOK_SHIFT_UP] = 0xaaaa, [CODEBOOK_SHIFT_EITHER] = 0xffff};
    if (book->shifted)
        return shifts[j ? (int)b->carried : w->shift];
    if (book->even && j == book->unit - 1)
        return ((1u << book->n_magnitudes) - 1) << (b->carried ? 0 : book->n_magnitudes);
    return 0xffff;
}

static void open_branch(const codebook *book, const codebook_wish *w, const float *level, branch *b, int j)
{
    unsigned codes = book->allowed[b->first + b->key] & may_be(book, w, b, j), lower = count_below(level, b->v);
    b->below = codes & ((1u << lower) - 1);
    b->above = codes & ~((1u << lower) - 1);
}

/* The nearest code not tried yet; -1: none. */
static int next_code(const float *level, branch *b)
{
    int low = b->below ? 31 - __builtin_clz(b->below) : -1, high = b->above ? __builtin_ctz(b->above) : -1;
    if (low >= 0 && (high < 0 || b->v - level[low] < level[high] - b->v)) {
        b->below &= ~(1u << low);
        return low;
    }
    b->above &= b->above - 1;
    return high;
}

/* The branch behind code c of branch b, the values behind it shifted by the errors so far. */
static void follow(const codebook *book, const branch *b, int j, int c, branch *next)
{
    const int n = book->n_magnitudes;
    next->carried = book->shifted ? codebook_shift((uint8_t)c) : b->carried ^ (c < n);
    if (((j + 1) & (book->width - 1)) == 0) {
        next->key = next->first = 0;
        next->of_length = 1;
        return;
    }
    next->key = b->key * n + entry_of_code(book, c);
    next->first = b->first + b->of_length;
    next->of_length = b->of_length * n;
}

float codebook_nearest(const grid *g, const codebook_wish *w, uint8_t *code)
{
    const codebook *book = g->book;
    const int unit = book->unit;
    branch at[CODEBOOK_MAX_UNIT];
    float v[CODEBOOK_MAX_UNIT], error[CODEBOOK_MAX_UNIT], level[MOST_LEVELS], square = w->scale * w->scale;
    uint8_t tried[CODEBOOK_MAX_UNIT];
    if (!(square > 0.0f))
        return w->bound;
    if (!w->share)
        return codebook_nearest_plain(g, w, code);
    float best = w->bound / square, found = w->bound;
    for (int i = 0; i < MOST_LEVELS; i++)
        level[i] = i < g->n_levels ? (float)g->level[i] : INFINITY;
    for (int j = 0; j < unit; j++)
        v[j] = w->target[j] / w->scale;
    at[0] = (branch){.v = v[0], .of_length = 1};
    open_branch(book, w, level, &at[0], 0);
    for (int j = 0; j >= 0;) {
        int c = next_code(level, &at[j]);
        float e = c < 0 ? 0.0f : at[j].v - level[c], cost = at[j].cost + w->weight[j] * e * e;
        if (c < 0 || !(cost < best)) {
            j--;
            continue;
        }
        tried[j] = (uint8_t)c;
        if (j == unit - 1) {
            best = cost;
            found = cost * square;
            memcpy(code, tried, (size_t)unit);
            j--;
            continue;
        }
        error[j] = e;
        follow(book, &at[j], j, c, &at[j + 1]);
        j++;
        at[j].cost = cost;
        at[j].v = v[j];
        for (int k = 0; k < j && w->share; k++)
            at[j].v -= error[k] * w->share[(size_t)k * w->stride + (size_t)j];
        open_branch(book, w, level, &at[j], j);
    }
    return found;
}
