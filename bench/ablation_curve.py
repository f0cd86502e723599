#!/usr/bin/env python3
"""Quality against hits of the ablation's models when the engine prefers experts in memory: the curve that training must beat.

Exports every complete run of bench/ablation.py, then evaluates it token by token on held-out text with an LRU pool of a quarter
of the experts and `--route cache` over a sweep of its mass budget (0: exact routing). Prints Markdown: nats per token beside
exact routing's, and the share of requests found in memory; means over seeds.

    python3 bench/ablation_curve.py --dil build/release/bin/dil --out build/ablation --texts en.txt,tr.txt
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys

MASSES = [0, 0.2, 0.3, 0.4, 0.45, 0.5]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()[-400:]}")
    return done


def expert_bytes(dil, model):
    """Bytes of all experts, from what the pool says of itself."""
    done = run(dil, "eval", "perplexity", "-m", model, "-p", "a " * 600, "-c", "64", "--chunks", "1", "--experts-memory", "1G", "--json")
    value, unit = re.search(r"of ([\d.]+) ([kMG])B in memory", done.stderr).groups()
    return float(value) * {"k": 1024, "M": 1 << 20, "G": 1 << 30}[unit]


def evaluate(args, model, text, budget, mass):
    """(nats per token, hit rate)"""
    done = run(args.dil, "eval", "perplexity", "-m", model, "-f", text, "-c", "256", "--chunks", str(args.chunks), "-ub", "1", "-t", "2",
               "--experts-policy", "lru", "--experts-memory", str(int(budget)), "--route", "cache" if mass else "exact",
               "--route-mass", str(mass), "--json")
    return json.loads(done.stdout)["mean_nll"], float(re.search(r"([\d.]+) % of \d+ requests", done.stderr).group(1)) / 100


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dil", default="build/release/bin/dil")
    p.add_argument("--out", default="build/ablation")
    p.add_argument("--texts", required=True)
    p.add_argument("--arms", default="switch,price,price+cache,price+swarm,price+nash,all,cache5,cache25")
    p.add_argument("--seeds", default="1,2,3")
    p.add_argument("--chunks", type=int, default=12)
    args = p.parse_args()
    for text in args.texts.split(","):
        print(f"\n{os.path.basename(text)}: nats per token (hits)\n")
        print("| arm | runs | " + " | ".join("exact" if m == 0 else f"mass {m}" for m in MASSES) + " |\n" + "|---" * (len(MASSES) + 2) + "|")
        for arm in args.arms.split(","):
            rows = []
            for seed in args.seeds.split(","):
                folder = os.path.join(args.out, arm, seed)
                model = os.path.join(folder, "model.gguf")
                if not os.path.exists(os.path.join(folder, "checkpoint.bin")):
                    continue
                if not os.path.exists(model):
                    run(args.dil, "export", os.path.join(folder, "checkpoint.bin"), model, "--type", "F16")
                quarter = expert_bytes(args.dil, model) / 4 * 1.02
                rows.append([evaluate(args, model, text, quarter, m) for m in MASSES])
            if rows:
                cells = [f"{statistics.mean(r[i][0] for r in rows):.4f} ({100 * statistics.mean(r[i][1] for r in rows):.1f} %)"
                         for i in range(len(MASSES))]
                print(f"| {arm} | {len(rows)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
