#!/usr/bin/env python3
"""Source rules: banned calls and headers by module, header guards, headers that compile alone, own header first, no ISA
branches in kernels, no unowned to-do marks, no paths of one machine. What each rule is for stands in its table below.
"""

import concurrent.futures
import os
import re
import shlex
import shutil
import subprocess
import sys

from common import ROOT, Findings, code_only, files, line_of, read

# (calls, where they are allowed, what to use instead). A place is a folder or a file of the tree; () is nowhere.
CALLS = [
    (
        "strcpy strncpy strcat strncat sprintf vsprintf stpcpy gets",
        (),
        "strbuf_* or snprintf with the size of the target",
    ),
    ("strtok strtok_r", (), "walk a str slice"),
    ("atoi atol atoll atof", (), "str_to_i64 or str_to_f64 (strict, without locale)"),
    ("setlocale", (), "nothing: the process stays in the C locale"),
    ("uselocale newlocale", ("src/base/os_linux_machine.c",), "os_utf8_input() for typed characters; nothing else has a locale"),
    ("alloca", (), "arena_alloc on the scratch arena"),
    ("rand srand random srandom drand48", (), "rng_bits(seed, position, draw)"),
    (
        "strtol strtoll strtoul strtoull strtod strtof strtold",
        ("src/base/",),
        "str_to_i64 or str_to_f64",
    ),
    (
        "strcasecmp strncasecmp tolower toupper",
        ("src/base/",),
        "str_equal_nocase (ASCII only, the Turkish dotless i)",
    ),
    (
        "malloc calloc realloc reallocarray free strdup strndup aligned_alloc posix_memalign memalign asprintf vasprintf",
        ("src/base/mem",),
        "mem_alloc, mem_grow, mem_free or an arena",
    ),
    (
        "printf vprintf fprintf vfprintf puts fputs putchar fputc putc perror fflush",
        ("src/cli/",),
        "return a status with a text (DIL_FAIL), or hand the text to the caller; only cli prints",
    ),
    (
        "exit _exit _Exit quick_exit atexit abort",
        ("src/cli/main.c",),
        "return a status; cli returns its exit code from main",
    ),
    ("assert", (), "a real if with DIL_FAIL(err, DIL_INTERNAL, ...)"),
    (
        "open openat creat fopen freopen fdopen mmap munmap madvise pread pwrite ftruncate mkstemp rename unlink rmdir mkdir "
        "opendir readdir closedir stat fstat lstat getenv setenv isatty ioctl sysconf clock_gettime gettimeofday nanosleep usleep "
        "sleep fork vfork execv execve execvp execvpe execl execlp posix_spawn posix_spawnp popen pclose system waitpid kill "
        "signal sigaction syscall dlopen",
        ("src/base/",),
        "the os_* call of base/os.h; add one there when it is missing",
    ),
    (r"pthread_\w+ thrd_\w+ mtx_\w+ sched_\w+", ("src/base/",), "team_* of base/threads.h"),
]
# (headers, where they are allowed, what to do instead)
HEADERS = [
    (
        r"(unistd|fcntl|pthread|threads|signal|dirent|sched|dlfcn|spawn|termios|setjmp|cpuid)\.h|(sys|linux|asm)/.*",
        ("src/base/",),
        "only base talks to the system: use base/os.h, base/cpu.h, base/threads.h",
    ),
    (r"assert\.h|alloca\.h", (), "see CONTRIBUTING.md: no assert, no alloca"),
    (r"locale\.h", ("src/base/os_linux_machine.c",), "os_utf8_input() for typed characters; nothing else has a locale"),
    (
        r"(imm|x86|xmm|emm|pmm|tmm|smm|avx)\w*intrin\.h|arm_\w+\.h",
        ("src/kernels/x86_", "src/kernels/arm_"),
        "intrinsics live in the file of their instruction set, behind kernels.h",
    ),
    (r"hwloc.*", ("src/machine/",), "go through machine"),
    (r"pcre2.*|utf8proc\.h", ("src/tokens/",), "go through tokens"),
    (r"cairo.*", ("src/view/",), "draw with view/canvas.h"),
    (r"liburing.*", ("src/base/",), "go through base/aio.h"),
    (
        r"xxhash\.h",
        ("src/model/", "src/experts/", "src/train/", "src/quantize/work", "src/machine/facts", "src/engine/profile"),
        "checksums of files belong to model (packed weights), experts (the pool, traces), train (tokens, checkpoints), quantize/work, machine/facts and engine/profile",
    ),
    (r"zstd.*", ("src/train/",), "only texts for training are compressed: corpus_read"),
    (
        r"jansson\.h|curl/.*|gnutls/.*|histedit\.h|editline/.*",
        ("src/cli/", "src/serve/", "src/evaluate/", "src/api/", "src/train/config", "src/view/", "src/engine/profile", "src/quantize/report"),
        "go through cli",
    ),
]
MARK = re.compile(
    r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b(?!\(#\d+\))"
)
MACHINE_PATH = re.compile(
    r"(?<![\w.$}~-])/(work|root|farm|Users)/|(?<![\w.$}~-])/home/(?!\$)\w|(?<![\w.$}~-])/tmp/"
)
PATHS_OF_TESTS = ("tests/", "fuzz/", "docs/")  # may name /tmp/ as an example
ISA_FLAGS = {
    "x86_avx2": "-mavx2 -mfma -mf16c -mbmi2",
    "x86_avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mavx2 -mfma "
    "-mf16c -mbmi2",
}


def is_in(path, places):
    return path.startswith(tuple(places)) if places else False


def check_calls(path, text, code, findings):
    for names, places, instead in CALLS:
        if is_in(path, places):
            continue
        # a call: the bare name before '(', not a member (x.open(...)), not part of a longer name, not a declaration's own name
        for match in re.finditer(r"(?<![\w.])(?<!->)(" + "|".join(names.split()) + r")\s*\(", code):
            findings.add(
                f"{path}:{line_of(text, match.start())}",
                f"{match.group(1)}() is not used here",
                instead,
            )


def check_headers_used(path, text, code, findings):
    for match in re.finditer(r"^[ \t]*#[ \t]*include[ \t]*<([^>\n]+)>", code, re.M):
        for pattern, places, instead in HEADERS:
            if re.fullmatch(pattern, match.group(1)) and not is_in(path, places):
                findings.add(
                    f"{path}:{line_of(text, match.start())}",
                    f"<{match.group(1)}> is not included here",
                    instead,
                )


def check_shape(path, text, code, findings):
    """Guards, own header first, no ISA branches."""
    if path.endswith(".h"):
        parts = path.split("/")
        guard = re.sub(
            r"\W", "_", ("_".join(parts[1:]) if parts[0] == "src" else parts[-1])
        ).upper()
        first = re.search(
            r"^[ \t]*#[ \t]*ifndef[ \t]+(\w+)[ \t]*\n[ \t]*#[ \t]*define[ \t]+(\w+)", code, re.M
        )
        if not first or first.group(1) != guard or first.group(2) != guard:
            findings.add(
                path,
                f"header guard is {first.group(1) if first else 'missing'}, wanted {guard}",
                f"#ifndef {guard} / #define {guard} / #endif around the file",
            )
    if path.endswith(".c") and (ROOT / (path[:-2] + ".h")).is_file():
        own = path[len("src/") : -2] + ".h"
        first = re.search(r'^[ \t]*#[ \t]*include[ \t]*([<"][^>"\n]+[>"])', text, re.M)
        if not first or first.group(1) != f'"{own}"':
            findings.add(
                path,
                f'first include is {first.group(1) if first else "none"}, wanted "{own}"',
                "include the own header first: it proves that the header stands alone",
            )
    if path.startswith("src/kernels/"):
        for match in re.finditer(
            r"^[ \t]*#[ \t]*(?:if|elif|ifdef)\b[^\n]*__(?:AVX|SSE|F16C|FMA|ARM_FEATURE)\w*",
            code,
            re.M,
        ):
            findings.add(
                f"{path}:{line_of(text, match.start())}",
                "branches on the instruction set at compile time",
                "one file per instruction set; the table of kernels.h chooses at run time",
            )


def check_marks(findings):
    for path in files(
        ".c",
        ".h",
        ".inc",
        ".rs",
        ".py",
        ".sh",
        ".txt",
        ".cmake",
        ".md",
        ".toml",
        ".json",
        "Makefile",
        ".ci/run",
    ):
        if path in ("scripts/check_source.py",) or path.endswith(".lock"):
            continue
        text = read(path)
        for match in MARK.finditer(text) if not path.endswith(".md") else ():
            findings.add(
                f"{path}:{line_of(text, match.start())}",
                f"{match.group(1)} without an issue number",
                f"write {match.group(1)}(#12), or do it now",
            )
        for match in MACHINE_PATH.finditer(text):
            if match.group(0) == "/tmp/" and is_in(path, PATHS_OF_TESTS):
                continue
            findings.add(
                f"{path}:{line_of(text, match.start())}",
                f"path of one machine: {match.group(0)}...",
                "use a path inside the tree, an option, or $TMPDIR / $XDG_CACHE_HOME",
            )


def check_headers_alone(findings):
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        print("source: no C compiler, headers are not compiled alone")
        return
    packages = (
        subprocess.run(
            [
                "pkg-config",
                "--cflags",
                "libpcre2-8",
                "libutf8proc",
                "libxxhash",
                "libzstd",
                "jansson",
                "libcurl",
                "libedit",
            ],
            capture_output=True,
            text=True,
        )
        if shutil.which("pkg-config")
        else None
    )
    base = [
        *shlex.split(compiler),
        "-fsyntax-only",
        "-std=c17",
        "-D_GNU_SOURCE",
        "-Wall",
        "-Wextra",
        "-Wno-unused-function",
        "-Werror",
        f"-I{ROOT}/src",
        f"-I{ROOT}/include",
        f"-I{ROOT}/bridge",
        f"-I{ROOT}/bridge/include",
        *(packages.stdout.split() if packages and packages.returncode == 0 else []),
    ]

    def compile_alone(path):
        isa = next(
            (
                flags
                for prefix, flags in ISA_FLAGS.items()
                if path.startswith(f"src/kernels/{prefix}")
            ),
            "",
        )
        if path.startswith("src/kernels/arm_"):
            return path, ""
        name = path.removeprefix("src/").removeprefix("include/")
        done = subprocess.run(
            [*base, *isa.split(), "-x", "c", "-"],
            input=f'#include "{name}"\n',
            capture_output=True,
            text=True,
        )
        return path, (
            ""
            if done.returncode == 0
            else next((ln for ln in done.stderr.splitlines() if "error" in ln), done.stderr[:200])
        )

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, error in pool.map(compile_alone, files(".h", under=["src/", "include/"])):
            if error:
                findings.add(
                    path,
                    f"does not compile alone: {error.replace(str(ROOT) + '/', '')}",
                    "include what it uses, or declare the types it only points to",
                )


def main():
    findings = Findings("source")
    for path in files(".c", ".h", ".inc", under=["src/", "include/"]):
        findings.looked_at += 1
        text = read(path)
        code = code_only(text)
        check_calls(path, text, code, findings)
        check_headers_used(path, text, code, findings)
        check_shape(path, text, code, findings)
    check_marks(findings)
    check_headers_alone(findings)
    return findings.report()


if __name__ == "__main__":
    sys.exit(main())
