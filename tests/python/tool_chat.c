/*
 * Renders chat templates for tests/python/test_chat_jinja.py. Reads requests from stdin until its
 * end, each of nine fields "<bytes>\n<text>" (-1: not given): mode (jinja, fallback or builtin),
 * source, bos, eos, add_assistant (0 or 1), messages (jinja: a JSON array; else role and content,
 * each ended by a NUL), tools, extra, and a closing dot. Answers each with "<status> <kind>
 * <bytes>\n<text>"; on failure the text is the error's.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "tokens/chat.h"
#include "tokens/chat_builtin.h"

enum { MODE, SOURCE, BOS, EOS, ADD, MESSAGES, TOOLS, EXTRA, DOT, FIELDS, MESSAGES_MAX = 4096 };

typedef struct field {
    char *p;
    size_t n;
} field;

static bool read_field(field *f)
{
    long n;
    if (scanf("%ld", &n) != 1 || getchar() != '\n')
        return false;
    f->p = NULL;
    f->n = 0;
    if (n < 0)
        return true;
    f->p = mem_alloc((size_t)n + 1, MEM_TEXT);
    f->n = (size_t)n;
    if (!f->p || fread(f->p, 1, f->n, stdin) != f->n)
        return false;
    f->p[n] = '\0';
    return true;
}

static size_t split_messages(field f, chat_message *out)
{
    size_t n = 0;
    for (size_t i = 0; i < f.n && n < MESSAGES_MAX; n++) {
        out[n].role = f.p + i;
        i += strlen(f.p + i) + 1;
        out[n].content = f.p + i;
        i += strlen(f.p + i) + 1;
    }
    return n;
}

/* The built-in format by markers, even in a build that has the engine. */
static dil_status run_builtin(const field *f, strbuf *out, const char **kind, dil_error *err)
{
    static chat_message messages[MESSAGES_MAX];
    str source = {f[SOURCE].p, f[SOURCE].n};
    const chat_builtin *b = chat_builtin_find(source);
    if (!b) {
        snprintf(err->text, sizeof err->text, "no built-in format");
        return DIL_UNSUPPORTED;
    }
    size_t n = split_messages(f[MESSAGES], messages);
    chat_conversation c = {
        messages, n, f[ADD].p[0] == '1', source, {f[BOS].p, f[BOS].n}, {f[EOS].p, f[EOS].n}, "01 Jan 2030", "January 01, 2030"};
    *kind = chat_builtin_name(b);
    chat_builtin_render(b, &c, out);
    return DIL_OK;
}

static dil_status run(const field *f, strbuf *out, const char **kind, dil_error *err)
{
    static chat_message messages[MESSAGES_MAX];
    chat_template *t = NULL;
    bool fallback = strcmp(f[MODE].p, "fallback") == 0, add = f[ADD].p[0] == '1';
    if (strcmp(f[MODE].p, "builtin") == 0)
        return run_builtin(f, out, kind, err);
    dil_status status =
        chat_template_new(&t, (str){f[SOURCE].p, f[SOURCE].n}, (str){f[BOS].p, f[BOS].n}, (str){f[EOS].p, f[EOS].n}, fallback, err);
    if (status != DIL_OK)
        return status;
    *kind = chat_template_kind(t);
    if (fallback)
        status = chat_template_render(t, messages, split_messages(f[MESSAGES], messages), add, out, err);
    else
        status = chat_template_render_json(t, f[MESSAGES].p, f[TOOLS].p, f[EXTRA].p, add, out, err);
    chat_template_free(t);
    return status;
}

int main(void)
{
    for (;;) {
        field f[FIELDS];
        for (int i = 0; i < FIELDS; i++) {
            if (!read_field(&f[i]))
                return i == 0 ? 0 : 1;
        }
        strbuf out = STRBUF((size_t)1 << 30);
        dil_error err = {DIL_OK, ""};
        const char *kind = "none";
        dil_status status = run(f, &out, &kind, &err);
        str text = status == DIL_OK ? strbuf_str(&out) : str_of(err.text);
        printf("%d %s %zu\n", (int)status, kind, text.n);
        fwrite(text.p, 1, text.n, stdout);
        fflush(stdout);
        strbuf_free(&out);
        for (int i = 0; i < FIELDS; i++)
            mem_free(f[i].p);
    }
}
