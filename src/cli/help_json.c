#include "cli/help_json.h"

#include "base/status.h"
#include "cli/cli.h"
#include "cli/language.h"
#include "cli/print.h"
#include "evaluate/report_json.h"

static json_t *text(const char *s) { return s ? json_string(_(s)) : json_null(); }

static const char *kind_name(option_kind kind)
{
    static const char *const names[] = {
        [OPTION_FLAG] = "flag",  [OPTION_INT] = "integer",  [OPTION_FLOAT] = "number",     [OPTION_TEXT] = "text",
        [OPTION_LIST] = "list",  [OPTION_BYTES] = "bytes",  [OPTION_BYTES_AUTO] = "bytes", [OPTION_POLICY] = "name",
        [OPTION_ROUTE] = "name", [OPTION_KV_TYPE] = "name", [OPTION_LANGUAGE] = "name"};
    return names[kind];
}

static void add_options(json_t *out, const char *const *names)
{
    for (; *names; names++) {
        const option_row *row = option_find(*names);
        if (row)
            json_array_append_new(out, json_pack("{s:s, s:o, s:o, s:s, s:o}", "name", row->name, "alias",
                                                 row->alias ? json_string(row->alias) : json_null(), "argument", text(row->arg),
                                                 "kind", kind_name(row->kind), "help", text(row->help)));
    }
}

static json_t *command_json(const cli_command *c)
{
    json_t *options = json_array();
    add_options(options, c->options);
    add_options(options, options_of_all);
    return json_pack("{s:s, s:o, s:o, s:o, s:o}", "name", c->name, "usage", text(c->usage), "summary", text(c->summary), "example",
                     text(c->example), "options", options);
}

int help_json(const cli_command *const *commands, size_t n)
{
    dil_error err = {0};
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, command_json(commands[i]));
    json_t *all = json_pack("{s:s, s:s, s:o}", "version", DIL_VERSION, "language", language_name(), "commands", list);
    const dil_status status = print_report(all, &err);
    json_decref(all);
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}
