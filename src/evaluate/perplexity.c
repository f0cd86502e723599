#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "evaluate/base_file.h"
#include "evaluate/evaluate.h"

double evaluate_log_probability(const kernels *k, const float *logits, int32_t n_vocab, token_id id, float *max_out,
                                double *log_sum_out)
{
    int64_t at;
    float top = k->argmax(logits, n_vocab, &at);
    double log_sum = log(k->sum_exp(logits, n_vocab, top));
    if (max_out)
        *max_out = top;
    if (log_sum_out)
        *log_sum_out = log_sum;
    return (double)logits[id] - (double)top - log_sum;
}

/* Mean and its standard error. */
static void mean_error(double sum, double sum2, int64_t n, double *mean, double *error)
{
    *mean = n > 0 ? sum / (double)n : 0.0;
    double var = n > 0 ? sum2 / (double)n - *mean * *mean : 0.0;
    *error = var > 0 && n > 10 ? sqrt(var / (double)(n - 1)) : 0.0;
}

/* ---- perplexity ---- */

typedef struct perplexity_run {
    engine *e;
    const token_id *tokens; /* of the chunk, as they are in the text */
    int32_t first;          /* first scored position */
    double sum, sum2;
    int64_t n;
    uint16_t *rows; /* base rows of the chunk, or NULL */
    size_t row_words;
} perplexity_run;

static bool score_position(void *ctx, int32_t i, const float *logits)
{
    perplexity_run *r = ctx;
    int32_t n_vocab = engine_n_vocab(r->e);
    double nll;
    if (r->rows)
        nll = base_encode(engine_kernels(r->e), logits, n_vocab, r->tokens[i + 1], r->rows + (size_t)(i - r->first) * r->row_words);
    else
        nll = -evaluate_log_probability(engine_kernels(r->e), logits, n_vocab, r->tokens[i + 1], NULL, NULL);
    r->sum += nll;
    r->sum2 += nll * nll;
    r->n++;
    return true;
}

/* One chunk from an empty session; each() sees the positions that wants marks. */
static dil_status run_chunk(engine *e, session *s, token_id *chunk, int32_t context, const bool *wants,
                            bool (*each)(void *, int32_t, const float *), void *ctx, dil_error *err)
{
    const vocab *v = engine_vocab(e);
    token_id kept = chunk[0];
    session_truncate(s, 0);
    if (vocab_adds_bos(v))
        chunk[0] = vocab_bos(v);
    dil_status status = session_eval(s, chunk, context - 1, wants, each, ctx, err);
    chunk[0] = kept;
    return status;
}

static dil_status write_base_header(os_writer *w, int32_t context, int32_t n_vocab, int32_t n_chunks, const token_id *tokens,
                                    dil_error *err)
{
    int32_t numbers[3] = {context, n_vocab, n_chunks};
    DIL_TRY(os_writer_write(w, "_logits_", 8, err));
    DIL_TRY(os_writer_write(w, numbers, sizeof numbers, err));
    return os_writer_write(w, tokens, (size_t)context * (size_t)n_chunks * sizeof *tokens, err);
}

static dil_status perplexity_chunks(engine *e, session *s, token_id *tokens, int32_t n_chunks, const perplexity_options *o,
                                    const bool *wants, os_writer *base, perplexity_run *run, dil_error *err)
{
    int32_t scored = o->context - 1 - run->first;
    for (int32_t i = 0; i < n_chunks; i++) {
        token_id *chunk = tokens + (size_t)i * (size_t)o->context;
        run->tokens = chunk;
        DIL_TRY(run_chunk(e, s, chunk, o->context, wants, score_position, run, err));
        if (run->rows)
            DIL_TRY(os_writer_write(base, run->rows, (size_t)scored * run->row_words * sizeof *run->rows, err));
        double mean, error;
        mean_error(run->sum, run->sum2, run->n, &mean, &error);
        if (o->report && !o->report(o->user, i + 1, n_chunks, exp(mean), exp(mean) * error))
            return DIL_FAIL(err, DIL_CANCELLED, "perplexity: cancelled after %d of %d chunks", i + 1, n_chunks);
    }
    return DIL_OK;
}

static bool *scored_positions(int32_t context)
{
    bool *wants = mem_calloc((size_t)context, sizeof *wants, MEM_MISC);
    for (int32_t i = context / 2; wants && i < context - 1; i++)
        wants[i] = true;
    return wants;
}

static dil_status perplexity_tokens(engine *e, token_list *list, const perplexity_options *o, perplexity_result *out,
                                    dil_error *err)
{
    int64_t available = (int64_t)list->n / o->context;
    if (available < 1)
        return DIL_FAIL(err, DIL_LIMIT, "text: wanted at least %d tokens (one chunk), found %zu; use a smaller -c", o->context,
                        list->n);
    int32_t n_chunks = o->n_chunks > 0 && o->n_chunks < available ? o->n_chunks : (int32_t)available;
    perplexity_run run = {.e = e, .first = o->context / 2, .row_words = base_row_words(engine_n_vocab(e))};
    size_t scored = (size_t)(o->context - 1 - run.first);
    os_writer base = {.fd = -1};
    session *s = NULL;
    bool *wants = scored_positions(o->context);
    dil_status status = wants ? session_new(&s, e, err) : DIL_FAIL(err, DIL_NO_MEMORY, "perplexity: no memory");
    if (status == DIL_OK && o->save_base) {
        run.rows = mem_calloc(scored, run.row_words * sizeof *run.rows, MEM_MISC);
        status =
            run.rows ? os_writer_open(&base, o->save_base, err) : DIL_FAIL(err, DIL_NO_MEMORY, "perplexity: no memory for a chunk");
        if (status == DIL_OK)
            status = write_base_header(&base, o->context, engine_n_vocab(e), n_chunks, list->ids, err);
    }
    if (status == DIL_OK)
        status = perplexity_chunks(e, s, list->ids, n_chunks, o, wants, &base, &run, err);
    if (status == DIL_OK && o->save_base)
        status = os_writer_commit(&base, err);
    os_writer_abort(&base);
    session_free(s);
    mem_free(run.rows);
    mem_free(wants);
    if (status != DIL_OK)
        return status;
    out->n_chunks = n_chunks;
    out->n_scored = run.n;
    mean_error(run.sum, run.sum2, run.n, &out->mean_nll, &out->error);
    out->perplexity = exp(out->mean_nll);
    out->error *= out->perplexity;
    return DIL_OK;
}

static dil_status check_context(const engine *e, int32_t context, dil_error *err)
{
    if (context < 4 || context > engine_context(e))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "context: wanted at least 4 tokens per chunk and at most the engine's %d, found %d",
                        engine_context(e), context);
    return DIL_OK;
}

dil_status evaluate_perplexity(engine *e, str text, const perplexity_options *options, perplexity_result *out, dil_error *err)
{
    token_list list = {0};
    DIL_TRY(check_context(e, options->context, err));
    dil_status status = vocab_encode(engine_vocab(e), text, true, false, &list, err);
    if (status == DIL_OK)
        status = perplexity_tokens(e, &list, options, out, err);
    token_list_free(&list);
    return status;
}

/* ---- divergence ---- */

typedef struct divergence_run {
    engine *e;
    const token_id *tokens;
    int32_t first;
    const uint16_t *rows;
    size_t row_words;
    double nll, nll2, base, base2, cross, kld, kld2, dp2;
    int64_t n, same_top;
    float *klds; /* [n_chunks * scored] */
} divergence_run;

static bool compare_position(void *ctx, int32_t i, const float *logits)
{
    divergence_run *r = ctx;
    const kernels *k = engine_kernels(r->e);
    int32_t n_vocab = engine_n_vocab(r->e);
    const uint16_t *row = r->rows + (size_t)(i - r->first) * r->row_words;
    token_id id = r->tokens[i + 1];
    float head[2], top;
    double log_sum;
    int64_t at;
    memcpy(head, row, sizeof head);
    row += 4;
    double nll = -evaluate_log_probability(k, logits, n_vocab, id, &top, &log_sum);
    double nll_base = -((double)head[0] * row[id] + (double)head[1]), kld = 0.0, shift = (double)top + log_sum;
    int32_t base_top = 0;
    k->argmax(logits, n_vocab, &at);
    for (int32_t j = 0; j < n_vocab; j++) {
        base_top = row[j] > row[base_top] ? j : base_top;
        float log_p = head[0] * (float)row[j] + head[1];
        if (log_p > -16.0f)
            kld += (double)expf(log_p) * ((double)log_p - ((double)logits[j] - shift));
    }
    double dp = exp(-nll) - exp(-nll_base);
    r->nll += nll;
    r->nll2 += nll * nll;
    r->base += nll_base;
    r->base2 += nll_base * nll_base;
    r->cross += nll * nll_base;
    r->kld += kld;
    r->kld2 += kld * kld;
    r->dp2 += dp * dp;
    r->same_top += at == base_top;
    r->klds[r->n++] = (float)kld;
    return true;
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(const float *sorted, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t i = (int64_t)at, j = i + 1 < n ? i + 1 : i;
    return (1.0 - (at - (double)i)) * (double)sorted[i] + (at - (double)i) * (double)sorted[j];
}

static void summarise(divergence_run *r, divergence_result *out)
{
    double n = (double)r->n, mean, error, base_mean, base_error;
    mean_error(r->nll, r->nll2, r->n, &mean, &error);
    mean_error(r->base, r->base2, r->n, &base_mean, &base_error);
    double covariance = r->n > 10 ? (r->cross / n - mean * base_mean) / (n - 1) : 0.0;
    double ratio_var = error * error + base_error * base_error - 2 * covariance;
    mean_error(r->kld, r->kld2, r->n, &out->mean_kld, &out->kld_error);
    out->n_scored = r->n;
    out->perplexity = exp(mean);
    out->perplexity_error = out->perplexity * error;
    out->base_perplexity = exp(base_mean);
    out->base_perplexity_error = out->base_perplexity * base_error;
    out->log_ratio = mean - base_mean;
    out->log_ratio_error = ratio_var > 0 ? sqrt(ratio_var) : 0.0;
    out->rms_dp = sqrt(r->dp2 / n);
    out->same_top = (double)r->same_top / n;
    out->same_top_error = r->n > 1 ? sqrt(out->same_top * (1 - out->same_top) / (n - 1)) : 0.0;
    qsort(r->klds, (size_t)r->n, sizeof *r->klds, ascending);
    out->max_kld = (double)r->klds[r->n - 1];
    out->kld_999 = quantile(r->klds, r->n, 0.999);
    out->kld_99 = quantile(r->klds, r->n, 0.99);
    out->kld_95 = quantile(r->klds, r->n, 0.95);
    out->kld_90 = quantile(r->klds, r->n, 0.90);
    out->median_kld = quantile(r->klds, r->n, 0.5);
}

static dil_status divergence_chunks(engine *e, session *s, const os_file *f, const base_header *h, int32_t n_chunks,
                                    token_id *tokens, uint16_t *rows, const bool *wants, divergence_run *run,
                                    evaluate_report_fn report, void *user, dil_error *err)
{
    uint64_t chunk_bytes = (uint64_t)(h->context - 1 - h->context / 2) * run->row_words * sizeof *rows;
    uint64_t data = BASE_HEADER_BYTES + (uint64_t)h->n_chunks * h->context * sizeof *tokens;
    for (int32_t i = 0; i < n_chunks; i++) {
        token_id *chunk = tokens + (size_t)i * h->context;
        DIL_TRY(os_file_read(f, data + (uint64_t)i * chunk_bytes, rows, chunk_bytes, err));
        run->tokens = chunk;
        DIL_TRY(run_chunk(e, s, chunk, (int32_t)h->context, wants, compare_position, run, err));
        double mean, error;
        mean_error(run->kld, run->kld2, run->n, &mean, &error);
        if (report && !report(user, i + 1, n_chunks, mean, error))
            return DIL_FAIL(err, DIL_CANCELLED, "divergence: cancelled after %d of %d chunks", i + 1, n_chunks);
    }
    return DIL_OK;
}

static dil_status check_tokens(const token_id *tokens, size_t n, int32_t n_vocab, const char *path, dil_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return DIL_FAIL(err, DIL_FORMAT, "%s: byte %zu: wanted a token below %d, found %d", path, BASE_HEADER_BYTES + 4 * i,
                            n_vocab, tokens[i]);
    return DIL_OK;
}

static dil_status divergence_file(engine *e, const os_file *f, const char *path, int32_t max_chunks, evaluate_report_fn report,
                                  void *user, divergence_result *out, dil_error *err)
{
    base_header h;
    DIL_TRY(base_read_header(f, path, &h, err));
    if (h.n_vocab != engine_n_vocab(e))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: made with a vocabulary of %d tokens, this model has %d", path, h.n_vocab,
                        engine_n_vocab(e));
    DIL_TRY(check_context(e, (int32_t)h.context, err));
    int32_t n_chunks = max_chunks > 0 && max_chunks < h.n_chunks ? max_chunks : h.n_chunks;
    size_t n_tokens = (size_t)n_chunks * h.context, scored = h.context - 1 - h.context / 2;
    divergence_run run = {.e = e, .first = (int32_t)h.context / 2, .row_words = base_row_words(h.n_vocab)};
    session *s = NULL;
    bool *wants = scored_positions((int32_t)h.context);
    token_id *tokens = mem_calloc(n_tokens, sizeof *tokens, MEM_MISC);
    uint16_t *rows = mem_calloc(scored, run.row_words * sizeof *rows, MEM_MISC);
    run.klds = mem_calloc((size_t)n_chunks * scored, sizeof *run.klds, MEM_MISC);
    run.rows = rows;
    dil_status status =
        wants && tokens && rows && run.klds ? session_new(&s, e, err) : DIL_FAIL(err, DIL_NO_MEMORY, "divergence: no memory");
    if (status == DIL_OK)
        status = os_file_read(f, BASE_HEADER_BYTES, tokens, n_tokens * sizeof *tokens, err);
    if (status == DIL_OK)
        status = check_tokens(tokens, n_tokens, h.n_vocab, path, err);
    if (status == DIL_OK)
        status = divergence_chunks(e, s, f, &h, n_chunks, tokens, rows, wants, &run, report, user, err);
    if (status == DIL_OK) {
        summarise(&run, out);
        out->n_chunks = n_chunks;
        out->context = (int32_t)h.context;
    }
    session_free(s);
    mem_free(run.klds);
    mem_free(rows);
    mem_free(tokens);
    mem_free(wants);
    return status;
}

dil_status evaluate_divergence(engine *e, const char *base_path, int32_t n_chunks, evaluate_report_fn report, void *user,
                               divergence_result *out, dil_error *err)
{
    os_file f;
    DIL_TRY(os_file_open(&f, base_path, err));
    dil_status status = divergence_file(e, &f, base_path, n_chunks, report, user, out, err);
    os_file_close(&f);
    return status;
}

dil_status evaluate_base_context(const char *base_path, int32_t *context, dil_error *err)
{
    os_file f;
    base_header h;
    DIL_TRY(os_file_open(&f, base_path, err));
    dil_status status = base_read_header(&f, base_path, &h, err);
    os_file_close(&f);
    if (status == DIL_OK)
        *context = (int32_t)h.context;
    return status;
}
