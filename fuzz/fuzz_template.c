/*
 * links: tokens base Parses any bytes as a chat template and renders a short conversation through
 * it: with the template engine (when it is built in) and through the built-in formats. Nothing may
 * crash or hang; a template that fails must say so.
 */
#include <stdlib.h>

#include "tokens/chat.h"
#include "tokens/chat_builtin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const chat_message messages[] = {
    {"system", "Be brief."},
    {"user", " Hi \"there\"\n\xF0\x9F\x98\x80 "},
    {"assistant", "Hello."},
    {"user", "\xFF{{ 1 }}"},
};
static const char json[] = "[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                           "\"arguments\":{\"a\":[1,2.5,null,true]}}}]}]";

static void check(dil_status status, const strbuf *out, const dil_error *err)
{
    if (status == DIL_OK ? out->failed : out->n != 0 || err->text[0] == '\0')
        abort();
}

static void render(const chat_template *t)
{
    strbuf out = STRBUF((size_t)64 << 20);
    dil_error err = {DIL_OK, ""};
    check(chat_template_render(t, messages, 4, true, &out, &err), &out, &err);
    strbuf_clear(&out);
    err.text[0] = '\0';
    check(chat_template_render_json(t, json, json, "{\"a\":1}", false, &out, &err), &out, &err);
    strbuf_free(&out);
}

static void render_builtin(str source)
{
    strbuf out = STRBUF((size_t)64 << 20);
    const chat_builtin *b = chat_builtin_find(source);
    chat_conversation c = {messages, 4, true, source, STR("<s>"), STR("</s>"), "01 Jan 2030", "January 01, 2030"};
    if (b)
        chat_builtin_render(b, &c, &out);
    strbuf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A copy of the exact size, so that the sanitizers see one byte too many. */
    char *copy = malloc(size + (size == 0));
    if (!copy)
        return 0;
    if (size > 0)
        memcpy(copy, data, size);
    str source = {copy, size};
    for (int fallback = 0; fallback < 2; fallback++) {
        chat_template *t = NULL;
        dil_error err = {DIL_OK, ""};
        if (chat_template_new(&t, source, STR("<s>"), STR("</s>"), fallback, &err) == DIL_OK)
            render(t);
        else if (t || err.text[0] == '\0')
            abort();
        chat_template_free(t);
    }
    render_builtin(source);
    free(copy);
    return 0;
}
