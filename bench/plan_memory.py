#!/usr/bin/env python3
"""What a run was planned to take, beside the largest memory its process had; then the same under ever smaller --memory.

    plan_memory.py --dil DIL [--context 4096] [--steps 5] [--json FILE] MODEL...

Each run fills the context it has with a prompt. The first start (which packs the weights) and the second are shown apart. The
budgets go from all a run takes down to less than the least: what --memory chooses (a short run says) must stay within its plan and 5 %, or it
must say clearly that it cannot be.
"""
import argparse
import os
import random
import sys
import tempfile

from measure import run, write_json

SLACK = 1.05
# A token each, and not all to the same experts.
WORDS = """the of and to in is that it for was on are with as his they at be this from have or by one had not but what all were when we there can
    an your which their said if do will each about how up out them then she many some so these would other into has more her two like him see time
    could no make than first been its who now people my made over did down only way find use may water long little very after words called just
    where most know""".split()


def plan(dil, model, extra, env):
    return run([dil, "plan", model, "--json", "-q", *extra], env, may_fail=True).json()  # 1: it does not fit


def fill(dil, model, context, extra, folder, env):
    """One run whose prompt fills the context but for a few tokens."""
    path = os.path.join(folder, "prompt")
    with open(path, "w", encoding="utf-8") as f:
        f.write(" ".join(random.Random(1).choices(WORDS, k=context - 24)))
    return run([dil, "run", "-m", model, "-f", path, "-n", 4, "--no-template", *extra], env, may_fail=True)


def chosen_options(err):
    """What --memory chose, as options."""
    lines = [line for line in err.splitlines() if "to fit in --memory: " in line]
    return lines[0].split("--memory: ")[1].split(" (")[0].split() if lines else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dil", required=True)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    rows, bad = [], 0
    print("| model | --memory | what was chosen | planned MB | largest MB | ratio |\n|---|---:|---|---:|---:|---:|")
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            env = dict(os.environ, XDG_CACHE_HOME=os.path.join(folder, "cache"))
            whole = plan(args.dil, model, ["-c", args.context], env)
            spare = whole["kv_bytes"] + whole["activation_bytes"] + whole["expert_bytes"]
            budgets = [None, None] + [whole["total_bytes"] - spare * i // args.steps for i in range(1, args.steps + 1)]
            for i, budget in enumerate(budgets):
                extra = ["--memory", budget] if budget else ["-c", args.context]
                probe = fill(args.dil, model, 40, extra, folder, env) if budget else None
                options = chosen_options(probe.err) if budget else ["-c", args.context]
                name = os.path.basename(model)
                said = " ".join(map(str, options)) if budget else ("first start" if i == 0 else "second start")
                if probe and probe.code:
                    rows.append({"model": model, "memory": budget, "refused": probe.err.strip()})
                    print(f"| {name} | {budget / 1e6:.0f} MB | refused: {probe.err.strip().splitlines()[-1][:120]} | | | |", flush=True)
                    continue
                planned = plan(args.dil, model, options, env)
                filled = fill(args.dil, model, planned["context"], options, folder, env)
                if filled.code:
                    raise SystemExit(f"{model}: ended with {filled.code}: {filled.err[-300:]}")
                largest = filled.largest
                ratio = largest / planned["total_bytes"]
                bad += ratio > SLACK or (budget is not None and largest > budget * SLACK)
                rows.append({"model": model, "memory": budget, "planned": planned["total_bytes"], "largest": largest})
                shown = f"{budget / 1e6:.0f} MB" if budget else ""
                print(f"| {name} | {shown} | {said} | {planned['total_bytes'] / 1e6:.1f} | {largest / 1e6:.1f} | {ratio:.3f} |", flush=True)
    write_json(args.json, rows)
    if bad:
        print(f"plan_memory: {bad} of {len(rows)} runs took more than planned and 5 %", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
