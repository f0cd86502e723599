#include "quantize/stability.h"

#include <math.h>
#include <string.h>

/* Values from a column on, and what they would become. */
typedef struct deviation {
    int at, n;
    float d[GRID_MAX_BLOCK];
} deviation;

static bool gains(const stability_row *r, const deviation *v)
{
    const size_t n = (size_t)r->m->n;
    double fall = 0;
    for (int i = 0; i < v->n; i++) {
        const float *h = r->m->h + (size_t)(v->at + i) * n + (size_t)v->at;
        double sum = 2 * (double)r->grad[v->at + i];
        for (int k = 0; k < v->n; k++)
            sum += (double)v->d[k] * (double)h[k];
        fall -= (double)v->d[i] * sum;
    }
    return fall > STABILITY_GAIN * r->cost;
}

/* The block with one of its numbers changed, beside what it is; its first value is at column `at`. */
static bool better(const stability_row *r, const grid_block *now, const grid_block *other, int at)
{
    float x[GRID_MAX_BLOCK], y[GRID_MAX_BLOCK];
    int first = r->g->block, last = -1;
    deviation v;
    grid_values(r->g, now, x);
    grid_values(r->g, other, y);
    for (int i = 0; i < r->g->block; i++)
        if (x[i] != y[i]) {
            first = i < first ? i : first;
            last = i;
        }
    v.at = at + first;
    v.n = last >= first ? last - first + 1 : 0;
    for (int i = 0; i < v.n; i++)
        v.d[i] = y[first + i] - x[first + i];
    return gains(r, &v);
}

static void count(int64_t *all, int64_t *restless, bool could)
{
    ++*all;
    *restless += could;
}

static void try_codes(const stability_row *r, const grid_block *b, int at, stability *sum)
{
    const grid *g = r->g;
    for (int i = 0; i < g->block; i++) {
        const float scale = grid_scale(g, b, i / g->group), offset = grid_offset_of(g, b, i / g->group);
        const float x = scale * (float)g->level[b->code[i]] + offset;
        const float wish = x - r->grad[at + i] * r->m->inverse_own[at + i];
        deviation v = {.at = at + i, .n = 1};
        v.d[0] = scale != 0.0f ? scale * (float)g->level[grid_nearest(g, (wish - offset) / scale)] + offset - x : 0.0f;
        count(&sum->codes, &sum->restless_codes, gains(r, &v));
    }
}

static void try_words(const stability_row *r, const grid_block *b, int at, stability *sum)
{
    const grid *g = r->g;
    const int n = g->book->unit;
    float x[GRID_MAX_BLOCK];
    grid_values(g, b, x);
    for (int i = 0; i < g->block; i += n) {
        grid_block other = *b;
        (void)unit_respond(g, &r->units[(at + i) / n], grid_scale(g, b, i / g->group), x + i, r->grad + at + i, other.code + i);
        count(&sum->codes, &sum->restless_codes, better(r, b, &other, at));
    }
}

/* The numbers of a group beside the present ones. */
static bool group_could(const stability_row *r, const grid_block *b, int group, int at)
{
    const grid *g = r->g;
    bool could = false;
    for (int step = -1; step <= 1; step += 2) {
        grid_block other = *b;
        int scale = b->scale[group] + step * g->scale_step, min = b->min[group] + step;
        other.scale[group] = (int8_t)scale;
        could = could || (scale >= g->scale_lo && scale <= g->scale_hi && better(r, b, &other, at));
        other = *b;
        other.min[group] = (uint8_t)min;
        could = could || (g->offset == GRID_OFFSET_STEPS && min >= 0 && min <= g->min_hi && better(r, b, &other, at));
    }
    if (codebook_group_shifts(g->book)) {
        grid_block other = *b;
        for (int i = group * g->group; i < (group + 1) * g->group; i++)
            other.code[i] ^= 1;
        could = could || better(r, b, &other, at);
    }
    return could;
}

static void try_scales(const stability_row *r, const grid_block *b, int at, stability *sum)
{
    const grid *g = r->g;
    for (int group = 0; g->scale_lo != g->scale_hi && group < g->block / g->group; group++)
        count(&sum->scales, &sum->restless_scales, group_could(r, b, group, at));
    if (g->number == GRID_ONE)
        return;
    bool could = false;
    for (int step = -1; step <= 1; step += 2) {
        grid_block other = *b;
        other.d = grid_beside(g, b->d, step);
        could = could || better(r, b, &other, at);
        other = *b;
        other.m = grid_beside(g, b->m, step);
        could =
            could || (g->offset != GRID_NO_OFFSET && (g->offset == GRID_OFFSET_OWN || other.m >= 0.0f) && better(r, b, &other, at));
    }
    count(&sum->scales, &sum->restless_scales, could);
}

void stability_add(const stability_row *r, stability *sum)
{
    for (int block = 0; block < r->m->n / r->g->block; block++) {
        const grid_block *b = &r->blocks[block];
        (r->g->book ? try_words : try_codes)(r, b, block * r->g->block, sum);
        try_scales(r, b, block * r->g->block, sum);
    }
}

void stability_sum(stability *to, const stability *more)
{
    to->codes += more->codes;
    to->restless_codes += more->restless_codes;
    to->scales += more->scales;
    to->restless_scales += more->restless_scales;
}
