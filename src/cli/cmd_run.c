#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "engine/generate.h"

typedef struct run_output {
    bool json;
    strbuf text;
} run_output;

static bool emit(void *ctx, str text)
{
    run_output *out = ctx;
    if (out->json) {
        strbuf_add_str(&out->text, text);
        return !out->text.failed;
    }
    fwrite(text.p, 1, text.n, stdout);
    return fflush(stdout) == 0;
}

static double rate(int32_t n, double seconds) { return n > 0 && seconds > 0 ? n / seconds : 0.0; }

static void print_stats(const generate_stats *s, double load_seconds)
{
    const double prompt_rate = rate(s->n_prompt - s->n_reused, s->prompt_seconds);
    fprintf(stderr, _("\n[load %.2f s"), load_seconds);
    fprintf(stderr, s->n_prompt == 1 ? _(" | prompt %d token, %.1f tokens/s") : _(" | prompt %d tokens, %.1f tokens/s"),
            s->n_prompt, prompt_rate);
    fprintf(stderr, _(" | first token after %.0f ms"), 1000 * s->first_token_seconds);
    if (s->n_generated > 1) /* the first one's time belongs to the prompt */
        fprintf(stderr, _(" | %d tokens, %.1f tokens/s"), s->n_generated, rate(s->n_generated - 1, s->generate_seconds));
    else
        fprintf(stderr, s->n_generated == 1 ? _(" | %d token") : _(" | %d tokens"), s->n_generated);
    fprintf(stderr, " | %s]\n", cli_finish_text(s->finish));
}

/* timed: the engine whose times belong to the answer, or NULL. */
static void print_json(const run_output *out, const generate_stats *s, double load_seconds, engine *timed)
{
    fputs("{\"text\": ", stdout);
    cli_print_json_string(strbuf_str(&out->text));
    printf(", \"finish\": \"%s\", \"prompt_tokens\": %d, \"reused_tokens\": %d, \"generated_tokens\": %d, \"load_seconds\": %.4f, "
           "\"prompt_seconds\": %.4f, \"first_token_seconds\": %.4f, \"generate_seconds\": %.4f",
           s->finish, s->n_prompt, s->n_reused, s->n_generated, load_seconds, s->prompt_seconds, s->first_token_seconds,
           s->generate_seconds);
    if (timed) {
        fputs(", ", stdout);
        cli_print_json_timing(timed);
    }
    fputs("}\n", stdout);
}

static dil_status answer(engine *e, const cli_options *o, const char *text, double load_seconds, dil_error *err)
{
    sampler_bias biases[CLI_MAX_LIST];
    sampler_options so;
    sampler *sm = NULL;
    stream *st = NULL;
    session *s = NULL;
    token_list tokens = {0};
    run_output out = {o->json, STRBUF((size_t)1 << 30)};
    generate_stats stats;
    chat_message messages[2] = {{"system", o->system}, {"user", text}};
    generate_options go = {.n_predict = (int32_t)o->n_predict,
                           .ignore_eos = o->ignore_eos,
                           .emit = emit,
                           .ctx = &out,
                           .progress = o->quiet ? NULL : cli_progress};
    bool plain = o->no_template || engine_model(e)->chat_template.n == 0;
    dil_status status = cli_sampler_options(&so, o, biases, err);
    if (status == DIL_OK)
        status = generate_prompt(e, o->system ? messages : messages + 1, o->system ? 2 : 1, plain, o->no_special, &tokens, err);
    if (status == DIL_OK)
        status = sampler_new(&sm, &so, engine_vocab(e), engine_n_vocab(e), err);
    if (status == DIL_OK)
        status = stream_new(&st, engine_vocab(e), o->stops, o->n_stops, err);
    if (status == DIL_OK)
        status = session_new(&s, e, err);
    if (status == DIL_OK)
        status = generate(e, s, sm, st, &tokens, &go, &stats, err);
    if (status == DIL_OK && o->json)
        print_json(&out, &stats, load_seconds, o->timing ? e : NULL);
    if (status == DIL_OK && !o->json) {
        putchar('\n');
        if (!o->quiet) {
            print_stats(&stats, load_seconds);
            cli_print_experts(e);
        }
    }
    if (status == DIL_OK && o->timing)
        cli_print_timing(e);
    if (status == DIL_OK && os_interrupted())
        status = DIL_FAIL(err, DIL_CANCELLED, "run: stopped by Ctrl-C");
    session_free(s);
    stream_free(st);
    sampler_free(sm);
    token_list_free(&tokens);
    strbuf_free(&out.text);
    return status;
}

static int run(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    engine *e = NULL;
    char *text = NULL;
    size_t n;
    uint64_t started = os_time_ns();
    engine_options eo = cli_engine_options(o);
    dil_status status = cli_text(o, !os_is_terminal(OS_STDIN), &text, &n, &err);
    if (status == DIL_OK && memchr(text, '\0', n))
        status = DIL_FAIL(&err, DIL_FORMAT, "prompt: it holds a NUL byte; wanted text");
    if (status == DIL_OK)
        status = cli_fit_memory(o, &eo, &err);
    if (status == DIL_OK)
        status = cli_open(&e, o, &eo, &err);
    if (status == DIL_OK)
        status = answer(e, o, text, (double)(os_time_ns() - started) * 1e-9, &err);
    engine_close(e);
    mem_free(text);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const run_options[] = {"model", "prompt", "file", GENERATE_OPTIONS, "no-special", "json", NULL};

const cli_command command_run = {.name = "run",
                                 .usage = N_("run -m MODEL [-p TEXT | -f FILE | < FILE] [OPTIONS]"),
                                 .summary = N_("Answers a prompt: text to standard output, speeds to standard error."),
                                 .example = N_("dil run -m smollm2 -p \"What is the capital of Turkey?\" --temp 0"),
                                 .options = run_options,
                                 .run = run};
