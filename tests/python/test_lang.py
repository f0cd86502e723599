#!/usr/bin/env python3
"""The command in two languages: help, errors and results are Turkish when asked for, programs read the same in both.

    test_lang.py [-k NAME]

Uses models/sigircik-dense.gguf. Environment: DIL_BINARY, DIL_SOURCE_DIR. Ends with 77 without the command, the model or the
catalog beside the command (a build without msgfmt).
"""
import argparse
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BINARY = os.environ.get("DIL_BINARY", "")
CATALOG = os.path.join(os.path.dirname(BINARY), "..", "share", "locale", "tr", "LC_MESSAGES", "dil.mo")
MODEL = os.path.join(SOURCE, "models", "sigircik-dense.gguf")
VARIABLES = ("DIL_LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
# Options whose help is the same in both languages: names of values and nothing else.
SAME_HELP = set()
HELP_COLUMN = 35
BOUNDS = ("arithmetic", "reading from caches", "reading from memory", "meeting of threads")
sys.path.insert(0, os.path.join(SOURCE, "scripts"))
from check_translations import parse  # noqa: E402


class Failed(Exception):
    """A check that did not hold."""


def want(condition, text):
    if not condition:
        raise Failed(text)


def dil(*args, code=0, stdin="", binary=BINARY, **environment):
    """(standard output, standard error); of the variables that name a language only those given here are set."""
    env = {k: v for k, v in os.environ.items() if k not in VARIABLES and not k.startswith("DIL_ARG_")}
    done = subprocess.run([binary, *args], input=stdin, capture_output=True, encoding="utf-8", timeout=300, env={**env, **environment})
    want(done.returncode == code, f"dil {' '.join(args)}: wanted exit code {code}, found {done.returncode}: {done.stderr[-500:]}")
    return done.stdout, done.stderr


def commands():
    return re.findall(r"^  ([a-z]+(?: [a-z]+)?)  ", dil("--help")[0], re.M)


def helps(text):
    """{option: its help}, and the columns that the helps begin at."""
    rows = re.findall(r"^(  (?:-[\w-]+, |    )(--[\w-]+)\S* ?\S* +)(\S.*)$", text, re.M)
    return {option: words for _, option, words in rows}, {len(left) for left, _, _ in rows}


# ---- tests: each gets a function that makes paths in a folder of its own --------------------------------------------------

def test_help(room):
    """Every command's page is Turkish: its usage, its text, each option; the columns fit by characters, not bytes."""
    found = commands()
    want(len(found) > 20, str(found))
    for command in found:
        english, turkish = (dil(*command.split(), "--help", "--lang", language)[0] for language in ("en", "tr"))
        ours, columns = helps(turkish)
        theirs, _ = helps(english)
        want(set(ours) == set(theirs) and {"--lang", "--help"} <= set(ours), f"{command}: other options: {set(ours) ^ set(theirs)}")
        for option, words in ours.items():
            want(words != theirs[option] or option in SAME_HELP, f"{command} {option}: '{words}' in both languages")
        want(columns == {HELP_COLUMN}, f"{command}: helps begin at columns {columns}")
        want("\nÖrnek:\n" in turkish and "\nExample:\n" in english, turkish)
        want(not set(english.split("\n\n")[1].split("\n")) & set(turkish.split("\n\n")[1].split("\n")), f"{command}: {turkish.split(chr(10))[2]}")


def test_overview(room):
    english, turkish = dil("help")[0], dil("--lang", "tr", "help")[0]
    want("kullanım: dil KOMUT" in turkish and "usage:" in english, turkish)
    same = set(english.split("\n")) & set(turkish.split("\n"))
    want(same == {""}, f"lines of both languages: {same}")
    for words in (("--lang", "tr", "--help"), ("--lang=tr", "help"), ("help", "--lang", "tr"), ("-lang", "tr", "-h"), ("--help", "--lang=tr")):
        want(dil(*words)[0] == turkish, str(words))
    page = dil("--lang", "tr", "run", "--help")[0]
    found = {language: json.loads(dil("help", "--json", "--lang", language)[0]) for language in ("en", "tr")}
    want([found[k]["language"] for k in found] == ["en", "tr"] and dil("--lang=tr", "help", "--json")[0] == dil("help", "--lang", "tr", "--json")[0], "help --json")
    want([c["name"] for c in found["tr"]["commands"]] == commands(), "the commands as data")
    for words in (("help", "run", "--lang", "tr"), ("--lang", "en", "run", "--lang", "tr", "--help"), ("run", "-h", "--lang=tr")):
        want(dil(*words)[0] == page, str(words))
    want("ÖLÇÜ" in dil("eval", "--lang", "tr", code=2)[1], "eval without a measure")


def test_choice(room):
    """--lang, then DIL_ARG_LANG, then DIL_LANG, then the system's variables in the C library's order."""
    turkish, english = "bir komut yok", "is not a command"
    for is_turkish, environment, words in (
            (True, {"LANG": "tr_TR.UTF-8"}, ()), (True, {"LC_ALL": "tr_TR.UTF-8", "LANG": "C"}, ()), (True, {"LC_MESSAGES": "tr", "LANG": "C"}, ()),
            (False, {"LC_ALL": "C", "LANG": "tr_TR.UTF-8"}, ()), (False, {"LANG": "de_DE.UTF-8"}, ()), (False, {"LANG": "trv_TW"}, ()), (False, {}, ()),
            (True, {"DIL_LANG": "tr", "LC_ALL": "C"}, ()), (False, {"DIL_LANG": "en", "LANG": "tr_TR.UTF-8"}, ()),
            (True, {"DIL_LANG": "tr_TR.UTF-8"}, ()), (True, {"DIL_LANG": "", "LANG": "tr"}, ()),
            (False, {"LANG": "tr_TR.UTF-8"}, ("--lang", "en")), (True, {"DIL_LANG": "en"}, ("--lang", "tr"))):
        said = dil(*words, "nothing", code=2, **environment)[1]
        want((turkish if is_turkish else english) in said, f"{environment} {words}: {said}")
    want("bekleniyordu" in dil("rm", "a/b", code=1, DIL_ARG_LANG="tr", LANG="C")[1], "DIL_ARG_LANG")
    want("wanted" in dil("rm", "a/b", "--lang", "en", code=1, DIL_ARG_LANG="tr")[1], "--lang is before DIL_ARG_LANG")


def test_unknown(room):
    for words in (("--lang", "xx", "help"), ("--lang=xx",), ("--help", "--lang", "xx"), ("help", "run", "--lang", "xx"), ("run", "--lang", "xx"), ("list", "--lang=xx"), ("--lang", "", "list")):
        want("wanted tr or en, found '" in dil(*words, code=2)[1], str(words))
    want("tr ya da en bekleniyordu, bulunan: 'xx'" in dil("--lang", "tr", "list", "--lang", "xx", code=2)[1], "told in Turkish")
    want("DIL_LANG: wanted tr or en, found 'fr'" in dil("list", code=2, DIL_LANG="fr")[1], "DIL_LANG")
    want("argument" in dil("list", "--lang", code=2)[1], "no argument")


def test_errors(room):
    """Of the options, of the command, of the library below it, of the system; the exit codes are those of English."""
    with open(room("bad.gguf"), "wb") as f:
        f.write(b"hello world, no model")
    for name, text in (("two", "a\nb\n"), ("one", "a\n"), ("birds.json", '{"positions": [[1, 2], [3]]}'), ("bits.json", "[]")):
        with open(room(name), "w", encoding="utf-8") as f:
            f.write(text)
    for code, words, part in (
            (2, ("run", "-m", MODEL, "--temp", "warm"), "--temp: 0..100 arası bir sayı bekleniyordu, bulunan: 'warm'"),
            (2, ("run", "--nonsense"), "seçeneği bilinmiyor"), (2, ("rm",), "argüman eksik; kullanım: dil rm AD"),
            (2, ("show",), "show: model verilmedi; -m MODEL kullanın"), (2, ("quantize", "a", "b"), "bulunan: yok"),
            (1, ("show", room("bad.gguf")), "'GGUF' bekleniyordu"), (1, ("check", room("none.gguf")), "indirilmiş olanlar:"),
            (1, ("import", room("none"), "x", "y"), "açılamıyor: Böyle bir dosya ya da klasör yok"),
            (1, ("detokenize", "-m", MODEL, "99999999"), "belirteç numarası: 0.."), (1, ("route", MODEL), "yönlendirme kaydı"),
            (1, ("eval", "bleu", "--hyp", room("two"), "--ref", room("one")), "2 satır bekleniyordu; bulunan: 1"),
            (2, ("eval", "outputs", "-m", MODEL), "-f İSTEMLER ve -o ÇIKTI.txt"), (1, ("trace", "-m", MODEL, "-p", "a", "-o", room("log")), "yoğun bir model"),
            (1, ("view", "flock", room("birds.json"), "-o", room("a.svg")), "positions[1]: 2 değer bekleniyordu"),
            (1, ("view", "bits", room("bits.json"), "-o", room("a.svg")), "dosya: bir dil quantize raporu bekleniyordu, bulunan: bir dizi"),
            (2, ("view", "metrics", room("one"), "-o", room("a.svg"), "--layer", "1"), "yalnız sürü (flock) içindir"),
            (1, ("run", "-m", MODEL, "-p", "a", "-c", "8", "-n", "2", "--stop", "x" * 5000), "durdurma metni")):
        said = dil(*words, "--lang", "tr", code=code)[1]
        want(said.startswith("dil") and part in said and "wanted" not in said and "found" not in said, f"{words}: {said}")
        want(part not in dil(*words, code=code)[1], f"{words} in English")


def test_programs(room):
    """What programs read has the same bytes in both languages."""
    with open(MODEL, "rb") as f:
        data = bytearray(f.read())
    with open(room("cut.gguf"), "wb") as f:
        f.write(data[:5_000_000])
    with open(room("other.gguf"), "wb") as f:
        f.write(data.replace(b"general.architecture", b"general.architectur3", 1))
    with open(room("text"), "w", encoding="utf-8") as f:
        f.write("Bir varmış, bir yokmuş.\n")
    for code, words in ((0, ("show", MODEL, "--json")), (0, ("show", room("other.gguf"), "--json")), (0, ("check", MODEL, "--json")),
                        (1, ("check", room("cut.gguf"), "--json")), (1, ("check", room("other.gguf"), "--json")),
                        (0, ("tokenize", "-m", MODEL, "-p", "bir varmış", "--json")), (0, ("list", "--json")),
                        (0, ("detokenize", "-m", MODEL, "5", "6", "--json")),
                        (0, ("eval", "bleu", "--hyp", room("text"), "--ref", room("text"), "--json"))):
        english, turkish = (dil(*words, "--lang", language, code=code)[0] for language in ("en", "tr"))
        want(english == turkish and english, f"{words}:\n{english[-300:]}\n{turkish[-300:]}")
        json.loads(turkish)
    for words in (("run", "-m", MODEL, "-p", "Bir", "-n", "4", "--temp", "0", "--json", "--timing", "--no-pack-cache"),
                  ("plan", MODEL, "--json"), ("quantize", MODEL, room("out.gguf"), "--type", "Q8_0", "--json")):
        def words_of(value):
            """JSON without its numbers, and what bounds the speed of a machine others use too: those differ."""
            if isinstance(value, dict):
                return {k: v in BOUNDS if k.endswith("bound") else words_of(v) for k, v in value.items()}
            return [words_of(v) for v in value] if isinstance(value, list) else type(value) if isinstance(value, (int, float)) else value
        english, turkish = (json.loads(dil(*words, "--lang", language)[0]) for language in ("en", "tr"))
        want(words_of(english) == words_of(turkish), f"{words}: {english}\n{turkish}")
    for form in ("csv", "sql", "md"):
        words = ("bench", "-m", MODEL, "-p", "8", "-n", "0", "-r", "1", "--no-limits", "-o", form, "-q")
        english, turkish = (re.sub(r"[\d.]+", "#", dil(*words, "--lang", language)[0]) for language in ("en", "tr"))
        want(english == turkish, f"{form}: {english}\n{turkish}")
    english, turkish = (dil("run", "-m", MODEL, "-p", "Bir", "-n", "8", "--temp", "0", "--lang", language) for language in ("en", "tr"))
    want(english[0] == turkish[0], "the answer itself")
    want("belirteç/sn" in turkish[1] and "tokens/s" in english[1], turkish[1])


def test_results(room):
    """Sentences for people, one of each command that is quick."""
    with open(room("text"), "w", encoding="utf-8") as f:
        f.write("Bir varmış, bir yokmuş. " * 60)
    hyp, ref = ("--hyp", room("text")), ("--ref", room("text"))
    for words, parts in ((("show", MODEL), ("  mimari ", "türler", "ağırlık başına")), (("check", MODEL), ("tamam: ", "tensör")),
                         (("plan", MODEL), ("KV önbelleği", "bağlam", "sınırlayan: ")), (("theorem", "demo"), ("Nash dengesi", "54 / 54", "Seçilen: F")),
                         (("eval", "perplexity", "-m", MODEL, "-f", room("text"), "-c", "64"), ("şaşkınlık (perplexity) ", "parça")),
                         (("eval", "bleu", *hyp, *hyp, *ref), ("ikinci eksi birinci", "1 satır")),
                         (("quantize", MODEL, room("small.gguf"), "--type", "Q8_0"), ("matris", "bit)"))):
        english, turkish = (dil(*words, "--lang", language)[0] for language in ("en", "tr"))
        want(all(p in turkish and p not in english for p in parts if p != "bağlam"), f"{words}: {turkish}")
        lines = {ln for ln in english.split("\n") if re.search(r"[a-z]{3,} [a-z]{2,}", ln)} & set(turkish.split("\n"))
        want(not [ln for ln in lines if not ln.startswith(("  tokenizer", "  general"))], f"{words}: in both languages: {lines}")
    said = dil("chat", "-m", MODEL, "-n", "2", "--no-pack-cache", "--lang", "tr", stdin="/help\n/nothing\n/set\n/bye\n")[1]
    want("konuşmayı unut" in said and "bu adda komut yok" in said, said)


def test_pictures(room):
    with open(room("log.csv"), "w", encoding="utf-8") as f:
        f.write("step,loss\n" + "".join(f"{i},{9 - i / 10}\n" for i in range(1, 30)))
    made = []
    for environment, words in (({}, ("--lang", "tr")), ({"LANG": "tr_TR.UTF-8"}, ()), ({}, ()), ({"LANG": "tr_TR.UTF-8"}, ("--lang", "en"))):
        dil("view", "metrics", room("log.csv"), "-o", room("log.html"), *words, **environment)
        with open(room("log.html"), encoding="utf-8") as f:
            made.append(f.read())
    want(made[0] == made[1] and made[2] == made[3] and made[0] != made[2] and "adım" in made[0], "pictures follow the language")


def test_without_catalog(room):
    """Where there is no catalog the command is English and says so when Turkish was asked for; a damaged one is told."""
    os.makedirs(room("bin"))
    shutil.copy(BINARY, room("bin/dil"))
    out, said = dil("--lang", "tr", "help", binary=room("bin/dil"))
    want(out == dil("help")[0] and "msgfmt" in said, said)
    want(dil("help", binary=room("bin/dil"), LANG="tr_TR.UTF-8") == (out, ""), "silent when it was the system's wish")
    folder = room("share/locale/tr/LC_MESSAGES")
    os.makedirs(folder)
    shutil.copy(CATALOG, folder)
    want("kullanım" in dil("help", binary=room("bin/dil"), LANG="tr_TR.UTF-8")[0], "bin and share were moved together")
    with open(os.path.join(folder, "dil.mo"), "r+b") as f:
        f.truncate(5000)
    out, said = dil("help", binary=room("bin/dil"), LANG="tr_TR.UTF-8")
    want("usage:" in out and "dil.mo" in said, said)


def test_system_errors(room):
    """The C library's texts that base/os marks for translation are those it really says."""
    with open(os.path.join(SOURCE, "po", "tr.po"), encoding="utf-8") as f:
        known = parse(f.read())
    for name in ("ENOENT", "EACCES", "EPERM", "EISDIR", "ENOTDIR", "EEXIST", "ENOTEMPTY", "ENOSPC", "EDQUOT", "EROFS", "EFBIG", "ENAMETOOLONG",
                 "EIO", "ENOMEM", "EMFILE", "EAGAIN", "EINVAL", "EPIPE"):
        text = os.strerror(getattr(errno, name))
        want(text in known and known[text].text, f"{name}: '{text}' is not translated")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-k", default="", help="only tests whose name holds this")
    args = parser.parse_args()
    for path in (BINARY, CATALOG, MODEL):
        if not os.path.exists(path):
            print(f"skipped: no {path or 'command to test (DIL_BINARY)'}")
            return 77
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = os.path.join(folder, "cache")
        for name, test in [(n, f) for n, f in globals().items() if n.startswith("test_") and args.k in n]:
            own = os.path.join(folder, name)
            os.makedirs(own)
            try:
                test(lambda path, own=own: os.path.join(own, path))
                print(f"ok   {name[5:]}", flush=True)
            except (Failed, subprocess.TimeoutExpired, ValueError, KeyError) as problem:
                failures += 1
                print(f"FAIL {name[5:]}: {problem}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
