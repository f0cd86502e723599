/* The two searches behind codebook_nearest. Not for other modules. */
#ifndef FORMATS_CODEBOOK_SEARCH_H
#define FORMATS_CODEBOOK_SEARCH_H

#include "formats/codebook.h"

/* As codebook_nearest; the scale's square is a positive number. plain: w->share is NULL. */
float codebook_nearest_plain(const grid *g, const codebook_wish *w, uint8_t *code);

#endif
