/*
 * The output stream: token bytes -> whole characters -> text that is certainly not part of a stop
 * string. The result depends on the bytes only, not on how tokens cut them: the stop string that is
 * completed first ends the text, the longest of those completed by the same byte.
 */
#include "output/stream.h"

#include "base/mem.h"
#include "base/status.h"

enum { STOPS_MAX = 64, STOP_BYTES_MAX = 1024, PIECE_BYTES_MAX = 1 << 20, TEXT_BYTES_MAX = 1 << 24 };

/* A stop string and how many bytes of it the text ends with now (Knuth, Morris, Pratt). */
typedef struct stop {
    char *text;     /* [n] */
    uint16_t *back; /* [n] back[i]: longest proper prefix of text that ends text[0..i] */
    size_t n, matched;
} stop;

struct stream {
    const vocab *v;
    stop *stops; /* [n_stops] */
    int n_stops;
    strbuf raw;  /* bytes of an unfinished character, then the bytes of the new token */
    strbuf text; /* whole characters: `shown` bytes given out by the last call, the rest held back */
    size_t shown;
    bool stopped, failed;
};

static void fill_back(stop *s)
{
    size_t k = 0;
    s->back[0] = 0;
    for (size_t i = 1; i < s->n; i++) {
        while (k > 0 && s->text[i] != s->text[k])
            k = s->back[k - 1];
        if (s->text[i] == s->text[k])
            k++;
        s->back[i] = (uint16_t)k;
    }
}

static dil_status add_stop(stream *s, const char *text, dil_error *err)
{
    size_t n = strlen(text);
    if (n == 0)
        return DIL_OK;
    if (n > STOP_BYTES_MAX)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "stop string of %zu bytes: at most %d", n, STOP_BYTES_MAX);
    if (!utf8_valid((str){text, n}))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "stop string %d is not UTF-8", s->n_stops + 1);
    stop *p = &s->stops[s->n_stops++];
    p->n = n;
    p->text = mem_alloc(n, MEM_TEXT);
    p->back = mem_calloc(n, sizeof *p->back, MEM_TEXT);
    if (!p->text || !p->back)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for a stop string of %zu bytes", n);
    memcpy(p->text, text, n);
    fill_back(p);
    return DIL_OK;
}

dil_status stream_new(stream **out, const vocab *v, const char *const *stops, int n_stops, dil_error *err)
{
    if (n_stops < 0 || n_stops > STOPS_MAX)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%d stop strings: at most %d", n_stops, STOPS_MAX);
    stream *s = mem_calloc(1, sizeof *s, MEM_TEXT);
    if (!s)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for an output stream");
    s->v = v;
    s->raw = STRBUF(PIECE_BYTES_MAX);
    s->text = STRBUF(TEXT_BYTES_MAX);
    s->stops = mem_calloc((size_t)n_stops, sizeof *s->stops, MEM_TEXT);
    dil_status status = s->stops ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "no memory for %d stop strings", n_stops);
    for (int i = 0; i < n_stops && status == DIL_OK; i++)
        status = add_stop(s, stops[i], err);
    if (status != DIL_OK) {
        stream_free(s);
        return status;
    }
    *out = s;
    return DIL_OK;
}

void stream_free(stream *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n_stops; i++) {
        mem_free(s->stops[i].text);
        mem_free(s->stops[i].back);
    }
    mem_free(s->stops);
    strbuf_free(&s->raw);
    strbuf_free(&s->text);
    mem_free(s);
}

void stream_reset(stream *s)
{
    for (int i = 0; i < s->n_stops; i++)
        s->stops[i].matched = 0;
    strbuf_clear(&s->raw);
    strbuf_clear(&s->text);
    s->shown = 0;
    s->stopped = false;
    s->failed = false;
}

bool stream_failed(const stream *s) { return s->failed; }

/* Drops n bytes from the front of b. */
static void drop_front(strbuf *b, size_t n)
{
    if (n == 0)
        return;
    b->n -= n;
    memmove(b->p, b->p + n, b->n);
    b->p[b->n] = '\0';
}

/*
 * How many malformed bytes one U+FFFD stands for: the longest beginning of a well-formed sequence,
 * else one byte (the practice of the Unicode standard, "substitution of maximal subparts").
 */
static size_t malformed_length(str s)
{
    for (size_t n = s.n < 3 ? s.n : 3; n > 1; n--) {
        if (utf8_incomplete_tail((str){s.p, n}) == n)
            return n;
    }
    return 1;
}

/* Moves whole characters from raw to text. At the end nothing may wait any more. */
static void take_characters(stream *s, bool at_end)
{
    size_t i = 0;
    uint32_t code;
    while (i < s->raw.n) {
        str rest = {s->raw.p + i, s->raw.n - i};
        int length = utf8_decode(rest.p, rest.n, &code);
        if (length > 0) {
            strbuf_add(&s->text, rest.p, (size_t)length);
            i += (size_t)length;
        } else if (!at_end && rest.n <= 3 && utf8_incomplete_tail(rest) == rest.n) {
            break;
        } else {
            strbuf_add(&s->text, "\xEF\xBF\xBD", 3);
            i += malformed_length(rest);
        }
    }
    drop_front(&s->raw, i);
}

/* One byte further in every stop string; the length of the longest one it completes, 0 for none. */
static size_t advance(stream *s, char c)
{
    size_t completed = 0;
    for (int i = 0; i < s->n_stops; i++) {
        stop *p = &s->stops[i];
        while (p->matched > 0 && p->text[p->matched] != c)
            p->matched = p->back[p->matched - 1];
        if (p->text[p->matched] == c)
            p->matched++;
        if (p->matched < p->n)
            continue;
        completed = p->n > completed ? p->n : completed;
        p->matched = 0; /* the text ends here */
    }
    return completed;
}

static size_t held_back(const stream *s)
{
    size_t most = 0;
    for (int i = 0; i < s->n_stops; i++)
        most = s->stops[i].matched > most ? s->stops[i].matched : most;
    return most;
}

/* Looks at the bytes of text from `from` on; sets how many bytes may be shown. */
static void scan(stream *s, size_t from)
{
    for (size_t i = from; i < s->text.n; i++) {
        size_t completed = advance(s, s->text.p[i]);
        if (completed == 0)
            continue;
        s->stopped = true;
        s->shown = i + 1 - completed;
        return;
    }
    s->shown = s->text.n - held_back(s);
}

bool stream_push(stream *s, token_id id, str *text)
{
    *text = (str){"", 0};
    if (s->stopped)
        return true;
    drop_front(&s->text, s->shown);
    s->shown = 0;
    size_t from = s->text.n;
    vocab_decode_token(s->v, id, false, &s->raw);
    take_characters(s, false);
    s->failed = s->failed || s->raw.failed || s->text.failed;
    scan(s, from);
    *text = (str){s->text.p ? s->text.p : "", s->shown};
    return s->stopped;
}

str stream_finish(stream *s)
{
    if (s->stopped)
        return (str){"", 0};
    drop_front(&s->text, s->shown);
    s->shown = 0;
    size_t from = s->text.n;
    take_characters(s, true);
    s->failed = s->failed || s->raw.failed || s->text.failed;
    scan(s, from);
    if (!s->stopped)
        s->shown = s->text.n;
    s->stopped = true;
    return (str){s->text.p ? s->text.p : "", s->shown};
}
