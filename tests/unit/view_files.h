/* Test helper: files that pictures are drawn of, and what the files of pictures are asked. */
#ifndef TESTS_VIEW_FILES_H
#define TESTS_VIEW_FILES_H

#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "experts/trace.h"
#include "view/view.h"

/* fontconfig keeps what it read about fonts as long as the process lives; the leak sanitizer asks for this when it is there. */
const char *__lsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void) { return "leak:libfontconfig"; }

static inline void ok(dil_status status, const dil_error *err)
{
    if (status != DIL_OK)
        fail_msg("%s", err->text);
}

static inline void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

/* Tokens that choose expert token % n_choice + from in both layers with experts. */
static inline void write_route(const char *path, uint32_t n_experts, uint32_t n_tokens, uint32_t from, uint32_t n_choice)
{
    trace_layer layers[3] = {{.n_experts = 0}, {.bytes = 10, .n_experts = n_experts}, {.bytes = 10, .n_experts = n_experts}};
    trace_options o = {.name = "by/hand", .layers = layers, .n_layers = 3, .n_used = 1, .most_tokens = n_tokens + 1};
    trace_writer *w;
    dil_error err;
    ok(trace_writer_open(&w, path, &o, &err), &err);
    if (n_tokens > 0)
        ok(trace_writer_begin(w, n_tokens, &err), &err);
    for (uint32_t t = 0; t < n_tokens; t++) {
        uint16_t one = (uint16_t)(t % n_choice + from), other = (uint16_t)(t % n_experts);
        trace_writer_put(w, t, 1, &one, NULL);
        trace_writer_put(w, t, 2, &other, NULL);
    }
    if (n_tokens > 0)
        ok(trace_writer_end(w, &err), &err);
    ok(trace_writer_commit(w, &err), &err);
}

static inline strbuf drawn(view_picture picture, const char *const *inputs, int n, view_format format, bool other)
{
    view_request r = {.inputs = inputs, .n_inputs = n, .format = format, .dark = other, .turkish = other};
    strbuf out = STRBUF(VIEW_MOST_BYTES);
    dil_error err;
    ok(picture(&out, &r, &err), &err);
    return out;
}

/* Every element is closed in order; no bare '<' or '&'; enough of XML for what we write. */
static inline void check_xml(str s)
{
    char open[64][32];
    int depth = 0, elements = 0;
    assert_true(utf8_valid(s));
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '&')
            assert_true(i + 1 < s.n && (s.p[i + 1] == '#' || strchr("alqg", s.p[i + 1])));
        if (s.p[i] != '<')
            continue;
        size_t end = i + 1;
        for (; end < s.n && s.p[end] != '>'; end++)
            assert_true(s.p[end] != '<');
        assert_true(end < s.n);
        size_t from = i + 1 + (s.p[i + 1] == '/'), to = from;
        while (to < end && !strchr(" \n/", s.p[to]))
            to++;
        assert_true(to - from < sizeof open[0]);
        if (s.p[i + 1] == '/') {
            assert_true(depth > 0 && strlen(open[depth - 1]) == to - from && memcmp(open[depth - 1], s.p + from, to - from) == 0);
            depth--;
        } else if (s.p[i + 1] != '?' && s.p[end - 1] != '/') {
            assert_true(depth < 64);
            (void)snprintf(open[depth++], sizeof open[0], "%.*s", (int)(to - from), s.p + from);
        }
        elements++;
        i = end;
    }
    assert_int_equal(depth, 0);
    assert_true(elements > 20);
}

static inline bool holds(const strbuf *b, const char *text) { return str_find(strbuf_str(b), str_of(text)) >= 0; }

static inline uint32_t big_endian(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

#endif
