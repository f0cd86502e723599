/*
 * For test_file_gguf.py. dump FILE prints every value and tensor as hexadecimal; copy IN OUT writes
 * IN again with the library's writer; check FILE prints its defects.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "file/gguf_internal.h"

static void print_hex(const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%02x", ((const uint8_t *)bytes)[i]);
}

static void dump_value(const gguf_value *v)
{
    printf("V ");
    print_hex(v->key.p, v->key.n);
    printf(" %d %d %" PRIu64 " ", (int)v->kind, (int)v->element, v->count);
    if (v->element != GGUF_STRING)
        print_hex(v->data, (size_t)v->count * gguf_kind_bytes(v->element));
    for (uint64_t i = 0; v->element == GGUF_STRING && i < v->count; i++) {
        const str *s = (const str *)v->data + i;
        printf("%s", i ? "," : "");
        print_hex(s->p, s->n);
    }
    printf("\n");
}

static void dump(const gguf *g)
{
    for (uint64_t i = 0; i < gguf_n_values(g); i++)
        dump_value(gguf_value_at(g, i));
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        printf("T ");
        print_hex(t->name.p, t->name.n);
        printf(" %d %" PRIu64 " ", (int)t->type, t->offset);
        for (int k = 0; k < t->n_dims; k++)
            printf("%s%" PRIu64, k ? "x" : "", t->ne[k]);
        printf(" ");
        print_hex(t->data, (size_t)t->size_bytes);
        printf("\n");
    }
}

static dil_status copy(const gguf *g, const char *path, dil_error *err)
{
    gguf_writer *w = NULL;
    dil_status st = gguf_writer_new(&w, path, err);
    if (st == DIL_OK)
        st = gguf_writer_copy_values(w, g, NULL, 0, err);
    for (uint64_t i = 0; st == DIL_OK && i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        st = gguf_writer_add_tensor(w, t->name, t->type, t->n_dims, t->ne, err);
    }
    for (uint64_t i = 0; st == DIL_OK && i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        st = gguf_writer_data(w, t->data, (size_t)t->size_bytes, err);
    }
    if (st == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return st;
}

static void print_defect(void *ctx, uint64_t offset, const char *text)
{
    (void)ctx;
    printf("byte offset %" PRIu64 ": %s\n", offset, text);
}

int main(int argc, char **argv)
{
    dil_error err = {0};
    dil_status st = DIL_BAD_ARGUMENT;
    gguf *g = NULL;
    if (argc == 3 && strcmp(argv[1], "check") == 0) {
        st = gguf_check(argv[2], print_defect, NULL, NULL, NULL, &err);
    } else if (argc >= 3 && (st = gguf_open(&g, argv[2], NULL, &err)) == DIL_OK) {
        if (argc == 4 && strcmp(argv[1], "copy") == 0)
            st = copy(g, argv[3], &err);
        else
            dump(g);
    }
    gguf_close(g);
    if (st != DIL_OK)
        fprintf(stderr, "%s\n", err.text);
    return st == DIL_OK ? 0 : 1;
}
