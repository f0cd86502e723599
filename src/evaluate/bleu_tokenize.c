/* Words as sacreBLEU cuts them. Its patterns know ASCII only, so that bytes may be looked at one by one; white space is Unicode's. */
#include "evaluate/bleu_internal.h"
#include "tokens/letters.h"

static const char *const names[] = {[BLEU_13A] = "13a", [BLEU_NONE] = "none", [BLEU_CHAR] = "char"};

const char *bleu_tokenizer_name(bleu_tokenizer t) { return names[t]; }

bool bleu_tokenizer_find(const char *name, bleu_tokenizer *out)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (bleu_tokenizer)i;
            return true;
        }
    return false;
}

bool bleu_is_white(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* The next character of valid UTF-8 from *at on. */
static str next_character(str s, size_t *at, uint32_t *code)
{
    const str c = {s.p + *at, (size_t)utf8_decode(s.p + *at, s.n - *at, code)};
    *at += c.n;
    return c;
}

void bleu_lower(str segment, strbuf *out)
{
    uint32_t code = 0;
    for (size_t at = 0; at < segment.n;) {
        char bytes[4];
        next_character(segment, &at, &code);
        if (code == 0x130) /* the one letter whose small form has two characters */
            strbuf_add_str(out, STR("i\xCC\x87"));
        else
            strbuf_add(out, bytes, (size_t)utf8_encode(letters_lower(code), bytes));
    }
}

/* Words between white space; with apart every character is one. */
static void split(str s, bool apart, strbuf *out)
{
    bool open = false; /* a word that no space follows yet */
    uint32_t code = 0;
    for (size_t at = 0; at < s.n;) {
        const str c = next_character(s, &at, &code);
        const bool white = bleu_is_white(code);
        if (open && (white || apart))
            strbuf_add_char(out, ' ');
        if (!white)
            strbuf_add_str(out, c);
        open = !white;
    }
    if (open)
        strbuf_add_char(out, ' ');
}

/* ---- mteval-v13a ---- */

static void replace(str s, str what, str with, strbuf *out)
{
    for (ptrdiff_t at; (at = str_find(s, what)) >= 0; s = (str){s.p + at + what.n, s.n - (size_t)at - what.n}) {
        strbuf_add(out, s.p, (size_t)at);
        strbuf_add_str(out, with);
    }
    strbuf_add_str(out, s);
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_no_digit(char c) { return !is_digit(c); }
static bool is_point(char c) { return c == '.' || c == ','; }
static bool is_dash(char c) { return c == '-'; }
/* ASCII's marks, without the apostrophe and those above. */
static bool is_mark(char c)
{
    return c > 0x20 && c < 0x7F && !strchr("'.,-", c) && !is_digit(c) && !((c | 32) >= 'a' && (c | 32) <= 'z');
}

static void separate_marks(str s, strbuf *out)
{
    for (size_t i = 0; i < s.n; i++) {
        const bool mark = is_mark(s.p[i]);
        if (mark)
            strbuf_add_char(out, ' ');
        strbuf_add_char(out, s.p[i]);
        if (mark)
            strbuf_add_char(out, ' ');
    }
}

/* A pair of neighbours, and where spaces go. Pairs do not overlap: both bytes of one are done with. */
typedef struct pair_rule {
    bool (*first)(char), (*second)(char);
    const char *before, *after; /* before and behind the pair; a third stands between */
} pair_rule;

static void separate_pairs(str s, const pair_rule *r, strbuf *out)
{
    for (size_t i = 0; i < s.n;) {
        if (i + 1 == s.n || !r->first(s.p[i]) || !r->second(s.p[i + 1])) {
            strbuf_add_char(out, s.p[i++]);
            continue;
        }
        strbuf_add_str(out, str_of(r->before));
        strbuf_add_char(out, s.p[i]);
        strbuf_add_char(out, ' ');
        strbuf_add_char(out, s.p[i + 1]);
        strbuf_add_str(out, str_of(r->after));
        i += 2;
    }
}

static str without_white_end(str s)
{
    size_t end = 0;
    uint32_t code = 0;
    for (size_t at = 0; at < s.n;) {
        next_character(s, &at, &code);
        end = bleu_is_white(code) ? end : at;
    }
    return (str){s.p, end};
}

/* The result of the last step becomes the text of the next. */
static str turn(bleu_scratch *s)
{
    const strbuf written = s->b;
    s->failed = s->failed || written.failed;
    s->b = s->a;
    s->a = written;
    strbuf_clear(&s->b);
    return strbuf_str(&s->a);
}

static void tokenize_13a(str text, bleu_scratch *s, strbuf *out)
{
    static const struct {
        str what, with;
    } replaced[] = {{{"<skipped>", 9}, {"", 0}}, {{"-\n", 2}, {"", 0}},   {{"\n", 1}, {" ", 1}},  {{"&quot;", 6}, {"\"", 1}},
                    {{"&amp;", 5}, {"&", 1}},    {{"&lt;", 4}, {"<", 1}}, {{"&gt;", 4}, {">", 1}}};
    static const pair_rule rules[] = {{is_no_digit, is_point, "", " "},
                                      {is_point, is_no_digit, " ", ""},
                                      {is_digit, is_dash, "", " "}};
    strbuf_clear(&s->b);
    for (size_t i = 0; i < sizeof replaced / sizeof *replaced; i++) {
        replace(text, replaced[i].what, replaced[i].with, &s->b);
        text = turn(s);
    }
    strbuf_add_char(&s->b, ' ');
    separate_marks(text, &s->b);
    strbuf_add_char(&s->b, ' ');
    text = turn(s);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        separate_pairs(text, &rules[i], &s->b);
        text = turn(s);
    }
    split(text, false, out);
}

void bleu_tokenize(str segment, bleu_tokenizer t, bleu_scratch *s, strbuf *out)
{
    segment = without_white_end(segment);
    if (t == BLEU_13A)
        tokenize_13a(segment, s, out);
    else
        split(segment, t == BLEU_CHAR, out);
}
