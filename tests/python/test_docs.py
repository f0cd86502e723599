#!/usr/bin/env python3
"""The quick ones of the commands and programs that the documents show: scripts/run_docs.py without those that measure, train or make
models smaller, and without what needs their files. All of them: CONTRIBUTING.md.

Environment: DIL_BINARY, DIL_SOURCE_DIR. Ends with 77 without the command; what needs a fetched model is skipped where it is not there.
"""
import os
import subprocess
import sys

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BINARY = os.environ.get("DIL_BINARY", "")
SLOW = "plan|tune|bench|quantize|calibrate|refine|prune|train|export|kus|small.json|speeds.json|q3.json|smollm2 -f wiki|hellaswag"

if not os.access(BINARY, os.X_OK):
    print("skipped: wanted the command in $DIL_BINARY, found none")
    sys.exit(77)
sys.exit(subprocess.run([sys.executable, os.path.join(SOURCE, "scripts", "run_docs.py"), "--binary", BINARY, "--skip", SLOW]).returncode)
