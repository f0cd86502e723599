"""`pip install` of the tree into a clean virtual environment gives the package with its library and the command. Builds everything again,
so only with DIL_PIP=1, as continuous integration sets it; skips without a package index."""
import os
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("DIL_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PROGRAM = """
import numpy as np
import dilmodeli
from dilmodeli.moe.nash_suru_router import NashSuruMoE
y, info = NashSuruMoE(32, 4, 2)(np.ones((3, 32)), return_routing_info=True)
assert y.shape == (3, 32) and info["secilen_uzmanlar"].shape == (3, 2)
print(dilmodeli.__version__, dilmodeli.__file__)
"""

if os.environ.get("DIL_PIP") != "1":
    print("skipped: DIL_PIP=1 runs it")
    sys.exit(77)


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        print(" ".join(command), done.stdout[-3000:], done.stderr[-3000:], sep="\n")
    return done


with tempfile.TemporaryDirectory() as folder:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DIL_PYTHON")}
    venv = os.path.join(folder, "venv")
    if run(sys.executable, "-m", "venv", venv).returncode != 0:
        print("skipped: no virtual environments here")
        sys.exit(77)
    python = os.path.join(venv, "bin", "python")
    if run(python, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, "cffi", env=environment).returncode != 0:
        print("skipped: no package index")
        sys.exit(77)
    if run(python, "-m", "pip", "install", "--quiet", SOURCE, env=environment).returncode != 0:
        sys.exit(1)
    used = run(python, "-c", PROGRAM, cwd=folder, env=environment)
    version = run(os.path.join(venv, "bin", "dil"), "--version", cwd=folder, env=environment)
    print(used.stdout, version.stdout)
    inside = used.returncode == 0 and os.path.realpath(used.stdout.split()[1]).startswith(os.path.realpath(venv))
    sys.exit(0 if inside and version.returncode == 0 and used.stdout.split()[0] == version.stdout.split()[-1] else 1)
