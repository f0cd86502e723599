/*
 * What the files of the tokeniser share: the vocabulary's tables, the state of one encode call, and the merge engine used
 * by both byte-level BPE and SentencePiece. Not for other modules.
 */
#ifndef TOKENS_VOCAB_INTERNAL_H
#define TOKENS_VOCAB_INTERNAL_H

#include "base/mem.h"
#include "base/status.h"
#include "tokens/pretokenize.h"
#include "tokens/vocab.h"

#define VOCAB_MAX_TOKENS (1u << 24)
#define VOCAB_MAX_MERGES (1u << 26)
#define VOCAB_MAX_TEXT ((size_t)1 << 30) /* bytes per encode call */
#define VOCAB_MAX_TOKEN_TEXT (1u << 20)  /* bytes of one token */
#define SPECIAL_MAX_LENGTH 512           /* bytes of a control or user-defined token */
#define NO_RANK UINT32_MAX
#define SPACE_MARK "\xE2\x96\x81" /* U+2581, how SentencePiece writes a space */

/* Flags of a token beside its type. */
enum { TOKEN_END = 1, TOKEN_STRIPS_LEFT = 2, TOKEN_STRIPS_RIGHT = 4 };

typedef struct text_slot {
    uint32_t hash;
    token_id id;
} text_slot; /* id TOKEN_NONE: free */
typedef struct merge_slot {
    token_id left, right, result;
    uint32_t rank;
} merge_slot; /* result TOKEN_NONE: free */

/* Tokens that are cut out of the text before anything else. Per first byte the set of lengths and second bytes that occur. */
typedef struct special_set {
    bool begins[256];
    uint64_t second_of_byte[256][4];
    uint64_t lengths_of_byte[256][SPECIAL_MAX_LENGTH / 64 + 1];
    uint16_t lengths[SPECIAL_MAX_LENGTH]; /* distinct, longest first */
    int n_lengths;
    bool strips; /* some member takes the space around it */
} special_set;

/* Unigram only: ids sorted by text, so that a walk down the bytes is a narrowing interval. */
typedef struct prefix_index {
    token_id *ids;
    uint32_t n;
    uint32_t first[257];
} prefix_index;

struct vocab {
    arena *memory;
    vocab_kind kind;
    int32_t n_tokens;
    str *texts;            /* [n_tokens] */
    uint8_t *types;        /* [n_tokens] TOKEN_NORMAL.. */
    uint8_t *flags;        /* [n_tokens] TOKEN_END.. */
    float *scores;         /* [n_tokens], SPM and unigram */
    uint32_t *ranks;       /* [n_tokens], SPM: order of the scores, best first, equal scores equal */
    text_slot *text_table; /* [text_mask + 1] */
    uint32_t text_mask;
    uint64_t seed;      /* of the text hash: files cannot aim at collisions */
    merge_slot *merges; /* [merge_mask + 1], BPE */
    uint32_t merge_mask;
    size_t longest; /* bytes of the longest token */
    token_id byte_ids[256];

    token_id bos, eos, eot, eom, unk, sep, pad, mask;
    bool add_bos, add_eos, add_space_prefix, merge_spaces, lowercase, strip_accents;
    bool byte_level;      /* BPE over the 256 byte letters; else over characters with <0xXX> fallback */
    bool spaces_as_marks; /* ' ' is U+2581 in the tables */
    bool ignore_merges;   /* a whole word that is a token needs no merging */
    bool split_newlines;  /* runs of newlines are words of their own */
    pretokenizer *pre;    /* byte-level BPE */

    uint64_t mark_ascii[2]; /* characters that some token holds right before a space mark */
    uint32_t *mark_others;  /* sorted, non-ASCII */
    uint32_t n_mark_others;

    special_set *specials[2]; /* [0] user-defined only, [1] control and unknown too */
    prefix_index prefixes;    /* unigram */
    uint8_t *charsmap;        /* unigram: copy of the precompiled normaliser */
    size_t n_charsmap;
    float unknown_score;
};

/* vocab.c */
uint64_t vocab_hash(const vocab *v, const char *p, size_t n);
token_id vocab_find_hashed(const vocab *v, const char *p, size_t n, uint64_t hash);

/* vocab_special.c: well-known names, end-of-generation flags, strip flags, the sets to cut out. Types may be corrected. */
DIL_MUST_CHECK dil_status vocab_setup_specials(vocab *v, const vocab_source *source, dil_error *err);

/* A piece of text being encoded: an initial character or what merges made of it. */
typedef struct symbol {
    uint32_t start, n;
    token_id id;
    uint32_t prev, next;
} symbol;
typedef struct candidate {
    uint32_t rank, left, n;
} candidate;

/* A word seen before in this call; its ids are found in the output itself. */
typedef struct seen_word {
    const char *p;
    uint64_t hash;
    uint32_t n, n_ids;
    size_t at;
} seen_word;

/* State of one encode call; everything grows by doubling, nothing is allocated per word. */
typedef struct encoder {
    const vocab *v;
    token_list *out;
    dil_error *err;
    symbol *symbols;
    size_t symbols_capacity;
    candidate *heap;
    size_t heap_capacity, heap_n;
    char *scratch;
    size_t scratch_capacity;
    seen_word *seen;
    uint32_t seen_mask; /* NULL: short text, no cache */
    pretokenize_run run;
} encoder;

DIL_MUST_CHECK dil_status encoder_emit(encoder *e, token_id id);
/* At least n bytes of scratch text / n symbols and 2 n candidates. */
DIL_MUST_CHECK dil_status encoder_scratch(encoder *e, size_t n);
DIL_MUST_CHECK dil_status encoder_symbols(encoder *e, size_t n);
/* The same word before in this call: emits its ids and returns true. Else remembers that its ids will start here. */
bool encoder_seen(encoder *e, const char *p, size_t n, seen_word **slot, dil_status *status);
void encoder_remember(encoder *e, seen_word *slot, const char *p, size_t n, size_t first);

/* bpe_merge.c: merges e->symbols[0..n) (a doubly linked list over text) until no pair has a rank. */
DIL_MUST_CHECK dil_status merge_symbols(encoder *e, const char *text, uint32_t n);

/* The algorithms: append the ids of a run of text between special tokens. */
DIL_MUST_CHECK dil_status bpe_encode(encoder *e, str text);
DIL_MUST_CHECK dil_status bpe_build(vocab *v, const vocab_source *source, dil_error *err);
void bpe_decode(str text, strbuf *out); /* byte letters -> bytes */
DIL_MUST_CHECK dil_status spm_encode(encoder *e, str text, bool add_space);
DIL_MUST_CHECK dil_status spm_build(vocab *v, const vocab_source *source, dil_error *err);
DIL_MUST_CHECK dil_status marks_build(vocab *v, dil_error *err); /* spm.c */
void bytes_build(vocab *v);                                      /* spm.c: byte_ids from <0xXX> */
DIL_MUST_CHECK dil_status wpm_encode(encoder *e, str text);
DIL_MUST_CHECK dil_status unigram_encode(encoder *e, str text);
DIL_MUST_CHECK dil_status unigram_build(vocab *v, const vocab_source *source, dil_error *err);

#endif
