/*
 * Batches by number. Sequence g of the run is number g mod TURNS in a fixed table of turns, which says its source and how many
 * sequences of that source came before; that number is a pass over the source's pieces and a place in the pass's order.
 */
#include "train/corpus.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/threads.h"
#include "theorem/random.h"
#include "train/corpus_tokens.h"

#define TURNS 65536u
#define MOST_CONTEXT (1 << 20)
#define ROUNDS 6

typedef struct turn {
    uint16_t source;
    uint16_t before; /* turns of the source before this one */
} turn;

struct corpus {
    corpus_tokens sources[CORPUS_MOST_SOURCES];
    uint32_t n_turns[CORPUS_MOST_SOURCES]; /* of TURNS */
    int n_sources, context;
    uint64_t seed;
    turn turns[TURNS];
};

/* ---- turns ---- */

/* Shares of TURNS by weight, each at least one: what rounding down leaves goes to the largest remainders. */
static void share_turns(uint32_t *out, const corpus_source *sources, int n)
{
    double sum = 0, remainder[CORPUS_MOST_SOURCES];
    uint32_t given = 0;
    for (int s = 0; s < n; s++)
        sum += sources[s].weight;
    for (int s = 0; s < n; s++) {
        double share = sources[s].weight / sum * (TURNS - (unsigned)n);
        out[s] = 1 + (uint32_t)share;
        remainder[s] = share - floor(share);
        given += out[s];
    }
    for (; given < TURNS; given++) {
        int most = 0;
        for (int s = 1; s < n; s++)
            most = remainder[s] > remainder[most] ? s : most;
        out[most]++;
        remainder[most] -= 1;
    }
}

/* Smooth weighted round robin: every source is within a turn of its share at any time. */
static void fill_turns(corpus *c)
{
    int64_t credit[CORPUS_MOST_SOURCES] = {0};
    uint32_t had[CORPUS_MOST_SOURCES] = {0};
    for (uint32_t t = 0; t < TURNS; t++) {
        int best = 0;
        for (int s = 0; s < c->n_sources; s++) {
            credit[s] += c->n_turns[s];
            best = credit[s] > credit[best] ? s : best;
        }
        credit[best] -= TURNS;
        c->turns[t] = (turn){(uint16_t)best, (uint16_t)had[best]++};
    }
}

/* ---- pieces ---- */

static uint64_t mixed(uint64_t a, uint64_t b)
{
    uint64_t state = a, first = random_next(&state);
    state = first ^ b;
    return random_next(&state);
}

/*
 * Where i of 0 .. n - 1 stands in the order of a key: a Feistel network over the next power of four, walked until it gives a
 * number below n (Black and Rogaway 2002).
 */
static uint64_t place_of(uint64_t i, uint64_t n, uint64_t key)
{
    int half = 1;
    while (half < 31 && ((uint64_t)1 << 2 * half) < n)
        half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < ROUNDS; round++) {
            uint64_t next = left ^ (mixed(key + round, right) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

/* Start of the piece that sequence number k of a source takes. One piece less than would fit leaves room for the start to move. */
static size_t piece_start(const corpus *c, int source, uint64_t k)
{
    uint64_t context = (uint64_t)c->context, room = c->sources[source].training.n - 1, n = room / context;
    n = n > 1 ? n - 1 : 1;
    uint64_t key = mixed(mixed(c->seed, (uint64_t)source), k / n);
    uint64_t shift = mixed(key, n) % (room - n * context + 1);
    return (size_t)(shift + context * place_of(k % n, n, key));
}

void corpus_batch(const corpus *c, uint64_t step, int n_sequences, int32_t *tokens, int *from)
{
    size_t length = (size_t)c->context + 1;
    for (int i = 0; i < n_sequences; i++) {
        uint64_t g = step * (uint64_t)n_sequences + (uint64_t)i;
        const turn *t = &c->turns[g % TURNS];
        const uint16_t *ids =
            c->sources[t->source].training.tokens + piece_start(c, t->source, g / TURNS * c->n_turns[t->source] + t->before);
        for (size_t k = 0; k < length; k++)
            tokens[(size_t)i * length + k] = ids[k];
        if (from)
            from[i] = t->source;
    }
}

/* ---- opening ---- */

static bool is_name(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == n;
}

static dil_status check_source(const corpus_source *sources, int i, dil_error *err)
{
    const corpus_source *s = &sources[i];
    if (!is_name(s->name))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "source %d: name: wanted letters, digits, '-' and '_', found \"%s\"", i, s->name);
    if (!(s->weight > 0 && isfinite(s->weight)))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "source %s: weight: wanted > 0, found %g", s->name, s->weight);
    if (!(s->held_out >= 0 && s->held_out <= 0.5))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "source %s: held_out: wanted 0 .. 0.5, found %g", s->name, s->held_out);
    for (int k = 0; k < i; k++)
        if (strcmp(sources[k].name, s->name) == 0)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "source %d: wanted a name of its own, found \"%s\" again", i, s->name);
    return DIL_OK;
}

dil_status corpus_check_sources(const corpus_source *sources, int n, dil_error *err)
{
    if (n < 1 || n > CORPUS_MOST_SOURCES)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "sources: wanted 1 .. %d, found %d", CORPUS_MOST_SOURCES, n);
    for (int i = 0; i < n; i++)
        DIL_TRY(check_source(sources, i, err));
    return DIL_OK;
}

static dil_status check_options(const corpus_options *o, dil_error *err)
{
    DIL_TRY(corpus_check_sources(o->sources, o->n_sources, err));
    if (o->context < 1 || o->context > MOST_CONTEXT)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "context: wanted 1 .. %d, found %d", MOST_CONTEXT, o->context);
    if (vocab_size(o->v) > UINT16_MAX + 1)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "vocabulary: wanted at most %d tokens for training, found %d", UINT16_MAX + 1,
                        vocab_size(o->v));
    if (vocab_eos(o->v) == TOKEN_NONE)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "vocabulary: wanted an end token (tokenizer.ggml.eos_token_id), found none");
    return DIL_OK;
}

static dil_status key_of(corpus_key *out, const corpus_source *source, uint64_t vocab_hash, dil_error *err)
{
    os_file f;
    DIL_TRY(os_file_open(&f, source->path, err));
    *out = (corpus_key){f.size_bytes, f.mtime_ns, source->held_out, vocab_hash};
    os_file_close(&f);
    return DIL_OK;
}

static dil_status open_source(corpus_tokens *out, const corpus_options *o, int i, uint64_t vocab_hash, team *workers,
                              dil_error *err)
{
    const corpus_source *source = &o->sources[i];
    char path[4096];
    corpus_key key;
    dil_error ignored;
    if (snprintf(path, sizeof path, "%s/tokens-%s.bin", o->directory, source->name) >= (int)sizeof path)
        return DIL_FAIL(err, DIL_LIMIT, "directory: wanted at most %zu bytes, found %zu", sizeof path, strlen(o->directory));
    DIL_TRY(key_of(&key, source, vocab_hash, err));
    if (corpus_tokens_open(out, path, &key, vocab_size(o->v), &ignored) != DIL_OK) {
        DIL_TRY(corpus_tokens_write(path, &key, source, o->v, workers, o->progress, o->user, err));
        DIL_TRY(corpus_tokens_open(out, path, &key, vocab_size(o->v), err));
    }
    if (out->training.n <= (size_t)o->context)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "source %s: wanted more than %d tokens (context), found %zu", source->name,
                        o->context, out->training.n);
    return DIL_OK;
}

dil_status corpus_open(corpus **out, const corpus_options *o, dil_error *err)
{
    uint64_t vocab_hash = 0;
    team *workers = NULL;
    DIL_TRY(check_options(o, err));
    corpus *c = mem_calloc(1, sizeof *c, MEM_TEXT);
    if (!c)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for %d sources", o->n_sources);
    c->n_sources = o->n_sources;
    c->context = o->context;
    c->seed = o->seed;
    dil_status status = corpus_vocab_hash(&vocab_hash, o->v, err);
    if (status == DIL_OK)
        status = os_make_dirs(o->directory, err);
    if (status == DIL_OK)
        status = team_new(&workers, o->n_threads, err);
    for (int i = 0; i < o->n_sources && status == DIL_OK; i++)
        status = open_source(&c->sources[i], o, i, vocab_hash, workers, err);
    team_free(workers);
    if (status != DIL_OK) {
        corpus_free(c);
        return status;
    }
    share_turns(c->n_turns, o->sources, o->n_sources);
    fill_turns(c);
    *out = c;
    return DIL_OK;
}

uint32_t corpus_fingerprint(const corpus *c)
{
    uint64_t all = 0;
    for (int i = 0; i < c->n_sources; i++)
        all = (all ^ c->sources[i].ids_hash) * 0x9E3779B97F4A7C15u;
    uint32_t folded = (uint32_t)(all >> 32) ^ (uint32_t)all;
    return folded ? folded : 1;
}

void corpus_free(corpus *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->n_sources; i++)
        corpus_tokens_close(&c->sources[i]);
    mem_free(c);
}

corpus_part corpus_held_out(const corpus *c, int source) { return c->sources[source].held_out; }
corpus_part corpus_training(const corpus *c, int source) { return c->sources[source].training; }
