#!/usr/bin/env python3
"""Makes tiny GGUF models with random weights, one for every architecture, shape and tensor type that the engine knows.

    make_models.py OUTDIR [--only NAME[,NAME...]] [--list]

Owns what the files contain: hyper-parameters, vocabularies, weights (random, but the same on every machine and run). What the
models compute is in reference.py. Weights are scaled so that attention has sharp and flat rows and logits are of order 1:
a wrong rotation, mask, scale or norm then moves the logits by far more than rounding does.
"""
import argparse
import dataclasses
import os
import sys
import zlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

import blocks

SPM_WORDS = ["the", "a", "and", "to", "of", "in", "was", "it", "he", "she", "day", "said", "one", "upon", "time", "there",
             "bir", "ve", "bu", "gün", "çok", "ev", "ağaç", "kuş", "deniz", "yol"]
BPE_WORDS = ["the", "and", "to", "of", "in", "was", "it", "he", "she", "day", "said", "one", "time"]


@dataclasses.dataclass
class Spec:
    """One model. `kv` holds further keys without the architecture prefix; `factors` holds extra per-pair RoPE tensors."""
    name: str
    arch: str
    n_layer: int = 2
    n_embd: int = 64
    n_ff: int = 128
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 0             # 0: n_embd / n_head, and no key_length key
    n_vocab: int = 301
    vocab: str = "spm"            # spm | bpe
    n_ctx_train: int = 256
    eps: float = 1e-5
    rope_base: float = 10000.0    # 0: no key
    n_rot: int = 0                # 0: head_dim
    tied: bool = False
    qkv_bias: bool = False
    all_bias: bool = False        # also attention output and feed-forward biases (llama, granite)
    output_bias: bool = False     # qwen2
    rope_factors: str = ""        # "" | freqs | longrope
    weight_type: Type = Type.F32
    n_tokens: int = 40            # how long the test's prompt is
    kv: dict = dataclasses.field(default_factory=dict)
    zeroed: tuple = ()            # names of tensors that are all zero: how a test takes a part out of the model

    @property
    def d_head(self):
        return self.head_dim or self.n_embd // self.n_head

    @property
    def rot(self):
        return self.n_rot or self.d_head


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
GRANITE = {"logit_scale": 6.0, "residual_scale": 0.22, "embedding_scale": 12.0, "attention.scale": 0.0625}
GEMMA2 = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attention.sliding_window": 8}
GEMMA3 = {"attention.sliding_window": 8}

F32_MODELS = [
    Spec("llama", "llama"),
    Spec("llama-mha-tied", "llama", n_head=4, n_head_kv=4, tied=True, n_vocab=320),
    Spec("llama-mqa-odd", "llama", n_embd=40, n_head=5, n_head_kv=1, n_ff=77, n_vocab=299, n_layer=3),
    Spec("llama-gqa4-head96", "llama", n_embd=64, n_head=8, n_head_kv=2, head_dim=96, n_ff=100),
    Spec("llama-head20", "llama", n_embd=48, n_head=6, n_head_kv=3, head_dim=20, n_ff=65, vocab="bpe", n_vocab=333),
    Spec("llama-head128", "llama", n_embd=32, n_head=2, n_head_kv=1, head_dim=128, n_ff=48),
    Spec("llama-biases", "llama", qkv_bias=True, all_bias=True),
    Spec("llama-long-prompt", "llama", n_tokens=150, n_layer=2),
    Spec("llama-long-context", "llama", n_tokens=1090, n_ctx_train=1200, rope_base=500000.0),
    Spec("llama3-rope", "llama", vocab="bpe", rope_base=500000.0, rope_factors="freqs", n_vocab=317),
    Spec("llama-linear-rope", "llama", kv={"rope.scaling.type": "linear", "rope.scaling.factor": 2.5}),
    Spec("llama-yarn", "llama", n_tokens=90, head_dim=32, kv=YARN),
    Spec("llama-longrope", "llama", rope_factors="longrope",
         kv={"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 16, "rope.scaling.attn_factor": 1.19}),
    Spec("mistral", "llama", n_head=8, n_head_kv=2, kv={"attention.sliding_window": 8}),
    Spec("qwen2", "qwen2", vocab="bpe", rope_base=1e6, eps=1e-6, qkv_bias=True, n_vocab=311),
    Spec("qwen2-tied-odd", "qwen2", vocab="bpe", n_embd=56, n_head=7, n_head_kv=1, n_ff=91, rope_base=1e6, eps=1e-6,
         qkv_bias=True, tied=True, n_vocab=343),
    Spec("qwen2-output-bias", "qwen2", vocab="bpe", qkv_bias=True, output_bias=True, n_vocab=311),
    Spec("qwen2-yarn", "qwen2", vocab="bpe", n_embd=128, n_tokens=90, qkv_bias=True, n_vocab=311, kv=YARN),
    Spec("qwen3", "qwen3", vocab="bpe", rope_base=1e6, eps=1e-6, head_dim=32, n_vocab=311),
    Spec("qwen3-tied-odd", "qwen3", vocab="bpe", n_embd=40, n_head=8, n_head_kv=2, head_dim=20, n_ff=61, tied=True,
         rope_base=1e6, eps=1e-6, n_vocab=333),
    Spec("gemma2", "gemma2", n_layer=7, head_dim=32, eps=1e-6, tied=True, kv=GEMMA2),
    Spec("gemma2-tight-caps", "gemma2", n_layer=4, n_head=8, n_head_kv=4, head_dim=20, n_ff=90, eps=1e-6, tied=True,
         kv={"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "attention.sliding_window": 5}),
    Spec("gemma2-27b-shape", "gemma2", n_layer=46, n_embd=40, n_head=4, head_dim=8, n_ff=48, eps=1e-6, tied=True,
         n_tokens=24, kv=GEMMA2),
    Spec("gemma3", "gemma3", n_layer=7, head_dim=32, n_head_kv=1, eps=1e-6, rope_base=1e6, tied=True, kv=GEMMA3),
    Spec("gemma3-linear-global", "gemma3", n_layer=7, n_head=8, head_dim=20, n_ff=75, eps=1e-6, rope_base=1e6, tied=True,
         kv={"attention.sliding_window": 6, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0,
             "final_logit_softcapping": 5.0}),
    Spec("gemma3-pattern", "gemma3", n_layer=4, head_dim=16, eps=1e-6, rope_base=1e6, n_vocab=310,
         kv={"attention.sliding_window": 4, "attention.sliding_window_pattern": [True, False, True, False],
             "rope.freq_base_swa": 20000.0}),
    Spec("gemma3-long-context", "gemma3", n_layer=3, n_head=8, head_dim=20, eps=1e-6, rope_base=1e6, tied=True, n_tokens=790,
         n_ctx_train=1000, kv={"attention.sliding_window": 600, "attention.sliding_window_pattern": [True, True, False]}),
    Spec("gemma3-27b-shape", "gemma3", n_layer=62, n_embd=40, n_head=4, head_dim=8, n_ff=48, eps=1e-6, rope_base=1e6,
         tied=True, n_tokens=24, kv=GEMMA3),
    Spec("phi3", "phi3", n_head=4, n_head_kv=4),
    Spec("phi3-partial-rope", "phi3", vocab="bpe", n_head=4, n_head_kv=2, n_rot=12, n_ff=90, n_vocab=311, tied=True),
    Spec("phi3-short", "phi3", rope_factors="longrope", n_head_kv=4,
         kv={"rope.scaling.original_context_length": 256, "rope.scaling.attn_factor": 1.19}),
    Spec("phi3-long", "phi3", rope_factors="longrope", n_rot=12,
         kv={"rope.scaling.original_context_length": 16, "rope.scaling.attn_factor": 1.19, "attention.sliding_window": 9}),
    Spec("granite", "granite", vocab="bpe", tied=True, n_vocab=311, kv=GRANITE),
    Spec("granite-biases", "granite", vocab="bpe", n_head=8, n_head_kv=2, n_ff=70, n_vocab=333, qkv_bias=True, all_bias=True,
         kv=GRANITE),
    Spec("granite-logit-scale-only", "granite", vocab="bpe", n_vocab=311, kv={"logit_scale": 3.0}),
    Spec("granite-no-rope", "granite", vocab="bpe", n_vocab=311, kv={**GRANITE, "rope.scaling.finetuned": False}),
    Spec("olmo2", "olmo2", vocab="bpe", eps=1e-6, rope_base=500000.0, n_vocab=311),
    Spec("olmo2-odd", "olmo2", vocab="bpe", n_embd=40, n_head=5, n_head_kv=5, n_ff=67, eps=1e-6, n_vocab=299),
    Spec("olmo3-window", "olmo2", vocab="bpe", n_layer=5, eps=1e-6, n_vocab=311, n_tokens=90, n_embd=128,
         kv={**YARN, "attention.sliding_window": 8}),
]

QUANT_TYPES = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M",
               "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
               "Q1_0", "Q2_0"]
QUANT_MODELS = [Spec(f"llama-{t.lower()}", "llama", n_embd=256, n_ff=512, n_head=8, n_head_kv=4, n_vocab=304, n_tokens=24,
                     weight_type=Type[t]) for t in QUANT_TYPES if t in Type.__members__ and blocks.can_make(Type[t])]
MODELS = {s.name: s for s in F32_MODELS + QUANT_MODELS}


class Weights:
    """Adds tensors to a writer; each one has its own random stream, keyed by the model's and the tensor's name."""

    def __init__(self, writer, spec):
        self.writer, self.spec = writer, spec

    def rng(self, name):
        return np.random.default_rng(zlib.crc32(f"{self.spec.name}/{name}".encode()))

    def matrix(self, name, n_out, n_in, gain=1.0):
        """[n_out, n_in], normal with deviation gain / sqrt(n_in), in the model's weight type."""
        self.store(name, self.rng(name).standard_normal((n_out, n_in)) * gain / np.sqrt(n_in))

    def store(self, name, values):
        values = values.astype(np.float32) * np.float32(name not in self.spec.zeroed)
        if self.spec.weight_type == Type.F32:
            self.writer.add_tensor(name, values)
            return
        data = blocks.quantize(values, self.spec.weight_type, self.rng(name + "/blocks"))
        self.writer.add_tensor(name, data, raw_dtype=self.spec.weight_type)

    def norm(self, name, n):
        self.writer.add_tensor(name, (1.0 + 0.25 * self.rng(name).standard_normal(n)).astype(np.float32))

    def bias(self, name, n):
        deviation = 0.0 if name in self.spec.zeroed else 0.3
        self.writer.add_tensor(name, (deviation * self.rng(name).standard_normal(n)).astype(np.float32))


def add_hyper_parameters(w, spec, extra_keys):
    """Keys as llama.cpp's loader reads them."""
    def key(name, value):
        full = f"{spec.arch}.{name}"
        if isinstance(value, bool):
            w.add_bool(full, value)
        elif isinstance(value, int):
            w.add_uint32(full, value)
        elif isinstance(value, float):
            w.add_float32(full, value)
        elif isinstance(value, str):
            w.add_string(full, value)
        else:
            w.add_array(full, value)

    w.add_name("golden")  # without the architecture: llama.cpp looks for Phi-3's own tokens when the name says so
    key("context_length", spec.n_ctx_train)
    key("embedding_length", spec.n_embd)
    key("block_count", spec.n_layer)
    key("feed_forward_length", spec.n_ff)
    key("attention.head_count", spec.n_head)
    key("attention.head_count_kv", spec.n_head_kv)
    key("attention.layer_norm_rms_epsilon", spec.eps)
    if spec.head_dim:
        key("attention.key_length", spec.head_dim)
        key("attention.value_length", spec.head_dim)
    if spec.rope_base:
        key("rope.freq_base", spec.rope_base)
    if spec.head_dim or spec.n_rot:
        key("rope.dimension_count", spec.rot)
    for name, value in extra_keys.items():
        key(name, value)


def spm_vocabulary(n):
    """<unk> <s> </s>, 256 bytes, then words and letters; padded with unused pieces to n tokens."""
    tokens = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % b for b in range(256)]
    types = [2, 3, 3] + [6] * 256
    scores = [0.0] * len(tokens)
    pieces = ["\u2581"] + ["\u2581" + word for word in SPM_WORDS] + list("etaoinshrdlu")
    for rank, piece in enumerate(pieces[:n - len(tokens)]):
        tokens.append(piece.encode())
        types.append(1)
        scores.append(-float(rank))
    for i in range(n - len(tokens)):
        tokens.append(b"[unused%d]" % i)
        types.append(5)
        scores.append(-1000.0)
    return tokens, scores, types


def bytes_to_unicode():
    """GPT-2's printable character for every byte."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {b: chr(b) for b in printable}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def bpe_vocabulary(n):
    """256 byte characters, then the merges that build BPE_WORDS after a space, two control tokens, padding."""
    table = bytes_to_unicode()
    tokens, merges = [table[b] for b in range(256)], []
    for word in BPE_WORDS:
        left = table[ord(" ")]
        for letter in word:
            if left + letter not in tokens:
                if len(tokens) >= n - 2:
                    break
                merges.append(f"{left} {letter}")
                tokens.append(left + letter)
            left += letter
    types = [1] * len(tokens)
    for name in ["<|begin|>", "<|end|>"] + [f"[unused{i}]" for i in range(n)]:
        if len(tokens) < n:
            tokens.append(name)
            types.append(3 if name.startswith("<") else 5)
    return [t.encode() for t in tokens], merges, types


def add_vocabulary(w, spec):
    if spec.vocab == "spm":
        tokens, scores, types = spm_vocabulary(spec.n_vocab)
        w.add_tokenizer_model("llama")
        w.add_token_scores(scores)
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)
    else:
        tokens, merges, types = bpe_vocabulary(spec.n_vocab)
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("qwen2" if spec.arch.startswith("qwen") else "llama-bpe")
        w.add_token_merges(merges)
        begin = tokens.index(b"<|begin|>")
        w.add_bos_token_id(begin)
        w.add_eos_token_id(begin + 1)
    w.add_token_list(tokens)
    w.add_token_types(types)
    assert len(tokens) == spec.n_vocab


def add_rope_factors(w, spec):
    half = spec.rot // 2
    rng = Weights(w, spec).rng("rope")
    if spec.rope_factors == "freqs":  # as Llama 3: 1 for fast pairs, a ramp, 8 for slow pairs
        w.add_tensor("rope_freqs.weight", np.clip(np.linspace(-2, 9, half), 1, 8).astype(np.float32))
    elif spec.rope_factors == "longrope":
        w.add_tensor("rope_factors_long.weight", (1 + 4 * rng.random(half)).astype(np.float32))
        w.add_tensor("rope_factors_short.weight", (1 + 0.3 * rng.random(half)).astype(np.float32))


def add_attention(t, spec, p):
    n_q, n_kv = spec.n_head * spec.d_head, spec.n_head_kv * spec.d_head
    sharp = 1.0 if spec.arch in ("qwen3", "gemma3", "olmo2") else 1.6  # without qk norms: make scores of deviation ~2.5
    if spec.arch == "phi3":
        t.matrix(p + "attn_qkv.weight", n_q + 2 * n_kv, spec.n_embd, 1.4)
    else:
        t.matrix(p + "attn_q.weight", n_q, spec.n_embd, sharp)
        t.matrix(p + "attn_k.weight", n_kv, spec.n_embd, sharp)
        t.matrix(p + "attn_v.weight", n_kv, spec.n_embd)
    if spec.qkv_bias:
        t.bias(p + "attn_q.bias", n_q)
        t.bias(p + "attn_k.bias", n_kv)
        t.bias(p + "attn_v.bias", n_kv)
    if spec.arch in ("qwen3", "gemma3"):
        t.norm(p + "attn_q_norm.weight", spec.d_head)
        t.norm(p + "attn_k_norm.weight", spec.d_head)
    elif spec.arch == "olmo2":
        t.norm(p + "attn_q_norm.weight", n_q)
        t.norm(p + "attn_k_norm.weight", n_kv)
    t.matrix(p + "attn_output.weight", spec.n_embd, n_q)
    if spec.all_bias:
        t.bias(p + "attn_output.bias", spec.n_embd)


def add_feed_forward(t, spec, p):
    if spec.arch == "phi3":
        t.matrix(p + "ffn_up.weight", 2 * spec.n_ff, spec.n_embd, 1.4)
    else:
        t.matrix(p + "ffn_gate.weight", spec.n_ff, spec.n_embd, 1.4)
        t.matrix(p + "ffn_up.weight", spec.n_ff, spec.n_embd, 1.4)
    t.matrix(p + "ffn_down.weight", spec.n_embd, spec.n_ff)
    if spec.all_bias:
        t.bias(p + "ffn_gate.bias", spec.n_ff)
        t.bias(p + "ffn_up.bias", spec.n_ff)
        t.bias(p + "ffn_down.bias", spec.n_embd)


def add_layer(t, spec, i):
    p = f"blk.{i}."
    post = spec.arch in ("gemma2", "gemma3", "olmo2")
    if spec.arch != "olmo2":
        t.norm(p + "attn_norm.weight", spec.n_embd)
        t.norm(p + "ffn_norm.weight", spec.n_embd)
    add_attention(t, spec, p)
    add_feed_forward(t, spec, p)
    if post:
        t.norm(p + "post_attention_norm.weight", spec.n_embd)
        t.norm(p + "post_ffw_norm.weight", spec.n_embd)


def write_model(spec, path, extra_keys=None):
    """Writes the model, with other extra keys if given; the file appears whole or not at all."""
    w = gguf.GGUFWriter(path + ".part", spec.arch)
    add_hyper_parameters(w, spec, spec.kv if extra_keys is None else extra_keys)
    add_vocabulary(w, spec)
    if spec.weight_type != Type.F32:
        w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    t = Weights(w, spec)
    scale = {"gemma2": spec.n_embd ** 0.5, "gemma3": spec.n_embd ** 0.5}.get(spec.arch, spec.kv.get("embedding_scale", 1.0))
    tied_gain = 2.0 * spec.kv.get("logit_scale", 1.0)
    gain = tied_gain if spec.tied else spec.n_embd ** 0.5 / scale
    t.matrix("token_embd.weight", spec.n_vocab, spec.n_embd, gain)
    for i in range(spec.n_layer):
        add_layer(t, spec, i)
    t.norm("output_norm.weight", spec.n_embd)
    if not spec.tied:
        t.matrix("output.weight", spec.n_vocab, spec.n_embd, tied_gain)
    if spec.output_bias:
        t.bias("output.bias", spec.n_vocab)
    add_rope_factors(w, spec)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.replace(path + ".part", path)
    return path


def shortened(spec, n_layer, zeroed=()):
    """The same weights with only the first n_layer layers and some tensors zeroed."""
    kv = {k: v[:n_layer] if isinstance(v, list) else v for k, v in spec.kv.items()}
    return dataclasses.replace(spec, n_layer=n_layer, kv=kv, zeroed=tuple(zeroed))


def prompt(spec):
    """Token ids to run: random, with repetitions, first and last id included."""
    rng = np.random.default_rng(zlib.crc32(spec.name.encode()))
    ids = rng.integers(0, spec.n_vocab, spec.n_tokens)
    ids[0], ids[2], ids[3] = 1, spec.n_vocab - 1, 0
    ids[spec.n_tokens // 2] = ids[1]
    return [int(i) for i in ids]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("outdir", nargs="?")
    parser.add_argument("--only", help="comma separated names")
    parser.add_argument("--list", action="store_true", help="names and prompts, no files")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(MODELS)
    if args.list:
        for name in names:
            print(f"{name}\t{MODELS[name].arch}\t{','.join(map(str, prompt(MODELS[name])))}")
        return 0
    if not args.outdir:
        parser.error("OUTDIR is missing")
    os.makedirs(args.outdir, exist_ok=True)
    for name in names:
        print(write_model(MODELS[name], os.path.join(args.outdir, name + ".gguf")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
