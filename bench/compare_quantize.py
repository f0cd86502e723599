#!/usr/bin/env python3
"""Quality at a size: files that `dil quantize` makes beside those of other engines' quantizers, from one float model and one calibration text.

    compare_quantize.py --dil DIL --peer NAME=BIN_DIRECTORY --model FLOAT.gguf --calib TEXT --text TEXT --out DIRECTORY
                        [--types lc=Q4_K_M,IQ4_XS --types ik=IQ4_K] [--sizes 77571136,81100000 | --bpw 2.6,3.4]
                        [--apart] [--like FILE.gguf ...] [--extra NAME=TEXT ...] [--chunks 100] [--eval-chunks 32]

BIN_DIRECTORY holds llama-imatrix, llama-quantize and llama-perplexity of llama.cpp or a relative of it. Every peer makes its importance matrix from the
calibration text (--chunks of 512 tokens, the same that dil calibrate takes) and its files with it; the first peer's llama-perplexity
judges all files, a peer's own one those of its own types. Ours are made with `dil calibrate --full` once and `dil quantize --stats` for
every size; sizes are of whole files. --extra names further texts, for what was not fitted to. --apart measures both halves of the work alone, for
each of our files: our codes in the types of the first peer's best file of that size (rounding alone), and that peer's codes in our types
(allocation alone).

Written into DIRECTORY: results.json (every file; what is there is not measured again) and comparison.json (each of ours beside the best of each
peer of at most its size, 0.5 % more allowed), both as tables in table.md. Divergence is from the float model, in nats per token: its mean and the
value that 99 % of the tokens stay below.
"""
import argparse
import json
import os
import re
import subprocess
import sys

CONTEXT = 512
ASKED = 10     # times that llama-perplexity is asked: it may end well before its last words are written
MEASURES = {"kld": r"Mean +KLD:", "p99": r"99\.0% +KLD:", "top": r"Same top p:", "ppl": r"Mean PPL\(Q\) +:"}
SLACK = 1.005  # a peer's file may be that much larger


def run(command, log):
    """The output of a command; its end goes into the error when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace")
    with open(log, "w", encoding="utf-8") as f:
        f.write(" ".join(map(str, command)) + "\n" + done.stdout + done.stderr)
    if done.returncode:
        raise RuntimeError(f"{os.path.basename(str(command[0]))} ended with {done.returncode}: see {log}")
    return done.stdout + done.stderr


def number(pattern, text, log):
    """What stands behind the pattern."""
    found = re.search(pattern + r"[^\d\-]*(-?[\d.]+)", text)
    if not found:
        raise RuntimeError(f"wanted a number behind '{pattern}', found none: see {log}")
    return float(found.group(1))


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
            command = [self.peers[peer] + "/llama-perplexity", "-m", model, "-f", self.texts[text], "--kl-divergence-base",
                       self.base(peer, text), "--kl-divergence", "-c", CONTEXT, "--chunks", self.o.eval_chunks, "-t", self.o.threads,
                       "-b", 2048]
            log = self.at("judge.log")
            for _ in range(ASKED):
                out = run(command, log)
                if "Same top p:" in out:
                    break
            found[text] = {name: number(pattern, out, log) for name, pattern in MEASURES.items()}
        return found

    def importance(self, peer):
        name = self.at(f"imatrix-{peer}.dat")
        if not os.path.exists(name):
            run([self.peers[peer] + "/llama-imatrix", "-m", self.o.model, "-f", self.o.calib, "-o", name, "-c", CONTEXT, "--chunks",
                 self.o.chunks, "-t", self.o.threads], self.at(f"imatrix-{peer}.log"))
        return name

    def peer_quantize(self, peer, kind, name, more=()):
        """kind: a type, or TYPE+option=value+..., as the peer's llama-quantize takes them."""
        parts = kind.split("+")
        options = [x for p in parts[1:] for x in ("--" + p).split("=", 1)]
        run([self.peers[peer] + "/llama-quantize", "--imatrix", self.importance(peer), *options, *more, self.o.model, name, parts[0],
             self.o.threads], self.at("quantize.log"))

    def peer_file(self, peer, kind):
        key, name = f"{peer} {kind}", self.at("peer.gguf")
        if key in self.results:
            return
        try:
            self.peer_quantize(peer, kind, name)
            self.keep(key, self.judged(name, peer))
        except RuntimeError as e:  # a type that this model cannot have is no reason to stop
            self.keep(key, {"failed": str(e)})
        print(key, self.results[key], flush=True)

    def our_file(self, key, options):
        name, stats = self.at("ours.gguf"), self.at("stats.gguf")
        if key in self.results:
            return
        if not os.path.exists(stats):
            run([self.o.dil, "calibrate", "-m", self.o.model, "-f", self.o.calib, "-o", stats, "--full", "--chunks", self.o.chunks, "-c",
                 CONTEXT], self.at("calibrate.log"))
        report = self.at("report.json")
        run([self.o.dil, "quantize", self.o.model, name, *options, "--stats", stats, "--report", report], self.at("dil.log"))
        with open(report, encoding="utf-8") as f:
            report = json.load(f)
        self.keep(key, {**self.judged(name, self.judge), "expected": report["expected_divergence"], "seconds": report["seconds"]["all"],
                        "types": {m["name"]: m["type"] for m in report["matrices"]}})
        print(key, {k: v for k, v in self.results[key].items() if k != "types"}, flush=True)

    def best(self, peer, size):
        """The key of the peer's file of least divergence that is not larger; None: there is none."""
        fits = [(r[""]["kld"], k) for k, r in self.results.items() if k.startswith(peer + " ") and "bytes" in r and r["bytes"] <= size * SLACK]
        return min(fits)[1] if fits else None

    def apart(self, key):
        """Rounding alone and allocation alone, beside the first peer's best file of the size of ours."""
        ours, name = self.results[key], self.at("peer.gguf")
        best = self.best(self.judge, ours["bytes"])
        if best and f"rounding alone: {key}" not in self.results:
            self.peer_quantize(self.judge, best.split(" ", 1)[1], name)
            self.our_file(f"rounding alone: {key}", ["--like", name])
        allocation = f"allocation alone: {key}"
        if allocation not in self.results:
            types = self.at("types.txt")
            with open(types, "w", encoding="utf-8") as f:
                f.writelines(f"^{re.escape(tensor)}$={kind.lower()}\n" for tensor, kind in ours["types"].items())
            self.peer_quantize(self.judge, "Q4_K_M", name, ["--tensor-type-file", types])  # every matrix is named: the mixture has no say
            self.keep(allocation, self.judged(name, self.judge))
            print(allocation, self.results[allocation], flush=True)

    def compare(self):
        """Each of our files beside the best of each peer, and what each half of the work does alone."""
        lines = []
        for key, ours in sorted(self.results.items(), key=lambda item: item[1].get("bytes", 0)):
            if not key.startswith("dil "):
                continue
            line = {"file": key, **measures(ours), "peers": {}}
            for peer in self.peers:
                best = self.best(peer, ours["bytes"])
                if best:
                    line["peers"][peer] = beside(ours, best, self.results[best])
            for half in ("rounding alone", "allocation alone"):
                if f"{half}: {key}" in self.results:
                    line[half] = measures(self.results[f"{half}: {key}"])
            lines.append(line)
        return lines

    def write(self):
        comparison = self.compare()
        with open(self.at("comparison.json"), "w", encoding="utf-8") as f:
            json.dump(comparison, f, indent=1)
        text = "\n".join(table_of_files(self.results, [t for t in self.texts if t]) + [""] + table_of_sizes(comparison, list(self.peers)))
        with open(self.at("table.md"), "w", encoding="utf-8") as f:
            f.write(text + "\n")
        print(text)


def measures(result):
    return {"bytes": result["bytes"], **result[""]}


def beside(ours, key, theirs):
    kld = theirs[""]["kld"]
    return {"file": key, **measures(theirs), "ratio": ours[""]["kld"] / kld if kld > 0 else None}


def table_of_files(results, extra):
    lines = ["| file | MB | perplexity | divergence | 99 % | same first word |" + "".join(f" {t} |" for t in extra),
             "|---|---|---|---|---|---|" + "---|" * len(extra)]
    for size, key in sorted((r["bytes"], k) for k, r in results.items() if "bytes" in r):
        r, name = results[key], f"**{key}**" if key.startswith("dil ") else key
        m = r[""]
        lines.append(f"| {name} | {size / 1e6:.1f} | {m['ppl']:.2f} | {m['kld']:.4f} | {m['p99']:.3f} | {m['top']:.1f} % |"
                     + "".join(f" {r[t]['kld']:.4f} |" if t in r else " |" for t in extra))
    return lines


def table_of_sizes(comparison, peers):
    heads = ["ours", "MB", "divergence", *[f"{p}: best of at most that size" for p in peers], "rounding alone", "allocation alone"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for line in comparison:
        cells = [line["file"], f"{line['bytes'] / 1e6:.1f}", f"{line['kld']:.4f}"]
        for p in peers:
            best = line["peers"].get(p)
            ratio = f" ({best['ratio']:.2f})" if best and best["ratio"] is not None else ""
            cells.append(f"{best['kld']:.4f} {best['file'].split(' ', 1)[1]}, {best['bytes'] / 1e6:.1f} MB{ratio}" if best else "")
        cells += [f"{line[half]['kld']:.4f}" if half in line else "" for half in ("rounding alone", "allocation alone")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


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
    p.add_argument("--apart", action="store_true", help="rounding alone and allocation alone, for each size")
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
    wanted = [("--size", size) for size in filter(None, o.sizes.split(","))] + [("--bpw", bits) for bits in filter(None, o.bpw.split(","))]
    for option in wanted:
        key = "dil " + " ".join(option)
        c.our_file(key, option)
        if o.apart:
            c.apart(key)
    for path in o.like:
        c.our_file(f"dil --like {os.path.basename(path)}", ["--like", path])
    c.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
