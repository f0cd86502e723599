#!/usr/bin/env python3
"""The models that come with the project: whole files, as good as their card says on texts they never saw, and (with another engine,
see peer_logits.py) the same logits there.

tests/traces/held-out-{en,tr}.txt are pieces of the training texts' held-out ends.
"""
import json
import math
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import peer_logits
except ImportError:
    peer_logits = None

SOURCE = os.environ.get("DIL_SOURCE_DIR", ".")
BINARY = os.environ.get("DIL_BINARY", "")
# most bits per byte of the pieces, English and Turkish: what was found when the files were made, and 1 % of room
MODELS = {"sigircik-moe": {"en": 1.325, "tr": 1.141}, "sigircik-dense": {"en": 1.351, "tr": 1.162}}
LIMIT = 1e-3  # of logits: both engines in f32


def run(*command):
    done = subprocess.run([BINARY, *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"FAIL dil {' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def bits_per_byte(model, text):
    """Of the second halves of windows of 512 tokens, as if every token had the mean number of bytes."""
    found = json.loads(run("eval", "perplexity", "-m", model, "-f", text, "-c", "512", "--json"))
    tokens = len(json.loads(run("tokenize", "-m", model, "-f", text, "--no-special", "--json")))
    return found["mean_nll"] / math.log(2) * tokens / os.path.getsize(text)


def compare(model, folder, peer):
    exact, ours = os.path.join(folder, "f32.gguf"), os.path.join(folder, "ours.npy")
    run("quantize", model, exact, "--type", "F32")
    good = True
    for text in ("en", "tr"):
        path = os.path.join(SOURCE, "tests/traces", f"held-out-{text}.txt")
        ids = [t["id"] for t in json.loads(run("tokenize", "-m", model, "-f", path, "--no-special", "--json"))][:300]
        run("eval", "logits", "-m", exact, "--tokens", ",".join(map(str, ids)), "-o", ours, "-ctk", "f32", "-ctv", "f32")
        worst = float(np.abs(np.load(ours) - peer(exact, ids, 512, "f32")).max())
        print(f"{'ok  ' if worst <= LIMIT else 'FAIL'} {text}: largest difference of logits {worst:.2e}, allowed {LIMIT:.0e}")
        good = good and worst <= LIMIT
    return good


def main():
    if not os.path.exists(BINARY):
        print("skipped: needs the command ($DIL_BINARY)")
        sys.exit(77)
    good, found, peer = True, {}, peer_logits and peer_logits.find()
    for name, bounds in MODELS.items():
        model = os.path.join(SOURCE, "models", f"{name}.gguf")
        run("check", model)
        for text, most in bounds.items():
            found[name, text] = bits_per_byte(model, os.path.join(SOURCE, "tests/traces", f"held-out-{text}.txt"))
            right = found[name, text] <= most
            print(f"{'ok  ' if right else 'FAIL'} {name}, {text}: {found[name, text]:.4f} bits per byte, at most {most}")
            good = good and right
        with tempfile.TemporaryDirectory() as folder:
            good = (not peer or compare(model, folder, peer)) and good
    for text in ("en", "tr"):
        if found["sigircik-moe", text] >= found["sigircik-dense", text]:
            print(f"FAIL {text}: the mixture should be ahead of the dense model")
            good = False
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
