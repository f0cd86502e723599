/*
 * A flock from a JSON file, for decisions and other small things that somebody else has computed:
 *
 *     {"positions": [[..], ..],               a row per bird, all of the same width
 *      "names": ["..", ..], "neighbours": [[index, ..], ..], "title": "..",
 *      "steps": [{"load": [..], "price": [..], "chosen": [index, ..], "target": [..], "text": ".."}, ..],
 *      "curves": {"alignment": [..], "cohesion": [..], "separation": [..], "violation": [..]},
 *      "game": {"phi": [..], "gap": [..]}}
 *
 * Only positions must be there. What a step lacks is as in the step before; other fields are not read.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "view/fields.h"
#include "view/flock.h"

#define MOST_VALUE 1e12
enum { MOST_DIM = 65536, MOST_CHOSEN = 64, MOST_MOVES = 100000, WHERE_BYTES = 64 };

typedef struct source {
    fields f;
    flock_scene *s;
    flock_layer *l;
    const json_t *file, *steps;
    flock_rows rows;
    double *weight; /* [dim] */
} source;

static dil_status no_memory(const source *in) { return DIL_FAIL(in->f.err, DIL_NO_MEMORY, "%s: no memory", in->f.path); }

/* ---- lists of numbers ---- */

static dil_status wrong_length(const source *in, const char *where, const char *key, size_t wanted, size_t found)
{
    return DIL_FAIL(in->f.err, DIL_FORMAT, "%s: %s%s%s: wanted %zu values, found %zu", in->f.path, where, *where && *key ? "." : "",
                    key, wanted, found);
}

/* out [n] */
static dil_status read_values(const source *in, const json_t *list, const char *where, const char *key, double least, size_t n,
                              double *out)
{
    if (!json_is_array(list))
        return fields_wrong(&in->f, where, key, "an array", list);
    if (json_array_size(list) != n)
        return wrong_length(in, where, key, n, json_array_size(list));
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        double found = json_number_value(v);
        if (!json_is_number(v) || !(found >= least && found <= MOST_VALUE)) {
            char at[WHERE_BYTES + 32], wanted[64];
            snprintf(at, sizeof at, "%s%s%s[%zu]", where, *where && *key ? "." : "", key, i);
            snprintf(wanted, sizeof wanted, "a number from %g to %g", least, MOST_VALUE);
            return fields_wrong(&in->f, at, "", wanted, v);
        }
        out[i] = found;
    }
    return DIL_OK;
}

static dil_status read_floats(const source *in, const json_t *list, const char *where, const char *key, double least, size_t n,
                              float *out)
{
    arena_mark mark = arena_mark_get(in->s->memory);
    double *values = arena_calloc(in->s->memory, n, sizeof *values);
    dil_status status = values ? read_values(in, list, where, key, least, n, values) : no_memory(in);
    for (size_t i = 0; status == DIL_OK && i < n; i++)
        out[i] = (float)values[i];
    arena_reset(in->s->memory, mark);
    return status;
}

/* Different birds into out [most], FLOCK_NOBODY behind the last. */
static dil_status read_birds(const source *in, const json_t *list, const char *where, const char *key, size_t most, uint16_t *out)
{
    if (!json_is_array(list) || json_array_size(list) > most) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "an array of at most %zu birds", most);
        return fields_wrong(&in->f, where, key, wanted, list);
    }
    for (size_t i = 0; i < most; i++)
        out[i] = FLOCK_NOBODY;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        bool fits = json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < in->l->n;
        for (size_t j = 0; fits && j < i; j++)
            fits = out[j] != json_integer_value(v);
        if (!fits) {
            char at[WHERE_BYTES + 32], wanted[64];
            snprintf(at, sizeof at, "%s%s%s[%zu]", where, *where && *key ? "." : "", key, i);
            snprintf(wanted, sizeof wanted, "a bird from 0 to %d, each once", in->l->n - 1);
            return fields_wrong(&in->f, at, "", wanted, v);
        }
        out[i] = (uint16_t)json_integer_value(v);
    }
    return DIL_OK;
}

/* ---- the birds ---- */

static dil_status read_positions(source *in)
{
    const json_t *list;
    char where[WHERE_BYTES];
    DIL_TRY(fields_array(&in->f, in->file, "", "positions", FLOCK_MOST_BIRDS, &list));
    size_t n = json_array_size(list), dim = json_array_size(json_array_get(list, 0));
    if (n == 0 || dim == 0 || dim > MOST_DIM)
        return DIL_FAIL(in->f.err, DIL_FORMAT, "%s: positions: wanted at least one row of 1 to %d numbers, found %zu of %zu",
                        in->f.path, MOST_DIM, n, dim);
    in->l->n = (int32_t)n;
    in->rows.dim = (int64_t)dim;
    float *rows = arena_calloc(in->s->memory, n * dim, sizeof *rows);
    in->rows.v = rows;
    in->weight = arena_calloc(in->s->memory, dim, sizeof *in->weight);
    if (!rows || !in->weight)
        return no_memory(in);
    for (size_t i = 0; i < n; i++) {
        snprintf(where, sizeof where, "positions[%zu]", i);
        DIL_TRY(read_floats(in, json_array_get(list, i), where, "", -MOST_VALUE, dim, rows + i * dim));
    }
    swarm_weights(rows, in->l->n, in->rows.dim, in->weight);
    return DIL_OK;
}

static dil_status read_names(source *in)
{
    const json_t *list;
    const size_t n = (size_t)in->l->n;
    if (!json_object_get(in->file, "names"))
        return DIL_OK;
    DIL_TRY(fields_array(&in->f, in->file, "", "names", FLOCK_MOST_BIRDS, &list));
    if (json_array_size(list) != n)
        return wrong_length(in, "", "names", n, json_array_size(list));
    in->s->names = arena_calloc(in->s->memory, n, sizeof *in->s->names);
    if (!in->s->names)
        return no_memory(in);
    for (size_t i = 0; i < n; i++) {
        char where[WHERE_BYTES];
        snprintf(where, sizeof where, "names[%zu]", i);
        const char *name = json_string_value(json_array_get(list, i));
        if (!name)
            return fields_wrong(&in->f, where, "", "a text", json_array_get(list, i));
        str shown = {name, strlen(name) < FLOCK_NAME_BYTES ? strlen(name) : FLOCK_NAME_BYTES - 1};
        shown.n -= utf8_incomplete_tail(shown);
        memcpy(in->s->names[i], shown.p, shown.n);
    }
    return DIL_OK;
}

/* Lists of others, made mutual, in place of the nearest. */
static dil_status read_neighbours(source *in)
{
    const json_t *list;
    const size_t n = (size_t)in->l->n, k = n - 1 < SWARM_MOST_NEIGHBOURS ? n - 1 : SWARM_MOST_NEIGHBOURS;
    if (!json_object_get(in->file, "neighbours"))
        return DIL_OK;
    DIL_TRY(fields_array(&in->f, in->file, "", "neighbours", FLOCK_MOST_BIRDS, &list));
    if (json_array_size(list) != n)
        return wrong_length(in, "", "neighbours", n, json_array_size(list));
    uint16_t *others = arena_calloc(in->s->memory, n * (k + 1), sizeof *others);
    if (!others)
        return no_memory(in);
    for (size_t i = 0; i < n; i++) {
        char where[WHERE_BYTES];
        snprintf(where, sizeof where, "neighbours[%zu]", i);
        uint16_t *own = others + i * (k + 1);
        DIL_TRY(read_birds(in, json_array_get(list, i), where, "", k, own));
        own[k] = FLOCK_NOBODY;
        for (size_t r = 0; own[r] != FLOCK_NOBODY; r++)
            if (own[r] == i)
                return DIL_FAIL(in->f.err, DIL_FORMAT, "%s: %s[%zu]: wanted another bird, found itself", in->f.path, where, r);
    }
    in->rows.others = others;
    in->rows.n_others = k + 1;
    return DIL_OK;
}

/* ---- the steps ---- */

typedef struct flight {
    float *load, *price; /* [n]: of the present step */
    uint16_t *chosen;    /* [MOST_CHOSEN + 1] */
    flock_point *at;     /* [n] */
    flock_point target;
} flight;

static flock_point centre_of(const flock_layer *l, const uint16_t *chosen)
{
    double x = 0, y = 0, n = 0;
    for (; chosen[(size_t)n] != FLOCK_NOBODY; n++) {
        x += (double)l->home[chosen[(size_t)n]].x;
        y += (double)l->home[chosen[(size_t)n]].y;
    }
    return n > 0 ? (flock_point){(float)(x / n), (float)(y / n)} : (flock_point){NAN, NAN};
}

static dil_status read_target(source *in, const json_t *step, const char *where, flight *now)
{
    const json_t *list = json_object_get(step, "target");
    arena_mark mark = arena_mark_get(in->s->memory);
    if (!list) {
        now->target = json_object_get(step, "chosen") ? centre_of(in->l, now->chosen) : now->target;
        return DIL_OK;
    }
    float *point = arena_calloc(in->s->memory, (size_t)in->rows.dim, sizeof *point);
    dil_status status = point ? read_floats(in, list, where, "target", -MOST_VALUE, (size_t)in->rows.dim, point) : no_memory(in);
    if (status == DIL_OK)
        now->target = flock_find(in->l, &in->rows, in->weight, point);
    arena_reset(in->s->memory, mark);
    return status;
}

static dil_status read_step(source *in, size_t t, flight *now)
{
    char where[WHERE_BYTES];
    const json_t *step = json_array_get(in->steps, t);
    const size_t n = (size_t)in->l->n;
    flock_layer *l = in->l;
    snprintf(where, sizeof where, "steps[%zu]", t);
    if (!json_is_object(step))
        return fields_wrong(&in->f, where, "", "an object", step);
    if (json_object_get(step, "load"))
        DIL_TRY(read_floats(in, json_object_get(step, "load"), where, "load", 0, n, now->load));
    if (json_object_get(step, "price"))
        DIL_TRY(read_floats(in, json_object_get(step, "price"), where, "price", -MOST_VALUE, n, now->price));
    if (json_object_get(step, "chosen"))
        DIL_TRY(read_birds(in, json_object_get(step, "chosen"), where, "chosen", in->s->n_used, now->chosen));
    DIL_TRY(read_target(in, step, where, now));
    uint32_t n_chosen = 0;
    while (now->chosen[n_chosen] != FLOCK_NOBODY)
        n_chosen++;
    flock_move(l, now->at, now->chosen, n_chosen, now->target);
    memcpy(l->at + t * n, now->at, n * sizeof *l->at);
    if (l->load)
        memcpy(l->load + t * n, now->load, n * sizeof *l->load);
    if (l->price)
        memcpy(l->price + t * n, now->price, n * sizeof *l->price);
    memcpy(l->chosen + t * in->s->n_used, now->chosen, in->s->n_used * sizeof *l->chosen);
    l->target[t] = now->target;
    return DIL_OK;
}

static bool any_step_has(const source *in, const char *key)
{
    for (size_t t = 0; t < in->s->n_steps; t++)
        if (json_object_get(json_array_get(in->steps, t), key))
            return true;
    return false;
}

static dil_status read_texts(source *in)
{
    flock_scene *s = in->s;
    if (!any_step_has(in, "text"))
        return DIL_OK;
    s->texts = arena_calloc(s->memory, s->n_steps, sizeof *s->texts);
    if (!s->texts)
        return no_memory(in);
    for (size_t t = 0; t < s->n_steps; t++) {
        char where[WHERE_BYTES];
        const char *text = "";
        snprintf(where, sizeof where, "steps[%zu]", t);
        if (json_object_get(json_array_get(in->steps, t), "text"))
            DIL_TRY(fields_text(&in->f, json_array_get(in->steps, t), where, "text", &text));
        s->texts[t] = arena_strdup(s->memory, text, strlen(text));
        if (!s->texts[t])
            return no_memory(in);
    }
    return DIL_OK;
}

static dil_status read_steps(source *in)
{
    flock_scene *s = in->s;
    flock_layer *l = in->l;
    const size_t n = (size_t)l->n;
    if (!json_object_get(in->file, "steps"))
        return DIL_OK;
    DIL_TRY(fields_array(&in->f, in->file, "", "steps", FLOCK_MOST_STEPS, &in->steps));
    s->n_steps = (uint32_t)json_array_size(in->steps);
    s->n_all = s->n_steps;
    if (s->n_steps == 0)
        return DIL_OK;
    for (size_t t = 0; t < s->n_steps; t++) {
        size_t chosen = json_array_size(json_object_get(json_array_get(in->steps, t), "chosen"));
        chosen = chosen < MOST_CHOSEN ? chosen : MOST_CHOSEN;
        s->n_used = chosen > s->n_used ? (uint32_t)chosen : s->n_used;
    }
    flight now = {.target = {NAN, NAN}};
    arena *a = s->memory;
    bool loads = any_step_has(in, "load"), prices = any_step_has(in, "price");
    l->load = loads ? arena_calloc(a, n * s->n_steps, sizeof *l->load) : NULL;
    l->price = prices ? arena_calloc(a, n * s->n_steps, sizeof *l->price) : NULL;
    l->at = arena_calloc(a, n * s->n_steps, sizeof *l->at);
    l->chosen = arena_calloc(a, (size_t)s->n_steps * s->n_used + 1, sizeof *l->chosen);
    l->target = arena_calloc(a, s->n_steps, sizeof *l->target);
    now.load = arena_calloc(a, n, sizeof *now.load);
    now.price = arena_calloc(a, n, sizeof *now.price);
    now.at = arena_calloc(a, n, sizeof *now.at);
    now.chosen = arena_calloc(a, MOST_CHOSEN + 1, sizeof *now.chosen);
    if ((loads && !l->load) || (prices && !l->price) || !l->at || !l->chosen || !l->target || !now.load || !now.price || !now.at ||
        !now.chosen)
        return no_memory(in);
    memcpy(now.at, l->home, n * sizeof *now.at);
    for (size_t r = 0; r <= MOST_CHOSEN; r++)
        now.chosen[r] = FLOCK_NOBODY;
    for (size_t t = 0; t < s->n_steps; t++)
        DIL_TRY(read_step(in, t, &now));
    return read_texts(in);
}

/* ---- curves and game ---- */

static dil_status read_curves(source *in)
{
    static const char *const names[FLOCK_CURVES] = {[FLOCK_ALIGNMENT] = "alignment",
                                                    [FLOCK_COHESION] = "cohesion",
                                                    [FLOCK_SEPARATION] = "separation",
                                                    [FLOCK_VIOLATION] = "violation"};
    const json_t *curves;
    if (!json_object_get(in->file, "curves"))
        return DIL_OK;
    DIL_TRY(fields_object(&in->f, in->file, "curves", &curves));
    for (int c = 0; c < FLOCK_CURVES; c++) {
        const json_t *list = names[c] ? json_object_get(curves, names[c]) : NULL;
        if (!list || in->s->n_steps == 0)
            continue;
        in->l->curve[c] = arena_calloc(in->s->memory, in->s->n_steps, sizeof(double));
        if (!in->l->curve[c])
            return no_memory(in);
        DIL_TRY(read_values(in, list, "curves", names[c], -MOST_VALUE, in->s->n_steps, in->l->curve[c]));
    }
    return DIL_OK;
}

static dil_status read_game(source *in)
{
    const json_t *game, *phi;
    flock_game *out = &in->l->game;
    if (!json_object_get(in->file, "game"))
        return DIL_OK;
    DIL_TRY(fields_object(&in->f, in->file, "game", &game));
    DIL_TRY(fields_array(&in->f, game, "game", "phi", MOST_MOVES, &phi));
    const size_t n = json_array_size(phi);
    out->potential = arena_calloc(in->s->memory, n, sizeof *out->potential);
    out->gap = json_object_get(game, "gap") ? arena_calloc(in->s->memory, n, sizeof *out->gap) : NULL;
    if (!out->potential || (json_object_get(game, "gap") && !out->gap))
        return no_memory(in);
    DIL_TRY(read_values(in, phi, "game", "phi", -MOST_VALUE, n, out->potential));
    if (out->gap)
        DIL_TRY(read_values(in, json_object_get(game, "gap"), "game", "gap", -MOST_VALUE, n, out->gap));
    out->n = n;
    return DIL_OK;
}

static dil_status read_whole(source *in)
{
    const char *title;
    if (!json_is_object(in->file))
        return fields_wrong(&in->f, "the file", "", "an object with \"positions\"", in->file);
    DIL_TRY(read_positions(in));
    DIL_TRY(read_names(in));
    DIL_TRY(read_neighbours(in));
    DIL_TRY(flock_place(in->s, in->l, &in->rows, in->f.err));
    DIL_TRY(read_steps(in));
    DIL_TRY(read_curves(in));
    DIL_TRY(read_game(in));
    if (json_object_get(in->file, "title")) {
        DIL_TRY(fields_text(&in->f, in->file, "", "title", &title));
        in->s->title = arena_strdup(in->s->memory, title, strlen(title));
        if (!in->s->title)
            return no_memory(in);
    }
    return in->s->n_steps ? flock_measure(in->s, in->l, in->l->home, in->f.err) : DIL_OK;
}

/* Steps up to the frame, the last n_frames of them. */
static dil_status choose_steps(const source *in, const view_request *r)
{
    flock_scene *s = in->s;
    if (r->frame > s->n_steps)
        return DIL_FAIL(in->f.err, DIL_BAD_ARGUMENT, "flock: frame: wanted at most %u, the last step, found %llu", s->n_steps,
                        (unsigned long long)r->frame);
    if (r->one_layer && r->layer != 0)
        return DIL_FAIL(in->f.err, DIL_BAD_ARGUMENT, "flock: layer: wanted 0, the only one of %s, found %u", in->f.path, r->layer);
    const uint32_t end = r->frame ? (uint32_t)r->frame : s->n_steps, most = r->n_frames ? r->n_frames : end;
    flock_keep(s, end > most ? end - most : 0, end);
    return DIL_OK;
}

dil_status flock_read_json(flock_scene *s, const view_request *r, dil_error *err)
{
    json_t *file = NULL;
    source in = {.f = {r->inputs[0], err}, .s = s};
    if (r->n_inputs != 1)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "flock: wanted nothing beside the JSON file %s, found %d files", r->inputs[0],
                        r->n_inputs);
    s->layers = in.l = arena_calloc(s->memory, 1, sizeof *s->layers);
    if (!in.l)
        return no_memory(&in);
    s->n_layers = 1;
    DIL_TRY(fields_open(r->inputs[0], &file, err));
    in.file = file;
    dil_status status = read_whole(&in);
    if (status == DIL_OK)
        status = choose_steps(&in, r);
    json_decref(file);
    return status;
}
