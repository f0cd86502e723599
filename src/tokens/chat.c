/*
 * Chat templates: chooses between the file's own template (rendered by the bridge) and a built-in
 * format, and bounds what an untrusted template may do. Owns the JSON of plain conversations; knows
 * nothing of tokens.
 */
#include "tokens/chat.h"

#include <time.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "tokens/chat_builtin.h"

#ifdef DIL_HAVE_BRIDGE
#include "dil_bridge.h"
#endif

/* Real templates are below 64 KiB. */
#define SOURCE_BYTES_MAX ((size_t)1 << 20)
#define JSON_BYTES_MAX ((size_t)1 << 30)
/*
 * What a template may spend: fixed, plus so much per byte of the conversation. Real ones spend some
 * hundred units of fuel per message and less than one per byte.
 */
#define FUEL_FIXED ((uint64_t)200000)
#define FUEL_PER_BYTE 8u
#define OUTPUT_FIXED ((uint64_t)4 << 20)
#define OUTPUT_PER_BYTE 16u
#define TIMEOUT_MS 2000u

struct chat_template {
    str source, bos, eos;        /* copies, in one block with this struct */
    const chat_builtin *builtin; /* NULL: none recognised */
    bool fallback;
#ifdef DIL_HAVE_BRIDGE
    dil_bridge_template *jinja; /* NULL: the built-in format is used */
#endif
};

static str copy_to(char **at, str s)
{
    char *p = *at;
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    *at += s.n + 1;
    return (str){p, s.n};
}

static chat_template *copy_source(str source, str bos, str eos)
{
    chat_template *t = mem_calloc(1, sizeof *t + source.n + bos.n + eos.n + 3, MEM_TEXT);
    if (!t)
        return NULL;
    char *at = (char *)(t + 1);
    t->source = copy_to(&at, source);
    t->bos = copy_to(&at, bos);
    t->eos = copy_to(&at, eos);
    return t;
}

/*
 * Without an engine: a format by its markers, or the plain one when anything is better than
 * failing.
 */
static dil_status choose_builtin(chat_template *t, dil_error *err)
{
    if (t->builtin)
        return DIL_OK;
    if (!t->fallback)
        return DIL_FAIL(err, DIL_UNSUPPORTED,
                        "chat template: not one of the built-in formats, and this build has no template "
                        "engine (DIL_BRIDGE=OFF)");
    t->builtin = chat_builtin_plain();
    return DIL_OK;
}

#ifdef DIL_HAVE_BRIDGE
static dil_status parse_jinja(chat_template *t, dil_error *err)
{
    char text[300] = "";
    int32_t code = dil_bridge_template_new(&t->jinja, t->source.p, t->source.n, text, sizeof text);
    if (code == DIL_BRIDGE_OK)
        return DIL_OK;
    t->jinja = NULL;
    if (t->fallback)
        return choose_builtin(t, err);
    return DIL_FAIL(err, code == DIL_BRIDGE_PANIC ? DIL_INTERNAL : DIL_FORMAT, "chat template: %s", text);
}
#endif

dil_status chat_template_new(chat_template **out, str source, str bos, str eos, bool fallback, dil_error *err)
{
    if (source.n > SOURCE_BYTES_MAX || bos.n > SOURCE_BYTES_MAX || eos.n > SOURCE_BYTES_MAX)
        return DIL_FAIL(err, DIL_LIMIT, "chat template: %zu bytes, at most %zu are read", source.n, SOURCE_BYTES_MAX);
    chat_template *t = copy_source(source, bos, eos);
    if (!t)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for a chat template of %zu bytes", source.n);
    t->fallback = fallback;
    t->builtin = chat_builtin_find(t->source);
    dil_status status = DIL_OK;
#ifdef DIL_HAVE_BRIDGE
    if (t->source.n > 0)
        status = parse_jinja(t, err);
#else
    status = choose_builtin(t, err);
#endif
    if (status != DIL_OK) {
        chat_template_free(t);
        return status;
    }
    *out = t;
    return DIL_OK;
}

void chat_template_free(chat_template *t)
{
#ifdef DIL_HAVE_BRIDGE
    if (t)
        dil_bridge_template_free(t->jinja);
#endif
    mem_free(t);
}

static bool uses_jinja(const chat_template *t)
{
#ifdef DIL_HAVE_BRIDGE
    return t->jinja != NULL;
#else
    (void)t;
    return false;
#endif
}

const char *chat_template_kind(const chat_template *t) { return uses_jinja(t) ? "jinja" : chat_builtin_name(t->builtin); }

/* strftime of the current local time; 0 when it does not fit. */
static size_t strftime_now(const char *format, char *out, size_t n)
{
    time_t now = (time_t)os_wall_seconds();
    struct tm local;
    if (!localtime_r(&now, &local))
        return 0;
    return strftime(out, n, format, &local);
}

static dil_status render_builtin(const chat_template *t, const chat_message *messages, size_t n, bool add_assistant, strbuf *out,
                                 dil_error *err)
{
    char today_short[32] = "", today_long[32] = "";
    size_t before = out->n;
    strftime_now("%d %b %Y", today_short, sizeof today_short);
    strftime_now("%B %d, %Y", today_long, sizeof today_long);
    chat_conversation c = {messages, n, add_assistant, t->source, t->bos, t->eos, today_short, today_long};
    chat_builtin_render(t->builtin, &c, out);
    if (!out->failed)
        return DIL_OK;
    out->n = before;
    return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for a conversation of %zu messages", n);
}

#ifdef DIL_HAVE_BRIDGE
static int32_t write_text(void *ctx, const char *bytes, size_t n)
{
    strbuf *out = ctx;
    strbuf_add(out, bytes, n);
    return out->failed ? 1 : 0;
}

static dil_bridge_text text_of(const char *text) { return (dil_bridge_text){text, text ? strlen(text) : 0}; }

/* Empty bos or eos: undefined in the template, as when a tokeniser has none. */
static dil_bridge_text token_text(str s) { return (dil_bridge_text){s.n > 0 ? s.p : NULL, s.n}; }

static dil_status render_jinja(const chat_template *t, const char *messages, const char *tools, const char *extra,
                               bool add_assistant, strbuf *out, dil_error *err)
{
    static const dil_status codes[] = {
        [DIL_BRIDGE_SYNTAX] = DIL_FORMAT,         [DIL_BRIDGE_RENDER] = DIL_FORMAT,   [DIL_BRIDGE_LIMIT] = DIL_LIMIT,
        [DIL_BRIDGE_BAD_JSON] = DIL_BAD_ARGUMENT, [DIL_BRIDGE_WRITE] = DIL_NO_MEMORY, [DIL_BRIDGE_PANIC] = DIL_INTERNAL,
    };
    char text[300] = "";
    size_t before = out->n;
    dil_bridge_request r = {
        .messages_json = text_of(messages),
        .tools_json = text_of(tools),
        .extra_json = text_of(extra),
        .bos = token_text(t->bos),
        .eos = token_text(t->eos),
        .add_generation_prompt = add_assistant,
        .write = write_text,
        .write_ctx = out,
        .strftime_now = strftime_now,
    };
    uint64_t given = r.messages_json.n + r.tools_json.n + r.extra_json.n + t->source.n;
    r.fuel = FUEL_FIXED + given * FUEL_PER_BYTE;
    r.max_output_bytes = OUTPUT_FIXED + given * OUTPUT_PER_BYTE;
    r.timeout_ms = TIMEOUT_MS + given / 1000;
    int32_t code = dil_bridge_template_render(t->jinja, &r, text, sizeof text);
    if (code == DIL_BRIDGE_OK)
        return DIL_OK;
    out->n = before;
    if (out->p)
        out->p[before] = '\0';
    if (code == DIL_BRIDGE_BAD_JSON)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "chat: %s", text);
    return DIL_FAIL(err, codes[code], "chat template: %s", text);
}

/* A JSON string; malformed UTF-8 becomes U+FFFD. */
static void add_json_string(strbuf *out, const char *text)
{
    str s = str_of(text);
    uint32_t code;
    strbuf_add_char(out, '"');
    for (size_t i = 0; i < s.n;) {
        int length = utf8_decode(s.p + i, s.n - i, &code);
        if (length == 0)
            strbuf_add(out, "\xEF\xBF\xBD", 3);
        else if (code == '"' || code == '\\')
            strbuf_printf(out, "\\%c", (int)code);
        else if (code < 0x20)
            strbuf_printf(out, "\\u%04x", code);
        else
            strbuf_add(out, s.p + i, (size_t)length);
        i += length > 0 ? (size_t)length : 1;
    }
    strbuf_add_char(out, '"');
}

static dil_status messages_to_json(const chat_message *messages, size_t n, strbuf *out, dil_error *err)
{
    strbuf_add_char(out, '[');
    for (size_t i = 0; i < n; i++) {
        strbuf_add_str(out, i > 0 ? STR(",{\"role\":") : STR("{\"role\":"));
        add_json_string(out, messages[i].role);
        strbuf_add_str(out, STR(",\"content\":"));
        add_json_string(out, messages[i].content);
        strbuf_add_char(out, '}');
    }
    strbuf_add_char(out, ']');
    if (out->failed)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for a conversation of %zu messages", n);
    return DIL_OK;
}

/*
 * The file's template; when it fails and a fallback is wanted, the built-in format its text
 * resembles.
 */
static dil_status render_messages(const chat_template *t, const chat_message *messages, size_t n, bool add_assistant, strbuf *out,
                                  dil_error *err)
{
    strbuf json = STRBUF(JSON_BYTES_MAX);
    dil_status status = messages_to_json(messages, n, &json, err);
    if (status == DIL_OK)
        status = render_jinja(t, json.p, NULL, NULL, add_assistant, out, err);
    strbuf_free(&json);
    if (status == DIL_OK || status == DIL_NO_MEMORY || !t->fallback || !t->builtin)
        return status;
    status_clear(err);
    return render_builtin(t, messages, n, add_assistant, out, err);
}
#endif

dil_status chat_template_render(const chat_template *t, const chat_message *messages, size_t n, bool add_assistant, strbuf *out,
                                dil_error *err)
{
#ifdef DIL_HAVE_BRIDGE
    if (t->jinja)
        return render_messages(t, messages, n, add_assistant, out, err);
#endif
    return render_builtin(t, messages, n, add_assistant, out, err);
}

dil_status chat_template_render_json(const chat_template *t, const char *messages_json, const char *tools_json,
                                     const char *extra_json, bool add_assistant, strbuf *out, dil_error *err)
{
#ifdef DIL_HAVE_BRIDGE
    if (t->jinja)
        return render_jinja(t, messages_json, tools_json, extra_json, add_assistant, out, err);
#else
    (void)messages_json, (void)tools_json, (void)extra_json, (void)add_assistant, (void)out;
#endif
    return DIL_FAIL(err, DIL_UNSUPPORTED,
                    "chat template (%s): messages as JSON need the file's own template and a build with "
                    "the template engine (DIL_BRIDGE=ON)",
                    chat_template_kind(t));
}
