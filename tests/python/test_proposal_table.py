#!/usr/bin/env python3
"""bench/proposal_table.py and its report: what holds, misses and is in doubt, for fixed figures; reading what dil prints; a whole run against a
stand-in for dil, interrupted, gone on with and not measured again. bench/off_grid.py keeps the codes of a grid, if NumPy and gguf are there."""
import json
import math
import os
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(SOURCE, "bench"))
import proposal_report as report  # noqa: E402
import proposal_table as table  # noqa: E402

# Everything a file is worth follows from its type: bytes, tokens per second, perplexity. Answers of F32 repeat the prompt; others drop words.
STAND_IN = """#!{python}
import json, os, sys
a = sys.argv[1:]
after = lambda name: a[a.index(name) + 1]
def write(path, text):
    with open(path, "w") as f:
        f.write(text)
with open({log!r}, "a") as f:
    f.write(" ".join(a[:2]) + "\\n")
if a[0] == "quantize":
    kind = after("--type") if "--type" in a else "fitted" if "--size" in a else "ours"
    write(a[2], kind.ljust(int(after("--size")) if kind == "fitted" else {{"F32": 1000, "F16": 500, "Q8_0": 250, "ours": 150}}[kind]))
    sys.exit(0)
if a[:2] == ["eval", "bleu"]:
    score = lambda path: {{"score": float(len(open(path).read().split())), "low": 1, "high": 100}}
    hyps = [a[i + 1] for i, x in enumerate(a) if x == "--hyp"]
    found = {{"systems": [{{"file": h, "bleu": score(h)}} for h in hyps]}}
    if len(hyps) == 2:
        d = score(hyps[1])["score"] - score(hyps[0])["score"]
        found["difference"] = {{"bleu": {{"score": d, "low": d - 1, "high": d + 1, "p": 0.1}}}}
    print(json.dumps(found))
    sys.exit(0)
kind = open(after("-m")).read().strip()
if a[0] == "bench":
    speed = {{"F32": 10, "F16": 20, "Q8_0": 30, "ours": 60, "fitted": 50}}[kind]
    row = {{"n_threads": 2, "cpu": "none", "n_parallel": int(after("-npl")) if "-npl" in a else 1}}
    print(json.dumps([dict(row, n_prompt=int(after("-p")), n_gen=0, median_ts=9 * speed)] * (after("-p") != "0") +
                     [dict(row, n_prompt=0, n_gen=int(after("-n")), median_ts=speed * row["n_parallel"] / 2)]))
elif a[1] == "perplexity":
    write(after("--save-base"), "base")
    print(json.dumps({{"perplexity": 20.0, "error": 0.5}}))
elif a[1] == "kld":
    if kind == "fitted" and os.path.exists({stop!r}):
        os.remove({stop!r})
        sys.exit("no more")
    print(json.dumps({{"perplexity": 20.2 if kind == "fitted" else 21, "perplexity_error": 0.5, "mean_kld": 0.02, "log_ratio": 0.05, "log_ratio_error": 0.002}}))
elif a[1] == "outputs":
    drop = {{"F32": 0, "F16": 0, "Q8_0": 1, "ours": 3, "fitted": 2}}[kind]
    prompts = open(after("-f")).read().splitlines()
    write(after("-o"), "".join(" ".join(p.split()[drop:]) + "\\n" for p in prompts))
    print(json.dumps({{"answers": len(prompts)}}))
"""


def want(condition, text):
    if not condition:
        raise SystemExit(f"FAILED: {text}")


def judging():
    for value, low, high, direction, limit, result in (
            (1.9, 1.5, 1.99, "most", 2, "holds"), (1.9, 1.5, 2.3, "most", 2, "holds, within the noise"),
            (2.1, 1.5, 2.3, "most", 2, "miss, within the noise"), (2.1, 2.05, 2.3, "most", 2, "miss"), (2, 2, 2, "most", 2, "holds"),
            (4.1, 4.01, 4.3, "least", 4, "holds"), (4.1, 3.9, 4.3, "least", 4, "holds, within the noise"), (3.9, 3.8, 3.95, "least", 4, "miss"),
            (-50, -50, -50, "most", -40, "holds"), (-30, -30, -30, "most", -40, "miss")):
        found = report.judge(value, low, high, direction, limit)
        want(found == result, f"{value} [{low}, {high}] at {direction} {limit}: {found}")
    base = {"bytes": 1000, "perplexity": 20}
    both = lambda size, r, e: report.both_at_once("m", {"bytes": size, "perplexity": 20 * math.exp(r), "log_ratio_error": e}, base)[0]["verdict"]
    want([both(150, 0.01, 0.001), both(150, 0.03, 0.001), both(250, 0.01, 0.001), both(150, 0.015, 0.01), both(250, 0.015, 0.01)]
         == ["holds", "miss", "miss", "holds, within the noise", "miss"], "small and good at once")
    want(report.both_at_once("m", {"bytes": 150}, base) == [], "no verdict without a perplexity")
    value, low, high = report.change({"perplexity": 20 * math.exp(0.01), "log_ratio_error": 0.002}, base)
    want(abs(value - 1.005) < 1e-3 and abs(low - 0.6098) < 1e-3 and abs(high - 1.4018) < 1e-3, f"change of perplexity {value} {low} {high}")
    bleu = {"float": {"score": 40.0, "low": 30, "high": 50}, "difference": {"score": -1, "low": -2, "high": 0.5}}
    want(report.change_of_bleu(bleu) == (-2.5, -5.0, 1.25), str(report.change_of_bleu(bleu)))
    want(report.change_of_bleu({"float": {"score": 0}, "difference": {}}) is None, "a score of nothing has no per cent")
    want(report.ratio({"answer": [40, 50, 90]}, {"answer": [10, 10, 30]}, "answer") == (4, 3, 5), "the median of ratios, not the ratio of medians")


def reading():
    rows = [{"n_prompt": 512, "n_gen": 0, "median_ts": 9.5, "n_parallel": 1}, {"n_prompt": 0, "n_gen": 8, "median_ts": 3.5, "n_parallel": 1},
            {"n_prompt": 0, "n_gen": 8, "median_ts": 7.5, "n_parallel": 8}]
    want([table.test_of(rows, "n_prompt"), table.test_of(rows, "n_gen"), table.test_of(rows, "n_gen", 8)] == [9.5, 3.5, 7.5], "tests of dil bench")
    try:
        table.test_of(rows, "n_gen", 4)
    except SystemExit as error:
        want("n_gen and 4 at once" in str(error), str(error))
    else:
        want(False, "a test that is not there")
    want(table.continuation("one two three four five") == ("one two", "three four five"), "both halves")
    want(table.cut("a b c d e", "x y z") == "a b c" and table.cut("a", "x y") == "a" and table.cut("", "x") == "", "as many words as the truth")
    want(table.parts_of("speed,bleu") == ["speed", "bleu"], "parts")


def plans(room):
    """Which steps an --only makes."""
    of = lambda *more: list(table.plan(table.arguments(["--dil", os.path.join(room, "dil"), "--data", room, "--work", room, *more])))
    want({(s.row["model"], s.kind) for s in of("--only", "random")} == {("random-1.3B", k) for k in ("file", "memory", "speed")}, "random alone")
    want({s.kind for s in of("--only", "memory")} == {"file", "memory"} and not any("random" in s.row["model"] for s in of("--only", "memory")), "memory")
    want({s.row["model"] for s in of("--only", "memory,random")} >= {"random-1.3B", "SmolLM2-135M"}, "memory with the random model")
    everything = of()
    want(len({s.key for s in everything}) == len(everything), "every step has a key of its own")
    want(not any(s.kind in ("perplexity", "bleu") for s in everything if "random" in s.row["model"]), "random weights have no quality")
    want([s.key for s in of("--chunks", "7")] != [s.key for s in everything], "other settings, other keys")


def whole_run(room):
    log, stop = os.path.join(room, "log"), os.path.join(room, "stop")
    out, data = os.path.join(room, "out.md"), os.path.join(room, "out.json")
    command = [sys.executable, os.path.join(SOURCE, "bench", "proposal_table.py"), "--dil", os.path.join(room, "dil"), "--models", "Sigircik-dense",
               "--data", room, "--work", os.path.join(room, "work"), "--rounds", "3", "-o", out, "--json", data]
    calls = lambda: open(log, encoding="utf-8").read().splitlines()
    open(stop, "w").close()
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    want(done.returncode != 0 and "no more" in done.stderr and not os.path.exists(out), done.stderr)
    first = len(calls())
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    want(done.returncode == 0, done.stderr)
    want(not any(c.startswith(("bench", "quantize", "eval perplexity")) for c in calls()[first:]), f"goes on where it stopped: {calls()[first:]}")
    want("[1 of " in done.stderr and "left)" in done.stderr, "progress")
    n, text = len(calls()), done.stdout
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    want(done.stdout == text and len(calls()) == n, "a second run measures nothing again")
    want(room not in text and open(out, encoding="utf-8").read() == text, "the file is what was printed, without where it was measured")
    with open(data, encoding="utf-8") as f:
        found = json.load(f)
    files = found["models"]["Sigircik-dense"]["files"]
    want(list(files) == ["F32", "F16", "Q8_0", "ours", "fitted"] and files["fitted"]["answer"] == [25] * 3 and files["ours"]["many"] == [240] * 3, str(files))
    # 3 sentences of 10 words: F32 answers with the 5 it has read, the fitted file drops 2 of them
    continued = next(b for b in files["fitted"]["bleu"] if (b["task"], b["language"]) == ("continuation", "tr"))
    want((continued["same"]["score"], continued["float"]["score"], continued["difference"]["score"]) == (9, 15, -6), str(continued))
    judged = {v["promised"]: (v["measured"], v["verdict"]) for v in found["verdicts"]}
    want(judged["file of at most 20 % of F32 at a perplexity at most 2 % higher"] == ("20.0 % at +1.00 % [+0.60 %, +1.40 %]", "holds"), str(judged))
    want(judged["decode at least 4 times F32"] == ("5.00", "holds"), str(judged))
    want(judged["BLEU within 1.6 % of F32's, right answers as reference (continuation, tr)"] == ("-40.00 % [-46.67 %, -33.33 %]", "miss"), str(judged))
    want(judged["BLEU within 1.6 % of F32, its answers as reference (continuation, tr)"][0] == "9.00 [1.00, 100.00] (F16: 15.00)", str(judged))
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("| ours, 20 % of F32 | 0.0 (20 %)"))
    want("| 450 (5.00; 2.50) | 25.0 (5.00; 2.50) | 200 (5.00; 2.50) | 20.200 (+1.00 % [+0.60 %, +1.40 %]) | 0.0200 |" in row, row)
    want(any(line.startswith("| ours, 4.5 bits | 0.0 (15 %)") and "21.000" in line for line in lines), "the file of as many bits as asked for")
    want(not any(f.startswith("base") for f in os.listdir(os.path.join(room, "work", "Sigircik-dense"))), "the float model's probabilities are removed")


def grid():
    try:
        import gguf
        import numpy as np
    except ImportError as missing:
        print(f"off_grid is left out: {missing}")
        return
    del gguf
    import off_grid
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 16, (64, off_grid.GROUP)).astype(np.float32)
    codes[:, :2] = (7, 8)  # neighbours, so that the step shows
    codes[5] = 3
    values = codes * np.float32(0.25) - np.float32(1)
    moved = values.copy()
    off_grid.move(moved, rng)
    want(np.array_equal(np.rint((moved + 1) / np.float32(0.25)), codes), "rounding gives the codes back")
    want(np.array_equal(moved[5], values[5]), "equal values have no step")
    others = np.delete(moved - values, 5, axis=0)
    want(abs(others.std() - 0.25 / 12 ** 0.5) < 0.005 and abs(others).max() > 0.12, f"evenly by half a step: {others.std()}")


def main():
    judging()
    reading()
    grid()
    with tempfile.TemporaryDirectory() as room:
        path = os.path.join(room, "dil")
        with open(path, "w", encoding="utf-8") as f:
            f.write(STAND_IN.format(python=sys.executable, log=os.path.join(room, "log"), stop=os.path.join(room, "stop")))
        os.chmod(path, 0o755)
        for name in ("wiki.test.raw", "wiki.valid.raw", "pud.en", "pud.tr"):
            with open(os.path.join(room, name), "w", encoding="utf-8") as f:
                f.write("one two three four five six seven eight nine ten\n" * 3)
        plans(room)
        whole_run(room)
    print("ok")


if __name__ == "__main__":
    main()
