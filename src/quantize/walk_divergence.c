/* Whole layers at once, for states other than the walk's own, and what their answers lost. */
#include <math.h>
#include <string.h>

#include "quantize/walk_internal.h"

#define HEAD_TOKENS 128 /* whose logits are in memory, twice */

const float *walk_states(const walk *w) { return w->x; }

static void forward_batch(walk *w, net_layer *l, int64_t first, int64_t n, void *ctx)
{
    float *x = (float *)ctx + (size_t)first * w->h.n_embd;
    (void)l;
    walk_layer_forward(w, x, n, w->n->dx);
    memcpy(x, w->n->dx, (size_t)n * w->h.n_embd * sizeof *x);
}

void walk_forward(walk *w, float *x) { walk_batches(w, forward_batch, x); }

/* ---- divergence ---- */

typedef struct comparison {
    const float *from, *to; /* logits [n][n_vocab] */
    double *nats;           /* [n] */
    int n_vocab;
} comparison;

/* z's largest value, and the log of its partition sum. */
static double log_sum(const float *z, int n, float *most)
{
    double sum = 0;
    *most = z[0];
    for (int i = 1; i < n; i++)
        *most = fmaxf(*most, z[i]);
    for (int i = 0; i < n; i++)
        sum += (double)expf(z[i] - *most);
    return (double)*most + log(sum);
}

static void compare_token(void *ctx, int64_t t, int worker)
{
    const comparison *c = ctx;
    const float *p = c->from + (size_t)t * (size_t)c->n_vocab, *q = c->to + (size_t)t * (size_t)c->n_vocab;
    float most;
    double log_q = log_sum(q, c->n_vocab, &most), log_p = log_sum(p, c->n_vocab, &most), sum = 0;
    (void)worker;
    for (int i = 0; i < c->n_vocab; i++)
        sum += (double)expf((float)((double)p[i] - log_p)) * (((double)p[i] - log_p) - ((double)q[i] - log_q));
    c->nats[t] = sum;
}

static void logits_of(walk *w, const float *x, int64_t n, float *logits)
{
    norm_forward(&w->n->crew, &w->n->out_norm, x, n, w->n->normed_last);
    linear_forward(&w->n->crew, &w->n->head, w->n->normed_last, n, logits, false);
}

double walk_divergence(walk *w, const float *from, const float *x, int64_t n_tokens)
{
    const weight *head = &w->n->head;
    const int n_vocab = w->n->c.n_vocab;
    double nats[HEAD_TOKENS], sum = 0;
    float *to = w->n->logits + (size_t)HEAD_TOKENS * (size_t)n_vocab; /* a batch has more than 2 * HEAD_TOKENS rows of them */
    weight_prepare(&w->n->crew, &head, 1);
    for (int64_t first = 0; first < n_tokens; first += HEAD_TOKENS) {
        int64_t n = n_tokens - first < HEAD_TOKENS ? n_tokens - first : HEAD_TOKENS;
        logits_of(w, from + (size_t)first * w->h.n_embd, n, w->n->logits);
        logits_of(w, x + (size_t)first * w->h.n_embd, n, to);
        crew_items(&w->n->crew, n, compare_token, &(comparison){w->n->logits, to, nats, n_vocab});
        for (int64_t t = 0; t < n; t++)
            sum += nats[t];
    }
    return sum / (double)n_tokens;
}
