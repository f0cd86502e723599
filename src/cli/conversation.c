#include "cli/conversation.h"

#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

#define MAX_FILE ((size_t)64 << 20)
#define MAX_MESSAGES 100000
#define FILE_VERSION 1

static bool has_system(const conversation *c) { return c->n > 0 && strcmp(c->messages[0].role, "system") == 0; }

static char *copy_text(str s)
{
    char *copy = mem_alloc(s.n + 1, MEM_TEXT);
    if (!copy)
        return NULL;
    if (s.n)
        memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    return copy;
}

static void free_content(chat_message *m)
{
    char *content;
    memcpy(&content, &m->content, sizeof content); /* ours, though the field is const */
    mem_free(content);
}

static const char *static_role(const char *role)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    for (int i = 0; i < 3; i++)
        if (strcmp(role, roles[i]) == 0)
            return roles[i];
    return NULL;
}

static dil_status insert(conversation *c, size_t at, const char *role, str content, dil_error *err)
{
    if (c->n == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 16;
        chat_message *bigger = mem_grow(c->messages, capacity * sizeof *bigger, MEM_TEXT);
        if (!bigger)
            return DIL_FAIL(err, DIL_NO_MEMORY, "chat: no memory for a message");
        c->messages = bigger;
        c->capacity = capacity;
    }
    char *copy = copy_text(content);
    if (!copy)
        return DIL_FAIL(err, DIL_NO_MEMORY, "chat: no memory for a message");
    memmove(c->messages + at + 1, c->messages + at, (c->n - at) * sizeof *c->messages);
    c->messages[at] = (chat_message){static_role(role), copy};
    c->n++;
    return DIL_OK;
}

static void remove_at(conversation *c, size_t at, size_t n)
{
    for (size_t i = at; i < at + n; i++)
        free_content(&c->messages[i]);
    memmove(c->messages + at, c->messages + at + n, (c->n - at - n) * sizeof *c->messages);
    c->n -= n;
}

dil_status conversation_add(conversation *c, const char *role, str content, dil_error *err)
{
    return insert(c, c->n, role, content, err);
}

dil_status conversation_set_system(conversation *c, str content, dil_error *err)
{
    bool had = has_system(c);
    if (content.n)
        DIL_TRY(insert(c, 0, "system", content, err));
    if (had)
        remove_at(c, content.n ? 1 : 0, 1);
    return DIL_OK;
}

const char *conversation_system(const conversation *c) { return has_system(c) ? c->messages[0].content : NULL; }

void conversation_drop_last(conversation *c)
{
    if (c->n)
        remove_at(c, c->n - 1, 1);
}

bool conversation_drop_oldest(conversation *c)
{
    size_t first = has_system(c);
    if (c->n < first + 3)
        return false;
    remove_at(c, first, 2);
    return true;
}

void conversation_clear(conversation *c)
{
    size_t first = has_system(c);
    remove_at(c, first, c->n - first);
}

void conversation_free(conversation *c)
{
    if (c->n)
        remove_at(c, 0, c->n);
    mem_free(c->messages);
    *c = (conversation){0};
}

/* ---- files ---- */

static json_t *to_json(const conversation *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->n; i++)
        if (json_array_append_new(list, json_pack("{s:s, s:s}", "role", c->messages[i].role, "content", c->messages[i].content)) !=
            0) {
            json_decref(list);
            return NULL;
        }
    return json_pack("{s:i, s:o}", "dilmodeli_chat", FILE_VERSION, "messages", list);
}

static int write_piece(const char *bytes, size_t n, void *user)
{
    strbuf_add(user, bytes, n);
    return ((strbuf *)user)->failed ? -1 : 0;
}

dil_status conversation_save(const conversation *c, const char *path, dil_error *err)
{
    strbuf text = STRBUF(2 * MAX_FILE);
    json_t *root = to_json(c);
    bool good = root && json_dump_callback(root, write_piece, &text, JSON_INDENT(2)) == 0;
    json_decref(root);
    strbuf_add_char(&text, '\n');
    if (!good || text.failed) {
        strbuf_free(&text);
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: the conversation cannot be written as JSON", path);
    }
    dil_status status = os_write_file(path, text.p, text.n, err);
    strbuf_free(&text);
    return status;
}

/* The role that must come after `n` messages; NULL: system or user. */
static bool role_fits(const conversation *c, const char *role)
{
    if (c->n == 0)
        return strcmp(role, "assistant") != 0;
    return strcmp(role, strcmp(c->messages[c->n - 1].role, "user") == 0 ? "assistant" : "user") == 0;
}

static dil_status read_message(conversation *c, const char *path, size_t i, const json_t *item, dil_error *err)
{
    const char *role = json_string_value(json_object_get(item, "role"));
    const json_t *content = json_object_get(item, "content");
    if (!role || !static_role(role) || !json_is_string(content))
        return DIL_FAIL(err, DIL_FORMAT,
                        "%s: message %zu: wanted {\"role\": \"system\", \"user\" or \"assistant\", \"content\": text}, found %s",
                        path, i + 1,
                        !json_is_object(item)         ? _("no object")
                        : !role || !static_role(role) ? _("another role")
                                                      : _("no text"));
    if (!role_fits(c, role))
        return DIL_FAIL(err, DIL_FORMAT,
                        "%s: message %zu: wanted a system message first and then user and assistant in turn, found %s", path, i + 1,
                        role);
    str text = {json_string_value(content), json_string_length(content)};
    return conversation_add(c, role, text, err);
}

static dil_status from_json(conversation *c, const char *path, const json_t *root, dil_error *err)
{
    const json_t *list = json_object_get(root, "messages");
    if (json_integer_value(json_object_get(root, "dilmodeli_chat")) != FILE_VERSION)
        return DIL_FAIL(err, DIL_FORMAT,
                        "%s: wanted a conversation of version %d (\"dilmodeli_chat\"), found another file; write one with /save",
                        path, FILE_VERSION);
    if (!json_is_array(list) || json_array_size(list) > MAX_MESSAGES)
        return DIL_FAIL(err, DIL_FORMAT, "%s: messages: wanted an array of at most %d, found %s", path, MAX_MESSAGES,
                        json_is_array(list) ? _("more") : _("none"));
    for (size_t i = 0; i < json_array_size(list); i++)
        DIL_TRY(read_message(c, path, i, json_array_get(list, i), err));
    if (c->n && strcmp(c->messages[c->n - 1].role, "user") == 0)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted an answer as the last message, found the user's", path);
    return DIL_OK;
}

dil_status conversation_load(conversation *c, const char *path, dil_error *err)
{
    char *text = NULL;
    size_t n;
    conversation fresh = {0};
    json_error_t where;
    DIL_TRY(os_read_all(path, MAX_FILE, &text, &n, err));
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &where);
    dil_status status = root ? from_json(&fresh, path, root, err)
                             : DIL_FAIL(err, DIL_FORMAT, "%s: line %d: wanted JSON, found: %s", path, where.line, where.text);
    json_decref(root);
    mem_free(text);
    if (status != DIL_OK) {
        conversation_free(&fresh);
        return status;
    }
    conversation_free(c);
    *c = fresh;
    return DIL_OK;
}
