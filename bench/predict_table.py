#!/usr/bin/env python3
"""What dil plan says of a model's speed, beside what dil bench measures.

    predict_table.py --dil DIL [--rounds 7] [--json FILE] MODEL[:key=value,...]...

Every case is a model with threads (t=1/2), depths (d=0/2048), prompts (p=512) and sequences at once (npl=1). In every round plan and a short bench take
turns, so that both meet the same machine; the figures are medians of the rounds, ratios of those of each round. Nothing is fitted: plan reads
the header and what was measured of the kernels, see docs/PERFORMANCE.md. Ends with 1 when a ratio is more than 15 % off.
"""
import argparse
import os
import statistics
import sys

from measure import cases_of, run, write_json

N_GEN = 128
NEAR = 0.15


def one_round(dil, name, case):
    """(predicted, measured) of the prompt and of generation; a prompt of several sequences is not measured: None."""
    many = int(case["npl"]) > 1
    common = [name, "-t", case["t"], "-d", case["d"], "-n", N_GEN, "-npl", case["npl"], "-c", int(case["d"]) + int(case["p"]) + N_GEN]
    guess = run([dil, "plan", *common, "-p", case["p"], "--json", "-q"]).json()["prediction"]
    rows = run([dil, "bench", "-m", *common, "-p", "0" if many else case["p"], "-r", "1", "--no-limits", "--no-profile", "-q", "-o", "json"]).json()
    found = {key: next(r["median_ts"] for r in rows if r[key]) for key in ("n_prompt", "n_gen") if key == "n_gen" or not many}
    prompt = None if many else (guess["prompt_tokens_per_second"], found["n_prompt"])
    return prompt, (guess["tokens_per_second"], found["n_gen"])


def middle(pairs):
    """(predicted, measured, ratio): medians; None where nothing was measured."""
    if pairs[0] is None:
        return None
    return (*(statistics.median(v) for v in zip(*pairs)), statistics.median(a / b for a, b in pairs))


def cell(m):
    return f"{m[0]:.4g} | {m[1]:.4g} | {m[2]:.2f}" if m else "| |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dil", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json")
    parser.add_argument("cases", nargs="+")
    args = parser.parse_args()
    rows, ratios = [], []
    print("| model | threads | depth | sequences | prompt t/s predicted | measured | ratio | generation t/s predicted | measured | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, case in cases_of(args.cases, {"t": "0", "d": "0", "p": "512", "npl": "1"}):
        one_round(args.dil, name, case)  # measures the machine, packs the weights
        prompt, generation = map(middle, zip(*(one_round(args.dil, name, case) for _ in range(args.rounds))))
        rows.append({"model": name, **case, "prompt": prompt, "generation": generation})
        ratios += [m[2] for m in (prompt, generation) if m]
        print(f"| {os.path.basename(name)} | {case['t']} | {case['d']} | {case['npl']} | {cell(prompt)} | {cell(generation)} |", flush=True)
    off = [abs(r - 1) for r in ratios]
    near = sum(x <= NEAR for x in off)
    print(f"\n{near} of {len(off)} predictions within 15 %; median error {100 * statistics.median(off):.1f} %, largest {100 * max(off):.1f} %")
    write_json(args.json, rows)
    return 0 if near == len(off) else 1


if __name__ == "__main__":
    sys.exit(main())
