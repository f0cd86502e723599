#!/usr/bin/env python3
"""Documents: the English and Turkish pairs have the same headings, commands and programs; paths, functions, modules and sections
named in them exist. usage: check_docs.py [--binary DIL] (with the command also: its subcommands and options exist, and the usage
pages name all subcommands). scripts/run_docs.py runs what they show.
"""

import argparse
import functools
import re
import subprocess
import sys

from check_layers import read_layers
from common import ROOT, Findings, files, line_of, read

PAIRS = [
    ("docs/ARCHITECTURE.md", "docs/MIMARISI.md"),
    ("docs/USAGE.md", "docs/KULLANIM.md"),
    ("docs/THEOREM.md", "docs/TEOREM.md"),
    ("README.md", "README.tr.md"),
]
DOCUMENTS = ["CONTRIBUTING.md", "models/README.md", *[name for pair in PAIRS for name in pair]]
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.M | re.S)
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
COMMAND = re.compile(r"(?:^|[\s`(|/])dil ([a-z][a-z-]*)([^\n`|;&]*)")


def outside_fences(text):
    return FENCE.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def headings(text):
    return [
        (len(m.group(1)), m.group(2))
        for m in re.finditer(r"^(#+) +(.+)$", outside_fences(text), re.M)
    ]


def commands_in_fences(text):
    """Command lines of code blocks without comments and quoted texts: those two may be translated."""
    lines = [
        ln
        for block in FENCE.findall(text)
        for ln in block.splitlines()
        if re.match(r"(dil|bash|make|cmake) ", ln)
    ]
    return [
        re.sub(r"\s+", " ", re.sub(r'"[^"]*"', '""', ln.split(" #")[0])).strip() for ln in lines
    ]


def programs_in_fences(text):
    """Programs without comments and quoted texts."""
    return [re.sub(r'"[^"]*"|#[^\n]*', "", program) for program in PROGRAM.findall(text)]


def check_pair(english, turkish, findings):
    if not all((ROOT / name).is_file() for name in (english, turkish)):
        findings.add(f"{english}, {turkish}", "one of the pair is missing", "write it")
        return
    left, right = headings(read(english)), headings(read(turkish))
    if len(left) != len(right):
        findings.add(
            turkish,
            f"{len(right)} headings, {english} has {len(left)}",
            "give both the same sections in the same order",
        )
    for (level, title), (other, translated) in zip(left, right):
        if level != other:
            findings.add(
                turkish,
                f"'{translated}' is of level {other}, '{title}' of {english} of level {level}",
                "give both the same sections in the same order",
            )
            break
    left, right = commands_in_fences(read(english)), commands_in_fences(read(turkish))
    for one in left:
        if one not in right:
            findings.add(
                turkish, f"lacks the command '{one}' of {english}", "show the same commands in both"
            )
    for one in right:
        if one not in left:
            findings.add(
                english, f"lacks the command '{one}' of {turkish}", "show the same commands in both"
            )
    if programs_in_fences(read(english)) != programs_in_fences(read(turkish)):
        findings.add(turkish, f"has other Python programs than {english}", "show the same in both")


def anchors_of(text):
    """What GitHub makes of the headings: lower case, punctuation gone, spaces become hyphens."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        for _, title in headings(text)
    }


def check_links(path, findings):
    text = read(path)
    for match in LINK.finditer(outside_fences(text)):
        target, anchor = match.groups()
        place = f"{path}:{line_of(text, match.start())}"
        file = (ROOT / path).parent / target if target else ROOT / path
        if "://" in target:
            continue
        if not file.exists():
            findings.add(place, f"link to {target}, which does not exist", "correct the link")
        elif anchor and anchor not in anchors_of(file.read_text(encoding="utf-8")):
            findings.add(
                place,
                f"link to #{anchor}, which is no heading of {target or path}",
                "correct the link",
            )


def path_exists(word, roots):
    pattern = re.sub(r"<[^>]*>|NNN", "*", word).rstrip("/")
    return (
        any(any(ROOT.glob(prefix + pattern)) for prefix in ("", "src/", "include/"))
        if roots
        else True
    )


def check_names(path, findings, sources, known):
    text = read(path)
    for match in SPAN.finditer(outside_fences(text)):
        word, place = match.group(1), f"{path}:{line_of(text, match.start())}"
        if re.fullmatch(r"[\w.<>*-]+(/[\w.<>*-]*)+", word) and word.split("/")[0] in known:
            if not path_exists(word, known):
                findings.add(
                    place, f"`{word}` does not exist", "correct the path, or write the file"
                )
        call = re.fullmatch(r"(\w+)\(\)", word)
        if call and not re.search(rf"\b{call.group(1)}\b", sources):
            findings.add(
                place, f"`{word}` is no function of src/", "name the function that does it now"
            )


@functools.cache
def help_of(binary, *words):
    try:
        done = subprocess.run(
            [binary, *words, "--help"],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"<{error}>"
    return done.stdout + done.stderr


def check_commands(path, binary, findings):
    text = read(path)
    spans = [(m.start(), m.group(1)) for m in SPAN.finditer(outside_fences(text))]
    spans += [(m.start(1), m.group(1)) for m in FENCE.finditer(text)]
    for offset, span in spans:
        for match in COMMAND.finditer(span):
            name, rest = match.group(1), match.group(2).split(" #")[0]
            place = f"{path}:{line_of(text, offset + match.start())}"
            overview = help_of(binary)
            second = re.match(r" ([a-z]+)\b", rest)
            if second and re.search(rf"\b{name} {second.group(1)}\b", overview):
                name += " " + second.group(1)  # "eval perplexity"
            if not re.search(rf"^\s*{re.escape(name)}\b", overview, re.M):
                findings.add(
                    place,
                    f"`dil {name}` is no subcommand of {binary}",
                    "correct the name; dil --help lists them",
                )
                continue
            shown = help_of(binary, *name.split()) + " --help"
            for option in re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", re.sub(r'"[^"]*"', "", rest)):
                if not re.search(rf"(?<![\w-]){option}(?![\w-])", shown):
                    findings.add(
                        place,
                        f"`dil {name}` has no option {option}",
                        f"correct it; dil {name} --help lists them",
                    )


def check_subcommands(binary, findings):
    """Every subcommand has a place in the usage pages."""
    names = re.findall(r"^  ([a-z]+(?: [a-z]+)?)  +\S", help_of(binary), re.M)
    for path in PAIRS[1]:
        for name in names:
            if not re.search(rf"\bdil {name}\b", read(path)):
                findings.add(path, f"says nothing of dil {name}", "give it a section")


def check_modules(findings):
    layers = [
        m for m in read_layers(read("scripts/layers.txt")) if files(".c", under=[f"src/{m}/"])
    ]
    for name in PAIRS[0]:
        if (ROOT / name).is_file():
            for module in layers:
                if f"`{module}`" not in read(name):
                    findings.add(name, f"module {module} is missing from the table", "add its row")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary")
    options, findings = parser.parse_args(), Findings("docs")
    for english, turkish in PAIRS:
        check_pair(english, turkish, findings)
    sources = "\n".join(
        read(f) for f in files(".c", ".h", ".inc", ".rs", under=["src/", "include/", "bridge/"])
    )
    roots = {
        p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith((".git", "build"))
    }
    known = roots | {p.name for p in (ROOT / "src").iterdir() if p.is_dir()}
    for path in [d for d in DOCUMENTS if (ROOT / d).is_file()]:
        findings.looked_at += 1
        check_names(path, findings, sources, known)
        check_links(path, findings)
        if options.binary:
            check_commands(path, options.binary, findings)
    check_modules(findings)
    if options.binary:
        check_subcommands(options.binary, findings)
    return findings.report("documents")


if __name__ == "__main__":
    sys.exit(main())
