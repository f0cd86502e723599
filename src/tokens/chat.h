/*
 * Chat templates: messages -> the text a model was trained on. With the bridge the file's own Jinja
 * template is rendered (minijinja, with a fuel limit: templates are untrusted); without it, or when
 * the template fails, the built-in formats (ChatML, Llama-3, Gemma, Mistral, Phi-3, Zephyr,
 * Llama-2, Command-R, Granite, plain) are chosen by markers in the template's text.
 */
#ifndef TOKENS_CHAT_H
#define TOKENS_CHAT_H

#include "base/str.h"
#include "dilmodeli.h"

typedef struct chat_message {
    const char *role;
    const char *content;
} chat_message;

typedef struct chat_template chat_template;

/*
 * source: the file's tokenizer.chat_template (empty: none, plain format). bos/eos: the text of
 * those tokens. [owned: free with chat_template_free]. A template that does not parse is FORMAT
 * with its line, unless fallback is set.
 */
DIL_MUST_CHECK dil_status chat_template_new(chat_template **out, str source, str bos, str eos, bool fallback, dil_error *err);
void chat_template_free(chat_template *t);
/* "jinja", "chatml", "llama3", ...: what will be used; [static]. */
const char *chat_template_kind(const chat_template *t);
/* Appends the rendered conversation to out; add_assistant opens the assistant's turn. */
DIL_MUST_CHECK dil_status chat_template_render(const chat_template *t, const chat_message *messages, size_t n, bool add_assistant,
                                               strbuf *out, dil_error *err);
/*
 * As above with the full data of a request: messages_json (array), tools_json (array or NULL),
 * extra_json (object or NULL). Needs the bridge.
 */
DIL_MUST_CHECK dil_status chat_template_render_json(const chat_template *t, const char *messages_json, const char *tools_json,
                                                    const char *extra_json, bool add_assistant, strbuf *out, dil_error *err);

#endif
