#!/usr/bin/env python3
"""Man pages: one per command and one for all, with every option, in both languages; formatters have nothing to say about them.

    test_man.py

Environment: DIL_BINARY, DIL_SOURCE_DIR. Ends with 77 without the command or scdoc; groff, lexgrog and mandoc are asked when they are there.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BINARY = os.environ.get("DIL_BINARY", "")
SECTIONS = {"en": "NAME|SYNOPSIS|DESCRIPTION|OPTIONS|ENVIRONMENT|EXIT STATUS|FILES|EXAMPLES|SEE ALSO".split("|"),
            "tr": "AD|KULLANIM|AÇIKLAMA|SEÇENEKLER|ORTAM|ÇIKIŞ DURUMU|DOSYALAR|ÖRNEKLER|AYRICA BAKINIZ".split("|")}
failures = []


def want(condition, text):
    if not condition:
        failures.append(text)


def run(*command):
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)


def plain(roff):
    """The words of a page, without fonts and requests."""
    lines = [ln for ln in roff.split("\n") if not ln.startswith(".") or ln.startswith(".SH")]
    return re.sub(r"\\f[BIR]|\\&", "", "\n".join(lines)).replace("\\-", "-").replace("\\(aq", "'").replace("\\(ga", "`").replace("\\(ti", "~")


def check_page(roff, name, sections, command):
    text = plain(roff)
    found = [m.strip('"') for m in re.findall(r"^\.SH (.*)$", roff, re.M)]
    want([s for s in found if s in sections] == sections, f"{name}: sections {found}")
    want("DIL_LANG" in text and "DIL_ARG_CTX_SIZE" in text, f"{name}: environment")
    if not command:
        return
    squeezed = re.sub(r"\s+", " ", text)
    want("dil " + re.sub(r"\s+", " ", command["usage"]) in squeezed, f"{name}: usage")
    for example in command["example"].split("\n"):
        want(example.strip() in text, f"{name}: example {example}")
    for o in command["options"]:
        head = (f"-{o['alias']}, " if o["alias"] else "") + f"--{o['name']}" + (f" {o['argument']}" if o["argument"] else "")
        want(f"\n{head}\n{o['help']}\n" in text, f"{name}: {head}")
    want("\\fB\\-\\-lang\\fR" in roff, f"{name}: a hyphen instead of a minus")


def check_formatters(path, name):
    if shutil.which("groff"):
        done = run("groff", "-man", "-K", "utf8", "-T", "utf8", "-ww", "-z", path)
        want(done.returncode == 0 and not done.stderr, f"{name}: groff: {done.stderr[:300]}")
    if shutil.which("lexgrog"):
        want(f'"{os.path.basename(name)[:-2]} - ' in run("lexgrog", path).stdout, f"{name}: whatis finds no name")
    if shutil.which("mandoc"):  # that paragraphs are empty is scdoc's way
        said = [ln for ln in run("mandoc", "-T", "lint", "-W", "warning", path).stdout.split("\n") if ln and "skipping paragraph macro" not in ln]
        want(not said, f"{name}: mandoc: {said[:3]}")


def main():
    if not os.access(BINARY, os.X_OK) or not shutil.which("scdoc"):
        print("skipped: no command to test (DIL_BINARY), or no scdoc")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        stale = os.path.join(folder, "man1", "dil-gone.1")
        os.makedirs(os.path.dirname(stale))
        open(stale, "w", encoding="utf-8").close()
        done = run(sys.executable, os.path.join(SOURCE, "scripts", "make_man.py"), "--binary", BINARY, "--output", folder)
        want(done.returncode == 0, done.stderr)
        want(not os.path.exists(stale), "the page of a command that is gone stays")
        for language, below in (("en", "man1"), ("tr", "tr/man1")):
            data = json.loads(run(BINARY, "--lang", language, "help", "--json").stdout)
            if data["language"] != language:
                continue
            pages = {"dil.1": None, **{"dil-" + c["name"].replace(" ", "-") + ".1": c for c in data["commands"]}}
            want(set(os.listdir(os.path.join(folder, below))) == set(pages), f"{below}: other pages")
            for name, command in pages.items():
                path = os.path.join(folder, below, name)
                with open(path, encoding="utf-8") as f:
                    roff = f.read()
                check_page(roff, f"{below}/{name}", SECTIONS[language], command)
                check_formatters(path, f"{below}/{name}")
                for other in pages:
                    want(command or other[:-2] in plain(roff), f"{name}: {other} is not named")
    print("\n".join(failures[:20]) or "ok")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
