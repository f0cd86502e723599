#!/usr/bin/env python3
"""bench/compare_quantize.py against stand-ins for all programs: what is asked of them, the tables, rounding and allocation alone, a judge
that says nothing at first, and a second run that measures nothing again."""
import json
import os
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SCRIPT = os.path.join(SOURCE, "bench", "compare_quantize.py")

# A file says what its divergence is; its size is that of the type.
COMMON = """#!{python}
import json, os, sys
a = sys.argv[1:]
def after(name):
    return a[a.index(name) + 1]
def write(path, text):
    with open(path, "w") as f:
        f.write(text)
with open("{log}", "a") as f:
    f.write(os.path.basename(sys.argv[0]) + " " + " ".join(a) + "\\n")
"""
PROGRAMS = {
    "llama-imatrix": "write(after('-o'), 'imatrix')",
    "llama-quantize": """
name, kind = a[-3], a[-2]
if kind == "BAD":
    sys.exit("no such type")
size, kld = {"Q4_K_M": (1000, 0.5), "Q6_K": (2000, 0.1), "Q3_K_M": (800, 0.8)}[kind]
if "--tensor-type-file" in a:
    types = open(after("--tensor-type-file")).read()
    size, kld = 990, 0.3 if types == "^blk\\\\.0\\\\.attn_q\\\\.weight$=q5_k\\n" else 9
write(name, json.dumps({"kld": kld}).ljust(size))
""",
    "llama-perplexity": """
if "--kl-divergence" not in a:
    write(after("--kl-divergence-base"), "base")
    sys.exit(0)
silent = after("-m") + ".asked"
if not os.path.exists(silent):
    write(silent, "")
    sys.exit(0)
os.remove(silent)
kld = json.load(open(after("-m")))["kld"]
print(f"Mean PPL(Q)   :  20.5 +- 1\\nMean    KLD:   {kld} +- 0.1\\n99.0%   KLD:   {3 * kld}\\nSame top p: 91.5 +- 1 %")
""",
    "dil": """
if a[0] == "calibrate":
    write(after("-o"), "stats")
    sys.exit(0)
kld, size = (0.4, 1000) if "--like" in a else (0.2, int(after("--size")))
write(a[2], json.dumps({"kld": kld}).ljust(size))
write(after("--report"), json.dumps({"expected_divergence": 0.21, "seconds": {"all": 3},
                                     "matrices": [{"name": "blk.0.attn_q.weight", "type": "Q5_K"}]}))
""",
}


def want(condition, text):
    if not condition:
        raise SystemExit(f"FAILED: {text}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        at = lambda name: os.path.join(folder, name)
        for name, text in PROGRAMS.items():
            with open(at(name), "w") as f:
                f.write(COMMON.replace("{python}", sys.executable).replace("{log}", at("log")) + text)
            os.chmod(at(name), 0o755)
        command = [sys.executable, SCRIPT, "--dil", at("dil"), "--peer", f"lc={folder}", "--peer", f"ik={folder}", "--model", "m.gguf",
                   "--calib", "c.txt", "--text", "t.txt", "--out", at("out"), "--types", "lc=Q4_K_M,Q6_K,Q3_K_M,BAD", "--types",
                   "ik=Q3_K_M,Q4_K_M+pure", "--sizes", "996", "--apart", "--extra", "tr=u.txt"]
        done = subprocess.run(command, capture_output=True, text=True)
        want(done.returncode == 0, done.stderr)
        with open(at("out/comparison.json")) as f:
            (line,) = json.load(f)
        want(line["file"] == "dil --size 996" and line["kld"] == 0.2 and line["p99"] == 0.6000000000000001 and line["ppl"] == 20.5, line)
        want(line["peers"]["lc"]["file"] == "lc Q4_K_M" and abs(line["peers"]["lc"]["ratio"] - 0.4) < 1e-9, line["peers"])
        want(line["peers"]["ik"]["file"] == "ik Q4_K_M+pure", line["peers"])
        want(line["rounding alone"]["kld"] == 0.4 and line["allocation alone"]["kld"] == 0.3, line)
        with open(at("out/results.json")) as f:
            results = json.load(f)
        want("failed" in results["lc BAD"] and results["lc Q6_K"]["tr"]["top"] == 91.5, results)
        with open(at("out/table.md")) as f:
            table = f.read()
        want("| dil --size 996 | 0.0 | 0.2000 | 0.5000 Q4_K_M, 0.0 MB (0.40) |" in table and "| 0.4000 | 0.3000 |" in table, table)
        with open(at("log")) as f:
            calls = f.read().splitlines()
        want(sum(c.startswith("llama-imatrix") for c in calls) == 2 and sum(c.startswith("dil calibrate") for c in calls) == 1, calls)
        want(any(c.startswith("llama-quantize") and " --pure m.gguf" in c for c in calls), "options of a kind")
        want(subprocess.run(command, capture_output=True).returncode == 0, "a second run")
        with open(at("log")) as f:
            want(f.read().splitlines() == calls, "nothing is measured again")
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
