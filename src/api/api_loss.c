/* The public loss: the cross-entropy of the tokens here, the terms of the router from src/train/. */
#include <float.h>
#include <math.h>

#include "api/arguments.h"
#include "base/mem.h"
#include "train/loss.h"

#define MOST_ELEMENTS ((size_t)1 << 40)
#define MOST_SCORE 1e6f /* of router scores and prices: their squares are summed in float */

/* What a call works with, checked. */
typedef struct loss_call {
    dil_loss_options o;
    size_t n_tokens; /* of all sequences */
    int16_t *chosen; /* [n_tokens][n_experts_used] */
    float *flock;    /* [n_experts][n_experts] or NULL */
    void *scratch;
    loss_input in;
    loss_config config;
} loss_call;

dil_loss_options dil_loss_options_default(void)
{
    return (dil_loss_options){
        .struct_size = sizeof(dil_loss_options), .balance = 0.01f, .cache = 0.02f, .swarm = 0.01f, .nash = 0.01f, .beta = 0.5f};
}

/* ---- checks ---- */

static dil_status check_range(const char *name, int64_t value, int64_t least, int64_t most, dil_error *err)
{
    if (value < least || value > most)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_loss_compute: %s: wanted %lld..%lld, found %lld", name, (long long)least,
                        (long long)most, (long long)value);
    return DIL_OK;
}

static dil_status check_weight(const char *name, double value, dil_error *err)
{
    if (!(value >= 0.0 && value <= 1e6))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_loss_compute: %s: wanted 0..1000000, found %g", name, value);
    return DIL_OK;
}

/* Numbers of at most this magnitude; not a number fails. */
static dil_status check_numbers(const char *name, const float *x, size_t n, float most, dil_error *err)
{
    for (size_t i = 0; x && i < n; i++)
        if (!(fabsf(x[i]) <= most))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_loss_compute: %s: wanted finite numbers up to %g, found %g at index %zu",
                            name, (double)most, (double)x[i], i);
    return DIL_OK;
}

static dil_status check_size(const char *name, size_t rows, int32_t columns, dil_error *err)
{
    if (rows > MOST_ELEMENTS / (size_t)columns)
        return DIL_FAIL(err, DIL_LIMIT, "dil_loss_compute: %s: wanted at most 2^40 numbers, found %zu rows of %d", name, rows,
                        columns);
    return DIL_OK;
}

static dil_status check_targets(const loss_call *k, dil_error *err)
{
    const dil_loss_options *o = &k->o;
    for (size_t t = 0; t < k->n_tokens; t++)
        if (o->targets[t] < -1 || o->targets[t] >= o->n_vocab)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_loss_compute: targets: wanted -1..%d, found %d at index %zu",
                            o->n_vocab - 1, o->targets[t], t);
    return DIL_OK;
}

static dil_status check_tokens(loss_call *k, const float *d_logits, dil_error *err)
{
    const dil_loss_options *o = &k->o;
    DIL_TRY(check_range("n_sequences", o->n_sequences, 1, INT32_MAX, err));
    DIL_TRY(check_range("n_tokens", o->n_tokens, 1, INT32_MAX, err));
    k->n_tokens = (size_t)o->n_sequences * (size_t)o->n_tokens;
    if (!o->logits != !o->targets)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_loss_compute: logits and targets: wanted both or neither, found only %s",
                        o->logits ? "logits" : "targets");
    if (!o->logits)
        return d_logits ? DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_loss_compute: d_logits: wanted NULL without logits, found a value")
                        : DIL_OK;
    DIL_TRY(check_range("n_vocab", o->n_vocab, 1, INT32_MAX, err));
    DIL_TRY(check_size("logits", k->n_tokens, o->n_vocab, err));
    DIL_TRY(check_targets(k, err));
    return check_numbers("logits", o->logits, k->n_tokens * (size_t)o->n_vocab, FLT_MAX, err);
}

static dil_status check_router(const loss_call *k, const float *d_router, dil_error *err)
{
    const dil_loss_options *o = &k->o;
    const struct {
        const char *name;
        double value;
    } weights[] = {{"balance", (double)o->balance},
                   {"cache", (double)o->cache},
                   {"swarm", (double)o->swarm},
                   {"nash", (double)o->nash},
                   {"z", (double)o->z},
                   {"beta", (double)o->beta},
                   {"cached_experts", o->cached_experts}};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        DIL_TRY(check_weight(weights[i].name, weights[i].value, err));
    if (!o->router_scores) {
        if (d_router)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_loss_compute: d_router: wanted NULL without router_scores, found a value");
        return DIL_OK;
    }
    DIL_TRY(check_range("n_experts", o->n_experts, 1, 4096, err));
    DIL_TRY(check_range("n_experts_used", o->n_experts_used, 1, o->n_experts, err));
    DIL_TRY(check_size("router_scores", k->n_tokens, o->n_experts, err));
    DIL_TRY(check_numbers("router_scores", o->router_scores, k->n_tokens * (size_t)o->n_experts, MOST_SCORE, err));
    DIL_TRY(check_numbers("price", o->price, (size_t)o->n_experts, MOST_SCORE, err));
    if (o->router_rows) {
        DIL_TRY(check_range("n_embd", o->n_embd, 1, 65536, err));
        DIL_TRY(check_numbers("router_rows", o->router_rows, (size_t)o->n_experts * (size_t)o->n_embd, FLT_MAX, err));
    }
    return DIL_OK;
}

/* ---- the router's input ---- */

/* The n_used largest of score - price, largest first, ties to the lowest index. */
static void choose(const float *score, const float *price, int n_experts, int n_used, int16_t *chosen)
{
    int found = 0;
    for (int e = 0; e < n_experts; e++) {
        float worth = score[e] - (price ? price[e] : 0.0f);
        int at = found;
        for (; at > 0 && worth > score[chosen[at - 1]] - (price ? price[chosen[at - 1]] : 0.0f); at--)
            if (at < n_used)
                chosen[at] = chosen[at - 1];
        if (at < n_used)
            chosen[at] = (int16_t)e;
        found += found < n_used;
    }
}

/* The caller's sets: in range, and no expert twice. */
static dil_status take_chosen(const loss_call *k, dil_error *err)
{
    size_t used = (size_t)k->o.n_experts_used;
    for (size_t i = 0; i < k->n_tokens * used; i++) {
        int32_t e = k->o.chosen[i];
        if (e < 0 || e >= k->o.n_experts)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_loss_compute: chosen: wanted 0..%d, found %d at index %zu",
                            k->o.n_experts - 1, e, i);
        for (size_t before = i - i % used; before < i; before++)
            if (k->o.chosen[before] == e)
                return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                                "dil_loss_compute: chosen: wanted different experts of token %zu, found %d twice", i / used, e);
        k->chosen[i] = (int16_t)e;
    }
    return DIL_OK;
}

static dil_status prepare_router(loss_call *k, dil_error *err)
{
    const dil_loss_options *o = &k->o;
    size_t experts = (size_t)o->n_experts, used = (size_t)o->n_experts_used;
    k->chosen = mem_calloc(k->n_tokens, used * sizeof *k->chosen, MEM_MISC);
    k->flock = o->router_rows ? mem_calloc(experts, experts * sizeof *k->flock, MEM_MISC) : NULL;
    k->in =
        (loss_input){o->n_sequences, o->n_tokens, o->n_experts, o->n_experts_used, o->router_scores, k->chosen, o->price, k->flock};
    k->scratch = mem_alloc(loss_scratch_bytes(&k->in), MEM_MISC);
    if (!k->chosen || (o->router_rows && !k->flock) || !k->scratch)
        return DIL_FAIL(err, DIL_NO_MEMORY, "dil_loss_compute: no memory for the choices of %zu tokens", k->n_tokens);
    if (o->router_rows)
        DIL_TRY(loss_flock(o->router_rows, o->n_experts, o->n_embd, k->flock, err));
    if (o->chosen)
        DIL_TRY(take_chosen(k, err));
    for (size_t t = 0; !o->chosen && t < k->n_tokens; t++)
        choose(o->router_scores + t * experts, o->price, o->n_experts, o->n_experts_used, k->chosen + t * used);
    double cached = o->cached_experts > 0.0 ? o->cached_experts : o->n_experts / 4.0;
    k->config = (loss_config){.balance = o->balance,
                              .cache = o->cache,
                              .swarm = o->swarm,
                              .nash = o->nash,
                              .z = o->z,
                              .recency = loss_recency(o->n_experts, o->n_experts_used, cached),
                              .beta = o->beta};
    return DIL_OK;
}

/* ---- values ---- */

/* -log p of the target, p = softmax(logits); d = scale (p - [target]). */
static double token_entropy(const float *logits, int32_t n, int32_t target, double scale, float *d)
{
    double sum = 0.0;
    float top = logits[0];
    for (int32_t i = 1; i < n; i++)
        top = logits[i] > top ? logits[i] : top;
    for (int32_t i = 0; i < n; i++)
        sum += (double)expf(logits[i] - top);
    for (int32_t i = 0; d && i < n; i++)
        d[i] = (float)(scale * ((double)expf(logits[i] - top) / sum - (double)(i == target)));
    return log(sum) - ((double)logits[target] - (double)top);
}

/* Mean over the tokens that have a target. */
static double cross_entropy(const loss_call *k, float *d_logits)
{
    const dil_loss_options *o = &k->o;
    size_t counted = 0, vocab = (size_t)o->n_vocab;
    double sum = 0.0;
    for (size_t t = 0; t < k->n_tokens; t++)
        counted += o->targets[t] >= 0;
    if (d_logits)
        memset(d_logits, 0, k->n_tokens * vocab * sizeof *d_logits);
    for (size_t t = 0; t < k->n_tokens; t++)
        if (o->targets[t] >= 0)
            sum += token_entropy(o->logits + t * vocab, o->n_vocab, o->targets[t], 1.0 / (double)counted,
                                 d_logits ? d_logits + t * vocab : NULL);
    return counted ? sum / (double)counted : 0.0;
}

static dil_loss_values evaluate(const loss_call *k, float *d_logits, float *d_router)
{
    const dil_loss_options *o = &k->o;
    loss_values r = {0};
    if (d_router)
        memset(d_router, 0, k->n_tokens * (size_t)o->n_experts * sizeof *d_router);
    if (o->router_scores)
        loss_router(&k->in, &k->config, 1.0f, d_router, &r, k->scratch, NULL);
    dil_loss_values v = {.cross_entropy = o->logits ? cross_entropy(k, d_logits) : 0.0,
                         .balance = r.balance,
                         .cache = r.cache,
                         .swarm = r.swarm,
                         .nash = r.nash,
                         .z = r.z,
                         .entropy = r.entropy,
                         .violation = r.violation};
    v.total = v.cross_entropy + (double)o->balance * v.balance - (double)o->cache * v.cache - (double)o->swarm * v.swarm +
              (double)o->nash * v.nash + (double)o->z * v.z;
    return v;
}

dil_status dil_loss_compute(const dil_loss_options *options, dil_loss_values *out, float *d_logits, float *d_router, dil_error *err)
{
    loss_call k = {.o = dil_loss_options_default()};
    dil_status status = DIL_OK;
    DIL_TRY(need(options, "dil_loss_compute: options", err));
    DIL_TRY(need(out, "dil_loss_compute: out", err));
    DIL_TRY(take_options(&k.o, sizeof k.o, options, options->struct_size, "dil_loss_options", err));
    uint32_t size = out->struct_size;
    if (size < sizeof(uint32_t) || size > 4096)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "dil_loss_values: struct_size: wanted %zu, found %u", sizeof *out, size);
    DIL_TRY(check_tokens(&k, d_logits, err));
    DIL_TRY(check_router(&k, d_router, err));
    if (k.o.router_scores)
        status = prepare_router(&k, err);
    if (status == DIL_OK) {
        dil_loss_values v = evaluate(&k, d_logits, d_router);
        v.struct_size = size;
        memcpy(out, &v, size < sizeof v ? size : sizeof v);
    }
    mem_free(k.chosen);
    mem_free(k.flock);
    mem_free(k.scratch);
    return status;
}
