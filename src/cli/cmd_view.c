/* dil view: pictures of logs and reports, as files. */
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/language.h"
#include "view/view.h"

static bool one_of(const char *text, const char *first, const char *second)
{
    return !text || !strcmp(text, first) || !strcmp(text, second);
}

static int view(const cli_options *o, char **positional, int n_positional)
{
    dil_error err = {0};
    view_picture picture = view_find(positional[0]);
    view_request r = {.inputs = (const char *const *)(positional + 1),
                      .n_inputs = n_positional - 1,
                      .dark = o->theme && strcmp(o->theme, "dark") == 0,
                      .turkish = language_is_turkish()};
    if (!picture)
        return cli_usage("view: wanted metrics, experts or bits, found '%s'", positional[0]);
    if (!o->output)
        return cli_usage("view: no file to write; use -o OUT.svg (or .png, .pdf, .html)");
    if (r.n_inputs > VIEW_MOST_INPUTS)
        return cli_usage("view: wanted 1 to %d files, found %d", VIEW_MOST_INPUTS, r.n_inputs);
    if (!one_of(o->theme, "light", "dark"))
        return cli_usage("view: --theme: wanted light or dark, found '%s'", o->theme);
    if (view_format_of(o->output, &r.format, &err) != DIL_OK) {
        cli_fail(&err);
        return CLI_USAGE;
    }
    strbuf bytes = STRBUF(VIEW_MOST_BYTES);
    dil_status status = picture(&bytes, &r, &err);
    if (status == DIL_OK)
        status = os_write_file(o->output, strbuf_str(&bytes).p, strbuf_str(&bytes).n, &err);
    strbuf_free(&bytes);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const view_options[] = {"output", "theme", NULL};

const cli_command command_view = {
    .name = "view",
    .usage = N_("view metrics|experts|bits FILE... -o OUT.svg|png|pdf|html"),
    .summary = N_("Draws pictures: training curves of metrics logs, experts of router logs, bits of reports of dil quantize."),
    .example = N_("dil view experts english.route turkish.route -o experts.svg"),
    .options = view_options,
    .least_positional = 2,
    .most_positional = -1,
    .run = view};
