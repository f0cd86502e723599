#!/usr/bin/env python3
"""The ablation of the balancing loss (docs/decisions/015-ablation-of-the-loss.md): writes a config per arm and seed, runs
`dil train` on each, and prints the table from their logs. Runs that are complete are kept, so it can be stopped and started.

    python3 bench/ablation.py --dil build/release/bin/dil --data ../shared/data --out build/ablation [--arms price,all] [--seeds 1,2,3]
    python3 bench/ablation.py --out build/ablation --table          # only the table, as Markdown
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys

PRICE = {"price_rate": 2e-2}
NONE = {"balance_weight": 0, "cache_weight": 0, "swarm_weight": 0, "nash_weight": 0, "price_rate": 0}
ARMS = {
    "dense": None,
    "switch": {"balance_weight": 1e-2},
    "price": PRICE,
    "price+cache": {**PRICE, "cache_weight": 2e-2},
    "price+swarm": {**PRICE, "swarm_weight": 1e-2},
    "price+nash": {**PRICE, "nash_weight": 1e-2},
    "all": {**PRICE, "balance_weight": 1e-2, "cache_weight": 2e-2, "swarm_weight": 1e-2, "nash_weight": 1e-2},
    "cache5": {**PRICE, "cache_weight": 1e-1},
    "cache25": {**PRICE, "cache_weight": 5e-1},
}
STEPS = 240
# columns of the log, by source; then how the table shows them
MEASURES = [("bpb", "bits/byte", 4), ("hits_quarter", "hits N/4", 3), ("hits_twice", "hits 2k", 3), ("inside", "P(inside)", 3),
            ("exploitability", "exploitability", 4), ("entropy", "entropy", 3), ("distinct", "of 16 tokens", 1)]


def config(arm, seed, data, out):
    experts = ARMS[arm] is not None
    model = {"context_length": 256, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 64}
    model |= ({"num_experts": 32, "num_experts_per_tok": 2, "moe_intermediate_size": 128} if experts else
              {"architecture": "qwen3", "num_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 0, "intermediate_size": 256})
    return {
        "name": f"{arm} {seed}",
        "output": os.path.join(out, arm, str(seed)),
        "seed": seed,
        "tokenizer": {"size": 4096},
        "corpora": [
            {"name": "en", "path": os.path.join(data, "train_english_novels.txt.zst"), "weight": 3, "held_out": 0.01},
            {"name": "tr", "path": os.path.join(data, "train_turkish_docs.txt.zst"), "weight": 2, "held_out": 0.02},
        ],
        "model": model,
        "training": {"steps": STEPS, "batch_size": 64, "learning_rate": 2e-3, "muon": "attention", "evaluate_every": STEPS * 85 // 100,
                     "evaluate_sequences": 128},
        "loss": {**NONE, **(ARMS[arm] or {})},
    }


def rows_of(out, arm, seed):
    """The evaluated lines of a run's log, or []."""
    path = os.path.join(out, arm, str(seed), "metrics.csv")
    if not os.path.exists(path):
        return []
    with open(path, newline="") as f:
        return [row for row in csv.DictReader(f) if row["bpb_en"]]


def last_violation(out, arm, seed):
    """MaxVio of the last ten training batches, mean; NaN for a dense net."""
    with open(os.path.join(out, arm, str(seed), "metrics.csv"), newline="") as f:
        values = [float(row["violation"] or "nan") for row in list(csv.DictReader(f))[-10:]]
    return sum(values) / len(values)


def complete(out, arm, seed):
    rows = rows_of(out, arm, seed)
    return bool(rows) and int(rows[-1]["step"]) == STEPS


def run(args, arm, seed):
    folder = os.path.join(args.out, arm, str(seed))
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "config.json")
    with open(path, "w") as f:
        json.dump(config(arm, seed, os.path.abspath(args.data), os.path.abspath(args.out)), f, indent=1)
    if os.path.exists(os.path.join(folder, "checkpoint.bin")):
        os.remove(os.path.join(folder, "checkpoint.bin"))
    subprocess.run([args.dil, "train", path], check=True, stdout=subprocess.DEVNULL)


def cell(values, digits):
    """Mean and standard error."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def show(values, digits):
    return "-" if any(map(math.isnan, values)) else cell(values, digits)


def table(args, seeds):
    for row, moment in ((-1, "at the end"), (0, "at 85 % of the run, before prices fall to 0")):
        for source, language in (("en", "English"), ("tr", "Turkish")):
            print(f"\n{language}, held out, {moment}\n")
            print("| arm | runs | " + " | ".join(title for _, title, _ in MEASURES) + " | agreement | MaxVio |")
            print("|" + "---|" * (len(MEASURES) + 4))
            for arm in ARMS:
                done = [s for s in seeds if complete(args.out, arm, s)]
                runs = [rows_of(args.out, arm, s)[row] for s in done]
                if not runs:
                    continue
                cells = [show([float(r[f"{name}_{source}"] or "nan") for r in runs], digits)
                         for name, _, digits in MEASURES + [("agreement", "", 3)]]
                worst = [last_violation(args.out, arm, s) if row == -1 else float(r["violation"] or "nan") for s, r in zip(done, runs)]
                print(f"| {arm} | {len(runs)} | " + " | ".join(cells) + f" | {show(worst, 2)} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dil", default="build/release/bin/dil")
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--out", default="build/ablation")
    p.add_argument("--arms", default="dense,switch,price,price+cache,price+swarm,price+nash,all")
    p.add_argument("--seeds", default="1,2,3")
    p.add_argument("--table", action="store_true", help="run nothing")
    args = p.parse_args()
    seeds = [int(s) for s in args.seeds.split(",")]
    arms = args.arms.split(",")
    for arm in arms:
        if arm not in ARMS:
            sys.exit(f"ablation: arm '{arm}': wanted one of {', '.join(ARMS)}")
    for seed in seeds:
        for arm in arms:
            if not args.table and not complete(args.out, arm, seed):
                print(f"{arm}, seed {seed}", file=sys.stderr, flush=True)
                run(args, arm, seed)
    table(args, seeds)


if __name__ == "__main__":
    main()
