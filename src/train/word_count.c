/* Every worker counts blocks of text into a table of its own; the tables are added up at the end. */
#include "train/word_count.h"

#include <math.h>
#include <stdatomic.h>
#include <xxhash.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/threads.h"
#include "train/documents.h"

#define BLOCK_BYTES ((size_t)1 << 20)

/* ---- a table ---- */

static counted_word *find(const word_count *c, const char *p, uint32_t n, uint32_t hash)
{
    size_t mask = c->room - 1, i = hash & mask;
    for (;; i = (i + 1) & mask) {
        counted_word *w = &c->words[i];
        if (w->count == 0 || (w->hash == hash && w->n == n && memcmp(w->p, p, n) == 0))
            return w;
    }
}

static bool grow(word_count *c)
{
    word_count bigger = {.n = c->n, .room = c->room ? 2 * c->room : 4096};
    bigger.words = mem_calloc(bigger.room, sizeof *bigger.words, MEM_TEXT);
    if (!bigger.words)
        return false;
    for (size_t i = 0; i < c->room; i++)
        if (c->words[i].count > 0)
            *find(&bigger, c->words[i].p, c->words[i].n, c->words[i].hash) = c->words[i];
    mem_free(c->words);
    *c = bigger;
    return true;
}

static dil_status add(word_count *c, const counted_word *w, dil_error *err)
{
    if (2 * c->n >= c->room && !grow(c))
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory to count words: %zu of them", c->n);
    counted_word *at = find(c, w->p, w->n, w->hash);
    uint64_t before = at->count;
    c->n += before == 0;
    if (before == 0)
        *at = *w;
    else
        at->count = before + w->count;
    return DIL_OK;
}

void word_count_free(word_count *c)
{
    mem_free(c->words);
    *c = (word_count){0};
}

/* ---- the workers ---- */

typedef struct job {
    const word_count_options *o;
    team *workers;
    str text;           /* of now */
    const size_t *ends; /* [n_blocks] */
    size_t n_blocks;
    uint64_t weight;
    uint64_t done, total;   /* bytes of all texts */
    word_count *tables;     /* [team_size] */
    _Atomic size_t counted; /* bytes of this text */
    _Atomic bool stopped;   /* the first to set it owns error */
    dil_error error;
} job;

typedef struct counter {
    word_count *table;
    uint64_t weight;
    dil_error *err;
} counter;

static dil_status count_word(void *ctx, const char *p, size_t n)
{
    counter *c = ctx;
    if (n > WORD_COUNT_LONGEST)
        return DIL_OK;
    counted_word w = {p, (uint32_t)n, (uint32_t)XXH3_64bits(p, n), c->weight};
    return add(c->table, &w, c->err);
}

static dil_status count_block(const job *j, pretokenize_run *run, word_count *table, size_t block, dil_error *err)
{
    size_t from = block ? j->ends[block - 1] : 0, at = 0;
    str text = {j->text.p + from, j->ends[block] - from}, piece;
    counter c = {table, j->weight, err};
    for (bool ends; documents_next(text, &at, &piece, &ends);)
        DIL_TRY(pretokenize(run, piece, count_word, &c, err));
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
    if (!j->o->progress || j->o->progress(j->o->user, "counting words", done, j->total))
        return;
    DIL_FAIL(&why, DIL_CANCELLED, "counting words: cancelled");
    fail(j, &why);
}

static void work(void *ctx, int worker)
{
    job *j = ctx;
    const word_count_options *o = j->o;
    pretokenize_run run = {.pre = o->pre};
    dil_error why;
    for (size_t i; !atomic_load(&j->stopped) && (i = team_claim(j->workers)) < j->n_blocks;) {
        if (count_block(j, &run, &j->tables[worker], i, &why) != DIL_OK)
            fail(j, &why);
        size_t bytes = atomic_fetch_add(&j->counted, j->ends[i] - (i ? j->ends[i - 1] : 0));
        if (worker == 0)
            report(j, j->done + bytes);
    }
    pretokenize_end(&run);
}

static dil_status count_text(job *j, int i, dil_error *err)
{
    double most = 0, weight = j->o->weights ? j->o->weights[i] : 1;
    for (int k = 0; k < j->o->n_texts; k++)
        most = fmax(most, j->o->weights ? j->o->weights[k] : 1);
    j->weight = (uint64_t)fmax(1, round(weight / most * (double)WORD_COUNT_ONE));
    j->text = j->o->texts[i];
    size_t *ends = documents_blocks(j->text, BLOCK_BYTES, &j->n_blocks);
    if (!ends)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory to count words");
    j->ends = ends;
    atomic_store(&j->counted, 0);
    team_run(j->workers, work, j);
    mem_free(ends);
    j->done += j->text.n;
    report(j, j->done);
    if (!atomic_load(&j->stopped))
        return DIL_OK;
    return DIL_FAIL(err, j->error.code, "%s", j->error.text);
}

/* All tables into the first. */
static dil_status add_up(word_count *tables, int n, dil_error *err)
{
    for (int t = 1; t < n; t++)
        for (size_t i = 0; i < tables[t].room; i++)
            if (tables[t].words[i].count > 0)
                DIL_TRY(add(&tables[0], &tables[t].words[i], err));
    return DIL_OK;
}

dil_status word_count_texts(word_count *out, const word_count_options *o, dil_error *err)
{
    job j = {.o = o};
    DIL_TRY(team_new(&j.workers, o->n_threads, err));
    dil_status status = DIL_OK;
    j.tables = mem_calloc((size_t)o->n_threads, sizeof *j.tables, MEM_TEXT);
    if (!j.tables) {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "no memory to count words");
        goto done;
    }
    for (int i = 0; i < o->n_texts; i++)
        j.total += o->texts[i].n;
    for (int i = 0; i < o->n_texts && status == DIL_OK; i++)
        status = count_text(&j, i, err);
    if (status == DIL_OK)
        status = add_up(j.tables, o->n_threads, err);
    if (status == DIL_OK) {
        *out = j.tables[0];
        j.tables[0] = (word_count){0};
    }
done:
    for (int t = 0; j.tables && t < o->n_threads; t++)
        word_count_free(&j.tables[t]);
    mem_free(j.tables);
    team_free(j.workers);
    return status;
}
