#include "evaluate/lines.h"

bool lines_next(str *text, str *line)
{
    if (text->n == 0)
        return false;
    const char *end = memchr(text->p, '\n', text->n);
    size_t n = end ? (size_t)(end - text->p) : text->n;
    *line = (str){text->p, n > 0 && text->p[n - 1] == '\r' ? n - 1 : n};
    n += end ? 1 : 0;
    text->p += n;
    text->n -= n;
    return true;
}

size_t lines_count(str text)
{
    size_t n = 0;
    for (str line; lines_next(&text, &line);)
        n++;
    return n;
}
