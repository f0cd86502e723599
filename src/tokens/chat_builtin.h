/*
 * The chat formats that need no template engine: how each is recognised and written. Internal to
 * tokens.
 */
#ifndef TOKENS_CHAT_BUILTIN_H
#define TOKENS_CHAT_BUILTIN_H

#include "tokens/chat.h"

typedef struct chat_builtin chat_builtin;

/*
 * What a conversation is written from. Texts are borrowed; today: "%d %b %Y" and "%B %d, %Y" of the
 * current day.
 */
typedef struct chat_conversation {
    const chat_message *messages;
    size_t n;
    bool add_assistant;
    str source; /* the template's text: variants of a format show in it */
    str bos, eos;
    const char *today_short, *today_long;
} chat_conversation;

/*
 * By markers in the template's text; the plain format for an empty text, NULL when nothing is
 * recognised. [static]
 */
const chat_builtin *chat_builtin_find(str source);
const chat_builtin *chat_builtin_plain(void);
const char *chat_builtin_name(const chat_builtin *b);
void chat_builtin_render(const chat_builtin *b, const chat_conversation *c, strbuf *out);

#endif
