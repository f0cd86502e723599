#!/usr/bin/env python3
"""The description of llama.cpp's mixtures against what llama-quantize says it would write, matrix by matrix, with an importance matrix.

Runs when $DIL_LLAMA_CPP_BIN names the folder of llama-quantize; else 77. Models: small ones in which every rule of a mixture meets a
layer, the project's own, and those of $DIL_TEST_MODELS (paths with ':' between them), which must not be quantized.
"""
import dataclasses
import os
import re
import struct
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TOOL = os.path.join(os.environ.get("DIL_BUILD_DIR", ""), "bin", "tool_recipe")
PEER = os.path.join(os.environ.get("DIL_LLAMA_CPP_BIN", ""), "llama-quantize")
WIDE = {"n_embd": 256, "n_ff": 512, "head_dim": 32}
SPECS = {  # name: a golden model, and what is different
    "own-head": ("llama", {**WIDE, "n_layer": 17}),
    "tied": ("llama", {**WIDE, "n_layer": 17, "tied": True}),
    "shared-values": ("llama", {**WIDE, "n_layer": 9, "n_head": 8, "n_head_kv": 2}),
    "eighty-layers": ("llama", {**WIDE, "n_ff": 256, "n_layer": 80}),
    "eight-experts": ("qwen3moe", {**WIDE, "n_layer": 17, "n_expert": 8, "n_ff_exp": 256}),
    "four-experts": ("qwen3moe", {**WIDE, "n_layer": 9, "n_expert": 4, "n_ff_exp": 256}),
    "blocks-of-32": ("gemma3", {"n_layer": 9, "n_embd": 96, "n_ff": 256}),
    "blocks-of-64": ("llama", {"n_layer": 9, "n_embd": 64, "n_ff": 64}),
    "no-blocks": ("llama-mqa-odd", {"n_layer": 9}),
}


def peer_types(model, mixture, importance):
    done = subprocess.run([PEER, "--dry-run", "--imatrix", importance, model, mixture, "1"], capture_output=True, text=True, errors="replace")
    if done.returncode:
        sys.exit(f"FAIL llama-quantize {mixture}: {done.stdout[-300:]}{done.stderr[-500:]}")
    # "[ 1/ 9] NAME - [shape], type = f16, size = 1 MiB -> 2 MiB (q4_0)"; without the arrow it stays as it is
    found = {}
    for line in (done.stdout + done.stderr).splitlines():
        m = re.match(r"\[ *\d+/ *\d+\] +(\S+) +- \[.*\], type = +(\w+), .*?(?:\((\w+)\)\s*)?$", line)
        if m:
            found[m[1]] = (m[3] or m[2]).upper()
    return found


def check(model, importance):
    ours = {}
    for line in subprocess.run([TOOL, model], capture_output=True, text=True, check=True).stdout.splitlines():
        mixture, tensor, name = line.split()
        ours.setdefault(mixture, {})[tensor] = name
    differ = 0
    for mixture, types in ours.items():
        theirs = peer_types(model, mixture, importance)
        for tensor, name in types.items():
            if theirs.get(tensor) != name:
                differ += 1
                if differ < 10:
                    print(f"FAIL {os.path.basename(model)} {mixture} {tensor}: wanted {theirs.get(tensor)}, found {name}")
    print(f"{os.path.basename(model)}: {len(ours)} mixtures of {len(types)} matrices, {differ} differ")
    return differ


def main():
    if not os.path.exists(PEER) or not os.path.exists(TOOL):
        print("skipped: needs llama-quantize ($DIL_LLAMA_CPP_BIN) and the build")
        return 77
    sys.path.insert(0, os.path.join(SOURCE, "tests", "golden"))
    import make_models
    models = [os.path.join(SOURCE, "models", f"sigircik-{kind}.gguf") for kind in ("dense", "moe")]
    models += filter(None, os.environ.get("DIL_TEST_MODELS", "").split(":"))
    with tempfile.TemporaryDirectory() as folder:
        for name, (golden, changes) in SPECS.items():
            spec = dataclasses.replace(make_models.MODELS[golden], name=name, **changes)
            models.append(make_models.write_model(spec, os.path.join(folder, name + ".gguf")))
        importance = os.path.join(folder, "importance.dat")
        with open(importance, "wb") as f:  # of one matrix that is nowhere: that there is a file is what mixtures ask for
            f.write(struct.pack("<ii", 1, 4) + b"none" + struct.pack("<iif", 1, 1, 1.0) + struct.pack("<ii", 1, 0))
        return 1 if sum(check(m, importance) for m in models) else 0


if __name__ == "__main__":
    sys.exit(main())
