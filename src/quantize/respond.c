#include "quantize/respond.h"

#include <math.h>
#include <string.h>

#define RESPONSES 3      /* rounds of a group's codes after its scale moved */
#define TINY 1e-7        /* of a unit's curvature: what is below has no direction */
#define NOTICEABLE 1e-5f /* share of what a unit can gain at most that is worth a move */
#define MOST_NEIGHBOURS 4
#define MOST_STEPS 64 /* from one f16 number to the next */

/* What moves, on its own ground: kept only when the cost falls. */
typedef struct site {
    const group_player *p;
    int width;
    float x[RESPOND_MOST_GROUP], grad[RESPOND_MOST_GROUP];
    uint8_t code[RESPOND_MOST_GROUP];
} site;

/* ---- codes ---- */

/* Column j's value becomes v; returns by how much the cost falls. */
static double move(site *s, int j, float v)
{
    float d = v - s->x[j];
    const float *h = s->p->h + (size_t)j * s->p->stride;
    double fall = -(double)d * (2.0 * (double)s->grad[j] + (double)d * (double)h[j]);
    s->x[j] = v;
    for (int k = 0; k < s->width; k++)
        s->grad[k] += d * h[k];
    return fall;
}

/* Every code answers once, in order; returns by how much the cost falls. */
static double answer_codes(site *s, float scale, float offset, int64_t *moved)
{
    const grid *g = s->p->g;
    const grid_borders *borders = s->p->borders;
    double fall = 0;
    const float inverse = 1.0f / scale, *own = s->p->inverse_own;
    for (int j = 0; j < s->width; j++) {
        float wish = (s->x[j] - s->grad[j] * own[j] - offset) * inverse;
        int code = s->code[j];
        if (wish >= borders->lower[code] && wish <= borders->upper[code])
            continue;
        code = grid_nearest(g, wish);
        if (code == s->code[j])
            continue;
        s->code[j] = (uint8_t)code;
        fall += move(s, j, scale * (float)g->level[code] + offset);
        ++*moved;
    }
    return fall;
}

/* ---- words ---- */

void unit_curve_of(const float *h, size_t stride, int n, unit_curve *out)
{
    double u[CODEBOOK_MAX_UNIT][CODEBOOK_MAX_UNIT], d[CODEBOOK_MAX_UNIT], f[CODEBOOK_MAX_UNIT][CODEBOOK_MAX_UNIT];
    for (int j = n - 1; j >= 0; j--) /* H = U D U^T, U unit upper triangular */
        for (int i = j; i >= 0; i--) {
            double sum = (double)h[(size_t)i * stride + (size_t)j];
            for (int k = j + 1; k < n; k++)
                sum -= u[i][k] * d[k] * u[j][k];
            if (i == j)
                d[j] =
                    sum > TINY * (double)h[(size_t)j * stride + (size_t)j] ? sum : TINY * (double)h[(size_t)j * stride + (size_t)j];
            u[i][j] = i == j ? 1 : d[j] > 0 ? sum / d[j] : 0;
        }
    *out = (unit_curve){0};
    for (int j = 0; j < n; j++) { /* share = U^-1 */
        for (int i = j; i >= 0; i--) {
            f[i][j] = i == j ? 1 : 0;
            for (int k = i + 1; k <= j; k++)
                f[i][j] -= u[i][k] * f[k][j];
            out->share[i][j] = (float)f[i][j];
        }
        out->weight[j] = (float)d[j];
    }
}

/* Where the cost is lowest for the unit alone, its values free; returns by how much it lies below the present cost. */
static float find_target(const unit_curve *c, int n, const float *x, const float *grad, float *target)
{
    float lower = 0;
    memcpy(target, x, (size_t)n * sizeof *target);
    for (int i = 0; i < n; i++) {
        float sum = 0;
        for (int j = i; j < n; j++)
            sum += grad[j] * c->share[i][j];
        float r = c->weight[i] > 0 ? sum / c->weight[i] : 0;
        lower += sum * r;
        for (int j = i; j < n; j++)
            target[j] -= r * c->share[i][j];
    }
    return lower;
}

bool unit_respond(const grid *g, const unit_curve *c, float scale, const float *x, const float *grad, uint8_t *code)
{
    float target[CODEBOOK_MAX_UNIT], present = find_target(c, g->book->unit, x, grad, target);
    codebook_wish wish = {.target = target,
                          .weight = c->weight,
                          .share = c->share[0],
                          .stride = CODEBOOK_MAX_UNIT,
                          .scale = scale,
                          .bound = present * (1.0f - NOTICEABLE),
                          .shift = codebook_group_shifts(g->book) ? codebook_shift(code[0]) : CODEBOOK_SHIFT_EITHER};
    return codebook_nearest(g, &wish, code) < wish.bound;
}

/* Every unit answers once, in order; returns by how much the cost falls. */
static double answer_words(site *s, float scale, int64_t *moved)
{
    const grid *g = s->p->g;
    const int n = g->book->unit;
    double fall = 0;
    for (int at = 0; at < s->width; at += n) {
        uint8_t code[CODEBOOK_MAX_UNIT];
        memcpy(code, s->code + at, (size_t)n);
        if (!unit_respond(g, &s->p->units[at / n], scale, s->x + at, s->grad + at, code))
            continue;
        for (int j = 0; j < n; j++) {
            if (code[j] == s->code[at + j])
                continue;
            s->code[at + j] = code[j];
            fall += move(s, at + j, scale * (float)g->level[code[j]]);
            ++*moved;
        }
    }
    return fall;
}

static double answer(site *s, float scale, float offset, int64_t *moved)
{
    if (scale == 0.0f)
        return 0;
    return s->p->g->book ? answer_words(s, scale, moved) : answer_codes(s, scale, offset, moved);
}

/* ---- scale and offset ---- */

/* A scale and offset, or shift, of a group that its format can hold. */
typedef struct setting {
    float d, m;
    int scale, min; /* min: as in grid_block */
} setting;

/* Groups choose something with their scale that `min` says. */
static bool has_min(const grid *g) { return g->offset == GRID_OFFSET_STEPS || codebook_group_shifts(g->book); }

/* Of lo, lo + step .. hi, in units. */
static int nearest_step(float v, float unit, int lo, int hi, int step)
{
    float at = unit != 0.0f ? v / unit : 0.0f;
    return at > (float)lo ? at < (float)hi ? lo + step * (int)lrintf((at - (float)lo) / (float)step) : hi : lo;
}

static setting setting_of(const grid *g, const grid_block *b, int group)
{
    return (setting){b->d, b->m, b->scale[group], has_min(g) ? b->min[group] : 0};
}

/* Of a table of scales: the number of the nearest. */
static int nearest_scale(const grid *g, float v)
{
    int at = 0;
    while (at < g->scale_hi && v > 0.5f * (g->scales[at] + g->scales[at + 1]))
        at++;
    return at;
}

static setting setting_near(const grid *g, const grid_block *b, int group, float scale, float offset)
{
    setting s = setting_of(g, b, group);
    if (g->scale_lo == g->scale_hi)
        s.d = grid_storable(g, scale);
    else if (g->scales)
        s.scale = nearest_scale(g, scale);
    else
        s.scale = nearest_step(scale, b->d * g->unit, g->scale_lo, g->scale_hi, g->scale_step);
    if (g->offset == GRID_OFFSET_OWN)
        s.m = grid_storable(g, offset);
    else if (g->offset == GRID_OFFSET_STEPS)
        s.min = nearest_step(-offset, b->m, 0, g->min_hi, 1);
    return s;
}

static void apply(const grid *g, grid_block *b, int group, setting s)
{
    b->d = s.d;
    b->m = s.m;
    b->scale[group] = (int8_t)s.scale;
    if (has_min(g))
        b->min[group] = (uint8_t)s.min;
}

static bool same(setting a, setting b) { return a.d == b.d && a.m == b.m && a.scale == b.scale && a.min == b.min; }

static bool allowed(const grid *g, setting s)
{
    return g->scale_lo == g->scale_hi || (s.scale >= g->scale_lo && s.scale <= g->scale_hi &&
                                          (g->offset != GRID_OFFSET_STEPS || (s.min >= 0 && s.min <= g->min_hi)));
}

static float scale_of(const grid *g, setting s) { return grid_scale_at(g, s.d, s.scale); }
static float offset_of(const grid *g, setting s)
{
    return g->offset == GRID_NO_OFFSET ? 0.0f : g->offset == GRID_OFFSET_OWN ? s.m : -(s.m * (float)s.min);
}

/* All values become those of the codes and another scale and offset; returns by how much the cost falls. */
static double rescale(site *s, float scale, float offset)
{
    float d[RESPOND_MOST_GROUP];
    double fall = 0;
    for (int j = 0; j < s->width; j++) {
        float v = scale * (float)s->p->g->level[s->code[j]] + offset;
        d[j] = v - s->x[j];
        s->x[j] = v;
        fall -= (double)d[j] * (double)s->grad[j];
    }
    for (int j = 0; j < s->width; j++) {
        const float *h = s->p->h + (size_t)j * s->p->stride;
        for (int k = 0; k < s->width; k++)
            s->grad[k] += d[j] * h[k];
    }
    for (int j = 0; j < s->width; j++)
        fall -= (double)d[j] * (double)s->grad[j];
    return fall;
}

static void find_curve(const site *s, group_curve *c)
{
    float z[RESPOND_MOST_GROUP];
    double zhz = 0, zhu = 0, uhu = 0;
    for (int j = 0; j < s->width; j++)
        z[j] = (float)s->p->g->level[s->code[j]];
    for (int j = 0; j < s->width; j++) {
        const float *h = s->p->h + (size_t)j * s->p->stride;
        float hz[8] = {0}, hu[8] = {0}, sum_z = 0, sum_u = 0;
        for (int k = 0; k < s->width; k += 8)
            for (int l = 0; l < 8; l++) {
                hz[l] += h[k + l] * z[k + l];
                hu[l] += h[k + l];
            }
        for (int l = 0; l < 8; l++) {
            sum_z += hz[l];
            sum_u += hu[l];
        }
        zhz += (double)z[j] * (double)sum_z;
        zhu += (double)z[j] * (double)sum_u;
        uhu += (double)sum_u;
    }
    *c = (group_curve){(float)zhz, (float)zhu, (float)uhu, true};
}

/* Half the slopes of the cost along scale and offset. */
typedef struct slopes {
    float z, u;
} slopes;

static slopes slopes_of(const site *s)
{
    double z = 0, u = 0;
    for (int j = 0; j < s->width; j++) {
        z += (double)s->p->g->level[s->code[j]] * (double)s->grad[j];
        u += (double)s->grad[j];
    }
    return (slopes){(float)z, (float)u};
}

/* Steps of scale and offset to the lowest cost for these codes. */
static void best_steps(const group_curve *c, slopes g, bool with_offset, float *d_scale, float *d_offset)
{
    double determinant = (double)c->zhz * (double)c->uhu - (double)c->zhu * (double)c->zhu;
    *d_scale = *d_offset = 0.0f;
    if (with_offset && determinant > 1e-6 * (double)c->zhz * (double)c->uhu) {
        *d_scale = (float)(((double)c->zhu * (double)g.u - (double)c->uhu * (double)g.z) / determinant);
        *d_offset = (float)(((double)c->zhu * (double)g.z - (double)c->zhz * (double)g.u) / determinant);
    } else if (c->zhz > 0) {
        *d_scale = -g.z / c->zhz;
    }
}

/* By how much the cost would fall if only scale and offset moved. */
static double fall_of(const grid *g, const group_curve *c, slopes at, setting from, setting to)
{
    double ds = (double)scale_of(g, to) - (double)scale_of(g, from), du = (double)offset_of(g, to) - (double)offset_of(g, from);
    if (codebook_group_shifts(g->book)) /* from one shift to the other all levels move by 2 */
        du = 2 * (double)scale_of(g, to) * (to.min - from.min);
    return -(2 * (ds * (double)at.z + du * (double)at.u) + ds * ds * (double)c->zhz + 2 * ds * du * (double)c->zhu +
             du * du * (double)c->uhu);
}

/* The group plays another setting, its codes answer; kept when the cost falls. */
static bool try_setting(site *s, setting wanted, int64_t *moved)
{
    const group_player *p = s->p;
    if (!allowed(p->g, wanted) || same(wanted, setting_of(p->g, p->b, p->group)))
        return false;
    float scale = scale_of(p->g, wanted), offset = offset_of(p->g, wanted);
    site trial = *s;
    int64_t changed = 0;
    const bool shifts = p->g->book && wanted.min != setting_of(p->g, p->b, p->group).min;
    for (int j = 0; shifts && j < s->width; j++)
        trial.code[j] ^= 1;
    double fall = rescale(&trial, scale, offset);
    for (int i = 0; i < RESPONSES; i++) {
        int64_t before = changed;
        fall += answer(&trial, scale, offset, &changed);
        if (changed == before)
            break;
    }
    if (!(fall > 0))
        return false;
    *s = trial;
    apply(p->g, p->b, p->group, wanted);
    *moved += changed + 1;
    p->curve->known = p->curve->known && changed == 0 && !shifts;
    return true;
}

/* The settings beside the present one. */
static int neighbours(const grid *g, setting now, setting out[MOST_NEIGHBOURS])
{
    int n = 0;
    if (g->scale_lo == g->scale_hi)
        return 0;
    for (int step = -1; step <= 1; step += 2) {
        out[n] = now;
        out[n++].scale += step * g->scale_step;
        if (g->offset == GRID_OFFSET_STEPS) {
            out[n] = now;
            out[n++].min += step;
        }
    }
    if (codebook_group_shifts(g->book)) {
        out[n] = now;
        out[n++].min ^= 1;
    }
    return n;
}

static void try_others(site *s, int64_t *moved)
{
    static const float ratios[][4] = {[GRID_F16] = {0.92f, 0.96f, 1.04f, 1.08f}, [GRID_POWER] = {0.5f, 2.0f, 0.25f, 4.0f}};
    const group_player *p = s->p;
    setting near[MOST_NEIGHBOURS];
    int n = neighbours(p->g, setting_of(p->g, p->b, p->group), near);
    for (int i = 0; i < n; i++)
        try_setting(s, near[i], moved);
    for (size_t i = 0; n == 0 && i < sizeof *ratios / sizeof **ratios; i++) {
        setting other = setting_of(p->g, p->b, p->group);
        other.d = grid_storable(p->g, other.d * ratios[p->g->number][i]);
        try_setting(s, other, moved);
    }
}

/* The two numbers of a super-block, or of a block without integers. */
typedef struct stored {
    float d, m;
} stored;

/* By how much the cost falls from one pair to another; zg, ug: half its slopes along them at `from`. */
static double stored_fall(const group_curve *c, double zg, double ug, stored from, stored to)
{
    const double dd = (double)to.d - (double)from.d, dm = (double)to.m - (double)from.m;
    return -(2 * (dd * zg + dm * ug) + dd * dd * (double)c->zhz + 2 * dd * dm * (double)c->zhu + dm * dm * (double)c->uhu);
}

/* Steps to numbers beside, one at a time, while the cost falls: rounding both at once is not their best. */
static stored settle_stored(const grid *g, const group_curve *c, double zg, double ug, stored from, stored at)
{
    double fall = stored_fall(c, zg, ug, from, at);
    for (int steps = 0; steps < MOST_STEPS; steps++) {
        const stored before = at;
        for (int i = 0; i < (g->offset == GRID_NO_OFFSET ? 2 : 4); i++) {
            stored other = before;
            float *v = i < 2 ? &other.d : &other.m;
            *v = grid_beside(g, *v, i % 2 ? 1 : -1);
            double here = g->offset == GRID_OFFSET_STEPS && other.m < 0.0f ? 0 : stored_fall(c, zg, ug, from, other);
            if (here > fall) {
                fall = here;
                at = other;
            }
        }
        if (at.d == before.d && at.m == before.m)
            break;
    }
    return at;
}

/* The best scale and offset for the codes, and if that is none, one of them alone a step. */
static void settle_scale(site *s, int64_t *moved)
{
    const group_player *p = s->p;
    float d_scale, d_offset;
    setting now = setting_of(p->g, p->b, p->group), near[MOST_NEIGHBOURS];
    if (!p->curve->known)
        find_curve(s, p->curve);
    slopes at = slopes_of(s);
    best_steps(p->curve, at, p->g->offset != GRID_NO_OFFSET, &d_scale, &d_offset);
    setting wanted = setting_near(p->g, p->b, p->group, scale_of(p->g, now) + d_scale, offset_of(p->g, now) + d_offset);
    if (p->g->offset == GRID_OFFSET_OWN) {
        stored best =
            settle_stored(p->g, p->curve, (double)at.z, (double)at.u, (stored){now.d, now.m}, (stored){wanted.d, wanted.m});
        wanted.d = best.d;
        wanted.m = best.m;
    }
    if (!same(wanted, now) && fall_of(p->g, p->curve, at, now, wanted) > 0 && try_setting(s, wanted, moved))
        return;
    for (int i = 0, n = neighbours(p->g, now, near); i < n; i++)
        if (allowed(p->g, near[i]) && fall_of(p->g, p->curve, at, now, near[i]) > 0 && try_setting(s, near[i], moved))
            return;
}

int64_t group_respond(const group_player *p, bool curious)
{
    const int width = p->g->group;
    const size_t bytes = (size_t)width * sizeof(float);
    uint8_t *code = p->b->code + p->group * width;
    setting now = setting_of(p->g, p->b, p->group);
    site s;
    int64_t moved = 0;
    s.p = p;
    s.width = width;
    memcpy(s.x, p->x, bytes);
    memcpy(s.grad, p->grad, bytes);
    memcpy(s.code, code, (size_t)width);
    (void)answer(&s, scale_of(p->g, now), offset_of(p->g, now), &moved);
    if (moved)
        p->curve->known = false;
    settle_scale(&s, &moved);
    if (curious)
        try_others(&s, &moved);
    if (!moved)
        return 0;
    memcpy(p->x, s.x, bytes);
    memcpy(p->grad, s.grad, bytes);
    memcpy(code, s.code, (size_t)width);
    return moved;
}

/* ---- super-blocks ---- */

/* z: values in units of d; u: in units of m. */
static void parts_of(const grid *g, const grid_block *b, float *z, float *u)
{
    for (int i = 0; i < g->block; i++) {
        z[i] = (float)b->scale[i / g->group] * (float)g->level[b->code[i]] * g->unit;
        u[i] = g->offset == GRID_OFFSET_STEPS ? -(float)b->min[i / g->group] : 0.0f;
    }
}

/* a[0] H v and a[1] H v. */
static void forms_of(const float *h_block, size_t stride, int n, const float *v, const float *a[2], double out[2])
{
    out[0] = out[1] = 0;
    for (int i = 0; i < n; i++) {
        const float *h = h_block + (size_t)i * stride;
        float lane[8] = {0};
        double sum = 0;
        for (int k = 0; k < n; k += 8)
            for (int l = 0; l < 8; l++)
                lane[l] += h[k + l] * v[k + l];
        for (int l = 0; l < 8; l++)
            sum += (double)lane[l];
        out[0] += (double)a[0][i] * sum;
        out[1] += (double)a[1][i] * sum;
    }
}

static void find_super_curve(const grid *g, const float *z, const float *u, const float *h_block, size_t stride, group_curve *c)
{
    const float *parts[2] = {z, u};
    double of_z[2], of_u[2] = {0, 0};
    forms_of(h_block, stride, g->block, z, parts, of_z);
    if (g->offset == GRID_OFFSET_STEPS)
        forms_of(h_block, stride, g->block, u, parts, of_u);
    *c = (group_curve){(float)of_z[0], (float)of_z[1], (float)of_u[1], true};
}

bool super_respond(const grid *g, grid_block *b, const float *h_block, size_t stride, float *x, const float *grad, group_curve *c)
{
    float z[GRID_MAX_BLOCK] = {0}, u[GRID_MAX_BLOCK] = {0};
    double zg = 0, ug = 0;
    parts_of(g, b, z, u);
    if (!c->known)
        find_super_curve(g, z, u, h_block, stride, c);
    for (int i = 0; i < g->block; i++) {
        zg += (double)z[i] * (double)grad[i];
        ug += (double)u[i] * (double)grad[i];
    }
    const double zhz = (double)c->zhz, zhu = (double)c->zhu, uhu = (double)c->uhu;
    double determinant = zhz * uhu - zhu * zhu, dd = 0, dm = 0;
    if (determinant > 1e-9 * zhz * uhu) {
        dd = (zhu * ug - uhu * zg) / determinant;
        dm = (zhu * zg - zhz * ug) / determinant;
    } else if (zhz > 0) {
        dd = -zg / zhz;
    }
    const stored now = {b->d, b->m};
    stored best = {grid_storable(g, b->d + (float)dd), g->offset == GRID_OFFSET_STEPS ? grid_storable(g, b->m + (float)dm) : b->m};
    if (best.m < 0.0f)
        best.m = b->m;
    if (!(stored_fall(c, zg, ug, now, best) > 0))
        best = now;
    best = settle_stored(g, c, zg, ug, now, best);
    if (best.d == now.d && best.m == now.m)
        return false;
    b->d = best.d;
    b->m = best.m;
    grid_values(g, b, x);
    return true;
}
