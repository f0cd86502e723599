#!/usr/bin/env python3
"""dil_quantize of the public header makes the same files of language models as dil quantize, and reports the same of them."""
import json
import os
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR", ".")
BINARY = os.environ.get("DIL_BINARY", "")
TOOL = os.path.join(os.environ.get("DIL_BUILD_DIR", ""), "bin", "tool_quantize")
MODEL = os.path.join(SOURCE, "models/sigircik-dense.gguf")
TEXT = os.path.join(SOURCE, "tests/traces/held-out-en.txt")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"FAIL {' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def bytes_of(path):
    with open(path, "rb") as f:
        return f.read()


def main():
    if not os.path.exists(BINARY) or not os.path.exists(TOOL):
        print("needs the command and tool_quantize: build them first")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = os.path.join(folder, "api.gguf"), os.path.join(folder, "command.gguf")
        for how, options in (("4.3", ["--bpw", "4.3"]), ("dengeli", ["--preset", "dengeli"])):
            api = run(TOOL, MODEL, ours, TEXT, how)
            out = run(BINARY, "quantize", MODEL, theirs, *options, "--calib", TEXT, "--chunks", "8", "-c", "128", "--fast", "--json")
            if bytes_of(ours) != bytes_of(theirs):
                sys.exit(f"FAIL {how}: the files differ: {api} and {out['out_bytes']} bytes")
            found = {"out_bytes": os.path.getsize(theirs), "matrices": len(out["matrices"]), "first": out["matrices"][0]["name"],
                     "first_type": out["matrices"][0]["type"]}
            wrong = {key: (api[key], value) for key, value in found.items() if api[key] != value}
            if wrong or abs(api["cost"] - out["measured"]["divergence"]) > 1e-6 or abs(api["bits"] - out["bits_per_weight"]) > 1e-3:
                sys.exit(f"FAIL {how}: the reports differ: {wrong}, {api}, {out['measured']}, {out['bits_per_weight']}")
            print(f"{how}: {api}")
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
