#include "evaluate/ngrams.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

/* By symbols, then the shorter first: windows that share their first k symbols lie together, for every k. */
static int ascending(const void *a, const void *b)
{
    const ngram_window *x = a, *y = b;
    for (int i = 0; i < x->n && i < y->n; i++)
        if (x->at[i] != y->at[i])
            return x->at[i] < y->at[i] ? -1 : 1;
    return x->n - y->n;
}

static bool share(const ngram_window *a, const ngram_window *b, int k)
{
    return a->n >= k && b->n >= k && memcmp(a->at, b->at, (size_t)k * sizeof *a->at) == 0;
}

static dil_status fill(ngrams *g, const ngram_source *sources, int n_sources, int order, size_t *n_out, dil_error *err)
{
    size_t n = 0;
    for (int s = 0; s < n_sources; s++)
        n += sources[s].n;
    if (n > g->room) {
        ngram_window *more = mem_grow(g->windows, 2 * n * sizeof *more, MEM_MISC);
        if (!more)
            return DIL_FAIL(err, DIL_NO_MEMORY, "n-grams: no memory for %zu positions", n);
        g->windows = more;
        g->room = 2 * n;
    }
    ngram_window *w = g->windows;
    for (int s = 0; s < n_sources; s++)
        for (size_t i = 0; i < sources[s].n; i++) {
            const size_t left = sources[s].n - i;
            *w++ = (ngram_window){sources[s].symbols + i, (uint16_t)(left < (size_t)order ? left : (size_t)order), (uint16_t)s};
        }
    *n_out = n;
    return DIL_OK;
}

/* count[s]: how often one n-gram stands in source s. */
static void add_match(const int64_t *count, int n_sources, int64_t *match)
{
    int64_t most = 0;
    for (int s = 1; s < n_sources; s++) {
        match[s] += count[s] < count[0] ? count[s] : count[0];
        most = count[s] > most ? count[s] : most;
    }
    match[0] += most < count[0] ? most : count[0];
}

static void match_order(const ngram_window *w, size_t n, int n_sources, int k, int64_t *match)
{
    memset(match, 0, (size_t)n_sources * sizeof *match);
    for (size_t i = 0; i < n;) {
        int64_t count[NGRAMS_MOST_SOURCES] = {0};
        const size_t first = i;
        do
            count[w[i++].source]++;
        while (i < n && share(&w[first], &w[i], k));
        add_match(count, n_sources, match); /* a window shorter than k is alone and matches nothing */
    }
}

dil_status ngrams_match(ngrams *g, const ngram_source *sources, int n_sources, int order,
                        int64_t match[NGRAMS_MOST_ORDER][NGRAMS_MOST_SOURCES], dil_error *err)
{
    size_t n = 0;
    DIL_TRY(fill(g, sources, n_sources, order, &n, err));
    if (n > 0)
        qsort(g->windows, n, sizeof *g->windows, ascending);
    for (int k = 1; k <= order; k++)
        match_order(g->windows, n, n_sources, k, match[k - 1]);
    return DIL_OK;
}

void ngrams_free(ngrams *g)
{
    mem_free(g->windows);
    *g = (ngrams){0};
}
