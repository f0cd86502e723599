#!/usr/bin/env python3
"""Writes a model with random weights of a given shape, to measure speed on sizes nobody needs to download.

    make_random_model.py VOCAB.gguf OUT.gguf [--embd 2048 --layers 16 --ff 8192 --heads 32 --kv-heads 8] [--seed 1]
    make_random_model.py VOCAB.gguf OUT.gguf --arch qwen3moe --kv-heads 4 --head-dim 128 --experts 64 --experts-used 8
                         --expert-ff 768 --type q4_k

The vocabulary is copied from VOCAB.gguf, so that every engine loads the file. Weights are normal with deviation 1/sqrt(columns) in
F16, which `dil quantize` or another tool can quantize; with --type they are random blocks of that type and the same deviation,
the embedding Q6_K. One tensor at a time is in memory. Needs PyPI numpy and gguf.
"""
import argparse
import os
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden"))
import blocks  # noqa: E402


def copy_vocabulary(reader, writer):
    """Every tokenizer.* key as it is; returns the number of tokens."""
    for key, field in reader.fields.items():
        if not key.startswith("tokenizer."):
            continue
        kind = field.types[0]
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            writer.add_key_value(key, field.contents(), kind)
    return len(reader.fields["tokenizer.ggml.tokens"].contents())


def file_type(kind):
    """What the file calls a model that is mostly of this tensor type."""
    names = [f"MOSTLY_{kind.name}", f"MOSTLY_{kind.name}_M", f"MOSTLY_{kind.name}_MOE"]
    return next(gguf.LlamaFileType[name] for name in names if name in gguf.LlamaFileType.__members__)


def add_hyper_parameters(w, a):
    w.add_context_length(8192)
    w.add_embedding_length(a.embd)
    w.add_block_count(a.layers)
    w.add_feed_forward_length(a.expert_ff if a.experts and a.arch == "llama" else a.ff)
    w.add_head_count(a.heads)
    w.add_head_count_kv(a.kv_heads)
    w.add_key_length(a.head_dim)
    w.add_value_length(a.head_dim)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(a.head_dim)
    w.add_rope_freq_base(10000.0)
    w.add_file_type(file_type(a.type))
    if a.experts:
        w.add_expert_count(a.experts)
        w.add_expert_used_count(a.experts_used)
    if a.arch == "qwen3moe":
        w.add_expert_feed_forward_length(a.expert_ff)
    if a.type != Type.F16:
        w.add_quantization_version(gguf.GGML_QUANT_VERSION)


def feed_forward(a):
    """(tensor, shape, type) of one layer's feed-forward, a mixture of experts if there are any."""
    if not a.experts:
        return [("ffn_gate", (a.ff, a.embd), a.type), ("ffn_up", (a.ff, a.embd), a.type), ("ffn_down", (a.embd, a.ff), a.type)]
    return [("ffn_gate_inp", (a.experts, a.embd), Type.F32),
            ("ffn_gate_exps", (a.experts, a.expert_ff, a.embd), a.type),
            ("ffn_up_exps", (a.experts, a.expert_ff, a.embd), a.type),
            ("ffn_down_exps", (a.experts, a.embd, a.expert_ff), a.type)]


def tensors(a, n_vocab):
    """(name, shape, type) of every tensor in the file's order; a shape of one dimension is a norm."""
    n_q, n_kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    yield "token_embd", (n_vocab, a.embd), a.type if a.type == Type.F16 else Type.Q6_K
    for i in range(a.layers):
        layer = [("attn_norm", (a.embd,), Type.F32), ("ffn_norm", (a.embd,), Type.F32)]
        if a.arch == "qwen3moe":
            layer += [("attn_q_norm", (a.head_dim,), Type.F32), ("attn_k_norm", (a.head_dim,), Type.F32)]
        layer += [("attn_q", (n_q, a.embd), a.type), ("attn_k", (n_kv, a.embd), a.type), ("attn_v", (n_kv, a.embd), a.type),
                  ("attn_output", (a.embd, n_q), a.type), *feed_forward(a)]
        for name, shape, kind in layer:
            yield f"blk.{i}.{name}", shape, kind
    yield "output_norm", (a.embd,), Type.F32


def stored_shape(shape, kind):
    """Shape and NumPy type of the data as GGUFWriter takes it: bytes for blocks."""
    if kind in (Type.F32, Type.F16):
        return shape, np.dtype(np.float32 if kind == Type.F32 else np.float16)
    n_values, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    if shape[-1] % n_values:
        sys.exit(f"rows of {shape[-1]} values cannot be {kind.name}, which has blocks of {n_values}: choose another --type or size")
    return (*shape[:-1], shape[-1] // n_values * n_bytes), np.dtype(np.uint8)


def make(shape, kind, rng):
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    deviation = shape[-1] ** -0.5
    if kind not in (Type.F32, Type.F16):
        return blocks.random_blocks(shape, kind, deviation, rng)
    return (rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)).astype(stored_shape(shape, kind)[1], copy=False)


def write(a):
    w = gguf.GGUFWriter(a.out, a.arch)
    n_vocab = copy_vocabulary(gguf.GGUFReader(a.vocabulary), w)
    add_hyper_parameters(w, a)
    for name, shape, kind in tensors(a, n_vocab):
        stored, dtype = stored_shape(shape, kind)
        w.add_tensor_info(name + ".weight", stored, dtype, int(np.prod(stored)) * dtype.itemsize, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    rng = np.random.default_rng(a.seed)
    for _, shape, kind in tensors(a, n_vocab):
        w.write_tensor_data(make(shape, kind, rng))
    w.close()


def tensor_type(name):
    kind = Type.__members__.get(name.upper())
    if kind != Type.F16 and (not kind or kind.name not in blocks.F16_SCALES):
        raise argparse.ArgumentTypeError(f"{name}: choose f16 or one of {', '.join(sorted(blocks.F16_SCALES)).lower()}")
    return kind


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("vocabulary")
    p.add_argument("out")
    p.add_argument("--arch", default="llama", choices=["llama", "qwen3moe"])
    p.add_argument("--type", default=Type.F16, type=tensor_type, help="of the matrices (f16)")
    for name, default in (("embd", 2048), ("layers", 16), ("ff", 8192), ("heads", 32), ("kv-heads", 8), ("experts", 0),
                          ("experts-used", 2), ("expert-ff", 768), ("seed", 1)):
        p.add_argument(f"--{name}", type=int, default=default, help=f"({default})")
    p.add_argument("--head-dim", type=int, default=0, help="(embd / heads)")
    a = p.parse_args()
    a.head_dim = a.head_dim or a.embd // a.heads
    if a.arch == "qwen3moe" and not a.experts:
        p.error("qwen3moe needs --experts")
    if a.experts and not 0 < a.experts_used <= a.experts:
        p.error("--experts-used must be from 1 to --experts")
    write(a)


if __name__ == "__main__":
    main()
