#include "tune/search.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "evaluate/bench.h"
#include "evaluate/statistics.h"
#include "tune/propose.h"

enum { ROUNDS = 7, LAST_ROUNDS = 9, LEAST_ROUNDS = 3, MOST_PROPOSALS = 4 };
#define WORTH 1.01 /* less is not worth another setting */

static const profile usual = {.micro_batch = ENGINE_MICRO_BATCH};

typedef struct searcher {
    engine *e;
    const search_options *o;
    search_result *r;
    predictor by;
    uint64_t started_ns, until_ns;
    bench *prompt, *gen; /* NULL: not timed */
    bool stopped;
} searcher;

/* Speed of a profile over that of the incumbent, in turns, either first; ends early where it is plainly lost. */
static dil_status race(searcher *s, bench *b, const profile *now, const profile *candidate, int rounds, median_interval *out,
                       int32_t *n, dil_error *err)
{
    double ratios[LAST_ROUNDS];
    *n = 0;
    for (int i = 0; i < rounds; i++) {
        double seconds[2];
        for (int turn = 0; turn < 2; turn++) {
            const int which = (turn + i) % 2;
            engine_tune(s->e, which ? candidate : now);
            DIL_TRY(bench_once(b, &seconds[which], err));
        }
        double sorted[LAST_ROUNDS];
        ratios[(*n)++] = seconds[0] / seconds[1];
        memcpy(sorted, ratios, sizeof sorted);
        *out = statistics_median(sorted, *n);
        if (i + 1 >= LEAST_ROUNDS && out->high < 1)
            break;
    }
    return DIL_OK;
}

static profile_trial *note(searcher *s, const char *what, const char *test, const median_interval *m, int32_t rounds, bool kept)
{
    search_result *r = s->r;
    profile_trial *t = &r->trials[r->n_trials < SEARCH_TRIALS ? r->n_trials++ : SEARCH_TRIALS - 1];
    *t = (profile_trial){.ratio = m->median, .low = m->low, .high = m->high, .rounds = rounds, .kept = kept};
    (void)snprintf(t->what, sizeof t->what, "%s", what);
    (void)snprintf(t->test, sizeof t->test, "%s", test);
    return t;
}

/* Tries one candidate; s->r->best becomes it where it wins. */
static dil_status try_one(searcher *s, bench *b, const char *what, const profile *candidate, dil_error *err)
{
    median_interval m;
    int32_t rounds;
    const search_options *o = s->o;
    if (!b || s->stopped || os_time_ns() >= s->until_ns)
        return DIL_OK;
    const uint64_t all = (uint64_t)(o->seconds * 1e3), spent = (os_time_ns() - s->started_ns) / 1000000;
    if (o->progress && !o->progress(o->user, "tuning", spent < all ? spent : all, all)) {
        s->stopped = true;
        return DIL_OK;
    }
    DIL_TRY(race(s, b, &s->r->best, candidate, ROUNDS, &m, &rounds, err));
    const bool kept = m.median >= WORTH && m.low > 1;
    note(s, what, b == s->prompt ? N_("prompt") : N_("generation"), &m, rounds, kept);
    if (kept)
        s->r->best = *candidate;
    return DIL_OK;
}

/* ---- what is tried ---- */

static dil_status try_proposals(searcher *s, dil_error *err)
{
    proposal all[MOST_PROPOSALS];
    double now;
    const int32_t n = s->o->n_prompt < ENGINE_MICRO_BATCH ? s->o->n_prompt : ENGINE_MICRO_BATCH;
    const int n_all = n > 0 && !s->by.m->h.lone ? propose_tiles(&s->by, n, all, MOST_PROPOSALS, &now) : 0;
    for (int i = 0; i < n_all; i++) {
        char what[64];
        profile p = s->r->best;
        memcpy(p.tuning.tile, all[i].tuning.tile, sizeof p.tuning.tile);
        (void)snprintf(what, sizeof what, "tiles of the equilibrium, predicted gain: %d, %.2fx", i + 1, now / all[i].seconds);
        DIL_TRY(try_one(s, s->prompt, what, &p, err));
    }
    return DIL_OK;
}

/* One number of the profile, its values, and what it is timed with. */
static const struct knob {
    const char *what;
    size_t offset;
    bool few; /* of generation */
    int32_t values[5];
} knobs[] = {
    {N_("bytes fetched ahead"), offsetof(profile, tuning.ahead), true, {1, 2048, 4096, 8192, 0}},
    {N_("tokens per pass"), offsetof(profile, micro_batch), false, {256, 1024, 0}},
    {N_("items per worker"), offsetof(profile, tuning.items_many), false, {4, 16, 0}},
    {N_("rows per worker"), offsetof(profile, tuning.part_rows), false, {64, 512, 0}},
    {N_("query rows per item"), offsetof(profile, tuning.attention_rows), false, {48, 24, 0}},
    {N_("items per worker, few rows"), offsetof(profile, tuning.items_few), true, {3, 4, 9, 12, 0}},
};

static dil_status try_knobs(searcher *s, dil_error *err)
{
    for (size_t i = 0; i < sizeof knobs / sizeof *knobs; i++)
        for (int v = 0; v < 5 && knobs[i].values[v]; v++) {
            char what[64];
            profile p = s->r->best;
            *(int32_t *)(void *)((char *)&p + knobs[i].offset) = knobs[i].values[v];
            (void)snprintf(what, sizeof what, "%s: %d", knobs[i].what, knobs[i].values[v]);
            if (knobs[i].offset == offsetof(profile, micro_batch) && s->o->n_prompt <= knobs[i].values[v] / 2)
                continue; /* one pass either way */
            DIL_TRY(try_one(s, knobs[i].few ? s->gen : s->prompt, what, &p, err));
        }
    return DIL_OK;
}

/* Fewer threads: half of them, and one less, where there are several. */
static dil_status try_threads(searcher *s, dil_error *err)
{
    const int32_t n = engine_n_threads(s->e), counts[] = {n - 1, n / 2};
    for (int i = 0; i < 2; i++) {
        char what[64];
        profile p = s->r->best;
        if (counts[i] < 1 || (i == 1 && counts[1] == counts[0]))
            continue;
        (void)snprintf(what, sizeof what, "threads: %d", counts[i]);
        p.tuning.threads_few = counts[i];
        DIL_TRY(try_one(s, s->gen, what, &p, err));
        p = s->r->best;
        p.tuning.threads_many = counts[i];
        DIL_TRY(try_one(s, s->prompt, what, &p, err));
    }
    return DIL_OK;
}

/* ---- all of it ---- */

/* The winner against the usual settings; back to those where it is not faster after all. */
static dil_status settle(searcher *s, dil_error *err)
{
    search_result *r = s->r;
    bench *const tests[] = {s->prompt, s->gen};
    double *const gains[] = {&r->prompt_gain, &r->gen_gain};
    bool worse = false, better = false;
    if (memcmp(&r->best, &usual, sizeof usual) == 0)
        return DIL_OK;
    for (int i = 0; i < 2; i++) {
        median_interval m;
        int32_t rounds;
        if (!tests[i])
            continue;
        DIL_TRY(race(s, tests[i], &usual, &r->best, LAST_ROUNDS, &m, &rounds, err));
        *gains[i] = m.median;
        worse = worse || m.median < 0.995;
        better = better || (m.median >= WORTH && m.low > 1);
        note(s, N_("all that was kept"), i ? N_("generation") : N_("prompt"), &m, rounds, !worse);
    }
    r->changed = better && !worse;
    if (!r->changed)
        r->best = usual;
    return DIL_OK;
}

static dil_status search_all(searcher *s, dil_error *err)
{
    DIL_TRY(try_proposals(s, err));
    DIL_TRY(try_knobs(s, err));
    DIL_TRY(try_threads(s, err));
    return settle(s, err);
}

dil_status search_run(search_result *out, engine *e, const machine *m, const machine_facts *facts, const search_options *o,
                      dil_error *err)
{
    const uint64_t started = os_time_ns();
    searcher s = {.e = e, .o = o, .r = out, .started_ns = started, .until_ns = started + (uint64_t)(0.8 * o->seconds * 1e9)};
    memset(out, 0, sizeof *out);
    out->best = usual;
    s.by = (predictor){.m = engine_model(e),
                       .k = engine_kernels(e),
                       .machine = m,
                       .facts = facts,
                       .n_threads = engine_n_threads(e),
                       .type_k = engine_type_k(e),
                       .type_v = engine_type_v(e)};
    engine_tune(e, &out->best);
    dil_status status = DIL_OK;
    if (o->n_prompt > 0)
        status = bench_open(&s.prompt, e, &(bench_test){.n_prompt = o->n_prompt, .depth = o->depth}, err);
    if (status == DIL_OK && o->n_gen > 0)
        status = bench_open(&s.gen, e, &(bench_test){.n_gen = o->n_gen, .depth = o->depth, .n_parallel = o->n_parallel}, err);
    if (status == DIL_OK)
        status = search_all(&s, err);
    bench_close(s.prompt);
    bench_close(s.gen);
    if (out->best.micro_batch == ENGINE_MICRO_BATCH)
        out->best.micro_batch = 0;
    out->seconds = (double)(os_time_ns() - started) * 1e-9;
    return status;
}

/* ---- a file ---- */

static engine_options searching_options(const engine_options *eo, const search_options *o)
{
    engine_options own = *eo;
    const int64_t tokens = (int64_t)o->depth + (o->n_prompt > o->n_gen ? o->n_prompt : o->n_gen) + 64;
    own.context = (int32_t)(tokens < 1 << 26 ? tokens : 1 << 26);
    own.n_sessions = o->n_parallel + 1;
    own.max_outputs = o->n_parallel > 8 ? o->n_parallel : 8;
    own.micro_batch = SEARCH_MICRO_BATCH;
    own.no_vocab = true;
    own.lone = true;
    own.no_profile = true;
    return own;
}

static dil_status search_and_keep(search_result *out, engine *e, const machine *m, const machine_facts *f, const search_options *o,
                                  char *kept, size_t n, dil_error *err)
{
    const profile_key key = {engine_model(e), engine_kernels(e), engine_n_threads(e)};
    DIL_TRY(search_run(out, e, m, f, o, err));
    DIL_TRY(profile_path(kept, n, &key, err));
    return profile_save(&out->best, &key, out->trials, out->n_trials, err);
}

dil_status search_file(search_result *out, const char *path, const engine_options *eo, const search_options *o, char *kept,
                       size_t n, dil_error *err)
{
    engine *e = NULL;
    machine *m;
    machine_facts *f = mem_alloc(sizeof *f, MEM_MISC);
    const engine_options own = searching_options(eo, o);
    dil_status status = f ? machine_topology(&m, NULL, err) : DIL_FAIL(err, DIL_NO_MEMORY, "tune: no memory");
    if (status != DIL_OK) {
        mem_free(f);
        return status;
    }
    status = engine_open(&e, path, &own, err);
    if (status == DIL_OK)
        status = machine_facts_get(f, m, engine_kernels(e), 0, FACTS_OF_QUIET, eo->progress, eo->user, err);
    if (status == DIL_OK)
        status = search_and_keep(out, e, m, f, o, kept, n, err);
    engine_close(e);
    machine_free(m);
    mem_free(f);
    return status;
}
