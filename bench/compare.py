#!/usr/bin/env python3
"""The comparison of docs/PERFORMANCE.md: DilModeli beside other engines, on the same files, in turns, in one run.

    compare.py --dil DIL --peer NAME=PATH[,ARG...] [--peer ...] --out DIRECTORY MODEL.gguf...

PATH is a program with llama-bench's options. A name may come several times, with other arguments each time (modes): the best
mode counts, for each figure on its own:

    --peer llama.cpp=llama-bench --peer ik=ik/llama-bench,-rtr,1,-fa,1 --peer ik=ik/llama-bench,-fa,1

A round is one run of everybody for one test, in an order that turns; after --rounds of them the medians are taken, and the
median of the rounds' ratios with its interval from order statistics. Limits (reading, arithmetic) are measured by `dil bench`
in every quiet round: on shared machines they change within minutes. --busy measures everything twice: quiet, and with one spinning process per core beside both sides.

Written into DIRECTORY: results.json (every sample; finished rows are not measured again when the same command is repeated),
table.md and chart.svg. --draw only draws them again from results.json.
"""
import argparse
import contextlib
import html
import json
import math
import os
import statistics
import subprocess
import sys
import time

OURS = "DilModeli"


# ---- statistics --------------------------------------------------------------------------------------------------------

def median_interval(values):
    """(median, low, high, coverage): order statistics that hold the true median with at least 95 % where n >= 6 allows it."""
    x, n = sorted(values), len(values)
    below, k = 0.5 ** n, 0
    while k + 1 < (n + 1) // 2 and 2 * (below + math.comb(n, k + 1) * 0.5 ** n) <= 0.05:
        k += 1
        below += math.comb(n, k) * 0.5 ** n
    return statistics.median(x), x[k], x[n - 1 - k], 1 - 2 * below


def best_mode(modes):
    """Of {label: samples}, the label with the highest median."""
    return max(modes, key=lambda label: statistics.median(modes[label]))


def summary(row):
    """What the table shows of a row of results.json: medians, and per peer its best mode and the ratio."""
    ours = row["samples"][OURS]
    out = {"ours": statistics.median(ours), "peers": {}}
    names = {label.split(" ")[0] for label in row["samples"]} - {OURS}
    for name in sorted(names):
        modes = {label: x for label, x in row["samples"].items() if label.split(" ")[0] == name and x}
        if not modes:
            continue
        label = best_mode(modes)
        ratio = median_interval([a / b for a, b in zip(ours, modes[label])])
        out["peers"][name] = {"mode": label, "speed": statistics.median(modes[label]), "ratio": ratio}
    return out


# ---- running -----------------------------------------------------------------------------------------------------------

def speed_of(output, test):
    """t/s of the test in llama-bench's JSON; text around it does not matter."""
    start, end = output.find("["), output.rfind("]")
    rows = None
    while 0 <= start < end and rows is None:
        try:
            rows = json.loads(output[start:end + 1])
        except ValueError:
            start = output.find("[", start + 1)
    for r in rows if isinstance(rows, list) else []:
        if isinstance(r, dict) and (r.get("n_prompt"), r.get("n_gen")) == (test["p"], test["n"]) and r.get("avg_ts", 0) > 0:
            return r["avg_ts"]
    raise ValueError(f"no result for -p {test['p']} -n {test['n']} in its output: {output[-300:]!r}")


def command_of(engine, model, test, threads):
    size = ["-p", str(test["p"]), "-n", str(test["n"])] + (["-d", str(test["d"])] if test["d"] else [])
    own = ["bench", "-q", *(["--no-limits"] if test["busy"] else [])] if engine["ours"] else []
    return [engine["path"], *own, "-m", model, *size, "-t", str(threads), "-r", "1", "-o", "json", *engine["args"]]


SHARES = ("median_ts", "share_of_read", "share_of_peak", "gb_per_s", "gmac_per_s", "bytes_per_token", "read_gb_per_s",
          "limit_read_gb_per_s", "limit_int8_gmac_per_s", "limit_bf16_gmac_per_s", "limit_f32_gmac_per_s")


def run_once(engine, model, test, threads):
    """(t/s, shares): of a quiet run of ours the shares of limits measured beside it, else None."""
    done = subprocess.run(command_of(engine, model, test, threads), capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise ValueError(f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    speed = speed_of(done.stdout, test)
    if not engine["ours"] or test["busy"]:
        return speed, None
    row = json.loads(done.stdout)[0]
    return speed, {key: row[key] for key in SHARES if key in row}


@contextlib.contextmanager
def spinning(n):
    """n processes that never stop computing, for as long as the block lasts."""
    crowd = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for p in crowd:
            p.kill()
        for p in crowd:
            p.wait()


class Results:
    """results.json: rows by key, written whole after each one."""

    def __init__(self, path):
        self.path = path
        self.rows = {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                self.rows = {r["key"]: r for r in json.load(f)["rows"]}

    def add(self, row):
        self.rows[row["key"]] = row
        with open(self.path + ".new", "w", encoding="utf-8") as f:
            json.dump({"rows": list(self.rows.values())}, f, indent=1)
        os.replace(self.path + ".new", self.path)


def measure_row(a, engines, model, test, tell):
    """One row: --rounds rounds of everybody. An engine that fails is left out, with its reason."""
    row = {"model": os.path.basename(model).removesuffix(".gguf"), "test": test, "threads": a.threads, "rounds": a.rounds,
           "samples": {e["label"]: [] for e in engines}, "failed": {}}
    with spinning(os.cpu_count() if test["busy"] else 0):
        row["shares"] = []
        for i in range(a.rounds):
            turn = i % len(engines)
            for e in engines[turn:] + engines[:turn]:
                if e["label"] in row["failed"]:
                    continue
                tell(e["label"], i)
                try:
                    speed, shares = run_once(e, model, test, a.threads)
                    row["samples"][e["label"]].append(speed)
                    row["shares"] += [shares] if shares else []
                except ValueError as error:
                    if e["ours"]:
                        raise SystemExit(f"compare: {e['path']}: {error}")
                    row["failed"][e["label"]] = str(error)
                    row["samples"][e["label"]] = []
                    print(f"\ncompare: {e['label']}: {error}", file=sys.stderr)
    row["samples"] = {label: x for label, x in row["samples"].items() if x}
    return row


def test_name(t):
    return (f"pp{t['p']}" if t["p"] else f"tg{t['n']}") + (f" @ d{t['d']}" if t["d"] else "") + (" busy" if t["busy"] else "")


def measure(a, engines, results):
    tests = [{"p": p, "n": n, "d": d, "busy": busy} for busy in ([False, True] if a.busy else [False]) for d in a.depths
             for p, n in ((a.p, 0), (0, a.n)) if p + n]
    todo = []
    for model in a.models:
        for t in tests:
            key = json.dumps([os.path.basename(model), t, a.threads, a.rounds, [[e["label"], e["path"], e["args"]] for e in engines]])
            if key not in results.rows:
                todo.append((key, model, t))
    started = time.monotonic()
    for done, (key, model, t) in enumerate(todo):
        def tell(label, i, done=done, model=model, t=t):
            part = done + i / a.rounds
            left = (time.monotonic() - started) / part * (len(todo) - part) if part else 0
            if sys.stderr.isatty():
                print(f"\r{done + 1} of {len(todo)}: {os.path.basename(model)} {test_name(t)}, round {i + 1} of {a.rounds}, {label}"
                      f" ({left / 60:.0f} min left)\033[K", end="", file=sys.stderr, flush=True)
        row = measure_row(a, engines, model, t, tell)
        row["key"] = key
        results.add(row)
        left = (time.monotonic() - started) / (done + 1) * (len(todo) - done - 1)
        print(f"\r{done + 1} of {len(todo)}: {row['model']} {test_name(t)}: {shown(row)} ({left / 60:.0f} min left)\033[K", file=sys.stderr, flush=True)


# ---- the table ---------------------------------------------------------------------------------------------------------

def shown(row):
    s = summary(row)
    return f"{s['ours']:.1f} t/s" + "".join(f", {p['ratio'][0]:.2f}x {name}" for name, p in s["peers"].items())


def share_text(row):
    """Share of the limit that bounds the test: arithmetic for a prompt, reading for an answer; the median of the rounds. Reading is what
    memory gave just before and after the run; in brackets the share of the best of the round's start."""
    key = "share_of_peak" if row["test"]["p"] else "share_of_read"
    values = [x[key] for x in row["shares"] if x.get(key)]
    best = [x["gb_per_s"] / x["limit_read_gb_per_s"] for x in row["shares"] if x.get("limit_read_gb_per_s")]
    text = f"{100 * statistics.median(values):.0f} %" if values else ""
    return text + (f" ({100 * statistics.median(best):.0f})" if text and best and not row["test"]["p"] else "")


def limits_text(rows):
    """Median and range of the limits of all rounds."""
    out = []
    for name, key, unit in (("reading", "limit_read_gb_per_s", "GB/s (tg)"), ("around the runs", "read_gb_per_s", "GB/s"), ("int8", "limit_int8_gmac_per_s", "Gmac/s (pp)"),
                            ("bf16", "limit_bf16_gmac_per_s", "Gmac/s"), ("f32", "limit_f32_gmac_per_s", "Gmac/s")):
        values = sorted(x[key] for r in rows for x in r["shares"] if x.get(key))
        if values:
            out.append(f"{name} {statistics.median(values):.1f} ({values[0]:.1f} .. {values[-1]:.1f}) {unit}")
    return f" Limits measured in every round: {', '.join(out)}." if out else ""


def table(rows):
    names = sorted({name for r in rows for name in summary(r)["peers"]})
    head = ["file", "test", "ours t/s", "of limit"] + [c for n in names for c in (f"{n} t/s", "ratio")]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    quiet = {(r["model"], test_name(dict(r["test"], busy=False))): summary(r)["ours"] for r in rows if not r["test"]["busy"]}
    for r in rows:
        s = summary(r)
        ours = f"{s['ours']:.1f}"
        base = quiet.get((r["model"], test_name(dict(r["test"], busy=False))))
        if r["test"]["busy"] and base:
            ours += f" ({100 * s['ours'] / base:.0f} % of quiet)"
        cells = [r["model"], test_name(r["test"]), ours, share_text(r)]
        for name in names:
            p = s["peers"].get(name)
            mode = p["mode"][len(name):].strip() if p else ""
            cells += [f"{p['speed']:.1f}" + (f" ({mode})" if mode else ""), "{:.2f} ({:.2f} .. {:.2f})".format(*p["ratio"][:3])] if p else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    coverage = min((p["ratio"][3] for r in rows for p in summary(r)["peers"].values()), default=0)
    note = f"\nMedians of {rows[0]['rounds']} rounds; in brackets the interval of the median ratio ({100 * coverage:.1f} %). {rows[0]['threads']} threads."
    note += limits_text(rows)
    return "\n".join(lines) + "\n" + note + "\n"


# ---- the chart ---------------------------------------------------------------------------------------------------------

STYLE = """text { font: 13px sans-serif; fill: #24292f } .small { font-size: 11px; fill: #57606a } .axis { stroke: #8c959f; stroke-width: 1 }
.grid { stroke: #8c959f; stroke-opacity: .35; stroke-width: 1 } .one { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 5 4 }
.range { stroke: #24292f; stroke-width: 1.5 } .back { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9da7b3 } .range { stroke: #e6edf3 } .one { stroke: #ff7b72 }
.back { fill: #0d1117 } }"""
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]  # told apart by colour-blind readers too


def chart(rows):
    """Horizontal bars: how many times as fast as each peer, with the interval; a dashed line at 1."""
    names = sorted({name for r in rows for name in summary(r)["peers"]})
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    bars = [(r, [(n, summary(r)["peers"][n]) for n in names if n in summary(r)["peers"]]) for r in rows]
    top = max([p["ratio"][2] for _, ps in bars for _, p in ps] + [1.0]) * 1.08
    left, width, bar, gap, head = 300, 560, 14, 12, 64
    height = head + sum(len(ps) * bar + gap for _, ps in bars) + 46
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 1e9) if top / s <= 9)

    def x(v):
        return left + width * v / top

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" viewBox="0 0 {left + width + 90} {height}" role="img">',
           f"<title>Speed of {OURS} relative to other engines</title><style>{STYLE}</style>",
           f'<rect class="back" width="100%" height="100%"/><text x="16" y="24" font-weight="bold">Times as fast as ... (tokens per second, {OURS} / peer)</text>']
    at = 16
    for name in names:
        out.append(f'<rect x="{at}" y="36" width="12" height="12" fill="{colour[name]}"/><text x="{at + 18}" y="47">{html.escape(name)}</text>')
        at += 40 + 8 * len(name)
    for i in range(int(top / step) + 1):
        out.append(f'<line class="grid" x1="{x(i * step):.1f}" x2="{x(i * step):.1f}" y1="{head}" y2="{height - 36}"/>'
                   f'<text class="small" x="{x(i * step):.1f}" y="{height - 20}" text-anchor="middle">{i * step:g}x</text>')
    y = head + gap / 2
    for r, ps in bars:
        middle = y + len(ps) * bar / 2 + 4
        out.append(f'<text x="{left - 10}" y="{middle:.1f}" text-anchor="end">{html.escape(r["model"][:28])} {html.escape(test_name(r["test"]))}</text>')
        for name, p in ps:
            ratio, low, high, _ = p["ratio"]
            out.append(f'<rect x="{left}" y="{y:.1f}" width="{x(ratio) - left:.1f}" height="{bar - 2}" fill="{colour[name]}"/>'
                       f'<line class="range" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y + bar / 2 - 1:.1f}" y2="{y + bar / 2 - 1:.1f}"/>'
                       f'<text class="small" x="{x(max(ratio, high)) + 6:.1f}" y="{y + bar - 4:.1f}">{ratio:.2f}</text>')
            y += bar
        y += gap
    out.append(f'<line class="axis" x1="{left}" x2="{left}" y1="{head}" y2="{height - 36}"/>'
               f'<line class="one" x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{head}" y2="{height - 36}"/></svg>')
    return "\n".join(out) + "\n"


# ---- the command -------------------------------------------------------------------------------------------------------

def engine_of(text):
    """NAME=PATH[,ARG...] -> an engine; its label is the name and the arguments."""
    name, equals, rest = text.partition("=")
    path, *args = rest.split(",")
    if not (name and equals and path) or " " in name:
        raise argparse.ArgumentTypeError(f"wanted NAME=PATH[,ARG...] such as ik=bin/llama-bench,-fa,1, found '{text}'")
    return {"ours": False, "path": path, "args": args, "label": " ".join([name, *args])}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dil", default="build/release/bin/dil")
    p.add_argument("--peer", type=engine_of, action="append", default=[], metavar="NAME=PATH[,ARG...]")
    p.add_argument("--out", required=True, metavar="DIRECTORY")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("-p", type=int, default=512, help="tokens of the prompt test (0: none)")
    p.add_argument("-n", type=int, default=128, help="tokens of the generation test (0: none)")
    p.add_argument("-d", "--depths", type=lambda t: [int(x) for x in t.split(",")], default=[0], help="tokens already there: 0,4096")
    p.add_argument("-t", "--threads", type=int, default=2)
    p.add_argument("--busy", action="store_true", help="measure a second time beside one spinning process per core")
    p.add_argument("--draw", action="store_true", help="measure nothing")
    p.add_argument("models", nargs="*")
    a = p.parse_args()
    if a.rounds < 1:
        p.error("--rounds: wanted at least 1")
    if not a.draw and not (a.peer and a.models):
        p.error("wanted at least one --peer and one model, or --draw")
    for path in [] if a.draw else a.models + [e["path"] for e in a.peer if "/" in e["path"]]:
        if not os.path.exists(path):
            p.error(f"{path}: no such file")
    return a


def main():
    a = arguments()
    os.makedirs(a.out, exist_ok=True)
    results = Results(os.path.join(a.out, "results.json"))
    if not a.draw:
        measure(a, [{"ours": True, "path": a.dil, "args": [], "label": OURS}, *a.peer], results)
    rows = list(results.rows.values())
    if not rows:
        raise SystemExit(f"compare: {results.path} holds no rows")
    for name, text in (("table.md", table(rows)), ("chart.svg", chart(rows))):
        with open(os.path.join(a.out, name), "w", encoding="utf-8") as f:
            f.write(text)
    print(table(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
