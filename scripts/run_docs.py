#!/usr/bin/env python3
"""Runs what the documents show: every shell command and Python program of their code blocks, in a temporary folder that looks like a
clone, with the built command first in PATH. Every command must end with 0.

    run_docs.py [--binary DIL] [--only DOCUMENT ...] [--skip REGEX] [--timeout SECONDS] [--python PYTHON] [--list]

Fenced blocks are commands when they say sh, bash, shell or console, or nothing and begin with a command; programs when they say
python (with >>>: doctests). What a document's twin has run already is not run again. An HTML comment before a block, which readers
do not see, says otherwise:

    <!-- not run: reason -->            nothing of it is run
    <!-- not run "part": reason -->     no command that holds this part
    <!-- run with: command -->          this command instead of all of it
    <!-- run "part" with: command -->   this one instead of each that holds the part
    <!-- file: name -->                 the block's text becomes this file, whatever its language

What is not run is listed with its reason at the end. Files that commands name come from docs_fixtures.py or from commands before
them; fetched models (smollm2, gemma3) from where `dil pull` puts them, and commands that want one that is not there are skipped.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from check_docs import DOCUMENTS, PAIRS
from common import ROOT
from docs_fixtures import Fixtures

SHELL = {"sh", "bash", "shell", "console"}
COMMANDS = {"dil", "bash", "make", "cmake", "ctest", "ninja", "python3", "printf", "echo", "cd", "pip"}
FOLDERS = ("build/", "bench/", "scripts/", "./")
FETCHED = ("smollm2", "gemma3")
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,}) *([\w+-]*)[^`\n]*$")
MARK = re.compile(
    r'<!-- *(?:(not run)(?: "([^"]+)")?: *(.+?)|run(?: "([^"]+)")? with: *(.+?)|file: *(\S+)) *-->$'
)


@dataclasses.dataclass
class Block:
    line: int
    language: str
    text: str = ""
    marks: list = dataclasses.field(default_factory=list)  # matches of MARK


def blocks_of(text):
    """The fenced blocks of a document, each with the marks before it."""
    marks, open_block, fence, out = [], None, "", []
    for number, line in enumerate(text.splitlines(), 1):
        found = FENCE.match(line)
        if open_block:
            if found and found.group(1).startswith(fence) and not found.group(2):
                out.append(open_block)
                open_block = None
            else:
                open_block.text += line + "\n"
        elif found:
            open_block, fence = Block(number, found.group(2), marks=marks), found.group(1)
            marks = []
        elif mark := MARK.match(line.strip()):
            marks = [*marks, mark]
        elif line.strip():
            marks = []
    return out


def is_shell(block):
    if block.language:
        return block.language in SHELL
    lines = [ln.strip() for ln in block.text.splitlines() if ln.strip() and ln.strip()[0] != "#"]
    word = lines[0].removeprefix("$ ").split()[0] if lines else ""
    return word in COMMANDS or word.startswith(FOLDERS)


def is_whole(command):
    """Whether bash needs no further line: quotes, here-documents and loops are closed."""
    done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
    ends_early = "unexpected end of file" in done.stderr or "unexpected EOF" in done.stderr
    return not (command.endswith("\\") or ends_early or "here-document" in done.stderr)


def commands_of(block):
    """(line, command) of a shell block; of lines with a prompt only those, the others are output."""
    lines = list(enumerate(block.text.splitlines(), block.line + 1))
    prompts = any(line.startswith("$ ") for _, line in lines)
    out, begun = [], None
    for number, line in lines:
        if begun:
            begun = (begun[0], begun[1] + "\n" + line)
        elif line.strip() and not line.lstrip().startswith("#") and (line.startswith("$ ") or not prompts):
            begun = (number, line.removeprefix("$ "))
        if begun and is_whole(begun[1]):
            out.append(begun)
            begun = None
    return out + ([begun] if begun else [])


class Run:
    def __init__(self, options, room):
        self.options, self.room = options, pathlib.Path(room)
        self.failed, self.not_run, self.n_ok = [], [], 0
        self.binary = pathlib.Path(options.binary).resolve()
        self.environment = dict(
            os.environ,
            PATH=f"{self.binary.parent}:{os.environ['PATH']}",
            XDG_DATA_HOME=str(self.room / "data"),
            XDG_CACHE_HOME=str(self.room / "cache"),
            PYTHONPATH=os.pathsep.join([*self.packages(), os.environ.get("PYTHONPATH", "")]),
            PYTHONDONTWRITEBYTECODE="1",
        )
        self.has_package = self.python(["-c", "import dilmodeli"])[0] == 0
        self.fixtures = Fixtures(ROOT, self.room, lambda c, at: self.execute(c, at, options.timeout))
        self.folders = {}  # by the English document
        self.ran = {}  # (folder, command) that ended well -> in which document

    def packages(self):
        """Where the Python package may lie: beside the built command with its bindings, or in the tree."""
        return [str(self.binary.parent.parent / "python"), str(ROOT / "python")]

    def python(self, arguments, cwd=None, timeout=60):
        return self.execute([self.options.python, *arguments], cwd or self.room, timeout)

    def execute(self, command, cwd, timeout):
        """(exit code, output); everything it started ends with it."""
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                code = f"no end after {timeout} s"
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
            output.seek(0)
            return code, output.read().decode(errors="replace")

    def link_models(self):
        home = pathlib.Path(os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share")
        (self.room / "data/dilmodeli").mkdir(parents=True, exist_ok=True)
        for name in FETCHED:
            model, link = home / f"dilmodeli/{name}.gguf", self.room / f"data/dilmodeli/{name}.gguf"
            if model.exists() and not link.exists():
                link.symlink_to(model.resolve())

    def folder_for(self, document):
        """What a clone looks like, links to what the tree has; build/ has the command alone. Twins share one."""
        self.link_models()
        twin = next((one for one, other in PAIRS if document == other), document)
        if twin in self.folders:
            return self.folders[twin]
        folder = self.folders[twin] = self.room / twin.replace("/", "-")
        (folder / "build/release/bin").mkdir(parents=True)
        (folder / "build/release/bin/dil").symlink_to(self.binary)
        for entry in ROOT.iterdir():
            if not entry.name.startswith((".", "build")):
                (folder / entry.name).symlink_to(entry)
        return folder

    def tell(self, state, seconds, place, text):
        print(f"  {state:8} {seconds:6.1f} s  {place}: {' '.join(text.split())[:150]}", flush=True)

    def leave(self, place, command, reason):
        self.not_run.append((place, " ".join(command.split()), reason))

    def step(self, place, shown, execute):
        begun = time.monotonic()
        code, output = execute()
        self.tell("ok" if code == 0 else "FAILED", time.monotonic() - begun, place, shown)
        if code == 0:
            self.n_ok += 1
            return True
        self.failed.append(place)
        print(f"    exit code: wanted 0, found {code}; the end of what it said:")
        for line in output.rstrip().splitlines()[-12:]:
            print("    | " + line[-200:], flush=True)
        return False

    def lacks_model(self, place, text):
        """Leaves out what wants a fetched model that is not there."""
        lacking = [m for m in FETCHED if re.search(rf"\b{m}\b", text) and "dil pull" not in text]
        lacking = [m for m in lacking if not (self.room / f"data/dilmodeli/{m}.gguf").exists()]
        if lacking:
            self.leave(place, text, f"skipped: {lacking[0]} is not there; dil pull {lacking[0]}")
        return bool(lacking)

    def shell(self, folder, place, command):
        if self.options.skip and re.search(self.options.skip, command):
            self.leave(place, command, "skipped: --skip")
            return
        if self.lacks_model(place, command):
            return
        same = (folder, re.sub(r"\s+#.*|\s+", " ", command).strip())
        document = place.partition(":")[0]
        if self.ran.get(same, document) != document:
            self.tell("as above", 0, place, command)
            return
        self.fixtures.provide(command, folder)
        arguments = ["bash", "-o", "pipefail", "-c", command]
        if self.step(place, command, lambda: self.execute(arguments, folder, self.options.timeout)):
            self.ran[same] = document

    def program(self, folder, place, text):
        if "dilmodeli" in text and not self.has_package:
            self.leave(place, text, "skipped: Python does not find the package dilmodeli")
            return
        if self.lacks_model(place, text):
            return
        self.fixtures.provide(text, folder)
        path = folder / f"program-{place.rpartition(':')[2]}.txt"
        path.write_text(text, encoding="utf-8")
        arguments = ["-m", "doctest", str(path)] if ">>>" in text else [str(path)]
        self.step(place, text, lambda: self.python(arguments, folder, self.options.timeout))

    def block(self, document, folder, block):
        place, marks = f"{document}:{block.line}", [m.groups() for m in block.marks]
        files = [m[5] for m in marks if m[5]]
        for name in files:
            (folder / name).write_text(block.text, encoding="utf-8")
            self.fixtures.provide(block.text, folder)
        shell, python = is_shell(block), block.language in ("python", "py")
        if self.options.list:
            kind = "commands" if shell else "program" if python else "text"
            print(f"  {place}: {kind}; {'; '.join(m.group(0) for m in block.marks)}")
            return
        if files or not (shell or python):
            return
        whole = next((m for m in marks if (m[0] and not m[1]) or (m[4] and not m[3])), None)
        if whole and whole[0]:
            self.leave(place, block.text, whole[2])
        elif whole:
            self.shell(folder, place, whole[4])
        elif python:
            self.program(folder, place, block.text)
        else:
            self.lines(document, folder, block, marks)

    def lines(self, document, folder, block, marks):
        used = set()
        for number, command in commands_of(block):
            place = f"{document}:{number}"
            mark = next((m for m in marks if (m[1] or m[3]) in command), None)
            used.add(mark)
            if mark and mark[0]:
                self.leave(place, command, mark[2])
                continue
            self.shell(folder, place, mark[4] if mark else command)
        for mark in set(marks) - used:
            self.failed.append(f"{document}:{block.line}")
            print(f'  FAILED  {document}:{block.line}: no command holds "{mark[1] or mark[3]}" of its mark')

    def document(self, document):
        print(document, flush=True)
        folder = self.folder_for(document)
        for block in blocks_of((ROOT / document).read_text(encoding="utf-8")):
            self.block(document, folder, block)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/release/bin/dil"))
    parser.add_argument("--only", action="append", metavar="DOCUMENT", help="repeatable; a path from the top of the tree")
    parser.add_argument("--skip", metavar="REGEX", help="commands that are not run this time")
    parser.add_argument("--timeout", type=float, default=180, help="of a command, in seconds (180)")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--list", action="store_true", help="run nothing, say what each block is")
    options = parser.parse_args()
    if not os.access(options.binary, os.X_OK):
        parser.error(f"{options.binary}: wanted the built command, found none; make, or --binary")
    documents = options.only or [d for d in DOCUMENTS if (ROOT / d).is_file()]  # English ones before their twins
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="run-docs-") as room:
        run = Run(options, room)
        for document in documents:
            run.document(document)
    if run.not_run:
        print("not run:")
    for place, command, reason in run.not_run:
        print(f"  {place}: {command[:90]}\n      {reason}")
    for place in run.failed:
        print(f"failed: {place}")
    print(
        f"run_docs: {run.n_ok} commands ended well, {len(run.failed)} did not, {len(run.not_run)} were not run; "
        f"{time.monotonic() - begun:.0f} s"
    )
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
