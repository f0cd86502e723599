"""The demos run, tell what they measured and draw: the layer and the whole system, in both languages, shortened."""
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(os.environ.get("DIL_SOURCE_DIR", Path(__file__).parents[2]))
BUILD = Path(os.environ.get("DIL_BUILD_DIR", SOURCE / "build/test"))
SMOLLM2 = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "dilmodeli/smollm2.gguf"
PROGRAMS = {demo: BUILD / "bin" / demo for demo in ("nash_suru_moe", "tam_sistem")}
SAME = {"c": "every bit", "python": "bit bit"}

if not all(p.is_file() for p in PROGRAMS.values()):
    print("skipped: the demos are not built")
    sys.exit(77)
HAS_PACKAGE = all(importlib.util.find_spec(name) for name in ("numpy", "cffi", "dilmodeli"))


def cells(story):
    """Tables of two columns: name -> value."""
    return dict(re.split(r" {2,}", ln.strip(), maxsplit=1) for ln in story.splitlines() if re.match(r"  \S.*\S {2,}\S", ln))


class Demos(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_demo(self, demo, language, **more):
        command = [PROGRAMS[demo]] if language == "c" else [sys.executable, SOURCE / "examples" / f"{demo}.py"]
        env = {**os.environ, "DIL_DEMO_QUICK": "1", "XDG_CACHE_HOME": str(self.folder / "cache"), **more}
        out = self.folder / f"{demo}-{language}"
        done = subprocess.run([*command, out], cwd=SOURCE, env=env, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        story = done.stdout
        pictures = re.findall(r"^picture: ([^:]+): .+$", story, re.M)
        for name in pictures:
            start = (out / name).read_bytes()[:15]
            self.assertIn(start[:5], (b"<?xml", b"<!DOC"), name)
            if name.endswith(".svg"):
                self.assertNotEqual((out / name).read_bytes(), (out / name.replace(".svg", "-dark.svg")).read_bytes())
        self.assertEqual(list(out.glob("*.gguf")), [], "files that nobody needs are left")
        (out / "story.txt").write_text(story, encoding="utf-8")
        return story, pictures

    def languages(self):
        return ("c", "python") if HAS_PACKAGE else ("c",)

    def test_nash_suru_moe(self):
        for language in self.languages():
            story, pictures = self.run_demo("nash_suru_moe", language)
            self.assertEqual(story.count(SAME[language]), 2, "outputs were not the same")
            self.assertEqual(sum(p.endswith(".html") for p in pictures), 1)
            self.assertGreaterEqual(len(pictures), 3)
            found = [
                float(re.search(r"[\d.]+", ln.replace(",", ".").split()[1]).group(0))
                for ln in story.splitlines()
                if re.match(r"  (swarm|lru|lfu|belady) ", ln)
            ]
            self.assertEqual(len(found), 4)
            self.assertEqual(max(found), found[3])
        page = subprocess.run([sys.executable, SOURCE / "scripts/demo_page.py", self.folder], capture_output=True, text=True)
        self.assertEqual((page.returncode, page.stdout.strip()), (0, str(self.folder / "index.html")))
        text = (self.folder / "index.html").read_text(encoding="utf-8")
        self.assertEqual(text.count("<article"), len(self.languages()))
        self.assertEqual(text.count("<iframe"), len(self.languages()))
        self.assertNotIn("not there", text)
        self.assertFalse(re.search(r"""(src|href)=["']?https?:""", text))

    def test_tam_sistem(self):
        for language in self.languages():
            story, pictures = self.run_demo("tam_sistem", language)
            self.assertEqual(len(pictures), 1)
            self.assertEqual(story.count("q8_0") > 1, SMOLLM2.is_file())
            summary = cells(story[story.rindex("## ") :])
            self.assertEqual(len(summary), 7 if SMOLLM2.is_file() else 5)
            for name, value in summary.items():
                self.assertRegex(value, r"\d", name)
                self.assertNotRegex(value, r"\b(nan|inf)\b", name)

    def test_without_the_model(self):
        nowhere = str(self.folder / "nowhere")
        story, _ = self.run_demo("tam_sistem", "c", XDG_DATA_HOME=nowhere)
        self.assertIn("dil pull smollm2", story)
        for command in ([BUILD / "bin/cpu_optimizer"], [sys.executable, SOURCE / "examples/cpu_optimizer.py"])[: len(self.languages())]:
            env = {**os.environ, "XDG_DATA_HOME": nowhere}
            done = subprocess.run([*command, self.folder / "x"], cwd=SOURCE, env=env, capture_output=True, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn("dil pull smollm2", done.stderr)


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=2).result
    sys.exit(0 if result.wasSuccessful() else 1)
