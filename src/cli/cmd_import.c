/* dil import: llama2.c checkpoints as GGUF. */
#include <stdio.h>

#include "base/status.h"
#include "cli/cli.h"

static int import(const cli_options *o, char **positional, int n_positional)
{
    (void)n_positional;
    dil_error err = {0};
    dil_status status = llama2c_import(positional[0], positional[1], positional[2], &err);
    if (status != DIL_OK)
        return cli_fail(&err);
    if (!o->quiet)
        printf(_("%s: written; try dil run -m %s --no-template -p \"Once upon a time\"\n"), positional[2], positional[2]);
    return CLI_OK;
}

static const char *const import_options[] = {"quiet", NULL};

const cli_command command_import = {.name = "import",
                                    .usage = N_("import CHECKPOINT TOKENIZER OUT.gguf"),
                                    .summary = N_("Turns a llama2.c checkpoint and its tokeniser into a GGUF file."),
                                    .example = N_("dil import stories15M.bin tokenizer.bin stories15M.gguf"),
                                    .options = import_options,
                                    .least_positional = 3,
                                    .most_positional = 3,
                                    .run = import};
