/* Building a vocabulary from the tables of a file, all of them checked; finding tokens by text; getters. */
#include "tokens/vocab.h"

#include <math.h>
#include <stdio.h>

#include "base/checked.h"
#include "base/os.h"
#include "tokens/vocab_internal.h"

void vocab_source_init(vocab_source *s)
{
    *s = (vocab_source){0};
    s->bos = s->eos = s->eot = s->eom = s->unk = s->sep = s->pad = s->mask = TOKEN_NONE;
    s->add_bos = s->add_eos = s->add_sep = s->add_space_prefix = s->remove_extra_whitespaces = -1;
    s->lowercase = s->strip_accents = -1;
}

/* Eight bytes at a time, multiply and fold; seeded, so that a file cannot choose colliding tokens. */
uint64_t vocab_hash(const vocab *v, const char *p, size_t n)
{
    uint64_t h = v->seed ^ (n * 0x9E3779B97F4A7C15u), block = 0;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&block, p, 8);
        h = (h ^ block) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    if (n >= 4) { /* two reads that overlap when n < 8 */
        uint32_t head, tail;
        memcpy(&head, p, 4);
        memcpy(&tail, p + n - 4, 4);
        block = (uint64_t)tail << 32 | head;
    } else {
        block = n == 0 ? 0
                       : (uint64_t)(unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << 8 |
                             (uint64_t)(unsigned char)p[n - 1] << 16;
    }
    h = (h ^ block) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

token_id vocab_find_hashed(const vocab *v, const char *p, size_t n, uint64_t hash)
{
    uint32_t tag = (uint32_t)(hash >> 32);
    for (uint32_t i = (uint32_t)hash & v->text_mask;; i = (i + 1) & v->text_mask) {
        const text_slot *s = &v->text_table[i];
        if (s->id == TOKEN_NONE)
            return TOKEN_NONE;
        if (s->hash == tag && v->texts[s->id].n == n && memcmp(v->texts[s->id].p, p, n) == 0)
            return s->id;
    }
}

token_id vocab_find(const vocab *v, str text)
{
    if (text.n == 0 || text.n > v->longest)
        return TOKEN_NONE;
    return vocab_find_hashed(v, text.p, text.n, vocab_hash(v, text.p, text.n));
}

static dil_status choose_kind(vocab *v, const vocab_source *s, dil_error *err)
{
    static const struct {
        const char *name;
        vocab_kind kind;
    } known[] = {{"gpt2", VOCAB_BPE}, {"gemma4", VOCAB_BPE}, {"llama", VOCAB_SPM}, {"bert", VOCAB_WPM}, {"t5", VOCAB_UNIGRAM}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (str_equal(s->model, str_of(known[i].name))) {
            v->kind = known[i].kind;
            return DIL_OK;
        }
    }
    return DIL_FAIL(err, DIL_UNSUPPORTED, "tokenizer.ggml.model: \"%.*s\" is not supported; known: gpt2 gemma4 llama bert t5",
                    STR_ARG(s->model));
}

static dil_status check_counts(const vocab_source *s, dil_error *err)
{
    unsigned long long n = s->n_tokens;
    if (n == 0)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.tokens: missing or empty");
    if (n > VOCAB_MAX_TOKENS)
        return DIL_FAIL(err, DIL_LIMIT, "tokenizer.ggml.tokens: %llu entries, at most %u are supported", n, VOCAB_MAX_TOKENS);
    if (s->scores && s->n_scores < n)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.scores: wanted %llu entries as in tokenizer.ggml.tokens, found %llu", n,
                        (unsigned long long)s->n_scores);
    if (s->types && s->n_types < n)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.token_type: wanted %llu entries as in tokenizer.ggml.tokens, found %llu",
                        n, (unsigned long long)s->n_types);
    return DIL_OK;
}

/* Empty tokens keep their id under a name no text can contain twice: "[EMPTY_id]". */
static str token_text(const vocab_source *s, uint64_t i, char empty[32])
{
    if (s->tokens[i].n)
        return s->tokens[i];
    int n = snprintf(empty, 32, "[EMPTY_%llu]", (unsigned long long)i);
    return (str){empty, (size_t)n};
}

static dil_status copy_texts(vocab *v, const vocab_source *s, dil_error *err)
{
    uint64_t total = 0;
    char empty[32];
    for (uint64_t i = 0; i < s->n_tokens; i++) {
        size_t n = token_text(s, i, empty).n;
        if (n > VOCAB_MAX_TOKEN_TEXT)
            return DIL_FAIL(err, DIL_LIMIT, "tokenizer.ggml.tokens[%llu]: %zu bytes, at most %u are supported",
                            (unsigned long long)i, n, VOCAB_MAX_TOKEN_TEXT);
        total += n + 1;
        if (n > v->longest)
            v->longest = n;
    }
    size_t count = (size_t)s->n_tokens;
    char *blob = arena_alloc(v->memory, (size_t)total);
    v->texts = arena_calloc(v->memory, count, sizeof *v->texts);
    v->types = arena_calloc(v->memory, count, sizeof *v->types);
    v->flags = arena_calloc(v->memory, count, sizeof *v->flags);
    v->scores = arena_calloc(v->memory, count, sizeof *v->scores);
    if (!blob || !v->texts || !v->types || !v->flags || !v->scores)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for a vocabulary of %zu tokens", count);
    for (size_t i = 0; i < count; i++) {
        str text = token_text(s, i, empty);
        memcpy(blob, text.p, text.n);
        blob[text.n] = 0;
        v->texts[i] = (str){blob, text.n};
        blob += text.n + 1;
    }
    return DIL_OK;
}

static dil_status copy_numbers(vocab *v, const vocab_source *s, dil_error *err)
{
    for (int32_t i = 0; i < v->n_tokens; i++) {
        int32_t type = s->types ? s->types[i] : TOKEN_NORMAL;
        v->types[i] = type >= TOKEN_NORMAL && type <= TOKEN_BYTE ? (uint8_t)type : 0; /* 0: undefined, writes nothing */
        v->scores[i] = s->scores ? s->scores[i] : 0.0f;
        if (!isfinite(v->scores[i]))
            return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.scores[%d]: wanted a finite number", (int)i);
    }
    return DIL_OK;
}

static dil_status index_texts(vocab *v, dil_error *err)
{
    uint32_t slots = 4;
    while (slots < 2 * (uint32_t)v->n_tokens)
        slots *= 2;
    v->text_mask = slots - 1;
    v->text_table = arena_alloc(v->memory, slots * sizeof *v->text_table);
    if (!v->text_table)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for a vocabulary of %d tokens", (int)v->n_tokens);
    for (uint32_t i = 0; i < slots; i++)
        v->text_table[i].id = TOKEN_NONE;
    for (int32_t id = 0; id < v->n_tokens; id++) {
        str text = v->texts[id];
        uint64_t hash = vocab_hash(v, text.p, text.n);
        token_id other = vocab_find_hashed(v, text.p, text.n, hash);
        if (other != TOKEN_NONE)
            return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.tokens[%d]: \"%.*s\" is already token %d", (int)id, STR_ARG(text),
                            (int)other);
        uint32_t i = (uint32_t)hash & v->text_mask;
        while (v->text_table[i].id != TOKEN_NONE)
            i = (i + 1) & v->text_mask;
        v->text_table[i] = (text_slot){(uint32_t)(hash >> 32), id};
    }
    return DIL_OK;
}

static token_id default_id(const vocab *v, token_id id) { return id < v->n_tokens ? id : TOKEN_NONE; }

/* What files of a kind mean when they say nothing; the file's own words come after. */
static void set_defaults(vocab *v)
{
    v->bos = v->eos = v->eot = v->eom = v->unk = v->sep = v->pad = v->mask = TOKEN_NONE;
    v->lowercase = true;
    switch (v->kind) {
    case VOCAB_BPE: break;
    case VOCAB_SPM:
        v->bos = default_id(v, 1);
        v->eos = default_id(v, 2);
        v->unk = default_id(v, 0);
        v->add_bos = v->add_space_prefix = true;
        break;
    case VOCAB_WPM:
        v->bos = default_id(v, 101);
        v->sep = default_id(v, 102);
        v->unk = default_id(v, 100);
        v->pad = default_id(v, 0);
        v->mask = default_id(v, 103);
        v->add_bos = true;
        break;
    case VOCAB_UNIGRAM:
        v->eos = default_id(v, 1);
        v->unk = default_id(v, 2);
        v->pad = default_id(v, 0);
        v->add_eos = true;
        break;
    }
}

static dil_status take_id(const vocab *v, token_id given, const char *key, token_id *out, dil_error *err)
{
    if (given == TOKEN_NONE)
        return DIL_OK;
    if (given < 0 || given >= v->n_tokens)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.%s: %d is outside the %d tokens of tokenizer.ggml.tokens", key, (int)given,
                        (int)v->n_tokens);
    *out = given;
    return DIL_OK;
}

static dil_status take_ids(vocab *v, const vocab_source *s, dil_error *err)
{
    DIL_TRY(take_id(v, s->bos, "bos_token_id", &v->bos, err));
    DIL_TRY(take_id(v, s->eos, "eos_token_id", &v->eos, err));
    DIL_TRY(take_id(v, s->eot, "eot_token_id", &v->eot, err));
    DIL_TRY(take_id(v, s->eom, "eom_token_id", &v->eom, err));
    DIL_TRY(take_id(v, s->unk, "unknown_token_id", &v->unk, err));
    DIL_TRY(take_id(v, s->sep, "seperator_token_id", &v->sep, err)); /* spelled so in the format */
    DIL_TRY(take_id(v, s->pad, "padding_token_id", &v->pad, err));
    return take_id(v, s->mask, "mask_token_id", &v->mask, err);
}

static void take_switches(vocab *v, const vocab_source *s)
{
    if (s->add_bos >= 0 && !v->split_newlines) /* gemma4 files say false and mean true */
        v->add_bos = s->add_bos != 0;
    if (s->add_eos >= 0)
        v->add_eos = s->add_eos != 0;
    if (s->add_space_prefix >= 0)
        v->add_space_prefix = s->add_space_prefix != 0;
    if (s->remove_extra_whitespaces >= 0)
        v->merge_spaces = s->remove_extra_whitespaces != 0;
    if (s->lowercase >= 0)
        v->lowercase = s->lowercase != 0;
    v->strip_accents = s->strip_accents >= 0 ? s->strip_accents != 0 : v->lowercase;
}

static dil_status build_kind(vocab *v, const vocab_source *s, dil_error *err)
{
    switch (v->kind) {
    case VOCAB_BPE: return bpe_build(v, s, err);
    case VOCAB_SPM: return spm_build(v, s, err);
    case VOCAB_UNIGRAM: return unigram_build(v, s, err);
    case VOCAB_WPM: break;
    }
    return DIL_OK;
}

static dil_status build(vocab *v, const vocab_source *s, dil_error *err)
{
    DIL_TRY(choose_kind(v, s, err));
    DIL_TRY(check_counts(s, err));
    v->n_tokens = (int32_t)s->n_tokens;
    os_random(&v->seed, sizeof v->seed);
    DIL_TRY(copy_texts(v, s, err));
    DIL_TRY(copy_numbers(v, s, err));
    DIL_TRY(index_texts(v, err));
    set_defaults(v);
    DIL_TRY(build_kind(v, s, err));
    DIL_TRY(take_ids(v, s, err));
    take_switches(v, s);
    return vocab_setup_specials(v, s, err);
}

dil_status vocab_new(vocab **out, const vocab_source *source, dil_error *err)
{
    vocab *v = mem_calloc(1, sizeof *v, MEM_VOCAB);
    if (!v)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the vocabulary");
    v->memory = arena_new(MEM_VOCAB, (size_t)8 << 30);
    dil_status status = v->memory ? build(v, source, err) : DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the vocabulary");
    if (status == DIL_OK)
        *out = v;
    else
        vocab_free(v);
    return status;
}

void vocab_free(vocab *v)
{
    if (!v)
        return;
    pretokenizer_free(v->pre);
    arena_free(v->memory);
    mem_free(v);
}

int32_t vocab_size(const vocab *v) { return v->n_tokens; }
vocab_kind vocab_kind_of(const vocab *v) { return v->kind; }

static bool inside(const vocab *v, token_id id) { return id >= 0 && id < v->n_tokens; }

str vocab_text(const vocab *v, token_id id) { return inside(v, id) ? v->texts[id] : (str){"", 0}; }
int vocab_type(const vocab *v, token_id id) { return inside(v, id) ? v->types[id] : TOKEN_UNUSED; }
token_id vocab_bos(const vocab *v) { return v->bos; }
token_id vocab_eos(const vocab *v) { return v->eos; }
token_id vocab_eot(const vocab *v) { return v->eot; }
bool vocab_adds_bos(const vocab *v) { return v->add_bos && v->bos != TOKEN_NONE; }
bool vocab_adds_eos(const vocab *v) { return v->add_eos && v->eos != TOKEN_NONE; }
bool vocab_is_end(const vocab *v, token_id id) { return inside(v, id) && (v->flags[id] & TOKEN_END); }
uint64_t vocab_bytes(const vocab *v) { return sizeof *v + arena_bytes(v->memory); }

dil_status token_list_add(token_list *l, token_id id, dil_error *err)
{
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        token_id *ids = mem_grow(l->ids, capacity * sizeof *ids, MEM_TEXT);
        if (!ids)
            return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for %zu token ids", capacity);
        l->ids = ids;
        l->capacity = capacity;
    }
    l->ids[l->n++] = id;
    return DIL_OK;
}

void token_list_free(token_list *l)
{
    mem_free(l->ids);
    *l = (token_list){0};
}
