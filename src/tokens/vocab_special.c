/*
 * Special tokens: what well-known names mean, which tokens end a generation, which take the space around them, and the
 * sets that are cut out of a text before it is tokenised.
 */
#include "tokens/vocab_internal.h"

static token_id find_name(const vocab *v, const char *name) { return vocab_find(v, str_of(name)); }

/* The first of a list of names that is a token. Such a token is a control token whatever the file says. */
static token_id find_first(vocab *v, const char *const *names)
{
    for (; *names; names++) {
        token_id id = find_name(v, *names);
        if (id != TOKEN_NONE) {
            v->types[id] = TOKEN_CONTROL;
            return id;
        }
    }
    return TOKEN_NONE;
}

static void mark_end(vocab *v, token_id id)
{
    if (id != TOKEN_NONE)
        v->flags[id] |= TOKEN_END;
}

static const char *const end_names[] = {"<|eot_id|>",
                                        "<|im_end|>",
                                        "<|end|>",
                                        "<|return|>",
                                        "<|call|>",
                                        "<|flush|>",
                                        "<|calls|>",
                                        "<end_of_turn>",
                                        "<|endoftext|>",
                                        "</s>",
                                        "<|eom_id|>",
                                        "<EOT>",
                                        "_<EOT>",
                                        "[EOT]",
                                        "[EOS]",
                                        "<|end_of_text|>",
                                        "<end_of_utterance>",
                                        "<eos>",
                                        "<turn|>",
                                        "<|tool_response>",
                                        "<\xEF\xBD\x9C"
                                        "end" SPACE_MARK "of" SPACE_MARK "sentence\xEF\xBD\x9C>",
                                        "[e~[",
                                        NULL};

static void name_turns(vocab *v)
{
    static const char *const turn_ends[] = {"<|eot_id|>",
                                            "<|im_end|>",
                                            "<|end|>",
                                            "<end_of_turn>",
                                            "<|endoftext|>",
                                            "<|end_of_text|>",
                                            "<EOT>",
                                            "_<EOT>",
                                            "[EOT]",
                                            "<\xEF\xBD\x9C"
                                            "end" SPACE_MARK "of" SPACE_MARK "sentence\xEF\xBD\x9C>",
                                            "<end_of_utterance>",
                                            NULL};
    static const char *const message_ends[] = {"<|eom_id|>", NULL};
    if (v->eot == TOKEN_NONE)
        v->eot = find_first(v, turn_ends);
    if (v->eom == TOKEN_NONE)
        v->eom = find_first(v, message_ends);
    mark_end(v, v->eos);
    mark_end(v, v->eot);
    mark_end(v, v->eom);
    for (const char *const *name = end_names; *name; name++) {
        token_id id = find_name(v, *name);
        if (id != TOKEN_NONE) {
            v->types[id] = TOKEN_CONTROL;
            mark_end(v, id);
        }
    }
}

/* Fill-in-the-middle: all are control tokens; padding, repository and file marks end a generation. */
static void name_infill(vocab *v)
{
    static const char *const prefix[] = {"<|fim_prefix|>",
                                         "<fim-prefix>",
                                         "<fim_prefix>",
                                         "<\xEF\xBD\x9C"
                                         "fim" SPACE_MARK "begin\xEF\xBD\x9C>",
                                         "<PRE>",
                                         SPACE_MARK "<PRE>",
                                         "<|code_prefix|>",
                                         "<|prefix|>",
                                         NULL};
    static const char *const suffix[] = {"<|fim_suffix|>",
                                         "<fim-suffix>",
                                         "<fim_suffix>",
                                         "<\xEF\xBD\x9C"
                                         "fim" SPACE_MARK "hole\xEF\xBD\x9C>",
                                         "<SUF>",
                                         SPACE_MARK "<SUF>",
                                         "<|code_suffix|>",
                                         "<|suffix|>",
                                         NULL};
    static const char *const middle[] = {"<|fim_middle|>",
                                         "<fim-middle>",
                                         "<fim_middle>",
                                         "<\xEF\xBD\x9C"
                                         "fim" SPACE_MARK "end\xEF\xBD\x9C>",
                                         "<MID>",
                                         SPACE_MARK "<MID>",
                                         "<|code_middle|>",
                                         "<|middle|>",
                                         NULL};
    static const char *const padding[] = {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", NULL};
    static const char *const repository[] = {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", NULL};
    static const char *const file[] = {"<|file_sep|>", NULL};
    (void)find_first(v, prefix);
    (void)find_first(v, suffix);
    (void)find_first(v, middle);
    mark_end(v, find_first(v, padding));
    mark_end(v, find_first(v, repository));
    mark_end(v, find_first(v, file));
}

static bool is_end_name(const vocab *v, const char *name) { return vocab_is_end(v, find_name(v, name)); }

static void unmark_end(vocab *v, const char *name, uint8_t type)
{
    token_id id = find_name(v, name);
    if (id != TOKEN_NONE) {
        v->flags[id] &= (uint8_t)~TOKEN_END;
        v->types[id] = type;
    }
}

/* Families whose names mean something else: the harmony channels, Gemma 4's ordinary </s>. */
static void name_exceptions(vocab *v)
{
    static const char *const visible[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", NULL};
    for (const char *const *name = visible; *name; name++) {
        token_id id = find_name(v, *name);
        if (id != TOKEN_NONE)
            v->types[id] = TOKEN_USER_DEFINED;
    }
    bool call = is_end_name(v, "<|call|>") || is_end_name(v, "<|calls|>");
    if (call && (is_end_name(v, "<|return|>") || is_end_name(v, "<|flush|>")) && is_end_name(v, "<|end|>"))
        unmark_end(v, "<|end|>", TOKEN_USER_DEFINED);
    if (is_end_name(v, "<|tool_response>") || is_end_name(v, "<|plamo:eos|>"))
        unmark_end(v, "</s>", TOKEN_NORMAL);
}

static bool contains(str text, const char *part) { return str_find(text, str_of(part)) >= 0; }

static bool contains_nocase(str text, const char *part)
{
    size_t n = strlen(part);
    for (size_t i = 0; i + n <= text.n; i++) {
        size_t k = 0;
        while (k < n &&
               (text.p[i + k] == part[k] || (text.p[i + k] >= 'A' && text.p[i + k] <= 'Z' && text.p[i + k] + 32 == part[k])))
            k++;
        if (k == n)
            return true;
    }
    return false;
}

static bool is_special(int type) { return type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED || type == TOKEN_UNKNOWN; }

/* Files do not say which tokens take the space beside them; the model's name does. */
static void set_strips(vocab *v, const vocab_source *s)
{
    const char *left = NULL;
    if (contains(s->pre, "jina-v2-") || contains(s->architecture, "nomic-bert-moe") || contains(s->architecture, "jina-bert-v3"))
        left = "<mask>";
    else if (contains_nocase(s->name, "modern-bert"))
        left = "[MASK]";
    if (left && find_name(v, left) != TOKEN_NONE)
        v->flags[find_name(v, left)] |= TOKEN_STRIPS_LEFT;
    if (left || !(contains_nocase(s->name, "phi-3") || contains_nocase(s->name, "phi3")))
        return;
    for (int32_t id = 0; id < v->n_tokens; id++)
        if (is_special(v->types[id]) || str_equal(v->texts[id], STR("</s>")))
            v->flags[id] |= TOKEN_STRIPS_RIGHT;
    static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (int i = 0; i < 3; i++)
        if (find_name(v, keep[i]) != TOKEN_NONE)
            v->flags[find_name(v, keep[i])] &= (uint8_t)~TOKEN_STRIPS_RIGHT;
}

static dil_status add_special(vocab *v, special_set *set, token_id id, dil_error *err)
{
    str text = v->texts[id];
    if (text.n > SPECIAL_MAX_LENGTH)
        return DIL_FAIL(err, DIL_LIMIT, "tokenizer.ggml.tokens[%d]: a special token of %zu bytes, at most %d are supported",
                        (int)id, text.n, SPECIAL_MAX_LENGTH);
    unsigned first = (unsigned char)text.p[0], second = (unsigned char)text.p[1]; /* 0 behind a single byte */
    set->begins[first] = true;
    set->lengths_of_byte[first][text.n / 64] |= 1ull << (text.n % 64);
    set->second_of_byte[first][second / 64] |= 1ull << (second % 64);
    set->strips |= (v->flags[id] & (TOKEN_STRIPS_LEFT | TOKEN_STRIPS_RIGHT)) != 0;
    return DIL_OK;
}

static dil_status build_set(vocab *v, int parse, dil_error *err)
{
    special_set *set = arena_calloc(v->memory, 1, sizeof *set);
    if (!set)
        return DIL_FAIL(err, DIL_NO_MEMORY, "no memory for the vocabulary");
    for (int32_t id = 0; id < v->n_tokens; id++)
        if (v->types[id] == TOKEN_USER_DEFINED || (parse && is_special(v->types[id])))
            DIL_TRY(add_special(v, set, id, err));
    for (int n = SPECIAL_MAX_LENGTH; n > 0; n--) {
        uint64_t any = 0;
        for (int byte = 0; byte < 256; byte++)
            any |= set->lengths_of_byte[byte][n / 64] >> (n % 64) & 1;
        if (any)
            set->lengths[set->n_lengths++] = (uint16_t)n;
    }
    v->specials[parse] = set;
    return DIL_OK;
}

dil_status vocab_setup_specials(vocab *v, const vocab_source *source, dil_error *err)
{
    name_turns(v);
    name_infill(v);
    name_exceptions(v);
    set_strips(v, source);
    DIL_TRY(build_set(v, 0, err));
    return build_set(v, 1, err);
}
