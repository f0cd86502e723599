#!/usr/bin/env python3
"""What tuning gains: dil tune for each case, then the tuned settings and the usual ones in turns, where they differ.

    tune_table.py --dil DIL [--rounds 9] [--seconds 45] [--busy N] [--json FILE] MODEL[:key=value,...]...

A case is a model with threads (t=2), depth (d=0) and sequences at once (npl=1); several values of a key are written with a slash. --busy N runs
N programs that do nothing but compute beside everything. The profiles made here stay in a folder of their own.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile

from measure import cases_of, run, write_json


def speeds(dil, name, case, extra, env):
    """Tokens per second of a prompt of 512 (not with several sequences) and of generation."""
    prompt = "0" if int(case["npl"]) > 1 else "512"
    rows = run([dil, "bench", "-m", name, "-t", case["t"], "-d", case["d"], "-npl", case["npl"], "-p", prompt, "-n", "64", "-r", "1", "--no-limits", "-q",
                "-o", "json", *extra], env).json()
    return [next((r["median_ts"] for r in rows if r[key]), None) for key in ("n_prompt", "n_gen")]


def compare(dil, name, case, rounds, env):
    """Ratios tuned over usual, of prompts and of generation."""
    ratios = ([], [])
    for i in range(rounds):
        turns = [(), ("--no-profile",)]
        found = {}
        for extra in turns if i % 2 else reversed(turns):
            found[extra] = speeds(dil, name, case, extra, env)
        for values, tuned, usual in zip(ratios, found[()], found[("--no-profile",)]):
            if tuned:
                values.append(tuned / usual)
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dil", required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--json")
    parser.add_argument("cases", nargs="+")
    args = parser.parse_args()
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy)]
    rows = []
    print("| model | threads | depth | sequences | seconds | kept | prompt: tuned / usual | generation: tuned / usual |\n|---|---:|---:|---:|---:|---|---|---|")
    try:
        with tempfile.TemporaryDirectory() as folder:
            env = dict(os.environ, XDG_CACHE_HOME=os.path.join(folder, "cache"))
            for name, case in cases_of(args.cases, {"t": "0", "d": "0", "npl": "1"}):
                speeds(args.dil, name, case, (), env)  # packs the weights
                tuned = run([args.dil, "tune", name, "-t", case["t"], "-d", case["d"], "-npl", case["npl"], "--seconds", args.seconds, "--json", "-q"]
                            + (["-p", "0"] if int(case["npl"]) > 1 else []), env).json()
                kept = [t["what"] for t in tuned["tried"] if t["kept"]] if tuned["changed"] else []
                ratios = compare(args.dil, name, case, args.rounds, env) if kept else ([], [])
                shown = [f"{statistics.median(v):.3f} ({min(v):.3f} .. {max(v):.3f})" if v else "" if kept else "the same" for v in ratios]
                rows.append({"model": name, **case, "kept": kept, "seconds": tuned["seconds"], "prompt": ratios[0], "generation": ratios[1]})
                print(f"| {os.path.basename(name)} | {case['t']} | {case['d']} | {case['npl']} | {tuned['seconds']:.0f} | {'; '.join(kept) or 'the usual'} | "
                      f"{shown[0]} | {shown[1]} |", flush=True)
    finally:
        for p in beside:
            p.kill()
    write_json(args.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
