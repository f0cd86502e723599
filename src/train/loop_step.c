/* One step of a run: passes over a batch, the warm-up of the loss, the prices of experts. */
#include <math.h>

#include "base/os.h"
#include "base/status.h"
#include "train/loop_internal.h"

#define CHUNK_VALUES ((size_t)1 << 16)

/* ---- passes ---- */

/* sum += share * one */
static void add_result(net_result *sum, const net_result *one, double share, const net_config *c)
{
    loss_values *s = &sum->router;
    const loss_values *v = &one->router;
    sum->total += share * one->total;
    sum->ce += share * one->ce;
    sum->z_loss += share * one->z_loss;
    s->balance += share * v->balance;
    s->cache += share * v->cache;
    s->swarm += share * v->swarm;
    s->nash += share * v->nash;
    s->z += share * v->z;
    s->entropy += share * v->entropy;
    s->violation += share * v->violation;
    for (int l = 0; l < c->n_layer; l++)
        for (int e = 0; e < c->n_experts; e++)
            sum->load[l][e] += (float)(share * (double)one->load[l][e]);
}

/* Terms that would hold a router fast before it knows anything rise from 0 to full within the run. */
static loss_config loss_at(const train_config *c, uint64_t step)
{
    loss_config loss = c->loss;
    double x = (double)step / (double)c->n_steps, width = c->loss_to - c->loss_from;
    double share = width > 0 ? (x - c->loss_from) / width : x >= c->loss_from;
    float factor = (float)fmin(1.0, fmax(0.0, share));
    loss.cache *= factor;
    loss.swarm *= factor;
    loss.nash *= factor;
    return loss;
}

typedef struct scale_job {
    run *r;
    float factor;
} scale_job;

static void scale_chunks(void *ctx, int worker)
{
    const scale_job *job = ctx;
    size_t n = net_size(job->r->n);
    (void)worker;
    for (size_t at; (at = team_claim(job->r->workers) * CHUNK_VALUES) < n;)
        job->r->k.scale(net_gradients(job->r->n) + at, job->factor, (int64_t)(n - at < CHUNK_VALUES ? n - at : CHUNK_VALUES));
}

/* Gradients of the mean over the whole step, from means over its passes. */
static dil_status forward_backward(run *r, const net_loss *loss, dil_error *err)
{
    const train_config *c = &r->c;
    net_result *sum = &r->progress.result;
    size_t stride = (size_t)r->n_pass * (size_t)(c->net.n_context + 1);
    *sum = (net_result){0};
    net_clear_gradients(r->n);
    for (int i = 0; i < c->n_accumulate; i++) {
        DIL_TRY(net_train(r->n, r->tokens + (size_t)i * stride, r->n_pass, loss, &r->pass, err));
        add_result(sum, &r->pass, 1.0 / c->n_accumulate, &c->net);
    }
    scale_job job = {r, 1.0f / (float)c->n_accumulate};
    if (c->n_accumulate > 1)
        team_run(r->workers, scale_chunks, &job);
    return DIL_OK;
}

/* ---- prices ---- */

/* Share of their strength that prices have after `done` steps: 1, in the last price_end of the run falling to 0. */
static double price_strength(const train_config *c, uint64_t done)
{
    double last = c->price_end * (double)c->n_steps, left = (double)(c->n_steps - done);
    return last > 0 && left < last ? left / last : 1.0;
}

/* Prices follow the load; what is left of their strength goes into the step and, by its ratio, into what they were. */
static void update_prices(run *r)
{
    const train_config *c = &r->c;
    float *price = net_prices(r->n);
    int n = c->net.n_experts;
    if (!price || !(c->price_rate > 0.0f))
        return;
    double before = price_strength(c, r->state.step), after = price_strength(c, r->state.step + 1);
    float rate = (float)((double)c->price_rate * before), ratio = before > 0 ? (float)(after / before) : 0.0f;
    for (int l = 0; l < c->net.n_layer; l++) {
        float *p = price + (size_t)l * (size_t)n;
        price_follow(p, r->progress.result.load[l], n, c->price_rule, rate);
        for (int e = 0; e < n && ratio < 1.0f; e++)
            p[e] *= ratio;
    }
}

/* ---- the step ---- */

static dil_status not_finite(const run *r, const char *what, double value, dil_error *err)
{
    return DIL_FAIL(err, DIL_FORMAT,
                    "step %llu: %s: wanted a finite number, found %g; the last checkpoint stays as it is: lower learning_rate, or "
                    "set max_grad_norm",
                    (unsigned long long)r->state.step + 1, what, value);
}

static void tell(run *r, double seconds, double norm)
{
    const train_config *c = &r->c;
    train_progress *p = &r->progress;
    double tokens = (double)c->n_sequences * c->net.n_context;
    r->state.step++;
    r->state.tokens += (uint64_t)tokens;
    r->state.seconds += seconds;
    p->step = r->state.step;
    p->n_steps = c->n_steps;
    p->tokens = r->state.tokens;
    p->seconds = r->state.seconds;
    p->tokens_per_second = tokens / fmax(seconds, 1e-9);
    p->seconds_left = r->state.seconds / (double)p->step * (double)(c->n_steps - p->step);
    p->gflops = net_flops(r->n) * p->tokens_per_second * 1e-9;
    p->lr = (double)c->optimiser.lr * optimiser_schedule(&c->optimiser, p->step - 1, c->n_steps);
    p->gradient_norm = norm;
    p->evaluated = false;
}

dil_status run_step(run *r, dil_error *err)
{
    const train_config *c = &r->c;
    uint64_t started = os_time_ns(), step = r->state.step;
    loss_config router = loss_at(c, step);
    net_loss loss = {c->z_weight, c->net.n_experts ? &router : NULL};
    corpus_batch(r->texts, step, c->n_sequences, r->tokens, NULL);
    DIL_TRY(forward_backward(r, &loss, err));
    if (!isfinite(r->progress.result.total))
        return not_finite(r, "loss", r->progress.result.total, err);
    double norm = optimiser_step(r->opt, step, c->n_steps);
    if (!isfinite(norm))
        return not_finite(r, "gradient norm", norm, err);
    update_prices(r);
    tell(r, (double)(os_time_ns() - started) * 1e-9, norm);
    return DIL_OK;
}
