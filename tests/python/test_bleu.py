#!/usr/bin/env python3
"""`dil eval bleu` against sacreBLEU: BLEU (13a, none, char) and chrF2 of many corpora, and intervals over the same resamples.

    test_bleu.py [--corpora N]

Corpora are lines written here, random ones, and ../shared/data/pud.en and pud.tr with words dropped, moved and cut; without that folder the
last are left out. Ends with 77 when sacrebleu or the command is missing.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SHARED = os.environ.get("DIL_SHARED") or os.path.join(SOURCE, "..", "shared")
BINARY = os.environ.get("DIL_BINARY", "")
try:
    from sacrebleu.metrics import BLEU, CHRF
except ImportError as missing:
    print(f"skipped: {missing} (pip install -r tests/requirements.txt)")
    sys.exit(77)

NEAR = 1e-6
TOKENIZERS = ("13a", "none", "char")
WRITTEN = [  # reference, hypothesis
    ("The cat is on the mat.", "The cat sat on the mat."),
    ("It costs 1,000.5 euros, i.e. 3.14 % more (or so).", "It costs 1,000.50 Euros, i.e. 3,14% more (or so)..."),
    ("İstanbul'da hava çok güzel, değil mi?", "Istanbul'da hava çok güzel değil mi ?"),
    ("Öğrenciler 3. sınıfa geçti; 12-15 yaşındalar.", "Öğrenciler 3.sınıfa geçti ; 12 - 15 yaşındalar ."),
    ("", "something where nothing is wanted"),
    ("something where nothing comes", ""),
    ("", ""),
    ("one", "one"),
    ("a b c", "a b c"),
    ("&quot;A&amp;B&quot; &lt;p&gt; &amp;lt; &apos;", "\"A&B\" <p> &lt; '"),
    ("<skipped>never<skipped> mind", "never mind"),
    ("a 😀.😀 b 👩‍👩‍👧‍👦! c", "a 😀 . 😀 b 👩‍👧‍👦! c"),
    ("e\u0301te\u0301 na\u0308ive", "été näive"),
    ("word\u00a0word\u2003word\u3000word\u200bword", "word word word word word"),
    ("tab\tseparated\x1cfields\x85next", "tab separated fields next"),
    ("...,,,...---...", ". . . , , , . . . - - - . . ."),
    ("1-2 1–2 a-1 1-a -1 1- --", "1 - 2 1–2 a-1 1 -a -1 1 - --"),
    ("don't can’t 'quoted' «quoted» „so“ “so”", "don't can't 'quoted' \"quoted\" „so” “so”"),
    ("中文字符。日本語、テキスト", "中文 字符。日本 語、テキスト"),
    ("the the the the the the the", "the the cat the"),
    ("carriage return at the end\r", "carriage return at the end"),
    ("{[(a)]} ^_`|~\\@;:? #$%&*+=/<>", "{[(b)]} ^_`|~ \\@;:? # $%&*+=/<>"),
]
LETTERS = ["ab", "abcç ğı.,-1", "aaab  .,", "0123456789.,- ", "\u00e9e\u0301\u0308\u0327 ax", "😀👍🏽\u200d\ufe0f ab.", "\t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2028\u3000 ab",
           "&amp;lt;gtquo <skipd>", "".join(map(chr, range(32, 127))), "İIıiŞşĞğÇçÖöÜü aA", "\x00\x01\x7f\u200b\ufeff aB"]


def command(*args):
    return subprocess.run([BINARY, "eval", "bleu", *args], capture_output=True, text=True, encoding="utf-8", timeout=300)


class Corpus:
    """Lines, and the files that hold them."""

    def __init__(self, folder, name, hypotheses, references):
        self.name, self.hypotheses, self.references = name, hypotheses, references
        self.args = []
        for option, texts in (("--hyp", hypotheses), ("--ref", references)):
            for i, lines in enumerate(texts):
                path = os.path.join(folder, f"{option[2:]}{i}.txt")
                with open(path, "w", encoding="utf-8", newline="\n") as f:
                    f.write("".join(line + "\n" for line in lines))
                self.args += [option, path]

    def measure(self, *args):
        done = command(*self.args, *args, "--json")
        if done.returncode:
            sys.exit(f"FAIL {self.name}: {done.stderr}")
        return json.loads(done.stdout)

    def check(self, tokenizer, lowercase):
        """How many numbers differ."""
        got = self.measure("--tokenize", tokenizer, "--resamples", "0", *(["--lowercase"] if lowercase else []))
        metric, other = BLEU(tokenize=tokenizer, lowercase=lowercase, force=True), CHRF(lowercase=lowercase)
        wrong = 0
        for lines, system in zip(self.hypotheses, got["systems"]):
            bleu, chrf = metric.corpus_score(lines, self.references), other.corpus_score(lines, self.references)
            mine = system["bleu"]
            pairs = [("BLEU", bleu.score, mine["score"]), ("BP", bleu.bp, mine["brevity_penalty"]), ("ratio", bleu.ratio, mine["ratio"]),
                     ("hyp_len", bleu.sys_len, mine["hyp_len"]), ("ref_len", bleu.ref_len, mine["ref_len"]),
                     ("chrF", chrf.score, system["chrf"]["score"])]
            pairs += [(f"precision {i + 1}", p, q) for i, (p, q) in enumerate(zip(bleu.precisions, mine["precisions"]))]
            for what, wanted, found in pairs:
                if not abs(wanted - found) <= NEAR:
                    wrong += 1
                    print(f"FAIL {self.name}, {tokenizer}{' lowercase' if lowercase else ''}: {what}: wanted {wanted:.9g}, found {found:.9g}")
        for mine, theirs in ((got["bleu_signature"], metric), (got["chrf_signature"], other)):
            if mine.split("|version:")[0] != theirs.get_signature().format().split("|version:")[0]:
                wrong += 1
                print(f"FAIL {self.name}: signature: wanted {theirs.get_signature().format()}, found {mine}")
        return wrong


# ---- corpora ----

def noisy(line, rng):
    """Words dropped, moved, doubled; cut at the end."""
    words = [w for w in line.split(" ") if rng.random() > 0.1]
    for _ in range(rng.randrange(3)):
        if len(words) > 1:
            at = rng.randrange(len(words) - 1)
            words[at:at + 2] = [words[at + 1], words[at]]
    if words and rng.random() < 0.2:
        words.insert(0, words[-1])
    if rng.random() < 0.15:
        words = words[:len(words) * 2 // 3]
    return " ".join(words)


def random_lines(rng, n):
    letters = rng.choice(LETTERS)
    pieces = letters if rng.random() < 0.7 else [*letters, "&amp;", "&quot;", "&lt;", "&gt;", "<skipped>", "1,000.5", "a-", " - "]
    return ["".join(rng.choice(pieces) for _ in range(rng.randrange(rng.choice((1, 5, 40))))) for _ in range(n)]


def changed(line, rng):
    """Characters dropped and doubled."""
    return "".join(c * rng.choice((1, 1, 1, 1, 1, 0, 2)) for c in line)


def random_corpora(folder, n):
    for seed in range(n):
        rng = random.Random(seed)
        first = random_lines(rng, rng.randrange(1, 12))
        references = [first] + [[changed(line, rng) for line in first] for _ in range(rng.randrange(3))]
        hypotheses = [[changed(line, rng) if rng.random() < 0.8 else rng.choice(first) for line in first] for _ in range(rng.randrange(1, 3))]
        yield Corpus(folder, f"random {seed}", hypotheses, references)


def shared_corpora(folder):
    for language in ("en", "tr"):
        path = os.path.join(SHARED, "data", f"pud.{language}")
        if not os.path.exists(path):
            print(f"left out: no ../shared/data/pud.{language} (set DIL_SHARED)")
            continue
        with open(path, encoding="utf-8", newline="\n") as f:
            lines = f.read().split("\n")[:-1]
        rng = random.Random(language)
        yield Corpus(folder, f"pud.{language}", [[noisy(line, rng) for line in lines], lines[1:] + lines[:1]], [lines])
        yield Corpus(folder, f"pud.{language}, three references", [[noisy(line, rng) for line in lines]],
                     [[noisy(line, rng) for line in lines] for _ in range(3)])


# ---- intervals ----

def philox(seed, position, draw):
    """Philox4x32-10: 53 random bits as a number below 1."""
    c, k = [position & 0xFFFFFFFF, position >> 32, draw & 0xFFFFFFFF, draw >> 32], [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return ((c[1] << 32 | c[0]) >> 11) * 2.0 ** -53


def check_intervals(corpus, n, seed):
    """Resamples drawn here, scored by sacreBLEU from its own counts of each line."""
    got = corpus.measure("--resamples", str(n), "--seed", str(seed))
    n_lines, wrong = len(corpus.references[0]), 0
    drawn = [[int(philox(seed, r, i) * n_lines) for i in range(n_lines)] for r in range(n)]
    for name, metric in (("bleu", BLEU(force=True)), ("chrf", CHRF())):
        def score(counts):
            return metric._compute_score_from_stats([sum(column) for column in zip(*counts)]).score
        counts = [metric._extract_corpus_statistics(lines, corpus.references) for lines in corpus.hypotheses]
        scores = [[score([c[i] for i in d]) for d in drawn] for c in counts]
        differences, real = [b - a for a, b in zip(*scores)], score(counts[1]) - score(counts[0])
        p = (sum(abs(d - real) >= abs(real) for d in differences) + 1) / (n + 1)
        found = [got["systems"][0][name], got["systems"][1][name], got["difference"][name]]
        for what, values in zip(found, (*scores, differences)):
            values.sort()
            if max(abs(what["low"] - values[n // 40]), abs(what["high"] - values[n - n // 40 - 1])) > NEAR:
                wrong += 1
                print(f"FAIL {corpus.name}: {name}: wanted {values[n // 40]:.8f} .. {values[n - n // 40 - 1]:.8f}, found {what}")
        if abs(found[2]["p"] - p) > 1e-6 or abs(found[2]["score"] - real) > NEAR:
            wrong += 1
            print(f"FAIL {corpus.name}: {name}: wanted a difference of {real} with p = {p}, found {found[2]}")
    return wrong


# ---- the command ----

def check_command(folder):
    wrong = 0

    def want(text, where, code, *args):
        nonlocal wrong
        done = command(*args)
        if done.returncode != code or text not in (done.stdout if where == "out" else done.stderr):
            wrong += 1
            print(f"FAIL {args}: wanted {code} and '{text}', found {done.returncode}: {done.stdout}{done.stderr}")

    paths = {}
    for name, data in (("two", b"a b c d e\nf g h i\n"), ("three", b"a\nb\nc\n"), ("broken", b"fine\n\xff\xfe\n"), ("empty", b"")):
        paths[name] = os.path.join(folder, name)
        with open(paths[name], "wb") as f:
            f.write(data)
    two, three = paths["two"], paths["three"]
    want("BLEU  100.00 [100.00, 100.00]  100.0/100.0/100.0/100.0 (BP = 1.000 ratio = 1.000 hyp_len = 9 ref_len = 9)\nchrF2 100.00 [100.00, 100.00]\n"
         "2 lines\nBLEU|nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|", "out", 0, "--hyp", two, "--ref", two)
    want("BLEU  100.00  100.0/", "out", 0, "--hyp", two, "--ref", two, "--resamples", "0", "-q")
    want("second minus first\nBLEU  +0.00 [+0.00, +0.00]  p = 1.0000", "out", 0, "--hyp", two, "--hyp", two, "--ref", two)
    want(f"{three}: wanted as many lines as {two}, 2, found 3", "err", 1, "--hyp", two, "--ref", three)
    want(f"{paths['broken']}: line 2: wanted UTF-8", "err", 1, "--hyp", two, "--ref", paths["broken"])
    want(f"{paths['empty']}: wanted at least one line", "err", 1, "--hyp", paths["empty"], "--ref", paths["empty"])
    want("nowhere", "err", 1, "--hyp", os.path.join(folder, "nowhere"), "--ref", two)
    want("wanted --hyp FILE once or twice", "err", 2, "--ref", two)
    want("wanted --hyp FILE once or twice", "err", 2, *["--hyp", two] * 3, "--ref", two)
    want("wanted 13a, none or char, found '13b'", "err", 2, "--hyp", two, "--ref", two, "--tokenize", "13b")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpora", type=int, default=60)
    args = parser.parse_args()
    if not BINARY or not os.access(BINARY, os.X_OK):
        print("skipped: no command at $DIL_BINARY")
        return 77
    wrong = n = 0
    with tempfile.TemporaryDirectory() as folder:
        references, hypotheses = [list(column) for column in zip(*WRITTEN)]
        written = Corpus(folder, "written", [hypotheses, [line[:len(line) * 3 // 4] for line in references]], [references])
        wrong += check_intervals(written, 120, 2 ** 40 + 3)
        alone = (Corpus(folder, f"written line {i}", [[h]], [[r]]) for i, (r, h) in enumerate(WRITTEN))
        for corpora in ([written], alone, random_corpora(folder, args.corpora), shared_corpora(folder)):
            for corpus in corpora:
                for i, tokenizer in enumerate(TOKENIZERS):
                    wrong += corpus.check(tokenizer, lowercase=(n + i) % 4 == 0)
                n += 1
        wrong += check_command(folder)
    print(f"{n} corpora, {len(TOKENIZERS)} tokenizers each: {wrong} numbers differ from sacreBLEU's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
