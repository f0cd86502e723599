/* dil tokenize, dil detokenize: the vocabulary alone, without loading weights. */
#include <stdio.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "model/vocab_load.h"

static dil_status open_vocab(vocab **out, const cli_options *o, dil_error *err)
{
    char path[4096];
    gguf *g;
    gguf_options go = {.header_only = true};
    DIL_TRY(cli_model_path(o->model, path, sizeof path, err));
    DIL_TRY(gguf_open(&g, path, &go, err));
    dil_status status = vocab_from_gguf(out, g, err);
    gguf_close(g);
    return status;
}

static void print_tokens(const vocab *v, const token_list *t, bool json)
{
    strbuf piece = STRBUF(1 << 20);
    if (json)
        putchar('[');
    for (size_t i = 0; i < t->n; i++) {
        strbuf_clear(&piece);
        vocab_decode_token(v, t->ids[i], true, &piece);
        if (json) {
            printf("%s{\"id\": %d, \"text\": ", i ? ", " : "", t->ids[i]);
            cli_print_json_string(strbuf_str(&piece));
            putchar('}');
        } else {
            printf("%6d  '%.*s'\n", t->ids[i], (int)piece.n, piece.p ? piece.p : "");
        }
    }
    if (json)
        puts("]");
    strbuf_free(&piece);
}

static int tokenize(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    vocab *v = NULL;
    token_list list = {0};
    char *text = NULL;
    size_t n;
    dil_status status = cli_text(o, !os_is_terminal(OS_STDIN), &text, &n, &err);
    if (status == DIL_OK)
        status = open_vocab(&v, o, &err);
    if (status == DIL_OK)
        status = vocab_encode(v, (str){text, n}, !o->no_special, !o->no_special, &list, &err);
    if (status == DIL_OK)
        print_tokens(v, &list, o->json);
    token_list_free(&list);
    vocab_free(v);
    mem_free(text);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static dil_status parse_ids(char **words, int n, const vocab *v, token_list *out, dil_error *err)
{
    for (int i = 0; i < n; i++) {
        int64_t id;
        if (!str_to_i64(words[i], &id) || id < 0 || id >= vocab_size(v))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT, "token id: wanted 0..%d, found '%s'", vocab_size(v) - 1, words[i]);
        DIL_TRY(token_list_add(out, (token_id)id, err));
    }
    return DIL_OK;
}

static int detokenize(const cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    vocab *v = NULL;
    token_list list = {0};
    strbuf text = STRBUF((size_t)1 << 30);
    dil_status status = open_vocab(&v, o, &err);
    if (status == DIL_OK)
        status = parse_ids(positional, n_positional, v, &list, &err);
    if (status == DIL_OK) {
        vocab_decode(v, list.ids, list.n, !o->no_special, &text);
        if (o->json)
            cli_print_json_string(strbuf_str(&text));
        else
            fwrite(text.p, 1, text.n, stdout);
        putchar('\n');
    }
    strbuf_free(&text);
    token_list_free(&list);
    vocab_free(v);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const tokenize_options[] = {"model", "prompt", "file", "no-special", "json", NULL};
static const char *const detokenize_options[] = {"model", "no-special", "json", NULL};

const cli_command command_tokenize = {.name = "tokenize",
                                      .usage = N_("tokenize -m MODEL (-p TEXT | -f FILE) [--json] [--no-special]"),
                                      .summary = N_("Shows the token ids of a text."),
                                      .example = N_("dil tokenize -m smollm2 -p \"Merhaba dünya\""),
                                      .options = tokenize_options,
                                      .run = tokenize};

const cli_command command_detokenize = {.name = "detokenize",
                                        .usage = N_("detokenize -m MODEL IDS..."),
                                        .summary = N_("Shows the text of token ids."),
                                        .example = N_("dil detokenize -m smollm2 19556 905"),
                                        .options = detokenize_options,
                                        .least_positional = 1,
                                        .most_positional = -1,
                                        .run = detokenize};
