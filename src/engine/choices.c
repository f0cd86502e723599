#include "engine/choices.h"

#include <string.h>

#include "base/mem.h"
#include "base/status.h"

static void hand_over(choices *c, int32_t n_rows)
{
    const size_t k = c->m->h.experts.n_used, n = c->m->h.n_layer, one = n * CHOICES_ROWS * k;
    for (size_t row = 0; row < (size_t)n_rows && c->status == DIL_OK; row++) {
        for (size_t l = 0; l < n; l++) {
            memcpy(c->chosen + one + l * k, c->chosen + (l * CHOICES_ROWS + row) * k, k * sizeof *c->chosen);
            memcpy(c->weights + one + l * k, c->weights + (l * CHOICES_ROWS + row) * k, k * sizeof *c->weights);
        }
        c->status = c->each(c->ctx, c->chosen + one, c->weights + one, &c->err);
    }
}

static void keep_choice(void *ctx, uint32_t layer_index, int32_t n_rows, const uint16_t *chosen, const float *weights)
{
    choices *c = ctx;
    size_t k = c->m->h.experts.n_used, at = (size_t)layer_index * CHOICES_ROWS * k, n = (size_t)n_rows * k;
    memcpy(c->chosen + at, chosen, n * sizeof *chosen);
    memcpy(c->weights + at, weights, n * sizeof *weights);
    if (layer_index == c->last_moe)
        hand_over(c, n_rows);
}

void choices_listen(choices *c, engine_options *o)
{
    *c = (choices){0};
    o->micro_batch = o->max_outputs = CHOICES_ROWS;
    o->on_choice = keep_choice;
    o->choice_ctx = c;
}

static bool go_on(void *ctx, int32_t i, const float *logits)
{
    (void)i, (void)logits;
    return ((choices *)ctx)->status == DIL_OK;
}

static dil_status begin(choices *c, engine *e, const token_list *tokens, dil_error *err)
{
    const hparams *h = &engine_model(e)->h;
    const size_t n = (size_t)h->n_layer * (CHOICES_ROWS + 1) * h->experts.n_used;
    c->m = engine_model(e);
    if (h->experts.n_experts == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted a mixture of experts, found a dense model", gguf_path(c->m->file));
    if (tokens->n == 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "wanted a text, found nothing");
    c->chosen = mem_calloc(n, sizeof *c->chosen, MEM_MISC);
    c->weights = mem_calloc(n, sizeof *c->weights, MEM_MISC);
    if (!c->chosen || !c->weights)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the choices of %d tokens", CHOICES_ROWS);
    for (uint32_t i = 0; i < h->n_layer; i++)
        c->last_moe = c->m->layers[i].moe ? i : c->last_moe;
    return DIL_OK;
}

static dil_status run(choices *c, engine *e, const token_list *tokens, dil_progress_fn progress, void *user, dil_error *err)
{
    session *s = NULL;
    const size_t piece = (size_t)engine_context(e);
    dil_status status = session_new(&s, e, err);
    for (size_t from = 0; status == DIL_OK && from < tokens->n; from += piece) {
        const size_t n = tokens->n - from < piece ? tokens->n - from : piece;
        session_truncate(s, 0);
        status = session_eval(s, tokens->ids + from, (int32_t)n, NULL, go_on, c, err);
        if (status == DIL_OK && c->status != DIL_OK) {
            *err = c->err;
            status = c->status;
        }
        if (status == DIL_OK && progress && !progress(user, "tracing", from + n, tokens->n))
            status = DIL_FAIL(err, DIL_CANCELLED, "stopped by Ctrl-C");
    }
    session_free(s);
    return status;
}

dil_status choices_run(choices *c, engine *e, const token_list *tokens, choices_fn each, void *ctx, dil_progress_fn progress,
                       void *user, dil_error *err)
{
    c->each = each;
    c->ctx = ctx;
    dil_status status = begin(c, e, tokens, err);
    if (status == DIL_OK)
        status = run(c, e, tokens, progress, user, err);
    mem_free(c->chosen);
    mem_free(c->weights);
    c->chosen = NULL;
    c->weights = NULL;
    return status;
}
