/* How many bits each matrix of a smaller file has, what that is expected to cost, and what other sizes would: the report of
 * dil quantize. */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"
#include "formats/formats.h"
#include "view/chart.h"
#include "view/fields.h"
#include "view/page.h"
#include "view/view.h"

#define MOST_FILE_BYTES 1e15

enum { MOST_LAYERS = 512, KINDS = 7, HEADS = 2, MOST_CURVE = 64, MOST_FACTS = 9, FACT_BYTES = 80 };
enum { WIDTH = 1280, SIDE = 24, LAYER_WIDE = 64, BARS_WIDE = 316, BARS_GAP = 24, NUMBER_WIDE = 62, CHART_HIGH = 420 };

static const canvas_font title_font = {20, true}, text_font = {12.5, false}, head_font = {11.5, true}, small_font = {11, false},
                         fact_font = {16, true};

/* The matrices of a layer, and those of no layer. */
static const char *const kinds[KINDS] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
static const char *const heads[HEADS] = {"token_embd", "output"};

/* Ways to choose the formats, in the order of their colours. */
enum { GAME, CELLS, GREEDY, UNIFORM, RANDOM, PEER, WAYS };
static const char *const way_names[WAYS] = {"game", "dynamic programming", "greedy", "uniform", "random", "llama.cpp"};
static const char *const way_titles[WAYS][2] = {
    [GAME] = {"game", "oyun"},         [CELLS] = {"dynamic programming", "devingen programlama"},
    [GREEDY] = {"greedy", "açgözlü"},  [UNIFORM] = {"one format for all", "hepsine tek biçim"},
    [RANDOM] = {"random", "rastgele"}, [PEER] = {"llama.cpp's mixture", "llama.cpp karışımı"}};

typedef struct matrix {
    bool there;
    dil_type type;
    int n_experts;
    double bits, divergence; /* of a weight; NAN: not known */
} matrix;

/* Files one way makes, by size. */
typedef struct way {
    double bytes[MOST_CURVE + 1], divergence[MOST_CURVE + 1];
    size_t n;
} way;

typedef struct fact {
    char value[FACT_BYTES];
    const char *name;
} fact;

typedef struct picture {
    const view_request *r;
    const char *path;
    json_t *report;
    char input[PAGE_NAME_BYTES], output[PAGE_NAME_BYTES], text[PAGE_NAME_BYTES];
    double n_sequences, n_tokens, in_bytes, out_bytes, bits, divergence, kld, kld_error, same_top, price, gap, seconds, memory;
    bool measured, allocated; /* kld, kld_error, same_top are there; price, gap */
    matrix head[HEADS], of[MOST_LAYERS][KINDS];
    int n_layers;
    way ways[WAYS];      /* none: n 0 in all of them */
    double chosen[WAYS]; /* divergence of each way at the file's own size; NAN: not known */
    double most;         /* divergence of a row; NAN: none is known */
    fact facts[MOST_FACTS];
    int n_facts;
    strbuf subtitle, about;
    page_figures figures;
} picture;

static const char *say(const picture *p, const char *english, const char *turkish) { return p->r->turkish ? turkish : english; }

/* ---- parts of the report ---- */

/* "blk.12.ffn_up_exps.weight": layer 12, ffn_up. layer -1: a head. */
static bool place_of(const char *name, int *layer, int *kind)
{
    char wanted[64];
    *layer = -1;
    for (*kind = 0; *kind < HEADS; ++*kind) {
        snprintf(wanted, sizeof wanted, "%s.weight", heads[*kind]);
        if (strcmp(name, wanted) == 0)
            return true;
    }
    if (strncmp(name, "blk.", 4) != 0 || !(name[4] >= '0' && name[4] <= '9'))
        return false;
    for (name += 4, *layer = 0; *name >= '0' && *name <= '9' && *layer < MOST_LAYERS; name++)
        *layer = *layer * 10 + (*name - '0');
    for (*kind = 0; *kind < KINDS; ++*kind)
        for (int experts = 0; experts < 2; experts++) {
            snprintf(wanted, sizeof wanted, ".%s%s.weight", kinds[*kind], experts ? "_exps" : "");
            if (strcmp(name, wanted) == 0)
                return true;
        }
    return false;
}

static dil_status read_matrix(const fields *r, picture *p, const json_t *object, const char *where)
{
    const char *name, *type;
    double layer, n_experts;
    int in, kind;
    if (!json_is_object(object))
        return fields_wrong(r, where, "", "an object", object);
    DIL_TRY(fields_text(r, object, where, "name", &name));
    if (!place_of(name, &in, &kind))
        return fields_wrong(r, where, "name", "a matrix's name like blk.0.attn_q.weight", json_object_get(object, "name"));
    DIL_TRY(fields_number(r, object, where, "layer", -1, MOST_LAYERS - 1, &layer));
    if (layer != in)
        return DIL_FAIL(r->err, DIL_FORMAT, "%s: %s.layer: wanted %d, as in the name, found %.9g", r->path, where, in, layer);
    matrix *m = in < 0 ? &p->head[kind] : &p->of[in][kind];
    if (m->there)
        return DIL_FAIL(r->err, DIL_FORMAT, "%s: %s.name: wanted every matrix once, found \"%.40s\" twice", r->path, where, name);
    DIL_TRY(fields_text(r, object, where, "type", &type));
    if (!format_find(type, &m->type))
        return fields_wrong(r, where, "type", "a format's name like Q4_K", json_object_get(object, "type"));
    DIL_TRY(fields_number(r, object, where, "experts", 1, 1e6, &n_experts));
    DIL_TRY(fields_number(r, object, where, "bits_per_weight", 0, 64, &m->bits));
    DIL_TRY(fields_nats(r, object, where, "expected_divergence", &m->divergence));
    m->n_experts = (int)n_experts;
    m->there = true;
    p->n_layers = in >= p->n_layers ? in + 1 : p->n_layers;
    return DIL_OK;
}

static dil_status read_matrices(const fields *r, picture *p)
{
    char where[40];
    const json_t *list;
    DIL_TRY(fields_array(r, p->report, "", "matrices", MOST_LAYERS * KINDS + HEADS, &list));
    if (json_array_size(list) == 0)
        return DIL_FAIL(r->err, DIL_FORMAT, "%s: matrices: wanted at least one of them, found none", r->path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        snprintf(where, sizeof where, "matrices[%zu]", i);
        DIL_TRY(read_matrix(r, p, json_array_get(list, i), where));
    }
    return DIL_OK;
}

/* Puts a file into its place by size; of two of a size the better one stays. */
static void add_point(way *w, double bytes, double divergence)
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
static dil_status read_ways(const fields *r, picture *p, const json_t *list, const char *where, bool points, double *at_size)
{
    bool seen[WAYS] = {false};
    for (size_t i = 0; i < json_array_size(list); i++) {
        char place[64];
        const char *name;
        double bytes, divergence;
        int k = 0;
        snprintf(place, sizeof place, "%s[%zu]", where, i);
        const json_t *object = json_array_get(list, i);
        if (!json_is_object(object))
            return fields_wrong(r, place, "", "an object", object);
        DIL_TRY(fields_text(r, object, place, "name", &name));
        while (k < WAYS && strcmp(way_names[k], name) != 0)
            k++;
        if (k == WAYS || seen[k])
            return fields_wrong(r, place, "name", "game, dynamic programming, greedy, uniform, random or llama.cpp, each once",
                                json_object_get(object, "name"));
        seen[k] = true;
        DIL_TRY(fields_number(r, object, place, "bytes", 1, MOST_FILE_BYTES, &bytes));
        DIL_TRY(fields_nats(r, object, place, "divergence", &divergence));
        if (points && divergence > 0)
            add_point(&p->ways[k], bytes, divergence);
        if (at_size)
            at_size[k] = divergence;
    }
    return DIL_OK;
}

/* The sizes of the curve, and the file's own. */
static dil_status read_curve(const fields *r, picture *p)
{
    char where[40];
    const json_t *curve, *ways, *game = json_object_get(p->report, "game");
    DIL_TRY(fields_array(r, p->report, "", "curve", MOST_CURVE, &curve));
    for (size_t i = 0; i < json_array_size(curve); i++) {
        snprintf(where, sizeof where, "curve[%zu]", i);
        ways = json_array_get(curve, i);
        if (!json_is_array(ways))
            return fields_wrong(r, where, "", "an array", ways);
        DIL_TRY(read_ways(r, p, ways, where, true, NULL));
    }
    if (!game)
        return DIL_OK;
    DIL_TRY(fields_object(r, p->report, "game", &game));
    DIL_TRY(fields_nats(r, game, "game", "price_per_byte", &p->price));
    DIL_TRY(fields_nats(r, game, "game", "gap", &p->gap));
    DIL_TRY(fields_array(r, game, "game", "ways", WAYS, &ways));
    p->allocated = true;
    return read_ways(r, p, ways, "game.ways", json_array_size(curve) > 0, p->chosen);
}

static dil_status read_measured(const fields *r, picture *p)
{
    const json_t *measured = json_object_get(p->report, "measured");
    if (json_is_null(measured))
        return DIL_OK;
    if (!json_is_object(measured))
        return fields_wrong(r, "", "measured", "an object or null", measured);
    DIL_TRY(fields_number(r, measured, "measured", "divergence", -FIELDS_MOST_NATS, FIELDS_MOST_NATS, &p->kld));
    DIL_TRY(fields_nats(r, measured, "measured", "error", &p->kld_error));
    DIL_TRY(fields_number(r, measured, "measured", "same_first_word", 0, 1, &p->same_top));
    p->measured = true;
    return DIL_OK;
}

static dil_status read_whole(const fields *r, picture *p)
{
    const json_t *calibration, *seconds;
    if (!json_is_object(p->report))
        return fields_wrong(r, "the file", "", "a report of dil quantize", p->report);
    DIL_TRY(fields_file_name(r, p->report, "", "input", p->input));
    DIL_TRY(fields_file_name(r, p->report, "", "output", p->output));
    DIL_TRY(fields_number(r, p->report, "", "in_bytes", 1, MOST_FILE_BYTES, &p->in_bytes));
    DIL_TRY(fields_number(r, p->report, "", "out_bytes", 1, MOST_FILE_BYTES, &p->out_bytes));
    DIL_TRY(fields_number(r, p->report, "", "bits_per_weight", 0, 64, &p->bits));
    DIL_TRY(fields_object(r, p->report, "calibration", &calibration));
    DIL_TRY(fields_file_name(r, calibration, "calibration", "text", p->text));
    DIL_TRY(fields_number(r, calibration, "calibration", "sequences", 0, 1e9, &p->n_sequences));
    DIL_TRY(fields_number(r, calibration, "calibration", "tokens_each", 0, 1e9, &p->n_tokens));
    DIL_TRY(fields_nats(r, p->report, "", "expected_divergence", &p->divergence));
    DIL_TRY(read_measured(r, p));
    DIL_TRY(fields_object(r, p->report, "seconds", &seconds));
    DIL_TRY(fields_number(r, seconds, "seconds", "all", 0, 1e9, &p->seconds));
    DIL_TRY(fields_number(r, p->report, "", "peak_memory_bytes", 0, MOST_FILE_BYTES, &p->memory));
    DIL_TRY(read_curve(r, p));
    return read_matrices(r, p);
}

static dil_status read_report(picture *p, dil_error *err)
{
    DIL_TRY(fields_open(p->path, &p->report, err));
    return read_whole(&(fields){p->path, err}, p);
}

/* ---- numbers for people ---- */

static char *with_comma(const picture *p, char *text)
{
    for (char *c = text; p->r->turkish && *c; c++)
        *c = *c == '.' ? ',' : *c;
    return text;
}

static char *size_text(const picture *p, double bytes, char *out, size_t n)
{
    return with_comma(p, str_bytes((uint64_t)bytes, out, n));
}

/* With three digits of `scale`, so that numbers beside one another have as many decimals. */
static char *nats_text(const picture *p, double v, double scale, char *out, size_t n)
{
    if (isnan(v)) {
        snprintf(out, n, "?");
        return out;
    }
    double digits = scale > 0 ? 2 - floor(log10(scale)) : 0;
    if (v == 0 || !(scale >= 1e-6 && scale < 1e6))
        return chart_number(v, 0, p->r->turkish, out, n);
    snprintf(out, n, "%.*f", digits > 0 ? (int)digits : 0, v);
    return with_comma(p, out);
}

static char *bits_text(const picture *p, double bits, char *out, size_t n)
{
    snprintf(out, n, "%.2f", bits);
    return with_comma(p, out);
}

/* Of a row's matrices; NAN where nothing is known. */
static double sum_of(const matrix *m, int n)
{
    double sum = NAN;
    for (int i = 0; i < n; i++)
        if (m[i].there && !isnan(m[i].divergence))
            sum = isnan(sum) ? m[i].divergence : sum + m[i].divergence;
    return sum;
}

static bool has_heads(const picture *p) { return p->head[0].there || p->head[1].there; }
static bool has_curve(const picture *p)
{
    size_t n = 0;
    for (int k = 0; k < WAYS; k++)
        n += p->ways[k].n;
    return n > 0;
}

static int experts_of(const picture *p, int kind)
{
    int most = 1;
    for (int l = 0; l < p->n_layers; l++)
        most = p->of[l][kind].there && p->of[l][kind].n_experts > most ? p->of[l][kind].n_experts : most;
    return most;
}

/* ---- texts ---- */

static char *add_fact(picture *p, const char *name)
{
    fact *f = &p->facts[p->n_facts++];
    f->name = name;
    return f->value;
}

static void write_measured_facts(picture *p)
{
    char kld[32], error[32];
    nats_text(p, p->kld, p->kld, kld, sizeof kld);
    nats_text(p, p->kld_error, p->kld, error, sizeof error);
    if (isnan(p->kld_error))
        snprintf(add_fact(p, say(p, "measured divergence", "ölçülen ıraksama")), FACT_BYTES, "%s", kld);
    else
        snprintf(add_fact(p, say(p, "measured divergence", "ölçülen ıraksama")), FACT_BYTES, "%s ± %s", kld, error);
    snprintf(kld, sizeof kld, "%.1f", 100 * p->same_top);
    snprintf(add_fact(p, say(p, "same first word", "aynı ilk sözcük")), FACT_BYTES, say(p, "%s %%", "%%%s"), with_comma(p, kld));
}

static void write_facts(picture *p)
{
    char before[32], after[32];
    snprintf(add_fact(p, say(p, "size of the file", "dosyanın boyu")), FACT_BYTES, "%s → %s",
             size_text(p, p->in_bytes, before, sizeof before), size_text(p, p->out_bytes, after, sizeof after));
    bits_text(p, p->bits, add_fact(p, say(p, "bits per weight", "ağırlık başına bit")), FACT_BYTES);
    if (!isnan(p->divergence))
        nats_text(p, p->divergence, p->divergence, add_fact(p, say(p, "expected divergence", "beklenen ıraksama")), FACT_BYTES);
    if (p->measured)
        write_measured_facts(p);
    if (p->allocated) {
        double price = p->price * 1e6;
        nats_text(p, price, price, add_fact(p, say(p, "price of 1 MB (nats)", "1 MB'ın fiyatı (nat)")), FACT_BYTES);
        nats_text(p, p->gap, p->gap, add_fact(p, say(p, "gap to equilibrium", "dengeye uzaklık")), FACT_BYTES);
    }
    snprintf(before, sizeof before, p->seconds < 9.95 ? "%.1f s" : "%.0f s", p->seconds);
    snprintf(add_fact(p, say(p, "time", "süre")), FACT_BYTES, "%s", with_comma(p, before));
    size_text(p, p->memory, add_fact(p, say(p, "most memory", "en çok bellek")), FACT_BYTES);
}

static void write_subtitle(picture *p)
{
    strbuf_printf(&p->subtitle,
                  say(p, "%s, made from %s. Calibrated with %s: %.0f × %.0f tokens. ",
                      "%s; kaynağı %s. Ayar metni %s: %.0f × %.0f belirteç. "),
                  p->output, p->input, p->text, p->n_sequences, p->n_tokens);
    strbuf_add_str(
        &p->subtitle,
        str_of(say(p,
                   "A cell is a matrix: the stronger its colour, the more bits a weight has. Divergences are those "
                   "of the next word's probabilities from the original model's, in nats per token. ",
                   "Her hücre bir matristir: rengi ne kadar güçlüyse ağırlıkları o kadar çok bitlidir. Iraksamalar, sonraki "
                   "sözcüğün olasılıklarının özgün modelinkilerden ıraksamasıdır; belirteç başına nat. ")));
}

static void describe_row(picture *p, const char *name, const matrix *m, const char *const *names, int n)
{
    char number[32];
    double sum = sum_of(m, n);
    bool any = false;
    for (int i = 0; i < n; i++) {
        if (!m[i].there)
            continue;
        if (any)
            strbuf_printf(&p->about, ", %s %s", names[i], format_get(m[i].type)->name);
        else
            strbuf_printf(&p->about, " %s: %s %s", name, names[i], format_get(m[i].type)->name);
        any = true;
    }
    if (!any)
        return;
    if (!isnan(sum))
        strbuf_printf(&p->about, "; %s %s", say(p, "expected divergence", "beklenen ıraksama"),
                      nats_text(p, sum, p->most, number, sizeof number));
    strbuf_add_char(&p->about, '.');
}

static void write_about(picture *p)
{
    char text[64];
    strbuf_add_str(&p->about, strbuf_str(&p->subtitle));
    for (int i = 0; i < p->n_facts; i++)
        strbuf_printf(&p->about, "%s%s: %s", i ? "; " : "", p->facts[i].name, p->facts[i].value);
    strbuf_add_char(&p->about, '.');
    describe_row(p, say(p, "outside the layers", "katmanların dışında"), p->head, heads, HEADS);
    for (int l = 0; l < p->n_layers; l++) {
        snprintf(text, sizeof text, "%s %d", say(p, "layer", "katman"), l);
        describe_row(p, text, p->of[l], kinds, KINDS);
    }
    for (int k = 0, any = 0; k < WAYS; k++)
        if (!isnan(p->chosen[k]))
            strbuf_printf(&p->about, "%s %s %s",
                          any++ ? ","
                                : say(p, " Expected at this size by way of choosing:", " Bu boyda, seçme yoluna göre beklenen:"),
                          way_titles[k][p->r->turkish], nats_text(p, p->chosen[k], p->chosen[k], text, sizeof text));
}

static void write_row(picture *p, const char *name, const matrix *m, int n)
{
    char number[32], text[64];
    page_cell(&p->figures, name);
    for (int i = 0; i < KINDS; i++) {
        bool there = i < n && m[i].there;
        if (there)
            snprintf(text, sizeof text, "%s %s", format_get(m[i].type)->name, bits_text(p, m[i].bits, number, sizeof number));
        page_cell(&p->figures, there ? text : "");
    }
    page_cell(&p->figures, nats_text(p, sum_of(m, n), p->most, number, sizeof number));
    page_row_end(&p->figures);
}

static void write_figures(picture *p)
{
    char text[32];
    page_cell(&p->figures, say(p, "layer", "katman"));
    for (int k = 0; k < KINDS; k++)
        page_cell(&p->figures, kinds[k]);
    page_cell(&p->figures, say(p, "expected divergence", "beklenen ıraksama"));
    page_row_end(&p->figures);
    for (int i = 0; i < HEADS; i++)
        if (p->head[i].there)
            write_row(p, heads[i], &p->head[i], 1);
    for (int l = 0; l < p->n_layers; l++) {
        snprintf(text, sizeof text, "%d", l);
        write_row(p, text, p->of[l], KINDS);
    }
}

/* ---- colours ---- */

/* By the logarithm: the step from 2 to 3 bits is greater than that from 5 to 6. */
enum { SCALE_MARKS = 7 };
static const double scale_marks[SCALE_MARKS] = {1.5, 2, 3, 4, 5, 6, 8};

static double strength_of(double bits)
{
    double low = scale_marks[0], high = scale_marks[SCALE_MARKS - 1];
    return bits <= low ? 0 : fmin(1, log2(bits / low) / log2(high / low));
}

static canvas_colour colour_of(const canvas *c, double strength)
{
    return canvas_mix(canvas_theme(c, CANVAS_PANEL), canvas_theme(c, CANVAS_SERIES), 0.08 + 0.92 * strength);
}

/* Of the light that reaches the eye; squares come near the screen's own curve. */
static double light_of(canvas_colour a) { return 0.21 * a.r * a.r + 0.72 * a.g * a.g + 0.07 * a.b * a.b; }

static double contrast(canvas_colour a, canvas_colour b)
{
    double x = light_of(a) + 0.05, y = light_of(b) + 0.05;
    return x > y ? x / y : y / x;
}

/* The theme's ink or paper, whichever can be read better there. */
static canvas_colour ink_on(const canvas *c, canvas_colour below)
{
    canvas_colour ink = canvas_theme(c, CANVAS_INK), paper = canvas_theme(c, CANVAS_PAPER);
    return contrast(ink, below) > contrast(paper, below) ? ink : paper;
}

static void draw_scale(const picture *p, canvas *c, double y)
{
    const int steps = 96;
    const double wide = 420;
    const char *name = say(p, "Bits per weight:", "Ağırlık başına bit:");
    char text[64], number[32];
    canvas_text(c, SIDE, y + 12, name, text_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    double x = SIDE + canvas_text_width(c, name, text_font) + 46;
    for (int i = 0; i < steps; i++)
        canvas_fill(c, (box){x + i * wide / steps, y, wide / steps + 0.5, 14}, colour_of(c, (i + 0.5) / steps));
    for (int i = 0; i < SCALE_MARKS; i++) {
        double at = x + strength_of(scale_marks[i]) * wide;
        chart_number(scale_marks[i], 0.5, p->r->turkish, number, sizeof number);
        if (scale_marks[i] == floor(scale_marks[i]))
            snprintf(number, sizeof number, "%.0f", scale_marks[i]);
        snprintf(text, sizeof text,
                 i == 0                 ? say(p, "%s or less", "%s ya da az")
                 : i == SCALE_MARKS - 1 ? say(p, "%s or more", "%s ya da çok")
                                        : "%s",
                 number);
        canvas_line(c, at, y + 14, at, y + 18, canvas_theme(c, CANVAS_AXIS), 1);
        canvas_text(c, at, y + 29, text, small_font, CANVAS_CENTRE, canvas_theme(c, CANVAS_FAINT_INK));
    }
}

/* ---- the facts ---- */

/* Each with its name below, as many beside one another as there is room for; returns the y below. */
static double draw_facts(const picture *p, canvas *c, double y, bool draw)
{
    double x = SIDE;
    for (int i = 0; i < p->n_facts; i++) {
        const fact *f = &p->facts[i];
        double w = fmax(canvas_text_width(c, f->value, fact_font), canvas_text_width(c, f->name, small_font));
        if (x > SIDE && x + w > WIDTH - SIDE) {
            x = SIDE;
            y += 50;
        }
        if (draw) {
            canvas_text(c, x, y + 18, f->value, fact_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
            canvas_text(c, x, y + 35, f->name, small_font, CANVAS_LEFT, canvas_theme(c, CANVAS_FAINT_INK));
        }
        x += w + 28;
    }
    return y + 50;
}

/* ---- the map ---- */

static double row_of(const picture *p) { return p->n_layers <= 12 ? 30 : p->n_layers <= 48 ? 23 : 18; }

/* Where the cells of a row are; the bars beside it take room only when there are any. */
static box cells_at(const picture *p, double y)
{
    double bars = isnan(p->most) ? 0 : BARS_WIDE;
    return (box){SIDE + LAYER_WIDE, y, WIDTH - 2 * SIDE - LAYER_WIDE - bars, row_of(p)};
}

/* name: what stands before the format's, or NULL. */
static void draw_cell(const picture *p, canvas *c, box at, const matrix *m, const char *name)
{
    char text[96], number[32];
    box inside = {at.x, at.y, at.w - 2, at.h - 2};
    if (!m->there) {
        canvas_fill(c, inside, canvas_theme(c, CANVAS_PANEL));
        return;
    }
    canvas_colour colour = colour_of(c, strength_of(m->bits));
    canvas_fill(c, inside, colour);
    bits_text(p, m->bits, number, sizeof number);
    snprintf(text, sizeof text, "%s%s%s", name ? name : "", name ? "  " : "", format_get(m->type)->name);
    double bold = canvas_text_width(c, text, head_font), light = canvas_text_width(c, number, small_font);
    double x = at.x + (at.w - 2 - bold - 7 - light) / 2, y = at.y + (at.h - 2) / 2 + 4;
    canvas_text(c, x, y, text, head_font, CANVAS_LEFT, ink_on(c, colour));
    canvas_text(c, x + bold + 7, y, number, small_font, CANVAS_LEFT, ink_on(c, colour));
}

static void draw_bar(const picture *p, canvas *c, const matrix *m, int n, double y)
{
    char text[32];
    double sum = sum_of(m, n), h = row_of(p), x = WIDTH - SIDE - BARS_WIDE + BARS_GAP;
    double wide = BARS_WIDE - BARS_GAP - NUMBER_WIDE;
    if (isnan(p->most))
        return;
    canvas_fill(c, (box){x, y + h / 2 - 6, wide, 10}, canvas_theme(c, CANVAS_GRID));
    if (p->most > 0 && sum > 0)
        canvas_fill(c, (box){x, y + h / 2 - 6, wide * sum / p->most, 10}, canvas_theme(c, CANVAS_SERIES + 1));
    canvas_text(c, WIDTH - SIDE, y + h / 2 + 3, nats_text(p, sum, p->most, text, sizeof text), small_font, CANVAS_RIGHT,
                canvas_theme(c, CANVAS_INK));
}

/* Embedding and output share a row as wide as the layers'. */
static void draw_heads(const picture *p, canvas *c, double y)
{
    box at = cells_at(p, y);
    int n = p->head[0].there + p->head[1].there, done = 0;
    for (int i = 0; i < HEADS; i++)
        if (p->head[i].there)
            draw_cell(p, c, (box){at.x + at.w * done++ / n, y, at.w / n, at.h}, &p->head[i], heads[i]);
    draw_bar(p, c, p->head, HEADS, y);
}

static void draw_columns(const picture *p, canvas *c, double y)
{
    box at = cells_at(p, y);
    char text[64];
    canvas_text(c, at.x - 12, y + 14, say(p, "layer", "katman"), head_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_INK));
    for (int k = 0; k < KINDS; k++) {
        double middle = at.x + (k + 0.5) * at.w / KINDS - 1;
        int n_experts = experts_of(p, k);
        canvas_text(c, middle, y + 14, kinds[k], head_font, CANVAS_CENTRE, canvas_theme(c, CANVAS_INK));
        snprintf(text, sizeof text, say(p, "of %d experts", "%d uzmanın"), n_experts);
        if (n_experts > 1)
            canvas_text(c, middle, y + 28, text, small_font, CANVAS_CENTRE, canvas_theme(c, CANVAS_FAINT_INK));
    }
}

static void draw_layer(const picture *p, canvas *c, int l, double y)
{
    char text[32];
    box at = cells_at(p, y);
    snprintf(text, sizeof text, "%d", l);
    canvas_text(c, at.x - 12, y + at.h / 2 + 3, text, head_font, CANVAS_RIGHT, canvas_theme(c, CANVAS_INK));
    for (int k = 0; k < KINDS; k++)
        draw_cell(p, c, (box){at.x + k * at.w / KINDS, y, at.w / KINDS, at.h}, &p->of[l][k], NULL);
    draw_bar(p, c, p->of[l], KINDS, y);
}

static double columns_high(const picture *p)
{
    for (int k = 0; k < KINDS; k++)
        if (experts_of(p, k) > 1)
            return 38;
    return 24;
}

static double map_high(const picture *p)
{
    return 22 + has_heads(p) * (row_of(p) + 8) + (p->n_layers > 0) * columns_high(p) + p->n_layers * row_of(p);
}

static void draw_map(const picture *p, canvas *c, double y)
{
    if (!isnan(p->most))
        canvas_text(c, WIDTH - SIDE - BARS_WIDE + BARS_GAP, y + 12,
                    say(p, "expected divergence of the row", "satırın beklenen ıraksaması"), head_font, CANVAS_LEFT,
                    canvas_theme(c, CANVAS_INK));
    y += 22;
    if (has_heads(p)) {
        draw_heads(p, c, y);
        y += row_of(p) + 8;
    }
    if (p->n_layers == 0)
        return;
    draw_columns(p, c, y);
    for (int l = 0; l < p->n_layers; l++)
        draw_layer(p, c, l, y + columns_high(p) + l * row_of(p));
}

/* ---- the curve ---- */

/* The file itself: what was expected of it and what was measured. */
static int add_marks(const picture *p, const double *size, chart_series *out, char texts[2][96])
{
    char number[32];
    const double *const values[2] = {&p->divergence, &p->kld};
    const char *const names[2] = {say(p, "this file, expected", "bu dosya, beklenen"),
                                  say(p, "this file, measured", "bu dosya, ölçülen")};
    int n = 0;
    for (int i = 0; i < 2; i++) {
        if (!(*values[i] > 0) || (i == 1 && !p->measured))
            continue;
        snprintf(texts[i], sizeof texts[i], "%s: %s", names[i], nats_text(p, *values[i], *values[i], number, sizeof number));
        out[n++] = (chart_series){.x = size, .y = values[i], .n = 1, .colour = CANVAS_INK, .mark = texts[i], .ring = i == 1};
    }
    return n;
}

static void draw_curve(picture *p, canvas *c, double y)
{
    static const double widths[WAYS] = {[GAME] = 1.4, [CELLS] = 3.6, [GREEDY] = 6.4, [UNIFORM] = 2, [RANDOM] = 2, [PEER] = 2};
    const char *names[WAYS];
    chart_series series[WAYS + 2];
    char texts[2][96];
    int n = 0;
    bool big = p->in_bytes >= 1e10;
    double unit = big ? 1e9 : 1e6, size = p->out_bytes / unit;
    for (int k = WAYS; k-- > 0;) { /* the game on top: where it agrees with others they show at its sides */
        way *w = &p->ways[k];
        names[k] = way_titles[k][p->r->turkish];
        for (size_t i = 0; i < w->n; i++)
            w->bytes[i] /= unit;
        series[n++] = (chart_series){
            .x = w->bytes, .y = w->divergence, .n = w->n, .colour = CANVAS_SERIES + k, .width = widths[k], .dots = k == GAME};
    }
    n += add_marks(p, &size, series + n, texts);
    chart_panel panel = {.title = say(p, "Expected divergence by the size of the file", "Dosyanın boyuna göre beklenen ıraksama"),
                         .x_name = big ? "GB" : "MB",
                         .series = series,
                         .n_series = n,
                         .log_y = true,
                         .no_ends = true,
                         .turkish = p->r->turkish};
    box at = {SIDE, y, WIDTH - 2 * SIDE, CHART_HIGH};
    chart_draw(c, at, &panel);
    chart_legend(c, at.x + at.w - 640, y + 5, 640, names, WAYS, true);
}

/* ---- the picture ---- */

/* Draws, or with draw false only measures; returns the height. */
static double lay_out(picture *p, canvas *c, const char *title, bool draw)
{
    box text = {SIDE, 64, WIDTH - 2 * SIDE, 0};
    if (draw)
        canvas_text(c, SIDE, 40, title, title_font, CANVAS_LEFT, canvas_theme(c, CANVAS_INK));
    double y = canvas_wrap(c, text, p->subtitle.p, text_font, canvas_theme(c, CANVAS_FAINT_INK), draw);
    y = draw_facts(p, c, y, draw) + 8;
    if (draw) {
        draw_scale(p, c, y);
        draw_map(p, c, y + 32);
    }
    y += 32 + map_high(p) + 24;
    if (draw && has_curve(p))
        draw_curve(p, c, y);
    return y + (has_curve(p) ? CHART_HIGH + SIDE : 0);
}

static void find_most(picture *p)
{
    p->most = sum_of(p->head, HEADS);
    for (int l = 0; l < p->n_layers; l++)
        p->most = fmax(p->most, sum_of(p->of[l], KINDS)); /* of a number and NAN the number */
}

static dil_status make(picture *p, strbuf *out, dil_error *err)
{
    const char *title = say(p, "How many bits each matrix got", "Her matrise düşen bit");
    canvas *c = NULL;
    DIL_TRY(read_report(p, err));
    find_most(p);
    write_facts(p);
    write_subtitle(p);
    write_about(p);
    write_figures(p);
    if (p->subtitle.failed || p->about.failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bits: no memory");
    DIL_TRY(canvas_new(&c, p->r, WIDTH, 100, err));
    double height = lay_out(p, c, title, false);
    canvas_free(c);
    DIL_TRY(canvas_new(&c, p->r, WIDTH, height, err));
    lay_out(p, c, title, true);
    dil_status status = page_finish(c, p->r, title, p->about.p, &p->figures, out, err);
    canvas_free(c);
    return status;
}

dil_status view_bits(strbuf *out, const view_request *r, dil_error *err)
{
    if (r->n_inputs != 1)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "bits: wanted 1 report of dil quantize, found %d", r->n_inputs);
    picture *p = mem_calloc(1, sizeof *p, MEM_MISC);
    if (!p)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bits: no memory");
    p->r = r;
    p->path = r->inputs[0];
    p->subtitle = STRBUF(1 << 14);
    p->about = STRBUF(1 << 20);
    p->figures = PAGE_FIGURES;
    for (int k = 0; k < WAYS; k++)
        p->chosen[k] = NAN;
    dil_status status = make(p, out, err);
    json_decref(p->report);
    strbuf_free(&p->subtitle);
    strbuf_free(&p->about);
    strbuf_free(&p->figures.html);
    mem_free(p);
    return status;
}
