/* Compiling and running the pre-tokenisers: PCRE2 with JIT, stage after stage, and the digit rules that are no regex. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokens/pretokenize.h"

#include <pcre2.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/status.h"

#define STACK_START ((size_t)64 << 10)
#define STACK_MAX ((size_t)256 << 20) /* address space of the JIT stack, touched only as far as needed */
#define MATCH_LIMIT 20000000u         /* steps of one match: the expressions are linear in their text */
#define HEAP_LIMIT_KIB (512u << 10)
#define MAX_PATTERN 8192

typedef enum stage_kind { STAGE_REGEX, STAGE_NUMBERS, STAGE_DIGITS, STAGE_DIGITS_WORD } stage_kind;

struct pretokenizer {
    int n_stages;
    stage_kind kinds[PRE_MAX_STAGES];
    pcre2_code *codes[PRE_MAX_STAGES];
    bool jit[PRE_MAX_STAGES];
    pcre2_general_context *memory;
};

static void *vocab_malloc(size_t n, void *unused)
{
    (void)unused;
    return mem_alloc(n, MEM_VOCAB);
}

static void vocab_release(void *p, void *unused)
{
    (void)unused;
    mem_free(p);
}

/* PCRE2's own \s knows U+180E and not all of Unicode's white space: writes \p{White_Space} for \s, \P{..} for \S. */
static bool expand_spaces(const char *in, char *out, size_t size)
{
    size_t n = 0;
    for (const char *p = in; *p; p++) {
        char one[3] = {*p, 0, 0};
        const char *add = one;
        if (*p == '\\') {
            p++;
            one[1] = *p;
            if (*p == 's' || *p == 'S')
                add = *p == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
        }
        size_t length = strlen(add);
        if (n + length >= size)
            return false;
        memcpy(out + n, add, length);
        n += length;
    }
    out[n] = 0;
    return true;
}

static dil_status compile_regex(pretokenizer *p, int stage, const char *regex, dil_error *err)
{
    char pattern[MAX_PATTERN];
    if (!expand_spaces(regex, pattern, sizeof pattern))
        return DIL_FAIL(err, DIL_INTERNAL, "pre-tokeniser expression longer than %d bytes", MAX_PATTERN);
    pcre2_compile_context *context = pcre2_compile_context_create(p->memory);
    if (!context)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the pre-tokeniser");
    int code = 0;
    PCRE2_SIZE at = 0;
    p->codes[stage] = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code,
                                    &at, context);
    pcre2_compile_context_free(context);
    if (!p->codes[stage]) {
        if (code == PCRE2_ERROR_HEAP_FAILED || code == 121)
            return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the pre-tokeniser");
        return DIL_FAIL(err, DIL_INTERNAL, "pre-tokeniser expression %d: PCRE2 error %d at %zu", stage, code, (size_t)at);
    }
    p->jit[stage] = pcre2_jit_compile(p->codes[stage], PCRE2_JIT_COMPLETE) == 0; /* else interpreted: slower, same result */
    return DIL_OK;
}

static dil_status compile_stage(pretokenizer *p, int stage, const char *text, dil_error *err)
{
    if (strcmp(text, PRE_STAGE_NUMBERS) == 0)
        p->kinds[stage] = STAGE_NUMBERS;
    else if (strcmp(text, PRE_STAGE_DIGITS) == 0)
        p->kinds[stage] = STAGE_DIGITS;
    else if (strcmp(text, PRE_STAGE_DIGITS_WORD) == 0)
        p->kinds[stage] = STAGE_DIGITS_WORD;
    else
        return compile_regex(p, stage, text, err);
    return DIL_OK;
}

dil_status pretokenizer_new(pretokenizer **out, const pre_rule *rule, dil_error *err)
{
    dil_status status = DIL_OK;
    pretokenizer *p = mem_calloc(1, sizeof *p, MEM_VOCAB);
    if (!p)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the pre-tokeniser");
    p->memory = pcre2_general_context_create(vocab_malloc, vocab_release, NULL);
    if (!p->memory)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the pre-tokeniser");
    for (int i = 0; status == DIL_OK && i < PRE_MAX_STAGES && rule->stages[i]; i++) {
        status = compile_stage(p, i, rule->stages[i], err);
        p->n_stages = i + 1;
    }
    if (status == DIL_OK)
        *out = p;
    else
        pretokenizer_free(p);
    return status;
}

void pretokenizer_free(pretokenizer *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->n_stages; i++)
        pcre2_code_free(p->codes[i]);
    pcre2_general_context_free(p->memory);
    mem_free(p);
}

/* A text on its way through the stages. */
typedef struct walk {
    pretokenize_run *run;
    pretokenize_word_fn word;
    void *ctx;
    dil_error *err;
} walk;

static dil_status run_stage(const walk *w, int stage, const char *p, size_t n);

static dil_status next_stage(const walk *w, int stage, const char *p, size_t n)
{
    if (n == 0)
        return DIL_OK;
    if (stage + 1 < w->run->pre->n_stages)
        return run_stage(w, stage + 1, p, n);
    return w->word(w->ctx, p, n);
}

/* Bigger stack after the default one was too small; once per call. */
static bool enlarge_stack(pretokenize_run *run)
{
    if (run->stack)
        return false;
    run->stack = pcre2_jit_stack_create(STACK_START, STACK_MAX, run->pre->memory);
    if (!run->stack)
        return false;
    pcre2_jit_stack_assign(run->context, NULL, run->stack);
    return true;
}

/* Match at or after `at`: > 0 found, PCRE2_ERROR_NOMATCH, or another error. */
static int match_at(pretokenize_run *run, int stage, const char *p, size_t n, size_t at)
{
    const pretokenizer *pre = run->pre;
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (pre->jit[stage]) {
        do {
            found = pcre2_jit_match(pre->codes[stage], (PCRE2_SPTR)p, n, at, 0, run->matches[stage], run->context);
        } while (found == PCRE2_ERROR_JIT_STACKLIMIT && enlarge_stack(run));
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(pre->codes[stage], (PCRE2_SPTR)p, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, run->matches[stage],
                            run->context);
    return found == 0 ? 1 : found; /* 0: more groups than the one we look at */
}

static size_t character_length(const char *p)
{
    unsigned char c = (unsigned char)*p;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

static dil_status regex_stage(const walk *w, int stage, const char *p, size_t n)
{
    size_t done = 0, from = 0;
    while (from < n) {
        int found = match_at(w->run, stage, p, n, from);
        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found == PCRE2_ERROR_NOMEMORY)
            return DIL_FAIL(w->err, DIL_NO_MEMORY, "no memory to split the text into words");
        if (found < 0)
            return DIL_FAIL(w->err, DIL_LIMIT, "splitting %zu bytes of text into words: PCRE2 error %d at byte %zu", n, found,
                            from);
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(w->run->matches[stage]);
        if (span[1] <= span[0]) {
            from += character_length(p + from);
            continue;
        }
        DIL_TRY(next_stage(w, stage, p + done, span[0] - done));
        DIL_TRY(next_stage(w, stage, p + span[0], span[1] - span[0]));
        done = from = span[1];
    }
    return next_stage(w, stage, p + done, n - done);
}

static bool is_digit(uint32_t code, stage_kind kind)
{
    if (code < 0x80)
        return code >= '0' && code <= '9';
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return c == UTF8PROC_CATEGORY_ND || (kind == STAGE_NUMBERS && (c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO));
}

/* \w: letters, marks, digits, connectors. */
static bool is_word_character(uint32_t code)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NO) || c == UTF8PROC_CATEGORY_PC;
}

/* Cuts the run of `count` digits p[0..n) in threes from the right: 1234567 -> 1 234 567. */
static dil_status cut_digits(const walk *w, int stage, const char *p, size_t n, size_t count)
{
    size_t start = 0, at = 0;
    for (size_t left = count; left > 0; left--) {
        at += character_length(p + at);
        if ((left - 1) % 3 == 0) {
            DIL_TRY(next_stage(w, stage, p + start, at - start));
            start = at;
        }
    }
    return next_stage(w, stage, p + start, n - start);
}

static dil_status digit_stage(const walk *w, int stage, const char *p, size_t n)
{
    stage_kind kind = w->run->pre->kinds[stage];
    size_t done = 0, at = 0;
    while (at < n) {
        uint32_t code = 0;
        size_t start = at, count = 0;
        while (at < n) {
            int length = utf8_decode(p + at, n - at, &code);
            if (length <= 0 || !is_digit(code, kind))
                break;
            at += (size_t)length;
            count++;
        }
        if (count && !(kind == STAGE_DIGITS_WORD && at < n && is_word_character(code))) {
            DIL_TRY(next_stage(w, stage, p + done, start - done));
            DIL_TRY(cut_digits(w, stage, p + start, at - start, count));
            done = at;
        }
        if (at < n)
            at += character_length(p + at);
    }
    return next_stage(w, stage, p + done, n - done);
}

static dil_status run_stage(const walk *w, int stage, const char *p, size_t n)
{
    return w->run->pre->kinds[stage] == STAGE_REGEX ? regex_stage(w, stage, p, n) : digit_stage(w, stage, p, n);
}

static dil_status begin(pretokenize_run *run, dil_error *err)
{
    run->context = pcre2_match_context_create(run->pre->memory);
    bool ok = run->context != NULL;
    for (int i = 0; ok && i < run->pre->n_stages; i++) {
        if (run->pre->codes[i]) {
            run->matches[i] = pcre2_match_data_create(1, run->pre->memory);
            ok = run->matches[i] != NULL;
        }
    }
    if (!ok)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory to split the text into words");
    pcre2_set_match_limit(run->context, MATCH_LIMIT);
    pcre2_set_depth_limit(run->context, MATCH_LIMIT);
    pcre2_set_heap_limit(run->context, HEAP_LIMIT_KIB);
    return DIL_OK;
}

dil_status pretokenize(pretokenize_run *run, str text, pretokenize_word_fn word, void *ctx, dil_error *err)
{
    if (text.n == 0)
        return DIL_OK;
    if (run->pre->n_stages == 0)
        return word(ctx, text.p, text.n);
    if (!run->context)
        DIL_TRY(begin(run, err));
    walk w = {run, word, ctx, err};
    return run_stage(&w, 0, text.p, text.n);
}

void pretokenize_end(pretokenize_run *run)
{
    for (int i = 0; i < PRE_MAX_STAGES; i++)
        pcre2_match_data_free(run->matches[i]);
    pcre2_match_context_free(run->context);
    if (run->stack)
        pcre2_jit_stack_free(run->stack);
    *run = (pretokenize_run){0};
}
