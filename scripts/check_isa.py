#!/usr/bin/env python3
"""Instruction sets: objects outside src/kernels/x86_* hold no AVX code, so the program starts on every x86-64 machine; bf16
instructions are in x86_avx512_bf16*.c only, so the AVX-512 level runs on CPUs without them.
usage: check_isa.py BUILD_DIR (a build with optimisation; needs objdump)"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

from common import Findings

# 256- and 512-bit registers, VEX/EVEX encodings of the 128-bit ones, and the general-register sets that come with AVX2.
WIDE = re.compile(
    r"\t(?:v[a-z0-9]+\s[^#<]*%xmm\d|[a-z0-9]+\s[^#<]*%[yz]mm\d|(?:mulx|shlx|shrx|sarx|rorx|pdep|pext|bzhi)[lq]?\s)"
)
BF16 = re.compile(r"\t(?:vdpbf16ps|vcvtne2?ps2bf16)[xy]?\s")


def first_code(path, pattern):
    """(function, instruction) of the first instruction that matches, or None; None too for objects of another machine."""
    done = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(path)], capture_output=True, text=True
    )
    if "x86-64" not in done.stdout:
        return None
    function = "?"
    for line in done.stdout.splitlines():
        if line.endswith(">:"):
            function = line.split("<")[-1][:-2]
        elif pattern.search(line):
            return function, " ".join(line.split()[1:])
    return None


def main():
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_dir():
        print(__doc__)
        return 2
    if not shutil.which("objdump"):
        print("isa: objdump is missing (apt install binutils), nothing was checked")
        return 1
    findings, build = Findings("isa"), pathlib.Path(sys.argv[1])
    objects = [
        p
        for p in sorted(build.rglob("*.o"))
        if "/src/" in p.as_posix().split("CMakeFiles", 1)[-1]
        and not p.name.startswith("x86_avx512_bf16")
    ]
    patterns = [BF16 if p.name.startswith("x86_avx") else WIDE for p in objects]
    findings.looked_at = len(objects)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, found in zip(objects, pool.map(first_code, objects, patterns)):
            if found:
                name = path.as_posix().split("/src/")[-1].removesuffix(".o")
                findings.add(
                    f"src/{name}",
                    f"{found[0]} uses '{found[1]}'",
                    "move the code into the src/kernels/x86_* file of its instruction set and reach it through the table of kernels.h",
                )
    if not objects:
        findings.add(
            str(build), "holds no objects of src/", "build it first: cmake --build " + str(build)
        )
    return findings.report("objects")


if __name__ == "__main__":
    sys.exit(main())
