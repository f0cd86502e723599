#!/usr/bin/env python3
"""Quality against hits of the ablation's models when the engine prefers experts in memory: the curve that training must beat.

Exports every complete run of bench/ablation.py, then evaluates it token by token on held-out text with an LRU pool of a quarter
of the experts and `--route cache` over a sweep of its mass budget (0: exact routing). Prints Markdown: nats per token beside
exact routing's, and the share of requests found in memory; means over seeds.

    python3 bench/ablation_curve.py --dil build/release/bin/dil --out build/ablation --texts en.txt,tr.txt > curve.md
    python3 bench/ablation_curve.py --draw curve.md > curve.svg
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys

os.environ["DIL_LANG"] = "en"  # the command's figures are read here

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


# ---- the picture ----

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000", "#e69f00", "#999999"]
WIDTH, HEIGHT, MARGIN = 460, 340, 60


def read_tables(path):
    """{text: {arm: [(hits in %, nats)]}}"""
    texts, arms = {}, None
    with open(path, encoding="utf-8") as f:
        for line in f:
            if ": nats per token" in line:
                arms = texts.setdefault(line.split(":")[0], {})
            points = [(float(hits), float(nats)) for nats, hits in re.findall(r"([\d.]+) \(([\d.]+) %\)", line)]
            if points:
                arms[line.split("|")[1].strip()] = points
    return texts


def draw(path):
    texts = read_tables(path)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{len(texts) * (WIDTH + MARGIN) + MARGIN}" height="{HEIGHT + 2 * MARGIN}" '
          'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>')
    for place, (text, arms) in enumerate(texts.items()):
        hits, nats = zip(*[p for points in arms.values() for p in points])
        left, right, low, high = min(hits), max(hits), min(nats), max(nats)
        x0 = MARGIN + place * (WIDTH + MARGIN)

        def at(p):
            return x0 + (p[0] - left) / (right - left) * WIDTH, MARGIN + (high - p[1]) / (high - low) * HEIGHT

        print(f'<text x="{x0}" y="{MARGIN - 34}" font-size="14">{text}: nats per token against requests found in memory</text>')
        for i in range(6):
            h, n = left + (right - left) * i / 5, low + (high - low) * i / 5
            (x, _), (_, y) = at((h, low)), at((left, n))
            print(f'<path d="M{x:.1f} {MARGIN}V{MARGIN + HEIGHT}M{x0} {y:.1f}H{x0 + WIDTH}" stroke="#ddd"/>'
                  f'<text x="{x:.1f}" y="{MARGIN + HEIGHT + 16}" text-anchor="middle">{h:.0f} %</text>'
                  f'<text x="{x0 - 4}" y="{y + 4:.1f}" text-anchor="end">{n:.2f}</text>')
        for i, (arm, points) in enumerate(arms.items()):
            colour, line = COLOURS[i % len(COLOURS)], " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, points))
            x, y = at(points[0])
            print(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
                  f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
                  f'<text x="{x0 + 8 + i % 4 * 110}" y="{MARGIN - 18 + i // 4 * 13}" fill="{colour}">&#9679; {arm}</text>')
    print("</svg>")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dil", default="build/release/bin/dil")
    p.add_argument("--out", default="build/ablation")
    p.add_argument("--texts", default="")
    p.add_argument("--draw", metavar="TABLES", help="draws the tables that an earlier run printed, as SVG; a dot: exact routing")
    p.add_argument("--arms", default="switch,price,price+cache,price+swarm,price+nash,all,cache5,cache25")
    p.add_argument("--seeds", default="1,2,3")
    p.add_argument("--chunks", type=int, default=12)
    args = p.parse_args()
    if args.draw or not args.texts:
        return draw(args.draw) if args.draw else p.error("--texts or --draw")
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
