/* dil chat: a conversation on the terminal. The session keeps the tokens of earlier turns; only what is new is computed. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/chat_input.h"
#include "cli/cli.h"
#include "cli/conversation.h"
#include "engine/generate.h"

typedef struct chat {
    cli_options o; /* what /set changes */
    engine *e;
    session *s;
    stream *st;
    conversation talk;
    chat_input *input;
    strbuf answer;
    int64_t n_turns, n_answer_tokens, n_prompt_tokens, n_reused_tokens;
    double answer_seconds, prompt_seconds;
    bool leaving;
} chat;

/* Ctrl-C was seen. What it stopped in the middle of being printed is not missed: no error of standard output. */
static void after_interrupt(void)
{
    if (os_interrupted())
        clearerr(stdout);
    os_interrupt_clear();
}

static bool emit(void *ctx, str text)
{
    chat *c = ctx;
    strbuf_add_str(&c->answer, text);
    fwrite(text.p, 1, text.n, stdout);
    return fflush(stdout) == 0 && !c->answer.failed;
}

static void say(const chat *c, const dil_error *err)
{
    (void)c;
    cli_progress_end();
    fprintf(stderr, "dil: %s\n", err->text[0] ? err->text : _(status_name(err->code)));
}

/* ---- one turn ---- */

/* Tokens kept free for the answer. */
static int32_t room_for_answer(const chat *c)
{
    int32_t quarter = engine_context(c->e) / 4, wanted = c->o.n_predict > 0 && c->o.n_predict < 512 ? (int32_t)c->o.n_predict : 512;
    return wanted < quarter ? wanted : quarter;
}

/* The conversation's tokens; the oldest turns go until an answer fits. */
static dil_status prompt_tokens(chat *c, token_list *tokens, dil_error *err)
{
    int32_t context = engine_context(c->e), n_dropped = 0;
    for (;;) {
        tokens->n = 0;
        DIL_TRY(generate_prompt(c->e, c->talk.messages, c->talk.n, c->o.no_template, false, tokens, err));
        if ((int64_t)tokens->n + room_for_answer(c) <= context)
            break;
        if (conversation_drop_oldest(&c->talk)) {
            n_dropped++;
            continue;
        }
        if ((int64_t)tokens->n < context)
            break;
        return DIL_FAIL(
            err, DIL_LIMIT,
            "chat: message: wanted at most %d tokens with its template, found %zu; shorten it or start with a larger -c",
            context - 1, tokens->n);
    }
    if (n_dropped)
        fprintf(stderr,
                n_dropped == 1 ? _("[context of %d tokens is full: the %d oldest turn was forgotten]\n")
                               : _("[context of %d tokens is full: the %d oldest turns were forgotten]\n"),
                context, n_dropped);
    return DIL_OK;
}

static void print_figures(chat *c, const generate_stats *g, size_t n_tokens)
{
    int32_t computed = g->n_prompt - g->n_reused;
    double rate = g->generate_seconds > 0 && g->n_generated > 1 ? (g->n_generated - 1) / g->generate_seconds : 0.0;
    c->n_turns++;
    c->n_answer_tokens += g->n_generated;
    c->n_prompt_tokens += computed;
    c->n_reused_tokens += g->n_reused;
    c->answer_seconds += g->generate_seconds;
    c->prompt_seconds += g->prompt_seconds;
    if (c->o.quiet)
        return;
    fprintf(stderr, _("[%d tokens, %.1f tokens/s | first after %.0f ms | prompt %d new, %d kept | context %zu of %d"),
            g->n_generated, rate, 1000 * g->first_token_seconds, computed, g->n_reused, n_tokens, engine_context(c->e));
    if (strcmp(g->finish, "end") != 0)
        fprintf(stderr, " | %s", cli_finish_text(g->finish));
    fputs("]\n", stderr);
}

static dil_status answer(chat *c, token_list *tokens, dil_error *err)
{
    sampler_bias biases[CLI_MAX_LIST];
    sampler_options so;
    sampler *sm = NULL;
    generate_stats stats;
    generate_options go = {.n_predict = (int32_t)c->o.n_predict,
                           .ignore_eos = c->o.ignore_eos,
                           .emit = emit,
                           .ctx = c,
                           .progress = c->o.quiet ? NULL : cli_progress};
    DIL_TRY(cli_sampler_options(&so, &c->o, biases, err));
    DIL_TRY(prompt_tokens(c, tokens, err));
    DIL_TRY(sampler_new(&sm, &so, engine_vocab(c->e), engine_n_vocab(c->e), err));
    dil_status status = generate(c->e, c->s, sm, c->st, tokens, &go, &stats, err);
    cli_progress_end();
    if (c->answer.n && c->answer.p[c->answer.n - 1] != '\n')
        putchar('\n');
    fflush(stdout);
    if (status == DIL_OK)
        print_figures(c, &stats, tokens->n);
    sampler_free(sm);
    return status;
}

/* A message and its answer; what was answered before a stop stays. Without any answer the message is forgotten again. */
static void take_turn(chat *c, str text)
{
    dil_error err = {0};
    token_list tokens = {0};
    strbuf_clear(&c->answer);
    after_interrupt();
    dil_status status = conversation_add(&c->talk, "user", text, &err);
    if (status == DIL_OK) {
        status = answer(c, &tokens, &err);
        if (status != DIL_OK && c->answer.n == 0)
            conversation_drop_last(&c->talk);
        else if (conversation_add(&c->talk, "assistant", strbuf_str(&c->answer), &err) != DIL_OK) {
            conversation_drop_last(&c->talk);
            status = err.code;
        }
    }
    if (status == DIL_CANCELLED)
        fputs(_("[stopped]\n"), stderr);
    else if (status != DIL_OK)
        say(c, &err);
    after_interrupt();
    token_list_free(&tokens);
}

/* ---- commands ---- */

/* What /set knows: its name, the option it is. */
static const struct setting {
    const char *name, *option;
} settings[] = {
    {"temperature", "temp"},
    {"top_k", "top-k"},
    {"top_p", "top-p"},
    {"min_p", "min-p"},
    {"typical", "typical"},
    {"repeat_penalty", "repeat-penalty"},
    {"repeat_last_n", "repeat-last-n"},
    {"presence_penalty", "presence-penalty"},
    {"frequency_penalty", "frequency-penalty"},
    {"seed", "seed"},
    {"n", "n-predict"},
};
#define N_SETTINGS (sizeof settings / sizeof settings[0])

static void command_help(chat *c, char *rest)
{
    (void)c, (void)rest;
    fputs(_("/set NAME VALUE   temperature, top_k, top_p, min_p, typical, repeat_penalty, repeat_last_n, presence_penalty,\n"
            "                  frequency_penalty, seed (-1: new each time), n (most tokens of an answer, -1: no limit), system\n"
            "/show             the settings and the conversation so far\n"
            "/save FILE        write the conversation as JSON      /load FILE   go on with one\n"
            "/clear            forget the conversation, keep the system message\n"
            "/stats            speeds so far                       /bye         leave (also Ctrl-D)\n"
            "Ctrl-C stops an answer. A message may have several lines: end each but the last with \\, or put \"\"\" around it.\n"),
          stderr);
}

static void command_set(chat *c, char *rest)
{
    dil_error err = {0};
    size_t n = strcspn(rest, " \t");
    char *value = rest + n + strspn(rest + n, " \t");
    bool quoted = strlen(value) >= 2 && value[0] == '"' && value[strlen(value) - 1] == '"';
    if (rest[n])
        rest[n] = '\0';
    if (strcmp(rest, "system") == 0) {
        str text = quoted ? (str){value + 1, strlen(value) - 2} : str_of(value);
        if (conversation_set_system(&c->talk, text, &err) != DIL_OK)
            say(c, &err);
        return;
    }
    for (size_t i = 0; i < N_SETTINGS; i++)
        if (strcmp(rest, settings[i].name) == 0) {
            if (*value)
                (void)options_set(&c->o, settings[i].option, value); /* says what is wrong */
            else
                fprintf(stderr, _("/set %s: wanted a value; see /show\n"), rest);
            return;
        }
    fprintf(stderr, _("/set: wanted the name of a setting, found '%s'; see /help\n"), rest);
}

static void command_show_chat(chat *c, char *rest)
{
    (void)rest;
    const cli_options *o = &c->o;
    fprintf(stderr,
            "temperature %g, top_k %lld, top_p %g, min_p %g, typical %g, repeat_penalty %g (last %lld), presence_penalty %g, "
            "frequency_penalty %g, seed %lld, n %lld\n",
            o->temperature, (long long)o->top_k, o->top_p, o->min_p, o->typical_p, o->repeat_penalty, (long long)o->repeat_last_n,
            o->presence_penalty, o->frequency_penalty, (long long)o->seed, (long long)o->n_predict);
    fprintf(stderr, _("chat template %s, context %d of %d tokens used\n"), chat_template_kind(engine_chat(c->e)),
            session_n_tokens(c->s), engine_context(c->e));
    for (size_t i = 0; i < c->talk.n; i++)
        printf("%s: %s\n", c->talk.messages[i].role, c->talk.messages[i].content);
    fflush(stdout);
}

static void command_save(chat *c, char *rest)
{
    dil_error err = {0};
    if (!*rest)
        fputs(_("/save: wanted the name of a file\n"), stderr);
    else if (conversation_save(&c->talk, rest, &err) != DIL_OK)
        say(c, &err);
    else
        fprintf(stderr, _("[%zu messages written to %s]\n"), c->talk.n, rest);
}

static void command_load(chat *c, char *rest)
{
    dil_error err = {0};
    if (!*rest)
        fputs(_("/load: wanted the name of a file\n"), stderr);
    else if (conversation_load(&c->talk, rest, &err) != DIL_OK)
        say(c, &err);
    else
        fprintf(stderr, _("[%zu messages read from %s]\n"), c->talk.n, rest);
}

static void command_clear(chat *c, char *rest)
{
    (void)rest;
    conversation_clear(&c->talk);
    fputs(_("[forgotten]\n"), stderr);
}

static void command_stats(chat *c, char *rest)
{
    (void)rest;
    char kv[32], rss[32];
    fprintf(
        stderr,
        c->n_turns == 1
            ? _("%lld turn, %lld tokens answered at %.1f tokens/s, %lld prompt tokens computed at %.1f tokens/s, %lld kept from earlier turns\n")
            : _("%lld turns, %lld tokens answered at %.1f tokens/s, %lld prompt tokens computed at %.1f tokens/s, %lld kept from earlier turns\n"),
        (long long)c->n_turns, (long long)c->n_answer_tokens,
        c->answer_seconds > 0 ? (double)c->n_answer_tokens / c->answer_seconds : 0.0, (long long)c->n_prompt_tokens,
        c->prompt_seconds > 0 ? (double)c->n_prompt_tokens / c->prompt_seconds : 0.0, (long long)c->n_reused_tokens);
    fprintf(stderr,
            engine_n_threads(c->e) == 1
                ? _("context %d of %d tokens, KV cache %s, memory of the process %s, %d thread, kernels %s\n")
                : _("context %d of %d tokens, KV cache %s, memory of the process %s, %d threads, kernels %s\n"),
            session_n_tokens(c->s), engine_context(c->e), str_bytes(engine_kv_bytes(c->e), kv, sizeof kv),
            str_bytes(os_rss_bytes(), rss, sizeof rss), engine_n_threads(c->e), engine_kernels(c->e)->name);
    cli_print_experts(c->e);
}

static void command_bye(chat *c, char *rest)
{
    (void)rest;
    c->leaving = true;
}

static const struct chat_command {
    const char *name;
    void (*run)(chat *c, char *rest);
} chat_commands[] = {
    {"help", command_help}, {"?", command_help},    {"set", command_set},     {"show", command_show_chat},
    {"save", command_save}, {"load", command_load}, {"clear", command_clear}, {"stats", command_stats},
    {"bye", command_bye},   {"exit", command_bye},  {"quit", command_bye},
};

/* line: after the slash; changed. */
static void run_command(chat *c, char *line)
{
    size_t n = strlen(line);
    while (n && strchr(" \t\r\n", line[n - 1]))
        line[--n] = '\0';
    size_t word = strcspn(line, " \t");
    char *rest = line + word + strspn(line + word, " \t");
    if (line[word])
        line[word] = '\0';
    for (size_t i = 0; i < sizeof chat_commands / sizeof chat_commands[0]; i++)
        if (strcmp(line, chat_commands[i].name) == 0) {
            chat_commands[i].run(c, rest);
            return;
        }
    fprintf(stderr, _("/%s: wanted a command, found none of that name; see /help\n"), line);
}

/* ---- the loop ---- */

static void talk_until_bye(chat *c)
{
    strbuf text = STRBUF((size_t)1 << 25);
    while (!c->leaving) {
        input_kind kind = chat_input_read(c->input, &text);
        if (kind == INPUT_END)
            break;
        if (kind == INPUT_CANCELLED) {
            after_interrupt();
            fputs(_("\n[/bye or Ctrl-D leaves]\n"), stderr);
            continue;
        }
        str s = strbuf_str(&text);
        if (text.failed)
            fputs(_("dil: chat: message: wanted at most 16 MB of text, found more\n"), stderr);
        else if (s.n && (!utf8_valid(s) || memchr(s.p, '\0', s.n)))
            fputs(_("dil: chat: message: wanted text in UTF-8, found other bytes\n"), stderr);
        else if (s.n && s.p[0] == '/' && !memchr(s.p, '\n', s.n))
            run_command(c, text.p + 1);
        else if (strspn(s.n ? s.p : "", " \t\r\n") < s.n)
            take_turn(c, s);
    }
    strbuf_free(&text);
}

static dil_status open_chat(chat *c, dil_error *err)
{
    char dir[2048], history[2100];
    engine_options eo = cli_engine_options(&c->o);
    dil_error ignored;
    bool kept = os_data_dir(dir, sizeof dir, &ignored) == DIL_OK;
    if (kept)
        snprintf(history, sizeof history, "%s/chat_history", dir);
    DIL_TRY(cli_fit_memory(&c->o, &eo, err));
    DIL_TRY(cli_open(&c->e, &c->o, &eo, err));
    DIL_TRY(session_new(&c->s, c->e, err));
    DIL_TRY(stream_new(&c->st, engine_vocab(c->e), c->o.stops, c->o.n_stops, err));
    DIL_TRY(chat_input_new(&c->input, kept ? history : NULL, err));
    return c->o.system ? conversation_set_system(&c->talk, str_of(c->o.system), err) : DIL_OK;
}

static int run(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    chat c = {.o = *o, .answer = STRBUF((size_t)1 << 26)};
    dil_status status = open_chat(&c, &err);
    if (status == DIL_OK) {
        if (!o->quiet && os_is_terminal(OS_STDIN))
            fprintf(stderr, _("%.*s, context %d tokens. /help lists the commands, Ctrl-C stops an answer, /bye leaves.\n"),
                    STR_ARG(str_of(o->model)), engine_context(c.e));
        talk_until_bye(&c);
        if (o->timing)
            cli_print_timing(c.e);
    }
    chat_input_free(c.input);
    conversation_free(&c.talk);
    strbuf_free(&c.answer);
    stream_free(c.st);
    session_free(c.s);
    engine_close(c.e);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const chat_options[] = {"model", GENERATE_OPTIONS, NULL};

const cli_command command_chat = {
    .name = "chat",
    .usage = N_("chat -m MODEL [-sys TEXT] [OPTIONS]"),
    .summary = N_(
        "Talks with a model: one message per line, answers to standard output.\n\nLines that begin with / are commands: /help /set /show "
        "/save /load /clear /stats /bye."),
    .example = N_("dil chat -m smollm2 -sys \"Answer briefly.\""),
    .options = chat_options,
    .run = run};
