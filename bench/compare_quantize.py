#!/usr/bin/env python3
"""Quality at a size: files that `dil quantize` makes beside those of other engines' quantizers, from one float model and one calibration text.

    compare_quantize.py --dil DIL --peer NAME=BIN_DIRECTORY --model FLOAT.gguf --calib TEXT --text TEXT --out DIRECTORY
                        [--types lc=Q4_K_M,IQ4_XS --types ik=IQ4_K] [--sizes 77571136,81100000 | --bpw 2.6,3.4]
                        [--extra NAME=TEXT ...] [--chunks 100] [--eval-chunks 32]

BIN_DIRECTORY holds llama-imatrix, llama-quantize and llama-perplexity of llama.cpp or a relative of it. Every peer makes its importance matrix from the
calibration text (--chunks of 512 tokens, the same that dil calibrate takes) and its files with it; the first peer's llama-perplexity
judges all files, a peer's own one those of its own types. Ours are made with `dil calibrate --full` once and `dil quantize --stats` for
every size; sizes are of whole files. --extra names further texts, for what was not fitted to.

Written into DIRECTORY: results.json (what is there is not measured again) and table.md. Divergence is from the float model, in nats per token.
"""
import argparse
import json
import os
import re
import subprocess
import sys

CONTEXT = 512


def run(command, log):
    """The output of a command; its end goes into the error when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    with open(log, "w", encoding="utf-8") as f:
        f.write(" ".join(map(str, command)) + "\n" + done.stdout + done.stderr)
    if done.returncode:
        raise RuntimeError(f"{os.path.basename(str(command[0]))} ended with {done.returncode}: see {log}")
    return done.stdout + done.stderr


class Comparison:
    def __init__(self, o):
        self.o, self.out = o, o.out
        os.makedirs(self.out, exist_ok=True)
        self.peers = dict(p.split("=", 1) for p in o.peer)
        self.judge = next(iter(self.peers))
        self.texts = {"": o.text, **dict(e.split("=", 1) for e in o.extra)}
        self.path = os.path.join(self.out, "results.json")
        self.results = json.load(open(self.path)) if os.path.exists(self.path) else {}

    def at(self, name):
        return os.path.join(self.out, name)

    def keep(self, key, value):
        self.results[key] = value
        with open(self.path + ".new", "w", encoding="utf-8") as f:
            json.dump(self.results, f, indent=1)
        os.replace(self.path + ".new", self.path)

    def base(self, peer, text):
        """The float model's probabilities on a text, as that peer's tool finds them."""
        name = self.at(f"base-{peer}-{text or 'main'}.kld")
        if not os.path.exists(name):
            run([self.peers[peer] + "/llama-perplexity", "-m", self.o.model, "-f", self.texts[text], "--kl-divergence-base", name + ".new",
                 "-c", CONTEXT, "--chunks", self.o.eval_chunks, "-t", self.o.threads, "-b", 2048], self.at("base.log"))
            os.replace(name + ".new", name)
        return name

    def judged(self, model, peer):
        """Divergence, its 99 % quantile, agreement of the first word, perplexity; on every text."""
        found = {"bytes": os.path.getsize(model)}
        for text in self.texts:
            out = run([self.peers[peer] + "/llama-perplexity", "-m", model, "-f", self.texts[text], "--kl-divergence-base",
                       self.base(peer, text), "--kl-divergence", "-c", CONTEXT, "--chunks", self.o.eval_chunks, "-t", self.o.threads,
                       "-b", 2048], self.at("judge.log"))
            value = lambda pattern: float(re.search(pattern + r"[^\d\-]*([\d.]+)", out).group(1))
            found[text] = {"kld": value(r"Mean +KLD:"), "p99": value(r"99\.0% +KLD:"), "top": value(r"Same top p:"),
                           "ppl": value(r"Mean PPL\(Q\) +:")}
        return found

    def importance(self, peer):
        name = self.at(f"imatrix-{peer}.dat")
        if not os.path.exists(name):
            run([self.peers[peer] + "/llama-imatrix", "-m", self.o.model, "-f", self.o.calib, "-o", name, "-c", CONTEXT, "--chunks",
                 self.o.chunks, "-t", self.o.threads], self.at(f"imatrix-{peer}.log"))
        return name

    def peer_file(self, peer, kind):
        """kind: a type, or TYPE+option=value+..., as the peer's llama-quantize takes them."""
        key, name = f"{peer} {kind}", self.at("peer.gguf")
        if key in self.results:
            return
        parts = kind.split("+")
        options = [x for p in parts[1:] for x in ("--" + p).split("=", 1)]
        try:
            run([self.peers[peer] + "/llama-quantize", "--imatrix", self.importance(peer), *options, self.o.model, name, parts[0],
                 self.o.threads], self.at("quantize.log"))
            self.keep(key, self.judged(name, peer))
        except RuntimeError as e:
            self.keep(key, {"failed": str(e)})
        print(key, self.results[key], flush=True)

    def our_file(self, key, options):
        name, stats = self.at("ours.gguf"), self.at("stats.gguf")
        if key in self.results:
            return
        if not os.path.exists(stats):
            run([self.o.dil, "calibrate", "-m", self.o.model, "-f", self.o.calib, "-o", stats, "--full", "--chunks", self.o.chunks, "-c",
                 CONTEXT], self.at("calibrate.log"))
        out = run([self.o.dil, "quantize", self.o.model, name, *options, "--stats", stats, "--json"], self.at("dil.log"))
        report = json.loads(out[: out.rindex("}") + 1])
        self.keep(key, {**self.judged(name, self.judge), "expected": report["expected_divergence"], "seconds": report["seconds"]["all"]})
        print(key, self.results[key], flush=True)

    def table(self):
        rows = sorted((r["bytes"], k, r) for k, r in self.results.items() if "bytes" in r)
        extra = [t for t in self.texts if t]
        lines = ["| file | MB | perplexity | divergence | 99 % | same first word |" + "".join(f" {t} |" for t in extra),
                 "|---|---|---|---|---|---|" + "---|" * len(extra)]
        for size, key, r in rows:
            m = r[""]
            name = f"**{key}**" if key.startswith("dil ") else key
            lines.append(f"| {name} | {size / 1e6:.1f} | {m['ppl']:.2f} | {m['kld']:.4f} | {m['p99']:.3f} | {m['top']:.1f} % |"
                         + "".join(f" {r[t]['kld']:.4f} |" if t in r else " |" for t in extra))
        with open(self.at("table.md"), "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        print("\n".join(lines))
        self.ratios(rows)

    def ratios(self, rows):
        """Ours beside the best of each peer that is not larger (by more than 0.5 %)."""
        for size, key, r in rows:
            if not key.startswith("dil "):
                continue
            for peer in self.peers:
                fits = [(p[""]["kld"], k) for s, k, p in rows if k.startswith(peer + " ") and s <= size * 1.005]
                if fits:
                    kld, best = min(fits)
                    print(f"{key}: {r['']['kld']:.4f} beside {kld:.4f} of {best}: {r['']['kld'] / kld:.2f}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dil", required=True)
    p.add_argument("--peer", action="append", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--calib", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--types", action="append", default=[])
    p.add_argument("--sizes", default="")
    p.add_argument("--bpw", default="")
    p.add_argument("--like", action="append", default=[], help="our codes in the types of these files")
    p.add_argument("--extra", action="append", default=[])
    p.add_argument("--chunks", type=int, default=100)
    p.add_argument("--eval-chunks", type=int, default=32)
    p.add_argument("--threads", type=int, default=2)
    o = p.parse_args()
    c = Comparison(o)
    for group in o.types:
        peer, kinds = group.split("=", 1)
        for kind in kinds.split(","):
            c.peer_file(peer, kind)
    for size in filter(None, o.sizes.split(",")):
        c.our_file(f"dil --size {size}", ["--size", size])
    for bits in filter(None, o.bpw.split(",")):
        c.our_file(f"dil --bpw {bits}", ["--bpw", bits])
    for path in o.like:
        c.our_file(f"dil --like {os.path.basename(path)}", ["--like", path])
    c.table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
