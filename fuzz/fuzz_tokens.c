/*
 * links: tokens base
 * The input is cut into a vocabulary (kind, pre-tokeniser, tokens, merges, special ids, switches) and a
 * text; what builds must encode any text, and byte-level BPE with all bytes must give it back.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tokens/pretokenize.h"
#include "tokens/vocab.h"

#define MAX_TOKENS 400
#define MAX_MERGES 64

typedef struct reader {
    const uint8_t *p;
    size_t n;
} reader;

static unsigned take(reader *r)
{
    if (!r->n)
        return 0;
    r->n--;
    return *r->p++;
}

static str take_text(reader *r, size_t max)
{
    size_t n = take(r) % (max + 1);
    n = n < r->n ? n : r->n;
    str s = {(const char *)r->p, n};
    r->p += n;
    r->n -= n;
    return s;
}

typedef struct tables {
    str tokens[MAX_TOKENS], merges[MAX_MERGES];
    float scores[MAX_TOKENS];
    int32_t types[MAX_TOKENS];
    char pool[1024];
} tables;

static void add(tables *t, vocab_source *s, str text, int32_t type, float score)
{
    t->tokens[s->n_tokens] = text;
    t->types[s->n_tokens] = type;
    t->scores[s->n_tokens++] = score;
}

static void add_bytes(tables *t, vocab_source *s, bool letters)
{
    size_t used = 0;
    uint32_t shifted = 0x100;
    for (uint32_t b = 0; letters && b < 256; b++) {
        bool plain = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        int n = utf8_encode(plain ? b : shifted++, t->pool + used);
        add(t, s, (str){t->pool + used, (size_t)n}, TOKEN_NORMAL, 0);
        used += (size_t)n;
    }
}

static str pre_name(unsigned choice)
{
    if (choice >= (unsigned)n_pre_rules)
        return (str){"", 0};
    const char *names = pre_rules[choice].names;
    return (str){names, strcspn(names, " ")};
}

static bool read_tables(reader *r, tables *t, vocab_source *s)
{
    static const char *const models[] = {"gpt2", "gpt2", "llama", "t5", "bert", "gemma4", "gpt2", "unknown"};
    vocab_source_init(s);
    unsigned kind = take(r);
    bool letters = kind & 8;
    s->model = str_of(models[kind & 7]);
    s->pre = pre_name(take(r) % 48);
    s->add_bos = (int)(kind >> 4 & 1);
    s->add_space_prefix = (int)(kind >> 5 & 1);
    s->remove_extra_whitespaces = (int)(kind >> 6 & 1);
    s->name = kind & 128 ? STR("phi-3") : STR("");
    add_bytes(t, s, letters);
    for (unsigned n = take(r) % 100; n > 0; n--) {
        unsigned type = take(r);
        add(t, s, take_text(r, type & 128 ? 60 : 4), (int32_t)(type & 7), (float)(int8_t)take(r) / 4);
    }
    for (unsigned n = take(r) % MAX_MERGES; n > 0; n--)
        t->merges[s->n_merges++] = take_text(r, 8);
    if (letters && s->n_merges == 0)
        t->merges[s->n_merges++] = STR("a a"), add(t, s, STR("aa"), TOKEN_NORMAL, 0);
    s->bos = (token_id)take(r) - 1;
    s->eos = (token_id)take(r) - 1;
    s->unk = (token_id)take(r) - 1;
    if (take(r) & 1) {
        str map = take_text(r, 255);
        s->charsmap = (const uint8_t *)map.p;
        s->n_charsmap = map.n;
    }
    s->tokens = t->tokens;
    s->merges = t->merges;
    s->scores = t->scores;
    s->types = t->types;
    s->n_scores = s->n_types = s->n_tokens;
    return letters && !s->name.n;
}

static void encode_and_back(const vocab *v, str text, unsigned flags, bool exact)
{
    token_list ids = {0};
    strbuf out = STRBUF(1 << 24);
    dil_error err;
    dil_status status = vocab_encode(v, text, flags & 1, flags & 2, &ids, &err);
    if (status != DIL_OK && status != DIL_LIMIT && status != DIL_NO_MEMORY)
        abort();
    for (size_t i = 0; i < ids.n; i++)
        if (ids.ids[i] < 0 || ids.ids[i] >= vocab_size(v))
            abort();
    vocab_decode(v, ids.ids, ids.n, true, &out);
    if (exact && status == DIL_OK && !(flags & 1) && (out.n != text.n || (out.n && memcmp(out.p, text.p, out.n) != 0)))
        abort();
    strbuf_free(&out);
    token_list_free(&ids);
}

/* All tokens that may come out write what they stand for: then the text must come back. */
static bool is_exact(const vocab *v)
{
    if (vocab_kind_of(v) != VOCAB_BPE)
        return false;
    for (token_id id = 0; id < vocab_size(v); id++)
        if (vocab_type(v, id) != TOKEN_NORMAL)
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tables t; /* one thread; rewritten from the start each time */
    reader r = {data, size};
    vocab_source s;
    vocab *v = NULL;
    dil_error err;
    bool exact = read_tables(&r, &t, &s);
    unsigned flags = take(&r);
    if (vocab_new(&v, &s, &err) == DIL_OK) {
        bool marks = str_equal(s.model, STR("gemma4")) || str_equal(s.pre, STR("gemma4"));
        encode_and_back(v, (str){(const char *)r.p, r.n}, flags, exact && !marks && is_exact(v));
        token_id odd[] = {-1, INT32_MIN, INT32_MAX, vocab_size(v), 0};
        strbuf out = STRBUF(1 << 16);
        vocab_decode(v, odd, 5, false, &out);
        strbuf_free(&out);
    }
    vocab_free(v);
    return 0;
}
