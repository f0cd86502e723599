#!/usr/bin/env python3
"""bench/compare.py with fixed inputs: reading llama-bench's output, medians and intervals, the best mode, table and chart; and a
whole run against stand-ins for both programs, which is resumed and not measured again."""
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SCRIPT = os.path.join(SOURCE, "bench", "compare.py")
spec = importlib.util.spec_from_file_location("compare", SCRIPT)
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)


def want(condition, text):
    if not condition:
        raise SystemExit(f"FAILED: {text}")


def statistics():
    want(compare.median_interval([3]) == (3, 3, 3, 0), "one value")
    want(compare.median_interval([5, 1, 4, 2, 3]) == (3, 1, 5, 0.9375), "five values")
    want(compare.median_interval(range(1, 10)) == (5, 2, 8, 0.9609375), "nine values")
    median, low, high, coverage = compare.median_interval(range(1, 101))
    want((median, low, high) == (50.5, 40, 61) and abs(coverage - 0.9648) < 1e-4, "a hundred values")
    want(compare.median_interval([1.0] * 8 + [0.01])[:3] == (1, 1, 1), "a disturbed round moves neither median nor interval")
    want(compare.best_mode({"ik": [1, 9, 1], "ik -fa 1": [2, 2, 2]}) == "ik -fa 1", "best mode by the median")


def reading():
    test = {"p": 512, "n": 0, "d": 0, "busy": False}
    good = 'note [x]\n[{"n_prompt": 0, "n_gen": 8, "avg_ts": 1}, {"n_prompt": 512, "n_gen": 0, "avg_ts": 99.5}]\nbye'
    want(compare.speed_of(good, test) == 99.5, "JSON among other text")
    for bad in ("", "[]", "[1]", "{}", "[{}", '[{"n_prompt": 512, "n_gen": 0, "avg_ts": 0}]'):
        try:
            compare.speed_of(bad, test)
        except ValueError as error:
            want("no result for -p 512" in str(error), str(error))
        else:
            want(False, f"accepted {bad!r}")
    engine = compare.engine_of("ik=bin/x,-fa,1")
    want((engine["label"], engine["path"], engine["args"]) == ("ik -fa 1", "bin/x", ["-fa", "1"]), str(engine))


STAND_IN = """#!{python}
import json, sys
args = sys.argv[1:]
if {fails}:
    sys.exit("no such model")
with open({log!r}, "a") as f:
    f.write("x")
value = lambda name: int(args[args.index(name) + 1])
print(json.dumps([dict(n_prompt=value("-p"), n_gen=value("-n"), avg_ts={speed}, median_ts={speed}, share_of_read=0.5, share_of_peak=0.25, gb_per_s=1,
    gmac_per_s=1, bytes_per_token=1, limit_read_gb_per_s=30, limit_int8_gmac_per_s=400, limit_bf16_gmac_per_s=200, limit_f32_gmac_per_s=100)]))
"""


def whole_run(room):
    log = os.path.join(room, "log")

    def stand_in(name, speed, fails=False):
        path = os.path.join(room, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(STAND_IN.format(python=sys.executable, log=log, speed=speed, fails=fails))
        os.chmod(path, 0o755)
        return path

    model = os.path.join(room, "a&b.gguf")
    open(model, "wb").close()
    out = os.path.join(room, "out")
    command = [sys.executable, SCRIPT, "--dil", stand_in("dil", 30.0), "--peer", "slow=" + stand_in("slow", 10.0), "--peer", "ik=" + stand_in("ik", 12.0),
               "--peer", "ik=" + stand_in("ik1", 15.0) + ",-fa,1", "--peer", "gone=" + stand_in("gone", 1.0, True), "--rounds", "3", "-d", "0,64", "--busy",
               "--out", out, model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    want(done.returncode == 0 and "no such model" in done.stderr, done.stdout + done.stderr)
    runs = os.path.getsize(log)
    want(runs == 8 * 3 * 4, f"{runs} runs")
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    want(again.returncode == 0 and again.stdout == done.stdout and os.path.getsize(log) == runs, "a finished comparison is not measured again")
    with open(os.path.join(out, "results.json"), encoding="utf-8") as f:
        rows = json.load(f)["rows"]
    rows.pop()
    with open(os.path.join(out, "results.json"), "w", encoding="utf-8") as f:
        json.dump({"rows": rows}, f)
    subprocess.run(command, capture_output=True, check=True, timeout=300)
    want(os.path.getsize(log) == runs + 3 * 4, "only the missing row is measured")
    with open(os.path.join(out, "table.md"), encoding="utf-8") as f:
        lines = f.read().splitlines()
    want(len(lines) == 2 + 8 + 2 and len({line.count("|") for line in lines[:10]}) == 1, "\n".join(lines))
    want("| a&b | tg128 @ d64 busy | 30.0 (100 % of quiet) |  | 15.0 (-fa 1) | 2.00 (2.00 .. 2.00) | 10.0 | 3.00 (3.00 .. 3.00) |" in lines, "\n".join(lines))
    want("| pp512 | 30.0 | 25 % |" in lines[2] and "gone" not in lines[0], lines[2])
    drawing = xml.etree.ElementTree.parse(os.path.join(out, "chart.svg")).getroot()
    texts = ["".join(t.itertext()) for t in drawing.iter("{http://www.w3.org/2000/svg}text")]
    want("a&b pp512" in texts and "3.00" in texts and "1x" in texts and "ik" in texts, str(texts))
    want(len(list(drawing.iter("{http://www.w3.org/2000/svg}rect"))) == 1 + 2 + 16, "bars")


def main():
    statistics()
    reading()
    with tempfile.TemporaryDirectory() as room:
        whole_run(room)
    print("ok")


if __name__ == "__main__":
    main()
