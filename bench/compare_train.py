#!/usr/bin/env python3
"""A training step of the project's models beside the same step in PyTorch: interleaved rounds, medians, ratios.

    python3 bench/compare_train.py --bench build/release/bin/bench_train --torch-python VENV/bin/python [--rounds 5]

PyTorch's side is bench/torch_step.py with its fastest options, compiled; the first round of each of its forms warms the compiler's
cache and is not counted. Prints Markdown.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = [("MoE, bf16", ["--compute", "bf16"], ["--dtype", "bf16"]), ("MoE, f32", ["--compute", "f32"], ["--dtype", "f32"]),
         ("dense, bf16", ["--dense", "--compute", "bf16"], ["--dtype", "bf16", "--experts", "0", "--ff", "512"]),
         ("dense, f32", ["--dense", "--compute", "f32"], ["--dtype", "f32", "--experts", "0", "--ff", "512"])]


def measure(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.splitlines()[0])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", default="build/release/bin/bench_train")
    p.add_argument("--torch-python", default=sys.executable, help="an interpreter that has torch")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--cases", default="", help="only those whose name holds this")
    args = p.parse_args()
    torch = [args.torch_python, os.path.join(HERE, "torch_step.py"), "--threads", str(args.threads)]
    print("| case | ours, s per step | tokens/s | GFLOP/s | PyTorch, s per step | times faster (rounds) |\n|---|---|---|---|---|---|")
    for name, ours, theirs in CASES:
        if args.cases not in name:
            continue
        measure(torch + theirs)
        rounds = [(measure([args.bench, "--threads", str(args.threads), "--steps", "8"] + ours), measure(torch + theirs))
                  for _ in range(args.rounds)]
        ratios = sorted(b["seconds_per_step"] / a["seconds_per_step"] for a, b in rounds)
        a = {key: statistics.median(r[0][key] for r in rounds) for key in ("seconds_per_step", "tokens_per_second", "gflops")}
        b = statistics.median(r[1]["seconds_per_step"] for r in rounds)
        print(f"| {name} | {a['seconds_per_step']:.3f} | {a['tokens_per_second']:.0f} | {a['gflops']:.0f} | {b:.3f} | "
              f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |", flush=True)


if __name__ == "__main__":
    main()
