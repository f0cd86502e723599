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
import vocabularies


@dataclasses.dataclass(frozen=True)
class Latent:
    """Sizes of attention through compressed keys and values (deepseek2)."""
    q_rank: int = 0               # 0: queries are not compressed
    kv_rank: int = 24
    nope: int = 16                # values of a query or key head that are not rotated
    rope: int = 8                 # and that are
    value: int = 12               # values of a value head
    absorbed: bool = False        # keys and values stay compressed: attn_k_b and attn_v_b for each head, one key/value head


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
    expert_type: Type = None      # of the experts' tensors; None: weight_type
    n_tokens: int = 40            # how long the test's prompt is
    seed: int = 0                 # of the prompt: one where no token stands between two experts
    n_expert: int = 0             # 0: one dense feed-forward
    n_used: int = 0               # experts of a token
    n_ff_exp: int = 0             # 0: no key, and each expert is as the architecture says without it
    n_ff_shared: int = 0          # 0: no shared expert
    n_dense_lead: int = 0         # first layers without experts
    selection_bias: bool = False  # exp_probs_b
    fused_gate_up: bool = False   # one tensor ffn_gate_up_exps (deepseek2)
    latent: Latent = None
    kv: dict = dataclasses.field(default_factory=dict)
    zeroed: tuple = ()            # names of tensors that are all zero: how a test takes a part out of the model

    @property
    def d_head(self):
        return self.head_dim or self.n_embd // self.n_head

    @property
    def rot(self):
        return self.n_rot or self.d_head

    @property
    def d_expert(self):
        """Hidden size of one expert."""
        by_default = self.n_ff // self.n_used if self.arch in ("qwen2moe", "qwen3moe") else self.n_ff
        return self.n_ff_exp or by_default

    @property
    def is_f32(self):
        return self.weight_type == Type.F32 and self.expert_type in (None, Type.F32)

    @property
    def varied(self):
        """Keys that can take another value without another tensor changing its shape."""
        used = {"expert_used_count": self.n_used} if self.n_expert and self.d_expert != self.n_ff // self.n_used else {}
        return {**self.kv, **used}


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
GRANITE = {"logit_scale": 6.0, "residual_scale": 0.22, "embedding_scale": 12.0, "attention.scale": 0.0625}
GEMMA2 = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attention.sliding_window": 8}
GEMMA3 = {"attention.sliding_window": 8}
YARN_LATENT = {**YARN, "rope.scaling.yarn_log_multiplier": 0.0707}
DEEPSEEK = {"arch": "deepseek2", "vocab": "bpe", "n_vocab": 311}
SIGMOID = {"expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5}
HEAD_NORMS = ("qwen3", "qwen3moe", "gemma3")   # q and k are normalised head by head
WHOLE_NORMS = ("olmo2", "olmoe")               # or over all heads at once
NO_PRE_NORMS = ("olmo2",)
POST_NORMS = ("gemma2", "gemma3", "olmo2")

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

EXPERT_MODELS = [
    Spec("llama-moe", "llama", seed=35, n_expert=8, n_used=2),
    Spec("llama-moe-odd", "llama", n_layer=3, n_embd=40, n_head=5, n_head_kv=1, n_ff=37, n_vocab=299,
         seed=39, n_expert=5, n_used=3),
    Spec("llama-moe-biases", "llama", seed=31, n_expert=4, n_used=2, qkv_bias=True, all_bias=True, tied=True),
    Spec("llama-moe-one", "llama", n_expert=6, n_used=1),
    Spec("llama-moe-all", "llama", n_expert=4, n_used=4, rope_factors="freqs"),
    Spec("llama-moe-long-prompt", "llama", n_tokens=150, seed=19, n_expert=8, n_used=2),
    Spec("qwen2moe", "qwen2moe", vocab="bpe", rope_base=1e6, eps=1e-6, qkv_bias=True, n_vocab=311, seed=28, n_expert=8, n_used=3,
         n_ff_exp=48, n_ff_shared=80),
    Spec("qwen2moe-default-sizes", "qwen2moe", vocab="bpe", n_embd=56, n_head=7, n_head_kv=1, n_ff=90, n_vocab=343,
         qkv_bias=True, seed=6, n_expert=5, n_used=2),
    Spec("qwen3moe", "qwen3moe", vocab="bpe", rope_base=1e6, eps=1e-6, head_dim=32, n_vocab=311, seed=29, n_expert=8, n_used=3,
         n_ff_exp=48),
    Spec("qwen3moe-16", "qwen3moe", vocab="bpe", n_embd=40, n_head=8, n_head_kv=2, head_dim=20, n_ff=61, tied=True, eps=1e-6,
         n_vocab=333, n_tokens=24, seed=73, n_expert=16, n_used=8, n_ff_exp=21),
    Spec("olmoe", "olmoe", vocab="bpe", n_head_kv=4, n_ff=48, n_vocab=311, seed=36, n_expert=8, n_used=4),
    Spec("olmoe-odd", "olmoe", vocab="bpe", n_layer=3, n_embd=40, n_head=5, n_head_kv=5, n_ff=23, n_vocab=299,
         seed=38, n_expert=7, n_used=2),
    Spec("granitemoe", "granitemoe", vocab="bpe", tied=True, n_ff=48, n_vocab=311, seed=11, n_expert=8, n_used=3, kv=GRANITE),
    Spec("granitemoe-shared", "granitemoe", vocab="bpe", n_head=8, n_head_kv=2, n_ff=35, n_vocab=333, seed=36, n_expert=6, n_used=2,
         n_ff_shared=70, kv=GRANITE),
    Spec("ernie-moe", "ernie4_5-moe", n_layer=3, rope_base=500000.0, n_ff=96, n_vocab=310, seed=4, n_expert=8, n_used=3,
         n_ff_exp=40, n_ff_shared=80, n_dense_lead=1, selection_bias=True),
    Spec("ernie-moe-plain", "ernie4_5-moe", n_embd=40, n_head=5, n_head_kv=1, n_vocab=299, tied=True, qkv_bias=True, seed=28,
         n_expert=6, n_used=2, n_ff_exp=33),
    Spec("gpt-oss", "gpt-oss", vocab="bpe", n_layer=4, head_dim=32, n_vocab=311, n_tokens=90, rope_base=150000.0, qkv_bias=True,
         all_bias=True, seed=34, n_expert=8, n_used=3, n_ff_exp=64, kv={**YARN, "attention.sliding_window": 8}),
    Spec("gpt-oss-odd", "gpt-oss", vocab="bpe", n_layer=3, n_embd=40, n_head=8, n_head_kv=1, head_dim=20, n_vocab=333,
         all_bias=True, seed=1, n_expert=5, n_used=4, n_ff_exp=37,
         kv={"attention.sliding_window": 5, "rope.freq_base_swa": 500.0,
             "attention.sliding_window_pattern": [False, True, True]}),
    Spec("deepseek2-lite", **DEEPSEEK, n_layer=3, n_ff=96, seed=11, n_expert=8, n_used=3, n_ff_exp=40, n_ff_shared=80,
         n_dense_lead=1, latent=Latent(), kv={"expert_weights_scale": 1.5, "expert_weights_norm": False}),
    Spec("deepseek2-lite-shape", **DEEPSEEK, n_layer=27, n_embd=40, n_ff=48, n_tokens=16, n_expert=4, n_used=4, n_ff_exp=24,
         n_ff_shared=24, n_dense_lead=1, latent=Latent(kv_rank=20, nope=8, rope=4, value=8)),
    Spec("deepseek2-lite-absorbed", **DEEPSEEK, seed=2, n_expert=6, n_used=2, n_ff_exp=40, n_ff_shared=40, tied=True,
         latent=Latent(kv_rank=28, nope=20, rope=6, value=10, absorbed=True)),
    Spec("deepseek2-full", **DEEPSEEK, n_layer=3, n_head=6, n_ff=96, seed=20, n_expert=12, n_used=3, n_ff_exp=32, n_ff_shared=32,
         n_dense_lead=1, selection_bias=True, latent=Latent(q_rank=30, absorbed=True),
         kv={**SIGMOID, "expert_group_count": 4, "expert_group_used_count": 2}),
    Spec("deepseek2-full-expanded", **DEEPSEEK, seed=18, n_expert=8, n_used=2, n_ff_exp=32, n_ff_shared=64, selection_bias=True,
         fused_gate_up=True, latent=Latent(q_rank=20), kv=SIGMOID),
    Spec("deepseek2-yarn", **DEEPSEEK, n_tokens=90, seed=11, n_expert=6, n_used=2, n_ff_exp=32, n_ff_shared=32,
         latent=Latent(rope=32), kv=YARN_LATENT),
    Spec("deepseek2-yarn-absorbed", **DEEPSEEK, n_tokens=90, seed=23, n_expert=6, n_used=2, n_ff_exp=32, n_ff_shared=32,
         latent=Latent(q_rank=20, rope=32, absorbed=True),
         kv={**YARN_LATENT, **SIGMOID, "rope.scaling.yarn_log_multiplier": 0.1}),
    Spec("deepseek2-yarn-plain", **DEEPSEEK, n_tokens=90, seed=19, n_expert=4, n_used=2, n_ff_exp=32, n_ff_shared=32,
         latent=Latent(rope=32, absorbed=True), kv=YARN),
    Spec("deepseek2-linear-rope", **DEEPSEEK, seed=7, n_expert=4, n_used=2, n_ff_exp=32, n_ff_shared=32, latent=Latent(),
         kv={"rope.scaling.type": "linear", "rope.scaling.factor": 2.5}),
]

QUANT_TYPES = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M",
               "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
               "Q1_0", "Q2_0"]
EXPERT_QUANT_TYPES = {"F16": 36, "BF16": 27, "Q4_0": 1, "Q8_0": 39, "Q4_K": 30, "Q6_K": 42, "IQ4_XS": 27}  # with their seeds


def can_make(name):
    return name in Type.__members__ and blocks.can_make(Type[name])


QUANT_MODELS = [Spec(f"llama-{t.lower()}", "llama", n_embd=256, n_ff=512, n_head=8, n_head_kv=4, n_vocab=304, n_tokens=24,
                     weight_type=Type[t]) for t in QUANT_TYPES if can_make(t)]
QUANT_MODELS += [Spec(f"qwen3moe-{t.lower()}", "qwen3moe", vocab="bpe", n_embd=256, n_head=8, n_head_kv=4, n_vocab=304,
                      n_tokens=24, weight_type=Type[t], seed=seed, n_expert=6, n_used=2, n_ff_exp=256)
                 for t, seed in EXPERT_QUANT_TYPES.items() if can_make(t)]
QUANT_MODELS += [
    Spec("llama-moe-q4_k", "llama", n_embd=256, n_ff=256, n_head=8, n_head_kv=4, n_vocab=304, n_tokens=24, seed=54,
         weight_type=Type.Q6_K, expert_type=Type.Q4_K, n_expert=4, n_used=2),
    Spec("gpt-oss-mxfp4", "gpt-oss", vocab="bpe", n_embd=64, head_dim=32, n_vocab=311, n_tokens=24, qkv_bias=True, all_bias=True,
         weight_type=Type.Q8_0, expert_type=Type.MXFP4, seed=57, n_expert=6, n_used=2, n_ff_exp=96,
         kv={**YARN, "attention.sliding_window": 8}),
]
MODELS = {s.name: s for s in F32_MODELS + EXPERT_MODELS + QUANT_MODELS}


class Weights:
    """Adds tensors to a writer; each one has its own random stream, keyed by the model's and the tensor's name."""

    def __init__(self, writer, spec):
        self.writer, self.spec = writer, spec

    def rng(self, name):
        return np.random.default_rng(zlib.crc32(f"{self.spec.name}/{name}".encode()))

    def matrix(self, name, n_out, n_in, gain=1.0, qtype=None, stack=()):
        """[*stack, n_out, n_in], normal with deviation gain / sqrt(n_in), in the model's weight type if no other is given."""
        values = self.rng(name).standard_normal((*stack, n_out, n_in)) * gain / np.sqrt(n_in)
        self.store(name, values, self.spec.weight_type if qtype is None else qtype)

    def store(self, name, values, qtype):
        values = values.astype(np.float32) * np.float32(name not in self.spec.zeroed)
        if qtype == Type.F32:
            self.writer.add_tensor(name, values)
            return
        data = blocks.quantize(values, qtype, self.rng(name + "/blocks"))
        self.writer.add_tensor(name, data, raw_dtype=qtype)

    def vector(self, name, n, gain=1.0):
        """[n], a matrix of one row without that dimension, F32."""
        self.writer.add_tensor(name, (self.rng(name).standard_normal(n) * gain / np.sqrt(n)).astype(np.float32))

    def norm(self, name, n):
        self.writer.add_tensor(name, (1.0 + 0.25 * self.rng(name).standard_normal(n)).astype(np.float32))

    def bias(self, name, n, deviation=0.3):
        """n values, or of the shape n."""
        deviation = 0.0 if name in self.spec.zeroed else deviation
        self.writer.add_tensor(name, (deviation * self.rng(name).standard_normal(n)).astype(np.float32))


def hyper_parameters(spec):
    """Keys without the architecture prefix, as llama.cpp's loader reads them; without those of `spec.kv`."""
    keys = {"context_length": spec.n_ctx_train, "embedding_length": spec.n_embd, "block_count": spec.n_layer,
            "feed_forward_length": spec.n_ff, "attention.head_count": spec.n_head, "attention.head_count_kv": spec.n_head_kv,
            "attention.layer_norm_rms_epsilon": spec.eps}
    if spec.head_dim:
        keys |= {"attention.key_length": spec.head_dim, "attention.value_length": spec.head_dim}
    if spec.rope_base:
        keys["rope.freq_base"] = spec.rope_base
    if spec.head_dim or spec.n_rot:
        keys["rope.dimension_count"] = spec.rot
    if spec.n_expert:
        keys |= expert_parameters(spec)
    if spec.latent:
        keys |= latent_parameters(spec)
    return keys


def expert_parameters(spec):
    keys = {"expert_count": spec.n_expert, "expert_used_count": spec.n_used}
    if spec.n_ff_exp:
        keys["expert_feed_forward_length"] = spec.n_ff_exp
    if spec.arch == "deepseek2":
        keys["expert_shared_count"] = spec.n_ff_shared // spec.n_ff_exp
    elif spec.n_ff_shared:
        keys["expert_shared_feed_forward_length"] = spec.n_ff_shared
    if spec.arch == "ernie4_5-moe":
        keys["interleave_moe_layer_step"] = 1
    if spec.n_dense_lead:
        keys["leading_dense_block_count"] = spec.n_dense_lead
    return keys


def latent_parameters(spec):
    a = spec.latent
    keys = {"attention.kv_lora_rank": a.kv_rank, "rope.dimension_count": a.rope}
    if spec.n_layer != 27:  # the lite model's files have no such key, and llama.cpp knows them by their layers
        keys["attention.q_lora_rank"] = a.q_rank
    if not a.absorbed:
        return keys | {"attention.head_count_kv": spec.n_head, "attention.key_length": a.nope + a.rope,
                       "attention.value_length": a.value}
    return keys | {"attention.head_count_kv": 1, "attention.key_length": a.kv_rank + a.rope, "attention.value_length": a.kv_rank,
                   "attention.key_length_mla": a.nope + a.rope, "attention.value_length_mla": a.value}


def add_keys(w, spec, keys):
    """Writes {name: value} under the architecture's prefix, each with the type that real files have."""
    adders = {bool: w.add_bool, int: w.add_uint32, float: w.add_float32, str: w.add_string, list: w.add_array}
    w.add_name("golden")  # without the architecture: llama.cpp looks for Phi-3's own tokens when the name says so
    for name, value in keys.items():
        adders[type(value)](f"{spec.arch}.{name}", value)


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
    sharp = 1.0 if spec.arch in HEAD_NORMS + WHOLE_NORMS else 1.6  # without qk norms: make scores of deviation ~2.5
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
    if spec.arch in HEAD_NORMS:
        t.norm(p + "attn_q_norm.weight", spec.d_head)
        t.norm(p + "attn_k_norm.weight", spec.d_head)
    elif spec.arch in WHOLE_NORMS:
        t.norm(p + "attn_q_norm.weight", n_q)
        t.norm(p + "attn_k_norm.weight", n_kv)
    t.matrix(p + "attn_output.weight", spec.n_embd, n_q)
    if spec.arch == "gpt-oss":
        t.vector(p + "attn_sinks.weight", spec.n_head, 2.0 * spec.n_head ** 0.5)
    if spec.all_bias:
        t.bias(p + "attn_output.bias", spec.n_embd)


def add_latent_attention(t, spec, p):
    a, n_q = spec.latent, spec.n_head * (spec.latent.nope + spec.latent.rope)
    if a.q_rank:
        t.matrix(p + "attn_q_a.weight", a.q_rank, spec.n_embd)
        t.norm(p + "attn_q_a_norm.weight", a.q_rank)
        t.matrix(p + "attn_q_b.weight", n_q, a.q_rank, 1.6)
    else:
        t.matrix(p + "attn_q.weight", n_q, spec.n_embd, 1.6)
    t.matrix(p + "attn_kv_a_mqa.weight", a.kv_rank + a.rope, spec.n_embd, 1.6)
    t.norm(p + "attn_kv_a_norm.weight", a.kv_rank)
    if a.absorbed:
        t.matrix(p + "attn_k_b.weight", a.kv_rank, a.nope, 1.6 * (a.nope / a.kv_rank) ** 0.5, stack=(spec.n_head,))
        t.matrix(p + "attn_v_b.weight", a.value, a.kv_rank, stack=(spec.n_head,))
    else:
        t.matrix(p + "attn_kv_b.weight", spec.n_head * (a.nope + a.value), a.kv_rank, 1.3)
    t.matrix(p + "attn_output.weight", spec.n_embd, spec.n_head * a.value)


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


def add_experts(t, spec, p):
    """Router, experts [n_expert, n_out, n_in] and shared expert. The router stays F32, as real files have it."""
    n_ff, many = spec.d_expert, {"stack": (spec.n_expert,), "qtype": spec.expert_type}
    wide, narrow = (3.0, 0.3) if spec.arch == "gpt-oss" else (1.4, 1.0)  # some of its hidden values meet their limit
    t.matrix(p + "ffn_gate_inp.weight", spec.n_expert, spec.n_embd, 2.0, Type.F32)
    if spec.fused_gate_up:
        t.matrix(p + "ffn_gate_up_exps.weight", 2 * n_ff, spec.n_embd, wide, **many)
    else:
        t.matrix(p + "ffn_gate_exps.weight", n_ff, spec.n_embd, wide, **many)
        t.matrix(p + "ffn_up_exps.weight", n_ff, spec.n_embd, wide, **many)
    t.matrix(p + "ffn_down_exps.weight", spec.n_embd, n_ff, narrow, **many)
    if spec.selection_bias:
        t.bias(p + "exp_probs_b.bias", spec.n_expert, 0.1)
    if spec.arch == "gpt-oss":
        t.bias(p + "ffn_gate_inp.bias", spec.n_expert)
        for which, n in (("gate", n_ff), ("up", n_ff), ("down", spec.n_embd)):
            t.bias(p + f"ffn_{which}_exps.bias", (spec.n_expert, n))
    n_shared = spec.n_ff_shared or (spec.n_ff if spec.arch == "qwen2moe" else 0)
    if n_shared:
        t.matrix(p + "ffn_gate_shexp.weight", n_shared, spec.n_embd, 1.4)
        t.matrix(p + "ffn_up_shexp.weight", n_shared, spec.n_embd, 1.4)
        t.matrix(p + "ffn_down_shexp.weight", spec.n_embd, n_shared)
    if spec.arch == "qwen2moe":
        t.vector(p + "ffn_gate_inp_shexp.weight", spec.n_embd)


def add_layer(t, spec, i):
    p = f"blk.{i}."
    if spec.arch not in NO_PRE_NORMS:
        t.norm(p + "attn_norm.weight", spec.n_embd)
        t.norm(p + ("post_attention_norm.weight" if spec.arch == "gpt-oss" else "ffn_norm.weight"), spec.n_embd)
    (add_latent_attention if spec.latent else add_attention)(t, spec, p)
    if spec.n_expert and i >= spec.n_dense_lead:
        add_experts(t, spec, p)
    else:
        add_feed_forward(t, spec, p)
    if spec.arch in POST_NORMS:
        t.norm(p + "post_attention_norm.weight", spec.n_embd)
        t.norm(p + "post_ffw_norm.weight", spec.n_embd)


def write_model(spec, path, other_keys=None):
    """Writes the model, with other values of some keys if given; the file appears whole or not at all."""
    w = gguf.GGUFWriter(path + ".part", spec.arch)
    add_keys(w, spec, hyper_parameters(spec) | spec.kv | (other_keys or {}))
    vocabularies.add_vocabulary(w, spec)
    if not spec.is_f32:
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
    lead = min(spec.n_dense_lead, n_layer)
    return dataclasses.replace(spec, n_layer=n_layer, n_dense_lead=lead, kv=kv, zeroed=tuple(zeroed))


def prompt(spec):
    """Token ids to run: random, with repetitions, first and last id included."""
    rng = np.random.default_rng(zlib.crc32(spec.name.encode()) + spec.seed)
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
