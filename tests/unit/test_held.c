/* What of a text may judge: what lies behind the sequences that were seen, all of another text, nothing of one that was used up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "leaks.h"
#include "model/vocab_load.h"
#include "quantize/held.h"
#include "tiny_model.h"

enum { CONTEXT = 8, SEQUENCES = 10 };

static void ok(dil_status st, const dil_error *err)
{
    if (st != DIL_OK)
        fail_msg("%s", err->text);
}

static void only_what_was_not_seen_judges(void **state)
{
    char path[600], text[800];
    dil_error err;
    gguf *g = NULL;
    vocab *v = NULL;
    token_list list = {0};
    held_text h;
    uint32_t random = 5;
    tiny_model m = tiny_llama(DIL_TYPE_F32);
    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 6 == 5 ? ' ' : (char)('a' + tiny_random(&random) % 26);
    const str all = {text, sizeof text};
    tiny_path(path, "held.gguf");
    tiny_write(path, &m);
    ok(gguf_open(&g, path, NULL, &err), &err);
    ok(vocab_from_gguf(&v, g, &err), &err);
    ok(vocab_encode(v, all, false, false, &list, &err), &err);
    const int n = (int)list.n / CONTEXT;
    int32_t *tokens = malloc(list.n * sizeof *tokens);
    assert_true(n > SEQUENCES);
    for (size_t i = 0; i < list.n; i++)
        tokens[i] = i % CONTEXT ? (int32_t)list.ids[i] : -1; /* the first of a sequence is what begins a text */

    const held_seen seen = {tokens, SEQUENCES, CONTEXT};
    ok(held_take(&h, g, all, &seen, 1000, &err), &err);
    assert_int_equal(h.n_sequences, n - SEQUENCES);
    assert_true(h.n < sizeof text && memcmp(h.bytes, text + sizeof text - h.n, h.n) == 0);
    token_list left = {0};
    ok(vocab_encode(v, (str){h.bytes, h.n}, false, false, &left, &err), &err);
    assert_in_range(left.n, (size_t)h.n_sequences * CONTEXT,
                    list.n - SEQUENCES * CONTEXT + 1); /* the model begins a text with a space */
    token_list_free(&left);
    held_free(&h);

    ok(held_take(&h, g, all, &seen, 2, &err), &err);
    assert_int_equal(h.n_sequences, 2);
    held_free(&h);

    tokens[CONTEXT + 1] ^= 1; /* the second sequence is another text's */
    ok(held_take(&h, g, all, &seen, 1000, &err), &err);
    assert_int_equal(h.n_sequences, n - 1);
    held_free(&h);
    tokens[CONTEXT + 1] ^= 1;

    const held_seen everything = {tokens, n, CONTEXT};
    ok(held_take(&h, g, all, &everything, 1000, &err), &err);
    assert_true(h.n_sequences == 0 && !h.bytes);

    free(tokens);
    token_list_free(&list);
    vocab_free(v);
    gguf_close(g);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_what_was_not_seen_judges)};
    return leaks_run_group_tests(tests, NULL, NULL);
}
