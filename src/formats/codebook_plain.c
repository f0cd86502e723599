/*
 * The nearest words when errors are not shared. The sum of a word is that of its two halves, which take few forms, each a pair of the forms
 * of its quarters: every half's sum is found once, and second halves are looked at only behind first halves that may still win. Signs are
 * those of the targets, or all but one where their number must be even; words of values have their own.
 */
#include "formats/codebook_search.h"

#include <math.h>
#include <string.h>

enum { MOST_FORMS = 9, PITCH = CODEBOOK_PITCH, MOST_VALUES = 4, MOST_MAGNITUDES = 8 }; /* of a quarter; values of a half */

/* Sums of a quarter of a word by its form: with the signs of the targets; what the cheapest other sign adds. */
typedef struct quarter {
    float sum[PITCH], extra[PITCH]; /* infinite behind the last form */
    float least, least_other;
    int best; /* form of the least */
} quarter;

/* Sums of a half by the forms of its quarters, with the signs of the targets (0) and with the cheapest other one (1). */
typedef struct half {
    float sum[2][MOST_FORMS][PITCH];
    float row[2][MOST_FORMS], least[2]; /* the least of each row, of all */
    int row_first, column_first;        /* where looking begins */
} half;

/* What was found of a word. */
typedef struct pick {
    float sum;
    int first, second; /* forms of its halves: row * PITCH + column; -1: nothing */
    int flipped;       /* which half has another sign; -1: none */
} pick;

/* What a value of a quarter costs with each magnitude. */
static void sum_value(const float *level, int n, float v, float weight, float *sum, float *extra)
{
    for (int m = 0; m < n; m++) {
        float e = v - level[m];
        sum[m] = weight * e * e;
        extra[m] = 4.0f * weight * v * level[m];
    }
}

/* v: magnitudes of the quarter's targets in units of the scale. A quarter is a value of eight magnitudes or two of three. */
static void sum_quarter(const float *level, bool pair, const float *v, const float *weight, quarter *q)
{
    float sum[2][3], extra[2][3];
    for (int i = 8; i < PITCH; i++)
        q->sum[i] = q->extra[i] = INFINITY;
    if (pair) {
        for (int k = 0; k < 2; k++)
            sum_value(level, 3, v[k], weight[k], sum[k], extra[k]);
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < 3; k++) {
                q->sum[3 * i + k] = sum[0][i] + sum[1][k];
                q->extra[3 * i + k] = extra[1][k] < extra[0][i] ? extra[1][k] : extra[0][i];
            }
    } else {
        sum_value(level, 8, v[0], weight[0], q->sum, q->extra);
    }
    q->least = q->least_other = INFINITY;
    q->best = 0;
    for (int i = 0; i < MOST_FORMS; i++) {
        float other = q->sum[i] + q->extra[i];
        q->best = q->sum[i] < q->least ? i : q->best;
        q->least = q->sum[i] < q->least ? q->sum[i] : q->least;
        q->least_other = other < q->least_other ? other : q->least_other;
    }
}

static void sum_half(const float *level, int values, const float *v, const float *weight, bool others, half *h)
{
    quarter a, b;
    sum_quarter(level, values == 4, v, weight, &a);
    sum_quarter(level, values == 4, v + values / 2, weight + values / 2, &b);
    h->row_first = a.best;
    h->column_first = b.best;
    h->least[0] = a.least + b.least;
    for (int i = 0; i < MOST_FORMS; i++) {
        h->row[0][i] = a.sum[i] + b.least;
        for (int k = 0; k < PITCH; k++)
            h->sum[0][i][k] = a.sum[i] + b.sum[k];
    }
    h->least[1] = INFINITY;
    for (int i = 0; others && i < MOST_FORMS; i++) {
        float here = a.sum[i] + a.extra[i] + b.least, there = a.sum[i] + b.least_other;
        h->row[1][i] = here < there ? here : there;
        h->least[1] = h->row[1][i] < h->least[1] ? h->row[1][i] : h->least[1];
        for (int k = 0; k < PITCH; k++)
            h->sum[1][i][k] = h->sum[0][i][k] + (b.extra[k] < a.extra[i] ? b.extra[k] : a.extra[i]);
    }
}

/* ---- words ---- */

/* The words that begin with the first half's form. */
static void look_behind(const codebook *book, const half h[2], int row, int column, int flipped, pick *best)
{
    const int form = row * book->n_quarters + column;
    const float sum = h[0].sum[flipped == 0][row][column], *second = h[1].sum[flipped == 1][0];
    for (int i = book->begin[form]; i < book->begin[form + 1]; i++)
        if (sum + second[book->second[i]] < best->sum)
            *best = (pick){sum + second[book->second[i]], row * PITCH + column, book->second[i], flipped};
}

/* Forms of the first half, the cheapest row and column first: the others seldom remain. */
static void search(const codebook *book, const half h[2], int flipped, pick *best)
{
    const int n = book->n_quarters, other = flipped == 0;
    const float least = h[1].least[flipped == 1];
    for (int i = 0; i < n; i++) {
        int row = h[0].row_first + i < n ? h[0].row_first + i : h[0].row_first + i - n;
        if (!(h[0].row[other][row] + least < best->sum))
            continue;
        for (int k = 0; k < n; k++) {
            int column = h[0].column_first + k < n ? h[0].column_first + k : h[0].column_first + k - n;
            if (h[0].sum[other][row][column] + least < best->sum)
                look_behind(book, h, row, column, flipped, best);
        }
    }
}

/* The best word below the limit, with one sign that is not its target's or without. */
static pick best_word(const codebook *book, const half h[2], bool flip, float limit)
{
    pick best = {limit, -1, -1, -1};
    for (int flipped = flip ? 0 : -1; flipped <= (flip ? 1 : -1); flipped++)
        search(book, h, flipped, &best);
    return best;
}

static float least_of_word(const half h[2], bool flip)
{
    float here = h[0].least[1] + h[1].least[0], there = h[0].least[0] + h[1].least[1];
    return !flip ? h[0].least[0] + h[1].least[0] : here < there ? here : there;
}

/* ---- units ---- */

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

/* The magnitudes of half a word. */
static void read_form(int form, int values, uint8_t *magnitude)
{
    const int part[2] = {form / PITCH, form % PITCH};
    for (int i = 0; i < values; i++)
        magnitude[i] = (uint8_t)(values == 2 ? part[i] : i % 2 ? part[i / 2] % 3 : part[i / 2] / 3);
}

static void write_word(const grid *g, const pick *p, const codebook_wish *w, const float *v, int at, uint8_t *code)
{
    const int n = g->book->n_magnitudes, values = g->book->width / 2, form[2] = {p->first, p->second};
    for (int h = 0; h < 2; h++) {
        uint8_t magnitude[MOST_VALUES];
        int from = at + h * values;
        read_form(form[h], values, magnitude);
        int flip = p->flipped == h ? cheapest_flip(g, magnitude, v + from, w->weight + from) : -1;
        for (int k = 0; k < values; k++) {
            bool negative = (w->target[from + k] < 0.0f) != (k == flip);
            code[from + k] = (uint8_t)(negative ? n - 1 - magnitude[k] : n + magnitude[k]);
        }
    }
}

/* The unit's words, that at `flipped` with another sign (-1: none); their sum, or the limit if it is not below. */
static float best_words(const codebook *book, half h[2][2], int words, int flipped, float limit, pick out[2])
{
    float sum = 0.0f, rest = 0.0f;
    for (int i = 1; i < words; i++)
        rest += least_of_word(h[i], i == flipped);
    for (int i = 0; i < words; i++) {
        out[i] = best_word(book, h[i], i == flipped, limit - sum - rest);
        if (out[i].first < 0)
            return limit;
        sum += out[i].sum;
        rest = 0.0f;
    }
    return sum < limit ? sum : limit;
}

/* Words of values, which have their own signs: the better one of the shifts that may be. */
static float nearest_shifted(const grid *g, const codebook_wish *w, uint8_t *code)
{
    const float inverse = 1.0f / w->scale, square = w->scale * w->scale;
    float v[CODEBOOK_MAX_UNIT], level[3], best = w->bound / square;
    half halves[2];
    pick chosen = {.first = -1};
    int chosen_shift = 0;
    for (int j = 0; j < g->book->unit; j++)
        v[j] = w->target[j] * inverse;
    for (int shift = 0; shift < 2; shift++) {
        if (w->shift != CODEBOOK_SHIFT_EITHER && w->shift != shift)
            continue;
        for (int m = 0; m < 3; m++)
            level[m] = (float)g->level[2 * m + shift];
        for (int i = 0; i < 2; i++)
            sum_half(level, MOST_VALUES, v + i * MOST_VALUES, w->weight + i * MOST_VALUES, false, &halves[i]);
        const pick found = best_word(g->book, halves, false, best);
        if (found.first < 0)
            continue;
        best = found.sum;
        chosen = found;
        chosen_shift = shift;
    }
    if (chosen.first < 0 || !(best * square < w->bound))
        return w->bound;
    read_form(chosen.first, MOST_VALUES, code);
    read_form(chosen.second, MOST_VALUES, code + MOST_VALUES);
    for (int j = 0; j < g->book->unit; j++)
        code[j] = (uint8_t)(2 * code[j] + chosen_shift);
    return best * square;
}

float codebook_nearest_plain(const grid *g, const codebook_wish *w, uint8_t *code)
{
    const codebook *book = g->book;
    if (book->shifted)
        return nearest_shifted(g, w, code);
    const int words = book->unit / book->width;
    const float inverse = 1.0f / w->scale, square = w->scale * w->scale;
    float v[CODEBOOK_MAX_UNIT], level[MOST_MAGNITUDES], best = w->bound / square;
    half halves[2][2];
    pick found[2], chosen[2] = {{.first = -1}};
    bool odd = false;
    for (int m = 0; m < book->n_magnitudes; m++)
        level[m] = (float)g->level[book->n_magnitudes + m];
    for (int j = 0; j < book->unit; j++) {
        v[j] = fabsf(w->target[j] * inverse);
        odd ^= w->target[j] < 0.0f;
    }
    odd = odd && book->even;
    for (int i = 0; i < 2 * words; i++) {
        int from = i * book->width / 2;
        sum_half(level, book->width / 2, v + from, w->weight + from, odd, &halves[i / 2][i % 2]);
    }
    for (int flipped = odd ? 0 : -1; flipped < (odd ? words : 0); flipped++) {
        float sum = best_words(book, halves, words, flipped, best, found);
        if (!(sum < best))
            continue;
        best = sum;
        memcpy(chosen, found, sizeof chosen);
    }
    if (chosen[0].first < 0 || !(best * square < w->bound))
        return w->bound;
    for (int i = 0; i < words; i++)
        write_word(g, &chosen[i], w, v, i * book->width, code);
    return best * square;
}
