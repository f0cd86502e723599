/*
 * Pre-tokenisers: how text is cut into words before byte-level BPE. Files name theirs (tokenizer.ggml.pre); the names and
 * their regular expressions are in pretokenize_table.c. Several expressions apply one after the other: what one matches
 * and what lies between its matches are the texts of the next; context never crosses a cut.
 */
#ifndef TOKENS_PRETOKENIZE_H
#define TOKENS_PRETOKENIZE_H

#include "base/str.h"
#include "dilmodeli.h"

#define PRE_MAX_STAGES 8

/* What a name implies beside its expressions. */
enum {
    PRE_IGNORE_MERGES = 1, /* a word that is a token is that token */
    PRE_ADD_BOS = 2,
    PRE_MARKS = 4, /* characters instead of byte letters, spaces as U+2581, words are lines */
};

typedef struct pre_rule {
    const char *names; /* separated by spaces */
    int flags;
    const char *stages[PRE_MAX_STAGES]; /* PCRE2 syntax, or one of the PRE_STAGE_ markers; NULL-terminated */
} pre_rule;

/* Runs of digits as words, in threes counted from the right. */
#define PRE_STAGE_NUMBERS "@numbers"         /* \p{N} */
#define PRE_STAGE_DIGITS "@digits"           /* \p{Nd} */
#define PRE_STAGE_DIGITS_WORD "@digits-word" /* \p{Nd}, only where a word ends after the run */

extern const pre_rule pre_rules[];
extern const int n_pre_rules;

/* NULL when the name is unknown. */
const pre_rule *pre_rule_find(str name);

typedef struct pretokenizer pretokenizer;

/* Compiles a rule. [owned: free with pretokenizer_free] */
DIL_MUST_CHECK dil_status pretokenizer_new(pretokenizer **out, const pre_rule *rule, dil_error *err);
void pretokenizer_free(pretokenizer *p); /* NULL is allowed */

/* State of one caller; zero-initialise. */
typedef struct pretokenize_run {
    const pretokenizer *pre;
    void *matches[PRE_MAX_STAGES];
    void *context, *stack;
} pretokenize_run;

typedef dil_status (*pretokenize_word_fn)(void *ctx, const char *p, size_t n);

/* Calls word for every word of text, in order and without gaps. text must be valid UTF-8. */
DIL_MUST_CHECK dil_status pretokenize(pretokenize_run *run, str text, pretokenize_word_fn word, void *ctx, dil_error *err);
void pretokenize_end(pretokenize_run *run);

#endif
