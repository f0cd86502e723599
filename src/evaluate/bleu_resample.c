/*
 * The bootstrap: lines drawn with replacement, scores of the sums of their counts. All systems and both scores meet the same lines, so that
 * differences are paired. The l-th line of resample r depends on the seed, r and l alone.
 */
#include <math.h>

#include "base/mem.h"
#include "base/status.h"
#include "evaluate/bleu_internal.h"
#include "evaluate/statistics.h"
#include "sampling/sampler.h"

/* Scores of every resample: [system][n_resamples], then the differences. */
typedef struct sample_scores {
    double *bleu[2], *chrf[2], *difference;
} sample_scores;

static void sum_lines(const int32_t *counts, int n_systems, int32_t n_lines, uint64_t seed, uint64_t resample,
                      int64_t sum[2][BLEU_COUNTS])
{
    memset(sum, 0, 2 * sizeof sum[0]);
    for (int32_t l = 0; l < n_lines; l++) {
        const size_t line = (size_t)(rng_uniform(seed, resample, (uint64_t)l) * n_lines);
        for (int s = 0; s < n_systems; s++) {
            const int32_t *row = counts + ((size_t)s * (size_t)n_lines + line) * BLEU_COUNTS;
            for (int i = 0; i < BLEU_COUNTS; i++)
                sum[s][i] += row[i];
        }
    }
}

static dil_status score_samples(const int32_t *counts, int n_systems, int32_t n_lines, const bleu_options *o, sample_scores *out,
                                dil_error *err)
{
    for (int32_t r = 0; r < o->n_resamples; r++) {
        int64_t sum[2][BLEU_COUNTS];
        sum_lines(counts, n_systems, n_lines, o->seed, (uint64_t)r, sum);
        for (int s = 0; s < n_systems; s++) {
            bleu_system scores;
            bleu_score(sum[s], &scores);
            out->bleu[s][r] = scores.bleu.value;
            out->chrf[s][r] = scores.chrf.value;
        }
        if (o->progress && !o->progress(o->user, "resampling", (uint64_t)r + 1, (uint64_t)o->n_resamples))
            return DIL_FAIL(err, DIL_CANCELLED, "bleu: cancelled after %d resamples", r + 1);
    }
    return DIL_OK;
}

/* Sorts the scores. */
static void set_interval(double *scores, int32_t n, bleu_estimate *out)
{
    statistics_sort(scores, n);
    out->low = scores[n / 40];
    out->high = scores[n - n / 40 - 1];
}

/* first and second: in the order of the resamples. */
static void set_difference(const double *first, const double *second, double *scratch, int32_t n, bleu_difference *out)
{
    int32_t as_large = 0;
    for (int32_t r = 0; r < n; r++) {
        scratch[r] = second[r] - first[r];
        as_large += fabs(scratch[r] - out->estimate.value) >= fabs(out->estimate.value);
    }
    out->p = (as_large + 1.0) / (n + 1.0);
    set_interval(scratch, n, &out->estimate);
}

dil_status bleu_resample(const int32_t *counts, int n_systems, int32_t n_lines, const bleu_options *o, bleu_result *out,
                         dil_error *err)
{
    const size_t n = (size_t)o->n_resamples;
    double *all = mem_alloc(5 * n * sizeof *all, MEM_MISC);
    if (!all)
        return DIL_FAIL(err, DIL_NO_MEMORY, "bleu: no memory for %zu resamples", n);
    sample_scores scores = {{all, all + n}, {all + 2 * n, all + 3 * n}, all + 4 * n};
    const dil_status status = score_samples(counts, n_systems, n_lines, o, &scores, err);
    if (status == DIL_OK && n_systems == 2) {
        set_difference(scores.bleu[0], scores.bleu[1], scores.difference, o->n_resamples, &out->bleu);
        set_difference(scores.chrf[0], scores.chrf[1], scores.difference, o->n_resamples, &out->chrf);
    }
    for (int s = 0; s < n_systems && status == DIL_OK; s++) {
        set_interval(scores.bleu[s], o->n_resamples, &out->system[s].bleu);
        set_interval(scores.chrf[s], o->n_resamples, &out->system[s].chrf);
    }
    mem_free(all);
    return status;
}
