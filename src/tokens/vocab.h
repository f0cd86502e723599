/*
 * Text <-> token ids. A vocabulary is built once from plain tables (the model module reads them out of a file), is read-only
 * afterwards and may be shared by threads. Three algorithms: byte-level BPE behind a pre-tokeniser regex, SentencePiece
 * (BPE by scores, byte fallback), and WordPiece; "unigram" (Viterbi over scores) as a fourth.
 */
#ifndef TOKENS_VOCAB_H
#define TOKENS_VOCAB_H

#include "base/str.h"
#include "dilmodeli.h"

typedef int32_t token_id;

typedef enum vocab_kind { VOCAB_BPE, VOCAB_SPM, VOCAB_WPM, VOCAB_UNIGRAM } vocab_kind;

/* Token types as GGUF numbers them (tokenizer.ggml.token_type). */
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_UNUSED = 5, TOKEN_BYTE = 6 };

#define TOKEN_NONE ((token_id)-1)

/* What a file says about its tokeniser. Everything is borrowed during vocab_new only. Counts are checked against n_tokens. */
typedef struct vocab_source {
    str model; /* tokenizer.ggml.model: "gpt2" (BPE), "llama" (SPM), "bert" (WPM), "t5" (unigram) */
    str pre;   /* tokenizer.ggml.pre: "default", "smollm", "qwen2", ...; empty: by model */
    const str *tokens;
    uint64_t n_tokens;
    const float *scores; /* NULL or [n_tokens] */
    uint64_t n_scores;
    const int32_t *types; /* NULL or [n_tokens] */
    uint64_t n_types;
    const str *merges; /* "left right" */
    uint64_t n_merges;
    token_id bos, eos, eot, eom, unk, sep, pad, mask; /* TOKEN_NONE: not given */
    int add_bos, add_eos, add_sep;                    /* -1: not given (by model), 0, 1 */
    int add_space_prefix;                             /* -1, 0, 1 */
    int remove_extra_whitespaces;                     /* -1, 0, 1 */
    const uint8_t *charsmap;                          /* precompiled_charsmap of unigram models, or NULL */
    uint64_t n_charsmap;
    int lowercase, strip_accents; /* WordPiece normaliser: -1, 0, 1 */
    str name, architecture;       /* general.name, general.architecture: some models strip spaces around special tokens */
} vocab_source;

/* Everything "not given": ids TOKEN_NONE, switches -1, tables empty. */
void vocab_source_init(vocab_source *source);

typedef struct vocab vocab;

/* [owned: free with vocab_free]. FORMAT names the key at fault; UNSUPPORTED names the model or pre-tokeniser. */
DIL_MUST_CHECK dil_status vocab_new(vocab **out, const vocab_source *source, dil_error *err);
void vocab_free(vocab *v);

int32_t vocab_size(const vocab *v);
vocab_kind vocab_kind_of(const vocab *v);
str vocab_text(const vocab *v, token_id id);   /* as in the table; empty for ids outside */
int vocab_type(const vocab *v, token_id id);   /* TOKEN_*; TOKEN_UNUSED for ids outside */
token_id vocab_find(const vocab *v, str text); /* TOKEN_NONE when absent */
token_id vocab_bos(const vocab *v);
token_id vocab_eos(const vocab *v);
token_id vocab_eot(const vocab *v);
bool vocab_adds_bos(const vocab *v);
bool vocab_adds_eos(const vocab *v);
/* End of generation: eos, eot, eom and the tokens by well-known names (<|im_end|>, <|eot_id|>, <end_of_turn>, <|endoftext|>, ...). */
bool vocab_is_end(const vocab *v, token_id id);
uint64_t vocab_bytes(const vocab *v);

/* How the tables of byte-level BPE write a byte (0 .. 255): one printable character. Returns its length in bytes. */
int vocab_byte_letter(unsigned byte, char out[4]);

/* Growing list of ids. */
typedef struct token_list {
    token_id *ids;
    size_t n, capacity;
} token_list;
DIL_MUST_CHECK dil_status token_list_add(token_list *l, token_id id, dil_error *err);
void token_list_free(token_list *l);

/* Appends the ids of text. add_special: bos/eos/sep as the model wants; parse_special: control tokens written in the text
 * (<|im_start|>) become their ids, else they are plain text. Invalid UTF-8 never fails: it becomes bytes (BPE, SPM) or
 * U+FFFD, as the reference implementations do. Limit: 1 GiB of text. */
DIL_MUST_CHECK dil_status vocab_encode(const vocab *v, str text, bool add_special, bool parse_special, token_list *out,
                                       dil_error *err);

/* Appends the bytes of one token to out (may be part of a character). special: also write control tokens' text. */
void vocab_decode_token(const vocab *v, token_id id, bool special, strbuf *out);
/* A whole sequence, with the model's space rules at its start (SentencePiece drops the first space). */
void vocab_decode(const vocab *v, const token_id *ids, size_t n, bool special, strbuf *out);

#endif
