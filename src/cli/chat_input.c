#include "cli/chat_input.h"

#include <histedit.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

#define HISTORY_LINES 1000
#define QUOTES "\"\"\""

struct chat_input {
    EditLine *editor; /* NULL: plain lines */
    HistoryW *history;
    const char *prompt;
    char history_path[4096];
    strbuf line;
};

static char *prompt_of(EditLine *editor)
{
    static char text[8];
    chat_input *in = NULL;
    el_get(editor, EL_CLIENTDATA, (void *)&in);
    snprintf(text, sizeof text, "%s", in ? in->prompt : "");
    return text;
}

/* One character for the editor, UTF-8 decoded here; malformed bytes become '?'. */
static int read_character(EditLine *editor, wchar_t *out)
{
    char bytes[4];
    uint32_t code = '?';
    (void)editor;
    for (size_t n = 0; n < sizeof bytes;) {
        int got = os_read_key(&bytes[n]);
        if (got != 1)
            return got;
        n++;
        if (utf8_decode(bytes, n, &code) > 0 || utf8_incomplete_tail((str){bytes, n}) != n)
            break;
    }
    *out = (wchar_t)code;
    return 1;
}

static bool open_editor(chat_input *in)
{
    HistEventW event;
    os_utf8_input();
    in->editor = el_init("dil", stdin, stdout, stderr);
    in->history = history_winit();
    if (!in->editor || !in->history)
        return false;
    history_w(in->history, &event, H_SETSIZE, HISTORY_LINES);
    history_w(in->history, &event, H_SETUNIQUE, 1);
    el_set(in->editor, EL_CLIENTDATA, in);
    el_set(in->editor, EL_PROMPT, prompt_of);
    el_wset(in->editor, EL_GETCFN, read_character);
    el_set(in->editor, EL_EDITOR, "emacs");
    el_wset(in->editor, EL_HIST, history_w, in->history);
    el_set(in->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    if (in->history_path[0])
        history_w(in->history, &event, H_LOAD, in->history_path);
    return true;
}

dil_status chat_input_new(chat_input **out, const char *history_path, dil_error *err)
{
    chat_input *in = mem_calloc(1, sizeof *in, MEM_TEXT);
    if (!in)
        return DIL_FAIL(err, DIL_NO_MEMORY, "chat: no memory");
    in->line = STRBUF((size_t)1 << 24);
    snprintf(in->history_path, sizeof in->history_path, "%s", history_path ? history_path : "");
    if (os_is_terminal(OS_STDIN) && os_is_terminal(OS_STDOUT) && !open_editor(in)) {
        chat_input_free(in);
        return DIL_FAIL(err, DIL_NO_MEMORY, "chat: the line editor cannot start; pipe the lines in instead");
    }
    *out = in;
    return DIL_OK;
}

void chat_input_free(chat_input *in)
{
    HistEventW event;
    if (!in)
        return;
    if (in->history && in->history_path[0])
        history_w(in->history, &event, H_SAVE, in->history_path);
    if (in->history)
        history_wend(in->history);
    if (in->editor)
        el_end(in->editor);
    strbuf_free(&in->line);
    mem_free(in);
}

static input_kind read_edited(chat_input *in, const char *prompt)
{
    int n = 0;
    HistEventW event;
    in->prompt = prompt;
    const wchar_t *text = el_wgets(in->editor, &n);
    if (os_interrupted()) {
        el_set(in->editor, EL_REFRESH);
        el_reset(in->editor);
        return INPUT_CANCELLED;
    }
    if (!text || n <= 0)
        return INPUT_END;
    if (text[0] != L'\n')
        history_w(in->history, &event, H_ENTER, text);
    for (int i = 0; i < n && text[i] != L'\n'; i++) {
        char bytes[4];
        strbuf_add(&in->line, bytes, (size_t)utf8_encode((uint32_t)text[i], bytes));
    }
    return INPUT_TEXT;
}

static input_kind read_plain(chat_input *in, const char *prompt)
{
    if (os_is_terminal(OS_STDIN)) {
        fputs(prompt, stderr);
        fflush(stderr);
    }
    int c;
    while ((c = fgetc(stdin)) != EOF && c != '\n')
        strbuf_add_char(&in->line, (char)c);
    if (os_interrupted()) {
        clearerr(stdin);
        return INPUT_CANCELLED;
    }
    return c == EOF && in->line.n == 0 ? INPUT_END : INPUT_TEXT;
}

static input_kind read_line(chat_input *in, const char *prompt)
{
    strbuf_clear(&in->line);
    return in->editor ? read_edited(in, prompt) : read_plain(in, prompt);
}

/* From after the opening quotes to the closing ones. */
static input_kind read_quoted(chat_input *in, strbuf *out)
{
    str rest = {in->line.p + 3, in->line.n - 3};
    for (;;) {
        ptrdiff_t end = str_find(rest, STR(QUOTES));
        strbuf_add(out, rest.p, end < 0 ? rest.n : (size_t)end);
        if (end >= 0)
            return INPUT_TEXT;
        if (rest.n || out->n)
            strbuf_add_char(out, '\n');
        input_kind kind = read_line(in, ". ");
        if (kind == INPUT_CANCELLED || kind == INPUT_END)
            return kind == INPUT_END ? INPUT_TEXT : kind;
        rest = strbuf_str(&in->line);
    }
}

input_kind chat_input_read(chat_input *in, strbuf *out)
{
    strbuf_clear(out);
    input_kind kind = read_line(in, "> ");
    if (kind == INPUT_TEXT && str_starts(strbuf_str(&in->line), STR(QUOTES)))
        return read_quoted(in, out);
    while (kind == INPUT_TEXT && in->line.n && in->line.p[in->line.n - 1] == '\\') {
        strbuf_add(out, in->line.p, in->line.n - 1);
        strbuf_add_char(out, '\n');
        kind = read_line(in, ". ");
        if (kind == INPUT_END)
            return INPUT_TEXT;
    }
    if (kind == INPUT_TEXT)
        strbuf_add_str(out, strbuf_str(&in->line));
    out->failed = out->failed || in->line.failed; /* too long */
    return kind;
}
