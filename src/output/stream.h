/*
 * From tokens to what a reader may see: whole UTF-8 characters only, nothing of a stop string, not
 * even its beginning. Text that might become a stop string is held back until it is decided.
 * Malformed bytes become U+FFFD. After a stop or after stream_finish nothing more comes until
 * stream_reset.
 */
#ifndef OUTPUT_STREAM_H
#define OUTPUT_STREAM_H

#include "base/str.h"
#include "dilmodeli.h"
#include "tokens/vocab.h"

typedef struct stream stream;

/*
 * stops: n texts (copied; UTF-8; empty ones are ignored), at most 64 of at most 1024 bytes, else
 * BAD_ARGUMENT. The one completed first ends the text, the longest of several completed by the same
 * byte. [owned: free with stream_free]
 */
DIL_MUST_CHECK dil_status stream_new(stream **out, const vocab *v, const char *const *stops, int n_stops, dil_error *err);
void stream_free(stream *s);
/*
 * Adds a token; *text (borrowed until the next call) is what may be shown now, possibly empty.
 * Returns true when a stop string was completed (text before it is in *text).
 */
bool stream_push(stream *s, token_id id, str *text);
/* What is still held back at the end; an unfinished character becomes U+FFFD. */
str stream_finish(stream *s);
/*
 * Whether memory ran out and text was lost since the last reset (a token's text is at most 1 MiB).
 */
bool stream_failed(const stream *s);
void stream_reset(stream *s);

#endif
