/* dil view: pictures of logs and reports, as files. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/language.h"
#include "view/view.h"

static bool one_of(const char *text, const char *first, const char *second)
{
    return !text || !strcmp(text, first) || !strcmp(text, second);
}

/* Where the number of a picture stands in its name, "%d" or "%04d"; NULL: nowhere. digits: least. */
static const char *find_number(const char *path, int *digits, const char **end)
{
    const char *at = strchr(path, '%');
    *digits = 0;
    if (!at)
        return NULL;
    const char *p = at + 1;
    while (*p >= '0' && *p <= '9' && *digits < 100)
        *digits = *digits * 10 + (*p++ - '0');
    *end = p + 1;
    return *p == 'd' && *digits < 10 && !strchr(p, '%') ? at : NULL;
}

static dil_status keep_picture(void *ctx, uint32_t number, uint32_t n, str bytes, dil_error *err)
{
    const char *pattern = ctx, *end = pattern;
    char path[4096];
    int digits;
    const char *at = find_number(pattern, &digits, &end);
    int length = snprintf(path, sizeof path, "%.*s%0*u%s", (int)(at - pattern), pattern, digits ? digits : 1, number, end);
    if (length < 0 || (size_t)length >= sizeof path)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: the name is too long", pattern);
    if (!cli_progress(NULL, "drawing", number, n))
        return DIL_FAIL(err, DIL_CANCELLED, "stopped by Ctrl-C after %u of %u pictures", number - 1, n);
    return os_write_file(path, bytes.p, bytes.n, err);
}

static dil_status draw(view_picture picture, const view_request *r, const char *path, dil_error *err)
{
    strbuf bytes = STRBUF(VIEW_MOST_BYTES);
    dil_status status = picture(&bytes, r, err);
    if (status == DIL_OK)
        status = os_write_file(path, strbuf_str(&bytes).p, strbuf_str(&bytes).n, err);
    strbuf_free(&bytes);
    return status;
}

/* A model may be given by its name; a text may come with it. */
static dil_status draw_flock(view_request *r, const cli_options *o, bool one, char **positional, dil_error *err)
{
    char found[4096], *text = NULL, output[4096];
    dil_status status = DIL_OK;
    if (!os_exists(positional[1]))
        status = cli_model_path(positional[1], found, sizeof found, err);
    if (status == DIL_OK && !os_exists(positional[1]))
        positional[1] = found;
    if (status == DIL_OK && (o->prompt || o->file))
        status = cli_text(o, false, &text, &r->text_bytes, err);
    r->text = text;
    snprintf(output, sizeof output, "%s", o->output);
    if (status == DIL_OK)
        status = one ? draw(view_flock, r, o->output, err) : view_flock_frames(r, keep_picture, output, err);
    mem_free(text);
    return status;
}

static bool flock_only(const cli_options *o)
{
    return o->prompt || o->file || options_given(o, "layer") || o->frame || o->frames || options_given(o, "threads");
}

static int view(const cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    const char *end;
    int digits;
    view_picture picture = view_find(positional[0]);
    view_request r = {.inputs = (const char *const *)(positional + 1),
                      .n_inputs = n_positional - 1,
                      .dark = o->theme && strcmp(o->theme, "dark") == 0,
                      .any_theme = !o->theme,
                      .turkish = language_is_turkish(),
                      .one_layer = options_given(o, "layer"),
                      .layer = (uint32_t)o->layer,
                      .frame = (uint64_t)o->frame,
                      .n_frames = (uint32_t)o->frames,
                      .n_threads = (int32_t)o->threads,
                      .progress = cli_progress};
    if (!picture)
        return cli_usage("view: wanted metrics, experts, flock, cache or bits, found '%s'", positional[0]);
    if (!o->output)
        return cli_usage("view: no file to write; use -o OUT.svg (or .png, .pdf, .html)");
    if (r.n_inputs > VIEW_MOST_INPUTS)
        return cli_usage("view: wanted 1 to %d files, found %d", VIEW_MOST_INPUTS, r.n_inputs);
    if (!one_of(o->theme, "light", "dark"))
        return cli_usage("view: --theme: wanted light or dark, found '%s'", o->theme);
    if (picture != view_flock && flock_only(o))
        return cli_usage("view %s: --layer, --frame, --frames, --threads, -p and -f are for the flock", positional[0]);
    bool many = picture == view_flock && find_number(o->output, &digits, &end);
    if (view_format_of(o->output, &r.format, &err) != DIL_OK) {
        cli_fail(&err);
        return CLI_USAGE;
    }
    dil_status status = picture == view_flock ? draw_flock(&r, o, !many, positional, &err) : draw(picture, &r, o->output, &err);
    cli_progress_end();
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const view_options[] = {"output", "theme", "layer", "frame", "frames", "prompt", "file", "threads", NULL};

const cli_command command_view = {
    .name = "view",
    .usage = N_("view metrics|experts|flock|cache|bits FILE... -o OUT.svg|png|pdf|html"),
    .summary = N_(
        "Draws pictures: training curves, speeds or reports (metrics), experts and cache hits of router logs, the flock of a model's "
        "experts, bits of a report."),
    .example = N_("dil view flock moe.gguf chat.route -o flock.html"),
    .options = view_options,
    .least_positional = 2,
    .most_positional = -1,
    .run = view};
