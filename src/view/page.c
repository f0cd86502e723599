#include "view/page.h"

#include <stdio.h>

#include "base/status.h"

static str stem_of(const char *path)
{
    str s = str_of(path);
    while (s.n > 1 && s.p[s.n - 1] == '/')
        s.n--;
    size_t from = s.n, dot = s.n;
    while (from > 0 && s.p[from - 1] != '/')
        from--;
    for (size_t i = from + 1; i < s.n; i++)
        dot = s.p[i] == '.' ? i : dot;
    return (str){s.p + from, dot - from};
}

/* The last `levels` folders of a path: "c" or "b/c" of a/b/c/file. */
static str folder_of(const char *path, int levels)
{
    const char *slash = strrchr(path, '/');
    size_t end = slash ? (size_t)(slash - path) : 0, from = end;
    for (; levels > 0 && from > 0; levels--)
        do
            from--;
        while (from > 0 && path[from - 1] != '/');
    return (str){path + from, end - from};
}

/* A log is called after its folder; folders that are called the same, after the one around them too. */
static str name_of(const view_request *r, int i)
{
    str name = stem_of(r->inputs[i]), folder = folder_of(r->inputs[i], 1);
    if (!str_equal(name, STR("metrics")) || folder.n == 0 || folder.p[0] == '.')
        return name;
    for (int j = 0; j < r->n_inputs; j++)
        if (j != i && str_equal(folder, folder_of(r->inputs[j], 1)))
            return folder_of(r->inputs[i], 2);
    return folder;
}

void page_names(const view_request *r, char names[VIEW_MOST_INPUTS][PAGE_NAME_BYTES])
{
    for (int i = 0; i < r->n_inputs; i++) {
        str name = name_of(r, i);
        int same = 1;
        for (int j = 0; j < i; j++)
            same += strncmp(names[j], name.p, name.n) == 0 && (names[j][name.n] == '\0' || names[j][name.n] == ' ');
        if (name.n > PAGE_NAME_BYTES - 16)
            name.n = PAGE_NAME_BYTES - 16;
        name.n -= utf8_incomplete_tail(name);
        if (same > 1)
            snprintf(names[i], PAGE_NAME_BYTES, "%.*s (%d)", (int)name.n, name.p, same);
        else
            snprintf(names[i], PAGE_NAME_BYTES, "%.*s", (int)name.n, name.p);
    }
}

void page_text(strbuf *out, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (strchr("<>&\"", *p))
            strbuf_printf(out, "&#%d;", *p);
        else
            strbuf_add_char(out, *p);
    }
}

void page_cell(page_figures *f, const char *text)
{
    bool first = f->html.n == 0 || str_ends(strbuf_str(&f->html), STR("\n"));
    strbuf_printf(&f->html, "%s<%s>", first ? "<tr>" : "", f->head && !first ? "td" : "th");
    page_text(&f->html, text);
    strbuf_printf(&f->html, "</%s>", f->head && !first ? "td" : "th");
}

void page_row_end(page_figures *f)
{
    strbuf_printf(&f->html, "</tr>\n");
    f->head = true;
}

static void write_page(strbuf *out, const view_request *r, const char *title, str svg, const page_figures *f)
{
    ptrdiff_t head = str_find(svg, STR("<svg "));
    if (head < 0 || f->html.failed) {
        out->failed = true;
        return;
    }
    strbuf_printf(out, "<!DOCTYPE html>\n<html lang=\"%s\">\n<head>\n<meta charset=\"utf-8\">\n<title>", r->turkish ? "tr" : "en");
    page_text(out, title);
    strbuf_printf(
        out,
        "</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n"
        "body { margin: 0 auto; max-width: 1280px; padding: 8px; background: %s; color: %s; font: 15px/1.5 sans-serif; }\n"
        "svg { width: 100%%; height: auto; }\ndiv { overflow-x: auto; }\n"
        "table { border-collapse: collapse; margin: 12px 0 40px; font-variant-numeric: tabular-nums; }\n"
        "th, td { padding: 3px 12px; text-align: right; border-bottom: 1px solid %s; }\n"
        "th:first-child { text-align: left; }\n</style>\n</head>\n<body>\n",
        r->dark ? "#14181d" : "#ffffff", r->dark ? "#e8ecf1" : "#1f2328", r->dark ? "#2b323b" : "#e4e7eb");
    strbuf_add(out, svg.p + head, svg.n - (size_t)head);
    strbuf_printf(out, "<h2>%s</h2>\n<div><table>\n", r->turkish ? "Sayılar" : "Figures");
    strbuf_add_str(out, strbuf_str(&f->html));
    strbuf_printf(out, "</table></div>\n</body>\n</html>\n");
}

dil_status page_finish(canvas *c, const view_request *r, const char *title, const char *about, const page_figures *f, strbuf *out,
                       dil_error *err)
{
    strbuf svg = STRBUF(VIEW_MOST_BYTES);
    bool page = r->format == VIEW_HTML;
    dil_status status = canvas_finish(c, title, about, page ? &svg : out, err);
    if (status == DIL_OK && page)
        write_page(out, r, title, strbuf_str(&svg), f);
    if (status == DIL_OK && out->failed)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "picture: the page does not fit into memory");
    strbuf_free(&svg);
    return status;
}
