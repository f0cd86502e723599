#!/usr/bin/env python3
"""Makes tiny GGUF models with random weights, one for every architecture, shape and tensor type that the engine knows.

    make_models.py OUTDIR [--only NAME[,NAME...]] [--list]

Owns what the files contain: hyper-parameters and weights (random, but the same on every machine and run). Which models there are
is in specs.py, their vocabularies in vocabularies.py, what they compute in reference.py. Weights are scaled so that attention has
sharp and flat rows, routers decide and logits are of order 1: a wrong rotation, mask, scale or norm then moves the logits by far
more than rounding does.
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
from specs import MODELS

HEAD_NORMS = ("qwen3", "qwen3moe", "gemma3")   # q and k are normalised head by head
WHOLE_NORMS = ("olmo2", "olmoe")               # or over all heads at once
NO_PRE_NORMS = ("olmo2",)
POST_NORMS = ("gemma2", "gemma3", "olmo2")


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
    """Writes {name: value} under the architecture's prefix (but those of the tokenizer), each with the type that real files have."""
    adders = {bool: w.add_bool, int: w.add_uint32, float: w.add_float32, str: w.add_string, list: w.add_array}
    w.add_name("golden")  # without the architecture: llama.cpp looks for Phi-3's own tokens when the name says so
    for name, value in keys.items():
        adders[type(value)](name if name.startswith("tokenizer.") else f"{spec.arch}.{name}", value)


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
