#!/usr/bin/env python3
"""The checks themselves: each is run on a small tree that breaks one rule, and must say so; on a clean one it must not."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CLEAN = {
    "scripts/layers.txt": "base:\nfile: base\nkernels: base\nengine: all\nevaluate: engine*\n",
    "scripts/sizes_allowed.txt": "",
    "scripts/setup.sh": "have_library jansson || echo libjansson-dev\n",
    "cmake/libraries.cmake": "dil_library(jansson jansson)\n",
    "CMakeLists.txt": "dil_module(base)\ndil_module(file base)\ndil_module(engine base file)\ndil_module(evaluate engine)\n",
    "src/base/os.h": "#ifndef BASE_OS_H\n#define BASE_OS_H\nint os_open(void);\n#endif\n",
    "src/base/os.c": '#include "base/os.h"\n#include <unistd.h>\nint os_open(void)\n{\n    return open("x", 0);\n}\n',
    "src/file/gguf.h": '#ifndef FILE_GGUF_H\n#define FILE_GGUF_H\n#include "base/os.h"\n#endif\n',
    "src/file/gguf.c": '#include "file/gguf.h"\n/* exit(1); */\nint f(void)\n{\n    return os_open();\n}\n'
    'int g(void)\n{\n    return say(_("%s: no memory"), "x");\n}\n',
    "src/engine/engine.h": '#ifndef ENGINE_ENGINE_H\n#define ENGINE_ENGINE_H\n#include "file/gguf.h"\n#endif\n',
    "src/evaluate/eval.c": '#include "engine/engine.h"\n#include "file/gguf.h"\n',
    "po/tr.po": 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    '#, c-format\nmsgid "%s: no memory"\nmsgstr "%s: bellek yok"\n',
    "README.md": "# A\n## Two Words, one\n[b](README.tr.md#a) [a](#two-words-one)\n",
    "README.tr.md": "# A\n## B\n",
    "docs/THEOREM.md": '# A\n```python\nprint("one")  # word\n```\n',
    "docs/TEOREM.md": '# B\n```python\nprint("bir")  # kelime\n```\n',
    "CONTRIBUTING.md": "# A\n",
    "docs/ARCHITECTURE.md": "# A\n`base` `file` `engine` `evaluate` `src/base/os.c` `os_open()`\n",
    "docs/MIMARISI.md": "# B\n`base` `file` `engine` `evaluate`\n",
    "docs/USAGE.md": "# A\n```\ndil run -m x   # word\n```\n",
    "docs/KULLANIM.md": "# B\n```\ndil run -m x   # kelime\n```\n",
}
# (check, what it must say, {file: text that breaks the rule})
BROKEN = [
    (
        "layers",
        "may not include engine/engine.h",
        {"src/file/gguf.c": '#include "engine/engine.h"\n'},
    ),
    (
        "layers",
        "may not include base/os.h",
        {"src/evaluate/eval.c": '#include "base/os.h"\n', "src/engine/engine.h": ""},
    ),
    (
        "layers",
        "links evaluate, which its layer",
        {"CMakeLists.txt": CLEAN["CMakeLists.txt"] + "dil_module(kernels evaluate)\n"},
    ),
    (
        "layers",
        "does not link it",
        {"CMakeLists.txt": CLEAN["CMakeLists.txt"].replace("file base", "file")},
    ),
    ("layers", "zlib is unknown to", {"cmake/libraries.cmake": "dil_library(z zlib)\n"}),
    ("layers", "is not a module", {"src/util/x.c": "int x;\n"}),
    ("layers", "names no module", {"src/file/gguf.c": '#include "gguf.h"\n'}),
    ("sizes", "f has 103 lines", {"src/file/gguf.c": "int f(void)\n{\n" + "    ;\n" * 100 + "}\n"}),
    ("sizes", "M has 101 lines", {"src/file/gguf.c": "#define M \\\n" + " x; \\\n" * 99 + " y\n"}),
    ("sizes", "1001 lines, at most 1000", {"src/file/gguf.c": "int x;\n" * 1001}),
    ("sizes", "no longer exists", {"scripts/sizes_allowed.txt": "src/file/none.c 1200 reason\n"}),
    (
        "source",
        "printf() is not used here",
        {"src/file/gguf.c": '#include "file/gguf.h"\nvoid f(void) { printf("x"); }\n'},
    ),
    (
        "source",
        "mmap() is not used here",
        {"src/file/gguf.c": '#include "file/gguf.h"\nvoid f(void) { mmap(0); }\n'},
    ),
    (
        "source",
        "free() is not used here",
        {"src/base/os.c": '#include "base/os.h"\nvoid f(void *p) { free(p); }\n'},
    ),
    ("source", "strcpy() is not used here", {"src/cli/x.c": "void f(char *p) { strcpy(p, p); }\n"}),
    (
        "source",
        "pthread_create() is not used here",
        {"src/engine/x.c": "void f(void) { pthread_create(0, 0, 0, 0); }\n"},
    ),
    ("source", "<unistd.h> is not included here", {"src/engine/x.c": "#include <unistd.h>\n"}),
    ("source", "header guard is missing", {"src/file/b.h": "int x;\n"}),
    ("source", "wanted FILE_B_H", {"src/file/b.h": "#ifndef B_H\n#define B_H\n#endif\n"}),
    (
        "source",
        "does not compile alone",
        {"src/file/b.h": "#ifndef FILE_B_H\n#define FILE_B_H\nsize_t x(void);\n#endif\n"},
    ),
    (
        "source",
        'wanted "file/gguf.h"',
        {"src/file/gguf.c": '#include <stdio.h>\n#include "file/gguf.h"\n'},
    ),
    ("source", "at compile time", {"src/kernels/a.c": "#ifdef __AVX2__\n#endif\n"}),
    ("source", "without an issue number", {"src/engine/x.c": "/* TO" + "DO: later */\n"}),
    ("source", "path of one machine", {"src/engine/x.c": 'const char *p = "/ro' + 'ot/x";\n'}),
    ("docs", "2 headings", {"docs/MIMARISI.md": CLEAN["docs/MIMARISI.md"] + "## C\n"}),
    ("docs", "lacks the command 'dil run -m x'", {"docs/KULLANIM.md": "# B\n"}),
    ("docs", "`src/base/no.c` does not exist", {"README.md": "# A\n`src/base/no.c`\n"}),
    ("docs", "is no function", {"README.md": "# A\n`os_close()`\n"}),
    ("docs", "module file is missing", {"docs/MIMARISI.md": "# B\n`base` `engine` `evaluate`\n"}),
    ("docs", "has other Python programs", {"docs/TEOREM.md": "# B\n```python\nprint(2)\n```\n"}),
    ("docs", "link to NO.md, which does not", {"CONTRIBUTING.md": "# A\n[b](NO.md)\n"}),
    ("docs", "#b, which is no heading", {"CONTRIBUTING.md": "# A\n[b](README.md#b)\n"}),
    (
        "docs",
        "says nothing of dil run",
        {"docs/USAGE.md": "# A\n", "docs/KULLANIM.md": "# B\n"},
    ),
    ("docs", "is no subcommand", {"README.md": "# A\n`dil fly`\n"}),
    ("docs", "has no option --wings", {"README.md": "# A\n`dil run --wings`\n"}),
    ("translations", "is not in po/tr.po", {"src/engine/x.c": 'const char *t = N_("no room");\n'}),
    ("translations", "is not translated", {"po/tr.po": CLEAN["po/tr.po"].replace("%s: bellek yok", "")}),
    ("translations", "is fuzzy", {"po/tr.po": CLEAN["po/tr.po"].replace("#, c", "#, fuzzy, c")}),
    ("translations", "takes ['s']", {"po/tr.po": CLEAN["po/tr.po"].replace("%s: b", "%d: b")}),
    (
        "translations",
        "beside %s",
        {
            "src/file/gguf.c": 'const char *t = N_("%s: %d rooms");\n',
            "po/tr.po": CLEAN["po/tr.po"].replace("no memory", "%d rooms").replace("%s: bellek yok", "%2$d oda: %s"),
        },
    ),
    ("translations", "is in no source", {"src/file/gguf.c": "int x;\n"}),
    ("translations", "begins or ends", {"po/tr.po": CLEAN["po/tr.po"].replace("yok", "yok\\n")}),
    ("translations", "and not marked", {"src/cli/x.c": 'const char *t = "there is no room";\n'}),
]
CHECKS = ["layers", "sizes", "source", "docs", *(["translations"] if shutil.which("xgettext") else [])]
BINARY = "#!/bin/sh\necho '  run  one answer'\necho '  -m MODEL'\n"
BF16 = 'void f(void);\nvoid f(void) { __asm__("vdpbf16ps %zmm0, %zmm1, %zmm2"); }\n'
AVX = 'void f(void);\nvoid f(void) { __asm__("vpaddd %ymm0, %ymm1, %ymm2"); }\n'


def run(check, tree, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**tree, "dil": BINARY}.items():
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        pathlib.Path(folder, "dil").chmod(0o755)
        if check == "docs":
            arguments = ("--binary", folder + "/dil")
        done = subprocess.run(
            [sys.executable, str(HERE / f"check_{check}.py"), *arguments],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "DIL_CHECK_ROOT": folder,
                "GIT_CEILING_DIRECTORIES": str(pathlib.Path(folder).parent),
            },
        )
    return done.returncode, done.stdout + done.stderr


PLAIN_PYTHON = f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n'  # without installed packages
# (document, exit code, what must be said)
PAGES = [
    ("```\ndil run -m x\n```\n", 0, "1 commands ended well, 0 did not, 0 were not run"),
    ("```\nfile -> model\n```\n```json\n{}\n```\n", 0, "0 commands ended well, 0 did not"),
    ("```sh\nfalse\n```\n", 1, "wanted 0, found 1"),
    ("```sh\nfalse | cat\n```\n", 1, "failed: README.md:2"),
    ("```sh\n$ cat <<E\n> a\nE\n$ true\nfalse\n```\n", 0, "2 commands ended well"),
    ("<!-- not run: too long -->\n```sh\nfalse\n```\n", 0, "too long"),
    ("<!-- run with: true -->\n```sh\nfalse\nfalse\n```\n", 0, "1 commands ended well"),
    ('<!-- run "-n 9" with: true -->\n```sh\nfalse -n 9\ntrue\n```\n', 0, "2 commands ended"),
    ('<!-- not run "here": no -->\n```sh\ntrue\n```\n', 1, 'no command holds "here"'),
    ("```sh\nfalse slow\ntrue\n```\n", 0, "1 commands ended well, 0 did not, 1 were not run"),
    ("<!-- file: a.json -->\n```json\n{}\n```\n```sh\ntest -s a.json\n```\n", 0, "1 commands"),
    ("```sh\ntest -s wiki.txt && test -s en.txt.zst\n```\n", 0, "1 commands ended well"),
    ("```sh\nsleep 60\n```\n", 1, "no end after 4.0 s"),
    ("```python\nassert 1 + 1 == 3\n```\n", 1, "AssertionError"),
    ("```python\n>>> 1 + 1\n3\n```\n", 1, "Expected"),
    ("```python\nimport dilmodeli\n```\n", 0, "skipped: Python does not find"),
]


def check_run_docs(failures):
    """The runner of the documents' commands, on pages with one thing to see each."""
    for page, wanted, text in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "README.md").write_text(page)
            pathlib.Path(folder, "dil").write_text(BINARY)
            pathlib.Path(folder, "python").write_text(PLAIN_PYTHON)
            for name in ("dil", "python"):
                pathlib.Path(folder, name).chmod(0o755)
            done = subprocess.run(
                [
                    sys.executable,
                    str(HERE / "run_docs.py"),
                    "--timeout=4",
                    "--skip=slow",
                    f"--python={folder}/python",
                    f"--binary={folder}/dil",
                ],
                capture_output=True,
                text=True,
                env={**os.environ, "DIL_CHECK_ROOT": folder},
            )
        if done.returncode != wanted or text not in done.stdout:
            failures.append(f"run_docs: wanted '{text}', exit {wanted}:\n{page}{done.stdout}")
    return len(PAGES)


def check_isa(failures):
    """The leak check on objects with and without code of another instruction set."""
    if not (shutil.which("gcc") and shutil.which("objdump") and os.uname().machine == "x86_64"):
        return 0
    for name, text, wanted in (
        ("plain", "int f(int x);\nint f(int x) { return x + 1; }\n", 0),
        ("leak", AVX, 1),
        ("x86_avx512", AVX, 0),
        ("x86_avx512_gemm", BF16, 1),
    ):
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder, "CMakeFiles/dil_base.dir/src/base")
            target.mkdir(parents=True)
            subprocess.run(
                ["gcc", "-x", "c", "-c", "-", "-o", str(target / f"{name}.c.o")],
                input=text,
                text=True,
                check=True,
            )
            done = subprocess.run(
                [sys.executable, str(HERE / "check_isa.py"), folder], capture_output=True, text=True
            )
        if done.returncode != wanted:
            failures.append(
                f"isa: {name}: exit {done.returncode}, wanted {wanted}\n{done.stdout}{done.stderr}"
            )
    return 4


def main():
    failures, n = [], 0
    for check in CHECKS:
        code, text = run(check, CLEAN)
        n += 1
        if code != 0:
            failures.append(f"{check}: finds something in the clean tree:\n{text}")
    for check, wanted, changes in BROKEN:
        if check not in CHECKS:
            continue
        code, text = run(check, {**CLEAN, **changes})
        n += 1
        if code != 1 or wanted not in text or "fix:" not in text:
            failures.append(f"{check}: wanted '{wanted}', exit {code}:\n{text}")
    n += check_run_docs(failures)
    n += check_isa(failures)
    for failure in failures:
        print(failure)
    print(f"checks: {n - len(failures)} of {n} self-tests passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
