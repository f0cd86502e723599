#include "train/corpus_tokens.h"

#include <stdatomic.h>
#include <stdio.h>
#include <xxhash.h>

#include "base/mem.h"
#include "base/status.h"
#include "train/documents.h"

#define VERSION 1u
#define BLOCK_BYTES ((size_t)1 << 20) /* of text: the result depends on it, not on the number of threads */

static const char magic[8] = {'D', 'I', 'L', 'T', 'O', 'K', 'S', '\n'};

/* The file: this, the training part's ids, the held-out part's ids. */
typedef struct head {
    char magic[8];
    uint32_t version, head_bytes;
    corpus_key key;
    uint64_t n_training, training_bytes, n_held_out, held_out_bytes;
    uint64_t ids_hash;
    uint64_t head_hash; /* of what stands before it */
} head;

static uint64_t head_hash(const head *h) { return XXH3_64bits(h, offsetof(head, head_hash)); }

dil_status corpus_vocab_hash(uint64_t *out, const vocab *v, dil_error *err)
{
    static const char sample[] = "It's 12345 words, don't you think?  Yes!\n\n\tI\xC4\x9F"
                                 "d\xC4\xB1r'da 1.234,50 \xE2\x82\xBA \xE2\x80\x94 \xE6\x97\xA5\xE6\x9C\xAC\r\n  x_y(z) == 0x1F; "
                                 "Constantinople internationalisation";
    uint64_t hash = XXH3_64bits(&(int32_t[]){vocab_size(v), (int32_t)vocab_kind_of(v), vocab_eos(v)}, 3 * sizeof(int32_t));
    for (token_id id = 0; id < vocab_size(v); id++) {
        str text = vocab_text(v, id);
        hash = XXH3_64bits_withSeed(text.p, text.n, hash + (uint64_t)vocab_type(v, id));
    }
    token_list ids = {0};
    dil_status status = vocab_encode(v, (str){sample, sizeof sample - 1}, false, false, &ids, err);
    if (status == DIL_OK)
        *out = XXH3_64bits_withSeed(ids.ids, ids.n * sizeof *ids.ids, hash);
    token_list_free(&ids);
    return status;
}

/* ---- using a file ---- */

static dil_status read_head(head *h, const os_file *f, const char *path, const corpus_key *key, dil_error *err)
{
    DIL_TRY(os_file_read(f, 0, h, sizeof *h, err));
    if (memcmp(h->magic, magic, sizeof magic) != 0 || h->version != VERSION || h->head_hash != head_hash(h))
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted tokens of version %u, found something else", path, VERSION);
    if (h->key.source_bytes != key->source_bytes || h->key.source_mtime_ns != key->source_mtime_ns ||
        h->key.held_out != key->held_out || h->key.vocab_hash != key->vocab_hash)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted tokens of this source and vocabulary, found others", path);
    uint64_t room = f->size_bytes - sizeof *h; /* the head was read */
    if (h->n_training > room / 2 || h->n_held_out != room / 2 - h->n_training || room % 2)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted %llu + %llu tokens, found %llu bytes", path, (unsigned long long)h->n_training,
                        (unsigned long long)h->n_held_out, (unsigned long long)room);
    return DIL_OK;
}

/* The sum of a file says that it is whole, not who wrote it. */
static dil_status check_ids(const char *path, const uint16_t *ids, size_t n, int n_vocab, dil_error *err)
{
    uint16_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = ids[i] > most ? ids[i] : most;
    return most < n_vocab ? DIL_OK
                          : DIL_FAIL(err, DIL_FORMAT, "%s: wanted tokens below %d, found %u", path, n_vocab, (unsigned)most);
}

dil_status corpus_tokens_open(corpus_tokens *out, const char *path, const corpus_key *key, int n_vocab, dil_error *err)
{
    os_file f;
    head h;
    corpus_tokens t = {0};
    DIL_TRY(os_file_open(&f, path, err));
    dil_status status = read_head(&h, &f, path, key, err);
    if (status == DIL_OK)
        status = os_map_shared(&t.mapping, &f, 0, (size_t)f.size_bytes, err);
    os_file_close(&f);
    if (status != DIL_OK)
        return status;
    const uint16_t *ids = (const uint16_t *)((const char *)t.mapping.p + sizeof h);
    size_t n_training = (size_t)h.n_training, n_held_out = (size_t)h.n_held_out;
    if (XXH3_64bits(ids, (n_training + n_held_out) * sizeof *ids) != h.ids_hash || os_mapping_lost(&t.mapping)) {
        corpus_tokens_close(&t);
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted the checksum that was written with its tokens, found another", path);
    }
    status = check_ids(path, ids, n_training + n_held_out, n_vocab, err);
    if (status != DIL_OK) {
        corpus_tokens_close(&t);
        return status;
    }
    t.ids_hash = h.ids_hash;
    t.training = (corpus_part){ids, n_training, (size_t)h.training_bytes};
    t.held_out = (corpus_part){ids + n_training, n_held_out, (size_t)h.held_out_bytes};
    *out = t;
    return DIL_OK;
}

void corpus_tokens_close(corpus_tokens *t)
{
    if (t->mapping.p)
        os_mapping_close(&t->mapping);
    *t = (corpus_tokens){0};
}

/* ---- tokenising ---- */

typedef struct block_ids {
    uint16_t *ids; /* first and last may be the end token: of two that meet, one is written */
    size_t n, n_bytes;
} block_ids;

typedef struct job {
    const vocab *v;
    team *workers;
    str text;
    const size_t *ends; /* [n_blocks] */
    size_t n_blocks;
    block_ids *blocks; /* [n_blocks] */
    const char *what;
    uint64_t before, total; /* bytes of text done with earlier parts, of all parts */
    dil_progress_fn progress;
    void *user;
    _Atomic size_t done;
    _Atomic bool stopped; /* the first to set it owns error */
    dil_error error;
} job;

static dil_status encode_block(const job *j, size_t i, token_list *ids, dil_error *err)
{
    size_t from = i ? j->ends[i - 1] : 0, at = 0;
    str text = {j->text.p + from, j->ends[i] - from}, piece;
    block_ids *out = &j->blocks[i];
    ids->n = 0;
    for (bool ends; documents_next(text, &at, &piece, &ends);) {
        DIL_TRY(vocab_encode(j->v, piece, false, false, ids, err));
        out->n_bytes += piece.n;
        if (ends)
            DIL_TRY(token_list_add(ids, vocab_eos(j->v), err));
    }
    out->ids = mem_alloc(ids->n * sizeof *out->ids, MEM_TEXT);
    if (!out->ids)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for %zu tokens", ids->n);
    out->n = ids->n;
    for (size_t k = 0; k < ids->n; k++)
        out->ids[k] = (uint16_t)ids->ids[k];
    return DIL_OK;
}

static void fail(job *j, const dil_error *why)
{
    if (!atomic_exchange(&j->stopped, true))
        j->error = *why;
}

static void report(job *j, uint64_t done)
{
    dil_error why;
    if (!j->progress || j->progress(j->user, j->what, done, j->total))
        return;
    DIL_FAIL(&why, DIL_CANCELLED, "%s: cancelled", j->what);
    fail(j, &why);
}

static void work(void *ctx, int worker)
{
    job *j = ctx;
    token_list ids = {0};
    dil_error why;
    for (size_t i; !atomic_load(&j->stopped) && (i = team_claim(j->workers)) < j->n_blocks;) {
        size_t bytes = j->ends[i] - (i ? j->ends[i - 1] : 0);
        if (encode_block(j, i, &ids, &why) != DIL_OK)
            fail(j, &why);
        bytes += atomic_fetch_add(&j->done, bytes);
        if (worker == 0)
            report(j, j->before + bytes);
    }
    token_list_free(&ids);
}

/* ---- writing a file ---- */

typedef struct output {
    os_writer w;
    XXH3_state_t *hash;
    uint16_t last; /* id written */
    uint64_t n;    /* ids of this part */
} output;

static dil_status write_ids(output *o, const uint16_t *ids, size_t n, dil_error *err)
{
    if (n == 0)
        return DIL_OK;
    XXH3_64bits_update(o->hash, ids, n * sizeof *ids);
    o->last = ids[n - 1];
    o->n += n;
    return os_writer_write(&o->w, ids, n * sizeof *ids, err);
}

/* The blocks between end tokens, none of them twice in a row. */
static dil_status write_blocks(output *o, const job *j, uint64_t *n_bytes, dil_error *err)
{
    const uint16_t end = (uint16_t)vocab_eos(j->v);
    DIL_TRY(write_ids(o, &end, 1, err));
    for (size_t i = 0; i < j->n_blocks; i++) {
        const block_ids *b = &j->blocks[i];
        *n_bytes += b->n_bytes;
        for (size_t from = 0, to; from < b->n; from = to) {
            while (from < b->n && o->last == end && b->ids[from] == end)
                from++;
            for (to = from; to < b->n && !(b->ids[to] == end && to > from && b->ids[to - 1] == end);)
                to++;
            DIL_TRY(write_ids(o, b->ids + from, to - from, err));
        }
    }
    return o->last == end ? DIL_OK : write_ids(o, &end, 1, err);
}

/* Tokenises text and appends its ids; an empty text has none. */
static dil_status write_part(output *o, job *j, str text, uint64_t *n_ids, uint64_t *n_bytes, dil_error *err)
{
    o->n = 0;
    if (text.n == 0)
        return DIL_OK;
    size_t *ends = documents_blocks(text, BLOCK_BYTES, &j->n_blocks);
    j->blocks = ends ? mem_calloc(j->n_blocks, sizeof *j->blocks, MEM_TEXT) : NULL;
    dil_status status = DIL_OK;
    if (!j->blocks) {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory", j->what);
        goto done;
    }
    j->text = text;
    j->ends = ends;
    atomic_store(&j->done, 0);
    team_run(j->workers, work, j);
    j->before += text.n;
    report(j, j->before);
    status = atomic_load(&j->stopped) ? DIL_FAIL(err, j->error.code, "%s", j->error.text) : write_blocks(o, j, n_bytes, err);
    *n_ids = o->n;
done:
    for (size_t i = 0; j->blocks && i < j->n_blocks; i++)
        mem_free(j->blocks[i].ids);
    mem_free(j->blocks);
    mem_free(ends);
    return status;
}

static dil_status write_parts(output *o, job *j, const corpus_key *key, str text, size_t n_train, dil_error *err)
{
    head h = {.version = VERSION, .head_bytes = sizeof h, .key = *key};
    memcpy(h.magic, magic, sizeof magic);
    DIL_TRY(os_writer_write(&o->w, &h, sizeof h, err));
    DIL_TRY(write_part(o, j, (str){text.p, n_train}, &h.n_training, &h.training_bytes, err));
    DIL_TRY(write_part(o, j, (str){text.p + n_train, text.n - n_train}, &h.n_held_out, &h.held_out_bytes, err));
    h.ids_hash = XXH3_64bits_digest(o->hash);
    h.head_hash = head_hash(&h);
    DIL_TRY(os_writer_patch(&o->w, 0, &h, sizeof h, err));
    return os_writer_commit(&o->w, err);
}

static dil_status write_file(const char *path, const corpus_key *key, job *j, str text, size_t n_train, dil_error *err)
{
    output *o = mem_calloc(1, sizeof *o, MEM_TEXT);
    XXH3_state_t *hash = XXH3_createState();
    dil_status status = DIL_OK;
    if (!o || !hash) {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to write it", path);
        goto done;
    }
    o->hash = hash;
    XXH3_64bits_reset(hash);
    status = os_writer_open(&o->w, path, err);
    if (status != DIL_OK)
        goto done;
    status = write_parts(o, j, key, text, n_train, err);
    os_writer_abort(&o->w); /* does nothing to a committed file */
done:
    XXH3_freeState(hash);
    mem_free(o);
    return status;
}

dil_status corpus_tokens_write(const char *path, const corpus_key *key, const corpus_source *source, const vocab *v, team *workers,
                               dil_progress_fn progress, void *user, dil_error *err)
{
    os_file f;
    char *text = NULL, what[64];
    size_t n = 0, n_train = 0;
    DIL_TRY(os_file_open(&f, source->path, err));
    dil_status status = corpus_read(source, &text, &n, &n_train, err);
    if (status == DIL_OK && (f.size_bytes != key->source_bytes || f.mtime_ns != key->source_mtime_ns || !os_file_unchanged(&f)))
        status = DIL_FAIL(err, DIL_IO, "%s: wanted it as it was, found it changed while it was read", source->path);
    os_file_close(&f);
    if (status == DIL_OK) {
        snprintf(what, sizeof what, "tokenising %.31s", source->name);
        job j = {.v = v, .workers = workers, .what = what, .total = n, .progress = progress, .user = user};
        status = write_file(path, key, &j, (str){text, n}, n_train, err);
    }
    mem_free(text);
    return status;
}
