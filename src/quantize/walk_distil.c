/* A walk that learns from another one: divergence from its answers, and the gradients of whatever parameters there are. */
#include <string.h>

#include "base/os.h"
#include "base/status.h"
#include "quantize/walk_internal.h"

/* Of a teacher's network only the output matrix's forward form is read again; the rest may leave memory. */
static void let_go(net *n)
{
    const size_t values = n->size * sizeof(float), head = weight_forward_words(&n->head) * sizeof *n->head.forward;
    const uint8_t *prepared = (const uint8_t *)n->prepared, *forward = (const uint8_t *)n->head.forward;
    os_advise_drop(n->values, values);
    os_advise_drop(n->buffers, n->buffers_bytes);
    os_advise_drop(prepared, (size_t)(forward - prepared));
    os_advise_drop(forward + head, n->prepared_bytes - (size_t)(forward - prepared) - head);
}

dil_status walk_to_end(walk *w, dil_progress_fn progress, void *user, dil_error *err)
{
    const int n_layer = (int)w->h.n_layer;
    net *n = w->n;
    DIL_TRY(walk_begin(w, err));
    walk_head_prepare(w);
    for (int i = 0; i < n_layer; i++) {
        if (progress && !progress(user, "float answers", (uint64_t)i, (uint64_t)n_layer))
            return DIL_FAIL(err, DIL_CANCELLED, "refine: cancelled");
        DIL_TRY(walk_load(w, i, err));
        for (int s = 0; s < w->n_sequences; s += w->batch) {
            int count = w->n_sequences - s < w->batch ? w->n_sequences - s : w->batch;
            int64_t n_tokens = (int64_t)count * w->n_context;
            float *x = walk_state(w, (int64_t)s * w->n_context);
            walk_layer_forward(w, x, n_tokens, n->x_last);
            if (i + 1 < n_layer)
                memcpy(x, n->x_last, (size_t)n_tokens * w->h.n_embd * sizeof *x);
            else
                norm_forward(&n->crew, &n->out_norm, n->x_last, n_tokens, x);
        }
    }
    let_go(n);
    return DIL_OK;
}

typedef struct distil {
    walk *w, *teacher;
    int64_t first, n;
    walk_gradient_fn fn;
    void *ctx;
} distil;

/* The parameters of the layer at hand, or those of no layer, are told of; their gradients begin anew. */
static void tell_gradients(const distil *d, int layer)
{
    const net *n = d->w->n;
    for (int i = 0; i < n->n_parameters; i++) {
        const parameter *p = &n->parameters[i];
        if (walk_of_layer(p) != (layer >= 0))
            continue;
        d->fn(d->ctx, walk_tensor_of(d->w, p, layer), p->g);
        memset(p->g, 0, p->count * sizeof *p->g);
        os_advise_drop(p->g, p->count * sizeof *p->g);
    }
}

static void layer_done(void *ctx, int layer) { tell_gradients(ctx, layer); }

/* n->normed_last -> sum of divergences; with gradients, n->dn and those of the output matrix. */
static double head(const distil *d)
{
    net *n = d->w->n;
    const net *t = d->teacher->n;
    const size_t width = (size_t)n->c.n_embd;
    const int64_t half = walk_head_tokens(d->w) / 2, piece = half > BLOCK_TOKENS ? half : BLOCK_TOKENS; /* there are two heads' */
    double sum = 0;
    for (int64_t at = 0; at < d->n; at += piece) {
        head_teacher teacher = {&t->head, walk_state(d->teacher, d->first + at), t->logits};
        head_run(&n->crew, &(head_pass){.w = &n->head,
                                        .x = n->normed_last + (size_t)at * width,
                                        .teacher = &teacher,
                                        .n_tokens = d->n - at < piece ? d->n - at : piece,
                                        .logits = n->logits,
                                        .nats = n->nats + at,
                                        .log_sum = n->log_sum + at,
                                        .dx = d->fn ? n->dn + (size_t)at * width : NULL});
    }
    for (int64_t i = 0; i < d->n; i++)
        sum += (double)n->nats[i];
    return sum;
}

static dil_status run(distil *d, walk_pass *pass, double *kld, dil_error *err)
{
    net *n = d->w->n;
    DIL_TRY(walk_pass_forward(pass, err));
    *kld = head(d) / (double)d->n;
    if (!d->fn)
        return DIL_OK;
    DIL_TRY(walk_pass_back(pass, layer_done, d, err));
    embed_backward(&n->crew, n->embedding->g, n->c.n_embd, n->c.embd_scale, d->w->tokens, d->n, n->dx);
    tell_gradients(d, -1);
    return DIL_OK;
}

dil_status walk_distil(walk *w, walk *teacher, int first, int n_sequences, walk_gradient_fn fn, void *ctx, double *kld,
                       dil_error *err)
{
    distil d = {w, teacher, (int64_t)first * w->n_context, (int64_t)n_sequences * w->n_context, fn, ctx};
    walk_pass pass = {0};
    if (n_sequences > w->n_sequences || teacher->n_context != w->n_context)
        return DIL_FAIL(err, DIL_INTERNAL, "refine: %d sequences of %d tokens do not fit", n_sequences, w->n_context);
    memcpy(w->tokens, teacher->tokens + d.first, (size_t)d.n * sizeof *w->tokens);
    DIL_TRY(walk_head_release(w, err)); /* the parameters of no layer, as they are now */
    DIL_TRY(walk_begin(w, err));
    walk_head_prepare(w);
    DIL_TRY(walk_pass_new(&pass, w, 0, d.n, err));
    dil_status status = run(&d, &pass, kld, err);
    walk_pass_free(&pass);
    return status;
}
