#!/usr/bin/env python3
"""Writes a llama model with random weights of a given shape, to measure speed on sizes nobody needs to download.

    make_random_model.py VOCAB.gguf OUT.gguf [--embd 2048 --layers 16 --ff 8192 --heads 32 --kv-heads 8] [--seed 1]

The vocabulary is copied from VOCAB.gguf, so that every engine loads the file. Weights are F16, normal with deviation
1/sqrt(columns); quantize the result with `dil quantize` or another tool. Needs PyPI numpy and gguf.
"""
import argparse

import gguf
import numpy as np


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


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("vocabulary")
    p.add_argument("out")
    for name, default in (("embd", 2048), ("layers", 16), ("ff", 8192), ("heads", 32), ("kv-heads", 8), ("seed", 1)):
        p.add_argument(f"--{name}", type=int, default=default)
    a = p.parse_args()
    rng = np.random.default_rng(a.seed)
    w = gguf.GGUFWriter(a.out, "llama")
    n_vocab = copy_vocabulary(gguf.GGUFReader(a.vocabulary), w)
    head_dim = a.embd // a.heads
    w.add_context_length(8192)
    w.add_embedding_length(a.embd)
    w.add_block_count(a.layers)
    w.add_feed_forward_length(a.ff)
    w.add_head_count(a.heads)
    w.add_head_count_kv(a.kv_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(head_dim)
    w.add_rope_freq_base(10000.0)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)

    def matrix(name, rows, cols):
        w.add_tensor(name, (rng.standard_normal((rows, cols), dtype=np.float32) / cols**0.5).astype(np.float16))

    matrix("token_embd.weight", n_vocab, a.embd)
    for i in range(a.layers):
        b = f"blk.{i}."
        w.add_tensor(b + "attn_norm.weight", np.ones(a.embd, np.float32))
        w.add_tensor(b + "ffn_norm.weight", np.ones(a.embd, np.float32))
        matrix(b + "attn_q.weight", a.embd, a.embd)
        matrix(b + "attn_k.weight", a.kv_heads * head_dim, a.embd)
        matrix(b + "attn_v.weight", a.kv_heads * head_dim, a.embd)
        matrix(b + "attn_output.weight", a.embd, a.embd)
        matrix(b + "ffn_gate.weight", a.ff, a.embd)
        matrix(b + "ffn_up.weight", a.ff, a.embd)
        matrix(b + "ffn_down.weight", a.embd, a.ff)
    w.add_tensor("output_norm.weight", np.ones(a.embd, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
