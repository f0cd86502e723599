#!/usr/bin/env python3
"""What a run was planned to take, beside the largest memory its process had; then the same under ever smaller --memory.

    plan_memory.py --dil DIL [--context 4096] [--steps 5] [--json FILE] MODEL...

Each run fills the context it has with a prompt. The first start (which packs the weights) and the second are shown apart. The
budgets go from all a run takes down to less than the least: every run must stay within its plan and 5 %, or say clearly that it cannot be.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

SLACK = 1.05


def run(command, env):
    """Exit code, standard error, and the largest resident set in bytes."""
    with tempfile.TemporaryFile() as err:
        p = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=err, env=env)
        _, status, usage = os.wait4(p.pid, 0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), err.read().decode(errors="replace"), usage.ru_maxrss * 1024


def plan(dil, model, extra, env):
    done = subprocess.run([dil, "plan", model, "--json", "-q", *map(str, extra)], capture_output=True, text=True, env=env)
    return json.loads(done.stdout)


def fill(dil, model, context, extra, folder, env):
    """One run whose prompt fills the context but for a few tokens."""
    path = os.path.join(folder, "prompt")
    with open(path, "w", encoding="utf-8") as f:
        f.write("a " * (context - 24))
    return run([dil, "run", "-m", model, "-f", path, "-n", 4, "--no-template", *extra], env)


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
                probe_code, err, _ = fill(args.dil, model, 40, extra, folder, env) if budget else (0, "", 0)
                options = chosen_options(err) if budget else ["-c", args.context]
                name = os.path.basename(model)
                said = " ".join(map(str, options)) if budget else ("first start" if i == 0 else "second start")
                if probe_code:
                    rows.append({"model": model, "memory": budget, "refused": err.strip()})
                    print(f"| {name} | {budget / 1e6:.0f} MB | refused: {err.strip().splitlines()[-1][:120]} | | | |", flush=True)
                    continue
                planned = plan(args.dil, model, options, env)
                code, err, largest = fill(args.dil, model, planned["context"], extra, folder, env)
                if code:
                    raise SystemExit(f"{model}: ended with {code}: {err[-300:]}")
                ratio = largest / planned["total_bytes"]
                bad += ratio > SLACK or (budget is not None and largest > budget * SLACK)
                rows.append({"model": model, "memory": budget, "planned": planned["total_bytes"], "largest": largest})
                shown = f"{budget / 1e6:.0f} MB" if budget else ""
                print(f"| {name} | {shown} | {said} | {planned['total_bytes'] / 1e6:.1f} | {largest / 1e6:.1f} | {ratio:.3f} |", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)
    if bad:
        print(f"plan_memory: {bad} of {len(rows)} runs took more than planned and 5 %", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
