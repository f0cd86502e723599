#!/usr/bin/env python3
"""Translations: every text for people is marked, is in po/tr.po, is translated, and keeps its conversions; nothing in there is
unused. usage: check_translations.py [--update]      --update: brings po/tr.po up to date with the sources (new texts are empty)
Needs xgettext (apt install gettext); without it nothing is checked.
"""

import ast
import re
import shutil
import subprocess
import sys
import tempfile

from common import ROOT, Findings, code_only, files, line_of, read

CATALOG = "po/tr.po"
# What holds texts for people: calls with the number of the argument, and which of them are printf formats.
KEYWORDS = (
    "_ N_ DIL_FAIL:3 status_fail:3 status_prefix:2 gguf_defect:4 gguf_fatal:4 cli_usage:1 cli_check_output:1 "
    "progress:2 cli_progress:2 prune_tell:2 compress_tell:2 tell:2 bad:3 refuse:2"
).split()
FORMATS = "DIL_FAIL:3 status_fail:3 status_prefix:2 gguf_defect:4 gguf_fatal:4 cli_usage:1".split()
CONVERSION = re.compile(
    r"%(?:(\d+)\$)?[-+ #0]*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?(hh|h|ll|l|z|j|t)?([diouxXeEfgGcsp%])"
)
LITERALS = re.compile(r'(?:"(?:\\.|[^"\\\n])*"\s*)+')
WORDS = re.compile(r"(?<![%\\\w-])[A-Za-z]{3,},? [a-z]{2,}")  # two words of a sentence
# JSON, SQL, tables of Markdown, names
FOR_PROGRAMS = re.compile(r'"|^CREATE|^INSERT|^\||^eval \w+$|^dil eval outputs %016$|^pip download$|^cli_options|Terms of Use$')


class Entry:
    """One text of a catalog."""

    def __init__(self):
        self.flags, self.places, self.id, self.text = set(), [], "", ""


def parse(text):
    """Entries of a .po file by their original texts, the header ("") among them; those commented out do not count."""
    entries, entry, target = {}, Entry(), None
    for line in [*text.splitlines(), ""]:
        if line.startswith("#,"):
            entry.flags |= {f.strip() for f in line[2:].split(",")}
        elif line.startswith("#:"):
            entry.places += line[2:].split()
        elif line.startswith(("msgid ", "msgstr ")):
            target = "id" if line.startswith("msgid") else "text"
            setattr(entry, target, ast.literal_eval(line.split(" ", 1)[1]))
        elif line.startswith('"') and target:
            setattr(entry, target, getattr(entry, target) + ast.literal_eval(line))
        elif not line.strip() and target:
            entries[entry.id] = entry
            entry, target = Entry(), None
    return entries


def conversions(text):
    """What a format takes, in the order of its arguments: ["s", "llu"]."""
    found, n = {}, 0
    matches = [m for m in CONVERSION.finditer(text) if m.group(3) != "%"]
    if len({bool(m.group(1)) for m in matches}) > 1:
        return ["%1$s beside %s"]
    for match in matches:
        n += 1
        stars = match.group(0).count("*") * "*"
        found[int(match.group(1) or n)] = stars + (match.group(2) or "") + match.group(3)
    return [found[i] for i in sorted(found)]


def has_words(text):
    return bool(re.search(r"[A-Za-z]", CONVERSION.sub("", text)))


def extract(out):
    """Writes the template of all marked texts that hold words to `out`; returns them."""
    sources = [
        # what the library's calls refuse is for programmers, and English
        f for f in files(".c", ".h", under=["src/"]) if not f.startswith(("src/api/", "src/kernels/x86_"))
    ]
    command = ["xgettext", "--from-code=UTF-8", "--language=C", "--keyword", "--sort-by-file", "--force-po"]
    command += ["--add-location=file", "--width=120", "--package-name=dil", "--output", out]
    command += [f"--keyword={k}" for k in KEYWORDS]
    command += [f"--flag={k}:c-format" for k in FORMATS]
    command += ["--flag=_:1:pass-c-format", "--flag=N_:1:pass-c-format", *sources]
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    with open(out, encoding="utf-8") as f:
        text = f.read().replace("charset=CHARSET", "charset=UTF-8")
    text = re.sub(r"%([-+ #0]*\d*)<PRI([dux])64>", r"%\1l\2", text)  # what <inttypes.h> says where a long has 64 bits
    kept = [b for b in text.split("\n\n") if all(has_words(e) or not e for e in parse(b))]
    with open(out, "w", encoding="utf-8") as f:
        f.write("\n\n".join(kept) + "\n")
    return parse("\n\n".join(kept))


def update(template):
    merge = ["msgmerge", "--quiet", "--previous", "--width=120", "--add-location=file", CATALOG]
    done = subprocess.run([*merge, template], cwd=ROOT, check=True, capture_output=True, text=True)
    command = ["msgattrib", "--no-obsolete", "--width=120", "-"]
    done = subprocess.run(command, input=done.stdout, check=True, capture_output=True, text=True)
    text = re.sub(r'^"POT-Creation-Date: [^\n]*\n', "", done.stdout, flags=re.M)
    (ROOT / CATALOG).write_text(text, encoding="utf-8")
    entries = [e for e in parse(text).values() if e.id and (not e.text or "fuzzy" in e.flags)]
    print(f"translations: {CATALOG} is up to date; {len(entries)} text(s) wait for a translation")


def compare(wanted, found, findings):
    for text, source in wanted.items():
        entry = found.get(text)
        place = f"{source.places[0] if source.places else CATALOG}: '{text[:60]}'"
        if not text:
            continue
        if "<PRI" in text:
            findings.add(place, "its length is another on other machines", "PRIu64, or %llu")
        elif not entry:
            findings.add(place, f"is not in {CATALOG}", "make po, then translate it")
        elif not entry.text:
            findings.add(place, f"is not translated in {CATALOG}", "write its msgstr")
        elif "fuzzy" in entry.flags:
            findings.add(
                place,
                f"is fuzzy in {CATALOG}",
                "compare the translation, then remove the mark 'fuzzy'",
            )
        elif conversions(entry.text) != conversions(text):
            findings.add(
                place,
                f"takes {conversions(text)}, its translation {conversions(entry.text)}",
                "the same conversions; another order is written %2$s",
            )
        elif any(text.startswith(c) != entry.text.startswith(c) for c in "\n\r") or text.endswith(
            "\n"
        ) != entry.text.endswith("\n"):
            findings.add(place, "begins or ends otherwise than its translation", "keep \\n and \\r")
    for text in found:
        if text and text not in wanted:
            findings.add(f"{CATALOG}: '{text[:60]}'", "is in no source", "make po")


def check_format(findings):
    done = subprocess.run(
        ["msgfmt", "--check-format", "--output-file=/dev/null", CATALOG],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    for line in done.stderr.splitlines() if done.returncode else ():
        findings.add(line, "msgfmt refuses the catalog", "correct the line")


def check_marks(known, findings):
    """Sentences of the command that nobody marked."""
    for path in files(".c", under=["src/cli/"]):
        text = read(path)
        code = code_only(text)
        for match in LITERALS.finditer(text):
            if code[match.start()] != '"':
                continue  # in a comment
            parts = re.findall(r'"(?:\\.|[^"\\])*"', match.group(0))
            whole = "".join(ast.literal_eval(part) for part in parts)
            if whole not in known and WORDS.search(whole) and not FOR_PROGRAMS.search(whole):
                findings.add(
                    f"{path}:{line_of(text, match.start())}: '{whole[:60]}'",
                    "is for people and not marked",
                    "_() where it is used, N_() in a table",
                )


def main():
    findings = Findings("translations")
    if not shutil.which("xgettext"):
        print("translations: xgettext is not installed (apt install gettext), nothing was checked")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        template = f"{folder}/dil.pot"
        wanted = extract(template)
        if "--update" in sys.argv[1:]:
            update(template)
            return 0
    compare(wanted, parse(read(CATALOG)), findings)
    check_marks(wanted, findings)
    check_format(findings)
    findings.looked_at = len(wanted) - 1
    return findings.report("texts")


if __name__ == "__main__":
    sys.exit(main())
