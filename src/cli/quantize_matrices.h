/* dil quantize for files without a language model: lone layers of experts, and matrices of unknown networks. */
#ifndef CLI_QUANTIZE_MATRICES_H
#define CLI_QUANTIZE_MATRICES_H

#include "cli/cli.h"

/* With --bpw or --preset; prints and writes the report as options say. Returns an exit code. */
int quantize_matrices(const cli_options *o, const char *in_path, const char *out_path);

#endif
