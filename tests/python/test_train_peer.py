#!/usr/bin/env python3
"""What `dil train` and `dil export` make of a short run, in our engine and in llama.cpp: the same logits within 1e-3.

Needs another engine (see peer_logits.py), else 77. One run per shape that export knows, on two small texts written here.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)
import peer_logits

BINARY = os.environ.get("DIL_BINARY", "")
LIMIT = 1e-3
SHAPES = {
    "qwen3moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "qwen3": {"intermediate_size": 64},
    "llama": {"intermediate_size": 64},
    "gemma3": {"intermediate_size": 64},
}


def write_text(path, words, seed):
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as f:
        for _ in range(600):
            f.write(" ".join(draw.choices(words, k=7)) + ".\n")


def config(folder, shape):
    model = {"architecture": shape, "context_length": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16} | SHAPES[shape]
    corpora = [{"name": n, "path": f"{n}.txt", "weight": 1, "held_out": 0.1} for n in ("en", "tr")]
    return {"name": shape, "output": shape, "tokenizer": {"size": 320}, "corpora": corpora, "model": model,
            "training": {"steps": 30, "batch_size": 8, "learning_rate": 0.02, "compute": "f32"}}


def run(*command):
    done = subprocess.run([BINARY, *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"dil {' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")


def compare(folder, shape, peer):
    path, exported = os.path.join(folder, shape + ".json"), os.path.join(folder, shape + ".gguf")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config(folder, shape), f)
    run("train", path)
    run("export", os.path.join(folder, shape, "checkpoint.bin"), exported, "--type", "F32")
    tokens = [random.Random(5).randrange(320) for _ in range(24)]
    ours = os.path.join(folder, "ours.npy")
    run("eval", "logits", "-m", exported, "--tokens", ",".join(map(str, tokens)), "-o", ours, "-ctk", "f32", "-ctv", "f32")
    worst = float(np.abs(np.load(ours) - peer(exported, tokens, 64, "f32")).max())
    print(f"{'ok  ' if worst <= LIMIT else 'FAIL'} {shape}: largest difference of logits {worst:.2e}, allowed {LIMIT:.0e}")
    return worst <= LIMIT


def main():
    peer = peer_logits.find()
    if not peer or not os.path.exists(BINARY):
        print("skipped: needs $DIL_PEER_LOGITS or llama-cpp-python, and the command ($DIL_BINARY)")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        write_text(os.path.join(folder, "en.txt"), "the bird flies over a river when rain falls and seven neighbours".split(), 1)
        write_text(os.path.join(folder, "tr.txt"), "kuş ırmağın üstünden uçar yağmur yağınca yedi komşu bir sürü".split(), 2)
        good = [compare(folder, shape, peer) for shape in SHAPES]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
