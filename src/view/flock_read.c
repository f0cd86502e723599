/*
 * A mixture of experts as a flock: the rows of its routers say who is near whom; its router log, or a text that is run now, says who is
 * chosen when. A lone layer of experts, which reads no text, is run on rows of normal random numbers.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "engine/choices.h"
#include "experts/trace.h"
#include "file/gguf.h"
#include "theorem/random.h"
#include "view/flock.h"
#include "view/page.h"

#define MOST_PAGE_BYTES ((size_t)12 << 20) /* of birds' states in a web page, where nobody asked for a number of steps */
#define TEXT_BYTES 64                      /* most of a token's text */

typedef struct source {
    flock_scene *s;
    const view_request *r;
    trace *log;
    uint64_t capacity;  /* tokens in log */
    token_list tokens;  /* of the text; n 0: there is none */
    const vocab *words; /* of the tokens */
} source;

/* ---- the steps ---- */

static uint32_t usual_steps(const source *in)
{
    size_t bytes = 0;
    for (uint32_t p = 0; p < in->log->n_places; p++)
        bytes += (size_t)in->log->layers[in->log->layer_of[p]].n_experts * 4 * sizeof(uint16_t);
    size_t most = in->r->format == VIEW_HTML ? MOST_PAGE_BYTES / (bytes + 1) : FLOCK_STEPS;
    return most < 32 ? 32 : most < FLOCK_STEPS ? (uint32_t)most : FLOCK_STEPS;
}

static dil_status choose_steps(source *in, dil_error *err)
{
    flock_scene *s = in->s;
    const uint64_t n = in->log->n_tokens;
    uint32_t most = in->r->n_frames ? in->r->n_frames : usual_steps(in);
    if (n == 0 || in->log->n_places == 0)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted at least one token and one layer with experts, found none",
                        in->r->inputs[in->r->n_inputs - 1]);
    if (in->r->frame > n)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "flock: frame: wanted at most %llu, the last token, found %llu",
                        (unsigned long long)n, (unsigned long long)in->r->frame);
    uint64_t end = in->r->frame ? in->r->frame : n;
    s->n_steps = end < most ? (uint32_t)end : most;
    s->first = end - s->n_steps;
    s->n_all = n;
    s->n_used = in->log->n_used;
    return DIL_OK;
}

/* ---- what the tokens say ---- */

/* A character whose bytes are spread over tokens belongs to the one that completes it. */
static dil_status read_texts(source *in, dil_error *err)
{
    flock_scene *s = in->s;
    strbuf b = STRBUF(1 << 20);
    bool failed = !(s->texts = arena_calloc(s->memory, s->n_steps, sizeof *s->texts));
    for (uint32_t t = 0; t < s->n_steps && !failed; t++) {
        vocab_decode_token(in->words, in->tokens.ids[s->first + t], true, &b);
        str text = strbuf_str(&b);
        size_t tail = t + 1 < s->n_steps ? utf8_incomplete_tail(text) : 0;
        str shown = {text.p, text.n - tail};
        if (shown.n > TEXT_BYTES) {
            shown.n = TEXT_BYTES;
            shown.n -= utf8_incomplete_tail(shown);
        }
        s->texts[t] = arena_strdup(s->memory, shown.n ? shown.p : "", shown.n);
        failed = !s->texts[t] || b.failed;
        if (tail > 0)
            memmove(b.p, b.p + text.n - tail, tail);
        b.n = tail;
    }
    strbuf_free(&b);
    return failed ? DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for the texts of %u tokens", s->n_steps) : DIL_OK;
}

/* ---- a log of a run ---- */

static void *copy_of(const void *from, size_t bytes)
{
    void *to = mem_alloc(bytes, MEM_MISC);
    if (to)
        memcpy(to, from, bytes);
    return to;
}

/* An empty log of the model's shape. */
static dil_status begin_log(source *in, const model *m, dil_error *err)
{
    trace *t = in->log = mem_calloc(1, sizeof *t, MEM_MISC);
    const uint32_t n = m->h.n_layer;
    if (t) {
        t->n_layers = n;
        t->n_used = m->h.experts.n_used;
        t->name = copy_of(gguf_path(m->file), strlen(gguf_path(m->file)) + 1);
        t->layers = mem_calloc(n, sizeof *t->layers, MEM_MISC);
        t->layer_of = mem_calloc(n, sizeof *t->layer_of, MEM_MISC);
    }
    if (!t || !t->name || !t->layers || !t->layer_of)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for a log");
    for (uint32_t l = 0; l < n; l++)
        if (m->layers[l].moe) {
            t->layers[l] = (trace_layer){1, m->h.experts.n_experts};
            t->layer_of[t->n_places++] = l;
        }
    return DIL_OK;
}

static dil_status grow_log(source *in, uint64_t n_tokens, dil_error *err)
{
    trace *t = in->log;
    size_t places = (size_t)t->n_places * t->n_used, bytes;
    if (n_tokens <= in->capacity)
        return DIL_OK;
    in->capacity = n_tokens < 1024 ? 1024 : n_tokens + n_tokens / 2;
    if (!checked_mul_size(places * sizeof *t->chosen, in->capacity, &bytes))
        return DIL_FAIL(err, DIL_LIMIT, "flock: %llu tokens are too many", (unsigned long long)n_tokens);
    uint16_t *chosen = mem_grow(t->chosen, bytes, MEM_MISC);
    t->chosen = chosen ? chosen : t->chosen;
    uint8_t *weights = chosen ? mem_grow(t->weights, bytes / sizeof *t->chosen, MEM_MISC) : NULL;
    t->weights = weights ? weights : t->weights;
    return weights ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %llu tokens", (unsigned long long)n_tokens);
}

static uint8_t weight_byte(float w) { return (uint8_t)(w >= 0 && w <= 1 ? lrintf(w * 255) : w > 1 ? 255 : 0); }

static dil_status log_token(void *ctx, const uint16_t *chosen, const float *weights, dil_error *err)
{
    source *in = ctx;
    trace *t = in->log;
    const size_t k = t->n_used, at = (size_t)t->n_tokens * t->n_places * k;
    DIL_TRY(grow_log(in, t->n_tokens + 1, err));
    for (size_t p = 0; p < t->n_places; p++)
        for (size_t i = 0; i < k; i++) {
            t->chosen[at + p * k + i] = chosen[t->layer_of[p] * k + i];
            t->weights[at + p * k + i] = weight_byte(weights[t->layer_of[p] * k + i]);
        }
    t->n_tokens++;
    return DIL_OK;
}

static dil_status run_text(source *in, engine *e, choices *asked, dil_error *err)
{
    DIL_TRY(vocab_encode(engine_vocab(e), (str){in->r->text, in->r->text_bytes}, true, true, &in->tokens, err));
    DIL_TRY(begin_log(in, engine_model(e), err));
    return choices_run(asked, e, &in->tokens, log_token, in, in->r->progress, in->r->user, err);
}

static dil_status run_rows(source *in, engine *e, dil_error *err)
{
    const model *m = engine_model(e);
    const size_t n = in->r->n_frames ? in->r->n_frames : FLOCK_STEPS, width = m->h.n_embd, k = m->h.experts.n_used;
    uint64_t seed = 1;
    float *x = mem_alloc(2 * n * width * sizeof *x, MEM_MISC), *weights = mem_alloc(n * k * sizeof *weights, MEM_MISC);
    uint16_t *chosen = mem_alloc(n * k * sizeof *chosen, MEM_MISC);
    dil_status status = x && weights && chosen ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %zu rows", n);
    for (size_t i = 0; status == DIL_OK && i < n * width; i++)
        x[i] = (float)random_normal(&seed);
    if (status == DIL_OK)
        status = engine_rows(e, x, (int32_t)n, x + n * width, chosen, weights, err);
    if (status == DIL_OK)
        status = begin_log(in, m, err);
    for (size_t i = 0; status == DIL_OK && i < n; i++)
        status = log_token(in, chosen + i * k, weights + i * k, err);
    mem_free(x);
    mem_free(weights);
    mem_free(chosen);
    return status;
}

/* Fills in->log and, for a text, s->texts. */
static dil_status run_model(source *in, bool lone, dil_error *err)
{
    engine *e = NULL;
    choices asked;
    engine_options o = engine_options_default();
    o.n_threads = in->r->n_threads;
    o.context = lone ? 0 : FLOCK_STEPS;
    o.lone = lone;
    in->s->random = lone;
    if (!lone)
        choices_listen(&asked, &o);
    dil_status status = engine_open(&e, in->r->inputs[0], &o, err);
    if (status == DIL_OK)
        status = lone ? run_rows(in, e, err) : run_text(in, e, &asked, err);
    if (status == DIL_OK)
        status = choose_steps(in, err);
    if (status == DIL_OK && !lone) {
        in->words = engine_vocab(e);
        status = read_texts(in, err);
    }
    engine_close(e);
    return status;
}

/* The text the log was made of names its tokens. */
static dil_status name_tokens(source *in, dil_error *err)
{
    model *m = NULL;
    DIL_TRY(model_open(&m, in->r->inputs[0], &(model_options){.header_only = true}, err));
    in->words = m->words;
    dil_status status = vocab_encode(m->words, (str){in->r->text, in->r->text_bytes}, true, true, &in->tokens, err);
    if (status == DIL_OK && in->tokens.n != in->log->n_tokens)
        status = DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted the text of its %llu tokens, found one of %zu", in->r->inputs[1],
                          (unsigned long long)in->log->n_tokens, in->tokens.n);
    if (status == DIL_OK)
        status = read_texts(in, err);
    model_close(m);
    return status;
}

/* ---- the layers ---- */

typedef struct decoding {
    const gguf_tensor *t;
    float *out;
    uint64_t row_bytes;
} decoding;

static void decode_rows(void *ctx)
{
    const decoding *d = ctx;
    const size_t width = (size_t)d->t->ne[0];
    for (size_t i = 0; i < (size_t)d->t->ne[1]; i++)
        format_get(d->t->type)->decode((const uint8_t *)d->t->data + i * d->row_bytes, d->out + i * width, width);
}

static dil_status read_rows(const gguf *g, uint32_t layer, uint32_t n_experts, const char *log, float **out, int64_t *dim,
                            dil_error *err)
{
    char name[64];
    uint64_t row_bytes;
    snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", layer);
    const gguf_tensor *t = gguf_tensor_find(g, name);
    if (!t)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted the router %s of a mixture of experts, found none", gguf_path(g), name);
    if (t->n_dims != 2 || t->ne[1] != n_experts)
        return DIL_FAIL(err, DIL_FORMAT, "%s: %s: wanted %u rows, one per expert in %s, found %llu", gguf_path(g), name, n_experts,
                        log, (unsigned long long)t->ne[1]);
    const format *f = format_get(t->type);
    if (!f || !f->decode || t->ne[0] > 1 << 20 || !format_row_bytes(t->type, t->ne[0], &row_bytes))
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: %s: wanted rows of numbers, found type %d with %llu columns", gguf_path(g), name,
                        (int)t->type, (unsigned long long)t->ne[0]);
    *dim = (int64_t)t->ne[0];
    *out = mem_alloc((size_t)n_experts * t->ne[0] * sizeof **out, MEM_MISC);
    if (!*out)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %s", gguf_path(g), name);
    decoding d = {t, *out, row_bytes};
    DIL_TRY(os_guard(decode_rows, &d, t->data, (size_t)t->size_bytes, err));
    for (size_t i = 0; i < (size_t)n_experts * t->ne[0]; i++)
        if (!isfinite((*out)[i]))
            return DIL_FAIL(err, DIL_FORMAT, "%s: %s: wanted finite numbers, found %g", gguf_path(g), name, (double)(*out)[i]);
    return DIL_OK;
}

static dil_status place_layer(source *in, const gguf *g, uint32_t place, dil_error *err)
{
    flock_layer *l = &in->s->layers[place];
    float *rows = NULL;
    int64_t dim = 0;
    l->index = (int32_t)in->log->layer_of[place];
    l->n = (int32_t)in->log->layers[l->index].n_experts;
    if (l->n > FLOCK_MOST_BIRDS)
        return DIL_FAIL(err, DIL_LIMIT, "%s: layer %d: wanted at most %d experts, found %d", gguf_path(g), l->index,
                        FLOCK_MOST_BIRDS, l->n);
    dil_status status =
        read_rows(g, (uint32_t)l->index, (uint32_t)l->n, in->r->n_inputs > 1 ? in->r->inputs[1] : "the header", &rows, &dim, err);
    if (status == DIL_OK)
        status = flock_place(in->s, l, &(flock_rows){.v = rows, .dim = dim, .likeness = true}, err);
    mem_free(rows);
    return status;
}

/* Where nobody asked for a layer: the one whose plane shows most neighbours as neighbours. */
static dil_status choose_layer(source *in, dil_error *err)
{
    flock_scene *s = in->s;
    for (int32_t i = 0; i < s->n_layers; i++) {
        if (in->r->one_layer ? s->layers[i].index == (int32_t)in->r->layer : s->layers[i].kept > s->layers[s->shown].kept)
            s->shown = i;
    }
    if (in->r->one_layer && s->layers[s->shown].index != (int32_t)in->r->layer)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "flock: layer: wanted one of the %d layers with experts, %d to %d, found %u",
                        s->n_layers, s->layers[0].index, s->layers[s->n_layers - 1].index, in->r->layer);
    return DIL_OK;
}

static dil_status fly_layer(source *in, int32_t place, dil_error *err)
{
    const trace *t = in->log;
    const flock_choices c = {.chosen = t->chosen + (size_t)place * t->n_used,
                             .weights = t->weights ? t->weights + (size_t)place * t->n_used : NULL,
                             .n_all = t->n_tokens,
                             .stride = (size_t)t->n_places * t->n_used,
                             .n_used = t->n_used};
    DIL_TRY(flock_fly(in->s, &in->s->layers[place], &c, err));
    return flock_play(in->s, &in->s->layers[place], &c, err);
}

static dil_status make_layers(source *in, dil_error *err)
{
    flock_scene *s = in->s;
    gguf *g = NULL;
    s->n_layers = (int32_t)in->log->n_places;
    s->layers = arena_calloc(s->memory, (size_t)s->n_layers, sizeof *s->layers);
    if (!s->layers)
        return DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory for %d layers", s->n_layers);
    DIL_TRY(gguf_open(&g, in->r->inputs[0], NULL, err));
    dil_status status = DIL_OK;
    for (int32_t i = 0; i < s->n_layers && status == DIL_OK; i++)
        status = place_layer(in, g, (uint32_t)i, err);
    gguf_close(g);
    if (status == DIL_OK)
        status = choose_layer(in, err);
    for (int32_t i = 0; i < s->n_layers && status == DIL_OK; i++)
        if (in->r->format == VIEW_HTML || i == s->shown) /* a still shows one */
            status = fly_layer(in, i, err);
    return status;
}

static dil_status is_lone(const char *path, bool *out, dil_error *err)
{
    gguf *g = NULL;
    str arch = {0};
    DIL_TRY(gguf_open(&g, path, &(gguf_options){.header_only = true}, err));
    dil_status status = gguf_get_str(g, "general.architecture", &arch, err);
    *out = str_equal(arch, STR(MODEL_LONE_LAYER));
    gguf_close(g);
    return status;
}

static dil_status read_choices(source *in, dil_error *err)
{
    bool lone;
    if (in->r->n_inputs > 1) {
        DIL_TRY(trace_open(&in->log, in->r->inputs[1], err));
        DIL_TRY(choose_steps(in, err));
        return in->r->text ? name_tokens(in, err) : DIL_OK;
    }
    DIL_TRY(is_lone(in->r->inputs[0], &lone, err));
    if (!lone && !in->r->text)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "%s: wanted a router log beside the model (dil trace writes one), or a text (-p, -f)", in->r->inputs[0]);
    return run_model(in, lone, err);
}

dil_status flock_read_model(flock_scene *s, const view_request *r, dil_error *err)
{
    source in = {.s = s, .r = r};
    const view_request named = {.inputs = r->inputs, .n_inputs = 1};
    char names[VIEW_MOST_INPUTS][PAGE_NAME_BYTES];
    page_names(&named, names);
    s->experts = s->likeness = true;
    s->model = arena_strdup(s->memory, names[0], strlen(names[0]));
    dil_status status = s->model ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "flock: no memory");
    if (status == DIL_OK)
        status = read_choices(&in, err);
    if (status == DIL_OK)
        status = make_layers(&in, err);
    trace_free(in.log);
    token_list_free(&in.tokens);
    return status;
}
