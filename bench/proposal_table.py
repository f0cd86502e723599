#!/usr/bin/env python3
"""The figures that were promised of quantizing, measured: memory, speed, throughput, perplexity and BLEU of three classes of models.

    proposal_table.py --dil DIL [--quick] [--only memory,speed,perplexity,bleu,random] [--models NAME,...] [-o proposal.md] [--json FILE]

Each model as F32, F16, Q8_0 and by `dil quantize --calib` (minutes) with --bpw bits and in the promised fifth of F32, which the verdicts are
about (with --plain also Q4_0 and Q4_K): SmolLM2-135M (the class of 125 M), Gemma-3-270M (350 M), the project's own models, and a random-weight
model of 1.3 B for memory and speed, whose small file is Q4_K. The first two are published quantized only: their F32 is the decoded file, its
weights moved off the grid by seeded noise (bench/off_grid.py; --on-grid: as they are, which flatters types of the same grid).

Files take turns in rounds; tables show medians, and the median of the rounds' ratios with its interval. BLEU is read in two ways: answers of a
file beside those of F32, and at tasks whose right answer is known, both beside that: the second half of a sentence, and a sentence once more.

Everything is kept in --work (35 GB of disk for all models): interrupted, the same command goes on. Another DIL or other settings are measured anew.
Texts: $DIL_SHARED/data or --data. Needs PyPI numpy and gguf.
"""
import argparse
import json
import os
import sys
import time

import measure
from compare import Results
from proposal_report import FITTED, OURS, SIZE_LIMIT, report

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
PARTS = ("memory", "speed", "perplexity", "bleu", "random")
CONTEXT = 512
MANY = 8  # sequences at once whose speed is measured
ANSWERS = 32  # at once where speed does not matter: texts are the same however many
ANSWER = 64


class Model:
    """source: what `dil` reads, or None for random weights. millions: of weights, for the remaining time."""

    def __init__(self, name, kind, source, millions, languages=(), grid=False):
        self.name, self.kind, self.source, self.millions, self.languages, self.grid = name, kind, source, millions, languages, grid


def models(quick):
    own = [Model(f"Sigircik-{k}", "the project's own", os.path.join(SOURCE, f"models/sigircik-{k}.gguf"), m, ("en", "tr"))
           for k, m in (("dense", 4.5), ("moe", 28))]
    big = Model("random-0.2B", "random weights, small", None, 235) if quick else Model("random-1.3B", "class of 1.3 B", None, 1326)
    return [Model("SmolLM2-135M", "class of 125 M", "smollm2", 135, ("en",), True),
            Model("Gemma-3-270M", "class of 350 M", "gemma3", 270, ("en", "tr"), True), *own, big]


# ---- BLEU's tasks ------------------------------------------------------------------------------------------------------------

def continuation(sentence):
    """(prompt, right answer): both halves."""
    words = sentence.split()
    return " ".join(words[:len(words) // 2]), " ".join(words[len(words) // 2:])


def copying(sentence):
    return f'"{sentence}" The same words once more: "', sentence


TASKS = {"continuation": continuation, "copying": copying}


def cut(answer, truth):
    """As many words as the truth has, as greedy answers go on until somebody stops them."""
    return " ".join(answer.split()[:len(truth.split())])


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return f.read().splitlines()


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(line + "\n" for line in lines))


# ---- one measurement each ----------------------------------------------------------------------------------------------------

def test_of(rows, wanted, parallel=1):
    """Tokens per second of the test with these tokens: n_prompt or n_gen."""
    for r in rows:
        if r[wanted] > 0 and r.get("n_parallel", 1) == parallel:
            return r["median_ts"]
    raise SystemExit(f"dil bench: wanted a test with {wanted} and {parallel} at once, found {rows}")


def bleu_of(found):
    """Score and interval of the first text; behind it those of the second and of the difference, if there are two."""
    picked = [s["bleu"] for s in found["systems"]] + ([found["difference"]["bleu"]] if "difference" in found else [])
    return [{k: p[k] for k in ("score", "low", "high")} for p in picked]


class Bench:
    """Everything about one model and its files."""

    def __init__(self, o, model):
        self.o, self.model = o, model
        self.folder = os.path.join(o.work, model.name + ("-on-grid" if model.grid and o.on_grid else ""))
        self.env = dict(os.environ, XDG_CACHE_HOME=os.path.join(os.path.abspath(o.work), "cache"))  # neither tuned settings nor others' packed weights
        self.threads = ["-t", o.threads] if o.threads else []
        small = [OURS, FITTED] if model.source else ["Q4_K"]
        plain = [k for k in ("Q4_0", "Q4_K") if o.plain and k not in small]
        self.files = ["F32", "F16", "Q8_0", *plain, *small]

    def at(self, name):
        return os.path.join(self.folder, name)

    def path(self, file):
        names = {OURS: f"{self.o.bpw}-bits{self.calibrated()}", FITTED: f"{SIZE_LIMIT:g}-percent{self.calibrated()}"}
        return self.at(names.get(file, file) + ".gguf")

    def calibrated(self):
        return f"-{self.o.calib_chunks}{'-fast' if self.o.quick else ''}"

    def dil(self, *arguments):
        return measure.run([self.o.dil, *arguments], self.env)

    # files

    def make_float(self, path):
        new = path + ".new"
        if self.model.source:
            self.dil("quantize", self.model.source, new, "--type", "F32", "-q")
            if self.model.grid and not self.o.on_grid:
                measure.run([sys.executable, os.path.join(SOURCE, "bench/off_grid.py"), new])
        else:
            half = self.at("random.gguf")
            layers = 4 if self.o.quick else 24
            measure.run([sys.executable, os.path.join(SOURCE, "bench/make_random_model.py"), os.path.join(SOURCE, "models/sigircik-dense.gguf"), half,
                         "--layers", layers, "--embd", 2048, "--ff", 6144, "--heads", 16, "--kv-heads", 16])
            self.dil("quantize", half, new, "--type", "F32", "-q")
            os.remove(half)
        os.replace(new, path)

    def make(self, file):
        os.makedirs(self.folder, exist_ok=True)
        path = self.path(file)
        if os.path.exists(path):
            return {}
        if file == "F32":
            self.make_float(path)
        elif file in (OURS, FITTED):
            size = ["--bpw", self.o.bpw] if file == OURS else ["--size", int(os.path.getsize(self.path("F32")) * SIZE_LIMIT / 100)]
            self.dil("quantize", self.path("F32"), path, *size, "--calib", self.o.calib, "--chunks", self.o.calib_chunks, "--resume",
                     *(["--fast"] if self.o.quick else []), *self.threads, "-q")
        else:
            self.dil("quantize", self.path("F32"), path, "--type", file, "-q")
        return {}

    # memory and speed

    def bench(self, file, *arguments):
        return self.dil("bench", "-m", self.path(file), *arguments, *self.threads, "-r", 1, "--no-limits", "-q", "-o", "json")

    def memory(self, file):
        self.bench(file, "-p", 1, "-n", 1)  # packs the weights
        done = self.bench(file, "-p", 512, "-n", 128)
        row = done.json()[0]
        return {"bytes": os.path.getsize(self.path(file)), "rss": done.largest, "threads": row["n_threads"], "cpu": row["cpu"]}

    def round(self, i):
        """Every file once, in an order that turns."""
        found = {}
        turn = i % len(self.files)
        for file in self.files[turn:] + self.files[:turn]:
            if i == 0:
                self.bench(file, "-p", 1, "-n", 1)
            one = self.bench(file, "-p", 512, "-n", 128).json()
            many = self.bench(file, "-p", 0, "-n", 64, "-npl", MANY).json()
            found[file] = {"prompt": test_of(one, "n_prompt"), "answer": test_of(one, "n_gen"), "many": test_of(many, "n_gen", MANY)}
        return {"speeds": found}

    # perplexity

    def perplexity(self, file):
        base, common = self.at(f"base-{self.o.chunks}"), [*self.threads, "--json", "-q"]
        if file == "F32" or not os.path.exists(base):
            first = self.dil("eval", "perplexity", "-m", self.path("F32"), "-f", self.o.text, "-c", CONTEXT, "--chunks", self.o.chunks, "--save-base",
                             base + ".new", *common).json()
            os.replace(base + ".new", base)
        if file == "F32":
            return {"perplexity": first["perplexity"], "error": first["error"], "kld": 0.0, "log_ratio_error": 0.0}
        r = self.dil("eval", "kld", "-m", self.path(file), "--base", base, *common).json()
        if file == self.files[-1]:
            os.remove(base)  # gigabytes
        return {"perplexity": r["perplexity"], "error": r["perplexity_error"], "kld": r["mean_kld"], "log_ratio_error": r["log_ratio_error"]}

    # BLEU

    def sentences(self, language):
        return read_lines(os.path.join(self.o.data, f"pud.{language}"))[:self.o.sentences]

    def answers_path(self, file, task, language):
        return self.at(f"{os.path.basename(self.path(file))[:-5]}-{task}-{language}-{self.o.sentences}.txt")

    def answers(self, file, task, language):
        prompts = self.at("prompts.txt")
        write_lines(prompts, [TASKS[task](s)[0] for s in self.sentences(language)])
        r = self.dil("eval", "outputs", "-m", self.path(file), "-f", prompts, "-o", self.answers_path(file, task, language), "-n", ANSWER, "-npl", ANSWERS,
                     "--no-template", "--resume", *self.threads, "--json", "-q").json()
        return {"answers": r["answers"]}

    def compare_texts(self, references, *hypotheses):
        return bleu_of(self.dil("eval", "bleu", *[x for h in hypotheses for x in ("--hyp", h)], "--ref", references, "--json", "-q").json())

    def bleu(self, file, task, language):
        """Beside the answers of F32; then F32, this file and their difference beside the truth."""
        truth = [TASKS[task](s)[1] for s in self.sentences(language)]
        write_lines(self.at("truth.txt"), truth)
        for name, source in (("float.txt", "F32"), ("file.txt", file)):
            answers = read_lines(self.answers_path(source, task, language))
            write_lines(self.at(name), [cut(a, t) for a, t in zip(answers, truth)])
        (same,) = self.compare_texts(self.answers_path("F32", task, language), self.answers_path(file, task, language))
        first, second, difference = self.compare_texts(self.at("truth.txt"), self.at("float.txt"), self.at("file.txt"))
        return {"same": same, "float": first, "score": second, "difference": difference}


# ---- what is to do -----------------------------------------------------------------------------------------------------------

class Step:
    """seconds: a guess, for the remaining time only. settings: what the result depends on, beside model, file and command."""

    def __init__(self, bench, kind, file, seconds, settings, action, **more):
        self.bench, self.kind, self.action, self.seconds = bench, kind, action, seconds
        self.row = {"model": bench.model.name, "class": bench.model.kind, "kind": kind, "file": file, **more}
        self.key = json.dumps([bench.model.name, kind, file, *more.values(), *settings])

    def name(self):
        return " ".join(str(v) for k, v in self.row.items() if v is not None and k != "class")


def stamp(path):
    """Changes when the file does."""
    s = os.stat(path)
    return [os.path.basename(path), s.st_size, s.st_mtime_ns]


def steps_of(bench, parts, program):
    """In order; files come first."""
    o, files, m = bench.o, bench.files, bench.model.millions / 100
    common = [program, o.bpw, bench.calibrated(), o.on_grid, o.threads]
    for f in files:
        yield Step(bench, "file", f, m * ((100 if o.quick else 450) if f in (OURS, FITTED) else 5), [], lambda f=f: bench.make(f))
    if "memory" in parts or "speed" in parts:
        for f in files:
            yield Step(bench, "memory", f, 4 * m, common, lambda f=f: bench.memory(f))
    if "speed" in parts:
        for i in range(o.rounds):
            yield Step(bench, "speed", None, 4 * m * len(files), [*common, files], lambda i=i: bench.round(i), round=i)
    if "perplexity" in parts:
        for f in files:
            yield Step(bench, "perplexity", f, o.chunks * m / 2, [*common, o.chunks, stamp(o.text)], lambda f=f: bench.perplexity(f))
    if "bleu" in parts:
        for task in TASKS:
            for lang in bench.model.languages:
                settings = [*common, o.sentences]
                for f in files:
                    yield Step(bench, "answers", f, o.sentences * m / 7, settings, lambda f=f, t=task, n=lang: bench.answers(f, t, n), task=task, language=lang)
                for f in files[1:]:
                    yield Step(bench, "bleu", f, 1, settings, lambda f=f, t=task, n=lang: bench.bleu(f, t, n), task=task, language=lang)


def plan(o):
    program = stamp(o.dil)
    for model in models(o.quick):
        quality = [p for p in o.only if p != "random"]
        parts = quality if model.source else [p for p in quality if p in ("memory", "speed")] or ["memory", "speed"]
        wanted = quality if model.source else "random" in o.only
        if wanted and (not o.models or model.name in o.models):
            yield from steps_of(Bench(o, model), parts, program)


def is_done(step, results):
    """A file counts by being there, not by what was written about it."""
    return os.path.exists(step.bench.path(step.row["file"])) if step.kind == "file" else step.key in results.rows


def left_text(seconds):
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def work(steps, results):
    """Does what is not done; says what comes and about how long the rest takes, by what guesses were worth so far."""
    todo = [s for s in steps if not is_done(s, results)]
    started, guessed, total = time.monotonic(), 0, sum(s.seconds for s in todo)
    for i, step in enumerate(todo):
        worth = (time.monotonic() - started) / guessed if guessed else 1
        print(f"[{i + 1} of {len(todo)}] {step.name()} (about {left_text(worth * (total - guessed))} left)", file=sys.stderr, flush=True)
        found = step.action()
        if step.kind != "file":
            results.add({"key": step.key, **step.row, **found})
        guessed += step.seconds


# ---- the command -------------------------------------------------------------------------------------------------------------

def parts_of(text):
    parts = [p for p in text.split(",") if p]
    wrong = [p for p in parts if p not in PARTS]
    if wrong or not parts:
        raise argparse.ArgumentTypeError(f"wanted some of {', '.join(PARTS)}, found '{text}'")
    return parts


def arguments(given=None):
    shared = os.environ.get("DIL_SHARED") or os.path.join(SOURCE, "..", "shared")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dil", default="build/release/bin/dil")
    p.add_argument("--quick", action="store_true", help="small settings and fast calibration, to see that all works")
    p.add_argument("--only", type=parts_of, default=list(PARTS), metavar="PART,...", help=", ".join(PARTS))
    p.add_argument("--models", type=lambda t: t.split(","), default=[], metavar="NAME,...", help=", ".join(m.name for m in models(False)))
    p.add_argument("-o", "--output", default="proposal.md")
    p.add_argument("--json")
    p.add_argument("--work", default="build/proposal", metavar="DIRECTORY")
    p.add_argument("--data", default=os.path.join(shared, "data"), metavar="DIRECTORY", help="wiki.test.raw, wiki.valid.raw, pud.en and pud.tr")
    p.add_argument("--text", help="for perplexity (DATA/wiki.test.raw)")
    p.add_argument("--calib", help="for quantizing (DATA/wiki.valid.raw)")
    p.add_argument("--bpw", type=float, default=4.5)
    p.add_argument("--plain", action="store_true", help="Q4_0 and Q4_K without calibration too")
    p.add_argument("--on-grid", action="store_true", help="published weights as they are")
    p.add_argument("-t", "--threads", type=int, default=0)
    for name, usual, quick in (("rounds", 5, 2), ("chunks", 32, 2), ("sentences", 400, 16), ("calib-chunks", 100, 8)):
        p.add_argument(f"--{name}", type=int, help=f"({usual}; {quick} with --quick)")
    o = p.parse_args(given)
    for name, usual, quick in (("rounds", 5, 2), ("chunks", 32, 2), ("sentences", 400, 16), ("calib_chunks", 100, 8)):
        if getattr(o, name) is None:
            setattr(o, name, quick if o.quick else usual)
        if getattr(o, name) < 1:
            p.error(f"--{name.replace('_', '-')}: wanted at least 1")
    unknown = [m for m in o.models if m not in [x.name for x in models(o.quick)]]
    if unknown:
        p.error(f"--models: wanted some of {', '.join(x.name for x in models(o.quick))}, found {', '.join(unknown)}")
    o.text, o.calib = o.text or os.path.join(o.data, "wiki.test.raw"), o.calib or os.path.join(o.data, "wiki.valid.raw")
    for path in (o.dil, o.text, o.calib):
        if not os.path.exists(path):
            p.error(f"{path}: no such file")
    return o


def about(o):
    """How it was measured, without where."""
    on = "as published" if o.on_grid else "moved off the published grid by seeded noise"
    return (f"{o.rounds} rounds in turns, prompt of 512, answer of 128, {MANY} answers of 64 at once; {os.path.basename(o.text)}, {o.chunks} sequences of "
            f"{CONTEXT}; BLEU over {o.sentences} sentences, at most {ANSWER} tokens each; calibrated with {o.calib_chunks} sequences of "
            f"{os.path.basename(o.calib)}{' (--fast)' if o.quick else ''}; SmolLM2 and Gemma-3: F32 is the decoded file, weights {on}.")


def main():
    o = arguments()
    os.makedirs(o.work, exist_ok=True)
    results = Results(os.path.join(o.work, "results.json"))
    steps = list(plan(o))
    try:
        work(steps, results)
    except KeyboardInterrupt:
        raise SystemExit(f"\nproposal_table: interrupted; the same command goes on ({o.work})")
    rows = [results.rows[s.key] for s in steps if s.kind != "file"]
    text, found = report(rows, about(o), o.bpw)
    with open(o.output, "w", encoding="utf-8") as f:
        f.write(text)
    measure.write_json(o.json, found)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
