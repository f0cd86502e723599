/* Ids -> text. Byte-exact for BPE and SentencePiece: what was encoded comes back. */
#include "tokens/vocab_internal.h"

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0xE2>" -> 0xE2; -1 when it is not that. */
static int byte_token(str t)
{
    if (t.n != 6 || memcmp(t.p, "<0x", 3) != 0 || t.p[5] != '>' || hex_digit(t.p[3]) < 0 || hex_digit(t.p[4]) < 0)
        return -1;
    return hex_digit(t.p[3]) * 16 + hex_digit(t.p[4]);
}

static void add_unmarked(str t, strbuf *out)
{
    static const str mark = {SPACE_MARK, 3};
    ptrdiff_t at;
    while ((at = str_find(t, mark)) >= 0) {
        strbuf_add(out, t.p, (size_t)at);
        strbuf_add_char(out, ' ');
        t = (str){t.p + at + 3, t.n - (size_t)at - 3};
    }
    strbuf_add_str(out, t);
}

void vocab_decode_token(const vocab *v, token_id id, bool special, strbuf *out)
{
    if (id < 0 || id >= v->n_tokens)
        return;
    str text = v->texts[id];
    int byte;
    switch (v->types[id]) {
    case TOKEN_CONTROL:
    case TOKEN_UNKNOWN:
        if (special)
            strbuf_add_str(out, text);
        break;
    case TOKEN_USER_DEFINED: strbuf_add_str(out, text); break;
    case TOKEN_BYTE:
        byte = byte_token(text);
        if (byte >= 0)
            strbuf_add_char(out, (char)byte);
        break;
    case TOKEN_NORMAL:
        if (v->kind == VOCAB_BPE && v->byte_level)
            bpe_decode(text, out);
        else
            add_unmarked(text, out);
        break;
    default: /* unused, undefined */ break;
    }
}

/* WordPiece has forgotten which punctuation stood close: " ," -> ",", " ' " -> "'", " 's" -> "'s". In place, from `from`. */
static void clean_spaces(strbuf *b, size_t from)
{
    char *p = b->p;
    size_t n = from;
    for (size_t i = from; i < b->n; i++) {
        char c = p[i];
        bool after_space = n > from && p[n - 1] == ' ';
        size_t left = b->n - i - 1;
        if (after_space && (c == '?' || c == '!' || c == '.' || c == ',')) {
            n--;
        } else if (after_space && c == '\'' && left > 0) {
            char d = p[i + 1], f = left > 1 ? p[i + 2] : 0;
            if (d == ' ') {
                p[n - 1] = c;
                i++;
                continue;
            }
            if (d == 's' || d == 'm' || (d == 'r' && f == 'e') || (d == 'v' && f == 'e'))
                n--;
        }
        p[n++] = c;
    }
    b->n = n;
    p[n] = 0;
}

void vocab_decode(const vocab *v, const token_id *ids, size_t n, bool special, strbuf *out)
{
    size_t from = out->n;
    bool drop_space = v->kind == VOCAB_WPM || (v->kind != VOCAB_BPE && v->add_space_prefix);
    for (size_t i = 0; i < n; i++) {
        size_t start = out->n;
        vocab_decode_token(v, ids[i], special, out);
        if (out->failed || !drop_space || out->n == start)
            continue;
        int type = vocab_type(v, ids[i]);
        if (type != TOKEN_CONTROL && type != TOKEN_UNKNOWN) { /* the space that encoding put in front */
            drop_space = false;
            if (type == TOKEN_NORMAL && out->p[start] == ' ') {
                memmove(out->p + start, out->p + start + 1, out->n - start - 1);
                out->n--;
                out->p[out->n] = 0;
            }
        }
    }
    if (v->kind == VOCAB_WPM && !out->failed && out->n > from)
        clean_spaces(out, from);
}
