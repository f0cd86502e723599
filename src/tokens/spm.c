/*
 * Texts whose tokens write spaces as U+2581: SentencePiece (merges by score) and BPE over characters.
 *
 * In both, merging is defined over a whole text. A merge can cross a place only if some token holds the two characters
 * there side by side; so a text may be cut before a space mark wherever no token holds that mark behind the character in
 * front of it. The pieces are merged alone, with the same result, and repeated pieces are merged once per call.
 */
#include <stdlib.h>

#include "tokens/vocab_internal.h"

#define MARK_BYTES 3

static bool is_mark(const char *p, size_t n) { return n >= MARK_BYTES && memcmp(p, SPACE_MARK, MARK_BYTES) == 0; }

/* Bytes of the character at p; 1 for a byte that begins none. */
static size_t next_character(const char *p, size_t n, uint32_t *code)
{
    *code = (unsigned char)*p;
    if (*code < 0x80)
        return 1;
    int length = utf8_decode(p, n, code);
    return length > 0 ? (size_t)length : 1;
}

static int compare_codes(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Notes the characters that text holds right before a space mark; returns how many non-ASCII ones (appended to others). */
static uint32_t note_marks(vocab *v, str text, uint32_t *others)
{
    uint32_t found = 0, code = 0;
    for (size_t i = 0; i < text.n;) {
        if (i > 0 && is_mark(text.p + i, text.n - i)) {
            if (code < 128)
                v->mark_ascii[code >> 6] |= 1ull << (code & 63);
            else if (others)
                others[found++] = code;
            else
                found++;
        }
        i += next_character(text.p + i, text.n - i, &code);
    }
    return found;
}

dil_status marks_build(vocab *v, dil_error *err)
{
    uint64_t total = 0;
    for (int32_t i = 0; i < v->n_tokens; i++)
        total += note_marks(v, v->texts[i], NULL);
    if (total > VOCAB_MAX_TOKENS * 4ull)
        return DIL_FAIL(err, DIL_LIMIT, "tokenizer.ggml.tokens: %llu space marks inside tokens", (unsigned long long)total);
    uint32_t *all = arena_alloc(v->memory, (size_t)(total + 1) * sizeof *all);
    if (!all)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the vocabulary");
    uint32_t n = 0, kept = 0;
    for (int32_t i = 0; i < v->n_tokens; i++)
        n += note_marks(v, v->texts[i], all + n);
    qsort(all, n, sizeof *all, compare_codes);
    for (uint32_t i = 0; i < n; i++)
        if (i == 0 || all[i] != all[i - 1])
            all[kept++] = all[i];
    v->mark_others = all;
    v->n_mark_others = kept;
    return DIL_OK;
}

static bool may_precede_mark(const vocab *v, uint32_t code)
{
    if (code < 128)
        return v->mark_ascii[code >> 6] >> (code & 63) & 1;
    return bsearch(&code, v->mark_others, v->n_mark_others, sizeof code, compare_codes) != NULL;
}

void bytes_build(vocab *v)
{
    for (unsigned b = 0; b < 256; b++) {
        static const char hex[] = "0123456789ABCDEF";
        char name[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        char byte = (char)b;
        v->byte_ids[b] = vocab_find(v, (str){name, 6});
        if (v->byte_ids[b] == TOKEN_NONE)
            v->byte_ids[b] = vocab_find(v, (str){&byte, 1});
    }
}

typedef struct scored {
    float score;
    token_id id;
} scored;

static int compare_scores(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return (x->score < y->score) - (x->score > y->score);
}

dil_status spm_build(vocab *v, const vocab_source *source, dil_error *err)
{
    if (!source->scores)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.scores: missing; a SentencePiece vocabulary needs it");
    size_t n = (size_t)v->n_tokens;
    scored *order = mem_alloc(n * sizeof *order, MEM_VOCAB);
    v->ranks = arena_alloc(v->memory, n * sizeof *v->ranks);
    if (!order || !v->ranks) {
        mem_free(order);
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the vocabulary");
    }
    bool sorted = true;
    for (size_t i = 0; i < n; i++) {
        order[i] = (scored){v->scores[i], (token_id)i};
        sorted &= i == 0 || v->scores[i] <= v->scores[i - 1];
    }
    if (!sorted)
        qsort(order, n, sizeof *order, compare_scores);
    uint32_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        rank += i > 0 && order[i].score < order[i - 1].score;
        v->ranks[order[i].id] = rank;
    }
    mem_free(order);
    v->spaces_as_marks = true;
    bytes_build(v);
    return marks_build(v, err);
}

/* Writes p[0..n) into the scratch with marks for spaces, splits it into characters and merges them. */
static dil_status merge_piece(encoder *e, const char *p, size_t n, bool add_space)
{
    const vocab *v = e->v;
    size_t spaces = add_space;
    for (size_t i = 0; i < n; i++)
        spaces += p[i] == ' ';
    DIL_TRY(encoder_scratch(e, n + spaces * (MARK_BYTES - 1) + 1));
    size_t length = 0;
    if (add_space) {
        memcpy(e->scratch, SPACE_MARK, MARK_BYTES);
        length = MARK_BYTES;
    }
    for (size_t i = 0; i < n; i++) {
        if (p[i] == ' ') {
            memcpy(e->scratch + length, SPACE_MARK, MARK_BYTES);
            length += MARK_BYTES;
        } else {
            e->scratch[length++] = p[i];
        }
    }
    if (n > 0 && v->split_newlines && length <= v->longest && p[0] == '\n') {
        token_id whole = vocab_find(v, (str){e->scratch, length});
        if (whole != TOKEN_NONE)
            return encoder_emit(e, whole);
    }
    DIL_TRY(encoder_symbols(e, length));
    uint32_t count = 0, code;
    for (size_t i = 0; i < length;) {
        size_t k = next_character(e->scratch + i, length - i, &code);
        token_id id = vocab_find(v, (str){e->scratch + i, k});
        e->symbols[count++] = (symbol){(uint32_t)i, (uint32_t)k, id, 0, 0};
        i += k;
    }
    return merge_symbols(e, e->scratch, count);
}

static dil_status encode_piece(encoder *e, const char *p, size_t n, bool add_space)
{
    seen_word *slot = NULL;
    dil_status status = DIL_OK;
    if (!add_space && encoder_seen(e, p, n, &slot, &status))
        return status;
    size_t first = e->out->n;
    DIL_TRY(merge_piece(e, p, n, add_space));
    encoder_remember(e, slot, p, n, first);
    return DIL_OK;
}

/* May the text be cut between the character `before` and what starts at p? */
static bool may_cut(const vocab *v, uint32_t before, const char *p, size_t n)
{
    if (v->split_newlines && (before == '\n') != (*p == '\n'))
        return true;
    if (*p != ' ' && !is_mark(p, n))
        return false;
    return !may_precede_mark(v, before == ' ' ? 0x2581 : before);
}

dil_status spm_encode(encoder *e, str text, bool add_space)
{
    size_t start = 0;
    uint32_t code = add_space ? ' ' : 0;
    bool first = true;
    for (size_t i = 0; i < text.n;) {
        if ((i > 0 || add_space) && may_cut(e->v, code, text.p + i, text.n - i)) {
            DIL_TRY(encode_piece(e, text.p + start, i - start, first && add_space));
            first = false;
            start = i;
        }
        i += next_character(text.p + i, text.n - i, &code);
    }
    return encode_piece(e, text.p + start, text.n - start, first && add_space);
}
