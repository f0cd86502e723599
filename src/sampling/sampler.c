/*
 * The sampler: options, the chain in its fixed order, the draw. Owns the working memory of one
 * sequence. The steps themselves are in candidates.c (truncations), history.c (penalties), dry.c
 * and rng.c.
 */
#include "sampling/sampler.h"

#include <math.h>

#include "base/mem.h"
#include "base/status.h"
#include "sampling/candidates.h"
#include "sampling/history.h"

/* Which draw of a position a random number is for. */
enum { DRAW_TOKEN = 0, DRAW_XTC = 1 };

struct sampler {
    sampler_options o;
    int32_t n_vocab;
    sampler_bias *biases; /* copy of the caller's */
    candidates c;         /* c.v: [n_vocab] */
    float *adjusted;      /* [n_vocab] logits after mask, bias, penalties and DRY */
    history past;
    penalty_window penalties;
    dry dry;
    bool uses_penalties, uses_dry;
    float mu;            /* mirostat: largest surprise allowed now, in bits */
    const float *logits; /* of the last pick, borrowed; for sampler_last_probability */
    token_id picked;
};

sampler_options sampler_options_default(void)
{
    return (sampler_options){
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .typical_p = 1.0f,
        .xtc_probability = 0.0f,
        .xtc_threshold = 0.1f,
        .repeat_penalty = 1.0f,
        .penalty_last_n = 64,
        .dry_multiplier = 0.0f,
        .dry_base = 1.75f,
        .dry_allowed_length = 2,
        .dry_last_n = -1,
        .mirostat_tau = 5.0f,
        .mirostat_eta = 0.1f,
    };
}

/* One row per float option: its field, the range that means something, and its name. */
typedef struct float_range {
    const char *name;
    float value, low, high;
} float_range;

static dil_status check_options(const sampler_options *o, int32_t n_vocab, dil_error *err)
{
    const float_range ranges[] = {
        {"temperature", o->temperature, -1e9f, 1e9f},
        {"top_p", o->top_p, 0.0f, 1e9f},
        {"min_p", o->min_p, -1e9f, 1.0f},
        {"typical_p", o->typical_p, 0.0f, 1e9f},
        {"xtc_probability", o->xtc_probability, -1e9f, 1.0f},
        {"xtc_threshold", o->xtc_threshold, 0.0f, 1e9f},
        {"repeat_penalty", o->repeat_penalty, 1e-6f, 1e9f},
        {"presence_penalty", o->presence_penalty, -1e9f, 1e9f},
        {"frequency_penalty", o->frequency_penalty, -1e9f, 1e9f},
        {"dry_multiplier", o->dry_multiplier, 0.0f, 1e9f},
        {"dry_base", o->dry_base, 0.0f, 1e9f},
        {"mirostat_tau", o->mirostat_tau, 0.0f, 1e9f},
        {"mirostat_eta", o->mirostat_eta, 0.0f, 1e9f},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const float_range *r = &ranges[i];
        if (!(r->value >= r->low && r->value <= r->high)) /* also catches NaN */
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "sampler: %s must be within %g and %g, found %g", r->name, (double)r->low,
                            (double)r->high, (double)r->value);
    }
    if (n_vocab < 1)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "sampler: the vocabulary must hold at least 1 token, found %d", n_vocab);
    if (o->mirostat != 0 && o->mirostat != 2)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "sampler: mirostat must be 0 or 2, found %d", o->mirostat);
    if (o->penalty_last_n < -1 || o->dry_last_n < -1 || o->dry_allowed_length < 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "sampler: penalty_last_n (%d) and dry_last_n (%d) must be -1 or more, "
                        "dry_allowed_length (%d) 0 or more",
                        o->penalty_last_n, o->dry_last_n, o->dry_allowed_length);
    if (o->n_biases < 0 || (o->n_biases > 0 && !o->biases) || o->n_dry_breakers < 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "sampler: %d biases, %d breakers", o->n_biases, o->n_dry_breakers);
    for (int32_t i = 0; i < o->n_biases; i++) {
        const sampler_bias *b = &o->biases[i];
        if (b->id < 0 || b->id >= n_vocab || isnan(b->bias))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "sampler: bias %d is for token %d with %g; tokens are 0 to %d", i, b->id,
                            (double)b->bias, n_vocab - 1);
    }
    return DIL_OK;
}

static int32_t window_of(int32_t last_n) { return last_n < 0 || last_n > HISTORY_MAX ? HISTORY_MAX : last_n; }

static dil_status take_memory(sampler *s, const vocab *v, dil_error *err)
{
    const sampler_options *o = &s->o;
    size_t n = (size_t)s->n_vocab;
    int32_t window = 0;

    s->c.v = mem_calloc(n, sizeof *s->c.v, MEM_SAMPLING);
    s->adjusted = mem_calloc(n, sizeof *s->adjusted, MEM_SAMPLING);
    s->biases = mem_calloc((size_t)o->n_biases, sizeof *s->biases, MEM_SAMPLING);
    if (!s->c.v || !s->adjusted || !s->biases)
        return DIL_FAIL(err, DIL_NO_MEMORY, "sampler: no memory for %d candidates", s->n_vocab);
    if (o->n_biases > 0)
        memcpy(s->biases, o->biases, (size_t)o->n_biases * sizeof *s->biases);
    s->o.biases = s->biases;
    if (s->uses_penalties) {
        window = window_of(o->penalty_last_n);
        DIL_TRY(penalty_init(&s->penalties, s->n_vocab, window, err));
    }
    if (s->uses_dry) {
        window = window_of(o->dry_last_n) > window ? window_of(o->dry_last_n) : window;
        DIL_TRY(dry_init(&s->dry, o, v, s->n_vocab, err));
    }
    s->o.dry_breakers = NULL; /* borrowed during creation only */
    return history_setup(&s->past, window, err);
}

dil_status sampler_new(sampler **out, const sampler_options *options, const vocab *v, int32_t n_vocab, dil_error *err)
{
    DIL_TRY(check_options(options, n_vocab, err));
    sampler *s = mem_calloc(1, sizeof *s, MEM_SAMPLING);
    if (!s)
        return DIL_FAIL(err, DIL_NO_MEMORY, "sampler: no memory");
    s->o = *options;
    s->n_vocab = n_vocab;
    s->uses_penalties = s->o.penalty_last_n != 0 &&
                        (s->o.repeat_penalty != 1.0f || s->o.presence_penalty != 0.0f || s->o.frequency_penalty != 0.0f);
    s->uses_dry = s->o.dry_multiplier != 0.0f && s->o.dry_base >= 1.0f && s->o.dry_last_n != 0;
    dil_status status = take_memory(s, v, err);
    if (status != DIL_OK) {
        sampler_free(s);
        return status;
    }
    sampler_reset(s);
    *out = s;
    return DIL_OK;
}

void sampler_free(sampler *s)
{
    if (!s)
        return;
    mem_free(s->c.v);
    mem_free(s->adjusted);
    mem_free(s->biases);
    penalty_free(&s->penalties);
    dry_free(&s->dry);
    history_free(&s->past);
    mem_free(s);
}

void sampler_reset(sampler *s)
{
    s->past.n = 0;
    s->past.next = 0;
    if (s->uses_penalties)
        penalty_reset(&s->penalties);
    s->mu = 2.0f * s->o.mirostat_tau;
    s->logits = NULL;
    s->picked = TOKEN_NONE;
}

void sampler_accept(sampler *s, token_id id)
{
    if (id < 0 || id >= s->n_vocab)
        return;
    if (s->uses_penalties)
        penalty_push(&s->penalties, &s->past, id);
    history_push(&s->past, id);
}

static bool allowed(const uint32_t *mask, int32_t id) { return !mask || (mask[id / 32] >> (id % 32) & 1u) != 0; }

static void apply_mask(float *logits, int32_t n, const uint32_t *mask)
{
    for (int32_t word = 0; word * 32 < n; word++) {
        if (mask[word] == UINT32_MAX)
            continue;
        int32_t end = word * 32 + 32 < n ? word * 32 + 32 : n;
        for (int32_t id = word * 32; id < end; id++)
            logits[id] = allowed(mask, id) ? logits[id] : -INFINITY;
    }
}

/*
 * The logits after bias, penalties, DRY and mask; the caller's own array when none of them is in
 * use.
 */
static const float *adjust(sampler *s, const float *logits, const uint32_t *mask)
{
    if (s->o.n_biases == 0 && !s->uses_penalties && !s->uses_dry && !mask)
        return logits;
    memcpy(s->adjusted, logits, (size_t)s->n_vocab * sizeof *logits);
    for (int32_t i = 0; i < s->o.n_biases; i++)
        s->adjusted[s->biases[i].id] += s->biases[i].bias;
    if (s->uses_penalties)
        penalty_apply(&s->penalties, &s->o, s->adjusted);
    if (s->uses_dry)
        dry_apply(&s->dry, &s->past, &s->o, s->adjusted);
    if (mask)
        apply_mask(s->adjusted, s->n_vocab, mask);
    return s->adjusted;
}

/* The largest logit, lowest id of equals, in one pass; TOKEN_NONE when none is above -inf. */
static token_id argmax(const float *logits, int32_t n)
{
    enum { BLOCK = 64 };
    float best = -INFINITY;
    token_id at = TOKEN_NONE;
    for (int32_t i = 0; i < n; i += BLOCK) {
        int32_t end = i + BLOCK < n ? i + BLOCK : n;
        int any = 0;
        for (int32_t j = i; j < end; j++) /* branchless: vector compares */
            any |= logits[j] > best;
        for (int32_t j = i; any && j < end; j++) {
            if (logits[j] > best) {
                best = logits[j];
                at = j;
            }
        }
    }
    return at;
}

static token_id lowest_allowed(const uint32_t *mask, int32_t n)
{
    for (int32_t id = 0; id < n; id++) {
        if (allowed(mask, id))
            return id;
    }
    return TOKEN_NONE;
}

/*
 * Mirostat 2 (Basu et al. 2021): cut what surprises by more than mu bits, draw, move mu towards the
 * target tau.
 */
static token_id draw_mirostat(sampler *s, double u)
{
    candidates *c = &s->c;
    (void)candidates_softmax(c, s->o.temperature);
    candidates_limit_surprise(c, s->mu);
    double sum = candidates_softmax(c, s->o.temperature);
    int32_t i = candidates_draw(c, sum, u);
    float surprise = (float)-log2((double)c->v[i].p / sum);
    s->mu -= s->o.mirostat_eta * (surprise - s->o.mirostat_tau);
    return c->v[i].id;
}

static void apply_truncations(sampler *s, uint64_t position)
{
    const sampler_options *o = &s->o;
    if (o->typical_p < 1.0f)
        candidates_typical(&s->c, o->typical_p);
    if (o->top_p < 1.0f)
        candidates_top_p(&s->c, o->top_p);
    if (o->min_p > 0.0f)
        candidates_min_p(&s->c, o->min_p);
    if (o->xtc_probability > 0.0f && o->xtc_threshold <= 0.5f &&
        rng_uniform(o->seed, position, DRAW_XTC) <= (double)o->xtc_probability)
        candidates_xtc(&s->c, o->xtc_threshold);
}

/*
 * Temperature 0 is the largest logit. Of the truncations only typical and XTC can remove that one.
 */
static bool is_plain_greedy(const sampler_options *o)
{
    return o->temperature <= 0.0f && (o->mirostat == 2 || (o->typical_p >= 1.0f && o->xtc_probability <= 0.0f));
}

static token_id choose(sampler *s, const float *logits, uint64_t position)
{
    const sampler_options *o = &s->o;
    if (is_plain_greedy(o))
        return argmax(logits, s->n_vocab);
    if (o->mirostat == 0 && o->top_k > 0 && o->top_k < s->n_vocab)
        candidates_gather_top_k(&s->c, logits, s->n_vocab, o->top_k);
    else
        candidates_gather(&s->c, logits, s->n_vocab);
    if (s->c.n == 0)
        return TOKEN_NONE;
    double u = rng_uniform(o->seed, position, DRAW_TOKEN);
    if (o->mirostat == 2)
        return draw_mirostat(s, u);
    apply_truncations(s, position);
    if (o->temperature <= 0.0f)
        return s->c.v[candidates_best(&s->c)].id;
    double sum = candidates_softmax(&s->c, o->temperature);
    return s->c.v[candidates_draw(&s->c, sum, u)].id;
}

token_id sampler_pick(sampler *s, const float *logits, uint64_t position, const uint32_t *mask)
{
    token_id id = choose(s, adjust(s, logits, mask), position);
    if (id == TOKEN_NONE)
        id = lowest_allowed(mask, s->n_vocab);
    s->logits = logits;
    s->picked = id;
    return id;
}

float sampler_last_probability(const sampler *s)
{
    if (!s->logits || s->picked == TOKEN_NONE)
        return 0.0f;
    token_id top = argmax(s->logits, s->n_vocab);
    if (top == TOKEN_NONE || !(s->logits[s->picked] > -INFINITY))
        return 0.0f;
    float best = s->logits[top];
    double sum = 0.0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        float d = s->logits[i] - best;
        sum += isnan(s->logits[i]) ? 0.0 : isnan(d) ? 1.0 : (double)expf(d); /* inf - inf: one of the largest */
    }
    float d = s->logits[s->picked] - best;
    return (float)((isnan(d) ? 1.0 : (double)expf(d)) / sum);
}
