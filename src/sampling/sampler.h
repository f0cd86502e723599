/*
 * From logits to the next token. Order: bias, penalties, DRY, then top-k, typical, top-p, min-p,
 * XTC, temperature (or mirostat 2 in their place), then the draw. Ties go to the lowest id.
 * Randomness is a counter-based generator keyed by (seed, position): the same seed gives the same
 * text whatever else runs. No allocation after sampler_new.
 */
#ifndef SAMPLING_SAMPLER_H
#define SAMPLING_SAMPLER_H

#include "dilmodeli.h"
#include "tokens/vocab.h"

typedef struct sampler_bias {
    token_id id;
    float bias;
} sampler_bias;

typedef struct sampler_options {
    uint64_t seed;
    float temperature;                         /* <= 0: greedy (the largest logit that typical and XTC leave) */
    int32_t top_k;                             /* <= 0: off */
    float top_p;                               /* >= 1: off */
    float min_p;                               /* <= 0: off */
    float typical_p;                           /* >= 1: off */
    float xtc_probability;                     /* <= 0: off */
    float xtc_threshold;                       /* > 0.5: off */
    float repeat_penalty;                      /* 1: off */
    float presence_penalty, frequency_penalty; /* 0: off */
    int32_t penalty_last_n;                    /* tokens looked back on; 0: off; -1: all (the last 2^20) */
    float dry_multiplier;                      /* 0: off */
    float dry_base;
    int32_t dry_allowed_length, dry_last_n; /* last_n 0: off; -1: all (the last 2^20) */
    const char *const *dry_breakers;        /* NULL: "\n", ":", "\"", "*" */
    int32_t n_dry_breakers;
    int32_t mirostat; /* 0: off, 2 */
    float mirostat_tau, mirostat_eta;
    const sampler_bias *biases;
    int32_t n_biases;
} sampler_options;

/*
 * llama.cpp's defaults: temperature 0.8, top_k 40, top_p 0.95, min_p 0.05, everything else off,
 * penalty_last_n 64.
 */
sampler_options sampler_options_default(void);

typedef struct sampler sampler;

/*
 * vocab is borrowed for DRY's breakers (may be NULL). Options are checked; BAD_ARGUMENT names the
 * field and its range.
 */
DIL_MUST_CHECK dil_status sampler_new(sampler **out, const sampler_options *options, const vocab *v, int32_t n_vocab,
                                      dil_error *err);
void sampler_free(sampler *s);
/*
 * logits: [n_vocab], not changed. position: index of the token to be drawn in its sequence. mask:
 * NULL or a bit per token (bit id % 32 of word id / 32), 1 allowed. NaN counts as -inf. When every
 * allowed logit is -inf: the lowest allowed id; when the mask allows nothing: TOKEN_NONE.
 */
token_id sampler_pick(sampler *s, const float *logits, uint64_t position, const uint32_t *mask);
/* Tells the sampler which token really came next (also for the prompt, for penalties and DRY). */
void sampler_accept(sampler *s, token_id id);
void sampler_reset(sampler *s);
/*
 * After a pick: probability of the picked token under softmax(logits), before bias, penalties and
 * truncation. Computed here, from the logits given to the pick, which must still be there
 * unchanged: one who does not ask does not pay.
 */
float sampler_last_probability(const sampler *s);

/*
 * The generator, Philox4x32-10 with key = seed and counter = (position, draw): 64 random bits. Draw
 * 0 of a position picks the token, draw 1 decides about XTC.
 */
uint64_t rng_bits(uint64_t seed, uint64_t position, uint64_t draw);
double rng_uniform(uint64_t seed, uint64_t position, uint64_t draw); /* [0, 1) */

#endif
