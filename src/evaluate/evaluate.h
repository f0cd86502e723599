/*
 * Measuring a model: perplexity, divergence from a base model, multiple choice, raw logits. Protocols and files are those of
 * llama-perplexity, so that numbers can be compared: text is cut into chunks of `context` tokens, the first of a chunk becomes
 * BOS when the model wants one, and the second half of each chunk is scored.
 */
#ifndef EVALUATE_EVALUATE_H
#define EVALUATE_EVALUATE_H

#include "engine/engine.h"

/* Called after every chunk or task with the running result; returns false to cancel. */
typedef bool (*evaluate_report_fn)(void *user, int32_t done, int32_t total, double value, double error);

typedef struct perplexity_options {
    int32_t context;       /* tokens per chunk; the engine's context must hold it */
    int32_t n_chunks;      /* 0: all */
    const char *save_base; /* NULL, or where to write the log-probabilities (llama-perplexity's base file) */
    evaluate_report_fn report;
    void *user;
} perplexity_options;

typedef struct perplexity_result {
    double perplexity, error; /* error: standard error of the mean, propagated */
    double mean_nll;
    int32_t n_chunks;
    int64_t n_scored;
} perplexity_result;

/* LIMIT when the text has fewer tokens than one chunk. */
DIL_MUST_CHECK dil_status evaluate_perplexity(engine *e, str text, const perplexity_options *options, perplexity_result *out,
                                              dil_error *err);

typedef struct divergence_result {
    int64_t n_scored;
    int32_t n_chunks, context;
    double perplexity, perplexity_error, base_perplexity, base_perplexity_error;
    /* ln(PPL / PPL base). The base's probabilities are those of its file, which keeps 16 bits of each and none further than e^-16 from
     * the largest: its perplexity, as llama-perplexity's, lies below that of the same text measured directly. */
    double log_ratio, log_ratio_error;
    double mean_kld, kld_error, max_kld, kld_999, kld_99, kld_95, kld_90, median_kld;
    double rms_dp;                   /* root mean square of p - p_base of the true token */
    double same_top, same_top_error; /* share of positions whose most probable token agrees */
} divergence_result;

/* base_path: written by evaluate_perplexity or llama-perplexity --kl-divergence-base; it carries the tokens. */
DIL_MUST_CHECK dil_status evaluate_divergence(engine *e, const char *base_path, int32_t n_chunks, evaluate_report_fn report,
                                              void *user, divergence_result *out, dil_error *err);
/* Context a base file needs. */
DIL_MUST_CHECK dil_status evaluate_base_context(const char *base_path, int32_t *context, dil_error *err);

typedef struct choice_result {
    int32_t n_tasks, n_right;
    double score, low, high; /* percent, with the 95 % Wilson interval */
} choice_result;

/* HellaSwag: six lines a task (context, index of the right ending, four endings); acc_norm. n_tasks 0: all, else the first. */
DIL_MUST_CHECK dil_status evaluate_hellaswag(engine *e, str text, int32_t n_tasks, evaluate_report_fn report, void *user,
                                             choice_result *out, dil_error *err);

/* Logits of every token into a NumPy file: float32 [n, n_vocab]. */
DIL_MUST_CHECK dil_status evaluate_logits(engine *e, const token_id *tokens, int32_t n, const char *npy_path, dil_error *err);

/* ln softmax(logits)[id], from max and the sum of exponentials; *max_out and *log_sum_out may be NULL. */
double evaluate_log_probability(const kernels *k, const float *logits, int32_t n_vocab, token_id id, float *max_out,
                                double *log_sum_out);

#endif
