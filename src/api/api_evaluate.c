/* Measuring models: src/evaluate/ behind the public header. */
#include <string.h>

#include "api/arguments.h"
#include "evaluate/bleu.h"
#include "evaluate/evaluate.h"

static engine *inner(const dil_engine *e) { return (engine *)(uintptr_t)e; }

/* A lone layer of experts says no next token. */
static dil_status need_language(const dil_engine *e, const char *what, dil_error *err)
{
    DIL_TRY(need(e, what, err));
    if (engine_vocab(inner(e)))
        return DIL_OK;
    return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: wanted a language model, found a layer of experts alone", what);
}

typedef struct logits_run {
    float *to; /* [n][n_vocab] */
    size_t n_vocab;
} logits_run;

static bool keep_logits(void *ctx, int32_t i, const float *logits)
{
    const logits_run *r = ctx;
    memcpy(r->to + (size_t)i * r->n_vocab, logits, r->n_vocab * sizeof *logits);
    return true;
}

dil_status dil_logits(dil_engine *e, const int32_t *tokens, size_t n, float *logits, dil_error *err)
{
    session *s;
    DIL_TRY(need_language(e, "dil_logits", err));
    if (n == 0)
        return DIL_OK;
    DIL_TRY(need(tokens, "dil_logits: tokens", err));
    DIL_TRY(need(logits, "dil_logits: logits", err));
    if (n > (size_t)engine_context(inner(e)))
        return DIL_FAIL(err, DIL_LIMIT, "dil_logits: wanted at most %d tokens, the engine's context, found %zu",
                        engine_context(inner(e)), n);
    logits_run run = {logits, (size_t)engine_n_vocab(inner(e))};
    DIL_TRY(session_new(&s, inner(e), err));
    dil_status status = session_eval(s, tokens, (int32_t)n, NULL, keep_logits, &run, err);
    session_free(s);
    return status;
}

/* The caller's progress as evaluate asks for it. */
typedef struct teller {
    dil_progress_fn progress;
    void *user;
} teller;

static bool tell(void *user, int32_t done, int32_t total, double value, double error)
{
    const teller *t = user;
    (void)value, (void)error;
    return t->progress(t->user, "chunks", (uint64_t)done, (uint64_t)total);
}

dil_status dil_perplexity_measure(dil_engine *e, const char *text, size_t text_bytes, int32_t n_context, int32_t n_chunks,
                                  const char *base_path, dil_progress_fn progress, void *user, dil_perplexity *out, dil_error *err)
{
    perplexity_result r;
    DIL_TRY(need_language(e, "dil_perplexity_measure", err));
    DIL_TRY(need(text, "dil_perplexity_measure: text", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_perplexity", err));
    teller t = {progress, user};
    const perplexity_options o = {.context = n_context ? n_context : 512,
                                  .n_chunks = n_chunks,
                                  .save_base = base_path,
                                  .report = progress ? tell : NULL,
                                  .user = &t};
    if (o.context < 4 || o.context > engine_context(inner(e)) || n_chunks < 0)
        return DIL_FAIL(
            err, DIL_BAD_ARGUMENT,
            "dil_perplexity_measure: wanted 4..%d tokens of context (the engine's) and chunks of at least 0, found %d and %d",
            engine_context(inner(e)), o.context, n_chunks);
    DIL_TRY(evaluate_perplexity(inner(e), (str){text, text_bytes}, &o, &r, err));
    const dil_perplexity own = {.perplexity = r.perplexity, .error = r.error, .n_chunks = r.n_chunks, .n_scored = r.n_scored};
    give_struct(out, &own, sizeof own);
    return DIL_OK;
}

dil_status dil_divergence_measure(dil_engine *e, const char *base_path, dil_progress_fn progress, void *user, dil_divergence *out,
                                  dil_error *err)
{
    teller t = {progress, user};
    divergence_result r;
    DIL_TRY(need_language(e, "dil_divergence_measure", err));
    DIL_TRY(need(base_path, "dil_divergence_measure: base_path", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_divergence", err));
    DIL_TRY(evaluate_divergence(inner(e), base_path, 0, progress ? tell : NULL, &t, &r, err));
    const dil_divergence own = {.mean_kld = r.mean_kld,
                                .kld_error = r.kld_error,
                                .max_kld = r.max_kld,
                                .median_kld = r.median_kld,
                                .same_top = r.same_top,
                                .perplexity = r.perplexity,
                                .base_perplexity = r.base_perplexity,
                                .n_scored = r.n_scored};
    give_struct(out, &own, sizeof own);
    return DIL_OK;
}

dil_status dil_bleu_measure(const char *hypothesis, size_t hypothesis_bytes, const char *reference, size_t reference_bytes,
                            int32_t n_resamples, dil_bleu *out, dil_error *err)
{
    bleu_result r;
    DIL_TRY(need(hypothesis, "dil_bleu_measure: hypothesis", err));
    DIL_TRY(need(reference, "dil_bleu_measure: reference", err));
    DIL_TRY(need_struct(out, sizeof *out, "dil_bleu", err));
    const bleu_text texts[] = {{"hypothesis", {hypothesis, hypothesis_bytes}}, {"reference", {reference, reference_bytes}}};
    DIL_TRY(evaluate_bleu(&texts[0], 1, &texts[1], 1, &(bleu_options){.n_resamples = n_resamples, .seed = BLEU_SEED}, &r, err));
    const bleu_system *s = &r.system[0];
    dil_bleu own = {.bleu = s->bleu.value,
                    .bleu_low = s->bleu.low,
                    .bleu_high = s->bleu.high,
                    .chrf = s->chrf.value,
                    .chrf_low = s->chrf.low,
                    .chrf_high = s->chrf.high,
                    .brevity_penalty = s->brevity_penalty,
                    .ratio = s->ratio,
                    .hyp_len = s->hyp_len,
                    .ref_len = s->ref_len,
                    .n_lines = r.n_lines};
    memcpy(own.precision, s->precision, sizeof own.precision);
    give_struct(out, &own, sizeof own);
    return DIL_OK;
}
