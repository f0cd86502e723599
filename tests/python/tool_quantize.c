/* Quantizes through the public header: tool_quantize IN OUT TEXT PRESET|BITS BUDGET, 8 sequences of 128 tokens, few sweeps; prints what
 * the report says. */
#include <stdio.h>
#include <stdlib.h>

#include "dilmodeli.h"

int main(int argc, char **argv)
{
    dil_error err;
    dil_quantize_options o = dil_quantize_options_default();
    dil_quantize_report r = {.struct_size = sizeof r};
    dil_quantized first;
    if (argc != 6)
        return 2;
    o.bits = atof(argv[4]);
    o.preset = o.bits > 0 ? NULL : argv[4];
    o.budget = atof(argv[5]);
    o.text_path = argv[3];
    o.n_sequences = 8;
    o.n_context = 128;
    o.fast = true;
    if (dil_quantize(argv[1], argv[2], &o, &r, &first, 1, &err) != DIL_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf(
        "{\"out_bytes\": %llu, \"bits\": %.6f, \"cost\": %.9g, \"removed\": %d, \"matrices\": %zu, \"first\": \"%s\", \"first_type\": \"%s\"}\n",
        (unsigned long long)r.out_bytes, r.bits, r.cost, r.n_removed, r.n_matrices, first.name, first.type);
    return 0;
}
