/*
 * Text -> ids. Special tokens are cut out first: longer ones before shorter ones over the whole text, equal lengths from
 * the left; what is left between them goes to the algorithm. One pass from the left finds them as long as none overlap,
 * which is nearly always; from the first overlap on the rule itself is followed, length after length.
 */
#include "tokens/vocab_internal.h"

#define SEEN_MIN_TEXT 256 /* shorter texts do without the cache of words */
#define SEEN_MAX_SLOTS (1u << 16)
#define SEEN_MAX_WORD 256

dil_status encoder_emit(encoder *e, token_id id) { return token_list_add(e->out, id, e->err); }

static dil_status grow(void **block, size_t *capacity, size_t n, size_t element, dil_error *err)
{
    if (n <= *capacity)
        return DIL_OK;
    size_t wanted = *capacity ? *capacity : 64;
    while (wanted < n)
        wanted *= 2;
    void *bigger = mem_grow(*block, wanted * element, MEM_TEXT);
    if (!bigger)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory to tokenise: %zu bytes", wanted * element);
    *block = bigger;
    *capacity = wanted;
    return DIL_OK;
}

dil_status encoder_scratch(encoder *e, size_t n)
{
    void *block = e->scratch;
    dil_status status = grow(&block, &e->scratch_capacity, n, 1, e->err);
    e->scratch = block;
    return status;
}

dil_status encoder_symbols(encoder *e, size_t n)
{
    void *symbols = e->symbols, *heap = e->heap;
    dil_status status = grow(&symbols, &e->symbols_capacity, n, sizeof *e->symbols, e->err);
    e->symbols = symbols;
    if (status == DIL_OK)
        status = grow(&heap, &e->heap_capacity, 2 * n, sizeof *e->heap, e->err);
    e->heap = heap;
    return status;
}

bool encoder_seen(encoder *e, const char *p, size_t n, seen_word **slot, dil_status *status)
{
    *slot = NULL;
    if (!e->seen || n > SEEN_MAX_WORD)
        return false;
    uint64_t hash = vocab_hash(e->v, p, n);
    seen_word *w = &e->seen[(uint32_t)hash & e->seen_mask];
    if (w->hash == hash && w->n == n && memcmp(w->p, p, n) == 0) {
        *status = DIL_OK;
        for (uint32_t i = 0; i < w->n_ids && *status == DIL_OK; i++)
            *status = encoder_emit(e, e->out->ids[w->at + i]);
        return true;
    }
    w->n = 0;
    w->hash = hash;
    *slot = w;
    return false;
}

void encoder_remember(encoder *e, seen_word *slot, const char *p, size_t n, size_t first)
{
    if (!slot)
        return;
    slot->p = p;
    slot->n = (uint32_t)n;
    slot->at = first;
    slot->n_ids = (uint32_t)(e->out->n - first);
}

/* --- special tokens ------------------------------------------------------------------------------------------------ */

typedef struct splitter {
    encoder *e;
    const special_set *set;
    const char *text;
    bool after_special; /* the next run of text follows a special token or begins the text */
    bool parse;
} splitter;

static dil_status encode_run(splitter *s, size_t from, size_t to)
{
    if (from >= to)
        return DIL_OK;
    str text = {s->text + from, to - from};
    bool add_space = s->after_special && s->e->v->add_space_prefix;
    s->after_special = false;
    switch (s->e->v->kind) {
    case VOCAB_BPE: return s->e->v->byte_level ? bpe_encode(s->e, text) : spm_encode(s->e, text, false);
    case VOCAB_SPM: return spm_encode(s->e, text, add_space);
    case VOCAB_WPM: return wpm_encode(s->e, text);
    case VOCAB_UNIGRAM: break;
    }
    return unigram_encode(s->e, text);
}

/* The special token of exactly n bytes at p, or TOKEN_NONE. */
static token_id special_at(const splitter *s, const char *p, size_t n)
{
    if (!(s->set->lengths_of_byte[(unsigned char)*p][n / 64] >> (n % 64) & 1))
        return TOKEN_NONE;
    token_id id = vocab_find(s->e->v, (str){p, n});
    if (id == TOKEN_NONE)
        return id;
    int type = s->e->v->types[id];
    bool wanted = type == TOKEN_USER_DEFINED || (s->parse && (type == TOKEN_CONTROL || type == TOKEN_UNKNOWN));
    return wanted ? id : TOKEN_NONE;
}

/* Length of the longest special token at p, 0 when none begins there. */
static size_t longest_special(const splitter *s, const char *p, size_t n)
{
    const uint64_t *lengths = s->set->lengths_of_byte[(unsigned char)*p];
    unsigned second = n > 1 ? (unsigned char)p[1] : 0;
    if (!(s->set->second_of_byte[(unsigned char)*p][second / 64] >> (second % 64) & 1))
        n = 1;
    for (int word = SPECIAL_MAX_LENGTH / 64; word >= 0; word--) {
        for (uint64_t bits = lengths[word]; bits;) {
            unsigned bit = 63 - (unsigned)__builtin_clzll(bits);
            size_t length = (size_t)word * 64 + bit;
            if (length <= n && special_at(s, p, length) != TOKEN_NONE)
                return length;
            bits &= ~(1ull << bit);
        }
    }
    return 0;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Cuts [from, to) with the special tokens of length lengths[level] and shorter. Depth: at most the number of lengths. */
static dil_status cut(splitter *s, size_t from, size_t to, int level)
{
    while (level < s->set->n_lengths && s->set->lengths[level] > to - from)
        level++;
    if (level >= s->set->n_lengths)
        return encode_run(s, from, to);
    size_t n = s->set->lengths[level];
    for (size_t at = from; at + n <= to;) {
        token_id id = special_at(s, s->text + at, n);
        if (id == TOKEN_NONE) {
            at++;
            continue;
        }
        size_t left_end = at;
        if (s->e->v->flags[id] & TOKEN_STRIPS_LEFT)
            while (left_end > from && is_space(s->text[left_end - 1]))
                left_end--;
        if (left_end > from)
            DIL_TRY(cut(s, from, left_end, level + 1));
        DIL_TRY(encoder_emit(s->e, id));
        s->after_special = true;
        at += n;
        if (s->e->v->flags[id] & TOKEN_STRIPS_RIGHT)
            while (at < to && is_space(s->text[at]))
                at++;
        from = at;
    }
    return from < to ? cut(s, from, to, level + 1) : DIL_OK;
}

/* Finds special tokens that overlap no other; leaves the rest to cut(). */
static dil_status split(splitter *s, size_t n)
{
    if (s->set->n_lengths == 0)
        return encode_run(s, 0, n);
    if (s->set->strips)
        return cut(s, 0, n, 0);
    size_t plain = 0; /* start of text not yet encoded */
    for (size_t at = 0; at < n;) {
        if (!s->set->begins[(unsigned char)s->text[at]]) {
            at++;
            continue;
        }
        size_t length = longest_special(s, s->text + at, n - at);
        if (!length) {
            at++;
            continue;
        }
        size_t start = at, end = at + length;
        for (at++; at < end; at++) {
            size_t more = longest_special(s, s->text + at, n - at);
            if (at + more > end)
                end = at + more;
        }
        if (end == start + length) { /* nothing reaches beyond the first: it is alone or holds the others */
            DIL_TRY(encode_run(s, plain, start));
            DIL_TRY(encoder_emit(s->e, vocab_find(s->e->v, (str){s->text + start, length})));
            s->after_special = true;
            plain = end;
        } else { /* they overlap: order of length decides, over all that is left */
            return cut(s, plain, n, 0);
        }
    }
    return encode_run(s, plain, n);
}

/* --- the call ------------------------------------------------------------------------------------------------------- */

static dil_status start_cache(encoder *e, size_t text_bytes)
{
    if (text_bytes < SEEN_MIN_TEXT)
        return DIL_OK;
    uint32_t slots = 64;
    while (slots < SEEN_MAX_SLOTS && slots < text_bytes / 8)
        slots *= 2;
    e->seen = mem_calloc(slots, sizeof *e->seen, MEM_TEXT);
    if (!e->seen)
        return DIL_FAIL(e->err, DIL_NO_MEMORY, "no memory to tokenise");
    e->seen_mask = slots - 1;
    return DIL_OK;
}

static dil_status encode_all(encoder *e, str text, bool add_special, bool parse_special)
{
    const vocab *v = e->v;
    bool bos = v->kind == VOCAB_WPM || v->add_bos, eos = v->kind != VOCAB_WPM && v->add_eos;
    if (add_special && bos && v->bos != TOKEN_NONE)
        DIL_TRY(encoder_emit(e, v->bos));
    splitter s = {e, v->specials[parse_special], text.p, true, parse_special};
    if (text.n) {
        DIL_TRY(start_cache(e, text.n));
        DIL_TRY(split(&s, text.n));
    }
    if (add_special && eos && v->eos != TOKEN_NONE)
        DIL_TRY(encoder_emit(e, v->eos));
    if (add_special && v->kind == VOCAB_WPM && v->sep != TOKEN_NONE)
        DIL_TRY(encoder_emit(e, v->sep));
    return DIL_OK;
}

dil_status vocab_encode(const vocab *v, str text, bool add_special, bool parse_special, token_list *out, dil_error *err)
{
    if (text.n > VOCAB_MAX_TEXT)
        return DIL_FAIL(err, DIL_LIMIT, "text of %zu bytes, at most %zu can be tokenised at once", text.n, VOCAB_MAX_TEXT);
    size_t before = out->n;
    encoder e = {.v = v, .out = out, .err = err, .run = {.pre = v->pre}};
    dil_status status = encode_all(&e, text, add_special, parse_special);
    if (status != DIL_OK)
        out->n = before;
    mem_free(e.symbols);
    mem_free(e.heap);
    mem_free(e.scratch);
    mem_free(e.seen);
    pretokenize_end(&e.run);
    return status;
}
