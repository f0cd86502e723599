#include "train/documents.h"

#include "base/mem.h"

static bool is_line_end(char c) { return c == '\n' || c == '\r'; }

static str without_line_ends(str s, bool at_start, bool at_end)
{
    while (at_start && s.n > 0 && is_line_end(s.p[0]))
        s = (str){s.p + 1, s.n - 1};
    while (at_end && s.n > 0 && is_line_end(s.p[s.n - 1]))
        s.n--;
    return s;
}

static bool ends_with_mark(str text, size_t at)
{
    return at >= sizeof DOCUMENTS_MARK - 1 && str_ends((str){text.p, at}, STR(DOCUMENTS_MARK));
}

bool documents_next(str text, size_t *at, str *piece, bool *ends)
{
    if (*at >= text.n)
        return false;
    str rest = {text.p + *at, text.n - *at};
    const char *mark = memmem(rest.p, rest.n, DOCUMENTS_MARK, sizeof DOCUMENTS_MARK - 1);
    bool after_mark = ends_with_mark(text, *at);
    *ends = mark != NULL;
    rest.n = mark ? (size_t)(mark - rest.p) : rest.n;
    *at += rest.n + (mark ? sizeof DOCUMENTS_MARK - 1 : 0);
    *piece = without_line_ends(rest, after_mark, *ends);
    return true;
}

/* White space belongs together with the line's end before it; '<' may begin a mark, whose line ends are looked at from both sides. */
static bool can_cut(str text, size_t at) { return (unsigned char)text.p[at] > ' ' && text.p[at] != '<'; }

size_t documents_block(str text, size_t from, size_t wanted)
{
    if (text.n - from <= wanted)
        return text.n;
    for (size_t at = from + wanted; at < text.n;) {
        const char *line_end = memchr(text.p + at - 1, '\n', text.n - at);
        if (!line_end)
            break;
        at = (size_t)(line_end - text.p) + 1;
        if (can_cut(text, at))
            return at;
        at++;
    }
    return text.n;
}

size_t *documents_blocks(str text, size_t wanted, size_t *n)
{
    size_t *ends = mem_alloc((text.n / wanted + 2) * sizeof *ends, MEM_TEXT), count = 0;
    if (!ends)
        return NULL;
    for (size_t at = 0; at < text.n; count++)
        ends[count] = at = documents_block(text, at, wanted);
    *n = count;
    return ends;
}
