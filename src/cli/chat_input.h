/* What the user types: line editing with history on a terminal, plain lines otherwise; several lines as one message. */
#ifndef CLI_CHAT_INPUT_H
#define CLI_CHAT_INPUT_H

#include "base/str.h"
#include "dilmodeli.h"

typedef struct chat_input chat_input;

typedef enum input_kind { INPUT_TEXT, INPUT_END, INPUT_CANCELLED } input_kind;

/* history_path: kept between runs; NULL: not. [owned: free with chat_input_free] */
DIL_MUST_CHECK dil_status chat_input_new(chat_input **out, const char *history_path, dil_error *err);
void chat_input_free(chat_input *in);
/* One message into out (cleared first): a line, lines that end in a backslash, or everything between two """. Ctrl-C gives
 * INPUT_CANCELLED, end of input INPUT_END. */
input_kind chat_input_read(chat_input *in, strbuf *out);

#endif
