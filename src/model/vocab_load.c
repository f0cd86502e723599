#include "model/vocab_load.h"

#include "base/status.h"

/* UINT32_MAX is how some writers say "none". */
static dil_status get_id(const gguf *g, const char *key, token_id *out, dil_error *err)
{
    uint32_t id = UINT32_MAX;
    DIL_TRY(gguf_get_u32(g, key, &id, err));
    if (id == UINT32_MAX)
        return DIL_OK;
    if (id > INT32_MAX)
        return DIL_FAIL(err, DIL_FORMAT, "%s: %u is no token id", key, (unsigned)id);
    *out = (token_id)id;
    return DIL_OK;
}

static dil_status get_switch(const gguf *g, const char *key, int *out, dil_error *err)
{
    bool on = false;
    if (!gguf_find(g, key))
        return DIL_OK;
    DIL_TRY(gguf_get_bool(g, key, &on, err));
    *out = on;
    return DIL_OK;
}

static dil_status get_charsmap(const gguf *g, vocab_source *s, dil_error *err)
{
    const char *key = "tokenizer.ggml.precompiled_charsmap";
    const gguf_value *value = gguf_find(g, key);
    if (!value)
        return DIL_OK;
    if (value->kind != GGUF_ARRAY || (value->element != GGUF_U8 && value->element != GGUF_I8))
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted an array of bytes", key);
    s->charsmap = value->data;
    s->n_charsmap = value->count;
    return DIL_OK;
}

static dil_status get_ids(const gguf *g, vocab_source *s, dil_error *err)
{
    DIL_TRY(get_id(g, "tokenizer.ggml.bos_token_id", &s->bos, err));
    DIL_TRY(get_id(g, "tokenizer.ggml.eos_token_id", &s->eos, err));
    DIL_TRY(get_id(g, "tokenizer.ggml.eot_token_id", &s->eot, err));
    DIL_TRY(get_id(g, "tokenizer.ggml.eom_token_id", &s->eom, err));
    DIL_TRY(get_id(g, "tokenizer.ggml.unknown_token_id", &s->unk, err));
    DIL_TRY(get_id(g, "tokenizer.ggml.seperator_token_id", &s->sep, err)); /* spelled so in the format */
    DIL_TRY(get_id(g, "tokenizer.ggml.padding_token_id", &s->pad, err));
    return get_id(g, "tokenizer.ggml.mask_token_id", &s->mask, err);
}

static dil_status get_switches(const gguf *g, vocab_source *s, dil_error *err)
{
    DIL_TRY(get_switch(g, "tokenizer.ggml.add_bos_token", &s->add_bos, err));
    DIL_TRY(get_switch(g, "tokenizer.ggml.add_eos_token", &s->add_eos, err));
    DIL_TRY(get_switch(g, "tokenizer.ggml.add_sep_token", &s->add_sep, err));
    DIL_TRY(get_switch(g, "tokenizer.ggml.add_space_prefix", &s->add_space_prefix, err));
    DIL_TRY(get_switch(g, "tokenizer.ggml.remove_extra_whitespaces", &s->remove_extra_whitespaces, err));
    DIL_TRY(get_switch(g, "tokenizer.ggml.normalizer.lowercase", &s->lowercase, err));
    return get_switch(g, "tokenizer.ggml.normalizer.strip_accents", &s->strip_accents, err);
}

dil_status vocab_from_gguf(vocab **out, const gguf *g, dil_error *err)
{
    vocab_source s;
    vocab_source_init(&s);
    DIL_TRY(gguf_get_str(g, "tokenizer.ggml.model", &s.model, err));
    if (s.model.n == 0)
        return DIL_FAIL(err, DIL_FORMAT, "tokenizer.ggml.model: missing; the file carries no tokeniser");
    DIL_TRY(gguf_get_str(g, "tokenizer.ggml.pre", &s.pre, err));
    DIL_TRY(gguf_get_str(g, "general.name", &s.name, err));
    DIL_TRY(gguf_get_str(g, "general.architecture", &s.architecture, err));
    DIL_TRY(gguf_get_strings(g, "tokenizer.ggml.tokens", &s.tokens, &s.n_tokens, err));
    DIL_TRY(gguf_get_strings(g, "tokenizer.ggml.merges", &s.merges, &s.n_merges, err));
    DIL_TRY(gguf_get_f32_array(g, "tokenizer.ggml.scores", &s.scores, &s.n_scores, err));
    DIL_TRY(gguf_get_i32_array(g, "tokenizer.ggml.token_type", &s.types, &s.n_types, err));
    DIL_TRY(get_charsmap(g, &s, err));
    DIL_TRY(get_ids(g, &s, err));
    DIL_TRY(get_switches(g, &s, err));
    return vocab_new(out, &s, err);
}
