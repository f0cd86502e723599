#include "view/canvas.h"

#include <cairo-pdf.h>
#include <cairo-svg.h>
#include <cairo.h>
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/status.h"

struct canvas {
    cairo_surface_t *surface;
    cairo_t *cr;
    view_format format;
    bool dark;
    strbuf bytes; /* of the file, as cairo writes them */
};

/* Okabe and Ito's colours, which people with any kind of colour vision can tell apart; yellow and black, which vanish on one of
 * the papers, are darkened or replaced. */
static const unsigned light_theme[CANVAS_SERIES + VIEW_MOST_INPUTS] = {0xffffff, 0xfafafa, 0x1f2328, 0x59636e, 0xe4e7eb,
                                                                       0x9aa4ae, 0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7,
                                                                       0xe69f00, 0x56b4e9, 0x8f7f00, 0x4d4d4d};
static const unsigned dark_theme[CANVAS_SERIES + VIEW_MOST_INPUTS] = {0x14181d, 0x1a1f26, 0xe8ecf1, 0xa3adb8, 0x2b323b,
                                                                      0x66717d, 0x56b4e9, 0xff8a3d, 0x1fc796, 0xe59bc4,
                                                                      0xe69f00, 0x4a90d9, 0xf0e442, 0xbfc5cc};

canvas_colour canvas_theme(const canvas *c, int part)
{
    unsigned rgb = (c->dark ? dark_theme : light_theme)[part];
    return (canvas_colour){(rgb >> 16) / 255.0, (rgb >> 8 & 255) / 255.0, (rgb & 255) / 255.0};
}

canvas_colour canvas_mix(canvas_colour a, canvas_colour b, double share_of_b)
{
    double t = share_of_b;
    return (canvas_colour){a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

/* ---- making and finishing ---- */

static cairo_status_t keep(void *user, const unsigned char *bytes, unsigned n)
{
    strbuf_add(user, bytes, n);
    return ((strbuf *)user)->failed ? CAIRO_STATUS_WRITE_ERROR : CAIRO_STATUS_SUCCESS;
}

static cairo_surface_t *surface_for(canvas *c, double width, double height)
{
    cairo_surface_t *s;
    switch (c->format) {
    case VIEW_PNG: return cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)(width * CANVAS_SCALE), (int)(height * CANVAS_SCALE));
    case VIEW_PDF:
        s = cairo_pdf_surface_create_for_stream(keep, &c->bytes, width, height);
        cairo_pdf_surface_set_metadata(s, CAIRO_PDF_METADATA_CREATE_DATE, "1970-01-01T00:00:00Z"); /* equal bytes every time */
        return s;
    default:
        s = cairo_svg_surface_create_for_stream(keep, &c->bytes, width, height);
        cairo_svg_surface_set_document_unit(s, CAIRO_SVG_UNIT_PX);
        return s;
    }
}

dil_status canvas_new(canvas **out, const view_request *r, double width, double height, dil_error *err)
{
    if (height > CANVAS_MOST_HEIGHT)
        return DIL_FAIL(err, DIL_LIMIT, "picture: wanted at most %d pixels of height, found %.0f; view fewer inputs at once",
                        CANVAS_MOST_HEIGHT, height);
    canvas *c = mem_calloc(1, sizeof *c, MEM_MISC);
    if (!c)
        return DIL_FAIL(err, DIL_NO_MEMORY, "picture: no memory");
    c->format = r->format;
    c->dark = r->dark;
    c->bytes = STRBUF(VIEW_MOST_BYTES);
    c->surface = surface_for(c, width, height);
    c->cr = cairo_create(c->surface);
    if (c->format == VIEW_PNG)
        cairo_scale(c->cr, CANVAS_SCALE, CANVAS_SCALE);
    cairo_set_line_join(c->cr, CAIRO_LINE_JOIN_ROUND);
    cairo_font_options_t *font = cairo_font_options_create();
    cairo_font_options_set_hint_metrics(font, CAIRO_HINT_METRICS_OFF); /* the same widths at every size */
    cairo_font_options_set_antialias(font, CAIRO_ANTIALIAS_GRAY);
    cairo_set_font_options(c->cr, font);
    cairo_font_options_destroy(font);
    dil_status status = DIL_OK;
    if (cairo_status(c->cr) != CAIRO_STATUS_SUCCESS)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "picture of %.0f x %.0f: cairo: %s", width, height,
                          cairo_status_to_string(cairo_status(c->cr)));
    else if (!(canvas_text_width(c, "x", (canvas_font){12, false}) > 0))
        status = DIL_FAIL(err, DIL_UNSUPPORTED, "picture: wanted a font for text, found none; install fonts-dejavu-core");
    if (status != DIL_OK) {
        canvas_free(c);
        return status;
    }
    canvas_fill(c, (box){0, 0, width, height}, canvas_theme(c, CANVAS_PAPER));
    *out = c;
    return DIL_OK;
}

void canvas_free(canvas *c)
{
    if (!c)
        return;
    cairo_destroy(c->cr);
    cairo_surface_destroy(c->surface);
    strbuf_free(&c->bytes);
    mem_free(c);
}

/* Text of an XML element: markup as numbers, what is no UTF-8 as question marks. */
static void add_escaped(strbuf *out, const char *text)
{
    for (size_t i = 0, n = strlen(text); i < n;) {
        uint32_t code = 0;
        int length = utf8_decode(text + i, n - i, &code);
        if (code == '<' || code == '&' || code == '>')
            strbuf_printf(out, "&#%u;", code);
        else if (length > 0 && code >= ' ')
            strbuf_add(out, text + i, (size_t)length);
        else if (length == 0)
            strbuf_add_char(out, '?');
        i += length > 0 ? (size_t)length : 1;
    }
}

/* Cairo numbers its surfaces through the process: id="surface17". Nothing refers to that number; it is left out, so that equal
 * pictures are equal files. */
static void add_without_number(strbuf *out, str svg)
{
    ptrdiff_t at = str_find(svg, STR("id=\"surface"));
    if (at < 0) {
        strbuf_add_str(out, svg);
        return;
    }
    size_t from = (size_t)at + strlen("id=\"surface"), to = from;
    while (to < svg.n && svg.p[to] >= '0' && svg.p[to] <= '9')
        to++;
    strbuf_add(out, svg.p, from);
    strbuf_add(out, svg.p + to, svg.n - to);
}

/* The text of an SVG file is drawn, letter by letter; title and desc say it. */
static void add_described(strbuf *out, str svg, const char *title, const char *about)
{
    ptrdiff_t head = str_find(svg, STR("<svg "));
    size_t end = head < 0 ? svg.n : (size_t)head;
    while (end < svg.n && svg.p[end] != '>')
        end++;
    if (end == svg.n) {
        out->failed = true;
        return;
    }
    strbuf_add(out, svg.p, end);
    strbuf_printf(out, " role=\"img\">\n<title>");
    add_escaped(out, title);
    strbuf_printf(out, "</title>\n<desc>");
    add_escaped(out, about);
    strbuf_printf(out, "</desc>");
    add_without_number(out, (str){svg.p + end + 1, svg.n - end - 1});
}

dil_status canvas_finish(canvas *c, const char *title, const char *about, strbuf *out, dil_error *err)
{
    cairo_status_t status = cairo_status(c->cr);
    if (c->format == VIEW_PDF)
        cairo_pdf_surface_set_metadata(c->surface, CAIRO_PDF_METADATA_TITLE, title);
    if (c->format == VIEW_PNG && status == CAIRO_STATUS_SUCCESS)
        status = cairo_surface_write_to_png_stream(c->surface, keep, &c->bytes);
    cairo_surface_finish(c->surface);
    if (status == CAIRO_STATUS_SUCCESS)
        status = cairo_surface_status(c->surface);
    if (status == CAIRO_STATUS_SUCCESS && (c->format == VIEW_SVG || c->format == VIEW_HTML))
        add_described(out, strbuf_str(&c->bytes), title, about);
    else if (status == CAIRO_STATUS_SUCCESS)
        strbuf_add_str(out, strbuf_str(&c->bytes));
    if (c->bytes.failed || out->failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "picture: its file does not fit into memory or %zu bytes", VIEW_MOST_BYTES);
    if (status != CAIRO_STATUS_SUCCESS)
        return DIL_FAIL(err, DIL_INTERNAL, "picture: cairo: %s", cairo_status_to_string(status));
    return DIL_OK;
}

/* ---- shapes ---- */

static void use(canvas *c, canvas_colour colour, double opacity)
{
    cairo_set_source_rgba(c->cr, colour.r, colour.g, colour.b, opacity);
}

void canvas_fill(canvas *c, box at, canvas_colour colour)
{
    use(c, colour, 1);
    cairo_rectangle(c->cr, at.x, at.y, at.w, at.h);
    cairo_fill(c->cr);
}

void canvas_line(canvas *c, double x0, double y0, double x1, double y1, canvas_colour colour, double width)
{
    double x[2] = {x0, x1}, y[2] = {y0, y1};
    canvas_path(c, x, y, 2, colour, width, 1);
}

void canvas_dot(canvas *c, double x, double y, double radius, canvas_colour colour)
{
    use(c, colour, 1);
    cairo_arc(c->cr, x, y, radius, 0, 2 * acos(-1));
    cairo_fill(c->cr);
}

void canvas_ring(canvas *c, double x, double y, double radius, canvas_colour colour, double width)
{
    use(c, colour, 1);
    cairo_set_line_width(c->cr, width);
    cairo_arc(c->cr, x, y, radius, 0, 2 * acos(-1));
    cairo_stroke(c->cr);
}

void canvas_path(canvas *c, const double *x, const double *y, size_t n, canvas_colour colour, double width, double opacity)
{
    if (n == 0)
        return;
    use(c, colour, opacity);
    cairo_set_line_width(c->cr, width);
    cairo_move_to(c->cr, x[0], y[0]);
    for (size_t i = 1; i < n; i++)
        cairo_line_to(c->cr, x[i], y[i]);
    cairo_stroke(c->cr);
}

void canvas_shape(canvas *c, const double *x, const double *y, size_t n, canvas_colour colour, double opacity)
{
    if (n == 0)
        return;
    use(c, colour, opacity);
    cairo_move_to(c->cr, x[0], y[0]);
    for (size_t i = 1; i < n; i++)
        cairo_line_to(c->cr, x[i], y[i]);
    cairo_close_path(c->cr);
    cairo_fill(c->cr);
}

void canvas_clip(canvas *c, box at)
{
    cairo_save(c->cr);
    cairo_rectangle(c->cr, at.x, at.y, at.w, at.h);
    cairo_clip(c->cr);
}

void canvas_unclip(canvas *c) { cairo_restore(c->cr); }

/* ---- text ---- */

static void use_font(canvas *c, canvas_font font)
{
    cairo_select_font_face(c->cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           font.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(c->cr, font.size);
}

double canvas_text_width(canvas *c, const char *text, canvas_font font)
{
    cairo_text_extents_t e;
    use_font(c, font);
    cairo_text_extents(c->cr, text, &e);
    return e.x_advance;
}

void canvas_text(canvas *c, double x, double y, const char *text, canvas_font font, canvas_align align, canvas_colour colour)
{
    double width = align == CANVAS_LEFT ? 0 : canvas_text_width(c, text, font);
    use_font(c, font);
    use(c, colour, 1);
    cairo_move_to(c->cr, x - (align == CANVAS_CENTRE ? width / 2 : width), y);
    cairo_show_text(c->cr, text);
    cairo_new_path(c->cr);
}

void canvas_text_up(canvas *c, double x, double y, const char *text, canvas_font font, canvas_colour colour)
{
    cairo_save(c->cr);
    cairo_translate(c->cr, x, y);
    cairo_rotate(c->cr, -acos(-1) / 2);
    canvas_text(c, 0, 0, text, font, CANVAS_CENTRE, colour);
    cairo_restore(c->cr);
}

/* Malformed UTF-8, which cairo would refuse, and control characters become question marks. */
static void copy_clean(char *out, size_t out_size, const char *text)
{
    size_t n = strlen(text), o = 0;
    for (size_t i = 0; i < n;) {
        uint32_t code = 0;
        int len = utf8_decode(text + i, n - i, &code);
        size_t bytes = len > 0 && code >= ' ' ? (size_t)len : 1;
        if (o + bytes >= out_size)
            break;
        if (len > 0 && code >= ' ')
            memcpy(out + o, text + i, bytes);
        else
            out[o] = '?';
        i += len > 0 ? (size_t)len : 1;
        o += bytes;
    }
    out[o] = '\0';
}

static bool inside_character(char byte) { return ((unsigned char)byte & 0xc0) == 0x80; }

char *canvas_fit(canvas *c, const char *text, canvas_font font, double width, char *out, size_t out_size)
{
    char clean[512];
    copy_clean(clean, sizeof clean, text);
    size_t n = strlen(clean), left = n - n / 2, right = left;
    snprintf(out, out_size, "%s", clean);
    while (canvas_text_width(c, out, font) > width && (left > 1 || right < n)) {
        if (left >= n - right && left > 1)
            for (left--; left > 1 && inside_character(clean[left]); left--)
                ;
        else
            for (right++; right < n && inside_character(clean[right]); right++)
                ;
        while (left > 0 && inside_character(clean[left]))
            left--;
        while (right < n && inside_character(clean[right]))
            right++;
        snprintf(out, out_size, "%.*s…%s", (int)left, clean, clean + right);
    }
    return out;
}

double canvas_wrap(canvas *c, box at, const char *text, canvas_font font, canvas_colour colour, bool draw)
{
    char line[512];
    double y = at.y;
    for (const char *p = text; *p; y += font.size * 1.45) {
        size_t taken = strlen(p), try = 0;
        bool whole = false;
        for (size_t end = 0; !whole; end++) {
            if (p[end] && p[end] != ' ')
                continue;
            snprintf(line, sizeof line, "%.*s", (int)end, p);
            if (try > 0 && (end >= sizeof line || canvas_text_width(c, line, font) > at.w))
                break;
            try = end;
            whole = !p[end];
        }
        taken = try;
        str shown = {p, taken < sizeof line ? taken : sizeof line - 1};
        snprintf(line, sizeof line, "%.*s", (int)(shown.n - utf8_incomplete_tail(shown)), p);
        if (draw)
            canvas_text(c, at.x, y, line, font, CANVAS_LEFT, colour);
        for (p += taken; *p == ' '; p++)
            ;
    }
    return y;
}
