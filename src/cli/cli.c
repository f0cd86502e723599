#include "cli/cli.h"
#include "cli/print.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

int cli_fail(const dil_error *err)
{
    cli_progress_end();
    fputs("dil: ", stderr);
    print_text(stderr, str_of(err->text[0] ? err->text : _(status_name(err->code))), sizeof err->text);
    fputc('\n', stderr);
    return CLI_FAILED;
}

int cli_usage(const char *wording, ...)
{
    va_list args;
    va_start(args, wording);
    fputs("dil: ", stderr);
    vfprintf(stderr, _(wording), args);
    fputc('\n', stderr);
    va_end(args);
    return CLI_USAGE;
}

static void add_model_name(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    (void)size;
    size_t n = strlen(name);
    if (!is_dir && n > 5 && strcmp(name + n - 5, ".gguf") == 0)
        strbuf_printf(ctx, "%s%.*s", ((strbuf *)ctx)->n ? ", " : "", (int)(n - 5), name);
}

const char *cli_model_named(const cli_options *o, char **positional, int n_positional)
{
    if (n_positional > 0 && o->model)
        cli_usage("model: wanted one, found '%s' and -m '%s'", positional[0], o->model);
    else if (n_positional == 0 && !o->model)
        cli_usage("model: wanted a file or the name of a fetched model, found none");
    else
        return n_positional > 0 ? positional[0] : o->model;
    return NULL;
}

dil_status cli_model_path(const char *name, char *out, size_t n, dil_error *err)
{
    char dir[2048];
    if (!name)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "no model given; use -m MODEL (a GGUF file or a fetched name, see dil list)");
    if (os_exists(name)) {
        snprintf(out, n, "%s", name);
        return DIL_OK;
    }
    DIL_TRY(os_data_dir(dir, sizeof dir, err));
    snprintf(out, n, "%s/%s.gguf", dir, name);
    if (!strchr(name, '/') && os_exists(out))
        return DIL_OK;
    strbuf names = STRBUF(300);
    dil_error ignored;
    if (os_list_dir(dir, add_model_name, &names, &ignored) != DIL_OK || names.n == 0)
        strbuf_add_str(&names, str_of(_("none yet; try dil pull smollm2")));
    DIL_FAIL(err, DIL_IO, "model '%s': wanted a file or a fetched name, found neither; fetched: %s", name, names.p ? names.p : "");
    strbuf_free(&names);
    return DIL_IO;
}

engine_options cli_engine_options(const cli_options *o)
{
    engine_options e = engine_options_default();
    e.n_threads = (int32_t)o->threads;
    e.context = (int32_t)o->context;
    e.micro_batch = (int32_t)o->micro_batch;
    e.type_k = o->type_k;
    e.type_v = o->type_v;
    e.cpu = o->cpu;
    e.memory_bytes = o->memory_bytes;
    e.experts_memory = o->experts_memory;
    e.experts_policy = o->experts_policy;
    e.route = (route_options){(route_mode)o->route, (float)o->route_mass};
    e.timing = o->timing;
    e.events = o->events;
    e.exact = o->exact;
    e.no_profile = o->no_profile;
    e.no_pack_cache = o->no_pack_cache;
    e.progress = o->quiet ? NULL : cli_progress;
    return e;
}

dil_status cli_open(engine **out, const cli_options *o, const engine_options *eo, dil_error *err)
{
    char path[4096];
    DIL_TRY(cli_model_path(o->model, path, sizeof path, err));
    uint64_t start = os_time_ns();
    dil_status status = engine_open(out, path, eo, err);
    if (eo->events)
        events_add(eo->events, &(event_span){start, os_time_ns(), "load", -1, -1, EVENTS_COMMAND});
    cli_progress_end();
    if (status == DIL_OK && !o->quiet && engine_model(*out)->cache_state == PACK_CACHE_FAILED) {
        fputs(_("dil: warning: the packed weights were not kept for the next start: "), stderr);
        print_text(stderr, str_of(engine_model(*out)->cache_note.text), sizeof engine_model(*out)->cache_note.text);
        fputc('\n', stderr);
    }
    const char *why;
    if (status == DIL_OK && !o->quiet && engine_profile(*out, &why) == PROFILE_STALE)
        fprintf(stderr, _("dil: note: the tuned settings of this model were made %s and are not used; dil tune makes new ones\n"),
                _(why));
    if (status == DIL_OK && !o->quiet && eo->route.mode == ROUTE_CACHE && eo->experts_memory == 0)
        fputs(_("dil: note: without --experts-memory all experts are in memory: --route cache changes batches only, whose tokens "
                "share experts\n"),
              stderr);
    return status;
}

memory_freedom cli_memory_freedom(const cli_options *o)
{
    return (memory_freedom){.context = !options_given(o, "ctx-size"),
                            .type_k = !options_given(o, "cache-type-k"),
                            .type_v = !options_given(o, "cache-type-v"),
                            .micro_batch = !options_given(o, "ubatch-size"),
                            .experts = !options_given(o, "experts-memory")};
}

static void add_lower(strbuf *out, const char *option, const char *name)
{
    strbuf_add_str(out, str_of(option));
    for (; *name; name++)
        strbuf_add(out, &(char){(char)(*name >= 'A' && *name <= 'Z' ? *name + 32 : *name)}, 1);
}

void cli_memory_text(char *out, size_t n, const engine_options *eo, const memory_report *r)
{
    strbuf text = STRBUF(n);
    char number[64];
    if (r->after.context != r->before.context) {
        snprintf(number, sizeof number, "%d", r->after.context);
        add_lower(&text, " -c ", number);
    }
    if (r->after.kv_bytes_per_token != r->before.kv_bytes_per_token) {
        add_lower(&text, " -ctk ", format_get(eo->type_k)->name);
        add_lower(&text, " -ctv ", format_get(eo->type_v)->name);
    }
    if (r->after.micro_batch != r->before.micro_batch) {
        snprintf(number, sizeof number, "%d", r->after.micro_batch);
        add_lower(&text, " -ub ", number);
    }
    if (r->after.experts_memory != r->before.experts_memory) {
        snprintf(number, sizeof number, "%llu", (unsigned long long)r->after.experts_memory);
        add_lower(&text, " --experts-memory ", number);
    }
    str all = strbuf_str(&text);
    snprintf(out, n, "%.*s", all.n ? (int)all.n - 1 : 0, all.n ? all.p + 1 : "");
    strbuf_free(&text);
}

dil_status cli_fit_memory(const cli_options *o, engine_options *eo, dil_error *err)
{
    char path[4096], text[192], size[32];
    memory_report r;
    const memory_freedom may = cli_memory_freedom(o);
    if (eo->memory_bytes == 0)
        return DIL_OK;
    DIL_TRY(cli_model_path(o->model, path, sizeof path, err));
    DIL_TRY(memory_fit(eo, path, &may, &r, err));
    if (!r.changed || o->quiet)
        return DIL_OK;
    cli_memory_text(text, sizeof text, eo, &r);
    fprintf(stderr, _("dil: to fit in --memory: %s (%s in all)\n"), text, str_bytes(r.after.total_bytes, size, sizeof size));
    return DIL_OK;
}

static dil_status parse_bias(const char *text, sampler_bias *out, dil_error *err)
{
    char number[16];
    size_t n = strcspn(text, "+-");
    int64_t id = -1;
    double value = 0;
    if (n > 0 && n < sizeof number) {
        memcpy(number, text, n);
        number[n] = '\0';
    }
    if (n == 0 || n >= sizeof number || !str_to_i64(number, &id) || id < 0 || id > INT32_MAX || !str_to_f64(text + n, &value))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "--logit-bias: wanted ID+X or ID-X such as 15043-2.5, found '%s'", text);
    *out = (sampler_bias){(token_id)id, (float)value};
    return DIL_OK;
}

dil_status cli_sampler_options(sampler_options *out, const cli_options *o, sampler_bias biases[CLI_MAX_LIST], dil_error *err)
{
    sampler_options s = sampler_options_default();
    if (o->seed < 0)
        os_random(&s.seed, sizeof s.seed);
    else
        s.seed = (uint64_t)o->seed;
    s.temperature = (float)o->temperature;
    s.top_k = (int32_t)o->top_k;
    s.top_p = (float)o->top_p;
    s.min_p = (float)o->min_p;
    s.typical_p = (float)o->typical_p;
    s.repeat_penalty = (float)o->repeat_penalty;
    s.penalty_last_n = (int32_t)o->repeat_last_n;
    s.presence_penalty = (float)o->presence_penalty;
    s.frequency_penalty = (float)o->frequency_penalty;
    s.dry_multiplier = (float)o->dry_multiplier;
    s.dry_base = (float)o->dry_base;
    s.dry_allowed_length = (int32_t)o->dry_allowed_length;
    s.dry_last_n = (int32_t)o->dry_last_n;
    s.xtc_probability = (float)o->xtc_probability;
    s.xtc_threshold = (float)o->xtc_threshold;
    s.mirostat = (int32_t)o->mirostat;
    s.mirostat_tau = (float)o->mirostat_tau;
    s.mirostat_eta = (float)o->mirostat_eta;
    for (int i = 0; i < o->n_biases; i++)
        DIL_TRY(parse_bias(o->biases[i], &biases[i], err));
    s.biases = biases;
    s.n_biases = o->n_biases;
    *out = s;
    return DIL_OK;
}

#define MAX_TEXT ((size_t)1 << 30)

dil_status cli_read_text(const char *path, char **out, size_t *n, dil_error *err)
{
    return strcmp(path, "-") == 0 ? os_read_stdin(MAX_TEXT, out, n, err) : os_read_all(path, MAX_TEXT, out, n, err);
}

dil_status cli_check_output(const char *what, const char *path, const char *const *others, int n, dil_error *err)
{
    os_writer w;
    for (int i = 0; path && i < n; i++)
        if (others[i] && os_same_file(path, others[i]))
            return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                            os_exists(path) ? N_("%s: wanted another name for %s, found that of a file the command uses")
                                            : N_("%s: wanted another name for %s, found that of a file the command writes too"),
                            path, _(what));
    if (!path)
        return DIL_OK;
    DIL_TRY(os_writer_open(&w, path, err));
    os_writer_abort(&w);
    return DIL_OK;
}

dil_status cli_text(const cli_options *o, bool from_stdin, char **out, size_t *n, dil_error *err)
{
    if (o->prompt && o->file)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "text: wanted -p or -f, found both");
    if (o->prompt) {
        *n = strlen(o->prompt);
        *out = mem_alloc(*n + 1, MEM_TEXT);
        if (!*out)
            return DIL_FAIL(err, DIL_NO_MEMORY, "prompt: no memory");
        memcpy(*out, o->prompt, *n + 1);
        return DIL_OK;
    }
    if (o->file)
        return cli_read_text(o->file, out, n, err);
    if (from_stdin)
        return os_read_stdin(MAX_TEXT, out, n, err);
    return DIL_FAIL(err, DIL_BAD_ARGUMENT, "no text given; use -p TEXT, -f FILE, or pipe it in");
}

/* One line, redrawn at most ten times a second. */
static struct {
    uint64_t started_ns, drawn_ns;
    const char *what;
    bool shown;
} line;

static void draw(const char *what, uint64_t done, uint64_t total, double seconds)
{
    double left = done > 0 && total > done ? seconds * (double)(total - done) / (double)done : 0.0;
    fprintf(stderr, _("\r%s: %3.0f %%  (%llu of %llu, %.0f s left)\033[K"), _(what),
            total ? 100.0 * (double)done / (double)total : 0.0, (unsigned long long)done, (unsigned long long)total, left);
    line.shown = true;
}

bool cli_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    uint64_t now = os_time_ns();
    if (os_interrupted())
        return false;
    if (!os_is_terminal(OS_STDERR))
        return true;
    if (!line.what || strcmp(line.what, what) != 0) {
        line.what = what;
        line.started_ns = line.drawn_ns = now;
    }
    double seconds = (double)(now - line.started_ns) * 1e-9;
    if (now - line.drawn_ns > 100000000u && seconds > 0.3) {
        draw(what, done, total, seconds);
        line.drawn_ns = now;
    }
    return true;
}

void cli_progress_end(void)
{
    if (line.shown)
        fputs("\r\033[K", stderr);
    line.shown = false;
    line.what = NULL;
}

const char *cli_finish_text(const char *finish)
{
    static const struct {
        const char *finish, *text;
    } texts[] = {{"end", N_("end")},
                 {"length", N_("length")},
                 {"stop", N_("stop")},
                 {"cancelled", N_("stopped")},
                 {"context", N_("context full")}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(finish, texts[i].finish) == 0)
            return _(texts[i].text);
    return finish;
}

void cli_print_json_string(str s)
{
    putchar('"');
    for (size_t i = 0; i < s.n;) {
        uint32_t code;
        int length = utf8_decode(s.p + i, s.n - i, &code);
        if (length == 0) {
            fputs("\\ufffd", stdout);
            i++;
            continue;
        }
        if (code == '"' || code == '\\')
            printf("\\%c", (char)code);
        else if (code < 0x20)
            printf("\\u%04x", code);
        else
            fwrite(s.p + i, 1, (size_t)length, stdout);
        i += (size_t)length;
    }
    putchar('"');
}
