/* Byte-level BPE and BPE over characters: the merge table from a file's list, and words to ids. */
#include "tokens/vocab_internal.h"

/* GPT-2 writes each byte as one printable character: most of Latin-1 as itself, the rest from U+0100 on, in order. */
static bool is_plain_byte(unsigned b) { return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE; }

int vocab_byte_letter(unsigned byte, char out[4])
{
    if (is_plain_byte(byte))
        return utf8_encode(byte, out);
    return utf8_encode(byte <= 0x20 ? 0x100 + byte : byte <= 0xA0 ? 0x121 + byte - 0x7F : 0x143, out);
}

/* The byte behind a letter, or -1. */
static int letter_byte(uint32_t code)
{
    if (code < 0x100)
        return is_plain_byte(code) ? (int)code : -1;
    if (code <= 0x120) /* bytes 0x00..0x20 */
        return (int)code - 0x100;
    if (code <= 0x142) /* 0x7F..0xA0 */
        return (int)code - 0x121 + 0x7F;
    return code == 0x143 ? 0xAD : -1;
}

void bpe_decode(str text, strbuf *out)
{
    for (size_t i = 0; i < text.n;) {
        uint32_t code = 0;
        int n = utf8_decode(text.p + i, text.n - i, &code);
        int byte = n > 0 ? letter_byte(code) : -1;
        size_t length = n > 0 ? (size_t)n : 1;
        if (byte >= 0)
            strbuf_add_char(out, (char)byte);
        else
            strbuf_add(out, text.p + i, length); /* not in the byte alphabet: the text itself */
        i += length;
    }
}

static void byte_letters_build(vocab *v)
{
    for (unsigned b = 0; b < 256; b++) {
        char letter[4];
        int n = vocab_byte_letter(b, letter);
        v->byte_ids[b] = vocab_find(v, (str){letter, (size_t)n});
    }
}

/* Resolves "left right" to ids; FORMAT when it is not that or names what is not in the vocabulary. */
static dil_status parse_merge(const vocab *v, uint64_t index, str text, merge_slot *out, char *joined, dil_error *err)
{
    const char *space = text.n > 2 ? memchr(text.p + 1, ' ', text.n - 2) : NULL;
    if (!space)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.merges[%llu]: wanted \"left right\", found \"%.*s\"",
                        (unsigned long long)index, STR_ARG(text));
    str left = {text.p, (size_t)(space - text.p)};
    str right = {space + 1, text.n - left.n - 1};
    if (text.n - 1 <= v->longest) {
        memcpy(joined, left.p, left.n);
        memcpy(joined + left.n, right.p, right.n);
        out->left = vocab_find(v, left);
        out->right = vocab_find(v, right);
        out->result = vocab_find(v, (str){joined, left.n + right.n});
    }
    if (out->left == TOKEN_NONE || out->right == TOKEN_NONE || out->result == TOKEN_NONE)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.merges[%llu]: \"%.*s\" names a token that is not in tokenizer.ggml.tokens",
                        (unsigned long long)index, STR_ARG(text));
    return DIL_OK;
}

static void insert_merge(vocab *v, merge_slot m)
{
    uint64_t key = ((uint64_t)(uint32_t)m.left << 32 | (uint32_t)m.right) * 0x9E3779B97F4A7C15u;
    uint32_t i = (uint32_t)(key >> 32) & v->merge_mask;
    while (v->merges[i].result != TOKEN_NONE) {
        if (v->merges[i].left == m.left && v->merges[i].right == m.right)
            return; /* given twice: the first counts */
        i = (i + 1) & v->merge_mask;
    }
    v->merges[i] = m;
}

static dil_status merges_build(vocab *v, const vocab_source *source, dil_error *err)
{
    if (source->n_merges > VOCAB_MAX_MERGES)
        return DIL_FAIL(err, DIL_LIMIT, "tokenizer.ggml.merges: %llu entries, at most %u are supported",
                        (unsigned long long)source->n_merges, VOCAB_MAX_MERGES);
    uint32_t slots = 4;
    while (slots < 2 * source->n_merges)
        slots *= 2;
    v->merge_mask = slots - 1;
    v->merges = arena_alloc(v->memory, slots * sizeof *v->merges);
    char *joined = mem_alloc(v->longest + 1, MEM_VOCAB);
    dil_status status = DIL_OK;
    if (!v->merges || !joined) {
        status = DIL_FAIL(err, DIL_NO_MEMORY, "no memory for %llu merges", (unsigned long long)source->n_merges);
        goto done;
    }
    for (uint32_t i = 0; i < slots; i++)
        v->merges[i].result = TOKEN_NONE;
    for (uint64_t i = 0; i < source->n_merges; i++) {
        merge_slot m = {TOKEN_NONE, TOKEN_NONE, TOKEN_NONE, (uint32_t)i};
        status = parse_merge(v, i, source->merges[i], &m, joined, err);
        if (status != DIL_OK)
            goto done;
        insert_merge(v, m);
    }
done:
    mem_free(joined);
    return status;
}

static dil_status list_known(str name, dil_error *err)
{
    strbuf names = STRBUF(4096);
    for (int i = 0; i < n_pre_rules; i++)
        strbuf_printf(&names, "%s%s", i ? " " : "", pre_rules[i].names);
    dil_status status = DIL_FAIL(err, DIL_UNSUPPORTED, "tokenizer.ggml.pre: unknown pre-tokeniser \"%.*s\"; known: %s",
                                 (int)(name.n > 60 ? 60 : name.n), name.p, names.p ? names.p : "");
    strbuf_free(&names);
    return status;
}

dil_status bpe_build(vocab *v, const vocab_source *source, dil_error *err)
{
    str name = str_equal(source->model, STR("gemma4")) ? STR("gemma4") : source->pre.n ? source->pre : STR("default");
    const pre_rule *rule = pre_rule_find(name);
    if (!rule)
        return list_known(name, err);
    if (source->n_merges == 0 && !str_equal(name, STR("kimi-k2")))
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.merges: missing; a byte-pair vocabulary needs it");
    v->ignore_merges = (rule->flags & PRE_IGNORE_MERGES) != 0;
    v->add_bos = (rule->flags & PRE_ADD_BOS) != 0;
    v->byte_level = !(rule->flags & PRE_MARKS);
    DIL_TRY(merges_build(v, source, err));
    if (v->byte_level) {
        byte_letters_build(v);
        return pretokenizer_new(&v->pre, rule, err);
    }
    v->spaces_as_marks = true;
    v->split_newlines = true;
    if (str_equal(name, STR("gemma4")))
        v->add_bos = true;
    bytes_build(v);
    return marks_build(v, err);
}

/* A word that is a token as a whole, for vocabularies that want it unmerged. */
static dil_status find_whole(encoder *e, const char *p, size_t n, token_id *id)
{
    *id = TOKEN_NONE;
    if (n > e->v->longest)
        return DIL_OK;
    DIL_TRY(encoder_scratch(e, 2 * n));
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        char letter[4];
        int k = vocab_byte_letter((unsigned char)p[i], letter);
        memcpy(e->scratch + length, letter, (size_t)k);
        length += (size_t)k;
    }
    *id = vocab_find(e->v, (str){e->scratch, length});
    return DIL_OK;
}

static dil_status encode_word(void *ctx, const char *p, size_t n)
{
    encoder *e = ctx;
    seen_word *slot = NULL;
    dil_status status = DIL_OK;
    if (encoder_seen(e, p, n, &slot, &status))
        return status;
    size_t first = e->out->n;
    token_id whole = TOKEN_NONE;
    if (e->v->ignore_merges)
        DIL_TRY(find_whole(e, p, n, &whole));
    if (whole != TOKEN_NONE) {
        DIL_TRY(encoder_emit(e, whole));
    } else {
        DIL_TRY(encoder_symbols(e, n));
        uint32_t count = 0;
        for (size_t i = 0; i < n; i++) {
            token_id id = e->v->byte_ids[(unsigned char)p[i]];
            if (id != TOKEN_NONE) /* bytes the vocabulary was never shown vanish before anything merges */
                e->symbols[count++] = (symbol){(uint32_t)i, 1, id, 0, 0};
        }
        DIL_TRY(merge_symbols(e, p, count));
    }
    encoder_remember(e, slot, p, n, first);
    return DIL_OK;
}

/* Length of the well-formed text at the start of s. */
static size_t valid_length(str s)
{
    size_t i = 0;
    uint32_t code;
    while (i < s.n) {
        uint64_t eight;
        if (s.n - i >= 8 && (memcpy(&eight, s.p + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        int n = utf8_decode(s.p + i, s.n - i, &code);
        if (n <= 0)
            return i;
        i += (size_t)n;
    }
    return i;
}

/* Bytes that are no UTF-8 are words of their own between the words of the text around them. */
dil_status bpe_encode(encoder *e, str text)
{
    while (text.n) {
        size_t good = valid_length(text);
        DIL_TRY(pretokenize(&e->run, (str){text.p, good}, encode_word, e, e->err));
        size_t bad = good;
        uint32_t code;
        while (bad < text.n && utf8_decode(text.p + bad, text.n - bad, &code) <= 0)
            bad++;
        if (bad > good)
            DIL_TRY(encode_word(e, text.p + good, bad - good));
        text = (str){text.p + bad, text.n - bad};
    }
    return DIL_OK;
}
