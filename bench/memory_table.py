#!/usr/bin/env python3
"""What smaller files of one model take and give: bytes, memory, speed and quality, side by side.

    memory_table.py --dil DIL --text TEXT [--chunks 32] [--rounds 5] [--threads T] [--json FILE] NAME=FILE.gguf...

The first file is the float model, which the others are compared with. For each: bytes of the file; the largest resident set of a prompt of
512 tokens and an answer of 128 (once to pack the weights, then measured); tokens per second of both, the median of the rounds,
in which the files take turns; perplexity and divergence from the float model on the text. Only ratios mean anything on another machine.
"""
import argparse
import os
import statistics
import sys
import tempfile

from measure import run, write_json

TESTS = ["-p", "512", "-n", "128", "-r", "1", "--no-limits", "-q", "-o", "json"]


def measure_speed(dil, files, threads, rounds):
    """Medians by name: prompt and answer in tokens per second, the largest resident set."""
    samples = {name: ([], [], []) for name in files}
    for i in range(rounds + 1):
        for name, path in files.items():
            done = run([dil, "bench", "-m", path, *TESTS, *threads])
            if i == 0:  # packs the weights
                continue
            rows = done.json()
            prompt = next(r for r in rows if r["n_prompt"])
            answer = next(r for r in rows if r["n_gen"])
            for values, value in zip(samples[name], (prompt["median_ts"], answer["median_ts"], done.largest)):
                values.append(value)
    return {name: tuple(statistics.median(v) for v in values) for name, values in samples.items()}


def measure_quality(dil, files, text, chunks, threads):
    """By name: perplexity and divergence from the first file."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        base = os.path.join(folder, "base")
        for name, path in files.items():
            if not found:
                r = run([dil, "eval", "perplexity", "-m", path, "-f", text, "-c", "512", "--chunks", chunks, "--save-base", base,
                         "--json", "-q", *threads]).json()
                found[name] = (r["perplexity"], 0.0)
            else:
                r = run([dil, "eval", "kld", "-m", path, "--base", base, "--json", "-q", *threads]).json()
                found[name] = (r["perplexity"], r["mean_kld"])
    return found


def table(rows):
    first = rows[0]
    lines = ["| file | MB | of the first | resident, MB | of the first | prompt, t/s | answer, t/s | of the first | perplexity | divergence |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(f"| {r['name']} | {r['bytes'] / 1e6:.1f} | {r['bytes'] / first['bytes']:.2f} | {r['rss'] / 1e6:.0f} | {r['rss'] / first['rss']:.2f} | "
                     f"{r['prompt']:.0f} | {r['answer']:.0f} | {r['answer'] / first['answer']:.2f} | {r['perplexity']:.3f} "
                     f"({100 * (r['perplexity'] / first['perplexity'] - 1):+.1f} %) | {r['kld']:.4f} |")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dil", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--chunks", type=int, default=32)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads")
    p.add_argument("--json")
    p.add_argument("files", nargs="+", metavar="NAME=FILE")
    o = p.parse_args()
    files = dict(f.split("=", 1) for f in o.files)
    threads = ["-t", o.threads] if o.threads else []
    speed = measure_speed(o.dil, files, threads, o.rounds)
    quality = measure_quality(o.dil, files, o.text, o.chunks, threads)
    rows = [{"name": name, "bytes": os.path.getsize(path), "rss": speed[name][2], "prompt": speed[name][0], "answer": speed[name][1],
             "perplexity": quality[name][0], "kld": quality[name][1]} for name, path in files.items()]
    write_json(o.json, rows)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
