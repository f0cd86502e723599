#!/usr/bin/env python3
"""What dil plan says of a model's speed and memory, beside what dil bench measures and what the process took.

    predict_table.py --dil DIL [--rounds 5] [--json FILE] MODEL[:key=value,...]...

Every case is a model with threads (t=1,2), depths (d=0,2048), prompts (p=512) and sequences at once (npl=1); several values of a key
are written with a slash: t=1/2. In every round plan and bench take turns, so that both meet the same machine; the figures are medians
of the rounds. Nothing is fitted: plan reads the header and what was measured of the kernels, see docs/PERFORMANCE.md.
"""
import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile

N_GEN = 32


def run(command):
    """Standard output as JSON and the largest resident set in bytes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        p = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if p.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}: ended with {p.returncode}: {err.read().decode(errors='replace')[-500:]}")
        return json.loads(out.read().decode()), usage.ru_maxrss * 1024


def cases_of(text):
    name, _, rest = text.partition(":")
    keys = {"t": ["0"], "d": ["0"], "p": ["512"], "npl": ["1"]}
    for part in filter(None, rest.split(",")):
        key, _, values = part.partition("=")
        if key not in keys:
            raise SystemExit(f"{text}: wanted t, d, p or npl, found '{key}'")
        keys[key] = values.split("/")
    for values in itertools.product(*keys.values()):
        yield name, dict(zip(keys, values))


def measure(dil, name, case, rounds):
    """Medians: predicted and measured prompt and generation, planned bytes and the largest resident set."""
    context = int(case["d"]) + int(case["p"]) + N_GEN
    common = [name, "-t", case["t"], "-d", case["d"], "-n", N_GEN, "-npl", case["npl"], "-c", context]
    samples = []
    for i in range(rounds + 1):
        plan, _ = run([dil, "plan", *common, "-p", case["p"], "--json", "-q"])
        rows, rss = run([dil, "bench", "-m", *common, "-p", "0" if int(case["npl"]) > 1 else case["p"], "-r", "1", "--no-limits",
                         "--no-profile", "-q", "-o", "json"])
        if i == 0:  # measures the machine, packs the weights
            continue
        guess = plan["prediction"]
        prompt = next((r["median_ts"] for r in rows if r["n_prompt"]), None)
        answer = next(r["median_ts"] for r in rows if r["n_gen"])
        samples.append((guess["prompt_tokens_per_second"], prompt, guess["tokens_per_second"], answer, plan["total_bytes"], rss,
                        guess["prompt_tokens_per_second"] / prompt if prompt else None, guess["tokens_per_second"] / answer))
    def middle(values):
        return None if values[0] is None else statistics.median(values)
    return dict(zip(("prompt_predicted", "prompt_measured", "generation_predicted", "generation_measured", "planned_bytes", "resident_bytes",
                     "prompt_ratio", "generation_ratio"), map(middle, zip(*samples))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dil", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument("cases", nargs="+")
    args = parser.parse_args()
    rows = []
    print("| model | threads | depth | sequences | prompt t/s predicted | measured | ratio | generation t/s predicted | measured | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, case in itertools.chain.from_iterable(map(cases_of, args.cases)):
        r = measure(args.dil, name, case, args.rounds)
        rows.append({"model": name, **case, **r})
        prompt = f"{r['prompt_predicted']:.0f} | {r['prompt_measured']:.0f} | {r['prompt_ratio']:.2f}" if r["prompt_ratio"] else "| |"
        print(f"| {os.path.basename(name)} | {case['t']} | {case['d']} | {case['npl']} | {prompt} | {r['generation_predicted']:.1f} | "
              f"{r['generation_measured']:.1f} | {r['generation_ratio']:.2f} |", flush=True)
    ratios = [r[k] for r in rows for k in ("prompt_ratio", "generation_ratio") if r[k]]
    near = sum(abs(x - 1) <= 0.15 for x in ratios)
    print(f"\n{near} of {len(ratios)} predictions within 15 %; median error {100 * statistics.median(abs(x - 1) for x in ratios):.1f} %, "
          f"largest {100 * max(abs(x - 1) for x in ratios):.1f} %")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
