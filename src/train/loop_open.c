/* A run up to its first step: checks, directory, vocabulary, texts, network, optimiser, checkpoint, log. */
#include <stdio.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "file/gguf.h"
#include "model/vocab_load.h"
#include "train/loop_internal.h"
#include "train/tokenizer.h"

#define MOST_VOCAB 65536 /* tokens are kept as 16 bits */
#define PRE "qwen2"

void run_path(const run *r, const char *name, char out[RUN_PATH_BYTES])
{
    snprintf(out, RUN_PATH_BYTES, "%s/%s", r->c.output, name);
}

/* ---- vocabulary ---- */

/* Texts of the training parts, and weights that let every source count as its share of the batches says. */
typedef struct training_texts {
    char *owned[CORPUS_MOST_SOURCES];
    str texts[CORPUS_MOST_SOURCES];
    double weights[CORPUS_MOST_SOURCES];
} training_texts;

static dil_status read_texts(const run *r, training_texts *t, dil_error *err)
{
    double total = 0, bytes = 0;
    for (int i = 0; i < r->c.n_sources; i++) {
        size_t n, n_train;
        DIL_TRY(corpus_read(&r->c.sources[i], &t->owned[i], &n, &n_train, err));
        t->texts[i] = (str){t->owned[i], n_train};
        total += r->c.sources[i].weight;
        bytes += (double)n_train;
    }
    for (int i = 0; i < r->c.n_sources; i++)
        t->weights[i] = t->texts[i].n ? r->c.sources[i].weight / total * bytes / (double)t->texts[i].n : 1.0;
    return DIL_OK;
}

static dil_status train_vocabulary(const run *r, const char *path, dil_error *err)
{
    training_texts t = {0};
    tokenizer_options o = {.n_vocab = r->c.vocab_size,
                           .texts = t.texts,
                           .weights = t.weights,
                           .n_texts = r->c.n_sources,
                           .pre = PRE,
                           .progress = r->o->progress,
                           .user = r->o->user};
    dil_status status = read_texts(r, &t, err);
    if (status == DIL_OK)
        status = tokenizer_train(path, &o, err);
    for (int i = 0; i < CORPUS_MOST_SOURCES; i++)
        mem_free(t.owned[i]);
    return status;
}

static dil_status copy_vocabulary(const char *from, const char *path, dil_error *err)
{
    gguf *g;
    gguf_writer *w;
    gguf_options header = {.header_only = true};
    DIL_TRY(gguf_open(&g, from, &header, err));
    dil_status status = gguf_writer_new(&w, path, err);
    if (status != DIL_OK)
        goto done;
    status = gguf_writer_copy_prefixed(w, g, "tokenizer.", NULL, err);
    if (status == DIL_OK)
        status = gguf_writer_finish(w, err);
    else
        gguf_writer_abort(w);
done:
    gguf_close(g);
    return status;
}

static dil_status load_vocabulary(run *r, const char *path, dil_error *err)
{
    gguf *g;
    gguf_options header = {.header_only = true};
    DIL_TRY(gguf_open(&g, path, &header, err));
    dil_status status = vocab_from_gguf(&r->v, g, err);
    gguf_close(g);
    if (status == DIL_OK && vocab_size(r->v) > MOST_VOCAB)
        status = DIL_FAIL(err, DIL_UNSUPPORTED, "%s: wanted at most %d tokens, found %d", path, MOST_VOCAB, vocab_size(r->v));
    return status;
}

dil_status run_vocabulary(run *r, dil_error *err)
{
    char path[RUN_PATH_BYTES];
    run_path(r, "vocabulary.gguf", path);
    if (!r->o->resume)
        DIL_TRY(r->c.vocab_file[0] ? copy_vocabulary(r->c.vocab_file, path, err) : train_vocabulary(r, path, err));
    DIL_TRY(load_vocabulary(r, path, err));
    r->c.net.n_vocab = vocab_size(r->v);
    r->token_bytes = mem_calloc((size_t)r->c.net.n_vocab, sizeof *r->token_bytes, MEM_VOCAB);
    strbuf text = STRBUF((size_t)1 << 20);
    for (token_id id = 0; r->token_bytes && id < r->c.net.n_vocab; id++) {
        strbuf_clear(&text);
        vocab_decode_token(r->v, id, false, &text);
        r->token_bytes[id] = (uint32_t)text.n;
    }
    bool good = r->token_bytes && !text.failed;
    strbuf_free(&text);
    return good ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to read it", path);
}

/* ---- before anything long ---- */

/* Sizes and names, with a vocabulary of the size there will be. */
static dil_status check_config(const run *r, dil_error *err)
{
    net_config c = r->c.net;
    c.n_vocab = r->c.vocab_file[0] ? 300 : r->c.vocab_size;
    DIL_TRY(net_config_check(&c, err));
    if (r->o->n_threads < 1 || r->o->n_threads > TEAM_MAX)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "threads: wanted 1..%d, found %d", TEAM_MAX, r->o->n_threads);
    if ((uint64_t)r->c.n_sequences * (uint64_t)(c.n_context + 1) > INT32_MAX)
        return DIL_FAIL(err, DIL_LIMIT, "training.batch_size: wanted at most %d tokens in a step, found %d sequences of %d",
                        INT32_MAX, r->c.n_sequences, c.n_context);
    int pass = r->c.n_sequences / r->c.n_accumulate * c.n_context;
    if (pass > NET_MAX_TOKENS)
        return DIL_FAIL(
            err, DIL_LIMIT,
            "training.gradient_accumulation_steps: wanted at most %d tokens in a pass, found %d sequences of %d at once",
            NET_MAX_TOKENS, r->c.n_sequences / r->c.n_accumulate, c.n_context);
    return corpus_check_sources(r->c.sources, r->c.n_sources, err);
}

/* What decides which texts come in which order, and what the moments mean, must be what the checkpoint was made with. */
static dil_status check_same(const run *r, const train_config *was, dil_error *err)
{
    const train_config *c = &r->c;
    const char *key = c->seed != was->seed                       ? "seed"
                      : c->n_sequences != was->n_sequences       ? "training.batch_size"
                      : c->n_sources != was->n_sources           ? "corpora"
                      : c->optimiser.muon != was->optimiser.muon ? "training.muon"
                                                                 : NULL;
    for (int i = 0; i < c->n_sources && !key; i++) {
        const corpus_source *now = &c->sources[i], *then = &was->sources[i];
        key = strcmp(now->name, then->name) != 0 ? "corpora"
              : now->weight != then->weight      ? "corpora: weight"
              : now->held_out != then->held_out  ? "corpora: held_out"
                                                 : NULL;
    }
    if (key)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "%s: wanted as in the checkpoint of '%s', found otherwise; a run goes on as it began", key, c->output);
    if (r->state.step > c->n_steps)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "training.steps: wanted at least the %llu of the checkpoint, found %llu",
                        (unsigned long long)r->state.step, (unsigned long long)c->n_steps);
    return DIL_OK;
}

static dil_status check_checkpoint(run *r, const char *path, dil_error *err)
{
    if (!r->o->resume && os_exists(path))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: a run has been here; go on with --resume, or choose another output", path);
    if (!r->o->resume)
        return DIL_OK;
    if (!os_exists(path))
        return DIL_FAIL(err, DIL_IO, "%s: wanted the checkpoint of a run, found none; begin without --resume", path);
    train_config *was = mem_alloc(sizeof *was, MEM_MISC);
    if (!was)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to read it", path);
    dil_status status = checkpoint_open(path, was, &r->state, err);
    if (status == DIL_OK)
        status = check_same(r, was, err);
    mem_free(was);
    return status;
}

/* ---- network ---- */

static dil_status open_net(run *r, const char *checkpoint, dil_error *err)
{
    const train_config *c = &r->c;
    char level[sizeof r->state.level] = "";
    DIL_TRY(net_new(&r->n, &c->net, c->compute, r->n_pass * c->net.n_context, r->workers, &r->k, err));
    DIL_TRY(optimiser_new(&r->opt, r->n, &c->optimiser, r->workers, &r->k, err));
    snprintf(level, sizeof level, "%s %s", r->k.name, net_compute_of(r->n) == NET_COMPUTE_BF16 ? "bf16" : "f32");
    if (!r->o->resume) {
        memcpy(r->state.level, level, sizeof level);
        net_initialise(r->n, c->seed);
        return DIL_OK;
    }
    if (strcmp(level, r->state.level) != 0)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "%s: wanted the arithmetic it was computed with, '%s', found '%s'; see --cpu and training.compute",
                        checkpoint, r->state.level, level);
    return checkpoint_load(checkpoint, r->n, r->opt, err);
}

static dil_status open_buffers(run *r, dil_error *err)
{
    const train_config *c = &r->c;
    size_t context = (size_t)c->net.n_context;
    r->tokens = mem_calloc((size_t)c->n_sequences * (context + 1), sizeof *r->tokens, MEM_ACTIVATIONS);
    r->nats = mem_calloc((size_t)r->n_pass * context, sizeof *r->nats, MEM_ACTIVATIONS);
    return r->tokens && r->nats ? DIL_OK
                                : DIL_FAIL(err, DIL_NO_MEMORY, "training: no memory for a batch of %d sequences", c->n_sequences);
}

static dil_status open_texts(run *r, dil_error *err)
{
    const train_config *c = &r->c;
    corpus_options o = {.sources = c->sources,
                        .n_sources = c->n_sources,
                        .v = r->v,
                        .directory = c->output,
                        .context = c->net.n_context,
                        .seed = c->seed,
                        .n_threads = r->o->n_threads,
                        .progress = r->o->progress,
                        .user = r->o->user};
    DIL_TRY(corpus_open(&r->texts, &o, err));
    uint32_t texts = corpus_fingerprint(r->texts);
    if (r->state.texts != 0 && r->state.texts != texts)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "corpora: wanted the texts that the checkpoint of '%s' was trained on, found others; a run goes on as it "
                        "began",
                        c->output);
    r->state.texts = texts;
    return DIL_OK;
}

dil_status run_open(run *r, dil_error *err)
{
    train_config *c = &r->c;
    char checkpoint[RUN_PATH_BYTES], log[RUN_PATH_BYTES];
    run_path(r, "checkpoint.bin", checkpoint);
    run_path(r, "metrics.csv", log);
    DIL_TRY(check_config(r, err));
    DIL_TRY(kernels_select(&r->k, r->o->cpu, err));
    DIL_TRY(net_compute_check(c->compute, &r->k, err));
    DIL_TRY(os_make_dirs(c->output, err));
    DIL_TRY(check_checkpoint(r, checkpoint, err));
    DIL_TRY(run_vocabulary(r, err));
    DIL_TRY(open_texts(r, err));
    DIL_TRY(team_new(&r->workers, r->o->n_threads, err));
    r->n_pass = c->n_sequences / c->n_accumulate;
    double cached = c->cached_experts > 0 ? c->cached_experts : c->net.n_experts / 4.0;
    if (c->net.n_experts > 0)
        c->loss.recency = loss_recency(c->net.n_experts, c->net.n_used, cached);
    DIL_TRY(open_buffers(r, err));
    DIL_TRY(open_net(r, checkpoint, err));
    return metrics_open(&r->log, log, c, r->o->resume ? r->state.log_bytes : 0, err);
}

void run_close(run *r)
{
    metrics_close(r->log);
    optimiser_free(r->opt);
    net_free(r->n);
    team_free(r->workers);
    corpus_free(r->texts);
    vocab_free(r->v);
    mem_free(r->token_bytes);
    mem_free(r->tokens);
    mem_free(r->nats);
    mem_free(r);
}
