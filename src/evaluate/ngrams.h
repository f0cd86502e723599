/* n-grams that sequences have in common: exact, all orders by one sort. */
#ifndef EVALUATE_NGRAMS_H
#define EVALUATE_NGRAMS_H

#include <stddef.h>
#include <stdint.h>

#include "dilmodeli.h"

#define NGRAMS_MOST_ORDER 6
#define NGRAMS_MOST_SOURCES 65

/* What stands from one position of a sequence on: its first n symbols, n at most the order asked for. */
typedef struct ngram_window {
    const uint32_t *at;
    uint16_t n, source;
} ngram_window;

/* Memory that calls share. {0} to begin with; end with ngrams_free. */
typedef struct ngrams {
    ngram_window *windows;
    size_t room;
} ngrams;

typedef struct ngram_source {
    const uint32_t *symbols;
    size_t n;
} ngram_source;

/*
 * match[k][s], k < order, s >= 1: how many (k+1)-grams of sources[0] stand in sources[s] too, none counted oftener than it stands there;
 * match[k][0]: the same with the most that any of sources[1..] has of each.
 */
DIL_MUST_CHECK dil_status ngrams_match(ngrams *g, const ngram_source *sources, int n_sources, int order,
                                       int64_t match[NGRAMS_MOST_ORDER][NGRAMS_MOST_SOURCES], dil_error *err);
void ngrams_free(ngrams *g);

#endif
