/*
 * The tokeniser as a filter, for the Python tests.
 *   tool_tokens MODEL.gguf encode [special] [parse]   frames (u32 length, bytes) on stdin -> a line of ids per frame
 *   tool_tokens MODEL.gguf roundtrip                  frames -> "ok", or what differs, per frame
 *   tool_tokens MODEL.gguf decode [special]           lines of ids on stdin -> frames of text
 *   tool_tokens MODEL.gguf speed FILE                 tokenises FILE a few times, prints MB/s
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/os.h"
#include "model/vocab_load.h"

static int fail(const dil_error *err)
{
    fprintf(stderr, "error %d: %s\n", (int)err->code, err->text);
    return 1;
}

static bool has_word(int argc, char **argv, const char *word)
{
    for (int i = 3; i < argc; i++)
        if (strcmp(argv[i], word) == 0)
            return true;
    return false;
}

/* The next frame into a malloc'ed block; false at the end. */
static bool read_frame(char **text, uint32_t *n)
{
    if (fread(n, sizeof *n, 1, stdin) != 1)
        return false;
    *text = malloc((size_t)*n + 1);
    return *text && fread(*text, 1, *n, stdin) == *n;
}

static int encode_frames(const vocab *v, bool special, bool parse)
{
    char *text;
    uint32_t n;
    dil_error err;
    while (read_frame(&text, &n)) {
        token_list ids = {0};
        if (vocab_encode(v, (str){text, n}, special, parse, &ids, &err) != DIL_OK)
            return fail(&err);
        for (size_t i = 0; i < ids.n; i++)
            printf("%s%d", i ? " " : "", (int)ids.ids[i]);
        putchar('\n');
        token_list_free(&ids);
        free(text);
    }
    return 0;
}

static int roundtrip_frames(const vocab *v)
{
    char *text;
    uint32_t n;
    dil_error err;
    while (read_frame(&text, &n)) {
        token_list ids = {0};
        strbuf back = STRBUF((size_t)1 << 30);
        if (vocab_encode(v, (str){text, n}, false, false, &ids, &err) != DIL_OK)
            return fail(&err);
        vocab_decode(v, ids.ids, ids.n, true, &back);
        size_t same = 0;
        while (same < n && same < back.n && text[same] == back.p[same])
            same++;
        if (same == n && back.n == n)
            puts("ok");
        else
            printf("differs at byte %zu: %u bytes became %zu\n", same, (unsigned)n, back.n);
        strbuf_free(&back);
        token_list_free(&ids);
        free(text);
    }
    return 0;
}

static int decode_lines(const vocab *v, bool special)
{
    static char line[1 << 20];
    while (fgets(line, sizeof line, stdin)) {
        token_list ids = {0};
        strbuf out = STRBUF((size_t)1 << 30);
        dil_error err;
        char *p = line, *end;
        for (long id = strtol(p, &end, 10); end != p; id = strtol(p, &end, 10)) {
            if (token_list_add(&ids, (token_id)id, &err) != DIL_OK)
                return fail(&err);
            p = end;
        }
        vocab_decode(v, ids.ids, ids.n, special, &out);
        uint32_t n = (uint32_t)out.n;
        fwrite(&n, sizeof n, 1, stdout);
        fwrite(out.p ? out.p : "", 1, out.n, stdout);
        strbuf_free(&out);
        token_list_free(&ids);
    }
    return 0;
}

static int measure(const vocab *v, const char *path)
{
    char *text;
    size_t n, n_ids = 0;
    dil_error err;
    double best = 0;
    if (os_read_all(path, (size_t)1 << 30, &text, &n, &err) != DIL_OK)
        return fail(&err);
    for (int round = 0; round < 3; round++) {
        token_list ids = {0};
        uint64_t start = os_time_ns();
        if (vocab_encode(v, (str){text, n}, false, false, &ids, &err) != DIL_OK)
            return fail(&err);
        double speed = (double)n * 1e3 / (double)(os_time_ns() - start);
        best = speed > best ? speed : best;
        n_ids = ids.n;
        token_list_free(&ids);
    }
    printf("%.1f MB/s (%zu bytes, %zu tokens, vocabulary of %llu bytes)\n", best, n, n_ids, (unsigned long long)vocab_bytes(v));
    mem_free(text);
    return 0;
}

int main(int argc, char **argv)
{
    dil_error err;
    gguf *g = NULL;
    vocab *v = NULL;
    if (argc < 3) {
        fprintf(stderr, "tool_tokens MODEL.gguf encode|roundtrip|decode|speed ...\n");
        return 2;
    }
    uint64_t start = os_time_ns();
    if (gguf_open(&g, argv[1], &(gguf_options){.header_only = true}, &err) != DIL_OK)
        return fail(&err);
    uint64_t opened = os_time_ns();
    if (vocab_from_gguf(&v, g, &err) != DIL_OK)
        return fail(&err);
    if (strcmp(argv[2], "speed") == 0)
        printf("file header %.0f ms, vocabulary %.0f ms\n", (double)(opened - start) / 1e6, (double)(os_time_ns() - opened) / 1e6);
    gguf_close(g);
    int rc = 2;
    if (strcmp(argv[2], "encode") == 0)
        rc = encode_frames(v, has_word(argc, argv, "special"), has_word(argc, argv, "parse"));
    else if (strcmp(argv[2], "roundtrip") == 0)
        rc = roundtrip_frames(v);
    else if (strcmp(argv[2], "decode") == 0)
        rc = decode_lines(v, has_word(argc, argv, "special"));
    else if (strcmp(argv[2], "speed") == 0 && argc > 3)
        rc = measure(v, argv[3]);
    vocab_free(v);
    return rc;
}
