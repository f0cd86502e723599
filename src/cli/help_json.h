/* Commands and their options as data: what man pages and completions are made from. */
#ifndef CLI_HELP_JSON_H
#define CLI_HELP_JSON_H

#include "cli/options.h"

/*
 * {"version", "language", "commands": [{"name", "usage", "summary", "example", "options": [{"name", "alias", "argument", "kind", "help"}]}]},
 * in the language that was chosen; alias and argument may be null. Returns the exit code.
 */
int help_json(const cli_command *const *commands, size_t n);

#endif
