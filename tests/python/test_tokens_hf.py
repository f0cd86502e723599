"""Byte-level BPE against PyPI `tokenizers`, built from the same vocabulary, merges and the pre-tokeniser of the original
tokenizer.json: 10,000 random and hostile strings per vocabulary."""
import os
import sys

import tokens_cases as tc

try:
    import gguf
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
except ImportError as missing:
    tc.skip(missing)

USER_DEFINED = 4
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
PRE = {
    "gpt-2": [GPT2],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), GPT2],
    "starcoder": [pre_tokenizers.Digits(individual_digits=True), GPT2],
    "llama-bpe": [split(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL), BYTES],
    "qwen2": [split(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL), BYTES],
    "qwen35": [split(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), BYTES],
    "deepseek-coder": [split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                       pre_tokenizers.Digits(individual_digits=True), BYTES],
}


def strings(field):
    return [bytes(field.parts[i]).decode("utf-8", "surrogateescape") for i in field.data]


def number(reader, key):
    field = reader.fields.get(key)
    return None if field is None else field.parts[field.data[0]][0]


def build(path):
    reader = gguf.GGUFReader(path)
    pre = strings(reader.fields["tokenizer.ggml.pre"])[0]
    tokens = strings(reader.fields["tokenizer.ggml.tokens"])
    merges = [tuple(m.split(" ")) for m in strings(reader.fields["tokenizer.ggml.merges"])]
    model = models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=pre == "llama-bpe")
    tokenizer = Tokenizer(model)
    types = reader.fields["tokenizer.ggml.token_type"]
    user = [t for t, i in zip(tokens, types.data) if types.parts[i][0] == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in user])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(PRE[pre])
    return pre, tokenizer


def main():
    paths = [p for p in tc.real_models() if "smollm2" in p]
    if tc.llama_cpp():
        paths += [os.path.join(tc.llama_cpp(), "models", f"ggml-vocab-{name}.gguf")
                  for name in ("gpt-2", "starcoder", "llama-bpe", "qwen2", "qwen35", "deepseek-coder")]
    if not paths:
        tc.skip("neither smollm2.gguf in the data directory nor DIL_LLAMA_CPP")
    texts = tc.cases(10000)
    bad = 0
    for path in paths:
        pre, tokenizer = build(path)
        wanted = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        bad += tc.report(f"{os.path.basename(path)} ({pre})", texts, tc.encode(path, texts), wanted)
    return bad != 0


sys.exit(main())
