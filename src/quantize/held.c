#include "quantize/held.h"

#include "base/mem.h"
#include "base/status.h"
#include "model/vocab_load.h"

enum {
    MARGIN = 16
}; /* tokens more than measuring takes, if there are any: words cut off from those before them may become fewer tokens */

static bool same_sequence(const token_id *text, const int32_t *seen, int n)
{
    for (int i = 1; i < n; i++)
        if ((int32_t)text[i] != seen[i])
            return false;
    return true;
}

static size_t count_seen(const token_list *text, const held_seen *seen)
{
    const size_t n = (size_t)seen->n_context;
    size_t used = 0;
    for (int s = 0; s < seen->n_sequences && used + n <= text->n; s++, used += n)
        if (!same_sequence(text->ids + used, seen->tokens + used, seen->n_context))
            break;
    return used;
}

dil_status held_take(held_text *out, const gguf *file, str text, const held_seen *seen, int most, dil_error *err)
{
    vocab *v = NULL;
    token_list list = {0};
    strbuf bytes = STRBUF((size_t)1 << 30);
    *out = (held_text){0};
    DIL_TRY(vocab_from_gguf(&v, file, err));
    dil_status status = vocab_encode(v, text, false, false, &list, err);
    size_t left = status == DIL_OK ? list.n - count_seen(&list, seen) : 0, n_context = (size_t)seen->n_context;
    size_t n = left / n_context < (size_t)most ? left / n_context : (size_t)most, more = left - n * n_context;
    more = more < MARGIN ? more : MARGIN;
    for (size_t i = list.n - n * n_context - more; n > 0 && i < list.n; i++)
        vocab_decode_token(v, list.ids[i], true, &bytes);
    if (n > 0 && !bytes.p)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "text: no memory for its last %zu tokens", n * n_context);
    if (status == DIL_OK && n > 0)
        *out = (held_text){bytes.p, bytes.n, (int)n};
    else
        strbuf_free(&bytes);
    token_list_free(&list);
    vocab_free(v);
    return status;
}

void held_free(held_text *h)
{
    mem_free(h->bytes);
    *h = (held_text){0};
}
