/*
 * Unigram (T5, XLM-R): the text is normalised by the table the file carries, spaces become marks, and of all ways to write
 * it with tokens the one with the highest sum of scores is taken (Viterbi over byte positions).
 */
#include <float.h>
#include <stdlib.h>

#include "tokens/vocab_internal.h"

#define UNKNOWN_PENALTY 10.0f

/* --- tokens by prefix ----------------------------------------------------------------------------------------------- */

static bool can_match(int type) { return type == TOKEN_NORMAL || type == TOKEN_USER_DEFINED || type == TOKEN_UNUSED; }

typedef struct prefix_entry {
    str text;
    token_id id;
} prefix_entry;

static int compare_texts(const void *a, const void *b)
{
    const prefix_entry *x = a, *y = b;
    size_t n = x->text.n < y->text.n ? x->text.n : y->text.n;
    int order = memcmp(x->text.p, y->text.p, n);
    return order ? order : (x->text.n > y->text.n) - (x->text.n < y->text.n);
}

static dil_status prefixes_build(vocab *v, dil_error *err)
{
    prefix_entry *entries = mem_alloc((size_t)v->n_tokens * sizeof *entries, MEM_VOCAB);
    v->prefixes.ids = arena_alloc(v->memory, (size_t)v->n_tokens * sizeof *v->prefixes.ids);
    if (!entries || !v->prefixes.ids) {
        mem_free(entries);
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the vocabulary");
    }
    uint32_t n = 0;
    for (int32_t id = 0; id < v->n_tokens; id++)
        if (can_match(v->types[id]))
            entries[n++] = (prefix_entry){v->texts[id], id};
    qsort(entries, n, sizeof *entries, compare_texts);
    uint32_t at = 0;
    for (unsigned byte = 0; byte <= 256; byte++) {
        while (at < n && (unsigned char)entries[at].text.p[0] < byte)
            at++;
        v->prefixes.first[byte] = at;
    }
    for (uint32_t i = 0; i < n; i++)
        v->prefixes.ids[i] = entries[i].id;
    v->prefixes.n = n;
    mem_free(entries);
    return DIL_OK;
}

/* First entry of [lo, hi) whose byte at `depth` is >= byte (entries end before byte 0); all share the bytes before. */
static uint32_t lower(const vocab *v, uint32_t lo, uint32_t hi, size_t depth, unsigned byte)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        str t = v->texts[v->prefixes.ids[mid]];
        if (t.n <= depth || (unsigned char)t.p[depth] < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* --- normalising ---------------------------------------------------------------------------------------------------- */

/*
 * The precompiled table is SentencePiece's: u32 size of a double-array trie, the trie, then zero-terminated replacements.
 * A unit of the trie: bits 10-30 the offset (<< 8 when bit 9 is set), bit 8 "has a value", bits 0-7 (and 31) the label.
 */
static uint32_t unit_at(const vocab *v, uint32_t i)
{
    uint32_t unit;
    memcpy(&unit, v->charsmap + 4 + (size_t)i * 4, 4);
    return unit;
}

/* Longest entry that begins p: its length, and its replacement; 0 when there is none or the table is inconsistent. */
static size_t find_replacement(const vocab *v, const char *p, size_t n, str *out)
{
    if (!v->n_charsmap)
        return 0;
    uint32_t trie_bytes, units, value = 0, node = 0;
    memcpy(&trie_bytes, v->charsmap, 4);
    units = trie_bytes / 4;
    size_t length = 0;
    uint32_t root = unit_at(v, 0);
    node = (root >> 10) << ((root & 1u << 9) >> 6);
    for (size_t i = 0; i < n && p[i]; i++) {
        unsigned char c = (unsigned char)p[i];
        node ^= c;
        if (node >= units)
            break;
        uint32_t unit = unit_at(v, node);
        if ((unit & (1u << 31 | 0xFF)) != c)
            break;
        node ^= (unit >> 10) << ((unit & 1u << 9) >> 6);
        if (unit >> 8 & 1) {
            if (node >= units)
                break;
            value = unit_at(v, node) & 0x7FFFFFFFu;
            length = i + 1;
        }
    }
    size_t texts = v->n_charsmap - 4 - trie_bytes;
    if (!length || value >= texts)
        return 0;
    const char *text = (const char *)v->charsmap + 4 + trie_bytes + value;
    const char *end = memchr(text, 0, texts - value);
    if (!end)
        return 0;
    *out = (str){text, (size_t)(end - text)};
    return length;
}

static dil_status charsmap_build(vocab *v, const vocab_source *s, dil_error *err)
{
    if (!s->charsmap || !s->n_charsmap)
        return DIL_OK;
    uint32_t trie_bytes = 0;
    if (s->n_charsmap > 4)
        memcpy(&trie_bytes, s->charsmap, 4);
    if (trie_bytes < 4 || trie_bytes % 4 || trie_bytes >= s->n_charsmap - 4)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.precompiled_charsmap: %llu bytes cannot hold a table of %u",
                        (unsigned long long)s->n_charsmap, (unsigned)trie_bytes);
    v->charsmap = arena_alloc(v->memory, (size_t)s->n_charsmap);
    if (!v->charsmap)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the vocabulary");
    memcpy(v->charsmap, s->charsmap, (size_t)s->n_charsmap);
    v->n_charsmap = (size_t)s->n_charsmap;
    return DIL_OK;
}

dil_status unigram_build(vocab *v, const vocab_source *s, dil_error *err)
{
    if (!s->scores)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.scores: missing; a unigram vocabulary needs it");
    float least = FLT_MAX;
    for (int32_t id = 0; id < v->n_tokens; id++)
        if (v->types[id] == TOKEN_NORMAL && v->scores[id] < least)
            least = v->scores[id];
    v->unknown_score = (least == FLT_MAX ? 0.0f : least) - UNKNOWN_PENALTY;
    v->spaces_as_marks = true;
    v->add_space_prefix = false; /* the file says; SentencePiece models usually want it */
    DIL_TRY(prefixes_build(v, err));
    return charsmap_build(v, s, err);
}

/* Normalised text grows in the scratch; spaces are written when the next visible character comes. */
typedef struct normaliser {
    encoder *e;
    size_t n;
    bool in_word, prefixed;
} normaliser;

static dil_status put(normaliser *m, const char *p, size_t n)
{
    DIL_TRY(encoder_scratch(m->e, m->n + n + 1));
    memcpy(m->e->scratch + m->n, p, n);
    m->n += n;
    return DIL_OK;
}

static dil_status put_normalised(normaliser *m, str text)
{
    const vocab *v = m->e->v;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == ' ') {
            m->in_word = false;
            if (!v->merge_spaces)
                DIL_TRY(put(m, SPACE_MARK, 3));
            continue;
        }
        if (!m->in_word && (v->merge_spaces || (v->add_space_prefix && !m->prefixed))) {
            DIL_TRY(put(m, SPACE_MARK, 3));
            m->prefixed = true;
        }
        m->in_word = true;
        DIL_TRY(put(m, text.p + i, 1));
    }
    return DIL_OK;
}

static dil_status normalise(normaliser *m, str text)
{
    for (size_t i = 0; i < text.n;) {
        uint32_t code;
        str replacement = {NULL, 0};
        size_t n = find_replacement(m->e->v, text.p + i, text.n - i, &replacement);
        if (!n) {
            int length = utf8_decode(text.p + i, text.n - i, &code);
            n = length > 0 ? (size_t)length : 1;
            replacement = length > 0 ? (str){text.p + i, n} : STR("\xEF\xBF\xBD");
        }
        DIL_TRY(put_normalised(m, replacement));
        i += n;
    }
    return DIL_OK;
}

/* --- the best way --------------------------------------------------------------------------------------------------- */

/* The best way to write the text up to a position: its last token and where that begins. */
typedef struct best_way {
    double score;
    size_t from;
    token_id id;
} best_way;

static void offer(best_way *way, double score, size_t from, token_id id)
{
    if (score > way->score)
        *way = (best_way){score, from, id};
}

/* Offers every token that begins at `at`, and the unknown token for a character that is none. */
static void extend(const vocab *v, const char *text, size_t n, size_t at, size_t character, best_way *ways)
{
    unsigned first = (unsigned char)text[at];
    uint32_t lo = v->prefixes.first[first], hi = v->prefixes.first[first + 1];
    bool whole = false;
    for (size_t depth = 1; lo < hi; depth++) {
        token_id id = v->prefixes.ids[lo];
        if (v->texts[id].n == depth) {
            double score = v->types[id] == TOKEN_USER_DEFINED ? 0.0 : (double)v->scores[id];
            offer(&ways[at + depth], ways[at].score + score, at, id);
            whole |= depth == character;
        }
        if (at + depth >= n)
            break;
        unsigned byte = (unsigned char)text[at + depth];
        lo = lower(v, lo, hi, depth, byte);
        hi = lower(v, lo, hi, depth, byte + 1);
    }
    if (!whole)
        offer(&ways[at + character], ways[at].score + (double)v->unknown_score, at, v->unk);
}

static dil_status write_best(encoder *e, const best_way *ways, size_t n)
{
    size_t first = e->out->n;
    bool unknown_before = false;
    for (size_t at = n; at > 0; at = ways[at].from) {
        bool unknown = ways[at].id == e->v->unk;
        if (!(unknown && unknown_before) && ways[at].id != TOKEN_NONE)
            DIL_TRY(encoder_emit(e, ways[at].id));
        unknown_before = unknown;
    }
    for (size_t i = first, j = e->out->n; i + 1 < j; i++) {
        token_id id = e->out->ids[--j];
        e->out->ids[j] = e->out->ids[i];
        e->out->ids[i] = id;
    }
    return DIL_OK;
}

dil_status unigram_encode(encoder *e, str text)
{
    normaliser m = {.e = e};
    DIL_TRY(normalise(&m, text));
    if (m.n == 0)
        return DIL_OK;
    best_way *ways = mem_alloc((m.n + 1) * sizeof *ways, MEM_TEXT);
    if (!ways)
        return DIL_FAIL(e->err, DIL_NO_MEMORY, "no memory to tokenise %zu bytes", m.n);
    for (size_t i = 0; i <= m.n; i++)
        ways[i] = (best_way){-DBL_MAX, 0, e->v->unk};
    ways[0].score = 0;
    for (size_t at = 0; at < m.n;) {
        uint32_t code;
        int length = utf8_decode(e->scratch + at, m.n - at, &code);
        size_t character = length > 0 ? (size_t)length : 1;
        extend(e->v, e->scratch, m.n, at, character, ways);
        at += character;
    }
    dil_status status = write_best(e, ways, m.n);
    mem_free(ways);
    return status;
}
