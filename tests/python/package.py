"""What the tests of the Python package share: the package itself, or the end of the test where it cannot be imported."""
import importlib.util
import os
import sys
import unittest

SOURCE = os.environ.get("DIL_SOURCE_DIR", os.path.join(os.path.dirname(__file__), "..", ".."))
DENSE = os.path.join(SOURCE, "models", "sigircik-dense.gguf")
SIGIRCIK = os.path.join(SOURCE, "models", "sigircik-moe.gguf")

missing = [name for name in ("numpy", "cffi", "hypothesis", "dilmodeli") if importlib.util.find_spec(name) is None]
if missing:
    print(f"skipped: {', '.join(missing)} missing")
    sys.exit(77)


def main() -> None:
    """Runs the tests of the calling file."""
    result = unittest.main(module="__main__", exit=False, verbosity=2).result
    sys.exit(0 if result.wasSuccessful() else 1)
