/*
 * Built-in chat formats. Each is a small function that writes what the model family's own Jinja
 * template writes for a plain conversation (system, user and assistant turns of text, no tools).
 * They serve builds without the bridge and files whose template does not work.
 */
#include "tokens/chat_builtin.h"

struct chat_builtin {
    const char *name;
    bool (*matches)(str source);
    void (*render)(const chat_conversation *c, strbuf *out);
};

static bool has(str source, const char *marker) { return str_find(source, str_of(marker)) >= 0; }

static bool is_role(const chat_message *m, const char *role) { return strcmp(m->role, role) == 0; }

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f); }

static str trimmed_end(const char *text)
{
    str s = str_of(text);
    while (s.n > 0 && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* Without the ASCII white space around it. */
static str trimmed(const char *text)
{
    str s = trimmed_end(text);
    while (s.n > 0 && is_space(s.p[0])) {
        s.p++;
        s.n--;
    }
    return s;
}

static void add(strbuf *out, const char *text) { strbuf_add_str(out, str_of(text)); }

/* The system message when it comes first, else NULL; *rest: index of the first message after it. */
static const chat_message *leading_system(const chat_conversation *c, size_t *rest)
{
    bool there = c->n > 0 && is_role(&c->messages[0], "system");
    *rest = there ? 1 : 0;
    return there ? &c->messages[0] : NULL;
}

/* ---- ChatML ---- */

static bool is_chatml(str source) { return has(source, "<|im_start|>"); }

/*
 * Many ChatML templates write a system turn of their own when the conversation has none. Its text
 * stands in the template as one literal: <|im_start|>system\n ... <|im_end|>, without a quote in
 * between.
 */
static bool default_system(str source, str *text)
{
    const str open = STR("<|im_start|>system"), close = STR("<|im_end|>");
    for (;;) {
        ptrdiff_t at = str_find(source, open);
        if (at < 0)
            return false;
        source.p += (size_t)at + open.n;
        source.n -= (size_t)at + open.n;
        size_t skip = source.n > 0 && source.p[0] == '\n' ? 1 : str_starts(source, STR("\\n")) ? 2 : 0;
        ptrdiff_t end = str_find(source, close);
        if (skip == 0 || end < (ptrdiff_t)skip)
            continue;
        *text = (str){source.p + skip, (size_t)end - skip};
        if (text->n > 0 && !memchr(text->p, '\'', text->n) && !memchr(text->p, '"', text->n) && !memchr(text->p, '{', text->n))
            return true;
    }
}

/* Adds a template literal: backslash n is a new line. */
static void add_literal(strbuf *out, str literal)
{
    for (size_t i = 0; i < literal.n; i++) {
        if (literal.p[i] == '\\' && i + 1 < literal.n && literal.p[i + 1] == 'n') {
            strbuf_add_char(out, '\n');
            i++;
        } else {
            strbuf_add_char(out, literal.p[i]);
        }
    }
}

static void render_chatml(const chat_conversation *c, strbuf *out)
{
    str text;
    if (c->n > 0 && !is_role(&c->messages[0], "system") && default_system(c->source, &text)) {
        add(out, "<|im_start|>system\n");
        add_literal(out, text);
        add(out, "<|im_end|>\n");
    }
    for (size_t i = 0; i < c->n; i++)
        strbuf_printf(out, "<|im_start|>%s\n%s<|im_end|>\n", c->messages[i].role, c->messages[i].content);
    if (c->add_assistant)
        add(out, "<|im_start|>assistant\n");
}

/* ---- Llama 3 ---- */

static bool is_llama3(str source) { return has(source, "<|start_header_id|>"); }

static void llama3_turn(strbuf *out, const char *role, const char *prefix, str content)
{
    strbuf_printf(out, "<|start_header_id|>%s<|end_header_id|>\n\n%s", role, prefix);
    strbuf_add_str(out, content);
    add(out, "<|eot_id|>");
}

/* Llama 3.1 and later always open with a system turn that carries two dates. */
static size_t llama3_dated_system(const chat_conversation *c, strbuf *out)
{
    size_t first;
    const chat_message *system = leading_system(c, &first);
    if (!has(c->source, "Cutting Knowledge Date: December 2023"))
        return 0;
    const char *today = has(c->source, "strftime_now") ? c->today_short : "26 Jul 2024";
    add(out, "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n");
    strbuf_printf(out, "Today Date: %s\n\n", today);
    strbuf_add_str(out, system ? trimmed(system->content) : STR(""));
    add(out, "<|eot_id|>");
    return first;
}

static void render_llama3(const chat_conversation *c, strbuf *out)
{
    strbuf_add_str(out, c->bos);
    for (size_t i = llama3_dated_system(c, out); i < c->n; i++)
        llama3_turn(out, c->messages[i].role, "", trimmed(c->messages[i].content));
    if (c->add_assistant)
        add(out, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

/* ---- Gemma ---- */

static bool is_gemma(str source) { return has(source, "<start_of_turn>"); }

/* Gemma knows no system role: its text goes before the first turn's. */
static void render_gemma(const chat_conversation *c, strbuf *out)
{
    size_t first;
    const chat_message *system = leading_system(c, &first);
    strbuf_add_str(out, c->bos);
    for (size_t i = first; i < c->n; i++) {
        const chat_message *m = &c->messages[i];
        strbuf_printf(out, "<start_of_turn>%s\n", is_role(m, "assistant") ? "model" : m->role);
        if (i == first && system)
            strbuf_printf(out, "%s\n\n", system->content);
        strbuf_add_str(out, trimmed(m->content));
        add(out, "<end_of_turn>\n");
    }
    if (c->add_assistant)
        add(out, "<start_of_turn>model\n");
}

/* ---- Mistral ---- */

/* What differs between Mistral's generations: spaces, and where the system text goes. */
typedef struct mistral_style {
    const char *user_open, *user_close, *assistant_open;
    bool system_on_last; /* with the last user turn instead of the first */
    bool trims_answers;
} mistral_style;

static void mistral_turns(const chat_conversation *c, const mistral_style *style, strbuf *out)
{
    size_t first;
    const chat_message *system = leading_system(c, &first);
    strbuf_add_str(out, c->bos);
    for (size_t i = first; i < c->n; i++) {
        const chat_message *m = &c->messages[i];
        if (is_role(m, "assistant")) {
            add(out, style->assistant_open);
            strbuf_add_str(out, style->trims_answers ? trimmed(m->content) : str_of(m->content));
            strbuf_add_str(out, c->eos);
            continue;
        }
        add(out, style->user_open);
        if (system && i == (style->system_on_last ? c->n - 1 : first))
            strbuf_printf(out, "%s\n\n", system->content);
        strbuf_printf(out, "%s%s", m->content, style->user_close);
    }
}

static bool is_mistral_v7(str source) { return has(source, "[INST]") && has(source, "[SYSTEM_PROMPT]"); }

static void render_mistral_v7(const chat_conversation *c, strbuf *out)
{
    const char *space = has(c->source, "[SYSTEM_PROMPT] ") || has(c->source, "[INST] ") ? " " : "";
    strbuf_add_str(out, c->bos);
    for (size_t i = 0; i < c->n; i++) {
        const chat_message *m = &c->messages[i];
        if (is_role(m, "system")) {
            strbuf_printf(out, "[SYSTEM_PROMPT]%s%s[/SYSTEM_PROMPT]", space, m->content);
        } else if (is_role(m, "assistant")) {
            strbuf_printf(out, "%s%s", space, m->content);
            strbuf_add_str(out, c->eos);
        } else {
            strbuf_printf(out, "[INST]%s%s[/INST]", space, m->content);
        }
    }
}

static bool is_llama2(str source) { return has(source, "[INST]") && has(source, "<<SYS>>"); }

static void render_llama2(const chat_conversation *c, strbuf *out)
{
    size_t first;
    const chat_message *system = leading_system(c, &first);
    for (size_t i = first; i < c->n; i++) {
        const chat_message *m = &c->messages[i];
        if (is_role(m, "assistant")) {
            strbuf_add_char(out, ' ');
            strbuf_add_str(out, trimmed(m->content));
            strbuf_add_char(out, ' ');
            strbuf_add_str(out, c->eos);
            continue;
        }
        strbuf_add_str(out, c->bos);
        add(out, "[INST] ");
        if (system && i == first)
            strbuf_printf(out, "<<SYS>>\n%s\n<</SYS>>\n\n", system->content);
        strbuf_add_str(out, system && i == first ? trimmed_end(m->content) : trimmed(m->content));
        add(out, " [/INST]");
    }
}

static bool is_mistral_v3(str source) { return has(source, "[INST]") && has(source, "[AVAILABLE_TOOLS]"); }

static void render_mistral_v3(const chat_conversation *c, strbuf *out)
{
    static const mistral_style spaced = {"[INST] ", "[/INST]", " ", true, true};
    static const mistral_style tekken = {"[INST]", "[/INST]", "", true, false};
    mistral_turns(c, has(c->source, "[INST] ") ? &spaced : &tekken, out);
}

static bool is_mistral_v1(str source) { return has(source, "[INST]"); }

static void render_mistral_v1(const chat_conversation *c, strbuf *out)
{
    static const mistral_style spaced = {" [INST] ", " [/INST]", " ", false, false};
    static const mistral_style plain = {"[INST] ", " [/INST]", "", false, false};
    mistral_turns(c, has(c->source, " [INST]") ? &spaced : &plain, out);
}

/* ---- Phi 3, Zephyr ---- */

static bool is_phi3(str source) { return has(source, "<|assistant|>") && has(source, "<|end|>"); }

static void render_phi3(const chat_conversation *c, strbuf *out)
{
    if (has(c->source, "bos_token"))
        strbuf_add_str(out, c->bos);
    for (size_t i = 0; i < c->n; i++) {
        const chat_message *m = &c->messages[i];
        if (m->content[0] || !is_role(m, "system"))
            strbuf_printf(out, "<|%s|>\n%s<|end|>\n", m->role, m->content);
    }
    if (c->add_assistant)
        add(out, "<|assistant|>\n");
    else if (has(c->source, "eos_token"))
        strbuf_add_str(out, c->eos);
}

static bool is_zephyr(str source) { return has(source, "<|assistant|>") && has(source, "<|user|>"); }

static void render_zephyr(const chat_conversation *c, strbuf *out)
{
    for (size_t i = 0; i < c->n; i++) {
        strbuf_printf(out, "<|%s|>\n%s", c->messages[i].role, c->messages[i].content);
        strbuf_add_str(out, c->eos);
        strbuf_add_char(out, '\n');
    }
    if (c->add_assistant)
        add(out, "<|assistant|>\n");
}

/* ---- Command-R, Granite ---- */

static bool is_command_r(str source) { return has(source, "<|START_OF_TURN_TOKEN|>"); }

static void render_command_r(const chat_conversation *c, strbuf *out)
{
    strbuf_add_str(out, c->bos);
    for (size_t i = 0; i < c->n; i++) {
        const chat_message *m = &c->messages[i];
        const char *role = is_role(m, "assistant") ? "CHATBOT" : is_role(m, "system") ? "SYSTEM" : "USER";
        strbuf_printf(out, "<|START_OF_TURN_TOKEN|><|%s_TOKEN|>", role);
        strbuf_add_str(out, trimmed(m->content));
        add(out, "<|END_OF_TURN_TOKEN|>");
    }
    if (c->add_assistant)
        add(out, "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>");
}

static bool is_granite(str source) { return has(source, "<|start_of_role|>"); }

static void granite_turn(strbuf *out, const char *role, const char *content)
{
    strbuf_printf(out, "<|start_of_role|>%s<|end_of_role|>%s<|end_of_text|>\n", role, content);
}

/* Granite 3.1 to 3.3 write a dated system turn when there is none. */
static void render_granite(const chat_conversation *c, strbuf *out)
{
    bool lines = has(c->source, "Knowledge Cutoff Date: April 2024.\\nToday's Date: ") ||
                 has(c->source, "Knowledge Cutoff Date: April 2024.\nToday's Date: ");
    if ((c->n == 0 || !is_role(&c->messages[0], "system")) && has(c->source, "Knowledge Cutoff Date: April 2024.")) {
        const char *gap = lines ? "\n" : " ";
        add(out, "<|start_of_role|>system<|end_of_role|>");
        strbuf_printf(out, "Knowledge Cutoff Date: April 2024.%sToday's Date: %s.%sYou are Granite, developed by IBM.", gap,
                      c->today_long, gap);
        add(out, " You are a helpful AI assistant.<|end_of_text|>\n");
    }
    for (size_t i = 0; i < c->n; i++)
        granite_turn(out, c->messages[i].role, c->messages[i].content);
    if (c->add_assistant)
        add(out, "<|start_of_role|>assistant<|end_of_role|>");
}

/* ---- plain ---- */

static bool is_plain(str source) { return source.n == 0; }

/* A model without a template continues text: the contents, a line break between them. */
static void render_plain(const chat_conversation *c, strbuf *out)
{
    for (size_t i = 0; i < c->n; i++)
        strbuf_printf(out, "%s%s", i > 0 ? "\n" : "", c->messages[i].content);
}

/* The first that matches is taken: the more particular ones stand first. */
static const chat_builtin formats[] = {
    {"plain", is_plain, render_plain},
    {"chatml", is_chatml, render_chatml},
    {"mistral-v7", is_mistral_v7, render_mistral_v7},
    {"llama2", is_llama2, render_llama2},
    {"mistral-v3", is_mistral_v3, render_mistral_v3},
    {"mistral-v1", is_mistral_v1, render_mistral_v1},
    {"phi3", is_phi3, render_phi3},
    {"zephyr", is_zephyr, render_zephyr},
    {"gemma", is_gemma, render_gemma},
    {"command-r", is_command_r, render_command_r},
    {"llama3", is_llama3, render_llama3},
    {"granite", is_granite, render_granite},
};

const chat_builtin *chat_builtin_find(str source)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (formats[i].matches(source))
            return &formats[i];
    }
    return NULL;
}

const chat_builtin *chat_builtin_plain(void) { return &formats[0]; }

const char *chat_builtin_name(const chat_builtin *b) { return b->name; }

void chat_builtin_render(const chat_builtin *b, const chat_conversation *c, strbuf *out) { b->render(c, out); }
