#!/usr/bin/env python3
"""The cache model beside cachegrind: what single kernels miss, as a Markdown table.

    cache_table.py --bench build/test/bin/bench_cache_kernel [--d1 49152,12] [--ll 2097152,16] [--runs 1]

Every kernel runs on fixed data at level avx2 (valgrind knows no AVX-512) under cachegrind, from cold caches; of its counts, those of the
kernel's own functions are taken (the fn= records of the output file; what they call is inlined or named too), reads and writes together. The model
traces the same calls with the same arguments. "LRU" is the model without ways. Ends with 1 when a count is more than a fifth off; where
both are less than a thousandth of the accesses, the difference counts in per cent of those. Needs valgrind; without it, says so and ends.
Where the processor's own counters can be read (perf), they stand in a second table: whole runs of the program, less the run of nothing, with
what prefetchers and other programs add; they are not judged.
"""
import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile

KERNELS = {
    "gemv_q4_k": ("gemv Q4_K, 2048 x 4096, 1 token", ["gemv_Q4_K"]),
    "gemv_q8_0": ("gemv Q8_0, 2048 x 2048, 4 tokens", ["gemv_Q8_0"]),
    "gemm_q4_k": ("gemm Q4_K, 4 tiles of 2 panels x 256 tokens, 2048 columns", ["gemm_Q4_K"]),
    "gemm_q4_k_wide": ("the same, 4096 columns", ["gemm_Q4_K"]),
    "attention": ("attention, 96 queries, 2048 tokens, 2 heads of 128, f16", ["attn_qk", "attn_pv", "attn_softmax", "kv_load_k", "kv_load_v", "load_v_row"]),
    "norm": ("rmsnorm and quantize, 512 rows of 2048", ["vec_rmsnorm", "vec_quantize", "quantize_row"]),
    "silu_mul": ("silu_mul, 512 rows of 2048", ["vec_silu_mul"]),
}
OFF = 0.20  # what a count may be off
FEW = 0.001  # of the accesses: too few to matter


def counts_by_function(path):
    """{function: Counter of events} of a cachegrind output file."""
    events, function, found = [], None, collections.defaultdict(collections.Counter)
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("events:"):
                events = line.split()[1:]
            elif line.startswith("fn="):
                function = line[3:].strip().split(".")[0]  # clones: name.constprop.0
            elif line[:1].isdigit():
                for event, count in zip(events, line.split()[1:]):
                    found[function][event] += int(count)
    return found


def simulate(valgrind, o, kernel, functions):
    """(accesses, misses of D1, misses of LL) of the functions."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        command = [valgrind, "--tool=cachegrind", "--cache-sim=yes", f"--D1={o.d1},64", f"--LL={o.ll},64", f"--cachegrind-out-file={out}",
                   o.bench, "run", kernel, str(o.runs)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: ended with {done.returncode}: {done.stderr[-500:]}")
        found = counts_by_function(out)
    total = sum((found[f] for f in functions), collections.Counter())
    if not total["Dr"]:
        raise SystemExit(f"cache_table: cachegrind saw none of {', '.join(functions)}; has the kernel another name now?")
    return total["Dr"] + total["Dw"], total["D1mr"] + total["D1mw"], total["DLmr"] + total["DLmw"]


def trace(o, kernel):
    done = subprocess.run([o.bench, "model", kernel, str(o.runs), o.d1, o.ll], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


COUNTERS = ("L1-dcache-load-misses", "LLC-load-misses")
COUNTED_RUNS = 200  # beside what starting takes


def read_counters(perf, o, kernel, runs):
    """Counts of COUNTERS of one process; None where the machine has none."""
    command = [perf, "stat", "-x", ",", "-e", ",".join(COUNTERS), o.bench, "run", kernel, str(runs)]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = [line.split(",") for line in done.stderr.splitlines() if line.count(",") >= 2]
    counts = {row[2].split(":")[0]: row[0] for row in rows}
    if done.returncode or not all(counts.get(name, "").isdigit() for name in COUNTERS):
        return None
    return [int(counts[name]) for name in COUNTERS]


def print_counters(o):
    perf = shutil.which("perf")
    if not perf or read_counters(perf, o, next(iter(KERNELS)), 1) is None:
        print("\nThe processor's counters cannot be read here (perf, and a machine that has them).")
        return
    print("\n| per run | L1 misses: counted | model | last level: counted | model |\n|---|---:|---:|---:|---:|")
    for kernel, (title, _) in KERNELS.items():
        many, one = (read_counters(perf, o, kernel, n) for n in (COUNTED_RUNS + 1, 1))
        counted = [(a - b) // COUNTED_RUNS for a, b in zip(many, one)]
        model = trace(o, kernel)
        print(f"| {title} | {counted[0]} | {model['d1_ways']} | {counted[1]} | {model['ll_ways']} |", flush=True)


def compare(simulated, modelled, accesses):
    """(what the table says, whether that is near enough)."""
    off = modelled / max(simulated, 1) - 1
    if abs(off) <= OFF or max(simulated, modelled) >= FEW * accesses:
        return f"{100 * off:+.1f} %", abs(off) <= OFF
    off = (modelled - simulated) / accesses
    return f"{100 * off:+.3f} % of accesses", abs(off) <= OFF * FEW


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", required=True, help="the program bench_cache_kernel")
    p.add_argument("--d1", default="49152,12", help="bytes and ways")
    p.add_argument("--ll", default="2097152,16")
    p.add_argument("--runs", type=int, default=1)
    o = p.parse_args()
    valgrind = shutil.which("valgrind")
    if not valgrind:
        print("cache_table: valgrind is not installed (apt install valgrind), nothing was measured")
        return 0
    all_near = True
    print(f"| D1 {o.d1}, LL {o.ll} | accesses | D1: cachegrind | model | off | LRU | LL: cachegrind | model | off | LRU |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for kernel, (title, functions) in KERNELS.items():
        accesses, d1, ll = simulate(valgrind, o, kernel, functions)
        model = trace(o, kernel)
        cells = [f"{title} | {accesses}"]
        for level, simulated in (("d1", d1), ("ll", ll)):
            text, near = compare(simulated, model[f"{level}_ways"], accesses)
            all_near = all_near and near
            cells.append(f"{simulated} | {model[f'{level}_ways']} | {text} | {model[level]}")
        print(f"| {' | '.join(cells)} |", flush=True)
    print_counters(o)
    if not all_near:
        print("cache_table: a count is more than a fifth off", file=sys.stderr)
    return 0 if all_near else 1


if __name__ == "__main__":
    sys.exit(main())
