"""What the checks share: the list of the project's files, C text without comments, and the way a finding is printed."""

import os
import pathlib
import re
import subprocess
import sys

# DIL_CHECK_ROOT: another tree to look at (scripts/test_checks.py)
ROOT = pathlib.Path(
    os.environ.get("DIL_CHECK_ROOT") or pathlib.Path(__file__).resolve().parent.parent
)


def files(*suffixes, under=()):
    """Paths (relative, sorted) of the tree's own files: those git knows or would add; without git, all but build*/."""
    try:
        out = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"],
            capture_output=True,
            check=True,
        ).stdout
        names = {n for n in out.decode().split("\0") if n}
    except (OSError, subprocess.CalledProcessError):
        names = set()
        for folder, folders, found in os.walk(ROOT):
            folders[:] = [
                d for d in folders if not d.startswith(("build", ".git", "__pycache__", "target"))
            ]
            names.update(str((pathlib.Path(folder) / f).relative_to(ROOT)) for f in found)
    chosen = [
        n
        for n in names
        if (not suffixes or n.endswith(suffixes))
        and (not under or n.startswith(tuple(under)))
        and (ROOT / n).is_file()
    ]
    return sorted(chosen)


def read(path):
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code_only(text):
    """C text with comments and the insides of literals blanked; lines stay where they are."""

    def blank(match):
        piece = match.group(0)
        if piece[0] == "/":
            return re.sub(r"[^\n]", " ", piece)
        return piece[0] + " " * (len(piece) - 2) + piece[-1]

    return TOKEN.sub(blank, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


class Findings:
    """Collects what is wrong, each with its fix; report() prints and returns the exit code."""

    def __init__(self, name):
        self.name, self.lines, self.looked_at = name, [], 0

    def add(self, place, what, fix):
        self.lines.append(f"{place}: {what}\n    fix: {fix}")

    def report(self, unit="files"):
        for line in self.lines:
            print(line)
        state = "ok" if not self.lines else f"{len(self.lines)} finding(s)"
        print(f"{self.name}: {state} ({self.looked_at} {unit})")
        sys.stdout.flush()
        return 1 if self.lines else 0
