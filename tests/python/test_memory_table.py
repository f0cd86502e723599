#!/usr/bin/env python3
"""bench/memory_table.py with this program: bytes are those of the files, the first file is what the others are compared with, and a command
that fails says why."""
import json
import os
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR", ".")
BINARY = os.environ.get("DIL_BINARY", "")
MODEL = os.path.join(SOURCE, "models/sigircik-dense.gguf")
TEXT = os.path.join(SOURCE, "tests/traces/held-out-en.txt")


def want(condition, text):
    if not condition:
        print(f"FAIL {text}")
        sys.exit(1)


def table(*arguments):
    return subprocess.run([sys.executable, os.path.join(SOURCE, "bench/memory_table.py"), "--dil", BINARY, "--text", TEXT, "--chunks", "1",
                           "--rounds", "1", *arguments], capture_output=True, text=True)


def main():
    if not os.path.exists(BINARY) or not os.path.exists(MODEL):
        print(f"needs {BINARY or 'DIL_BINARY'} and {MODEL}")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        small, out = os.path.join(folder, "small.gguf"), os.path.join(folder, "table.json")
        subprocess.run([BINARY, "quantize", MODEL, small, "--type", "Q3_K", "-q"], check=True, capture_output=True)
        done = table("--json", out, f"float={MODEL}", f"small={small}")
        want(done.returncode == 0, done.stderr)
        with open(out, encoding="utf-8") as f:
            first, second = json.load(f)
        want((first["name"], first["bytes"], first["kld"]) == ("float", os.path.getsize(MODEL), 0), f"the first file: {first}")
        want(second["bytes"] == os.path.getsize(small) and second["kld"] > 0.02, f"the second file: {second}")
        want(second["perplexity"] != first["perplexity"] and all(r[k] > 0 for r in (first, second) for k in ("rss", "prompt", "answer")),
             f"measured: {first} {second}")
        want(f"| small | {second['bytes'] / 1e6:.1f} | {second['bytes'] / first['bytes']:.2f} |" in done.stdout, done.stdout)
        bad = table(f"float={MODEL}", f"none={folder}/none.gguf")
        want(bad.returncode != 0 and "none.gguf" in bad.stderr, f"a file that is not there: {bad.stderr}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
