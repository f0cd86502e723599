/* Bounded strings: slices that need no terminator, and a growing buffer with a stated maximum. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "dilmodeli.h"

/* A borrowed run of bytes. */
typedef struct str {
    const char *p;
    size_t n;
} str;

#define STR(literal) ((str){(literal), sizeof(literal) - 1})
#define STR_ARG(s) (int)((s).n > 200 ? 200 : (s).n), (s).p /* for "%.*s" in messages, cut at 200 bytes */

static inline str str_of(const char *z) { return (str){z, z ? strlen(z) : 0}; }
static inline bool str_equal(str a, str b) { return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0); }
static inline bool str_starts(str s, str prefix) { return s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0; }
bool str_ends(str s, str suffix);
ptrdiff_t str_find(str haystack, str needle); /* offset or -1 */

/* Growing buffer. Zero-initialise with STRBUF(max); always NUL-terminated once something was added. After a failure
 * `failed` stays set and further additions do nothing, so that callers may check once at the end. */
typedef struct strbuf {
    char *p;
    size_t n, capacity, max;
    bool failed;
} strbuf;
#define STRBUF(max_bytes) ((strbuf){NULL, 0, 0, (max_bytes), false})

void strbuf_add(strbuf *b, const void *bytes, size_t n);
void strbuf_add_str(strbuf *b, str s);
void strbuf_add_char(strbuf *b, char c);
void strbuf_printf(strbuf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void strbuf_clear(strbuf *b); /* keeps the memory */
void strbuf_free(strbuf *b);
str strbuf_str(const strbuf *b);

/* ASCII only, never the locale (the Turkish dotless i). */
bool str_equal_nocase(const char *a, const char *b);
/* Strict number parsing: whole text must match, decimal, no locale; "inf" is a number to str_to_f64, NaN and 1e999 are not. */
bool str_to_i64(const char *text, int64_t *out);
bool str_to_f64(const char *text, double *out);
/* "512", "64k", "2M", "1.5G", "3GiB" -> bytes (binary units). */
bool str_to_bytes(const char *text, uint64_t *out);
/* 1.2 GB style text into out; returns out. */
char *str_bytes(uint64_t bytes, char *out, size_t out_size);

/* UTF-8: length of the well-formed sequence at p (1..4), or 0 when malformed or cut by the end. *code is set when > 0. */
int utf8_decode(const char *p, size_t n, uint32_t *code);
int utf8_encode(uint32_t code, char out[4]); /* bytes written, 0 for invalid code points */
bool utf8_valid(str s);
/* Columns s takes on a terminal: one for each character, and for each malformed byte. */
size_t utf8_columns(str s);
/* Bytes of s that its first n columns take. */
size_t utf8_cut(str s, size_t n);
/* How many bytes at the end of s begin a sequence that more bytes could still complete (0..3). */
size_t utf8_incomplete_tail(str s);

#endif
