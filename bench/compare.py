#!/usr/bin/env python3
"""Speed beside another engine, on the same files, interleaved in one run.

    compare.py --dil DIL --peer LLAMA_BENCH [--runs 5] [-p 512] [-n 128] [-t 2] [--json OUT] MODEL.gguf...

Rounds alternate: one run of ours, one of the peer's, per test, so that a noisy neighbour meets both. Printed: medians and
the ratio of medians with the smallest and largest ratio of a round. LLAMA_BENCH is any program with llama-bench's options.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys


def run_ours(a, model, test):
    size = ["-p", str(a.p), "-n", "0"] if test == "pp" else ["-p", "0", "-n", str(a.n)]
    out = subprocess.run([a.dil, "bench", "-m", model, *size, "-t", str(a.t), "-r", "1", "-o", "json", "-q"],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out)[0]["avg_ts"]


def run_peer(a, model, test):
    size = ["-p", str(a.p), "-n", "0"] if test == "pp" else ["-p", "0", "-n", str(a.n)]
    out = subprocess.run([a.peer, "-m", model, *size, "-t", str(a.t), "-r", "1", "-o", "json"],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out)[0]["avg_ts"]


def measure(a, model, test):
    ours, peers = [], []
    for _ in range(a.runs):
        ours.append(run_ours(a, model, test))
        peers.append(run_peer(a, model, test))
    ratios = sorted(o / p for o, p in zip(ours, peers))
    return {"model": os.path.basename(model), "test": f"{test}{a.p if test == 'pp' else a.n}",
            "ours": statistics.median(ours), "peer": statistics.median(peers),
            "ratio": statistics.median(ours) / statistics.median(peers), "least": ratios[0], "most": ratios[-1]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dil", required=True)
    p.add_argument("--peer", required=True)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("-p", type=int, default=512)
    p.add_argument("-n", type=int, default=128)
    p.add_argument("-t", type=int, default=2)
    p.add_argument("--json")
    p.add_argument("models", nargs="+")
    a = p.parse_args()
    rows = []
    print("| file | test | ours t/s | peer t/s | ratio | in rounds |\n| --- | --- | ---: | ---: | ---: | --- |", flush=True)
    for model in a.models:
        for test in ("pp", "tg"):
            if (a.p if test == "pp" else a.n) == 0:
                continue
            r = measure(a, model, test)
            rows.append(r)
            print(f"| {r['model']} | {r['test']} | {r['ours']:.1f} | {r['peer']:.1f} | {r['ratio']:.2f} | "
                  f"{r['least']:.2f} .. {r['most']:.2f} |", flush=True)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)
    return 0 if all(r["ratio"] >= 1.0 for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
