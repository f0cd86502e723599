/* For test_recipe_peer.py. FILE: every mixture's format of every matrix, as lines "mixture tensor format". */
#include <stdio.h>

#include "base/status.h"
#include "quantize/recipe.h"

static void print(const players *p, const recipe_model *m)
{
    for (int r = 0; r < recipe_count(); r++)
        for (int i = 0; i < p->n; i++)
            printf("%s %.*s %s\n", recipe_name(r), STR_ARG(p->p[i].tensor->name), format_get(recipe_type(r, m, &p->p[i]))->name);
}

int main(int argc, char **argv)
{
    dil_error err = {0};
    gguf *file = NULL;
    players p = {0};
    static hparams h;
    gguf_options header = {.header_only = true};
    if (argc != 2)
        return 2;
    dil_status status = gguf_open(&file, argv[1], &header, &err);
    if (status == DIL_OK)
        status = hparams_read(&h, file, &err);
    if (status == DIL_OK)
        status = players_new(&p, file, &err);
    if (status == DIL_OK) {
        recipe_model m = recipe_model_of(&h, &p);
        print(&p, &m);
    } else {
        fprintf(stderr, "%s\n", err.text);
    }
    players_free(&p);
    gguf_close(file);
    return status == DIL_OK ? 0 : 1;
}
