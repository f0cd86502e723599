/* The messages of a chat: an optional system message, then user and assistant in turn. Owns their texts and their JSON file. */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "tokens/chat.h"

typedef struct conversation {
    chat_message *messages; /* [n] roles are static; contents belong to the conversation */
    size_t n, capacity;
} conversation;

/* role: "system", "user" or "assistant". */
DIL_MUST_CHECK dil_status conversation_add(conversation *c, const char *role, str content, dil_error *err);
/* The first message's content when it is the system's; an empty text removes it. */
DIL_MUST_CHECK dil_status conversation_set_system(conversation *c, str content, dil_error *err);
const char *conversation_system(const conversation *c); /* NULL: none */
void conversation_drop_last(conversation *c);
/* Drops the oldest user message and its answer; false when there is only the last user message. */
bool conversation_drop_oldest(conversation *c);
void conversation_clear(conversation *c); /* keeps the system message */
void conversation_free(conversation *c);

/* {"dilmodeli_chat": 1, "messages": [{"role", "content"}, ...]}. On failure of load *c is as before. */
DIL_MUST_CHECK dil_status conversation_save(const conversation *c, const char *path, dil_error *err);
DIL_MUST_CHECK dil_status conversation_load(conversation *c, const char *path, dil_error *err);

#endif
