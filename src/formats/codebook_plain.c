/*
 * The nearest words when errors are not shared. The sum of a word is that of its two halves, which take few forms: every half's sum is
 * found once, and second halves are looked at only behind first halves that may still win. Signs are those of the targets, or all but one
 * where their number must be even.
 */
#include "formats/codebook_search.h"

#include <math.h>
#include <string.h>

enum { LANES = 4, MOST = 84, MOST_VALUES = 4 }; /* forms of a half, filled up; its values */

/* Sums of a half by its form: with the signs of the targets, and with the cheapest other one. */
typedef struct half {
    float same[MOST], other[MOST];
    float least_same, least_other;
} half;

/* What was found of a word. */
typedef struct pick {
    float sum;
    int first, second; /* forms of its halves */
    int flipped;       /* which half has another sign; -1: none */
} pick;

static float least_of(const float *v)
{
    float lane[LANES];
    memcpy(lane, v, sizeof lane);
    for (int i = LANES; i < MOST; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] = v[i + l] < lane[l] ? v[i + l] : lane[l];
    float a = lane[0] < lane[1] ? lane[0] : lane[1], b = lane[2] < lane[3] ? lane[2] : lane[3];
    return a < b ? a : b;
}

/* v: magnitudes of the half's targets in units of the scale */
static void sum_half(const grid *g, const float *v, const float *weight, bool others, half *h)
{
    const codebook *book = g->book;
    const int n = book->n_magnitudes, values = book->width / 2;
    float extra[MOST];
    int size = 1;
    h->same[0] = 0.0f;
    extra[0] = INFINITY;
    for (int k = 0; k < values; k++, size *= n)
        for (int i = size - 1; i >= 0; i--) {
            float before = h->same[i], least = extra[i];
            for (int m = 0; m < n; m++) {
                float level = (float)g->level[n + m], e = v[k] - level;
                h->same[i * n + m] = before + weight[k] * e * e;
                if (!others)
                    continue;
                float more = 4.0f * weight[k] * v[k] * level;
                extra[i * n + m] = more < least ? more : least;
            }
        }
    for (int i = size; i < MOST; i++)
        h->same[i] = INFINITY;
    h->least_same = least_of(h->same);
    if (!others)
        return;
    for (int i = 0; i < size; i++)
        h->other[i] = h->same[i] + extra[i];
    for (int i = size; i < MOST; i++)
        h->other[i] = INFINITY;
    h->least_other = least_of(h->other);
}

static void look_behind(const codebook *book, int first, const float *a, const float *b, int flipped, pick *best)
{
    for (int i = book->begin[first]; i < book->begin[first + 1]; i++) {
        float sum = a[first] + b[book->second[i]];
        if (sum < best->sum)
            *best = (pick){sum, first, book->second[i], flipped};
    }
}

static void search(const codebook *book, const float *a, float least_a, const float *b, float least_b, int flipped, pick *best)
{
    if (!(least_a + least_b < best->sum))
        return;
    for (int i = 0; i < book->n_halves; i++)
        if (a[i] == least_a)
            look_behind(book, i, a, b, flipped, best);
    for (int i = 0; i < book->n_halves; i++)
        if (a[i] + least_b < best->sum && a[i] != least_a)
            look_behind(book, i, a, b, flipped, best);
}

/* ---- units ---- */

static void pick_same(const codebook *book, const half h[2], pick *best)
{
    best->sum = INFINITY;
    search(book, h[0].same, h[0].least_same, h[1].same, h[1].least_same, -1, best);
}

static void pick_other(const codebook *book, const half h[2], pick *best)
{
    best->sum = INFINITY;
    search(book, h[0].other, h[0].least_other, h[1].same, h[1].least_same, 0, best);
    search(book, h[0].same, h[0].least_same, h[1].other, h[1].least_other, 1, best);
}

/* Of a half's values in this form: the one whose other sign is cheapest. */
static int cheapest_flip(const grid *g, const uint8_t *magnitude, const float *v, const float *weight)
{
    int values = g->book->width / 2, best = 0;
    float least = INFINITY;
    for (int k = 0; k < values; k++) {
        float more = weight[k] * v[k] * (float)g->level[g->book->n_magnitudes + magnitude[k]];
        if (more < least) {
            least = more;
            best = k;
        }
    }
    return best;
}

static void write_word(const grid *g, const pick *p, const codebook_wish *w, const float *v, int at, uint8_t *code)
{
    const codebook *book = g->book;
    const int n = book->n_magnitudes, values = book->width / 2, form[2] = {p->first, p->second};
    for (int h = 0; h < 2; h++) {
        uint8_t magnitude[MOST_VALUES];
        int from = at + h * values, flip;
        for (int k = values - 1, rest = form[h]; k >= 0; k--, rest /= n)
            magnitude[k] = (uint8_t)(rest % n);
        flip = p->flipped == h ? cheapest_flip(g, magnitude, v + from, w->weight + from) : -1;
        for (int k = 0; k < values; k++) {
            bool negative = (w->target[from + k] < 0.0f) != (k == flip);
            code[from + k] = (uint8_t)(negative ? n - 1 - magnitude[k] : n + magnitude[k]);
        }
    }
}

float codebook_nearest_plain(const grid *g, const codebook_wish *w, uint8_t *code)
{
    const codebook *book = g->book;
    const int words = book->unit / book->width;
    float v[CODEBOOK_MAX_UNIT], square = w->scale * w->scale, sum = 0.0f, best = INFINITY;
    half halves[2][2];
    pick same[2], other[2];
    bool odd = false;
    int flipped = -1;
    for (int j = 0; j < book->unit; j++) {
        v[j] = fabsf(w->target[j] / w->scale);
        odd ^= w->target[j] < 0.0f;
    }
    odd = odd && book->even;
    for (int i = 0; i < words; i++) {
        for (int h = 0; h < 2; h++) {
            int from = i * book->width + h * book->width / 2;
            sum_half(g, v + from, w->weight + from, odd, &halves[i][h]);
        }
        pick_same(book, halves[i], &same[i]);
        if (odd)
            pick_other(book, halves[i], &other[i]);
        sum += same[i].sum;
    }
    for (int i = 0; odd && i < words; i++) {
        float with = sum - same[i].sum + other[i].sum;
        if (with < best) {
            best = with;
            flipped = i;
        }
    }
    best = odd ? best : sum;
    if (!(best * square < w->bound))
        return w->bound;
    for (int i = 0; i < words; i++)
        write_word(g, i == flipped ? &other[i] : &same[i], w, v, i * book->width, code);
    return best * square;
}
