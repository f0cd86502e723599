/*
 * WordPiece: words cut at white space, punctuation and Han characters, normalised as BERT does (accents off, lower case),
 * then the longest tokens from the left. Tokens that begin a word carry a space mark; a word that cannot be written with
 * tokens is the unknown token.
 */
#include <utf8proc.h>

#include "tokens/letters.h"
#include "tokens/vocab_internal.h"

#define WORD_MAX_CHARACTERS 100 /* longer words are unknown, as in the original */
#define WORD_MAX_BYTES (4 * WORD_MAX_CHARACTERS + 3)

static bool is_han(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static bool is_white(uint32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ZS ||
           c == 0x2028 || c == 0x2029;
}

static bool is_dropped(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return c == 0 || c == 0xFFFD || k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO ||
           k == UTF8PROC_CATEGORY_CS || k == UTF8PROC_CATEGORY_CN;
}

static bool is_mark_category(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_MN; }

static bool is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

/* A word being collected: bytes begins with the space mark. */
typedef struct wordpiece {
    char bytes[WORD_MAX_BYTES + 4];
    size_t n;
    int characters;
} wordpiece;

static void word_start(wordpiece *w)
{
    memcpy(w->bytes, SPACE_MARK, 3);
    w->n = 3;
    w->characters = 0;
}

static dil_status word_end(encoder *e, wordpiece *w)
{
    size_t before = e->out->n;
    bool known = w->characters > 0 && w->characters <= WORD_MAX_CHARACTERS;
    for (size_t at = 0; known && at < w->n;) {
        size_t n = w->n - at < e->v->longest ? w->n - at : e->v->longest;
        token_id id = TOKEN_NONE;
        while (n && (id = vocab_find(e->v, (str){w->bytes + at, n})) == TOKEN_NONE)
            n--;
        known = id != TOKEN_NONE;
        if (known)
            DIL_TRY(encoder_emit(e, id));
        at += n;
    }
    if (w->characters > 0 && !known) {
        e->out->n = before;
        if (e->v->unk != TOKEN_NONE)
            DIL_TRY(encoder_emit(e, e->v->unk));
    }
    word_start(w);
    return DIL_OK;
}

static void word_add(wordpiece *w, uint32_t code)
{
    if (++w->characters <= WORD_MAX_CHARACTERS)
        w->n += (size_t)utf8_encode(code, w->bytes + w->n);
}

static dil_status add_character(encoder *e, wordpiece *w, uint32_t code)
{
    if (is_white(code))
        return word_end(e, w);
    if (is_dropped(code) || (e->v->strip_accents && is_mark_category(code)))
        return DIL_OK;
    uint32_t letter = e->v->lowercase ? letters_lower(code) : code;
    if (!is_punctuation(code) && !is_han(code)) {
        word_add(w, letter);
        return DIL_OK;
    }
    DIL_TRY(word_end(e, w));
    word_add(w, letter);
    return word_end(e, w);
}

dil_status wpm_encode(encoder *e, str text)
{
    wordpiece w;
    word_start(&w);
    for (size_t i = 0; i < text.n;) {
        uint32_t code = 0;
        int n = utf8_decode(text.p + i, text.n - i, &code);
        i += n > 0 ? (size_t)n : 1;
        if (n <= 0)
            continue; /* bytes that are no UTF-8 are dropped like U+FFFD */
        utf8proc_int32_t parts[8];
        int boundary = 0;
        utf8proc_ssize_t count = 0;
        if (e->v->strip_accents && code >= 0x80)
            count = utf8proc_decompose_char((utf8proc_int32_t)code, parts, 8, UTF8PROC_DECOMPOSE, &boundary);
        if (count < 1 || count > 8) {
            parts[0] = (utf8proc_int32_t)code;
            count = 1;
        }
        for (utf8proc_ssize_t k = 0; k < count; k++)
            DIL_TRY(add_character(e, &w, (uint32_t)parts[k]));
    }
    return word_end(e, &w);
}
