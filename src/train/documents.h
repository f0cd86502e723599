/*
 * Texts for training as documents: where one ends and the next begins, and where a long text may be cut so that its parts can
 * be worked on apart. Between documents stands the mark; it and the line ends around it belong to none of them.
 */
#ifndef TRAIN_DOCUMENTS_H
#define TRAIN_DOCUMENTS_H

#include "base/str.h"

#define DOCUMENTS_MARK "<|endoftext|>"

/*
 * The next piece of text from *at on, which is moved behind it: a document or, where the text ends inside one, what there is
 * of it. *ends: a mark stood behind it. The piece may be empty. False: the text is used up.
 */
bool documents_next(str text, size_t *at, str *piece, bool *ends);

/*
 * End of the block that begins at `from`: the first line's end after `wanted` (> 0) bytes behind which a line begins with a
 * visible character that is no part of a mark, or the end of the text. The usual pre-tokenisers end a word there anyway.
 */
size_t documents_block(str text, size_t from, size_t wanted);

/* All blocks of a text: ends [owned: mem_free] of n; NULL: no memory. An empty text has none, and a block to free. */
size_t *documents_blocks(str text, size_t wanted, size_t *n);

#endif
