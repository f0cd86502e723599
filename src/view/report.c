#include "view/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "view/fields.h"

#define MOST_ERROR 1e300

const char *const report_kinds[REPORT_KINDS] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
const char *const report_heads[REPORT_HEADS] = {"token_embd", "output"};

static const char *const way_names[REPORT_WAYS] = {"game", "dynamic programming", "greedy", "uniform", "random", "llama.cpp"};
const char *const report_way_titles[REPORT_WAYS][2] = {
    [REPORT_GAME] = {"game", "oyun"},         [REPORT_CELLS] = {"dynamic programming", "devingen programlama"},
    [REPORT_GREEDY] = {"greedy", "açgözlü"},  [REPORT_UNIFORM] = {"one format for all", "hepsine tek biçim"},
    [REPORT_RANDOM] = {"random", "rastgele"}, [REPORT_PEER] = {"llama.cpp's mixture", "llama.cpp karışımı"}};

const double report_way_widths[REPORT_WAYS] = {
    [REPORT_GAME] = 1.4, [REPORT_CELLS] = 3.6, [REPORT_GREEDY] = 6.4, [REPORT_UNIFORM] = 2, [REPORT_RANDOM] = 2, [REPORT_PEER] = 2};

/* "blk.12.ffn_up_exps.weight": layer 12, ffn_up. layer -1: a head. */
static bool place_of(const char *name, int *layer, int *kind)
{
    char wanted[64];
    *layer = -1;
    for (*kind = 0; *kind < REPORT_HEADS; ++*kind) {
        snprintf(wanted, sizeof wanted, "%s.weight", report_heads[*kind]);
        if (strcmp(name, wanted) == 0)
            return true;
    }
    if (strncmp(name, "blk.", 4) != 0 || !(name[4] >= '0' && name[4] <= '9'))
        return false;
    for (name += 4, *layer = 0; *name >= '0' && *name <= '9' && *layer < REPORT_MOST_LAYERS; name++)
        *layer = *layer * 10 + (*name - '0');
    for (*kind = 0; *kind < REPORT_KINDS; ++*kind)
        for (int experts = 0; experts < 2; experts++) {
            snprintf(wanted, sizeof wanted, ".%s%s.weight", report_kinds[*kind], experts ? "_exps" : "");
            if (strcmp(name, wanted) == 0)
                return true;
        }
    return false;
}

/* How the rounding of a matrix went, where the report says so. */
static dil_status read_rounding(const fields *r, report *p, report_matrix *m, const json_t *object, const char *matrix)
{
    char where[64];
    const json_t *rounding = json_object_get(object, "rounding"), *checked = json_object_get(rounding, "checked");
    double codes, moved;
    m->plain = m->fed = m->settled = m->sweeps = m->moved = NAN;
    if (!rounding)
        return DIL_OK;
    snprintf(where, sizeof where, "%s.rounding", matrix);
    if (!json_is_object(rounding))
        return fields_wrong(r, where, "", _("an object"), rounding);
    DIL_TRY(fields_number(r, rounding, where, "plain", 0, MOST_ERROR, &m->plain));
    DIL_TRY(fields_number(r, rounding, where, "feedback", 0, MOST_ERROR, &m->fed));
    DIL_TRY(fields_number(r, rounding, where, "equilibrium", 0, MOST_ERROR, &m->settled));
    DIL_TRY(fields_number(r, rounding, where, "sweeps", 0, 1e9, &m->sweeps));
    DIL_TRY(fields_number(r, rounding, where, "codes", 0, REPORT_MOST_BYTES, &codes));
    DIL_TRY(fields_number(r, rounding, where, "moved_in_last_sweep", 0, REPORT_MOST_BYTES, &moved));
    m->moved = codes > 0 ? moved / codes : NAN;
    if (!checked)
        return DIL_OK;
    snprintf(where, sizeof where, "%s.rounding.checked", matrix);
    DIL_TRY(fields_number(r, checked, where, "codes", 0, REPORT_MOST_BYTES, &codes));
    DIL_TRY(fields_number(r, checked, where, "codes_that_could_do_better", 0, codes, &moved));
    p->codes += codes;
    p->restless += moved;
    return DIL_OK;
}

static dil_status read_matrix(const fields *r, report *p, const json_t *object, const char *where)
{
    const char *name, *type;
    double layer, n_experts;
    int in, kind;
    if (!json_is_object(object))
        return fields_wrong(r, where, "", _("an object"), object);
    DIL_TRY(fields_text(r, object, where, "name", &name));
    if (!place_of(name, &in, &kind))
        return fields_wrong(r, where, "name", _("a matrix's name like blk.0.attn_q.weight"), json_object_get(object, "name"));
    DIL_TRY(fields_number(r, object, where, "layer", -1, REPORT_MOST_LAYERS - 1, &layer));
    if (layer != in)
        return DIL_FAIL(r->err, DIL_FORMAT, "%s: %s.layer: wanted %d, as in the name, found %.9g", r->path, where, in, layer);
    report_matrix *m = in < 0 ? &p->head[kind] : &p->of[in][kind];
    if (m->there)
        return DIL_FAIL(r->err, DIL_FORMAT, "%s: %s.name: wanted every matrix once, found \"%.40s\" twice", r->path, where, name);
    DIL_TRY(fields_text(r, object, where, "type", &type));
    if (!format_find(type, &m->type))
        return fields_wrong(r, where, "type", _("a format's name like Q4_K"), json_object_get(object, "type"));
    DIL_TRY(fields_number(r, object, where, "experts", 1, 1e6, &n_experts));
    DIL_TRY(fields_number(r, object, where, "bits_per_weight", 0, 64, &m->bits));
    DIL_TRY(fields_nats(r, object, where, "expected_divergence", &m->divergence));
    DIL_TRY(read_rounding(r, p, m, object, where));
    m->n_experts = (int)n_experts;
    m->there = true;
    p->n_layers = in >= p->n_layers ? in + 1 : p->n_layers;
    return DIL_OK;
}

static dil_status read_matrices(const fields *r, report *p, const json_t *file)
{
    char where[40];
    const json_t *list;
    DIL_TRY(fields_array(r, file, "", "matrices", REPORT_MOST_LAYERS * REPORT_KINDS + REPORT_HEADS, &list));
    if (json_array_size(list) == 0)
        return DIL_FAIL(r->err, DIL_FORMAT, "%s: matrices: wanted at least one of them, found none", r->path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        snprintf(where, sizeof where, "matrices[%zu]", i);
        DIL_TRY(read_matrix(r, p, json_array_get(list, i), where));
    }
    return DIL_OK;
}

/* Puts a file into its place by size; of two of a size the better one stays. */
static void add_point(report_way *w, double bytes, double divergence)
{
    size_t at = w->n;
    while (at > 0 && w->bytes[at - 1] > bytes)
        at--;
    if (at > 0 && w->bytes[at - 1] == bytes) {
        w->divergence[at - 1] = fmin(w->divergence[at - 1], divergence);
        return;
    }
    memmove(w->bytes + at + 1, w->bytes + at, (w->n - at) * sizeof *w->bytes);
    memmove(w->divergence + at + 1, w->divergence + at, (w->n - at) * sizeof *w->divergence);
    w->bytes[at] = bytes;
    w->divergence[at] = divergence;
    w->n++;
}

/* The files of one size, one of each way at most. Only what has a logarithm becomes a point; at_size (or NULL) has all. */
static dil_status read_ways(const fields *r, report *p, const json_t *list, const char *where, bool points, double *at_size)
{
    bool seen[REPORT_WAYS] = {false};
    for (size_t i = 0; i < json_array_size(list); i++) {
        char place[64];
        const char *name;
        double bytes, divergence;
        int k = 0;
        snprintf(place, sizeof place, "%s[%zu]", where, i);
        const json_t *object = json_array_get(list, i);
        if (!json_is_object(object))
            return fields_wrong(r, place, "", _("an object"), object);
        DIL_TRY(fields_text(r, object, place, "name", &name));
        while (k < REPORT_WAYS && strcmp(way_names[k], name) != 0)
            k++;
        if (k == REPORT_WAYS || seen[k])
            return fields_wrong(r, place, "name", _("game, dynamic programming, greedy, uniform, random or llama.cpp, each once"),
                                json_object_get(object, "name"));
        seen[k] = true;
        DIL_TRY(fields_number(r, object, place, "bytes", 1, REPORT_MOST_BYTES, &bytes));
        DIL_TRY(fields_nats(r, object, place, "divergence", &divergence));
        if (points && divergence > 0)
            add_point(&p->ways[k], bytes, divergence);
        if (at_size)
            at_size[k] = divergence;
    }
    return DIL_OK;
}

/* The sizes of the curve, and the file's own. */
static dil_status read_curve(const fields *r, report *p, const json_t *file)
{
    char where[40];
    const json_t *curve, *ways, *game = json_object_get(file, "game");
    DIL_TRY(fields_array(r, file, "", "curve", REPORT_MOST_CURVE, &curve));
    for (size_t i = 0; i < json_array_size(curve); i++) {
        snprintf(where, sizeof where, "curve[%zu]", i);
        ways = json_array_get(curve, i);
        if (!json_is_array(ways))
            return fields_wrong(r, where, "", _("an array"), ways);
        DIL_TRY(read_ways(r, p, ways, where, true, NULL));
    }
    if (!game)
        return DIL_OK;
    DIL_TRY(fields_object(r, file, "game", &game));
    DIL_TRY(fields_nats(r, game, "game", "price_per_byte", &p->price));
    DIL_TRY(fields_nats(r, game, "game", "gap", &p->gap));
    DIL_TRY(fields_array(r, game, "game", "ways", REPORT_WAYS, &ways));
    p->allocated = true;
    return read_ways(r, p, ways, "game.ways", json_array_size(curve) > 0, p->chosen);
}

/* Files that were tried until one was good enough, where the report says so. */
static dil_status read_attempts(const fields *r, report *p, const json_t *file)
{
    char where[40];
    const json_t *list;
    if (!json_object_get(file, "attempts"))
        return DIL_OK;
    DIL_TRY(fields_array(r, file, "", "attempts", REPORT_MOST_ATTEMPTS, &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        snprintf(where, sizeof where, "attempts[%zu]", i);
        DIL_TRY(fields_nats(r, json_array_get(list, i), where, "expected_divergence", &p->expected[i]));
        DIL_TRY(fields_nats(r, json_array_get(list, i), where, "divergence", &p->found[i]));
    }
    p->n_attempts = (int)json_array_size(list);
    return DIL_OK;
}

static dil_status read_measured(const fields *r, report *p, const json_t *file)
{
    const json_t *measured = json_object_get(file, "measured");
    if (json_is_null(measured))
        return DIL_OK;
    if (!json_is_object(measured))
        return fields_wrong(r, "", "measured", _("an object or null"), measured);
    DIL_TRY(fields_number(r, measured, "measured", "divergence", -FIELDS_MOST_NATS, FIELDS_MOST_NATS, &p->kld));
    DIL_TRY(fields_nats(r, measured, "measured", "error", &p->kld_error));
    DIL_TRY(fields_number(r, measured, "measured", "same_first_word", 0, 1, &p->same_top));
    p->measured = true;
    return DIL_OK;
}

static dil_status read_whole(const fields *r, report *p, const json_t *file)
{
    const json_t *calibration, *seconds;
    if (!json_is_object(file))
        return fields_wrong(r, _("the file"), "", _("a report of dil quantize"), file);
    DIL_TRY(fields_file_name(r, file, "", "input", p->input));
    DIL_TRY(fields_file_name(r, file, "", "output", p->output));
    DIL_TRY(fields_number(r, file, "", "in_bytes", 1, REPORT_MOST_BYTES, &p->in_bytes));
    DIL_TRY(fields_number(r, file, "", "out_bytes", 1, REPORT_MOST_BYTES, &p->out_bytes));
    DIL_TRY(fields_number(r, file, "", "bits_per_weight", 0, 64, &p->bits));
    DIL_TRY(fields_object(r, file, "calibration", &calibration));
    DIL_TRY(fields_file_name(r, calibration, "calibration", "text", p->text));
    DIL_TRY(fields_number(r, calibration, "calibration", "sequences", 0, 1e9, &p->n_sequences));
    DIL_TRY(fields_number(r, calibration, "calibration", "tokens_each", 0, 1e9, &p->n_tokens));
    DIL_TRY(fields_nats(r, file, "", "expected_divergence", &p->divergence));
    DIL_TRY(read_measured(r, p, file));
    DIL_TRY(fields_object(r, file, "seconds", &seconds));
    DIL_TRY(fields_number(r, seconds, "seconds", "all", 0, 1e9, &p->seconds));
    DIL_TRY(fields_number(r, file, "", "peak_memory_bytes", 0, REPORT_MOST_BYTES, &p->memory));
    DIL_TRY(read_curve(r, p, file));
    DIL_TRY(read_attempts(r, p, file));
    return read_matrices(r, p, file);
}

static void forget(report *p)
{
    memset(p, 0, sizeof *p);
    for (int k = 0; k < REPORT_WAYS; k++)
        p->chosen[k] = NAN;
}

dil_status report_read(report *out, const char *path, dil_error *err)
{
    json_t *file = NULL;
    forget(out);
    DIL_TRY(fields_open(path, &file, err));
    dil_status status = read_whole(&(fields){path, err}, out, file);
    json_decref(file);
    return status;
}
