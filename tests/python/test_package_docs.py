"""The examples in the package's docstrings do what they say, every public name has a docstring, and the types hold (mypy, where it is)."""
import doctest
import importlib
import importlib.util
import inspect
import os
import pkgutil
import subprocess
import sys
import unittest

import package
import dilmodeli

MODULES = [importlib.import_module(m.name) for m in pkgutil.walk_packages(dilmodeli.__path__, "dilmodeli.") if not m.name.endswith("_bindings")]


class Docs(unittest.TestCase):
    def test_examples(self):
        tried = 0
        for module in MODULES:
            result = doctest.testmod(module)
            self.assertEqual(result.failed, 0, module.__name__)
            tried += result.attempted
        self.assertGreater(tried, 10)

    def test_everything_public_says_what_it_does(self):
        silent = []
        for module in MODULES:
            for name, thing in vars(module).items():
                if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                    continue
                if not inspect.getdoc(thing):
                    silent.append(f"{module.__name__}.{name}")
                if inspect.isclass(thing):
                    silent += [
                        f"{module.__name__}.{name}.{m}"
                        for m, f in vars(thing).items()
                        if not m.startswith("_") and (inspect.isfunction(f) or isinstance(f, (property, classmethod, staticmethod))) and not inspect.getdoc(f)
                    ]
        self.assertEqual(silent, [])

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "no mypy")
    def test_types(self):
        folder = os.path.dirname(os.path.dirname(dilmodeli.__file__))
        run = subprocess.run(
            [sys.executable, "-m", "mypy", "--config-file", os.path.join(package.SOURCE, "pyproject.toml"), "--cache-dir", os.devnull, "dilmodeli"],
            cwd=folder, capture_output=True, text=True,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)


if __name__ == "__main__":
    package.main()
