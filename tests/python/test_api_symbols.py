#!/usr/bin/env python3
"""The shared library exports the calls of dilmodeli.h, all of them and nothing else; every call has a comment before it.

Environment: DIL_BUILD_DIR, DIL_SOURCE_DIR. Ends with 77 when there is no library or no nm.
"""
import os
import re
import shutil
import subprocess
import sys

library = os.path.join(os.environ.get("DIL_BUILD_DIR", ""), "lib", "libdilmodeli.so")
if not os.path.exists(library) or not shutil.which("nm"):
    print("skipped: no libdilmodeli.so in the build, or no nm")
    sys.exit(77)

with open(os.path.join(os.environ["DIL_SOURCE_DIR"], "include", "dilmodeli.h"), encoding="utf-8") as f:
    header = f.read()
declared = set(re.findall(r"^DIL_API [^;(]*?\b(dil_\w+)\(", header, re.M))
exported = {line.split()[-1].split("@")[0] for line in
            subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout.splitlines()}
exported -= {"_init", "_fini"}
failures = [f"exported but not in the header: {n}" for n in sorted(exported - declared)]
failures += [f"in the header but not exported: {n}" for n in sorted(declared - exported)]
if len(declared) < 10:
    failures.append(f"only {len(declared)} calls found in the header: the pattern of this test is stale")
for line in failures:
    print(line)
print(f"{len(declared)} calls declared, {len(exported)} symbols exported, {len(failures)} findings")
sys.exit(1 if failures else 0)
