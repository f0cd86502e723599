#!/usr/bin/env python3
"""Quantizing with calibration, on the project's own small models: better than without, the wanted size, the same file whatever the threads
and however often it was killed, and errors that name what is wrong.
"""
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

SOURCE = os.environ.get("DIL_SOURCE_DIR", ".")
BINARY = os.environ.get("DIL_BINARY", "")
MODEL = os.path.join(SOURCE, "models/sigircik-dense.gguf")
OTHER = os.path.join(SOURCE, "models/sigircik-moe.gguf")
TEXT = os.path.join(SOURCE, "tests/traces/held-out-en.txt")
TOOL = os.path.join(os.environ.get("DIL_BUILD_DIR", ""), "bin", "tool_quantize")
SHORT = ["--chunks", "8", "-c", "128"]
random.seed(4)


def dil(*command, fails=None):
    done = subprocess.run([BINARY, *command], capture_output=True, text=True)
    if fails is not None:
        want(done.returncode != 0 and fails in done.stderr, f"wanted an error with '{fails}', found {done.returncode}: {done.stderr}")
    elif done.returncode:
        sys.exit(f"FAIL dil {' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def want(good, what):
    if not good:
        sys.exit(f"FAIL {what}")


def bytes_of(path):
    with open(path, "rb") as f:
        return f.read()


def kld(base, model):
    return json.loads(dil("eval", "kld", "-m", model, "--base", base, "--json"))["mean_kld"]


def better_than_plain(at, stats, base):
    """The same format, the same bytes: less divergence with calibration, on a text it never saw."""
    for name in ("q4_k", "q3_k", "q5_0"):
        dil("quantize", MODEL, at("plain.gguf"), "--type", name)
        dil("quantize", MODEL, at("fitted.gguf"), "--type", name, "--stats", stats)
        plain, fitted = kld(base, at("plain.gguf")), kld(base, at("fitted.gguf"))
        print(f"{name}: plain {plain:.4f}, with calibration {fitted:.4f}")
        want(os.path.getsize(at("plain.gguf")) == os.path.getsize(at("fitted.gguf")), f"{name}: equal bytes")
        want(fitted < 0.8 * plain, f"{name}: wanted less than 0.8 of {plain}, found {fitted}")


def importance_helps(at, base):
    """Importance alone, in both of llama.cpp's kinds of files: better than none, and the same bytes from both."""
    dil("calibrate", "-m", MODEL, "-f", at("head.txt"), "-o", at("importance.gguf"), "-c", "128")
    dil("quantize", MODEL, at("plain.gguf"), "--type", "q3_k")
    dil("quantize", MODEL, at("weighted.gguf"), "--type", "q3_k", "--stats", at("importance.gguf"))
    plain, weighted = kld(base, at("plain.gguf")), kld(base, at("weighted.gguf"))
    print(f"q3_k: plain {plain:.4f}, with importance {weighted:.4f}")
    want(weighted < 0.95 * plain, f"importance: wanted less than 0.95 of {plain}, found {weighted}")
    try:
        import gguf
    except ImportError:
        return
    tensors = {t.name: t.data for t in gguf.GGUFReader(at("importance.gguf")).tensors}
    names = [n[: -len(".in_sum2")] for n in tensors if n.endswith(".in_sum2")]
    with open(at("old.dat"), "wb") as f:
        f.write(struct.pack("<i", len(names)))
        for name in names:
            sums = tensors[name + ".in_sum2"].ravel()
            f.write(struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, sums.size))
            f.write((sums / tensors[name + ".counts"].ravel()[0]).astype("<f4").tobytes())
    dil("quantize", MODEL, at("old.gguf"), "--type", "q3_k", "--stats", at("old.dat"))
    old = kld(base, at("old.gguf"))
    want(abs(old - weighted) < 0.02 * weighted, f"the older kind of file: wanted {weighted}, found {old}")
    with open(at("cut.dat"), "wb") as f:
        f.write(bytes_of(at("old.dat"))[:5000])
    dil("quantize", MODEL, at("x.gguf"), "--type", "q3_k", "--stats", at("cut.dat"), fails="cut.dat")


def hits_the_size(at, stats, base):
    """A wanted size is met from below, the game does as well as it says, and its file is better than a uniform one."""
    for size in (1600000, 3000000):
        report = at("report.json")
        out = json.loads(dil("quantize", MODEL, at("sized.gguf"), "--size", str(size), "--stats", stats, "--json", "--report", report))
        found = os.path.getsize(at("sized.gguf"))
        want(out["out_bytes"] == found and size * 0.98 < found <= size, f"wanted at most {size} bytes, found {found}")
        with open(report) as f:
            want(json.load(f)["matrices"] == out["matrices"], "the report is what is printed")
        dil("view", "bits", report, "-o", at("sized.svg"))
        want(b"blk" not in bytes_of(at("sized.svg")) and b"ffn_down" in bytes_of(at("sized.svg")), "the report can be drawn")
        ways = {w["name"]: w["divergence"] for w in out["game"]["ways"]}
        want(ways["game"] <= ways["uniform"] and ways["game"] <= ways["random"], f"the game is the best way: {ways}")
        want(ways["game"] <= min(ways["dynamic programming"], ways["greedy"]), f"the game is as good as its baselines: {ways}")
        peer = [w for w in out["game"]["ways"] if w["name"] == "llama.cpp"]
        want([w["recipe"] for w in peer] == ["Q2_K"] * (size == 3000000), f"llama.cpp's largest mixture at {size}: {peer}")
        want(all(w["bytes"] <= size and ways["game"] < w["divergence"] for w in peer), f"better than llama.cpp's mixture: {ways}")
        want(abs(sum(m["expected_divergence"] for m in out["matrices"]) - out["expected_divergence"]) < 1e-6, "costs add up")
        for m in out["matrices"]:
            r = m["rounding"]
            want(r["codes"] == 0 or r["equilibrium"] <= r["feedback"] * 1.000001, f"{m['name']}: cost falls: {r}")
        for kind in ("codes", "scales"):
            looked = sum(m["rounding"]["checked"][kind] for m in out["matrices"])
            restless = sum(m["rounding"]["checked"][kind + "_that_could_do_better"] for m in out["matrices"])
            want(looked > 1000 and restless <= 1e-4 * looked, f"at an equilibrium: {restless} of {looked} {kind} could do better")
        print(f"{size} bytes: expected {out['expected_divergence']:.4f}, found {kld(base, at('sized.gguf')):.4f}")


def formats_without_costs_are_not_offered(at, stats):
    """Statistics of a version that measured fewer formats still serve; those of no format do not."""
    try:
        import gguf
    except ImportError:
        return
    for name, kept in (("fewer", lambda types: types != 2), ("none", lambda types: types < 0)):
        shutil.copy(stats, at(name + ".gguf"))
        types = next(t for t in gguf.GGUFReader(at(name + ".gguf"), "r+").tensors if t.name == "dilmodeli.cost_types").data
        types[~kept(types)] = -1
        types.flush()
    command = ["quantize", MODEL, at("x.gguf"), "--size", "2300000", "--dry-run", "--json", "--stats"]
    out = json.loads(dil(*command, at("fewer.gguf")))
    want("Q4_0" not in [m["type"] for m in out["matrices"]], "a format without costs is not used")
    dil(*command, at("none.gguf"), fails="at least one format")


def time_has_a_price(at, stats):
    """Dearer time, faster files at more divergence; the same answer from what was measured first."""
    os.environ["XDG_CACHE_HOME"] = at("cache")
    command = ["quantize", MODEL, at("x.gguf"), "--size", "3000000", "--stats", stats, "--dry-run", "--json"]
    free = json.loads(dil(*command))
    want("tokens_per_second" not in free["game"]["ways"][0], "speeds only when asked for")
    speed, divergence = 0, 0
    for price in ("0", "0.1", "10"):
        out = json.loads(dil(*command, "--speed-price", price))
        want(out["matrices"] == json.loads(dil(*command, "--speed-price", price, "-t", "1"))["matrices"], f"the same answer at {price}")
        want(price != "0" or out["matrices"] == free["matrices"], "time that costs nothing changes nothing")
        ways = {w["name"]: w for w in out["game"]["ways"]}
        want(all(w["tokens_per_second"] > 0 for w in ways.values()), f"every way has its speed: {ways}")
        game = ways["game"]
        want(game["tokens_per_second"] >= speed * (1 - 1e-9) and game["divergence"] >= divergence * (1 - 1e-9), f"price {price}: {game}")
        speed, divergence = game["tokens_per_second"], game["divergence"]
        print(f"a millisecond for {price} nats: {speed:.0f} tokens/s, divergence {divergence:.4f}")
    want(len(os.listdir(at("cache/dilmodeli/machine"))) == 1, "what kernels take is kept")
    want(speed > 1.0001 * {w["name"]: w for w in json.loads(dil(*command, "--speed-price", "0"))["game"]["ways"]}["game"]["tokens_per_second"],
         "dear time makes faster files")
    dil("quantize", MODEL, at("x.gguf"), "--type", "q4_k", "--stats", stats, "--speed-price", "1", fails="--bpw, --size")
    dil("quantize", MODEL, at("x.gguf"), "--type", "q4_k", "--speed-price", "1", fails="--bpw, --size")
    dil(*command, "--speed-price", "-1", fails="speed-price")
    dil("quantize", MODEL, at("priced.gguf"), "--size", "3000000", "--calib", TEXT, *SHORT, "--speed-price", "10", "--dry-run")
    command = [BINARY, "quantize", MODEL, at("priced.gguf"), "--size", "3000000", "--calib", TEXT, *SHORT, "--fast"]
    stopped = subprocess.Popen([*command, "--speed-price", "10"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while stopped.poll() is None and not os.path.exists(at("priced.gguf.work/key")):
        time.sleep(0.005)
    stopped.kill()
    stopped.wait()
    want(os.path.exists(at("priced.gguf.work/key")), "it was stopped in its work")
    dil(*command[1:], "--resume", fails="of another one")
    dil(*command[1:], "--speed-price", "10", "--resume")


def same_after_kills_and_for_any_threads(at):
    """Killed at random moments, ten times, and gone on, with 3 threads: the file that one thread makes at once, scales learnt too."""
    how = ["--bpw", "3.4", "--refine", "6", "--fast"]
    dil("quantize", MODEL, at("t1.gguf"), *how, "--calib", TEXT, *SHORT, "-t", "1")
    killed_and_resumed(at, bytes_of(at("t1.gguf")), [*how, "-t", "3"], 10, 0.9)


def killed_and_resumed(at, wanted, how, n, longest):
    command = [BINARY, "quantize", MODEL, at("killed.gguf"), *how, "--calib", TEXT, *SHORT]
    kills = 0
    began = time.time()
    while kills < n and time.time() - began < 120:
        p = subprocess.Popen(command + ["--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0.05, longest))
        p.send_signal(signal.SIGKILL)
        p.wait()
        kills += 1
        if os.path.exists(at("killed.gguf")):
            os.remove(at("killed.gguf"))
    dil(*command[1:], "--resume")
    want(bytes_of(at("killed.gguf")) == wanted, f"the same file after being killed {n} times")
    left = [name for name in os.listdir(os.path.dirname(at("x"))) if name.startswith("killed.gguf.")]
    want(not left, f"nothing is left of the work: {left}")


def spends_budgets(at, stats):
    """The smallest file within a budget: measured, not hoped for; more budget, fewer bytes."""
    sizes = []
    for budget in (0.02, 0.2):
        how = ("--quality-budget", str(budget), "--stats", stats, "--calib", TEXT, "--fast")
        out = json.loads(dil("quantize", MODEL, at("within.gguf"), *how, "--json"))
        taken = [a for a in out["attempts"] if a["taken"]]
        within = [a["bytes"] for a in out["attempts"] if a["divergence"] <= budget]
        found = out["measured"]["divergence"]
        want(len(taken) == 1 and taken[0]["bytes"] == min(within), f"the smallest one within the budget is taken: {out['attempts']}")
        want(0.7 * budget < found <= budget and found == taken[0]["divergence"], f"wanted up to {budget}, measured {found}")
        want(abs(os.path.getsize(at("within.gguf")) - taken[0]["bytes"]) < 2000, "the file is the one that was taken")
        sizes.append(os.path.getsize(at("within.gguf")))
        dil("eval", "perplexity", "-m", MODEL, "-f", at("tail.txt"), "-c", "128", "--save-base", at("tail.kld"))
        again = kld(at("tail.kld"), at("within.gguf"))
        print(f"budget {budget}: {sizes[-1]} bytes after {len(out['attempts'])} attempts, measured {found:.4f}, by dil eval {again:.4f}")
        want(0.5 * found < again < 2 * found, f"dil eval agrees with {found}: {again}")
    want(sizes[1] < 0.8 * sizes[0], f"more budget, fewer bytes: {sizes}")
    estimate = json.loads(dil("quantize", MODEL, at("x.gguf"), "--quality-budget", "0.2", "--stats", stats, "--dry-run", "--json"))
    want(not estimate["written"] and 0.15 < estimate["expected_divergence"] <= 0.2, "a dry run goes by the estimate")


def sets_presets(at):
    """Bits at least those of the preset, structure gone up to its share, all within the budget; gone on with after kills."""
    for name, bits, share, budget in (("yuksek", 8, 0.1, 0.005), ("dengeli", 4, 0.3, 0.5)):
        out = json.loads(dil("quantize", MODEL, at(f"{name}.gguf"), "--preset", name, "--quality-budget", str(budget), "--calib", TEXT,
                             *SHORT, "--fast", "--json"))
        p, found = out["preset"], out["measured"]["divergence"]
        print(f"{name}: {out['out_bytes']} bytes, {p['removed']} of {p['before']} gone, measured {found:.4f}")
        want(p["name"] == name and p["budget"] == budget and found <= budget, f"wanted {name} within {budget}, found {p} {found}")
        want(0.99 * bits < out["bits_per_weight"] < bits + 1, f"wanted {bits} bits, found {out['bits_per_weight']}")
        want(0 <= p["removed"] <= share * (p["before"] or 1), f"wanted at most {share} gone, found {p}")
        want((p["removed"] > 0) == (name == "dengeli"), f"a wide budget lets neurons go, a narrow one does not: {p}")
        show = json.loads(dil("show", at(f"{name}.gguf"), "--json"))
        want(show["model"]["feed_forward"] == 512 - p["removed"], f"wanted {512 - p['removed']} neurons, found {show['model']}")
    killed_and_resumed(at, bytes_of(at("dengeli.gguf")), ["--preset", "dengeli", "--quality-budget", "0.5", "--fast"], 5, 4)
    dil("quantize", MODEL, at("x.gguf"), "--preset", "dusuk", fails="--calib")
    dil("quantize", MODEL, at("x.gguf"), "--preset", "low", "--calib", TEXT, fails="dusuk, dengeli or yuksek")
    dil("quantize", MODEL, at("x.gguf"), "--preset", "dusuk", "--bpw", "3", "--calib", TEXT, fails="several")


def the_library_does_the_same(at):
    """dil_quantize of the public header: the files of the command, and what it reports of them."""
    if not os.path.exists(TOOL):
        sys.exit(f"FAIL wanted {TOOL}, which is built with the tests")
    for how, budget, options in (("4.3", "0", ["--bpw", "4.3"]), ("dengeli", "0.5", ["--preset", "dengeli", "--quality-budget", "0.5"])):
        api = json.loads(subprocess.run([TOOL, MODEL, at("api.gguf"), TEXT, how, budget], capture_output=True, text=True, check=True).stdout)
        if not os.path.exists(at(f"{how}.gguf")):
            dil("quantize", MODEL, at(f"{how}.gguf"), *options, "--calib", TEXT, *SHORT, "--fast")
        want(bytes_of(at("api.gguf")) == bytes_of(at(f"{how}.gguf")), f"{how}: the command's file: {api}")
        matrices = json.loads(dil("show", at("api.gguf"), "--json", "--tensors"))["tensors"]
        want(api["out_bytes"] == os.path.getsize(at("api.gguf")), f"its size is reported: {api}")
        want(api["first_type"] in [t["type"] for t in matrices if t["name"] == api["first"]], f"its formats are reported: {api}")
        want(0 < api["cost"] < 0.5 and (api["removed"] > 0) == (how == "dengeli"), f"what it cost is reported: {api}")


def refines(at, base):
    """Scales and norms learn: as many bytes, less divergence on a text they have not seen."""
    dil("quantize", MODEL, at("plain.gguf"), "--type", "q3_k")
    said = dil("refine", MODEL, at("plain.gguf"), at("refined.gguf"), "--calib", at("head.txt"), "-c", "128", "--steps", "32")
    plain, refined = kld(base, at("plain.gguf")), kld(base, at("refined.gguf"))
    print(f"q3_k: plain {plain:.4f}, refined {refined:.4f}; {said.splitlines()[-1].strip()}")
    want(os.path.getsize(at("plain.gguf")) == os.path.getsize(at("refined.gguf")), "equal bytes")
    want(refined < 0.97 * plain, f"wanted less than 0.97 of {plain}, found {refined}")
    dil("refine", MODEL, at("plain.gguf"), at("plain.gguf"), "--calib", at("head.txt"), fails="another name")
    dil("refine", MODEL, OTHER, at("x.gguf"), "--calib", at("head.txt"), "-c", "128", fails="another model")
    dil("refine", MODEL, at("plain.gguf"), at("x.gguf"), fails="--calib")


def says_what_is_wrong(at, stats):
    dil("quantize", OTHER, at("x.gguf"), "--bpw", "4", "--stats", stats, fails="of another")
    out = json.loads(dil("quantize", MODEL, at("x.gguf"), "--bpw", "4", "--stats", stats, "--dry-run", "--json"))
    want(not out["written"] and 2000000 < out["out_bytes"] < 3000000, f"a dry run writes nothing: {out}")
    dil("quantize", MODEL, at("x.gguf"), "--size", "1000", "--stats", stats, fails="wanted at least")
    dil("quantize", MODEL, at("x.gguf"), "--bpw", "4", "--stats", MODEL, fails="statistics of this model")
    shutil.copy(MODEL, at("own.gguf"))
    dil("quantize", at("own.gguf"), at("own.gguf"), "--bpw", "4", "--stats", stats, fails="another name")
    dil("calibrate", "-m", at("own.gguf"), "-f", TEXT, "-o", at("own.gguf"), "-c", "128", fails="another name")
    want(bytes_of(at("own.gguf")) == bytes_of(MODEL), "the input is as it was")
    with open(at("cut.gguf"), "wb") as f:
        f.write(bytes_of(stats)[:200000])
    dil("quantize", MODEL, at("x.gguf"), "--bpw", "4", "--stats", at("cut.gguf"), fails="cut.gguf")
    with open(at("few.txt"), "w") as f:
        f.write("too short")
    dil("quantize", MODEL, at("x.gguf"), "--bpw", "4", "--calib", at("few.txt"), fails="few.txt")
    damaged = bytearray(bytes_of(MODEL))
    damaged[-2000:-1998] = struct.pack("<e", float("nan"))
    with open(at("nan.gguf"), "wb") as f:
        f.write(damaged)
    dil("quantize", at("nan.gguf"), at("x.gguf"), "--bpw", "4", "--calib", TEXT, *SHORT, fails="finite")
    dil("quantize", at("nan.gguf"), at("x.gguf"), "--type", "Q4_K", fails="finite")
    dil("calibrate", "-m", at("nan.gguf"), "-f", TEXT, "-o", at("x.gguf"), "-c", "128", fails="finite")
    dil("quantize", MODEL, at("x.gguf"), "--type", "Q4_K", "--report", at("r.json"), fails="--report")
    want(not os.path.exists(at("x.gguf")), "no half files")


def takes_care_of_files(at, stats):
    """Names of files that are used, places that are none and folders of others are refused before the work begins."""
    how = ["--bpw", "4", "--stats", stats]
    shutil.copy(MODEL, at("own.gguf"))
    shutil.copy(TEXT, at("own.txt"))
    dil("quantize", at("own.gguf"), at("x.gguf"), *how, "--report", at("own.gguf"), fails="another name for the report")
    dil("quantize", at("own.gguf"), at("x.gguf"), *how, "--report", at("x.gguf"), fails="another name")
    dil("calibrate", "-m", MODEL, "-f", at("own.txt"), "-o", at("own.txt"), "-c", "128", fails="another name")
    dil("quantize", MODEL, at("no/x.gguf"), *how, fails="cannot create")
    dil("quantize", MODEL, at("x.gguf"), *how, "--report", at("no/r.json"), fails="cannot create")
    os.makedirs(at("x.gguf.work"))
    shutil.copy(TEXT, at("x.gguf.work/thesis.txt"))
    dil("quantize", MODEL, at("x.gguf"), *how, fails="something else")
    dil("quantize", MODEL, at("x.gguf"), *how, "--dry-run")
    want(bytes_of(at("own.gguf")) == bytes_of(MODEL) and bytes_of(at("own.txt")) == bytes_of(TEXT) == bytes_of(at("x.gguf.work/thesis.txt")),
         "files of others are as they were")
    want(not os.path.exists(at("x.gguf")) and not os.path.exists(at("no")), "nothing was written")
    shutil.rmtree(at("x.gguf.work"))
    want(not [n for n in os.listdir(at("")) if "dry-run" in n or "part" in n], f"nothing is left: {os.listdir(at(''))}")
    like = gguf_with_integers(at("like.gguf"))
    if like:
        dil("quantize", MODEL, at("x.gguf"), "--like", like, "--stats", stats, fails="can be written")


def gguf_with_integers(path):
    """The model's file with one matrix of integers; None without the gguf package."""
    try:
        import gguf
        import numpy as np
    except ImportError:
        return None
    w = gguf.GGUFWriter(path, "llama")
    for t in gguf.GGUFReader(MODEL).tensors:
        data = np.array(t.data)
        w.add_tensor(t.name, data.astype(np.int8) if t.name == "blk.0.attn_k.weight" else data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def main():
    if not os.path.exists(BINARY):
        print("needs the command: build it first")
        return 77
    folder = tempfile.mkdtemp()
    try:
        at = lambda name: os.path.join(folder, name)
        stats, base = at("stats.gguf"), at("base.kld")
        text = bytes_of(TEXT)
        for name, part in (("head.txt", text[:8500]), ("tail.txt", text[8500:])):
            with open(at(name), "wb") as f:
                f.write(part)
        dil("calibrate", "-m", MODEL, "-f", at("head.txt"), "-o", stats, "-c", "128", "--full")
        dil("eval", "perplexity", "-m", MODEL, "-f", at("tail.txt"), "-c", "128", "--save-base", base)
        better_than_plain(at, stats, base)
        importance_helps(at, base)
        hits_the_size(at, stats, base)
        spends_budgets(at, stats)
        sets_presets(at)
        formats_without_costs_are_not_offered(at, stats)
        time_has_a_price(at, stats)
        refines(at, base)
        same_after_kills_and_for_any_threads(at)
        the_library_does_the_same(at)
        says_what_is_wrong(at, stats)
        takes_care_of_files(at, stats)
    finally:
        shutil.rmtree(folder)
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
