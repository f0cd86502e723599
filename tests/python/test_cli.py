#!/usr/bin/env python3
"""The command as a user meets it: every subcommand's help, show, check, plan, quantize, import and chat on tiny models.

    test_cli.py [-k NAME]

Uses models of tests/golden/make_models.py, and the fetched smollm2 when it is there. Environment: DIL_BINARY, DIL_SOURCE_DIR,
DIL_SHARED, DIL_LLAMA_CPP_BIN (outputs of quantize must load there too). Ends with 77 when numpy, gguf or the command is missing.
"""
import argparse
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SHARED = os.environ.get("DIL_SHARED") or os.path.join(SOURCE, "..", "shared")
BINARY = os.environ.get("DIL_BINARY", "")
PEER = os.path.join(os.environ.get("DIL_LLAMA_CPP_BIN", ""), "llama-bench")
REAL = os.path.join(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "dilmodeli", "smollm2.gguf")
DENSE, MOE = (os.path.join(SOURCE, f"models/sigircik-{kind}.gguf") for kind in ("dense", "moe"))
sys.path.insert(0, os.path.join(SOURCE, "tests", "golden"))
try:
    import gguf
    import numpy as np
    import make_models
except ImportError as missing:
    print(f"skipped: {missing} (pip install numpy gguf)")
    sys.exit(77)

COMMANDS = ["theorem", "train", "export", "route", "view", "tune", "run", "chat", "show", "check", "plan", "tokenize", "detokenize", "eval perplexity", "eval kld",
            "eval hellaswag", "eval logits", "eval bleu", "eval outputs", "bench", "quantize", "import", "pull", "list", "rm"]
# Types that quantize writes: general.file_type as llama.cpp numbers it.
TYPES = {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q6_K": 18, "Q5_1": 9, "Q5_0": 8, "Q5_K": 16, "Q4_1": 3, "Q4_0": 2, "Q4_K": 14,
         "IQ4_NL": 25, "IQ4_XS": 30, "Q3_K": 11, "Q2_K": 10, "IQ3_S": 26, "IQ3_XXS": 23,
         "IQ2_S": 28, "IQ2_XS": 20, "IQ2_XXS": 19, "MXFP4": 38, "NVFP4": 39, "TQ2_0": 37, "TQ1_0": 36, "IQ1_M": 31, "IQ1_S": 24,
         "Q2_0": 41, "Q1_0": 40}
# Root mean square error of a converted matrix over the matrix's own, for random weights.
MOST_ERROR = {"F32": 0, "F16": 1e-3, "BF16": 5e-3, "Q8_0": 0.01, "Q6_K": 0.03, "Q5_1": 0.05, "Q5_0": 0.06, "Q5_K": 0.05, "Q4_1": 0.09,
              "Q4_0": 0.12, "Q4_K": 0.09, "IQ4_NL": 0.1, "IQ4_XS": 0.1, "Q3_K": 0.2, "Q2_K": 0.35,
              "IQ3_S": 0.16, "IQ3_XXS": 0.21, "IQ2_S": 0.27, "IQ2_XS": 0.32, "IQ2_XXS": 0.37,
              "MXFP4": 0.13, "NVFP4": 0.11, "TQ2_0": 0.85, "TQ1_0": 0.85, "IQ1_M": 0.5, "IQ1_S": 0.55, "Q2_0": 0.42, "Q1_0": 0.62}


class Failed(Exception):
    """A check that did not hold."""


def want(condition, text):
    if not condition:
        raise Failed(text)


def dil(*args, stdin="", code=0, env=None):
    """Standard output and standard error of the command; its exit code must be `code`."""
    done = subprocess.run([BINARY, *args], input=stdin, capture_output=True, text=True, timeout=300, env=dict(os.environ, **(env or {})))
    want(done.returncode == code, f"dil {' '.join(args)}: wanted exit code {code}, found {done.returncode}: {done.stdout[-300:]}{done.stderr[-600:]}")
    return done.stdout, done.stderr


def patched(path, out, change):
    with open(path, "rb") as f:
        data = bytearray(f.read())
    with open(out, "wb") as f:
        f.write(change(data) or data)
    return out


# ---- tests: each gets the folder with llama.gguf (32-multiples), wide.gguf (256-multiples), odd.gguf ----------------------

def test_help(room):
    overview, _ = dil("--help")
    for name in COMMANDS:
        want(f"  {name} " in overview, f"--help does not name {name}")
        out, _ = dil(*name.split(), "--help")
        want(out.startswith(f"dil {name}") and "Example:" in out, f"{name} --help: {out[:100]}")
    dil(code=2)
    want("not a command" in dil("nothing", code=2)[1], "unknown command")
    want("no model given" in dil("show", code=2)[1], "missing model")
    want("argument is missing" in dil("rm", code=2)[1], "missing argument")
    want("wanted one" in dil("plan", "a", "-m", "b", code=2)[1], "two models")
    want("unknown" in dil("plan", "--nonsense", "x", code=2)[1], "unknown option")


def test_theorem(room):
    out, _ = dil("theorem", "demo")
    want("a Nash equilibrium" in out and "used 54 of 54" in out and "Chosen: F" in out, out)
    want(dil("theorem", "demo")[0] == out, "the demonstration is the same every time")
    want("wanted 'demo'" in dil("theorem", "proof", code=2)[1], "another word")


def test_view(room):
    """Pictures of logs written here: the kind of file follows from its name; errors name the place; nothing is left behind."""
    sys.path.insert(0, os.path.join(SOURCE, "fuzz"))
    from make_corpus import route
    os.makedirs(room("fast"), exist_ok=True)
    log, other, text = room("fast/metrics.csv"), room("slow.csv"), "step,ce,bpb_wiki\n" + "".join(f"{i},{9 - i / 10},\n" for i in range(1, 40))
    for path in (log, other):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text + "40,5,1.5\n")
    for ending, start in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".html", b"<!DOCTYPE html>")):
        out = room("runs" + ending)
        want(dil("view", "metrics", log, other, "-o", out) == ("", ""), "nothing is printed")
        with open(out, "rb") as f:
            data = f.read()
        want(data.startswith(start) and len(data) > 2000, f"{out}: {data[:20]}")
        want(ending not in (".svg", ".html") or all(w in data for w in (b"fast", b"slow", b"wiki")), f"{out}: names are missing")
    for name, chosen in (("left", [0, 1]), ("right", [2, 3])):
        with open(room(name + ".route"), "wb") as f:
            f.write(route([(4096, 4)], 1, [[chosen[i % 2]] for i in range(50)], name=b"by hand"))
    page = room("experts.html")
    dil("view", "experts", room("left.route"), room("right.route"), "-o", page, "--theme", "dark", "--lang", "tr")
    with open(page, encoding="utf-8") as f:
        want("by hand" in (got := f.read()) and "katman 0: 1,0000 bit" in got and "#14181d" in got, got[:2000])
    with open(other, "a", encoding="utf-8") as f:
        f.write("41,five,\n")
    bad = room("bad.svg")
    want(f"{other}: line 42, column 'ce': wanted a number, found 'five'" in dil("view", "metrics", other, "-o", bad, code=1)[1], "a word")
    want(not os.path.exists(bad), "no file after an error")
    for args, told in ((["birds", log, "-o", bad], "wanted metrics, experts, flock, cache or bits"), (["metrics", log], "no file to write"),
                       (["metrics", log, "-o", "x.gif"], "ends in .svg"), (["metrics", log, "-o", bad, "--theme", "red"], "light or dark"),
                       (["metrics", log, "-o", bad, "--lang", "de"], "tr or en"), (["metrics", *[log] * 9, "-o", bad], "1 to 8")):
        want(told in dil("view", *args, code=2)[1], told)


def test_view_flock(room):
    """Birds of a JSON file: one picture, one for each step, a page; options that are not for other pictures."""
    birds = room("birds.json")
    with open(birds, "w", encoding="utf-8") as f:
        json.dump({"positions": [[0, 0], [1, 0], [1, 1]], "names": ["bir", "iki", "üç"], "steps": [{"chosen": [t]} for t in (0, 1, 2, 1)]}, f)
    page = room("birds.html")
    want(dil("view", "flock", birds, "-o", page, "--lang", "tr") == ("", ""), "nothing is printed")
    with open(page, encoding="utf-8") as f:
        want("Adayların sürüsü" in (got := f.read()) and 'data-theme="auto"' in got and "üç" in got, got[:500])
    os.makedirs(room("frames"), exist_ok=True)
    dil("view", "flock", birds, "-o", room("frames/%03d.svg"), "--frames", "3")
    want(sorted(os.listdir(room("frames"))) == ["001.svg", "002.svg", "003.svg"], os.listdir(room("frames")))
    dil("view", "flock", birds, "-o", room("last.svg"), "--frames", "3")
    with open(room("last.svg"), "rb") as one, open(room("frames/003.svg"), "rb") as other:
        want(one.read() == other.read(), "the last step is the still picture")
    want("which has all of them" in dil("view", "flock", birds, "-o", room("%d.html"), code=1)[1], "pages of each step")
    want("frame: wanted at most 4" in dil("view", "flock", birds, "-o", room("x.svg"), "--frame", "5", code=1)[1], "a step too many")
    want("are for the flock" in dil("view", "cache", birds, "-o", room("x.svg"), "--layer", "1", code=2)[1], "an option of the flock")
    want("nowhere.gguf" in dil("view", "flock", room("nowhere.gguf"), "-o", room("x.svg"), code=1)[1], "no such file")
    want(not os.path.exists(room("x.svg")), "no file after an error")


def test_route(room):
    """A log written here, as src/experts/trace.h describes it: figures that can be counted by hand, cut and wrong files."""
    sys.path.insert(0, os.path.join(SOURCE, "fuzz"))
    from make_corpus import route
    log = room("log.route")

    def write(data):
        with open(log, "wb") as f:
            f.write(data)

    layers, turns = [(0, 0), (1 << 20, 8), (3 << 20, 8)], 40
    tokens = [[t % 4, 4 + t % 2, 7, t % 2] for t in range(turns)]
    write(route(layers, 2, tokens, name=b"by hand"))
    got = json.loads(dil("route", log, "--json", "--layers", "--budget", "200%")[0])
    want((got["model"], got["tokens"], got["layers"], got["used"], got["experts"]) == ("by hand", turns, 2, 2, 16), str(got))
    want(got["expert_bytes"] == 32 << 20 and got["token_bytes"] == 8 << 20 and got["finished"] and got["distinct"] == 6 + 3, str(got))
    first, second = got["by_layer"]
    want(first["layer"] == 1 and first["reuse_within"]["1"] == 0 and abs(first["reuse_within"]["2"] - 38 / 80) < 1e-4, str(first))
    want(abs(first["reuse_within"]["4"] - (38 + 36) / 80) < 1e-4 and abs(second["reuse_within"]["1"] - 39 / 80) < 1e-4, str(got))
    rows = got["budgets"][0]["policies"]
    want([r["policy"] for r in rows] == ["lru", "lfu", "stale", "swarm", "belady"], str(rows))
    for r in rows:  # everything fits: each expert is read once
        want(r["requests"] == 4 * turns and r["hits"] == r["requests"] - 9 and len(r["hit_rates"]) == 2, str(r))
        want(abs(r["bytes_per_token"] - ((6 << 20) + (9 << 20)) / turns) < 1, str(r))
    out, _ = dil("route", log, "--budget", "40%,200%", "--policy", "swarm", "--layers")
    want(out.count("\nbudget ") == 2 and "swarm" in out and "lru" not in out and "reuse within" in out, out)
    want(out == dil("route", log, "--budget", "40%,200%", "--policy", "swarm", "--layers")[0], "the same every time")
    write(route(layers, 2, tokens)[:-20])
    out, err = dil("route", log, "--budget", "200%")
    want("was not finished" in err and f"seed: {turns - 1} tokens" in out, out + err)
    want("DILROUTE" in dil("route", room("llama.gguf"), code=1)[1], "another file")
    want("at least" in dil("route", log, "--budget", "1M", code=1)[1], "too little")
    want("wanted lru" in dil("route", log, "--policy", "mru", code=2)[1], "unknown policy")
    want("found '10%,x'" in dil("route", log, "--budget", "10%,x", code=2)[1], "no size")


def test_words(room):
    """Help in every place people look for it; contradictions and lost output are said."""
    out, _ = dil("help", "eval", "kld")
    want("--base" in out, out)
    out, _ = dil("eval", "--help")
    want("perplexity" in out and "kld" in out, out)
    _, err = dil("run", "-m", room("llama.gguf"), "-p", "a", "-f", room("llama.gguf"), code=1)
    want("found both" in err, err)
    _, err = dil("show", code=2)
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([BINARY, "show", room("llama.gguf")], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    want(done.returncode == 1 and "standard output" in done.stderr, f"{done.returncode}: {done.stderr}")


def test_pull_address(room):
    """What an address gives must be a GGUF file; it keeps its name in the data directory."""
    home = {"XDG_DATA_HOME": room("pulled")}
    _, err = dil("pull", "file://" + os.path.abspath(__file__), code=1, env=home)
    want("wanted a GGUF file" in err, err)
    dil("pull", "file://" + room("llama.gguf"), env=home)
    out, _ = dil("list", "--json", env=home)
    want([m["name"] for m in json.loads(out)] == ["llama"], out)
    _, err = dil("pull", "file://" + room("llama.gguf"), "--sha256", "0" * 64, code=1, env=home)
    want("sha256" in err, err)
    dil("rm", "llama", env=home)
    want(json.loads(dil("list", "--json", env=home)[0]) == [], "rm")


def test_bench(room):
    """Every format, lists and ranges, parallel sequences, refusals, and a comparison with a command that prints a table."""
    model = room("llama.gguf")
    quick = ("-m", model, "-r", "2", "-q", "--no-limits")
    rows = json.loads(dil("bench", *quick, "-p", "4-16*2", "-n", "3", "-d", "0,5", "-npl", "1,3", "-pg", "6,2", "-t", "1,2", "-o", "json")[0])
    found = [(r["n_threads"], r["n_prompt"], r["n_gen"], r["n_depth"], r["n_parallel"]) for r in rows]
    wanted = [(t, p, n, d, b) for t in (1, 2) for d in (0, 5)
              for p, n, b in ((4, 0, 1), (8, 0, 1), (16, 0, 1), (0, 3, 1), (0, 3, 3), (6, 2, 1))]
    want(found == wanted, f"bench: tests {found}")
    for r in rows:
        want(r["median_ts"] > 0 and len(r["samples_s"]) == 2 and r["share_of_read"] == 0, f"bench: {r}")
    one, three = rows[3], rows[4]
    want(one["bytes_per_token"] > 2 * three["bytes_per_token"], "bench: several sequences share the weights they read")
    lines = dil("bench", *quick, "-p", "4", "-n", "0", "-ctk", "f16,q8_0,q4_0", "-ctv", "f32", "-o", "jsonl")[0].splitlines()
    want([(json.loads(x)["type_k"], json.loads(x)["type_v"]) for x in lines] == [("F16", "F32"), ("Q8_0", "F32"), ("Q4_0", "F32")], str(lines))
    csv = dil("bench", *quick, "-p", "4", "-n", "2", "-o", "csv")[0].splitlines()
    want(len(csv) == 3 and all(len(x.split(",")) == len(csv[0].split(",")) for x in csv) and "avg_ts" in csv[0], str(csv))
    sql = dil("bench", *quick, "-p", "4", "-n", "2", "-o", "sql")[0]
    want(sql.startswith("CREATE TABLE") and sql.count("INSERT INTO bench") == 2, sql)
    out, _ = dil("bench", "-m", model, "-p", "4", "-n", "2", "-r", "1", "-q", "-t", "1")
    want("| pp4 |" in out and "| tg2 |" in out and re.search(r"reading [\d.]+ GB/s; \d+ Gmac/s in int8", out), out)
    want(len(re.findall(r"\| \d+ % \|", out)) >= 2, out)
    row = json.loads(dil("bench", "-m", model, "-p", "0", "-n", "2", "-r", "3", "-q", "-o", "json")[0])[0]
    shares = sorted(row["bytes_per_token"] * row["n_gen"] / s / (row["read_gb_per_s"] * 1e9) for s in row["samples_s"])
    want(row["read_gb_per_s"] > 0 and 0.2 * shares[0] < row["share_of_read"] < 5 * shares[-1], f"bench: share of reading {row}")
    for bad, text in ((("-p", "0", "-n", "0"), "nothing to measure"), (("-pg", "5"), "two numbers"), (("-p", "x"), "whole number"),
                      (("-p", "1-9+0"), "a step"), (("-npl", "0"), "--parallel"), (("-o", "xml"), "jsonl")):
        done = subprocess.run([BINARY, "bench", *quick, *bad], capture_output=True, text=True, timeout=60)
        want(done.returncode in (1, 2) and text in done.stderr, f"bench {bad}: {done.returncode} {done.stderr}")
    table = "echo '| model | test | t/s |'; echo '| --- | --- | ---: |'; echo '| x | pp4 | 0.50 ± 0.01 |'; echo '| x | tg2 @ d5 | 1.0 |'"
    out, _ = dil("bench", *quick, "-p", "4", "-n", "2", "--compare", table)
    want(re.search(r"\| pp4 \| [\d.]+ \| 0\.50 \| [\d.]+ \| [\d.]+ \.\. [\d.]+ \(50\.0 %\) \| 2 \|", out), out)
    want("| tg2 | | not in the peer's output | | | 0 |" in out, out)
    _, err = dil("bench", *quick, "-p", "4", "--compare", "echo no model >&2; exit 7", code=1)
    want("exit code 7: no model" in err, err)
    _, err = dil("bench", *quick, "-p", "4", "--compare", "echo hello", code=1)
    want("wanted llama-bench's output" in err and "hello" in err, err)


def test_timing(room):
    """The table of --timing, and its numbers as JSON: what a token reads is what plan says, for every kind of layer."""
    specs = [make_models.MODELS[name] for name in ("qwen2moe", "ernie-moe", "deepseek2-full", "deepseek2-full-expanded", "deepseek2-lite-absorbed")]
    for spec in specs:
        make_models.write_model(spec, room(spec.name + ".gguf"))
    for name in ["llama", "odd", *[spec.name for spec in specs]]:
        model = room(name + ".gguf")
        run = ("run", "-m", model, "-p", "the day was long", "-n", "6", "--ignore-eos", "--temp", "0", "--no-pack-cache", "-t", "2", "-ub", "5", "--json")
        want("timing" not in json.loads(dil(*run)[0]), "times that nobody asked for")
        out, err = dil(*run, "--timing")
        found = json.loads(out)
        timing, decode, prefill = found["timing"], found["timing"]["decode"], found["timing"]["prefill"]
        n_prompt = found["prompt_tokens"]
        rest = n_prompt % 5 == 1  # a last pass of one token counts as one of the answer
        want(timing["workers"] == 2 and decode["passes"] == decode["tokens"] == 5 + rest, f"{name}: {timing}")
        want(prefill["tokens"] == n_prompt - rest and prefill["passes"] == -(-(n_prompt - rest) // 5), f"{name}: {prefill}")
        per_token = json.loads(dil("plan", model, "--json")[0])["weight_bytes_per_token"]
        want(sum(s["weight_bytes"] for s in decode["steps"]) == decode["passes"] * per_token, f"{name}: wanted {per_token} bytes per token: {decode['steps']}")
        for p in (prefill, decode):
            steps = p["steps"]
            want(len({s["step"] for s in steps}) == len(steps) and {"embed", "norm", "attention", "head"} <= {s["step"] for s in steps}, f"{name}: {steps}")
            want(all(s["calls"] % p["passes"] == 0 and s["seconds"] > 0 and s["work_seconds"] + s["wait_seconds"] >= s["seconds"] - 1e-8 for s in steps), str(steps))
            want(0 < sum(s["seconds"] for s in steps) <= p["seconds"], str(p))
        rows = {k: dict(re.findall(r"^  (\S.*?\S) +\d+ +([\d.]+) +[\d.]+ % +[\d.]+ %", table, re.M)) for k, table in
                zip(("prefill", "decode"), re.split(r"^decode: ", err, flags=re.M))}
        for k, p in (("prefill", prefill), ("decode", decode)):
            want([*rows[k]] == [s["step"] for s in p["steps"]] + ["all"], f"{name}: {err}")
            for s in p["steps"]:
                want(abs(float(rows[k][s["step"]]) - 1e3 * s["seconds"] / p["passes"]) < 6e-4, f"{name}: {s}: {err}")
        want(re.search(r"^  head .*%\s+[\d.]+\s+[\d.]+$", err, re.M), f"{name}: bytes and their speed: {err}")
    rows = json.loads(dil("bench", "-m", room("llama.gguf"), "-p", "8", "-n", "3", "-r", "2", "-q", "--no-limits", "-o", "json", "--timing")[0])
    want([[*r["timing"]] for r in rows] == [["workers", "prefill"], ["workers", "decode"]], str(rows))
    want(rows[0]["timing"]["prefill"]["passes"] == 2 and rows[1]["timing"]["decode"]["passes"] == 6, "measured runs alone")
    line = dil("bench", "-m", room("llama.gguf"), "-p", "0", "-n", "3", "-r", "1", "-q", "--no-limits", "-o", "jsonl", "--timing", "-npl", "4")[0]
    want(json.loads(line)["timing"]["decode"]["tokens"] == 12, line)
    text = room("timing.txt")
    with open(text, "w", encoding="utf-8") as f:
        f.write("the day was long and he said that it was time " * 40)
    for args in (("perplexity", "-f", text), ("logits", "--tokens", "1,2,3", "-o", room("timing.npy"))):
        _, err = dil("eval", *args, "-m", room("llama.gguf"), "-c", "64", "--timing")
        want(re.search(r"^prefill: \d+ pass", err, re.M) and "decode:" not in err, err)
    _, err = chat(room, "the day\n", "--timing")
    want(re.search(r"^prefill: ", err, re.M) and re.search(r"^decode: ", err, re.M), err)


def spans_of(path):
    """Of a file of events: complete events by track, names of tracks, counts of all and dropped ones."""
    with open(path, encoding="utf-8") as f:
        root = json.load(f)
    tracks, names = {}, {}
    for e in root["traceEvents"]:
        want(e["ph"] in "MX" and e["pid"] > 0, str(e))
        if e["ph"] == "X":
            want(e["dur"] >= 0 and e["ts"] >= 0, str(e))
            tracks.setdefault(e["tid"], []).append(e)
        elif e["name"] == "thread_name":
            names[e["tid"]] = e["args"]["name"]
    want(set(names) == set(tracks), f"{path}: tracks {names}, events on {set(tracks)}")
    other = root["otherData"]
    want(other["recorded"] - other["dropped"] == sum(map(len, tracks.values())), f"{path}: {other}")
    return tracks, names


PASSES, COMMAND = 256, 257
STEPS_OF_LLAMA = ["embed"] + 2 * ["norm", "qkv", "rope + kv", "attention", "attn out", "norm", "gate + up", "down"] + ["norm", "head"]


def check_passes(tracks, threads, passes):
    """Passes by name, in order; in each, every worker that takes part walks all steps one after the other, and worker 0 fills it."""
    for spans in tracks.values():
        want(all(a["ts"] + a["dur"] <= b["ts"] + 2e-3 for a, b in zip(spans, spans[1:])), "events of a track one after the other")
    want([p["name"] for p in tracks[PASSES]] == passes, f"passes {[p['name'] for p in tracks[PASSES]]}")
    workers = [t for t in tracks if t < PASSES]
    want(set(workers) == set(range(threads)), f"workers {workers}")
    left, filled, whole = {w: list(tracks[w]) for w in workers}, 0, 0
    for p in tracks[PASSES]:
        rows = p["args"]["rows"]
        for w in workers:
            inside = [s for s in left[w] if p["ts"] <= s["ts"] + 1e-3 and s["ts"] + s["dur"] <= p["ts"] + p["dur"] + 2e-3]
            left[w] = left[w][len(inside):]
            if not inside and w > 0 and rows <= 8:
                continue  # small passes leave workers out on a busy machine
            want([s["name"] for s in inside] == STEPS_OF_LLAMA, f"{p}: worker {w}: {[s['name'] for s in inside]}")
            want([s["args"].get("layer") for s in inside] == [None] + 8 * [0] + 8 * [1] + [None] * 2, f"layers {inside}")
            want(inside[0]["args"]["rows"] == inside[8]["args"]["rows"] == rows >= inside[-1]["args"]["rows"], f"rows {inside}")
            if w == 0:
                gaps = sum(b["ts"] - a["ts"] - a["dur"] for a, b in zip(inside, inside[1:]))
                filled += sum(s["dur"] for s in inside) + max(gaps, 0)
        whole += p["dur"]
    want(not any(left.values()), f"steps outside of passes: {left}")
    want(filled <= whole + 1 and (threads > 1 or filled > 0.9 * whole), f"worker 0: {filled} of {whole} us")


def test_trace_events(room):
    """The file of --trace-events: every step of every worker in its pass, loading and sampling beside them."""
    path, model = room("events.json"), room("llama.gguf")
    for threads in (1, 2):
        run = ("run", "-m", model, "--no-template", "-p", "the day was long", "-n", "6", "--ignore-eos", "--no-pack-cache", "-t", str(threads), "-ub", "40",
               "--temp", "0", "--json")
        plain = json.loads(dil(*run)[0])
        out, err = dil(*run, "--trace-events", path)
        want(json.loads(out)["text"] == plain["text"], "recording changes the answer")
        tracks, names = spans_of(path)
        want(re.search(rf"^\[{sum(map(len, tracks.values()))} events written to {re.escape(path)}\]$", err, re.M), err)
        check_passes(tracks, threads, [f"prefill {plain['prompt_tokens']}"] + 5 * ["decode"])
        want(names == {**{w: f"worker {w}" for w in range(threads)}, PASSES: "passes", COMMAND: "command"}, str(names))
        want([s["name"] for s in tracks[COMMAND]] == ["load"] + 6 * ["sample"], str(tracks[COMMAND]))
        want(all(s["cat"] == ("step" if t < PASSES else "pass" if t == PASSES else "command") for t in tracks for s in tracks[t]), "categories")
    _, err = dil("bench", "-m", model, "-p", "70", "-n", "2", "-r", "1", "-npl", "1,3", "-ub", "64", "-q", "--no-limits", "-t", "2", "--trace-events", path)
    tracks, _ = spans_of(path)
    warm_and_run = lambda passes: passes + passes  # noqa: E731
    check_passes(tracks, 2, warm_and_run(["prefill 64", "prefill 6"]) + warm_and_run(2 * ["decode"]) + warm_and_run(2 * ["decode 3"]))
    want("events written" not in err, "quiet")
    text = room("events.txt")
    with open(text, "w", encoding="utf-8") as f:
        f.write("the day was long and he said that it was time " * 40)
    dil("eval", "perplexity", "-m", model, "-f", text, "-c", "64", "--chunks", "2", "-t", "1", "--trace-events", path)
    tracks, _ = spans_of(path)
    check_passes(tracks, 1, [p["name"] for p in tracks[PASSES]])
    want(sum(p["args"]["rows"] for p in tracks[PASSES]) >= 2 * 63, str(tracks[PASSES]))
    chat(room, "the day\nand\n", "--trace-events", path, "-t", "1")
    tracks, _ = spans_of(path)
    check_passes(tracks, 1, [p["name"] for p in tracks[PASSES]])
    want(len([p for p in tracks[PASSES] if p["name"].startswith("prefill")]) == 2, str(tracks[PASSES]))


def test_trace_events_refused(room):
    """What cannot be written is said before work begins; nothing else is overwritten; bad usage leaves no file."""
    model, path = room("llama.gguf"), room("no-events.json")
    run = ("run", "-m", model, "-p", "a", "-n", "1")
    size = os.path.getsize(model)
    out, err = dil(*run, "--trace-events", room("no/folder/events.json"), code=1)
    want(out == "" and "folder" in err and "events written" not in err, err)
    want("another name" in dil(*run, "--trace-events", model, code=1)[1] and os.path.getsize(model) == size, "the model itself")
    home = {"XDG_DATA_HOME": room("home")}
    os.makedirs(room("home/dilmodeli"), exist_ok=True)
    shutil.copy(model, room("home/dilmodeli/named.gguf"))
    _, err = dil("run", "-m", "named", "-p", "a", "-n", "1", "--trace-events", room("home/dilmodeli/named.gguf"), code=1, env=home)
    want("another name" in err and os.path.getsize(room("home/dilmodeli/named.gguf")) == size, err)
    want("another name" in dil("bench", "-m", f"{room('wide.gguf')},{model}", "--trace-events", model, code=1)[1], "one of several models")
    dil("bench", "-m", model, "-o", "xml", "--trace-events", path, code=2)
    want(not os.path.exists(path), "a file after bad usage")
    dil("run", "-m", room("absent.gguf"), "-p", "a", "--trace-events", path, code=1)
    want(spans_of(path)[0] == {}, "an engine that did not open")


def stopped_after(seconds, args, path):
    """Events of a command that Ctrl-C has stopped: `seconds` after its start, or when its answer began."""
    child = subprocess.Popen([BINARY, *args, "-q", "-t", "2", "--trace-events", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if seconds:
        time.sleep(seconds)
    else:
        child.stdout.read(20)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=120)
    want(child.returncode == 1, f"{args}: {child.returncode}: {err}")
    want(os.listdir(os.path.dirname(path)) == [os.path.basename(path)], str(os.listdir(os.path.dirname(path))))
    return spans_of(path)[0]


def test_trace_events_interrupt(room):
    """Ctrl-C: the file is whole, with what happened until then."""
    os.makedirs(room("events"), exist_ok=True)
    path, model = room("events/events.json"), room("llama.gguf")
    tracks = stopped_after(0, ("run", "-m", model, "-p", "the day", "--ignore-eos", "-c", "200000"), path)
    want({0, PASSES, COMMAND} <= set(tracks), f"{set(tracks)}")
    check_passes(tracks, len([t for t in tracks if t < PASSES]), [p["name"] for p in tracks[PASSES]])
    for seconds in (0.2, 1, 5, 20):  # until it has come to its passes
        tracks = stopped_after(seconds, ("bench", "-m", model, "-p", "0", "-n", "2000", "-r", "1000", "--no-limits"), path)
        if PASSES in tracks:
            break
    want(0 in tracks and len(tracks[PASSES]) > 1, f"{set(tracks)}")


def test_show(room):
    path = room("llama.gguf")
    out, _ = dil("show", path, "--tensors")
    for text in ("llama", "context", "256 tokens in training", "4 heads of 16, 2 for keys and values", "301 tokens", "blk.0.attn_q.weight", "64 x 64"):
        want(text in out, f"show: no '{text}' in {out}")
    want("blk.0.attn_q.weight" not in dil("show", path)[0], "tensors without --tensors")
    found = json.loads(dil("show", path, "--json")[0])
    reader = gguf.GGUFReader(path)
    want({t["name"]: t["shape"] for t in found["tensors"]} == {t.name: [int(n) for n in t.shape] for t in reader.tensors}, "show --json: tensors")
    want([t["offset"] for t in found["tensors"]] == [int(t.data_offset) for t in reader.tensors], "show --json: offsets")
    want(set(found["keys"]) == {k for k in reader.fields if not k.startswith("GGUF.")}, "show --json: keys")
    want(len(found["keys"]["tokenizer.ggml.tokens"]) == 301, "show --json: arrays are whole")
    want(found["parameters"] == sum(int(t.n_elements) for t in reader.tensors) and found["supported"], "show --json: parameters")


def test_show_strange(room):
    """Another architecture is shown, with the reason; control characters of a file do not reach the terminal."""
    strange = patched(room("llama.gguf"), room("strange.gguf"), lambda d: d.replace(b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama",
                                                                                      b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0ll\x1bm\x07", 1))
    out, _ = dil("show", strange)
    want("can run it" in out and "\x1b" not in out and "\x07" not in out, f"show: {out[:300]!r}")
    want("\x1b" not in dil("check", strange, code=1)[0], "check lets control characters through")
    found = json.loads(dil("show", strange, "--json")[0])
    want(found["supported"] is False and found["reason"] and found["model"] is None, "show --json of an unknown architecture")


def test_check(room):
    path = room("llama.gguf")
    out, _ = dil("check", path)
    want(re.match(r"ok: .*: \d+ keys, \d+ tensors", out), out)
    found = json.loads(dil("check", path, "--json")[0])
    want(found["ok"] and found["defects"] == [], str(found))
    cut = patched(path, room("cut.gguf"), lambda d: d[:-4000])
    lines = dil("check", cut, code=1)[0].splitlines()
    want(len(lines) >= 2 and all(re.match(re.escape(cut) + r": byte \d+: .*wanted", line) for line in lines[:-1]), str(lines[:3]))
    want(lines[-1] == f"{len(lines) - 1} defect{'s' if len(lines) > 2 else ''}", lines[-1])
    found = json.loads(dil("check", cut, "--json", code=1)[0])
    want(not found["ok"] and found["count"] == len(found["defects"]) == len(lines) - 1, str(found)[:300])
    garbage = patched(path, room("garbage.gguf"), lambda d: b"no model at all" * 10)
    dil("check", garbage, code=1)
    json.loads(dil("check", garbage, "--json", code=1)[0])
    # Well-formed, but a loader refuses it: a renamed tensor.
    renamed = patched(path, room("renamed.gguf"), lambda d: d.replace(b"blk.1.attn_q.weight", b"blk.1.attn_Q.weight", 1))
    out, _ = dil("check", renamed, code=1)
    want("loading: tensor 'blk.1.attn_q.weight' is missing" in out, out)
    want("wanted a file or a fetched name" in dil("check", room("absent.gguf"), code=1)[1], "absent file")


def test_plan(room):
    path = room("llama.gguf")
    small, large = (json.loads(dil("plan", path, "-c", c, "-t", "1", "--json")[0]) for c in ("64", "128"))
    want(large["kv_bytes"] == 2 * small["kv_bytes"] and small["context"] == 64 and small["threads"] == 1, str(small))
    want(small["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 2, f"K and V of 2 layers, 2 heads of 16, f16: {small['kv_bytes_per_token']}")
    parts = sum(small[k] for k in ("weight_bytes", "kv_bytes", "activation_bytes", "vocab_bytes", "program_bytes"))
    want(small["total_bytes"] == parts and small["fits"] and small["prediction"]["tokens_per_second"] > 0, str(small))
    bits = [json.loads(dil("plan", path, "-ctk", kind, "-ctv", kind, "--json")[0])["kv_bytes_per_token"] for kind in ("f16", "q4_0")]
    want(0.25 < bits[1] / bits[0] < 0.4, f"plan: bytes of f16 and q4_0 keys and values {bits}")
    want("q4_0" in dil("plan", path, "-ctk", "q4_1", code=2)[1], "plan: types of keys")
    out, _ = dil("plan", path, "--memory", "100k", code=1)
    want("DOES NOT FIT" in out and "needs at least" in out and "predicted" in out, out)
    out, _ = dil("plan", path, "--explain")
    want("gate + up" in out and "from memory" in out, out)


def test_tune(room):
    """Settings are kept and loaded by themselves; those of another state of the file are not, and that is said; answers stay."""
    path = room("tuned.gguf")
    shutil.copy(room("llama.gguf"), path)
    ask = ("run", "-m", path, "-p", "the day", "-n", "8", "--temp", "0", "-t", "1")
    before, _ = dil(*ask)
    found = json.loads(dil("tune", path, "-p", "48", "-n", "4", "-t", "1", "--seconds", "1", "--json")[0])
    want(os.path.exists(found["profile"]) and found["tried"] and found["seconds"] < 30, str(found))
    for trial in found["tried"]:
        want(0 < trial["low"] <= trial["ratio"] <= trial["high"] and trial["rounds"] >= 3, str(trial))
    after, err = dil(*ask)
    want(after == before and "tuned settings" not in err, err)
    with open(found["profile"], encoding="utf-8") as f:
        kept = json.load(f)
    want(kept["threads"] == 1 and kept["model"] == path and len(kept["tried"]) == len(found["tried"]), str(kept))
    os.utime(path, (1, 1))
    after, err = dil(*ask)
    want(after == before and "made for another state of the file and are not used" in err, err)
    want("tuned settings" not in dil(*ask, "--no-profile")[1], "not asked for")
    out, _ = dil("tune", path, "-p", "48", "-n", "4", "-t", "1", "--seconds", "1", "--explain")
    want("timed with" in out and "Kept in" in out, out)
    machine = json.loads(dil("tune", "--machine", "-t", "1", "--json")[0])
    want(machine["limits"][0]["int8"] > 0 and machine["kernels"]["Q4_K"]["gemm"]["256"] > 0 and machine["default_threads"] >= 1, str(machine)[:300])
    out, _ = dil("tune", "--machine", "-t", "1")
    want("core " in out and "Reading" in out and "Q4_K" in out, out)
    want("found both" in dil("tune", "--machine", path, code=2)[1], "model and machine")
    want("no model given" in dil("tune", code=2)[1], "neither")


def test_memory(room):
    """--memory makes a run smaller, says how, and refuses what cannot be."""
    path = room("long.gguf")
    whole = json.loads(dil("plan", path, "--json")[0])
    want(whole["context"] == 4096 and whole["kv_bytes"] > 1 << 23, f"enough to save: {whole}")
    ask = ("run", "-m", path, "-p", "the day", "-n", "2", "--memory", str(whole["total_bytes"] - whole["kv_bytes"] // 2))
    _, err = dil(*ask)
    want("to fit in --memory: " in err and ("-c " in err or "-ctk " in err), err)
    _, err = dil(*ask, "-ctk", "f16", "-ctv", "f16")
    want("-c " in err and "-ctk" not in err, err)
    _, err = dil(*ask, "-c", "4096", "-ctk", "f16", "-ctv", "f16", "-ub", "512", code=1)
    want("needs at least" in err, err)
    out, _ = dil("plan", path, "--memory", str(whole["total_bytes"] - whole["kv_bytes"] // 2), code=1)
    want("dil run --memory does that by itself" in out, out)
    _, err = dil("run", "-m", path, "-p", "the day", "-n", "2", "--memory", "1M", code=1)
    want("needs at least" in err and "--memory allows" in err, err)


def read_matrix(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64).reshape(-1)


def read_matrices(path):
    """Values by name; of types that the gguf package does not know, as this program reads them."""
    tensors = gguf.GGUFReader(path).tensors
    try:
        return {t.name: read_matrix(t) for t in tensors}
    except NotImplementedError:
        dil("quantize", path, path + ".f32", "--type", "F32")
        return {t.name: read_matrix(t) for t in gguf.GGUFReader(path + ".f32").tensors}


def test_quantize(room):
    source = gguf.GGUFReader(room("wide.gguf"))
    for name, file_type in TYPES.items():
        out_path = room(f"wide-{name}.gguf")
        out, _ = dil("quantize", room("wide.gguf"), out_path, "--type", name.lower(), "-t", "2", "--json")
        found, reader = json.loads(out), gguf.GGUFReader(out_path)
        want(found["fallback"] == 0 and found["written"] and found["requantized"] == 0, out)
        want(reader.get_field("general.file_type").contents() == file_type, f"{name}: file_type")
        want(reader.get_field("general.quantization_version").contents() == 2, f"{name}: quantization_version")
        want(set(source.fields) <= set(reader.fields), f"{name}: keys were lost")
        want([t.name for t in source.tensors] == [t.name for t in reader.tensors], f"{name}: tensors")
        values = read_matrices(out_path)
        for a, b in zip(source.tensors, reader.tensors):
            matrix = len(a.shape) > 1
            want(b.tensor_type.name == (name if matrix else "F32"), f"{name}: {b.name} is {b.tensor_type.name}")
            x, y = read_matrix(a), values[b.name]
            error = np.sqrt(np.mean((x - y) ** 2)) / np.sqrt(np.mean(x ** 2))
            want(error <= (MOST_ERROR[name] if matrix else 0), f"{name}: {b.name}: error {error:.4f}")
        dil("check", out_path)
        dil("run", "-m", out_path, "-p", "the day", "-n", "2", "--no-pack-cache", "-q")
        if os.access(PEER, os.X_OK):
            done = subprocess.run([PEER, "-m", out_path, "-p", "8", "-n", "1", "-r", "1"], capture_output=True, text=True)
            want(done.returncode == 0, f"{name}: llama-bench: {done.stderr[-300:]}")


def test_quantize_fallback(room):
    """Rows of 40, 77 and 80 values: no type with blocks holds them."""
    _, err = dil("quantize", room("odd.gguf"), room("odd-q.gguf"), "--type", "Q4_K")
    want(err.count("note:") == 4 and "it becomes F16" in err, err)
    kinds = {t.tensor_type.name for t in gguf.GGUFReader(room("odd-q.gguf")).tensors}
    want(kinds == {"F16", "F32"}, str(kinds))
    _, err = dil("quantize", room("llama.gguf"), room("llama-q.gguf"), "--type", "Q6_K")
    want("it becomes Q8_0" in err, err)
    _, err = dil("quantize", room("llama-q.gguf"), room("llama-qq.gguf"), "--type", "Q4_0")
    want("had been quantized before" in err, err)


def write_layer(path):
    """A layer of experts alone; its matrices, as the file's names call them."""
    rng, w = np.random.default_rng(1), gguf.GGUFWriter(path, "dil-experts")
    w.add_embedding_length(64)
    w.add_expert_feed_forward_length(128)
    w.add_expert_count(4)
    w.add_expert_used_count(2)
    for name, shape in (("gate_inp", (4, 64)), ("gate_exps", (4, 128, 64)), ("up_exps", (4, 128, 64)), ("down_exps", (4, 64, 128))):
        w.add_tensor(f"blk.0.ffn_{name}.weight", (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def test_quantize_matrices(room):
    """Files without a language model need no text; what needs one is refused by name."""
    layer, out, report = room("layer.gguf"), room("layer-q.gguf"), room("layer.json")
    write_layer(layer)
    text, _ = dil("quantize", layer, out, "--bpw", "5", "--report", report, "-t", "2")
    with open(report, encoding="utf-8") as f:
        found = json.load(f)
    want("relative error of the layer's outputs" in text and "gate_exps" in text, text)
    want(found["bits_per_weight"] <= 5.2 and found["out_bytes"] == os.path.getsize(out), str(found))
    want(0 < found["relative_error"] < 0.05 and found["pruned"]["removed"] == 0 and len(found["matrices"]) == 3, str(found))
    want(all(m["rounding"]["equilibrium"] <= m["rounding"]["plain"] for m in found["matrices"]), "equilibrium beside plain rounding")
    preset = json.loads(dil("quantize", layer, out, "--preset", "dusuk", "--json")[0])
    want(preset["pruned"]["removed"] == 64 and preset["pruned"]["before"] == 128, "half of the neurons")
    want(preset["relative_error"] > found["relative_error"] and preset["out_bytes"] < found["out_bytes"], "fewer bits, more error")
    for option in (["--calib", layer], ["--size", "1M"], ["--quality-budget", "0.1"], ["--dry-run"]):
        _, err = dil("quantize", layer, out, *([] if "--size" in option or "--quality-budget" in option else ["--bpw", "4"]), *option, code=2)
        want(f"{option[0]}: wanted a language model" in err and "--preset" in err, err)
    dil("quantize", layer, out, "--type", "Q8_0")


def test_words_of_errors(room):
    """A range is named whole; a base's own context is the only one; a route that changes little says so, unless told to be quiet."""
    want("at most 64 values, found '0-64'" in dil("bench", "-m", room("wide.gguf"), "-p", "0-64", "-n", "0", code=2)[1], "a long range")
    text, base = os.path.join(SOURCE, "tests/traces/held-out-en.txt"), room("base.kld")
    dil("eval", "perplexity", "-m", DENSE, "-f", text, "-c", "64", "--chunks", "2", "--save-base", base)
    dil("eval", "kld", "-m", DENSE, "--base", base, "-c", "64")
    want("--ctx-size: wanted none, or 64" in dil("eval", "kld", "-m", DENSE, "--base", base, "-c", "128", code=2)[1], "another context")
    cached = ["run", "-m", MOE, "-p", "A bird", "-n", "1", "--route", "cache"]
    want("without --experts-memory" in dil(*cached)[1], "a route without a budget")
    want(dil(*cached, "-q")[1] == "" and "without" not in dil(*cached, "--experts-memory", "20M")[1], "and with one")


def test_quantize_refuses(room):
    out = room("refused.gguf")
    _, err = dil("quantize", room("llama.gguf"), out, "--type", "Q7", code=2)
    want("wanted one of F32" in err and "found 'Q7'" in err, err)
    dil("quantize", room("llama.gguf"), out, code=2)
    want("wanted --calib TEXT" in dil("quantize", room("llama.gguf"), out, "--preset", "dengeli", code=2)[1], "a preset without a text")
    dil("quantize", room("llama.gguf"), code=2)
    want("another name" in dil("quantize", room("llama.gguf"), room("llama.gguf"), "--type", "F16", code=1)[1], "same file")
    dil("quantize", room("llama.gguf"), room("no/folder.gguf"), "--type", "F16", code=1)
    text, _ = dil("quantize", room("llama.gguf"), out, "--type", "Q8_0", "--dry-run")
    want("nothing was written" in text and not os.path.exists(out), text)


def test_quantize_interrupt(room):
    """Ctrl-C: exit code 1, no output, no temporary file."""
    if not os.path.exists(REAL):
        return "no fetched smollm2"
    os.makedirs(room("stopped"), exist_ok=True)
    child = subprocess.Popen([BINARY, "quantize", REAL, room("stopped/out.gguf"), "--type", "IQ4_NL"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not os.listdir(room("stopped")):
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)  # it writes now, and has seconds of work before it
    _, err = child.communicate(timeout=300)
    want(child.returncode == 1 and "cancelled" in err, f"{child.returncode}: {err}")
    want(not os.listdir(room("stopped")), f"left behind: {os.listdir(room('stopped'))}")
    return None


def test_f32_is_the_same(room):
    """An F32 copy of a quantized model computes what the original does with f32 activations."""
    text = os.path.join(SHARED, "data", "wiki.test.raw")
    if not os.path.exists(REAL) or not os.path.exists(text):
        return "no fetched smollm2 or no ../shared"
    dil("quantize", REAL, room("real-f32.gguf"), "--type", "F32")
    found = [json.loads(dil("eval", "perplexity", "-m", path, "-f", text, "-c", "128", "--chunks", "1", "--json", "--no-pack-cache", *more)[0])["perplexity"]
             for path, more in ((REAL, ["--exact"]), (room("real-f32.gguf"), []))]
    os.remove(room("real-f32.gguf"))
    want(abs(found[0] / found[1] - 1) < 1e-3, f"perplexity {found}")
    return None


def train_config(room, **training):
    words = "the bird flies over a river when rain falls and seven neighbours look at clouds far away".split()
    rng = np.random.default_rng(1)
    with open(room("train.txt"), "w") as f:
        f.writelines(" ".join(rng.choice(words, 7)) + ".\n" for _ in range(3000))
    config = {"name": "tiny", "output": "run", "tokenizer": {"size": 310},
              "corpora": [{"name": "en", "path": "train.txt", "held_out": 0.05}],
              "model": {"architecture": "qwen3moe", "context_length": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                        "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "moe_intermediate_size": 32},
              "training": {"steps": 12, "batch_size": 8, "learning_rate": 0.01, "evaluate_every": 5, **training}}
    with open(room("train.json"), "w") as f:
        json.dump(config, f)
    shutil.rmtree(room("run"), ignore_errors=True)
    return room("train.json")


def test_train(room):
    """From a text to a model that answers, stopped on the way."""
    config = train_config(room)
    out, _ = dil("train", config, "--steps", "7", "-t", "1")
    want("4 experts, 2 per token" in out and "step 5 of 12" in out and "--resume" in out, out)
    want("a run has been here" in dil("train", config, code=1)[1], "a second run without --resume")
    lines = [json.loads(line) for line in dil("train", config, "--resume", "--json", "-t", "2")[0].splitlines()]
    want([x["event"] for x in lines] == ["begin", "evaluation", "evaluation", "end"], str(lines))
    want(lines[-1]["step"] == 12 and 0 < lines[-1]["bits_per_byte"]["en"] < 8, str(lines[-1]))
    with open(room("run/metrics.csv")) as f:
        want(len(f.read().splitlines()) == 13, "lines of metrics.csv")
    out, _ = dil("export", room("run/checkpoint.bin"), room("trained.gguf"))
    want("after 12 of 12 steps" in out, out)
    dil("check", room("trained.gguf"))
    dil("run", "-m", room("trained.gguf"), "-p", "the bird", "-n", "4", "--temp", "0", "--no-template")


def test_train_wrong(room):
    config = train_config(room)
    want("cannot open" in dil("train", room("none.json"), code=1)[1], "no config")
    want("begin without --resume" in dil("train", config, "--resume", code=1)[1], "nothing to go on from")
    want("training.lr: unknown key" in dil("train", train_config(room, lr=1), code=1)[1], "an unknown key")
    want("wanted a checkpoint" in dil("export", room("llama.gguf"), room("x.gguf"), code=1)[1], "export of another file")
    want("--type" in dil("export", room("llama.gguf"), room("x.gguf"), "--type", "Q8_0", code=2)[1], "export as an unknown type")


def test_train_interrupt(room):
    """Ctrl-C saves, says how to go on, and ends with 1."""
    config = train_config(room, steps=100000, evaluate_every=1)
    child = subprocess.Popen([BINARY, "train", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.readline(), child.stdout.readline(), child.stdout.readline()  # what is trained, and the first evaluation
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    want(child.returncode == 1 and "to go on: dil train" in out and os.path.exists(room("run/checkpoint.bin")), out[-300:])


def test_import(room):
    models = os.path.join(SHARED, "data", "tiny_models")
    if not os.path.isdir(models):
        return "no ../shared"
    out_path = room("stories.gguf")
    dil("import", os.path.join(models, "stories260K.bin"), os.path.join(models, "tok512.bin"), out_path)
    dil("check", out_path)
    text, _ = dil("run", "-m", out_path, "--no-template", "-p", "Once upon a time", "-n", "8", "--temp", "0", "-q", "--no-pack-cache")
    want("there was" in text, text)
    dil("import", os.path.join(models, "tok512.bin"), os.path.join(models, "tok512.bin"), room("bad-import.gguf"), code=1)
    want(not os.path.exists(room("bad-import.gguf")), "a failed import leaves a file")
    return None


def chat(room, script, *args, model="llama.gguf"):
    return dil("chat", "-m", room(model), "-n", "4", "--temp", "0", "--no-pack-cache", *args, stdin=script, env={"XDG_DATA_HOME": room("data")})


def test_chat(room):
    saved = room("talk.json")
    out, err = chat(room, f"the day\n/set top_k 0\n/set seed 3\none \\\ntime\n\"\"\"\na\n\nb\n\"\"\"\n/show\n/stats\n/save {saved}\n/bye\nnot read\n")
    want("user: one \ntime\n" in out, out)
    want("3 turns" in err and "top_k 0" in err and "seed 3" in err and f"6 messages written to {saved}" in err, err)
    kept = [int(n) for n in re.findall(r"(\d+) kept", err)]
    want(len(kept) >= 3 and kept[0] == 0 and kept[1] > 0 and kept[2] > kept[1], f"the prefix is kept: {kept}")
    with open(saved, encoding="utf-8") as f:
        talk = json.load(f)
    want([m["role"] for m in talk["messages"]] == ["user", "assistant"] * 3, str(talk))
    want(talk["messages"][4]["content"] == "\na\n\nb\n" or talk["messages"][4]["content"] == "a\n\nb\n", repr(talk["messages"][4]))
    out, err = chat(room, f"/load {saved}\n/show\n/clear\n/show\n")
    want("6 messages read" in err and out.count("user: ") == 3, out + err)


def test_chat_wrong(room):
    cases = [b"{", b"[]", b"{}", b'{"dilmodeli_chat": 2, "messages": []}', b'{"dilmodeli_chat": 1}',
             b'{"dilmodeli_chat": 1, "messages": [{"role": "assistant", "content": "a"}]}',
             b'{"dilmodeli_chat": 1, "messages": [{"role": "user", "content": "a"}]}',
             b'{"dilmodeli_chat": 1, "messages": [{"role": "user", "content": 5}]}',
             b'{"dilmodeli_chat": 1, "messages": [{"role": "tool", "content": "a"}]}',
             b'{"dilmodeli_chat": 1, "messages": [7]}', b'{"dilmodeli_chat": 1, "messages": [{"role": "user", "content": "\\u0000"}]}', b"\xff\xfe"]
    script = ""
    for i, data in enumerate(cases):
        with open(room(f"bad{i}.json"), "wb") as f:
            f.write(data)
        script += f"/load {room(f'bad{i}.json')}\n"
    out, err = chat(room, script + "/show\n/load\n/load /no/such/file\n/save /no/such/folder/x\n/set\n/set temperature x\n/set nothing 1\n/nothing\n")
    want(out == "" and err.count("wanted") >= len(cases) + 3, f"{out}\n{err}")
    want(err.count("read from") == 0, err)
    done = subprocess.run([BINARY, "chat", "-m", room("llama.gguf"), "--no-pack-cache"], input=b"\xff\xfe\n", capture_output=True, timeout=60)
    want(done.returncode == 0 and b"UTF-8" in done.stderr, str(done.stderr))


def test_chat_full(room):
    """The oldest turns go when the context is full, the system message stays; what never fits is said and forgotten."""
    _, err = chat(room, "the day was\n" * 12 + "/show\n", "-c", "96", "-sys", "he said")
    want("oldest turn" in err and "context is" not in err, err)
    out, err = chat(room, "the day " * 100 + "\n/show\n", "-c", "64", "-sys", "he said")
    want("wanted at most 63 tokens" in err and "user:" not in out and "system: he said" in out, out + err)


def read_terminal(fd, until, seconds=60, least=0):
    """What comes until `until` was there and at least `least` bytes."""
    out, end = b"", time.time() + seconds
    while time.time() < end and (until not in out or len(out) < least):
        if select.select([fd], [], [], 0.1)[0]:
            try:
                out += os.read(fd, 65536)
            except OSError:
                break
    return out


def test_chat_terminal(room):
    """Line editing, history and Ctrl-C on a terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", XDG_DATA_HOME=room("data"), LC_ALL="C")
        os.execv(BINARY, [BINARY, "chat", "-m", room("llama.gguf"), "--ignore-eos", "-c", "200000", "--no-pack-cache"])
    try:
        first = read_terminal(fd, b"> ")
        want(b"/help" in first, repr(first))
        os.write(fd, "çok gün\r".encode())
        read_terminal(fd, b"\n", least=500)  # the line comes back, then the answer, which does not end
        os.write(fd, b"\x03")
        stopped = read_terminal(fd, b"stopped")
        want(b"stopped" in stopped, f"Ctrl-C stops the answer: {stopped[-300:]!r}")
        if b"> " not in stopped.split(b"stopped")[-1]:
            read_terminal(fd, b"> ")
        hint = b""
        for _ in range(5):  # a key pressed just before the editor listens is lost, as for people
            os.write(fd, b"\x03")
            hint += read_terminal(fd, b"/bye", 4)
            if b"/bye" in hint:
                break
        want(b"/bye" in hint, f"Ctrl-C at the prompt: {hint!r}")
        last = b""
        for _ in range(10):
            os.write(fd, b"\x15\x1b[A")
            last += read_terminal(fd, "gün".encode(), 4)
            if "çok gün".encode() in last:
                break
        want("çok gün".encode() in last, f"the history holds the last line: {last!r}")
        os.write(fd, b"\x15/bye\r")
        end = time.time() + 60
        done = (0, 0)
        while done[0] == 0 and time.time() < end:
            read_terminal(fd, b"never", 0.2)
            done = os.waitpid(pid, os.WNOHANG)
        want(done[0] == pid and done[1] == 0, f"/bye leaves: {done}")
        want(os.path.exists(room("data/dilmodeli/chat_history")), "the history is kept")
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(fd)


def read_lines(path):
    with open(path, encoding="utf-8", newline="\n") as f:
        return f.read().split("\n")[:-1]


def prompts_file(room, n):
    path = room(f"prompts{n}.txt")
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(f"{'the day ' * (i % 5)}he said {i}\n" for i in range(n)))
    return path


def test_outputs(room):
    """Every answer is what run says to its prompt; the files are what eval bleu reads."""
    with open(os.path.join(SOURCE, "tests", "python", "templates", "chatml.jinja"), encoding="utf-8") as f:
        template = f.read()
    model = make_models.write_model(make_models.MODELS["llama"], room("talks.gguf"), {"tokenizer.chat_template": template})
    prompts, common = prompts_file(room, 7), ["-m", model, "--no-pack-cache"]
    outputs = ["eval", "outputs", *common, "-f", prompts]
    for name, *more in (("told",), ("one", "-npl", "1"), ("plain", "--no-template"), ("ruled", "-sys", "be short")):
        more += ["-n", "20"]
        out, err = dil(*outputs, "-o", room(name), *more)
        want(out == "" and re.search(r"\[7 answers, \d+ ended by the model \| prompts \d+ tokens, .* tokens in .* tokens/s\]", err), out + err)
        answers = read_lines(room(name))
        alone = [dil("run", *common, "--temp", "0", "-q", "-p", line, *[x for x in more if x not in ("-npl", "1")])[0] for line in read_lines(prompts)]
        want(answers == [a[:-1].replace("\n", " ").replace("\r", " ") for a in alone], f"{name}: {answers} {alone}")
        want(not os.path.exists(room(name) + ".part"), "the part file stays")
    want(read_lines(room("told")) != read_lines(room("plain")) and read_lines(room("told")) != read_lines(room("ruled")), "options change nothing")
    found = json.loads(dil(*outputs, "-o", room("told"), "--json", "-q")[0])
    want(found["answers"] == 7 and found["answers_before"] == 0 and found["generated_tokens"] <= 7 * 128 and found["seconds"] > 0, str(found))
    want("BLEU  100.00" in dil("eval", "bleu", "--hyp", room("one"), "--ref", room("one"), "--tokenize", "char")[0], "bleu of the same")
    for told, code, *args in (("-f PROMPTS and -o", 2, "-f", prompts), ("-f PROMPTS and -o", 2, "-o", room("x")), ("at least one token", 2, "-f", prompts, "-o", room("x"), "-n", "0"),
                              ("wanted another name for the answers", 1, "-f", prompts, "-o", prompts), ("lines, found 0", 1, "-f", "/dev/null", "-o", room("x"))):
        want(told in dil("eval", "outputs", *common, *args, code=code)[1], f"{args}: {told}")
    want(not os.path.exists(room("x")) and not os.path.exists(room("x.part")), "a failure leaves a file")


def test_outputs_resume(room):
    """After Ctrl-C the answers are kept; --resume goes on with the same run only, behind the last whole line."""
    prompts, out, n = prompts_file(room, 400), room("resumed"), 400
    args = ["eval", "outputs", "-m", room("llama.gguf"), "--no-pack-cache", "-f", prompts, "-n", "40", "-npl", "2"]
    child = subprocess.Popen([BINARY, *args, "-o", out], stderr=subprocess.PIPE, text=True)
    end = time.time() + 60
    while time.time() < end and not (os.path.exists(out + ".part") and len(read_lines(out + ".part")) > 4):
        time.sleep(0.002)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    want(child.returncode == 1 and f"of {n} answers; with --resume the same command goes on" in err and not os.path.exists(out), err)
    head, *kept = read_lines(out + ".part")
    want(3 < len(kept) < n, f"{len(kept)} answers")
    with open(out + ".part", "a", encoding="utf-8") as f:
        f.write("half an ans")
    want("wanted what an interrupted run of the same model" in dil(*args[:-4], "-n", "41", "-o", out, "--resume", code=1)[1], "another run's")
    want(read_lines(out + ".part")[1:] == kept, "a refused run changes the file")
    found = json.loads(dil(*args[:-2], "-npl", "8", "-o", out, "--resume", "--json")[0])
    want(found["answers"] == n and found["answers_before"] == len(kept), str(found))
    dil(*args, "-o", room("whole"), "--resume")  # nothing to go on with
    want(read_lines(out) == read_lines(room("whole")) and read_lines(out)[:len(kept)] == kept, "answers differ")
    with open(out + ".part", "w", encoding="utf-8") as f:
        f.write(head + "\nnot an answer of this model\n")
    dil(*args, "-o", out)  # without --resume anew
    want(read_lines(out) == read_lines(room("whole")), "answers differ")


def make_room(folder):
    specs = {"llama": make_models.MODELS["llama"], "odd": make_models.MODELS["llama-mqa-odd"],
             "wide": make_models.dataclasses.replace(make_models.MODELS["llama"], name="wide", n_embd=256, n_ff=512, head_dim=64)}
    specs["long"] = make_models.dataclasses.replace(specs["llama"], name="long", n_ctx_train=4096, n_head=8, n_head_kv=8, head_dim=64)
    for name, spec in specs.items():
        make_models.write_model(spec, os.path.join(folder, name + ".gguf"))
    return lambda name: os.path.join(folder, name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-k", default="", help="only tests whose name holds this")
    args = parser.parse_args()
    if not BINARY or not os.access(BINARY, os.X_OK):
        print("skipped: no command to test (DIL_BINARY)")
        return 77
    failures = 0
    for name in [n for n in os.environ if n.startswith("DIL_ARG_")]:  # what this user prefers
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        room = make_room(folder)
        os.environ["XDG_CACHE_HOME"] = room("cache")
        for name, test in [(n, f) for n, f in globals().items() if n.startswith("test_") and args.k in n]:
            started = time.time()
            try:
                skipped = test(room)
                print(f"{'skip' if skipped else 'ok  '} {name[5:]:20} {time.time() - started:5.1f} s {skipped or ''}", flush=True)
            except (Failed, subprocess.TimeoutExpired, ValueError, KeyError) as problem:
                failures += 1
                print(f"FAIL {name[5:]:20} {problem}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
