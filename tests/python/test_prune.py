#!/usr/bin/env python3
"""Pruning, on the project's own small models: files get smaller as promised and are sound, what is lost is far below what random removals
lose, a budget is kept, the price of quantizing instead is told, and errors name what is wrong.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
except ImportError as missing:
    print(f"needs {missing.name}")
    sys.exit(77)

SOURCE = os.environ.get("DIL_SOURCE_DIR", ".")
BINARY = os.environ.get("DIL_BINARY", "")
MODELS = {name: os.path.join(SOURCE, f"models/sigircik-{name}.gguf") for name in ("dense", "moe")}
TEXT = os.path.join(SOURCE, "tests/traces/held-out-en.txt")


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


def prune(model, out, *how):
    return json.loads(dil("prune", model, out, *how, "--json"))


def cut(model, out, kept, experts):
    """The file with the neurons or experts kept[layer] only, written independently of the project."""
    reader = gguf.GGUFReader(model)
    arch = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(out, arch)
    number = f"{arch}.expert_count" if experts else f"{arch}.feed_forward_length"
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(field.name, field.contents())
        else:
            writer.add_key_value(field.name, len(kept[0]) if field.name == number else field.contents(), field.types[0])
    rows = ("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps") if experts else ("ffn_gate", "ffn_up")
    for tensor in reader.tensors:
        parts, values = tensor.name.split("."), tensor.data
        if parts[0] == "blk" and parts[2] in rows:
            values = values[kept[int(parts[1])]]
        elif parts[0] == "blk" and parts[2] == "ffn_down":
            values = values[:, kept[int(parts[1])]]
        writer.add_tensor(tensor.name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def kept_of(report):
    return [sorted(set(range(report["before"])) - set(one["removed"])) for one in report["lists"]]


def random_kept(report):
    left = report["before"] - report["removed"]
    return [sorted(random.sample(range(report["before"]), left)) for _ in report["lists"]]


def same_tensors(left, right):
    a, b = ({t.name: t.data.tobytes() for t in gguf.GGUFReader(path).tensors} for path in (left, right))
    want(a.keys() == b.keys(), "the same tensors")
    return [name for name in a if a[name] != b[name]]


def far_below_random(at, name, how, experts):
    report = prune(MODELS[name], at("pruned.gguf"), *how, "--stats", at(f"{name}.stats"), "--calib", at("tail.txt"))
    base, found = at(f"{name}.kld"), report["measured"]["divergence"]
    want(os.path.getsize(at("pruned.gguf")) == report["out_bytes"] < report["in_bytes"], "the promised size")
    want(abs(kld(base, at("pruned.gguf")) - found) < 0.25 * found, "measured as dil eval measures")
    random_loss = []
    for seed in range(2):
        random.seed(seed)
        cut(MODELS[name], at("random.gguf"), random_kept(report), experts)
        random_loss.append(kld(base, at("random.gguf")))
    cut(MODELS[name], at("bare.gguf"), kept_of(report), experts)
    bare = kld(base, at("bare.gguf"))
    print(f"{name}: {report['removed']} of {report['before']}: found {report['found_divergence']:.3f}, measured {found:.3f}, "
          f"the same without taking over {bare:.3f}, random {', '.join(f'{v:.3f}' for v in random_loss)}")
    want(found < 0.5 * min(random_loss), f"wanted less than half of what random removals lose, found {found} and {random_loss}")
    changed = same_tensors(at("pruned.gguf"), at("bare.gguf"))
    if experts:
        want(changed == [], f"experts are whole: {changed}")
    else:
        want(changed and all("ffn_down" in one for one in changed), f"only down has changed: {changed}")
        want(found < 0.7 * bare, f"those that stay take over: {found} and {bare}")
    ways = {way["name"]: way for way in report["quantized_instead"]}
    want(ways["game"]["bytes"] <= report["out_bytes"] and ways["game"]["divergence"] < report["found_divergence"], f"the price: {ways}")
    for one in report["lists"]:
        want(len(one["removed"]) == len(set(one["removed"])) == report["removed"], "as many from each layer")


def layers_leave(at):
    report = prune(MODELS["dense"], at("short.gguf"), "--layers", "1", "--stats", at("dense.stats"), "--calib", at("tail.txt"))
    gone, costs = report["lists"][0]["removed"], report["lists"][0]["expected_divergence"]
    print(f"dense: layer {gone[0]} gone: found {costs[0]:.3f}, measured {report['measured']['divergence']:.3f}")
    reader = gguf.GGUFReader(at("short.gguf"))
    want(reader.get_field("qwen3.block_count").contents() == 3, "one layer less")
    want(not any(t.name.startswith("blk.3.") for t in reader.tensors), "layers are numbered from 0 on")
    want(0.5 * costs[0] < report["measured"]["divergence"] < 2 * costs[0], "what was measured when it was skipped")


def quantized_files(at):
    """Whole slices keep their bytes; changed matrices become F16, and the report says so."""
    dil("quantize", MODELS["dense"], at("q.gguf"), "--type", "q5_k")
    dil("calibrate", "--full", "-m", at("q.gguf"), "-f", at("head.txt"), "-o", at("q.stats"), "-c", "128", "--chunks", "6")
    report = prune(at("q.gguf"), at("q_less.gguf"), "--neurons", "0.5", "--stats", at("q.stats"))
    want(report["decoded"], "said to be decoded")
    types = {t.name.split(".")[2]: t.tensor_type.name for t in gguf.GGUFReader(at("q_less.gguf")).tensors if t.name.startswith("blk.0.")}
    want(types["ffn_down"] == "F16" and types["ffn_gate"] == types["ffn_up"] == "Q5_K", f"types: {types}")
    short = prune(at("q.gguf"), at("q_short.gguf"), "--layers", "2", "--stats", at("q.stats"))
    want(not short["decoded"], "layers leave as they are")
    dil("check", at("q_less.gguf"))
    dil("check", at("q_short.gguf"))


def keeps_the_budget(at):
    stats = at("moe.stats")
    for budget in (0.02, 0.2):
        report = prune(MODELS["moe"], at("budget.gguf"), "--quality-budget", str(budget), "--stats", stats)
        print(f"budget {budget}: {report['removed']} experts, found {report['found_divergence']:.4f}")
        want(0 < report["found_divergence"] <= budget, f"wanted at most {budget}, found {report['found_divergence']}")
    os.remove(at("budget.gguf"))
    report = prune(MODELS["moe"], at("budget.gguf"), "--experts", "0.5", "--quality-budget", "0.2", "--stats", stats, "--dry-run")
    want(report["removed"] < 16 and not report["written"] and not os.path.exists(at("budget.gguf")), "a dry run writes nothing")


def same_for_any_threads(at):
    for threads in ("1", "3"):
        prune(MODELS["dense"], at(f"n{threads}.gguf"), "--neurons", "0.5", "--stats", at("dense.stats"), "-t", threads)
        prune(MODELS["moe"], at(f"e{threads}.gguf"), "--experts", "0.25", "--stats", at("moe.stats"), "-t", threads)
    want(bytes_of(at("n1.gguf")) == bytes_of(at("n3.gguf")) and bytes_of(at("e1.gguf")) == bytes_of(at("e3.gguf")), "the same files")


def says_what_is_wrong(at):
    dense, moe, out = MODELS["dense"], MODELS["moe"], at("x.gguf")
    stats = ["--stats", at("dense.stats")]
    dil("prune", dense, out, *stats, fails="wanted one of --neurons")
    dil("prune", dense, out, "--neurons", "0.5", "--layers", "1", *stats, fails="several")
    dil("prune", dense, out, "--neurons", "0.5", fails="--stats")
    dil("prune", dense, out, "--blocks", "0.5", "--quality-budget", "1", *stats, fails="--quality-budget")
    blocks = json.loads(dil("prune", dense, out, "--blocks", "0.01", *stats, "--dry-run", "--json"))
    want(blocks["expected_divergence"] is None and blocks["found_divergence"] > 0, f"nobody estimates blocks: {blocks['expected_divergence']}")
    dil("prune", dense, out, "--neurons", "1.5", *stats, fails="0..1")
    dil("prune", dense, out, "--neurons", "0.05", *stats, fails="at least 0.0625")
    dil("prune", dense, out, "--experts", "0.3", *stats, fails="--neurons")
    dil("prune", dense, out, "--layers", "4", *stats, fails="1 to 3")
    dil("prune", dense, out, "--quality-budget", "0.0001", *stats, fails="32 of 512")
    dil("prune", dense, dense, "--neurons", "0.5", *stats, fails="another name")
    dil("prune", moe, out, "--experts", "0.5", *stats, fails="another")
    dil("prune", moe, out, "--experts", "0.97", "--stats", at("moe.stats"), fails="at most 0.9375")
    dil("prune", moe, out, "--neurons", "0.5", "--stats", at("moe.stats"), fails="--experts")
    want(not os.path.exists(out) and not os.path.exists(out + ".work"), "no half files")


def main():
    if not os.path.exists(BINARY):
        print("needs the command: build it first")
        return 77
    folder = tempfile.mkdtemp()
    try:
        at = lambda name: os.path.join(folder, name)
        text = bytes_of(TEXT)
        for name, part in (("head.txt", text[:8500]), ("tail.txt", text[8500:])):
            with open(at(name), "wb") as f:
                f.write(part)
        for name, model in MODELS.items():
            fewer = ("--chunks", "5") if name == "moe" else ()  # its 32 experts take minutes
            dil("calibrate", "--full", "-m", model, "-f", at("head.txt"), "-o", at(f"{name}.stats"), "-c", "128", *fewer)
            dil("eval", "perplexity", "-m", model, "-f", at("tail.txt"), "-c", "128", "--save-base", at(f"{name}.kld"))
        far_below_random(at, "dense", ("--neurons", "0.5"), False)
        far_below_random(at, "moe", ("--experts", "0.25"), True)
        layers_leave(at)
        quantized_files(at)
        keeps_the_budget(at)
        same_for_any_threads(at)
        says_what_is_wrong(at)
    finally:
        shutil.rmtree(folder)
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
