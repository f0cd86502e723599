#include "base/str.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/mem.h"

bool str_ends(str s, str suffix) { return s.n >= suffix.n && memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0; }

ptrdiff_t str_find(str haystack, str needle)
{
    if (needle.n == 0)
        return 0;
    if (needle.n > haystack.n)
        return -1;
    const char *hit = memmem(haystack.p, haystack.n, needle.p, needle.n);
    return hit ? hit - haystack.p : -1;
}

/* Makes room for n more bytes and the terminator. */
static bool strbuf_reserve(strbuf *b, size_t n)
{
    size_t need;
    if (b->failed || !checked_add_size(b->n, n, &need) || need > b->max || need == SIZE_MAX) {
        b->failed = true;
        return false;
    }
    if (need + 1 <= b->capacity)
        return true;
    size_t capacity = b->capacity ? b->capacity * 2 : 64;
    if (capacity < need + 1)
        capacity = need + 1;
    if (capacity - 1 > b->max)
        capacity = b->max + 1;
    char *p = mem_grow(b->p, capacity, MEM_TEXT);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->capacity = capacity;
    return true;
}

void strbuf_add(strbuf *b, const void *bytes, size_t n)
{
    if (!strbuf_reserve(b, n))
        return;
    if (n)
        memcpy(b->p + b->n, bytes, n);
    b->n += n;
    b->p[b->n] = '\0';
}

void strbuf_add_str(strbuf *b, str s) { strbuf_add(b, s.p, s.n); }

void strbuf_add_char(strbuf *b, char c) { strbuf_add(b, &c, 1); }

void strbuf_printf(strbuf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0)
        b->failed = true;
    else if (strbuf_reserve(b, (size_t)n)) {
        vsnprintf(b->p + b->n, (size_t)n + 1, format, again);
        b->n += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

void strbuf_clear(strbuf *b)
{
    b->n = 0;
    b->failed = false;
    if (b->p)
        b->p[0] = '\0';
}

void strbuf_free(strbuf *b)
{
    mem_free(b->p);
    *b = (strbuf){NULL, 0, 0, b->max, false};
}

str strbuf_str(const strbuf *b) { return (str){b->p ? b->p : "", b->n}; }

static char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

bool str_equal_nocase(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (ascii_lower(*a) != ascii_lower(*b))
            return false;
    return *a == *b;
}

/* What strtoll and strtod would skip or read beyond plain decimal: white space in front, hexadecimal. */
static bool plain_number(const char *text) { return text && *text && !strchr(" \t\n\v\f\r", *text) && !strpbrk(text, "xX"); }

bool str_to_i64(const char *text, int64_t *out)
{
    char *end;
    if (!plain_number(text))
        return false;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || *end || end == text)
        return false;
    *out = v;
    return true;
}

bool str_to_f64(const char *text, double *out)
{
    char *end;
    if (!plain_number(text))
        return false;
    errno = 0;
    double v = strtod(text, &end); /* the process never calls setlocale(LC_NUMERIC), so '.' is the point */
    if (*end || end == text || isnan(v) || (errno && isinf(v)))
        return false;
    *out = v;
    return true;
}

bool str_to_bytes(const char *text, uint64_t *out)
{
    char *end;
    if (!plain_number(text) || *text == '-')
        return false;
    double v = strtod(text, &end);
    if (end == text || !(v >= 0))
        return false;
    double unit = 1;
    switch (ascii_lower(*end)) {
    case 'k':
        unit = 1024.0;
        end++;
        break;
    case 'm':
        unit = 1024.0 * 1024;
        end++;
        break;
    case 'g':
        unit = 1024.0 * 1024 * 1024;
        end++;
        break;
    case 't':
        unit = 1024.0 * 1024 * 1024 * 1024;
        end++;
        break;
    default: break;
    }
    if (ascii_lower(end[0]) == 'i')
        end++;
    if (ascii_lower(end[0]) == 'b')
        end++;
    if (*end || v * unit >= 9.2e18)
        return false;
    *out = (uint64_t)(v * unit);
    return true;
}

char *str_bytes(uint64_t bytes, char *out, size_t out_size)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= (u == 0 ? 1000 : 999.95) && u + 1 < sizeof units / sizeof units[0]) { /* what would print as 1000.0 */
        v /= 1000;
        u++;
    }
    snprintf(out, out_size, u == 0 ? "%.0f %s" : v < 9.995 ? "%.2f %s" : "%.1f %s", v, units[u]);
    return out;
}

int utf8_decode(const char *p, size_t n, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)p;
    if (n == 0)
        return 0;
    if (s[0] < 0x80) {
        *code = s[0];
        return 1;
    }
    int length = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || n < (size_t)length)
        return 0;
    uint32_t c = s[0] & (0x7Fu >> length);
    for (int i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3Fu);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < least[length] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return 0;
    *code = c;
    return length;
}

int utf8_encode(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        if (code >= 0xD800 && code <= 0xDFFF)
            return 0;
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    if (code > 0x10FFFF)
        return 0;
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

bool utf8_valid(str s)
{
    uint32_t code;
    for (size_t i = 0; i < s.n;) {
        int length = utf8_decode(s.p + i, s.n - i, &code);
        if (length == 0)
            return false;
        i += (size_t)length;
    }
    return true;
}

/* Walks over s, at most `most` columns; *bytes: how far that came. */
static size_t walk_columns(str s, size_t most, size_t *bytes)
{
    size_t n = 0, i = 0;
    for (; i < s.n && n < most; n++) {
        uint32_t code;
        const int length = utf8_decode(s.p + i, s.n - i, &code);
        i += length ? (size_t)length : 1;
    }
    *bytes = i;
    return n;
}

size_t utf8_columns(str s)
{
    size_t bytes;
    return walk_columns(s, SIZE_MAX, &bytes);
}

size_t utf8_cut(str s, size_t n)
{
    size_t bytes;
    (void)walk_columns(s, n, &bytes);
    return bytes;
}

size_t utf8_incomplete_tail(str s)
{
    for (size_t back = 1; back <= 3 && back <= s.n; back++) {
        unsigned char c = (unsigned char)s.p[s.n - back];
        if ((c & 0xC0) == 0x80)
            continue;
        size_t length = c >= 0xF0 && c <= 0xF4 ? 4 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xC2 && c < 0xE0 ? 2 : 1;
        if (length <= back)
            return 0;
        /* The second byte decides whether E0, ED, F0 and F4 can still become well-formed. */
        if (back >= 2) {
            unsigned char d = (unsigned char)s.p[s.n - back + 1];
            if ((c == 0xE0 && d < 0xA0) || (c == 0xED && d > 0x9F) || (c == 0xF0 && d < 0x90) || (c == 0xF4 && d > 0x8F))
                return 0;
        }
        return back;
    }
    return 0;
}
